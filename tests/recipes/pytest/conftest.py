from collections.abc import Iterator

import pytest

from rested_emulator import RestedEmulator, World


@pytest.fixture(scope="session")
def emulator() -> Iterator[RestedEmulator]:
    """One for the session, and with pytest -n one for each worker."""
    with RestedEmulator(auth=["my-app/users"], secure=["my-app/notes"]) as emulator:
        yield emulator


@pytest.fixture
def world(emulator: RestedEmulator, request: pytest.FixtureRequest) -> Iterator[World]:
    """Data, users, clock and faults that no other test sees."""
    with emulator.world(request.node.name) as world:
        yield world
