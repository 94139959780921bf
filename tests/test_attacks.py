"""The local attack suite: what pages and hosts of every kind reach, at API, control interface and pages.

The verdicts come from three rules, not from the code. A host that is not this machine gets nothing; nor does a page
that is not of this machine; and control changes nothing for what a page may send without asking first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rested_emulator import RestedEmulator
from tests import texts
from tests.conftest import GARDEN, PLANTS
from tests.wire import FOREIGN, HANDSHAKE, PAGE, answer_on, at, seen, take, wire

HOSTS = {
    "right": "localhost:{port}",
    "rebound": "evil.example:{port}",
    "0.0.0.0": "0.0.0.0:{port}",
    "look-alike": "127.0.0.1.evil.com:{port}",
}
ORIGINS = {
    "none": None,
    "own": "http://localhost:{port}",
    "another port": PAGE,
    "foreign": FOREIGN,
    "null": "null",
}
ACTIONS = ("GET", "JSON", "text", "form", "WebSocket")
KINDS = {"JSON": "application/json", "text": "text/plain", "form": "application/x-www-form-urlencoded"}
PLACES = ("API", "control", "pages")
CHANGE = b'{"name": "garden/taken"}'  # a record at the API, a new endpoint at the control interface


def verdict(place: str, action: str, host: str, origin: str) -> int:
    """The status that an attempt has to get; 4000 is the code that a socket is closed with."""
    if host != "right":
        return 403
    if origin in ("foreign", "null"):
        return 4000 if (place, action) == ("API", "WebSocket") else 403
    match place, action:
        case "API", "WebSocket":
            return 101
        case "API", "form":
            return 400  # which is no content type of the service's (contract 3.3)
        case "control", "text" | "form":
            return 403  # which a page may send without asking first
        case "pages", "JSON" | "text" | "form":
            return 405
    return 200


def attempt(place: str, action: str, host: str, origin: str | None) -> bytes:
    """The bytes of an attempt."""
    body = CHANGE if action in KINDS else b""
    targets = {"API": at(PLANTS), "control": "/__emulator__/" + ("change-endpoint" if body else "status"), "pages": "/"}
    lines = [f"{'POST' if body else 'GET'} {targets[place]} HTTP/1.1", f"Host: {host}"]
    lines += [f"Origin: {origin}"] if origin else []
    lines += [f"Content-Type: {KINDS[action]}", f"Content-Length: {len(body)}"] if body else []
    lines += HANDSHAKE if action == "WebSocket" else []
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestedEmulator]:
    site: Path = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("<title>garden</title>")
    with RestedEmulator(data=GARDEN, static=site) as emulator:
        yield emulator


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("action", ACTIONS)
def test_who_gets_where(shared: RestedEmulator, place: str, action: str) -> None:
    for host, origin in itertools.product(HOSTS, ORIGINS):
        expected = verdict(place, action, host, origin)
        port = shared.facts["port"]
        before = seen(shared)
        with wire(shared) as connection:
            page = ORIGINS[origin] and str(ORIGINS[origin]).format(port=port)
            connection.sendall(attempt(place, action, HOSTS[host].format(port=port), page))
            reply = answer_on(connection)
            status = reply.status
            if expected == 4000:
                assert status == 101
                first, size = take(connection, 2)
                assert first == 0x88, "the first frame is the last"
                code, reason = int.from_bytes(take(connection, 2)), take(connection, size - 2)
                status, said = code, reason.decode()
                assert said == texts.ORIGIN_REFUSED
            elif expected == 101:
                assert shared.status()["listeners"] == 1
        where = f"{action} at {place} from {origin} for host {host}"
        assert status == expected, where
        changes = expected == 200 and action in KINDS
        if not changes:
            assert any(seen(shared) == before for _ in range(1000)), where  # a socket takes a moment to be gone
        else:
            assert seen(shared) != before, where
            shared.reset()
        if expected == 403 and (host != "right" or origin in ("foreign", "null")):
            assert not [name for name in reply.headers if name.startswith("access-control")], where
