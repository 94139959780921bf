"""Store: what the data file holds, what a hand-made one may leave out, and the way back (contract 2, 3; design 2)."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinydb import TinyDB
from tinydb.table import Table

from rested_emulator import (
    DataFileError,
    Documents,
    Endpoint,
    JsonFile,
    Options,
    Project,
    Record,
    Session,
    Store,
    load_tree,
    load_written,
    open_store,
)
from tests.conftest import (
    CHORES,
    DIARY,
    GARDEN,
    GARDENERS,
    KEY,
    NOON,
    PLANTS,
    ROOT,
    SAMPLE_KEY,
    TOMATO,
    packed,
    record_of,
)

NOTES = "notes/today"
BEFORE, AFTER = "2021-06-28T17:18:44.000Z", "2027-01-15T08:00:00.000Z"


def note(unique_id: str, data: object = "text", updated_at: str = BEFORE, owner: str | None = None) -> Record:
    return record_of(unique_id, data, BEFORE, updated_at, owner)


def written(path: Path, content: object) -> Path:
    """The path of a file with this content: bytes, or what is not bytes as JSON."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def opened(path: Path) -> Store:
    return Store(JsonFile(str(path), load_tree(str(path))))


def ids(store: Store, name: str = NOTES) -> list[str]:
    return [record.unique_id for record in store.records(name)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A data file with one endpoint and the records a, b, c."""
    document = {"data": "text", "createdAt": BEFORE, "updatedAt": BEFORE}
    return written(tmp_path / "data.json", {NOTES: {"a": document, "b": document, "c": document}})


@pytest.fixture
def store(path: Path) -> Store:
    """The store over that file, just opened."""
    return opened(path)


# There and back


DATA: list[Any] = [
    None,
    False,
    0,
    -0.0,
    2**64 + 1,
    1.5e300,
    "",
    'Möhre 🌱 \u2028 \0 "quoted" \\ \n',
    [],
    [[1, [2, {"a": None}]]],
    {},
    {"b": 1, "a": {"": [], "__proto__": 1}},
]


@pytest.mark.parametrize("data", DATA, ids=repr)
def test_data_comes_back_from_the_file_as_it_was(store: Store, path: Path, data: object) -> None:
    store.put_record(NOTES, note("d", data, owner="ada"))
    store.file.save()
    record = opened(path).record(NOTES, "d")
    assert record == note("d", data, owner="ada")
    assert repr(record.data) == repr(data)


@pytest.mark.parametrize("unique_id", ["0", "ключ 🌱", "a b,c", '"', " ", "\ufffd", "__proto__", "x" * 1000])
def test_any_text_can_be_an_id(store: Store, path: Path, unique_id: str) -> None:
    store.put_record(NOTES, note(unique_id))
    store.file.save()
    assert opened(path).record(NOTES, unique_id) == note(unique_id)


def test_projects_endpoints_and_sessions_come_back_as_they_were(store: Store, path: Path) -> None:
    project = Project("k", "My app", "master", ("http://a.example", "https://b.example:8443"), True, 12.5)
    endpoint = Endpoint("notes/users", "k", True, True, True, True, True, "Who writes. Möhre")
    session = Session("token", "notes/users", "ada", NOON + 0.25)
    store.put_project("k", project)
    store.put_endpoint(endpoint)
    store.put_session(session)
    store.file.save()
    again = opened(path)
    assert again.projects() == store.projects()
    assert again.endpoints() == store.endpoints()
    assert (again.project("k"), again.endpoint("notes/users"), again.session("token")) == (project, endpoint, session)
    assert again.sessions() == [session]


def test_the_sample_data_is_the_same_after_a_save(tmp_path: Path) -> None:
    storage = JsonFile(str(tmp_path / "data.json"), load_tree(str(GARDEN)))
    storage.changed = True
    storage.save()
    tree = load_tree(str(tmp_path / "data.json"))
    assert list(tree.items()) == list(load_tree(str(GARDEN)).items())
    assert all(list(tree[name]) == list(table) for name, table in load_tree(str(GARDEN)).items())


def test_plain_tinydb_opens_the_file_and_sees_tables_and_documents(store: Store, path: Path) -> None:
    store.put_record(NOTES, note("d", {"name": "Möhre"}))
    store.file.save()
    with TinyDB(path) as database:
        assert database.tables() == {"_projects", "_endpoints", "_sessions", "_written", NOTES}
        assert len(database.table(NOTES)) == 4
        document = database.table(NOTES).get(doc_id="d")
        assert document == {"data": {"name": "Möhre"}, "uniqueId": "d", "createdAt": BEFORE, "updatedAt": BEFORE}
        assert database.table("_projects").get(doc_id=SAMPLE_KEY)["name"] == "examples"


def test_tinydb_reads_and_writes_the_file_as_the_reference_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = (ROOT / "sample_data" / "REFERENCE.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"```python\n(from tinydb.*?)```", reference, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Table, "document_id_class", Table.document_id_class)
    store = opened(written(tmp_path / "rested-db.json", {"notes/open": {}}))
    store.put_record("notes/open", note("a1", {"text": "Möhre"}))
    store.file.save()
    exec(compile(snippet, "REFERENCE.md", "exec"), {})
    every, matching = "[{'data': {'text': 'Möhre'}, ", " [{'data': {'text': 'bye'}}]\n"
    printed = capsys.readouterr().out
    assert printed.startswith(every)
    assert printed.endswith(matching)
    records = load_tree("rested-db.json")["notes/open"]
    assert {key: record.data for key, record in records.items()} == {"a1": {"text": "Möhre"}, "a2": {"text": "bye"}}


def test_the_file_is_fit_for_eyes_and_diffs(store: Store, path: Path) -> None:
    store.file.save()
    store.put_record(NOTES, note("d", "Möhre"))
    store.file.save()
    before = path.read_text(encoding="utf-8").splitlines()
    store.put_record(NOTES, note("d", "Kürbis"))
    store.file.save()
    after = path.read_text(encoding="utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed[0] == (changed[0][1].replace("Kürbis", "Möhre"), changed[0][1])
    assert [line.partition(":")[0] for _, line in changed[1:]] == ['"_written"']


RECORDS = [
    note("a"),
    note("b", {"owner": "mine", "list": [1, 2.5, None, "ä\u2028\n"]}, AFTER, "ada"),
    note('q"', "text"),
    note('","createdAt":"', ',"createdAt":"2021-06-28T17:18:44.000Z"}'),
    note("back\\slash", {}),
    Record.of("more", b"1", BEFORE, AFTER, None, {"file": {"originalName": "a", "mimeType": "b", "size": 1}}),
    Record.of("like", b"1", BEFORE, AFTER, "ada", {"note": '","createdAt":"2021-06-28T17:18:44.000Z'}),
    Record.of("nested", b"1", BEFORE, AFTER, None, {"old": {"createdAt": BEFORE}}),
    Record.of("newer", b"1", BEFORE, AFTER, None, {"note": BEFORE}),
    note("1", {"signature": ": )"}),  # which begins where the name of a longer id ends
    note(": x", 1),
    note('\\"": ', 1),
    note("y", "the end", AFTER, "ada"),
    Record.of("private", b"1", BEFORE, AFTER, "ada", {"meta": {"createdAt": "2021-06-28 17:18:44.123"}}),
]


@pytest.mark.parametrize("chosen", [RECORDS[:count] for count in range(len(RECORDS) + 1)] + [[one] for one in RECORDS])
def test_a_file_that_stands_as_written_reads_like_any_other(store: Store, path: Path, chosen: list[Record]) -> None:
    store.put_endpoint(Endpoint("notes/empty", SAMPLE_KEY, description='"_written": {'))
    store.put_endpoint(Endpoint("my-app/invoice", SAMPLE_KEY, description=": x"))
    store.put_endpoint(Endpoint("notes/users", SAMPLE_KEY, authentication=True))
    store.put_record("notes/users", note("ada", {"username": "ada"}))
    for record in chosen:
        store.put_record("notes/some", record)
    store.file.save()
    assert load_written(str(path)) is not None
    tree = load_tree(str(path))
    path.write_bytes(path.read_bytes() + b" ")
    assert load_written(str(path)) is None
    assert load_tree(str(path)) == tree
    assert opened(path).records("notes/some") == tuple(chosen)


PIECES = ['": ', '"', "\\", ": ", '{"', "},", '"}', ',"uniqueId":"', '","createdAt":"', BEFORE, "b" * 9, "\u2028", "é"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
VALUES = st.recursive(TEXTS | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=6)


@pytest.mark.warns("is kept, and means nothing to the emulator")
@given(st.dictionaries(TEXTS.map(lambda text: text[:32] or "x"), st.tuples(VALUES, st.none() | VALUES), max_size=4))
def test_whatever_it_says_a_file_that_stands_as_written_reads_like_any_other(
    tmp_path_factory: pytest.TempPathFactory, records: dict[str, tuple[object, object]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "data.json"
    given = {
        "_projects": {SAMPLE_KEY: {"name": "examples", "createdAt": BEFORE}, 'a"b': {"name": "other"}},
        "_endpoints": {NOTES: {"project": 'a"b', "description": ": x"}},
        NOTES: {
            key: {"data": data} | ({} if more is None else {"meta": more}) for key, (data, more) in records.items()
        },
    }
    store = Store(JsonFile(str(path), load_tree(str(written(path, given)))))
    store.put_endpoint(Endpoint("notes/new", SAMPLE_KEY))
    store.file.save()
    assert load_written(str(path)) is not None
    tree = load_tree(str(path))
    path.write_bytes(path.read_bytes() + b" ")
    assert load_tree(str(path)) == tree


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"text"', b'"Text"'),
        (b'"a": {"data"', b'"A": {"data"'),
        (b"\n", b"\n\n"),
        (b'"sum": ', b'"sum": 1'),
        (b'"by"', b'"be"'),
        (b"\n}\n", b"\n} \n"),
    ],
)
def test_a_file_that_was_edited_does_not_stand_as_written(store: Store, path: Path, old: bytes, new: bytes) -> None:
    store.put_record(NOTES, note("c"))
    store.file.save()
    assert load_written(str(path)) is not None
    path.write_bytes(path.read_bytes().replace(old, new))
    assert load_written(str(path)) is None
    assert len(opened(path).records(NOTES)) == 3


@pytest.mark.parametrize("content", [b"", b"{}", b'{\n"_written": {"by": {"emulator": "0.1.0", "sum": 0}}\n}\n'])
def test_what_no_emulator_wrote_does_not_stand_as_written(tmp_path: Path, content: bytes) -> None:
    assert load_written(str(written(tmp_path / "data.json", content))) is None


# Saving


def test_what_was_not_changed_is_not_written(store: Store, path: Path) -> None:
    before = path.read_bytes()
    store.records(NOTES)
    store.file.save()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.put_record(NOTES, note("d")),
        lambda store: store.drop_record(NOTES, "a"),
        lambda store: store.drop_endpoint(NOTES),
        lambda store: store.put_endpoint(Endpoint("notes/new", SAMPLE_KEY)),
        lambda store: store.put_project(SAMPLE_KEY, Project(SAMPLE_KEY, "renamed")),
        lambda store: store.put_project(SAMPLE_KEY, Project("another", "examples")),
        lambda store: store.put_session(Session("token", NOTES, "a", NOON)),
    ],
    ids=["record", "no record", "no endpoint", "endpoint", "project", "key", "session"],
)
def test_every_change_is_written_by_the_next_save(store: Store, path: Path, change: Callable[[Store], object]) -> None:
    before = path.read_bytes()
    change(store)
    assert path.read_bytes() == before
    store.file.save()
    assert path.read_bytes() != before


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(Options(memory=True))
    store.put_record("secure-endpoint", note("a"))
    store.file.save()
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_cannot_begin_leaves_the_old_file_and_the_next_one_succeeds(store: Store, path: Path) -> None:
    before = path.read_bytes()
    in_the_way = path.with_name("data.json.tmp")
    in_the_way.mkdir()
    store.put_record(NOTES, note("d"))
    with pytest.raises(OSError, match=r"data\.json"):
        store.file.save()
    assert path.read_bytes() == before
    assert ids(store) == ["a", "b", "c", "d"]
    in_the_way.rmdir()
    store.file.save()
    assert ids(opened(path)) == ["a", "b", "c", "d"]


def test_a_save_that_cannot_end_leaves_no_draft(store: Store, path: Path) -> None:
    path.unlink()
    path.mkdir()
    store.put_record(NOTES, note("d"))
    with pytest.raises(OSError, match=r"data\.json"):
        store.file.save()
    assert {found.name for found in path.parent.iterdir()} == {"data.json", "data.json.journal"}


def test_a_symlink_is_followed_and_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "data.json"
    link.symlink_to(Path("..") / "data.json")
    store = opened(link)
    store.put_record(NOTES, note("d"))
    store.file.save()
    assert link.is_symlink()
    assert ids(opened(path)) == ["a", "b", "c", "d"]
    assert list(link.parent.iterdir()) == [link]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666], ids=oct)
def test_the_mode_of_the_file_is_kept(store: Store, path: Path, mode: int) -> None:
    path.chmod(mode)
    store.put_record(NOTES, note("d"))
    store.file.save()
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_of_the_file_is_kept(store: Store, path: Path) -> None:
    os.chown(path, 1234, 4321)
    store.put_record(NOTES, note("d"))
    store.file.save()
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


# Hand-made files


@pytest.mark.may_warn("means nothing to the emulator")
@pytest.mark.parametrize(
    ("tree", "projects", "endpoints"),
    [
        pytest.param({}, [Project(SAMPLE_KEY, "examples")], [], id="nothing"),
        pytest.param(
            {"_projects": {}, "_endpoints": {}, "_sessions": {}},
            [Project(SAMPLE_KEY, "examples")],
            [],
            id="empty tables",
        ),
        pytest.param({NOTES: {}}, [Project(SAMPLE_KEY, "examples")], [Endpoint(NOTES, SAMPLE_KEY)], id="a table alone"),
        pytest.param(
            {"_endpoints": {NOTES: {"secure": True}}},
            [Project(SAMPLE_KEY, "examples")],
            [Endpoint(NOTES, SAMPLE_KEY, secure=True)],
            id="an endpoint alone",
        ),
        pytest.param(
            {"_projects": {"k1": {}, "k2": {}}, "_endpoints": {NOTES: {"project": None}}},
            [Project("k1", "examples"), Project("k2", "examples")],
            [Endpoint(NOTES, "k1")],
            id="an endpoint whose project is null",
        ),
        pytest.param(
            {NOTES: {}, "_projects": {"k1": {}, "k2": {"name": "second"}}},
            [Project("k1", "examples"), Project("k2", "second")],
            [Endpoint(NOTES, "k1")],
            id="the first of two projects",
        ),
        pytest.param(
            {"_projects": {"k1": {}, "k2": {}}, "_endpoints": {NOTES: {"project": "k2"}}},
            [Project("k1", "examples"), Project("k2", "examples")],
            [Endpoint(NOTES, "k2")],
            id="the second of two projects",
        ),
        pytest.param(
            {"_projects": {"k": {"name": None, "masterKey": None, "allowedOrigins": None, "tokenTtl": None}}},
            [Project("k", "examples")],
            [],
            id="null for what is missing",
        ),
        pytest.param(
            {"_projects": {"k": {"masterKey": "", "allowedOrigins": ["HTTP://A.example:80/, https://b.example"]}}},
            [Project("k", "examples", None, ("http://a.example", "https://b.example"))],
            [],
            id="origins as typed",
        ),
        pytest.param(
            {"_projects": {"k": {"tokenTtl": 5, "disallowNoOrigin": True, "colour": "red"}}},
            [Project("k", "examples", disallow_no_origin=True, token_ttl=5.0)],
            [],
            id="members nobody knows",
        ),
    ],
)
def test_what_a_hand_made_file_leaves_out_has_defaults(
    tmp_path: Path, tree: object, projects: list[Project], endpoints: list[Endpoint]
) -> None:
    store = opened(written(tmp_path / "data.json", tree))
    assert store.projects() == projects
    assert store.endpoints() == endpoints


@pytest.mark.parametrize(
    ("document", "record"),
    [
        ({"data": None}, Record.of("a", b"null", BEFORE, BEFORE)),
        ({"data": 1, "createdAt": AFTER}, Record.of("a", b"1", AFTER, AFTER)),
        ({"data": 1, "updatedAt": AFTER}, Record.of("a", b"1", BEFORE, AFTER)),
        ({"data": 1, "owner": "ada"}, Record.of("a", b"1", BEFORE, BEFORE, "ada")),
        ({"data": 1, "owner": None}, Record.of("a", b"1", BEFORE, BEFORE)),
    ],
)
def test_a_hand_made_record_needs_only_data(tmp_path: Path, document: object, record: Record) -> None:
    tree = {"_endpoints": {"my/users": {"authentication": True}}, "my/users": {"ada": {"data": {"username": "ada"}}}}
    assert opened(written(tmp_path / "data.json", tree | {NOTES: {"a": document}})).records(NOTES) == (record,)


@pytest.mark.warns("table '_mine' is kept, and means nothing to the emulator")
def test_a_table_with_a_reserved_name_is_kept_and_no_endpoint(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", {"_mine": {"1": {"any": "thing"}}})
    store = opened(path)
    store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY))
    store.file.save()
    assert load_tree(str(path))["_mine"] == {"1": {"any": "thing"}}
    assert [endpoint.name for endpoint in store.endpoints()] == [NOTES]


@pytest.mark.warns("'key' of project", "'name' of endpoint")
def test_a_key_or_name_beside_the_one_that_counts_is_told(tmp_path: Path) -> None:
    tree = {"_projects": {"1": {"key": KEY}}, "_endpoints": {NOTES: {"name": "notes/other"}}}
    store = opened(written(tmp_path / "data.json", tree))
    assert [project.key for project in store.projects()] == ["1"]
    assert [endpoint.name for endpoint in store.endpoints()] == [NOTES]


@pytest.mark.warns("'secured' of endpoint", "'allowed_origins' of project", "there are: ")
def test_an_option_that_there_is_not_is_kept_and_told(tmp_path: Path) -> None:
    tree = {"_projects": {KEY: {"allowed_origins": ["http://a.b"]}}, "_endpoints": {NOTES: {"secured": True}}}
    store = opened(written(tmp_path / "data.json", tree))
    assert store.endpoint(NOTES) == Endpoint(NOTES, KEY)
    assert store.projects()[0].allowed_origins == ()


def test_a_new_file_begins_with_the_sample_project_of_the_documentation() -> None:
    store = open_store(Options(memory=True))
    assert store.projects() == [Project("d59eb2859c284168ac48aef65046d5dd", "examples")]
    assert store.endpoints() == [
        Endpoint("examples/unsecure-endpoint", SAMPLE_KEY),
        Endpoint("examples/auth", SAMPLE_KEY, authentication=True),
        Endpoint("secure-endpoint", SAMPLE_KEY, secure=True),
    ]


@pytest.mark.warns("means nothing to the emulator")
def test_members_that_the_store_does_not_read_survive_a_change(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", {"_projects": {"k": {"colour": "green"}}})
    store = opened(path)
    store.put_project("k", Project("k", "renamed", reset_templates={"welcome": "<p>{{email}}</p>"}))
    store.file.save()
    project = load_tree(str(path))["_projects"]["k"]
    assert (project["colour"], project["resetTemplates"]) == ("green", {"welcome": "<p>{{email}}</p>"})


# Plain lists


def test_a_plain_list_becomes_records_the_same_at_every_start(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", {NOTES: [{"text": "a"}, "b", None, [1]], "notes/other": ["b"]})
    records = opened(path).records(NOTES)
    assert [record.data for record in records] == [{"text": "a"}, "b", None, [1]]
    assert {(record.created_at, record.updated_at) for record in records} == {(BEFORE, BEFORE)}
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", record.unique_id) for record in records)
    assert len({*ids(opened(path)), *ids(opened(path), "notes/other")}) == 5
    assert opened(path).records(NOTES) == records
    more = written(tmp_path / "data.json", {NOTES: [{"text": "changed"}, "b", None, [1], "new"]})
    assert ids(opened(more))[:4] == [record.unique_id for record in records]


def test_an_id_in_a_list_is_the_records_and_stays_in_the_data(tmp_path: Path) -> None:
    values: list[Any] = [{"id": 7, "a": 1}, {"id": "Smith, John"}, {"id": 1.5}, {"id": 2**70}]
    others: list[Any] = [{"id": None}, {"id": True}, {"id": []}, {"id": {}}, ["id"]]
    store = opened(written(tmp_path / "data.json", {NOTES: values + others}))
    assert ids(store)[:4] == ["7", "Smith, John", "1.5", str(2**70)]
    assert all(len(unique_id) == 32 for unique_id in ids(store)[4:])
    assert [record.data for record in store.records(NOTES)] == values + others


@pytest.mark.parametrize(
    ("first", "second"),
    [({"id": 1}, {"id": 1}), ({"id": 1}, {"id": "1"}), ({"id": "a"}, {"id": "a", "more": 1})],
)
def test_an_id_twice_in_a_list_is_refused_with_its_place(tmp_path: Path, first: object, second: object) -> None:
    content = f'{{"{NOTES}": [\n{json.dumps(first)},\n  {json.dumps(second)}]}}'.encode()
    with pytest.raises(DataFileError, match=rf"line 3 column 3: table '{NOTES}', item 2: id '\w' is there twice"):
        load_tree(str(written(tmp_path / "data.json", content)))


def test_a_list_as_get_answers_it_becomes_those_records(tmp_path: Path) -> None:
    records = (note("a", {"text": 1}, AFTER), note("b"))
    path = written(tmp_path / "data.json", {NOTES: [record.public() for record in records]})
    assert opened(path).records(NOTES) == records


def test_a_plain_list_is_written_in_the_emulators_own_form_at_the_first_change(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", {NOTES: ["a", "b"]})
    before = path.read_bytes()
    store = opened(path)
    store.file.save()
    assert path.read_bytes() == before
    store.put_record(NOTES, note("c"))
    store.file.save()
    assert load_written(str(path)) is not None
    assert opened(path).records(NOTES) == store.records(NOTES)


# Users whose line was deleted


@pytest.mark.warns("dropped what belonged to users who are not there, sessions: 1, mails: 1, owners of records: 2")
def test_owner_session_and_mail_of_a_user_whose_line_was_deleted_are_dropped(tmp_path: Path) -> None:
    mail = {"endpoint": "my/users", "user": "gone", "email": "", "templateName": "", "html": ""}
    moments = {"sentAt": AFTER, "expiresAt": AFTER}
    tree = {
        "_projects": {"k1": {}, "k2": {}},
        "_endpoints": {"my/users": {"authentication": True}, "others": {"authentication": True, "project": "k2"}},
        "_sessions": {user: {"endpoint": "my/users", "user": user, "expiresAt": AFTER} for user in ("ada", "gone")},
        "_mails": {"1": mail | moments, "2": mail | moments | {"user": "ada"}},
        "my/users": {"ada": {"data": {"username": "ada"}}},
        "others": {"ben": {"data": {"username": "ben"}}},
        NOTES: {key: {"data": 1, "owner": key} for key in ("ada", "gone", "ben")},
    }
    store = opened(written(tmp_path / "data.json", tree))
    assert [record.owner for record in store.records(NOTES)] == ["ada", None, None]
    assert [session.token for session in store.sessions()] == ["ada"]
    assert [mail.token for mail in store.mails()] == ["2"]


def test_what_the_emulator_wrote_keeps_the_owner_of_a_user_who_was_deleted(store: Store, path: Path) -> None:
    store.put_record(NOTES, note("d", owner="gone"))
    store.file.save()
    assert opened(path).records(NOTES)[-1].owner == "gone"


# Broken files


def one(document: str) -> bytes:
    """A file with one record, whose document is given as text."""
    return f'{{"{NOTES}": {{"a": {document}}}}}'.encode()


def project(document: object) -> bytes:
    return json.dumps({"_projects": {"k": document}}).encode()


def session(**members: object) -> bytes:
    return json.dumps({"_sessions": {"a-secret-token": members}}).encode()


SOMEWHERE = rf"line \d+|'{NOTES}'"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        pytest.param(b"", "line 1 column 1", id="empty"),
        pytest.param(b" \n ", "line 2 column 2", id="white space"),
        pytest.param(b"\0" * 512, "line 1 column 1", id="NUL-filled"),
        pytest.param(b'{\n"_projects": {\n  "k": {"name": "ga', "line 3 column 17", id="cut off"),
        pytest.param(b"{\n", "line 2 column 1", id="cut off after the first line"),
        pytest.param(b"{}\n{}", "line 2 column 1", id="garbage behind"),
        pytest.param(b"{}\n\0\0", "line 2 column 1", id="NUL behind"),
        pytest.param(b"{\n  // mine\n}", "line 2 column 3", id="a comment"),
        pytest.param(b'{\n"a": "\xff"}', "line 2 column 7", id="not UTF-8"),
        pytest.param(b"<html>", "line 1 column 1", id="HTML"),
        pytest.param(one('{"data": NaN}'), SOMEWHERE, id="NaN"),
        pytest.param(one('{"data": [-Infinity]}'), SOMEWHERE, id="-Infinity"),
        pytest.param(one('{"data": 1e400}'), SOMEWHERE, id="1e400"),
        pytest.param(one('{"data": %s}' % ("1" * 5000)), SOMEWHERE, id="5000 digits"),
        pytest.param(one('{"data": "\\ud800"}'), SOMEWHERE, id="lone surrogate"),
        pytest.param(one('{"data": %s}' % ("[" * 10**5 + "]" * 10**5)), SOMEWHERE, id="100000 levels"),
        pytest.param(b"[]", "the file: not an object", id="a list"),
        pytest.param(b"null", "the file: not an object", id="null"),
        pytest.param(b'"text"', "the file: not an object", id="a text"),
        pytest.param(b'{"_projects": 1}', "'_projects': not an object", id="projects a number"),
        pytest.param(b'{"_endpoints": null}', "'_endpoints': not an object", id="endpoints null"),
        pytest.param(b'{"_sessions": "x"}', "'_sessions': not an object", id="sessions a text"),
        pytest.param(b'{"_mine": {"1": 2}}', "'_mine', '1': not an object", id="a reserved table's document"),
        pytest.param(b'{"notes/today": "x"}', f"'{NOTES}': not an object", id="table a text"),
        pytest.param(one("1"), f"'{NOTES}', 'a': not an object", id="record a number"),
        pytest.param(one("null"), f"'{NOTES}', 'a': not an object", id="record null"),
        pytest.param(one("{}"), f"'{NOTES}', 'a': has no data", id="record without data"),
        pytest.param(one('{"data": 1, "createdAt": 2}'), f"'{NOTES}', 'a': createdAt", id="creation a number"),
        pytest.param(one('{"data": 1, "createdAt": "now"}'), "createdAt is 'now'; times are like", id="no time"),
        pytest.param(one('{"data": 1, "createdAt": "2021-02-30T00:00:00.000Z"}'), "createdAt is '2021-02", id="no day"),
        pytest.param(one('{"data": 1, "updatedAt": []}'), f"'{NOTES}', 'a': updatedAt", id="update a list"),
        pytest.param(
            one('{"data": 1, "file": {"originalName": "", "mimeType": "", "size": -1}}'), "size is -1", id="size -1"
        ),
        pytest.param(one('{"data": 1, "file": []}'), "'a': file: not an object but an array", id="file a list"),
        pytest.param(one('{"data": 1, "owner": 5}'), f"'{NOTES}', 'a': owner", id="owner a number"),
        pytest.param(one('{"data": 1, "owner": 0}'), "owner", id="owner 0"),
        pytest.param(one('{"data": 1, "owner": []}'), "owner", id="owner []"),
        pytest.param(b'{"notes/today": {"": {"data": 1}}}', f"'{NOTES}', '': uniqueId", id="record without id"),
        pytest.param(b'{"cars": []}', "'cars' is no endpoint name: 5 to 254 .*; name the table my/cars", id="cars"),
        pytest.param(b'{"profile": {"name": "x"}}', "'profile', 'name': not an object but a string", id="one object"),
        pytest.param(b'{"$schema": "x"}', "schema': not an object but a string; it takes an object of", id="schema"),
        pytest.param(b'{"_endpoints": ["notes"]}', "'_endpoints': not an object but an array", id="endpoints a list"),
        pytest.param(b'{"Notes": {}}', "'Notes' is no endpoint name", id="table of a bad name"),
        pytest.param(b'{"_endpoints": {"x": {}}}', "'x' is no endpoint name", id="endpoint of a bad name"),
        pytest.param(b'{"_endpoints": {"notes": {"secure": 1}}}', "endpoint 'notes': secure", id="secure a number"),
        pytest.param(b'{"_endpoints": {"notes": {"project": "?"}}}', "endpoint 'notes': project '?'", id="no project"),
        pytest.param(project([]), "'_projects', 'k': not an object", id="project a list"),
        pytest.param(project({"name": 5}), "project 'k': name", id="name a number"),
        pytest.param(project({"masterKey": 5}), "project 'k': masterKey", id="master key a number"),
        pytest.param(project({"allowedOrigins": "*"}), "project 'k': allowedOrigins", id="origins a text"),
        pytest.param(project({"tokenTtl": "1h"}), "project 'k': tokenTtl", id="lifetime a text"),
        pytest.param(project({"tokenTtl": 10**13}), "project 'k': tokenTtl", id="lifetime 10^13 s"),
        pytest.param(project({"name": "x"}), "'x'", id="name too short"),
        pytest.param(project({"allowedOrigins": ["*"]}), "project 'k'", id="origin is none"),
        pytest.param(
            project({"allowedOrigins": ["http\N{LATIN SMALL LETTER LONG S}://a"]}),
            "is no origin",
            id="origin with a long s",
        ),
        pytest.param(b'{"_projects": {"": {}}}', "project", id="project without key"),
        pytest.param(project({"tokenTtl": 0}), "project 'k'.*tokenTtl", id="lifetime of nothing"),
        pytest.param(project({"tokenTtl": 9e11}), "project 'k'.*tokenTtl", id="lifetime beyond the year 9999"),
        pytest.param(session(), "session 'a-secr': endpoint is missing or null; it takes a text", id="empty session"),
        pytest.param(session(endpoint=NOTES, user=1), "session 'a-secr': user", id="user a number"),
        pytest.param(
            session(endpoint=NOTES, user="a", expiresAt="soon"), "session 'a-secr': expiresAt 'soon'", id="no time"
        ),
    ],
)
def test_a_broken_file_is_refused_with_name_and_place_and_left_alone(
    tmp_path: Path, content: bytes, place: str
) -> None:
    path = written(tmp_path / "data.json", content)
    with pytest.raises(DataFileError) as caught:
        load_tree(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert re.search(place, text.removeprefix(f"{path}: "))
    assert "a-secret-token" not in text
    assert len(text) < 500
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "place", "cause"),
    [
        ("", "line 1 column 1", "the file is empty; delete it for a new one"),
        ('{"notes": {}', "line 1 column 13", "the file ends before everything is closed"),
        ('{"notes": {"a": "b', "line 1 column 17", "the text that begins here has no closing quote"),
        ('{"notes": {},\n}', "line 1 column 13", "a trailing comma"),
        ('{"notes": [1, ]}', "line 1 column 13", "a trailing comma"),
        ('{"notes": [1,, 2]}', "line 1 column 14", "a comma too many"),
        ("{'notes': {}}", "line 1 column 2", "single quotes"),
        ("{\"notes\": 'a'}", "line 1 column 11", "single quotes"),
        ("{\u201cnotes\u201d: {}}", "line 1 column 2", "typographic quotes"),
        ('{\n  // mine\n  "notes": {}}', "line 2 column 3", "a comment"),
        ('{"notes": {}, /* mine */ "other": {}}', "line 1 column 15", "a comment"),
        ('{"notes": {}}\n# mine', "line 2 column 1", "a comment"),
        ("{notes: {}}", "line 1 column 2", "a name without double quotes"),
        ('{"notes" {}}', "line 1 column 10", "a colon is missing"),
        ('{"a": 1\n"b": 2}', "line 2 column 1", "a comma is missing"),
        ('{"a": "5" tall"}', "line 1 column 11", "a quote inside the text before has no backslash"),
        ('{"a": 1; "b": 2}', "line 1 column 8", "a comma is missing"),
        ('{"a": [1}', "line 1 column 9", "} where a bracket of the other kind is open"),
        ('{"a": 1}}', "line 1 column 9", "one closing bracket too many"),
        ('{"a": 1}\n{"b": 2}', "line 2 column 1", "more behind the end"),
        ('{"a": "C:\\data"}', "line 1 column 10", "a backslash inside a text is written twice"),
        ('{"a": "two\nlines"}', "line 1 column 11", "a line break or tab inside a text"),
        ('{"a": 007}', "line 1 column 8", "a number that JSON does not write like this"),
        ('{"a": 1.}', "line 1 column 8", "a number that JSON does not write like this"),
        ('{"a": None}', "line 1 column 7", "'None' is no value"),
        ('{"a": .5}', "line 1 column 7", "'.5' is no value"),
        ("<<<<<<< HEAD\n{}", "line 1 column 1", "a mark of a merge conflict"),
        ("\0" * 512, "line 1 column 1", "a zero byte"),
    ],
)
def test_what_is_no_json_is_told_with_its_place_and_likely_cause(
    tmp_path: Path, content: str, place: str, cause: str
) -> None:
    for prefix in ("", "\N{ZERO WIDTH NO-BREAK SPACE}"):
        path = written(tmp_path / "data.json", (prefix + content).encode())
        with pytest.raises(DataFileError, match=rf"{place}: not JSON: .*{re.escape(cause)}"):
            load_tree(str(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "data.json", '{"notes/open": ["Möhre"]}'.encode(encoding))
    with pytest.raises(DataFileError, match=f"line 1 column 1: {encoding[:6].upper()}, not UTF-8; save it as UTF-8"):
        load_tree(str(path))


def test_a_byte_order_mark_is_read_over_and_not_written(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", b"\xef\xbb\xbf" + one('{"data": "text"}'))
    store = opened(path)
    store.put_record(NOTES, note("b"))
    store.file.save()
    assert path.read_bytes().startswith(b"{")
    assert ids(opened(path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"notes/open": {},\n "notes/open": {}}', "line 2 column 2: table 'notes/open' is there twice"),
        (
            '{"notes/open": {\n"a1": {"data": 1},\n"a1": {"data": 2}}}',
            "line 3 column 1: table 'notes/open', 'a1' is there twice, first at line 2 column 1",
        ),
        (
            '{"notes/open": {"a1": {"data": 1,\n"data": 1}}}',
            "line 2 column 1: table 'notes/open', 'a1', member 'data' is",
        ),
        ('{"notes/open": {"a1": {"data": 1, "owner": "x",\n"owner": "y"}}}', "line 2 column 1: .*'owner' is"),
        ('{"notes/open": {"a1": {"data": 1, "file": {"size": 1,\n"size": 2}}}}', "line 2 column 1: .*'size' is"),
        ('{"_projects": {"k": {},\n"k": {}}}', "line 2 column 1: table '_projects', 'k' is"),
        ('{"_projects": {"k": {"name": "first",\n"name": "other"}}}', "line 2 column 1: .*'k', member 'name' is"),
        ('{"_projects": {"k": {"resetTemplates": {"a": "",\n"a": ""}}}}', "line 2 column 1: .*, member 'a' is"),
        ('{"_endpoints": {"notes/open": {"secure": true,\n"secure": false}}}', "line 2 column 1: .*'secure' is"),
        ('{"notes/open": {"a": {"data": 1},\n"\\u0061": {"data": 2}}}', "line 2 column 1: table 'notes/open', 'a' is"),
        (
            '{"a-b-c": {"a": {"data": {"x": 1, "x": 2}}, "b": {"data": 1},\n"b": {"data": 1}}}',
            "line 2 column 1: table 'a-b-c', 'b' is",
        ),
        (
            '{"notes/open": [1, {"uniqueId": "", "createdAt": "", "updatedAt": "", "data": 1,\n"data": 2}]}',
            "line 2 column 1: table 'notes/open', 'item 2', member 'data' is",
        ),
    ],
)
def test_a_file_that_says_something_twice_is_refused_with_the_place_of_the_second(
    tmp_path: Path, content: str, said: str
) -> None:
    path = written(tmp_path / "data.json", content.encode())
    with pytest.raises(DataFileError, match=said):
        load_tree(str(path))
    assert path.read_bytes() == content.encode()


@pytest.mark.parametrize(
    "content",
    [
        '{"notes/open": {"a1": {"data": {"x": 1, "x": 2}}}}',
        '{"notes/open": {"a1": {"data": [{"data": {"x": 1, "x": 2}}]}}}',
        '{"notes/open": [{"x": 1, "x": 2}]}',
    ],
)
def test_repeated_names_inside_data_are_the_users_own_and_the_last_one_counts(tmp_path: Path, content: str) -> None:
    [record] = opened(written(tmp_path / "data.json", content.encode())).records("notes/open")
    assert b'{"x":2}' in record.packed_data


USERS = {"_endpoints": {"my/users": {"authentication": True}}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": {"data": "text"}}, "'my/users', 'a': a user is an object, not a string"),
        ({"a": {"data": {}}}, "'a': member username or email must be a text"),
        ({"a": {"data": {"username or email": "x"}}}, "'a': member username or email must be a text"),
        ({"a": {"data": {"username": ""}}}, "'a': member username must be a text"),
        ({"a": {"data": {"username": "ada", "email": None}}}, "'a': member email must be a text"),
        ({"a": {"data": {"email": 5}}}, "'a': member email must be a text"),
        ({"a": {"data": {"username": "ada", "password": ""}}}, "'a': member password must be a text"),
        ({"a": {"data": {"username": "ada", "password": None}}}, "'a': member password must be a text"),
        (
            {"a": {"data": {"username": "ada"}}, "b": {"data": {"username": "ada"}}},
            "'b': username 'ada' is that of 'a' too",
        ),
        ([{"id": 1, "email": "a@b"}, {"id": 2, "email": "a@b", "username": "b"}], "'2': email 'a@b' is that of '1'"),
        (["text"], "a user is an object, not a string"),
    ],
)
def test_what_registration_would_refuse_is_no_user_in_a_file(tmp_path: Path, table: object, said: str) -> None:
    path = written(tmp_path / "data.json", USERS | {"my/users": table})
    with pytest.raises(DataFileError, match=rf"data\.json: line 1 column \d+: table .*{said}"):
        load_tree(str(path))


@pytest.mark.parametrize(
    "table",
    [
        {"a": {"data": {"username": "ada"}}, "b": {"data": {"email": "ada"}}},
        {"a": {"data": {"username": "ada", "password": "apricot", "more": [None]}}},
    ],
)
def test_what_registration_takes_is_a_user_in_a_file_with_or_without_a_password(tmp_path: Path, table: object) -> None:
    store = opened(written(tmp_path / "data.json", USERS | {"my/users": table}))
    assert {key: {"data": store.record("my/users", key).data} for key in ids(store, "my/users")} == table  # type: ignore


def test_data_in_a_file_is_as_deep_as_in_a_body(tmp_path: Path) -> None:
    deep = one('{"data": %s}' % ("[" * 512 + "]" * 512))
    assert ids(opened(written(tmp_path / "data.json", deep))) == ["a"]
    with pytest.raises(DataFileError, match=rf"line 1 column 18: table '{NOTES}', 'a': nested deeper than 512 levels"):
        load_tree(str(written(tmp_path / "data.json", deep.replace(b"[]", b"[[]]"))))


@pytest.mark.parametrize("unique_id", ["", "\n", "a\tb", "\x7f", "\x85", "\0", "x" * 1001])
@pytest.mark.parametrize("as_list", [False, True])
def test_an_id_that_no_request_can_name_is_refused_by_name(tmp_path: Path, unique_id: str, as_list: bool) -> None:
    table: object = [{"id": unique_id}] if as_list else {unique_id: {"data": 1}}
    with pytest.raises(DataFileError) as raised:
        load_tree(str(written(tmp_path / "data.json", {NOTES: table})))
    assert f"line 1 column 18: table '{NOTES}', " in str(raised.value)
    assert "; it takes 1 to 1000 characters" in str(raised.value)
    assert f"uniqueId is {repr(unique_id)[:100]}" in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b'{"_sessions": {"\\ud800": {}}}',
        b'{"_mine": {"\\ud800": {}}}',
        b'{"_\\ud800": {}}',
        b'{"_projects": {"\\ud800": {}}}',
    ],
)
def test_a_name_that_cannot_be_written_again_is_refused_when_it_is_read(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataFileError, match=r"line 1 column \d+: .*ud800.* cannot be kept as JSON"):
        load_tree(str(written(tmp_path / "data.json", content)))


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = GARDEN.read_bytes().rstrip()
    for size in range(0, len(whole), 7):
        path = written(tmp_path / "data.json", whole[:size])
        with pytest.raises(DataFileError, match=r"data\.json: line \d+ column \d+: "):
            load_tree(str(path))


@pytest.mark.parametrize(("name", "error"), [("missing.json", FileNotFoundError), (".", IsADirectoryError)])
def test_a_file_that_cannot_be_opened_is_an_error_of_the_system(
    tmp_path: Path, name: str, error: type[OSError]
) -> None:
    with pytest.raises(error):
        load_tree(str(tmp_path / name))


# Records and endpoints


def test_a_deleted_endpoint_loses_its_data_for_good(store: Store, path: Path) -> None:
    store.drop_endpoint(NOTES)
    assert (store.endpoint(NOTES), store.records(NOTES), store.count(NOTES)) == (None, (), 0)
    store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY))
    assert store.records(NOTES) == ()
    store.file.save()
    assert opened(path).records(NOTES) == ()


def test_changed_options_keep_data_and_place_of_an_endpoint(store: Store) -> None:
    store.put_endpoint(Endpoint("notes/new", SAMPLE_KEY))
    store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY, secure=True))
    assert store.endpoints() == [Endpoint(NOTES, SAMPLE_KEY, secure=True), Endpoint("notes/new", SAMPLE_KEY)]
    assert ids(store) == ["a", "b", "c"]


# Projects


@pytest.fixture
def three(tmp_path: Path) -> Store:
    """Three projects with the keys k1, k2, k3 and an endpoint or two each."""
    endpoints = {f"notes/{number}": {"project": f"k{number % 3 + 1}", "secure": True} for number in range(5)}
    tree = {"_projects": {"k1": {}, "k2": {"masterKey": "m"}, "k3": {}}, "_endpoints": endpoints}
    return opened(written(tmp_path / "three.json", tree))


@pytest.mark.parametrize("key", ["k1", "k2", "k3"])
def test_a_new_key_takes_the_endpoints_along_and_keeps_the_order(three: Store, key: str) -> None:
    projects, endpoints = three.projects(), three.endpoints()
    known = three.project(key)
    assert known
    three.put_project(key, replace(known, key="new"))
    assert three.projects() == [replace(item, key="new") if item.key == key else item for item in projects]
    assert three.endpoints() == [replace(item, project="new") if item.project == key else item for item in endpoints]
    assert three.project(key) is None


def test_changed_options_keep_the_place_of_a_project(three: Store) -> None:
    three.put_project("k2", Project("k2", "renamed"))
    assert three.projects() == [Project("k1", "examples"), Project("k2", "renamed"), Project("k3", "examples")]


def test_a_master_key_that_is_taken_away_is_not_in_the_file(three: Store, tmp_path: Path) -> None:
    three.put_project("k2", Project("k2", "examples"))
    three.file.save()
    assert "masterKey" not in load_tree(str(tmp_path / "three.json"))["_projects"]["k2"]


# Going back


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(Store.projects, [], id="nothing"),
        pytest.param(lambda store: store.put_record(NOTES, note("d")), ["DELETE d text"], id="a record more"),
        pytest.param(lambda store: store.put_record(NOTES, note("b", "new", AFTER)), ["PUT b text"], id="an update"),
        pytest.param(lambda store: store.put_record(NOTES, note("b")), [], id="an update that changes nothing"),
        pytest.param(lambda store: store.drop_record(NOTES, "b"), ["POST b text"], id="a record less"),
        pytest.param(
            lambda store: store.drop_endpoint(NOTES), ["POST a text", "POST b text", "POST c text"], id="no endpoint"
        ),
        pytest.param(
            lambda store: (
                store.put_record(NOTES, note("d", "new")),
                store.put_record(NOTES, note("c", "new", AFTER)),
                store.drop_record(NOTES, "a"),
                store.drop_record(NOTES, "b"),
                store.put_record(NOTES, note("e", "new")),
            ),
            ["DELETE d new", "DELETE e new", "POST a text", "POST b text", "PUT c text"],
            id="all of it, deletions first",
        ),
        pytest.param(
            lambda store: (store.put_record(NOTES, note("d")), store.drop_record(NOTES, "d")), [], id="come and gone"
        ),
        pytest.param(
            lambda store: (store.drop_record(NOTES, "a"), store.put_record(NOTES, note("a", "new"))),
            ["PUT a text"],
            id="gone and come",
        ),
        pytest.param(lambda store: store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY, secure=True)), [], id="an option"),
        pytest.param(lambda store: store.put_session(Session("t", NOTES, "a", NOON)), [], id="a session"),
    ],
)
def test_the_way_back_is_told_as_changes(store: Store, change: Callable[[Store], object], expected: list[str]) -> None:
    projects, endpoints, records = store.projects(), store.endpoints(), store.records(NOTES)
    change(store)
    changes = store.restore()
    assert [f"{change.type} {change.record.unique_id} {change.record.data}" for _, change in changes] == expected
    assert {name for name, _ in changes} <= {NOTES}
    assert (store.projects(), store.endpoints(), store.records(NOTES)) == (projects, endpoints, records)
    assert store.sessions() == []
    assert store.restore() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), ({"b": 1, "a": 2}, {"a": 2, "b": 1})],
    ids=["1 and true", "1 and 1.0", "other order"],
)
def test_the_way_back_tells_of_all_that_a_client_could_see(store: Store, before: object, after: object) -> None:
    store.put_record(NOTES, note("a", before))
    store.checkpoint()
    store.put_record(NOTES, note("a", after))
    assert [change.type for _, change in store.restore()] == ["PUT"]


def test_a_list_is_kept_until_the_next_change_of_its_endpoint(store: Store) -> None:
    listing = store.records(NOTES)
    store.put_endpoint(Endpoint("notes/other", SAMPLE_KEY))
    store.put_record("notes/other", note("x"))
    assert store.records(NOTES) is listing
    for change in (
        lambda: store.put_record(NOTES, note("d")),
        lambda: store.put_record(NOTES, note("a", "new")),
        lambda: store.drop_record(NOTES, "b"),
        store.restore,
        lambda: store.drop_endpoint(NOTES),
    ):
        before = store.records(NOTES)
        change()
        assert store.records(NOTES) is not before
        assert store.records(NOTES).wire == packed([record.public() for record in store.records(NOTES)])


@pytest.mark.parametrize("seed", range(60))
def test_the_way_back_leads_to_the_same_tables_in_the_same_order_also_by_the_journal(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    start = {"data": "text", "createdAt": BEFORE, "updatedAt": BEFORE}
    path = written(tmp_path / "data.json", {NOTES: dict.fromkeys("abcdefgh", start), "notes/other": {"x": start}})
    tree = load_tree(str(path))
    storage = JsonFile(str(path), tree)
    storage.load(str(path))
    store = Store(storage)
    before = {name: list(table.items()) for name, table in storage.tables.items()}
    for _ in range(chance.randrange(12)):
        key, name = chance.choice("abcdefghijk"), chance.choice([NOTES, NOTES, NOTES, "notes/other"])
        if chance.random() < 0.5 and store.record(name, key):
            store.drop_record(name, key)
        elif chance.random() < 0.1:
            store.drop_endpoint(name)
        else:
            if store.endpoint(name) is None:
                store.put_endpoint(Endpoint(name, SAMPLE_KEY))
            store.put_record(name, note(key, seed))
    store.restore()
    assert {name: list(table.items()) for name, table in storage.tables.items() if table or name in before} == before
    assert store.restore() == []
    again = opened(path)
    again.replay()
    assert {name: list(table.items()) for name, table in again.file.tables.items()} == before
    storage.unlock()


def test_the_way_back_of_a_deletion_among_many_does_not_write_them_all_anew(tmp_path: Path) -> None:
    storage = JsonFile(str(tmp_path / "data.json"), {NOTES: {str(key): note(str(key)) for key in range(1000)}})
    store = Store(storage)
    for key in ("0", "500", "501", "999"):
        store.drop_record(NOTES, key)
    before = storage.journal.size
    store.restore()
    assert storage.journal.size - before < 1000
    assert ids(store) == [str(key) for key in range(1000)]
    storage.unlock()


def test_the_way_back_may_lead_to_what_another_store_holds(store: Store) -> None:
    seed = Store(JsonFile(None, load_tree(str(GARDEN))))
    store.checkpoint(like=seed)
    seed.drop_record(PLANTS, TOMATO)
    changes = store.restore()
    assert [change.type for name, change in changes if name == NOTES] == ["DELETE"] * 3
    assert next(change.record.unique_id for name, change in changes if name == PLANTS) == TOMATO
    assert [item.key for item in store.projects()] == [KEY]
    assert [item.name for item in store.endpoints()] == [PLANTS, GARDENERS, DIARY, CHORES]
    assert seed.record(PLANTS, TOMATO) is None


@given(st.lists(st.tuples(st.sampled_from(["put", "put", "delete", "copy"]), st.integers(0, 12)), max_size=60))
@pytest.mark.parametrize("few", [5, 256])
def test_a_table_is_a_dictionary_and_its_copies_stay_as_they_were(
    monkeypatch: pytest.MonkeyPatch, few: int, steps: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr("rested_emulator.FEW_CHANGES", few)  # beyond which a table is put together anew
    table = Documents({f"id{number}": number for number in range(8)})
    model = dict(table)
    copies: list[tuple[Documents, dict[str, int]]] = []
    for place, (step, number) in enumerate(steps):
        key = f"id{number}"
        if step == "put":
            table[key] = model[key] = place
        elif step == "delete":
            assert table.pop(key, None) == model.pop(key, None)
        else:
            copies.append((table.copy(), dict(model)))
        assert (list(table.items()), list(table.values()), len(table)) == (
            [*model.items()],
            [*model.values()],
            len(model),
        )
    for copy, then in copies:
        assert list(copy.items()) == list(then.items())
        assert set(table.changed(copy)) == {key for key in {**model, **then} if model.get(key) != then.get(key)}
        in_place = [key for key in then if key in model and key not in table.moved(copy)]
        assert in_place == [key for key in model if key in in_place]
        if not table.changed(copy):
            assert bool(table.moved(copy)) == (list(model) != list(then))


@pytest.mark.parametrize("seed", range(20))
def test_users_and_what_they_own_are_found_as_a_scan_finds_them(seed: int) -> None:
    chance = random.Random(seed)
    store = Store(JsonFile(None, {"_projects": {"k": {}}, "_endpoints": {"users": {"project": "k"}}}))
    names = ("a", "b", "c")
    for number in range(150):
        do, key = chance.randrange(12), f"{chance.randrange(8)}"
        if do < 7:
            data = {"username": chance.choice([*names, None]), "email": chance.choice(names), "n": number}
            packed = json.dumps(data).encode()
            owner = chance.choice(("a", "b", None) if number > 75 else ("a", "b"))
            store.put_record("users", Record.of(key, packed, BEFORE, BEFORE, owner))
        elif do < 9 and store.record("users", key):
            store.drop_record("users", key)
        elif do == 9:
            store.checkpoint("here")
        elif do == 10 and "here" in store.checkpoints():
            store.restore("here")
        elif do == 11:
            store.restore()
        for member in ("username", "email"):
            for name in names:
                scanned = next((one for one in store.records("users") if one.data.get(member) == name), None)  # type: ignore
                assert store.user("users", member, name) == scanned
        for user in names:
            own = [record for record in store.records("users") if record.owner in (None, user)]
            assert [*store.records_for("users", user)] == own


def test_what_a_user_owns_is_kept_until_it_changes(store: Store) -> None:
    for key, owner in (("one", "ada"), ("two", "ben")):
        store.put_record(NOTES, Record.of(key, b"1", BEFORE, BEFORE, owner))
    for key in ids(store):
        if key not in ("one", "two"):
            store.drop_record(NOTES, key)  # what has no owner is everybody's
    kept = store.records_for(NOTES, "ada")
    store.put_record(NOTES, Record.of("three", b"1", BEFORE, BEFORE, "ben"))
    assert store.records_for(NOTES, "ada") is kept
    store.put_record(NOTES, Record.of("one", b"2", BEFORE, BEFORE, "ada"))
    assert [record.data for record in store.records_for(NOTES, "ada")] == [2]
