"""Faults: what goes wrong on purpose, as a client sees it, and that it ends when it should."""

from __future__ import annotations

import gc
import json
import os
import socket
import time as machine
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection

from rested_emulator import OptionError, RestedEmulator
from tests import texts
from tests.conftest import DIARY, GARDEN, GARDENERS, MASTER_KEY, NOON, PLANTS, Backend, Ear, StoppedTime, knock
from tests.wire import (
    FOREIGN,
    HANDSHAKE,
    PAGE,
    answer_on,
    assert_open,
    at,
    at_end,
    bearer,
    call,
    closing,
    head,
    next_of,
    open_socket,
    take,
    until,
    wire,
)

Listen = Callable[..., Ear]
Fault = dict[str, Any]


def is_gone(listener: ClientConnection) -> bool:
    """Wait until a client sees 1006."""
    with suppress(ConnectionClosed):
        while True:
            listener.recv(timeout=10)
    return listener.close_code == 1006


def post(backend: Backend, data: Any = "note") -> None:
    backend.create(knock(PLANTS, data))


def said(ear: Ear) -> list[Any]:
    return [message["record"]["data"] for message in ear.heard]


# What a fault may be

WRONG: list[tuple[Fault, str]] = [
    ({}, "kind"),
    ({"kind": "explode"}, "status, delay, cut, refuse, close, abort, silence, messages, outage"),
    ({"kind": "status", "status": 199}, "200 to 599"),
    ({"kind": "status", "status": 600}, "200 to 599"),
    ({"kind": "status", "status": 204}, "without a body"),
    ({"kind": "status", "status": True}, "a whole number"),
    ({"kind": "status", "status": 500.5}, "a whole number"),
    ({"kind": "status", "seconds": 1}, "takes status and body"),
    ({"kind": "status", "method": "WEBSOCKET"}, "GET, POST, PUT, DELETE"),
    ({"kind": "status", "method": "get"}, "GET, POST, PUT, DELETE"),
    ({"kind": "delay", "seconds": -1}, "takes 0 to"),
    ({"kind": "delay", "seconds": 1e11}, "takes 0 to"),
    ({"kind": "delay", "seconds": 10**400}, "seconds is"),
    ({"kind": "delay", "seconds": "1"}, "a number"),
    ({"kind": "delay", "seconds": True}, "a number"),
    ({"kind": "delay", "times": 0}, "times is"),
    ({"kind": "delay", "times": 10**400}, "times is"),
    ({"kind": "delay", "chance": 2}, "takes 0 to 1"),
    ({"kind": "delay", "chance": True}, "a number"),
    ({"kind": "delay", "endpoint": "not/there"}, "garden/plants"),
    ({"kind": "cut", "when": "between"}, "before, after"),
    ({"kind": "cut", "when": 1}, "a text"),
    ({"kind": "cut", "status": 500}, "takes when"),
    ({"kind": "refuse", "status": 200}, "400 to 599"),
    ({"kind": "refuse", "method": "GET"}, "WEBSOCKET"),
    ({"kind": "close", "code": 1006}, "1000 to 1014"),
    ({"kind": "close", "code": 10**400}, "code is"),
    ({"kind": "close", "reason": "ä" * 62}, "123 bytes"),
    ({"kind": "abort", "code": 1000}, "nothing of its own"),
    ({"kind": "silence", "seconds": 1}, "nothing of its own"),
    ({"kind": "messages"}, "late, twice, drop, swap, before-answer, after-answer"),
    ({"kind": "messages", "what": "lost"}, "late, twice, drop, swap, before-answer, after-answer"),
    ({"kind": "messages", "what": "drop", "method": "GET"}, "POST, PUT, DELETE"),
    ({"kind": "outage", "mode": "break"}, "refuse, hang, reset"),
    ({"kind": "outage", "times": 2}, "neither times nor chance"),
    ({"kind": "outage", "chance": 0.5}, "neither times nor chance"),
    ({"kind": "delay", "Seconds": 1}, "Arguments of faults: kind, endpoint, method, username, listener, times, for"),
    ({"kind": "status", "username": "eve"}, "there are: ada, ben"),
    ({"kind": "abort", "listener": 9}, "listener 9 is not there"),
    ({"kind": "status", "listener": 1}, "listener means nothing to a fault of kind status"),
    ({"kind": "outage", "listener": 1}, "listener means nothing"),
    ({"kind": "abort", "for": 1}, "for means nothing"),
    ({"kind": "outage", "for": 1}, "for means nothing"),
    ({"kind": "delay", "for": -1}, "for is"),
    ({"kind": "status", "headers": {"X Y": "1"}}, "no header can be"),
    ({"kind": "status", "headers": {"X-Y": "1\r\nX-Z: 2"}}, "no header can be"),
    ({"kind": "status", "headers": {"X-Y": "€"}}, "no header can be"),
    ({"kind": "status", "headers": {"X-Y": " 2"}}, "no header can be"),
    ({"kind": "refuse", "headers": {"X-Y": "2\t"}}, "no header can be"),
    ({"kind": "refuse", "headers": {"content-LENGTH": "1"}}, "where the answer ends"),
    ({"kind": "delay", "headers": {"X-Y": "1"}}, "headers means nothing"),
    ({"kind": "status", "when": "amid"}, "before, after"),
]


@pytest.mark.parametrize(("fault", "why"), WRONG)
def test_a_wrong_fault_is_refused_and_says_what_is_right(shared: RestedEmulator, fault: Fault, why: str) -> None:
    reply = call(f"{shared.facts['controlUrl']}/faults", "POST", fault)
    assert (reply.status, reply.json["message"]) == (400, texts.WRONG_PARAMETER)
    assert why in reply.json["hint"]
    assert "Arguments of faults: kind, endpoint" in reply.json["hint"]
    assert shared.faults() == []


@pytest.mark.parametrize("body", [float("nan"), {"a": {1}}, "\ud800"])
def test_python_may_not_answer_what_is_no_json(backend: Backend, body: Any) -> None:
    with pytest.raises(OptionError, match="body cannot be written"):
        backend.add_fault("status", body=body)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_time_is_a_number(emulator: RestedEmulator, number: float) -> None:
    with pytest.raises(OptionError, match="finite"):
        emulator.add_fault("delay", seconds=number)


def test_a_fault_is_shown_with_what_it_did(backend: Backend) -> None:
    added = backend.add_fault("status", endpoint=PLANTS, method="POST", times=2, status=500)
    assert added == {"id": 1, "sockets": 0}
    backend.world.faults.on_request(PLANTS, "POST")
    shown = {"id": 1, "kind": "status", "endpoint": PLANTS, "method": "POST", "times": 2, "status": 500}
    shown |= {"when": "before"}
    assert backend.faults() == [shown | {"hits": 1, "active": True, "began": ANY, "ended": None}]
    backend.world.faults.on_request(PLANTS, "POST")
    backend.world.faults.on_request(PLANTS, "POST")
    (over,) = backend.faults()
    assert over == shown | {"hits": 2, "active": False, "began": ANY, "ended": ANY}
    assert 0 <= over["began"] <= over["ended"] <= backend.status()["uptime"]
    assert backend.clear_faults() == {"cleared": 1}
    assert backend.faults() == []


@pytest.mark.parametrize(
    ("fault", "endpoint", "method", "hits"),
    [
        ({"endpoint": PLANTS}, PLANTS, "GET", 1),
        ({"endpoint": PLANTS}, DIARY, "GET", 0),
        ({"method": "PUT"}, PLANTS, "PUT", 1),
        ({"method": "PUT"}, PLANTS, "GET", 0),
        ({"endpoint": PLANTS, "method": "PUT"}, DIARY, "PUT", 0),
        ({"chance": 0}, PLANTS, "GET", 0),
        ({"chance": 1}, PLANTS, "GET", 1),
        ({}, PLANTS, "DELETE", 1),
    ],
)
def test_a_fault_hits_where_it_should(backend: Backend, fault: Fault, endpoint: str, method: str, hits: int) -> None:
    backend.add_fault("status", **fault)
    assert bool(backend.world.faults.on_request(endpoint, method).numbers) == bool(hits)
    assert backend.faults()[0]["hits"] == hits


def rolls(backend: Backend, seed: int | None) -> list[bool]:
    backend.clear_faults()
    backend.add_fault("status", chance=0.5, seed=seed)
    return [bool(backend.world.faults.on_request(PLANTS, "GET").numbers) for _ in range(64)]


def test_a_seed_makes_chance_the_same_every_time(backend: Backend) -> None:
    assert rolls(backend, 7) == rolls(backend, 7)
    assert rolls(backend, 7) != rolls(backend, 8)
    assert rolls(backend, None) != rolls(backend, None)


def test_there_is_an_end_to_faults_and_those_that_are_over_make_room(backend: Backend) -> None:
    for _ in range(99):
        backend.add_fault("delay")
    backend.add_fault("abort")
    backend.add_fault("delay")
    with pytest.raises(OptionError, match="enough"):
        backend.add_fault("delay")
    assert [fault["kind"] for fault in backend.faults()] == ["delay"] * 100


@pytest.mark.parametrize("status_first", [True, False])
def test_a_delay_and_a_status_add_up_in_any_order(backend: Backend, status_first: bool) -> None:
    faults: list[Fault] = [{"kind": "status", "status": 500}, {"kind": "delay", "seconds": 2.0}]
    for fault in faults if status_first else faults[::-1]:
        backend.add_fault(**fault)
    backend.add_fault("delay", seconds=3.0)
    strike = backend.world.faults.on_request(PLANTS, "GET")
    assert [seconds for _, seconds in strike.delays] == [2.0, 3.0]
    assert (strike.status, len(strike.numbers)) == (500, 3)


# Messages


def test_a_message_comes_late_by_the_emulators_clock(backend: Backend, listen: Listen, time: StoppedTime) -> None:
    ear = listen(PLANTS)
    backend.add_fault("messages", what="late", seconds=10.0, times=1)
    post(backend, 1)
    post(backend, 2)
    assert (said(ear), backend.world.faults.waiting) == ([2], 1)
    backend.advance(9)
    assert said(ear) == [2]
    time.now = NOON + 1
    backend.tick()
    assert (said(ear), backend.world.faults.waiting) == ([2, 1], 0)


@pytest.mark.parametrize(
    ("what", "heard"),
    [("twice", [1, 1, 2]), ("drop", [2]), ("swap", [2, 1]), ("before-answer", [1, 2]), ("late", [2])],
)
def test_one_message_comes_to_grief(backend: Backend, listen: Listen, what: str, heard: list[int]) -> None:
    ears = listen(PLANTS), listen(PLANTS)
    backend.add_fault("messages", what=what, times=1)
    post(backend, 1)
    post(backend, 2)
    assert [said(ear) for ear in ears] == [heard, heard]
    assert backend.faults()[0]["hits"] == 1  # for each message, however many listen


def test_every_pair_changes_places(backend: Backend, listen: Listen) -> None:
    ear = listen(PLANTS)
    backend.add_fault("messages", what="swap")
    for number in range(6):
        post(backend, number)
    assert said(ear) == [1, 0, 3, 2, 5, 4]


def test_messages_of_two_endpoints_change_places_each_with_the_next_of_its_own(
    backend: Backend, listen: Listen, ada: str
) -> None:
    plants, diary = listen(PLANTS), listen(DIARY, token=ada)
    backend.add_fault("messages", what="swap")
    for number in range(4):
        endpoint, token = (PLANTS, None) if number % 2 else (DIARY, ada)
        backend.create(knock(endpoint, number, token=token))
    assert (said(plants), said(diary)) == ([3, 1], [2, 0])


def test_a_message_changes_places_with_the_next_that_its_listener_hears(
    backend: Backend, listen: Listen, ada: str, ben: str
) -> None:
    ear = listen(DIARY, token=ada)
    listen(DIARY, token=ben)
    backend.add_fault("messages", what="swap", username="ada", times=1)
    for text, token in (("first", ada), ("not hers", ben), ("second", ada)):
        backend.create(knock(DIARY, text, token=token))
    assert said(ear) == ["second", "first"]


def test_a_message_whose_listeners_have_left_is_not_kept_for_the_next(backend: Backend, listen: Listen) -> None:
    backend.add_fault("messages", what="swap")
    for number in range(2):
        ear = listen(PLANTS)
        post(backend, number)
        backend.leave(PLANTS, ear, 1000)
    assert [push.message for fault in backend.world.faults._faults.values() for _, push in fault.kept] == [ANY]


def test_messages_change_places_on_an_endpoint_whose_options_change_meanwhile(backend: Backend, listen: Listen) -> None:
    backend.add_fault("messages", what="swap", times=1)
    ear = listen(PLANTS)
    post(backend, 1)
    endpoint = backend.store.endpoint(PLANTS)
    assert endpoint
    backend.store.put_endpoint(replace(endpoint, description="edited by hand"))
    post(backend, 2)
    assert said(ear) == [2, 1]


@pytest.mark.parametrize(
    "end",
    [
        Backend.clear_faults,
        Backend.reset,
        lambda backend: backend.clear_faults(id=1),
        lambda backend: backend.advance(60),
    ],
    ids=["all", "reset", "one", "its time"],
)
@pytest.mark.parametrize("what", ["late", "swap", "after-answer"])
def test_what_was_held_up_comes_when_faults_are_cleared_or_over(
    backend: Backend, listen: Listen, what: str, end: Callable[[Backend], object]
) -> None:
    ear = listen(PLANTS)
    backend.add_fault("messages", what=what, seconds=100.0, for_=60.0)
    post(backend, 1)
    end(backend)
    assert said(ear)[:1] == [1]
    post(backend, 2)
    assert said(ear)[-1] == 2


def test_a_late_message_does_not_reach_one_who_came_later_or_has_left(backend: Backend, listen: Listen) -> None:
    early = listen(PLANTS)
    backend.add_fault("messages", what="late", seconds=10.0)
    post(backend, 1)
    late = listen(PLANTS)
    backend.leave(PLANTS, early, 1000)
    backend.advance(10)
    assert (said(early), said(late)) == ([], [])


@pytest.mark.parametrize("back", ["reset-clock", "restore"])
def test_a_late_message_is_as_late_when_the_clock_goes_back(backend: Backend, listen: Listen, back: str) -> None:
    backend.checkpoint("here")
    backend.advance(1000)
    ear = listen(PLANTS)
    backend.add_fault("messages", what="late", seconds=10.0, times=1)
    post(backend, 1)
    if back == "restore":
        backend.restore("here")
    else:
        backend.set_time("2027-01-15T08:00:00Z")
    assert "POST" not in ear.types
    backend.advance(9)
    assert "POST" not in ear.types
    backend.advance(1)
    assert "POST" in ear.types


def test_an_answer_owes_nothing_to_messages_of_others(backend: Backend) -> None:
    ear = Ear()
    backend.listen(knock(PLANTS), ear)
    backend.add_fault("messages", what="before-answer", seconds=5.0)
    backend.world.faults.on_request(PLANTS, "POST")
    post(backend)
    assert [seconds for _, seconds in backend.world.faults.take_owed()] == [5.0]
    backend.world.faults.on_request(PLANTS, "GET")
    assert backend.world.faults.take_owed() == ()
    post(backend)
    backend.clear_faults()
    assert backend.world.faults.take_owed() == ()


# Outages


def test_an_outage_of_one_endpoint_leaves_the_others_alone(backend: Backend, listen: Listen, ada: str) -> None:
    here, there = listen(PLANTS), listen(DIARY, token=ada)
    backend.add_fault("outage", endpoint=PLANTS)
    assert (here.ended, there.ended) == ((1006, "dropped"), None)
    assert not backend.world.faults.on_request(PLANTS, "GET").takes_effect
    assert backend.world.faults.on_request(DIARY, "GET").takes_effect
    assert not backend.world.faults.on_request(PLANTS, "WEBSOCKET").takes_effect


@pytest.mark.parametrize("end", [Backend.clear_faults, Backend.reset, lambda backend: backend.advance(60)])
def test_silenced_connections_are_given_back_at_the_end(backend: Backend, end: Callable[[Backend], object]) -> None:
    ears = [Ear(), Ear()]
    for ear in ears:
        backend.listen(knock(PLANTS), ear)
    backend.add_fault("outage", mode="hang", seconds=60.0)
    assert [(ear.ended, ear.is_closed) for ear in ears] == [((1006, "silenced"), False)] * 2
    end(backend)
    assert [ear.is_closed for ear in ears] == [True, True]


# As a client sees it


def fail(emulator: RestedEmulator, **fault: Any) -> int:
    """Add a fault by control; its id."""
    reply = call(f"{emulator.facts['controlUrl']}/faults", "POST", fault)
    assert reply.status == 200, reply.body
    return int(reply.json["id"])


def test_a_status_takes_the_place_of_the_answer_and_nothing_is_stored(emulator: RestedEmulator) -> None:
    fail(emulator, kind="status", status=503, times=1)
    reply = call(emulator.url(PLANTS), "POST", "new", headers={"Origin": PAGE})
    assert (reply.status, reply.json["code"], list(reply.json)) == (503, 503, ["code", "message", "hint"])
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert len(emulator.records(PLANTS)) == 3
    assert call(emulator.url(PLANTS), "POST", "new").status == 200


def test_a_status_may_have_a_body_of_its_own(emulator: RestedEmulator) -> None:
    fail(emulator, kind="status", status=429, body={"retry": [1, None]})
    reply = call(emulator.url(PLANTS))
    assert (reply.status, reply.json) == (429, {"retry": [1, None]})


def test_an_answer_is_late_by_the_delay(emulator: RestedEmulator) -> None:
    fail(emulator, kind="delay", seconds=0.2, times=1)
    since = machine.monotonic()
    assert call(emulator.url(PLANTS)).status == 200
    assert machine.monotonic() - since >= 0.2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_resets_the_connection_before_or_after_the_write(emulator: RestedEmulator, when: str) -> None:
    fail(emulator, kind="cut", when=when, method="POST", times=1)
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        with pytest.raises(ConnectionResetError):
            call(emulator.url(PLANTS), "POST", "new")
        assert len(emulator.records(PLANTS)) == (4 if when == "after" else 3)
        if when == "after":
            assert next_of(listener)["record"]["data"] == "new"
    seen = emulator.requests(method="POST")
    assert [(one["status"], one["faults"], one["left"]) for one in seen] == [(None, [1], False)]


def test_a_cut_after_and_a_late_message_go_together(emulator: RestedEmulator) -> None:
    fail(emulator, kind="cut", when="after", times=1)
    fail(emulator, kind="messages", what="late", seconds=60, times=1)
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        with pytest.raises(ConnectionResetError):
            call(emulator.url(PLANTS), "POST", "new")
        emulator.advance(60)
        assert next_of(listener)["record"]["data"] == "new"


@pytest.mark.parametrize("code", [1000, 1011, 4321])
def test_a_close_comes_with_code_and_reason(emulator: RestedEmulator, code: int) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert emulator.add_fault("close", code=code, reason="as asked") == {"id": 1, "sockets": 1}
        assert closing(listener) == (code, "as asked")
    with open_socket(emulator.ws_url(PLANTS)):
        assert emulator.faults()[0]["hits"] == 1


def test_an_abort_is_1006(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        fail(emulator, kind="abort")
        assert is_gone(listener)
    assert emulator.status()["listeners"] == 0
    assert [one.get("code") for one in emulator.messages(type="CLOSE")] == [1006]


def test_the_next_handshakes_are_refused(emulator: RestedEmulator) -> None:
    fail(emulator, kind="refuse", status=429, times=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus) as caught, open_socket(emulator.ws_url(PLANTS)):
            pass
        assert caught.value.response.status_code == 429
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert call(emulator.url(PLANTS), "POST", "new").status == 200
        assert next_of(listener)["record"]["data"] == "new"
    assert len(emulator.requests(method="WEBSOCKET", status=429)) == 2


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def shake_hands(emulator: RestedEmulator) -> socket.socket:
    """A WebSocket whose bytes a test sees itself."""
    connection = socket.create_connection(("127.0.0.1", int(str(emulator.facts["port"]))), timeout=10)
    connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
    assert answer_on(connection, "HEAD").status == 101
    emulator.wait(messages={"type": "OPEN"})
    return connection


PING = b"\x89\x80\x00\x00\x00\x00"


def is_silent(connection: socket.socket) -> bool:
    """Whether a ping is not answered, on a connection that is open."""
    connection.sendall(PING)
    connection.settimeout(0.1)
    try:
        return connection.recv(1) == b"?"
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)


ENDS: dict[str, Callable[[RestedEmulator], object]] = {
    "DELETE faults": lambda emulator: call(f"{emulator.facts['controlUrl']}/faults", "DELETE"),
    "reset": lambda emulator: emulator.reset(),
    "stop": lambda emulator: emulator.stop(),
}


@pytest.mark.parametrize("end", ENDS)
def test_silence_leaves_an_open_connection_until_it_is_given_back(end: str) -> None:
    with RestedEmulator(data=GARDEN) as emulator, shake_hands(emulator) as connection:
        connection.sendall(PING)
        assert take(connection, 2) == b"\x8a\x00"
        assert emulator.add_fault("silence")["sockets"] == 1
        assert emulator.status()["listeners"] == 0
        emulator.settle()
        call(emulator.url(PLANTS), "POST", "not heard")
        assert is_silent(connection)
        ENDS[end](emulator)
        with suppress(ConnectionResetError):
            assert at_end(connection)


@pytest.mark.parametrize("fault", [{"kind": "silence"}, {"kind": "outage", "mode": "hang"}])
def test_silenced_connections_cost_no_descriptor_once_it_is_over(emulator: RestedEmulator, fault: Fault) -> None:
    for _ in range(2):
        before = descriptors()
        connections = [shake_hands(emulator) for _ in range(5)]
        emulator.add_fault(**fault)
        for connection in connections:
            connection.close()
        emulator.clear_faults()
        emulator.clear_messages()
        assert descriptors() <= before


@contextmanager
def hanging(emulator: RestedEmulator, count: int = 3) -> Iterator[list[socket.socket]]:
    """Requests, and a handshake, that an outage leaves without an answer."""
    port = int(str(emulator.facts["port"]))
    connections = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
    for number, connection in enumerate(connections):
        connection.sendall(head("GET", at(PLANTS), *(HANDSHAKE if number == 0 else ())))
    emulator.wait(requests={"endpoint": PLANTS}, count=count)
    yield connections
    for connection in connections:
        connection.close()


def is_reset(connection: socket.socket) -> bool:
    """Wait for the end of a connection; whether it was a reset."""
    try:
        assert connection.recv(1) == b""
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("end", [*ENDS, "advance"])
@pytest.mark.alone
def test_what_hangs_goes_on(end: str) -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        fail(emulator, kind="outage", mode="hang", seconds=600)
        with hanging(emulator) as connections:
            since = machine.monotonic()
            if end == "advance":
                emulator.advance(600)
            else:
                ENDS[end](emulator)
            assert [is_reset(connection) for connection in connections] == [True] * 3
            assert machine.monotonic() - since < 1.5


@pytest.mark.parametrize("end", [*ENDS, "advance"])
def test_what_is_delayed_goes_on(end: str) -> None:
    with (
        RestedEmulator(data=GARDEN) as emulator,
        wire(emulator) as asking,
        wire(emulator) as opening,
        open_socket(emulator.ws_url(PLANTS)),
    ):
        emulator.add_fault("messages", what="before-answer", seconds=600, for_=60)
        emulator.add_fault("delay", seconds=600, for_=60, times=2)  # which holds them too, when it hits no more
        asking.sendall(head("POST", at(PLANTS), "Content-Type: application/json", "Content-Length: 1") + b"1")
        opening.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        until(lambda: emulator.faults()[1]["hits"] == 2)
        if end == "advance":
            emulator.advance(60)
        else:
            ENDS[end](emulator)
        assert [answer_on(connection, "HEAD").status for connection in (asking, opening)] == [200, 101]


def test_a_client_that_leaves_while_it_hangs_is_forgotten(emulator: RestedEmulator) -> None:
    fail(emulator, kind="outage", mode="hang")
    with hanging(emulator):
        assert held(emulator) == 3
    emulator.settle()
    assert held(emulator) == 0


def held(emulator: RestedEmulator) -> int:
    return emulator.call(lambda server: len(next(iter(server.world.faults._faults.values())).held))


@pytest.mark.parametrize(("mode", "wanted"), [("refuse", 503), ("reset", ConnectionResetError)])
def test_an_outage_hits_requests_handshakes_and_sockets(emulator: RestedEmulator, mode: str, wanted: Any) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        fail(emulator, kind="outage", mode=mode, seconds=30)
        assert is_gone(listener)
    with pytest.raises((InvalidStatus, InvalidMessage)), open_socket(emulator.ws_url(PLANTS)):
        pass
    if wanted == 503:
        assert call(emulator.url(PLANTS)).status == 503
    else:
        with pytest.raises(wanted):
            call(emulator.url(PLANTS))
    emulator.advance(30)
    assert call(emulator.url(PLANTS)).status == 200
    with open_socket(emulator.ws_url(PLANTS)):
        pass


def test_a_reset_handshake_is_reset(emulator: RestedEmulator) -> None:
    fail(emulator, kind="outage", mode="reset")
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        assert is_reset(connection)


@pytest.mark.parametrize("what", ["before-answer", "after-answer"])
@pytest.mark.alone
def test_a_message_comes_before_or_after_the_answer(emulator: RestedEmulator, what: str) -> None:
    fail(emulator, kind="messages", what=what, seconds=0.3, times=1)
    with open_socket(emulator.ws_url(PLANTS)) as listener, ThreadPoolExecutor(1) as pool:
        since = machine.monotonic()
        heard = pool.submit(lambda: (next_of(listener), machine.monotonic())[1])
        call(emulator.url(PLANTS), "POST", "new")
        answered = machine.monotonic()
        assert (heard.result() < answered) == (what == "before-answer")
        assert max(heard.result(), answered) - since >= 0.3
    since = machine.monotonic()
    emulator.clear_faults()
    call(emulator.url(PLANTS), "OPTIONS")
    call(emulator.url(PLANTS))
    assert machine.monotonic() - since < 0.3


# Who is hit


def test_a_foreign_page_gets_the_gate_and_uses_nothing_up(emulator: RestedEmulator) -> None:
    fail(emulator, kind="status", status=500, times=1)
    fail(emulator, kind="refuse", times=1)
    assert call(emulator.url(PLANTS), headers={"Origin": FOREIGN}).status == 403
    with open_socket(emulator.ws_url(PLANTS), origin=FOREIGN) as listener:
        assert closing(listener) == (4000, texts.ORIGIN_REFUSED)
    assert [fault["hits"] for fault in emulator.faults()] == [0, 0]


def test_a_foreign_page_with_the_master_key_passes_the_gate_beside_faults_too() -> None:
    with RestedEmulator(data=GARDEN, master_key=MASTER_KEY) as emulator:
        fail(emulator, kind="status", status=500, endpoint=DIARY)
        fail(emulator, kind="delay", seconds=0, endpoint=PLANTS)
        reply = call(emulator.url(PLANTS), headers={"Origin": FOREIGN}, masterKey=MASTER_KEY)
        assert reply.status == 200


def test_a_preflight_is_never_hit(emulator: RestedEmulator) -> None:
    fail(emulator, kind="status", status=500)
    fail(emulator, kind="outage", mode="reset")
    reply = call(emulator.url(PLANTS), "OPTIONS", headers={"Origin": PAGE, "Access-Control-Request-Method": "PUT"})
    assert reply.status == 204
    assert emulator.requests() == []


def test_control_is_never_hit(emulator: RestedEmulator) -> None:
    fail(emulator, kind="outage", mode="reset")
    assert call(f"{emulator.facts['controlUrl']}/status").status == 200


def test_a_client_that_does_not_wait_is_seen_all_the_same(emulator: RestedEmulator) -> None:
    fail(emulator, kind="delay", seconds=60)
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS)))
        with pytest.raises(TimeoutError):
            emulator.settle(timeout=0.05)
    emulator.wait(requests={"endpoint": PLANTS})
    [seen] = emulator.requests()
    assert (seen["status"], seen["faults"], seen["left"]) == (None, [1], True)


# Files


def upload(emulator: RestedEmulator, data: bytes = b"hello") -> Any:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n%b\r\n--x--\r\n' % data
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return call(emulator.url(PLANTS), "POST", body=part, headers=headers)


@pytest.mark.parametrize(("when", "more"), [("before", 0), ("after", 1)])
def test_a_cut_upload_is_there_or_not_and_leaves_no_draft(emulator: RestedEmulator, when: str, more: int) -> None:
    assert upload(emulator).status == 200
    before = descriptors()
    fail(emulator, kind="cut", when=when, times=3)
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            upload(emulator)
    emulator.settle()
    assert descriptors() <= before
    folder = emulator.call(lambda server: str(server.world.files._folder))
    assert len(emulator.records(PLANTS)) == 3 + 1 + 3 * more
    assert len([name for name in os.listdir(folder) if not name.endswith(".part")]) == 1 + 3 * more
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]


def test_a_cut_download_leaves_no_open_file(emulator: RestedEmulator) -> None:
    unique_id = upload(emulator).json["uniqueId"]
    before = descriptors()
    fail(emulator, kind="cut", when="after")
    for _ in range(5):
        with pytest.raises(ConnectionResetError):
            call(emulator.url(PLANTS), fileOnly="true", uniqueId=unique_id)
    emulator.settle()
    assert descriptors() <= before


@pytest.mark.parametrize("data", [b"hello", bytes(range(256)) * 4000], ids=["5 bytes", "1 MB"])
def test_of_a_file_too_half_comes_where_it_is_cut_amid(emulator: RestedEmulator, data: bytes) -> None:
    unique_id = upload(emulator, data).json["uniqueId"]
    before = descriptors()
    emulator.add_fault("cut", when="amid")
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS, f"fileOnly=true&uniqueId={unique_id}")) + b"\r\n")
        start, _, body = until_reset(connection).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(data)}".encode() in start
    assert data.startswith(body)
    # Of much, the system drops what the client had not taken yet.
    assert len(body) == 2 if len(data) == 5 else 0 < len(body) <= len(data) // 2
    emulator.settle()
    assert descriptors() <= before


# From the start


def test_faults_of_the_command_line_are_there_and_come_back_with_reset() -> None:
    fault = json.dumps({"kind": "status", "status": 500, "times": 1})
    with RestedEmulator(data=GARDEN, fault=[fault]) as emulator:
        for _ in range(2):
            assert [call(emulator.url(PLANTS)).status for _ in range(2)] == [500, 200]
            fail(emulator, kind="status", status=501)
            emulator.reset()
        assert [one["kind"] for one in emulator.faults()] == ["status"]
        emulator.clear_faults()
        assert call(emulator.url(PLANTS)).status == 200


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("delay", "is no JSON object"),
        ('{"kind": "delay", "second": 1}', r"unknown argument 'second' \(did you mean seconds\?\)"),
        ('{"kind": "explode"}', "explode"),
        ('{"kind": "delay", "seconds": NaN}', "is no JSON object"),
        ('{"kind": "close"}', "at the start there are none"),
        ('{"kind": "silence"}', "at the start there are none"),
        ('{"kind": "delay", "endpoint": "not/there"}', "there is no endpoint 'not/there'"),
    ],
)
def test_a_wrong_fault_option_says_why(fault: str, why: str) -> None:
    with pytest.raises(OptionError, match=why), RestedEmulator(data=GARDEN, fault=[fault]):
        pass


def test_a_restore_leaves_faults_alone(backend: Backend) -> None:
    backend.checkpoint("here")
    backend.add_fault("delay")
    backend.restore("here")
    assert len(backend.faults()) == 1


# Aim: one person instead of everybody


def test_a_user_alone_loses_the_socket(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    ears = listen(DIARY, token=ada), listen(DIARY, token=ben), listen(PLANTS, token=ben), listen(PLANTS)
    assert backend.add_fault("abort", username="ben") == {"id": 1, "sockets": 2}
    assert [bool(ear.ended) for ear in ears] == [False, True, True, False]
    assert backend.faults()[0]["username"] == "ben"


def test_a_listener_is_aimed_at_by_number(backend: Backend, listen: Listen) -> None:
    first, second, third = listen(PLANTS), listen(PLANTS), listen(PLANTS)
    assert backend.close_listeners(listener=2, code=4001, reason="you") == {"closed": 1}
    backend.add_fault("messages", what="drop", listener=3)
    post(backend)
    assert (second.ended, said(first), said(third)) == ((4001, "you"), ["note"], [])
    with pytest.raises(OptionError, match="GET /__emulator__/listeners has: 1, 3"):
        backend.close_listeners(listener=2)


def test_sockets_of_a_user_are_closed_by_name_or_email(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    first, second = listen(DIARY, token=ada), listen(DIARY, token=ben)
    assert backend.close_listeners(username="ada", endpoint=DIARY) == {"closed": 1}
    assert (bool(first.ended), bool(second.ended)) == (True, False)
    with pytest.raises(OptionError, match="no user 'eve'; there are: ada, ben"):
        backend.close_listeners(username="eve")


def test_a_user_is_aimed_at_by_the_name_of_now(emulator: RestedEmulator) -> None:
    ada = bearer(emulator.sign_in(GARDENERS, "ada"))
    with (
        open_socket(emulator.ws_url(DIARY), additional_headers=ada) as there,
        open_socket(emulator.ws_url(PLANTS), additional_headers=ada) as listener,
    ):
        itself = call(emulator.url(GARDENERS), headers=ada).json
        call(emulator.url(PLANTS), "POST", "heard by ada")
        renamed = {"username": "adele", "password": "apricot"}
        assert call(emulator.url(GARDENERS), "PUT", renamed, headers=ada, uniqueId=itself["uniqueId"]).status == 200
        emulator.add_fault("messages", what="drop", username="adele", times=1)
        for text in ("lost", "heard by adele"):
            call(emulator.url(PLANTS), "POST", text)
        assert [next_of(listener)["record"]["data"] for _ in range(2)] == ["heard by ada", "heard by adele"]
        assert emulator.close_listeners(username="adele", code=4001) == {"closed": 2}
        assert closing(there)[0] == 4001
    assert emulator.recoveries()[0]["username"] == "adele"


def test_a_message_is_late_for_one_user_and_in_time_for_the_others(
    backend: Backend, listen: Listen, ada: str, ben: str
) -> None:
    first, second = listen(PLANTS, token=ada), listen(PLANTS, token=ben)
    backend.add_fault("messages", what="late", seconds=5.0, username="ben", times=1)
    post(backend)
    assert (said(first), said(second)) == (["note"], [])
    backend.advance(5)
    assert (said(first), said(second)) == (["note"], ["note"])


def test_two_users_are_aimed_at_side_by_side(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    first, second, third = listen(PLANTS, token=ada), listen(PLANTS, token=ben), listen(PLANTS)
    backend.add_fault("messages", what="drop", username="ada")
    backend.add_fault("messages", what="twice", username="ben")
    post(backend)
    assert (said(first), said(second), said(third)) == ([], ["note"] * 2, ["note"])
    assert [fault["hits"] for fault in backend.faults()] == [1, 1]
    assert backend.messages(type="POST")[0]["faults"] == [1, 2]


def test_a_message_that_the_user_does_not_hear_uses_nothing_up(backend: Backend, listen: Listen, ada: str) -> None:
    other = listen(PLANTS)
    listen(DIARY, token=ada)
    backend.add_fault("messages", what="drop", username="ada", times=1)
    post(backend)
    assert (said(other), backend.faults()[0]["hits"]) == (["note"], 0)


def test_requests_of_a_user_alone_are_hit_on_open_endpoints_too(emulator: RestedEmulator) -> None:
    ada, ben = (emulator.sign_in(GARDENERS, name) for name in ("ada", "ben"))
    emulator.add_fault("status", username="ada", status=503)
    for endpoint in (PLANTS, DIARY):
        assert [call(emulator.url(endpoint), headers=bearer(token)).status for token in (ada, ben)] == [503, 200]
    assert call(emulator.url(PLANTS)).status == 200
    emulator.expire_tokens(username="ada")
    assert call(emulator.url(DIARY), headers=bearer(ada)).status == 401  # it shows no valid token any more


def test_a_handshake_of_a_user_alone_is_refused(emulator: RestedEmulator) -> None:
    ada, ben = (emulator.sign_in(GARDENERS, name) for name in ("ada", "ben"))
    emulator.add_fault("refuse", username="ada", headers={"Retry-After": "2"})
    with pytest.raises(InvalidStatus) as refusal:
        open_socket(emulator.ws_url(PLANTS), additional_headers=bearer(ada))
    assert refusal.value.response.headers["Retry-After"] == "2"
    with open_socket(emulator.ws_url(PLANTS), additional_headers=bearer(ben)) as there:
        assert_open(emulator, there)


def test_a_fault_from_the_start_takes_a_user_who_is_yet_to_register() -> None:
    with RestedEmulator(data=GARDEN, fault=('{"kind": "status", "username": "eve"}',)) as emulator:
        assert call(emulator.url(PLANTS), headers=bearer(emulator.sign_in(GARDENERS, "eve"))).status == 503
    with pytest.raises(OptionError, match="listener is the number of a socket"):
        RestedEmulator(data=GARDEN, fault=('{"kind": "messages", "what": "drop", "listener": 1}',)).start()


# Refusals that a client can act on, halves of answers, faults that are over by themselves


def test_a_header_of_cors_that_a_status_was_given_comes_in_place_of_the_usual_one(emulator: RestedEmulator) -> None:
    emulator.add_fault("status", headers={"access-control-allow-origin": "*", "X-Y": ""})
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), f"Origin: {PAGE}", "Connection: close"))
        lines = b"".join(iter(lambda: connection.recv(2**16), b"")).lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"access-control-allow-origin")] == [
        b"access-control-allow-origin: *"
    ]
    assert b"access-control-allow-credentials: true" in lines


def test_a_status_has_headers_that_a_page_can_read(emulator: RestedEmulator) -> None:
    headers = {"Retry-After": "2", "Set-Cookie": "a=b", "Content-Type": "text/html"}
    emulator.add_fault("status", status=429, headers=headers)
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), f"Origin: {PAGE}") + b"\r\n")
        lines = connection.recv(2**16).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert lines[0].startswith("HTTP/1.1 429 ")
    assert {"Retry-After: 2", "Set-Cookie: a=b", "Content-Type: text/html"} < set(lines)
    assert "Access-Control-Expose-Headers: Retry-After, Content-Type" in lines
    assert emulator.faults()[0]["headers"] == headers


def test_a_status_after_the_write_is_the_answer_to_what_has_happened(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as there:
        emulator.add_fault("status", status=502, when="after")
        assert call(emulator.url(PLANTS), "POST", "kept").status == 502
        assert next_of(there)["record"]["data"] == "kept"
    assert call(emulator.url(PLANTS), "POST", body=b"{", headers={"Content-Type": "application/json"}).status == 400
    assert call(emulator.url(PLANTS)).status == 502
    emulator.clear_faults()
    assert "kept" in [record["data"] for record in call(emulator.url(PLANTS)).json]


def until_reset(connection: socket.socket) -> bytes:
    """What comes until the connection is reset; an orderly end is an error."""
    received = []
    try:
        while block := connection.recv(2**16):
            received.append(block)
    except ConnectionResetError:
        return b"".join(received)
    raise AssertionError(f"it ended in order, after {len(received)} blocks")


@pytest.mark.parametrize("size", [0, 1, 2, 10_000])
def test_a_cut_amid_an_answer_keeps_half_of_it(emulator: RestedEmulator, size: int) -> None:
    emulator.change_endpoint("some/list")
    whole = call(emulator.url("some/list"), "POST", "x" * size).body if size else call(emulator.url("some/list")).body
    target = at("some/list", f"uniqueId={json.loads(whole)['uniqueId']}" if size else "")
    emulator.add_fault("cut", when="amid")
    with wire(emulator) as connection:
        connection.sendall(head("GET", target) + b"\r\n")
        received = until_reset(connection)
    start, _, body = received.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 200 ")
    assert f"Content-Length: {len(whole)}".encode() in start
    assert body == whole[: len(whole) // 2]


@pytest.mark.parametrize("when", ["before", "amid"])
def test_two_requests_that_come_at_once_are_cut_without_an_error(emulator: RestedEmulator, when: str) -> None:
    emulator.add_fault("cut", when=when)
    with wire(emulator) as connection:
        connection.sendall(2 * head("GET", at(PLANTS)))
        assert until_reset(connection).count(b"HTTP/1.1 ") == (when == "amid")
    emulator.settle()
    gc.collect()  # or asyncio tells later of an error in a task


def test_a_client_that_does_not_read_half_an_answer_is_cut_all_the_same(
    emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rested_emulator.LINGER_SECONDS", 0.1)
    for _ in range(9):
        call(emulator.url(PLANTS), "POST", "x" * 900_000)
    emulator.add_fault("cut", when="amid")
    with wire(emulator) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head("GET", at(PLANTS)) + b"\r\n")
        emulator.settle()
        until_reset(connection)


def test_over_http_the_time_of_a_fault_is_called_for(emulator: RestedEmulator) -> None:
    reply = call(f"{emulator.facts['controlUrl']}/faults", "POST", {"kind": "status", "for": 60})
    assert reply.status == 200
    assert call(emulator.url(PLANTS)).status == 503
    emulator.advance(60)
    assert call(emulator.url(PLANTS)).status == 200
    assert (emulator.faults()[0]["for"], emulator.faults()[0]["active"]) == (60.0, False)
