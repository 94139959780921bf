"""The lane: what it recognises is read as Tornado reads it, what it answers is answered as on the way past it.

300 mutated requests go to two emulators, with the lane and without it; ``--mutations 20000`` sends more, new ones.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine
from tornado.iostream import IOStream

from rested_emulator import RestedEmulator
from tests.conftest import GARDEN, PLANTS, ROSEMARY, TOMATO
from tests.wire import PAGE, answer_on, at, at_end, base, call, drop_idle_after, head, wire

AS_JSON = "Content-Type: application/json"
GET = head("GET", at(PLANTS, f"uniqueId={TOMATO}&dataOnly=true"))


def post(body: bytes, *headers: str) -> bytes:
    return head("POST", at(PLANTS), AS_JSON, *headers, f"Content-Length: {len(body)}") + body


def lane_of(server: Any) -> Any:
    assert server._intake.lane is not None
    return server._intake.lane


def is_in_lane(emulator: RestedEmulator, connection: socket.socket) -> bool:
    """Whether a connection is in the lane."""
    port = connection.getsockname()[1]
    return emulator.call(lambda server: any(one._address[1] == port for one in lane_of(server).connections))


def has_arrived(emulator: RestedEmulator) -> None:
    """Wait until what was sent before has been read, and answered if that takes no time."""
    for _ in range(2):
        assert call(f"{base(emulator)}/__emulator__/health").status == 200


def is_plain(emulator: RestedEmulator, data: bytes) -> bool:
    return emulator.call(lambda server: lane_of(server).recognise(data) is not None)


# What is recognised


@pytest.fixture
def lane(emulator: RestedEmulator) -> Any:
    return emulator.call(lane_of)


@pytest.mark.parametrize(
    "data",
    [
        GET,
        post(b"{}"),
        post(b"{}")[:-2],
        post(b""),
        head("PUT", at(PLANTS), "content-LENGTH: 0007", AS_JSON, "connection: Keep-Alive") + b"1234567",
        head("DELETE", at(PLANTS, "a=?/#")),
        head("OPTIONS", at(PLANTS), f"Origin: {PAGE}", "Access-Control-Request-Method: PUT"),
        b"GET /api/1/ce/ HTTP/1.1\r\n\r\n",
    ],
)
def test_what_clients_send_is_plain(lane: Any, data: bytes) -> None:
    assert lane.recognise(data) is not None


LENGTH = "Content-Length: 2"
NOT_PLAIN = {
    "no head": b"GET",
    "half a head": GET[:-1],
    "no line": b"\r\n\r\n",
    "another version": GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another method": head("PATCH", at(PLANTS)),
    "HEAD": head("HEAD", at(PLANTS)),
    "no path of the API": head("GET", "/__emulator__/health"),
    "a whole URL": head("GET", f"http://localhost{at(PLANTS)}"),
    "a path that is not ASCII": GET.replace(b"plants", "plänts".encode()),
    "a space in the path": GET.replace(b"plants", b"pla nts"),
    "two spaces": GET.replace(b"GET ", b"GET  "),
    "an empty line before": b"\r\n" + GET,
    "a next request": GET + GET,
    "a byte behind the body": post(b"{}") + b"\n",
    "a body without length": head("POST", at(PLANTS), AS_JSON) + b"{}",
    "a length twice": head("POST", at(PLANTS), AS_JSON, LENGTH, LENGTH) + b"{}",
    "two lengths": head("POST", at(PLANTS), AS_JSON, LENGTH, "Content-Length: 3") + b"{}",
    "two lengths in one": head("POST", at(PLANTS), AS_JSON, "Content-Length: 2, 2") + b"{}",
    "a signed length": head("POST", at(PLANTS), AS_JSON, "Content-Length: +2") + b"{}",
    "a negative length": head("POST", at(PLANTS), AS_JSON, "Content-Length: -2") + b"{}",
    "a length in hex": head("POST", at(PLANTS), AS_JSON, "Content-Length: 0x2") + b"{}",
    "a length with a line between": head("POST", at(PLANTS), AS_JSON, "Content-Length: 1_0") + b"{}",
    "ten digits": head("POST", at(PLANTS), AS_JSON, "Content-Length: 0000000002") + b"{}",
    "over the limit": head("POST", at(PLANTS), AS_JSON, "Content-Length: 1000001") + b"{}",
    "a space behind the length": head("POST", at(PLANTS), AS_JSON, "Content-Length: 2 ") + b"{}",
    "a space before the colon": head("POST", at(PLANTS), AS_JSON, "Content-Length : 2") + b"{}",
    "two spaces behind the colon": head("POST", at(PLANTS), AS_JSON, "Content-Length:  2") + b"{}",
    "no space behind the colon": head("POST", at(PLANTS), AS_JSON, "Content-Length:2") + b"{}",
    "a tab": head("POST", at(PLANTS), AS_JSON, "Content-Length:\t2") + b"{}",
    "a folded line": head("POST", at(PLANTS), AS_JSON, "X: a\r\n Content-Length: 2") + b"{}",
    "a folded length": head("POST", at(PLANTS), AS_JSON, "Content-Length: \r\n 2") + b"{}",
    "a bare LF": head("POST", at(PLANTS), "X: a\nContent-Length: 2") + b"{}",
    "a bare CR": head("POST", at(PLANTS), "X: a\rContent-Length: 2") + b"{}",
    "LF alone": GET.replace(b"\r\n", b"\n"),
    "LF at the end": GET[:-2] + b"\n",
    "NUL in a header": head("GET", at(PLANTS), "X: a\0b"),
    "NUL in a name": head("GET", at(PLANTS), "X\0: a"),
    "DEL in a header": head("GET", at(PLANTS), "X: a\x7fb"),
    "a header that is not ASCII": head("GET", at(PLANTS), "X: ä"),
    "an empty header": head("GET", at(PLANTS), "X: "),
    "a name twice": head("GET", at(PLANTS), "X: 1", "x: 1"),
    "no colon": head("GET", at(PLANTS), "X"),
    "both framings": head("POST", at(PLANTS), AS_JSON, LENGTH, "Transfer-Encoding: chunked") + b"{}",
    "chunks": head("POST", at(PLANTS), AS_JSON, "transfer-encoding: chunked") + b"0\r\n\r\n",
    "any other coding": head("POST", at(PLANTS), AS_JSON, "Transfer-Encoding: identity"),
    "Expect": head("POST", at(PLANTS), AS_JSON, LENGTH, "Expect: 100-continue") + b"{}",
    "Upgrade": head("GET", at(PLANTS), "Upgrade: websocket"),
    "TE": head("GET", at(PLANTS), "TE: trailers"),
    "Trailer": head("GET", at(PLANTS), "Trailer: X"),
    "close": head("GET", at(PLANTS), "Connection: close"),
    "another connection": head("GET", at(PLANTS), "Connection: keep-alive, Upgrade"),
    "files": head("POST", at(PLANTS), "Content-Type: Multipart/form-data; boundary=x", LENGTH) + b"{}",
}


@pytest.mark.parametrize("data", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_everything_else_is_tornados(lane: Any, data: bytes) -> None:
    assert lane.recognise(data) is None


class Reading(HTTPMessageDelegate):
    """What Tornado reads of a request."""

    line: RequestStartLine
    fields: list[tuple[str, str]]
    body = b""
    is_whole = False

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        self.line, self.fields = start_line, list(headers.get_all())

    def data_received(self, chunk: bytes) -> None:
        self.body += chunk

    def finish(self) -> None:
        self.is_whole = True


async def read_by_tornado(data: bytes) -> Reading:
    """How Tornado reads a request."""
    reading = Reading()
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        connection = HTTP1Connection(IOStream(theirs), False, HTTP1ConnectionParameters(max_body_size=2**20))
        serving = asyncio.ensure_future(connection.read_response(reading))
        while not (reading.is_whole or serving.done()):
            await asyncio.sleep(0)
        connection.close()
        await asyncio.wait([serving])
        serving.exception()
    return reading


NAMES = st.sampled_from(
    [
        "Host",
        "host",
        "X-Y",
        "x--y",
        "X_Y",
        "-",
        "Accept",
        "Cookie",
        "Content-Type",
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Expect",
        "Connection",
        "Upgrade",
        "TE",
        "Trailer",
        "Origin",
        "x1y",
        "X-1a",
    ]
)
VALUES = st.text(st.characters(max_codepoint=255), max_size=8) | st.sampled_from(
    [
        "chunked",
        "keep-alive",
        "close",
        "Keep-Alive",
        "multipart/form-data",
        "application/json",
        "100-continue",
        *map(str, range(6)),
        "007",
        "+2",
        "-1",
        "2, 2",
        "2 ",
        " 2",
        "1e1",
        "²",
        "a  b",
    ]
)
SEPARATORS = st.sampled_from([": "] * 12 + [":", " : ", ":  ", ":\t", " ", "\0"])
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n ", " \r\n", "\n\r\n"])
LINES = st.lists(st.tuples(NAMES, SEPARATORS, VALUES, ENDS).map("".join), max_size=5).map("".join)
TARGETS = st.sampled_from([at(PLANTS), "/api/1/ce/", "/api/1/ce/?", "/api/1/ce/a?b?c#d", "/api/1/ce/%ff"]) | st.text(
    st.characters(max_codepoint=255), max_size=8
).map("/api/1/ce/".__add__)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "get"])
VERSIONS = st.sampled_from([" HTTP/1.1\r\n"] * 9 + [" HTTP/1.0\r\n", " HTTP/1.1\n", " HTTP/1.1 \r\n", "\r\n"])
HEADS = st.tuples(METHODS, st.just(" "), TARGETS, VERSIONS, LINES, st.sampled_from(["\r\n"] * 5 + ["\n", "\r\n\r\n"]))


@given(HEADS.map("".join).map(lambda text: text.encode("latin1")), st.binary(max_size=6))
@example(post(b"{}"), b"")
@example(head("GET", at(PLANTS), "X: a", "Y-z: b  c"), b"")
@example(b"PUT /api/1/ce/a?b HTTP/1.1\r\ncontent-length: 3\r\nx1y: z\r\n\r\n", b"abc")
def test_what_the_lane_reads_tornado_reads_the_same(shared: RestedEmulator, begun: bytes, body: bytes) -> None:
    data = begun + body
    plain = shared.call(lambda server: lane_of(server).recognise(data))
    if plain is None:
        return
    whole = data.ljust(plain.size, b"_")  # the rest of a body is still to come
    reading = asyncio.run(read_by_tornado(whole))
    request = plain.request
    target = f"{request.path}?{request.query}" if request.query else request.path
    assert reading.is_whole
    assert tuple(reading.line) in [(request.method, target, "HTTP/1.1"), (request.method, f"{target}?", "HTTP/1.1")]
    assert reading.fields == list(request.headers.items())
    assert reading.body == whole[plain.head :]


# Side by side

PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"\xff", b"GET ", b"Content-Length: 1\r\n", b"Expect: x\r\n"]
PIECES += [b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n", b"&dataOnly=true", b"{", b"0", b"9", b"?"]


def some_request(chance: random.Random) -> bytes:
    """A request as a client may send it."""
    body = chance.choice([b"", b"{}", b'{"a": 1}', b'"x"', b"[", b"x" * 200])
    target = at(
        PLANTS, chance.choice(["", f"uniqueId={TOMATO}", f"uniqueId={ROSEMARY}&dataOnly=true", "uniqueId=x", "a"])
    )
    headers = chance.sample([AS_JSON, "Accept: */*", f"Origin: {PAGE}", "Connection: keep-alive", "Cookie: a=b"], 3)
    method = chance.choice(["GET", "POST", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
    lengths = [f"Content-Length: {len(body)}"] if body else []
    return head(method, target, *headers, *lengths) + body


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The same with something wrong in it, mostly."""
    for _ in range(chance.choice([0, 1, 1, 2])):
        place = chance.randrange(len(data))
        end = place + chance.choice([0, 0, 1, 5])
        data = data[:place] + chance.choice([*PIECES, b""]) + data[end:]
    return data


def exchange(emulator: RestedEmulator, data: bytes, cut: int) -> bytes:
    """All that comes back for what is sent in two pieces, until the server or we have nothing more to say."""
    with wire(emulator) as connection:
        connection.sendall(data[:cut])
        connection.sendall(data[cut:])
        has_arrived(emulator)  # at the end of what it reads Tornado may lose the answer to it
        received = b""
        with suppress(OSError):  # reset, as what the server did not read
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while part := connection.recv(2**16):
                received += part
    return comparable(received.decode("latin1")).encode("latin1")


def comparable(text: str) -> str:
    """A text without what two emulators make up by themselves."""
    text = re.sub(r"[0-9a-f]{32}", lambda found: found[0] if found[0] in KNOWN else "ID", text)
    return re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "TIME", text)


KNOWN = {TOMATO, ROSEMARY, *re.findall(r"[0-9a-f]{32}", at(PLANTS))}


def evidence(emulator: RestedEmulator) -> list[str]:
    seen = emulator.requests()
    for one in seen:
        del one["at"], one["uptime"], one["seconds"]
    return [comparable(repr(one)) for one in seen]


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Iterator[RestedEmulator]:
    """An emulator without the lane."""
    with monkeypatch.context() as environment:
        environment.setenv("RESTED_EMULATOR_NO_LANE", "1")
        emulator = RestedEmulator(data=GARDEN)
        emulator.start()
    with ExitStack() as finally_:
        finally_.callback(emulator.stop)
        assert emulator.call(lambda server: server._intake.lane) is None
        yield emulator


@pytest.mark.may_warn("")
def test_mutated_requests_are_answered_as_without_the_lane(
    emulator: RestedEmulator, past: RestedEmulator, pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--mutations")
    chance = random.Random(7 if count == 300 else None)
    taken = 0
    for each in (emulator, past):
        each.freeze()
    for _ in range(count):
        data = mutated(some_request(chance), chance)
        cut = chance.randrange(len(data))
        taken += is_plain(emulator, data)
        assert exchange(emulator, data, cut) == exchange(past, data, cut), data
        assert evidence(emulator) == evidence(past), data
        assert emulator.clear_requests() == past.clear_requests()
    assert comparable(repr(emulator.records(PLANTS))) == comparable(repr(past.records(PLANTS)))
    print(f"\n{count} requests, {taken} of them plain")
    assert 0.1 * count < taken < 0.9 * count


# One connection


def test_plain_requests_stay_in_the_lane(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        for data, status in [(GET, 200), (post(b"{}"), 200), (post(b"{"), 400), (GET, 200)]:
            connection.sendall(data)
            assert answer_on(connection).status == status
            assert is_in_lane(emulator, connection)


def test_tornado_has_a_connection_for_good(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(GET[:10])
        has_arrived(emulator)
        assert not is_in_lane(emulator, connection)
        connection.sendall(GET[10:])
        assert answer_on(connection).status == 200
        connection.sendall(GET)
        assert answer_on(connection).status == 200
        assert not is_in_lane(emulator, connection)


def test_a_body_that_comes_a_moment_later_is_waited_for(emulator: RestedEmulator) -> None:
    body = b'"' + b"x" * 200_000 + b'"'
    data = post(body)
    start = len(data) - len(body)
    with wire(emulator) as connection:
        connection.sendall(data[:start])
        has_arrived(emulator)
        assert emulator.call(lambda server: len(server._front.pending)) == 1
        connection.sendall(data[start:-1])
        has_arrived(emulator)
        connection.sendall(data[-1:])
        assert answer_on(connection).json["data"] == "x" * 200_000
        assert is_in_lane(emulator, connection)
        connection.sendall(GET)
        assert answer_on(connection).status == 200
    assert emulator.call(lambda server: len(server._front.pending)) == 0


@pytest.mark.parametrize("size", [1, 2, 7, 60, 120])
def test_requests_in_pieces_are_answered_each_once(emulator: RestedEmulator, size: int) -> None:
    data = GET + post(b'{"in": "pieces"}') + GET
    with wire(emulator) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
        answers = [answer_on(connection) for _ in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        assert answers[1].json["data"] == {"in": "pieces"}
        connection.shutdown(socket.SHUT_WR)
        assert at_end(connection)
    assert len(emulator.records(PLANTS)) == 4


@pytest.mark.parametrize("early", [0, 1])
def test_pipelined_requests_are_answered_in_order_each_once(emulator: RestedEmulator, early: int) -> None:
    names = [f"{number}" for number in range(20)]
    requests = [post(f'"{name}"'.encode()) for name in names]
    with wire(emulator) as connection:
        connection.sendall(requests[0][: len(requests[0]) - early])  # without its end it waits in the lane
        if early:
            has_arrived(emulator)
        connection.sendall(requests[0][len(requests[0]) - early :] + b"".join(requests[1:]))
        assert [answer_on(connection).json["data"] for _ in names] == names
    assert [record["data"] for record in emulator.records(PLANTS)][3:] == names
    assert [request["body"] for request in emulator.requests()] == names


def test_a_request_during_a_delayed_answer_comes_after_it(emulator: RestedEmulator) -> None:
    emulator.add_fault("delay", seconds=0.1, times=1)
    with wire(emulator) as connection:
        connection.sendall(post(b'"first"'))
        has_arrived(emulator)
        connection.sendall(post(b'"second"'))
        assert [answer_on(connection).json["data"] for _ in range(2)] == ["first", "second"]
    assert [record["data"] for record in emulator.records(PLANTS)][3:] == ["first", "second"]


def test_who_leaves_during_a_delayed_answer_is_noted(emulator: RestedEmulator) -> None:
    emulator.add_fault("delay", seconds=600, times=1)
    with wire(emulator) as connection:
        connection.sendall(GET)
        has_arrived(emulator)
    has_arrived(emulator)
    [request] = emulator.requests()
    assert (request["left"], request["status"]) == (True, None)
    assert emulator.call(lambda server: (len(lane_of(server).connections), len(server._front.pending))) == (0, 0)


def test_a_cut_is_a_reset(emulator: RestedEmulator) -> None:
    emulator.add_fault("cut", times=1)
    with wire(emulator) as connection:
        connection.sendall(GET)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.parametrize("way", ["emulator", "past"])
def test_ten_megabytes_come_whole_and_the_next_answer_after_them(request: pytest.FixtureRequest, way: str) -> None:
    emulator: RestedEmulator = request.getfixturevalue(way)
    data = "x" * 900_000
    for _ in range(11):
        assert call(emulator.url(PLANTS), "POST", data).status == 200
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS)))
        has_arrived(emulator)
        connection.sendall(GET)  # while most of the answer waits
        assert [record["data"] for record in answer_on(connection).json][3:] == [data] * 11
        assert answer_on(connection).status == 200
    if way == "emulator":
        assert emulator.call(lambda server: len(lane_of(server).connections)) == 0


def test_who_does_not_read_ten_megabytes_is_dropped_at_the_end(emulator: RestedEmulator) -> None:
    for _ in range(11):
        call(emulator.url(PLANTS), "POST", "x" * 900_000)
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS)))
        has_arrived(emulator)
        assert is_in_lane(emulator, connection)
        emulator.stop()
        emulator.start()


def test_silent_and_dribbling_clients_are_closed(emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = [b"", GET, GET[:-1], post(b"{}")[:-1], GET + GET[:3]]
    with ExitStack() as connections:
        slow = [connections.enter_context(wire(emulator)) for _ in begun]
        for data, connection in zip(begun, slow, strict=True):
            connection.sendall(data)
            if GET in data:
                assert answer_on(connection).status == 200
        has_arrived(emulator)
        assert [is_in_lane(emulator, connection) for connection in slow] == [True, True, False, True, False]
        drop_idle_after(0.0, monkeypatch)
        assert all(at_end(connection) for connection in slow)
        monkeypatch.undo()
    assert emulator.call(lambda server: (len(lane_of(server).connections), len(server._front.pending))) == (0, 0)


def test_a_body_that_its_client_never_sends_is_given_up(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(post(b"{}")[:-1])
        has_arrived(emulator)
    has_arrived(emulator)
    assert emulator.call(lambda server: (len(lane_of(server).connections), len(server._front.pending))) == (0, 0)
    assert emulator.requests() == []


def test_a_stop_waits_for_a_body_and_a_delayed_answer_and_ends_the_rest() -> None:
    with RestedEmulator(data=GARDEN) as emulator, ExitStack() as connections:
        idle, late, delayed = (connections.enter_context(wire(emulator)) for _ in range(3))
        emulator.add_fault("delay", seconds=0.2, times=1, endpoint=PLANTS, method="GET")
        delayed.sendall(GET)
        late.sendall(post(b'"late"')[:-1])
        has_arrived(emulator)
        stopping = threading.Thread(target=emulator.stop)
        stopping.start()
        assert answer_on(delayed).status == 200
        late.sendall(b'"')
        assert answer_on(late).json["data"] == "late"
        assert all(at_end(connection) for connection in (idle, late, delayed))
        stopping.join()


@pytest.mark.warns("GET /api/1/ce/garden/plants failed")
def test_an_exchange_that_fails_closes_its_connection_alone(
    emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    with wire(emulator) as connection, wire(emulator) as other:
        with monkeypatch.context() as broken:
            broken.setattr(emulator.call(lambda server: server.world.evidence), "saw_request", fail)
            connection.sendall(GET)
            assert at_end(connection)
        other.sendall(GET)
        assert answer_on(other).status == 200
    assert emulator.call(lambda server: len(server._front.pending)) == 0


def test_evidence_is_the_same_on_both_ways(emulator: RestedEmulator, past: RestedEmulator) -> None:
    sent = [GET, post(b'{"password": "sesame"}'), post(b"{"), head("OPTIONS", at(PLANTS), f"Origin: {PAGE}")]
    sent += [head("DELETE", at(PLANTS, "uniqueId=x"), "Authorization: Bearer sesame"), head("GET", at("no/where"))]
    for each in (emulator, past):
        each.add_fault("status", status=503, times=1)
        with wire(each) as connection:
            for data in [GET, *sent]:
                connection.sendall(data)
                answer_on(connection)
            if each is emulator:
                assert is_in_lane(each, connection)
    assert evidence(emulator) == evidence(past)
    assert emulator.coverage() == past.coverage()
    assert len(evidence(emulator)) == len(sent)


def test_tls_has_no_lane() -> None:
    pytest.importorskip("trustme")
    with RestedEmulator(tls=True) as emulator:
        assert emulator.call(lambda server: server._intake.lane) is None
