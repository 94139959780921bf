"""The README: its commands and snippets run, and its tables are those of the program."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from rested_emulator import (
    CONTROL_ROUTES,
    FAULT_KINDS,
    Options,
    RestedEmulator,
    Server,
    __version__,
    banner,
    build_parser,
    camel,
    read_command_line,
)
from tests.conftest import GARDEN, ROOT, need
from tests.wire import call

RECIPES = ROOT / "tests" / "recipes"

README = (ROOT / "README.md").read_text()
GUIDE = re.sub(r"^## Recipes\n.*?(?=^## )", "", README, flags=re.MULTILINE | re.DOTALL)  # test_recipes.py has the rest


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order, without those of the recipes."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def option_table() -> str:
    """The options as a table, made from the parser; paste it between the marks when a test asks for it."""
    rows = ["| option | meaning |", "|---|---|"]
    for action in build_parser()._actions:
        name = ", ".join(action.option_strings) or str(action.metavar)
        spelled = f"{name} {action.metavar}" if action.option_strings and action.metavar else name
        rows.append(f"| `{spelled}` | {action.help} |")
    return "\n".join(rows)


def test_the_first_command_comes_early_and_installs_and_starts() -> None:
    lines = README.splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("python3 -m venv"))
    assert first <= 12
    assert lines[first - 1].endswith(".venv/bin/python rested_emulator.py")


def test_the_option_table_is_the_parsers() -> None:
    shown = README.split("<!-- options -->\n")[1].split("\n<!-- /options -->")[0]
    assert shown == option_table()


def test_the_table_of_control_verbs_has_them_all() -> None:
    section = README.split("## The control interface")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(?:GET |DELETE )?([a-z-]+)` \|", section, re.MULTILINE)) == {
        name for routes in CONTROL_ROUTES.values() for _, name, _ in routes
    }


def test_the_table_of_faults_has_every_kind_with_what_it_takes() -> None:
    section = README.split("### Faults")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)` \|([^|]*)\|", section, re.MULTILINE)
    takes = {kind: set(re.findall(r"`([a-z]+)`", text)) for kind, text in rows}
    assert list(takes) == list(FAULT_KINDS)
    assert all(set(kind.arguments) <= takes[name] for name, kind in FAULT_KINDS.items())


def test_the_version_is_the_programs() -> None:
    own = README.split("## How fast")[0]  # where others are named with theirs
    assert set(re.findall(r"(?<![\d.])\d+\.\d+\.\d+(?![\d.])", own)) == {__version__}


def test_the_banner_is_the_programs() -> None:
    server = Server(Options.of(memory=True))
    server.port = 7378
    shown = [line for line in blocks("text")[0].splitlines() if "Data" not in line]
    assert shown == [line for line in banner(server).splitlines() if "Data" not in line][: len(shown)]


def test_the_workflow_runs_the_suite_on_every_system_with_every_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tests = workflow["jobs"]["tests"]
    matrix = tests["strategy"]["matrix"]
    assert {name.removesuffix("-latest") for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert any("pytest" in step.get("run", "") for step in tests["steps"])


# The one with TinyDB is run in test_store.py.
@pytest.mark.parametrize("snippet", [block for block in blocks("python") if "TinyDB" not in block])
def test_a_python_snippet_runs(snippet: str) -> None:
    exec(compile(snippet, "README.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("json"))
def test_a_json_snippet_is_json(text: str) -> None:
    json.loads(text)


def test_the_error_shown_is_the_one_that_is_answered() -> None:
    [text] = [block for block in blocks("json") if '"code": 401' in block]
    with RestedEmulator() as emulator:
        assert call(emulator.url("secure-endpoint")).json == json.loads(text)


def test_the_shortest_data_file_is_one(tmp_path: Path) -> None:
    [text] = [block for block in blocks("json") if "notes/open" in block]
    (tmp_path / "short.json").write_text(text)
    with RestedEmulator(data=tmp_path / "short.json") as emulator:
        assert [record["data"] for record in emulator.records("notes/open")] == [{"text": "hello"}]


@pytest.mark.parametrize("command", [block for block in blocks("sh") if block.startswith("curl")])
def test_a_curl_command_works(command: str, tmp_path: Path) -> None:
    [bash, _] = need("bash", "curl")
    (tmp_path / "photo.jpg").write_bytes(b"a picture")
    with RestedEmulator(data=GARDEN if "/garden/" in command else None) as emulator:
        here = command.replace("localhost:7378", str(emulator.facts["host"]))
        done = subprocess.run([bash, "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True)
    head, _, body = done.stdout.rpartition("\n\n")
    assert "code" not in json.loads(body)
    assert not head or "Authorization: Bearer " in head


COMMAND = re.compile(r"\.venv/bin/(?:python rested_emulator\.py|rested-emulator) (.*)")


@pytest.mark.parametrize("command", [found[1] for block in blocks("sh") for found in COMMAND.finditer(block)])
def test_a_command_line_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options, _ = read_command_line(command.split(), {})
    assert isinstance(options, Options)
    Server(Options.of(**{**vars(options), "memory": True}))


def test_the_gardeners_passwords_are_the_printed_ones() -> None:
    users = json.loads(GARDEN.read_text())["garden/gardeners"].values()
    for user in users:
        assert f"`{user['data']['username']}` (password `{user['data']['password']}`)" in README


def test_every_promise_names_its_tests() -> None:
    section = README.partition("## What it promises\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    assert [row for row in rows if "`test_" not in row] == []


@pytest.mark.parametrize("name", ["README.md", "tests/test_disk.py", "tests/test_many_sockets.py"])
def test_a_table_names_tests_that_are_there_and_all_of_its_file(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"\b(test_\w+\.py)::(test_\w+)", text))
    assert len(named) >= 10
    files = {file: (ROOT / "tests" / file).read_text() for file, _ in named}
    assert [f"{file}::{test}" for file, test in named if f"\ndef {test}(" not in files[file]] == []
    own = re.findall(r"^def (test_\w+)", text, re.MULTILINE) if name.endswith(".py") else []
    assert {(Path(name).name, test) for test in own} <= named


# The recipes' own page


def test_the_types_of_world_js_are_those_of_the_verbs() -> None:
    world = (RECIPES / "world.js").read_text()
    types = world.split("@typedef {{\n *   ")[1].split("\n * }} Verbs")[0].replace("\n *  ", "")
    found = {
        name: set(re.findall(r"(\w+\??):", members))
        for name, members in re.findall(r'"([\w-]+)": \{(.*?)\}[,;]?', types)
    }
    posts = {name: verb for routes in CONTROL_ROUTES.values() for method, name, verb in routes if method == "POST"}
    assert found == {
        name: {
            camel(item.name.rstrip("_")) + ("" if item.default is item.empty else "?")
            for item in inspect.signature(verb).parameters.values()
            if item.name != "self"
        }
        for name, verb in posts.items()
    }
    reports = {name for routes in CONTROL_ROUTES.values() for method, name, _ in routes if method == "GET"} - {"health"}
    assert set(re.findall(r'"(\w+)"', world.split("} Report")[0].split("@typedef {")[-1])) == reports
    assert set(re.findall(r'"(\w+)"', world.split("} Kind")[0].split("@typedef {")[-1])) == set(FAULT_KINDS)


def test_the_recipe_for_data_of_ones_own_starts_with_it() -> None:
    [command] = re.findall(r"^python -m rested_emulator --seed .*$", (RECIPES / "README.md").read_text(), re.MULTILINE)
    options, _ = read_command_line(command.split()[3:], {})
    assert options.seed == "seed.json"
