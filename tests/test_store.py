"""Store: what the data file holds, what a hand-made one may leave out, and the way back (contract 2, 3; design 2)."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tinydb import TinyDB

from rested_emulator import (
    SAMPLE_KEY,
    SAMPLE_TIME,
    DataFileError,
    Endpoint,
    Json,
    JsonFile,
    Project,
    Record,
    Session,
    Store,
    check_tree,
    complete_tree,
    encode,
    load_edited,
    load_tree,
    load_written,
    sample_project,
)
from tests.conftest import CHORES, DIARY, GARDEN, GARDENERS, KEY, NOON, PLANTS, TOMATO

NOTES = "notes/today"
BEFORE, AFTER = "2021-06-28T17:18:44.000Z", "2027-01-15T08:00:00.000Z"


def note(unique_id: str, data: Json = "text", updated_at: str = BEFORE, owner: str | None = None) -> Record:
    return Record.of(unique_id, encode(data), BEFORE, updated_at, owner)


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


DATA: list[Json] = [
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
def test_data_comes_back_from_the_file_as_it_was(store: Store, path: Path, data: Json) -> None:
    store.put_record(NOTES, note("d", data, owner="ada"))
    store.save()
    record = opened(path).record(NOTES, "d")
    assert record == note("d", data, owner="ada")
    assert repr(record.data) == repr(data)


@pytest.mark.parametrize("unique_id", ["0", "ключ 🌱", "a b,c", '"', "__proto__"])
def test_any_text_can_be_an_id(store: Store, path: Path, unique_id: str) -> None:
    store.put_record(NOTES, note(unique_id))
    store.save()
    assert opened(path).record(NOTES, unique_id) == note(unique_id)


def test_projects_endpoints_and_sessions_come_back_as_they_were(store: Store, path: Path) -> None:
    project = Project("k", "My app", "master", ("http://a.example", "https://b.example:8443"), True, 12.5)
    endpoint = Endpoint("notes/users", "k", True, True, True, True, True, "Who writes. Möhre")
    session = Session("token", "notes/users", "ada", NOON + 0.25)
    store.put_project("k", project)
    store.put_endpoint(endpoint)
    store.put_session(session)
    store.save()
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
    store.save()
    with TinyDB(path) as database:
        assert database.tables() == {"_projects", "_endpoints", "_sessions", "_written", NOTES}
        assert len(database.table(NOTES)) == 4
        document = database.table(NOTES).get(doc_id="d")
        assert document == {"data": {"name": "Möhre"}, "uniqueId": "d", "createdAt": BEFORE, "updatedAt": BEFORE}
        assert database.table("_projects").get(doc_id=SAMPLE_KEY)["name"] == "examples"


def test_the_file_is_fit_for_eyes_and_diffs(store: Store, path: Path) -> None:
    store.save()
    store.put_record(NOTES, note("d", "Möhre"))
    store.save()
    before = path.read_text(encoding="utf-8").splitlines()
    store.put_record(NOTES, note("d", "Kürbis"))
    store.save()
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
]


@pytest.mark.parametrize("chosen", [RECORDS[:count] for count in range(len(RECORDS) + 1)] + [[one] for one in RECORDS])
def test_a_file_that_stands_as_written_reads_like_any_other(store: Store, path: Path, chosen: list[Record]) -> None:
    store.put_endpoint(Endpoint("notes/empty", SAMPLE_KEY, description='"_written": {'))
    for record in chosen:
        store.put_record("notes/some", record)
    store.save()
    written_by_us = load_written(str(path))
    assert written_by_us is None or complete_tree(written_by_us) == complete_tree(load_edited(str(path)))
    assert (written_by_us is None) == any('"' in one.unique_id or "\\" in one.unique_id for one in chosen)
    assert opened(path).records("notes/some") == tuple(chosen)


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
    store.save()
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
    store.save()
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
    store.save()
    assert path.read_bytes() != before


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(JsonFile(None, check_tree(sample_project())))
    store.put_record("secure-endpoint", note("a"))
    store.save()
    assert list(tmp_path.iterdir()) == []


def test_a_save_leaves_nothing_but_the_file(store: Store, path: Path) -> None:
    store.put_record(NOTES, note("d"))
    store.save()
    assert list(path.parent.iterdir()) == [path]


def test_a_save_that_cannot_begin_leaves_the_old_file_and_the_next_one_succeeds(store: Store, path: Path) -> None:
    before = path.read_bytes()
    in_the_way = path.with_name("data.json.tmp")
    in_the_way.mkdir()
    store.put_record(NOTES, note("d"))
    with pytest.raises(OSError, match=r"data\.json"):
        store.save()
    assert path.read_bytes() == before
    assert ids(store) == ["a", "b", "c", "d"]
    in_the_way.rmdir()
    store.save()
    assert ids(opened(path)) == ["a", "b", "c", "d"]


def test_a_save_that_cannot_end_leaves_no_draft(store: Store, path: Path) -> None:
    path.unlink()
    path.mkdir()
    store.put_record(NOTES, note("d"))
    with pytest.raises(OSError, match=r"data\.json"):
        store.save()
    assert {found.name for found in path.parent.iterdir()} == {"data.json", "data.json.journal"}


@pytest.mark.parametrize("data", [float("inf"), "\ud800"])
def test_data_that_is_not_json_does_not_spoil_the_file(store: Store, path: Path, data: Json) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"JSON compliant|surrogates"):
        store.put_record(NOTES, note("d", data))
    store.save()
    assert path.read_bytes() == before
    assert ids(store) == ["a", "b", "c"]


def test_a_symlink_is_followed_and_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "data.json"
    link.symlink_to(Path("..") / "data.json")
    store = opened(link)
    store.put_record(NOTES, note("d"))
    store.save()
    assert link.is_symlink()
    assert ids(opened(path)) == ["a", "b", "c", "d"]
    assert list(link.parent.iterdir()) == [link]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666], ids=oct)
def test_the_mode_of_the_file_is_kept(store: Store, path: Path, mode: int) -> None:
    path.chmod(mode)
    store.put_record(NOTES, note("d"))
    store.save()
    assert path.stat().st_mode & 0o777 == mode


# Hand-made files


NO_PROJECT = "check_tree checks with the default project, and does not put it into the document: project is ''"


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
        ({"data": None}, Record.of("a", b"null", SAMPLE_TIME, SAMPLE_TIME)),
        ({"data": 1, "createdAt": AFTER}, Record.of("a", b"1", AFTER, AFTER)),
        ({"data": 1, "updatedAt": AFTER}, Record.of("a", b"1", SAMPLE_TIME, AFTER)),
        ({"data": 1, "owner": "ada"}, Record.of("a", b"1", SAMPLE_TIME, SAMPLE_TIME, "ada")),
        ({"data": 1, "owner": None}, Record.of("a", b"1", SAMPLE_TIME, SAMPLE_TIME)),
    ],
)
def test_a_hand_made_record_needs_only_data(tmp_path: Path, document: Json, record: Record) -> None:
    assert opened(written(tmp_path / "data.json", {NOTES: {"a": document}})).records(NOTES) == (record,)


def test_a_table_with_a_reserved_name_is_kept_and_no_endpoint(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", {"_mine": {"1": {"any": "thing"}}})
    store = opened(path)
    store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY))
    store.save()
    assert load_tree(str(path))["_mine"] == {"1": {"any": "thing"}}
    assert [endpoint.name for endpoint in store.endpoints()] == [NOTES]


def test_a_new_file_begins_with_the_sample_project_of_the_documentation() -> None:
    store = Store(JsonFile(None, check_tree(sample_project())))
    assert store.projects() == [Project("d59eb2859c284168ac48aef65046d5dd", "examples")]
    assert store.endpoints() == [
        Endpoint("examples/unsecure-endpoint", SAMPLE_KEY),
        Endpoint("examples/auth", SAMPLE_KEY, authentication=True),
        Endpoint("secure-endpoint", SAMPLE_KEY, secure=True),
    ]


def test_members_that_the_store_does_not_read_survive_a_change(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", {"_projects": {"k": {"colour": "green"}}})
    store = opened(path)
    store.put_project("k", Project("k", "renamed", reset_templates={"welcome": "<p>{{email}}</p>"}))
    store.save()
    project = load_tree(str(path))["_projects"]["k"]
    assert (project["colour"], project["resetTemplates"]) == ("green", {"welcome": "<p>{{email}}</p>"})


# Broken files


def one(document: str) -> bytes:
    """A file with one record, whose document is given as text."""
    return f'{{"{NOTES}": {{"a": {document}}}}}'.encode()


def project(document: object) -> bytes:
    return json.dumps({"_projects": {"k": document}}).encode()


def session(**members: object) -> bytes:
    return json.dumps({"_sessions": {"a-secret-token": members}}).encode()


NO_PLACE = "the error of json.loads or of encode has no position, and nobody looks for the document"
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
        pytest.param(b"\xef\xbb\xbf{}", "line 1 column 1", id="byte order mark"),
        pytest.param("{}".encode("utf-16"), "line 1 column 1", id="UTF-16"),
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
        pytest.param(one('{"data": 1, "updatedAt": []}'), f"'{NOTES}', 'a': updatedAt", id="update a list"),
        pytest.param(one('{"data": 1, "owner": 5}'), f"'{NOTES}', 'a': owner", id="owner a number"),
        pytest.param(one('{"data": 1, "owner": 0}'), "owner", id="owner 0"),
        pytest.param(one('{"data": 1, "owner": []}'), "owner", id="owner []"),
        pytest.param(b'{"notes/today": {"": {"data": 1}}}', f"'{NOTES}', '': uniqueId", id="record without id"),
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
        pytest.param(session(), "session 'a-secr': endpoint", id="empty session"),
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


def test_records_stand_in_the_order_of_creation(store: Store) -> None:
    for unique_id in ("z", "d", "10", "9"):
        store.put_record(NOTES, note(unique_id))
    assert ids(store) == ["a", "b", "c", "z", "d", "10", "9"]


def test_an_update_keeps_the_place_of_a_record_also_in_the_file(store: Store, path: Path) -> None:
    store.put_record(NOTES, note("b", "new", AFTER))
    store.put_record(NOTES, note("a", "new", AFTER))
    store.save()
    assert ids(store) == ids(opened(path)) == ["a", "b", "c"]
    assert store.record(NOTES, "b") == note("b", "new", AFTER)


def test_a_dropped_record_is_gone(store: Store) -> None:
    store.drop_record(NOTES, "b")
    assert ids(store) == ["a", "c"]
    assert store.record(NOTES, "b") is None
    assert store.count(NOTES) == 2


@pytest.mark.parametrize("name", [NOTES, "notes/unknown"])
def test_what_is_not_there_is_none(store: Store, name: str) -> None:
    assert store.record(name, "unknown") is None
    assert (store.endpoint("notes/unknown"), store.project("unknown"), store.session("unknown")) == (None, None, None)


def test_an_unknown_endpoint_has_no_records(store: Store) -> None:
    assert (store.records("notes/unknown"), store.count("notes/unknown")) == ((), 0)


def test_a_deleted_endpoint_loses_its_data_for_good(store: Store, path: Path) -> None:
    store.drop_endpoint(NOTES)
    assert (store.endpoint(NOTES), store.records(NOTES), store.count(NOTES)) == (None, (), 0)
    store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY))
    assert store.records(NOTES) == ()
    store.save()
    assert opened(path).records(NOTES) == ()


def test_an_endpoint_without_records_can_be_deleted(store: Store) -> None:
    store.put_endpoint(Endpoint("notes/new", SAMPLE_KEY))
    store.drop_endpoint("notes/new")
    assert [endpoint.name for endpoint in store.endpoints()] == [NOTES]


def test_changed_options_keep_data_and_place_of_an_endpoint(store: Store) -> None:
    store.put_endpoint(Endpoint("notes/new", SAMPLE_KEY))
    store.put_endpoint(Endpoint(NOTES, SAMPLE_KEY, secure=True))
    assert store.endpoints() == [Endpoint(NOTES, SAMPLE_KEY, secure=True), Endpoint("notes/new", SAMPLE_KEY)]
    assert ids(store) == ["a", "b", "c"]


def test_a_dropped_session_is_gone(store: Store) -> None:
    kept, dropped = Session("t1", NOTES, "a", NOON), Session("t2", NOTES, "a", NOON)
    store.put_session(kept)
    store.put_session(dropped)
    store.drop_session("t2")
    assert (store.sessions(), store.session("t2")) == ([kept], None)


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


def test_a_new_key_is_in_the_file_with_the_next_save(three: Store, tmp_path: Path) -> None:
    three.put_project("k1", Project("new", "renamed"))
    three.save()
    again = opened(tmp_path / "three.json")
    assert [item.key for item in again.projects()] == ["new", "k2", "k3"]
    assert again.endpoints() == three.endpoints()


def test_changed_options_keep_the_place_of_a_project(three: Store) -> None:
    three.put_project("k2", Project("k2", "renamed"))
    assert three.projects() == [Project("k1", "examples"), Project("k2", "renamed"), Project("k3", "examples")]


def test_a_master_key_that_is_taken_away_is_not_in_the_file(three: Store, tmp_path: Path) -> None:
    three.put_project("k2", Project("k2", "examples"))
    three.save()
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
def test_the_way_back_tells_of_all_that_a_client_could_see(store: Store, before: Json, after: Json) -> None:
    store.put_record(NOTES, note("a", before))
    store.mark()
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
        assert store.records(NOTES).wire == encode([record.public() for record in store.records(NOTES)])


@pytest.mark.parametrize("seed", range(60))
def test_the_way_back_leads_to_the_same_tables_in_the_same_order_also_by_the_journal(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    start = {"data": "text", "createdAt": BEFORE, "updatedAt": BEFORE}
    path = written(tmp_path / "data.json", {NOTES: dict.fromkeys("abcdefgh", start), "notes/other": {"x": start}})
    tree = load_tree(str(path))
    storage = JsonFile(str(path), tree)
    storage.load(str(path))
    store = Store(storage)
    before = {name: list(table.items()) for name, table in storage.tree.items()}
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
    assert {name: list(table.items()) for name, table in storage.tree.items() if table or name in before} == before
    assert store.restore() == []
    again = opened(path)
    again.replay()
    assert {name: list(table.items()) for name, table in again._storage.tree.items()} == before
    storage.let_go()


def test_the_way_back_of_a_deletion_among_many_does_not_write_them_all_anew(tmp_path: Path) -> None:
    storage = JsonFile(str(tmp_path / "data.json"), {NOTES: {str(key): note(str(key)) for key in range(1000)}})
    store = Store(storage)
    for key in ("0", "500", "501", "999"):
        store.drop_record(NOTES, key)
    before = storage._journaled
    store.restore()
    assert storage._journaled - before < 1000
    assert ids(store) == [str(key) for key in range(1000)]
    storage.let_go()


def test_a_new_endpoint_and_its_records_are_gone_after_the_way_back(store: Store) -> None:
    store.put_endpoint(Endpoint("notes/new", SAMPLE_KEY))
    store.put_record("notes/new", note("n"))
    assert [(name, change.type) for name, change in store.restore()] == [("notes/new", "DELETE")]
    assert (store.endpoint("notes/new"), store.records("notes/new")) == (None, ())


def test_a_changed_key_is_back_after_the_way_back(store: Store) -> None:
    store.put_project(SAMPLE_KEY, Project("new", "renamed", "master"))
    assert store.restore() == []
    assert store.projects() == [Project(SAMPLE_KEY, "examples")]
    assert store.endpoints() == [Endpoint(NOTES, SAMPLE_KEY)]


def test_the_way_back_can_be_gone_again_and_again(store: Store) -> None:
    for _ in range(3):
        store.put_record(NOTES, note("d"))
        store.drop_record(NOTES, "a")
        assert [change.type for _, change in store.restore()] == ["DELETE", "POST"]
        assert ids(store) == ["a", "b", "c"]


def test_a_later_mark_is_what_the_way_back_leads_to(store: Store) -> None:
    store.put_record(NOTES, note("d"))
    store.mark()
    store.drop_record(NOTES, "a")
    assert [change.record.unique_id for _, change in store.restore()] == ["a"]
    assert ids(store) == ["a", "b", "c", "d"]


def test_the_way_back_may_lead_to_what_another_store_holds(store: Store) -> None:
    seed = Store(JsonFile(None, load_tree(str(GARDEN))))
    store.mark(like=seed)
    seed.drop_record(PLANTS, TOMATO)
    changes = store.restore()
    assert [change.type for name, change in changes if name == NOTES] == ["DELETE"] * 3
    assert next(change.record.unique_id for name, change in changes if name == PLANTS) == TOMATO
    assert [item.key for item in store.projects()] == [KEY]
    assert [item.name for item in store.endpoints()] == [PLANTS, GARDENERS, DIARY, CHORES]
    assert seed.record(PLANTS, TOMATO) is None


def test_after_the_way_back_the_file_is_as_marked_with_the_next_save(store: Store, path: Path) -> None:
    store.drop_record(NOTES, "a")
    store.save()
    store.restore()
    store.save()
    assert opened(path).records(NOTES) == store.records(NOTES)
    assert ids(store) == ["a", "b", "c"]
