"""Accounts: registering, logging in and out, the user's own record, and how tokens end (contract 6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rested_emulator import Endpoint, OptionError, RestedEmulator
from tests import texts
from tests.conftest import (
    ADA,
    BEN,
    CHORES,
    DIARY,
    DIARY_OF_ADA,
    GARDENERS,
    KEY,
    MASTER_KEY,
    PLANTS,
    Backend,
    Ear,
    Sent,
    StoppedTime,
    knock,
    record_of,
    refused,
)
from tests.wire import call

Listen = Callable[..., Ear]
ADA_SHOWN = {"username": "ada", "email": "ada@garden.example", "beds": [1, 3]}
CREDENTIALS = {"username": "ada", "password": "apricot"}


def users(backend: Backend) -> list[Any]:
    """All users as they are kept, passwords included."""
    return [record.data for record in backend.store.records(GARDENERS)]


# Users from a file


@pytest.fixture
def seeded(backend: Backend) -> Any:
    """A user without a password, as a seed may leave it out."""
    record = record_of("cleo's", {"username": "cleo", "email": "cleo@garden.example"})
    backend.store.put_record(GARDENERS, record)
    return record


LOGIN = {"username": "cleo", "password": "clover"}


def test_a_user_without_a_password_cannot_log_in_and_is_told_how_to(backend: Backend, seeded: Any) -> None:
    with refused(401, texts.WRONG_CREDENTIALS) as refusal:
        backend.login(knock(GARDENERS, LOGIN))
    assert "'cleo' has no password yet; set one with PUT" in refusal.value.hint
    token = backend.sign_in(GARDENERS, "cleo")
    assert backend.read(knock(GARDENERS, token=token)) == seeded


def test_a_user_without_a_password_gets_one_by_the_master_key(backend: Backend, seeded: Any) -> None:
    password = {"password": "clover"}
    backend.update(knock(GARDENERS, password, unique_id="cleo's", master_key=MASTER_KEY, strategy="merge"))
    assert backend.login(knock(GARDENERS, LOGIN))[1].user == seeded.unique_id


def test_a_user_without_a_password_gets_one_by_a_reset_mail(backend: Backend, seeded: Any) -> None:
    backend.change_project(reset_templates={"forgotten": ""})
    backend.send_reset(knock(GARDENERS, {"email": "cleo@garden.example", "templateName": "forgotten"}))
    token = backend.store.mails()[-1].token
    passwords = {"password": "clover", "passwordConfirmation": "clover"}
    backend.reset_password(knock(GARDENERS, {"verificationToken": token} | passwords))
    assert backend.login(knock(GARDENERS, LOGIN))[1].user == seeded.unique_id


@pytest.mark.warns("until PUT with the master key or a reset mail sets it: 5, which are 'a' of my/users, 'b' of")
@pytest.mark.parametrize("option", ["data", "seed"])
def test_the_start_says_who_cannot_log_in_for_lack_of_a_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    users: list[Any] = [{"username": name} for name in "abc"] + [{"email": "d", "profile": {"password": "x"}}]
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps({"my/users": [*users, {"username": "e"}, {"username": "f", "password": "fig"}]}))
    given: dict[str, Any] = {option: seed}
    with RestedEmulator(**given, memory=True, auth=["my/users"]) as emulator:
        assert call(emulator.url("my/users"), "POST", {"username": "f", "password": "fig"}, login="true").status == 200
        assert call(emulator.url("my/users"), "POST", {"username": "a", "password": "fig"}, login="true").status == 401
    assert "of my/users and 2 more" in caplog.text
    assert caplog.text.count("without a password") == 1


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (["text"], "'garden/diary', '.*': a user is an object, not a string"),
        ([{"username": "ada", "password": 5}], "member password must be a text"),
        ([{"username": "ada"}, {"username": "ada"}], "username 'ada' is that of '.*' too"),
        ([{"originalName": "a.png"}], "member username or email must be a text"),
    ],
)
def test_an_endpoint_with_records_that_are_no_users_cannot_become_one_of_users(
    backend: Backend, listen: Listen, records: list[Any], said: str
) -> None:
    backend.delete_endpoint(DIARY)
    backend.change_endpoint(DIARY)
    made = [backend.create(knock(DIARY, data)) for data in records]
    ear = listen(DIARY)
    with pytest.raises(OptionError, match=f"'garden/diary' cannot be an authentication .*{said}.*; change or delete"):
        backend.change_endpoint(DIARY, authentication=True, description="new")
    assert (backend.store.endpoint(DIARY), ear.ended) == (Endpoint(DIARY, KEY), None)
    for record in made:
        backend.delete(knock(DIARY, unique_id=record.unique_id))
    backend.change_endpoint(DIARY, authentication=True)


def test_whoever_turns_an_endpoint_of_users_off_and_on_is_refused_for_what_came_meanwhile(backend: Backend) -> None:
    backend.change_endpoint(GARDENERS, authentication=False)
    backend.create(knock(GARDENERS, {"username": "ada", "password": "another"}))
    with pytest.raises(OptionError, match=f"username 'ada' is that of '{ADA}' too"):
        backend.change_endpoint(GARDENERS, authentication=True)


# Registering


@pytest.mark.parametrize(
    "data",
    [
        {"username": "cleo", "password": "cherry"},
        {"email": "cleo@garden.example", "password": "cherry"},
        {"username": "cleo", "email": "cleo@garden.example", "password": "cherry"},
        {"beds": [4], "password": "cherry", "nested": {"password": "kept"}, "username": "cleo"},
        {"username": "ключ 🥕", "password": "пароль"},
        {"username": "apricot", "password": "ada"},
    ],
    ids=str,
)
def test_registration_answers_the_posted_body(backend: Backend, data: dict[str, Any]) -> None:
    user = backend.register(knock(GARDENERS, data))
    assert user.data == data
    assert list(data) == list(user.public()["data"])
    assert users(backend)[-1] == data


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"username": "cleo"},
        {"password": "cherry"},
        {"username": "cleo", "password": ""},
        {"username": "", "password": "cherry"},
        {"email": "", "password": "cherry"},
        {"username": "cleo", "email": "", "password": "cherry"},
        {"username": None, "password": "cherry"},
        {"username": "cleo", "email": None, "password": "cherry"},
        {"username": 7, "password": "cherry"},
        {"username": ["cleo"], "password": "cherry"},
        {"username": "cleo", "password": 7},
        {"username": "cleo", "password": None},
        {"username": "cleo", "password": ["cherry"]},
        {"Username": "cleo", "password": "cherry"},
        [],
        [{"username": "cleo", "password": "cherry"}],
        "cleo",
        None,
        7,
    ],
    ids=str,
)
def test_what_makes_no_user_is_refused(backend: Backend, data: Any) -> None:
    with refused(400, texts.MEMBER_MISSING):
        backend.register(knock(GARDENERS, data))
    assert len(users(backend)) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"username": "ada", "password": "cherry"},
        {"email": "ada@garden.example", "password": "cherry"},
        {"username": "cleo", "email": "ada@garden.example", "password": "cherry"},
        {"username": "ben", "email": "ben@garden.example", "password": "cherry"},
        CREDENTIALS,
    ],
    ids=str,
)
def test_username_and_email_are_unique(backend: Backend, data: dict[str, Any]) -> None:
    with refused(400, texts.USER_EXISTS):
        backend.register(knock(GARDENERS, data))
    assert len(users(backend)) == 2


def test_the_same_name_may_live_in_two_endpoints(backend: Backend) -> None:
    backend.change_endpoint("garden/visitors", authentication=True)
    assert backend.register(knock("garden/visitors", CREDENTIALS)).data == CREDENTIALS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, texts.WRONG_CONTENT_TYPE),
        (("application/json", None, b""), texts.NO_BODY),
        (("application/json", None, b"{"), texts.WRONG_BODY),
        (("text/plain", None, b'{"username":"cleo","password":"cherry"}'), texts.MEMBER_MISSING),
        (("application/x-www-form-urlencoded", None, b"username=cleo"), texts.WRONG_CONTENT_TYPE),
    ],
    ids=["no body", "empty", "no JSON", "text", "form"],
)
@pytest.mark.parametrize("verb", [Backend.register, Backend.login])
def test_credentials_come_as_json(backend: Backend, verb: Callable[..., Any], content: Sent, message: str) -> None:
    with refused(400, message):
        verb(backend, knock(GARDENERS, content=content))


def test_a_registered_user_can_log_in(backend: Backend) -> None:
    user = backend.register(knock(GARDENERS, {"username": "cleo", "password": "cherry"}))
    record, session = backend.login(knock(GARDENERS, {"username": "cleo", "password": "cherry"}))
    assert (record.unique_id, session.user) == (user.unique_id, user.unique_id)


# Logging in


@pytest.mark.parametrize(
    "data",
    [
        CREDENTIALS,
        {"email": "ada@garden.example", "password": "apricot"},
        {"username": "ada", "password": "apricot", "remember": True},
    ],
    ids=str,
)
def test_login_answers_the_user_without_password_and_a_token(backend: Backend, data: dict[str, Any]) -> None:
    user, session = backend.login(knock(GARDENERS, data))
    assert (user.unique_id, user.data) == (ADA, ADA_SHOWN)
    assert backend.read(knock(DIARY, token=session.token, unique_id=DIARY_OF_ADA))


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        ({}, 400, texts.MEMBER_MISSING),
        ([], 400, texts.MEMBER_MISSING),
        ("ada", 400, texts.MEMBER_MISSING),
        (None, 400, texts.MEMBER_MISSING),
        ({"username": "ada"}, 400, texts.MEMBER_MISSING),
        ({"password": "apricot"}, 400, texts.MEMBER_MISSING),
        ({"username": "", "password": "apricot"}, 400, texts.MEMBER_MISSING),
        ({"username": "ada", "password": ""}, 400, texts.MEMBER_MISSING),
        ({"username": None, "password": "apricot"}, 400, texts.MEMBER_MISSING),
        ({"username": "ada", "password": None}, 400, texts.MEMBER_MISSING),
        ({"username": "ada", "password": ["apricot"]}, 400, texts.MEMBER_MISSING),
        (CREDENTIALS | {"email": "ada@garden.example"}, 400, texts.MEMBER_MISSING),
        ({"username": "ada", "password": "Apricot"}, 401, texts.WRONG_CREDENTIALS),
        ({"username": "ada", "password": "bramble"}, 401, texts.WRONG_CREDENTIALS),
        ({"username": "ada", "password": "é" * 100_000}, 401, texts.WRONG_CREDENTIALS),
        ({"username": "cleo", "password": "apricot"}, 401, texts.NO_USER),
        ({"username": "ADA", "password": "apricot"}, 401, texts.NO_USER),
        ({"username": "ada@garden.example", "password": "apricot"}, 401, texts.NO_USER),
        ({"email": "ada", "password": "apricot"}, 401, texts.NO_USER),
        ({"username": "ключ" * 25_000, "password": "apricot"}, 401, texts.NO_USER),
    ],
    ids=lambda value: str(value)[:80],
)
def test_a_login_that_fails_makes_no_token(backend: Backend, data: Any, status: int, message: str) -> None:
    with refused(status, message):
        backend.login(knock(GARDENERS, data))
    assert backend.store.sessions() == []


def test_every_login_makes_a_token_of_its_own(backend: Backend) -> None:
    tokens = {backend.login(knock(GARDENERS, CREDENTIALS))[1].token for _ in range(10)}
    assert len(tokens) == 10
    for token in tokens:
        backend.read(knock(DIARY, token=token))


# Logging out


def test_logout_revokes_its_token_alone(backend: Backend, ada: str) -> None:
    again = backend.sign_in(GARDENERS, "ada")
    backend.logout(knock(GARDENERS, token=ada))
    with refused(401, texts.NO_TOKEN):
        backend.read(knock(DIARY, token=ada))
    assert backend.read(knock(DIARY, token=again))


# The user's own record


def test_a_user_gets_the_own_record_as_one_object(backend: Backend, ada: str) -> None:
    user = backend.read(knock(GARDENERS, token=ada))
    assert (user.unique_id, user.data) == (ADA, ADA_SHOWN)
    assert backend.read(knock(GARDENERS, token=ada, unique_id=ADA)) == user
    assert backend.read(knock(GARDENERS, token=ada, unique_ids=(BEN, ADA))) == (user,)


@pytest.mark.parametrize(
    ("data", "strategy"),
    [
        ({"username": "ada", "password": "apricot"}, "force"),
        ({"email": "new@garden.example", "password": "almond"}, "force"),
        ({"username": "ada", "email": "ada@garden.example", "password": "apricot"}, "replace"),
        ({"beds": []}, "merge"),
        ({"password": "almond"}, "merge"),
        ({"username": "adele"}, "merge"),
        ({"password": "nested", "username": "ada", "beds": {"password": "x"}}, "force"),
    ],
    ids=str,
)
def test_users_change_their_own_record(backend: Backend, ada: str, data: dict[str, Any], strategy: str) -> None:
    answer = backend.update(knock(GARDENERS, data, token=ada, unique_id=ADA, strategy=strategy)).data
    kept = data if strategy != "merge" else CREDENTIALS | ADA_SHOWN | data
    assert users(backend)[0] == kept
    assert answer == {name: value for name, value in kept.items() if name != "password"}


@pytest.mark.parametrize(
    ("data", "strategy", "message"),
    [
        ({"username": "ada"}, "force", texts.MEMBER_MISSING),
        ({"password": "apricot"}, "force", texts.MEMBER_MISSING),
        ({"beds": [9]}, "force", texts.MEMBER_MISSING),
        ({"username": "ada", "beds": [9]}, "replace", texts.MEMBER_MISSING),
        ({"password": None}, "merge", texts.MEMBER_MISSING),
        ({"password": ""}, "merge", texts.MEMBER_MISSING),
        ({"username": ""}, "merge", texts.MEMBER_MISSING),
        ({"email": None}, "merge", texts.MEMBER_MISSING),
        ([], "force", texts.MEMBER_MISSING),
        ("ada", "force", texts.MEMBER_MISSING),
        ({"username": "ben"}, "merge", texts.USER_EXISTS),
        ({"username": "ben", "password": "apricot"}, "force", texts.USER_EXISTS),
        ([], "merge", texts.WRONG_PARAMETER),
        ("ada", "replace", texts.WRONG_PARAMETER),
    ],
    ids=str,
)
def test_a_change_that_leaves_no_user_is_refused(
    backend: Backend, ada: str, data: Any, strategy: str, message: str
) -> None:
    before = backend.store.records(GARDENERS)
    with refused(400, message):
        backend.update(knock(GARDENERS, data, token=ada, unique_id=ADA, strategy=strategy))
    assert backend.store.records(GARDENERS) == before


def test_nobody_takes_the_email_of_another_user(backend: Backend, ben: str) -> None:
    with refused(400, texts.USER_EXISTS):
        backend.update(knock(GARDENERS, {"email": "ada@garden.example"}, token=ben, unique_id=BEN, strategy="merge"))


def test_a_new_password_is_the_one_that_counts(backend: Backend, ada: str) -> None:
    backend.update(knock(GARDENERS, {"password": "almond"}, token=ada, unique_id=ADA, strategy="merge"))
    with refused(401):
        backend.login(knock(GARDENERS, CREDENTIALS))
    assert backend.login(knock(GARDENERS, CREDENTIALS | {"password": "almond"}))


def test_a_deleted_user_loses_every_token_and_frees_the_name(backend: Backend, ada: str, ben: str) -> None:
    again = backend.sign_in(GARDENERS, "ada")
    assert backend.delete(knock(GARDENERS, token=ada, unique_id=ADA)).data == ADA_SHOWN
    for token in (ada, again):
        with refused(401):
            backend.read(knock(CHORES, token=token))
    assert backend.read(knock(CHORES, token=ben))
    with refused(401):
        backend.login(knock(GARDENERS, CREDENTIALS))
    assert backend.register(knock(GARDENERS, CREDENTIALS)).unique_id != ADA


def test_a_user_deleted_with_the_master_key_loses_every_token(backend: Backend, listen: Listen, ada: str) -> None:
    ear = listen(DIARY, token=ada)
    backend.delete(knock(GARDENERS, master_key=MASTER_KEY, unique_id=ADA))
    assert ear.ended == (1000, texts.TOKEN_EXPIRED)
    with refused(401):
        backend.read(knock(DIARY, token=ada))


def test_the_successor_of_a_deleted_user_inherits_no_records(backend: Backend, ada: str) -> None:
    backend.delete(knock(GARDENERS, token=ada, unique_id=ADA))
    assert backend.read(knock(DIARY, token=backend.sign_in(GARDENERS, "ada"))) == ()


def test_no_answer_and_no_message_carries_a_password_but_the_one_to_a_registration(
    backend: Backend, listen: Listen, ada: str
) -> None:
    ear = listen(GARDENERS, token=ada)
    answers = [
        backend.read(knock(GARDENERS, token=ada)),
        backend.read(knock(GARDENERS, token=ada, unique_ids=(ADA, BEN))),
        backend.read(knock(GARDENERS, master_key=MASTER_KEY)),
        backend.read(knock(GARDENERS, master_key=MASTER_KEY, unique_id=BEN)),
        backend.login(knock(GARDENERS, CREDENTIALS))[0],
        backend.update(knock(GARDENERS, CREDENTIALS, token=ada, unique_id=ADA)),
        backend.update(knock(GARDENERS, {"password": "berry"}, master_key=MASTER_KEY, unique_id=BEN, strategy="merge")),
        backend.delete(knock(GARDENERS, token=ada, unique_id=ADA)),
        backend.records(GARDENERS),
        backend.status(),
    ]
    assert ear.types == ["PUT", "DELETE"]
    for secret in ("apricot", "bramble", "berry", "'password'"):
        assert secret not in str(answers)
        assert secret not in str(ear.heard)


# How tokens end


@pytest.mark.parametrize("seconds", [1, 90, 0.5, 86400])
def test_a_token_lives_as_long_as_its_project_says(backend: Backend, seconds: float) -> None:
    backend.change_project(token_ttl=seconds)
    token = backend.sign_in(GARDENERS, "ada")
    backend.advance(seconds - 0.25)
    assert backend.read(knock(CHORES, token=token))
    backend.advance(0.25)
    with refused(401, texts.TOKEN_EXPIRED):
        backend.read(knock(CHORES, token=token))


def test_a_token_lives_for_an_hour_unless_told_otherwise(backend: Backend) -> None:
    _, session = backend.login(knock(GARDENERS, CREDENTIALS))
    assert session.expires_at == backend.clock.now() + 3600


def test_another_lifetime_counts_for_later_logins(backend: Backend, ada: str) -> None:
    backend.change_project(token_ttl=5)
    later = backend.sign_in(GARDENERS, "ada")
    backend.advance(5)
    assert backend.read(knock(CHORES, token=ada))
    with refused(401, texts.TOKEN_EXPIRED):
        backend.read(knock(CHORES, token=later))


@pytest.mark.parametrize(
    ("username", "expired"), [("ada", 2), ("ada@garden.example", 2), ("ben", 1), ("cleo", 0), ("", 0), (None, 3)]
)
def test_tokens_expire_by_username_or_email(
    backend: Backend, ada: str, ben: str, username: str | None, expired: int
) -> None:
    again = backend.sign_in(GARDENERS, "ada")
    assert backend.expire_tokens(username=username) == {"expired": expired, "closed": 0}
    assert backend.expire_tokens(username=username) == {"expired": 0, "closed": 0}
    gone = {"ben": [ben], None: [ada, again, ben]}.get(username, [ada, again] if expired else [])
    for token in gone:
        with refused(401, texts.TOKEN_EXPIRED):
            backend.read(knock(CHORES, token=token))
    for token in {ada, again, ben}.difference(gone):
        assert backend.read(knock(CHORES, token=token))


@pytest.mark.parametrize("expire", [Backend.expire_tokens, lambda backend: backend.advance(3600)], ids=["told", "due"])
def test_expired_stays_expired_when_the_clock_is_put_back(
    backend: Backend, ada: str, time: StoppedTime, expire: Callable[[Backend], object]
) -> None:
    expire(backend)
    time.now -= 3600
    with refused(401, texts.TOKEN_EXPIRED):
        backend.read(knock(CHORES, token=ada))


def test_time_ends_early_enough_for_a_login_to_succeed(backend: Backend) -> None:
    end = 253_402_300_799 - backend.clock.now()
    with pytest.raises(OptionError, match="9999"):
        backend.advance(end)
    backend.advance(end - 100 * 365 * 86400)
    assert backend.login(knock(GARDENERS, CREDENTIALS))


# Signing in as the owner


def test_the_owner_signs_in_whom_there_is_without_a_password(backend: Backend) -> None:
    for name, password in (("ada", None), ("ada@garden.example", None), ("ada", "apricot")):
        token = backend.sign_in(GARDENERS, name, password)
        user = backend.read(knock(GARDENERS, token=token))
        assert user.unique_id == ADA
    with pytest.raises(OptionError, match="password: user 'ada' has another one"):
        backend.sign_in(GARDENERS, "ada", "not the password")
    assert len(users(backend)) == 2
    assert len(backend.status()["users"]) == 3


def test_the_owner_registers_whom_there_is_not(backend: Backend) -> None:
    backend.sign_in(GARDENERS, "cleo", "cherry")
    assert users(backend)[-1] == {"username": "cleo", "password": "cherry"}
    assert backend.login(knock(GARDENERS, {"username": "cleo", "password": "cherry"}))


# Password reset, of which test_reset_mails.py has the rest


WANTED = {"email": "ada@garden.example", "templateName": "reset"}


def test_of_many_mails_the_outbox_keeps_the_latest_thousand(backend: Backend) -> None:
    backend.change_project(reset_templates={"reset": "<p>"})
    for _ in range(3):
        backend.send_reset(knock(GARDENERS, WANTED))
    before = [mail.token for mail in backend.store.mails()]
    for _ in range(999):
        backend.send_reset(knock(GARDENERS, WANTED))
    kept = [mail.token for mail in backend.store.mails()]
    assert (len(kept), kept[0]) == (1000, before[2])


def test_a_mail_counts_for_nothing_when_its_user_is_gone(backend: Backend) -> None:
    backend.change_project(reset_templates={"reset": "<p>"})
    backend.send_reset(knock(GARDENERS, WANTED))
    backend.delete(knock(GARDENERS, unique_id=ADA, master_key=MASTER_KEY))
    passwords = {"password": "aprikose", "passwordConfirmation": "aprikose"}
    with refused(400, texts.WRONG_VERIFICATION):
        backend.reset_password(knock(GARDENERS, passwords | {"verificationToken": backend.store.mails()[0].token}))


@pytest.mark.parametrize(
    ("parameters", "operation"),
    [
        ({}, "register"),
        ({"flags": ("login",)}, "login"),
        ({"flags": ("logout",)}, "logout"),
        ({"flags": ("passwordreset",)}, "send_reset"),
        ({"flags": ("login", "passwordreset")}, "login"),
        ({"master_key": MASTER_KEY}, "register"),
    ],
    ids=str,
)
def test_a_post_to_an_authentication_endpoint_means_what_its_parameters_say(
    backend: Backend, parameters: dict[str, Any], operation: str
) -> None:
    assert backend.operation(knock(GARDENERS, **parameters), "POST") == operation
    assert backend.operation(knock(PLANTS, **parameters), "POST") == "create"
    assert backend.operation(knock(CHORES, **parameters), "POST") == "create"


def test_sessions_that_expired_over_a_day_ago_are_forgotten_at_the_next_start(backend: Backend, ada: str) -> None:
    backend.advance(3600 + 86400)
    assert Backend(backend.store, backend.clock, backend.gate).store.session(ada) is not None
    backend.advance(1)
    assert Backend(backend.store, backend.clock, backend.gate).store.session(ada) is None
