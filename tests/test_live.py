"""Live: who hears of what, in which order, and how it ends (contract 7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rested_emulator import Refusal
from tests import texts
from tests.conftest import (
    ADA,
    CHORES,
    DIARY,
    DIARY_OF_ADA,
    GARDENERS,
    MASTER_KEY,
    PLANTS,
    TOMATO,
    Backend,
    Ear,
    knock,
    refused,
)

Listen = Callable[..., Ear]


def test_a_message_is_byte_for_byte_as_the_service_sends_it(backend: Backend, listen: Listen) -> None:
    ear = listen(PLANTS)
    record = backend.create(knock(PLANTS, {"name": "Möhre", "bed": 2}))
    times = '"updatedAt":"2027-01-15T08:00:00.000Z","createdAt":"2027-01-15T08:00:00.000Z"'
    data = '{"name":"Möhre","bed":2}'
    expected = f'{{"type":"POST","record":{{"data":{data},"uniqueId":"{record.unique_id}",{times}}}}}'
    assert ear.raw == [expected.encode()]


def test_every_change_is_one_message_of_its_method_in_order(backend: Backend, listen: Listen) -> None:
    ear = listen(PLANTS)
    record = backend.create(knock(PLANTS, {"name": "Leek"}))
    backend.update(knock(PLANTS, {"bed": 4}, unique_id=record.unique_id, strategy="merge"))
    backend.delete(knock(PLANTS, unique_id=record.unique_id))
    assert ear.types == ["POST", "PUT", "DELETE"]
    assert [message["record"]["data"] for message in ear.heard] == [
        {"name": "Leek"},
        {"name": "Leek", "bed": 4},
        {"name": "Leek", "bed": 4},
    ]


def test_a_refused_change_is_heard_by_nobody(backend: Backend, listen: Listen) -> None:
    ear = listen(PLANTS)
    for verb, request in (
        (backend.create, knock(PLANTS)),
        (backend.update, knock(PLANTS, {}, unique_id="nobody")),
        (backend.update, knock(PLANTS, [], unique_id=TOMATO, strategy="merge")),
        (backend.delete, knock(PLANTS)),
    ):
        with pytest.raises(Refusal):
            verb(request)
    assert ear.heard == []


def test_listeners_hear_only_of_their_own_endpoint(backend: Backend, listen: Listen, ada: str) -> None:
    plants, diary = listen(PLANTS), listen(DIARY, token=ada)
    backend.create(knock(DIARY, "private", token=ada))
    assert plants.heard == []
    assert diary.types == ["POST"]


@pytest.mark.parametrize(("endpoint", "ben_hears"), [(DIARY, 0), (CHORES, 1)])
def test_others_hear_of_an_owned_record_only_where_they_can_read_it(
    backend: Backend, listen: Listen, ada: str, ben: str, endpoint: str, ben_hears: int
) -> None:
    of_ada, of_ben = listen(endpoint, token=ada), listen(endpoint, token=ben)
    backend.create(knock(endpoint, "mine", token=ada))
    assert (len(of_ada.heard), len(of_ben.heard)) == (1, ben_hears)


def test_a_record_without_owner_is_heard_by_every_user(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    ears = [listen(DIARY, token=ada), listen(DIARY, token=ben)]
    backend.create(knock(DIARY, "for all", master_key=MASTER_KEY))
    assert [ear.types for ear in ears] == [["POST"], ["POST"]]


def test_on_an_authentication_endpoint_users_hear_of_themselves_without_password(
    backend: Backend, listen: Listen, ada: str, ben: str
) -> None:
    of_ada, of_ben = listen(GARDENERS, token=ada), listen(GARDENERS, token=ben)
    backend.update(knock(GARDENERS, {"beds": [9]}, token=ada, unique_id=ADA, strategy="merge"))
    assert of_ada.heard[0]["record"]["data"] == {"username": "ada", "email": "ada@garden.example", "beds": [9]}
    assert of_ben.heard == []


def test_what_somebody_else_does_to_my_record_i_hear_of(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    backend.change_endpoint(DIARY, others_can_update=True)
    ear = listen(DIARY, token=ada)
    backend.update(knock(DIARY, "by ben", token=ben, unique_id=DIARY_OF_ADA))
    assert ear.types == ["PUT"]


def test_an_expired_token_closes_its_sockets_with_1000(backend: Backend, listen: Listen, ada: str) -> None:
    ear = listen(DIARY, token=ada)
    backend.advance(3599)
    assert ear.ended is None
    backend.advance(1)
    assert ear.ended == (1000, texts.TOKEN_EXPIRED)


def test_an_expiry_spares_the_sockets_of_others(backend: Backend, listen: Listen, ada: str, ben: str) -> None:
    of_ada, of_ben, open_to_all = listen(DIARY, token=ada), listen(DIARY, token=ben), listen(PLANTS)
    assert backend.expire_tokens(username="ada") == {"expired": 1, "closed": 1}
    assert of_ada.ended == (1000, texts.TOKEN_EXPIRED)
    assert (of_ben.ended, open_to_all.ended) == (None, None)


@pytest.mark.parametrize(
    "verb",
    [
        lambda backend: backend.change_endpoint(PLANTS, secure=True),
        lambda backend: backend.change_endpoint(PLANTS),
        lambda backend: backend.delete_endpoint(PLANTS),
        lambda backend: backend.change_project(allowed_origins=["http://localhost:3000"]),
        lambda backend: backend.change_project(key="another"),
        lambda backend: backend.change_project(disallow_no_origin=True),
    ],
)
def test_changed_options_close_the_sockets_with_1000(
    backend: Backend, listen: Listen, verb: Callable[[Backend], dict[str, int]]
) -> None:
    ear = listen(PLANTS)
    assert verb(backend)["closed"] == 1
    assert ear.ended == (1000, texts.OPTIONS_CHANGED)
    assert len(backend.hub) == 0


def test_another_lifetime_of_tokens_closes_no_socket(backend: Backend, listen: Listen) -> None:
    ear = listen(PLANTS)
    assert backend.change_project(token_ttl=5) == {"closed": 0}
    assert ear.ended is None


def test_logout_closes_the_sockets_of_that_token_alone(backend: Backend, listen: Listen, ada: str) -> None:
    again = backend.sign_in(GARDENERS, "ada")
    first, second = listen(DIARY, token=ada), listen(DIARY, token=again)
    backend.logout(knock(GARDENERS, token=ada))
    assert first.ended == (1000, texts.TOKEN_EXPIRED)
    assert second.ended is None


def test_a_deleted_user_is_heard_of_then_cut_off(backend: Backend, listen: Listen, ada: str) -> None:
    ear = listen(GARDENERS, token=ada)
    backend.delete(knock(GARDENERS, token=ada, unique_id=ADA))
    assert ear.types == ["DELETE"]
    assert ear.ended == (1000, texts.TOKEN_EXPIRED)


def test_the_owner_may_close_with_a_code_and_reason_of_choice(backend: Backend, listen: Listen) -> None:
    plants, more = listen(PLANTS), listen(PLANTS)
    assert backend.close_listeners(code=4321, reason="a drill", endpoint=PLANTS) == {"closed": 2}
    assert (plants.ended, more.ended) == ((4321, "a drill"), (4321, "a drill"))


def test_a_refused_listener_has_no_seat(backend: Backend, listen: Listen) -> None:
    with refused(403):
        listen(PLANTS, key=None)
    assert len(backend.hub) == 0
