"""Measure the emulator beside its peers, in one interleaved run, and print a Markdown table.

python -m tests.bench                          everything, some minutes on two idle cores
python -m tests.bench --smallest               proves that it works; its figures mean nothing
python -m tests.bench --only start,listeners --peers W,T
python -m tests.bench --against ../before/rested_emulator.py --peers T
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.load import BenchError
from tests.bench.measures import FULL, MEASUREMENTS, SMALLEST, Measurement, Size
from tests.bench.peers import PEERS, Peer, Stock, available, before
from tests.bench.report import OURS, Figures, circumstances, table


def names_of(known: Sequence[str], text: str) -> list[str]:
    """The names in a list with commas, in the order in which they are known."""
    wanted = text.split(",")
    if unknown := set(wanted) - set(known):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    return [name for name in known if name in wanted]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    letters, measurements = [peer.letter for peer in PEERS], [each.name for each in MEASUREMENTS]
    peers = ", ".join(f"{peer.letter} is {peer.name}" for peer in PEERS)
    found = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--smallest", action="store_true", help="a few records, one round; proves that it works")
    found.add_argument("--rounds", type=int, metavar="N", help=f"default {FULL.rounds}")
    found.add_argument(
        "--only",
        type=lambda text: names_of(measurements, text),
        default=measurements,
        metavar="NAMES",
        help=f"with commas: {', '.join(measurements)}",
    )
    found.add_argument(
        "--peers",
        type=lambda text: names_of(letters, text),
        default=letters,
        metavar="LETTERS",
        help=f"with commas: {peers}; {OURS} is always measured",
    )
    found.add_argument("--against", type=Path, metavar="FILE", help="another rested_emulator.py, measured in turn too")
    found.add_argument("--output", type=Path, metavar="FILE", help="where the table goes, otherwise to stdout")
    return found


def measure(measurements: Sequence[Measurement], peers: Sequence[Peer], size: Size) -> Figures:
    """Let all peers take turns, round after round."""
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rested-bench-") as folder:
        stock = Stock(Path(folder))
        for measurement in measurements:
            for number in range(1, size.rounds + 1):
                for peer in filter(measurement.takes, peers):
                    passed = time.perf_counter() - start
                    print(f"{passed:4.0f} s  {measurement.name}, round {number}: {peer.name}", file=sys.stderr)
                    for key, value in measurement.run(stock, peer, size):
                        figures[key, peer.letter].append(value)
    return figures


def main() -> int:
    """Measure what the command line asks for."""
    options = parser().parse_args()
    size = SMALLEST if options.smallest else FULL
    size = replace(size, rounds=options.rounds or size.rounds)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192) if most > 0 else 8192, most))
    gc.disable()  # no pauses of this side among the figures
    wanted = [peer for peer in PEERS if peer.letter in (OURS, *options.peers)]
    if options.against:
        wanted.insert(1, before(options.against))
    peers, left_out = available(wanted)
    chosen = [each for each in MEASUREMENTS if each.name in options.only]
    try:
        figures = measure(chosen, peers, size)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    notes = [*left_out, *(["the smallest size: it works, and the figures mean nothing"] if options.smallest else [])]
    report = "\n".join([table(figures, peers, size), circumstances(peers, size), *(f"{note}.\n" for note in notes)])
    if options.output:
        options.output.write_text(report)
    else:
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
