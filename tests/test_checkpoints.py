"""Checkpoints: everything goes back, sockets stay and hear the difference, and what it costs (design 4)."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rested_emulator import Clock, Files, Gate, JsonFile, OptionError, RestedEmulator, Store
from tests.conftest import (
    ADA,
    DIARY,
    DIARY_OF_ADA,
    GARDENERS,
    KEY,
    NOON,
    PLANTS,
    PUMPKIN,
    ROSEMARY,
    TOMATO,
    Backend,
    Ear,
    iso,
    knock,
    packed,
    record_of,
)
from tests.wire import CHANGED, EXPIRED, call

Listen = Callable[..., Ear]
NOTES, OTHERS = "some/notes", "other/notes"


def data_of(backend: Backend, endpoint: str) -> list[Any]:
    return [record["data"] for record in backend.records(endpoint)]


def everything(backend: Backend) -> Any:
    """All there is to go back to."""
    status = {
        name: value
        for name, value in backend.status().items()
        if name not in ("uptime", "listeners", "checkpoints", "undo")
    }
    status["projects"] = json.loads(json.dumps(status["projects"]).replace('"listeners": 1', '"listeners": 0'))
    return status, {item.name: backend.records(item.name) for item in backend.store.endpoints()}, backend.mails()


CHANGES: dict[str, Callable[[Backend], object]] = {
    "a record is created": lambda backend: backend.create(knock(PLANTS, {"name": "Leek"})),
    "a record is updated": lambda backend: backend.update(knock(PLANTS, {"name": "Leek"}, unique_id=TOMATO)),
    "the first record is deleted": lambda backend: backend.delete(knock(PLANTS, unique_id=TOMATO)),
    "the last record is deleted": lambda backend: backend.delete(knock(PLANTS, unique_id=PUMPKIN)),
    "a user registers": lambda backend: backend.register(knock(GARDENERS, {"username": "eve", "password": "x"})),
    "a user signs in": lambda backend: backend.sign_in(GARDENERS, "ada"),
    "tokens expire": lambda backend: backend.expire_tokens(),
    "an endpoint changes": lambda backend: backend.change_endpoint(PLANTS, secure=True, description="locked"),
    "an endpoint is made": lambda backend: backend.change_endpoint("another/one"),
    "an endpoint is deleted": lambda backend: backend.delete_endpoint(PLANTS),
    "the project changes": lambda backend: backend.change_project(name="other name", allowed_origins=["http://a.b"]),
    "the key changes": lambda backend: backend.change_project(key="another key"),
    "time passes": lambda backend: backend.advance(1000),
    "the time is set": lambda backend: backend.set_time("2035-01-01"),
    "the clock stands": lambda backend: backend.freeze(),
    "a reset mail is sent": lambda backend: send_mail(backend),
}


def send_mail(backend: Backend) -> None:
    backend.change_project(reset_templates={"welcome": "{{verificationtoken}}"})
    backend.register(knock(GARDENERS, {"email": "a@b.c", "password": "x"}))
    backend.send_reset(knock(GARDENERS, {"email": "a@b.c", "templateName": "welcome"}))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("ada")
def test_restore_goes_back_whatever_has_changed(backend: Backend, change: str) -> None:
    backend.advance(5)
    backend.create(knock(PLANTS, {"name": "made before"}))
    before = everything(backend)
    backend.checkpoint("here")
    CHANGES[change](backend)
    backend.restore("here")
    assert everything(backend) == before


@pytest.mark.parametrize("change", CHANGES)
def test_restore_goes_forward_to_a_later_checkpoint(backend: Backend, change: str) -> None:
    backend.checkpoint("before")
    CHANGES[change](backend)
    after = everything(backend)
    backend.checkpoint("after")
    backend.restore("before")
    assert backend.restore("after") is not None
    assert everything(backend) == after


def test_all_changes_together_are_undone_by_reset(backend: Backend) -> None:
    before = everything(backend)
    for name, change in CHANGES.items():
        if name not in ("the key changes", "an endpoint is deleted", "an endpoint changes"):
            change(backend)
    backend.reset()
    assert everything(backend) == before


def test_a_socket_hears_the_difference_and_the_answer_counts_it(backend: Backend, listen: Listen) -> None:
    backend.checkpoint("here")
    made = backend.create(knock(PLANTS, "new"))
    backend.update(knock(PLANTS, "changed", unique_id=PUMPKIN))
    backend.delete(knock(PLANTS, unique_id=TOMATO))
    ear = listen(PLANTS)
    assert backend.restore("here") == {"messages": 3, "closed": 0}
    assert [(message["type"], message["record"]["uniqueId"]) for message in ear.heard] == [
        ("DELETE", made.unique_id),
        ("POST", TOMATO),
        ("PUT", PUMPKIN),
    ]
    assert ear.ended is None


def test_a_token_made_since_ends_and_one_that_was_revoked_is_back(backend: Backend, ada: str, listen: Listen) -> None:
    backend.checkpoint("here")
    backend.expire_tokens(token=ada)
    late = backend.sign_in(GARDENERS, "ben")
    ear = listen(DIARY, token=late)
    assert backend.restore("here")["closed"] == 1
    assert ear.ended == EXPIRED
    listen(DIARY, token=ada)


def test_what_is_due_later_stays_as_far_away(backend: Backend, ada: str, listen: Listen) -> None:
    ear = listen(DIARY, token=ada)
    backend.checkpoint("here")
    backend.advance(3000)
    backend.restore("here")
    backend.advance(3599)
    assert ear.ended is None
    backend.advance(1)
    assert ear.ended == EXPIRED


def test_a_socket_ends_when_its_token_expires_now_not_when_it_would_have_at_its_opening(
    backend: Backend, ada: str, listen: Listen
) -> None:
    backend.checkpoint("before")
    backend.expire_tokens()
    backend.set_time(iso(NOON - 60))
    ear = listen(DIARY, token=ada)
    backend.restore("before")
    backend.advance(3599)
    assert ear.ended is None, "its token is valid again, and so is the socket"
    backend.advance(1)
    assert ear.ended == EXPIRED


def test_a_restore_that_goes_forward_in_time_ends_what_has_expired_by_then(
    backend: Backend, ada: str, listen: Listen
) -> None:
    backend.checkpoint("early")
    backend.advance(7200)
    backend.checkpoint("late")
    backend.restore("early")
    ear = listen(DIARY, token=ada)
    assert backend.restore("late") == {"messages": 0, "closed": 1}
    assert ear.ended == EXPIRED


@pytest.mark.parametrize("name", ["", "no such"])
def test_restore_wants_a_name_that_was_given(backend: Backend, name: str) -> None:
    backend.checkpoint("one")
    with pytest.raises(OptionError, match="there are: one"):
        backend.restore(name)


def test_a_checkpoint_without_a_name_is_refused(backend: Backend) -> None:
    with pytest.raises(OptionError, match="empty"):
        backend.checkpoint("")


@pytest.mark.parametrize("name", ["a b", "ä/ö?", "a" * 10_000, "_projects"])
def test_a_checkpoint_takes_any_other_name(backend: Backend, name: str) -> None:
    assert backend.checkpoint(name) == {"name": name, "checkpoints": [name]}
    assert backend.restore(name) == {"messages": 0, "closed": 0}


def test_there_is_an_end_to_checkpoints(backend: Backend) -> None:
    for number in range(1000):
        backend.checkpoint(f"number {number}")
    with pytest.raises(OptionError, match="enough"):
        backend.checkpoint("one more")
    backend.checkpoint("number 7")  # anew


def test_a_checkpoint_given_anew_forgets_the_old_state(backend: Backend) -> None:
    backend.checkpoint("here")
    backend.create(knock(PLANTS, "kept"))
    backend.checkpoint("here")
    backend.create(knock(PLANTS, "not kept"))
    backend.restore("here")
    assert data_of(backend, PLANTS)[3:] == ["kept"]
    backend.reset()
    assert len(data_of(backend, PLANTS)) == 3


def test_a_reset_leaves_checkpoints_to_go_back_to(backend: Backend) -> None:
    backend.create(knock(PLANTS, "kept"))
    backend.checkpoint("here")
    backend.reset()
    backend.restore("here")
    assert data_of(backend, PLANTS)[3:] == ["kept"]


# Against a model


def note(number: int) -> Any:
    return record_of(f"id{number}", number, "2027-01-15T08:00:00.000Z")


def small_store() -> Store:
    return Store(JsonFile(None, {"_projects": {KEY: {"name": "small"}}, "_endpoints": {}}))


Model = dict[str, dict[str, Any]]


def content(store: Store) -> Model:
    return {name: dict(store._documents(name)) for name in (NOTES, OTHERS) if store.count(name)}


def copy_of(model: Model) -> Model:
    return {name: dict(table) for name, table in model.items() if table}


@pytest.mark.parametrize("seed", range(60))
def test_random_changes_and_checkpoints_are_as_with_copies_of_everything(seed: int) -> None:
    """Records, their order, and which files are let go, compared with a model that copies all at every checkpoint."""
    rng, store = random.Random(seed), small_store()
    store.checkpoint()
    model: Model = {NOTES: {}, OTHERS: {}}
    kept: dict[str, Model] = {"": copy_of(model)}
    numbers = iter(range(10_000))
    for _ in range(150):
        name, action = rng.choice((NOTES, OTHERS)), rng.randrange(20)
        table = model.setdefault(name, {})
        if action < 7 or not table:
            record = note(next(numbers) if rng.random() < 0.7 else rng.randrange(8))
            store.put_record(name, record)
            table[record.unique_id] = record
        elif action < 11:
            chosen = rng.choice(list(table))
            table[chosen] = table[chosen].with_data(packed(next(numbers)))
            store.put_record(name, table[chosen])
        elif action < 15:
            chosen = rng.choice(list(table))
            del table[chosen]
            store.drop_record(name, chosen)
        elif action == 15 and rng.random() < 0.3:
            table.clear()
            store.drop_endpoint(name)
        elif action < 18:
            mark = rng.choice("abc")
            store.checkpoint(mark)
            kept[mark] = copy_of(model)
        else:
            mark = rng.choice(list(kept))
            before = copy_of(model)
            changes = store.restore(mark)
            model = copy_of(kept[mark])
            assert replay(before, changes) == {name: set(table.items()) for name, table in model.items()}
        assert {name: list(table.items()) for name, table in content(store).items()} == {
            name: list(table.items()) for name, table in copy_of(model).items()
        }
    for mark, wanted in kept.items():
        store.restore(mark)
        assert {name: list(table.items()) for name, table in content(store).items()} == {
            name: list(table.items()) for name, table in wanted.items()
        }


def replay(before: Model, changes: list[tuple[str, Any]]) -> dict[str, set[tuple[str, Any]]]:
    """What a page shows that had everything on screen and hears of the changes."""
    for name, change in changes:
        table = before.setdefault(name, {})
        assert (change.type == "POST") == (change.record.unique_id not in table)
        if change.type == "DELETE":
            del table[change.record.unique_id]
        else:
            table[change.record.unique_id] = change.record
    return {name: set(table.items()) for name, table in before.items() if table}


@pytest.mark.parametrize("names", ["a", "ab", "abc", ""])
def test_what_came_and_went_leaves_nothing_to_go_back(names: str) -> None:
    store = small_store()
    store.checkpoint()
    store.put_record(NOTES, note(1))
    for number in range(10, 400):
        store.put_record(NOTES, note(number))
        store.put_record(f"endpoint/{number}", note(1))
        if names:
            store.checkpoint(names[number % len(names)])
        store.drop_record(NOTES, note(number).unique_id)
        store.drop_endpoint(f"endpoint/{number}")
    assert [change.type for _, change in store.restore()] == ["DELETE"]


# Files


@pytest.fixture
def stored(tmp_path: Path) -> Backend:
    """A backend with a data file, whose files lie beside it."""
    path = str(tmp_path / "data.json")
    return Backend(
        Store(JsonFile(path, small_tree(), watched=True)), Clock(lambda: NOON), Gate(), Files(f"{path}.files")
    )


def small_tree() -> dict[str, Any]:
    return {"_projects": {KEY: {"name": "small"}}, "_endpoints": {NOTES: {"project": KEY}}, "_sessions": {}}


def upload(backend: Backend, text: bytes) -> str:
    """Upload a file; its record's id."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n%b\r\n--x--\r\n' % text
    request = knock(NOTES, content=("multipart/form-data; boundary=x", None, None))
    taking = backend.start_upload(request, 1000)
    taking.feed(body)
    return str(backend.upload(request, taking).unique_id)


def files_of(tmp_path: Path) -> set[str]:
    folder = tmp_path / "data.json.files"
    return set(os.listdir(folder)) if folder.is_dir() else set()


def test_a_file_comes_back_and_what_nobody_can_ask_for_is_deleted(stored: Backend, tmp_path: Path) -> None:
    stored.begin()
    first = upload(stored, b"first")
    stored.checkpoint("here")
    second = upload(stored, b"second")
    stored.delete(knock(NOTES, unique_id=first))
    assert files_of(tmp_path) == {first, second}
    stored.restore("here")
    assert files_of(tmp_path) == {first, second}  # which undo can still bring back
    stored.restore("here")
    assert files_of(tmp_path) == {first}
    path = stored.download(knock(NOTES, unique_id=first))[1]
    assert Path(path).read_bytes() == b"first"
    stored.delete(knock(NOTES, unique_id=first))
    stored.checkpoint("here")  # anew, so that the file is in no state any more
    stored.restore("here")
    assert files_of(tmp_path) == set()


TAKEN: dict[str, Callable[[Backend], object]] = {
    "reset": lambda backend: backend.reset(),
    "restore": lambda backend: backend.restore("here"),
    "load": lambda backend: backend.load({NOTES: ["other"]}),
    "delete-endpoint": lambda backend: backend.delete_endpoint(PLANTS),
    "delete-record": lambda backend: backend.delete_record(PLANTS, TOMATO),
    "the user": lambda backend: backend.delete_record(GARDENERS, ADA),
    "delete": lambda backend: backend.delete(knock(PLANTS, unique_id=TOMATO, from_console=True)),
}


@pytest.mark.parametrize("what", TAKEN)
@pytest.mark.usefixtures("ada")
def test_undo_puts_back_what_was_taken_in_its_place(backend: Backend, what: str) -> None:
    backend.checkpoint("here")
    backend.create(knock(PLANTS, {"name": "made before"}))
    backend.delete(knock(PLANTS, unique_id=PUMPKIN))
    backend.change_endpoint(NOTES)
    backend.sign_in(GARDENERS, "ben")
    backend.advance(10)
    before = everything(backend)
    TAKEN[what](backend)
    assert everything(backend) != before
    undo = backend.status()["undo"]
    with pytest.raises(OptionError, match=f"the last that can be undone is {undo['number']}"):
        backend.undo(number=undo["number"] - 1)
    assert backend.undo(number=undo["number"])["messages"]
    assert everything(backend) == before
    assert backend.status()["undo"] is None
    with pytest.raises(OptionError, match="nothing to undo"):
        backend.undo()


def test_undo_leaves_what_others_wrote_since(backend: Backend, listen: Listen) -> None:
    tomato, _, pumpkin = data_of(backend, PLANTS)
    made = backend.create(knock(PLANTS, "made before"))
    backend.reset()
    since = backend.create(knock(PLANTS, "made since"))
    backend.delete(knock(PLANTS, unique_id=ROSEMARY))
    backend.set_time("2035-01-01")
    ear = listen(PLANTS)
    assert backend.undo() == {"messages": 1, "closed": 0}
    assert data_of(backend, PLANTS) == [tomato, pumpkin, "made before", "made since"]
    assert [message["record"]["uniqueId"] for message in ear.heard] == [made.unique_id]
    assert since.unique_id in {record["uniqueId"] for record in backend.records(PLANTS)}
    assert backend.status()["now"].startswith("2035")


def test_undo_is_refused_where_a_key_has_changed_since(backend: Backend) -> None:
    backend.change_project(key="second")
    backend.reset()
    backend.change_project(key="third")
    before = everything(backend)
    with pytest.raises(OptionError, match=f"project '{KEY}' was changed since, and has another key"):
        backend.undo()
    assert everything(backend) == before
    backend.change_project(key=KEY, name="changed")
    with pytest.raises(OptionError, match="was changed since"):
        backend.undo()
    backend.reset()
    backend.change_project(key="second")
    backend.reset()
    backend.undo()
    assert [project.key for project in backend.store.projects()] == ["second"]


def test_reset_ends_the_sockets_of_a_key_that_is_gone(backend: Backend, listen: Listen) -> None:
    backend.change_project(key="second")
    ear = listen(PLANTS, key="second")
    assert backend.reset()["closed"] == 1
    assert ear.ended == CHANGED


def test_undo_is_refused_where_a_user_has_the_name_now(backend: Backend) -> None:
    backend.delete_record(GARDENERS, ADA)
    backend.register(knock(GARDENERS, {"username": "ada", "password": "new"}))
    before = everything(backend)
    with pytest.raises(OptionError, match="username 'ada' is that of"):
        backend.undo()
    assert everything(backend) == before


def test_a_deletion_by_an_app_is_nothing_to_undo(backend: Backend) -> None:
    backend.delete(knock(PLANTS, unique_id=TOMATO))
    assert backend.status()["undo"] is None


def test_changes_are_counted_since_a_checkpoint_or_the_reset(backend: Backend) -> None:
    nothing = {"made": 0, "changed": 0, "deleted": 0}
    began = backend.status()["now"]
    backend.advance(60)
    backend.checkpoint("here")
    backend.create(knock(PLANTS, "new"))
    backend.create(knock(PLANTS, "new"))
    backend.update(knock(PLANTS, "changed", unique_id=TOMATO))
    backend.delete(knock(PLANTS, unique_id=ROSEMARY))
    backend.change_endpoint(NOTES)
    changed = {"records": {"made": 2, "changed": 1, "deleted": 1}, "endpoints": nothing | {"made": 1}}
    assert backend.changes() == {"since": began} | changed
    assert backend.changes(checkpoint="here")["since"] != began
    backend.reset()
    assert backend.changes() == {"since": began, "records": nothing, "endpoints": nothing}
    with pytest.raises(OptionError, match="there is no checkpoint 'nowhere'"):
        backend.changes(checkpoint="nowhere")


def test_the_owner_writes_and_deletes_whatever_belongs_to_whom(backend: Backend, listen: Listen) -> None:
    ear = listen(PLANTS)
    made = backend.put_record(PLANTS, {"name": "Leek"})
    assert (made["data"], backend.records(PLANTS)[-1]) == ({"name": "Leek"}, made)
    assert backend.put_record(PLANTS, None, unique_id=str(made["uniqueId"]))["data"] is None
    assert backend.delete_record(PLANTS, str(made["uniqueId"]))["data"] is None
    assert [message["type"] for message in ear.heard] == ["POST", "PUT", "DELETE"]
    assert backend.delete_record(DIARY, DIARY_OF_ADA)["uniqueId"] == DIARY_OF_ADA
    with pytest.raises(OptionError, match="has no record 'nothing'"):
        backend.delete_record(PLANTS, "nothing")
    with pytest.raises(OptionError, match="has no record 'nothing'"):
        backend.put_record(PLANTS, 1, unique_id="nothing")


def test_a_user_whom_the_owner_edits_keeps_the_password(backend: Backend) -> None:
    assert "password" not in backend.put_record(GARDENERS, {"username": "eve"}, unique_id=ADA)["data"]
    backend.login(knock(GARDENERS, {"username": "eve", "password": "apricot"}))
    with pytest.raises(OptionError, match="username 'ben'"):
        backend.put_record(GARDENERS, {"username": "ben"}, unique_id=ADA)
    with pytest.raises(OptionError, match="makes no user"):
        backend.put_record(GARDENERS, {"name": "nobody"})


def test_a_file_in_two_checkpoints_stays_until_both_are_gone(stored: Backend, tmp_path: Path) -> None:
    stored.begin()
    kept = upload(stored, b"kept")
    stored.checkpoint("one")
    stored.checkpoint("two")
    stored.delete(knock(NOTES, unique_id=kept))
    stored.checkpoint("one")
    assert files_of(tmp_path) == {kept}
    stored.checkpoint("two")
    assert files_of(tmp_path) == set()


def test_files_of_checkpoints_alone_are_deleted_at_the_end(stored: Backend, tmp_path: Path) -> None:
    stored.begin()
    kept, gone = upload(stored, b"kept"), upload(stored, b"gone")
    stored.checkpoint("here")
    stored.delete(knock(NOTES, unique_id=gone))
    stored.close()
    assert files_of(tmp_path) == {kept}


# The data file


def test_a_checkpoint_while_the_data_file_is_written_does_not_change_what_is_written(
    stored: Backend, tmp_path: Path
) -> None:
    stored.begin()
    stored.create(knock(NOTES, "saved"))
    stored.store.file.begin_save()
    draft = stored.store.file.begin_save()
    assert draft
    stored.checkpoint("here")
    stored.create(knock(NOTES, "after"))
    stamp = draft.write()
    stored.restore("here")
    stored.store.file.end_save(draft, stamp)
    saved = json.loads((tmp_path / "data.json").read_text())
    assert [record["data"] for record in saved[NOTES].values()] == ["saved"]
    stored.close()
    saved = json.loads((tmp_path / "data.json").read_text())
    assert [record["data"] for record in saved[NOTES].values()] == ["saved"]


def test_an_edit_by_hand_is_undone_like_any_change(stored: Backend, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    stored.begin()
    record = stored.create(knock(NOTES, "as it was"))
    stored.checkpoint("here")
    stored.store.file.save()
    path.write_text(path.read_text().replace("as it was", "edited by hand"))
    stored.tick()
    assert data_of(stored, NOTES) == ["edited by hand"]
    ear = Ear()
    stored.listen(knock(NOTES), ear)
    stored.restore("here")
    assert ear.heard == [{"type": "PUT", "record": record.public()}]
    stored.close()
    assert "as it was" in path.read_text()


# The wire


@pytest.mark.parametrize("world", [None, "test-1"])
def test_a_restore_leaves_other_worlds_alone(emulator: RestedEmulator, world: str | None) -> None:
    other = emulator.world("test-1")
    here, there = (emulator, other) if world is None else (other, emulator)
    for one in (here, there):
        one.checkpoint("same name")
        call(one.url(PLANTS), "POST", "new")
    here.restore("same name")
    assert (len(here.records(PLANTS)), len(there.records(PLANTS))) == (3, 4)
