"""The benchmark at its smallest: it works, and its report has a row for each measurement."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rested_emulator import RestedEmulator
from tests.bench.load import WRK, BenchError, drive_by_wrk
from tests.bench.measures import SMALLEST
from tests.bench.peers import PEERS, request
from tests.bench.report import Target, rows, verdict
from tests.conftest import GARDEN, PLANTS, ROOT, TOMATO
from tests.wire import at


def report_of(output: Path, *arguments: str) -> str:
    """What the smallest run says."""
    command = [sys.executable, "-m", "tests.bench", "--smallest", *arguments, "--output", str(output)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    return output.read_text()


def cells(report: str) -> list[list[str]]:
    return [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]


def test_the_smallest_size_fills_every_row(tmp_path: Path) -> None:
    lines = cells(report_of(tmp_path / "table.md", "--peers", "E"))
    assert [line[0].removeprefix("| ") for line in lines[2:]] == [row.title for row in rows(SMALLEST)]
    assert all(re.fullmatch(r"[\d,.e+-]+( · [\d,.]+)?", line[1]) for line in lines[2:])


@pytest.mark.browser
def test_every_peer_is_measured_beside_it(tmp_path: Path) -> None:
    """By what asks each of them everything: who starts, lists, listens and is killed."""
    report = report_of(tmp_path / "table.md", "--only", "listeners,crash", "--against", "rested_emulator.py")
    lines = cells(report)
    left_out = [peer.name for peer in PEERS if f"{peer.name} is left out: " in report]
    assert all(peer.name in " ".join(lines[0]) for peer in PEERS if peer.name not in left_out)
    if shutil.which("npm") is None:
        assert "bare Node" in left_out


@pytest.mark.skipif(WRK is None, reason="wrk is not installed")
def test_a_rate_with_refusals_is_none() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        port = int(str(emulator.facts["port"]))
        read, missing = (request("GET", at(PLANTS, f"uniqueId={name}")) for name in (TOMATO, "nothing"))
        assert drive_by_wrk(port, [read], 2, 1).answers > 0
        with pytest.raises(BenchError, match="were refusals"):
            drive_by_wrk(port, [read, missing], 2, 1)


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        (Target(0.6, 0.4, "J"), 0.61, "**no**"),
        (Target(0.6, 0.4, "J"), 0.6, "must"),
        (Target(0.6, 0.4, "J"), 0.4, "stretch"),
        (Target(5, 25, "J", at_least=True), 4.9, "**no**"),
        (Target(5, 25, "J", at_least=True), 5, "must"),
        (Target(5, 25, "J", at_least=True), 25, "stretch"),
        (Target(1.3, over="P", at_least=True), 900, "must"),
    ],
)
def test_a_target_holds_up_to_its_bound(target: Target, value: float, expected: str) -> None:
    assert verdict(target, value) == expected
