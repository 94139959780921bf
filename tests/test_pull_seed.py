"""The recipe that pulls a seed, with the emulator as the service it reads."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rested_emulator import RestedEmulator
from tests.conftest import ADA, CHORES, DIARY, GARDEN, GARDENERS, KEY, MASTER_KEY, PLANTS, ROOT
from tests.recipes.pull_seed import main
from tests.wire import base, call

SCRIPT = ROOT / "tests" / "recipes" / "pull_seed.py"
WITH_KEYS = ("--key", KEY, "--master-key", MASTER_KEY)
NO_LOGIN = "users without a password"


class Done(NamedTuple):
    """How the recipe has ended, and what it has said."""

    returncode: int
    stdout: str
    stderr: str


def pull(*arguments: str) -> Done:
    """Run the recipe without pauses; whatever happens, it does not say the master key."""
    code: Any
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as out, redirect_stdout(out):
        with redirect_stderr(io.StringIO()) as errors:
            try:
                code = main(["--pause", "0", *arguments])
            except SystemExit as end:  # as argparse ends
                code = end.code
        out.flush()
        out.seek(0)
        done = Done(code, out.read(), errors.getvalue())
    assert MASTER_KEY not in done.stdout + done.stderr
    return done


def test_it_is_a_program(emulator: RestedEmulator) -> None:
    command = [sys.executable, str(SCRIPT), base(emulator), *WITH_KEYS, PLANTS]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=30, check=True)
    assert len(json.loads(done.stdout)[PLANTS]) == 3


def pulled(emulator: RestedEmulator, *arguments: str) -> tuple[Any, str]:
    """The seed that the recipe makes of endpoints, and what it says about it."""
    done = pull(base(emulator), *WITH_KEYS, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def assert_failed(done: Done, part: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def server(answer: bytes, ends: bool = True) -> Iterator[str]:
    """A service that answers every connection with these bytes, and closes it or leaves it open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                if not connection.recv(65536):
                    return connection.close()
                connection.sendall(answer)
                if ends:
                    connection.close()
                else:
                    kept.append(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            socket.create_connection(listener.getsockname()).close()
            thread.join()
            for connection in kept:
                connection.close()


def ok(content: Any) -> bytes:
    """An answer of the service with this content."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.warns(NO_LOGIN)
def test_a_pulled_seed_is_the_data_again(emulator: RestedEmulator, tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    done = pull(base(emulator), *WITH_KEYS, PLANTS, GARDENERS, DIARY, CHORES, "--output", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert list(tmp_path.iterdir()) == [path]
    with RestedEmulator(data=path) as other:
        for name in (PLANTS, DIARY, CHORES):
            assert other.records(name) == [
                {name: value for name, value in record.items() if name != "owner"} for record in emulator.records(name)
            ]
        assert [call(other.url(name)).status for name in (PLANTS, GARDENERS, DIARY, CHORES)] == [200, 401, 401, 401]


@pytest.mark.warns(NO_LOGIN)
@pytest.mark.warns("'ada'")
def test_the_log_says_who_cannot_log_in_until_there_is_a_password(emulator: RestedEmulator, tmp_path: Path) -> None:
    seed, said = pulled(emulator, GARDENERS)
    assert "2 records, of users, who cannot log in until they have a password" in said
    assert seed[GARDENERS][ADA]["data"] == {"username": "ada", "email": "ada@garden.example", "beds": [1, 3]}
    path = tmp_path / "seed.json"
    path.write_text(json.dumps(seed))
    with RestedEmulator(data=path, master_key=MASTER_KEY) as other:
        login = {"username": "ada", "password": "apricot"}
        assert call(other.url(GARDENERS), "POST", login, login="true").status == 401
        data = seed[GARDENERS][ADA]["data"] | {"password": "apricot"}
        assert call(other.url(GARDENERS), "PUT", data, uniqueId=ADA, masterKey=MASTER_KEY).status == 200
        assert call(other.url(GARDENERS), "POST", login, login="true").status == 200


def test_it_reads_one_at_a_time_and_writes_nothing(emulator: RestedEmulator) -> None:
    before = emulator.records(PLANTS)
    pulled(emulator, PLANTS, CHORES)
    requests = emulator.requests()
    assert [(request["method"], request["endpoint"]) for request in requests] == [("GET", PLANTS)] * 2 + [
        ("GET", CHORES)
    ] * 2
    assert emulator.records(PLANTS) == before


def test_it_pauses_between_requests(emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    assert main([base(emulator), *WITH_KEYS, "--pause", "7", PLANTS, CHORES]) == 0
    assert pauses == [7, 7, 7]


def test_secrets_in_any_data_are_left_out(emulator: RestedEmulator) -> None:
    data = {"Password": "x", "sub": [{"accessToken": "y", "kept": 1}], f"at {MASTER_KEY}": f"is {MASTER_KEY}"}
    call(emulator.url(PLANTS), "POST", data)
    seed, said = pulled(emulator, PLANTS)
    assert list(seed[PLANTS].values())[-1]["data"] == {"sub": [{"kept": 1}], "at (master key)": "is (master key)"}
    for what in ("members named Password (1)", "members named accessToken (1)", "texts with the master key (2)"):
        assert f"left out: {what}" in said


def test_text_and_every_kind_of_value_come_through(emulator: RestedEmulator, tmp_path: Path) -> None:
    values: list[Any] = ["Kürbis \u2028 \U0001f345", None, 2**64, [1.5, True], {"": {}}]
    for value in values:
        call(emulator.url(PLANTS), "POST", value)
    seed, _ = pulled(emulator, PLANTS)
    (tmp_path / "seed.json").write_text(json.dumps(seed))
    with RestedEmulator(data=tmp_path / "seed.json") as other:
        assert [record["data"] for record in other.records(PLANTS)][-len(values) :] == values


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [((), {}), (("--auth", PLANTS), {"authentication": True}), (("--secure", PLANTS), {"secure": True})],
)
def test_an_option_says_what_kind_it_is(emulator: RestedEmulator, arguments: tuple[str, ...], kind: Any) -> None:
    seed, _ = pulled(emulator, PLANTS, *arguments)
    assert seed["_endpoints"][PLANTS] == {"project": KEY, **kind}


def test_where_only_pages_may_ask_an_endpoint_is_taken_for_open_and_said_so(emulator: RestedEmulator) -> None:
    emulator.change_project(disallow_no_origin=True)
    seed, said = pulled(emulator, DIARY)
    assert seed["_endpoints"][DIARY] == {"project": KEY}
    assert "taken for open, though a GET was answered 403" in said


def test_an_empty_endpoint_is_pulled() -> None:
    with RestedEmulator(data=GARDEN, endpoint=["garden/empty"], secure=["garden/closed"]) as emulator:
        seed, said = pulled(emulator, "garden/empty", "garden/closed")
    assert (seed["garden/empty"], seed["garden/closed"]) == ({}, {})
    assert seed["_endpoints"] == {"garden/empty": {"project": KEY}, "garden/closed": {"project": KEY, "secure": True}}
    assert "garden/empty: 0 records, open." in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--key", "wrong", "--master-key", MASTER_KEY, PLANTS), "garden/plants: 400 Endpoint or API Key not valid."),
        ((*WITH_KEYS, "garden/unknown"), "garden/unknown: 400 Endpoint or API Key not valid."),
        ((*WITH_KEYS, PLANTS, "garden/unknown"), "garden/unknown: 400"),
        (("--key", KEY, "--master-key", "no-such-key", PLANTS), "garden/plants: 403 "),
    ],
)
def test_a_refusal_is_told_and_nothing_is_written(
    emulator: RestedEmulator, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "seed.json"
    path.write_text("as it was")
    assert_failed(pull(base(emulator), *arguments, "--output", str(path)), said)
    assert path.read_text() == "as it was"


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_any_other_status_is_told(emulator: RestedEmulator, status: int) -> None:
    emulator.add_fault("status", status=status)
    assert_failed(pull(base(emulator), *WITH_KEYS, PLANTS), f"garden/plants: {status} ")


def test_a_service_that_hangs_or_drips_is_given_up(emulator: RestedEmulator) -> None:
    emulator.add_fault("outage", mode="hang", seconds=3600)
    assert_failed(pull(base(emulator), *WITH_KEYS, PLANTS, "--timeout", "0.2"), "nothing whole within 0.2 s")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n["])
def test_an_answer_that_stays_away_is_given_up(answer: bytes) -> None:
    with server(answer, ends=False) as url:
        assert_failed(pull(url, *WITH_KEYS, PLANTS, "--timeout", "0.2"), "nothing whole within 0.2 s")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "no whole answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no whole answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "no whole answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]", "no whole answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://localhost:1/\r\nContent-Length: 0\r\n\r\n", "302 without a message"),
        (ok(b""), "an answer of 0 bytes is no list of records"),
        (ok(b"<html>"), "an answer of 6 bytes is no list of records"),
        (ok(b"[" * 100_000), "is no list of records"),
        (ok(b'[{"uniqueId": "a", "data": NaN}]'), "is no list of records"),
        (ok({"uniqueId": "a", "data": 1}), "is no list of records"),
        (ok([{"uniqueId": "a", "data": 1}, {"data": 1}]), "record 2 of 2 has no uniqueId"),
        (ok([{"uniqueId": "a", "data": 1}, {"uniqueId": "a", "data": 1}]), "record 2 of 2"),
        (ok([{"uniqueId": "a"}]), "or no data"),
        (ok(["a"]), "record 1 of 1"),
        (ok([{"uniqueId": "a", "data": "\ud800"}]), r"half of a character: '\ud800'"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "403 without a message"),
        (b"HTTP/1.1 403 No\r\n\r\n" + json.dumps({"message": f"not {MASTER_KEY}"}).encode(), "403 not (master key)"),
    ],
)
def test_a_broken_service_is_told_in_a_line(answer: bytes, said: str) -> None:
    with server(answer) as url:
        assert_failed(pull(url, *WITH_KEYS, PLANTS), said)


def test_a_service_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert_failed(pull(url, *WITH_KEYS, PLANTS), "no answer (")


def test_a_file_that_cannot_be_written_is_told(emulator: RestedEmulator, tmp_path: Path) -> None:
    done = pull(base(emulator), *WITH_KEYS, PLANTS, "--output", str(tmp_path / "none" / "seed.json"))
    assert_failed(done, "No such file or directory")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("app.rested.dev", *WITH_KEYS, PLANTS), "BASE is scheme and host"),
        (("https://app.rested.dev/api", *WITH_KEYS, PLANTS), "BASE is scheme and host"),
        (("http://app.rested.dev", *WITH_KEYS, PLANTS), "BASE has to be https"),
        (("https://app.rested.dev", "--key", KEY, PLANTS), "--master-key"),
        (("https://app.rested.dev", "--key", KEY, "--master-key", "", PLANTS), "the master key is empty"),
        (("https://app.rested.dev", *WITH_KEYS), "ENDPOINT"),
        (("https://app.rested.dev", *WITH_KEYS, "_endpoints"), "an ENDPOINT has only"),
        (("https://app.rested.dev", *WITH_KEYS, PLANTS, "--auth", GARDENERS), "name it there too"),
        (("https://app.rested.dev", *WITH_KEYS, PLANTS, "--timeout", "soon"), "invalid seconds value"),
        (("https://app.rested.dev", *WITH_KEYS, PLANTS, "--timeout", "inf"), "invalid seconds value"),
    ],
)
def test_wrong_usage_sends_nothing(arguments: tuple[str, ...], said: str) -> None:
    done = pull(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
