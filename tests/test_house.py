"""The rules that keep the file a house to live in, held by reading its syntax tree.

The file is a column of sections, each using only what stands above it; the upper part is synchronous and
knows neither Tornado nor a clock of its own; a verb has all its doors; nothing in the module is mutable.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest

import rested_emulator
from rested_emulator import CONTROL_ROUTES, Backend, Json, RestedEmulator, Watcher, World, Worlds, camel, read_arguments
from tests.conftest import ROOT

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
    "Backend",
    "Worlds",
    "HTTP",
    "WebSocket",
    "Control",
    "Options, Server",
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


Verb = Callable[..., object]
EVERYWHERE = {verb.__name__: verb for _, _, verb in CONTROL_ROUTES if verb.__name__ != "health"}


def owners_verbs() -> set[str]:
    """What does something for the owner, or tells something: what answers with JSON."""
    owners = {**vars(Backend), **vars(Worlds), **vars(Watcher)}
    answers = ("dict[str, Json]", "list[dict[str, Json]]", "list[Json]")
    return {
        name
        for name, verb in owners.items()
        if inspect.isfunction(verb) and not name.startswith("_")
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
