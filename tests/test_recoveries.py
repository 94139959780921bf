"""How clients come back whose sockets ended without their wish, mostly over the wire."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import ANY

import pytest
from websockets.exceptions import InvalidStatus

from rested_emulator import RestedEmulator
from tests import texts
from tests.conftest import DIARY, GARDENERS, PLANTS, ROOT, Backend, Ear, StoppedTime, knock
from tests.wire import PAGE, answer_on, at, bearer, call, closing, head, next_of, open_socket, wire

MEMBERS = [
    "number",
    "listener",
    "endpoint",
    "username",
    "at",
    "code",
    "reason",
    "rule",
    "attempts",
    "back",
    "after",
    "token",
    "read",
    "missed",
]


@pytest.fixture
def ada(emulator: RestedEmulator) -> str:
    return emulator.sign_in(GARDENERS, "ada")


@pytest.fixture
def ben(emulator: RestedEmulator) -> str:
    return emulator.sign_in(GARDENERS, "ben")


def recovery(emulator: RestedEmulator, **filters: Any) -> Any:
    """The one recovery there is."""
    (only,) = emulator.recoveries(**filters)
    return only


def refused(attempts: Any) -> list[str | None]:
    return [attempt["refused"] for attempt in attempts]


def test_the_reference_says_what_every_member_means() -> None:
    table = (ROOT / "sample_data" / "REFERENCE.md").read_text().split("| member | what it says |")[1].split("\n\n")[0]
    assert {*MEMBERS, "more", "refused"} <= set(re.findall(r"`(\w+)`", table))


def test_nothing_is_told_of_who_has_not_lost_a_socket(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)):
        assert emulator.recoveries() == []
    with open_socket(emulator.ws_url(PLANTS)):
        assert emulator.recoveries() == []  # closed by its client, with a frame


def test_a_client_that_comes_back(emulator: RestedEmulator, ada: str) -> None:
    url = emulator.ws_url(DIARY)
    with open_socket(url, additional_headers=bearer(ada)) as first:
        emulator.add_fault("abort")
        assert closing(first)[0] == 1006
    end: Any = emulator.messages(type="CLOSE")[-1]
    away = recovery(emulator)
    assert list(away) == MEMBERS
    assert away == {
        "number": end["number"],
        "listener": 1,
        "endpoint": DIARY,
        "username": "ada",
        "at": end["at"],
        "code": end["code"],
        "reason": end["reason"],
        "rule": "fault 1 abort",
        "attempts": [],
        "back": None,
        "after": None,
        "token": None,
        "read": False,
        "missed": 0,
    }
    assert (away["code"], away["reason"]) == (1006, "")
    emulator.add_fault("refuse", status=503, times=1)
    with pytest.raises(InvalidStatus):
        open_socket(url, additional_headers=bearer(ada))
    call(emulator.url(DIARY), "POST", "while away", headers=bearer(ada))
    with open_socket(url, additional_headers=bearer(ada)):
        call(emulator.url(DIARY), "POST", "heard", headers=bearer(ada))
        back = recovery(emulator)
        assert refused(back["attempts"]) == ["503", None]
        first_try, second_try = (attempt["after"] for attempt in back["attempts"])
        assert 0 <= first_try <= second_try == back["after"]
        assert (back["back"], back["token"], back["missed"], back["read"]) == (2, "same", 1, False)
        call(emulator.url(DIARY), headers=bearer(ada))
        assert recovery(emulator)["read"] is True


def test_one_that_comes_back_with_a_new_token_or_with_none(emulator: RestedEmulator, ada: str) -> None:
    url = emulator.ws_url(DIARY)
    with open_socket(url, additional_headers=bearer(ada)) as first:
        emulator.expire_tokens(username="ada")
        assert closing(first) == (1000, texts.TOKEN_EXPIRED)
    with open_socket(url, additional_headers=bearer(ada)) as again:
        assert closing(again)[0] == 4000
    with open_socket(url) as without:
        assert closing(without)[0] == 4000
    with open_socket(url, additional_headers=bearer(emulator.sign_in(GARDENERS, "ada"))):
        back = recovery(emulator)
    assert back["rule"] == "expired token"
    assert refused(back["attempts"]) == ["4000 No Access token or invalid."] * 2 + [None]
    assert back["token"] == "new"
    with open_socket(emulator.ws_url(PLANTS)):
        emulator.add_fault("abort")
    with open_socket(emulator.ws_url(PLANTS)):
        assert recovery(emulator, endpoint=PLANTS)["token"] == "none"


def test_a_user_whose_token_was_revoked_is_still_that_user(emulator: RestedEmulator, ada: str, ben: str) -> None:
    url = emulator.ws_url(DIARY)
    with open_socket(url, additional_headers=bearer(ada)), open_socket(url, additional_headers=bearer(ben)):
        emulator.add_fault("abort")
    call(emulator.url(GARDENERS), "POST", headers=bearer(ada), logout="true")
    with open_socket(url, additional_headers=bearer(ada)) as refused_one:
        assert closing(refused_one)[0] == 4000
    told: Any = emulator.recoveries()
    assert [(one["username"], len(one["attempts"])) for one in told] == [("ada", 1), ("ben", 0)]


def test_a_revoked_token_is_its_users_though_a_later_socket_that_showed_it_was_nobodys(
    backend: Backend, listen: Callable[..., Ear]
) -> None:
    token = backend.sign_in(GARDENERS, "ada")
    listen(PLANTS, token=token)
    backend.logout(knock(GARDENERS, token=token))
    listen(PLANTS, token=token)
    for number in (2, 1):
        backend.close_listeners(listener=number)
    backend.world.service.saw_handshake(knock(PLANTS, token=token, origin=PAGE))
    told: Any = backend.recoveries()
    assert [(one["username"], len(one["attempts"])) for one in told] == [(None, 0), ("ada", 1)]


def test_two_users_are_told_apart_and_each_misses_what_is_theirs(emulator: RestedEmulator, ada: str, ben: str) -> None:
    url = emulator.ws_url(DIARY)
    with open_socket(url, additional_headers=bearer(ada)), open_socket(url, additional_headers=bearer(ben)):
        emulator.add_fault("outage", seconds=60, method="WEBSOCKET")
    for text in ("one", "two"):
        call(emulator.url(DIARY), "POST", text, headers=bearer(ada))
    with pytest.raises(InvalidStatus):
        open_socket(url, additional_headers=bearer(ben))
    told: Any = {one["username"]: one for one in emulator.recoveries()}
    assert [told[name]["missed"] for name in ("ada", "ben")] == [2, 0]
    assert [refused(told[name]["attempts"]) for name in ("ada", "ben")] == [[], ["outage"]]
    assert {one["rule"] for one in told.values()} == {"fault 1 outage"}
    assert recovery(emulator, username="ben")["username"] == "ben"
    assert emulator.recoveries(username="eve") == []
    assert emulator.recoveries(since=told["ben"]["number"]) == []


def test_clients_without_users_are_told_apart_by_page_and_program(emulator: RestedEmulator) -> None:
    url = emulator.ws_url(PLANTS)
    page, phone = {"origin": PAGE, "user_agent_header": "A"}, {"origin": PAGE, "user_agent_header": "B"}
    with open_socket(url, **page), open_socket(url, **phone):
        emulator.add_fault("abort")
    with open_socket(url, **phone):
        first, second = emulator.recoveries()
        assert (first["back"], second["back"]) == (None, 3)
        call(emulator.url(PLANTS), headers={"User-Agent": "A", "Origin": PAGE})
        assert [one["read"] for one in emulator.recoveries()] == [False, False]
        # A page of the emulator's own origin sends no Origin with a GET, but Referer, or by its policy neither.
        call(emulator.url(PLANTS), headers={"User-Agent": "B", "Referer": f"{PAGE}/notes?page=1"})
        assert [one["read"] for one in emulator.recoveries()] == [False, True]


def test_a_page_without_origin_and_referer_reads_by_its_program_alone(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS), origin=PAGE, user_agent_header="A"):
        emulator.add_fault("abort")
    with open_socket(emulator.ws_url(PLANTS), origin=PAGE, user_agent_header="A"):
        call(emulator.url(PLANTS), headers={"User-Agent": "A"}, uniqueId="nobody")
        assert recovery(emulator)["read"] is False  # 400: it has read nothing
        call(emulator.url(PLANTS), headers={"User-Agent": "A"})
        assert recovery(emulator)["read"] is True


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 200}, {"kind": "cut", "when": "amid"}])
def test_what_a_fault_has_answered_was_not_read(emulator: RestedEmulator, fault: dict[str, Any]) -> None:
    with open_socket(emulator.ws_url(PLANTS), user_agent_header="A"):
        emulator.add_fault("abort")
    with open_socket(emulator.ws_url(PLANTS), user_agent_header="A"):
        emulator.add_fault(**fault, times=1)
        with suppress(ConnectionResetError):
            call(emulator.url(PLANTS), headers={"User-Agent": "A"})
        assert (len(emulator.requests(status=200)), recovery(emulator)["read"]) == (1, False)
        call(emulator.url(PLANTS), headers={"User-Agent": "A"})
        assert recovery(emulator)["read"] is True


def test_what_was_asked_before_its_client_was_back_was_not_read(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS), user_agent_header="A"):
        emulator.add_fault("abort")
    emulator.add_fault("delay", seconds=0.2, times=1, method="GET")
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS), "User-Agent: A"))
        while emulator.faults()[-1]["hits"] == 0:
            pass
        with open_socket(emulator.ws_url(PLANTS), user_agent_header="A"):
            assert answer_on(connection).status == 200
            assert recovery(emulator)["read"] is False  # what was said in between may be missing
            call(emulator.url(PLANTS), headers={"User-Agent": "A"})
            assert recovery(emulator)["read"] is True


def test_a_socket_replaces_one_that_ended_the_oldest_first(emulator: RestedEmulator) -> None:
    url = emulator.ws_url(PLANTS)
    with open_socket(url), open_socket(url):
        emulator.add_fault("abort")
    with open_socket(url):
        assert [one["back"] for one in emulator.recoveries()] == [3, None]
        with open_socket(url):
            first, second = emulator.recoveries()
    assert (first["back"], second["back"]) == (3, 4)
    assert (first["attempts"], second["attempts"]) == ([ANY], [ANY, ANY])


@pytest.mark.parametrize(
    ("verb", "arguments", "rule"),
    [
        ("add_fault", {"kind": "close", "code": 4001}, "fault 1 close"),
        ("add_fault", {"kind": "silence"}, "fault 1 silence"),
        ("close_listeners", {}, "call close-listeners"),
        ("change_endpoint", {"name": DIARY}, "changed options"),
        ("change_project", {"allowed_origins": [PAGE]}, "changed options"),
        ("delete_endpoint", {"name": DIARY}, "call delete-endpoint"),
        ("expire_tokens", {}, "expired token"),
        ("advance", {"seconds": 10**6}, "expired token"),
        ("reset", {}, "reset"),
        ("restore", {"name": "before"}, "restore"),
        ("load", {"data": {}}, "load"),
    ],
)
def test_what_has_ended_a_socket(emulator: RestedEmulator, verb: str, arguments: dict[str, Any], rule: str) -> None:
    emulator.checkpoint("before")
    with open_socket(emulator.ws_url(DIARY), additional_headers=bearer(emulator.sign_in(GARDENERS, "ada"))):
        getattr(emulator, verb)(**arguments)
        assert recovery(emulator)["rule"] == rule
        emulator.clear_faults()  # a silenced socket would keep its client waiting


def test_a_socket_that_its_client_lost(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as lost:
        lost.socket.shutdown(2)
        emulator.wait(messages={"type": "CLOSE"})
    with open_socket(emulator.ws_url(PLANTS)):
        back: Any = emulator.wait(recoveries={"endpoint": PLANTS})["recoveries"]
    assert [(one["rule"], one["code"], one["back"]) for one in back] == [("lost by the client", 1006, 2)]


def test_wait_looks_for_those_who_are_back(emulator: RestedEmulator) -> None:
    url = emulator.ws_url(PLANTS)
    with open_socket(url), open_socket(url):
        emulator.add_fault("abort")
    with open_socket(url):
        found: Any = emulator.wait(recoveries={}, count=1)
        assert [one["back"] for one in found["recoveries"]] == [3]
        reply = call(
            f"{emulator.facts['controlUrl']}/wait",
            "POST",
            {"recoveries": {"username": "ada"}, "timeout": 0},
            headers={"Content-Type": "application/json"},
        )
        assert reply.status == 408
        assert "a recovery counts once its client is back" in reply.json["hint"]


def test_who_came_without_need_of_a_token_misses_what_is_theirs_once_there_is(
    backend: Backend, listen: Callable[..., Ear]
) -> None:
    ada, ben = (backend.sign_in(GARDENERS, name) for name in ("ada", "ben"))
    listen(PLANTS, token=ada)
    backend.change_endpoint(PLANTS, secure=True)
    for token in (ada, ben):
        backend.create(knock(PLANTS, "note", token=token))
    listen(PLANTS, token=ada)
    assert [one["missed"] for one in backend.recoveries()] == [1]


@pytest.mark.parametrize("what", ["late", "swap"])
def test_a_message_that_a_fault_held_up_until_its_listener_was_away_is_missed(
    backend: Backend, listen: Callable[..., Ear], what: str
) -> None:
    listen(PLANTS)
    backend.add_fault("messages", what=what)
    backend.create(knock(PLANTS, "held up"))
    backend.add_fault("abort")
    backend.clear_faults()
    assert backend.recoveries()[0]["missed"] == 1


def test_a_handshake_from_before_the_end_is_no_attempt_of_a_time_before_it(
    backend: Backend, listen: Callable[..., Ear], time: StoppedTime
) -> None:
    for _ in range(2):
        listen(PLANTS)
    backend.close_listeners(listener=1)
    late, early = (backend.world.service.saw_handshake(knock(PLANTS)) for _ in range(2))
    time.now += 2
    backend.close_listeners(listener=2)
    time.now += 3
    for attempt in (early, late):
        backend.world.service.listen(knock(PLANTS), Ear(), attempt=attempt)
    told: Any = backend.recoveries()
    assert [(one["back"], one["after"]) for one in told] == [(3, 0.0), (4, 3.0)]


def test_of_many_attempts_the_first_are_kept_and_the_rest_counted(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)):
        emulator.add_fault("outage")
    for _ in range(52):
        with pytest.raises(InvalidStatus):
            open_socket(emulator.ws_url(PLANTS))
    told = recovery(emulator)
    assert (len(told["attempts"]), told["more"]) == (50, 2)


def test_recoveries_are_cleared_and_nobody_is_away_then(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)):
        emulator.add_fault("abort")
    assert emulator.clear_recoveries() == {"cleared": 1}
    with open_socket(emulator.ws_url(PLANTS)) as there:
        assert emulator.recoveries() == []
        call(emulator.url(PLANTS), "POST", 1)
        assert next_of(there)["type"] == "POST"


def test_recoveries_are_those_of_a_world(emulator: RestedEmulator) -> None:
    with emulator.world("other") as world, open_socket(world.ws_url(PLANTS)):
        world.add_fault("abort")
        assert len(world.recoveries()) == 1
        assert emulator.recoveries() == []


def test_a_recovery_keeps_no_connection_in_memory(backend: Backend, listen: Callable[..., Ear]) -> None:
    gone = weakref.ref(listen(PLANTS))
    backend.close_listeners()
    assert (len(backend.recoveries()), gone()) == (1, None)


def test_of_many_recoveries_the_latest_are_kept(backend: Backend, listen: Callable[..., Ear]) -> None:
    for _ in range(1001):
        listen(PLANTS)
    backend.close_listeners()
    told: Any = backend.recoveries()
    assert (len(told), told[0]["listener"]) == (1000, 2)
    listen(PLANTS)
    assert backend.recoveries()[0]["back"] == 1002  # the oldest that is still known
