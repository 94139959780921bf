"""Worlds: one process, many tests that never meet."""

from __future__ import annotations

import gc
import os
import random
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rested_emulator import OptionError, RestedEmulator, World, Worlds
from tests import texts
from tests.conftest import (
    CHORES,
    DIARY,
    GARDEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    NOON,
    PLANTS,
    TOMATO,
    Backend,
    Ear,
    StoppedTime,
    knock,
    refused,
)
from tests.wire import CHANGED, COOKIE, bearer, call, closing, next_of, open_socket


@pytest.fixture
def worlds(backend: Backend) -> Worlds:
    """The garden, where keys like test-1 make worlds."""
    backend.begin()
    backend.worlds = Worlds(backend.world, ["test-*"], lambda world: world.states.begin())
    return backend.worlds


def listen(world: Any, key: str) -> Ear:
    ear = Ear()
    world.service.listen(knock(PLANTS, key=key), ear)
    return ear


def make(world: Any, key: str, data: Any) -> Any:
    return world.service.create(knock(PLANTS, data, key=key))


# Making and ending


def test_a_world_begins_as_the_default_one_began(worlds: Worlds, backend: Backend) -> None:
    make(backend, KEY, "made since")
    backend.change_endpoint(PLANTS, secure=True)
    backend.advance(1000)
    assert worlds.fork("one") == {"key": "one", "closed": 0}
    world = worlds.named("one")
    assert world.reports.records(PLANTS)[0]["uniqueId"] == TOMATO
    assert len(world.reports.records(PLANTS)) == 3
    assert [project.key for project in world.store.projects()] == ["one"]
    assert [endpoint.name for endpoint in world.store.endpoints()] == [one.name for one in backend.store.endpoints()]
    assert world.clock.now() == NOON
    world.service.read(knock(PLANTS, key="one"))


def test_what_happens_in_a_world_stays_there(worlds: Worlds, backend: Backend) -> None:
    one, two = worlds.of("test-1"), worlds.of("test-2")
    ears = listen(backend, KEY), listen(one, "test-1"), listen(two, "test-2")
    make(one, "test-1", "only here")
    one.service.delete(knock(PLANTS, unique_id=TOMATO, key="test-1"))
    one.owner.sign_in(GARDENERS, "eve")
    one.owner.add_fault("messages", what="drop")
    one.states.advance(5000)
    assert [len(ear.heard) for ear in ears] == [0, 2, 0]
    for other in (backend, two):
        assert (len(other.reports.records(PLANTS)), other.clock.now(), other.reports.faults()) == (3, NOON, [])
        assert (other.reports.status()["users"], other.reports.requests()) == ([], [])
        assert [one["type"] for one in other.reports.messages()] == ["OPEN"]


def test_a_fork_of_a_key_that_exists_begins_it_anew(worlds: Worlds) -> None:
    worlds.fork("one")
    old = worlds.named("one")
    ear = listen(old, "one")
    make(old, "one", "gone")
    assert worlds.fork("one") == {"key": "one", "closed": 1}
    assert ear.ended == (1001, texts.DROPPED)
    assert len(worlds.named("one").reports.records(PLANTS)) == 3


def test_a_dropped_world_is_unknown(worlds: Worlds) -> None:
    worlds.fork("one")
    ear = listen(worlds.named("one"), "one")
    assert worlds.drop("one") == {"closed": 1}
    assert ear.ended == (1001, texts.DROPPED)
    assert worlds.of("one") is worlds.default
    for verb in (worlds.drop, worlds.named):
        with pytest.raises(OptionError, match="names no world"):
            verb("one")


@pytest.mark.parametrize("key", ["test-1", "test-", "test-ä/ö?&=", "test-" + "x" * 10_000])
def test_a_key_of_the_right_shape_makes_its_world_at_first_use(worlds: Worlds, key: str) -> None:
    world = worlds.of(key)
    assert world is not worlds.default
    assert worlds.of(key) is worlds.named(key) is world


@pytest.mark.parametrize("key", ["", "tes", "TEST-1", " test-1", "other", "[a", "test-\0", "test-1\n", "test- "])
def test_any_other_key_makes_none(worlds: Worlds, key: str) -> None:
    assert worlds.of(key) is worlds.default
    assert len(list(worlds)) == 1


def test_the_owner_may_be_the_first_to_use_a_key(worlds: Worlds) -> None:
    worlds.named("test-1").owner.add_fault("delay")
    assert len(worlds.of("test-1").reports.faults()) == 1


@pytest.mark.parametrize("key", ["", KEY])
def test_a_key_that_is_none_of_a_world_is_refused(worlds: Worlds, key: str) -> None:
    with pytest.raises(OptionError, match="key"):
        worlds.fork(key)


def test_a_world_that_nobody_uses_ends_after_an_hour(worlds: Worlds, time: StoppedTime) -> None:
    worlds.fork("unused")
    worlds.fork("used")
    worlds.fork("listened-to")
    ear = listen(worlds.named("listened-to"), "listened-to")
    time.now += 3599
    worlds.of("used")
    worlds.tick()
    assert len(list(worlds)) == 4
    time.now += 2
    worlds.tick()
    assert worlds.of("unused") is worlds.default
    assert worlds.of("used") is not worlds.default
    worlds.named("listened-to").service.leave(PLANTS, ear, 1000)
    time.now += 3601
    worlds.tick()
    assert (len(list(worlds)), worlds._used) == (1, {})


def test_there_is_an_end_to_forks(worlds: Worlds) -> None:
    for number in range(1000):
        worlds.fork(f"fork-{number}")
    assert worlds.of("test-1") is worlds.default
    with pytest.raises(OptionError, match="enough"):
        worlds.fork("one more")


@pytest.mark.warns("the one of --fork-keys that was unused for longest ends")
def test_of_too_many_worlds_that_a_key_makes_the_one_unused_for_longest_ends(worlds: Worlds) -> None:
    worlds.fork("forked")
    for number in range(999):
        worlds.of(f"test-{number}")
    listen(worlds.named("test-0"), "test-0")
    begun = {key: worlds.of(key) for key in ("forked", "test-0", "test-2", "test-3")}
    worlds.of("test-1000")
    worlds.of("test-2000")
    assert {key: worlds.of(key) for key in begun} == begun
    assert len(list(worlds)) == 1001
    assert {"test-1", "test-4"}.isdisjoint(worlds._private)
    worlds.fork("one more")


# Memory


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python without the collector of what holds itself, which comes when it likes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def parts(world: Any) -> dict[str, weakref.ref[Any]]:
    """What tells whether a world is still in memory."""
    known = {"world": world} | {name: getattr(world, name) for name in ("evidence", "store", "hub", "faults", "clock")}
    return {name: weakref.ref(part) for name, part in known.items()}


def left_of(seen: dict[str, weakref.ref[Any]]) -> list[str]:
    return [name for name, part in seen.items() if part() is not None]


def refuse(world: Backend) -> None:
    # Not by ``refused``, whose frame keeps the traceback from Python 3.12 on, and so the world, until a collection.
    with suppress(Exception):
        world.read(knock(DIARY, key="one"))


DEEDS: dict[str, Callable[[Backend], object]] = {
    "nothing": lambda _: None,
    "a record and a listener": lambda world: (listen(world, "one"), make(world, "one", "x")),
    "a listener with a token": lambda world: world.listen(
        knock(DIARY, key="one", token=world.sign_in(GARDENERS, "ada")), Ear()
    ),
    "a refusal": refuse,
    "a timer": lambda world: world.clock.every(5, world.reset),
    "an outage": lambda world: (listen(world, "one"), world.add_fault("outage", seconds=1000)),
    "a late message": lambda world: (
        listen(world, "one"), world.add_fault("messages", what="late", seconds=9), make(world, "one", "x")
    ),
    "another message first": lambda world: (
        listen(world, "one"), world.add_fault("messages", what="swap"), make(world, "one", "x")
    ),
    "a checkpoint": lambda world: (world.checkpoint("a"), make(world, "one", "x"), world.restore("a")),
    "a new key": lambda world: world.change_project(key="rotated"),
    "a file": lambda world: world.start_upload(
        knock(PLANTS, content=("multipart/form-data; boundary=x", None, None), key="one"), 1000
    ),
}  # fmt: skip


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
def test_a_world_that_is_dropped_is_out_of_memory_at_once(worlds: Worlds, deed: Callable[[Backend], object]) -> None:
    worlds.fork("one")
    seen = parts(worlds.named("one"))
    deed(Backend.of(worlds.named("one")))
    worlds.drop("one")
    assert left_of(seen) == []


# Keys that change


def test_a_world_is_found_by_its_new_key_when_it_has_changed(worlds: Worlds) -> None:
    world = worlds.of("test-1")
    world.owner.change_project(key="rotated")
    assert worlds.of("rotated") is worlds.named("rotated") is world
    assert worlds.of("test-1") is world  # where that key is not valid any more
    world.states.reset()
    assert worlds.of("rotated") is worlds.default


def test_no_two_worlds_have_the_same_key(worlds: Worlds, backend: Backend) -> None:
    one, two = worlds.of("test-1"), worlds.of("test-2")
    for world, key in ((one, "test-2"), (one, KEY), (backend.world, "test-1")):
        with pytest.raises(OptionError, match="another project's"):
            world.owner.change_project(key=key)
    two.owner.change_project(key="rotated")
    for taken in ("rotated", KEY):
        with pytest.raises(OptionError):
            worlds.fork(taken)


def test_the_default_world_goes_by_its_new_key(worlds: Worlds, backend: Backend) -> None:
    backend.change_project(key="rotated")
    worlds.fork("one")
    assert worlds.of("rotated") is worlds.named("rotated") is backend.world
    assert worlds.named("one").store.projects()[0].key == "one"


@pytest.mark.parametrize("verb", ["reset", "restore", "undo"])
def test_a_key_that_was_given_away_does_not_come_back(emulator: RestedEmulator, verb: str) -> None:
    """Or what clients write with it would go to the world that has it now, and be gone with that."""
    emulator.checkpoint("here")
    emulator.delete_endpoint(CHORES)
    if verb == "undo":
        emulator.change_project(key="other")
        emulator.reset()  # with the key of the start, so that the other one is free again
        emulator.world("other")
    else:
        emulator.change_project(key="other")
        emulator.world(KEY)
    back: Callable[[], object] = {
        "reset": emulator.reset, "restore": lambda: emulator.restore("here"), "undo": emulator.undo
    }[verb]  # fmt: skip
    before, faults = emulator.data(), emulator.add_fault("delay", seconds=0)
    with pytest.raises(OptionError, match="which is another world's by now; drop that first"):
        back()
    assert emulator.data() == before
    assert emulator.faults()[0]["id"] == faults["id"]
    emulator.drop("other" if verb == "undo" else KEY)
    back()


@pytest.mark.warns("neither taken over nor written over")
def test_an_edit_that_takes_the_key_of_a_world_is_not_taken_over(data_file: Path) -> None:
    with RestedEmulator(data=data_file, memory=False) as emulator:
        emulator.world("one")
        data_file.write_text(data_file.read_text().replace(KEY, "one"))
        for _ in range(3):
            emulator.call(lambda server: server.world.tick())
        assert "key 'one' again, which is another world's" in str(emulator.status()["refusedEdit"])
        assert call(emulator.url(PLANTS)).status == 200
        data_file.write_bytes(GARDEN.read_bytes())
        emulator.call(lambda server: server.world.tick())


def test_the_master_key_is_the_default_projects(backend: Backend) -> None:
    backend.change_project(master_key=MASTER_KEY)
    backend.begin()
    worlds = Worlds(backend.world)
    worlds.fork("one")
    world = worlds.named("one")
    assert len(world.service.read(knock(DIARY, key="one", master_key=MASTER_KEY))) == 2
    world.owner.change_project(master_key="other")
    assert backend.store.projects()[0].master_key == MASTER_KEY


# The wire


@pytest.fixture
def emulator() -> Iterator[RestedEmulator]:
    with RestedEmulator(data=GARDEN, fork_keys=["test-*"], master_key=MASTER_KEY) as running:
        yield running


def ask_in_all_ways(world: World) -> None:
    """Requests that are answered, refused, too large, waited for, evaluated; and verbs that are refused."""
    plants, users = world.url(PLANTS), world.url(GARDENERS)
    call(plants, "POST", "x")
    call(users, "POST", {"username": "ada", "password": "wrong"}, login="true")
    call(plants, jsonata="$count($)")
    call(plants, "POST", body=bytes(3_000_000), headers={"Content-Type": "text/plain"})
    control = f"{world.facts['controlUrl']}/checkpoint?key={world.key}"
    assert call(control, "POST", {"name": ""}).status == 400
    with suppress(OptionError):
        world.restore("nothing")
    with suppress(TimeoutError):
        world.wait(requests={"status": 418}, timeout=0.01)


@pytest.mark.usefixtures("no_collector")
def test_a_world_that_clients_have_used_is_out_of_memory_at_once(emulator: RestedEmulator) -> None:
    world = emulator.world("one")
    seen = emulator.call(lambda server: parts(server.worlds.named("one")))
    ask_in_all_ways(world)
    token = world.sign_in(GARDENERS, "ada")
    with ExitStack() as stack:
        clients = [stack.enter_context(open_socket(f"{world.ws_url(DIARY)}&accessToken={token}")) for _ in range(4)]
        with open_socket(world.ws_url(DIARY)) as refused:
            assert closing(refused)[0] == 4000
        clients[3].close()
        world.add_fault("abort", times=1)
        world.add_fault("silence", times=1)
        emulator.drop("one")
        assert left_of(seen) == []
        for client in clients:  # none is told of its end, or can confirm it
            client.close_socket()


def work(world: World, number: int) -> None:
    """What a test does: users, cookies, records, files, sockets, mails and time of its own."""
    rng, name = random.Random(number), f"user{number}"
    users, diary, plants = world.url(GARDENERS), world.url(DIARY), world.url(PLANTS)
    assert call(users, "POST", {"username": name, "password": name}).status == 200
    cookie = call(users, "POST", {"username": name, "password": name}, login="true").headers["set-cookie"]
    token = cookie.partition("=")[2].partition(";")[0]
    with open_socket(f"{world.ws_url(DIARY)}&accessToken={token}") as listener:
        for step in range(15):
            record = call(diary, "POST", [number, step], headers={"Cookie": f"{COOKIE}={token}"}).json
            assert next_of(listener) == {"type": "POST", "record": record}
        mine = call(diary, headers=bearer(token), dataOnly="true").json
        assert [data for data in mine if isinstance(data, list)] == [[number, step] for step in range(15)]
        part = f'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{number}\r\n--x--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        file = call(plants, "POST", body=part.encode(), headers=kind).json["uniqueId"]
        assert call(plants, uniqueId=file, fileOnly="true").body == str(number).encode()
        passed = rng.randrange(1, 1000)
        world.advance(passed)
        world.add_fault("status", status=500 + number, times=1)
        assert call(plants).status == 500 + number
        world.change_project(reset_templates={"mail": f"{number} {{{{email}}}}"})
        call(users, "POST", {"email": f"{number}@b.c", "password": "x"})
        call(users, "POST", {"email": f"{number}@b.c", "templateName": "mail"}, passwordreset="true")
        [mail] = world.mails()
        assert isinstance(mail, dict)
        assert mail["html"] == f"{number} {number}@b.c"
        assert all(world.key in str(one["url"]) for one in world.requests())
        world.reset()
        assert closing(listener) == CHANGED  # as the project was
    assert len(world.records(PLANTS)) == 3
    assert call(diary, headers=bearer(token)).status == 401


def test_parallel_workers_share_one_emulator_and_never_meet(emulator: RestedEmulator) -> None:
    before = emulator.records(PLANTS), emulator.records(GARDENERS), emulator.status()["users"]

    def worker(number: int) -> None:
        with emulator.world(f"test-{number}") as world:
            work(world, number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(worker, range(12)))
    assert (emulator.records(PLANTS), emulator.records(GARDENERS), emulator.status()["users"]) == before
    assert (emulator.requests(), emulator.messages(), emulator.mails()) == ([], [], [])
    assert emulator.call(lambda server: len(list(server.worlds))) == 1


def test_a_token_of_another_world_is_no_token(emulator: RestedEmulator) -> None:
    one, two = emulator.world("one"), emulator.world("two")
    token = one.sign_in(GARDENERS, "ada")
    for headers in (bearer(token), {"Cookie": f"{COOKIE}={token}"}):
        assert call(one.url(DIARY), headers=headers).status == 200
        assert call(two.url(DIARY), headers=headers).status == 401
        assert call(emulator.url(DIARY), headers=headers).status == 401


@pytest.mark.parametrize("key", ["a b", "ä", "a&b=c", "a%20b", "+", "a#b", "?", "../x", '"', "a" * 2000])
def test_a_key_may_have_odd_characters(emulator: RestedEmulator, key: str) -> None:
    with emulator.world(key) as world:
        assert call(world.url(PLANTS), "POST", "here").status == 200
        assert (len(world.records(PLANTS)), len(emulator.records(PLANTS))) == (4, 3)
        control = f"{emulator.facts['controlUrl']}/requests?key={quote(key, safe='')}"
        assert len(call(control).json) == 1
        with open_socket(world.ws_url(PLANTS)) as listener:
            world.reset()
            assert next_of(listener)["type"] == "DELETE"


def test_control_verbs_act_on_the_world_that_the_key_names(emulator: RestedEmulator) -> None:
    url = f"{emulator.facts['controlUrl']}"
    emulator.freeze()
    assert call(f"{url}/fork", "POST", {"key": "one"}).json == {"key": "one", "closed": 0}
    call(f"{url}/change-endpoint?key=one", "POST", {"name": PLANTS, "secure": True})
    assert call(emulator.url(PLANTS)).status == 200
    assert call(f"{emulator.facts['url']}/{PLANTS}?key=one").status == 401
    assert call(f"{url}/status?key={KEY}").json["projects"][0]["key"] == KEY
    assert call(f"{url}/status?key=one").json["projects"][0]["key"] == "one"
    reply = call(f"{url}/status?key=two")
    assert (reply.status, "names no world; there are: one" in reply.json["hint"]) == (400, True)
    assert call(f"{url}/drop", "POST", {"key": "one"}).json == {"closed": 0}
    assert call(f"{emulator.facts['url']}/{PLANTS}?key=one").status == 400
    assert call(f"{url}/drop", "POST", {"key": "one"}).status == 400
    assert call(f"{url}/faults?key=test-9", "POST", {"kind": "status", "status": 418}).status == 200
    assert call(f"{emulator.facts['url']}/{PLANTS}?key=test-9").status == 418


def test_a_world_tells_its_own_facts(emulator: RestedEmulator) -> None:
    with emulator.world("one") as world:
        world.change_project(master_key="another one")
        assert (world.facts["key"], world.facts["masterKey"]) == ("one", "another one")
        assert (emulator.facts["key"], emulator.facts["masterKey"]) == (KEY, MASTER_KEY)
        world.change_project(key="rotated")
        assert world.facts["key"] == "rotated"
        assert call(world.url(PLANTS)).status == 200


def test_a_world_may_be_dropped_inside_its_with(emulator: RestedEmulator) -> None:
    with emulator.world("one"):
        emulator.drop("one")


def test_a_fault_of_the_command_line_for_another_project_does_no_harm_to_worlds(tmp_path: Path) -> None:
    data = tmp_path / "two.json"
    data.write_text(
        '{"_projects": {"a": {"name": "first one"}, "b": {"name": "second one"}},'
        ' "_endpoints": {"first/notes": {"project": "a"}, "second/notes": {"project": "b"}}}'
    )
    faults = ['{"kind": "status", "endpoint": "second/notes"}', '{"kind": "status", "endpoint": "first/notes"}']
    with RestedEmulator(data=data, fault=faults, fork_keys=["test-*"]) as emulator:
        assert call(f"{emulator.facts['url']}/first/notes?key=test-1").status == 503
        assert call(f"{emulator.facts['url']}/second/notes?key=b").status == 503
        emulator.clear_faults()
        assert call(f"{emulator.facts['url']}/second/notes?key=test-1").status == 400
        assert call(f"{emulator.facts['url']}/second/notes?key=b").json == []


def test_files_of_a_world_go_with_it_and_those_of_the_seed_stay(data_file: Path) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nfile\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with RestedEmulator(data=data_file, memory=False) as emulator:
        seeded = call(emulator.url(PLANTS), "POST", body=part, headers=kind).json["uniqueId"]
    with RestedEmulator(data=data_file, memory=False) as emulator:
        with emulator.world("one") as world:
            assert call(world.url(PLANTS), uniqueId=seeded, fileOnly="true").body == b"file"
            made = call(world.url(PLANTS), "POST", body=part, headers=kind).json["uniqueId"]
            folder = emulator.call(lambda server: str(server.worlds.named("one").files._folder))
            assert os.listdir(folder) == [made]
            call(world.url(PLANTS), "DELETE", uniqueId=seeded)
            assert call(emulator.url(PLANTS), uniqueId=made, fileOnly="true").status == 400
        assert not os.path.exists(folder)
        assert call(emulator.url(PLANTS), uniqueId=seeded, fileOnly="true").body == b"file"
    assert os.listdir(f"{data_file}.files") == [seeded]


def test_an_upload_into_a_world_that_ends_leaves_nothing(worlds: Worlds) -> None:
    world = worlds.of("test-1")
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nfile\r\n--x--\r\n'
    request = knock(PLANTS, content=("multipart/form-data; boundary=x", None, None), key="test-1")
    taking = world.service.start_upload(request, 1000)
    worlds.drop("test-1")
    taking.feed(body)
    with refused(507) as refusal:
        world.service.upload(request, taking)
    assert "ended" in refusal.value.hint
    taking.discard()
    assert world.files._folder is None
