"""What all tests share: a garden of data, a clock that stands still, ears, and a wire.

Two levels. Domain tests talk to a Backend, with a fake clock and fake listeners; they need no socket.
Wire tests talk to a RestedEmulator over a real port, with clients that are not ours.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pytest
from hypothesis import HealthCheck, settings

# Compiling the tests and the module anew takes each worker three seconds, and each program a tenth.
sys.dont_write_bytecode = False
from rested_emulator import (  # noqa: E402
    Clock,
    Emulation,
    Endpoint,
    Evidence,
    Files,
    Gate,
    JsonFile,
    Options,
    Parameters,
    Project,
    Record,
    Refusal,
    Request,
    RestedEmulator,
    Store,
    Worlds,
    load_tree,
    read_command_line,
)

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

ROOT = Path(__file__).parent.parent
GARDEN = ROOT / "sample_data" / "garden.json"

KEY = "6a2d9e04c1b84f3f9d57e0a81c36b2f4"
SAMPLE_KEY = "d59eb2859c284168ac48aef65046d5dd"  # of the service's documentation, and of a new data file
MASTER_KEY = "d0c5b1e29a7f4c6e8b3a54f9027e61dc"
PLANTS, GARDENERS, DIARY, CHORES = "garden/plants", "garden/gardeners", "garden/diary", "garden/chores"
TOMATO, ROSEMARY, PUMPKIN = (f"0b6f3c1e5a7d4e8c9f20a1b2c3d4e5f{number}" for number in (1, 2, 3))
ADA, BEN = "1c7a4d2f6b8e4f9dae31b2c3d4e5f6a1", "1c7a4d2f6b8e4f9dae31b2c3d4e5f6a2"
DIARY_OF_ADA, DIARY_OF_BEN = "2d8b5e3f7c9f4a0ebf42c3d4e5f6a7b1", "2d8b5e3f7c9f4a0ebf42c3d4e5f6a7b2"
CHORE_OF_ADA, CHORE_OF_BEN = "3e9c6f4a8dab4b1f8053d4e5f6a7b8c1", "3e9c6f4a8dab4b1f8053d4e5f6a7b8c2"
collect_ignore = ["recipes"]  # test_recipes.py runs them, each with its own tool
if os.name == "nt":
    collect_ignore += ["test_bench.py", "test_disk.py"]  # which set limits that Windows does not have
AGO = "2021-06-28T17:18:44.000Z"  # when the sample data was made
NOON = 1_800_000_000.0  # 2027-01-15T08:00:00Z, a moment that tests can count from


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=3, help="how often test_crash.py kills the emulator")
    parser.addoption("--sequences", type=int, default=100, help="how many sequences test_sequences.py goes through")
    parser.addoption(
        "--listeners", type=int, default=100, help="how many sockets test_many_sockets.py opens; all: 1000"
    )
    parser.addoption("--megabytes", type=int, default=20, help="the size of the ten files in test_uploads.py")
    parser.addoption("--drills", type=int, default=15, help="how many mishaps test_console.py has")
    parser.addoption("--screenshots", action="store_true", help="renew the pictures of the README, in sample_data")
    parser.addoption("--mutations", type=int, default=300, help="how many requests test_lane.py sends with and without")
    parser.addoption(
        "--fuzz", type=int, default=0, help="how many examples each test of test_fuzz.py makes up, by chance"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis make up the same few examples every time, or as many new ones as somebody wants to wait for.

    And let programs end by SIGHUP, which they would inherit as ignored where nohup has started the tests.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    count = config.getoption("--fuzz")
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    common: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": checks}
    settings.register_profile("same", derandomize=True, max_examples=100, **common)
    settings.register_profile("fuzz", max_examples=count or 1, **common)
    settings.load_profile("fuzz" if count else "same")


# All processors, and one test that has the machine for itself


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Take no workers for tests of one file, which would wait for them, nor for ``-s``, which they do not show."""
    files = {config.invocation_params.dir / argument.partition("::")[0] for argument in config.args}
    is_one_file = len(files) == 1 and files.pop().is_file()
    return 0 if is_one_file or config.option.capture == "no" else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is ``alone`` begin when all workers are idle, and the others when it is over.

    Workers share the lock of the room while they test; who wants it alone keeps the door shut until they are out.
    """
    if fcntl is None or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    kind = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with (ROOT / "README.md").open() as door, Path(__file__).open() as room:
        fcntl.flock(door, kind)
        fcntl.flock(room, kind)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a child of the test may still have it open


def pytest_collection_finish() -> None:
    """Keep some hundred megabytes of tests out of every later search for garbage, which many of them ask for."""
    gc.collect()
    gc.freeze()


Sent = tuple[str | None, str | None, bytes | None] | None  # a body: its type, its encoding, and its bytes


def options_of(words: list[str], **environment: str) -> Options:
    """The options that the program reads from these words and variables."""
    return read_command_line(words, environment)[0]


@pytest.fixture
def help_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """Read the help as a terminal of that width has it."""

    def help_at(columns: int) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit, match=r"^0$"):
            options_of(["--help"])
        return capsys.readouterr().out

    return help_at


class StoppedTime:
    """A machine's time that moves only when a test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Verbs(type):
    """Lets ``Backend.create`` be a verb that is yet to be called on somebody."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda backend, *arguments, **named: getattr(backend, name)(*arguments, **named)


class Backend(metaclass=Verbs):
    """An emulation as domain tests call it: whoever's verb it is, and whichever part is looked into."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        gate: Gate,
        files: Files | None = None,
        evidence: Evidence | None = None,
        **options: Any,
    ) -> None:
        files = files or Files(None)
        store._drop_file = files.drop
        files.finish_drafts(store.has_file)
        self.world = Emulation(
            store, clock, gate, files, evidence or Evidence(clock), take_key=self.take_key, **options
        )

    @classmethod
    def of(cls, world: Any) -> Backend:
        """The same for an emulation that is there."""
        backend = cls.__new__(cls)
        backend.world = world
        return backend

    worlds: Worlds | None = None

    def take_key(self, key: str) -> bool:
        return self.worlds is None or self.worlds.take(key)

    def __getattr__(self, name: str) -> Any:
        parts = (self.world.service, self.world.owner, self.world.states, self.world.reports, self.world)
        return getattr(next((part for part in parts if hasattr(part, name)), self.world), name)


@dataclass(eq=False)
class Ear:
    """A listener that keeps what it hears."""

    heard: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    ended: tuple[int, str] | None = None
    is_closed: bool = False  # after it was silenced

    def send(self, message: bytes) -> None:
        assert self.ended is None, "a message after the end"
        self.raw.append(message)
        self.heard.append(json.loads(message))

    def close(self, code: int, reason: str) -> None:
        assert self.ended is None, "ended twice"
        self.ended = code, reason

    @property
    def waiting(self) -> int:
        return 0

    def cut(self) -> None:
        self.close(1006, "dropped")

    def silence(self) -> Callable[[], None]:
        self.close(1006, "silenced")
        return lambda: setattr(self, "is_closed", True)

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.heard]


def knock(
    endpoint: str,
    data: Any = ...,
    *,
    token: str | None = None,
    origin: str | None = None,
    content: Sent = None,
    **parameters: Any,
) -> Request:
    """Make a request; ``data`` is sent as JSON, ``parameters`` are those of the model, the key is right."""
    if data is not ...:
        content = ("application/json", None, json.dumps(data).encode())
    if "unique_id" in parameters:
        parameters["unique_ids"] = (parameters.pop("unique_id"),)
    kind, encoding, body = content or (None, None, b"")
    headers = {"Origin": origin, "Content-Type": kind, "Content-Encoding": encoding}
    sent = {name: value for name, value in headers.items() if value is not None}
    return Request(endpoint, Parameters(**{"key": KEY} | parameters), sent, token, body)


@contextmanager
def refused(status: int, message: str = "") -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """Expect a refusal of this status, and with this message where one is given."""
    with pytest.raises(Refusal) as refusal:
        yield refusal
    assert refusal.value.status == status
    assert message in ("", refusal.value.message)
    del refusal  # or this frame, which the traceback has, would keep the traceback


def packed(value: object) -> bytes:
    """JSON as it is kept and sent: compact, in order, not escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def record_of(
    unique_id: str, data: object, created: str = AGO, updated: str | None = None, owner: str | None = None
) -> Record:
    """A record as a file may have it, older than the test."""
    return Record.of(unique_id, packed(data), created, updated or created, owner)


def add_project(backend: Backend, users: str | None = None) -> None:
    """Give the garden's service a second project, of the key ``second``, maybe with an authentication endpoint."""
    backend.store.put_project("second", Project("second", "second project"))
    if users:
        backend.store.put_endpoint(Endpoint(users, "second", authentication=True))


def iso(seconds: float) -> str:
    """A time as the service writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.000Z"


@pytest.fixture
def time() -> StoppedTime:
    return StoppedTime()


@pytest.fixture
def clock(time: StoppedTime) -> Clock:
    return Clock(time)


@pytest.fixture
def garden() -> dict[str, Any]:
    """The sample data, fresh."""
    return load_tree(str(GARDEN))


@pytest.fixture
def backend(garden: dict[str, Any], clock: Clock) -> Backend:
    """A backend over the garden, in memory, at noon."""
    return Backend(Store(JsonFile(None, garden)), clock, Gate())


@pytest.fixture
def ada(backend: Backend) -> str:
    """The access token of a gardener."""
    return backend.sign_in(GARDENERS, "ada")  # type: ignore[no-any-return]


@pytest.fixture
def ben(backend: Backend) -> str:
    """The access token of another gardener."""
    return backend.sign_in(GARDENERS, "ben")  # type: ignore[no-any-return]


@pytest.fixture
def listen(backend: Backend) -> Callable[..., Ear]:
    """Make a listener: ``listen(DIARY, token=ada)``."""

    def listen(endpoint: str, **shows: Any) -> Ear:
        ear = Ear()
        backend.listen(knock(endpoint, **shows), ear)
        return ear

    return listen


# The wire


@pytest.fixture
def emulator() -> Iterator[RestedEmulator]:
    """The garden over a real port, in memory."""
    with RestedEmulator(data=GARDEN) as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[RestedEmulator]:
    """The garden for all tests of a file that change nothing: what one of them breaks, the next ones find."""
    with RestedEmulator(data=GARDEN) as running:
        yield running


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """The garden as a data file of one's own."""
    path = tmp_path / "data.json"
    path.write_bytes(GARDEN.read_bytes())
    return path


# What only some machines have

REQUIRED = "RESTED_EMULATOR_TEST_BROWSER"
PACKAGES = {"certutil": "libnss3-tools", "node": "nodejs", "npx": "npm"}  # where the name is another, on Debian


def need(*programs: str, required: str = REQUIRED) -> list[str]:
    """Where these programs are; where one is missing, skip, or fail if an environment variable says ``required``."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = dict.fromkeys(PACKAGES.get(name, name) for name in missing)
        why = f"there is no {' and no '.join(missing)} on the PATH; on Debian: apt-get install {' '.join(packages)}"
        give_up(why, required)
    return [str(shutil.which(name)) for name in programs]


def give_up(why: str, required: str) -> NoReturn:
    """Skip, or fail where an environment variable says that this is ``required``."""
    if os.environ.get(required) == "required":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in a line for each reason what was skipped."""
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.getreports("skipped"):
        assert isinstance(report.longrepr, tuple)
        reasons.setdefault(report.longrepr[2].removeprefix("Skipped: "), []).append(
            Path(report.nodeid.split("::")[0]).name
        )
    for why, files in reasons.items():
        terminalreporter.write_line(f"skipped {len(files)} in {', '.join(dict.fromkeys(files))}: {why}")


# A real Chromium

TIMEOUT = 15_000  # milliseconds, for what is not waited for in a page
EVIL = "evil.example"
# The page of the address bar's popup, and a process in reserve, are more than half of what a new page costs; the
# others are those of Playwright's list, which this one replaces, that change what a page is or does.
SPARING = (
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,SpareRendererForSitePerProcess,HttpsUpgrades,"
    "HttpsFirstBalancedModeAutoEnable,NetworkTimeServiceQuerying,OptimizationHints,PaintHolding,"
    "ThirdPartyStoragePartitioning"
)
CHROMIUM_ARGUMENTS = [
    SPARING,
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # Nothing leaves this machine, and a foreign name leads to it as it does in DNS rebinding.
    f"--host-resolver-rules=MAP {EVIL} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    [path] = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without past: no cookies, no cache."""
    with browser.new_context() as context:
        context.set_default_timeout(TIMEOUT)
        yield context


# Nothing unexpected in the log

# The last too: what the emulator has heard may be told when the test is over, by its stop at the latest.
PHASES: tuple[Literal["setup", "call", "teardown"], ...] = ("setup", "call", "teardown")
IS_SKIPPED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take note of who is skipped, and so logs nothing."""
    report = yield
    item.stash[IS_SKIPPED] = report.skipped or item.stash.get(IS_SKIPPED, False)
    return report


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that logs a warning it did not expect; ``@pytest.mark.warns("part of the text")`` expects one.

    ``may_warn`` allows one, where it is up to chance.
    """
    caplog.set_level(logging.INFO)
    yield
    expected = [part for marker in request.node.iter_markers("warns") for part in marker.args]
    lines = [
        record.getMessage()
        for phase in PHASES
        for record in caplog.get_records(phase)
        if record.levelno >= logging.WARNING
    ]
    allowed = expected + [part for marker in request.node.iter_markers("may_warn") for part in marker.args]
    unexpected = [line for line in lines if not any(part in line for part in allowed)]
    assert not unexpected, f"unexpected in the log: {unexpected}"
    missing = [part for part in expected if not any(part in line for line in lines)]
    assert not missing or request.node.stash.get(IS_SKIPPED, False), f"expected in the log: {missing}"


# Nothing that only another system has


def lacking(error: Exception) -> str | None:
    """What this system does not have, by the error of a test that wanted it; None for any other error."""
    if isinstance(error, FileNotFoundError) and str(error.filename).startswith("/proc/") and not Path("/proc").exists():
        return "/proc"
    by_a_test = traceback.extract_tb(error.__traceback__)[-1].filename.startswith(str(ROOT / "tests"))
    if isinstance(error, AttributeError) and error.obj in (os, signal) and by_a_test:
        return f"{error.obj.__name__}.{error.name}"
    return "this signal" if isinstance(error, ValueError) and "Unsupported signal" in str(error) else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Skip a test that wants what this system does not have; what the emulator itself lacks fails."""
    try:
        return (yield)
    except (OSError, AttributeError, ValueError) as error:
        what = lacking(error)
        if what is None:
            raise
        pytest.skip(f"this system has no {what}")


def pytest_report_header() -> str:
    return f"not collected on this system: {', '.join(collect_ignore)}"
