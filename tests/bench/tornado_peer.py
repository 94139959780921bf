"""A bare Tornado server with the emulator's promises and nothing else: the limit of its own library.

    python tornado_peer.py DATA PORT

DATA has a record in JSON on each line. A change is in DATA.journal before it is answered, and goes to every
listener afterwards, in a frame that is built once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.web import Application
from tornado.websocket import WebSocketHandler


class Records:
    """Records in memory as the JSON that clients get, and the journal."""

    def __init__(self, data: Path) -> None:
        lines = data.read_bytes().splitlines()
        self.by_id = {json.loads(line)["uniqueId"]: line for line in lines}
        path = data.with_name(data.name + ".journal")
        for line in path.read_bytes().splitlines() if path.exists() else ():
            unique_id, record = json.loads(line)
            self.put(unique_id, record and json.dumps(record).encode())
        self._journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def put(self, unique_id: str, record: bytes | None) -> None:
        """Keep a record, or none."""
        if record is None:
            del self.by_id[unique_id]
        else:
            self.by_id[unique_id] = record

    def change(self, unique_id: str, record: bytes | None) -> None:
        """Write down a change and carry it out."""
        os.write(self._journal, b'["%b",%b]\n' % (unique_id.encode(), record or b"null"))
        self.put(unique_id, record)


class Listener(WebSocketHandler):
    """A WebSocket that hears of every change."""

    def initialize(self, listeners: set[Listener]) -> None:
        self._listeners = listeners

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self._listeners.add(self)

    def on_message(self, message: str | bytes) -> None:
        """Ignore what clients say."""

    def on_close(self) -> None:
        self._listeners.discard(self)

    def push(self, frame: bytes) -> None:
        """Give a frame to the stream, as it is."""
        stream = self.ws_connection.stream if self.ws_connection else None
        if stream is not None:
            stream.write(frame)


class Bare:
    """Answers requests: a callback of an HTTPServer."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._listeners: set[Listener] = set()
        self._sockets = Application([(r".*", Listener, {"listeners": self._listeners})], log_function=lambda _: None)

    def __call__(self, request: HTTPServerRequest) -> None:
        if "Upgrade" in request.headers:
            self._sockets(request)
            return
        method, unique_id = request.method or "", request.path.removeprefix("/plants").strip("/")
        known = self._records.by_id
        if method == "GET" and not unique_id:
            answer(request, 200, b"[%b]" % b",".join(known.values()))
        elif method != "POST" and unique_id not in known:
            answer(request, 404, b"{}")
        elif method == "GET":
            answer(request, 200, known[unique_id])
        else:
            self._change(method, unique_id or uuid.uuid4().hex, request)

    def _change(self, method: str, unique_id: str, request: HTTPServerRequest) -> None:
        is_gone = method == "DELETE"
        record = self._records.by_id[unique_id] if is_gone else written(unique_id, request.body)
        self._records.change(unique_id, None if is_gone else record)
        answer(request, 200, record)
        frame = text_frame(b'{"type":"%b","record":%b}' % (method.encode(), record))
        for listener in self._listeners:
            listener.push(frame)


def written(unique_id: str, body: bytes) -> bytes:
    """A record as clients get it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    record = {"data": json.loads(body), "uniqueId": unique_id, "updatedAt": now, "createdAt": now}
    return json.dumps(record, separators=(",", ":")).encode()


def text_frame(message: bytes) -> bytes:
    """A text message under 64 KiB as a server sends it."""
    size = len(message)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2)) + message


def answer(request: HTTPServerRequest, status: int, body: bytes) -> None:
    """Send an answer, whole."""
    headers = HTTPHeaders({"Content-Type": "application/json", "Content-Length": str(len(body))})
    assert request.connection is not None
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", status, ""), headers, body)
    request.connection.finish()


async def main(data: str, port: str) -> None:
    """Serve until the process ends."""
    HTTPServer(Bare(Records(Path(data)))).listen(int(port), "127.0.0.1", backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
