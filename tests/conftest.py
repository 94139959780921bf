"""What all tests share: a garden of data, a clock that stands still, ears, and a wire.

Two levels. Domain tests talk to a Backend, with a fake clock and fake listeners; they need no socket.
Wire tests talk to a RestedEmulator over a real port, with clients that are not ours.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from rested_emulator import (
    Approach,
    Backend,
    Clock,
    Content,
    Gate,
    JsonFile,
    Parameters,
    RestedEmulator,
    Store,
    Tree,
    load_tree,
)

ROOT = Path(__file__).parent.parent
GARDEN = ROOT / "sample_data" / "garden.json"

KEY = "6a2d9e04c1b84f3f9d57e0a81c36b2f4"
MASTER_KEY = "d0c5b1e29a7f4c6e8b3a54f9027e61dc"
PLANTS, GARDENERS, DIARY, CHORES = "garden/plants", "garden/gardeners", "garden/diary", "garden/chores"
TOMATO, ROSEMARY, PUMPKIN = (f"0b6f3c1e5a7d4e8c9f20a1b2c3d4e5f{number}" for number in (1, 2, 3))
ADA, BEN = "1c7a4d2f6b8e4f9dae31b2c3d4e5f6a1", "1c7a4d2f6b8e4f9dae31b2c3d4e5f6a2"
DIARY_OF_ADA, DIARY_OF_BEN = "2d8b5e3f7c9f4a0ebf42c3d4e5f6a7b1", "2d8b5e3f7c9f4a0ebf42c3d4e5f6a7b2"
CHORE_OF_ADA, CHORE_OF_BEN = "3e9c6f4a8dab4b1f8053d4e5f6a7b8c1", "3e9c6f4a8dab4b1f8053d4e5f6a7b8c2"
CHORE_OF_NOBODY = "3e9c6f4a8dab4b1f8053d4e5f6a7b8c3"
NOON = 1_800_000_000.0  # 2027-01-15T08:00:00Z, a moment that tests can count from


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=5, help="how often test_crash.py kills the emulator")
    parser.addoption("--sequences", type=int, default=25, help="how many sequences test_sequences.py goes through")
    parser.addoption(
        "--listeners", type=int, default=200, help="how many sockets test_many_sockets.py opens; all: 1000"
    )
    parser.addoption("--megabytes", type=int, default=20, help="the size of the ten files in test_uploads.py")


class StoppedTime:
    """A machine's time that moves only when a test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Ear:
    """A listener that keeps what it hears."""

    heard: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    ended: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        assert self.ended is None, "a message after the end"
        self.raw.append(message)
        self.heard.append(json.loads(message))

    def end(self, code: int, reason: str) -> None:
        assert self.ended is None, "ended twice"
        self.ended = code, reason

    @property
    def waiting(self) -> int:
        return 0

    def drop(self) -> None:
        self.end(1006, "dropped")

    def silence(self) -> None:
        self.end(1006, "silenced")

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.heard]


def knock(
    endpoint: str,
    data: Any = ...,
    *,
    token: str | None = None,
    origin: str | None = None,
    content: Content | None = None,
    **parameters: Any,
) -> Approach:
    """What a request shows; ``data`` is sent as JSON, ``parameters`` are those of the model, the key is right."""
    if data is not ...:
        content = Content("application/json", None, json.dumps(data).encode())
    if "unique_id" in parameters:
        parameters["unique_ids"] = (parameters.pop("unique_id"),)
    return Approach(endpoint, Parameters(**{"key": KEY} | parameters), origin, token, content)


@pytest.fixture
def time() -> StoppedTime:
    return StoppedTime()


@pytest.fixture
def clock(time: StoppedTime) -> Clock:
    return Clock(time)


@pytest.fixture
def garden() -> Tree:
    """The sample data, fresh."""
    return load_tree(str(GARDEN))


@pytest.fixture
def backend(garden: Tree, clock: Clock) -> Backend:
    """A backend over the garden, in memory, at noon."""
    return Backend(Store(JsonFile(None, garden)), clock, Gate())


@pytest.fixture
def ada(backend: Backend) -> str:
    """The access token of a gardener."""
    return backend.sign_in(GARDENERS, "ada")


@pytest.fixture
def ben(backend: Backend) -> str:
    """The access token of another gardener."""
    return backend.sign_in(GARDENERS, "ben")


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


# Nothing unexpected in the log

PHASES: tuple[Literal["setup", "call"], ...] = ("setup", "call")


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that logs a warning it did not expect; ``@pytest.mark.warns("part of the text")`` expects one."""
    caplog.set_level(logging.INFO)
    yield
    expected = [part for marker in request.node.iter_markers("warns") for part in marker.args]
    lines = [
        record.getMessage()
        for phase in PHASES
        for record in caplog.get_records(phase)
        if record.levelno >= logging.WARNING
    ]
    unexpected = [line for line in lines if not any(part in line for part in expected)]
    assert not unexpected, f"unexpected in the log: {unexpected}"
    missing = [part for part in expected if not any(part in line for line in lines)]
    assert not missing, f"expected in the log: {missing}"
