"""WebSocket: who gets in, what they hear, and how it ends, on a real wire (contract 7)."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from rested_emulator import RestedEmulator
from tests import texts
from tests.conftest import ADA, DIARY, DIARY_OF_ADA, DIARY_OF_BEN, GARDEN, GARDENERS, MASTER_KEY, PLANTS, TOMATO
from tests.wire import (
    CHANGED,
    COOKIE,
    EXPIRED,
    FOREIGN,
    HANDSHAKE,
    OTHER_PAGE,
    PAGE,
    allow_sockets,
    answer_on,
    assert_open,
    assert_refusal,
    at,
    at_end,
    bearer,
    call,
    closing,
    give_up_at_stop_after,
    head,
    listeners_of,
    next_of,
    open_socket,
    take,
    wire,
)

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def socket_url(emulator: RestedEmulator, target: str) -> str:
    """The WebSocket's URL of a target."""
    return f"ws://{emulator.facts['host']}{target}"


@contextmanager
def raw_socket(emulator: RestedEmulator, endpoint: str = PLANTS, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """A WebSocket of which a test writes and reads every byte; the handshake is done."""
    with socket.socket() as connection:
        connection.settimeout(10)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", emulator.facts["port"]))
        connection.sendall(head("GET", at(endpoint), *HANDSHAKE))
        assert answer_on(connection).status == 101
        yield connection


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A frame as a client sends it, masked with a key of zeros."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes((0x80 * last | opcode,)) + length + bytes(4) + payload


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """The opcode and payload of the next frame of the server."""
    first, size = take(connection, 2)
    assert first & 0xF0 == 0x80, "a frame is whole, and nothing is compressed"
    if size > 125:
        size = int.from_bytes(take(connection, 2 if size == 126 else 8))
    return first & 0x0F, take(connection, size)


def drain(connection: socket.socket) -> int:
    """Read until the connection is over; how many bytes that were."""
    total = 0
    try:
        while part := connection.recv(2**16):
            total += len(part)
    except ConnectionResetError:
        pass
    return total


# Getting in


@dataclass(frozen=True)
class Row:
    """A handshake, and why it ends; {expired} and so on stand for access tokens."""

    target: str
    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    project: dict[str, Any] = field(default_factory=dict)


ONLY_PAGE: dict[str, Any] = {"allowed_origins": [PAGE]}

REFUSED = {
    "no key": Row(at(PLANTS, key=None), texts.NOT_VALID),
    "empty key": Row(at(PLANTS, key=""), texts.NOT_VALID),
    "wrong key": Row(at(PLANTS, key="wrong"), texts.NOT_VALID),
    "unknown endpoint": Row(at("garden/weeds"), texts.NOT_VALID),
    "no token": Row(at(DIARY), texts.NO_TOKEN),
    "no token for users": Row(at(GARDENERS), texts.NO_TOKEN),
    "wrong token": Row(at(DIARY, "accessToken=wrong"), texts.NO_TOKEN),
    "Bearer before the parameter": Row(at(DIARY, "accessToken=Bearer%20{ada}"), texts.NO_TOKEN),
    "expired token": Row(at(DIARY, "accessToken={expired}"), texts.NO_TOKEN),
    "token after logout": Row(at(DIARY, "accessToken={left}"), texts.NO_TOKEN),
    "wrong token in the header": Row(at(DIARY), texts.NO_TOKEN, {"Authorization": "Bearer wrong"}),
    "wrong token in the cookie": Row(at(DIARY), texts.NO_TOKEN, {"Cookie": f"{COOKIE}=wrong"}),
    "refused origin": Row(at(PLANTS), texts.ORIGIN_REFUSED, {"Origin": OTHER_PAGE}, ONLY_PAGE),
    "no origin": Row(at(PLANTS), texts.ORIGIN_REFUSED, project={"disallow_no_origin": True}),
    "foreign origin without key": Row(at(PLANTS, key=None), texts.ORIGIN_REFUSED, {"Origin": FOREIGN}),
    "key before origin": Row(at(PLANTS, key="wrong"), texts.NOT_VALID, {"Origin": OTHER_PAGE}, ONLY_PAGE),
    "origin before token": Row(at(DIARY), texts.ORIGIN_REFUSED, {"Origin": OTHER_PAGE}, ONLY_PAGE),
    "the master key is no token": Row(at(DIARY, f"masterKey={MASTER_KEY}"), texts.NO_TOKEN),
    "the master key is no origin": Row(
        at(PLANTS, f"masterKey={MASTER_KEY}"), texts.ORIGIN_REFUSED, {"Origin": OTHER_PAGE}, ONLY_PAGE
    ),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_socket_is_opened_to_be_told_why(emulator: RestedEmulator, row: Row) -> None:
    names = {name: emulator.sign_in(GARDENERS, "ada") for name in ("ada", "expired", "left")}
    emulator.expire_tokens(token=names["expired"])
    call(emulator.url(GARDENERS), "POST", headers=bearer(names["left"]), logout="true")
    emulator.change_project(**row.project)
    url = socket_url(emulator, row.target.format(**names))
    with open_socket(url, additional_headers=row.headers) as refused:
        assert closing(refused) == (4000, row.reason)
    assert listeners_of(emulator) == 0


def test_an_allowed_origin_gets_in_wherever_it_is(emulator: RestedEmulator) -> None:
    emulator.change_project(allowed_origins=[FOREIGN])
    with open_socket(emulator.ws_url(PLANTS), additional_headers={"Origin": FOREIGN}) as listener:
        assert_open(emulator, listener)


GOOD, BAD = "{0}", "wrong"


@pytest.mark.parametrize(
    ("header", "parameter", "cookie", "gets_in"),
    [
        (GOOD, None, None, True),
        (None, GOOD, None, True),
        (None, None, GOOD, True),
        (GOOD, BAD, BAD, True),
        (BAD, GOOD, GOOD, False),
        (None, GOOD, BAD, True),
        (None, BAD, GOOD, False),
        (GOOD, None, BAD, True),
        (BAD, None, GOOD, False),
        (None, "", GOOD, True),
    ],
)
def test_a_token_comes_by_header_then_parameter_then_cookie(
    emulator: RestedEmulator, header: str | None, parameter: str | None, cookie: str | None, gets_in: bool
) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    shows = {"Authorization": header and f"Bearer {header}", "Cookie": cookie and f"{COOKIE}={cookie}"}
    headers = {name: value.format(token) for name, value in shows.items() if value}
    query = "" if parameter is None else f"&accessToken={parameter.format(token)}"
    with open_socket(emulator.ws_url(DIARY) + query, additional_headers=headers) as listener:
        emulator.expire_tokens()
        assert closing(listener) == (EXPIRED if gets_in else (4000, texts.NO_TOKEN))


# The handshake


def test_a_handshake_is_answered_as_the_standard_says_and_without_a_name(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        reply = answer_on(connection)
    assert reply.status == 101
    assert reply.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert not {"server", "content-type", "sec-websocket-extensions"} & reply.headers.keys()


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=999; unknown=1",
        "permessage-deflate; server_max_window_bits",
        ";;, =;, permessage-deflate; =",
    ],
)
def test_no_offer_of_compression_is_taken(emulator: RestedEmulator, offer: str) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE, f"Sec-WebSocket-Extensions: {offer}"))
        reply = answer_on(connection)
        assert (reply.status, "sec-websocket-extensions" in reply.headers) == (101, False)
        call(emulator.url(PLANTS), "POST", {"name": "Leek"})
        assert read_frame(connection)[0] == TEXT


def test_a_handshake_elsewhere_is_a_404(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", "/elsewhere", *HANDSHAKE))
        assert_refusal(answer_on(connection), 404, texts.NOT_FOUND)


BAD_HANDSHAKES = {
    "no key": ([*HANDSHAKE[:3]], 400),
    "no version": ([*HANDSHAKE[:2], HANDSHAKE[3]], 426),
    "version 7": ([*HANDSHAKE[:2], "Sec-WebSocket-Version: 7", HANDSHAKE[3]], 426),
    "version x": ([*HANDSHAKE[:2], "Sec-WebSocket-Version: x", HANDSHAKE[3]], 426),
    "two versions": ([*HANDSHAKE, HANDSHAKE[2]], 426),
    "no connection": ([HANDSHAKE[0], *HANDSHAKE[2:]], 400),
    "another connection": ([HANDSHAKE[0], "Connection: keep-alive", *HANDSHAKE[2:]], 400),
    "two keys": ([*HANDSHAKE, HANDSHAKE[3]], 400),
    "3 bytes": ([*HANDSHAKE[:3], "Sec-WebSocket-Key: YWJj"], 400),
    "18 bytes": ([*HANDSHAKE[:3], "Sec-WebSocket-Key: " + "A" * 24], 400),
    "22 bytes": ([*HANDSHAKE[:3], "Sec-WebSocket-Key: " + "A" * 30 + "=="], 400),
    "not base64": ([*HANDSHAKE[:3], "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!=="], 400),
    "an empty key": ([*HANDSHAKE[:3], "Sec-WebSocket-Key:"], 400),
}


@pytest.mark.parametrize(("lines", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES.keys())
def test_a_bad_handshake_is_told_why_and_harms_nobody(emulator: RestedEmulator, lines: list[str], status: int) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener, wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *lines))
        reply = answer_on(connection)
        assert_refusal(reply, status, "WebSocket handshake not valid.")
        assert reply.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
        assert listeners_of(emulator) == 1
        assert_open(emulator, listener)


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.0\r\nConnection: keep-alive"])
def test_a_handshake_over_an_older_http_is_refused(emulator: RestedEmulator, version: bytes) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE).replace(b"HTTP/1.1", version))
        reply = answer_on(connection)
        assert_refusal(reply, 400, "WebSocket handshake not valid.")
        assert "HTTP/1.1" in reply.json["hint"]
    assert listeners_of(emulator) == 0


@pytest.mark.parametrize("connection", ["upgrade", "keep-alive, Upgrade", "UPGRADE,close"])
def test_a_handshake_may_say_more_than_upgrade(emulator: RestedEmulator, connection: str) -> None:
    with wire(emulator) as client:
        client.sendall(head("GET", at(PLANTS), HANDSHAKE[0], f"Connection: {connection}", *HANDSHAKE[2:]))
        assert answer_on(client).status == 101


@pytest.mark.warns("It asks for a subprotocol, and none is spoken here")
def test_a_subprotocol_that_is_not_spoken_is_told_in_log_and_evidence(
    emulator: RestedEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE, "Sec-WebSocket-Protocol: bearer, sesame"))
        reply = answer_on(connection)
        assert (reply.status, "sec-websocket-protocol" in reply.headers) == (101, False)
    [told] = [one["warnings"] for one in emulator.messages(type="OPEN")]
    assert [f"open {PLANTS} {warning}" for warning in told] == [  # type: ignore[union-attr]
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert "sesame" not in caplog.text


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (at(DIARY, "accessToken=Bearer%20sesame"), "Authorization says that once, accessToken not at all"),
        (at(DIARY, "accessToken=null"), "is the word null"),
        (at(DIARY, "accesstoken=sesame"), "the parameter is called accessToken"),
        (at(DIARY, f"masterKey={MASTER_KEY}"), "masterKey counts for nothing here"),
        (at(DIARY), 'credentials: "include"'),
        (at(f"{PLANTS}/"), f"Did you mean {PLANTS}?"),
    ],
)
def test_a_refused_socket_leaves_a_hint_that_names_the_remedy(
    emulator: RestedEmulator, target: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_socket(socket_url(emulator, target), additional_headers={"Origin": PAGE}) as refused:
        assert closing(refused)[0] == 4000
    [end] = emulator.messages(type="CLOSE")
    assert says in str(end["hint"])
    assert says in caplog.text
    assert "sesame" not in caplog.text + str(end)


def test_sockets_beyond_the_limit_of_the_system_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_sockets(2, monkeypatch)
    with RestedEmulator(data=GARDEN) as emulator:
        # The limit of connections counts what the whole process has open, and other tests leave files open.
        emulator.call(lambda server: setattr(server._intake, "most", 2**16))
        with raw_socket(emulator), open_socket(emulator.ws_url(PLANTS)) as listener:
            with wire(emulator) as connection:
                connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
                assert_refusal(answer_on(connection), 503, "Too many open connections.")
            assert_open(emulator, listener)


def test_who_leaves_before_a_delayed_handshake_leaves_no_seat() -> None:
    with RestedEmulator(data=GARDEN, latency=0.2) as emulator:
        health = f"{emulator.facts['controlUrl']}/health"
        with wire(emulator) as connection:
            connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
            call(health)  # once it is answered, the handshake has arrived
        call(health)  # and now so has the end of the connection
        with open_socket(emulator.ws_url(PLANTS)) as listener:
            assert_open(emulator, listener)
            assert listeners_of(emulator) == 1


# Messages


def test_a_message_is_byte_for_byte_as_the_service_sends_it(emulator: RestedEmulator) -> None:
    with raw_socket(emulator) as connection:
        body = '{"name": "Möhre", "bed": 2}'.encode()
        record = call(emulator.url(PLANTS), "POST", body=body, headers={"Content-Type": "application/json"}).json
        opcode, message = read_frame(connection)
    times = f'"updatedAt":"{record["updatedAt"]}","createdAt":"{record["createdAt"]}"'
    data = '{"name":"Möhre","bed":2}'
    expected = f'{{"type":"POST","record":{{"data":{data},"uniqueId":"{record["uniqueId"]}",{times}}}}}'
    assert (opcode, message.decode()) == (TEXT, expected)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 900_000])
def test_a_message_of_any_size_arrives_whole(emulator: RestedEmulator, size: int) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        record = call(emulator.url(PLANTS), "POST", "x" * size).json
        assert next_of(listener) == {"type": "POST", "record": record}


def test_each_method_is_a_message_with_the_record_of_its_answer(emulator: RestedEmulator) -> None:
    url = emulator.url(PLANTS)
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        created = call(url, "POST", {"name": "Leek"}).json
        updated = call(url, "PUT", {"bed": 4}, uniqueId=created["uniqueId"], strategy="merge").json
        deleted = call(url, "DELETE", uniqueId=created["uniqueId"]).json
        assert [next_of(listener) for _ in range(3)] == [
            {"type": "POST", "record": created},
            {"type": "PUT", "record": updated},
            {"type": "DELETE", "record": deleted},
        ]


def test_all_listeners_hear_all_writes_in_one_order(emulator: RestedEmulator) -> None:
    def write(writer: int) -> None:
        for number in range(25):
            assert call(emulator.url(PLANTS), "POST", [writer, number]).status == 200

    with ExitStack() as stack:
        listeners = [stack.enter_context(open_socket(emulator.ws_url(PLANTS))) for _ in range(3)]
        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in writers:
            thread.start()
        heard = [[next_of(listener)["record"]["data"] for _ in range(100)] for listener in listeners]
        for thread in writers:
            thread.join(10)
        assert_open(emulator, *listeners)
    written = [record["data"] for record in emulator.records(PLANTS)[3:-1]]
    assert len(written) == 100
    assert heard == [written] * 3


def test_a_listener_hears_what_it_may_read(emulator: RestedEmulator) -> None:
    ada, ben = (emulator.sign_in(GARDENERS, name) for name in ("ada", "ben"))
    with (
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={ada}") as of_ada,
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={ben}") as of_ben,
    ):
        call(emulator.url(DIARY), "PUT", "mine", headers=bearer(ada), uniqueId=DIARY_OF_ADA)
        call(emulator.url(DIARY), "PUT", "yours", headers=bearer(ben), uniqueId=DIARY_OF_BEN)
        for_all = call(emulator.url(DIARY), "POST", "for all", masterKey=MASTER_KEY).json
        assert [next_of(of_ada)["record"]["data"] for _ in range(2)] == ["mine", "for all"]
        assert next_of(of_ben)["record"]["data"] == "yours"
        assert next_of(of_ben) == {"type": "POST", "record": for_all}


def test_a_reset_keeps_sockets_open_and_they_hear_the_difference(emulator: RestedEmulator) -> None:
    url = emulator.url(PLANTS)
    tomato = call(url, uniqueId=TOMATO).json
    rosemary = call(url, "DELETE", uniqueId=TOMATO[:-1] + "2").json
    call(url, "PUT", "ketchup", uniqueId=TOMATO)
    leek = call(url, "POST", {"name": "Leek"}).json
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert emulator.reset() == {"messages": 3, "closed": 0}
        assert [next_of(listener) for _ in range(3)] == [
            {"type": "DELETE", "record": leek},
            {"type": "PUT", "record": tomato},
            {"type": "POST", "record": rosemary},
        ]
        assert_open(emulator, listener)


def test_a_reset_ends_the_sockets_of_tokens_made_since(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    with open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as listener:
        emulator.reset()
        assert closing(listener) == EXPIRED


# What a client sends


def test_what_a_client_says_is_ignored(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        for message in ("", "hello", b"\xff\x00", '{"type":"POST","record":{"data":1}}', ["in ", "parts"], "x" * 2**20):
            listener.send(message)
        assert listener.ping().wait(10)
        assert len(emulator.records(PLANTS)) == 3
        assert_open(emulator, listener)


def test_a_ping_is_answered_with_what_it_brought(emulator: RestedEmulator) -> None:
    with raw_socket(emulator) as connection:
        connection.sendall(frame(PING, b"are you there?") + frame(PONG, b"unasked") + frame(PING))
        assert [read_frame(connection) for _ in range(2)] == [(PONG, b"are you there?"), (PONG, b"")]


NO_FRAMES = {
    "2^63 bytes announced": b"\x82\xff" + (2**63).to_bytes(8) + bytes(4),
    "a byte too many announced": b"\x82\xff" + (2**20 + 1).to_bytes(8) + bytes(4),
    "not UTF-8": frame(TEXT, b"\xff"),
    "an unknown opcode": frame(3),
    "a ping too long": frame(PING, b"x" * 126),
    "a ping in parts": frame(PING, last=False),
    "a part of nothing": frame(0, b"continues nothing"),
    "not masked": b"\x81\x05hello",
    "reserved bits": b"\xf1\x80" + bytes(4),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("sent", NO_FRAMES.values(), ids=NO_FRAMES.keys())
def test_a_client_that_breaks_the_protocol_harms_nobody(emulator: RestedEmulator, sent: bytes) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        with raw_socket(emulator) as connection:
            connection.sendall(sent)
        assert_open(emulator, listener)
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert_open(emulator, listener)


@pytest.mark.parametrize("code", [0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4999, 5000, 65535])
def test_a_client_may_close_with_any_code(emulator: RestedEmulator, code: int) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        with raw_socket(emulator) as connection:
            connection.sendall(frame(CLOSE, struct.pack(">H", code) + b"bye"))
            assert read_frame(connection)[0] == CLOSE
            assert at_end(connection)
        assert listeners_of(emulator) == 1
        assert_open(emulator, listener)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", 1005),
        (b"\x03", 1005),
        (b"\0\0", 1005),
        (b"\x03\xee", 1005),
        (b"\x03\xe8\xff\xfe", 1000),
        (b"\x03\xe8" + b"x" * 123, 1000),
    ],
    ids=["none", "half", "0", "1006", "not UTF-8", "long"],
)
def test_a_client_may_close_without_a_proper_reason(
    emulator: RestedEmulator, payload: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        with raw_socket(emulator) as connection:
            connection.sendall(frame(CLOSE, payload))
            drain(connection)
        emulator.wait(messages={"type": "CLOSE"})
        assert [one["code"] for one in emulator.messages(type="CLOSE")] == [code]
        assert emulator.recoveries() == []
        assert f"by the client, {code}" in caplog.text
        assert listeners_of(emulator) == 1
        assert_open(emulator, listener)


@pytest.mark.parametrize("sent", [b"", frame(3), frame(PING)], ids=["nothing", "an unknown opcode", "a ping"])
def test_1006_is_an_end_without_a_close_frame(emulator: RestedEmulator, sent: bytes) -> None:
    with raw_socket(emulator) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)
        emulator.wait(messages={"type": "CLOSE"})
    assert [one["code"] for one in emulator.messages(type="CLOSE")] == [1006]


def test_a_client_that_leaves_while_its_handshake_is_answered_is_no_error(
    emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = WebSocketProtocol13._accept_connection

    async def accept_too_late(protocol: WebSocketProtocol13, handler: WebSocketHandler) -> None:
        handler.on_close()  # as Tornado calls it where the connection is reset at this moment
        await accept(protocol, handler)

    monkeypatch.setattr(WebSocketProtocol13, "_accept_connection", accept_too_late)
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        assert answer_on(connection, "HEAD").status == 101
        emulator.settle()
        assert (listeners_of(emulator), emulator.messages()) == (0, [])


def test_a_client_that_resets_the_connection_leaves_its_seat(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        for _ in range(5):
            with raw_socket(emulator) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert_open(emulator, listener)
        assert_open(emulator, listener)
        assert listeners_of(emulator) == 1


# The end


def test_a_socket_ends_when_the_time_of_its_token_runs_out() -> None:
    with RestedEmulator(data=GARDEN, token_ttl=1) as emulator:
        token = emulator.sign_in(GARDENERS, "ada")
        with open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as listener:
            assert closing(listener) == EXPIRED


def test_a_socket_ends_with_the_logout_of_its_token(emulator: RestedEmulator) -> None:
    first, second = (emulator.sign_in(GARDENERS, "ada") for _ in range(2))
    with (
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={first}") as ended,
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={second}") as stays,
    ):
        call(emulator.url(GARDENERS), "POST", headers=bearer(first), logout="true")
        assert closing(ended) == EXPIRED
        record = call(emulator.url(DIARY), "POST", "still here", headers=bearer(second)).json
        assert next_of(stays)["record"] == record


def test_a_deleted_user_hears_of_it_and_is_cut_off(emulator: RestedEmulator) -> None:
    ada = emulator.sign_in(GARDENERS, "ada")
    with open_socket(f"{emulator.ws_url(GARDENERS)}&accessToken={ada}") as listener:
        call(emulator.url(GARDENERS), "DELETE", headers=bearer(ada), uniqueId=ADA)
        assert next_of(listener)["type"] == "DELETE"
        assert closing(listener) == EXPIRED


def test_what_was_written_before_the_end_arrives_before_it(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        records = [call(emulator.url(PLANTS), "POST", "x" * 100_000).json for _ in range(10)]
        emulator.change_endpoint(PLANTS)
        assert [next_of(listener)["record"] for _ in range(10)] == records
        assert closing(listener) == CHANGED


def test_two_hundred_sockets_end_all_alike(emulator: RestedEmulator) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(open_socket(emulator.ws_url(PLANTS))) for _ in range(200)]
        assert emulator.change_endpoint(PLANTS, secure=True) == {"closed": 200}
        assert [closing(listener) for listener in listeners] == [CHANGED] * 200
    assert listeners_of(emulator) == 0


def test_a_socket_is_told_that_the_emulator_stops(emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at_stop_after(0.2, monkeypatch)
    with open_socket(emulator.ws_url(PLANTS)) as listener, raw_socket(emulator) as connection:
        emulator.stop()
        assert closing(listener)[0] == 1001
        opcode, payload = read_frame(connection)
        assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 1001))
        assert at_end(connection)


# Listeners that do not read


def test_a_writer_does_not_wait_for_a_listener_that_does_not_read(emulator: RestedEmulator) -> None:
    with raw_socket(emulator, receive_buffer=4096) as slow, open_socket(emulator.ws_url(PLANTS)) as listener:
        records = [call(emulator.url(PLANTS), "POST", str(number) * 900_000).json for number in range(9)]
        assert [next_of(listener)["record"] for _ in range(9)] == records
        assert listeners_of(emulator) == 2
        assert [json.loads(read_frame(slow)[1])["record"] for _ in range(9)] == records


@pytest.mark.warns("stopped reading")
def test_a_listener_that_stopped_reading_is_cut_and_the_others_lose_nothing() -> None:
    size, most = 4_000_000, 12
    with (
        RestedEmulator(data=GARDEN, max_body=2 * size) as emulator,
        raw_socket(emulator, receive_buffer=4096) as stalled,
        open_socket(emulator.ws_url(PLANTS), max_size=None) as listener,
    ):
        waiting_for = []
        for number in range(most):
            record = call(emulator.url(PLANTS), "POST", f"{number}".ljust(size)).json
            assert next_of(listener)["record"] == record
            waiting_for.append(listeners_of(emulator))
        cut_at = waiting_for.index(1)
        assert waiting_for == [2] * cut_at + [1] * (most - cut_at)
        most_waiting, in_the_kernel = 16 * 2**20, 8 * 2**20
        assert most_waiting - size < cut_at * size < most_waiting + in_the_kernel
        assert drain(stalled) < cut_at * size
        assert_open(emulator, listener)


def test_a_listener_that_does_not_read_does_not_hold_up_the_end(
    emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_at_stop_after(0.2, monkeypatch)
    with raw_socket(emulator, receive_buffer=4096), open_socket(emulator.ws_url(PLANTS)) as listener:
        for number in range(9):
            call(emulator.url(PLANTS), "POST", str(number) * 900_000)
            next_of(listener)
        emulator.stop()
        assert closing(listener)[0] == 1001
