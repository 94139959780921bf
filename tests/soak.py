"""Soak: mixed load on one emulator for a given time; what it costs, and whether anything was lost or told twice.

``python -m tests.soak --seconds 600`` runs in rounds. In a round, writers use all verbs, readers read, listeners
come and go, users log in and are logged out, files are uploaded, faults strike, worlds are made and dropped. At
its end everyone pauses: what is stored is compared with what was acknowledged, what was heard with what was
written, the process is measured, and everything is reset. Exits with 1 if something is off.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.measured import Measured, measured
from tests.wire import Reply, closing, open_socket

OPEN, FAULTY, USERS, PRIVATE, FILES = "soak/open", "soak/faulty", "soak/users", "soak/private", "soak/files"
ENDPOINTS = ("--endpoint", OPEN, "--endpoint", FAULTY, "--endpoint", FILES, "--auth", USERS, "--secure", PRIVATE)
ROUND_SECONDS = 5.0
LONG = 300.0  # seconds from which on the slope of memory says something
PATIENCE = 20.0  # seconds for a message that must come
JSON_TYPE = {"Content-Type": "application/json"}
Op = tuple[str, str, Any]  # type, uniqueId, data of a message


class Off(Exception):
    """Something that must not be."""


class Client:
    """An HTTP client that keeps its connection, and counts what it is refused."""

    def __init__(self, soak: Soak, key: str | None = None) -> None:
        self.soak = soak
        self.key = key or soak.emulator.facts["key"]
        self._connection = HTTPConnection("127.0.0.1", soak.emulator.facts["port"], timeout=PATIENCE)

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        return Reply(response.status, {name.lower(): text for name, text in response.getheaders()}, response.read())

    def call(
        self,
        endpoint: str,
        method: str,
        data: Any = ...,
        *,
        expect: int | tuple[int, ...] = 200,
        token: str | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        **parameters: str,
    ) -> Reply:
        """Ask the API, and insist on a status."""
        query = "".join(f"&{name}={value}" for name, value in parameters.items())
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
        sent = body if data is ... else json.dumps(data).encode()
        reply = self.send(method, f"/api/1/ce/{endpoint}?key={self.key}{query}", sent, headers)
        if reply.status not in (expect if isinstance(expect, tuple) else (expect,)):
            raise Off(f"{method} {endpoint} {parameters}: {reply.status} in place of {expect}, {reply.body[:300]!r}")
        self.soak.count(reply)
        return reply

    def control(self, verb: str, **arguments: Any) -> Any:
        """Call the owner's verb in the world of this client's key."""
        body = json.dumps(arguments).encode()
        reply = self.send("POST", f"/__emulator__/{verb}?key={self.key}", body, JSON_TYPE)
        if reply.status != 200:
            raise Off(f"{verb} {arguments}: {reply.status} {reply.body[:300]!r}")
        return reply.json

    def close(self) -> None:
        self._connection.close()


class Soak:
    """What all threads share: the emulator, the pause at the end of a round, and what was seen."""

    def __init__(self, emulator: Measured, seed: int) -> None:
        self.emulator = emulator
        self.chance = random.Random(seed)
        self.requests: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.heard = self.ended = 0
        self.writers: list[Writer] = []
        self.hearings: list[Hearing] = []
        self.is_pausing, self.is_over = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def count(self, reply: Reply) -> None:
        kind = "answered" if reply.status < 300 else f"refused: {reply.status} {reply.json['message']}"
        with self._lock:
            self.requests[kind] += 1

    def count_struck(self, by: str) -> None:
        with self._lock:
            self.requests[f"struck by a fault: {by}"] += 1

    def note(self, heard: int = 0, ended: int = 0) -> None:
        with self._lock:
            self.heard, self.ended = self.heard + heard, self.ended + ended

    def is_off(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)


class Worker(threading.Thread):
    """A thread that does its ``turn`` again and again, until a round ends, and is then made anew."""

    def __init__(self, soak: Soak, number: int = 0) -> None:
        super().__init__(name=f"{type(self).__name__.lower()}-{number}", daemon=True)
        self.soak = soak
        self.chance = random.Random(soak.chance.random())
        self.client = Client(soak)

    def run(self) -> None:
        try:
            while not self.soak.is_pausing.is_set():
                self.turn()
        except (Off, OSError, HTTPException, ValueError, KeyError, AssertionError, ConnectionClosed) as error:
            self.soak.is_off(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self.client.close()

    def turn(self) -> None:
        raise NotImplementedError

    def rest(self, seconds: float) -> None:
        """Think for a while, as clients do."""
        self.soak.is_pausing.wait(self.chance.uniform(0, seconds))


class Writer(Worker):
    """Creates, updates and deletes records of its own; ``log`` is what was acknowledged, in order."""

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(soak, number)
        self.log: list[Op] = []
        self.records: dict[str, Any] = {}

    def turn(self) -> None:
        many = len(self.records) > 100
        verb = self.chance.choice(("POST", "PUT", "merge", "DELETE", "refused", "DELETE" if many else "POST"))
        data = {"by": self.name, "number": len(self.log), "pad": "ä" * self.chance.randrange(600)}
        if verb == "refused":
            self.be_refused()
        elif verb == "POST" or not self.records:
            self.keep("POST", self.client.call(OPEN, "POST", data).json)
        else:
            unique_id = self.chance.choice(list(self.records))
            if verb == "DELETE":
                self.keep("DELETE", self.client.call(OPEN, "DELETE", uniqueId=unique_id).json)
            else:
                strategy = "merge" if verb == "merge" else "force"
                self.keep("PUT", self.client.call(OPEN, "PUT", data, uniqueId=unique_id, strategy=strategy).json)
        self.rest(0.005)

    def keep(self, verb: str, record: Any) -> None:
        unique_id = record["uniqueId"]
        if verb == "DELETE":
            del self.records[unique_id]
        else:
            self.records[unique_id] = record["data"]
        self.log.append((verb, unique_id, record["data"]))

    def be_refused(self) -> None:
        match self.chance.randrange(5):
            case 0:
                self.client.call(OPEN, "POST", body=b'{"a": NaN}', expect=400)
            case 1:
                self.client.call(OPEN, "PUT", 1, uniqueId="nobody", expect=400)
            case 2:
                self.client.call(OPEN, "POST", 1, kind="text/html", expect=400)
            case 3:
                self.client.call(PRIVATE, "GET", expect=401)
            case 4:
                self.client.call(OPEN, "POST", 1, masterKey="wrong", expect=403)


class Reader(Worker):
    def turn(self) -> None:
        records = self.client.call(OPEN, "GET").json
        if records:
            ids = [record["uniqueId"] for record in self.chance.sample(records, min(3, len(records)))]
            asked = ",".join([*ids, "nobody"])
            self.client.call(OPEN, "GET", uniqueId=asked, dataOnly="true", expect=(200, 400))  # they may be gone by now
        if self.chance.random() < 0.1:
            self.client.call(OPEN, "GET", jsonata="$count(data)")
        self.rest(0.02)


class Listener(Worker):
    """Listens for a while; what it heard is compared with what the writers logged once they pause."""

    def turn(self) -> None:
        writers = self.soak.writers
        with open_socket(self.soak.emulator.ws_url(OPEN)) as socket:
            hearing = Hearing([len(writer.log) + 1 for writer in writers])  # one may be under way
            until = monotonic() + self.chance.choice((0.1, 1.0, ROUND_SECONDS))
            while not self.soak.is_pausing.is_set() and monotonic() < until:
                hearing.take(socket, 0.05)
            hearing.owed = [len(writer.log) for writer in writers]
            deadline = monotonic() + PATIENCE
            while hearing.lacks(writers) and monotonic() < deadline:
                hearing.take(socket, 0.5)
            if self.chance.random() < 0.3:
                socket.close_socket()  # gone without a word
        self.soak.hearings.append(hearing)


@dataclass
class Hearing:
    """What a listener heard, and of each writer's log: from where on it must have, and up to where."""

    since: list[int]
    owed: list[int] = field(default_factory=list)
    heard: list[Op] = field(default_factory=list)

    def take(self, socket: ClientConnection, seconds: float) -> None:
        with suppress(TimeoutError):
            message = json.loads(socket.recv(timeout=seconds))
            self.heard.append((message["type"], message["record"]["uniqueId"], message["record"]["data"]))

    def lacks(self, writers: list[Writer]) -> bool:
        """Whether somebody's last owed message has not come yet."""
        recent = self.heard[-1000:]
        return any(
            owed > since and writer.log[owed - 1] not in recent
            for writer, since, owed in zip(writers, self.since, self.owed, strict=True)
        )

    def compare(self, writers: list[Writer]) -> None:
        """Raise Off if a message was lost, told twice, or out of its order."""
        for writer, since, owed in zip(writers, self.since, self.owed, strict=True):
            heard = [op for op in self.heard if op[2]["by"] == writer.name]
            if not heard:
                if owed > since:
                    raise Off(f"of {writer.name} nothing was heard, {owed - since} messages at least are lost")
                continue
            first = writer.log.index(heard[0])
            if writer.log[first : first + len(heard)] != heard:
                raise Off(f"of {writer.name} {len(heard)} messages were heard, lost, doubled or out of order")
            if first > since or since < owed > first + len(heard):
                raise Off(f"of {writer.name} {first} to {first + len(heard)} was heard in place of {since} to {owed}")


class Visitor(Worker):
    """Registers, logs in, keeps a diary, listens, and is logged out or expires."""

    def turn(self) -> None:
        user = {"username": f"user-{self.chance.getrandbits(64):x}", "password": "secret"}
        self.client.call(USERS, "POST", user)
        self.client.call(USERS, "POST", user, expect=400)
        self.client.call(USERS, "POST", user | {"password": "wrong"}, login="true", expect=401)
        reply = self.client.call(USERS, "POST", user, login="true", noATCookie="true")
        token = reply.headers["authorization"].removeprefix("Bearer ")
        with open_socket(f"{self.soak.emulator.ws_url(PRIVATE)}&accessToken={token}") as socket:
            written = [self.client.call(PRIVATE, "POST", number, token=token).json for number in range(3)]
            if self.client.call(PRIVATE, "GET", token=token).json != written:
                raise Off("a user does not see what is theirs alone")
            if [json.loads(socket.recv(timeout=PATIENCE))["record"] for _ in written] != written:
                raise Off("a user heard something else than what is theirs alone")
            if self.chance.random() < 0.5:
                self.client.call(USERS, "POST", token=token, logout="true")
            else:
                self.client.control("expire-tokens", token=token)
            if closing(socket) != (1000, "Access token expired."):
                raise Off(f"the end of a token closed its socket with {socket.close_code} {socket.close_reason}")
        self.client.call(PRIVATE, "GET", token=token, expect=401)
        self.soak.note(heard=len(written), ended=1)
        self.rest(0.1)


class Uploader(Worker):
    """Uploads files, reads one back, and deletes them."""

    def turn(self) -> None:
        files = [
            self.chance.randbytes(self.chance.choice((0, 1, 1000, 300_000))) for _ in range(self.chance.randint(1, 3))
        ]
        records = self.client.call(FILES, "POST", body=form(*files), kind=FORM).json
        for record, content in zip(records if len(files) > 1 else [records], files, strict=True):
            if self.client.call(FILES, "GET", uniqueId=record["uniqueId"], fileOnly="true").body != content:
                raise Off("a file did not come back as it was")
            self.client.call(FILES, "DELETE", uniqueId=record["uniqueId"])
        self.client.call(FILES, "POST", body=form(), kind=FORM, expect=400)
        self.rest(0.1)


FORM = "multipart/form-data; boundary=soak"


def form(*files: bytes) -> bytes:
    head = b'--soak\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    return b"".join(b"%b%b\r\n" % (head, content) for content in files) + b"--soak--\r\n"


FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 503, "chance": 0.5, "seed": 1},
    {"kind": "status", "status": 500, "body": "broken", "times": 3},
    {"kind": "delay", "seconds": 0.05, "times": 3},
    {"kind": "cut", "when": "before", "times": 2},
    {"kind": "cut", "when": "after", "times": 2},
    {"kind": "refuse", "times": 1},
    {"kind": "close", "code": 1011, "reason": "soak"},
    {"kind": "abort"},
    {"kind": "silence"},
    *({"kind": "messages", "what": what, "times": 2} for what in ("late", "twice", "drop", "swap", "before-answer")),
    *({"kind": "outage", "seconds": 0.1, "mode": mode} for mode in ("refuse", "hang", "reset")),
)


class Sufferer(Worker):
    """Brings faults about and suffers them; what comes is counted, and only the emulator's end would be off."""

    def turn(self) -> None:
        fault = self.chance.choice(FAULTS)
        with suppress(OSError, InvalidStatus, InvalidMessage), open_socket(self.soak.emulator.ws_url(FAULTY)) as socket:
            self.client.control("faults", endpoint=FAULTY, **fault)
            for _ in range(5):
                self.suffer()
            with suppress(TimeoutError, ConnectionClosed):
                for _ in range(5):
                    socket.recv(timeout=0.05)
            socket.close_socket()
        self.suffer_handshake()
        if self.client.send("DELETE", "/__emulator__/faults").status != 200:
            raise Off("faults cannot be cleared")

    def suffer(self) -> None:
        path = f"/api/1/ce/{FAULTY}?key={self.client.key}"
        try:
            reply = self.client.send("POST", path, b"1", JSON_TYPE)
        except (OSError, HTTPException):
            self.client.close()
            self.soak.count_struck("cut")
        else:
            self.soak.count_struck(str(reply.status))

    def suffer_handshake(self) -> None:
        with suppress(OSError, InvalidStatus, InvalidMessage), open_socket(self.soak.emulator.ws_url(FAULTY)):
            pass


class Traveller(Worker):
    """Makes a world, changes it, goes back, lets time pass, and drops it."""

    def turn(self) -> None:
        key = f"world-{self.chance.getrandbits(64):x}"
        self.client.control("fork", key=key)
        world = Client(self.soak, key)
        try:
            with open_socket(f"{self.soak.emulator.facts['wsUrl']}/{OPEN}?key={key}") as socket:
                first = world.call(OPEN, "POST", "first").json
                world.control("checkpoint", name="one")
                second = world.call(OPEN, "POST", "second").json
                world.control("advance", seconds=86_400)
                world.control("restore", name="one")
                if world.call(OPEN, "GET").json != [first]:
                    raise Off("a world did not go back to its checkpoint")
                world.control("reset")
                if world.call(OPEN, "GET").json != []:
                    raise Off("a world did not go back to its start")
                expected = [("POST", first), ("POST", second), ("DELETE", second), ("DELETE", first)]
                messages = [json.loads(socket.recv(timeout=PATIENCE)) for _ in expected]
                if [(message["type"], message["record"]) for message in messages] != expected:
                    raise Off(f"in a world was heard {messages}")
                self.client.control("drop", key=key)
                if closing(socket)[0] != 1001:
                    raise Off(f"the end of a world closed its socket with {socket.close_code}")
            self.soak.note(heard=len(expected), ended=1)
        finally:
            world.close()
        self.rest(0.3)


CREW: tuple[tuple[type[Worker], int], ...] = (
    (Writer, 3), (Reader, 2), (Listener, 4), (Visitor, 2), (Uploader, 1), (Sufferer, 1), (Traveller, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What the process took at the end of a round."""

    at: float
    memory: int
    descriptors: int
    tasks: int


def work_a_round(soak: Soak, seconds: float) -> None:
    """Let everybody work, and pause."""
    soak.is_pausing.clear()
    soak.writers = [Writer(soak, number) for number in range(3)]
    crew: list[Worker] = list(soak.writers)
    crew += [kind(soak, number) for kind, count in CREW[1:] for number in range(count)]
    for worker in crew:
        worker.start()
    timer = threading.Timer(seconds, soak.is_pausing.set)
    timer.start()
    for worker in crew:
        worker.join(timeout=seconds + 3 * PATIENCE)
        if worker.is_alive():
            soak.is_off(f"{worker.name} does not come to an end")
    timer.cancel()


def check_round(soak: Soak) -> None:
    """Compare what is stored and what was heard with what was acknowledged, and go back to the start."""
    client = Client(soak)
    stored = {record["uniqueId"]: record["data"] for record in client.call(OPEN, "GET").json}
    if stored != {unique_id: data for writer in soak.writers for unique_id, data in writer.records.items()}:
        raise Off("what is stored is not what was acknowledged")
    for hearing in soak.hearings:
        hearing.compare(soak.writers)
        soak.note(heard=len(hearing.heard), ended=1)
    soak.hearings.clear()
    with open_socket(soak.emulator.ws_url(OPEN)) as socket:
        client.control("reset")
        gone = {json.loads(socket.recv(timeout=PATIENCE))["record"]["uniqueId"] for _ in stored}
    if gone != stored.keys():
        raise Off("the reset told of something else than what was stored")
    for endpoint in (OPEN, FAULTY, FILES):
        if client.call(endpoint, "GET").json != []:
            raise Off(f"after the reset there is something in {endpoint}")
    client.close()


def read(soak: Soak, start: float) -> Reading:
    """Measure the process once it has noticed that everybody has left."""
    client = Client(soak)
    deadline = monotonic() + PATIENCE
    while client.send("GET", "/__emulator__/status").json["listeners"] and monotonic() < deadline:
        soak.is_over.wait(0.05)
    client.close()
    emulator = soak.emulator
    return Reading(monotonic() - start, emulator.memory(), emulator.descriptors(), emulator.tasks())


def slope(readings: list[Reading]) -> float:
    """Bytes of memory per ten minutes: the straight line through the readings, the first third left out."""
    points = [(reading.at, reading.memory) for reading in readings[len(readings) // 3 :]]
    if len(points) < 2:
        return 0.0
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    per_second: float = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return 600 * per_second


def judge(readings: list[Reading], seconds: float, is_off: Callable[[str], object]) -> None:
    """Say what the readings show to be off; a short run says little of a slope."""
    middle = len(readings) // 2
    early, late = readings[: middle + 1], readings[middle:]
    if seconds >= LONG and slope(readings) > 2**20:
        is_off(f"memory grows by {slope(readings) / 2**20:.2f} MB per ten minutes")
    if readings[-1].memory - early[-1].memory > 20 * 2**20:
        is_off("memory grew by more than 20 MB")
    for name in ("descriptors", "tasks"):
        most = max(getattr(reading, name) for reading in early)
        if getattr(readings[-1], name) > most + 2 and min(getattr(reading, name) for reading in late[-3:]) > most:
            is_off(f"{name} grow")


def soak_for(seconds: float, seed: int, folder: Path) -> tuple[Soak, list[Reading]]:
    """Run the emulator on a data file and put it under load."""
    readings: list[Reading] = []
    with measured(folder / "log", str(folder / "data.json"), *ENDPOINTS, "-q", cwd=folder) as emulator:
        soak = Soak(emulator, seed)
        start = monotonic()
        while monotonic() - start < seconds and not soak.wrong:
            work_a_round(soak, min(ROUND_SECONDS, max(1.0, seconds / 5)))
            try:
                check_round(soak)
                readings.append(read(soak, start))
            except (Off, OSError, HTTPException, ValueError, ConnectionClosed) as error:
                soak.is_off(f"at the end of a round: {type(error).__name__}: {error}")
        emulator.process.terminate()
        if emulator.process.wait(timeout=20) != 0:
            soak.is_off(f"it ended with {emulator.process.returncode}")
        for line in emulator.lines():
            soak.is_off(f"in its log: {line}")
        if not soak.wrong and json.loads((folder / "data.json").read_text()).get(OPEN):
            soak.is_off("the data file holds what was reset")
    return soak, readings


def report(soak: Soak, readings: list[Reading]) -> None:
    first, last = readings[0], readings[-1]
    print(f"{last.at:.0f} s, {len(readings)} rounds")
    print(f"memory       {first.memory / 2**20:.1f} MB after the first round, {last.memory / 2**20:.1f} MB in the end,")
    if last.at >= LONG:
        print(f"             {slope(readings) / 2**20:+.2f} MB per ten minutes")
    for name in ("descriptors", "tasks"):
        values = [getattr(reading, name) for reading in readings]
        print(f"{name:<12} {min(values)} to {max(values)}, {values[-1]} in the end")
    print(f"messages     {soak.heard} heard by {soak.ended} listeners, none lost, none twice" if not soak.wrong else "")
    for kind, count in soak.requests.most_common():
        print(f"{count:>9}    {kind}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=7378)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak, readings = soak_for(given.seconds, given.seed, Path(folder))
    if readings:
        judge(readings, given.seconds, soak.is_off)
        report(soak, readings)
    for wrong in soak.wrong[:20]:
        print(f"OFF: {wrong}")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
