#!/usr/bin/env python3
"""Begin with your own data: read endpoints of the service into a seed for the emulator.

It sends only GETs, one at a time with a pause between. The seed has neither passwords nor tokens nor the master key;
what was left out, and what the service does not tell, is said on stderr. It takes Python 3.11 and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import re
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, quote_plus, urlencode, urlsplit

SECRETS = {"password", "passwordconfirmation", "verificationtoken", "accesstoken", "refreshtoken", "token"}
TIMES = ("createdAt", "updatedAt")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
REMOVED = "(master key)"


class PullError(Exception):
    """What keeps an endpoint from being read."""


class Answer(NamedTuple):
    """What the service has answered."""

    status: int
    body: bytes


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Lets a redirect fail as any other answer does: the master key is for BASE alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Pull what the command line asks for; return 0, or 1 where it is not to be had."""
    options, code = read_command_line(argv), 0
    try:
        seed, notes = pull(options)
        text = write_seed(seed)
        if options.output:
            draft = Path(f"{options.output}.part")
            draft.write_bytes(text)
            draft.replace(options.output)
        else:
            sys.stdout.buffer.write(text)
    except (PullError, OSError) as error:
        notes, code = [f"Nothing was pulled. {error}"], 1
    for line in notes:
        for spelled in (options.master_key, quote(options.master_key, safe=""), quote_plus(options.master_key)):
            line = line.replace(spelled, REMOVED)
        print(line, file=sys.stderr)
    return code


def read_command_line(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; exit with 2 where they are wrong."""
    parser = argparse.ArgumentParser(description="Read endpoints of the service into a seed for the emulator.")
    parser.add_argument("base", metavar="BASE", help="scheme and host of the service, as https://app.rested.dev")
    parser.add_argument("endpoints", metavar="ENDPOINT", nargs="+", help="the name of an endpoint")
    parser.add_argument("--key", required=True, help="the API key of the project")
    parser.add_argument("--master-key", required=True, help="its master key, which is sent to BASE alone")
    parser.add_argument("--auth", metavar="NAME", action="append", default=[], help="an ENDPOINT of users; repeatable")
    parser.add_argument("--secure", metavar="NAME", action="append", default=[], help="a secure ENDPOINT; repeatable")
    parser.add_argument("--output", metavar="FILE", help="where the seed goes; default stdout")
    parser.add_argument("--pause", type=seconds, default=1.0, metavar="SECONDS", help="between requests; default 1")
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="SECONDS", help="of each request; default 60")
    options = parser.parse_intermixed_args(argv)
    parts = urlsplit(options.base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        parser.error("BASE is scheme and host, as https://app.rested.dev")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        parser.error("BASE has to be https, since the master key is sent there")
    if not options.master_key:
        parser.error("the master key is empty")
    if not all(re.fullmatch(r"[a-z0-9][a-z0-9/-]*", name) for name in options.endpoints):
        parser.error("an ENDPOINT has only a-z, 0-9, - and /")
    if not {*options.auth, *options.secure} <= set(options.endpoints):
        parser.error("--auth and --secure say more about an ENDPOINT, so name it there too")
    return options


def seconds(text: str) -> float:
    """Return a time that is no less than nothing; raises ValueError."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


def pull(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Read every endpoint; return the seed, and what is to be said about it. Raises PullError."""
    endpoints: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    notes = []
    for name in dict.fromkeys(options.endpoints):
        if endpoints:
            time.sleep(options.pause)
        records = read_records(name, get(options, name, masterKey=options.master_key))
        time.sleep(options.pause)
        first = {"uniqueId": next(iter(records))} if records else {}
        kind, told = guess_kind(options, name, get(options, name, **first).status, records)
        endpoints[name] = {"project": options.key, **kind}
        left_out: Counter[str] = Counter()
        tables[name] = {unique_id: clean(record, options, left_out) for unique_id, record in records.items()}
        without = "".join(f"; left out: {what} ({count})" for what, count in left_out.items())
        notes.append(f"{name}: {len(records)} records, {told}{without}.")
    notes.append("Not to be had: owners of records, uploaded files, options and origins of the project.")
    return {"_projects": {options.key: {"name": "pulled data"}}, "_endpoints": endpoints, **tables}, notes


def get(options: argparse.Namespace, name: str, **parameters: str) -> Answer:
    """Send one GET and return its answer. Raises PullError where no whole answer comes in time.

    A thread asks, since the timeout of a socket begins anew with every byte.
    """
    query = urlencode({"key": options.key, **parameters})
    request = urllib.request.Request(f"{options.base.rstrip('/')}/api/1/ce/{quote(name)}?{query}")
    request.add_header("User-Agent", "rested-emulator-pull-seed")
    outcome: queue.SimpleQueue[Answer | str] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(ask(request, options.timeout)), daemon=True).start()
    try:
        answer = outcome.get(timeout=options.timeout)
    except queue.Empty:
        answer = f"nothing whole within {options.timeout:g} s, which --timeout lifts"
    if isinstance(answer, str):
        raise PullError(f"{name}: {answer}.")
    return answer


def ask(request: urllib.request.Request, timeout: float) -> Answer | str:
    """Return the answer to a request, whatever its status, or why there is none."""
    try:
        try:
            response = urllib.request.build_opener(NoRedirect).open(request, timeout=timeout + 1)
        except HTTPError as error:
            response = error
        with response:
            return Answer(response.status, response.read())
    except URLError as error:
        return f"no answer ({error.reason})"
    except (OSError, HTTPException, ValueError) as error:
        return f"no whole answer ({error!r})"


def read_records(name: str, answer: Answer) -> dict[str, Any]:
    """Return the records of a list by their ids. Raises PullError for anything else."""
    try:
        content = json.loads(answer.body, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        content = None
    if answer.status != 200:
        told = content.get("message") if isinstance(content, dict) else None
        raise PullError(f"{name}: {answer.status} {told or 'without a message'}")
    if not isinstance(content, list):
        raise PullError(f"{name}: an answer of {len(answer.body)} bytes is no list of records.")
    records: dict[str, Any] = {}
    for number, record in enumerate(content, 1):
        unique_id = record.get("uniqueId") if isinstance(record, dict) else None
        if not isinstance(unique_id, str) or "data" not in record or unique_id in records:
            raise PullError(f"{name}: record {number} of {len(content)} has no uniqueId of its own, or no data.")
        records[unique_id] = record
    return records


def refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which are no JSON."""
    raise ValueError(name)


def guess_kind(
    options: argparse.Namespace, name: str, status: int, records: dict[str, Any]
) -> tuple[dict[str, bool], str]:
    """Return what kind of endpoint it is, by the status of a GET without master key and by its records."""
    users = [record["data"] for record in records.values() if is_user(record["data"])]
    looks_like_users = bool(users) and len(users) == len(records)
    if name in options.auth or (name not in options.secure and status == 401 and looks_like_users):
        return {"authentication": True}, "of users, who cannot log in until they have a password"
    if name in options.secure or status == 401:
        return {"secure": True}, "for logged-in users (if it is for logging in, pull it with --auth)"
    told = "open" if status == 200 else f"taken for open, though a GET was answered {status} (--secure says otherwise)"
    return {}, told


def is_user(data: Any) -> bool:
    """Say whether this is what somebody could log in with."""
    return isinstance(data, dict) and any(isinstance(data.get(name), str) for name in ("username", "email"))


def clean(record: dict[str, Any], options: argparse.Namespace, left_out: Counter[str]) -> dict[str, Any]:
    """Return a record without secrets, and count what is missing then."""

    def without_secrets(value: Any) -> Any:
        if isinstance(value, list):
            return [without_secrets(item) for item in value]
        if isinstance(value, dict):
            secret = [name for name in value if name.lower() in SECRETS]
            left_out.update(f"members named {name}" for name in secret)
            return {without_secrets(name): without_secrets(item) for name, item in value.items() if name not in secret}
        if isinstance(value, str) and options.master_key in value:
            left_out["texts with the master key"] += 1
            return value.replace(options.master_key, REMOVED)
        return value

    times = {name: record[name] for name in TIMES if name in record}
    return {"data": without_secrets(record["data"]), **times}


def write_seed(seed: dict[str, Any]) -> bytes:
    """Return a seed as it stands in a file, a line for each record. Raises PullError for what no file can say."""
    tables = []
    for name, table in seed.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
        tables.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    try:
        return ("{\n" + ",\n".join(tables) + "\n}\n").encode()
    except UnicodeEncodeError as error:
        raise PullError(f"A record has half of a character: {error.object[error.start]!r}.") from None


if __name__ == "__main__":
    sys.exit(main())
