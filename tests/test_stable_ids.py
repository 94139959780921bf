"""Repeatable runs: ids and tokens of the world's key and a counter, and answers that are the same byte for byte."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rested_emulator import Clock, Gate, JsonFile, OptionError, Options, Record, RestedEmulator, Server, Store
from tests.conftest import DIARY, GARDEN, GARDENERS, KEY, MASTER_KEY, PLANTS, Backend, knock
from tests.test_uploads import FILE, form
from tests.wire import HANDSHAKE, answer_on, at, head, wire

ID = re.compile(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\Z")


@pytest.fixture
def world(garden: dict[str, Any], clock: Clock) -> Iterator[Any]:
    """The garden with stable ids."""
    made = Backend(Store(JsonFile(None, garden)), clock, Gate(), stable_ids=True).world
    made.states.begin()
    yield made
    made.close()


def make(world: Any, key: str = KEY) -> str:
    """Create a record; its id."""
    unique_id: str = world.service.create(knock(PLANTS, {"name": "Leek"}, key=key)).unique_id
    return unique_id


REQUESTS = (
    ("POST", at(PLANTS), b'{"name": "Leek"}', "application/json"),
    ("POST", at(PLANTS), form(FILE, FILE), "multipart/form-data; boundary=x"),
    ("GET", at(PLANTS), b"", ""),
    ("POST", at(GARDENERS), b'{"email": "e@f.g", "password": "x"}', "application/json"),
    ("POST", at(GARDENERS, "login=true"), b'{"email": "e@f.g", "password": "x"}', "application/json"),
    ("POST", at(GARDENERS, "login=true&noATCookie=true"), b'{"email": "e@f.g", "password": "x"}', "application/json"),
    ("POST", at(GARDENERS, "passwordreset=true"), b'{"email": "e@f.g", "templateName": "t"}', "application/json"),
    ("GET", at(DIARY), b"", ""),
    ("POST", "/__emulator__/sign-in", b'{"endpoint": "garden/gardeners", "username": "new"}', "application/json"),
    ("GET", "/__emulator__/mails", b"", ""),
    ("GET", "/__emulator__/listeners", b"", ""),
)


def transcript(**options: Any) -> list[bytes]:
    """Every byte that a client receives for requests one after the other, on a socket of a listener too."""
    received = []
    options |= {"data": GARDEN, "set_time": "2030-01-01T00:00:00Z", "freeze": True}
    with RestedEmulator(**options) as emulator, wire(emulator) as listener:
        emulator.change_project(reset_templates={"t": "{{verificationtoken}}"})
        listener.sendall(head("GET", at(PLANTS), *HANDSHAKE))
        answer_on(listener)
        for method, target, body, kind in REQUESTS:
            with wire(emulator) as connection:
                headers = [f"Content-Length: {len(body)}", f"Content-Type: {kind}", "Connection: close"]
                connection.sendall(head(method, target, *headers) + body)
                received.append(all_of(connection))
        emulator.settle()
        emulator.close_listeners()
        listener.sendall(b"\x88\x82\0\0\0\0\x03\xe8")  # a client's close frame, so that the server hangs up
        received.append(all_of(listener))
    return received


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(2**16), b""))


def test_two_runs_answer_byte_for_byte_the_same() -> None:
    first, second = transcript(stable_ids=True), transcript(stable_ids=True)
    assert first == second
    assert [answer[9:12] for answer in first[:-1]] == [b"200"] * 7 + [b"401"] + [b"200"] * 3
    assert b'"type":"POST"' in first[-1]


def test_without_the_option_two_runs_have_other_ids() -> None:
    first, second = transcript(), transcript()
    same = [number for number, answer in enumerate(first) if answer == second[number]]
    assert [REQUESTS[number][0] + REQUESTS[number][1] for number in same if number < len(REQUESTS)] == [
        "POST" + at(GARDENERS, "passwordreset=true"),
        "GET" + at(DIARY),
        "GET/__emulator__/listeners",
    ]


def test_stable_ids_are_uuids_and_differ(world: Any) -> None:
    ids = {make(world) for _ in range(50)}
    assert len(ids) == 50
    assert all(map(ID.match, ids))


def another(world: Any, key: str) -> Any:
    return world.fork(key, lambda _: True)


def test_every_world_has_ids_of_its_own_and_the_same_ones_again(world: Any) -> None:
    ids = {key: [make(fork, key) for _ in range(2)] for key in ("one", "two") for fork in [another(world, key)]}
    assert not set(ids["one"]) & set(ids["two"])
    again = another(world, "one")
    assert [make(again, "one") for _ in range(2)] == ids["one"]
    assert make(world) not in ids["one"] + ids["two"]


def test_reset_begins_the_counter_anew(world: Any) -> None:
    before = [make(world), make(world), world.owner.sign_in(GARDENERS, "ada")]
    world.states.reset()
    assert [make(world), make(world), world.owner.sign_in(GARDENERS, "ada")] == before


def test_restore_goes_on_counting(world: Any) -> None:
    world.states.checkpoint("here")
    before = make(world)
    world.states.restore("here")
    assert make(world) != before


def test_an_id_that_the_start_has_is_never_made_again(world: Any) -> None:
    before = [make(world), world.owner.sign_in(GARDENERS, "ada")]
    world.states.begin()  # as a data file of an earlier run
    world.states.reset()
    after = [make(world), world.owner.sign_in(GARDENERS, "ada")]
    assert not set(before) & set(after)
    assert len(world.reports.records(PLANTS)) == 5


def test_an_id_that_a_checkpoint_has_is_not_made_again(world: Any) -> None:
    token, unique_id = world.owner.sign_in(GARDENERS, "ada"), make(world)
    world.states.checkpoint("ada is in")
    world.states.reset()
    assert {world.owner.sign_in(GARDENERS, "ben"), make(world)}.isdisjoint({token, unique_id})


def test_an_upload_under_way_keeps_its_id_through_a_reset(world: Any) -> None:
    sent, body = knock(PLANTS, content=("multipart/form-data; boundary=x", None, b"")), form(FILE)
    upload = world.service.start_upload(sent, 1000)
    upload.feed(body[:-8])
    world.states.reset()
    made = make(world)
    upload.feed(body[-8:])
    uploaded = world.service.upload(sent, upload)
    assert isinstance(uploaded, Record)
    assert made != uploaded.unique_id
    assert len(world.reports.records(PLANTS)) == 5


def test_the_option_is_refused_beyond_loopback() -> None:
    told = r"stable_ids: tokens can be guessed then, and host 0\.0\.0\.0 lets others in"
    for token in (None, "given"):
        with pytest.raises(OptionError, match=told):
            Server(Options.of(memory=True, stable_ids=True, host="0.0.0.0", control_token=token))
    for host in ("localhost", "127.0.0.1", "::1"):
        Server(Options.of(memory=True, stable_ids=True, host=host))


def test_the_help_says_that_tokens_can_be_guessed(help_at: Callable[[int], str]) -> None:
    assert "so anybody can guess them; not beyond loopback" in " ".join(help_at(80).split())


def test_undo_is_refused_where_an_id_is_another_records_by_now(world: Any) -> None:
    make(world)
    world.states.reset()
    again = world.service.create(knock(PLANTS, "another")).unique_id
    before = world.store.data()
    with pytest.raises(OptionError, match=f"the id '{again}' in {PLANTS} is another record's by now; delete that"):
        world.states.undo()
    assert world.store.data() == before
    world.service.delete(knock(PLANTS, unique_id=again, master_key=MASTER_KEY))
    world.states.undo()
    assert world.store.record(PLANTS, again) is not None
