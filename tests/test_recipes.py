"""The README's recipes: they are the files in tests/recipes, and those run with the real tools, on loopback alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, give_up, need

RECIPES = ROOT / "tests" / "recipes"
SECTION = (ROOT / "README.md").read_text().split("\n## Recipes\n")[1].split("\n## ")[0]
REQUIRED = "RESTED_EMULATOR_TEST_RECIPES"
SECONDS = 120  # a limit for each command, not what it takes
MOST_LINES = 26

WORKFLOW: dict[str, Any] = yaml.load((RECIPES / "github-actions" / "frontend.yml").read_text(), yaml.BaseLoader)
STEPS: list[dict[str, str]] = WORKFLOW["jobs"]["test"]["steps"]
COMMANDS = [step["run"] for step in STEPS if "run" in step]
# This step is not run, nor are those of other actions: the browser is the machine's, and so are Python and Node.
DOWNLOAD = "npx playwright install --with-deps chromium"
INSTALLING, TESTING = COMMANDS[: COMMANDS.index(DOWNLOAD)], COMMANDS[COMMANDS.index(DOWNLOAD) + 1 :]
# Whatever a browser would like to look up, nothing leaves this machine.
OFFLINE = ["--disable-quic", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"]

Run = Callable[..., str]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("localhost", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def put_command(folder: Path, name: str, *command: str) -> None:
    """Make a command of this name in a folder that is on the path."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command in a copy of the frontend repository, with everything installed as the GitHub job does it.

    Returns what it has printed. Fails where it does not end with 0.
    """
    *_, chromium = need("bash", "npm", "npx", "node", "chromium", required=REQUIRED)
    project, commands = tmp_path_factory.mktemp("frontend") / "repository", tmp_path_factory.mktemp("bin")
    shutil.copytree(RECIPES, project, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    shutil.copy(ROOT / "rested_emulator.py", project)
    put_command(commands, "python", sys.executable)
    put_command(commands, "pip", sys.executable, "-m", "pip")
    put_command(commands, "offline-chromium", chromium, *OFFLINE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RESTED_", "PYTEST_"))}
    environment |= {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "CHROMIUM": str(commands / "offline-chromium"),
        "CI": "true",
        "NO_COLOR": "1",
        "PIP_NO_INDEX": "1",  # what the emulator needs is installed, in the versions that are asked for
        "GITHUB_STEP_SUMMARY": str(project / "summary.md"),
        "RESTED_EMULATOR_PORT": "0",
        "npm_config_prefer_offline": "true",
    }
    environment.pop("FORCE_COLOR", None)

    def run(command: str, **more: str) -> str:
        shell = ["bash", "-e", "-c", command]  # as GitHub's runner does
        output = subprocess.PIPE
        with subprocess.Popen(
            shell, cwd=project, env=environment | more, stdout=output, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                printed, _ = process.communicate(timeout=SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{printed}"
        return printed

    for command in INSTALLING:
        try:
            run(command)
        except AssertionError as error:
            give_up(str(error), REQUIRED)
    return run


def test_the_readme_shows_the_files_as_they_are() -> None:
    paths = [path for path in RECIPES.rglob("*") if path.suffix in (".js", ".html", ".py", ".yml")]
    files = {str(path.relative_to(RECIPES)): path.read_text() for path in paths if "node_modules" not in path.parts}
    del files["pull_seed.py"]  # which is run where it lies, and is long
    shown = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    assert dict(shown) == files
    assert len(shown) == len(files)


def test_a_file_is_short_enough_to_be_pasted() -> None:
    shown = re.findall(r"^```\w+\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    assert max(len(block.splitlines()) for block in shown) <= MOST_LINES


def test_the_lock_file_names_no_registry() -> None:
    assert "://registry" not in (RECIPES / "package-lock.json").read_text()


@pytest.mark.browser
def test_vitest(run: Run) -> None:
    assert "2 passed" in run(shown("npx vitest run"))


@pytest.mark.browser
def test_playwright_starts_the_emulator_and_each_worker_has_a_world(run: Run) -> None:
    printed = run(f"{shown('npx playwright test')} --workers 2", RESTED_EMULATOR_PORT=str(free_port()))
    assert "2 passed" in printed
    assert {"playwright-0", "playwright-1"} == set(re.findall(r"\[WebServer\] .* world '(\S+)' begins", printed))


@pytest.mark.browser
def test_the_emulator_starts_playwright(run: Run) -> None:
    command = "python rested_emulator.py --memory -- npx playwright test"
    # One worker, so that the second test finds what the first one has stored, unless the checkpoint is restored.
    printed = run(f"{shown(f'RESTED_EMULATOR_STATIC=app {command}')} --workers 1")
    assert "2 passed" in printed
    assert "[WebServer]" not in printed


@pytest.mark.browser
def test_node(run: Run) -> None:
    tests = "node --test --test-timeout 20000 node/notes.test.js"
    assert "pass 2\n" in run(shown(f"python rested_emulator.py --memory --port 0 -- {tests}"))


@pytest.mark.browser
@pytest.mark.parametrize("workers", [0, 2])
def test_pytest(run: Run, workers: int) -> None:
    assert "2 passed" in run(f"{shown('python -m pytest pytest')} -n {workers}")


def test_the_github_job_is_one() -> None:
    assert WORKFLOW.keys() == {"name", "on", "permissions", "jobs"}
    assert all(("uses" in step) != ("run" in step) for step in STEPS)
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)


@pytest.mark.browser
def test_the_github_job_does_its_steps(run: Run) -> None:
    assert TESTING[0] == "npx vitest run"  # which a test of its own has run
    for command in TESTING[1:]:
        run(command)
    assert "The suite met" in run('cat "$GITHUB_STEP_SUMMARY"')


def shown(command: str) -> str:
    """A command that stands in the README, in a block of its own."""
    assert f"```sh\n{command}\n```" in SECTION
    return command
