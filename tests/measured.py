"""An emulator in a process of its own, whose memory, descriptors, tasks and time can be measured.

``python -m tests.measured ARGUMENTS`` is that process: the program as it is, which tells at SIGUSR1 how many
tasks it has.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rested_emulator

ROOT = Path(__file__).parent.parent  # not from conftest, whose imports would be measured too
IS_MEASURABLE = Path("/proc/self/status").exists()


class Measured:
    """A running emulator: ``process``, what its ready line said as ``facts``, and where its log is."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        assert process.stdout
        line = process.stdout.readline()
        assert line, f"it did not start: {log.read_text()}"
        self.facts: dict[str, Any] = json.loads(line)

    def url(self, endpoint: str) -> str:
        return f"{self.facts['url']}/{endpoint}?key={self.facts['key']}"

    def ws_url(self, endpoint: str) -> str:
        return f"{self.facts['wsUrl']}/{endpoint}?key={self.facts['key']}"

    def _status(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    def memory(self) -> int:
        """Resident bytes, now."""
        return self._status("VmRSS") * 1024

    def peak(self) -> int:
        """The most resident bytes there ever were."""
        return self._status("VmHWM") * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tasks(self) -> int:
        """How many asyncio tasks there are."""
        assert self.process.stdout
        self.process.send_signal(signal.SIGUSR1)
        return int(self.process.stdout.readline())

    def lines(self) -> list[str]:
        """What the log says so far."""
        return self.log.read_text().splitlines()


@contextmanager
def measured(
    log: Path, *arguments: str, cwd: Path | None = None, files: int = 0, prepare: Callable[[], object] | None = None
) -> Iterator[Measured]:
    """Run the emulator on a free port, its log in a file; killed at the end, whatever happens.

    ``files`` limits its descriptors; ``prepare`` is called in the new process.
    """

    def begin() -> None:
        if files:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        if prepare:
            prepare()

    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.measured", *arguments, "--port", "0", "--json"],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=begin,
        )
    try:
        yield Measured(process, log)
    finally:
        process.kill()
        process.communicate(timeout=10)


def say_tasks(*_: object) -> None:
    os.write(1, b"%d\n" % len(asyncio.all_tasks(asyncio.get_running_loop())))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, say_tasks)
    sys.exit(rested_emulator.main(sys.argv[1:]))
