"""What is measured, one function for each: a peer goes in, figures come out.

Every function starts its servers afresh, so rounds are independent, and what one writes burdens no other.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rested_emulator import RestedEmulator
from tests.bench.load import Audience, BenchError, Connection, Flood, Missing, connected, flood
from tests.bench.peers import Emulator, InstalledEmulator, Peer, Server, Stock, running, seed_id

CONNECTIONS = 16
OPERATIONS = ("post", "get", "put", "delete")


@dataclass(frozen=True)
class Size:
    """How much is measured. ``seconds`` is for one operation; the other counts are for one round."""

    records: tuple[int, int, int] = (100, 10_000, 100_000)
    listeners: tuple[int, int, int] = (1, 100, 1_000)
    rounds: int = 3
    seconds: float = 0.5
    batch: int = 500
    singles: int = 100
    lists: int = 5
    broadcasts: int = 30
    deliveries: int = 100_000
    resets: int = 10
    embeddings: int = 20


FULL = Size()
SMALLEST = Size((20, 50, 100), (1, 5, 20), 1, 0.02, 32, 5, 1, 3, 200, 2, 2)


class Figure(NamedTuple):
    """A number, and which row of the report it is for."""

    key: str
    value: float


def per_second(runs: Iterable[Flood]) -> float:
    """Answers a second over several floods."""
    done = list(runs)
    return sum(len(run.bodies) for run in done) / sum(run.seconds for run in done)


def milliseconds(times: Iterable[float]) -> float:
    """The median of times in seconds."""
    return 1000 * statistics.median(times)


def measure_start(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """Time from the start of the process to its first answer, and memory a moment later.

    The emulator is started as a script, and also as the installed command.
    """
    ways = [("", peer), ("-installed", InstalledEmulator())] if isinstance(peer, Emulator) else [("", peer)]
    for records in (size.records[0], size.records[-1]):
        for way, started in ways:
            with stock.laid_out(peer, records) as folder, running(started, folder) as server:
                yield Figure(f"start{way}@{records}", 1000 * server.seconds)
                time.sleep(size.seconds)
                yield Figure(f"memory{way}@{records}", server.resident() / 2**20)


def measure_records(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """Throughput and latency of the four operations, and of the whole list, at each number of records."""
    for records in size.records:
        with stock.server(peer, records) as server, connected(server.port) as connection:
            cycles = [cycle(server, records, size)]
            if cycles[0]["post"].seconds < size.seconds:
                cycles.clear()  # a fast one has only warmed up
            while sum(each["post"].seconds for each in cycles) < size.seconds:
                cycles.append(cycle(server, records, size))
            for operation in OPERATIONS:
                yield Figure(f"{operation}-rate@{records}", per_second(each[operation] for each in cycles))
            times, missing = one_by_one(server.peer, connection, records, size)
            yield from (Figure(f"{operation}-ms@{records}", milliseconds(found)) for operation, found in times.items())
            yield Figure("forgotten", missing + sum(run.missing for each in cycles for run in each.values()))
            yield Figure(f"list-ms@{records}", milliseconds(time_lists(server.peer, connection, records, size)))


def cycle(server: Server, records: int, size: Size) -> dict[str, Flood]:
    """Make records, read others, change and delete those made: in the end there are as many as before."""
    peer = server.peer

    def run(requests: Sequence[bytes], seconds: float = 2 * size.seconds) -> Flood:
        return flood(server.port, requests, CONNECTIONS, seconds)

    post = run([peer.create(number) for number in range(size.batch)])
    ids = [peer.id_in(body) for body in post.bodies]
    get = run([peer.read(unique_id) for unique_id in some_ids(records, size.batch)])
    put = run([peer.update(unique_id, number) for number, unique_id in enumerate(ids)])
    delete = run([peer.delete(unique_id) for unique_id in ids], 120)
    return dict(zip(OPERATIONS, (post, get, put, delete), strict=True))


def one_by_one(peer: Peer, connection: Connection, records: int, size: Size) -> tuple[dict[str, list[float]], int]:
    """Seconds that each operation takes on one connection, and how many records were forgotten."""
    times: dict[str, list[float]] = defaultdict(list)
    missing = 0
    deadline = time.perf_counter() + 4 * size.seconds
    for number, unique_id in enumerate(some_ids(records, size.singles)):
        start = time.perf_counter()
        made = connection.ask(peer.create(number))
        times["post"].append(time.perf_counter() - start)
        own_id = peer.id_in(made)
        try:
            times["get"].append(connection.timed(peer.read(unique_id)))
            times["put"].append(connection.timed(peer.update(own_id, number)))
            times["delete"].append(connection.timed(peer.delete(own_id)))
        except Missing:
            missing += 1
        if start > deadline:
            break
    return times, missing


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
            yield Figure("answer-ms@0", alone)
            yield Figure(f"answer-ms@{most}", watched)
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


def measure_reset(stock: Stock, peer: Peer, size: Size) -> Iterator[Figure]:
    """How long a reset takes among many records, ten of which are new."""
    assert isinstance(peer, Emulator)
    with stock.server(peer, size.records[-1]) as server, connected(server.port) as connection:
        times = []
        for _ in range(size.resets):
            for number in range(10):
                connection.ask(peer.create(number))
            times.append(connection.timed(peer.reset()))
    yield Figure("reset-ms", milliseconds(times))


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


def measure_embedding(_stock: Stock, _peer: Peer, size: Size) -> Iterator[Figure]:
    """How long a Python test waits for an emulator of its own, from start to stop, and for a world."""
    times = []
    for _ in range(size.embeddings):
        start = time.perf_counter()
        with RestedEmulator():
            pass
        times.append(time.perf_counter() - start)
    yield Figure("embedding-ms", milliseconds(times))
    with RestedEmulator() as emulator:
        yield Figure("fork-ms", milliseconds(time_fork(emulator, number) for number in range(size.embeddings)))


def time_fork(emulator: RestedEmulator, number: int) -> float:
    """Seconds until there is one more world of its own, asked for from another thread."""
    start = time.perf_counter()
    emulator.fork(f"world-{number}")
    return time.perf_counter() - start


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
    Measurement("reset", measure_reset, is_emulator),
    Measurement("pause", measure_pause, is_emulator),
    Measurement("embedding", measure_embedding, is_emulator),
)
