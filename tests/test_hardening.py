"""What must happen when things go wrong: bad bodies, broken framing, odd addresses, stolen tokens, foreign pages.

Each row of ``ROWS`` is one promise. A case of a table names its row, a test that stands alone has it in ``@row``;
``test_every_row_has_a_test`` holds the two together. Everything goes over raw sockets, since no polite client sends it,
and after everything ``unharmed`` looks whether the emulator is what it was before.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from rested_emulator import RestedEmulator
from tests import texts
from tests.conftest import ADA, BEN, CHORE_OF_BEN, CHORES, DIARY, GARDEN, GARDENERS, KEY, PLANTS, TOMATO
from tests.wire import (
    COOKIE,
    EXPIRED,
    FOREIGN,
    HANDSHAKE,
    JSON,
    OTHER_PAGE,
    PAGE,
    Reply,
    answer_on,
    at,
    at_end,
    bearer,
    call,
    closing,
    drop_idle_after,
    next_of,
    open_socket,
    resident,
    seen,
    shown_in_log,
    wire,
)

ROWS = {
    # JSON bodies
    "json-malformed": "malformed, trailing text, comments, control characters, empty, white space only",
    "json-constants": "`NaN`, `Infinity`; `1e400`",
    "json-digits": "integer of 5,000 digits",
    "json-numbers": "2^53+1, 20-digit integers, `-0`, `1.0`, `1E2`",
    "json-depth": "nesting of 1,000 to 200,000",
    "json-surrogate": "lone surrogate",
    "json-encoding": "invalid UTF-8, byte order mark, UTF-16/32",
    "json-names": "a null character, keys that are empty, `__proto__`, `constructor`, `uniqueId`",
    "json-large": "one 1 MB string, 100,000 keys",
    # Content types, framing, addresses
    "type": "missing type; odd case, parameters; `charset=latin1`; two Content-Type headers; `Content-Encoding: gzip`",
    "length-over": "Content-Length 1 GiB with nothing sent; chunked over the limit",
    "expect": "`Expect: 100-continue` on a request that will be refused",
    "framing": "negative or double lengths, length with chunked, bad chunks, NUL or folded headers, missing or double "
    "Host, absolute URI, HTTP/1.0, TRACE, unknown methods",
    "slow": "slow header or body, a handshake that announces a body, idle connection",
    "header-size": "70 KB header",
    "tls-hello": "TLS hello on the http port",
    "host": "foreign `Host`, `[::1]`, `LOCALHOST`, trailing dot",
    "path": "`%2F`, `//`, `%00`, `..`, `%2e`, upper case, Unicode, 4 / 5 / 254 / 255 characters in names; not UTF-8",
    "parameters": "repeated `key`, `strategy`, `dataOnly`; empty values; 1,500 parameters",
    "head": "HEAD; a body with GET or DELETE",
    # Users, cookies, origins
    "secrets": "keys, tokens, passwords with non-ASCII, 100 KB long, in several places at once",
    "token": "token changed by a bit, of a deleted user, after logout, expiry, reset, from an earlier start",
    "cookie": "cookie sent twice, junk beside it",
    "clock": "clock back an hour, forward a day; machine asleep",
    "in-flight": "expiry or logout with a request in flight or a socket open",
    "ownership": "another user's record, `owner` in the body, `uniqueId` in the body",
    "origin": "Origin `null`, other port, `http` for `https`, trailing slash, case, punycode, look-alikes",
    "cross-site": "HTML form post, image, `no-cors` fetch, DNS rebinding, at API, control and socket",
}
TESTS: dict[str, list[str]] = {name: [] for name in ROWS}  # what ``row`` has seen
Test = TypeVar("Test", bound=Callable[..., None])


def row(name: str) -> Callable[[Test], Test]:
    """Say which row a test holds."""

    def mark(test: Test) -> Test:
        TESTS[name].append(test.__name__)
        return test

    return mark


# What holds after everything

LONGEST_STALL = 0.25  # seconds
SECRET = "s3cret"  # in whatever nobody may find in the log


class Watchdog:
    """Looks whether the loop of an emulator stands still, by what computes in it or by what waits in it.

    A machine that is busy with something else delays a thread of ours just as much, which is measured beside it.
    """

    def __init__(self, emulator: RestedEmulator) -> None:
        self._emulator = emulator
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure_machine, name="machine")
        self.computed = self.stood = self.delay = 0.0

    def __enter__(self) -> Watchdog:
        self._thread.start()
        self._emulator.call(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._emulator.call(lambda _: None)

    def _begin(self, _: Any) -> None:
        import asyncio

        loop = asyncio.get_running_loop()

        def tick(last: float, worked: float) -> None:
            now, work = time.monotonic(), time.thread_time()
            computed = work - worked
            self.computed = max(self.computed, computed)
            self.stood = max(self.stood, now - last - 5 * computed)  # to compute takes longer where others do, too
            if not self._over.is_set():
                loop.call_later(0.01, tick, now, work)

        tick(time.monotonic(), time.thread_time())

    def _measure_machine(self) -> None:
        last = time.monotonic()
        while not self._over.wait(0.01):
            now = time.monotonic()
            self.delay, last = max(self.delay, now - last), now

    def check(self) -> None:
        assert self.computed < LONGEST_STALL, f"the loop computed for {self.computed:.3f} s"
        assert self.stood - self.delay < LONGEST_STALL, f"the loop stood still for {self.stood:.3f} s"


@contextmanager
def unharmed(
    emulator: RestedEmulator,
    caplog: pytest.LogCaptureFixture,
    *,
    lines: int = 1,
    heard: int = 0,
    is_large: bool = False,
) -> Iterator[None]:
    """What is done inside changes nothing, is heard by nobody, holds up nobody, and leaves a line in the log."""
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        before, size = seen(emulator), resident() if is_large else 0
        caplog.clear()
        yield
        logged = [record for record in caplog.records if record.name == "rested_emulator"]
        for _ in range(heard):
            next_of(listener)
        assert seen(emulator) == before
        record = call(emulator.url(PLANTS), "POST", {"all": "well"}).json
        assert call(emulator.url(PLANTS), uniqueId=record["uniqueId"]).json == record
        assert next_of(listener) == {"type": "POST", "record": record}, "somebody was told of something"
        assert call(emulator.url(PLANTS), "DELETE", uniqueId=record["uniqueId"]).json == record
        assert next_of(listener)["type"] == "DELETE"
    assert len(logged) <= lines, [entry.getMessage() for entry in logged]
    for entry in logged:
        assert entry.exc_info is None
        line = shown_in_log(entry)
        assert line.isprintable(), repr(line)
        assert len(line) < 5000
        assert SECRET not in line
    if is_large:
        grown = resident() - size
        assert grown < 20e6, f"{grown / 1e6:.0f} MB more than before"


# What is sent


def head(method: str, target: str, *lines: str, host: str | None = "localhost", version: str = "1.1") -> bytes:
    """A request's head; one character is one byte."""
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([f"{method} {target} HTTP/{version}", *hosts, *lines, "", ""]).encode("latin1")


AS_JSON, AS_TEXT = "Content-Type: application/json", "Content-Type: text/plain"
CHUNKED = "Transfer-Encoding: chunked"
FROM_PAGE = f"Origin: {PAGE}"


def post(body: bytes, *lines: str, target: str = at(PLANTS), kind: str | None = AS_JSON) -> bytes:
    """A POST from a page, with its right length."""
    kinds = [kind] if kind else []
    return head("POST", target, FROM_PAGE, *kinds, f"Content-Length: {len(body)}", *lines) + body


@dataclass(frozen=True)
class Case:
    """Bytes, and what becomes of them: a refusal, or ``data`` that is stored; no ``status`` is a closed connection."""

    row: str
    name: str
    sent: bytes
    status: int | None = 400
    message: str | None = None
    data: Any = None
    is_ours: bool = True  # whether the answer is the emulator's; what is no HTTP, Tornado refuses
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.row}: {self.name}"


def check_answer(case: Case, reply: Reply) -> None:
    """What every refusal looks like (contract 5.1, 9.1)."""
    assert reply.status == case.status, reply
    assert b"<" not in reply.body, "HTML"
    assert case.headers.items() <= reply.headers.items()
    if not case.is_ours:
        assert reply.body == b""
        return
    assert reply.headers["content-type"] == JSON
    assert list(reply.json) == ["code", "message", "hint"]
    assert (reply.json["code"], case.message or reply.json["message"]) == (case.status, reply.json["message"])
    hidden = reply.json["message"] in (texts.HOST_REFUSED, texts.WRONG_HOST, texts.ORIGIN_REFUSED)
    if FROM_PAGE.encode() in case.sent and not hidden:
        assert reply.headers["access-control-allow-origin"] == PAGE


def send(emulator: RestedEmulator, sent: bytes) -> Reply | None:
    """What comes back for some bytes, which may not hold up the loop; None where it is closed without a word."""
    reply = None
    with wire(emulator) as connection, Watchdog(emulator) as watchdog, suppress(AssertionError, ConnectionError):
        connection.sendall(sent)
        reply = answer_on(connection, sent.partition(b" ")[0].decode("latin1"))
    watchdog.check()
    return reply


def refused(row: str, cases: dict[str, bytes], message: str | None = None, status: int | None = 400) -> list[Case]:
    """Cases of one row that come to the same end."""
    return [Case(row, name, sent, status, message) for name, sent in cases.items()]


def kept(row: str, cases: dict[str, tuple[bytes, Any]]) -> list[Case]:
    """Requests of one row that are served: what is stored of them, or what they are answered."""
    return [Case(row, name, sent, 200, data=data) for name, (sent, data) in cases.items()]


def bare(row: str, cases: dict[str, bytes], status: int | None = 400) -> list[Case]:
    """Bytes that are not HTTP, which Tornado answers or breaks off."""
    return [Case(row, name, sent, status, is_ours=False) for name, sent in cases.items()]


def torn(**bodies: bytes) -> dict[str, bytes]:
    return {name.replace("_", " "): post(body) for name, body in bodies.items()}


def number(text: str) -> tuple[bytes, Any]:
    return post(text.encode()), json.loads(text)


MANY_KEYS = {f"{key:x}": 1 for key in range(100_000)}
NAMES = {"": 1, "__proto__": {"x": 1}, "constructor": 2, "uniqueId": "mine", "toString": None, "a\0b": "\0"}
JSON_BODIES = [  # of each kind one or two, and what is large; test_model.py has all the others
    *refused("json-malformed", torn(torn=b'{"a":', white_space=b" \r\n\t", null_byte=b"\0"), texts.WRONG_BODY),
    *refused("json-malformed", {"empty": post(b"")}, texts.NO_BODY),
    *refused("json-constants", torn(NaN=b"NaN", infinity=b"[Infinity]", large=b"1e400"), texts.WRONG_BODY),
    *refused("json-digits", torn(digits=b"9" * 5000, inside=b'{"a":[-' + b"7" * 5000 + b"]}"), texts.WRONG_BODY),
    *kept("json-numbers", {text: number(text) for text in ("9007199254740993", "-0", "1.0", "1E2", "9" * 4300)}),
    *refused(
        "json-depth",
        {
            f"{levels} {name}": post(left * levels + right * levels)
            for levels in (513, 100_000)
            for name, left, right in (("arrays", b"[", b"]"), ("objects", b'{"a":', b"}"))
        },
        texts.WRONG_BODY,
    ),
    *refused("json-depth", {"200000 arrays, none closed": post(b"[" * 200_000)}, texts.WRONG_BODY),
    *kept("json-depth", {"512 levels": (post(b"[" * 512 + b"]" * 512), json.loads("[" * 512 + "]" * 512))}),
    *refused("json-surrogate", torn(value=b'"\\ud800"', key=b'{"\\udfff":1}'), texts.WRONG_BODY),
    *kept("json-surrogate", {"a pair": (post(b'"\\ud83e\\udd55"'), "🥕")}),
    *refused("json-encoding", torn(no_UTF_8=b'"\xff"', UTF_16="{}".encode("utf-16")), texts.WRONG_BODY),
    *refused("json-encoding", {"text": post(b"\xff\xfe", kind=AS_TEXT)}, texts.WRONG_BODY),
    *kept("json-names", {"names": (post(json.dumps(NAMES).encode()), NAMES)}),
    *refused(
        "json-large",
        {"a string over the limit": post(b'"' + b"x" * 10**6 + b'"'), "blanks over the limit": post(b" " * 1_000_001)},
        texts.TOO_LARGE,
        413,
    ),
    *kept(
        "json-large",
        {
            "a string": (post(b'"' + b"x" * 999_998 + b'"'), "x" * 999_998),
            "keys": (post(b"{" + b",".join(b'"%x":1' % key for key in range(100_000)) + b"}"), MANY_KEYS),
            "empty arrays": (post(b"[" + b"[]," * 300_000 + b"1]"), [*([] for _ in range(300_000)), 1]),
        },
    ),
]

GIGABYTE = f"Content-Length: {2**30}"
EXPECT = "Expect: 100-continue"
EMPTY: list[Any] = []
ONE_TOMATO = at(PLANTS, f"uniqueId={TOMATO}&dataOnly=true")
TOMATO_DATA = {"name": "Tomato", "bed": 1, "waterDaily": True}


def chunks(*parts: bytes) -> bytes:
    return head("POST", at(PLANTS), FROM_PAGE, AS_JSON, CHUNKED) + b"".join(parts)


def get(target: str, *lines: str, method: str = "GET", **more: Any) -> bytes:
    return head(method, target, *lines, **more)


def without(value: str) -> bytes:
    return post(b"{}").replace(b"Content-Length: 2", value.encode("latin1"))


def named(name: str) -> bytes:
    return post(b"{}", target=at(name))


ADDRESSES = [
    *refused(
        "type",
        {
            "none": post(b"{}", kind=None),
            "empty": post(b"{}", kind="Content-Type:"),
            "latin1": post(b"{}", kind=f"{AS_JSON}; charset=latin1"),
            "UTF-16": post(b"{}", kind=f"{AS_TEXT}; charset=utf-16"),
            "two of them": post(b"{}", AS_TEXT),
            "the same twice": post(b"{}", AS_JSON),
            "a form": post(b"a=b", kind="Content-Type: application/x-www-form-urlencoded"),
            "beyond ASCII": post(b"{}", kind="Content-Type: application/json\xa0"),
            "control characters": post(b"{}", kind="Content-Type: \x9b31m"),
            "100 KB": post(b"{}", kind="Content-Type: " + "x" * 100_000),
        },
        texts.WRONG_CONTENT_TYPE,
    ),
    *refused(
        "type",
        {"gzip": post(b"{}", "Content-Encoding: gzip"), "two codings": post(b"{}", "Content-Encoding: identity, br")},
        texts.WRONG_BODY,
    ),
    *kept(
        "type",
        {
            "odd case": (post(b"[]", kind="content-TYPE: Application/JSON; Charset=UTF-8"), EMPTY),
            "quotes": (post(b"[]", kind='Content-Type: application/json ;charset="utf-8";x=y'), EMPTY),
            "identity": (post(b"[]", "Content-Encoding: identity"), EMPTY),
        },
    ),
    *refused(
        "length-over",
        {
            "1 GiB, nothing sent": head("POST", at(PLANTS), FROM_PAGE, AS_JSON, GIGABYTE),
            "1 GiB said twice": head("POST", at(PLANTS), FROM_PAGE, AS_JSON, GIGABYTE, GIGABYTE),
            "10^30": head("POST", at(PLANTS), FROM_PAGE, AS_JSON, f"Content-Length: {10**30}"),
            "chunks": chunks(*[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 16),
            "a chunk": chunks(b"f" * 30 + b"\r\n" + b"x" * 1_100_000),
            "tiny chunks": chunks(b"1\r\nx\r\n" * 5000, b"f4240\r\n" + b"x" * 10**6),
        },
        texts.TOO_LARGE,
        413,
    ),
    *[
        Case("expect", name, head(method, target, EXPECT, *lines, host=host), status)
        for name, method, target, status, host, lines in (
            ("wrong key", "POST", at(PLANTS, key="x"), 400, "localhost", (AS_JSON, "Content-Length: 2")),
            ("no key", "POST", at(PLANTS, key=None), 403, "localhost", (AS_JSON, "Content-Length: 2")),
            ("no token", "POST", at(DIARY), 401, "localhost", (AS_JSON, "Content-Length: 2")),
            (
                "no token for files",
                "POST",
                at(DIARY),
                401,
                "localhost",
                ("Content-Type: multipart/form-data; boundary=x", "Content-Length: 2"),
            ),
            ("foreign host", "POST", at(PLANTS), 403, "evil.example", (AS_JSON, "Content-Length: 2")),
            (
                "foreign page",
                "POST",
                at(PLANTS),
                403,
                "localhost",
                (f"Origin: {FOREIGN}", AS_JSON, "Content-Length: 2"),
            ),
            ("wrong type", "POST", at(PLANTS), 400, "localhost", ("Content-Type: text/html", "Content-Length: 2")),
            ("wrong type and too large", "PUT", at(PLANTS), 400, "localhost", ("Content-Type: text/html", GIGABYTE)),
            ("too large", "POST", at(PLANTS), 413, "localhost", (AS_JSON, GIGABYTE, GIGABYTE)),
            ("no address", "POST", "/nowhere", 404, "localhost", (AS_JSON, "Content-Length: 2")),
            ("no method", "PATCH", at(PLANTS), 405, "localhost", (AS_JSON, "Content-Length: 2")),
            ("a form for control", "POST", "/__emulator__/reset", 403, "localhost", (AS_TEXT, "Content-Length: 2")),
            ("an unknown verb", "POST", "/__emulator__/resett", 404, "localhost", (AS_JSON, "Content-Length: 2")),
            ("a chunk", "POST", at(DIARY), 401, "localhost", (AS_JSON, CHUNKED)),
        )
    ],
    *bare(
        "framing",
        {
            "negative length": without("Content-Length: -2"),
            "length with a plus": without("Content-Length: +2"),
            "length with a letter": without("Content-Length: 2x"),
            "length with an underscore": without("Content-Length: 0_2"),
            "length in superscript": without("Content-Length: \xb2"),
            "hexadecimal length": without("Content-Length: 0x2"),
            "empty length": without("Content-Length:"),
            "two lengths": without("Content-Length: 2\r\nContent-Length: 3"),
            "length and chunks": without(f"Content-Length: 2\r\n{CHUNKED}"),
            "chunks twice": without(f"{CHUNKED}\r\n{CHUNKED}"),
            "gzip as transfer": without("Transfer-Encoding: gzip, chunked"),
            "a chunk that is no number": chunks(b"zz\r\n{}\r\n0\r\n\r\n"),
            "a negative chunk": chunks(b"-2\r\n{}\r\n0\r\n\r\n"),
            "a chunk with a sign": chunks(b"+2\r\n{}\r\n0\r\n\r\n"),
            "a chunk with 0x": chunks(b"0x2\r\n{}\r\n0\r\n\r\n"),
            "a chunk that is longer": chunks(b"2\r\n{}}}\r\n0\r\n\r\n"),
            "a chunk without its end": chunks(b"2\r\n{}\r\n0\r\nx: y\r\n\r\n"),
            "a null in a header": post(b"{}", "X: a\0b"),
            "a null in the line": get("/\0"),
            "a bare CR": post(b"{}", "X: a\rb"),
            "a folded header": post(b"{}", "X: a\r\n b"),
            "a folded first header": get(at(PLANTS), host=None).replace(b"1.1\r\n", b"1.1\r\n Host: localhost\r\n"),
            "a space before the colon": post(b"{}", "X : a"),
            "no colon": post(b"{}", "X"),
            "no name": post(b"{}", ": a"),
            "no version": b"GET /\r\n\r\n",
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "HTTP/11": get("/", version="11"),
            "two spaces": b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "no HTTP": b"\0\1\2\r\n\r\n",
        },
    ),
    *bare("framing", {"a chunk's length of 100 digits": chunks(b"0" * 100 + b"\r\n")}, None),
    *refused(
        "framing",
        {
            "no host": head("POST", at(PLANTS), AS_JSON, "Content-Length: 2", host=None) + b"{}",
            "two hosts": post(b"{}", "Host: localhost"),
            "two hosts in one": post(b"{}").replace(b"localhost", b"localhost,localhost", 1),
            "no host in HTTP/1.0": get(at(PLANTS), host=None, version="1.0"),
            "a socket without host": get(at(PLANTS), *HANDSHAKE, host=None),
            "a socket with two hosts": get(at(PLANTS), "Host: localhost", *HANDSHAKE),
        },
        texts.WRONG_HOST,
    ),
    *refused(
        "framing",
        {
            "absolute URI": post(b"{}", target="http://localhost" + at(PLANTS)),
            "foreign absolute URI": post(b"{}", target="http://evil.example" + at(PLANTS)),
            "CONNECT": get("localhost:80", method="CONNECT"),
            "an asterisk": get("*"),
        },
        texts.NOT_FOUND,
        404,
    ),
    *[
        Case("framing", method, get(at(PLANTS), FROM_PAGE, method=method), 405, texts.WRONG_METHOD, headers=ALLOW)
        for ALLOW in [{"allow": "GET, POST, PUT, DELETE, OPTIONS"}]
        for method in ("TRACE", "PATCH", "BREW", "get", "PROPFIND", "X" * 1000)
    ],
    *kept(
        "framing",
        {
            "HTTP/1.0": (get(ONE_TOMATO, version="1.0"), TOMATO_DATA),
            "HTTP/1.9": (get(ONE_TOMATO, "Connection: close", version="1.9"), TOMATO_DATA),
            "the same length twice": (post(b"[]", "Content-Length: 2"), EMPTY),
            "bare line feeds": (get(ONE_TOMATO).replace(b"\r", b""), TOMATO_DATA),
        },
    ),
    *kept("header-size", {"70 KB": (get(ONE_TOMATO, f"X: {'x' * 70_000}"), TOMATO_DATA)}),
    *bare(
        "header-size",
        {"300 KB": get(ONE_TOMATO, f"X: {'x' * 300_000}"), "300 KB of path": get("/" + "x" * 300_000)},
        None,
    ),
    *refused(
        "header-size",
        {
            "200 KB of path": named("x" * 200_000),
            "200 KB of key": post(b"{}", target=at(PLANTS, key="x" * 30 + SECRET * 30_000)),
            "a thousand headers of one name": post(b"{", *["X: y"] * 1000),
            "a thousand headers": post(b"{", *[f"X{number}: y" for number in range(1000)]),
            "200 KB of a name": post(b"{", f"{'x' * 200_000}: y"),
            "a Range of blanks": get(at(PLANTS, "fileOnly=true"), f"Range: bytes={' ' * 200_000}x"),
        },
    ),
    *bare("tls-hello", {"hello": bytes.fromhex("16030100c8010000c40303") + b"x" * 193}, None),
    *refused(
        "host",
        {
            name: post(b"{}").replace(b"Host: localhost", b"Host: " + name.encode("latin1"))
            for name in ("evil.example", "localhost.evil.com", "0.0.0.0", "\x9b31m", "localhost\xa0", "", "x" * 100_000)
        },
        texts.HOST_REFUSED,
        403,
    ),
    *kept(
        "host",
        {name: (get(ONE_TOMATO, host=name), TOMATO_DATA) for name in ("[::1]:80", "LOCALHOST", "localhost.:1")},
    ),
    *refused(
        "path",
        {
            name: named(name)
            for name in (
                "garden%2Fplants",
                "garden//plants",
                "garden/plants%00",
                "garden/../garden/plants",
                "garden/%70lants",
                "garden/PLANTS",
                "garden/plants\xff",
                "garden\\plants",
                "a" * 255,
                "_sessions",
                "%zz",
            )
        },
        texts.NOT_VALID,
    ),
    *refused(
        "path",
        {
            name: post(b"{}", target=name + at(PLANTS))
            for name in ("/", "/.", "/x/..", "/%2e", "/__emulator__/..", "/%2f")
        }
        | {"upper case": post(b"{}", target=at(PLANTS).replace("api", "API"))},
        texts.NOT_FOUND,
        404,
    ),
    *refused(
        "path",
        {
            "query not UTF-8": post(b"{}", target=at(PLANTS, "x=%ff")),
            "bytes in the query": post(b"{}", target=at(PLANTS, "x=\xff")),
            "a surrogate in the query": post(b"{}", target=at(PLANTS, "x=%ED%A0%80")),
        },
        texts.WRONG_PARAMETER,
    ),
    *kept("parameters", {"the last key counts": (get(ONE_TOMATO + f"&key=x&key={KEY}"), TOMATO_DATA)}),
    *kept("parameters", {"the last flag counts": (get(f"{ONE_TOMATO}&dataOnly=x&dataOnly=true"), TOMATO_DATA)}),
    *kept("parameters", {"empty ones": (get(ONE_TOMATO + "&&=&=x&strategy=&uniqueId=&&x"), TOMATO_DATA)}),
    *kept("parameters", {"1,500 of them": (get(ONE_TOMATO + "&x=%20" * 1500), TOMATO_DATA)}),
    *kept("parameters", {"30,000 of them": (get(ONE_TOMATO + "&x=%20" * 30_000), TOMATO_DATA)}),
    *kept("parameters", {"an id 7,000 times": (get(ONE_TOMATO + f"&uniqueId={TOMATO}" * 5000), [TOMATO_DATA])}),
    *refused("parameters", {"the last key is wrong": post(b"{}", target=at(PLANTS, "key=x"))}, texts.NOT_VALID),
    *refused(
        "parameters",
        {
            "the last strategy is wrong": head(
                "PUT", at(PLANTS, f"uniqueId={TOMATO}&strategy=merge&strategy=x"), AS_JSON, "Content-Length: 2"
            )
            + b"{}",
            "an empty strategy": head("PUT", at(PLANTS, f"uniqueId={TOMATO}&strategy="), AS_JSON, "Content-Length: 2")
            + b"{}",
            "two ids": head("PUT", at(PLANTS, f"uniqueId={TOMATO}&uniqueId=x"), AS_JSON, "Content-Length: 2") + b"{}",
            "one id twice": head("DELETE", at(PLANTS, f"uniqueId={TOMATO}&uniqueId={TOMATO}")),
            "100,000 ids": get(at(PLANTS, "uniqueId=" + "a," * 100_000)),
        },
    ),
    Case("head", "HEAD", get(at(PLANTS), method="HEAD"), 405, is_ours=False, headers={"content-type": JSON}),
    *kept(
        "head",
        {
            "a body with GET": (get(ONE_TOMATO, "Content-Length: 2", "Content-Type: x") + b"\xff{", TOMATO_DATA),
            "chunks with GET": (get(ONE_TOMATO, CHUNKED) + b"2\r\n\xff{\r\n0\r\n\r\n", TOMATO_DATA),
        },
    ),
    *refused(
        "head",
        {"a body with DELETE": head("DELETE", at(PLANTS, "uniqueId=x"), "Content-Length: 2") + b"{}"},
        texts.NO_RECORD,
    ),
]

LONG = SECRET * 15_000
BEYOND_ASCII = f"{SECRET}\xfc\x9b\xff"
LOGIN = at(GARDENERS, "login=true")


def as_ada(method: str, target: str, body: bytes = b"{}") -> bytes:
    return head(method, target, AS_JSON, "Authorization: Bearer {ada}", f"Content-Length: {len(body)}") + body


def log_in(password: str) -> bytes:
    return post(json.dumps({"username": "ada", "password": password}).encode(), target=LOGIN)


USERS = [
    *refused(
        "secrets",
        {
            f"{name} as {where}": get(at(DIARY, query), *lines)
            for name, value in (("long", LONG), ("beyond ASCII", BEYOND_ASCII), ("control", f"{SECRET}\x85"))
            for where, query, lines in (
                ("header", "", [f"Authorization: Bearer {value}"]),
                ("cookie", "", [f"Cookie: {COOKIE}={value}"]),
                ("both", "", [f"Authorization: Bearer {value}", f"Cookie: {COOKIE}={value}"]),
                ("parameter", f"accessToken={SECRET}%C3%BC", []),
                (
                    "everything",
                    f"accessToken={SECRET}",
                    [f"Authorization: Bearer {value}", f"Cookie: {COOKIE}={{ada}}"],
                ),
            )
        },
        texts.NO_TOKEN,
        401,
    ),
    *refused(
        "secrets",
        {
            "long master key": get(at(DIARY, f"masterKey={LONG}")),
            "master key beyond ASCII": get(at(DIARY, f"masterKey={SECRET}%C3%BC%C2%9B")),
            "master key beside a token": get(at(DIARY, f"masterKey={SECRET}"), "Authorization: Bearer {ada}"),
        },
        texts.WRONG_MASTER_KEY,
        403,
    ),
    *refused(
        "secrets",
        {
            "long key": post(b"{}", target=at(PLANTS, key="x" * 30 + LONG)),
            "key beyond ASCII": post(b"{}", target=at(PLANTS, key="%C3%BC" * 20)),
            "twice the right one": post(b"{}", target=at(PLANTS, key=KEY * 2)),
            "in upper case": post(b"{}", target=at(PLANTS, key=KEY.upper())),
            "with a null": post(b"{}", target=at(PLANTS, key=KEY + "%00")),
        },
        texts.NOT_VALID,
    ),
    *refused(
        "secrets",
        {
            "long password": log_in(LONG),
            "password beyond ASCII": log_in(BEYOND_ASCII),
            "password with a null": log_in(f"apricot\0{SECRET}"),
        },
        texts.WRONG_CREDENTIALS,
        401,
    ),
    *refused(
        "token",
        {
            name: get(at(DIARY), f"Authorization: Bearer {{{name}}}")
            for name in ("bit", "case", "short", "deleted", "left", "reset")
        },
        texts.NO_TOKEN,
        401,
    ),
    *refused("token", {"expired": get(at(DIARY), "Authorization: Bearer {expired}")}, EXPIRED[1], 401),
    *refused(
        "cookie",
        {
            "the last is wrong": get(at(DIARY), f"Cookie: {COOKIE}={{ada}}; {COOKIE}=x"),
            "the last header is wrong": get(at(DIARY), f"Cookie: {COOKIE}={{ada}}", f"Cookie: {COOKIE}=x"),
            "another name": get(at(DIARY), f"Cookie: x{COOKIE}={{ada}}; {COOKIE.lower()}={{ada}}"),
            "only junk": get(at(DIARY), "Cookie: " + ";=\x9b" * 50_000),
        },
        texts.NO_TOKEN,
        401,
    ),
    *refused(
        "ownership",
        {
            "update": as_ada("PUT", at(CHORES, f"uniqueId={CHORE_OF_BEN}"), b'{"owner":"%b"}' % ADA.encode()),
            "delete": as_ada("DELETE", at(CHORES, f"uniqueId={CHORE_OF_BEN}")),
        },
        texts.NOT_OWNER,
        403,
    ),
    *refused(
        "ownership",
        {
            "another user": as_ada("PUT", at(GARDENERS, f"uniqueId={BEN}"), b'{"username":"ben","password":"x"}'),
            "deleting another user": as_ada("DELETE", at(GARDENERS, f"uniqueId={BEN}")),
            "reading another user": as_ada("GET", at(GARDENERS, f"uniqueId={BEN}")),
        },
        texts.NO_RECORD,
    ),
    *refused(
        "cross-site",
        {
            "a form": post(b"a=b", kind="Content-Type: application/x-www-form-urlencoded"),
        },
        texts.WRONG_CONTENT_TYPE,
    ),
]


def tokens_of(emulator: RestedEmulator) -> dict[str, str]:
    """Access tokens to put into cases, good and bad."""
    ada, left, expired, reset = (emulator.sign_in(GARDENERS, "ada") for _ in range(4))
    emulator.expire_tokens(token=expired)
    call(emulator.url(GARDENERS), "POST", headers=bearer(left), logout="true")
    deleted = emulator.sign_in(GARDENERS, "cleo")
    cleo = call(emulator.url(GARDENERS), headers=bearer(deleted)).json["uniqueId"]
    call(emulator.url(GARDENERS), "DELETE", headers=bearer(deleted), uniqueId=cleo)
    emulator.call(lambda server: server.world.store.drop_session(reset))
    bit = ada[:-1] + f"{int(ada[-1], 16) ^ 1:x}"
    return {
        "ada": ada,
        "left": left,
        "expired": expired,
        "reset": reset,
        "deleted": deleted,
        "bit": bit,
        "case": ada.upper() if ada.upper() != ada else "A" * 32,
        "short": ada[:-1],
    }


@pytest.fixture(scope="module")
def tokens(shared: RestedEmulator) -> dict[str, str]:
    return tokens_of(shared)


CASES = [*JSON_BODIES, *ADDRESSES, *USERS]


def marks_of(case: Case) -> list[pytest.MarkDecorator]:
    return [pytest.mark.warns("TLS was spoken to a port of plain http")] if case.row == "tls-hello" else []


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id, marks=marks_of(case)) for case in CASES])
def test_a_case(shared: RestedEmulator, tokens: dict[str, str], case: Case, caplog: pytest.LogCaptureFixture) -> None:
    sent = re.sub(rb"\{([a-z]{3,})\}", lambda name: tokens[name[1].decode()].encode(), case.sent)
    served = case.status == 200
    posts = served and sent.startswith(b"POST")
    with unharmed(shared, caplog, lines=6 if served else 1, heard=2 * posts, is_large=len(sent) > 50_000):
        reply = send(shared, sent)
        if case.status is None:
            assert reply is None
        elif not served:
            assert reply is not None
            check_answer(case, reply)
        else:
            assert reply is not None
            assert reply.status == 200, reply
            if posts:
                check_stored(shared, reply.json, case.data)
                call(shared.url(PLANTS), "DELETE", uniqueId=reply.json["uniqueId"])
            else:
                assert reply.json == case.data


def check_stored(emulator: RestedEmulator, record: Any, data: Any) -> None:
    """Compare what is kept with what was sent, types of numbers included."""
    assert encoded(record["data"]) == encoded(data)
    assert encoded(emulator.records(PLANTS)[-1]["data"]) == encoded(data)


def encoded(value: Any) -> str:
    return json.dumps(value)


# What takes more than one request


@row("expect")
def test_who_may_send_is_told_to_go_on(shared: RestedEmulator, caplog: pytest.LogCaptureFixture) -> None:
    with unharmed(shared, caplog, lines=6, heard=2), wire(shared) as connection:
        connection.sendall(head("POST", at(PLANTS), AS_JSON, "Content-Length: 2", EXPECT))
        assert answer_on(connection).status == 100
        connection.sendall(b"{}")
        record = answer_on(connection).json
        call(shared.url(PLANTS), "DELETE", uniqueId=record["uniqueId"])


@row("slow")
def test_slow_clients_delay_nobody_and_are_closed(
    shared: RestedEmulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = [b"", b"GET / HTTP/1.1\r\nHost: loc", post(b"{}")[:-1], chunks(b"2\r\n{")]
    begun += [head("GET", at(PLANTS), *HANDSHAKE, more) for more in ("Content-Length: 9", "Transfer-Encoding: chunked")]
    with unharmed(shared, caplog, lines=1):
        slow = [socket.create_connection(("127.0.0.1", int(str(shared.facts["port"]))), timeout=10) for _ in range(200)]
        for number, connection in enumerate(slow):
            connection.sendall(begun[number % len(begun)])
        with Watchdog(shared) as watchdog:
            assert call(shared.url(PLANTS), uniqueId=TOMATO, dataOnly="true").json == TOMATO_DATA
        watchdog.check()
        drop_idle_after(0.0, monkeypatch)
        assert all(at_end(connection) for connection in slow)
        monkeypatch.undo()
        for connection in slow:
            connection.close()


@row("slow")
def test_a_body_that_trickles_in_is_closed_like_one_that_stops(
    shared: RestedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_idle_after(0.3, monkeypatch)
    with wire(shared) as connection:
        connection.sendall(head("POST", at(PLANTS), AS_JSON, "Content-Length: 100000"))
        assert any(is_cut(connection) for _ in range(100))


def is_cut(connection: socket.socket) -> bool:
    """Send a byte, wait a tenth of a second, and tell whether the server is gone."""
    connection.settimeout(0.1)
    try:
        connection.sendall(b" ")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@row("token")
def test_a_token_lives_through_a_restart_and_dies_by_time(tmp_path: Any) -> None:
    path = tmp_path / "garden.json"
    path.write_bytes(GARDEN.read_bytes())
    with RestedEmulator(data=path, memory=False) as emulator:
        token = emulator.sign_in(GARDENERS, "ada")
    with RestedEmulator(data=path, memory=False) as emulator:
        assert call(emulator.url(DIARY), headers=bearer(token)).status == 200
        emulator.advance(3600)
        assert call(emulator.url(DIARY), headers=bearer(token)).json["message"] == EXPIRED[1]


@row("token")
def test_a_token_from_before_a_reset_is_no_token(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    emulator.reset()
    assert call(emulator.url(DIARY), headers=bearer(token)).json["message"] == texts.NO_TOKEN


@row("cookie")
@pytest.mark.parametrize("junk", ["{0}=x; {0}={1}", ";;=; {0}={1}; \xff\x9b=", 'a="; {0}={1}; b="', "{0}= {1} "])
def test_the_last_cookie_counts_whatever_is_beside_it(emulator: RestedEmulator, junk: str) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    reply = send(emulator, get(at(DIARY), f"Cookie: {junk.format(COOKIE, token)}"))
    assert reply is not None
    assert reply.status == (200 if "= " not in junk else 401)


@row("clock")
def test_what_has_expired_stays_expired_when_the_clock_goes_back(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    with (
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as listener,
        open_socket(emulator.ws_url(PLANTS)) as other,
    ):
        emulator.advance(86_400)
        assert closing(listener) == EXPIRED
        now = str(emulator.status()["now"])
        emulator.set_time(f"{now[:11]}00:00:00Z")
        assert call(emulator.url(PLANTS), "POST", {}).json == next_of(other)["record"], "a jump ends nobody else"


@row("in-flight")
@pytest.mark.parametrize("how", ["expiry", "logout"])
def test_a_token_that_ends_while_a_request_arrives_ends_the_request(emulator: RestedEmulator, how: str) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    before = emulator.records(DIARY)
    with (
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as listener,
        wire(emulator) as connection,
        wire(emulator) as whole,
    ):
        lines = AS_JSON, f"Authorization: Bearer {token}", "Content-Length: 2"
        whole.sendall(head("POST", at(DIARY), *lines) + b"{}")
        record = answer_on(whole).json
        connection.sendall(head("POST", at(DIARY), *lines) + b"{")
        if how == "expiry":
            emulator.expire_tokens()
        else:
            call(emulator.url(GARDENERS), "POST", headers=bearer(token), logout="true")
        assert next_of(listener)["record"] == record
        assert closing(listener) == EXPIRED
        connection.sendall(b"}")
        assert answer_on(connection).status == 401
    assert emulator.records(DIARY) == [*before, record]


ALLOWED = ("https://shop.example", "https://xn--mnchen-3ya.example", "http://shop.example:8080")
SERVED = (*ALLOWED, "https://shop.example:443", "HTTPS://Shop.Example", "https://XN--MNCHEN-3YA.example")
REFUSED = (
    "null",
    "",
    OTHER_PAGE,
    FOREIGN,
    "https://shop.example/",
    "https://m\xfcnchen.example",
    f"{ALLOWED[0]}, {FOREIGN}",
)


@row("origin")
@pytest.mark.parametrize("origin", [*SERVED, *REFUSED])
def test_an_origin_is_exact_and_a_preflight_agrees(
    shared: RestedEmulator, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    shared.change_project(allowed_origins=ALLOWED)
    try:
        sent = [
            head("OPTIONS", at(PLANTS), f"Origin: {origin}", "Access-Control-Request-Method: PUT"),
            head("PUT", at(PLANTS, "uniqueId=x"), f"Origin: {origin}", AS_JSON, "Content-Length: 2") + b"{}",
        ]
        caplog.clear()
        for reply in (send(shared, each) for each in sent):
            assert reply is not None
            if origin in SERVED:
                assert reply.status in (204, 400)
                assert reply.headers["access-control-allow-origin"] == origin
                assert reply.headers["vary"] == "Origin"
            else:
                assert (reply.status, reply.json["message"]) == (403, texts.ORIGIN_REFUSED)
                assert not [name for name in reply.headers if name.startswith("access-control")]
        with open_socket(shared.ws_url(PLANTS), additional_headers={"Origin": origin}) as listener:
            if origin in SERVED:
                record = call(shared.url(PLANTS), "POST", {}).json
                call(shared.url(PLANTS), "DELETE", uniqueId=record["uniqueId"])
                assert next_of(listener)["record"] == record
            else:
                assert closing(listener) == (4000, texts.ORIGIN_REFUSED)
    finally:
        shared.change_project(allowed_origins=[])


@row("parameters")
def test_a_socket_with_too_many_parameters_harms_nobody(
    shared: RestedEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    with unharmed(shared, caplog):
        reply = send(shared, get(at(PLANTS) + "&x=1" * 1500, *HANDSHAKE))
        assert reply is not None
        assert reply.status == 400


@row("header-size")
def test_long_heads_are_not_kept(shared: RestedEmulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)  # which keeps the lines
    with unharmed(shared, caplog, is_large=True):
        for number in range(30):
            target = at(f"garden/{number}{'x' * 100_000}")
            for sent in (get(target, f"X: {'y' * 100_000}"), get(target, *HANDSHAKE)):
                assert send(shared, sent) is not None
            for body in (b"[" * 900_000, b'"' + b"x" * 900_000):
                assert send(shared, post(body)) is not None


@row("path")
def test_what_a_terminal_obeys_is_escaped_in_the_log() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "GET %s", ("/\x9b31m\x1b[0m\n\u202e\xe9" + "x" * 9000,), None)
    line = shown_in_log(record)
    assert line.isprintable()
    assert r"/\x9b31m\x1b[0m\n\u202eé" in line
    assert len(line) < 5000


def test_every_row_has_a_test() -> None:
    named = {case.row for case in CASES}
    assert named | {name for name, tests in TESTS.items() if tests} == ROWS.keys()
    assert all(test in globals() for tests in TESTS.values() for test in tests)
    assert len({case.id for case in CASES}) == len(CASES)
