"""Backend: the verbs on records (contract 4), the owner's verbs (design 4), what every refusal says (contract 5.1)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rested_emulator import (
    OptionError,
    Project,
    Refusal,
)
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
    Sent,
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


# Create


@pytest.mark.parametrize(
    "data", [{"b": 1, "a": 2}, [], {}, "", "text", 0, -1.5, 2**80, True, False, None, [None, {"": []}]], ids=repr
)
def test_a_posted_body_is_kept_as_it_is(backend: Backend, data: Any) -> None:
    record = backend.create(knock(PLANTS, data))
    kept = backend.read(knock(PLANTS, unique_id=record.unique_id))
    assert json.dumps(kept.data) == json.dumps(record.data) == json.dumps(data)
    assert (kept.created_at, kept.updated_at) == (MORNING, MORNING)


def test_posted_text_is_kept_as_a_string(backend: Backend) -> None:
    text = ("text/plain; charset=utf-8", None, "{ Möhre\n".encode())
    assert backend.create(knock(PLANTS, content=text)).data == "{ Möhre\n"


def test_new_ids_are_32_hexadecimal_characters_and_differ(backend: Backend) -> None:
    made = {backend.create(knock(PLANTS, 1)).unique_id for _ in range(50)}
    assert len(made) == 50
    assert all(len(unique_id) == 32 and set(unique_id) <= set("0123456789abcdef") for unique_id in made)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, texts.WRONG_CONTENT_TYPE),
        ((None, None, b"{}"), texts.WRONG_CONTENT_TYPE),
        (("image/png", None, b"{}"), texts.WRONG_CONTENT_TYPE),
        (("application/json", None, b""), texts.NO_BODY),
        (("text/plain", None, b""), texts.NO_BODY),
        (("application/json", None, b"{"), texts.WRONG_BODY),
        (("application/json", None, b"NaN"), texts.WRONG_BODY),
        (("text/plain", None, b"\xff"), texts.WRONG_BODY),
        (("application/json", "gzip", b"{}"), texts.WRONG_BODY),
    ],
    ids=str,
)
def test_a_body_that_cannot_be_kept_stores_nothing(backend: Backend, content: Sent, message: str) -> None:
    before = backend.records(PLANTS)
    for verb, shows in ((Backend.create, {}), (Backend.update, {"unique_id": TOMATO})):
        with refused(400, message):
            verb(backend, knock(PLANTS, content=content, **shows))
    assert backend.records(PLANTS) == before


def test_a_body_over_the_limit_is_413_and_stores_nothing(backend: Backend) -> None:
    before = backend.records(PLANTS)
    with refused(413) as refusal:
        backend.create(knock(PLANTS, content=("application/json", None, None)))
    assert refusal.value.status == 413
    assert backend.records(PLANTS) == before


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


def test_one_id_answers_the_record_itself(backend: Backend) -> None:
    record = backend.read(knock(PLANTS, unique_id=TOMATO))
    assert record.public() == {
        "data": {"name": "Tomato", "bed": 1, "waterDaily": True},
        "uniqueId": TOMATO,
        "updatedAt": AGO,
        "createdAt": AGO,
    }


@pytest.mark.parametrize("asked", [("unknown",), ("unknown", "nowhere"), (DIARY_OF_ADA,), ("ключ",), ("x" * 100_000,)])
def test_where_none_is_found_that_is_a_bad_request(backend: Backend, asked: tuple[str, ...]) -> None:
    with refused(400, texts.NO_RECORD):
        backend.read(knock(PLANTS, unique_ids=asked))


def test_an_empty_endpoint_is_an_empty_list(backend: Backend) -> None:
    backend.change_endpoint("garden/tools")
    assert backend.read(knock("garden/tools")) == ()


def test_records_are_listed_in_the_order_of_creation_whatever_changes(backend: Backend) -> None:
    first, second = (backend.create(knock(PLANTS, n)).unique_id for n in range(2))
    backend.update(knock(PLANTS, "changed", unique_id=first))
    backend.delete(knock(PLANTS, unique_id=TOMATO))
    assert ids(backend.read(knock(PLANTS))) == [ROSEMARY, PUMPKIN, first, second]


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


@pytest.mark.parametrize("given", [(), (TOMATO, ROSEMARY), (TOMATO, TOMATO)], ids=["none", "two", "one twice"])
@pytest.mark.parametrize("verb", [Backend.update, Backend.delete])
def test_a_change_needs_exactly_one_unique_id(backend: Backend, verb: Verb, given: tuple[str, ...]) -> None:
    before = backend.records(PLANTS)
    with refused(400, texts.ONE_UNIQUE_ID):
        verb(backend, knock(PLANTS, {}, unique_ids=given))
    assert backend.records(PLANTS) == before


# Delete


def test_a_deleted_record_is_answered_as_it_last_was_and_gone(backend: Backend) -> None:
    record = backend.read(knock(PLANTS, unique_id=TOMATO))
    assert backend.delete(knock(PLANTS, unique_id=TOMATO)) == record
    for verb in (Backend.read, Backend.update, Backend.delete):
        with refused(400, texts.NO_RECORD):
            verb(backend, knock(PLANTS, {}, unique_id=TOMATO))


def test_a_delete_ignores_its_body(backend: Backend) -> None:
    backend.delete(knock(PLANTS, unique_id=TOMATO, content=("image/png", "gzip", b"\xff")))
    assert len(backend.records(PLANTS)) == 2


# What is not emulated yet

UPLOAD = ("Multipart/Form-Data; boundary=x", None, b"--x--")


# Every refusal

PASSWORD, WRONG_KEY, TOKEN = "a-password-that-was-sent", "a-master-key-that-was-sent", "an-access-token-that-was-sent"
SENT = {"username": "ada", "email": "ada@garden.example", "password": PASSWORD}
FOREIGN = "https://evil.example"
REFUSED = [
    pytest.param(Backend.read, knock(PLANTS, key=None, master_key=WRONG_KEY, token=TOKEN), id="no key"),
    pytest.param(Backend.read, knock(PLANTS, key="x", master_key=WRONG_KEY, token=TOKEN), id="unknown key"),
    pytest.param(Backend.read, knock("garden/x", master_key=WRONG_KEY, token=TOKEN), id="unknown endpoint"),
    pytest.param(Backend.read, knock(PLANTS, master_key=WRONG_KEY, token=TOKEN), id="wrong master key"),
    pytest.param(Backend.create, knock(DIARY, SENT, origin=FOREIGN, token=TOKEN), id="foreign page"),
    pytest.param(Backend.read, knock(DIARY, master_key=None), id="no token"),
    pytest.param(Backend.read, knock(DIARY, token=TOKEN), id="unknown token"),
    pytest.param(Backend.create, knock(PLANTS, malformed=True, token=TOKEN), id="malformed query"),
    pytest.param(Backend.create, knock(PLANTS, content=(None, None, PASSWORD.encode())), id="no content type"),
    pytest.param(Backend.create, knock(PLANTS, content=("application/json", None, PASSWORD.encode())), id="no JSON"),
    pytest.param(
        Backend.create,
        knock(PLANTS, content=("text/plain", None, PASSWORD.encode() + b"\xff")),
        id="no UTF-8",
    ),
    pytest.param(Backend.create, knock(PLANTS, content=("text/plain", None, b"")), id="empty"),
    pytest.param(Backend.create, knock(PLANTS, content=("text/plain", None, None)), id="too large"),
    pytest.param(Backend.create, knock(PLANTS, content=UPLOAD), id="upload"),
    pytest.param(Backend.read, knock(PLANTS, unique_id="x", token=TOKEN), id="unknown record"),
    pytest.param(Backend.read, knock(GARDENERS, unique_id="x", master_key=MASTER_KEY), id="unknown user"),
    pytest.param(Backend.update, knock(PLANTS, SENT), id="no unique id"),
    pytest.param(Backend.update, knock(PLANTS, SENT, unique_id=TOMATO, strategy="x"), id="unknown strategy"),
    pytest.param(Backend.update, knock(PLANTS, PASSWORD, unique_id=TOMATO, strategy="merge"), id="no merge"),
    pytest.param(Backend.update, knock(PLANTS, [PASSWORD], unique_id=TOMATO, strategy="replace"), id="no replace"),
    pytest.param(Backend.update, knock(PLANTS, SENT, unique_id="x"), id="unknown record to change"),
    pytest.param(Backend.delete, knock(PLANTS, token=TOKEN), id="nothing to delete"),
    pytest.param(Backend.register, knock(GARDENERS, {"password": PASSWORD}), id="no name"),
    pytest.param(Backend.register, knock(GARDENERS, {"username": "c", "password": [PASSWORD]}), id="odd password"),
    pytest.param(Backend.register, knock(GARDENERS, [SENT]), id="no object"),
    pytest.param(Backend.register, knock(GARDENERS, SENT), id="user exists"),
    pytest.param(Backend.login, knock(GARDENERS, SENT), id="both names"),
    pytest.param(Backend.login, knock(GARDENERS, PASSWORD), id="text for a login"),
    pytest.param(Backend.login, knock(GARDENERS, {"username": "ada", "password": PASSWORD}), id="wrong password"),
    pytest.param(Backend.login, knock(GARDENERS, {"username": "c", "password": PASSWORD}), id="no such user"),
    pytest.param(Backend.login, knock(GARDENERS, {"username": "", "password": PASSWORD}), id="empty name"),
    pytest.param(Backend.logout, knock(GARDENERS, token=TOKEN), id="logout"),
    pytest.param(
        Backend.update,
        knock(GARDENERS, {"password": PASSWORD}, master_key=MASTER_KEY, unique_id=ADA),
        id="user without a name",
    ),
    pytest.param(
        Backend.update,
        knock(GARDENERS, {"username": "ben", "password": PASSWORD}, master_key=MASTER_KEY, unique_id=ADA),
        id="name of another user",
    ),
]


@pytest.mark.parametrize(("verb", "sent"), REFUSED)
def test_every_refusal_has_a_hint_and_repeats_no_secret(
    backend: Backend, caplog: pytest.LogCaptureFixture, verb: Verb, sent: Any
) -> None:
    with pytest.raises(Refusal) as refusal:
        verb(backend, sent)
    assert refusal.value.hint.strip()
    assert refusal.value.message in vars(texts).values()
    for secret in (PASSWORD, WRONG_KEY, TOKEN, MASTER_KEY, "apricot", "bramble"):
        assert secret not in f"{refusal.value} {refusal.value.reason} {caplog.text}"


@pytest.mark.parametrize(("verb", "sent"), REFUSED)
def test_a_refused_verb_has_changed_nothing(backend: Backend, verb: Verb, sent: Any) -> None:
    before = [backend.store.records(name) for name in (PLANTS, GARDENERS, DIARY, CHORES)]
    with pytest.raises(Refusal):
        verb(backend, sent)
    assert [backend.store.records(name) for name in (PLANTS, GARDENERS, DIARY, CHORES)] == before
    assert backend.store.sessions() == []


def test_refusals_of_tokens_and_owners_repeat_no_token(backend: Backend, ada: str, ben: str) -> None:
    backend.expire_tokens(token=ben)
    for verb, shows in (
        (Backend.update, {"token": ada, "data": 1, "unique_id": CHORE_OF_BEN}),
        (Backend.read, {"token": ben}),
    ):
        with pytest.raises(Refusal) as refusal:
            verb(backend, knock(CHORES, **shows))
        assert refusal.value.hint
        assert ada not in str(refusal.value)
        assert ben not in str(refusal.value)


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
        {"name": "four"},
        {"name": ""},
        {"name": "x" * 255},
        {"name": "gärten"},
        {"name": "a/b/c/d"},
        {"key": ""},
        {"key": "second"},
        {"allowed_origins": ["null"]},
        {"allowed_origins": ["localhost:3000"]},
        {"allowed_origins": ["http://a.example", "ftp://b.example"]},
        {"allowed_origins": ["http://a.example/path"]},
        {"token_ttl": 0},
        {"token_ttl": -1},
        {"token_ttl": float("nan")},
        {"token_ttl": float("inf")},
        {"project": "unknown", "name": "my garden"},
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


@pytest.mark.parametrize("name", ["tools", "garden/tools/left-shed", "0-0-0", "x" * 254])
def test_an_endpoint_that_is_new_is_made(backend: Backend, name: str) -> None:
    assert backend.change_endpoint(name, description="new") == {"closed": 0}
    backend.create(knock(name, "first"))
    assert len(backend.records(name)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "four",
        "x" * 255,
        "Garden/tools",
        "garden//tools",
        "garden--tools",
        "/garden",
        "garden/",
        "-garden",
        "garden-",
        "garden tools",
        "gärten",
        "../garden",
        "_projects",
        "garden\n",
        "garden/tools?x",
    ],
)
def test_a_wrong_name_makes_no_endpoint(backend: Backend, name: str) -> None:
    with pytest.raises(OptionError):
        backend.change_endpoint(name)
    assert len(backend.store.endpoints()) == 4


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


def test_expired_tokens_end_their_sockets(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    ears = [listen(DIARY, token=ada), listen(CHORES, token=ada), listen(DIARY, token=ben), listen(PLANTS)]
    assert backend.expire_tokens(token=ada) == {"expired": 1, "closed": 2}
    assert backend.expire_tokens() == {"expired": 1, "closed": 1}
    assert [ear.ended for ear in ears] == [EXPIRED, EXPIRED, EXPIRED, None]


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


def test_all_sockets_are_closed_when_no_endpoint_is_named(backend: Backend, listen: Listen, ada: str) -> None:
    ears = [listen(PLANTS), listen(DIARY, token=ada)]
    assert backend.close_listeners() == {"closed": 2}
    assert [ear.ended for ear in ears] == [(1000, ""), (1000, "")]
    assert backend.close_listeners() == {"closed": 0}


# Reset


def busy(backend: Backend) -> None:
    """A morning's work: everything that reset takes back."""
    record = backend.create(knock(PLANTS, {"name": "Leek"}))
    backend.update(knock(PLANTS, {"name": "Big Leek"}, unique_id=record.unique_id))
    backend.update(knock(PLANTS, {"bed": 9}, unique_id=ROSEMARY, strategy="merge"))
    backend.delete(knock(PLANTS, unique_id=PUMPKIN))
    backend.register(knock(GARDENERS, {"username": "cleo", "password": "cherry"}))
    backend.delete(knock(GARDENERS, master_key=MASTER_KEY, unique_id=BEN))
    backend.change_endpoint("garden/tools", secure=True)
    backend.change_endpoint(CHORES, others_can_read=False)
    backend.delete_endpoint(DIARY)
    backend.advance(86400)
    backend.change_project(name="my garden", master_key="new", token_ttl=5, allowed_origins=["http://a.example"])


def state(backend: Backend) -> Any:
    endpoints = backend.store.endpoints()
    return backend.store.projects(), endpoints, [backend.store.records(endpoint.name) for endpoint in endpoints]


def test_reset_takes_everything_back_as_often_as_wanted(backend: Backend) -> None:
    before, status = state(backend), backend.status()
    for _ in range(2):
        busy(backend)
        assert state(backend) != before
        backend.reset()
        assert state(backend) == before
        assert backend.status() | {"undo": None} == status  # which takes the reset itself back
    assert backend.reset() == {"messages": 0, "closed": 0}


def test_reset_revokes_tokens_made_since_and_ends_their_sockets(backend: Backend, listen: Listen) -> None:
    early = backend.sign_in(GARDENERS, "ada")
    backend.store.checkpoint()
    late = backend.sign_in(GARDENERS, "ada")
    before, since = listen(DIARY, token=early), listen(DIARY, token=late)
    assert backend.reset()["closed"] == 1
    assert (before.ended, since.ended) == (None, EXPIRED)
    assert backend.read(knock(DIARY, token=early))
    with refused(401):
        backend.read(knock(DIARY, token=late))


def test_a_socket_that_outlives_a_reset_still_ends_with_its_token(backend: Backend, listen: Listen, ada: str) -> None:
    backend.store.checkpoint()
    ear = listen(DIARY, token=ada)
    backend.advance(1800)
    backend.reset()
    backend.advance(3599)
    assert ear.ended is None
    backend.advance(1)
    assert ear.ended == EXPIRED


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


def replayed(seen: Any, messages: list[Any]) -> dict[str, Any]:
    """The list a page has after the messages, by unique id."""
    table = {} if hasattr(seen, "unique_id") else {record.unique_id: record.public() for record in seen}
    for message in messages:
        unique_id = message["record"]["uniqueId"]
        assert (message["type"] == "POST") == (unique_id not in table)
        if message["type"] == "DELETE":
            del table[unique_id]
        else:
            table[unique_id] = message["record"]
    return table


def test_after_a_reset_listeners_hear_the_difference(backend: Backend, listen: Listen) -> None:
    record = backend.create(knock(PLANTS, "since"))
    backend.update(knock(PLANTS, "changed", unique_id=TOMATO))
    backend.delete(knock(PLANTS, unique_id=PUMPKIN))
    ear = listen(PLANTS)
    assert backend.reset() == {"messages": 3, "closed": 0}
    heard = [(message["type"], message["record"]["uniqueId"]) for message in ear.heard]
    assert heard == [("DELETE", record.unique_id), ("PUT", TOMATO), ("POST", PUMPKIN)]
    assert ear.heard[1]["record"]["data"]["name"] == "Tomato"


def nothing(_: Backend) -> None:
    pass


def nothing_lasting(backend: Backend) -> None:
    backend.delete(knock(PLANTS, unique_id=backend.create(knock(PLANTS, "short")).unique_id))


def one_by_one_away(backend: Backend) -> None:
    for unique_id in (TOMATO, ROSEMARY, PUMPKIN):
        backend.delete(knock(PLANTS, unique_id=unique_id))


def one_to_true(backend: Backend) -> None:
    backend.store.put_record(PLANTS, record_of(TOMATO, {"name": "Tomato", "bed": True, "waterDaily": 1}))


def the_endpoint_made_anew(backend: Backend) -> None:
    backend.delete_endpoint(PLANTS)
    backend.change_endpoint(PLANTS)
    backend.create(knock(PLANTS, "new"))


@pytest.mark.parametrize("work", [nothing, nothing_lasting, one_by_one_away, one_to_true, the_endpoint_made_anew])
def test_the_list_seen_before_a_reset_and_the_messages_make_the_list_after(
    backend: Backend, listen: Listen, work: Callable[[Backend], None]
) -> None:
    work(backend)
    backend.change_project(allowed_origins=[])
    seen, ear = backend.read(knock(PLANTS)), listen(PLANTS)
    backend.reset()
    assert ear.ended is None
    after = {record["uniqueId"]: record for record in backend.records(PLANTS)}
    assert json.dumps(replayed(seen, ear.heard), sort_keys=True) == json.dumps(after, sort_keys=True)


@pytest.mark.parametrize("endpoint", [DIARY, CHORES])
def test_after_a_reset_users_hear_the_difference_they_may_read(
    backend: Backend, listen: Listen, ada: str, ben: str, endpoint: str
) -> None:
    backend.store.checkpoint()
    for token in (ada, ben):
        backend.create(knock(endpoint, "since", token=token))
    backend.update(
        knock(endpoint, "changed", master_key=MASTER_KEY, unique_id=DIARY_OF_BEN if endpoint == DIARY else CHORE_OF_BEN)
    )
    seen = {token: backend.read(knock(endpoint, token=token)) for token in (ada, ben)}
    ears = {token: listen(endpoint, token=token) for token in (ada, ben)}
    backend.reset()
    for token in (ada, ben):
        after = backend.read(knock(endpoint, token=token))
        assert replayed(seen[token], ears[token].heard) == replayed(after, [])


def test_after_a_reset_users_hear_of_themselves_without_password(backend: Backend, listen: Listen, ada: str) -> None:
    backend.store.checkpoint()
    backend.update(knock(GARDENERS, {"beds": []}, token=ada, unique_id=ADA, strategy="merge"))
    ear = listen(GARDENERS, token=ada)
    backend.reset()
    assert ear.types == ["PUT"]
    assert ear.heard[0]["record"]["data"] == {"username": "ada", "email": "ada@garden.example", "beds": [1, 3]}


@pytest.mark.parametrize("others_can_read", [True, False])
def test_a_reset_of_who_may_read_leaves_no_page_with_a_wrong_list(
    backend: Backend, listen: Listen, ada: str, others_can_read: bool
) -> None:
    endpoint = DIARY if others_can_read else CHORES
    backend.store.checkpoint()
    backend.change_endpoint(endpoint, others_can_read=others_can_read)
    seen, ear = backend.read(knock(endpoint, token=ada)), listen(endpoint, token=ada)
    backend.reset()
    after = backend.read(knock(endpoint, token=ada))
    assert ear.ended == CHANGED or replayed(seen, ear.heard) == replayed(after, [])


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


def test_status_shows_no_secret(backend: Backend, ada: str, ben: str) -> None:
    backend.sign_in(GARDENERS, "cleo", "cherry")
    text = json.dumps(backend.status())
    for secret in (MASTER_KEY, ada, ben, "apricot", "bramble", "cherry", "password"):
        assert secret not in text


def test_nobody_signs_in_where_no_users_are(backend: Backend) -> None:
    for endpoint in (PLANTS, DIARY):
        with pytest.raises(OptionError, match="no authentication endpoint"):
            backend.sign_in(endpoint, "ada")


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


def test_a_write_on_a_missing_endpoint_makes_none(backend: Backend) -> None:
    with refused(400):
        backend.create(knock("garden/tools", 1, master_key=MASTER_KEY))
    with refused(403):
        backend.create(knock("garden/tools", 1, key=None))
    assert len(backend.store.endpoints()) == 4


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
