"""A crowd of WebSocket clients: thousands of raw sockets in one thread, each of which checks what it hears."""

from __future__ import annotations

import re
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from urllib.parse import urlsplit

from tests.wire import HANDSHAKE, head

SECONDS = 30.0  # for everything that must come
BATCH = 100  # handshakes under way at once
NUMBER = re.compile(rb'"data":\{"n":(\d+)')


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A frame as a client sends it, masked with a key of zeros."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + size.to_bytes(2) if size < 2**16 else b"\xff" + size.to_bytes(8)
    return bytes((0x80 * last | opcode,)) + length + bytes(4) + payload


class Member:
    """One client. ``heard`` counts the messages {"n": 0}, {"n": 1}, ... that came whole and in their order."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.is_in = False
        self.status = 0
        self.heard = self.others = 0
        self.wrong = ""
        self.code: int | None = None
        self.is_over = False
        self._received = bytearray()

    def read(self) -> None:
        """Take what there is, a quarter of a megabyte at most."""
        try:
            part = self.connection.recv(2**18)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self.is_over = not part
        self._received += part
        if not self.is_in and b"\r\n\r\n" in self._received:
            self.status = int(self._received[9:12])
            del self._received[: self._received.index(b"\r\n\r\n") + 4]
            self.is_in = self.status == 101
        if self.is_in:
            self._take_frames()

    def _take_frames(self) -> None:
        received, start = self._received, 0
        while len(received) - start >= 2:
            size, begin = received[start + 1], start + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, begin = int.from_bytes(received[begin : begin + width]), begin + width
            if len(received) < begin + size:
                break
            self._take(received[start] & 15, bytes(received[begin : begin + size]))
            start = begin + size
        del received[:start]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 1:
            found = NUMBER.search(payload, 0, 80)
            if found is None:
                self.others += 1
            elif int(found[1]) == self.heard and payload.endswith(b'Z"}}'):
                self.heard += 1
            else:
                self.wrong = self.wrong or f"{payload[:80]!r} in place of {self.heard}"
        elif opcode in (8, 9):
            if opcode == 8:
                self.code = int.from_bytes(payload[:2]) if payload else 1005
            with suppress(OSError):
                self.connection.send(frame(8 if opcode == 8 else 10, payload))

    def reset(self) -> None:
        """Be gone, with a reset in place of an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Crowd:
    """Members who all listen at one URL."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        parts = urlsplit(url)
        self._port = parts.port or 0
        self._handshake = head("GET", f"{parts.path}?{parts.query}", *HANDSHAKE)
        self._stack = stack
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self.members: list[Member] = []

    def knock(self, receive_buffer: int = 0) -> Member:
        """Send a handshake, whose answer is not waited for."""
        connection = self._stack.enter_context(socket.socket())
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", self._port))
        connection.sendall(self._handshake)
        connection.setblocking(False)
        member = Member(connection)
        self.members.append(member)
        self._selector.register(connection, selectors.EVENT_READ, member)
        return member

    def join(self, count: int, receive_buffer: int = 0) -> list[Member]:
        """Let that many more in, and wait until they are."""
        joined: list[Member] = []
        while len(joined) < count:
            batch = [self.knock(receive_buffer) for _ in range(min(BATCH, count - len(joined)))]
            self.read(lambda batch=batch: all(member.status or member.is_over for member in batch))  # type: ignore[misc]
            joined += batch
        return joined

    def stall(self, members: list[Member]) -> None:
        """Let these read nothing from now on."""
        for member in members:
            if not member.is_over:
                self._selector.unregister(member.connection)

    def reset(self, members: list[Member]) -> None:
        """Let these be gone at once."""
        self.stall(members)
        for member in members:
            member.reset()
        gone = set(members)
        self.members = [member for member in self.members if member not in gone]

    def read(self, until: Callable[[], bool], seconds: float = SECONDS) -> float:
        """Read until something is so; returns how many seconds that took."""
        start = monotonic()
        while not until():
            assert monotonic() - start < seconds, "it does not come"
            self._read_once()
        return monotonic() - start

    def read_for(self, seconds: float) -> None:
        """Read whatever comes in that time."""
        start = monotonic()
        while monotonic() - start < seconds:
            self._read_once()

    def _read_once(self) -> None:
        for key, _ in self._selector.select(0.05):
            key.data.read()
            if key.data.is_over:
                self._selector.unregister(key.fileobj)


@contextmanager
def crowd(url: str) -> Iterator[Crowd]:
    """An empty crowd; all its members leave at the end."""
    with ExitStack() as stack:
        yield Crowd(url, stack)
