"""Server and RestedEmulator: the fixture for tests, its options at work, and its beginning and end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import math
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from rested_emulator import (
    DataFileError,
    OptionError,
    Options,
    RestedEmulator,
    RestedError,
    Server,
    World,
    most_sockets,
)
from tests import texts
from tests.conftest import (
    CHORES,
    DIARY,
    GARDEN,
    GARDENERS,
    KEY,
    PLANTS,
    ROOT,
    Backend,
    Ear,
    StoppedTime,
    knock,
    refused,
)
from tests.wire import (
    HANDSHAKE,
    allow_sockets,
    answer_on,
    at,
    at_end,
    call,
    closing,
    emulator_with,
    head,
    open_socket,
    take,
    wire,
)

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]


def test_the_fixture_of_the_readme_does_what_it_says() -> None:
    with RestedEmulator(secure=["notes/private"], auth=["notes/users"]) as emulator:
        token = emulator.sign_in("notes/users", "ada")
        bearer = {"Authorization": f"Bearer {token}"}
        url = emulator.url("notes/private")
        assert call(url).status == 401
        assert call(url, "POST", {"text": "hello"}, headers=bearer).status == 200
        assert [record["data"] for record in emulator.records("notes/private")] == [{"text": "hello"}]
        emulator.expire_tokens()
        assert call(url, headers=bearer).status == 401
        emulator.change_endpoint("notes/private", secure=False)
        assert len(call(url).json) == 1
        emulator.reset()
        assert emulator.records("notes/private") == []
        assert call(url).status == 401


def test_two_emulators_in_one_process_do_not_hear_each_other() -> None:
    with RestedEmulator(data=GARDEN) as one, RestedEmulator(data=GARDEN) as other:
        with open_socket(one.ws_url(PLANTS)) as ear_of_one, open_socket(other.ws_url(PLANTS)) as ear_of_other:
            call(one.url(PLANTS), "POST", "to one")
            call(other.url(PLANTS), "POST", "to other")
            assert json.loads(ear_of_one.recv(5))["record"]["data"] == "to one"
            assert json.loads(ear_of_other.recv(5))["record"]["data"] == "to other"
        assert (len(one.records(PLANTS)), len(other.records(PLANTS))) == (4, 4)


def test_stop_closes_sockets_with_1001_and_frees_port_and_thread() -> None:
    before = threading.active_count()
    emulator = RestedEmulator()
    emulator.start()
    port = emulator.facts["port"]
    with open_socket(emulator.ws_url("examples/unsecure-endpoint")) as ear:
        emulator.stop()
        assert closing(ear)[0] == 1001
    emulator.stop()
    with RestedEmulator(port=port):
        pass
    assert threading.active_count() <= before + 1, "the listener's own thread may still end"


def test_a_taken_port_raises_where_the_test_stands() -> None:
    with RestedEmulator() as emulator, pytest.raises(OSError, match="in use"):
        RestedEmulator(port=emulator.facts["port"]).start()


def test_a_taken_port_on_the_second_family_alone_is_taken_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            RestedEmulator(port=port).start()
        with socket.create_server(("127.0.0.1", port)):
            pass  # what was taken before the failure is free again


def test_a_free_port_is_free_on_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.create_server
    refused: list[int] = []

    def create_server(address: tuple[str, int], **options: Any) -> socket.socket:
        if address[0] == "::1" and len(refused) < 3:
            refused.append(address[1])
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(address, **options)

    monkeypatch.setattr(socket, "create_server", create_server)
    with RestedEmulator() as emulator:
        assert len(refused) == 3
        assert call(f"http://[::1]:{emulator.facts['port']}/__emulator__/health").status == 200


def test_a_stopped_emulator_says_so() -> None:
    with pytest.raises(RestedError, match="does not run"):
        RestedEmulator().records("examples/auth")


def test_a_wrong_argument_of_a_verb_raises_where_the_test_stands(emulator: RestedEmulator) -> None:
    with pytest.raises(OptionError, match="there is no endpoint 'garden/gnomes'"):
        emulator.delete_endpoint("garden/gnomes")
    with pytest.raises(TypeError):
        emulator.change_endpoint(PLANTS, secur=True)  # type: ignore[call-arg]


def test_reset_goes_back_to_the_seed_and_the_options_given(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    with RestedEmulator(data=path, memory=False, seed=GARDEN) as emulator:
        call(emulator.url(PLANTS), "POST", "kept")
    with RestedEmulator(data=path, memory=False, seed=GARDEN, secure=[PLANTS]) as emulator:
        assert len(emulator.records(PLANTS)) == 4
        assert emulator.reset()["messages"] == 1
        assert len(emulator.records(PLANTS)) == 3
        assert call(emulator.url(PLANTS)).status == 401


KINDS = {"folder": ": a folder, as containers make it for a missing file; mount one with {}", "pipe": ""}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["lock", "journal"])
def test_what_is_no_file_is_no_lock_and_no_journal(tmp_path: Path, what: str, kind: str) -> None:
    path = tmp_path / f"data.json.{what}"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(OptionError, match=f"^{what} {re.escape(str(path))} is not a regular file{KINDS[kind]}$"):
        RestedEmulator(data=tmp_path / "data.json", memory=False).start()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "memory"), [("data", True), ("data", False), ("seed", True)])
def test_what_is_no_file_is_no_data(tmp_path: Path, kind: str, name: str, memory: bool) -> None:
    path = tmp_path / "data.json"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    given: dict[str, Any] = {name: path, "memory": memory}
    with pytest.raises(OptionError, match=f"{re.escape(str(path))} is not a regular file{KINDS[kind]}$"):
        RestedEmulator(**given).start()


def test_reset_keeps_the_key_that_the_data_have(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    with RestedEmulator(data=path, memory=False, seed=GARDEN, key="mine"):
        pass
    with RestedEmulator(data=path, memory=False, seed=GARDEN) as emulator:
        assert emulator.facts["key"] == "mine"
        emulator.reset()
        assert call(emulator.url(PLANTS)).status == 200


def test_without_a_seed_reset_goes_back_to_the_data_as_it_was_at_start(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    with RestedEmulator(data=path, memory=False) as emulator:
        call(emulator.url("examples/unsecure-endpoint"), "POST", "first run")
    with RestedEmulator(data=path, memory=False) as emulator:
        call(emulator.url("examples/unsecure-endpoint"), "POST", "second run")
        emulator.reset()
        assert [record["data"] for record in emulator.records("examples/unsecure-endpoint")] == ["first run"]


# Options are state of the emulator, or schedule a verb; no socket is needed to see it


def server(time: StoppedTime | None = None, **options: object) -> Server:
    return Server(Options.of(memory=True, data=GARDEN, **options), time)


def test_options_become_state_at_start() -> None:
    backend = server(
        key="another",
        master_key="secret",
        endpoint=["garden/tools"],
        auth=["garden/guests"],
        secure=[PLANTS],
        others_can=[f"read:{DIARY}", f"delete:{DIARY}"],
        allow_origin=["http://localhost:3000"],
        disallow_no_origin=True,
        token_ttl="5m",
    ).world
    [project] = backend.store.projects()
    assert (project.key, project.master_key, project.token_ttl) == ("another", "secret", 300.0)
    assert (project.allowed_origins, project.disallow_no_origin) == (("http://localhost:3000",), True)
    endpoints = {endpoint.name: endpoint for endpoint in backend.store.endpoints()}
    assert {endpoint.project for endpoint in endpoints.values()} == {"another"}
    assert not endpoints["garden/tools"].needs_token
    assert endpoints["garden/guests"].authentication
    assert endpoints[PLANTS].secure
    diary = endpoints[DIARY]
    assert (diary.others_can_read, diary.others_can_update, diary.others_can_delete) == (True, False, True)


def test_options_not_given_leave_the_data_as_it_is() -> None:
    before = server().world.store
    assert [endpoint.name for endpoint in before.endpoints()] == [PLANTS, GARDENERS, DIARY, CHORES]
    assert before.projects()[0].key == KEY


def test_two_timers_end_tokens_and_change_options_again_and_again() -> None:
    time = StoppedTime()
    emulated = server(time, expire_tokens_after="10s", change_options_after="25s")
    backend = Backend.of(emulated.world)
    ended = []
    for _ in range(5):
        diary, plants = Ear(), Ear()
        backend.listen(knock(DIARY, token=backend.sign_in(GARDENERS, "ada")), diary)
        backend.listen(knock(PLANTS), plants)
        backend.advance(10)
        ended.append((diary.ended and diary.ended[1], plants.ended and plants.ended[1]))
    expired, changed = texts.TOKEN_EXPIRED, texts.OPTIONS_CHANGED
    assert ended == [(expired, None), (expired, None), (changed, changed), (expired, None), (changed, changed)]


def test_the_gate_opens_as_the_options_say() -> None:
    gate = server(allow_host=["box.lan"], host="0.0.0.0").world.gate
    for host in ("localhost:7378", "box.lan:7378", "192.168.1.20:7378"):
        gate.check_host(host)
    for host in ("0.0.0.0:7378", "evil.example", "[::]:7378"):
        with refused(403):
            gate.check_host(host)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_a_control_token_that_is_given_is_wanted_everywhere(host: str) -> None:
    with RestedEmulator(control_token="a+b", host=host) as emulator:
        status = f"{emulator.facts['controlUrl']}/status"
        assert emulator.facts["controlToken"] == "a+b"
        assert call(status).status == 403
        assert "--control-token" in call(status).json["hint"]
        assert call(status, headers={"Authorization": "Bearer a b"}).status == 403
        assert call(status, headers={"Authorization": "Bearer a+b"}).status == 200
        assert call(f"{emulator.facts['controlUrl']}/health").status == 200
        assert emulator.records("examples/auth") == []


def test_the_urls_of_an_emulator_are_percent_encoded() -> None:
    key = "a#b c&d'é/?"
    with RestedEmulator(key=key, endpoint=["notes/open"]) as emulator:
        assert emulator.url("notes/open").endswith("/notes/open?key=a%23b%20c%26d%27%C3%A9%2F%3F")
        assert call(emulator.url("notes/open"), "POST", 1).status == 200
        with open_socket(emulator.ws_url("notes/open")) as ear:
            call(emulator.url("notes/open"), "POST", 2)
            assert json.loads(ear.recv(5))["record"]["data"] == 2
        assert " " not in emulator.url("no such")


BAD_KEYS = (" k", "k\n", "a\0b", "a\x1b[31mb")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_no_door_takes_a_key_that_does_not_show_as_it_is(tmp_path: Path, key: str) -> None:
    for name in ("key", "master_key", "control_token", "fork_keys"):
        with pytest.raises(OptionError, match=f"{name}: it is .* white space around it"):
            Options.of(**{name: key})
    with RestedEmulator(fork_keys=["*k*", "*b*"]) as emulator:
        doors: list[Callable[[], object]] = [
            lambda: emulator.change_project(key=key),
            lambda: emulator.change_project(master_key=key),
            lambda: emulator.fork(key),
            lambda: emulator.checkpoint(key),
        ]
        for door in doors:
            with pytest.raises(OptionError, match="white space around it"):
                door()
        target = emulator.url("examples/auth").partition("=")[0]
        assert call(f"{target}={quote(key)}").status == 400, "a request makes no world of it either"
    data = tmp_path / "data.json"
    for projects, sessions in (({key: {}}, {}), ({"k": {"masterKey": key}}, {}), ({"k": {}}, {key: SESSION})):
        data.write_text(
            json.dumps({"_projects": projects, "_sessions": sessions, "_endpoints": {"notes/users": USERS}})
        )
        with pytest.raises(DataFileError, match="white space around it"):
            Server(Options.of(data=data, memory=True))


USERS = {"authentication": True}
SESSION = {"endpoint": "notes/users", "user": "ada", "expiresAt": "2030-01-01T00:00:00.000Z"}


def test_a_control_token_fits_into_a_header() -> None:
    for token in ("a b", "clé"):
        with pytest.raises(OptionError, match=r"control_token: .* fits in no header"):
            Options.of(control_token=token)


def test_a_path_with_nul_is_a_wrong_option() -> None:
    with pytest.raises(OptionError, match=r"data: .* no name of a file has NUL in it"):
        RestedEmulator(data="a\0b")


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "a\0b"])
def test_a_host_that_can_have_no_address_is_an_os_error(host: str) -> None:
    with pytest.raises(OSError, match=r"\S"):
        RestedEmulator(host=host).start()


def test_control_wants_a_token_only_beyond_loopback() -> None:
    tokens = {host: server(host=host).control_token for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0")}
    assert {host for host, token in tokens.items() if token} == {"0.0.0.0"}


# What a review found


def test_a_second_start_is_refused_and_the_first_goes_on() -> None:
    with RestedEmulator() as emulator:
        with pytest.raises(RestedError, match="runs already"):
            emulator.start()
        assert emulator.records("examples/unsecure-endpoint") == []


def test_a_stopped_emulator_starts_again(tmp_path: Path) -> None:
    emulator = RestedEmulator(data=tmp_path / "data.json", memory=False)
    for count in range(3):
        with emulator:
            call(emulator.url("examples/unsecure-endpoint"), "POST", count)
            assert len(emulator.records("examples/unsecure-endpoint")) == count + 1


def test_many_threads_may_use_one_emulator_while_it_stops() -> None:
    emulator = RestedEmulator()
    emulator.start()
    outcomes: list[object] = []

    def use() -> None:
        try:
            while True:
                emulator.records("examples/unsecure-endpoint")
        except Exception as error:
            outcomes.append(error)

    users = [threading.Thread(target=use) for _ in range(6)]
    for user in users:
        user.start()
    emulator.stop()
    for user in users:
        user.join(timeout=10)
    assert len(outcomes) == 6
    assert all("this emulator does not run" in str(outcome) for outcome in outcomes)


def test_what_is_written_while_it_stops_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    emulator = RestedEmulator(data=path, memory=False)
    emulator.start()
    parts = urlsplit(emulator.url("examples/unsecure-endpoint"))
    connection = HTTPConnection("127.0.0.1", parts.port, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    connection.getresponse().read()
    with silent_listener(emulator) as listener:
        stopping = threading.Thread(target=emulator.stop)
        stopping.start()
        listener.recv(4)  # the close frame: from now on it waits for us to confirm
        connection.request("POST", f"{parts.path}?{parts.query}", "1", {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
    stopping.join(timeout=10)
    assert len(json.loads(path.read_text())["examples/unsecure-endpoint"]) == 1


@contextmanager
def silent_listener(emulator: RestedEmulator) -> Iterator[socket.socket]:
    """A WebSocket whose client never answers."""
    with wire(emulator) as connection:
        key = "d59eb2859c284168ac48aef65046d5dd"
        connection.sendall(head("GET", at("examples/unsecure-endpoint", key=key), *HANDSHAKE))
        assert answer_on(connection).status == 101
        yield connection


def test_a_handshake_that_matures_while_it_stops_is_told_so() -> None:
    emulator = RestedEmulator(latency=0.3)
    emulator.start()
    with wire(emulator) as connection, silent_listener(emulator):
        connection.sendall(head("GET", at("examples/unsecure-endpoint", key="x"), *HANDSHAKE))
        call(f"{emulator.facts['controlUrl']}/health")
        stopping = threading.Thread(target=emulator.stop)
        stopping.start()
        assert answer_on(connection).status == 101
        assert take(connection, 4)[2:] == (1001).to_bytes(2)
    stopping.join(timeout=10)


def test_a_body_on_a_handshake_is_not_collected(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        size = 64 * 2**20
        connection.sendall(head("GET", at(PLANTS), *HANDSHAKE, f"Content-Length: {size}"))
        before = memory_in_use()
        for _ in range(64):
            connection.sendall(bytes(2**20))
        emulator.records(PLANTS)
        assert memory_in_use() - before < 32 * 2**20


def memory_in_use() -> int:
    """Resident bytes of this process, as Linux tells."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_beyond_the_limit_of_connections_it_says_503_and_stays_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as file:
        allow_sockets(file.fileno() + 40 - 64, monkeypatch)
        with RestedEmulator() as emulator:
            with contextlib.ExitStack() as connections:
                *_, last = [connections.enter_context(wire(emulator)) for _ in range(40)]
                assert answer_on(last).status == 503
            for _ in range(20):
                assert call(emulator.url("examples/unsecure-endpoint")).status == 200


@pytest.mark.warns("Exception in callback")
def test_an_alarm_that_fails_stops_neither_timers_nor_saving() -> None:
    with RestedEmulator() as emulator:
        rung = threading.Event()

        def fail() -> None:
            raise RuntimeError("on purpose")

        emulator.call(lambda server: server.world.clock.at(0, fail))
        emulator.call(lambda server: server.world.clock.at(server.world.clock.now() + 0.1, rung.set))
        assert rung.wait(10)


@pytest.mark.parametrize("key", [None, "one"])
def test_after_an_advance_an_expiry_comes_at_its_moment(key: str | None) -> None:
    with RestedEmulator(data=GARDEN, token_ttl=3600) as emulator:
        world = emulator.world(key) if key else emulator
        token = world.sign_in(GARDENERS, "ada")
        with open_socket(f"{world.ws_url(DIARY)}&accessToken={token}") as ear:
            world.advance(3599.9)
            wait = emulator.call(lambda server: server.worlds.named(key).clock.until_next())
            assert wait < 0.2 or wait == math.inf, "it has come already, on a busy machine"
            assert closing(ear) == (1000, texts.TOKEN_EXPIRED)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("localhost", "localhost"), ("127.0.0.1", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")],
)
def test_the_url_is_one_that_connects(host: str, shown: str) -> None:
    if host == "127.0.0.2" and sys.platform == "darwin":
        pytest.skip("macOS has no 127.0.0.2 unless it is told to")
    with RestedEmulator(host=host) as emulator:
        assert str(emulator.facts["host"]).startswith(f"{shown}:")
        assert call(emulator.url("examples/unsecure-endpoint")).status == 200


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("advance", ["x"]),
        ("advance", [float("nan")]),
        ("advance", [-(10**400)]),
        ("change_endpoint", [5]),
        ("records", [None]),
    ],
)
def test_an_argument_of_the_wrong_type_is_an_option_error(
    emulator: RestedEmulator, verb: str, arguments: list[object]
) -> None:
    with pytest.raises(OptionError, match="it takes"):
        getattr(emulator, verb)(*arguments)


# The limits of the system


INFINITE = getattr(resource, "RLIM_INFINITY", -1)


@pytest.mark.parametrize(
    ("soft", "hard", "most_allowed", "sockets"),
    [
        (1024, 1048576, 1048576, 65536 - 128),
        (1024, 4096, 4096, 4096 - 128),
        (256, INFINITE, 10240, 10240 - 128),  # macOS says that there is no limit, and refuses what is beyond its own
        (256, INFINITE, 24576, 10240 - 128),
        (256, INFINITE, 256, 256 - 128),
        (INFINITE, INFINITE, 10240, 10240 - 128),
        (100000, 100000, 100000, 65536 - 128),
        (128, 128, 128, 16),
        (64, 4096, 4096, 4096 - 128),
    ],
)
def test_as_many_files_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most_allowed: int, sockets: int
) -> None:
    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        if limits[0] > most_allowed:
            raise ValueError("not allowed to raise maximum limit")

    pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert most_sockets() == sockets


def test_too_few_files_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("resource"), "getrlimit", lambda _: (127, 127))
    with pytest.raises(OptionError, match="may open 127 files, and 128 are needed: ulimit -n 1024"):
        RestedEmulator().start()


def test_without_limits_of_the_system_as_on_windows_connections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = emulator_with(monkeypatch, resource=None)
    # The other one knows of limits, and lifts them: here are both ends of each connection.
    with RestedEmulator(), elsewhere.RestedEmulator() as emulator, contextlib.ExitStack() as connections:
        *first, last = [connections.enter_context(wire(emulator)) for _ in range(192 + 64 + 1)]
        assert answer_on(last).status == 503
        first[-1].sendall(head("GET", "/__emulator__/health"))
        assert answer_on(first[-1]).status == 200


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch a socket for others, as the one of Windows."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    add_writer = remove_reader = remove_writer = add_reader  # type: ignore[assignment]


@pytest.fixture
def _as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "ProactorEventLoop", NoReaders, raising=False)  # by which Tornado tells such a loop
    monkeypatch.setattr(asyncio.events, "new_event_loop", NoReaders)


@pytest.mark.usefixtures("_as_on_windows")
def test_in_a_loop_that_watches_no_sockets_all_goes_on_and_silence_is_silence() -> None:
    with RestedEmulator() as emulator:
        url, ws_url = emulator.url("examples/unsecure-endpoint"), emulator.ws_url("examples/unsecure-endpoint")
        assert type(emulator.call(lambda _: asyncio.get_running_loop())) is NoReaders
        with silent_listener(emulator) as silenced, open_socket(ws_url) as ear:
            assert emulator.add_fault("silence", times=1)["sockets"] == 1
            silenced.sendall(b"\x89\x80\0\0\0\0")  # a ping
            call(url, "POST", 1)
            assert json.loads(ear.recv(5))["record"]["data"] == 1
            silenced.settimeout(0.1)
            with pytest.raises(TimeoutError):
                silenced.recv(1)
            emulator.stop()
            assert closing(ear)[0] == 1001
            silenced.settimeout(10)
            assert at_end(silenced)


# Where waiting would never end


FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
NOTES = "examples/unsecure-endpoint"


def forking(test: Callable[..., None]) -> Callable[..., None]:
    """A test that forks this process, as ``multiprocessing`` does on Linux; Python 3.12 and newer warn of that."""
    warned = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    marked: Callable[..., None] = pytest.mark.skipif(FORK is None, reason="there is no fork here")(warned(test))
    return marked


def in_a_fork(task: Callable[[Any], None], *, then: Callable[[], None] = lambda: None) -> Any:
    """Run something in a fork of this process, which lives until ``then`` has run here; what it sends."""
    assert FORK
    ours, theirs = FORK.Pipe()

    def child() -> None:
        task(theirs)
        theirs.recv()

    process = FORK.Process(target=child)
    process.start()
    try:
        assert ours.poll(20), "the fork hangs"
        said = ours.recv()
        then()
        ours.send("end")
        process.join(20)
        assert process.exitcode == 0
        return said
    finally:
        process.kill()


def complaint(verb: Callable[[], object]) -> str:
    """What a verb raises, as text."""
    with pytest.raises(RestedError) as raised:
        verb()
    return str(raised.value)


@forking
def test_in_a_fork_every_verb_says_what_to_do_instead(emulator: RestedEmulator) -> None:
    world = emulator.world("test-1")

    def use(pipe: Any) -> None:
        verbs: list[Callable[[], object]] = [
            lambda: emulator.records(PLANTS),
            lambda: emulator.url(PLANTS),
            lambda: emulator.facts,
            lambda: emulator.wait(requests={}),
            lambda: emulator.call(lambda _: None),
            lambda: emulator.fork("test-2"),
            emulator.stop,
            world.status,
        ]
        pipe.send({complaint(verb) for verb in verbs})

    assert in_a_fork(use) == {
        f"this emulator runs in process {os.getpid()}, which this one was forked from; "
        "ask it over HTTP, at its URL and control interface, or start() one here"
    }
    assert len(emulator.records(PLANTS)) == 3
    assert world.status()


@forking
def test_a_fork_has_an_emulator_of_its_own_and_leaves_the_end_to_its_parent() -> None:
    emulator = RestedEmulator()

    def use(pipe: Any) -> None:
        with RestedEmulator() as another:
            records = another.records("examples/auth")
        emulator.__exit__()
        World(emulator, "test-1").__exit__()
        emulator.start()  # a second one, here
        emulator.sign_in("examples/auth", "ada")
        emulator.stop()
        gc.collect()
        pipe.send((records, complaint(lambda: emulator.records("examples/auth"))))

    with emulator:
        records, said = in_a_fork(use)
        assert (records, said) == ([], "this emulator does not run; use it in a with statement, or call start()")
        assert emulator.records("examples/auth") == []


FORKS = """
import os, sys
from rested_emulator import RestedEmulator
with RestedEmulator(tls=True) as emulator:
    child = os.fork()
    if not child:
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert os.path.exists(emulator.facts["ca"])
"""


@forking
def test_a_fork_that_ends_takes_nothing_of_its_parent_with_it() -> None:
    pytest.importorskip("trustme")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], cwd=ROOT, capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")


@forking
def test_a_fork_keeps_neither_port_nor_connections_nor_data_file(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": tmp_path / "data.json", "memory": False}
    emulator = RestedEmulator(**options)
    emulator.start()
    call(emulator.url(NOTES), "POST", 1)
    port = emulator.facts["port"]
    with wire(emulator) as idle, silent_listener(emulator) as silenced, open_socket(emulator.ws_url(NOTES)) as ear:
        emulator.add_fault("silence", times=1)
        call(f"{emulator.facts['controlUrl']}/health")

        def stop() -> None:
            emulator.stop()
            assert closing(ear)[0] == 1001
            assert at_end(idle)
            assert at_end(silenced)
            with RestedEmulator(port=port, **options) as another:
                assert len(another.records(NOTES)) == 1

        assert in_a_fork(lambda pipe: pipe.send(open_files(tmp_path)), then=stop) == []


def open_files(folder: Path) -> list[str]:
    """The files of a folder that this process has open; with its lock open a fork would keep it locked."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if link.startswith(str(folder))]


@forking
def test_a_fork_amid_a_verb_does_not_wait_for_a_lock_that_nobody_gives_back(emulator: RestedEmulator) -> None:
    with emulator._lock:
        assert "forked" in in_a_fork(lambda pipe: pipe.send(complaint(lambda: emulator.records(PLANTS))))


@pytest.mark.parametrize("verb", ["records", "stop", "wait"])
def test_a_verb_in_the_emulators_own_thread_is_an_error(emulator: RestedEmulator, verb: str) -> None:
    arguments: dict[str, dict[str, Any]] = {"records": {"endpoint": PLANTS}, "wait": {"requests": {}}}
    with pytest.raises(RestedError, match=r"own thread, which cannot wait for itself; inside call\(\) use the server"):
        emulator.call(lambda _: getattr(emulator, verb)(**arguments.get(verb, {})))
    assert len(emulator.records(PLANTS)) == 3
