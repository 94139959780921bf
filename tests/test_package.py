"""The package: a wheel and an sdist install, run with everything they need, and show their types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from rested_emulator import __version__
from tests.conftest import ROOT
from tests.wire import call

CONSOLE = ROOT / "sample_data" / "console"


def run(*command: str, cwd: Path) -> str:
    """What a command prints; it ends with 0."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, folder: Path) -> Path:
    """Build a wheel or an sdist, as pip has it done."""
    code = f"from hatchling.build import build_{kind}; print(build_{kind}({str(folder)!r}))"
    return folder / run(sys.executable, "-c", code, cwd=ROOT).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


def pip(*arguments: str, cwd: Path) -> None:
    """Let pip do something without network."""
    pytest.importorskip("pip", reason="there is no pip here to install with")
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-index", "--no-deps", cwd=cwd)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment of its own, in which the wheel is installed."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip()
    # What it needs is that of the tests; later on the path, so it does not stand in for it.
    (Path(packages) / "needs.pth").write_text(sysconfig.get_path("purelib"))
    pip("--python", python, "install", "--ignore-installed", str(wheel), cwd=place)
    return programs


@contextmanager
def serving(*command: str, cwd: Path) -> Iterator[str]:
    """Run an emulator; its address."""
    process = subprocess.Popen(
        [*command, "--memory", "--port", "0", "--json"],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate(timeout=10)[1]
        yield f"http://{json.loads(line)['host']}"
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_the_wheel_holds_the_module_its_types_and_the_console_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"rested_emulator-{__version__}-py3-none-any.whl"
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in ("rested_emulator.py", "rested_emulator-stubs/__init__.pyi"):
            assert archive.read(name) == (ROOT / "rested_emulator.py").read_bytes()
    console = {f"rested_emulator_console/{path.name}" for path in CONSOLE.iterdir()}
    assert names == console | {"rested_emulator.py", "rested_emulator-stubs/__init__.pyi"}


def test_the_sdist_holds_what_the_repository_does(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("rested_emulator.py", "pyproject.toml", "README.md", "tests/conftest.py", "sample_data/garden.json"):
        assert name in names
    assert not {name for name in names if "__pycache__" in name or "node_modules" in name or name.startswith(".venv")}


def test_pip_builds_the_same_wheel_of_the_sdist(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(sdist), cwd=tmp_path)
    with ZipFile(wheel) as ours, ZipFile(tmp_path / wheel.name) as other:
        assert {name: other.read(name) for name in other.namelist()} == {
            name: ours.read(name) for name in ours.namelist()
        }


@pytest.mark.parametrize("command", [["rested-emulator"], ["python", "-m", "rested_emulator"]], ids=" ".join)
def test_what_is_installed_says_its_version_and_serves(installed: Path, tmp_path: Path, command: list[str]) -> None:
    program = [str(installed / command[0]), *command[1:]]
    assert run(*program, "--version", cwd=tmp_path) == f"rested-emulator {__version__}\n"
    with serving(*program, cwd=tmp_path) as address:
        url = f"{address}/api/1/ce/examples/unsecure-endpoint?key=d59eb2859c284168ac48aef65046d5dd"
        assert call(url, "POST", {"hello": "world"}).json["data"] == {"hello": "world"}
        for path in CONSOLE.iterdir():
            assert call(f"{address}/{path.name}").body == path.read_bytes()


# Where a type was not seen, the last two comments would ignore nothing, which strict mypy tells too.
USE = """
from typing import assert_type

from rested_emulator import Options, RestedEmulator

with RestedEmulator(secure=["my-app/notes"]) as emulator:
    assert_type(emulator, RestedEmulator)
    assert_type(emulator.url("my-app/notes"), str)
    assert_type(emulator.options, Options)
    assert_type(emulator.options.token_ttl, float | None)
    emulator.advance("soon")  # type: ignore[arg-type]
    emulator.no_such_verb()  # type: ignore[attr-defined]
"""


def test_a_strict_type_checker_sees_the_types_of_what_is_installed(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=")
    printed = run(*mypy, "--python-executable", str(installed / "python"), "use.py", cwd=tmp_path)
    assert printed == "Success: no issues found in 1 source file\n"
