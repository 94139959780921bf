"""Many sockets, and slow, dead and hostile ones; the emulator runs in a process of its own, which is measured.

``pytest tests/test_many_sockets.py --listeners 1000 -s`` is the full size, and prints its figures.

What goes wrong there, and who holds it, here and in other files:

never reads; reads one byte a second; reads after 30 s:
    test_many_sockets.py::test_healthy_listeners_lose_nothing_by_stalled_ones_which_cost_little
    test_many_sockets.py::test_a_listener_that_reads_a_byte_a_second_is_cut_when_much_waits_for_it
    test_many_sockets.py::test_a_listener_that_reads_late_gets_everything_unless_much_waits_for_it
    test_websocket.py::test_a_writer_does_not_wait_for_a_listener_that_does_not_read
    test_websocket.py::test_a_listener_that_stopped_reading_is_cut_and_the_others_lose_nothing
RST during fan-out, 500 at once; peer gone without a word:
    test_many_sockets.py::test_five_hundred_that_reset_their_connections_at_once_are_a_line_of_the_log_each
    test_many_sockets.py::test_a_peer_that_is_gone_without_a_word_is_noticed
    test_many_sockets.py::test_a_silenced_connection_is_closed_once_its_client_leaves
    test_websocket.py::test_a_client_that_resets_the_connection_leaves_its_seat
floods of messages, pings, empty fragments; a frame announcing 2^63 bytes; fragments over the limit:
    test_many_sockets.py::test_a_flood_keeps_nobody_waiting_and_costs_no_memory
    test_websocket.py::test_a_client_that_breaks_the_protocol_harms_nobody
close codes 0, 999, 1004 to 1006, 1016, 2999 from the client:
    test_websocket.py::test_a_client_may_close_with_any_code
    test_websocket.py::test_a_client_may_close_without_a_proper_reason
reset, option change, SIGTERM with 1,000 sockets open; an end amid a fan-out:
    test_many_sockets.py::test_an_end_amid_a_fan_out_comes_behind_what_was_told_before
    test_many_sockets.py::test_every_socket_of_many_hears_its_end_within_a_second
    test_many_sockets.py::test_a_sigterm_amid_a_write_with_many_sockets_open_loses_nothing
    test_many_sockets.py::test_an_end_amid_a_fan_out_comes_behind_what_was_told_before
    test_websocket.py::test_a_reset_ends_the_sockets_of_tokens_made_since
opening during reset, endpoint deleted a moment later:
    test_many_sockets.py::test_a_socket_that_opens_amid_a_change_is_closed_or_hears_everything
    test_server.py::test_a_handshake_that_matures_while_it_stops_is_told_so
more sockets than descriptors:
    test_many_sockets.py::test_more_sockets_than_descriptors_are_refused_with_503_and_the_cpu_is_quiet
    test_websocket.py::test_sockets_beyond_the_limit_of_the_system_are_refused
    test_server.py::test_beyond_the_limit_of_connections_it_says_503_and_stays_well

And the figures:

1,000 listeners, 100 stalled, 600 messages of 10 KB:
    test_many_sockets.py::test_healthy_listeners_lose_nothing_by_stalled_ones_which_cost_little
10,000 idle listeners under 300 MB; a burst of 10,000 messages to 200 healthy listeners cuts none:
    test_many_sockets.py::test_idle_listeners_take_little_memory
    test_many_sockets.py::test_a_burst_cuts_no_healthy_listener
    test_many_sockets.py::test_a_reset_of_more_than_a_listener_may_owe_cuts_no_healthy_listener
SIGTERM with 1,000 sockets and a write in flight:
    test_many_sockets.py::test_a_sigterm_amid_a_write_with_many_sockets_open_loses_nothing
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.conftest import CHORES, GARDEN, GARDENERS, PLANTS
from tests.crowd import crowd, frame
from tests.measured import IS_MEASURABLE, Measured, measured
from tests.test_websocket import raw_socket, read_frame
from tests.wire import HANDSHAKE, answer_on, at, call, head, impatient, listeners_of, open_socket

MB = 2**20
BLOCKED = 0.25  # seconds for which nobody may keep the loop

pytestmark = pytest.mark.skipif(not IS_MEASURABLE, reason="there is no /proc")


@pytest.fixture
def many(pytestconfig: pytest.Config) -> int:
    count: int = pytestconfig.getoption("--listeners")
    return count


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Measured]:
    """The garden in memory; its log must hold no traceback."""
    with measured(tmp_path / "log", str(GARDEN), "--memory", cwd=tmp_path) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


class Asker:
    """A client with a connection of its own; ``longest`` is how long the emulator worked until an answer came.

    That is in seconds of its processor's time, since somebody else may keep this machine busy.
    """

    def __init__(self, emulator: Measured) -> None:
        self.emulator = emulator
        self.connection = HTTPConnection("127.0.0.1", emulator.facts["port"], timeout=30)
        self.longest = 0.0

    def ask(self, target: str, data: Any = ..., method: str = "GET") -> Any:
        start = self.emulator.cpu()
        body = None if data is ... else json.dumps(data)
        self.connection.request(method, target, body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        self.longest = max(self.longest, self.emulator.cpu() - start)
        assert response.status == 200, answer
        return answer

    def post(self, *data: Any) -> None:
        for item in data:
            self.ask(at(PLANTS), item, "POST")

    def control(self, verb: str, **arguments: Any) -> Any:
        return self.ask(f"/__emulator__/{verb}", arguments, "POST")

    @property
    def listeners(self) -> int:
        count: int = self.ask("/__emulator__/status")["listeners"]
        return count


@pytest.fixture
def asker(emulator: Measured) -> Iterator[Asker]:
    asker = Asker(emulator)
    yield asker
    asker.connection.close()


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Do something in a thread; it must have come to an end when the block has."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert not failed, failed[0]


# Slow ones


def test_healthy_listeners_lose_nothing_by_stalled_ones_which_cost_little(
    emulator: Measured, asker: Asker, many: int
) -> None:
    count = 600 * many // 1000
    asker.post("what is imported for the first request")
    with crowd(emulator.ws_url(PLANTS)) as people:
        tasks = emulator.tasks()
        healthy, stalled = people.join(many * 9 // 10), people.join(many // 10)
        tasks_of_sockets = emulator.tasks() - tasks
        people.stall(stalled)
        most_tasks = [0]

        def write() -> None:
            for number in range(count):
                asker.post({"n": number, "pad": "x" * 10_000})
                if number % 50 == 0:
                    most_tasks[0] = max(most_tasks[0], emulator.tasks())

        start = monotonic()
        with meanwhile(write):
            people.read(lambda: all(member.heard == count for member in healthy), 120)
        seconds = monotonic() - start
        assert [member.wrong for member in healthy if member.wrong] == []
        print(f"\n{len(healthy)} of {len(healthy)} complete, {count} messages in {seconds:.1f} s, ", end="")
        print(f"{emulator.peak() / MB:.0f} MB at most, {most_tasks[0]} tasks with {many} sockets")
        assert emulator.peak() < 100 * MB
        assert most_tasks[0] <= tasks + tasks_of_sockets + 3


@pytest.mark.warns("cut, its client stopped reading, it took nothing for")
def test_a_listener_that_reads_a_byte_a_second_is_cut_when_much_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        impatient(monkeypatch, stalled=1.0) as emulator,
        raw_socket(emulator, receive_buffer=4096) as slow,
        open_socket(emulator.ws_url(PLANTS)) as healthy,
    ):
        records = [call(emulator.url(PLANTS), "POST", str(number) * 900_000).json for number in range(9)]
        slow.settimeout(0.2)
        until = monotonic() + 10
        while monotonic() < until and listeners_of(emulator) == 2:
            slow.recv(1)
        assert listeners_of(emulator) == 1
        assert [json.loads(healthy.recv(timeout=10))["record"] for _ in records] == records


@pytest.mark.warns("cut, its client stopped reading")
def test_a_listener_that_reads_late_gets_everything_unless_much_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        impatient(monkeypatch, stalled=1.0) as emulator,
        raw_socket(emulator, receive_buffer=4096),  # for whom too much waits, and who is cut once the time is over
    ):
        token = emulator.sign_in(GARDENERS, "ada")
        with open_socket(f"{emulator.ws_url(CHORES)}&accessToken={token}", max_queue=1) as late:
            emulator.clear_messages()
            data = [str(number) * 200_000 for number in range(10)]
            records = [
                call(emulator.url(CHORES), "POST", item, headers={"Authorization": f"Bearer {token}"}).json
                for item in data
            ]
            for number in range(9):
                call(emulator.url(PLANTS), "POST", str(number) * 900_000)
            assert len(emulator.wait(messages={"type": "CLOSE"}, timeout=10)) == 1
            assert [json.loads(late.recv(timeout=10))["record"] for _ in records] == records


def test_a_burst_cuts_no_healthy_listener(emulator: Measured, asker: Asker, many: int) -> None:
    count = 10 * many
    with crowd(emulator.ws_url(PLANTS)) as people:
        healthy = people.join(many // 5)
        start = monotonic()
        with meanwhile(lambda: asker.post(*({"n": number} for number in range(count)))):
            people.read(lambda: all(member.heard == count for member in healthy), 120)
        print(f"\n{count} messages to {len(healthy)} listeners in {monotonic() - start:.1f} s, none cut")
        assert [member.wrong for member in healthy if member.wrong] == []
        assert asker.listeners == len(healthy)


def test_a_reset_of_more_than_a_listener_may_owe_cuts_no_healthy_listener(emulator: Measured, asker: Asker) -> None:
    asker.post(*("x" * 900_000 for _ in range(25)))
    with crowd(emulator.ws_url(PLANTS)) as people:
        healthy = people.join(10)
        asker.control("reset")
        people.read(lambda: all(member.others == 25 or member.is_over for member in healthy))
        assert [member.others for member in healthy] == [25] * 10
        assert asker.listeners == 10


def test_an_end_amid_a_fan_out_comes_behind_what_was_told_before(emulator: Measured, many: int) -> None:
    address = "127.0.0.1", emulator.facts["port"]
    with crowd(emulator.ws_url(PLANTS)) as people, socket.create_connection(address) as connection:
        members = people.join(many)
        bodies = [(at(PLANTS), f'{{"n":{number}}}') for number in range(6)]
        # In one write: each is carried out in a turn of the loop, in which only some listeners get what came before.
        connection.sendall(
            b"".join(
                head("POST", target, f"Content-Length: {len(body)}", "Content-Type: application/json") + body.encode()
                for target, body in [*bodies, ("/__emulator__/close-listeners", "{}")]
            )
        )
        people.read(lambda: all(member.code or member.is_over for member in members))
        assert {(member.heard, member.wrong, member.code) for member in members} == {(6, "", 1000)}


# Gone ones


def test_five_hundred_that_reset_their_connections_at_once_are_a_line_of_the_log_each(
    emulator: Measured, asker: Asker
) -> None:
    with crowd(emulator.ws_url(PLANTS)) as people:
        healthy, leaving = people.join(50), people.join(500)
        with meanwhile(lambda: asker.post(*({"n": number, "pad": "x" * 1000} for number in range(100)))):
            people.read(lambda: all(member.heard > 10 for member in healthy))
            people.reset(leaving)
            people.read(lambda: all(member.heard == 100 for member in healthy))
        assert [member.wrong for member in healthy if member.wrong] == []
        people.read(lambda: asker.listeners == 50)
        people.read(lambda: sum(" close " in line for line in emulator.lines()) >= 500)
        assert sum(" close " in line for line in emulator.lines()) == 500
        opened_pushed_asked = (" open ", " push ", " close ", " POST ", " GET ")
        assert [line for line in emulator.lines() if not any(part in line for part in opened_pushed_asked)] == []


def test_a_peer_that_is_gone_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient(monkeypatch, ping=1.0) as emulator, open_socket(emulator.ws_url(PLANTS)) as healthy:
        with raw_socket(emulator) as gone:
            emulator.clear_messages()
            assert [read_frame(gone)[0] for _ in range(2)] == [9, 8]  # a ping, and as no pong comes, the end
        # Tornado drops the connection of one that is really gone five seconds later.
        assert len(emulator.wait(messages={"type": "CLOSE"}, timeout=10)) == 1
        assert listeners_of(emulator) == 1
        call(emulator.url(PLANTS), "POST", 1)
        assert json.loads(healthy.recv(timeout=10))["type"] == "POST"


# Hostile ones

FLOODS = {
    "messages": frame(1, b"x") * 20_000,
    "large messages": frame(2, bytes(2**20)) * 20,
    "pings": frame(9, b"x" * 125) * 20_000,
    "empty pings": frame(9) * 20_000,
    "pongs": frame(10) * 20_000,
    "empty fragments": frame(1, last=False) + frame(0, last=False) * 20_000,
    "fragments over the limit": (frame(1, bytes(60_000), last=False) + frame(0, bytes(60_000), last=False) * 20),
    "2^63 bytes announced": b"\x82\xff" + (2**63 - 1).to_bytes(8) + bytes(4) + bytes(2**20),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_keeps_nobody_waiting_and_costs_no_memory(emulator: Measured, asker: Asker, flood: bytes) -> None:
    with crowd(emulator.ws_url(PLANTS)) as people:
        [healthy] = people.join(1)
        asker.post({"n": 0})
        before = emulator.memory()
        asker.longest = 0.0

        def pour() -> None:
            with socket.create_connection(("127.0.0.1", emulator.facts["port"]), timeout=10) as connection:
                connection.sendall(head("GET", at(PLANTS), *HANDSHAKE))
                assert answer_on(connection).status == 101
                try:
                    connection.sendall(flood + frame(8, (1000).to_bytes(2)))
                    while connection.recv(2**16):
                        pass
                except (ConnectionError, TimeoutError):
                    pass  # cut off, or not read: the emulator's to choose

        with meanwhile(pour) as pouring:
            while pouring.is_alive():
                asker.ask(at(PLANTS))
        assert asker.longest < BLOCKED
        assert emulator.peak() - before < 20 * MB
        asker.post({"n": 1})
        people.read(lambda: healthy.heard == 2)
        assert asker.listeners == 1


# All at once


@pytest.mark.parametrize("cause", ["reset", "option change", "SIGTERM"])
@pytest.mark.alone
def test_every_socket_of_many_hears_its_end_within_a_second(
    emulator: Measured, asker: Asker, many: int, cause: str
) -> None:
    token = asker.ask("/api/1/ce/" + at(GARDENERS).partition("ce/")[2], {"username": "dora", "password": "d"}, "POST")
    reply = call(
        emulator.url(GARDENERS), "POST", {"username": "dora", "password": "d"}, login="true", noATCookie="true"
    )
    token = reply.headers["authorization"].removeprefix("Bearer ")
    with crowd(f"{emulator.ws_url(CHORES)}&accessToken={token}") as people:
        members = people.join(many)
        assert asker.listeners == many
        match cause:
            case "reset":
                assert asker.control("reset")["closed"] == many
            case "option change":
                assert asker.control("change-endpoint", name=CHORES)["closed"] == many
            case "SIGTERM":
                emulator.process.send_signal(signal.SIGTERM)
        seconds = people.read(lambda: all(member.code or member.is_over for member in members), 10)
        print(f"\n{cause}: {many} sockets in {seconds:.2f} s")
        assert {member.code for member in members} == {1001 if cause == "SIGTERM" else 1000}
        assert seconds < 1
        if cause == "SIGTERM":
            assert emulator.process.wait(timeout=2) == 0


def test_a_sigterm_amid_a_write_with_many_sockets_open_loses_nothing(
    tmp_path: Path, data_file: Path, many: int
) -> None:
    written: list[str] = []
    with measured(tmp_path / "log", str(data_file), cwd=tmp_path) as emulator, crowd(emulator.ws_url(PLANTS)) as people:
        asker = Asker(emulator)
        members = people.join(many)

        def write() -> None:
            try:
                for number in range(100_000):
                    written.append(asker.ask(at(PLANTS), {"n": number}, "POST")["uniqueId"])
            except OSError:
                pass

        with meanwhile(write):
            people.read(lambda: members[0].heard > 20)
            emulator.process.send_signal(signal.SIGTERM)
            start = monotonic()
            people.read(lambda: all(member.is_over for member in members), 10)
            assert emulator.process.wait(timeout=10) == 0
            seconds = monotonic() - start
        asker.connection.close()
        print(f"\nexit 0 after {seconds:.2f} s with {many} sockets, {len(written)} writes acknowledged")
        assert seconds < 2
        assert {member.code for member in members} == {1001}
        assert [member.wrong for member in members if member.wrong] == []
        assert set(written) <= json.loads(data_file.read_text())[PLANTS].keys()


def test_idle_listeners_take_little_memory(emulator: Measured, asker: Asker, many: int) -> None:
    count = 10 * many
    with crowd(emulator.ws_url(PLANTS)) as people:
        start = monotonic()
        members = people.join(count)
        print(f"\n{count} idle listeners: {emulator.memory() / MB:.0f} MB, joined in {monotonic() - start:.1f} s")
        assert emulator.memory() < 60 * MB + count * 24 * 2**10
        asker.post({"n": 0})
        people.read(lambda: all(member.heard for member in members))
        assert asker.listeners == count


@pytest.mark.parametrize("verb", ["reset", "delete-endpoint", "change-endpoint", "close-listeners"])
def test_a_socket_that_opens_amid_a_change_is_closed_or_hears_everything(
    emulator: Measured, asker: Asker, verb: str
) -> None:
    is_over = threading.Event()
    other = Asker(emulator)

    def change() -> None:
        while not is_over.is_set():
            other.control(verb, **({"name": PLANTS} if "endpoint" in verb else {}))
            if verb == "delete-endpoint":
                other.control("change-endpoint", name=PLANTS)

    with crowd(emulator.ws_url(PLANTS)) as people:
        with meanwhile(change):
            people.join(100)
            is_over.set()
        other.connection.close()
        asker.post({"n": 0})
        people.read(lambda: all(member.heard or member.code or member.is_over for member in people.members))
        assert {member.code for member in people.members} <= {None, 1000, 4000}
        assert [member.wrong for member in people.members if member.wrong] == []
        staying = [member for member in people.members if member.code is None]
        assert all(member.heard == 1 for member in staying)
        assert asker.listeners == len(staying)
        if verb == "reset":
            assert len(staying) == 100


def test_more_sockets_than_descriptors_are_refused_with_503_and_the_cpu_is_quiet(tmp_path: Path) -> None:
    files = 256
    with (
        measured(tmp_path / "log", str(GARDEN), "--memory", cwd=tmp_path, files=files) as emulator,
        crowd(emulator.ws_url(PLANTS)) as people,
    ):
        members = people.join(files - 128)
        assert {member.status for member in members} == {101}
        refused = people.join(files)
        assert {member.status for member in refused} == {503}
        people.read_for(0.3)  # the log comes to rest
        before, lines = emulator.cpu(), len(emulator.lines())
        people.read_for(0.4)
        assert emulator.cpu() - before < 0.2
        assert len(emulator.lines()) - lines < 10
        people.reset(refused)
        asker = Asker(emulator)
        asker.post({"n": 0})
        people.read(lambda: all(member.heard for member in members))
        assert asker.listeners == len(members)
        asker.connection.close()


def test_a_silenced_connection_is_closed_once_its_client_leaves(emulator: Measured, asker: Asker) -> None:
    asker.listeners  # noqa: B018  # its connection counts
    with crowd(emulator.ws_url(PLANTS)) as people:
        before = emulator.descriptors()
        silenced = people.join(20)
        asker.control("faults", kind="silence")
        assert emulator.descriptors() == before + 20
        asker.post({"n": 0})
        people.reset(silenced)
        people.read(lambda: emulator.descriptors() == before)
