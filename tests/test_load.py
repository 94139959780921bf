"""State in and out of a running emulator: data, load, and worlds that begin with a data file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rested_emulator import OptionError, RestedEmulator, Worlds
from tests.conftest import DIARY, GARDEN, GARDENERS, KEY, NOON, PLANTS, TOMATO, Backend, Ear, knock
from tests.test_uploads import FILE, form
from tests.wire import (
    CHANGED,
    EXPIRED,
    answer_on,
    base,
    bearer,
    call,
    closing,
    control,
    head,
    next_of,
    open_socket,
    wire,
)

NOTES = "notes/open"


def listen(backend: Backend, endpoint: str = PLANTS, token: str | None = None) -> Ear:
    ear = Ear()
    backend.listen(knock(endpoint, token=token), ear)
    return ear


def data_of(backend: Backend) -> Any:
    return json.loads(backend.data())


# Out


def test_data_is_the_data_file_byte_for_byte(data_file: Path) -> None:
    with RestedEmulator(memory=False, data=data_file) as emulator:
        call(emulator.url(PLANTS), "POST", {"name": "Leek"})
        emulator.sign_in(GARDENERS, "ada")
        answer = control(emulator, "data", method="GET")
        as_python = emulator.data()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.body == data_file.read_bytes()
    assert as_python == answer.json


def test_a_saved_seed_starts_an_emulator_with_all_of_it(tmp_path: Path, ada: str, backend: Backend) -> None:
    backend.create(knock(DIARY, "mine", token=ada))
    (tmp_path / "seed.json").write_bytes(backend.data())
    with RestedEmulator(data=tmp_path / "seed.json", set_time="2027-01-15T08:00:00Z") as emulator:
        assert emulator.data() == data_of(backend)
        assert call(emulator.url(DIARY), headers=bearer(ada)).json[-1]["data"] == "mine"


# In


def test_load_makes_it_the_state_and_listeners_hear_the_difference() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        before = emulator.data()
        with open_socket(emulator.ws_url(PLANTS)) as listener:
            made = call(emulator.url(PLANTS), "POST", {"name": "Leek"}).json
            changed = call(emulator.url(PLANTS), "PUT", {"name": "Other"}, uniqueId=TOMATO).json
            assert [next_of(listener)["record"] for _ in range(2)] == [made, changed]
            answer = control(emulator, "load", {"data": before})
            assert answer.json == {"messages": 2, "closed": 0, "filesLeftOut": 0}
            heard = [next_of(listener) for _ in range(2)]
            assert sorted((one["type"], one["record"]["uniqueId"]) for one in heard) == [
                ("DELETE", made["uniqueId"]),
                ("PUT", TOMATO),
            ]
        assert emulator.data() == before
        assert emulator.load(before) == {"messages": 0, "closed": 0, "filesLeftOut": 0}


def test_a_data_file_need_say_no_more_than_a_list(backend: Backend) -> None:
    project = backend.store.projects()
    done = backend.load({NOTES: ["one", {"id": "b", "two": 2}]})
    assert done["filesLeftOut"] == 0
    assert [record["data"] for record in backend.records(NOTES)] == ["one", {"id": "b", "two": 2}]
    assert backend.read(knock(NOTES))
    # The key and the options stay, and endpoints that are not named are gone.
    assert backend.store.projects() == project
    assert [endpoint.name for endpoint in backend.store.endpoints()] == [NOTES]


def test_the_world_keeps_its_key_and_takes_the_projects_options(backend: Backend) -> None:
    backend.load(
        {
            "_projects": {"other-key": {"name": "other name"}, "second": {"name": "second one"}},
            "_endpoints": {NOTES: {"project": "other-key"}, "notes/more": {}, "notes/second": {"project": "second"}},
        }
    )
    assert [(project.key, project.name) for project in backend.store.projects()] == [
        (KEY, "other name"),
        ("second", "second one"),
    ]
    assert {endpoint.name: endpoint.project for endpoint in backend.store.endpoints()} == {
        NOTES: KEY,
        "notes/more": KEY,
        "notes/second": "second",
    }


def test_the_key_of_another_world_is_left_to_it(backend: Backend) -> None:
    backend.begin()
    backend.worlds = Worlds(backend.world)
    backend.worlds.fork("one")
    before = backend.data()
    with pytest.raises(
        OptionError, match=r'data\["_projects"\]: key .one. is that of another world; leave that project'
    ):
        backend.load({"_projects": {KEY: {"name": "garden"}, "one": {"name": "another"}}})
    assert backend.data() == before
    data = {"_projects": {KEY: {"name": "garden"}, "more": {"name": "another"}}}
    backend.load(data)
    backend.load(data)  # its own second project is no other world's


def test_sockets_end_where_options_changed_and_others_stay(backend: Backend) -> None:
    data = data_of(backend)
    plants, chores = listen(backend), listen(backend, GARDENERS, backend.sign_in(GARDENERS, "ada"))
    data = data_of(backend)
    data["_endpoints"][PLANTS] = {"secure": True}
    assert backend.load(data) == {"messages": 0, "closed": 1, "filesLeftOut": 0}
    assert (plants.ended, chores.ended) == (CHANGED, None)
    data["_projects"][KEY]["allowedOrigins"] = ["http://a.b"]
    assert backend.load(data)["closed"] == 1
    assert chores.ended == CHANGED


def test_a_new_token_lifetime_ends_no_socket(backend: Backend) -> None:
    ear, data = listen(backend), data_of(backend)
    data["_projects"][KEY]["tokenTtl"] = 5
    assert backend.load(data)["closed"] == 0
    assert ear.ended is None
    assert backend.store.projects()[0].token_ttl == 5


def test_tokens_that_are_not_in_it_are_revoked() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        before = emulator.data()
        token = emulator.sign_in(GARDENERS, "ada")
        with open_socket(emulator.ws_url(DIARY) + f"&accessToken={token}") as listener:
            assert emulator.load(before)["closed"] == 1
            assert closing(listener) == EXPIRED
        assert emulator.recoveries()[-1]["rule"] == "load"
        assert call(emulator.url(DIARY), headers=bearer(token)).status == 401


def test_tokens_that_are_in_it_count_and_expire_in_time(backend: Backend, ada: str) -> None:
    data = data_of(backend)
    backend.expire_tokens()
    backend.load(data)
    ear = listen(backend, DIARY, ada)
    backend.advance(3600)
    assert ear.ended == EXPIRED


def test_a_token_that_ends_earlier_in_it_ends_its_sockets_then(backend: Backend, ada: str) -> None:
    ear, data = listen(backend, DIARY, ada), data_of(backend)
    data["_sessions"][ada]["expiresAt"] = "2027-01-15T08:00:10.000Z"
    backend.load(data)
    backend.advance(9)
    assert ear.ended is None
    backend.advance(1)
    assert ear.ended == EXPIRED


def test_clock_checkpoints_faults_and_what_reset_goes_back_to_stay(backend: Backend) -> None:
    backend.begin()
    start = backend.data()
    backend.advance(100)
    backend.checkpoint("here")
    backend.add_fault("messages", what="drop", endpoint=PLANTS)
    backend.load({NOTES: ["one"]})
    assert backend.status()["checkpoints"] == ["here"]
    assert len(backend.faults()) == 1
    assert backend.clock.now() == NOON + 100
    backend.restore("here")
    assert backend.data() == start
    backend.load({NOTES: ["one"]})
    backend.reset()
    assert (backend.data(), backend.clock.now()) == (start, NOON)


def test_what_is_loaded_is_a_copy(backend: Backend) -> None:
    data: Any = {"_endpoints": {NOTES: {"description": "mine"}}, NOTES: {"a1": {"data": {"x": [1]}}}}
    backend.load(data)
    data["_endpoints"][NOTES]["description"] = data[NOTES]["a1"]["data"]["x"][0] = "other"
    assert backend.records(NOTES)[0]["data"] == {"x": [1]}
    assert backend.store.endpoint(NOTES).description == "mine"


@pytest.mark.warns("dropped what belonged to users who are not there, owners of records: 3")
def test_what_users_who_were_deleted_left_stays_theirs_unless_somebody_edited_it(backend: Backend, ada: str) -> None:
    backend.create(knock(DIARY, "mine", token=ada))
    user = backend.store.session(ada).user
    backend.delete(knock(GARDENERS, token=ada, unique_id=user))
    data = data_of(backend)
    owned = [record["owner"] for record in data[DIARY].values() if record.get("owner") == user]
    backend.load(data)
    assert {**data_of(backend), "_written": 0} == {**data, "_written": 0}
    assert owned
    data[NOTES] = []
    backend.load(data)
    assert [record for record in data_of(backend)[DIARY].values() if record.get("owner") == user] == []


# What a data file may not say

WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "data is '[]'; it takes an object"),
    "a table of text": ({NOTES: "x"}, 'data["notes/open"]: '),
    "an item": ({NOTES: [1, {"uniqueId": 5, "data": 1, "createdAt": "", "updatedAt": ""}]}, 'data["notes/open"][1]: '),
    "a record": ({NOTES: {"a1": {"dat": 1}}}, 'data["notes/open"]["a1"]: '),
    "an endpoint's name": ({"Notes": []}, 'data["Notes"]: '),
    "an endpoint's option": ({"_endpoints": {NOTES: {"secure": "yes"}}}, 'data["_endpoints"]["notes/open"]: '),
    "a project that is not there": ({"_endpoints": {NOTES: {"project": "no"}}}, 'data["_endpoints"]["notes/open"]: '),
    "a project": ({"_projects": {"k": {"name": "x"}}}, 'data["_projects"]["k"]: '),
    "a session": ({"_sessions": {"t": {}}}, 'data["_sessions"]["t"]: '),
    "a mail": ({"_mails": {"t": {}}}, 'data["_mails"]["t"]: '),
    "no user": (
        {"_endpoints": {NOTES: {"authentication": True}}, NOTES: {"a": {"data": 1}}},
        'data["notes/open"]["a"]: ',
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_data_file_may_not_say_is_refused_with_the_place_and_changes_nothing(case: str) -> None:
    data, told = WRONG[case]
    with RestedEmulator(data=GARDEN) as emulator, open_socket(emulator.ws_url(PLANTS)) as listener:
        emulator.fork("one")
        call(emulator.url(PLANTS), "POST", "kept")
        next_of(listener)
        before = control(emulator, "data", method="GET").body
        for verb, arguments in (("load", {}), ("fork", {"key": "one"}), ("fork", {"key": "two"})):
            answer = control(emulator, verb, {**arguments, "data": data})
            assert answer.status == 400
            assert answer.json["hint"].startswith(told)
        with pytest.raises(OptionError):
            emulator.load(data)
        assert control(emulator, "data", method="GET").body == before
        assert control(emulator, "status", method="GET", key="one").status == 200
        assert control(emulator, "status", method="GET", key="two").status == 400
        assert emulator.status()["listeners"] == 1


@pytest.mark.parametrize(
    ("body", "place", "what"),
    [
        ('{"data":\n {"notes/open": [], "notes/open": []}}', "line 2 column 21", "table 'notes/open' is there twice"),
        ('{"data": {"notes/open": {"a": {"data": 1},\n"a": {"data": 2}}}}', "line 2 column 1", "'a' is there twice"),
        ('{"data": {"notes/open": [],\n"notes/open": ["\\u003a:"]}}', "line 2 column 1", "'notes/open' is there twice"),
    ],
)
def test_what_is_said_twice_is_refused(body: str, place: str, what: str) -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        before = emulator.data()
        kind = {"Content-Type": "application/json"}
        answer = call(f"{base(emulator)}/__emulator__/load", "POST", body=body.encode(), headers=kind)
        assert answer.status == 400
        assert place in answer.json["hint"]
        assert what in answer.json["hint"]
        assert emulator.data() == before
        twice_in_data = b'{"data": {"notes/open": {"a": {"data": {"x": 1, "x": 2}}}}}'
        assert call(f"{base(emulator)}/__emulator__/load", "POST", body=twice_in_data, headers=kind).status == 200


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), "\ud800"])
def test_what_json_cannot_hold_is_refused(backend: Backend, value: object) -> None:
    before = backend.data()
    with pytest.raises(OptionError, match="data cannot be kept as JSON"):
        backend.load({NOTES: [value]})
    assert backend.data() == before


# Files


def test_files_stay_here_and_are_left_out_elsewhere() -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with RestedEmulator(data=GARDEN) as emulator, RestedEmulator() as other:
        made = call(emulator.url(PLANTS), "POST", body=form(FILE), headers=kind).json
        call(emulator.url(PLANTS), "POST", body=form(FILE), headers=kind)
        data = emulator.data()
        assert emulator.load(data)["filesLeftOut"] == 0
        assert call(emulator.url(PLANTS), uniqueId=made["uniqueId"], fileOnly="true").status == 200
        assert other.load(data)["filesLeftOut"] == 2
        refused = call(other.url(PLANTS), uniqueId=made["uniqueId"], fileOnly="true")
        assert (refused.status, "its file is not on disk any more" in refused.json["hint"]) == (400, True)
        assert call(other.url(PLANTS), uniqueId=made["uniqueId"]).json == made


# Worlds


def test_a_world_begins_with_data_and_reset_goes_back_to_it() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        with emulator.world("one", data={NOTES: ["one"]}) as world:
            assert [record["data"] for record in world.records(NOTES)] == ["one"]
            assert call(world.url(NOTES)).json[0]["data"] == "one"
            projects = world.status()["projects"]
            assert isinstance(projects, list)
            assert [(one["key"], one["name"]) for one in projects if isinstance(one, dict)] == [
                ("one", emulator.status()["projects"][0]["name"])  # type: ignore[index,call-overload]
            ]
            call(world.url(NOTES), "POST", "two")
            assert world.reset() == {"messages": 1, "closed": 0}
            assert world.load(emulator.data())["filesLeftOut"] == 0
            assert call(world.url(PLANTS)).json == call(emulator.url(PLANTS)).json
        assert control(emulator, "fork", {"key": "two", "data": {NOTES: ["x"]}}).json == {"key": "two", "closed": 0}
        assert control(emulator, "records", method="GET", key="two", endpoint=NOTES).json[0]["data"] == "x"
        assert control(emulator, "load", {"data": {NOTES: []}}, key="two").json["messages"] == 1
        assert len(emulator.records(PLANTS)) == 3


def test_a_world_takes_the_first_project_of_its_data(backend: Backend) -> None:
    backend.begin()
    worlds = Worlds(backend.world)
    worlds.fork(
        "one",
        {
            "_projects": {"a-key": {"name": "first one"}, KEY: {"name": "second one"}},
            "_endpoints": {NOTES: {}, "notes/other": {"project": KEY}},
        },
    )
    store = worlds.named("one").store
    assert [(project.key, project.name) for project in store.projects()] == [("one", "first one")]
    assert [endpoint.name for endpoint in store.endpoints()] == [NOTES]


def test_a_world_of_data_without_projects_has_the_options_of_the_start(backend: Backend) -> None:
    backend.begin()
    name = backend.store.projects()[0].name
    backend.change_project(name="changed since")
    worlds = Worlds(backend.world)
    worlds.fork("one", {NOTES: []})
    assert [(project.key, project.name) for project in worlds.named("one").store.projects()] == [("one", name)]


# How much


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_what_clients_may_store_is_loaded_and_no_more() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        assert call(emulator.url(PLANTS), "POST", nested(512)).status == 200
        assert control(emulator, "load", {"data": emulator.data()}).status == 200
        assert control(emulator, "put-record", {"endpoint": PLANTS, "data": nested(512)}).status == 200
        assert (
            "deeper than 512" in control(emulator, "put-record", {"endpoint": PLANTS, "data": nested(513)}).json["hint"]
        )
        with pytest.raises(OptionError, match="data cannot be written as JSON: nested deeper than 512 levels"):
            emulator.put_record(PLANTS, nested(600))
        with pytest.raises(OptionError, match="deeper than 512"):
            emulator.load({NOTES: [nested(513)]})


def test_load_and_fork_take_what_nothing_else_does() -> None:
    large = {NOTES: ["x" * 900_000, "y" * 900_000]}
    with RestedEmulator(data=GARDEN) as emulator:
        assert control(emulator, "load", {"data": large}).status == 200
        assert control(emulator, "fork", {"key": "one", "data": large}).status == 200
        assert control(emulator, "checkpoint", {"name": large[NOTES][0] * 2}).status == 413
        assert control(emulator, "put-record", {"endpoint": NOTES, "data": "x" * 999_990}).status == 200
        assert call(emulator.url(NOTES), "POST", large).status == 413
        # Whoever may not call it is refused before the body is there, as anywhere.
        url, foreign = f"{base(emulator)}/__emulator__/load", {"Origin": "http://evil.example"}
        with wire(emulator) as connection:
            connection.sendall(
                head("POST", "/__emulator__/load", f"Origin: {foreign['Origin']}", "Content-Length: 2000000")
            )
            assert answer_on(connection).status == 403
        assert call(url, "POST", {"data": {}}, headers=foreign).status == 403


def test_64_megabytes_are_the_limit(emulator: RestedEmulator) -> None:
    for size, status in ((64_000_000, 100), (64_000_001, 413)):
        with wire(emulator) as connection:
            expecting = ("Content-Type: application/json", "Expect: 100-continue", f"Content-Length: {size}")
            connection.sendall(head("POST", "/__emulator__/load", *expecting))
            answer = answer_on(connection)
            assert answer.status == status
    assert answer.json["hint"].startswith("load takes 64000000 bytes at most")
