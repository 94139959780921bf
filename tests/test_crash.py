"""SIGKILL at random moments: nothing acknowledged is lost, nothing is there twice, the file is always JSON.

``pytest tests/test_crash.py --rounds 200`` kills 200 times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB

from rested_emulator import Options, open_store
from tests.conftest import ROOT
from tests.wire import PROGRAM

ENDPOINT = "examples/unsecure-endpoint"
IN_PLACE = """
import itertools, json, os, sys
from rested_emulator import Options, Record, open_store

def replace(source, target):
    raise OSError(16, "Device or resource busy")

os.replace = replace
store = open_store(Options(data=sys.argv[1]))
last = store.record("notes/count", "c")
for number in itertools.count(last.data + 1 if last else 0):
    text = json.dumps("x" * (number * 7919 % 9000)).encode()
    store.put_record("notes/open", Record.of(f"n{number}", text, *["2027-01-15T08:00:00.000Z"] * 2))
    store.drop_record("notes/open", f"n{number - 20}")
    store.put_record("notes/count", Record.of("c", json.dumps(number).encode(), *["2027-01-15T08:00:00.000Z"] * 2))
    print(number, flush=True)
    store.file.save()
"""
WRITERS = 4


@contextmanager
def emulator(data: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The real program on a data file; killed at the end, whatever happens."""
    process = subprocess.Popen(
        [*PROGRAM, str(data), "--port", "0", "--json", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, "it did not start"
        yield process, json.loads(line)
    finally:
        process.kill()
        _, said = process.communicate(timeout=10)
    assert said == "", "there is nothing to warn of: the journal is of this data file"


class Writer(threading.Thread):
    """A client that writes without end, and remembers what it was told; ``open`` is what it was not told."""

    def __init__(self, facts: dict[str, Any], number: int, known: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.acknowledged = known
        self.count = 0
        self.open: tuple[str, str | None, Any] | None = None
        self._path = f"/api/1/ce/{ENDPOINT}?key={facts['key']}"
        self._connection = HTTPConnection("127.0.0.1", facts["port"], timeout=10)
        self._random = random.Random(number)

    def run(self) -> None:
        try:
            while True:
                self._write_once()
        except (OSError, HTTPException, ValueError):
            pass
        finally:
            self._connection.close()

    def _write_once(self) -> None:
        few = len(self.acknowledged) < 50
        method = self._random.choice(("POST", "POST", "PUT", "DELETE") if few else ("POST", "PUT", "DELETE", "DELETE"))
        method = method if self.acknowledged else "POST"
        unique_id = self._random.choice(list(self.acknowledged)) if method != "POST" else None
        data = {"by": self.name, "number": self.count, "pad": "x" * self._random.randrange(400)}
        self.open = method, unique_id, data
        path = self._path + (f"&uniqueId={unique_id}" if unique_id else "")
        body = None if method == "DELETE" else json.dumps(data)
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())
        if method == "DELETE":
            del self.acknowledged[answer["uniqueId"]]
        else:
            self.acknowledged[answer["uniqueId"]] = answer["data"]
        self.open = None
        self.count += 1


def check_round(stored: dict[str, Any], writers: list[Writer]) -> None:
    """What is stored is what was acknowledged, give or take the one request that each writer had open."""
    unexplained = dict(stored)
    for writer in writers:
        method, unique_id, data = writer.open or (None, None, None)
        for known, value in writer.acknowledged.items():
            if known == unique_id and method == "DELETE" and known not in stored:
                continue
            found = unexplained.pop(known)
            assert found == value or (known == unique_id and method == "PUT" and found == data)
        if method == "POST":
            born = [key for key, value in unexplained.items() if value == data]
            assert len(born) <= 1, "one request made two records"
            for key in born:
                del unexplained[key]
    assert unexplained == {}


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    data = tmp_path / "data.json"
    chance = random.Random(7378)
    stored: dict[str, Any] = {}
    written = 0
    for _ in range(pytestconfig.getoption("--rounds")):
        with emulator(data) as (process, facts):
            url = f"/api/1/ce/{ENDPOINT}?key={facts['key']}"
            connection = HTTPConnection("127.0.0.1", facts["port"], timeout=10)
            connection.request("GET", url)
            records = json.loads(connection.getresponse().read())
            connection.close()
            assert {record["uniqueId"]: record["data"] for record in records} == stored
            assert len(records) == len(stored)
            shares = [dict(list(stored.items())[number::WRITERS]) for number in range(WRITERS)]
            writers = [Writer(facts, chance.randrange(10**9), share) for share in shares]
            for writer in writers:
                writer.start()
            killer = threading.Timer(chance.uniform(0.02, 0.3), os.kill, (process.pid, signal.SIGKILL))
            killer.start()
            process.wait(timeout=20)
            for writer in writers:
                writer.join(timeout=20)
            written += sum(writer.count for writer in writers)
        with TinyDB(data) as database:
            assert database.tables() >= {"_projects", "_endpoints"}
        with emulator(data) as (process, facts):
            process.terminate()
            assert process.wait(timeout=20) == 0
        table = json.loads(data.read_text()).get(ENDPOINT, {})
        stored = {unique_id: document["data"] for unique_id, document in table.items()}
        check_round(stored, writers)
    print(f"\n{written} writes acknowledged in {pytestconfig.getoption('--rounds')} rounds, none lost")


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_kill_while_the_data_file_is_written_in_place_leaves_a_whole_one(
    tmp_path: Path, pytestconfig: pytest.Config, journal: str
) -> None:
    data = tmp_path / "data.json"
    data.write_text('{"notes/open": {}, "notes/count": {"c": {"data": -1}}}')
    chance = random.Random(16)
    torn = 0
    for _ in range(pytestconfig.getoption("--rounds") * 4):
        command = [sys.executable, "-c", IN_PLACE, str(data)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout
        said = [process.stdout.readline()]
        killer = threading.Timer(chance.uniform(0, 0.05), process.kill)
        killer.start()
        said += process.stdout.readlines()
        process.communicate(timeout=10)
        killer.join()
        torn += b"// rested-emulator writes" in data.read_bytes()
        acknowledged = int(said[-1])
        if journal == "lost":  # as with a container's layer; then what was not yet written is lost, and no more
            data.with_name("data.json.journal").unlink(missing_ok=True)
            acknowledged -= 1
        store = open_store(Options(data=str(data)))
        record = store.record("notes/count", "c")
        assert record
        assert isinstance(record.data, int)
        assert acknowledged <= record.data <= acknowledged + 2
        store.file.close()
    print(f"\n{torn} of the kills came while it was written")


def test_of_two_programs_that_race_for_a_data_file_one_has_it(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    data = tmp_path / "data.json"
    command = [*PROGRAM, str(data), "--port", "0", "--json", "-q"]
    for _ in range(pytestconfig.getoption("--rounds")):
        racers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        try:
            lines = [racer.stdout.readline() for racer in racers if racer.stdout]
            [winner] = [number for number, line in enumerate(lines) if line]
            loser = racers[1 - winner]
            assert (loser.wait(timeout=20), loser.stderr and "is in use by" in loser.stderr.read()) == (2, True)
            facts = json.loads(lines[winner])
            connection = HTTPConnection("127.0.0.1", facts["port"], timeout=10)
            path = f"/api/1/ce/{ENDPOINT}?key={facts['key']}"
            connection.request("POST", path, "1", {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200
            connection.close()
            racers[winner].terminate()
            assert racers[winner].wait(timeout=20) == 0
        finally:
            for racer in racers:
                racer.kill()
                racer.communicate(timeout=10)
    assert len(json.loads(data.read_text())[ENDPOINT]) == pytestconfig.getoption("--rounds")
