"""The probe: it finds every clause that is changed on purpose, says nothing of equals, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from rested_emulator import RestedEmulator
from tests import probe
from tests.conftest import ROOT
from tests.wire import base, call

KEY = "a-key-of-the-test"
OPEN, AUTH, SECURE = "probe/open", "probe/users", "probe/notes"
NAMED = ("--open", OPEN, "--auth", AUTH, "--secure", SECURE)
# The service is asked what the emulator thinks odd, and says so.
pytestmark = pytest.mark.may_warn("counts as not set")

Headers = list[tuple[str, str]]


class Message(NamedTuple):
    """An answer as a change finds and leaves it, and what was asked."""

    method: str
    path: str
    status: int
    headers: Headers
    body: bytes

    @property
    def is_ok(self) -> bool:
        return self.status < 300


def same(message: Message) -> Message:
    return message


class Change(NamedTuple):
    """A clause in which a service is another one."""

    clause: str
    answer: Callable[[Message], Message] = same
    path: Callable[[str], str] = str
    frames: tuple[bytes, bytes] = (b"", b"")  # of equal length


def with_header(name: str, change: Callable[[str], str]) -> Callable[[Message], Message]:
    """Change a header of every answer; one that is empty then is left out."""

    def answer(message: Message) -> Message:
        changed = [(key, change(value) if key.lower() == name else value) for key, value in message.headers]
        return message._replace(headers=[header for header in changed if header[1]])

    return answer


def when(test: Callable[[Message], bool], **changed: Any) -> Callable[[Message], Message]:
    """Change answers of which something is true."""
    return lambda message: message._replace(**changed) if test(message) else message


def with_body(old: bytes, new: bytes) -> Callable[[Message], Message]:
    return lambda message: message._replace(body=message.body.replace(old, new))


CHANGES = (
    Change("4.7", when(lambda it: it.is_ok and it.method == "POST", status=201)),
    Change("4.4", when(lambda it: it.is_ok and it.method == "DELETE", body=b"{}")),
    Change("5.3", when(lambda it: b"No record was found." in it.body, status=404)),
    Change("4.2", path=lambda path: re.sub(r"(uniqueId=\w+),\w+", r"\1", path)),
    Change("4.3", path=lambda path: path.replace("strategy=merge", "strategy=force")),
    Change("6.6", with_header("set-cookie", lambda value: value.replace("SameSite=None", "SameSite=Lax"))),
    Change("6.4", when(lambda it: it.is_ok and "logout=true" in it.path, body=b'{"message": "bye"}')),
    Change("7.3", frames=(b'"type":"PUT"', b'"type":"put"')),
    Change("8.1", with_body(b'"mimeType":', b'"mimetype":')),
    Change("9.1", with_header("access-control-expose-headers", lambda _: "")),
)


@contextmanager
def changed(emulator: RestedEmulator, *changes: Change, most: float = float("inf")) -> Iterator[str]:
    """A service like the emulator but for these changes, which answers so many requests at most."""
    port = int(str(emulator.facts["port"]))
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle_one_request(self) -> None:
            with suppress(ConnectionError):
                super().handle_one_request()

        def forward(self) -> None:
            nonlocal count
            count += 1
            self.close_connection = True
            if count > most:
                return
            if "Upgrade" in self.headers:
                self.tunnel()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path
            for change in changes:
                path = change.path(path)
            connection = HTTPConnection("localhost", port, timeout=10)
            connection.request(self.command, path, body or None, dict(self.headers))
            response = connection.getresponse()
            message = Message(self.command, path, response.status, response.getheaders(), response.read())
            connection.close()
            for change in changes:
                message = change.answer(message)
            self.send_response_only(message.status)
            for name, value in message.headers:
                if name.lower() not in ("content-length", "connection"):
                    self.send_header(name, value)
            if message.status != 204:
                self.send_header("Content-Length", str(len(message.body)))
            self.end_headers()
            self.wfile.write(message.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = forward  # noqa: N815

        def tunnel(self) -> None:
            """Hand on bytes both ways, until either side ends."""
            lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            with socket.create_connection(("localhost", port), timeout=10) as service:
                service.sendall(f"GET {self.path} HTTP/1.1\r\n{lines}\r\n".encode())
                back = threading.Thread(target=self.hand_back, args=[service])
                back.start()
                while part := self.connection.recv(65536):
                    service.sendall(part)
                with suppress(OSError):
                    service.shutdown(socket.SHUT_WR)
                back.join()

        def hand_back(self, service: socket.socket) -> None:
            while part := service.recv(65536):
                for change in changes:
                    part = part.replace(*change.frames) if change.frames[0] else part
                self.connection.sendall(part)
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    with ThreadingHTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def service() -> Iterator[RestedEmulator]:
    """What stands for the service: an emulator that is in use."""
    with RestedEmulator(key=KEY, endpoint=[OPEN, "probe/others"], auth=[AUTH], secure=[SECURE]) as emulator:
        call(emulator.url(OPEN), "POST", {"of": "somebody else"})
        yield emulator


def asked(*arguments: str) -> int:
    """The exit code of a probe; wrong usage exits."""
    try:
        return probe.main([*arguments, "--key", KEY])
    except SystemExit as error:
        return int(error.code or 0)


def clauses(printed: str) -> set[str]:
    """The clauses in the table."""
    return set(re.findall(r"^\| \d+ \| ([\d.]+) \|", printed, re.MULTILINE))


def test_equals_do_not_differ(service: RestedEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    with changed(service) as url:  # so the proxy of these tests changes nothing by itself
        assert asked(url, *NAMED) == 0
    printed, said = capsys.readouterr()
    count = len(probe.QUESTIONS)
    assert f"{count} of {count} questions were asked; 0 answers differ." in printed
    assert said == ""


def test_it_leaves_nothing_behind_and_the_data_of_others_alone(
    service: RestedEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [service.records(name) for name in (OPEN, AUTH, SECURE)]
    with changed(service, *CHANGES) as url:
        assert asked(url, *NAMED) == 1
    assert [service.records(name) for name in (OPEN, AUTH, SECURE)] == before
    writes = {request["endpoint"] for request in service.requests() if request["status"] == 200}
    assert writes == {OPEN, AUTH, SECURE}
    printed, said = capsys.readouterr()
    assert "somebody else" not in printed + said
    assert KEY not in printed + said


def test_it_finds_ten_changes(service: RestedEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        RestedEmulator(key=KEY, endpoint=[OPEN], auth=[AUTH], secure=[SECURE]) as other,
        changed(other, *CHANGES) as url,
    ):
        assert asked(base(service), url, *NAMED) == 1
    printed, _ = capsys.readouterr()
    assert len(CHANGES) == 10
    assert {change.clause for change in CHANGES} <= clauses(printed)
    assert "| {} | {} |".format(*(base(service), url)) in printed


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.clause)
def test_it_finds_each_change_by_itself(
    service: RestedEmulator, change: Change, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "QUESTIONS", [each for each in probe.QUESTIONS if each.clause == change.clause])
    with changed(service, change) as url:
        assert asked(url, *NAMED) == 1
    printed, _ = capsys.readouterr()
    assert change.clause in clauses(printed)


def test_the_table_is_markdown(
    service: RestedEmulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.1)
    service.add_fault("status", status=500, body="a | b\n" + "c" * 1000, endpoint=OPEN, method="DELETE")
    asked(base(service), "--open", OPEN)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_what_is_not_named_is_not_asked(service: RestedEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(base(service), "--open", OPEN) == 0
    count = sum(each.takes == "open" for each in probe.QUESTIONS)
    assert f"{count} of {len(probe.QUESTIONS)} questions were asked" in capsys.readouterr().out
    assert not {AUTH, SECURE} & {request["endpoint"] for request in service.requests()}


def test_what_cannot_be_deleted_is_told(
    service: RestedEmulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.1)
    service.add_fault("status", status=503, method="DELETE")
    assert asked(base(service), *NAMED) == 1
    said = capsys.readouterr().err
    for name in (OPEN, AUTH, SECURE):
        left = [str(record["uniqueId"]) for record in service.records(name) if "probe-" in json.dumps(record)]
        assert left
        assert [unique_id for unique_id in left if f"{name} still has {unique_id}" not in said] == []


def test_a_service_that_dies_meanwhile_is_no_answer(
    service: RestedEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with changed(service, most=50) as url:
        assert asked(url, "--open", OPEN) == 2
    printed, said = capsys.readouterr()
    assert printed == ""
    assert "may be left" in said
    assert "no answer" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--open", "probe/unknown"), "Endpoint or API Key not valid."),
        (("--open", SECURE), "401"),
        (("--open", OPEN, "--auth", "probe/others"), "probe/others answers its records in place of 401"),
        (("--open", OPEN, "--auth", AUTH, "--secure", "probe/others"), "probe/others answers its records"),
        (("--open", OPEN, "--auth", SECURE), "registering and logging in at probe/notes: 401, 401"),
        (("--open", OPEN, "--secure", SECURE), "--secure takes --auth"),
        (("--auth", AUTH), "--open"),
        (("not-a-url", "--open", OPEN), "not-a-url is not scheme and host"),
        (("http://localhost:1/api", "--open", OPEN), "is not scheme and host"),
    ],
)
def test_wrong_usage_is_told(
    service: RestedEmulator, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(base(service), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    names = (OPEN, AUTH, SECURE, "probe/others")
    assert not any("probe-" in json.dumps(record) for name in names for record in service.records(name))


def test_no_answer_is_told_by_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    command = [sys.executable, "-m", "tests.probe", url, "--key", KEY, "--open", OPEN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{url}: no answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1
