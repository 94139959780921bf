"""The journal: what was acknowledged survives, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB

import rested_emulator
from rested_emulator import (
    SAMPLE_TIME,
    Clock,
    DataFileError,
    Gate,
    InUseError,
    NotStored,
    OptionError,
    Options,
    Record,
    RestedEmulator,
    Server,
    Store,
    open_store,
    pack_document,
    schedule,
    timestamp,
)
from tests.conftest import (
    ADA,
    GARDEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    NOON,
    PLANTS,
    PUMPKIN,
    ROSEMARY,
    TOMATO,
    Backend,
    Ear,
    StoppedTime,
    knock,
)
from tests.wire import call, open_socket


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
    storage = store._storage
    for descriptor in (storage._lock, storage._journal):
        if descriptor is not None:
            os.close(descriptor)


def save_when_quiet(store: Store) -> None:
    """What the server does twice a second, with the writing in a thread of its own."""
    draft = store.begin_save()
    if draft:
        store.end_save(draft, draft.write())


def served(store: Store) -> Backend:
    return Backend(store, Clock(StoppedTime()), Gate())


def state(store: Store) -> dict[str, Any]:
    """All that is in the tables, in its order and as a data file has it."""
    return {
        name: [(key, json.loads(pack_document(document))) for key, document in table.items()]
        for name, table in store._storage.tables.items()
        if table
    }


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
    "reset": lambda backend: (backend.delete(knock(PLANTS, unique_id=TOMATO)), backend.reset()),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


# After a kill


@every_verb
def test_what_was_done_before_a_kill_is_there_after(path: Path, verb: Callable[[Backend], object]) -> None:
    store = opened(path)
    verb(served(store))
    before = state(store)
    killed(store)
    assert state(opened(path)) == before


@pytest.mark.parametrize("first", [TOMATO, ROSEMARY, PUMPKIN])
@pytest.mark.parametrize("second", [TOMATO, ROSEMARY, PUMPKIN])
def test_a_record_that_had_come_back_to_its_place_is_there_after_a_kill_whatever_went_since(
    path: Path, first: str, second: str
) -> None:
    store = opened(path)
    backend = served(store)
    backend.begin()
    backend.delete(knock(PLANTS, unique_id=first))
    backend.reset()
    backend.delete(knock(PLANTS, unique_id=second))
    before = state(store)
    killed(store)
    assert state(opened(path)) == before
    assert len(before[PLANTS]) == 2


@every_verb
def test_after_the_next_start_the_data_file_is_whole_and_the_journal_gone(
    path: Path, verb: Callable[[Backend], object]
) -> None:
    store = opened(path)
    verb(served(store))
    killed(store)
    again = opened(path)
    with TinyDB(path) as database:
        tree = database.storage.read()
        del tree["_written"]
        assert {name: list(table.items()) for name, table in tree.items() if table} == state(again)
    assert not path.with_name("data.json.journal").exists()


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
    path: Path, caplog: pytest.LogCaptureFixture, verb: Callable[[Backend], object]
) -> None:
    store = opened(path)
    verb(served(store))
    before = state(store)
    store.close()
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    again = opened(path)
    assert {name: [key for key, _ in table] for name, table in state(again).items() if name != "_sessions"} == {
        name: [key for key, _ in table] for name, table in before.items() if name != "_sessions"
    }
    again.close()
    caplog.clear()  # of sessions and owners that are dropped


def test_a_kill_at_any_byte_of_the_last_line_takes_that_verb_alone(path: Path) -> None:
    store = opened(path)
    backend = served(store)
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


def test_a_journal_left_behind_by_a_kill_between_file_and_journal_does_no_harm(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    record = backend.create(knock(PLANTS, "one"))
    backend.delete(knock(PLANTS, unique_id=record.unique_id))
    backend.update(knock(PLANTS, "two", unique_id=ROSEMARY))
    journal = path.with_name("data.json.journal")
    left = journal.read_bytes()
    store.close()
    journal.write_bytes(left)
    assert state(opened(path)) == state(store)


# When the data file is written


def test_the_data_file_is_written_when_things_are_quiet(path: Path) -> None:
    store = opened(path)
    before = path.read_bytes()
    served(store).create(knock(PLANTS, "new"))
    save_when_quiet(store)
    assert path.read_bytes() == before
    save_when_quiet(store)
    assert path.read_bytes() != before
    assert not path.with_name("data.json.journal").exists()


def test_the_data_file_is_written_when_the_journal_has_outgrown_it(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    for number in range(3):
        assert path.stat().st_size < 100_000, number
        backend.update(knock(PLANTS, "x" * 500_000, unique_id=TOMATO))
        save_when_quiet(store)
    assert path.stat().st_size > 500_000
    assert not path.with_name("data.json.journal").exists()


def test_what_changes_while_a_draft_is_written_stays_in_the_journal(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "in the draft"))
    assert store.begin_save() is None, "things are not quiet yet"
    draft = store.begin_save()
    assert draft
    backend.create(knock(PLANTS, "after it"))
    store.end_save(draft, draft.write())
    assert "in the draft" in path.read_text()
    journal = path.with_name("data.json.journal").read_text()
    assert ("in the draft" in journal, "after it" in journal) == (False, True)
    backend.create(knock(PLANTS, "and on"))
    before = state(store)
    killed(store)
    assert state(opened(path)) == before


@pytest.mark.parametrize("name", ["replace", "write", "open"])
def test_a_draft_the_disk_refuses_to_take_loses_nothing(path: Path, disk: FaultyDisk, name: str) -> None:
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "in the draft"))
    store.begin_save()
    draft = store.begin_save()
    assert draft
    stamp = draft.write()
    backend.create(knock(PLANTS, "after it"))
    before = state(store)
    disk.fail(name, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        store.end_save(draft, stamp)
    disk.mend()
    backend.delete(knock(PLANTS, unique_id=backend.create(knock(PLANTS, "gone")).unique_id))
    killed(store)
    assert state(opened(path)) == before


def test_a_draft_that_was_overtaken_is_thrown_away(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "old"))
    store.begin_save()
    draft = store.begin_save()
    assert draft
    backend.create(knock(PLANTS, "new"))
    store.save()
    store.end_save(draft, draft.write())
    assert "new" in path.read_text()
    assert not path.with_name("data.json.draft").exists()


def test_what_a_killed_emulator_left_beside_the_data_file_is_cleared_away(path: Path) -> None:
    for name in ("data.json.tmp", "data.json.draft", "data.json.journal.tmp"):
        path.with_name(name).write_text("{")
    opened(path).close()
    assert [found.name for found in path.parent.iterdir()] == ["data.json"]


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
        with pytest.raises(InUseError, match=rf"data\.json is in use by another emulator, process {os.getpid()}"):
            opened(name)
    store.close()
    opened(path).close()
    assert {found.name for found in tmp_path.iterdir()} == {"data.json", "link.json"}


def test_a_lock_left_by_a_kill_is_no_lock(path: Path) -> None:
    killed(opened(path))
    assert path.with_name("data.json.lock").exists()
    opened(path).close()


def test_a_start_that_fails_leaves_no_lock(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(DataFileError):
        opened(path)
    path.write_bytes(GARDEN.read_bytes())
    with RestedEmulator(data=path, memory=False) as emulator, pytest.raises(OSError, match="in use"):
        RestedEmulator(data=path.with_name("other.json"), memory=False, port=emulator.facts["port"]).start()
    opened(path.with_name("other.json")).close()


# A disk that refuses


class FaultyDisk:
    """The system's calls, of which one fails once it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._failing: dict[str, int] = {}
        self._short = False
        self._order: list[str] | None = None
        monkeypatch.setattr(rested_emulator, "os", self)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if self._order is not None and name in ("unlink", "close"):
            self._order.append(name)
        if name not in self._failing:
            return real

        def fail(*arguments: Any) -> Any:
            if name == "write" and self._short:
                return real(arguments[0], arguments[1][:10])
            raise OSError(self._failing[name], os.strerror(self._failing[name]))

        return fail

    def fail(self, name: str, number: int, *, short: bool = False) -> None:
        self._failing[name], self._short = number, short

    def mend(self) -> None:
        self._failing.clear()

    def watch(self, order: list[str]) -> None:
        """Note the names of calls that take away or close something."""
        self._order = order


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyDisk]:
    disk = FaultyDisk(monkeypatch)
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
    path: Path, disk: FaultyDisk, verb: Callable[[Backend], object], name: str, number: int, short: bool
) -> None:
    store = opened(path)
    backend = served(store)
    before, ear = state(store), Ear()
    backend.listen(knock(PLANTS), ear)
    disk.fail(name, number, short=short)
    with pytest.raises(NotStored) as refusal:
        verb(backend)
    assert refusal.value.status == 507
    assert os.strerror(number) in refusal.value.hint
    assert (ear.heard, ear.ended) == ([], None)
    assert state(store) == before
    assert len(backend.records(PLANTS)) == 3
    disk.mend()
    verb(backend)
    after = state(store)
    killed(store)
    assert state(opened(path)) == after


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_data_file_that_cannot_be_written_stays_as_it_was_and_the_journal_has_the_rest(
    path: Path, disk: FaultyDisk, name: str, number: int
) -> None:
    store = opened(path)
    before = path.read_bytes()
    served(store).create(knock(PLANTS, "new"))
    disk.fail(name, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        store.save()
    assert path.read_bytes() == before
    assert not path.with_name("data.json.tmp").exists()
    served(store).create(knock(PLANTS, "newer"))
    after = state(store)
    killed(store)
    disk.mend()
    assert state(opened(path)) == after


def test_a_journal_that_cannot_be_taken_away_does_no_harm(path: Path, disk: FaultyDisk) -> None:
    store = opened(path)
    served(store).create(knock(PLANTS, "new"))
    disk.fail("unlink", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        store.save()
    disk.mend()
    after = state(store)
    killed(store)
    assert state(opened(path)) == after


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


def test_an_edit_and_what_was_stored_meanwhile_are_both_kept(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    record = backend.create(knock(PLANTS, "meanwhile"))
    edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
    backend.tick()
    store.close()
    assert {TOMATO, record.unique_id, "new"} <= json.loads(path.read_text())[PLANTS].keys()


def test_an_edit_of_options_ends_the_sockets_of_that_endpoint(path: Path) -> None:
    backend, ear, other = served(opened(path)), Ear(), Ear()
    backend.listen(knock(PLANTS), ear)
    backend.change_endpoint("garden/tools")
    backend.listen(knock("garden/tools"), other)
    edited(path, lambda tree: tree["_endpoints"][PLANTS].update(secure=True))
    backend.tick()
    assert ear.ended == (1000, "Options of the endpoint are changed.")
    assert other.ended is None


def test_an_edit_that_takes_a_session_away_ends_its_sockets(path: Path) -> None:
    store = opened(path)
    backend, ear = served(store), Ear()
    backend.listen(knock(GARDENERS, token=backend.sign_in(GARDENERS, "ada")), ear)
    store.save()
    edited(path, lambda tree: tree["_sessions"].clear())
    backend.tick()
    assert ear.ended == (1000, "Access token expired.")


def test_an_edit_that_lets_a_session_expire_ends_its_sockets(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    token, ear = backend.sign_in(GARDENERS, "ada"), Ear()
    store.save()
    backend.listen(knock(GARDENERS, token=token), ear)
    edited(path, lambda tree: tree["_sessions"][token].update(expiresAt="2020-01-01T00:00:00.000Z"))
    backend.tick()
    assert ear.ended == (1000, "Access token expired.")


def test_an_edit_that_moves_the_expiry_of_a_session_moves_that_of_its_sockets(path: Path) -> None:
    store = opened(path)
    backend, ear = served(store), Ear()
    token = backend.sign_in(GARDENERS, "ada")
    store.save()
    backend.listen(knock(GARDENERS, token=token), ear)
    edited(path, lambda tree: tree["_sessions"][token].update(expiresAt=timestamp(NOON + 60)))
    backend.tick()
    backend.advance(59)
    assert ear.ended is None
    backend.advance(1)
    assert ear.ended == (1000, "Access token expired.")


def test_our_own_writing_is_no_edit(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(path)
    backend = served(store)
    for number in range(3):
        backend.create(knock(PLANTS, number))
        store.save()
        backend.tick()
    assert "edit" not in caplog.text


def test_an_edit_without_a_difference_is_left_as_it_is_written(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    edited(path, lambda tree: tree)
    text = path.read_text()
    backend.tick()
    save_when_quiet(store)
    store.close()
    assert path.read_text() == text
    assert [found.name for found in path.parent.iterdir()] == ["data.json"]


@pytest.mark.warns("line 1 column 2")
def test_an_edit_that_cannot_be_read_is_reported_once_and_nothing_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(path)
    backend = served(store)
    path.write_text("{oops")
    for number in range(4):
        backend.create(knock(PLANTS, number))
        backend.tick()
        save_when_quiet(store)
    assert caplog.text.count("line 1 column 2") == 1
    assert len(backend.records(PLANTS)) == 7
    assert path.read_text() == "{oops"


@pytest.mark.warns("line 1 column 2", "data.json.kept")
def test_beside_an_unreadable_edit_the_emulators_own_state_is_kept_when_it_stops(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    record = backend.create(knock(PLANTS, "mine"))
    path.write_text("{oops")
    backend.tick()
    backend.tick()
    store.close()
    assert path.read_text() == "{oops"
    kept = json.loads(path.with_name("data.json.kept").read_text())
    assert kept[PLANTS][record.unique_id]["data"] == "mine"
    path.write_bytes(GARDEN.read_bytes())
    assert opened(path).record(PLANTS, record.unique_id) is not None, "the journal brings it into the mended edit"


@pytest.mark.warns("line 1 column 2")
def test_a_mended_edit_is_taken_over(path: Path) -> None:
    backend = served(opened(path))
    path.write_text("{oops")
    backend.tick()
    backend.tick()
    path.write_text('{"garden/plants": {"new": {"data": "mended"}}}')
    backend.tick()
    assert [record["data"] for record in backend.records(PLANTS)] == ["mended"]


@pytest.mark.warns("'by-hand' is there twice, first at line ")
def test_a_line_copied_by_hand_is_an_edit_that_cannot_be_read(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    store.put_record(PLANTS, Record.of("by-hand", b"1", SAMPLE_TIME, SAMPLE_TIME))
    store.save()
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


@pytest.mark.warns("with what was stored meanwhile: table 'garden/gardeners', 'new': username 'cleo' is that of '")
def test_an_edit_that_adds_a_user_who_registered_meanwhile_is_refused(path: Path) -> None:
    backend = served(opened(path))
    backend.register(knock(GARDENERS, {"username": "cleo", "password": "clover"}))
    edited(path, lambda tree: tree[GARDENERS].update(new={"data": {"username": "cleo"}}))
    backend.tick()
    backend.tick()
    assert len(backend.records(GARDENERS)) == 3


def test_a_user_deleted_over_the_api_still_owns_records_after_a_kill_and_a_start(path: Path) -> None:
    store = opened(path)
    served(store).delete(knock(GARDENERS, unique_id=ADA, master_key=MASTER_KEY))
    before = state(store)
    assert any(document.get("owner") == ADA for table in before.values() for _, document in table)
    killed(store)
    opened(path).close()
    assert state(opened(path)) == before


def test_half_an_edit_is_not_reported(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = served(opened(path))
    whole = path.read_text()
    path.write_text(whole[:500])
    backend.tick()
    path.write_text(whole.replace("Tomato", "Potato"))
    backend.tick()
    assert "line" not in caplog.text
    assert backend.records(PLANTS)[0]["data"] == {"name": "Potato", "bed": 1, "waterDaily": True}


def test_a_data_file_deleted_by_hand_is_written_again(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    path.unlink()
    backend.tick()
    backend.create(knock(PLANTS, "new"))
    store.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


def test_without_a_watch_an_edit_is_written_over(path: Path) -> None:
    store = opened(path, no_watch=True)
    backend = served(store)
    edited(path, lambda tree: tree.pop(PLANTS))
    backend.tick()
    backend.create(knock(PLANTS, "new"))
    store.close()
    assert len(json.loads(path.read_text())[PLANTS]) == 4


def test_a_running_emulator_sees_an_edit_by_itself(path: Path) -> None:
    with RestedEmulator(data=path, memory=False) as emulator, open_socket(emulator.ws_url(PLANTS)) as ear:
        edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))
        assert json.loads(ear.recv(timeout=10))["record"]["data"] == "by hand"


# What a review found: each of these lost, doubled or spoiled something


def test_a_data_file_deleted_while_all_is_quiet_does_not_cost_the_next_write(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "first"))
    store.save()
    path.unlink()
    record = backend.create(knock(PLANTS, "second"))
    killed(store)
    again = opened(path)
    assert again.record(PLANTS, record.unique_id) is not None
    assert len(again.records(PLANTS)) == 5


def test_a_data_file_deleted_by_hand_comes_back_without_a_change(path: Path) -> None:
    store = opened(path)
    path.unlink()
    save_when_quiet(store)
    save_when_quiet(store)
    assert len(json.loads(path.read_text())[PLANTS]) == 3


def test_a_deleted_journal_is_made_good_before_anything_else_is_acknowledged(path: Path, disk: FaultyDisk) -> None:
    store = opened(path)
    backend = served(store)
    first = backend.create(knock(PLANTS, "first"))
    path.with_name("data.json.journal").unlink()
    disk.fail("fsync", errno.ENOSPC)
    for _ in range(2):
        with pytest.raises(NotStored):
            backend.create(knock(PLANTS, "refused"))
    disk.mend()
    second = backend.create(knock(PLANTS, "second"))
    killed(store)
    kept = {record.unique_id for record in opened(path).records(PLANTS)}
    assert {first.unique_id, second.unique_id} < kept
    assert len(kept) == 5


def test_a_torn_line_that_could_not_be_taken_back_is_taken_back_later(path: Path, disk: FaultyDisk) -> None:
    store = opened(path)
    backend = served(store)
    backend.create(knock(PLANTS, "first"))
    disk.fail("write", errno.ENOSPC, short=True)
    disk.fail("ftruncate", errno.EIO, short=True)
    with pytest.raises(NotStored):
        backend.create(knock(PLANTS, "torn"))
    disk.mend()
    backend.create(knock(PLANTS, "second"))
    killed(store)
    assert [record.data for record in opened(path).records(PLANTS)][3:] == ["first", "second"]


@pytest.mark.warns("data.json.kept")
def test_an_unreadable_edit_after_all_was_saved_does_not_cost_the_state(path: Path) -> None:
    store = opened(path)
    served(store).create(knock(PLANTS, "saved"))
    store.save()
    path.write_text("{oops")
    store.close()
    assert len(json.loads(path.with_name("data.json.kept").read_text())[PLANTS]) == 4


@pytest.mark.parametrize("times", [1, 3])
def test_an_edit_the_disk_refuses_to_journal_is_taken_over_later(path: Path, disk: FaultyDisk, times: int) -> None:
    store = opened(path)
    backend = served(store)
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
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(path)
    backend = served(store)
    record = backend.create(knock(PLANTS, "mine"))

    def fsync(_: int) -> None:
        edited(path, lambda tree: tree[PLANTS].update(new={"data": "by hand"}))

    with monkeypatch.context() as during:
        during.setattr(os, "fsync", fsync)
        store.save()
    backend.tick()
    store.close()
    assert {record.unique_id, "new"} < json.loads(path.read_text())[PLANTS].keys()


@pytest.mark.warns("with what was stored meanwhile")
def test_an_edit_that_does_not_go_together_with_what_was_stored_is_refused(path: Path) -> None:
    store = opened(path)
    backend = served(store)
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


def test_the_lock_file_is_gone_before_the_lock(path: Path, disk: FaultyDisk) -> None:
    store = opened(path)
    order: list[str] = []
    disk.watch(order)
    store.close()
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
    schedule(server.world, server.options)
    server.world.owner.sign_in(GARDENERS, "ada")
    disk.fail("write", errno.ENOSPC)
    assert server.world.owner.advance(10)["closed"] == 0
    disk.mend()
    assert server.world.owner.advance(10)["closed"] == 0
    server.world.store.close()


def test_an_endpoint_that_was_taken_away_does_not_come_back_open(path: Path) -> None:
    store = opened(path)
    backend = served(store)
    backend.change_endpoint("garden/secret", secure=True)
    backend.create(knock("garden/secret", "x", master_key=MASTER_KEY))
    backend.reset()
    store.close()
    assert opened(path).endpoint("garden/secret") is None


def test_a_sign_in_the_disk_refuses_half_way_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = served(opened(path))
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


@pytest.mark.warns("dropped what belonged to users who are not there, sessions: 1, owners of records: 2")
def test_a_user_deleted_by_hand_loses_their_sockets(path: Path) -> None:
    store = opened(path)
    backend, ear = served(store), Ear()
    backend.listen(knock(PLANTS.replace("plants", "diary"), token=backend.sign_in(GARDENERS, "ada")), ear)
    store.save()
    edited(path, lambda tree: tree[GARDENERS].pop(ADA))
    backend.tick()
    assert ear.ended == (1000, "Access token expired.")


@pytest.mark.parametrize("verb", [lambda b: b.change_project(key="\ud800"), lambda b: b.sign_in(GARDENERS, "\udcff")])
def test_what_cannot_be_written_as_json_is_a_wrong_argument(path: Path, verb: Callable[[Backend], object]) -> None:
    with pytest.raises(OptionError, match="not UTF-8"):
        verb(served(opened(path)))
