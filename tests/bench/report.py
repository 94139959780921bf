"""The report: a row for each figure, beside its target and whether it holds, as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.load import WRK
from tests.bench.measures import CHANGES, CONNECTIONS, Size
from tests.bench.peers import Peer

Figures = Mapping[tuple[str, str], Sequence[float]]  # by row and letter of the peer, one of each round
OURS, BEFORE = "E", "B"
COUNTED = ("lost",)


@dataclass(frozen=True)
class Target:
    """What the emulator's figure must be: over the figure of the peer ``over``, or as it is."""

    must: float
    stretch: float | None = None
    over: str = ""
    at_least: bool = False

    def reached(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound

    def shown(self, bound: float | None) -> str:
        """A bound as people write it."""
        return "" if bound is None else f"{'≥' if self.at_least else '≤'} {bound:,g} {self.over}".strip()


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    key: str
    title: str
    targets: tuple[Target, ...] = ()
    beside: str = ""  # the row whose figure, a time in µs, stands in the same cells
    peers_key: str = ""  # the row of the peers' figures, where they have none in this one


def rows(size: Size) -> list[Row]:
    """All lines, in their order."""
    few, some, many = size.records
    lists = {some: (Target(0.3, 0.1, "J"),)}
    most = size.listeners[-1]
    return [
        *rate_rows(size),
        Row("post-growth", f"POST at {many:,} over POST at {few:,}, one connection", (Target(1.2, 1.1),)),
        *(Row(f"list-ms@{n}", f"the whole list after a write, {n:,}, ms", lists.get(n, ())) for n in size.records),
        Row(f"start@{few}", "cold start to the first answer, from bytecode, ms", (Target(0.6, 0.5, "J"),)),
        Row(f"start-file@{few}", "… as a file, ms", (Target(1.15, 1.0, "J"),), peers_key=f"start@{few}"),
        Row(f"start@{many}", f"… from bytecode, {many:,} records, ms", (Target(0.6, 0.45, "J"),)),
        Row(f"memory@{few}", "memory, idle, from bytecode, MiB", (Target(0.45, 0.4, "J"),)),
        Row(f"memory-file@{few}", "… as a file, MiB", (Target(0.78, 0.7, "J"),), peers_key=f"memory@{few}"),
        Row(f"memory@{many}", f"… from bytecode, {many:,} records, MiB", (Target(0.6, 0.5, "J"),)),
        Row("listener-kib", "memory for each listener, KiB", (Target(16, 12),)),
        *(
            Row(f"delivery-ms@{n}", f"1 write to {n:,} listeners, the last has it, ms", (Target(must, stretch, "W"),))
            for n, must, stretch in zip(size.listeners, (1.0, 0.9, 1.1), (0.9, 0.8, 1.0), strict=True)
        ),
        Row("answer-growth", f"POST's answer with {most:,} listeners over with none", (Target(3, 2),)),
        Row("deliveries@1", f"deliveries/s to {most:,} listeners, 1 writer", (Target(4, 5, "W", True),)),
        Row(f"deliveries@{CONNECTIONS}", f"… {CONNECTIONS} writers", (Target(6, 9, "W", True),)),
        *emulators_rows(size),
        Row("lost", "acknowledged writes lost when killed, all rounds", (Target(0, 0),)),
    ]


def rate_rows(size: Size) -> list[Row]:
    """How fast records are read and written."""
    posts = zip(size.records, ((12, 18), (75, 110), (800, 1200)), strict=True)
    post_targets = {n: (Target(must, stretch, "J", True), *POST_TARGETS) for n, (must, stretch) in posts}
    few = size.records[0]
    rates = f"{CONNECTIONS} connections · processor time of each, µs"
    return [
        *(Row(f"get-rate@{n}", f"GET by id/s at {n:,}, {rates}", GET_TARGETS, f"get-cpu@{n}") for n in size.records),
        *(Row(f"post-rate@{n}", f"POST/s at {n:,}, {rates}", post_targets[n], f"post-cpu@{n}") for n in size.records),
        Row(f"get-cpu@{few}", f"processor time of a GET at {few:,}, µs", (Target(0.36, 0.25, "T"),)),
        Row(f"post-cpu@{few}", "… of a POST, µs", (Target(0.46, 0.33, "T"),)),
        Row(f"get-ms@{few}", f"GET at {few:,}, one connection, ms", (Target(0.35, 0.25, "J"), Target(0.65, None, "W"))),
        Row(f"post-ms@{few}", "… POST, ms", (Target(0.12, 0.09, "J"), Target(0.75, None, "W"))),
    ]


GET_TARGETS = (Target(3.3, 5, "J", True), Target(3.5, None, "P", True), Target(0.5, 0.9, "W", True))
POST_TARGETS = (Target(2.3, None, "P", True), Target(0.65, 0.9, "W", True))


def emulators_rows(size: Size) -> list[Row]:
    """What only the emulator does."""
    bounds = zip(size.restored, (Target(1, 0.3), Target(10, 1)), strict=True)
    many = size.restored[-1]
    return [
        *(
            Row(f"{verb}-ms@{n}", f"{verb} at {n:,} records, {CHANGES} changed, ms", (target,))
            for n, target in bounds
            for verb in ("reset", "restore")
        ),
        Row("after-checkpoint-ms", f"first write after a checkpoint, {many:,}, ms", (Target(1, 0.2),)),
        Row("in-world-ms", f"… in a new world, {many:,}, ms", (Target(1, 0.2),)),
        *(
            Row(f"{name}-growth", f"{title}: {size.users[1]:,} users over {size.users[0]:,}", (Target(1.5, 1.2),))
            for name, title in USERS_TITLES.items()
        ),
        Row("first-page-ms", "the first page of the console after a start, ms", (Target(150),)),
        Row("first-socket-ms", "… the first WebSocket, ms", (Target(150),)),
        Row("status-ms", f"GET status with {size.sessions:,} sessions, ms", (Target(5, 1),)),
        Row("pause-ms", f"longest GET while {size.records[-1]:,} records are written to disk, ms", (Target(20, 5),)),
        Row("quiet-ms", "… in as long a time without, ms"),
    ]


USERS_TITLES = {
    "register": "register",
    "login": "log in",
    "secure-list": "secure list by master key, its first byte",
}


def values_of(figures: Figures, size: Size) -> dict[tuple[str, str], float]:
    """One value for each row and peer: the median of the rounds, the sum for what is lost."""
    values = {
        (key, letter): sum(found) if key in COUNTED else statistics.median(found)
        for (key, letter), found in figures.items()
    }
    few, *_, many = size.records
    for key, letter in list(values):
        if key == f"post-ms@{many}":
            values["post-growth", letter] = values[key, letter] / values[f"post-ms@{few}", letter]
    return values


def table(figures: Figures, peers: Sequence[Peer], size: Size) -> str:
    """The Markdown table of what was measured."""
    values = values_of(figures, size)
    heads = [f"{peer.name} ({peer.letter})" if peer.letter not in (OURS, BEFORE) else peer.name for peer in peers]
    lines = [["", *heads, "ratio", "must", "stretch", "holds"], ["---"] + ["--:"] * (len(heads) + 1) + ["---"] * 3]
    for row in rows(size):
        if (row.key, OURS) in values:
            cells = [cell(row, peer.letter, values) for peer in peers]
            lines.append([row.title, *cells, *judged(row, values)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def cell(row: Row, letter: str, values: Mapping[tuple[str, str], float]) -> str:
    """A peer's figure, and what stands beside it."""
    keys = [row.key, *([row.beside] if row.beside else [])]
    return " · ".join(shown(values.get((key, letter))) for key in keys)


def judged(row: Row, values: Mapping[tuple[str, str], float]) -> list[str]:
    """The ratio to what the targets are about, the targets, and whether they hold."""
    ratios, verdicts = [], []
    for target in row.targets:
        ratio = values[row.key, OURS]
        if target.over:
            peer = values.get((row.peers_key or row.key, target.over))
            if peer is None:
                ratios.append(f"? {target.over}")
                verdicts.append(f"{target.over} not measured")
                continue
            ratio = ratio / peer
            ratios.append(f"{shown(ratio)} {target.over}")
        verdicts.append(verdict(target, ratio))
    musts = ", ".join(target.shown(target.must) for target in row.targets)
    stretches = ", ".join(filter(None, (target.shown(target.stretch) for target in row.targets)))
    return [", ".join(ratios), musts, stretches, ", ".join(verdicts)]


def verdict(target: Target, value: float) -> str:
    if not target.reached(value, target.must):
        return "**no**"
    return "stretch" if target.stretch is not None and target.reached(value, target.stretch) else "must"


def shown(value: float | None) -> str:
    """A number with three figures, or none."""
    if value is None:
        return "-"
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def circumstances(peers: Sequence[Peer], size: Size) -> str:
    """Machine, versions and date, in a paragraph."""
    versions = ", ".join(peer.version for peer in peers)
    client = "wrk" if WRK else "the client here, which makes fast servers look alike: install wrk"
    return (
        f"{datetime.now(UTC).date()}, {processor()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}. {versions}. "
        f"Rates by {client}. "
        f"Medians of {size.rounds} interleaved rounds over loopback, everything kept on disk; only ratios carry over.\n"
    )


def processor() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
