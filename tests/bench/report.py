"""The report: a row for each figure, beside its target and whether it holds, as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measures import CONNECTIONS, Size
from tests.bench.peers import Peer

Figures = Mapping[tuple[str, str], Sequence[float]]  # by row and letter of the peer, one of each round
OURS = "E"
COUNTED = ("lost", "forgotten")


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


def rows(size: Size) -> list[Row]:
    """All lines, in their order."""
    few, some, many = size.records
    posts = {few: Target(5, 25, "J", True), some: Target(60, 300, "J", True), many: Target(500, 3000, "J", True)}
    over_pocketbase = {"post": Target(1.3, None, "P", True), "get": Target(1.4, None, "P", True)}
    reads = (Target(1, 7, "J", True), over_pocketbase["get"])
    lists = {some: (Target(0.5, 0.1, "J"),)}
    deliveries = (Target(1, 0.6, "W"), Target(1.3, 1, "W"), Target(1.1, 0.9, "W"))
    most = size.listeners[-1]
    return [
        Row(f"start@{few}", f"cold start to the first answer, {few:,} records, ms", (Target(0.6, 0.4, "J"),)),
        Row(f"start@{many}", f"cold start, {many:,} records, ms", (Target(0.45, 0.25, "J"),)),
        *(Row(f"start-installed@{n}", f"the same of the installed command, {n:,} records, ms") for n in (few, many)),
        *(
            Row(
                f"post-rate@{n}",
                f"POST/s at {n:,} records, {CONNECTIONS} connections",
                (posts[n], over_pocketbase["post"]),
            )
            for n in size.records
        ),
        *(Row(f"get-rate@{n}", f"GET by id/s at {n:,}", reads) for n in size.records),
        *(Row(f"put-rate@{n}", f"PUT/s at {n:,}") for n in size.records),
        *(Row(f"delete-rate@{n}", f"DELETE/s at {n:,}") for n in size.records),
        *(
            Row(f"{operation}-ms@{n}", f"{operation.upper()} at {n:,}, one connection, ms")
            for operation in ("post", "get", "put", "delete")
            for n in size.records
        ),
        Row("post-growth", f"POST at {many:,} over POST at {few:,}", (Target(1.5, 1.1),)),
        *(Row(f"list-ms@{n}", f"the whole list after a write, {n:,}, ms", lists.get(n, ())) for n in size.records),
        *(
            Row(f"delivery-ms@{n}", f"1 write to {n:,} listeners, the last has it, ms", (target,))
            for n, target in zip(size.listeners, deliveries, strict=True)
        ),
        Row("deliveries@1", f"deliveries/s to {most:,} listeners, 1 writer", (Target(1, 1.1, "W", True),)),
        Row(f"deliveries@{CONNECTIONS}", f"the same, {CONNECTIONS} writers", (Target(1.5, 4, "W", True),)),
        Row("answer-ms@0", "POST's answer without listeners, ms"),
        Row(f"answer-ms@{most}", f"POST's answer with {most:,} listeners, ms"),
        Row("answer-growth", f"POST's answer with {most:,} listeners over without", (Target(3, 2),)),
        Row(f"memory@{few}", "memory, idle, MiB", (Target(0.6, 0.5, "J"),)),
        Row(f"memory@{many}", f"memory at {many:,} records, MiB", (Target(0.6, 0.45, "J"),)),
        *(Row(f"memory-installed@{n}", f"the same of the installed command, {n:,}, MiB") for n in (few, many)),
        Row("listener-kib", "memory for each listener, KiB", (Target(16, 14),)),
        Row("reset-ms", f"reset at {many:,} records, ten changed, ms", (Target(10, 1),)),
        Row("forgotten", "acknowledged records not found later, all rounds", (Target(0, 0),)),
        Row("lost", "acknowledged writes lost when killed, all rounds", (Target(0, 0),)),
        Row("pause-ms", f"longest GET at {many:,} while the data file is rewritten, ms", (Target(50),)),
        Row("quiet-ms", "longest GET in as long a time without, ms"),
        Row("embedding-ms", "start and stop of RestedEmulator in Python, ms", (Target(5),)),
        Row("fork-ms", "one more world, ms", (Target(1),)),
    ]


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
    heads = [f"{peer.name} ({peer.letter})" if peer.letter != OURS else peer.name for peer in peers]
    lines = [["", *heads, "ratio", "must", "stretch", "holds"], ["---"] + ["--:"] * (len(heads) + 1) + ["---"] * 3]
    for row in rows(size):
        if (row.key, OURS) in values:
            cells = [shown(values.get((row.key, peer.letter))) for peer in peers]
            lines.append([row.title, *cells, *judged(row, values)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def judged(row: Row, values: Mapping[tuple[str, str], float]) -> list[str]:
    """The ratio to what the targets are about, the targets, and whether they hold."""
    ratios, verdicts = [], []
    for target in row.targets:
        ratio = values[row.key, OURS]
        if target.over:
            peer = values.get((row.key, target.over))
            if peer is None:
                ratios.append(f"? {target.over}")
                verdicts.append(f"{target.over} not measured")
                continue
            ratio = ratio / peer
            ratios.append(f"{shown(ratio)} {target.over}")
        verdicts.append(verdict(target, ratio))
    musts = ", ".join(target.shown(target.must) for target in row.targets)
    stretches = ", ".join(filter(None, (target.shown(target.stretch) for target in row.targets)))
    return [", ".join(ratios), musts, stretches, ", ".join(dict.fromkeys(verdicts))]


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
    versions = ", ".join(peer.version + (" (one round)" if peer.is_slow else "") for peer in peers)
    return (
        f"{datetime.now(UTC).date()}, {processor()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}. {versions}. "
        f"Medians of {size.rounds} interleaved rounds over loopback, everything kept on disk; only ratios carry over.\n"
    )


def processor() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
