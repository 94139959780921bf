"""Access: the outer gate, the order of checks, origins, keys, tokens, whose record it is (contract 2.7, 5, 6)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from rested_emulator import Clock, Gate, JsonFile, Refusal, Store, parse_origin
from tests import texts
from tests.conftest import (
    ADA,
    BEN,
    CHORE_OF_ADA,
    CHORE_OF_BEN,
    CHORES,
    DIARY,
    DIARY_OF_ADA,
    DIARY_OF_BEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    PLANTS,
    TOMATO,
    Backend,
    Ear,
    add_project,
    knock,
    record_of,
    refused,
)

Verb = Callable[..., Any]
EVIL, SHOP = "https://evil.example", "https://shop.example"
FACES = {"username": "cleo", "password": "cherry"}


def listen(backend: Backend, sent: Any) -> None:
    backend.listen(sent, Ear())


# The outer gate

GATES = {
    "local": Gate(),
    "named": Gate(frozenset({"dev.example"})),
    "bound": Gate(frozenset({"192.168.1.20"})),
    "everywhere": Gate(any_address=True),
}


@pytest.mark.parametrize(
    ("gate", "host"),
    [
        ("local", "localhost"),
        ("local", "localhost:7378"),
        ("local", "LOCALHOST:7378"),
        ("local", "localhost."),
        ("local", "localhost.:7378"),
        ("local", "127.0.0.1"),
        ("local", "127.8.9.1:7378"),
        ("local", "127.255.255.254"),
        ("local", "[0:0:0:0:0:0:0:1]"),
        ("local", "[::1]"),
        ("local", "[::1]:7378"),
        ("local", "app.localhost"),
        ("local", "My.App.LocalHost:80"),
        ("named", "dev.example"),
        ("named", "DEV.Example.:7378"),
        ("bound", "192.168.1.20:7378"),
        ("everywhere", "192.168.1.20"),
        ("everywhere", "[fd00::1]:7378"),
    ],
)
def test_the_gate_lets_in_hosts_that_mean_this_machine(gate: str, host: str) -> None:
    GATES[gate].check_host(host)


@pytest.mark.parametrize(
    ("gate", "host"),
    [
        ("local", ""),
        ("local", "."),
        ("local", "locaIhost"),
        ("local", "localho\N{LATIN SMALL LETTER LONG S}t"),
        ("local", "12\N{FULLWIDTH DIGIT SEVEN}.0.0.1"),
        ("local", "127.1"),
        ("local", "0x7f.0.0.1"),
        ("local", "128.0.0.1"),
        ("local", "[::2]"),
        ("local", "evil.com"),
        ("local", "127.0.0.1.evil.com"),
        ("local", "localhost.evil.com:7378"),
        ("local", "localhost@evil"),
        ("local", "localhost:7378@evil.com"),
        ("local", "evil@app.localhost"),
        ("local", "evil.com?.localhost"),
        ("local", "evil.com .localhost"),
        ("local", "evil.com#.localhost"),
        ("local", "evil.com/.localhost"),
        ("local", "evil.com\\.localhost"),
        ("local", "notlocalhost"),
        ("local", "::1"),
        ("local", "[::]"),
        ("local", "0.0.0.0"),
        ("local", "0.0.0.0:7378"),
        ("local", "2130706433"),
        ("local", "localhost:7378:80"),
        ("local", "localhost evil.com"),
        ("local", "dev.example"),
        ("local", "192.168.1.20"),
        ("named", "sub.dev.example"),
        ("named", "dev.example.evil.com"),
        ("bound", "192.168.1.21"),
        ("everywhere", "0.0.0.0"),
        ("everywhere", "[::]"),
        ("everywhere", "evil.com"),
        ("everywhere", "192.168.1.20.evil.com"),
    ],
)
def test_the_gate_keeps_out_hosts_that_name_another_machine(gate: str, host: str) -> None:
    with refused(403, texts.HOST_REFUSED) as refusal:
        GATES[gate].check_host(host)
    assert refusal.value.hidden
    assert "--allow-host" in refusal.value.hint


@pytest.mark.parametrize("host", [None, "localhost,evil.com"])
def test_not_exactly_one_host_is_a_bad_request(host: str | None) -> None:
    with refused(400) as refusal:
        Gate().check_host(host)
    assert refusal.value.hidden


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://localhost:7378",
        "http://localhost:5173",
        "https://localhost:5173",
        "HTTP://LocalHost:5173",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "http://my.app.localhost:3000",
        "ws://localhost:20200",
        "wss://127.0.0.1:20200",
        "WS://[::1]",
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        SHOP,
        f"{SHOP}:443",
        "HTTPS://Shop.Example",
    ],
)
def test_the_gate_lets_in_pages_of_this_machine_and_of_the_project(origin: str | None) -> None:
    Gate().check_origin(origin, [SHOP])


FOREIGN = [
    "null",
    "",
    EVIL,
    "http://shop.example",
    "https://shop.example:8443",
    "https://shop.example/",
    "https://shop.example.evil.com",
    "https://evil-shop.example",
    "https://www.shop.example",
    "https://shop.example.",
    "https://shop.example@evil.com",
    "https://shop.example, https://evil.com",
    "https://shop.example:0443x",
    "shop.example",
    "http://localhost.evil.com",
    "http://127.0.0.1.evil.com",
    "http://localhost@evil.com",
    "http://evil.com#.localhost",
    "http://evil.com?.localhost",
    "http://evil.com/.localhost",
    "http://localhost:80@evil.com",
    "http://0.0.0.0:7378",
    "http://localhost:0",
    "http://localhost:65536",
    "http://localhost:7378/",
    "http://localhost evil.com",
    "http://",
    "localhost",
    "file://",
    "chrome-extension://localhost",
    "wss://shop.example",
    "ws://evil.example",
    "capacitor://evil.example",
    "wsss://localhost",
    "app://localhost",
]
NO_ADDRESS = ["http://[127.0.0.1]", "http://[::::]", "http://localhost\N{ACCOUNT OF}"]


@pytest.mark.parametrize("origin", [*FOREIGN, *NO_ADDRESS])
def test_the_gate_keeps_out_foreign_pages_and_their_look_alikes(origin: str) -> None:
    with refused(403, texts.ORIGIN_REFUSED) as refusal:
        Gate().check_origin(origin, [SHOP])
    assert refusal.value.hidden
    assert "--allow-any-origin" in refusal.value.hint
    assert ("--allow-origin" in refusal.value.hint) == (parse_origin(origin) is not None)


@pytest.mark.parametrize("origin", ["http://box.lan:7378", "https://box.lan:7378", "HTTPS://Box.LAN:7378"])
def test_a_page_that_came_from_here_is_let_in_by_whatever_name_that_was(origin: str) -> None:
    Gate().check_origin(origin, [], "box.lan:7378")
    with refused(403, texts.ORIGIN_REFUSED):
        Gate().check_origin(origin, [], "box.lan:80")


def test_what_another_project_allows_counts_only_where_no_project_is_known(backend: Backend) -> None:
    add_project(backend)
    backend.change_project(project="second", allowed_origins=[SHOP])
    with refused(403, texts.ORIGIN_REFUSED):
        backend.read(knock(PLANTS, origin=SHOP))
    with refused(403, texts.KEY_MISSING):
        backend.read(knock(PLANTS, origin=SHOP, key=None))


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_gate_for_any_origin_lets_every_page_in_but_not_where_it_may_not_count(origin: str) -> None:
    gate = Gate(any_origin=True)
    gate.check_origin(origin, [])
    with refused(403, texts.ORIGIN_REFUSED):
        gate.check_origin(origin, [], for_control=True)


def test_a_gate_for_any_origin_leaves_the_rule_of_the_project_alone(garden: dict[str, Any], clock: Clock) -> None:
    backend = Backend(Store(JsonFile(None, garden)), clock, Gate(any_origin=True))
    backend.read(knock(PLANTS, origin=EVIL))
    backend.change_project(allowed_origins=[SHOP])
    with refused(403, texts.ORIGIN_REFUSED):
        backend.read(knock(PLANTS, origin=EVIL))


CRUD = [
    pytest.param(Backend.create, {"endpoint": DIARY, "data": "x"}, id="create"),
    pytest.param(Backend.read, {"endpoint": DIARY}, id="read"),
    pytest.param(Backend.update, {"endpoint": DIARY, "data": "x", "unique_id": DIARY_OF_ADA}, id="update"),
    pytest.param(Backend.delete, {"endpoint": DIARY, "unique_id": DIARY_OF_ADA}, id="delete"),
]
OTHERS = [
    pytest.param(Backend.register, {"endpoint": GARDENERS, "data": FACES}, id="register"),
    pytest.param(
        Backend.login, {"endpoint": GARDENERS, "data": {"username": "ada", "password": "apricot"}}, id="login"
    ),
    pytest.param(Backend.logout, {"endpoint": GARDENERS}, id="logout"),
    pytest.param(listen, {"endpoint": DIARY}, id="listen"),
]


@pytest.mark.parametrize(("verb", "shows"), [*CRUD, *OTHERS])
def test_no_verb_serves_a_foreign_page_and_no_login_or_socket_one_with_the_master_key(
    backend: Backend, ada: str, verb: Verb, shows: dict[str, Any]
) -> None:
    before = [backend.records(name) for name in (DIARY, GARDENERS)]
    is_lifted = shows["endpoint"] == DIARY and verb is not listen
    for master_key in (None, "wrong", "", *([] if is_lifted else [MASTER_KEY])):
        with refused(403, texts.ORIGIN_REFUSED):
            verb(backend, knock(**shows, token=ada, origin=EVIL, master_key=master_key))
    assert [backend.records(name) for name in (DIARY, GARDENERS)] == before
    assert backend.read(knock(CHORES, token=ada))
    assert len(backend.hub) == 0


@pytest.mark.parametrize("shows", [{"key": None}, {"key": "unknown"}, {"endpoint": "garden/nowhere"}], ids=str)
def test_where_no_project_is_known_the_gate_stands_all_the_same(backend: Backend, shows: dict[str, Any]) -> None:
    backend.change_project(allowed_origins=[SHOP])
    for origin in (EVIL, SHOP):
        with pytest.raises(Refusal) as refusal:
            backend.read(knock(**{"endpoint": PLANTS, "origin": origin} | shows))
        assert refusal.value.hidden == (origin == EVIL) == (refusal.value.message == texts.ORIGIN_REFUSED)


# The order of checks


class Fault(NamedTuple):
    stage: int
    name: str
    shows: dict[str, Any]
    status: int
    message: str


HOME = "http://localhost:3000"
FAULTS = [
    Fault(0, "foreign page", {"origin": EVIL}, 403, texts.ORIGIN_REFUSED),
    Fault(1, "no key", {"key": None}, 403, texts.KEY_MISSING),
    Fault(1, "empty key", {"key": ""}, 403, texts.KEY_MISSING),
    Fault(2, "unknown key", {"key": "unknown"}, 400, texts.NOT_VALID),
    Fault(2, "unknown endpoint", {"endpoint": "garden/nowhere"}, 400, texts.NOT_VALID),
    Fault(3, "wrong master key", {"master_key": "wrong"}, 403, texts.WRONG_MASTER_KEY),
    Fault(3, "empty master key", {"master_key": ""}, 403, texts.WRONG_MASTER_KEY),
    Fault(4, "no origin", {"origin": None}, 403, texts.NO_ORIGIN),
    Fault(4, "origin not allowed", {"origin": "http://localhost:4000"}, 403, texts.ORIGIN_REFUSED),
    Fault(5, "no token", {"token": None}, 401, texts.NO_TOKEN),
    Fault(5, "unknown token", {"token": "unknown"}, 401, texts.NO_TOKEN),
    Fault(6, "malformed query", {"malformed": True}, 400, texts.WRONG_PARAMETER),
    Fault(6, "no unique id", {"unique_ids": ()}, 400, texts.ONE_UNIQUE_ID),
    Fault(6, "unknown strategy", {"strategy": "sort"}, 400, texts.WRONG_PARAMETER),
    Fault(6, "no body", {"content": None}, 400, texts.WRONG_CONTENT_TYPE),
    Fault(6, "wrong type", {"content": ("image/png", None, b"{}")}, 400, texts.WRONG_CONTENT_TYPE),
    Fault(6, "no JSON", {"content": ("application/json", None, b"{")}, 400, texts.WRONG_BODY),
    Fault(7, "unknown record", {"unique_ids": ("unknown",)}, 400, texts.NO_RECORD),
    Fault(8, "not the owner", {"unique_ids": (CHORE_OF_BEN,)}, 403, texts.NOT_OWNER),
]
PAIRS = [
    pytest.param(first, second, id=f"{first.name} before {second.name}")
    for first, second in combinations(FAULTS, 2)
    if first.stage < second.stage and not first.shows.keys() & second.shows.keys()
]


@pytest.fixture
def strict(backend: Backend) -> Backend:
    """A backend whose project serves the pages of one origin alone."""
    backend.change_project(allowed_origins=[HOME], disallow_no_origin=True)
    return backend


def chore(ada: str, **shows: Any) -> Any:
    """A request that nothing is wrong with, but for what it shows."""
    right = {
        "endpoint": CHORES,
        "origin": HOME,
        "token": ada,
        "unique_ids": (CHORE_OF_ADA,),
        "content": ("application/json", None, b'{"done":true}'),
    }
    return knock(**right | shows)


def test_a_request_without_fault_is_carried_out(strict: Backend, ada: str) -> None:
    assert strict.update(chore(ada)).data == {"done": True}


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in FAULTS])
def test_every_fault_alone_is_refused(strict: Backend, ada: str, fault: Fault) -> None:
    with refused(fault.status, fault.message):
        strict.update(chore(ada, **fault.shows))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_faults_the_earlier_check_answers(strict: Backend, ada: str, first: Fault, second: Fault) -> None:
    with refused(first.status, first.message):
        strict.update(chore(ada, **first.shows, **second.shows))


@pytest.mark.parametrize(
    ("shows", "reason"),
    [
        ({"key": None}, texts.NOT_VALID),
        ({"key": "unknown"}, texts.NOT_VALID),
        ({"endpoint": "garden/nowhere"}, texts.NOT_VALID),
        ({"origin": EVIL}, texts.ORIGIN_REFUSED),
        ({"origin": "http://localhost:4000"}, texts.ORIGIN_REFUSED),
        ({"origin": None}, texts.ORIGIN_REFUSED),
        ({"token": None}, texts.NO_TOKEN),
        ({"token": "unknown"}, texts.NO_TOKEN),
    ],
    ids=str,
)
def test_a_refused_socket_reads_why(strict: Backend, ada: str, shows: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refusal) as refusal:
        listen(strict, chore(ada, **shows))
    assert refusal.value.reason == reason


def test_the_key_of_another_project_opens_nothing(backend: Backend) -> None:
    add_project(backend)
    with refused(400, texts.NOT_VALID):
        backend.read(knock(PLANTS, key="second"))


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "HTTP://LOCALHOST:3000",
        SHOP,
        "https://SHOP.example",
        f"{SHOP}:443",
        "wss://shop.example:443",
        "ionic://shop",
        None,
    ],
)
def test_allowed_origins_are_served(backend: Backend, origin: str | None) -> None:
    backend.change_project(allowed_origins=[f"http://localhost:3000, {SHOP}/, WSS://shop.example, ionic://shop"])
    assert backend.read(knock(PLANTS, origin=origin))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3001",
        "https://localhost:3000",
        "http://127.0.0.1:3000",
        "http://app.localhost:3000",
        "http://localhost:3000/",
        "http://shop.example",
        "https://shop.example:8443",
        "https://shop.example.evil.com",
        "ws://localhost:3000",
        "capacitor://localhost",
        "null",
        "",
    ],
)
def test_other_origins_are_refused_whatever_they_resemble(backend: Backend, origin: str) -> None:
    backend.change_project(allowed_origins=["http://localhost:3000", SHOP])
    with refused(403, texts.ORIGIN_REFUSED):
        backend.read(knock(PLANTS, origin=origin))


def test_without_allowed_origins_every_page_of_this_machine_is_served(backend: Backend) -> None:
    for origin in ("http://localhost:1", "https://127.0.0.1", "http://[::1]:9"):
        assert backend.read(knock(PLANTS, origin=origin))


def test_requests_without_origin_can_be_disallowed(backend: Backend) -> None:
    backend.change_project(disallow_no_origin=True)
    assert backend.read(knock(PLANTS, origin=HOME))
    with refused(403, texts.NO_ORIGIN):
        backend.read(knock(PLANTS))


# The master key


@pytest.mark.parametrize(("verb", "shows"), CRUD)
@pytest.mark.parametrize("origin", [None, "http://localhost:4000", EVIL])
def test_a_right_master_key_lifts_token_and_origin(
    strict: Backend, verb: Verb, shows: dict[str, Any], origin: str | None
) -> None:
    verb(strict, knock(**shows, origin=origin, master_key=MASTER_KEY))


@pytest.mark.parametrize("given", ["wrong", "", MASTER_KEY.upper(), MASTER_KEY + "0", "\udcff", "schlüssel" * 10_000])
@pytest.mark.parametrize(("verb", "shows"), CRUD)
def test_a_wrong_master_key_is_refused(
    backend: Backend, ada: str, verb: Verb, shows: dict[str, Any], given: str
) -> None:
    with refused(403, texts.WRONG_MASTER_KEY):
        verb(backend, knock(**shows, token=ada, master_key=given))


@pytest.mark.parametrize("given", [MASTER_KEY, ""])
@pytest.mark.parametrize(("verb", "shows"), CRUD)
def test_where_none_is_set_every_master_key_is_wrong(
    backend: Backend, ada: str, verb: Verb, shows: dict[str, Any], given: str
) -> None:
    backend.change_project(master_key="")
    with refused(403, texts.WRONG_MASTER_KEY):
        verb(backend, knock(**shows, token=ada, master_key=given))


@pytest.mark.parametrize(("verb", "shows"), OTHERS)
@pytest.mark.parametrize("given", ["wrong", "", MASTER_KEY])
def test_register_login_logout_and_sockets_ignore_the_master_key(
    backend: Backend, ada: str, verb: Verb, shows: dict[str, Any], given: str
) -> None:
    verb(backend, knock(**shows, token=ada, master_key=given))


@pytest.mark.parametrize(("verb", "shows"), OTHERS)
def test_a_right_master_key_lifts_the_origin_rule_for_no_login_and_no_socket(
    strict: Backend, ada: str, verb: Verb, shows: dict[str, Any]
) -> None:
    with refused(403, texts.ORIGIN_REFUSED):
        verb(strict, knock(**shows, token=ada, origin="http://localhost:4000", master_key=MASTER_KEY))


def test_a_right_master_key_replaces_no_token_of_a_socket(backend: Backend) -> None:
    with refused(401):
        listen(backend, knock(DIARY, master_key=MASTER_KEY))


@pytest.mark.parametrize(("origin", "hidden"), [(HOME, False), ("http://localhost:4000", True)])
def test_only_an_allowed_page_reads_that_its_master_key_is_wrong(strict: Backend, origin: str, hidden: bool) -> None:
    with refused(403) as refusal:
        strict.read(knock(PLANTS, origin=origin, master_key="wrong"))
    assert refusal.value.hidden is hidden


# Tokens


def check_refused(backend: Backend, verb: Verb, token: str | None) -> None:
    with refused(401, texts.NO_TOKEN) as refusal:
        verb(backend, knock(CHORES, token=token))
    assert refusal.value.reason == texts.NO_TOKEN


def logged_out(backend: Backend, ada: str) -> str:
    backend.logout(knock(GARDENERS, token=ada))
    return ada


def of_a_deleted_user(backend: Backend, ada: str) -> str:
    backend.delete(knock(GARDENERS, token=ada, unique_id=ADA))
    return ada


def of_a_user_deleted_while_the_endpoint_was_ordinary(backend: Backend, ada: str) -> str:
    backend.change_endpoint(GARDENERS, authentication=False)
    backend.delete(knock(GARDENERS, unique_id=ADA))
    backend.change_endpoint(GARDENERS, authentication=True)
    return ada


def of_a_deleted_endpoint(backend: Backend, ada: str) -> str:
    backend.delete_endpoint(GARDENERS)
    backend.change_endpoint(GARDENERS, authentication=True)
    return ada


def made_before_a_reset(backend: Backend, ada: str) -> str:
    backend.reset()
    return ada


def of_another_project(backend: Backend, _: str) -> str:
    add_project(backend, users="second/people")
    return backend.sign_in("second/people", "ada")  # type: ignore[no-any-return]


@pytest.mark.parametrize("verb", [Backend.read, listen])
@pytest.mark.parametrize(
    "token",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("0" * 32, id="well formed and unknown"),
        pytest.param("tökén-🥕", id="not ASCII"),
        pytest.param("\udcff\ud800", id="lone surrogates"),
        pytest.param("é" * 100_000, id="100 KB"),
        pytest.param("\0\r\n", id="control characters"),
        pytest.param(ADA, id="a user's id"),
        pytest.param(KEY, id="the key"),
        pytest.param(MASTER_KEY, id="the master key"),
    ],
)
def test_what_is_no_token_is_refused(backend: Backend, verb: Verb, token: str | None) -> None:
    check_refused(backend, verb, token)


@pytest.mark.parametrize("verb", [Backend.read, listen])
@pytest.mark.parametrize("place", range(32))
def test_a_token_changed_by_a_bit_is_refused(backend: Backend, ada: str, verb: Verb, place: int) -> None:
    check_refused(backend, verb, ada[:place] + chr(ord(ada[place]) ^ 1) + ada[place + 1 :])


@pytest.mark.parametrize("verb", [Backend.read, listen])
@pytest.mark.parametrize(
    "token",
    [
        logged_out,
        of_a_deleted_user,
        of_a_user_deleted_while_the_endpoint_was_ordinary,
        of_a_deleted_endpoint,
        made_before_a_reset,
        of_another_project,
    ],
)
def test_a_token_that_was_valid_once_or_elsewhere_is_refused(
    backend: Backend, ada: str, verb: Verb, token: Callable[[Backend, str], str]
) -> None:
    check_refused(backend, verb, token(backend, ada))


@pytest.mark.parametrize("verb", [Backend.read, listen])
def test_an_expired_token_is_told_apart_over_http_and_not_on_a_socket(backend: Backend, ada: str, verb: Verb) -> None:
    backend.advance(3600)
    with refused(401, texts.TOKEN_EXPIRED) as refusal:
        verb(backend, knock(CHORES, token=ada))
    assert refusal.value.reason == texts.NO_TOKEN


@pytest.mark.parametrize("odd", ["ключ", "\udcff", "\0", "é" * 100_000], ids=["cyrillic", "surrogate", "NUL", "100 KB"])
@pytest.mark.parametrize(("verb", "shows"), [*CRUD, *OTHERS])
def test_odd_text_in_every_place_at_once_is_only_refused(
    backend: Backend, verb: Verb, shows: dict[str, Any], odd: str
) -> None:
    for places in (("key", "master_key", "token"), ("master_key", "token"), ("token",)):
        with pytest.raises(Refusal):
            verb(backend, knock(**shows | {"data": [odd], "unique_id": odd} | dict.fromkeys(places, odd)))


def test_an_open_endpoint_asks_nobody_who_they_are(backend: Backend) -> None:
    assert backend.read(knock(PLANTS, token="unknown"))
    listen(backend, knock(PLANTS, token="unknown"))


def test_a_token_is_valid_for_every_secure_endpoint_of_its_project(backend: Backend, ada: str) -> None:
    backend.change_endpoint("garden/tools", secure=True)
    for name in (DIARY, CHORES, "garden/tools"):
        backend.read(knock(name, token=ada))


# Whose record it is

READ, UPDATE, DELETE = "read", "update", "delete"
READABLE, CHANGEABLE, REMOVABLE = "others_can_read", "others_can_update", "others_can_delete"
NO_RECORD, NOT_OWNER = texts.NO_RECORD, texts.NOT_OWNER
Outcome = str | None

ON_THE_RECORD_OF_ANOTHER: dict[tuple[str, ...], tuple[Outcome, Outcome, Outcome]] = {
    (): (NO_RECORD, NO_RECORD, NO_RECORD),
    (READABLE,): (None, NOT_OWNER, NOT_OWNER),
    (READABLE, CHANGEABLE): (None, None, NOT_OWNER),
    (READABLE, REMOVABLE): (None, NOT_OWNER, None),
    (READABLE, CHANGEABLE, REMOVABLE): (None, None, None),
    (CHANGEABLE,): (NO_RECORD, None, NO_RECORD),
    (REMOVABLE,): (NO_RECORD, NO_RECORD, None),
    (CHANGEABLE, REMOVABLE): (NO_RECORD, None, None),
}
OPERATIONS = pytest.mark.parametrize("operation", [READ, UPDATE, DELETE])
COMBINATIONS = pytest.mark.parametrize("others", ON_THE_RECORD_OF_ANOTHER, ids=str)


def act(backend: Backend, operation: str, endpoint: str, unique_id: str, **shows: Any) -> Any:
    data = {"username": "ada", "password": "apricot"} if endpoint == GARDENERS else "changed"
    if operation == UPDATE:
        return backend.update(knock(endpoint, data, unique_id=unique_id, **shows))
    return getattr(backend, operation)(knock(endpoint, unique_id=unique_id, **shows))


def allow(backend: Backend, endpoint: str, others: tuple[str, ...]) -> None:
    for option in others:
        backend.change_endpoint(endpoint, **{option: True})


@OPERATIONS
@COMBINATIONS
def test_what_others_may_do_to_an_owned_record(
    backend: Backend, ada: str, others: tuple[str, ...], operation: str
) -> None:
    outcome = ON_THE_RECORD_OF_ANOTHER[others][(READ, UPDATE, DELETE).index(operation)]
    allow(backend, DIARY, others)
    before = backend.records(DIARY)
    if outcome is None:
        act(backend, operation, DIARY, DIARY_OF_BEN, token=ada)
        return
    with refused(403 if outcome == NOT_OWNER else 400, outcome):
        act(backend, operation, DIARY, DIARY_OF_BEN, token=ada)
    assert backend.records(DIARY) == before


@OPERATIONS
@COMBINATIONS
def test_an_owner_may_do_everything(backend: Backend, ada: str, operation: str, others: tuple[str, ...]) -> None:
    allow(backend, DIARY, others)
    act(backend, operation, DIARY, DIARY_OF_ADA, token=ada)


@OPERATIONS
@COMBINATIONS
def test_a_record_without_owner_is_open_to_every_user(
    backend: Backend, ada: str, operation: str, others: tuple[str, ...]
) -> None:
    record = backend.create(knock(DIARY, "for all", token=ada, master_key=MASTER_KEY))
    allow(backend, DIARY, others)
    act(backend, operation, DIARY, record.unique_id, token=ada)


@OPERATIONS
def test_a_record_without_owner_is_closed_to_those_who_are_not_logged_in(backend: Backend, operation: str) -> None:
    record = backend.create(knock(DIARY, "for all", master_key=MASTER_KEY))
    with refused(401):
        act(backend, operation, DIARY, record.unique_id)


@OPERATIONS
def test_the_master_key_may_do_everything(backend: Backend, operation: str) -> None:
    act(backend, operation, DIARY, DIARY_OF_ADA, master_key=MASTER_KEY)


@OPERATIONS
def test_records_older_than_the_option_secure_are_open_to_every_user(
    backend: Backend, ada: str, operation: str
) -> None:
    backend.change_endpoint(PLANTS, secure=True)
    act(backend, operation, PLANTS, TOMATO, token=ada)


@OPERATIONS
def test_on_an_open_endpoint_anyone_may_do_everything(backend: Backend, operation: str) -> None:
    backend.change_endpoint(DIARY, secure=False)
    act(backend, operation, DIARY, DIARY_OF_BEN)
    act(backend, operation, PLANTS, TOMATO)


@pytest.mark.parametrize(("others", "count"), [((), 2), ((CHANGEABLE, REMOVABLE), 2), ((READABLE,), 3)], ids=str)
def test_a_list_has_the_records_the_user_may_read(
    backend: Backend, ada: str, others: tuple[str, ...], count: int
) -> None:
    backend.create(knock(DIARY, "for all", master_key=MASTER_KEY))
    allow(backend, DIARY, others)
    records = backend.read(knock(DIARY, token=ada))
    assert len(records) == count


@OPERATIONS
@COMBINATIONS
def test_on_an_authentication_endpoint_only_the_own_record_is_there(
    backend: Backend, ada: str, operation: str, others: tuple[str, ...]
) -> None:
    allow(backend, GARDENERS, others)
    with refused(400, texts.NO_RECORD):
        act(backend, operation, GARDENERS, BEN, token=ada)
    act(backend, operation, GARDENERS, ADA, token=ada)


@OPERATIONS
def test_an_authentication_endpoint_knows_no_user_of_another_one(backend: Backend, operation: str) -> None:
    backend.change_endpoint("garden/visitors", authentication=True)
    backend.store.put_record("garden/visitors", record_of(ADA, {"username": "ada"}))  # with the same id
    visitor = backend.sign_in("garden/visitors", "ada")
    with refused(400, texts.NO_RECORD):
        act(backend, operation, GARDENERS, ADA, token=visitor)
