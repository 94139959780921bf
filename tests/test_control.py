"""Control: the owner's verbs over HTTP, and that nobody else can speak them (design 4)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from rested_emulator import RestedEmulator, __version__
from tests import texts
from tests.conftest import CHORES, DIARY, GARDEN, GARDENERS, KEY, PLANTS
from tests.wire import (
    CHANGED,
    EXPIRED,
    FOREIGN,
    HANDSHAKE,
    OTHER_PAGE,
    PAGE,
    assert_open,
    assert_refusal,
    at,
    bearer,
    call,
    closing,
    control,
    cors_of,
    open_socket,
    seen,
)

VERBS: dict[str, Any] = {
    "change-project": {"disallowNoOrigin": True},
    "change-endpoint": {"name": PLANTS, "secure": True},
    "delete-endpoint": {"name": PLANTS},
    "expire-tokens": {},
    "advance": {"seconds": 7200},
    "close-listeners": {"code": 4321},
    "reset": {},
}
every_verb = pytest.mark.parametrize("verb", VERBS)


def moment(emulator: RestedEmulator) -> datetime:
    """The time it is for the emulator."""
    return datetime.fromisoformat(str(emulator.status()["now"]))


def done(emulator: RestedEmulator, verb: str, **arguments: Any) -> Any:
    """What a verb says that it did."""
    reply = control(emulator, verb, arguments)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8"), reply.body
    return reply.json


@contextmanager
def nothing_happens(emulator: RestedEmulator) -> Iterator[None]:
    """What is done inside changes nothing: no option, no record, no token, no time, and no socket ends."""
    token = emulator.sign_in(GARDENERS, "ada")
    call(emulator.url(PLANTS), "POST", "more than at the start")
    with (
        open_socket(emulator.ws_url(PLANTS)) as of_plants,
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as of_diary,
    ):
        before, now = seen(emulator), moment(emulator)
        yield
        assert seen(emulator) == before
        assert moment(emulator) - now < timedelta(minutes=1)
        assert_open(emulator, of_plants)
        record = call(emulator.url(DIARY), "POST", "still here", headers=bearer(token)).json
        assert of_diary.recv(timeout=10).find(record["uniqueId"]) > 0


# The verbs


def test_health_says_that_it_is_ready(emulator: RestedEmulator) -> None:
    assert control(emulator, "health", method="GET").json == {"ready": True, "version": __version__}


def test_status_says_what_there_is(emulator: RestedEmulator) -> None:
    emulator.sign_in(GARDENERS, "ada")
    with open_socket(emulator.ws_url(PLANTS)):
        status = control(emulator, "status", method="GET").json
    (project,) = status["projects"]
    endpoints = {endpoint["name"]: endpoint for endpoint in project["endpoints"]}
    assert project["key"] == KEY
    assert list(endpoints) == [PLANTS, GARDENERS, DIARY, CHORES]
    assert endpoints[PLANTS] == {
        "name": PLANTS,
        "authentication": False,
        "secure": False,
        "othersCanRead": False,
        "othersCanUpdate": False,
        "othersCanDelete": False,
        "description": "What grows where. Open to everyone.",
        "records": 3,
        "listeners": 1,
    }
    assert [user["username"] for user in status["users"]] == ["ada"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", status["now"])
    assert status["uptime"] >= 0


def test_status_tells_no_secret(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    status = control(emulator, "status", method="GET").body.decode()
    assert [secret for secret in (token, "apricot", str(emulator.facts["masterKey"])) if secret in status] == []


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"name": "back garden"}, {"name": "back garden"}),
        ({"allowedOrigins": [f"{PAGE}/", OTHER_PAGE]}, {"allowedOrigins": [PAGE, OTHER_PAGE]}),
        ({"allowedOrigins": []}, {"allowedOrigins": []}),
        ({"disallowNoOrigin": True}, {"disallowNoOrigin": True}),
        ({"key": "another"}, {"key": "another"}),
        ({"masterKey": "m"}, {}),
        ({"project": KEY, "name": "back garden"}, {"name": "back garden"}),
    ],
)
def test_change_project_saves_and_ends_its_sockets(
    emulator: RestedEmulator, arguments: dict[str, Any], shown: dict[str, Any]
) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert done(emulator, "change-project", **arguments) == {"closed": 1}
        assert closing(listener) == CHANGED
    (project,) = control(emulator, "status", method="GET").json["projects"]
    assert project.items() >= shown.items()


def test_change_project_sets_the_life_of_tokens_to_come(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert done(emulator, "change-project", tokenTtl=60) == {"closed": 0}
        assert_open(emulator, listener)
    token = emulator.sign_in(GARDENERS, "ada")
    emulator.advance(59)
    assert call(emulator.url(DIARY), headers=bearer(token)).status == 200
    emulator.advance(1)
    assert call(emulator.url(DIARY), headers=bearer(token)).status == 401


def test_a_changed_master_key_counts_at_once(emulator: RestedEmulator) -> None:
    done(emulator, "change-project", masterKey="m")
    assert call(emulator.url(DIARY), masterKey="m").status == 200
    done(emulator, "change-project", masterKey="")
    assert call(emulator.url(DIARY), masterKey="m").status == 403


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("secure", True),
        ("authentication", True),
        ("othersCanRead", True),
        ("othersCanUpdate", True),
        ("othersCanDelete", True),
        ("description", "Möhren"),
    ],
)
def test_change_endpoint_saves_and_ends_its_sockets(emulator: RestedEmulator, option: str, value: Any) -> None:
    done(emulator, "change-endpoint", name="garden/tools")
    with open_socket(emulator.ws_url("garden/tools")) as listener:
        assert done(emulator, "change-endpoint", name="garden/tools", **{option: value}) == {"closed": 1}
        assert closing(listener) == CHANGED
    endpoints = control(emulator, "status", method="GET").json["projects"][0]["endpoints"]
    assert endpoints[-1][option] == value


def test_change_endpoint_makes_one_that_is_new(emulator: RestedEmulator) -> None:
    assert done(emulator, "change-endpoint", name="garden/seeds", secure=True, othersCanRead=None) == {"closed": 0}
    assert call(emulator.url("garden/seeds")).status == 401


def test_delete_endpoint_takes_its_data_along(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as listener:
        assert done(emulator, "delete-endpoint", name=PLANTS) == {"deleted": 3, "closed": 1}
        assert closing(listener) == CHANGED
    assert call(emulator.url(PLANTS)).status == 400
    done(emulator, "change-endpoint", name=PLANTS)
    assert call(emulator.url(PLANTS)).json == []


@pytest.mark.parametrize(
    ("given", "expired"),
    [
        ({}, 3),
        ({"username": "ada"}, 2),
        ({"username": "ada@garden.example"}, 2),
        ({"token": "ben's"}, 1),
        ({"username": "nobody"}, 0),
        ({"token": "nobody's"}, 0),
        ({"username": None, "token": None}, 3),
    ],
)
def test_expire_tokens_ends_those_that_are_meant(emulator: RestedEmulator, given: dict[str, Any], expired: int) -> None:
    tokens = [emulator.sign_in(GARDENERS, name) for name in ("ada", "ada", "ben")]
    arguments = {name: tokens[2] if value == "ben's" else value for name, value in given.items()}
    with open_socket(f"{emulator.ws_url(DIARY)}&accessToken={tokens[2]}") as listener:
        closed = 1 if expired in (1, 3) else 0
        assert done(emulator, "expire-tokens", **arguments) == {"expired": expired, "closed": closed}
        assert not closed or closing(listener) == EXPIRED
    statuses = [call(emulator.url(DIARY), headers=bearer(token)).status for token in tokens]
    assert statuses.count(401) == expired


def test_advance_moves_the_clock_and_what_is_due_happens_first(emulator: RestedEmulator) -> None:
    token, now = emulator.sign_in(GARDENERS, "ada"), moment(emulator)
    with open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as listener:
        assert done(emulator, "advance", seconds=0.5)["closed"] == 0
        answer = done(emulator, "advance", seconds=3600)
        assert answer["closed"] == 1
        assert closing(listener) == EXPIRED
    assert moment(emulator) - datetime.fromisoformat(answer["now"]) < timedelta(minutes=1)
    assert datetime.fromisoformat(answer["now"]) - now > timedelta(minutes=59)


@pytest.mark.parametrize(
    ("arguments", "closed", "end"),
    [
        ({}, 2, (1000, "")),
        ({"code": 4321, "reason": "ein Übungsalarm"}, 2, (4321, "ein Übungsalarm")),
        ({"endpoint": PLANTS, "code": 1011, "reason": "ü" * 61}, 1, (1011, "ü" * 61)),
        ({"endpoint": PLANTS, "code": 1001}, 1, (1001, "")),
        ({"endpoint": None}, 2, (1000, "")),
    ],
)
def test_close_listeners_ends_sockets_with_a_code_of_choice(
    emulator: RestedEmulator, arguments: dict[str, Any], closed: int, end: tuple[int, str]
) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    with (
        open_socket(emulator.ws_url(PLANTS)) as of_plants,
        open_socket(f"{emulator.ws_url(DIARY)}&accessToken={token}") as of_diary,
    ):
        assert done(emulator, "close-listeners", **arguments) == {"closed": closed}
        assert closing(of_plants) == end
        assert closed == 1 or closing(of_diary) == end


def test_reset_goes_back_to_the_start(emulator: RestedEmulator) -> None:
    before = seen(emulator)
    token = emulator.sign_in(GARDENERS, "ada")
    call(emulator.url(PLANTS), "POST", {"name": "Leek"})
    done(emulator, "change-project", name="back garden", allowedOrigins=[PAGE])
    done(emulator, "change-endpoint", name="garden/seeds")
    done(emulator, "delete-endpoint", name=CHORES)
    done(emulator, "advance", seconds=100_000)
    with open_socket(emulator.ws_url(PLANTS), additional_headers={"Origin": PAGE}) as listener:
        answer = done(emulator, "reset")
        assert answer["closed"] == 0
        assert '"DELETE"' in str(listener.recv(timeout=10))
        assert_open(emulator, listener)
    done(emulator, "reset")
    assert seen(emulator) == before
    assert call(emulator.url(DIARY), headers=bearer(token)).status == 401


@every_verb
def test_a_verb_needs_no_body_where_it_needs_no_argument(emulator: RestedEmulator, verb: str) -> None:
    needs = verb in ("change-endpoint", "delete-endpoint", "advance")
    assert control(emulator, verb, headers={"Content-Type": "application/json"}).status == (400 if needs else 200)


# Wrong requests


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_verb_is_a_404_that_lists_the_known_ones(shared: RestedEmulator, method: str) -> None:
    with nothing_happens(shared):
        for verb in ("restet", "Reset", "reset/", "reset/now", "change_project", "sign_in"):
            reply = control(shared, verb, {}, method)
            assert_refusal(reply, 404, texts.NOT_FOUND)
            assert [known for known in ("health", "status", *VERBS) if known not in reply.json["hint"]] == []


ARGUMENTS = {
    "change-project": ["project", "name", "key", "masterKey", "allowedOrigins", "disallowNoOrigin", "tokenTtl"],
    "change-endpoint": [
        "name",
        "secure",
        "authentication",
        "othersCanRead",
        "othersCanUpdate",
        "othersCanDelete",
        "description",
    ],
    "delete-endpoint": ["name"],
    "expire-tokens": ["username", "token"],
    "advance": ["seconds"],
    "close-listeners": ["code", "reason", "endpoint"],
    "reset": [],
}


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        *((verb, arguments | {"colour": "red"}, "unknown argument 'colour'") for verb, arguments in VERBS.items()),
        *((verb, [arguments], "not an object of arguments") for verb, arguments in VERBS.items()),
        ("change-project", {"project": "unknown", "name": "back garden"}, ""),
        ("change-project", {"name": "back/garden"}, ""),
        ("change-project", {"name": 12345}, "it takes a text"),
        ("change-project", {"master_key": "snake case"}, ""),
        ("change-project", {"masterKey": 1}, "it takes a text"),
        ("change-project", {"allowedOrigins": PAGE}, "it takes a list of texts"),
        ("change-project", {"allowedOrigins": [PAGE, 1]}, "it takes a list of texts"),
        ("change-project", {"resetTemplates": {"a": 1}}, "it takes an object of texts"),
        ("change-project", {"disallowNoOrigin": "true"}, "it takes true or false"),
        ("change-project", {"disallowNoOrigin": 1}, "it takes true or false"),
        ("change-project", {"tokenTtl": 0}, ""),
        ("change-project", {"tokenTtl": -1}, ""),
        ("change-project", {"tokenTtl": "1h"}, "it takes a number"),
        ("change-project", {"tokenTtl": True}, "it takes a number"),
        ("change-project", {"name": "back garden", "tokenTtl": -1}, ""),
        ("change-endpoint", {}, ""),
        ("change-endpoint", {"name": None}, "it takes a text"),
        ("change-endpoint", {"name": "Garden/Seeds"}, ""),
        ("change-endpoint", {"name": PLANTS, "secure": "yes"}, "it takes true or false"),
        ("change-endpoint", {"name": PLANTS, "description": []}, "it takes a text"),
        ("change-endpoint", {"name": PLANTS, "others_can_read": True}, ""),
        ("delete-endpoint", {}, ""),
        ("delete-endpoint", {"name": "garden/weeds"}, ""),
        ("delete-endpoint", {"name": 1}, "it takes a text"),
        ("expire-tokens", {"username": 1}, "it takes a text"),
        ("expire-tokens", {"token": ["x"]}, "it takes a text"),
        ("advance", {}, ""),
        ("advance", {"seconds": None}, "it takes a number"),
        ("advance", {"seconds": "3600"}, "it takes a number"),
        ("advance", {"seconds": -1}, ""),
        ("advance", {"seconds": 10**400}, "it takes a finite number"),
        ("advance", {"seconds": True}, "it takes a number"),
        ("close-listeners", {"code": 999}, ""),
        ("close-listeners", {"code": 1000.5}, "it takes a whole number"),
        ("close-listeners", {"code": "1000"}, "it takes a whole number"),
        ("close-listeners", {"reason": "ü" * 62}, ""),
        ("close-listeners", {"reason": 1}, "it takes a text"),
        ("close-listeners", {"endpoint": "garden/weeds"}, ""),
    ],
)
def test_a_wrong_argument_is_a_400_that_lists_the_known_ones(
    shared: RestedEmulator, verb: str, arguments: Any, words: str
) -> None:
    with nothing_happens(shared):
        reply = control(shared, verb, arguments)
    assert_refusal(reply, 400, texts.WRONG_PARAMETER)
    assert words in reply.json["hint"]
    assert [known for known in ARGUMENTS[verb] if known not in reply.json["hint"]] == []


def test_a_broken_body_is_a_400_and_changes_nothing(shared: RestedEmulator) -> None:
    bodies = (b"{", b"{} {}", b"\xff", b'{"seconds": NaN}', b'{"seconds": 1e400}', b" ")
    with nothing_happens(shared):
        for verb, body in product(VERBS, bodies):
            reply = control(shared, verb, body=body, headers={"Content-Type": "application/json"})
            assert (reply.status, list(reply.json)) == (400, ["code", "message", "hint"])


@pytest.mark.parametrize(
    ("method", "query"), [("DELETE", "faults?id="), ("GET", "messages?since="), ("GET", "requests?endpoint=")]
)
def test_an_empty_value_in_the_query_is_no_value(emulator: RestedEmulator, method: str, query: str) -> None:
    """As one comes of a variable that was not set: then everything would be meant."""
    emulator.add_fault("delay", seconds=0)
    with nothing_happens(emulator):
        reply = control(emulator, query, method=method)
    assert_refusal(reply, 400, texts.WRONG_PARAMETER)
    assert "is empty; give it a value, or leave it out" in reply.json["hint"]
    assert len(emulator.faults()) == 1


def test_a_body_over_the_limit_is_a_413_and_changes_nothing(emulator: RestedEmulator) -> None:
    with nothing_happens(emulator):
        reply = control(
            emulator, "reset", body=b"{" + b" " * 1_000_000 + b"}", headers={"Content-Type": "application/json"}
        )
    assert_refusal(reply, 413, texts.TOO_LARGE)


@every_verb
def test_a_verb_is_posted_or_nothing_happens(shared: RestedEmulator, verb: str) -> None:
    with nothing_happens(shared):
        for method in ("GET", "PUT", "DELETE", "HEAD", "PATCH"):
            reply = control(shared, verb, VERBS[verb], method)
            assert (reply.status, reply.headers["allow"]) == (405, "POST, OPTIONS")
            if method != "HEAD":
                assert_refusal(reply, 405, texts.WRONG_METHOD)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_is_only_read_is_not_posted(shared: RestedEmulator, method: str) -> None:
    for name in ("status", "health"):
        reply = control(shared, name, {}, method)
        assert_refusal(reply, 405, texts.WRONG_METHOD)
        assert reply.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("name", ["health", "status", "faults", "requests?method=GET", "records", "nothing"])
def test_head_has_the_headers_of_its_get_and_no_body(shared: RestedEmulator, name: str) -> None:
    for shows in ({}, {"Origin": PAGE}, {"Origin": FOREIGN}, {"Host": "evil.example"}):
        head, get = (control(shared, name, method=method, headers=shows) for method in ("HEAD", "GET"))
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers.keys() == get.headers.keys()
        assert int(head.headers["content-length"]) > 0


def test_without_its_slash_it_is_no_address(emulator: RestedEmulator) -> None:
    assert call(str(emulator.facts["controlUrl"])).status == 404


# Those who may not


STRANGERS = [  # what a form or a page of another site can send, and how it is refused
    *(
        ({"Content-Type": kind}, texts.CONTROL_REFUSED)
        for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp")
    ),
    *(
        ({"Host": host}, texts.HOST_REFUSED)
        for host in ("evil.example", "127.0.0.1.evil.com", "localhost@evil.com", "192.168.0.1")
    ),
    *(({"Origin": origin}, texts.ORIGIN_REFUSED) for origin in (FOREIGN, "null", "http://localhost.evil.com", "")),
]


@pytest.mark.parametrize("any_origin", [False, True], ids=["gate shut", "gate open"])
@every_verb
def test_a_form_a_page_or_a_host_that_is_foreign_changes_nothing(verb: str, any_origin: bool) -> None:
    body = json.dumps(VERBS[verb]).encode()
    with RestedEmulator(data=GARDEN, allow_any_origin=any_origin) as emulator, nothing_happens(emulator):
        for headers, message in STRANGERS:
            reply = control(emulator, verb, body=body, headers={"Content-Type": "application/json"} | headers)
            assert_refusal(reply, 403, message)
            if "Origin" in headers:
                preflight = control(emulator, verb, method="OPTIONS", headers=headers)
                assert (preflight.status, cors_of(reply), cors_of(preflight)) == (403, {}, {})


@pytest.mark.parametrize(
    "shows",
    [{}, {"Origin": FOREIGN}, {"Origin": "null"}, {"Host": "evil.example"}],
    ids=["nothing", "foreign", "null", "host"],
)
def test_health_is_for_everybody(emulator: RestedEmulator, shows: dict[str, str]) -> None:
    assert control(emulator, "health", method="GET", headers=shows).status == 200


def test_an_allowed_origin_passes_but_reads_nothing(emulator: RestedEmulator) -> None:
    emulator.change_project(allowed_origins=[FOREIGN])
    reply = control(emulator, "status", method="GET", headers={"Origin": FOREIGN})
    assert (reply.status, cors_of(reply).keys() - {"vary"}) == (200, set())


@pytest.mark.parametrize(
    "origin", [PAGE, "http://127.0.0.1:8080", "https://[::1]", "http://app.localhost", "capacitor://localhost"]
)
def test_a_page_of_this_machine_may_speak_and_read(emulator: RestedEmulator, origin: str) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = control(emulator, "change-endpoint", method="OPTIONS", headers={"Origin": origin} | asks)
    assert (preflight.status, preflight.body) == (204, b"")
    assert "POST" in preflight.headers["access-control-allow-methods"].split(", ")
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower().split(", ")
    for reply in (
        preflight,
        control(emulator, "change-endpoint", {"name": PLANTS}, headers={"Origin": origin}),
        control(emulator, "change-endpoint", {}, headers={"Origin": origin}),
        control(emulator, "status", method="GET", headers={"Origin": origin}),
        control(emulator, "nothing", {}, headers={"Origin": origin}),
        control(emulator, "reset", method="GET", headers={"Origin": origin}),
    ):
        assert reply.headers["access-control-allow-origin"] == origin
        assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize("verb", ["resett", "nothing", "reset"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_preflight_passes_so_that_the_request_itself_says_what_is_wrong(
    emulator: RestedEmulator, verb: str, method: str
) -> None:
    asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
    preflight = control(emulator, verb, method="OPTIONS", headers={"Origin": PAGE} | asks)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, PAGE)
    assert method in preflight.headers["access-control-allow-methods"].split(", ")


@pytest.mark.parametrize(
    ("verb", "meant"),
    [("resett", "reset"), ("expire_tokens", "expire-tokens"), ("status/", "status"), ("Advance", "advance")],
)
def test_a_verb_that_is_nearly_one_is_guessed(emulator: RestedEmulator, verb: str, meant: str) -> None:
    assert f"did you mean {meant}? There are: " in control(emulator, verb, {}).json["hint"]


def test_no_origin_no_header_for_browsers(emulator: RestedEmulator) -> None:
    assert set(control(emulator, "reset", {}).headers) == {"content-type", "content-length"}


def test_control_listens_to_no_rule_of_the_project(emulator: RestedEmulator) -> None:
    emulator.change_project(allowed_origins=[PAGE], disallow_no_origin=True)
    assert control(emulator, "status", method="GET").status == 200
    assert control(emulator, "status", method="GET", headers={"Origin": OTHER_PAGE}).status == 200


def test_a_handshake_does_not_open_control(emulator: RestedEmulator) -> None:
    headers = {name: value for name, _, value in (line.partition(": ") for line in HANDSHAKE)}
    for verb, status in (("status", 200), ("reset", 405)):
        assert call(f"{emulator.facts['controlUrl']}/{verb}", headers=headers).status == status


# Beyond loopback


@pytest.fixture
def exposed() -> Iterator[RestedEmulator]:
    """An emulator that others could reach; we reach it through 127.0.0.1."""
    with RestedEmulator(data=GARDEN, host="0.0.0.0") as running:
        yield running


def test_on_loopback_there_is_no_control_token(emulator: RestedEmulator) -> None:
    assert emulator.facts["controlToken"] is None


@every_verb
def test_beyond_loopback_a_verb_wants_the_control_token(exposed: RestedEmulator, verb: str) -> None:
    with nothing_happens(exposed):
        for headers in ({}, bearer(""), bearer("wrong"), bearer("tökèn")):
            reply = control(exposed, verb, VERBS[verb], headers={"Host": "127.0.0.1"} | headers)
            assert_refusal(reply, 403, texts.CONTROL_REFUSED)
            assert control(exposed, "status", method="GET", headers=headers).status == 403


@every_verb
def test_beyond_loopback_the_control_token_opens_every_verb(exposed: RestedEmulator, verb: str) -> None:
    token = str(exposed.facts["controlToken"])
    assert re.fullmatch(r"\w{16,}", token)
    assert control(exposed, "status", method="GET", headers=bearer(token)).status == 200
    assert control(exposed, verb, VERBS[verb], headers=bearer(token)).status == 200


def test_beyond_loopback_the_token_lifts_no_other_rule(exposed: RestedEmulator) -> None:
    shows = bearer(str(exposed.facts["controlToken"]))
    with nothing_happens(exposed):
        for refused in (
            control(exposed, "reset", {}, headers={"Origin": FOREIGN} | shows),
            control(exposed, "reset", {}, headers={"Host": "evil.example"} | shows),
            control(exposed, "reset", body=b"{}", headers={"Content-Type": "text/plain"} | shows),
        ):
            assert refused.status == 403
        assert control(exposed, "reset", {}, "GET", headers=shows).status == 405


def test_beyond_loopback_health_and_api_want_no_control_token(exposed: RestedEmulator) -> None:
    url = f"http://127.0.0.1:{exposed.facts['port']}"
    assert call(f"{url}/__emulator__/health").status == 200
    assert call(url + at(PLANTS)).status == 200


def test_a_page_of_this_machine_may_ask_before_it_shows_the_token(exposed: RestedEmulator) -> None:
    reply = control(exposed, "reset", method="OPTIONS", headers={"Origin": PAGE})
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (204, PAGE)
    assert "authorization" in reply.headers["access-control-allow-headers"].lower()


# Faults do not apply


def test_latency_never_applies() -> None:
    with RestedEmulator(data=GARDEN, latency=300) as emulator:
        for verb, arguments in VERBS.items():
            assert control(emulator, verb, arguments).status == 200
        assert control(emulator, "unknown", {}).status == 404
        assert [control(emulator, name, method="GET").status for name in ("health", "status")] == [200, 200]


# The world that is meant


def test_fork_and_drop_take_the_key_from_their_arguments_alone() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        assert control(emulator, "fork?key=mine", {"key": "mine"}).json == {"key": "mine", "closed": 0}
        assert control(emulator, "drop?key=another", {"key": "mine"}).json == {"closed": 0}


# What the console needs


def test_sign_in_logs_a_user_in_without_the_password(emulator: RestedEmulator) -> None:
    token = control(emulator, "sign-in", {"endpoint": GARDENERS, "username": "ada"}).json["token"]
    [record] = call(emulator.url(DIARY), headers=bearer(token)).json
    assert record["data"] == {"text": "First tomato flower."}
    refused = control(emulator, "sign-in", {"endpoint": PLANTS, "username": "ada"})
    assert_refusal(refused, 400, texts.WRONG_PARAMETER)
    assert "no authentication endpoint" in refused.json["hint"]


def test_records_are_shown_to_the_owner_without_passwords(emulator: RestedEmulator) -> None:
    shown = control(emulator, f"records?endpoint={DIARY}", method="GET").json
    assert shown == emulator.records(DIARY)
    assert len(shown) == 2
    users = control(emulator, f"records?endpoint={GARDENERS}", method="GET").json
    assert [user["data"]["username"] for user in users] == ["ada", "ben"]
    assert "apricot" not in str(users)
    assert_refusal(control(emulator, "records", method="GET"), 400, texts.WRONG_PARAMETER)


def test_listeners_are_told_with_their_user(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    mine = f"&accessToken={token}"
    with (
        open_socket(emulator.ws_url(PLANTS)),
        open_socket(emulator.ws_url(CHORES) + mine),
        open_socket(emulator.ws_url(PLANTS) + mine),
    ):
        emulator.wait(messages={"type": "OPEN"}, count=3)
        anyone, unasked, ada = control(emulator, "listeners", method="GET").json
        assert anyone == {"number": 1, "endpoint": PLANTS, "user": None, "waiting": 0}
        assert (ada["number"], ada["endpoint"], ada["user"]["username"]) == (2, CHORES, "ada")
        assert (unasked["number"], unasked["user"]) == (3, ada["user"])  # who showed a token where none is needed
        assert control(emulator, f"listeners?endpoint={CHORES}", method="GET").json == [ada]
        assert token not in str(ada)


def test_status_tells_checkpoints_and_whether_the_clock_stands(emulator: RestedEmulator) -> None:
    assert (emulator.status()["checkpoints"], emulator.status()["frozen"]) == ([], False)
    emulator.checkpoint("one")
    emulator.freeze()
    assert (emulator.status()["checkpoints"], emulator.status()["frozen"]) == (["one"], True)


def test_one_fault_ends_and_the_others_stay(emulator: RestedEmulator) -> None:
    for status in (500, 501):
        emulator.add_fault("status", status=status)
    assert control(emulator, "faults?id=1", method="DELETE").json == {"cleared": 1}
    assert [fault["status"] for fault in emulator.faults()] == [501]
    refused = control(emulator, "faults?id=1", method="DELETE")
    assert_refusal(refused, 400, texts.WRONG_PARAMETER)
    assert "there are: 2" in refused.json["hint"]
    assert control(emulator, "faults", method="DELETE").json == {"cleared": 1}


def test_requests_and_messages_are_waited_for_together(emulator: RestedEmulator) -> None:
    call(emulator.url(PLANTS), "POST", {})
    found = control(emulator, "wait", {"requests": {"since": 0}, "messages": {"since": 0}, "count": 2}).json
    assert [len(found[what]) for what in ("requests", "messages")] == [1, 1]
    last = found["requests"][0]["number"]
    late = control(emulator, "wait", {"requests": {"since": last}, "messages": {"since": 9}, "timeout": 0})
    assert_refusal(late, 408, "It did not happen in time.")
    fitting = f'requests that fit {{"since":{last}}} and messages that fit {{"since":9}}'
    assert f"0 of 1 {fitting} within 0 s" in late.json["hint"]


def test_a_refused_socket_is_noted_with_the_hint(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(DIARY)) as ear:
        assert closing(ear)[0] == 4000
    [end] = emulator.messages(type="CLOSE")
    assert (end["code"], end["reason"], end["to"]) == (4000, texts.NO_TOKEN, [])
    assert "log in" in str(end["hint"])
