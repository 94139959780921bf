"""Load: wrk where it is installed, else raw connections that ask; raw listeners that count, and one loop around both.

wrk comes with the system (``apt-get install wrk``, ``brew install wrk``). The client here ends near 45,000 answers a
second, and makes fast servers look alike. Of every answer the status is looked at: one that is no success ends the run.
"""

from __future__ import annotations

import functools
import itertools
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

WRK = shutil.which("wrk")
WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
BLOCK = 65536
PATIENCE = 60.0  # seconds without a byte from a server
OF_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
OF_CHUNKS = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class BenchError(Exception):
    """What ends a run: a figure without it would be wrong."""


class Answers:
    """Puts together the answers on one connection, where one request is under way at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._head = self._length = 0

    def feed(self, data: bytes) -> bytes | None:
        """The body, once an answer is complete; of an answer in chunks, with their sizes in it."""
        received = self._received
        received += data
        if not self._head and not self._read_head():
            return None
        if self._length >= 0:
            is_complete = len(received) >= self._head + self._length
        else:
            is_complete = received.endswith(b"\r\n0\r\n\r\n", self._head - 2)
        if not is_complete:
            return None
        body = bytes(received[self._head :])
        self._received, self._head = bytearray(), 0
        return body

    def _read_head(self) -> bool:
        """Look for the end of the head, and for where the body ends; the length of chunks is -1."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[: end + 2])
        if not head.startswith(b"HTTP/1.1 2"):
            raise BenchError(f"a request failed: {bytes(self._received[:500])!r}")
        length = OF_LENGTH.search(head)
        if length is None and OF_CHUNKS.search(head) is None and not head.startswith(b"HTTP/1.1 204"):
            raise BenchError(f"an answer without an end: {head!r}")
        self._head = end + 4
        self._length = int(length[1]) if length else -1 if OF_CHUNKS.search(head) else 0
        return True


class Connection:
    """A connection that asks one thing after the other, and waits for each answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = Answers()

    def ask(self, request: bytes) -> bytes:
        """The body of the answer."""
        self.socket.sendall(request)
        return self.answer()

    def answer(self) -> bytes:
        """Wait for the answer to what was sent."""
        body = None
        while body is None:
            data = self.socket.recv(BLOCK)
            if not data:
                raise ConnectionResetError("closed without an answer")
            body = self._answers.feed(data)
        return body

    def timed(self, request: bytes) -> float:
        """Seconds until the answer is there, whole."""
        start = time.perf_counter()
        self.ask(request)
        return time.perf_counter() - start

    def timed_begin(self, request: bytes) -> float:
        """Seconds until the answer begins; its rest is read too."""
        start = time.perf_counter()
        self.socket.sendall(request)
        self.socket.recv(1, socket.MSG_PEEK)
        seconds = time.perf_counter() - start
        self.answer()
        return seconds


@contextmanager
def connected(port: int) -> Iterator[Connection]:
    """A connection, for a while."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.socket.close()


# What the loop serves


class Party(Protocol):
    """Whoever has something to read."""

    def ready(self) -> None:
        """Read what is there."""


@dataclass
class Flood:
    """Requests to be sent, until ``deadline``, and the answers to them in the order of their arrival."""

    requests: Iterator[bytes]
    deadline: float
    lanes: int = 0
    bodies: list[bytes] = field(default_factory=list)
    seconds: float = 0.0

    def next(self) -> bytes | None:
        """The next request, if there is still one to send."""
        return next(self.requests, None) if time.perf_counter() < self.deadline else None


class Lane:
    """One of the connections over which a flood goes."""

    def __init__(self, connection: Connection, flood: Flood) -> None:
        self._socket = connection.socket
        self._answers = Answers()
        self._flood = flood
        flood.lanes += 1
        self._send()

    def _send(self) -> None:
        request = self._flood.next()
        if request is None:
            self._flood.lanes -= 1
        else:
            self._socket.sendall(request)

    def ready(self) -> None:
        data = self._socket.recv(BLOCK)
        if not data:
            raise BenchError("a server closed a connection before it answered")
        body = self._answers.feed(data)
        if body is not None:
            self._flood.bodies.append(body)
            self._send()


@dataclass
class Tally:
    """What all listeners have heard together."""

    heard: int = 0


class Ear:
    """One listener: a connection on which messages are counted by a mark that each of them has once."""

    def __init__(self, connection: socket.socket, mark: bytes, tally: Tally, heard: int) -> None:
        self.socket = connection
        self.heard = heard
        self._mark, self._tally, self._rest = mark, tally, b""

    def ready(self) -> None:
        data = self.socket.recv(BLOCK)
        if not data:
            raise BenchError("a listener was cut")
        data = self._rest + data
        count = data.count(self._mark)
        self.heard += count
        self._tally.heard += count
        self._rest = data[1 - len(self._mark) :]


class Loop:
    """Lets parties read whenever they can."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, connection: socket.socket, party: Party) -> None:
        self._selector.register(connection, selectors.EVENT_READ, party)

    def remove(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Serve everybody as long as there is something to wait for."""
        while goes_on():
            events = self._selector.select(PATIENCE)
            if not events:
                raise BenchError(f"nothing came for {PATIENCE:.0f} seconds: an answer or a message is lost")
            for key, _ in events:
                key.data.ready()


class Audience:
    """Listeners of one server, and who writes to them."""

    def __init__(self, port: int, mark: bytes, open_one: Callable[[int], socket.socket]) -> None:
        self._port, self._mark, self._open_one = port, mark, open_one
        self._ears: list[Ear] = []
        self._tally = Tally()
        self._written = self._wanted = 0
        self._loop = Loop()

    def grow(self, size: int) -> None:
        """Open listeners until there are so many."""
        while len(self._ears) < size:
            connection = self._open_one(self._port)
            self._ears.append(Ear(connection, self._mark, self._tally, self._written))
            self._loop.add(connection, self._ears[-1])

    def time_delivery(self, connection: Connection, request: bytes) -> float:
        """Seconds from a write until the last listener has heard of it."""
        start = time.perf_counter()
        connection.socket.sendall(request)
        self._hear(1)
        seconds = time.perf_counter() - start
        connection.answer()
        return seconds

    def time_answer(self, connection: Connection, request: bytes) -> float:
        """Seconds until a write is answered; only afterwards are the listeners listened to."""
        seconds = connection.timed(request)
        self._hear(1)
        return seconds

    def deliveries(self, requests: Sequence[bytes], writers: int) -> float:
        """Deliveries a second while so many writers send all of these."""
        hear = functools.partial(self._hear, len(requests))
        run = flood(self._port, requests, writers, PATIENCE, loop=self._loop, until=hear)
        return len(requests) * len(self._ears) / run.seconds

    def _hear(self, writes: int) -> None:
        """Wait until everybody must have heard of so many writes more."""
        self._written += writes
        self._wanted += writes * len(self._ears)
        self._loop.run(lambda: self._tally.heard < self._wanted)

    def close(self) -> None:
        """Close the listeners; raises BenchError if one has not heard everything once."""
        wrong = [ear.heard for ear in self._ears if ear.heard != self._written]
        for ear in self._ears:
            ear.socket.close()
        if wrong:
            raise BenchError(f"of {self._written} messages, listeners heard {wrong}")


def flood(
    port: int,
    requests: Iterable[bytes],
    connections: int,
    seconds: float,
    *,
    loop: Loop | None = None,
    until: Callable[[], None] = lambda: None,
) -> Flood:
    """Send requests over connections, on each the next as soon as the last is answered.

    After ``seconds`` nothing more is sent, and what is under way is waited for, also for what ``until`` waits for.
    """
    loop = loop or Loop()
    lanes = [Connection(port) for _ in range(connections)]
    start = time.perf_counter()
    run = Flood(iter(requests), start + seconds)
    for lane in lanes:
        loop.add(lane.socket, Lane(lane, run))
    loop.run(lambda: run.lanes > 0)
    until()
    run.seconds = time.perf_counter() - start
    for lane in lanes:
        loop.remove(lane.socket)
        lane.socket.close()
    return run


# Rates


class Rate(NamedTuple):
    """How many answers there were, and in how many seconds."""

    answers: int
    seconds: float


def drive(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Rate:
    """Send requests over and over; by wrk where it is installed and the time is one that it can measure."""
    if seconds >= 1 and WRK:
        return drive_by_wrk(port, requests, connections, round(seconds))
    run = flood(port, itertools.cycle(requests), connections, seconds)
    return Rate(len(run.bodies), run.seconds)


def drive_by_wrk(port: int, requests: Sequence[bytes], connections: int, seconds: int) -> Rate:
    """The same with wrk. Raises BenchError where an answer is no success, or there is none."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(request + b"\0" for request in requests))
        file.flush()
        load = ("--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s")
        script = ("--timeout", f"{PATIENCE:.0f}s", "--script", str(WRK_SCRIPT), f"http://127.0.0.1:{port}", "--")
        run = subprocess.run(["wrk", *load, *script, file.name], capture_output=True, text=True, timeout=300)
    found = re.search(r"^answers (\d+) microseconds (\d+) refused (\d+) failed (\d+)$", run.stdout, re.MULTILINE)
    if found is None:
        raise BenchError(f"wrk failed: {run.stderr or run.stdout}")
    answers, microseconds, refused, failed = map(int, found.groups())
    if refused or failed or not answers:
        raise BenchError(f"of {answers} answers {refused} were refusals, and {failed} requests failed")
    return Rate(answers, microseconds / 1e6)
