"""The journal: what was acknowledged survives, whatever happens to the process or the disk."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rested_emulator import (
    Clock,
    DataFileError,
    Gate,
    OptionError,
    Options,
    RestedEmulator,
    RestedError,
    Server,
    Store,
    open_store,
)
from tests import texts
from tests.conftest import (
    ADA,
    BEN,
    DIARY,
    GARDEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    NOON,
    PLANTS,
    PUMPKIN,
    ROSEMARY,
    SAMPLE_KEY,
    TOMATO,
    Backend,
    Ear,
    StoppedTime,
    iso,
    knock,
    record_of,
    refused,
)
from tests.wire import call, emulator_with, open_socket


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A data file, the garden in it."""
    path = tmp_path / "data.json"
    path.write_bytes(GARDEN.read_bytes())
    return path


def opened(path: Path, **options: Any) -> Store:
    return open_store(Options(data=str(path), **options))


def killed(store: Store) -> None:
    """End a store as SIGKILL would: nothing is written, the system takes back the lock."""
    storage = store.file
    for descriptor in (storage._lock.file, storage.journal._file):
        if descriptor is not None:
            os.close(descriptor)


def save_when_quiet(store: Store) -> None:
    """What the server does twice a second, with the writing in a thread of its own."""
    draft = store.file.begin_save()
    if draft:
        store.file.end_save(draft, draft.write())


def begin_draft(store: Store) -> Any:
    """What takes the data file's place when the next step of such a save ends it; two quiet looks come first."""
    store.file.begin_save()
    draft = store.file.begin_save()
    assert draft
    return draft


def served(store: Store) -> Backend:
    return Backend(store, Clock(StoppedTime()), Gate())


@pytest.fixture
def store(path: Path) -> Store:
    """The store over that file, just opened."""
    return opened(path)


@pytest.fixture
def backend(store: Store) -> Backend:
    return served(store)


def state(store: Store) -> dict[str, Any]:
    """All that is in the tables, in its order."""
    return {name: list(table.items()) for name, table in store.file.tables.items() if table}


def assert_kept(path: Path, store: Store) -> Store:
    """What there is outlives a kill; the store of the next start."""
    before = state(store)
    killed(store)
    again = opened(path)
    assert state(again) == before
    return again


VERBS: dict[str, Callable[[Backend], object]] = {
    "create": lambda backend: backend.create(knock(PLANTS, {"name": "Möhre"})),
    "update": lambda backend: backend.update(knock(PLANTS, {"bed": 9}, unique_id=TOMATO, strategy="merge")),
    "delete": lambda backend: backend.delete(knock(PLANTS, unique_id=TOMATO)),
    "register": lambda backend: backend.register(knock(GARDENERS, {"username": "cleo", "password": "clover"})),
    "sign in": lambda backend: backend.sign_in(GARDENERS, "ada"),
    "change the endpoint": lambda backend: backend.change_endpoint(PLANTS, secure=True),
    "make an endpoint": lambda backend: backend.change_endpoint("garden/tools"),
    "delete the endpoint": lambda backend: backend.delete_endpoint(PLANTS),
    "change the project": lambda backend: backend.change_project(allowed_origins=["http://localhost:3000"]),
    "change the key": lambda backend: backend.change_project(key="another"),
    "load": lambda backend: backend.load({PLANTS: ["loaded"]}),
    "send a mail": lambda backend: (
        backend.change_project(reset_templates={"reset": "<p>"}),
        backend.send_reset(knock(GARDENERS, {"email": "ada@garden.example", "templateName": "reset"})),
    ),
    "reset": lambda backend: (backend.delete(knock(PLANTS, unique_id=TOMATO)), backend.reset()),
    "restore": lambda backend: (
        backend.checkpoint("here"),
        backend.create(knock(PLANTS, "new")),
        backend.delete(knock(PLANTS, unique_id=TOMATO)),
        backend.restore("here"),
    ),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


# After a kill


@every_verb
def test_what_was_done_before_a_kill_is_there_after_and_the_data_file_is_whole(
    path: Path, store: Store, verb: Callable[[Backend], object]
) -> None:
    verb(served(store))
    again = assert_kept(path, store)
    assert not path.with_name("data.json.journal").exists()
    copy = path.with_name("copy.json")
    copy.write_text(json.dumps(json.loads(path.read_text())))  # so that it is read as any JSON is
    assert state(opened(copy)) == state(again)


@pytest.mark.parametrize("first", [TOMATO, ROSEMARY, PUMPKIN])
@pytest.mark.parametrize("second", [TOMATO, ROSEMARY, PUMPKIN])
def test_a_record_that_had_come_back_to_its_place_is_there_after_a_kill_whatever_went_since(
    path: Path, store: Store, backend: Backend, first: str, second: str
) -> None:
    backend.begin()
    backend.delete(knock(PLANTS, unique_id=first))
    backend.reset()
    backend.delete(knock(PLANTS, unique_id=second))
    assert len(assert_kept(path, store).records(PLANTS)) == 2


OF_USERS: dict[str, Callable[[Backend], object]] = {
    "turn users off and on": lambda backend: [
        backend.change_endpoint(GARDENERS, authentication=on) for on in (False, True)
    ],
    "delete a user": lambda backend: backend.delete(knock(GARDENERS, unique_id=ADA, master_key=MASTER_KEY)),
    "delete the users": lambda backend: (backend.sign_in(GARDENERS, "ada"), backend.delete_endpoint(GARDENERS)),
    "log in and turn users off": lambda backend: (
        backend.sign_in(GARDENERS, "ada"),
        backend.change_endpoint(GARDENERS, authentication=False),
    ),
    "as deep as it goes": lambda backend: backend.create(knock(PLANTS, json.loads("[" * 512 + "]" * 512))),
}


@pytest.mark.parametrize("verb", [*VERBS.values(), *OF_USERS.values()], ids=[*VERBS, *OF_USERS])
def test_what_the_emulator_writes_it_also_reads_where_a_person_has_edited_it(
    path: Path, store: Store, caplog: pytest.LogCaptureFixture, verb: Callable[[Backend], object]
) -> None:
    verb(served(store))
    before = state(store)
    store.file.close()
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    again = opened(path)
    assert {name: [key for key, _ in table] for name, table in state(again).items() if name != "_sessions"} == {
        name: [key for key, _ in table] for name, table in before.items() if name != "_sessions"
    }
    again.file.close()
    caplog.clear()  # of sessions and owners that are dropped


def test_a_kill_at_any_byte_of_the_last_line_takes_that_verb_alone(path: Path, store: Store, backend: Backend) -> None:
    backend.create(knock(PLANTS, "kept"))
    kept = state(store)
    journal = path.with_name("data.json.journal")
    size = journal.stat().st_size
    backend.delete_endpoint(GARDENERS)
    whole = journal.read_bytes()
    killed(store)
    original = path.read_bytes()
    for end in range(size, len(whole)):
        path.write_bytes(original)
        journal.write_bytes(whole[:end])
        again = opened(path)
        assert state(again) == kept
        killed(again)


def test_a_torn_line_is_said_and_does_not_spoil_what_follows(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = path.with_name("data.json.journal")
    journal.write_bytes(b'[["garden/plants","x",{"da')
    store = opened(path)
    assert "the last line is torn" in caplog.text
    record = served(store).create(knock(PLANTS, "after"))
    killed(store)
    assert opened(path).record(PLANTS, record.unique_id) is not None


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("{", "line 2 column 2"),
        ("", "line 2 column 1"),
        ('{"a": 1}', "line 2 column 1: 'None' is no step"),
        ('[["garden/plants", 5, {}]]', "line 2 column 1"),
        ('[["garden/plants"]]', "line 2 column 1"),
        ("\0" * 50, "line 2 column 1"),
        ("1" * 5000, "line 2 column 1"),
    ],
)
def test_any_other_line_stops_the_start_and_changes_nothing(path: Path, line: str, place: str) -> None:
    journal = path.with_name("data.json.journal")
    journal.write_text(f'[["garden/plants","x",null]]\n{line}\n[["garden/plants","y",null]]\n')
    before = path.read_bytes(), journal.read_bytes()
    with pytest.raises(DataFileError, match=place) as raised:
        opened(path)
    assert str(journal) in str(raised.value)
    assert (path.read_bytes(), journal.read_bytes()) == before


def test_a_journal_left_behind_by_a_kill_between_file_and_journal_does_no_harm(
    path: Path, store: Store, backend: Backend
) -> None:
    record = backend.create(knock(PLANTS, "one"))
    backend.delete(knock(PLANTS, unique_id=record.unique_id))
    backend.update(knock(PLANTS, "two", unique_id=ROSEMARY))
    journal = path.with_name("data.json.journal")
    left = journal.read_bytes()
    store.file.close()
    journal.write_bytes(left)
    assert state(opened(path)) == state(store)


# When the data file is written


def test_the_data_file_is_written_when_things_are_quiet(path: Path, store: Store) -> None:
    before = path.read_bytes()
    served(store).create(knock(PLANTS, "new"))
    save_when_quiet(store)
    assert path.read_bytes() == before
    save_when_quiet(store)
    assert path.read_bytes() != before
    assert not path.with_name("data.json.journal").exists()


def test_the_data_file_is_written_when_the_journal_has_outgrown_it(path: Path, store: Store, backend: Backend) -> None:
    for number in range(3):
        assert path.stat().st_size < 100_000, number
        backend.update(knock(PLANTS, "x" * 500_000, unique_id=TOMATO))
        save_when_quiet(store)
    assert path.stat().st_size > 500_000
    assert not path.with_name("data.json.journal").exists()


def test_what_changes_while_a_draft_is_written_stays_in_the_journal(path: Path, store: Store, backend: Backend) -> None:
    backend.create(knock(PLANTS, "in the draft"))
    assert store.file.begin_save() is None, "things are not quiet yet"
    draft = store.file.begin_save()
    assert draft
    backend.create(knock(PLANTS, "after it"))
    store.file.end_save(draft, draft.write())
    assert "in the draft" in path.read_text()
    journal = path.with_name("data.json.journal").read_text()
    assert ("in the draft" in journal, "after it" in journal) == (False, True)
    assert json.loads(journal.splitlines()[0]) == {"continues": zlib.crc32(path.read_bytes())}
    backend.create(knock(PLANTS, "and on"))
    assert_kept(path, store)


@pytest.mark.parametrize("name", ["replace", "write", "open"])
def test_a_draft_the_disk_refuses_to_take_loses_nothing(
    path: Path, store: Store, backend: Backend, disk: FaultyDisk, name: str
) -> None:
    backend.create(knock(PLANTS, "in the draft"))
    draft = begin_draft(store)
    stamp = draft.write()
    backend.create(knock(PLANTS, "after it"))
    before = state(store)
    disk.fail(name, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        store.file.end_save(draft, stamp)
    disk.mend()
    backend.delete(knock(PLANTS, unique_id=backend.create(knock(PLANTS, "gone")).unique_id))
    killed(store)
    assert state(opened(path)) == before


def test_a_draft_that_was_overtaken_is_thrown_away(path: Path, store: Store, backend: Backend) -> None:
    backend.create(knock(PLANTS, "old"))
    draft = begin_draft(store)
    backend.create(knock(PLANTS, "new"))
    store.file.save()
    store.file.end_save(draft, draft.write())
    assert "new" in path.read_text()
    assert not path.with_name("data.json.draft").exists()


def test_what_a_killed_emulator_left_beside_the_data_file_is_cleared_away(path: Path) -> None:
    for name in ("data.json.tmp", "data.json.draft", "data.json.journal.tmp"):
        path.with_name(name).write_text("{")
    opened(path).file.close()
    assert [found.name for found in path.parent.iterdir()] == ["data.json"]


@pytest.mark.parametrize("name", ["data.json.tmp", "data.json.draft", "data.json.journal.tmp"])
def test_what_stands_where_a_draft_is_to_be_ends_the_start_before_anything_is_stored(path: Path, name: str) -> None:
    path.with_name(name).mkdir()
    with pytest.raises(FileExistsError, match="it stands where the data file is drafted; delete it"):
        opened(path)
    assert not path.with_name("data.json.lock").exists()


def test_memory_has_neither_journal_nor_lock(path: Path) -> None:
    with RestedEmulator(data=path) as emulator:
        call(emulator.url(PLANTS), "POST", "new")
        assert [found.name for found in path.parent.iterdir()] == ["data.json"]


# The lock


def test_a_second_emulator_on_the_same_file_is_refused(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(path)
    store = opened(path)
    for name in (path, link):
        with pytest.raises(RestedError, match=rf"data\.json is in use by another emulator, process {os.getpid()}"):
            opened(name)
    store.file.close()
    opened(path).file.close()
    assert {found.name for found in tmp_path.iterdir()} == {"data.json", "link.json"}


def test_a_lock_left_by_a_kill_is_no_lock(path: Path) -> None:
    killed(opened(path))
    assert path.with_name("data.json.lock").exists()
    opened(path).file.close()


def test_a_start_that_fails_leaves_no_lock(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(DataFileError):
        opened(path)
    path.write_bytes(GARDEN.read_bytes())
    with RestedEmulator(data=path, memory=False) as emulator, pytest.raises(OSError, match="in use"):
        RestedEmulator(data=path.with_name("other.json"), memory=False, port=emulator.facts["port"]).start()
    opened(path.with_name("other.json")).file.close()


def test_of_two_that_race_for_a_data_file_one_has_it(path: Path) -> None:
    for number in range(50):
        barrier = threading.Barrier(2)
        stores: list[Store] = []

        def race(barrier: threading.Barrier = barrier, stores: list[Store] = stores) -> None:
            barrier.wait()
            with contextlib.suppress(RestedError):
                stores.append(opened(path))

        racers = [threading.Thread(target=race) for _ in range(2)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        [store] = stores
        served(store).create(knock(PLANTS, number))
        store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 53


# A disk that refuses


class FaultyDisk:
    """The system's calls, of which some fail once it is told so."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()

    def fail(self, name: str, number: int, *, short: bool = False) -> None:
        real = getattr(os, name)

        def fail(*arguments: Any, **_: Any) -> Any:
            if short:
                return real(arguments[0], arguments[1][:10])
            raise OSError(number, os.strerror(number))

        self._patch.setattr(os, name, fail)

    def mend(self) -> None:
        self._patch.undo()


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.mend()


@every_verb
@pytest.mark.parametrize(
    ("name", "number", "short"),
    [
        ("write", errno.EIO, False),
        ("write", errno.ENOSPC, False),
        ("write", errno.ENOSPC, True),
        ("open", errno.EACCES, False),
        ("open", errno.EMFILE, False),
        ("fstat", errno.EIO, False),
    ],
    ids=["write EIO", "write ENOSPC", "write torn", "open EACCES", "open EMFILE", "fstat EIO"],
)
def test_a_change_the_disk_refuses_is_none(
    path: Path,
    store: Store,
    backend: Backend,
    disk: FaultyDisk,
    verb: Callable[[Backend], object],
    name: str,
    number: int,
    short: bool,
) -> None:
    before, ear = state(store), Ear()
    backend.listen(knock(PLANTS), ear)
    disk.fail(name, number, short=short)
    with refused(507) as refusal:
        verb(backend)
    assert refusal.value.status == 507
    assert os.strerror(number) in refusal.value.hint
    assert (ear.heard, ear.ended) == ([], None)
    assert state(store) == before
    assert len(backend.records(PLANTS)) == 3
    disk.mend()
    verb(backend)
    assert_kept(path, store)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_data_file_that_cannot_be_written_stays_as_it_was_and_the_journal_has_the_rest(
    path: Path, store: Store, disk: FaultyDisk, name: str, number: int
) -> None:
    before = path.read_bytes()
    served(store).create(knock(PLANTS, "new"))
    disk.fail(name, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        store.file.save()
    assert path.read_bytes() == before
    assert not path.with_name("data.json.tmp").exists()
    served(store).create(knock(PLANTS, "newer"))
    after = state(store)
    killed(store)
    disk.mend()
    assert state(opened(path)) == after


def test_a_journal_that_cannot_be_taken_away_does_no_harm(path: Path, store: Store, disk: FaultyDisk) -> None:
    served(store).create(knock(PLANTS, "new"))
    disk.fail("unlink", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        store.file.save()
    disk.mend()
    assert_kept(path, store)


def test_a_vanished_folder_answers_507_and_is_well_again_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with RestedEmulator(data=folder / "data.json", memory=False) as emulator:
        url = emulator.url("examples/unsecure-endpoint")
        assert call(url, "POST", 1).status == 200
        gone = folder.rename(tmp_path / "gone")
        for left in gone.iterdir():
            left.unlink()
        refused = call(url, "POST", 2)
        assert refused.status == 507
        assert "No such file or directory" in refused.json["hint"]
        assert [record["data"] for record in call(url).json] == [1]
        folder.mkdir()
        assert call(url, "POST", 3).status == 200
    written = json.loads((folder / "data.json").read_text())["examples/unsecure-endpoint"].values()
    assert [record["data"] for record in written] == [1, 3]


# A person at the keyboard


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the data file by hand, as JSON."""
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree, indent=2))


def test_an_edit_is_taken_over_and_listeners_hear_the_difference(path: Path) -> None:
    backend, ear = served(opened(path)), Ear()
    backend.listen(knock(PLANTS), ear)

    def edit(tree: dict[str, Any]) -> None:
        plants = tree[PLANTS]
        del plants[ROSEMARY]
        plants[TOMATO]["data"]["bed"] = 7
        plants["new"] = {"data": "by hand"}

    edited(path, edit)
    backend.tick()
    heard = [(message["type"], message["record"]["uniqueId"]) for message in ear.heard]
    assert heard == [("DELETE", ROSEMARY), ("PUT", TOMATO), ("POST", "new")]
    assert ear.ended is None
    assert backend.records(PLANTS)[-1]["data"] == "by hand"


def test_an_edit_and_what_was_stored_meanwhile_are_both_kept(path: Path, store: Store, backend: Backend) -> None:
    record = backend.create(knock(PLANTS, "meanwhile"))
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    backend.tick()
    store.file.close()
    assert {TOMATO, record.unique_id, "new"} <= json.loads(path.read_text())[PLANTS].keys()


def test_an_edit_of_options_is_told_and_ends_the_sockets_of_that_endpoint(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend, ear, other = served(opened(path)), Ear(), Ear()
    backend.listen(knock(PLANTS), ear)
    backend.change_endpoint("garden/tools")
    backend.listen(knock("garden/tools"), other)
    edited(path, lambda tree: tree["_endpoints"][PLANTS].update(secure=True))
    backend.tick()
    assert ear.ended == (1000, texts.OPTIONS_CHANGED)
    assert other.ended is None
    assert "records added: 0, changed: 0, deleted: 0, other lines: 1" in caplog.text


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree["_sessions"].clear(),
        lambda tree: [session.update(expiresAt="2020-01-01T00:00:00.000Z") for session in tree["_sessions"].values()],
        pytest.param(
            lambda tree: tree[GARDENERS].pop(ADA),
            marks=pytest.mark.warns("users who are not there, sessions: 1, owners of records: 2"),
        ),
    ],
    ids=["it is gone", "it has expired", "its user is gone"],
)
def test_an_edit_that_ends_a_session_ends_its_sockets(
    path: Path, store: Store, edit: Callable[[dict[str, Any]], object]
) -> None:
    backend, ears = served(store), (Ear(), Ear())
    token = backend.sign_in(GARDENERS, "ada")
    for endpoint, ear in zip((GARDENERS, DIARY), ears, strict=True):
        backend.listen(knock(endpoint, token=token), ear)
    store.file.save()
    edited(path, edit)
    backend.tick()
    assert [ear.ended for ear in ears] == [(1000, texts.TOKEN_EXPIRED)] * 2


def test_an_edit_and_a_kill_leave_the_records_of_a_deleted_user_to_nobody(
    path: Path, store: Store, backend: Backend
) -> None:
    backend.change_project(master_key=MASTER_KEY)
    backend.delete(knock(GARDENERS, unique_id=BEN, master_key=MASTER_KEY))
    store.file.save()
    edited(path, lambda tree: tree[PLANTS].update(new={"data": 1}))
    backend.tick()
    killed(store)
    assert {record.owner for record in opened(path).records(DIARY)} == {ADA, BEN}


def test_an_edit_that_moves_the_expiry_of_a_session_moves_that_of_its_sockets(path: Path, store: Store) -> None:
    backend, ear = served(store), Ear()
    token = backend.sign_in(GARDENERS, "ada")
    store.file.save()
    backend.listen(knock(GARDENERS, token=token), ear)
    edited(path, lambda tree: tree["_sessions"][token].update(expiresAt=iso(NOON + 60)))
    backend.tick()
    backend.advance(59)
    assert ear.ended is None
    backend.advance(1)
    assert ear.ended == (1000, texts.TOKEN_EXPIRED)


def test_our_own_writing_is_no_edit(store: Store, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        backend.create(knock(PLANTS, number))
        store.file.save()
        backend.tick()
    assert "edit" not in caplog.text


def test_an_edit_without_a_difference_is_left_as_it_is_written(path: Path, store: Store, backend: Backend) -> None:
    edited(path, lambda tree: tree)
    text = path.read_text()
    backend.tick()
    save_when_quiet(store)
    store.file.close()
    assert path.read_text() == text
    assert [found.name for found in path.parent.iterdir()] == ["data.json"]


@pytest.mark.warns("line 1 column 2")
def test_an_edit_that_cannot_be_read_is_reported_once_and_nothing_is_lost(
    path: Path, store: Store, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("{oops")
    for number in range(4):
        backend.create(knock(PLANTS, number))
        backend.tick()
        save_when_quiet(store)
    assert caplog.text.count("line 1 column 2") == 1
    assert len(backend.records(PLANTS)) == 7
    assert path.read_text() == "{oops"


@pytest.mark.warns("line 1 column 2", "data.json.kept")
def test_beside_an_unreadable_edit_the_emulators_own_state_is_kept_when_it_stops(
    path: Path, store: Store, backend: Backend
) -> None:
    record = backend.create(knock(PLANTS, "mine"))
    path.write_text("{oops")
    backend.tick()
    backend.tick()
    store.file.close()
    assert path.read_text() == "{oops"
    kept = json.loads(path.with_name("data.json.kept").read_text())
    assert kept[PLANTS][record.unique_id]["data"] == "mine"
    path.write_bytes(GARDEN.read_bytes())
    assert opened(path).record(PLANTS, record.unique_id) is not None, "the journal brings it into the mended edit"


@pytest.mark.warns("line 1 column 2")
def test_a_mended_edit_is_taken_over(path: Path, backend: Backend) -> None:
    path.write_text("{oops")
    backend.tick()
    backend.tick()
    path.write_text('{"garden/plants": {"new": {"data": "mended"}}}')
    backend.tick()
    assert [record["data"] for record in backend.records(PLANTS)] == ["mended"]


@pytest.mark.warns("'by-hand' is there twice, first at line ")
def test_a_line_copied_by_hand_is_an_edit_that_cannot_be_read(path: Path, store: Store, backend: Backend) -> None:
    store.put_record(PLANTS, record_of("by-hand", 1))
    store.file.save()
    text = path.read_text()
    [line] = [line for line in text.splitlines(True) if '"by-hand": ' in line]
    path.write_text(text.replace(line, line.rstrip("\n") + ",\n" + line.replace('"data":1', '"data":2')))
    twice = path.read_text()
    for _ in range(3):
        backend.tick()
        save_when_quiet(store)
    assert (path.read_text(), backend.records(PLANTS)[-1]["data"]) == (twice, 1)
    path.write_text(text.replace(line, line.replace('"data":1', '"data":2')))
    backend.tick()
    assert backend.records(PLANTS)[-1]["data"] == 2


@pytest.mark.warns("data.json: with what was stored meanwhile: table 'garden/gardeners', 'new': username 'cleo'")
def test_an_edit_that_adds_a_user_who_registered_meanwhile_is_refused(path: Path, backend: Backend) -> None:
    backend.register(knock(GARDENERS, {"username": "cleo", "password": "clover"}))
    edited(path, lambda tree: tree[GARDENERS].update(new={"data": {"username": "cleo"}}))
    backend.tick()
    backend.tick()
    assert len(backend.records(GARDENERS)) == 3


def test_a_user_deleted_over_the_api_still_owns_records_after_a_kill_and_a_start(path: Path, store: Store) -> None:
    served(store).delete(knock(GARDENERS, unique_id=ADA, master_key=MASTER_KEY))
    before = state(store)
    assert ADA in {record.owner for record in store.records(DIARY)}
    killed(store)
    opened(path).file.close()
    assert state(opened(path)) == before


def test_half_an_edit_is_not_reported(path: Path, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    whole = path.read_text()
    path.write_text(whole[:500])
    backend.tick()
    path.write_text(whole.replace("Tomato", "Potato"))
    backend.tick()
    assert "column" not in caplog.text
    assert backend.records(PLANTS)[0]["data"] == {"name": "Potato", "bed": 1, "waterDaily": True}


def test_a_data_file_deleted_by_hand_is_written_again(path: Path, store: Store, backend: Backend) -> None:
    path.unlink()
    backend.tick()
    backend.create(knock(PLANTS, "new"))
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


def test_without_a_watch_an_edit_is_written_over(path: Path) -> None:
    store = opened(path, no_watch=True)
    backend = served(store)
    edited(path, lambda tree: tree.pop(PLANTS))
    backend.tick()
    backend.create(knock(PLANTS, "new"))
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


def test_a_running_emulator_sees_an_edit_by_itself(path: Path) -> None:
    with RestedEmulator(data=path, memory=False) as emulator, open_socket(emulator.ws_url(PLANTS)) as ear:
        edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
        assert json.loads(ear.recv(timeout=10))["record"]["data"] == "by hand"


# What a review found: each of these lost, doubled or spoiled something


def test_a_data_file_deleted_while_all_is_quiet_does_not_cost_the_next_write(
    path: Path, store: Store, backend: Backend
) -> None:
    backend.create(knock(PLANTS, "first"))
    store.file.save()
    path.unlink()
    record = backend.create(knock(PLANTS, "second"))
    killed(store)
    again = opened(path)
    assert again.record(PLANTS, record.unique_id) is not None
    assert len(again.records(PLANTS)) == 5


def test_a_data_file_deleted_by_hand_comes_back_without_a_change(path: Path, store: Store) -> None:
    path.unlink()
    save_when_quiet(store)
    save_when_quiet(store)
    assert len(json.loads(path.read_text())[PLANTS]) == 3


def test_what_was_stored_is_not_lost_to_an_editor_that_moves_the_data_file_away_before_it_writes(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    old = path.read_bytes()
    record = backend.create(knock(PLANTS, "new"))
    save_when_quiet(store)
    path.rename(path.with_name("data.json~"))
    save_when_quiet(store)
    path.write_bytes(old.replace(b"Rosemary", b"Thyme"))
    backend.tick()
    assert record in store.records(PLANTS)
    assert b"Thyme" in store.records(PLANTS).wire


def test_a_deleted_journal_is_made_good_before_anything_else_is_acknowledged(
    path: Path, store: Store, backend: Backend, disk: FaultyDisk
) -> None:
    first = backend.create(knock(PLANTS, "first"))
    path.with_name("data.json.journal").unlink()
    disk.fail("fsync", errno.ENOSPC)
    for _ in range(2):
        with refused(507):
            backend.create(knock(PLANTS, "refused"))
    disk.mend()
    second = backend.create(knock(PLANTS, "second"))
    killed(store)
    kept = {record.unique_id for record in opened(path).records(PLANTS)}
    assert {first.unique_id, second.unique_id} < kept
    assert len(kept) == 5


def test_a_journal_that_somebody_cut_is_made_good_before_anything_else_is_acknowledged(
    path: Path, store: Store, backend: Backend
) -> None:
    backend.create(knock(PLANTS, "first"))
    os.truncate(path.with_name("data.json.journal"), 10)
    backend.create(knock(PLANTS, "second"))
    killed(store)
    assert [record.data for record in opened(path).records(PLANTS)][3:] == ["first", "second"]


def test_a_torn_line_that_could_not_be_taken_back_is_taken_back_later(
    path: Path, store: Store, backend: Backend, disk: FaultyDisk
) -> None:
    backend.create(knock(PLANTS, "first"))
    disk.fail("write", errno.ENOSPC, short=True)
    disk.fail("ftruncate", errno.EIO)
    with refused(507):
        backend.create(knock(PLANTS, "torn"))
    disk.mend()
    backend.create(knock(PLANTS, "second"))
    killed(store)
    assert [record.data for record in opened(path).records(PLANTS)][3:] == ["first", "second"]


@pytest.mark.warns("data.json.kept")
def test_an_unreadable_edit_after_all_was_saved_does_not_cost_the_state(path: Path, store: Store) -> None:
    served(store).create(knock(PLANTS, "saved"))
    store.file.save()
    path.write_text("{oops")
    store.file.close()
    assert len(json.loads(path.with_name("data.json.kept").read_text())[PLANTS]) == 4


@pytest.mark.parametrize("times", [1, 3])
def test_an_edit_the_disk_refuses_to_journal_is_taken_over_later(
    path: Path, store: Store, backend: Backend, disk: FaultyDisk, times: int
) -> None:
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    disk.fail("open", errno.EMFILE)
    for _ in range(times):
        backend.tick()
    assert backend.store.record(PLANTS, "new") is None
    save_when_quiet(store)
    disk.mend()
    backend.tick()
    assert backend.store.record(PLANTS, "new") is not None


def test_an_edit_made_while_the_file_is_being_written_is_not_written_over(
    path: Path, store: Store, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = backend.create(knock(PLANTS, "mine"))

    def fsync(_: int) -> None:
        edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))

    with monkeypatch.context() as during:
        during.setattr(os, "fsync", fsync)
        store.file.save()
    backend.tick()
    store.file.close()
    assert {record.unique_id, "new"} < json.loads(path.read_text())[PLANTS].keys()


@pytest.mark.warns("with what was stored meanwhile")
def test_an_edit_that_does_not_go_together_with_what_was_stored_is_refused(path: Path, backend: Backend) -> None:
    backend.change_endpoint("garden/tools")

    def rename(tree: dict[str, Any]) -> None:
        [project] = tree["_projects"].values()
        tree["_projects"] = {"another": project}
        for endpoint in tree["_endpoints"].values():
            endpoint["project"] = "another"

    edited(path, rename)
    backend.tick()
    backend.tick()
    assert backend.store.endpoint("garden/tools") is not None
    assert {project.key for project in backend.store.projects()} == {KEY}


def test_a_journal_that_does_not_go_together_with_the_data_file_stops_the_start(path: Path) -> None:
    path.with_name("data.json.journal").write_text('[["_endpoints","garden/new",{"project":"unknown"}]]\n')
    with pytest.raises(DataFileError, match="with its journal"):
        opened(path)


def test_the_lock_file_is_gone_before_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def noted(name: str, real: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: (order.append(name), real(*arguments))[1]  # type: ignore[func-returns-value]

    for name in ("unlink", "close"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    store.file.close()
    assert order.index("unlink") < order.index("close")


@pytest.mark.parametrize("options", [{"key": "second"}, {"token_ttl": 1, "data": "no/folder.json"}])
def test_a_start_that_fails_late_leaves_no_lock(path: Path, options: dict[str, Any]) -> None:
    tree = json.loads(path.read_text())
    tree["_projects"]["second"] = {"name": "another"}
    path.write_text(json.dumps(tree))
    with pytest.raises((OptionError, OSError)):
        Server(Options.of(**{"data": path} | options))
    assert [found.name for found in path.parent.iterdir()] == ["data.json"]


@pytest.mark.warns("tokens do not expire")
def test_a_timer_that_the_disk_refuses_is_a_warning(path: Path, disk: FaultyDisk) -> None:
    server = Server(Options.of(data=path, expire_tokens_after=10), StoppedTime())
    server.world.owner.sign_in(GARDENERS, "ada")
    disk.fail("write", errno.ENOSPC)
    assert server.world.states.advance(10)["closed"] == 0
    disk.mend()
    assert server.world.states.advance(10)["closed"] == 0
    server.world.store.file.close()


def test_an_endpoint_that_was_taken_away_does_not_come_back_open(path: Path, store: Store, backend: Backend) -> None:
    backend.change_endpoint("garden/secret", secure=True)
    backend.create(knock("garden/secret", "x", master_key=MASTER_KEY))
    backend.reset()
    store.file.close()
    assert opened(path).endpoint("garden/secret") is None


def test_a_sign_in_the_disk_refuses_half_way_is_none(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear()
    backend.listen(knock(GARDENERS, token=backend.sign_in(GARDENERS, "ada")), ear)
    lines: list[int] = []
    real = os.write

    def write(descriptor: int, line: bytes) -> int:
        lines.append(len(line))
        if len(lines) > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, line)

    monkeypatch.setattr(os, "write", write)
    backend.sign_in(GARDENERS, "cleo")
    assert len(lines) == 1


@pytest.mark.parametrize("verb", [lambda b: b.change_project(key="\ud800"), lambda b: b.sign_in(GARDENERS, "\udcff")])
def test_what_cannot_be_written_as_json_is_a_wrong_argument(path: Path, verb: Callable[[Backend], object]) -> None:
    with pytest.raises(OptionError, match="not UTF-8"):
        verb(served(opened(path)))


# A data file that nothing can replace


def make_irreplaceable(monkeypatch: pytest.MonkeyPatch, number: int, path: Path) -> None:
    """Let the system refuse to replace or delete a file, as it does with a mount point."""

    def refusing(real: Callable[..., None]) -> Callable[..., None]:
        def call(*paths: str) -> None:
            if str(paths[-1]) == str(path):
                raise OSError(number, os.strerror(number), paths[0])
            real(*paths)

        return call

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def write_in_place_by(write: Callable[[io.FileIO, memoryview], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is written into a file that is there, past any buffer, be written so."""
    real = open
    slow = type("File", (io.FileIO,), {"write": write})

    def open_file(path: Any, mode: str = "r", *how: Any, **more: Any) -> Any:
        return slow(path, mode) if mode == "r+b" else real(path, mode, *how, **more)

    monkeypatch.setattr("builtins.open", open_file)


every_refusal = pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])


@every_refusal
@pytest.mark.warns("so it is written in place; if it is mounted by itself, mount its folder")
def test_a_data_file_that_cannot_be_replaced_is_written_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    inode = path.stat().st_ino
    make_irreplaceable(monkeypatch, number, path)
    store = opened(path)
    backend = served(store)
    for text in ("first", "second"):
        backend.create(knock(PLANTS, text))
        store.file.save()
    backend.create(knock(PLANTS, "in a draft"))
    store.file.begin_save()
    save_when_quiet(store)
    backend.tick()
    assert (path.stat().st_ino, os.listdir(path.parent)) == (inode, ["data.json", "data.json.lock"])
    assert "edit" not in caplog.text
    assert caplog.text.count("in place") == 1
    assert_kept(path, store)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.warns("data.json.kept")
def test_what_is_written_beside_a_private_data_file_is_private_too(path: Path) -> None:
    path.chmod(0o600)
    store = opened(path)
    served(store).create(knock(PLANTS, "mine"))
    begin_draft(store).write()
    assert stat.S_IMODE(path.with_name("data.json.draft").stat().st_mode) == 0o600
    path.write_text("{oops")
    store.file.close()
    assert stat.S_IMODE(path.with_name("data.json.kept").stat().st_mode) == 0o600


@every_refusal
@pytest.mark.warns("data.json.kept cannot be replaced", "what the emulator had is in")
def test_what_is_kept_beside_an_edit_is_written_in_place_too(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kept = path.with_name("data.json.kept")
    kept.write_text("of another time")
    make_irreplaceable(monkeypatch, number, kept)
    store = opened(path)
    served(store).create(knock(PLANTS, "mine"))
    path.write_text("{oops")
    store.file.close()
    assert "mine" in kept.read_text()
    assert not path.with_name("data.json.kept.tmp").exists()


@every_refusal
def test_a_journal_that_is_a_mount_point_is_emptied_where_it_stands(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = path.with_name("data.json.journal")
    make_irreplaceable(monkeypatch, number, journal)
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "in the draft"))
    draft = begin_draft(store)
    backend.create(knock(PLANTS, "after it"))
    store.file.end_save(draft, draft.write())
    backend.create(knock(PLANTS, "and on"))
    killed(store)
    again = opened(path)
    assert [record.data for record in again.records(PLANTS)][3:] == ["in the draft", "after it", "and on"]
    again.file.save()
    assert journal.read_bytes() == b""
    again.file.close()


def saved(store: Store, text: str) -> bytes:
    """Save the record of that text; what the data file has then."""
    served(store).update(knock(PLANTS, text, unique_id="tomato"))
    store.file.save()
    return Path(store.file.path).read_bytes()


def text_for(store: Store, size: int) -> str:
    """The text of a record with which the data file has that size."""
    text = ""
    for attempt in range(100):  # the file ends with a sum, which has not always as many digits
        missing = size - len(saved(store, text))
        if not missing:
            return text
        text = f"{attempt:02}".ljust(len(text) + missing, "x")
    raise AssertionError(f"no data file of {size} bytes")


@pytest.mark.parametrize(
    ("old", "new"), [(600, 600), (600, 9000), (9000, 600), (4096, 4096), (4000, 4200), (8192, 8191)]
)
@pytest.mark.warns("so it is written in place")
def test_a_kill_at_any_byte_of_writing_in_place_leaves_the_old_or_the_new(
    path: Path, monkeypatch: pytest.MonkeyPatch, old: int, new: int
) -> None:
    tree = {"_projects": {KEY: {"name": "small"}}, "_endpoints": {}, PLANTS: {"tomato": {"data": ""}}}
    path.write_text(json.dumps(tree))
    store = opened(path)
    texts = text_for(store, new), text_for(store, old)
    after, before = (saved(store, text) for text in texts)
    make_irreplaceable(monkeypatch, errno.EBUSY, path)
    states = {before}

    def write_a_little(file: io.FileIO, content: memoryview) -> int:
        states.add(path.read_bytes())
        # The mark lies in one page, so it is there or not.
        return io.FileIO.write(file, content[: 4096 if bytes(content[:3]) == b"\n//" else 1 + new // 20])

    with monkeypatch.context() as during:
        write_in_place_by(write_a_little, during)
        assert saved(store, texts[0]) == after
    copy = path.with_name("copy.json")
    ends = set()
    for torn in states:
        copy.write_bytes(torn)
        opened(copy).file.close()
        ends.add(copy.read_bytes())
    assert ends == {before, after}


@pytest.mark.warns("so it is written in place")
def test_a_disk_that_is_full_while_writing_in_place_takes_nothing_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_irreplaceable(monkeypatch, errno.EBUSY, path)
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "first"))
    before = path.read_bytes()

    def write_half(file: io.FileIO, content: memoryview) -> int:
        io.FileIO.write(file, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as during:
        write_in_place_by(write_half, during)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            store.file.save()
    assert path.read_bytes() == before
    backend.tick()
    backend.create(knock(PLANTS, "second"))
    store.file.close()
    assert [record.data for record in opened(path).records(PLANTS)][3:] == ["first", "second"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.warns("so it is written in place")
def test_an_edit_amid_writing_in_place_is_not_written_over_and_taken_over_at_the_next_look(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make_irreplaceable(monkeypatch, errno.EBUSY, path)
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "new"))
    draft = begin_draft(store)
    written = draft.write()
    edit = path.read_bytes().replace(b"Tomato", b"Potato, floury")
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == number:
            path.write_bytes(edit)

    with monkeypatch.context() as during:
        during.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="somebody else") if number == 1 else contextlib.nullcontext():
            store.file.end_save(draft, written)
    assert path.read_bytes() == edit
    backend.tick()
    assert b"Potato" in store.records(PLANTS).wire


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.warns("so it is written in place", "amid writing in place")
def test_a_disk_that_fails_over_the_old_content_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    make_irreplaceable(monkeypatch, errno.EBUSY, path)
    store = opened(path)
    backend = served(store)
    record = backend.create(knock(PLANTS, "first"))
    draft = begin_draft(store)
    backend.update(knock(PLANTS, "newer", unique_id=record.unique_id))
    real = os.fsync
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    written = draft.write()
    with monkeypatch.context() as during:
        during.setattr(os, "fsync", fsync)
        store.file.end_save(draft, written)
    with pytest.raises(ValueError, match="Extra data"):
        json.loads(path.read_text())
    if is_killed:
        killed(store)
    else:
        backend.tick()
        store.file.close()
    assert [found.data for found in opened(path).records(PLANTS)][3:] == ["newer"]
    assert json.loads(path.read_text())[PLANTS][record.unique_id]["data"] == "newer"


# An edit that looks like none


def disguised(path: Path) -> bytes:
    """Edit the data file so that size and time of modification stay, as `touch -r` and `cp -p` do."""
    before = path.stat()
    content = path.read_bytes().replace(b"Tomato", b"Potato")
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return content


def hide_edits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk say of every file of that size what it says of this one now, its time of change too."""
    found = path.stat()

    def hiding(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(*arguments: Any, **options: Any) -> os.stat_result:
            status = real(*arguments, **options)
            return found if status.st_size == found.st_size else status

        return look

    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, hiding(getattr(os, name)))


def test_an_edit_that_keeps_size_and_time_is_taken_over(path: Path, backend: Backend) -> None:
    disguised(path)
    backend.tick()
    assert backend.records(PLANTS)[0]["data"]["name"] == "Potato"


@pytest.mark.parametrize("save", [lambda store: store.file.save(), save_when_quiet], ids=["at once", "with a draft"])
def test_an_edit_on_a_disk_that_hides_it_is_seen_before_it_is_written_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Store], None]
) -> None:
    hide_edits(path, monkeypatch)
    store = opened(path)
    backend = served(store)
    content = disguised(path)
    backend.tick()
    record = backend.create(knock(PLANTS, "mine"))
    store.file.begin_save()
    save(store)
    assert path.read_bytes() == content
    monkeypatch.undo()
    backend.tick()
    assert backend.records(PLANTS)[0]["data"]["name"] == "Potato"
    store.file.close()
    assert {record.unique_id} < json.loads(path.read_text())[PLANTS].keys()
    assert "Potato" in path.read_text()


@pytest.mark.warns("data.json.kept")
def test_an_edit_that_is_seen_only_at_the_end_is_not_written_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_edits(path, monkeypatch)
    store = opened(path)
    served(store).create(knock(PLANTS, "mine"))
    content = disguised(path)
    store.file.close()
    assert path.read_bytes() == content
    assert "mine" in path.with_name("data.json.kept").read_text()


TOUCHES: dict[str, Callable[[Path], object]] = {
    "touch": lambda path: os.utime(path),
    "chmod": lambda path: path.chmod(0o600),
    "a hard link": lambda path: os.link(path, path.with_name("link.json")),
    "a copy in its place": lambda path: path.write_bytes(path.read_bytes()),
    "moved and back": lambda path: path.rename(path.with_name("x")).rename(path),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES.keys())
def test_what_leaves_the_content_as_it_is_is_no_edit(
    path: Path, store: Store, backend: Backend, caplog: pytest.LogCaptureFixture, touch: Callable[[Path], object]
) -> None:
    touch(path)
    assert store.file.edit() is None
    backend.create(knock(PLANTS, "new"))
    store.file.close()
    assert "edit" not in caplog.text
    assert len(json.loads(path.read_text())[PLANTS]) == 4


def test_a_look_at_a_data_file_that_nobody_touched_does_not_read_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(store).create(knock(PLANTS, "new"))
    store.file.save()
    for opener in ("builtins.open", "os.open"):
        monkeypatch.setattr(opener, lambda *_, **__: pytest.fail("it was read"))
    assert store.file.edit() is None


@pytest.mark.warns("line 1 column 2", "line 2 column 1")
def test_a_refused_edit_is_in_the_status_until_it_is_mended(path: Path, backend: Backend) -> None:
    def refused() -> Any:
        backend.tick()
        return backend.status()["refusedEdit"]

    original = path.read_bytes()
    assert refused() is None
    path.write_text("{oops")
    assert refused() is None, "an editor may still be writing it"
    for _ in range(2):
        assert f"{path}: line 1 column 2" in refused()
    path.write_text("\noops")
    assert "line 1 column 2" in refused()
    assert "line 2 column 1" in refused()
    path.write_text('{"garden/plants": {"new": {"data": "mended"}}}')
    assert refused() is None
    path.write_text("{oops")
    assert [refused() is None for _ in range(2)] == [True, False]
    path.write_bytes(original)
    assert refused() is None


def test_an_edit_that_may_not_be_read_is_told_once_and_in_the_status(
    path: Path, backend: Backend, caplog: pytest.LogCaptureFixture, disk: FaultyDisk
) -> None:
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    disk.fail("open", errno.EACCES)
    for _ in range(3):
        backend.tick()
        assert os.strerror(errno.EACCES) in str(backend.status()["refusedEdit"])
    assert caplog.text.count("not taken over yet") == 1
    disk.mend()
    backend.tick()
    assert (backend.status()["refusedEdit"], len(backend.records(PLANTS))) == (None, 4)


# What takes the data file's place


def in_its_place(path: Path, what: str) -> None:
    """Move the data file away, and let something else take its place."""
    path.rename(path.with_name("moved.json"))
    match what:
        case "a link to it":
            path.symlink_to(path.with_name("moved.json"))
        case "a link to nothing":
            path.symlink_to(path.with_name("nothing.json"))
        case "a link to itself":
            path.symlink_to(path)
        case "a folder":
            path.mkdir()
        case "a pipe" if hasattr(os, "mkfifo"):
            os.mkfifo(path)
        case "a pipe":
            pytest.skip("this system has no named pipes")


PLACES = {
    "a link to it": "leads to .*moved.json",
    "a link to nothing": "leads to .*nothing.json",
    "a link to itself": "leads to .*data.json",
    "a folder": "is no regular file",
    "a pipe": "is no regular file",
}
every_place = pytest.mark.parametrize("what", PLACES)


@every_place
@pytest.mark.warns("put the data file back", "data.json.kept")
def test_what_takes_the_place_of_the_data_file_is_reported_and_left_alone(
    path: Path, store: Store, backend: Backend, what: str
) -> None:
    original = path.read_bytes()
    in_its_place(path, what)
    kind = stat.S_IFMT(path.lstat().st_mode)
    for number in range(3):
        backend.create(knock(PLANTS, number))
        backend.tick()
        save_when_quiet(store)
    assert re.search(PLACES[what], str(backend.status()["refusedEdit"]))
    store.file.close()
    assert stat.S_IFMT(path.lstat().st_mode) == kind
    assert path.with_name("moved.json").read_bytes() == original
    assert not path.with_name("nothing.json").exists()
    assert len(json.loads(path.with_name("data.json.kept").read_text())[PLANTS]) == 6


@every_place
@pytest.mark.warns("put the data file back")
def test_a_data_file_that_is_put_back_goes_on(path: Path, store: Store, backend: Backend, what: str) -> None:
    in_its_place(path, what)
    for _ in range(2):
        backend.tick()
    backend.create(knock(PLANTS, "meanwhile"))
    path.rmdir() if what == "a folder" else path.unlink()
    path.with_name("moved.json").rename(path)
    backend.tick()
    assert backend.status()["refusedEdit"] is None
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


@every_place
def test_without_a_watch_it_is_not_replaced_either(path: Path, what: str) -> None:
    store = opened(path, no_watch=True)
    served(store).create(knock(PLANTS, "new"))
    in_its_place(path, what)
    kind = stat.S_IFMT(path.lstat().st_mode)
    with pytest.raises(OSError, match="put the data file back"):
        store.file.close()
    assert stat.S_IFMT(path.lstat().st_mode) == kind
    assert path.with_name("data.json.journal").exists()


@pytest.mark.warns("leads to", "data.json.kept")
def test_a_link_that_leads_to_another_file_by_now_is_reported(path: Path) -> None:
    link, other = path.with_name("link.json"), path.with_name("other.json")
    other.write_bytes(GARDEN.read_bytes())
    link.symlink_to(path)
    store = opened(link)
    backend = served(store)
    link.unlink()
    link.symlink_to(other)
    backend.create(knock(PLANTS, "new"))
    for _ in range(2):
        backend.tick()
    store.file.close()
    assert path.read_bytes() == other.read_bytes() == GARDEN.read_bytes()


def test_a_link_that_is_gone_leaves_its_file_in_use(path: Path) -> None:
    link = path.with_name("link.json")
    link.symlink_to(path)
    store = opened(link)
    served(store).create(knock(PLANTS, "new"))
    link.unlink()
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


@pytest.mark.warns("leads to", "data.json.kept")
def test_an_editor_that_puts_a_file_in_the_place_of_a_link_is_reported(path: Path) -> None:
    link = path.with_name("link.json")
    link.symlink_to(path)
    store = opened(link)
    backend = served(store)
    link.unlink()
    link.write_text('{"garden/plants": {}}')
    for _ in range(2):
        backend.tick()
    store.file.close()
    assert link.read_text() == '{"garden/plants": {}}'


def test_a_folder_that_moved_and_left_a_link_is_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = opened(folder / "data.json")
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    served(store).create(knock("examples/unsecure-endpoint", "new", key=SAMPLE_KEY))
    store.file.close()
    assert "new" in (tmp_path / "moved" / "data.json").read_text()
    assert os.listdir(tmp_path / "moved") == ["data.json"]


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_start_with_a_link_names_the_journal_of_the_file_it_was(path: Path, store: Store, is_moved: bool) -> None:
    record = served(store).create(knock(PLANTS, "new"))
    in_its_place(path, "a link to it")
    killed(store)
    with pytest.raises(OptionError, match=r"move that to .*moved\.json\.journal"):
        opened(path)
    if is_moved:
        path.with_name("data.json.journal").rename(path.with_name("moved.json.journal"))
    else:
        path.with_name("data.json.journal").unlink()
    assert (opened(path).record(PLANTS, record.unique_id) is not None) == is_moved


def test_a_relative_name_stands_for_the_same_file_after_a_change_of_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    store = opened(Path("data.json"))
    (path.parent / "other").mkdir()
    monkeypatch.chdir("other")
    Path("data.json").write_text("of somebody else")
    backend = served(store)
    backend.create(knock(PLANTS, "new"))
    backend.tick()
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


# A journal beside another data file


def journal_of(path: Path, *texts: str) -> bytes:
    """The journal that an emulator leaves which was killed after it had stored these."""
    store = opened(path)
    for text in texts:
        served(store).create(knock(PLANTS, text))
    killed(store)
    return path.with_name("data.json.journal").read_bytes()


def test_the_first_line_of_a_journal_says_which_content_it_continues(path: Path) -> None:
    original = path.read_bytes()
    lines = journal_of(path, "one", "two").splitlines()
    assert json.loads(lines[0]) == {"continues": zlib.crc32(original)}
    assert len(lines) == 3, "once is enough"


@pytest.mark.warns("data.json.journal continues another content", "records added: 2, changed: 1, deleted: 1")
def test_a_journal_of_another_data_file_is_brought_in_and_told(path: Path, store: Store, backend: Backend) -> None:
    for text in ("one", "two"):
        backend.create(knock(PLANTS, text))
    backend.delete(knock(PLANTS, unique_id=ROSEMARY))
    backend.update(knock(PLANTS, "changed", unique_id=TOMATO))
    killed(store)
    edited(path, lambda tree: tree[PLANTS].update(other={"data": "of the other"}))
    assert [record.data for record in opened(path).records(PLANTS)][-3:] == ["of the other", "one", "two"]


@pytest.mark.warns("continues another content", "records added: 0, changed: 0, deleted: 0, other lines: 1")
def test_a_journal_of_another_data_file_is_told_where_it_changes_no_record(path: Path) -> None:
    store = opened(path)
    served(store).change_endpoint(PLANTS, secure=True)
    killed(store)
    edited(path, lambda tree: tree[PLANTS].update(other={"data": "of the other"}))
    assert opened(path).require_endpoint(PLANTS).secure


@pytest.mark.warns(
    "continues another content",
    "records added: 1",
    f"endpoints that are not listed, which are open ones now: {PLANTS}",
)
def test_a_record_whose_endpoint_went_with_the_data_file_is_there_at_once_and_after(path: Path) -> None:
    journal_of(path, "one")
    path.unlink()
    store = opened(path)
    assert [endpoint.name for endpoint in store.endpoints()][-1] == PLANTS
    assert [record.data for record in store.records(PLANTS)] == ["one"]
    store.file.close()
    assert opened(path).endpoint(PLANTS) == store.endpoint(PLANTS)


@pytest.mark.warns("data.json is read without", "data.json.journal, which has what was stored last")
@pytest.mark.parametrize("name", ["data", "seed"])
def test_what_is_in_a_journal_alone_is_told_to_be_left_out_where_the_data_file_is_only_read(
    path: Path, name: str
) -> None:
    journal_of(path, "one")
    with RestedEmulator(**{name: path}) as emulator:
        assert len(emulator.records(PLANTS)) == 3


def test_a_journal_that_moves_with_its_data_file_is_brought_in_without_a_word(tmp_path: Path, path: Path) -> None:
    journal_of(path, "one")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("data.json", "data.json.journal"):
        (tmp_path / name).rename(folder / name)
    assert len(opened(folder / "data.json").records(PLANTS)) == 4


def test_a_journal_of_version_0_1_0_is_brought_in_without_a_word(path: Path) -> None:
    _, *lines = journal_of(path, "one").splitlines(keepends=True)
    path.with_name("data.json.journal").write_bytes(b"".join(lines))
    assert len(opened(path).records(PLANTS)) == 4


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_between_the_data_file_and_the_shorter_journal_is_nothing_to_tell(
    path: Path, store: Store, backend: Backend, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    backend.create(knock(PLANTS, "in the draft"))
    draft = begin_draft(store)
    backend.create(knock(PLANTS, "after it"))
    before = state(store)
    journal = str(path if moment == "before" else path.with_name("data.json.journal"))
    real = os.replace

    def replace(source: str, target: str) -> None:
        if target == journal:
            raise KeyboardInterrupt
        real(source, target)

    written = draft.write()
    with monkeypatch.context() as during:
        during.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            store.file.end_save(draft, written)
    assert ("in the draft" in path.read_text()) == (moment == "after")
    for descriptor in (store.file._lock.file, store.file.journal._file):
        with contextlib.suppress(OSError, TypeError):
            os.close(descriptor)  # type: ignore[arg-type]
    assert state(opened(path)) == before


def test_a_kill_after_an_edit_was_taken_over_is_nothing_to_tell(path: Path, store: Store, backend: Backend) -> None:
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    backend.tick()
    backend.create(knock(PLANTS, "after it"))
    assert_kept(path, store)


# Windows, imitated


def served_by(module: Any, path: Path) -> Backend:
    return Backend.of(module.Server(module.Options.of(data=path), StoppedTime()).world)


class WindowsLocks:
    """What Windows' msvcrt offers: bytes of a file that one descriptor has, and others can neither lock nor read."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[tuple[int, int], int] = {}
        self.emulator = emulator_with(monkeypatch, fcntl=None, msvcrt=self)

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        assert count == 1
        assert place[1] > os.fstat(descriptor).st_size + 2**20, "the process id has to be readable"
        if mode == self.LK_UNLCK:
            assert self.held.pop(place) == descriptor
        elif place in self.held:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            self.held[place] = descriptor


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> WindowsLocks:
    """Windows as far as the data file is concerned: other locks, and nothing that is open is replaced or deleted."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("what is open is looked up in /proc")
    locks = WindowsLocks(monkeypatch)

    def refusing(real: Callable[..., None]) -> Callable[..., None]:
        def call(*paths: str) -> None:
            opened_now = set()
            for descriptor in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    opened_now.add(os.readlink(f"/proc/self/fd/{descriptor}"))
            for each in paths:
                if os.path.realpath(each) in opened_now:
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), each)
            real(*paths)

        return call

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    return locks


def test_the_locks_of_windows_keep_a_second_emulator_off(path: Path, windows: WindowsLocks) -> None:
    backend = served_by(windows.emulator, path)
    with pytest.raises(windows.emulator.RestedError, match=f"process {os.getpid()};"):
        served_by(windows.emulator, path)
    assert len(windows.held) == 1
    backend.store.file.close()
    assert windows.held == {}
    served_by(windows.emulator, path).store.file.close()
    assert os.listdir(path.parent) == ["data.json"]


def test_nothing_that_is_open_is_replaced_or_deleted(path: Path, windows: WindowsLocks) -> None:
    backend = served_by(windows.emulator, path)
    store = backend.store
    backend.create(knock(PLANTS, "in the draft"))
    draft = begin_draft(store)
    backend.create(knock(PLANTS, "after it"))
    inode = path.with_name("data.json.journal").stat().st_ino
    store.file.end_save(draft, draft.write())
    assert path.with_name("data.json.journal").stat().st_ino != inode, "it was replaced"
    backend.create(knock(PLANTS, "and on"))
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    backend.tick()
    after = state(store)
    store.file.close()
    assert windows.held == {}
    assert os.listdir(path.parent) == ["data.json"]
    assert state(opened(path)) == after


@pytest.mark.warns("data.json cannot be replaced", "so it is written in place")
def test_a_data_file_that_another_program_has_open_is_written_in_place_on_windows(
    path: Path, windows: WindowsLocks
) -> None:
    backend = served_by(windows.emulator, path)
    backend.create(knock(PLANTS, "new"))
    with path.open():
        backend.store.file.close()
    assert (len(json.loads(path.read_text())[PLANTS]), windows.held) == (4, {})


def test_what_is_written_has_no_other_line_ends_on_windows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = 1 << 30  # no flag of this system
    translating: set[int] = set()
    real_open, real_write = os.open, os.write

    def open_translating(name: str, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = real_open(name, flags & ~binary, mode, **more)
        (translating.discard if flags & binary else translating.add)(descriptor)
        return descriptor

    def write(descriptor: int, content: bytes) -> int:
        if descriptor not in translating:
            return real_write(descriptor, content)
        real_write(descriptor, content.replace(b"\n", b"\r\n"))
        return len(content)

    monkeypatch.setattr(os, "O_BINARY", binary, raising=False)
    monkeypatch.setattr(os, "open", open_translating)
    monkeypatch.setattr(os, "write", write)
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "in the draft"))
    draft = begin_draft(store)
    for text in ("after it", "and on"):
        backend.create(knock(PLANTS, text))
    for name in ("lock", "journal"):
        assert b"\r" not in path.with_name(f"data.json.{name}").read_bytes()
    store.file.end_save(draft, draft.write())
    for number in range(3):
        backend.create(knock(PLANTS, number))
    assert b"\r" not in path.with_name("data.json.journal").read_bytes()
    assert_kept(path, store)
    assert b"\r" not in path.read_bytes()


# Disks that lack something


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
@pytest.mark.warns("the disk has no locks")
def test_a_disk_without_locks_is_told_and_works(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    store = opened(path)
    served(store).create(knock(PLANTS, "new"))
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4
    assert caplog.text.count("no locks") == 1
    assert os.listdir(path.parent) == ["data.json"]


@pytest.mark.warns("the disk has no locks", "no inodes that last")
def test_that_a_disk_has_no_locks_is_told_once_however_often_one_is_tried(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)  # as where no file keeps its inode
    served_by(emulator_with(monkeypatch, fcntl=None), path).store.file.close()  # nor has the system
    assert caplog.text.count("no locks") == 1
    assert os.listdir(path.parent) == ["data.json"]


def test_a_lock_that_fails_for_another_reason_ends_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        opened(path)


@pytest.mark.parametrize("what", ["always another", "none"])
@pytest.mark.warns("no inodes that last")
def test_a_disk_without_inodes_that_last_is_told_once_and_works(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    count = iter(range(10**9))

    def unstable(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(*arguments: Any, **options: Any) -> os.stat_result:
            found = real(*arguments, **options)
            inode = 0 if what == "none" else 10**6 + next(count)
            times = {name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns")}
            return os.stat_result((found[0], inode, *found[2:10]), times)

        return look

    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, unstable(getattr(os, name)))
    store = opened(path)
    backend = served(store)
    for number in range(3):
        backend.create(knock(PLANTS, number))
        backend.tick()
        store.file.begin_save()
        save_when_quiet(store)
        backend.tick()
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    backend.tick()
    assert len(backend.records(PLANTS)) == 7
    store.file.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 7
    assert caplog.text.count("no inodes") == 1
