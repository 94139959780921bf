"""Evidence: what was asked and pushed, without its secrets and without end, waiting for it, and what was never met."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import subprocess
import sys
import time as machine
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rested_emulator
from rested_emulator import OptionError, Refusal, RestedEmulator, RestedError, Worlds
from tests import texts
from tests.conftest import DIARY, GARDEN, GARDENERS, PLANTS, ROOT, TOMATO, Backend, Ear, knock
from tests.wire import FOREIGN, HANDSHAKE, PAGE, answer_on, at, call, closing, head, next_of, open_socket, until, wire

Listen = Callable[..., Ear]


def ask(backend: Any, **given: Any) -> None:
    """Let a request be seen."""
    asked: dict[str, Any] = {"method": "GET", "url": f"/api/1/ce/{PLANTS}", "headers": {}, "body": b""}
    asked |= {"endpoint": PLANTS, "status": 200, "seconds": 0.001}
    backend.evidence.saw_request(**asked | given)


def control(emulator: RestedEmulator, verb: str, data: Any = ..., method: str = "POST") -> Any:
    if method == "POST" and data is ...:
        data = {}
    reply = call(f"{emulator.facts['controlUrl']}/{verb}", method, data)
    assert reply.status == 200, reply.body
    return reply.json


# By the machine's clock, and by whom


def test_everything_tells_its_moment_by_the_machine_whatever_the_clock_says(emulator: RestedEmulator) -> None:
    emulator.freeze()
    with open_socket(emulator.ws_url(PLANTS)):
        call(emulator.url(PLANTS), "POST", {"name": "Leek"})
        emulator.advance(3600)
        call(emulator.url(PLANTS))
    emulator.wait(messages={"type": "CLOSE"})
    for seen in (emulator.messages(), control(emulator, "messages", method="GET")):
        moments: list[Any] = [each["uptime"] for each in [*seen, *emulator.requests()]]
        assert 0 <= min(moments) <= max(moments) <= float(emulator.status()["uptime"]) < 3600  # type: ignore[arg-type]
        assert moments[: len(seen)] == sorted(moments[: len(seen)])
    waited: Any = control(emulator, "wait", {"requests": {}, "count": 2})["requests"]
    assert [each["uptime"] for each in waited] == [each["uptime"] for each in emulator.requests()]


def test_a_socket_that_opens_or_is_refused_tells_whose_it_is(emulator: RestedEmulator) -> None:
    headers = {"Authorization": f"Bearer {emulator.sign_in(GARDENERS, 'ada')}", "User-Agent": "a browser"}
    with open_socket(emulator.ws_url(DIARY), origin=PAGE, additional_headers=headers):
        pass
    with open_socket(emulator.ws_url(DIARY), user_agent_header=None) as refused:
        assert closing(refused)[0] == 4000
    for seen in (emulator.messages(), control(emulator, "messages", method="GET")):
        (ada,) = [each for each in seen if each["type"] == "OPEN"]
        assert (ada["username"], ada["origin"], ada["agent"]) == ("ada", PAGE, "a browser")
        nobody = next(each for each in seen if not each["to"])
        assert (nobody["code"], nobody["username"], nobody["origin"], nobody["agent"]) == (4000, None, None, "")
        assert all("agent" not in each for each in seen if each["type"] == "CLOSE" and each["to"])


# Bodies and secrets


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"plain text", "plain text"),
        (b"", ""),
        (b"7", 7),
        (b"NaN", "NaN"),
        (b'"\\ud800"', '"\\ud800"'),
        (b"\xff", "\ufffd"),
        (b"[" * 5000, "[" * 5000),
        (b"[" * 3000 + b"]" * 3000, "[" * 3000 + "]" * 3000),
    ],
)
def test_a_body_is_shown_as_json_or_as_text(backend: Backend, body: bytes, shown: object) -> None:
    ask(backend, body=body)
    assert backend.requests()[0]["body"] == shown


def test_what_a_client_sent_is_shown_secrets_included(emulator: RestedEmulator) -> None:
    users = emulator.url(GARDENERS)
    call(users, "POST", {"username": "eve", "password": "s3cret"}, headers={"Cookie": "a=b"}, accessToken="t")
    (told,) = control(emulator, "requests", method="GET")
    assert told["body"] == {"username": "eve", "password": "s3cret"}
    assert told["headers"]["Cookie"] == "a=b"
    assert told["url"].endswith("&accessToken=t")


def test_the_log_tells_no_secret(emulator: RestedEmulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    users = emulator.url(GARDENERS)
    call(users, "POST", {"username": "eve", "password": "s3cret"}, headers={"Cookie": "a=s3cret"}, accessToken="s3cret")
    call(users, headers={"Authorization": "Bearer s3cret"}, masterKey="s3cret")
    assert "POST" in caplog.text
    assert "s3cret" not in caplog.text


# The console's own traffic


def test_the_console_is_left_out_unless_asked_for(emulator: RestedEmulator) -> None:
    call(f"{emulator.url(PLANTS)}&from=console")
    with open_socket(f"{emulator.ws_url(PLANTS)}&from=console"):
        assert emulator.requests() == emulator.messages() == emulator.listeners() == []
        asked = control(emulator, "listeners?from=console", method="GET")
        assert [len(emulator.requests(from_="console")), len(asked)] == [1, 1]
        assert [one["type"] for one in emulator.messages(from_="console")] == ["OPEN"]
        emulator.add_fault("outage")
    assert emulator.recoveries() == []
    assert list(emulator.coverage()["met"]) == ["an outage"]  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="from is 'me'; it is one of console"):
        emulator.requests(from_="me")
    with pytest.raises(OptionError, match="from is 'me'; it is one of console"):
        emulator.wait(messages={"from": "me"})


def test_a_message_that_the_console_hears_too_is_told_without_it(emulator: RestedEmulator) -> None:
    with open_socket(f"{emulator.ws_url(PLANTS)}&from=console"):
        emulator.add_fault("messages", what="drop")
        call(emulator.url(PLANTS), "POST", 1)
        assert list(emulator.coverage()["met"]) == []  # type: ignore[arg-type]
        with open_socket(emulator.ws_url(PLANTS)):
            call(emulator.url(PLANTS), "POST", 2)
        assert [one["to"] for one in emulator.messages(type="POST")] == [[], [2]]
        assert [one["to"] for one in emulator.messages(type="POST", from_="console")] == [[1], [1, 2]]


def test_the_console_uses_no_fault_up(emulator: RestedEmulator) -> None:
    emulator.add_fault("status", times=1)
    emulator.add_fault("messages", what="drop", times=1)
    with open_socket(f"{emulator.ws_url(PLANTS)}&from=console") as there:
        assert call(f"{emulator.url(PLANTS)}&from=console").status == 200
        assert call(f"{emulator.url(PLANTS)}&from=console", "POST", 1).status == 200
        assert next_of(there)["type"] == "POST"
    assert [fault["hits"] for fault in emulator.faults()] == [0, 0]
    assert call(emulator.url(PLANTS)).status == 503


@pytest.mark.parametrize(
    "body",
    [b'"\\ud800"', b"[" * 9000, b"NaN", b"1e400", b"\xff\xfe", b"9" * 5000, b'{"a":' * 1000 + b"1" + b"}" * 1000],
)
def test_what_is_no_json_is_shown_all_the_same(emulator: RestedEmulator, body: bytes) -> None:
    assert call(emulator.url(PLANTS), "POST", body=body, headers={"Content-Type": "application/json"}).status == 400
    [seen] = control(emulator, "requests", method="GET")
    assert (seen["status"], seen["refusal"]["message"]) == (400, texts.WRONG_BODY)


# What is kept


def test_a_request_is_seen_with_all_there_is_to_know(emulator: RestedEmulator) -> None:
    made = call(emulator.url(PLANTS), "POST", {"name": "Leek"}, headers={"Origin": PAGE})
    call(emulator.url(DIARY), "DELETE", uniqueId=TOMATO)
    good, bad = emulator.requests()
    assert good["seconds"] >= 0  # type: ignore[operator]
    assert good | {"headers": 0, "seconds": 0, "at": 0, "uptime": 0} == {
        "number": good["number"],
        "at": 0,
        "uptime": 0,
        "endpoint": PLANTS,
        "method": "POST",
        "url": at(PLANTS)[: -len("?")] if at(PLANTS).endswith("?") else at(PLANTS),
        "headers": 0,
        "body": {"name": "Leek"},
        "status": 200,
        "answer": made.json,
        "seconds": 0,
        "refusal": None,
        "faults": [],
        "left": False,
        "warnings": [],
    }
    refusal: Any = bad["refusal"]
    assert (bad["status"], refusal["message"], bool(refusal["hint"])) == (401, texts.NO_TOKEN, True)
    assert bad["answer"] == {"code": 401, **refusal}


def test_of_an_answer_is_seen_what_the_client_got(emulator: RestedEmulator) -> None:
    emulator.add_fault("cut", when="after", method="POST", times=1)
    with contextlib.suppress(ConnectionError):
        call(emulator.url(PLANTS), "POST", {"name": "Leek"})
    call(emulator.url(PLANTS), "HEAD")
    long = call(emulator.url(PLANTS), "POST", "x" * 20_000)
    cut, head, kept = emulator.requests()
    assert (cut["status"], cut["answer"], head["answer"]) == (None, "", "")
    assert kept["answer"] == f"{len(long.body)} bytes, which are not kept here"


def test_messages_and_ends_are_seen_with_whom_they_reached(backend: Backend, listen: Listen, ada: str) -> None:
    ear = listen(DIARY, token=ada)
    other = listen(DIARY, token=backend.sign_in(GARDENERS, "ben"))
    backend.create(knock(DIARY, "dear diary", token=ada))
    backend.leave(DIARY, other, 1001)
    backend.expire_tokens(token=ada)
    assert ear.ended
    rows = [(one["type"], one["to"], one.get("code"), one.get("reason")) for one in backend.messages(endpoint=DIARY)]
    assert rows == [
        ("OPEN", [1], None, None),
        ("OPEN", [2], None, None),
        ("POST", [1], None, None),
        ("CLOSE", [2], 1001, ""),
        ("CLOSE", [1], 1000, texts.TOKEN_EXPIRED),
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 4),
        (f"endpoint={PLANTS}", 3),
        ("method=POST", 1),
        ("status=200", 3),
        ("status=401", 1),
        (f"endpoint={PLANTS}&method=GET&status=200", 2),
        ("endpoint=not/there", 0),
        ("since=0", 4),
        ("since=999999", 0),
    ],
)
def test_requests_are_found_by_what_they_are(emulator: RestedEmulator, query: str, found: int) -> None:
    for endpoint, method in ((PLANTS, "GET"), (PLANTS, "POST"), (DIARY, "GET"), (PLANTS, "GET")):
        call(emulator.url(endpoint), method, 1 if method == "POST" else ...)
    assert len(control(emulator, f"requests?{query}", method="GET")) == found


@pytest.mark.parametrize(
    "query", ["status=x", "status=1.5", "since=-1", "colour=red", "type=POST", "status=" + "9" * 99]
)
def test_a_wrong_filter_is_refused(emulator: RestedEmulator, query: str) -> None:
    reply = call(f"{emulator.facts['controlUrl']}/requests?{query}")
    assert reply.status == 400
    assert "Arguments of requests: endpoint, method, status, since" in reply.json["hint"]


def test_one_row_of_numbers_goes_through_both(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)):
        call(emulator.url(PLANTS), "POST", "one")
        call(emulator.url(PLANTS), "POST", "two")
        numbers = sorted(one["number"] for one in [*emulator.requests(), *emulator.messages()])  # type: ignore[type-var]
    assert numbers == list(range(1, 6))
    assert emulator.clear_requests() == {"cleared": 2}
    assert control(emulator, "messages", method="DELETE") == {"cleared": 4}
    assert (emulator.requests(), emulator.messages()) == ([], [])


def test_much_is_the_latest(backend: Backend) -> None:
    for number in range(1500):
        ask(backend, status=number)
    assert [one["status"] for one in backend.requests()] == list(range(500, 1500))


# Room


@pytest.fixture
def worlds(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Worlds:
    """Worlds that share a mebibyte."""
    monkeypatch.setattr(rested_emulator, "MOST_EVIDENCE", 2**20)
    backend.begin()
    worlds = Worlds(backend.world, ["test-*"], lambda world: world.states.begin())
    for number in range(5):
        worlds.fork(f"test-{number}")
    return worlds


def sizes(worlds: Worlds) -> list[int]:
    return [world.evidence.size for world in worlds]


@pytest.mark.parametrize(
    "given",
    [{"body": bytes(9000)}, {"url": "/" * 9000}, {"headers": {"A": "x" * 9000}}, {"headers": {"A": "x" * 99_000}}, {}],
    ids=["bodies", "addresses", "headers", "long headers", "small"],
)
def test_evidence_of_all_worlds_together_has_one_bound(worlds: Worlds, given: dict[str, Any]) -> None:
    for number in range(6 * 1000):
        ask(worlds.of(f"test-{number % 6}"), status=number, **given)
        if number % 100 == 0:
            assert sum(sizes(worlds)) < 2**20
    assert all(worlds.of(f"test-{number}").reports.requests()[-1]["status"] == 5994 + number for number in range(6))


def test_of_too_much_the_world_that_has_most_forgets_its_oldest(worlds: Worlds) -> None:
    noisy, quiet = worlds.of("test-0"), worlds.of("test-1")
    for number in range(10):
        ask(quiet, status=number)
    for number in range(1000):
        ask(noisy, status=number, body=bytes(9000))
        noisy.service.create(knock(PLANTS, "x" * 9000, key="test-0"))
    assert [one["status"] for one in quiet.reports.requests()] == list(range(10))
    requests, messages = noisy.reports.requests(), noisy.reports.messages()
    assert [one["status"] for one in requests] == list(range(1000 - len(requests), 1000))
    assert 20 < len(requests) < 100
    assert abs(len(requests) - len(messages)) <= 1
    assert 2**19 < sum(sizes(worlds)) < 2**20


def test_a_world_that_is_dropped_makes_room(worlds: Worlds) -> None:
    for name in ("test-0", "test-1", "test-2"):
        for number in range(60):
            ask(worlds.of(name), status=number, body=bytes(9000))
        assert len(worlds.of(name).reports.requests()) == 60
        worlds.drop(name)


def test_what_evidence_takes_is_known_whatever_is_forgotten(backend: Backend, listen: Listen) -> None:
    listen(PLANTS)
    for number in range(1100):
        ask(backend, body=bytes(number % 50), headers={"A": "b"} if number % 2 else {})
        backend.create(knock(PLANTS, number))
    evidence = backend.evidence
    evidence.forget_oldest(100_000)
    kept: list[Any] = [*evidence._requests, *evidence._messages]
    assert 1000 < len(kept) < 2000
    assert evidence.size == sum(one.size for one in kept)
    backend.clear_requests()
    assert evidence.size == sum(one.size for one in evidence._messages)
    backend.clear_messages()
    assert evidence.size == 0


def test_an_audience_that_hears_many_messages_is_kept_once(backend: Backend, listen: Listen) -> None:
    for _ in range(500):
        listen(PLANTS)
    backend.clear_messages()
    for number in range(20):
        backend.create(knock(PLANTS, number))
    assert 500 * 8 < backend.evidence.size < 2 * 500 * 8 + 20 * 600
    listen(PLANTS)
    backend.create(knock(PLANTS, 20))
    assert [len(message["to"]) for message in backend.messages(type="POST")][-2:] == [500, 501]


@pytest.mark.parametrize("length", [0, 50, 9000])
def test_what_evidence_takes_is_about_what_it_takes_in_memory(backend: Backend, length: int) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(500):
            headers = {f"X-{name}-{number}": f"{name} {number} " + "x" * 30 for name in range(10)}
            ask(backend, headers=headers, url=f"/{number}", body=bytes(length + number))
            backend.create(knock(PLANTS, "x" * (length + number)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 2 < backend.evidence.size < taken * 2


def refuse(backend: Backend, data: bytes) -> Refusal:
    """A refusal with a traceback that leads to what was refused."""
    try:
        raise AssertionError(f"read with {len(data)} bytes: {backend.read(knock(DIARY))}")
    except Refusal as refusal:
        return refusal


def test_a_thousand_large_requests_and_records_are_not_kept(backend: Backend) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1000):
            body = bytes(200_000 + number)
            ask(backend, body=body, status=401, refusal=refuse(backend, body))
            url, headers = "/api?" + "x" * (100_000 + number), {"A": "x" * (100_000 + number)}
            ask(backend, url=url, headers=headers)
        record = backend.create(knock(PLANTS, "x" * 500_000))
        for number in range(100):
            backend.update(knock(PLANTS, "x" * (500_000 + number), unique_id=record.unique_id))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20e6
    assert "bytes, which are not kept here" in str(backend.messages()[-1]["record"])


def test_refused_bodies_of_a_megabyte_are_not_kept_over_the_wire(emulator: RestedEmulator) -> None:
    headers = {"Content-Type": "application/json"}
    tracemalloc.start()
    try:
        for _ in range(20):
            call(emulator.url(PLANTS), "POST", body=b"[" + b" " * 900_000, headers=headers)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 6e6
    assert len(emulator.requests()) == 20


# Waiting


def test_wait_returns_at_once_what_is_there(emulator: RestedEmulator) -> None:
    call(emulator.url(PLANTS))
    found: Any = emulator.wait(requests={"endpoint": PLANTS})
    assert [one["endpoint"] for one in found["requests"]] == [PLANTS]
    assert len(control(emulator, "wait", {"requests": {"status": 200}, "count": 1})["requests"]) == 1


def test_wait_returns_when_enough_have_come(emulator: RestedEmulator) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(emulator.wait, messages={"type": "PUT", "endpoint": PLANTS}, count=2)
        other = pool.submit(control, emulator, "wait", {"requests": {"method": "PUT"}, "count": 2})
        call(emulator.url(PLANTS), "PUT", "one", uniqueId=TOMATO)
        assert not waiting.done()
        call(emulator.url(PLANTS), "PUT", "two", uniqueId=TOMATO)
        found: Any = waiting.result(10)
        assert [one["record"]["data"] for one in found["messages"]] == ["one", "two"]
        assert len(other.result(10)["requests"]) == 2


def test_wait_counts_anew_after_a_clear(backend: Backend) -> None:
    rung: list[int] = []
    ask(backend)
    waiting = backend.evidence.wait_for({"requests": {}}, 2, lambda: rung.append(1))
    backend.clear_requests()
    ask(backend)
    assert rung == []
    ask(backend)
    ask(backend)
    assert rung == [1]
    backend.evidence.forget(waiting)
    assert backend.evidence._waiting == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "at least one"),
        ({"requests": {"colour": 1}}, "unknown argument 'colour'"),
        ({"requests": {"status": "200"}}, "a whole number"),
        ({"requests": []}, "an object"),
        ({"requests": {}, "count": 0}, "1 to 1000"),
        ({"requests": {}, "count": 1001}, "1 to 1000"),
        ({"requests": {}, "count": True}, "a whole number"),
        ({"requests": {}, "timeout": -1}, "0 to 600"),
        ({"requests": {}, "timeout": 601}, "0 to 600"),
        ({"requests": {}, "timeout": "5"}, "a number"),
    ],
)
def test_a_wrong_wait_is_refused(emulator: RestedEmulator, arguments: Any, why: str) -> None:
    reply = call(f"{emulator.facts['controlUrl']}/wait", "POST", arguments)
    assert (reply.status, why in reply.json["hint"]) == (400, True), reply.json
    assert "Arguments of wait: requests, messages, recoveries, count, timeout" in reply.json["hint"]
    with pytest.raises(OptionError):
        emulator.wait(**arguments)


def test_wait_says_how_far_it_came(emulator: RestedEmulator) -> None:
    call(emulator.url(PLANTS))
    reply = call(f"{emulator.facts['controlUrl']}/wait", "POST", {"requests": {}, "count": 2, "timeout": 0.05})
    assert (reply.status, reply.json["message"]) == (408, "It did not happen in time.")
    assert "1 of 2 requests" in reply.json["hint"]
    with pytest.raises(TimeoutError, match="0 of 1 messages"):
        emulator.wait(messages={}, timeout=0)


def waiting_in(emulator: RestedEmulator) -> int:
    return emulator.call(lambda server: len(server.world.evidence._waiting))


WAIT = b'{"requests": {"method": "PUT"}, "timeout": 60}'


def test_a_waiting_client_that_leaves_is_forgotten(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        headers = ("Content-Type: application/json", f"Content-Length: {len(WAIT)}")
        connection.sendall(head("POST", "/__emulator__/wait", *headers) + WAIT)
        until(lambda: waiting_in(emulator) == 1)
    until(lambda: waiting_in(emulator) == 0)


def test_many_wait_and_nobody_is_slowed_down_or_forgotten(emulator: RestedEmulator) -> None:
    for _ in range(30):
        call(emulator.url(PLANTS))
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(emulator.wait, requests={"method": "PUT"}) for _ in range(50)]
        until(lambda: waiting_in(emulator) == 50)
        call(emulator.url(PLANTS), "PUT", "x", uniqueId=TOMATO)
        assert all(len(one.result(10)["requests"]) == 1 for one in waiting)  # type: ignore[arg-type]
    assert waiting_in(emulator) == 0


@pytest.mark.alone
def test_a_stop_ends_waiting_at_once() -> None:
    with ThreadPoolExecutor(2) as pool:
        with RestedEmulator(data=GARDEN) as emulator:
            python: Future[Any] = pool.submit(emulator.wait, requests={}, timeout=60)
            until(lambda: waiting_in(emulator) == 1)
            with wire(emulator) as connection:
                headers = ("Content-Type: application/json", f"Content-Length: {len(WAIT)}")
                connection.sendall(head("POST", "/__emulator__/wait", *headers) + WAIT)
                until(lambda: waiting_in(emulator) == 2)
                since = machine.monotonic()
                emulator.stop()
                assert machine.monotonic() - since < 1.5
                assert answer_on(connection).status == 503
        with pytest.raises(RestedError, match="stops"):
            python.result(10)


def test_a_dropped_world_ends_waiting(emulator: RestedEmulator) -> None:
    world = emulator.world("test-1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.wait, requests={}, timeout=60)
        until(lambda: emulator.call(lambda server: len(server.worlds.named("test-1").evidence._waiting)) == 1)
        emulator.drop("test-1")
        with pytest.raises(RestedError, match="dropped"):
            waiting.result(10)


def test_settle_is_at_once_where_nothing_is_under_way(emulator: RestedEmulator) -> None:
    assert control(emulator, "settle")["seconds"] < 0.1
    assert control(emulator, "settle", {"timeout": 0})["seconds"] < 0.1


@pytest.mark.parametrize("timeout", [-1, 601, "1", True])
def test_a_wrong_timeout_is_refused(emulator: RestedEmulator, timeout: Any) -> None:
    assert call(f"{emulator.facts['controlUrl']}/settle", "POST", {"timeout": timeout}).status == 400
    with pytest.raises(OptionError):
        emulator.settle(timeout=timeout)


def test_settle_waits_for_an_answer_that_is_late(emulator: RestedEmulator) -> None:
    emulator.add_fault("delay", seconds=0.3, times=1)
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS)))
        until(lambda: emulator.faults()[0]["hits"] == 1)
        emulator.settle()
        assert len(emulator.requests()) == 1


def test_settle_waits_for_a_handshake_that_is_late(emulator: RestedEmulator) -> None:
    emulator.add_fault("delay", method="WEBSOCKET", seconds=0.3)
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        until(lambda: emulator.faults()[0]["hits"] == 1)
        emulator.settle()
        assert emulator.status()["listeners"] == 1


def test_settle_says_who_does_not_read(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        emulator.wait(messages={"type": "OPEN"})
        for _ in range(12):
            call(emulator.url(PLANTS), "POST", "x" * 900_000)
        with pytest.raises(TimeoutError, match="1 listeners do not read"):
            emulator.settle(timeout=0.05)


def test_after_settle_every_message_is_with_its_client(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        for number in range(20):
            call(emulator.url(PLANTS), "POST", number)
        emulator.settle()
        heard = [json.loads(listener.recv(timeout=1))["record"]["data"] for _ in range(20)]
    assert heard == list(range(20))


def test_settle_waits_for_messages_that_are_late_by_the_clock(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)):
        emulator.add_fault("messages", what="late", seconds=600)
        call(emulator.url(PLANTS), "POST", 1)
        with pytest.raises(TimeoutError, match="1 messages are late"):
            emulator.settle(timeout=0.05)
        emulator.advance(600)
        emulator.settle()


# Coverage of behaviour


def test_a_conflict_is_a_change_of_what_is_deleted_and_not_of_what_never_was(emulator: RestedEmulator) -> None:
    def met() -> bool:
        found: Any = emulator.coverage()["met"]
        return any(what.startswith("conflict: ") for what in found)

    url = emulator.url(PLANTS)
    call(url, "DELETE", uniqueId=TOMATO)
    call(url, "PUT", 1, uniqueId=f"{TOMATO}x")
    assert not met()
    call(url, "PUT", 1, uniqueId=TOMATO.replace("0", "%30"))
    assert met()


def test_what_clients_meet_is_counted(emulator: RestedEmulator) -> None:
    emulator.change_project(allowed_origins=[PAGE])
    assert call(emulator.url(DIARY)).status == 401
    call(emulator.url(PLANTS), headers={"Origin": FOREIGN})
    token = emulator.sign_in(GARDENERS, "ada")
    with open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as listener:
        emulator.expire_tokens()
        closing(listener)
    with open_socket(emulator.ws_url(DIARY)) as listener:
        closing(listener)
    with open_socket(emulator.ws_url(PLANTS)):
        call(emulator.url(PLANTS), "POST", {"x": 1})
    emulator.add_fault("status", status=500, times=1)
    call(emulator.url(PLANTS))
    met: Any = emulator.coverage()["met"]
    assert set(met) == {
        f"401 {texts.NO_TOKEN}",
        f"403 {texts.ORIGIN_REFUSED}",
        f"1000 {texts.TOKEN_EXPIRED}",
        f"4000 {texts.NO_TOKEN}",
        "a POST message",
        "a status of 500 and above",
    }


def test_a_client_that_left_has_met_no_cut(backend: Backend) -> None:
    slow = "slow answer: a second or more"
    ask(backend, status=None, seconds=2.0, left=True)
    assert backend.coverage()["met"] == {slow: 1}
    ask(backend, status=None)
    assert backend.coverage()["met"] == {slow: 1, "a connection that ends without an answer": 1}


def test_every_behaviour_is_named_once_and_says_how(tmp_path: Path) -> None:
    page = tmp_path / "coverage.md"
    with RestedEmulator(coverage=page):
        pass
    rows = re.findall(r"^\| (.+) \| never \| (.+) \|$", page.read_text(), re.MULTILINE)
    assert len({what for what, _ in rows}) == len(rows) == 30


def test_coverage_is_written_when_the_emulator_ends(tmp_path: Path) -> None:
    page = tmp_path / "coverage.md"
    with RestedEmulator(data=GARDEN, coverage=page) as emulator:
        call(emulator.url(DIARY))
        with emulator.world("test-1") as world:
            call(world.url(DIARY))
    text = page.read_text()
    assert text.startswith("# Coverage of behaviour\n")
    assert f"| 401 {texts.NO_TOKEN} | 2 |" in text


def test_the_end_of_the_emulator_is_no_behaviour_that_the_suite_has_met(tmp_path: Path) -> None:
    page = tmp_path / "coverage.md"
    with RestedEmulator(data=GARDEN, coverage=page) as emulator, open_socket(emulator.ws_url(PLANTS)) as ear:
        emulator.wait(messages={"type": "OPEN"})
        emulator.stop()
        assert closing(ear)[0] == 1001
    assert "| another close code | never |" in page.read_text()


def test_a_coverage_file_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), RestedEmulator(data=GARDEN, coverage=tmp_path / "no" / "coverage.md"):
        pass


def run_emulator(*arguments: str, check: str = "pass") -> subprocess.CompletedProcess[str]:
    """Run the program with a command in Python."""
    line = [sys.executable, "-m", "rested_emulator", "--memory", "-q", "-p", "0", *arguments]
    return subprocess.run(
        [*line, "--", sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_coverage_file_that_cannot_be_written_is_exit_code_1(tmp_path: Path) -> None:
    ended = run_emulator("--coverage", str(tmp_path))
    assert (ended.returncode, str(tmp_path) in ended.stderr, ended.stderr.count("\n")) == (1, True, 1)
