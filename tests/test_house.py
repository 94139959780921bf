"""The rules that keep the file a house to live in, held by reading its syntax tree.

The file is a column of sections, each using only what stands above it; the upper part is synchronous and
knows neither Tornado nor a clock of its own; a verb has all its doors; nothing in the module is mutable.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import pytest

import rested_emulator
from rested_emulator import CONTROL_ROUTES, Json, RestedEmulator, World, camel, read_arguments
from tests.conftest import ROOT, lacking

SECTIONS = (
    "Vocabulary",
    "Errors",
    "Model",
    "Clock",
    "Store",
    "Access",
    "Accounts",
    "Uploads",
    "Live",
    "Faults",
    "Evidence",
    "World",
    "Worlds",
    "HTTP",
    "WebSocket",
    "Control",
    "Options",
    "Start",
    "Server",
    "Python",
    "Command line",
)
UPPER = SECTIONS[: SECTIONS.index("HTTP")]
SOURCE = (ROOT / "rested_emulator.py").read_text()


@cache
def marks() -> tuple[tuple[str, int], ...]:
    """The sections as the file has them, with the line of each."""
    lines = SOURCE.splitlines()
    found = ((re.match(r"# - (.+?) -+$", line), number) for number, line in enumerate(lines, 1))
    return tuple((match[1], number) for match, number in found if match)


def section_of(line: int) -> str | None:
    """The section a line stands in; None for the imports."""
    return next((name for name, start in reversed(marks()) if start <= line), None)


def statements() -> Iterator[tuple[str, ast.stmt]]:
    """Every statement of the module below the imports, with its section."""
    for statement in ast.parse(SOURCE).body:
        section = section_of(statement.lineno)
        if section:
            yield section, statement


def defined(statement: ast.stmt) -> set[str]:
    """The names that a statement gives to the module."""
    match statement:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {statement.name}
        case ast.Assign():
            return {name for target in statement.targets for name in used(target)}
        case ast.AnnAssign():
            return used(statement.target)
    return set()


def used(tree: ast.AST) -> set[str]:
    """All names in a piece of the tree, annotations included."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def named(statement: ast.stmt) -> set[str]:
    """The names a statement takes from outside: its own variables and arguments left out."""
    own = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
    own |= {node.name for node in ast.walk(statement) if isinstance(node, ast.FunctionDef)}
    return used(statement) - own


def imported(*modules: str) -> set[str]:
    """The names that the file imports from these packages, and the packages' own."""
    names = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in modules:
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name in modules}
    return names


def users(names: set[str]) -> dict[str, set[str]]:
    """Which sections use any of the names, and which ones."""
    found: dict[str, set[str]] = {}
    for section, statement in statements():
        if used(statement) & names:
            found.setdefault(section, set()).update(used(statement) & names)
    return found


def test_the_sections_stand_in_their_order() -> None:
    assert tuple(name for name, _ in marks()) == SECTIONS


def test_the_map_in_the_docstring_names_the_sections() -> None:
    mapped = re.findall(r"^    ([A-Z][A-Za-z, ]*?) {2,}\S", rested_emulator.__doc__ or "", re.MULTILINE)
    assert tuple(mapped) == SECTIONS


def test_a_section_names_only_what_stands_above() -> None:
    home = {name: section for section, statement in statements() for name in defined(statement)}
    below = [
        f"{section} (line {statement.lineno}) names {name} of {home[name]}"
        for section, statement in statements()
        for name in named(statement)
        if name in home and SECTIONS.index(home[name]) > SECTIONS.index(section)
    ]
    assert below == []


def test_the_upper_sections_are_synchronous_and_do_not_name_tornado() -> None:
    assert not users(imported("tornado", "asyncio", "threading", "socket")).keys() & set(UPPER)
    asynchronous = [
        node.lineno
        for section, statement in statements()
        if section in UPPER
        for node in ast.walk(statement)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    assert asynchronous == []


@pytest.mark.parametrize(("package", "section"), [("tinydb", "Store"), ("time", "Clock"), ("argparse", "Command line")])
def test_one_section_alone_uses_a_package(package: str, section: str) -> None:
    assert set(users(imported(package))) == {section}


def test_nobody_reads_a_clock_past_the_clock() -> None:
    readers = [
        (section, node.attr)
        for section, statement in statements()
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and node.attr in ("utcnow", "today", "monotonic", "perf_counter")
    ]
    assert readers == []
    assert "datetime.now" not in SOURCE


def test_only_the_command_line_prints() -> None:
    assert set(users({"print"})) == {"Command line"}


def test_nothing_in_the_module_is_mutable() -> None:
    mutable = ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp
    makers = {"dict", "list", "set", "defaultdict", "deque", "cache", "lru_cache"}

    def scopes() -> Iterator[list[ast.stmt]]:
        yield ast.parse(SOURCE).body
        yield from (node.body for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.ClassDef))

    shared = [
        ast.unparse(statement)
        for scope in scopes()
        for statement in scope
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
        if isinstance(statement.value, mutable)
        or (isinstance(statement.value, ast.Call) and used(statement.value.func) & makers)
    ]
    assert shared == []
    assert not users({"cache", "lru_cache", "global"})


def test_the_file_parses_on_a_python_that_is_too_old() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))  # there it can say what is wanted, instead of a SyntaxError


OLD_PYTHON = "import sys; sys.version_info = (3, 9, 18); sys.version = '3.9.18 (main)'; "
AS_SCRIPT = f"import runpy; runpy.run_path({str(ROOT / 'rested_emulator.py')!r}, run_name='__main__')"
AS_MODULE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import rested_emulator"


@pytest.mark.parametrize(
    ("switches", "before", "wanted"),
    [
        ([], OLD_PYTHON, "Python 3.11 or newer, and this is 3.9.18: python3.11 "),
        (["-S"], "", f"packages that are missing (No module named 'tinydb'): {sys.executable} -m pip install "),
    ],
    ids=["an old Python", "no packages"],
)
def test_what_is_lacking_is_one_line_that_says_what_to_do(switches: list[str], before: str, wanted: str) -> None:
    script, module = (
        subprocess.run([sys.executable, *switches, "-c", before + code], capture_output=True, text=True, timeout=20)
        for code in (AS_SCRIPT, AS_MODULE)
    )
    assert (script.returncode, script.stdout, script.stderr.count("\n")) == (2, "", 1)
    assert script.stderr.startswith(f"rested-emulator takes {wanted}")
    assert module.stderr.splitlines()[-1] == f"ImportError: {script.stderr.strip()}"


def test_the_command_that_brings_the_packages_is_that_of_the_project() -> None:
    [wanted] = re.findall(r"WANTED = '(.+)'", SOURCE)
    [dependencies] = re.findall(r"^dependencies = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert wanted.split() == dependencies.split(", ")


def test_a_test_is_skipped_for_what_the_system_lacks_and_for_nothing_else() -> None:
    def error_of(task: Callable[[], object]) -> Exception:
        try:
            raise AssertionError(f"no error, but {task()}")
        except (AttributeError, OSError, ValueError) as error:
            return error

    assert lacking(error_of(lambda: getattr(os, "open_the_door"))) == "os.open_the_door"
    assert lacking(error_of(lambda: getattr(re, "open_the_door"))) is None
    assert lacking(error_of(lambda: rested_emulator.Refusal.open_the_door)) is None  # type: ignore[attr-defined]
    assert lacking(error_of((ROOT / "nothing").read_text)) is None
    assert lacking(error_of(lambda: int("x"))) is None


Verb = Callable[..., object]
EVERYWHERE = {verb.__name__: verb for routes in CONTROL_ROUTES.values() for _, _, verb in routes}
del EVERYWHERE["health"]


def owners_verbs() -> set[str]:
    """What does something for the owner, or tells something: what answers with JSON."""
    answers = ("dict[str, Json]", "list[dict[str, Json]]", "list[Json]")
    return {
        name
        for kind in CONTROL_ROUTES
        for name, verb in vars(kind).items()
        if inspect.isfunction(verb) and not name.startswith("_") and name != "health"
        if inspect.signature(verb).return_annotation in answers
    }


def test_every_verb_has_its_doors() -> None:
    verbs = owners_verbs() | {"sign_in"}  # which returns a text in Python
    assert verbs == set(EVERYWHERE)
    assert all(callable(getattr(RestedEmulator, verb, None)) for verb in verbs)
    assert all(callable(getattr(World, verb, None)) for verb in verbs - {"fork", "drop"})


@pytest.mark.parametrize("verb", EVERYWHERE)
def test_a_verb_takes_the_same_arguments_at_every_door(verb: str) -> None:
    wanted = list(inspect.signature(EVERYWHERE[verb]).parameters.values())[1:]
    offered = list(inspect.signature(getattr(RestedEmulator, verb)).parameters.values())[1:]
    assert offered == wanted


def test_control_understands_every_kind_of_argument() -> None:
    examples: dict[str, Json] = {
        "str": "notes/open",
        "bool": True,
        "float": 1.5,
        "int": 1000,
        "Json": [None],
        "Sequence[str]": ["http://localhost"],
        "Mapping[str, str]": {"welcome": "<p>{{email}}</p>"},
        "Mapping[str, Json]": {"status": 200},
    }
    for verb in EVERYWHERE.values():
        parameters = list(inspect.signature(verb).parameters.values())[1:]
        given: Json = {camel(item.name): examples[item.annotation.removesuffix(" | None")] for item in parameters}
        assert set(read_arguments(verb, given)) == {item.name for item in parameters}


def test_every_file_is_opened_for_bytes_in_one_place() -> None:
    calls = [line.strip() for line in SOURCE.splitlines() if "os.open(" in line]
    assert calls == ['return os.open(path, flags | getattr(os, "O_BINARY", 0), mode)']
