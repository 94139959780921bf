"""The wire: clients that are not ours, down to single bytes, and what they check of an answer."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import logging
import os
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import rested_emulator
from rested_emulator import LogStream, RestedEmulator, banner, limits_of, make_ca
from tests import texts
from tests.conftest import CHORES, DIARY, GARDEN, GARDENERS, KEY, PLANTS, ROOT

if TYPE_CHECKING:
    import trustme


@dataclass(frozen=True)
class Reply:
    """An HTTP answer as a client saw it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    url: str,
    method: str = "GET",
    data: Any = ...,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> Reply:
    """Send one request with Python's own client; ``data`` goes as JSON, parameters are added to the URL."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    return send(connection, url, method, data, body, headers, parameters)


def call_securely(
    trust: ssl.SSLContext,
    url: str,
    method: str = "GET",
    data: Any = ...,
    *,
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> Reply:
    """The same over https, with what the client trusts."""
    parts = urlsplit(url)
    connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=10, context=trust)
    return send(connection, url, method, data, None, headers, parameters)


def send(
    connection: HTTPConnection,
    url: str,
    method: str,
    data: Any,
    body: bytes | None,
    headers: dict[str, str] | None,
    parameters: dict[str, str],
) -> Reply:
    """Send one request over a connection, which is closed then."""
    parts, sent = urlsplit(url), dict(headers or {})
    if data is not ...:
        body = json.dumps(data).encode()
        sent.setdefault("Content-Type", "application/json")
    query = "&".join(filter(None, [parts.query, *(f"{name}={value}" for name, value in parameters.items())]))
    try:
        connection.request(method, f"{parts.path}?{query}" if query else parts.path, body, sent)
        response = connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def open_socket(url: str, **options: Any) -> ClientConnection:
    """Open a WebSocket with the websockets library; use it in a with statement."""
    listener: ClientConnection = connect(
        url, open_timeout=10, close_timeout=10, proxy=None, compression=None, **options
    )
    return listener


# Names of the wire

PAGE, OTHER_PAGE, FOREIGN = "http://localhost:3000", "http://localhost:5173", "https://evil.example"


COOKIE, PLAIN_COOKIE = "__Secure-rested-access-token", "rested-access-token"


JSON, TEXT = "application/json; charset=utf-8", "text/plain; charset=utf-8"


CORS = {  # by which PAGE may read an answer
    "access-control-allow-origin": PAGE,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "Authorization",
    "vary": "Origin",
}


def camel(name: str) -> str:
    """A Python name as JSON spells it."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def base(emulator: RestedEmulator) -> str:
    """Where the emulator is, without a path."""
    return f"http://{emulator.facts['host']}"


def cors_of(reply: Reply) -> dict[str, str]:
    """The headers of an answer that speak to a browser about origins."""
    return {name: value for name, value in reply.headers.items() if name.startswith("access-control") or name == "vary"}


def assert_refusal(reply: Reply, status: int, message: str) -> None:
    assert (reply.status, reply.json["message"]) == (status, message)
    assert list(reply.json) == ["code", "message", "hint"]
    assert reply.json["code"] == status
    assert reply.json["hint"].strip()
    assert reply.headers["content-type"] == JSON


@contextmanager
def wire(emulator: RestedEmulator) -> Iterator[socket.socket]:
    """A connection on which a test says what it wants."""
    with socket.create_connection(("127.0.0.1", int(str(emulator.facts["port"]))), timeout=10) as connection:
        yield connection


def head(method: str, target: str, *headers: str) -> bytes:
    """A request's head, as text that no client library puts in order."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def answer_on(connection: socket.socket, method: str = "GET") -> Reply:
    """Read one answer to its end, and not a byte more."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += take(connection, 1)
    line, *lines = received.decode("latin1").splitlines()[:-1]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
    return Reply(int(line.split()[1]), headers, take(connection, length))


def take(connection: socket.socket, size: int) -> bytes:
    """That many bytes from a connection that is still open."""
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        assert part, f"closed after {received!r}"
        received += part
    return received


def at_end(connection: socket.socket) -> bool:
    """Whether the server closes now, without another byte."""
    return connection.recv(1) == b""


def at(endpoint: str, query: str = "", key: str | None = KEY) -> str:
    """The target of a request to an endpoint."""
    return f"/api/1/ce/{endpoint}?" + "&".join(filter(None, [f"key={key}" if key is not None else "", query]))


def control(emulator: RestedEmulator, verb: str, data: Any = ..., method: str = "POST", **how: Any) -> Reply:
    """Speak to the control interface, as ``call`` does."""
    return call(f"{emulator.facts['controlUrl']}/{verb}", method, data, **how)


def seen(emulator: RestedEmulator) -> Any:
    """Everything there is to know about the emulator, the clock aside."""
    status = {name: value for name, value in emulator.status().items() if name not in ("now", "uptime", "undo")}
    return status, {name: emulator.records(name) for name in (PLANTS, GARDENERS, DIARY, CHORES)}


EXPIRED, CHANGED = (1000, texts.TOKEN_EXPIRED), (1000, texts.OPTIONS_CHANGED)


SAMPLE_NONCE = "dGhlIHNhbXBsZSBub25jZQ=="


HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {SAMPLE_NONCE}",
)


def closing(listener: ClientConnection) -> tuple[int, str]:
    """Wait until the server closes; its code and reason. Messages still on their way are thrown away."""
    with suppress(ConnectionClosed):
        while True:
            listener.recv(timeout=10)
    assert listener.close_code is not None
    return listener.close_code, listener.close_reason or ""


def next_of(listener: ClientConnection) -> Any:
    """The next message, as JSON."""
    return json.loads(listener.recv(timeout=10))


def assert_open(emulator: RestedEmulator, *listeners: ClientConnection) -> None:
    """A new plant is the next thing that each of these hears of."""
    record = call(emulator.url(PLANTS), "POST", {"is": "heard"}).json
    for listener in listeners:
        assert next_of(listener) == {"type": "POST", "record": record}


def listeners_of(emulator: RestedEmulator) -> Any:
    return emulator.status()["listeners"]


def drop_idle_after(seconds: float, patch: pytest.MonkeyPatch) -> None:
    """Let the emulator close a connection on which nothing comes after so long, not after 75 seconds."""
    patch.setattr(rested_emulator, "IDLE_SECONDS", seconds)


def give_up_at_stop_after(seconds: float, patch: pytest.MonkeyPatch) -> None:
    """Let a stop wait so long for answers under way, not two seconds."""
    patch.setattr(rested_emulator, "STOP_SECONDS", seconds)


@contextmanager
def impatient(patch: pytest.MonkeyPatch, *, stalled: float = 10.0, ping: float = 20.0) -> Iterator[RestedEmulator]:
    """An emulator with the garden that waits so many seconds for a listener that reads nothing, and for a pong."""
    patch.setattr(rested_emulator, "STALLED_SECONDS", stalled)
    patch.setattr(rested_emulator, "PING_SECONDS", ping)
    with RestedEmulator(data=GARDEN) as emulator:
        yield emulator


def allow_sockets(number: int, patch: pytest.MonkeyPatch) -> None:
    """Let the system have room for so many sockets."""
    patch.setattr(rested_emulator, "most_sockets", lambda: number)


def emulator_with(patch: pytest.MonkeyPatch, **modules: Any) -> Any:
    """The emulator's module as Python makes it where these modules are others, or None where they are missing."""
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("elsewhere", rested_emulator.__file__)
    assert spec
    assert spec.loader
    elsewhere = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, "elsewhere", elsewhere)
    spec.loader.exec_module(elsewhere)
    return elsewhere


def resident() -> int:
    """How many bytes of memory this process takes; 0 where the system does not tell."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # or what is free counts, where it was not given back yet
    with suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def shown_in_log(record: logging.LogRecord) -> str:
    """The line that the program writes to stderr."""
    return LogStream().format(record)


def banner_of(emulator: RestedEmulator) -> str:
    """What the program prints at its start."""
    return emulator.call(banner)


def made_ca(hosts: Sequence[str], days_ago: int = 0) -> trustme.CA:
    """A CA as the emulator has made it that long ago, for this machine and more hosts."""
    import trustme

    limits = limits_of(("localhost", "127.0.0.1", "::1", *hosts), trustme)
    ca: trustme.CA = make_ca(limits, datetime.now(UTC) - timedelta(days=days_ago), trustme)
    return ca


def until(condition: Callable[[], object]) -> None:
    """Look again and again whether something is so, that has no event of its own."""
    deadline = monotonic() + 10
    while not condition():
        assert monotonic() < deadline, "waited in vain"


def free_port() -> int:
    """A port below those that the system gives out by itself, so that nobody takes it meanwhile."""
    for port in random.sample(range(20_000, 30_000), 50):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("there is no free port")


# The program

# As ``python -m rested_emulator`` does it, which reads its bytecode, but from every folder.
RUN = "import runpy, sys; sys.path[0] = {!r}; runpy.run_module('rested_emulator', run_name='__main__', alter_sys=True)"
PROGRAM = (sys.executable, "-c", RUN.format(str(ROOT)))


@contextmanager
def start_program(
    *arguments: str, cwd: Path, start: Sequence[str] = PROGRAM, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the emulator as a program on a free port; its first line is the ready line."""
    process = subprocess.Popen(
        [*start, *arguments, "--port", "0", "--json"],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)
