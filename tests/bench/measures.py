"""What is measured, one function for each: a peer goes in, figures come out.

Every function starts its servers afresh, so rounds are independent, and what one writes burdens no other.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.load import Audience, BenchError, Connection, Rate, connected, drive, flood
from tests.bench.peers import Emulator, Peer, Server, Stock, running, seed_id

CONNECTIONS = 16
CHANGES = 10  # records that a reset or a restore takes back


@dataclass(frozen=True)
class Size:
    """How much is measured. ``seconds`` is for one rate, whole ones for wrk; the counts are for one round."""

    records: tuple[int, int, int] = (100, 10_000, 100_000)
    restored: tuple[int, int] = (1_000, 100_000)
    users: tuple[int, int] = (100, 10_000)
    listeners: tuple[int, int, int] = (1, 100, 1_000)
    rounds: int = 3
    seconds: float = 1
    batch: int = 500
    singles: int = 100
    lists: int = 5
    broadcasts: int = 30
    deliveries: int = 100_000
    repeats: int = 10
    sessions: int = 1_000


FULL = Size()
SMALLEST = Size((20, 50, 100), (20, 50), (20, 50), (1, 5, 20), 1, 0.02, 32, 5, 1, 3, 200, 2, 5)


class Figure(NamedTuple):
    """A number, and which row of the report it is for."""

    key: str
    value: float


def milliseconds(times: Iterable[float]) -> float:
    """The median of times in seconds."""
    return 1000 * statistics.median(times)


def measure_start(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """Time from the start of the process to its first answer, and memory a moment later.

    With few records the emulator is also started as a file.
    """
    few, *_, many = size.records
    starts = [("", peer, few), ("", peer, many)]
    starts += [("-file", peer.as_file(), few)] if isinstance(peer, Emulator) else []
    for way, started, records in starts:
        with stock.laid_out(peer, records) as folder, running(started, folder) as server:
            yield Figure(f"start{way}@{records}", 1000 * server.seconds)
            time.sleep(size.seconds / 2)
            yield Figure(f"memory{way}@{records}", server.resident() / 2**20)
            if started is peer and records == few and isinstance(peer, Emulator):
                yield from measure_first(server, peer)


def measure_first(server: Server, peer: Emulator) -> Iterator[Figure]:
    """Time of the first requests that need more of the program than a GET of a record does."""
    with connected(server.port) as connection:
        yield Figure("first-page-ms", 1000 * connection.timed(peer.console()))
    start = time.perf_counter()
    listener = peer.listen(server.port)
    yield Figure("first-socket-ms", 1000 * (time.perf_counter() - start))
    listener.close()


def measure_records(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """Rates and times of GET and POST, and of the whole list, at each number of records."""
    for records in size.records:
        with stock.server(peer, records) as server, connected(server.port) as connection:
            reads = [peer.read(unique_id) for unique_id in some_ids(records, size.batch)]
            writes = [peer.create(number) for number in range(size.batch)]
            flood(server.port, reads, CONNECTIONS, size.seconds)  # it warms up
            yield from measure_rate("get", server, reads, records, size)
            limit = 2 * size.seconds
            yield Figure(f"get-ms@{records}", milliseconds(timed(connection, reads[: size.singles], limit)))
            yield Figure(f"post-ms@{records}", milliseconds(timed(connection, writes[: size.singles], limit)))
            yield Figure(f"list-ms@{records}", milliseconds(time_lists(peer, connection, records, size)))
            yield from measure_rate("post", server, writes, records, size)  # last, for it leaves many records


def measure_rate(name: str, server: Server, requests: Sequence[bytes], records: int, size: Size) -> Iterator[Figure]:
    """Answers a second, and the server's processor time for each, in µs."""
    before = server.cpu()
    # At its end wrk drops what is under way, and that may be all that a slow server has done.
    first = flood(server.port, requests[: 5 * CONNECTIONS], CONNECTIONS, size.seconds)
    rate = Rate(len(first.bodies), first.seconds)
    if first.seconds < size.seconds / 2:
        before = server.cpu()
        rate = drive(server.port, requests, CONNECTIONS, size.seconds)
    yield Figure(f"{name}-rate@{records}", rate.answers / rate.seconds)
    yield Figure(f"{name}-cpu@{records}", 1e6 * (server.cpu() - before) / rate.answers)


def timed(connection: Connection, requests: Sequence[bytes], limit: float) -> Iterator[float]:
    """Seconds that each request takes, until they have taken so many together."""
    deadline = time.perf_counter() + limit
    for request in requests:
        yield connection.timed(request)
        if time.perf_counter() > deadline:
            break


def time_lists(peer: Peer, connection: Connection, records: int, size: Size) -> Iterator[float]:
    """Seconds that the whole list takes, each time after a write."""
    for number in range(size.lists):
        connection.ask(peer.create(number))
        yield sum(connection.timed(request) for request in peer.list_all(records))


def some_ids(records: int, count: int) -> list[str]:
    """So many ids of records that are there from the start, anywhere among them, always the same."""
    return [seed_id(number) for number in random.Random(count).choices(range(records), k=count)]


def measure_listeners(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """How fast listeners hear of writes, what they cost, and what they cost the writer."""
    with stock.server(peer, size.records[0]) as server, connected(server.port) as connection:
        audience = Audience(server.port, peer.mark, peer.listen)
        writes = [peer.create(number) for number in range(size.singles)]
        try:
            for request in writes:
                connection.ask(request)
            alone = milliseconds(connection.timed(request) for request in writes)
            audience.grow(1)
            before, most = server.resident(), size.listeners[-1]
            for listeners in size.listeners:
                audience.grow(listeners)
                if listeners == most:
                    yield Figure("listener-kib", (server.resident() - before) / (most - 1) / 1024)
                times = [audience.time_delivery(connection, request) for request in writes[: size.broadcasts]]
                yield Figure(f"delivery-ms@{listeners}", milliseconds(times[size.broadcasts // 4 :]))
            watched = milliseconds(audience.time_answer(connection, request) for request in writes[: size.broadcasts])
            yield Figure("answer-growth", watched / alone)
            requests = [peer.create(number) for number in range(size.deliveries // most)]
            for writers in (1, CONNECTIONS):
                yield Figure(f"deliveries@{writers}", audience.deliveries(requests, writers))
        finally:
            audience.close()


def measure_crash(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """Acknowledged writes that are gone after the server was killed."""
    with stock.laid_out(peer, size.records[0]) as folder:
        with running(peer, folder) as server:
            made = flood(server.port, [peer.create(number) for number in range(size.batch)], CONNECTIONS, size.seconds)
            server.process.kill()
            server.process.wait()
        with running(peer, folder) as server, connected(server.port) as connection:
            there = b"".join(connection.ask(request) for request in peer.list_all(size.records[0] + size.batch))
    yield Figure("lost", sum(peer.id_in(body).encode() not in there for body in made.bodies))


# What only the emulator does


def measure_states(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """How long going back to a state takes, and the first write after one is kept, or in a world of its own."""
    assert isinstance(peer, Emulator)
    create = peer.create(0)
    for records in size.restored:
        with stock.server(peer, records) as server, connected(server.port) as connection:
            connection.ask(create)
            connection.ask(peer.control("checkpoint", name="kept"))
            for verb, arguments in (("restore", {"name": "kept"}), ("reset", {})):
                times = []
                for _ in range(size.repeats):
                    for number in range(CHANGES):
                        connection.ask(peer.create(number))
                    times.append(connection.timed(peer.control(verb, **arguments)))
                yield Figure(f"{verb}-ms@{records}", milliseconds(times))
            if records == size.restored[-1]:
                kept, begun = [], []
                for number in range(size.repeats):
                    connection.ask(peer.control("checkpoint", name=f"kept-{number}"))
                    kept.append(connection.timed(create))
                    connection.ask(peer.control("fork", key=f"world-{number}"))
                    begun.append(connection.timed(peer.create(0, f"world-{number}")))
                yield Figure("after-checkpoint-ms", milliseconds(kept))
                yield Figure("in-world-ms", milliseconds(begun))


def measure_users(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """What users cost who are many, as the ratio to few, and a look at who is logged in."""
    assert isinstance(peer, Emulator)
    crowded = peer.with_users()
    figures: dict[str, list[float]] = {}
    for users in size.users:
        with stock.server(crowded, users) as server, connected(server.port) as connection:
            names = [f"user{number}" for number in random.Random(users).choices(range(users), k=size.singles)]
            times = {
                "register": [connection.timed(crowded.register(f"new{name}{i}")) for i, name in enumerate(names)],
                "login": [connection.timed(crowded.log_in(name)) for name in names],
                "secure-list": [connection.timed_begin(crowded.list_notes()) for _ in names],
            }
            for name, taken in times.items():
                figures.setdefault(name, []).append(milliseconds(taken))
            if users == size.users[-1]:
                for _ in range(size.sessions - len(names)):
                    connection.ask(crowded.log_in("user0"))
                yield Figure("status-ms", milliseconds(connection.timed(crowded.status()) for _ in range(size.repeats)))
    for name, (few, many) in figures.items():
        yield Figure(f"{name}-growth", many / few)


def measure_pause(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """The longest that one client waits for a record, while the data file is rewritten and while it is not."""
    records = size.records[-1]
    with stock.laid_out(peer, records) as folder, running(peer, folder) as server, connected(server.port) as connection:
        file, request = folder / "data.json", peer.read(seed_id(records // 2))
        for _ in range(size.singles):
            connection.ask(request)
        before = file.stat().st_ino
        connection.ask(peer.create(0))
        start = time.perf_counter()
        busy: list[float] = []
        while file.stat().st_ino == before:
            busy += (connection.timed(request) for _ in range(10))
            if time.perf_counter() > start + 30:
                raise BenchError("the data file is not rewritten")
        seconds = time.perf_counter() - start
        deadline = time.perf_counter() + seconds
        quiet = []
        while time.perf_counter() < deadline:
            quiet.append(connection.timed(request))
    yield Figure("pause-ms", 1000 * max(busy))
    yield Figure("quiet-ms", 1000 * max(quiet))


class Measurement(NamedTuple):
    """A name for the command line, the function, and who can be measured so."""

    name: str
    run: Callable[[Stock, Peer, Size], Iterator[Figure]]
    takes: Callable[[Peer], bool] = lambda _: True


def is_emulator(peer: Peer) -> bool:
    return isinstance(peer, Emulator)


MEASUREMENTS = (
    Measurement("start", measure_start),
    Measurement("records", measure_records),
    Measurement("listeners", measure_listeners, lambda peer: peer.pushes),
    Measurement("crash", measure_crash),
    Measurement("states", measure_states, is_emulator),
    Measurement("users", measure_users, is_emulator),
    Measurement("pause", measure_pause, is_emulator),
)
