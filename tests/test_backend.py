"""Backend: the verbs on records (contract 4), and the owner's verbs (design 4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rested_emulator import OptionError, Project
from tests import texts
from tests.conftest import (
    ADA,
    AGO,
    BEN,
    CHORE_OF_BEN,
    CHORES,
    DIARY,
    DIARY_OF_ADA,
    DIARY_OF_BEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    PLANTS,
    PUMPKIN,
    ROSEMARY,
    TOMATO,
    Backend,
    Ear,
    add_project,
    knock,
    record_of,
    refused,
)
from tests.wire import CHANGED, EXPIRED

Listen = Callable[..., Ear]
Verb = Callable[..., Any]
MORNING, LATER = "2027-01-15T08:00:00.000Z", "2027-01-15T08:01:30.000Z"


def ids(answer: Any) -> list[str]:
    return [record.unique_id for record in answer]


# Read


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ((), [TOMATO, ROSEMARY, PUMPKIN]),
        ((PUMPKIN, TOMATO), [PUMPKIN, TOMATO]),
        ((TOMATO, PUMPKIN), [TOMATO, PUMPKIN]),
        (("unknown", ROSEMARY, "nowhere"), [ROSEMARY]),
        ((DIARY_OF_ADA, TOMATO), [TOMATO]),
    ],
    ids=["all", "two", "two the other way", "unknown ones left out", "one of another endpoint"],
)
def test_records_come_in_the_order_asked_for(backend: Backend, asked: tuple[str, ...], answered: list[str]) -> None:
    assert ids(backend.read(knock(PLANTS, unique_ids=asked))) == answered


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (("a",), ["a"]),
        (("a,b",), ["a,b"]),
        (("b,a",), ["b", "a"]),
        (("a, b",), ["a", "b"]),
        (("a,b", "b"), ["a,b", "b"]),
        (("a,b,a",), ["a", "b"]),
        ((" a ",), [" a "]),
        (("b ",), ["b"]),
        ((",",), [","]),
        ((",a",), ["a"]),
    ],
)
def test_a_value_that_is_an_id_as_a_whole_means_that_record(
    backend: Backend, asked: tuple[str, ...], answered: list[str]
) -> None:
    for unique_id in ("a", "b", "a,b", " a ", ","):
        backend.store.put_record(PLANTS, record_of(unique_id, 1))
    found = backend.read(knock(PLANTS, unique_ids=asked))
    assert [record.unique_id for record in ([found] if hasattr(found, "unique_id") else found)] == answered
    for verb in (Backend.update, Backend.delete):
        if len(answered) == 1:
            assert verb(backend, knock(PLANTS, 2, unique_ids=asked)).unique_id == answered[0]


@pytest.mark.parametrize("asked", [(" ",), (", ,",), (",", " ")])
def test_nothing_but_commas_and_spaces_asks_for_no_id(backend: Backend, asked: tuple[str, ...]) -> None:
    assert ids(backend.read(knock(PLANTS, unique_ids=asked))) == [TOMATO, ROSEMARY, PUMPKIN]
    with refused(400, texts.ONE_UNIQUE_ID):
        backend.delete(knock(PLANTS, unique_ids=asked))


# Update


def test_a_change_moves_updated_at_and_leaves_created_at(backend: Backend) -> None:
    record = backend.create(knock(PLANTS, "new"))
    assert backend.advance(90) == {"now": LATER, "tokensExpired": 0, "closed": 0}
    updated = backend.update(knock(PLANTS, "newer", unique_id=record.unique_id))
    assert (updated.created_at, updated.updated_at) == (MORNING, LATER)


@pytest.mark.parametrize("strategy", ["force", "merge", "replace"])
def test_unique_id_and_owner_in_a_body_are_data_and_nothing_else(
    backend: Backend, ada: str, ben: str, strategy: str
) -> None:
    body = {"uniqueId": DIARY_OF_BEN, "owner": BEN, "createdAt": AGO, "_id": 1, "__proto__": {}}
    record = backend.create(knock(DIARY, body, token=ada))
    updated = backend.update(knock(DIARY, body, token=ada, unique_id=record.unique_id, strategy=strategy))
    assert (record.data, updated.data) == (body, body)
    assert (record.owner, updated.owner) == (ADA, ADA)
    assert updated.unique_id == record.unique_id != DIARY_OF_BEN
    assert (updated.created_at, len(backend.records(DIARY))) == (MORNING, 3)
    with refused(400):
        backend.read(knock(DIARY, token=ben, unique_id=record.unique_id))


def test_who_changes_a_record_does_not_come_to_own_it(backend: Backend, ada: str, ben: str) -> None:
    backend.change_endpoint(CHORES, others_can_update=True)
    backend.update(knock(CHORES, "by ada", token=ada, unique_id=CHORE_OF_BEN))
    backend.update(knock(CHORES, "by the master", master_key=MASTER_KEY, unique_id=CHORE_OF_BEN))
    assert backend.delete(knock(CHORES, token=ben, unique_id=CHORE_OF_BEN)).owner == BEN


# The owner changes a project


def only_project(backend: Backend) -> Project:
    (project,) = backend.store.projects()
    return project  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("arguments", "saved"),
    [
        ({"name": "my garden"}, {"name": "my garden"}),
        ({"key": "ключ"}, {"key": "ключ"}),
        ({"master_key": "new"}, {"master_key": "new"}),
        ({"master_key": ""}, {"master_key": None}),
        ({"allowed_origins": ["http://A.example:80/"]}, {"allowed_origins": ("http://a.example",)}),
        ({"allowed_origins": []}, {"allowed_origins": ()}),
        ({"disallow_no_origin": True}, {"disallow_no_origin": True}),
        ({"token_ttl": 5}, {"token_ttl": 5.0}),
        ({"project": KEY, "name": "my garden"}, {"name": "my garden"}),
        ({}, {}),
    ],
    ids=str,
)
def test_options_of_a_project_are_saved_one_by_one(
    backend: Backend, arguments: dict[str, Any], saved: dict[str, Any]
) -> None:
    before = only_project(backend)
    backend.change_project(**arguments)
    after = only_project(backend)
    assert {option: getattr(after, option) for option in saved} == saved
    for option in {"name", "key", "master_key", "allowed_origins", "disallow_no_origin", "token_ttl"} - saved.keys():
        assert getattr(after, option) == getattr(before, option)


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": "second"},
        {"allowed_origins": ["http://a.example", "ftp://b.example"]},
        {"token_ttl": float("nan")},
        {"token_ttl": float("inf")},
        {"project": ""},
    ],
    ids=str,
)
def test_a_wrong_option_of_a_project_changes_nothing(
    backend: Backend, listen: Listen, arguments: dict[str, Any]
) -> None:
    add_project(backend)
    ear, before = listen(PLANTS), backend.store.projects()
    with pytest.raises(OptionError):
        backend.change_project(**{"master_key": "new"} | arguments)
    assert backend.store.projects() == before
    assert ear.ended is None


def test_endpoints_and_logins_follow_their_project_to_a_new_key(backend: Backend, ada: str) -> None:
    backend.change_project(key="new")
    assert len(ids(backend.read(knock(CHORES, key="new", token=ada)))) == 3
    with refused(400):
        backend.read(knock(PLANTS))


def test_a_changed_project_leaves_another_one_alone(backend: Backend, listen: Listen) -> None:
    add_project(backend)
    ear = listen(PLANTS)
    assert backend.change_project(project="second", master_key="m", disallow_no_origin=True) == {"closed": 0}
    assert ear.ended is None
    assert backend.read(knock(PLANTS))


# The owner changes an endpoint


def test_a_changed_endpoint_keeps_its_other_options_and_records(backend: Backend) -> None:
    backend.change_endpoint(CHORES, others_can_update=True)
    endpoint = backend.store.endpoint(CHORES)
    assert endpoint is not None
    assert (endpoint.secure, endpoint.others_can_read, endpoint.others_can_update) == (True, True, True)
    assert endpoint.others_can_delete is False
    assert len(backend.records(CHORES)) == 3


def test_an_option_of_the_wrong_type_is_refused_before_it_is_stored(backend: Backend) -> None:
    with pytest.raises(OptionError):
        backend.change_endpoint(PLANTS, secure="yes")
    assert backend.read(knock(PLANTS))


def test_a_deleted_endpoint_is_gone_with_its_data_its_sockets_and_its_tokens(
    backend: Backend, listen: Listen, ada: str
) -> None:
    users, diary, plants = listen(GARDENERS, token=ada), listen(DIARY, token=ada), listen(PLANTS)
    assert backend.delete_endpoint(GARDENERS) == {"deleted": 2, "closed": 2}
    assert (users.ended, diary.ended, plants.ended) == (CHANGED, EXPIRED, None)
    with refused(401):
        backend.read(knock(DIARY, token=ada))
    with refused(400):
        backend.read(knock(GARDENERS, master_key=MASTER_KEY))
    backend.change_endpoint(GARDENERS, authentication=True)
    assert backend.records(GARDENERS) == []


@pytest.mark.parametrize(
    "verb",
    [
        lambda backend: backend.delete_endpoint("garden/nowhere"),
        lambda backend: backend.close_listeners(endpoint="garden/nowhere"),
        lambda backend: backend.records("garden/nowhere"),
        lambda backend: backend.sign_in("garden/nowhere", "ada"),
    ],
    ids=["delete", "close", "records", "sign in"],
)
def test_an_unknown_endpoint_is_a_wrong_argument_that_lists_the_known_ones(backend: Backend, verb: Verb) -> None:
    with pytest.raises(OptionError, match=r"garden/nowhere.*garden/plants"):
        verb(backend)


# The owner moves time, and ends sockets and tokens


def test_time_moves_and_what_is_due_happens_before_the_answer(backend: Backend, listen: Listen, ada: str) -> None:
    ears = [listen(DIARY, token=ada), listen(CHORES, token=ada), listen(PLANTS)]
    assert backend.advance(0) == {"now": MORNING, "tokensExpired": 0, "closed": 0}
    assert backend.advance(86400) == {"now": "2027-01-16T08:00:00.000Z", "tokensExpired": 1, "closed": 2}
    assert [ear.ended for ear in ears] == [EXPIRED, EXPIRED, None]


@pytest.mark.parametrize("seconds", [-1, -0.001, 1e12, 1e300, float("inf"), float("-inf"), float("nan")])
def test_time_goes_neither_back_nor_beyond_the_year_9999(backend: Backend, seconds: float) -> None:
    with pytest.raises(OptionError):
        backend.advance(seconds)
    assert backend.advance(0)["now"] == MORNING


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1011, 1012, 1013, 1014, 3000, 4000, 4999])
def test_sockets_are_closed_with_every_code_a_server_may_send(backend: Backend, listen: Listen, code: int) -> None:
    plants, diary = listen(PLANTS), listen(CHORES, token=backend.sign_in(GARDENERS, "ada"))
    assert backend.close_listeners(code=code, reason="a drill", endpoint=PLANTS) == {"closed": 1}
    assert (plants.ended, diary.ended) == ((code, "a drill"), None)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_an_illegal_close_code_closes_nothing(backend: Backend, listen: Listen, code: int) -> None:
    ear = listen(PLANTS)
    with pytest.raises(OptionError, match=str(code)):
        backend.close_listeners(code=code)
    assert ear.ended is None


@pytest.mark.parametrize(
    ("reason", "fits"), [("x" * 123, True), ("é" * 61, True), ("x" * 124, False), ("é" * 62, False)]
)
def test_a_reason_has_123_bytes_at_most(backend: Backend, listen: Listen, reason: str, fits: bool) -> None:
    ear = listen(PLANTS)
    if fits:
        backend.close_listeners(reason=reason)
    else:
        with pytest.raises(OptionError):
            backend.close_listeners(reason=reason)
    assert ear.ended == ((1000, reason) if fits else None)


# Reset


def test_reset_ends_sockets_whose_endpoint_is_gone_or_has_become_secure(
    backend: Backend, listen: Listen, ada: str
) -> None:
    backend.store.checkpoint()
    backend.change_endpoint("garden/tools")
    backend.change_endpoint(DIARY, secure=False)
    backend.change_endpoint(GARDENERS, authentication=False)
    backend.create(knock(DIARY, "seen by everyone"))
    ears = [listen("garden/tools"), listen(DIARY), listen(GARDENERS), listen(PLANTS), listen(CHORES, token=ada)]
    assert backend.reset()["closed"] == 3
    assert [ear.ended for ear in ears] == [CHANGED, CHANGED, CHANGED, None, None]
    assert [ear.heard for ear in ears] == [[], [], [], [], []]


# Status, signing in, records


def test_status_says_what_there_is(backend: Backend, listen: Listen, ada: str) -> None:
    listen(PLANTS), listen(PLANTS), listen(DIARY, token=ada)
    backend.advance(60)
    status: Any = backend.status()
    (project,) = status["projects"]
    assert (project["name"], project["key"]) == ("community garden", KEY)
    counts = {item["name"]: (item["records"], item["listeners"]) for item in project["endpoints"]}
    assert counts == {PLANTS: (3, 2), GARDENERS: (2, 0), DIARY: (2, 1), CHORES: (3, 0)}
    chores = project["endpoints"][3]
    assert (chores["secure"], chores["othersCanRead"], chores["othersCanUpdate"]) == (True, True, False)
    user = {"endpoint": GARDENERS, "uniqueId": ADA, "username": "ada", "expiresAt": "2027-01-15T09:00:00.000Z"}
    assert status["users"] == [user]
    assert (status["listeners"], status["now"], status["uptime"]) == (3, "2027-01-15T08:01:00.000Z", 0)


def test_status_leaves_out_whose_token_has_expired(backend: Backend, ada: str, ben: str) -> None:
    backend.expire_tokens(token=ada)
    backend.logout(knock(GARDENERS, token=ben))
    assert backend.status()["users"] == []


@pytest.mark.parametrize(("username", "password"), [("", "password"), ("cleo", "")])
def test_a_user_that_cannot_be_is_a_wrong_argument(backend: Backend, username: str, password: str) -> None:
    with pytest.raises(OptionError):
        backend.sign_in(GARDENERS, username, password)


def test_a_user_made_by_signing_in_is_kept_like_any_other(backend: Backend) -> None:
    token = backend.sign_in(GARDENERS, "cleo")
    user = backend.read(knock(GARDENERS, token=token))
    assert (user.data, user.created_at) == ({"username": "cleo"}, MORNING)


def test_records_are_those_a_master_key_gets(backend: Backend) -> None:
    for endpoint in (PLANTS, GARDENERS, DIARY, CHORES):
        answer = backend.read(knock(endpoint, master_key=MASTER_KEY))
        assert backend.records(endpoint) == [record.public() for record in answer]


def test_the_owner_is_not_part_of_what_clients_see(backend: Backend, listen: Listen, ada: str) -> None:
    ear = listen(DIARY, token=ada)
    record = backend.create(knock(DIARY, "mine", token=ada))
    assert ADA not in json.dumps([record.public(), ear.heard, backend.records(DIARY)])


def test_going_back_to_where_a_token_had_expired_ends_its_sockets(backend: Backend, listen: Listen, ada: str) -> None:
    backend.checkpoint("live")
    backend.expire_tokens()
    backend.checkpoint("expired")
    backend.restore("live")
    ear = listen(DIARY, token=ada)
    assert backend.restore("expired")["closed"] == 1
    assert ear.ended == (1000, "Access token expired.")


def test_a_list_that_has_all_records_is_the_one_that_is_kept(backend: Backend, ada: str) -> None:
    backend.change_project(master_key=MASTER_KEY)
    kept = backend.store.records(DIARY)
    assert backend.read(knock(DIARY, master_key=MASTER_KEY)) is kept
    assert backend.read(knock(DIARY, token=ada)) is not kept
    backend.change_endpoint(DIARY, others_can_read=True)
    assert backend.read(knock(DIARY, token=ada)) is kept
    assert backend.read(knock(GARDENERS, master_key=MASTER_KEY)) is not backend.store.records(GARDENERS)
