"""The rules that keep the file a house to live in, held by reading its syntax tree.

The file is a column of sections, each using only what stands above it, by name or by a function that it is
handed when it is made; the upper part is synchronous and knows neither Tornado nor a clock of its own; a verb
has all its doors; nothing in the module is mutable; no class and no function outgrows its reader. A run with
``-s`` prints what was measured.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import rested_emulator
from rested_emulator import CONTROL_ROUTES, RestedEmulator, World
from tests.conftest import ROOT, lacking
from tests.wire import call, camel

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
    "Lane",
    "Control",
    "Options",
    "Start",
    "Server",
    "Python",
    "Command line",
)
UPPER = SECTIONS[: SECTIONS.index("HTTP")]
SOURCE = (ROOT / "rested_emulator.py").read_text()
TREE = ast.parse(SOURCE)
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
BLANK = {getattr(tokenize, name) for name in ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER")}


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
    for statement in TREE.body:
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
    for node in ast.walk(TREE):
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
        yield TREE.body
        yield from (node.body for node in ast.walk(TREE) if isinstance(node, ast.ClassDef))

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


# Who calls whom is decided where things are made

# Attributes that are set to a function from outside, each with its reason. Two at most.
HOOKS = {"stream.set_nodelay": "Tornado calls it twice for each request, and has no option that says not to"}


def is_type_of_functions(annotation: ast.expr | None, aliases: set[str]) -> bool:
    """Whether what is annotated so is a function, or perhaps none."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return is_type_of_functions(left, aliases) or is_type_of_functions(right, aliases)
        case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name):
            return name == "Callable" or name in aliases
    return False


def alternatives(value: ast.expr) -> Iterator[ast.expr]:
    """What ``a or b`` and ``a if c else b`` may be."""
    if isinstance(value, ast.BoolOp | ast.IfExp):
        for part in ast.iter_child_nodes(value):
            if isinstance(part, ast.expr):
                yield from alternatives(part)
    else:
        yield value


def assigned(node: ast.AST) -> list[tuple[ast.Attribute, ast.expr]]:
    """The attributes that a statement sets, with their values."""
    pairs: list[tuple[ast.expr, ast.expr]] = []
    match node:
        case ast.Assign(targets, value):
            pairs = [(target, value) for target in targets]
        case ast.AnnAssign(attribute, _, ast.expr() as value):
            pairs = [(attribute, value)]
        case ast.Call(func=ast.Name(id="setattr"), args=[owner, ast.Constant(value=str(name)), value]):
            pairs = [(ast.Attribute(owner, name), value)]
    for target, value in pairs:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs += zip(target.elts, value.elts, strict=True)
    return [(target, value) for target, value in pairs if isinstance(target, ast.Attribute)]


def hooks(source: str) -> list[str]:
    """The attributes by which one part has another call it, past its constructor.

    Of ``self`` that is one which a method other than ``__init__`` sets to a function that it was handed; of
    anything else, one that is set to any function: by name, bound, partial or lambda.
    """
    tree = ast.parse(source)
    aliases = {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if is_type_of_functions(node.value, set())
    }
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    values = {
        name for node in classes for each in node.body if isinstance(each, ast.AnnAssign) for name in defined(each)
    }
    methods = {each for node in classes for each in node.body if isinstance(each, FUNCTIONS)}
    names = {node.name for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and node not in methods}
    bound = {node.name for node in methods if not node.decorator_list} - values
    found = []

    def is_function(value: ast.expr, handed: set[str]) -> bool:
        match value:
            case ast.Lambda() | ast.Call(func=ast.Name(id="partial")):
                return True
            case ast.Name(id=name):
                return name in handed | names
            case ast.Attribute(attr=name):
                return name in bound
        return False

    def look(node: ast.AST, handed: set[str], is_constructor: bool) -> None:
        if isinstance(node, FUNCTIONS):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            handed = handed | {item.arg for item in arguments if is_type_of_functions(item.annotation, aliases)}
            is_constructor = is_constructor or node.name == "__init__"
        for target, value in assigned(node):
            if ast.unparse(target.value) != "self":
                is_hook = any(is_function(each, handed) for each in alternatives(value))
            else:
                is_hook = not is_constructor and any(ast.unparse(each) in handed for each in alternatives(value))
            if is_hook:
                found.append(ast.unparse(target))
        for child in ast.iter_child_nodes(node):
            look(child, handed, is_constructor)

    look(tree, set(), False)
    return found


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("hub.on_end = lambda *_: None", ["hub.on_end"]),
        ("self.hub.on_end = self.tell", ["self.hub.on_end"]),
        ("hub.on_end, hub.size = tell, 1", ["hub.on_end"]),
        ("hub.on_end = partial(tell, 1)", ["hub.on_end"]),
        ("hub.on_end = action", ["hub.on_end"]),
        ("hub.on_end = action if action else None", ["hub.on_end"]),
        ("setattr(hub, 'on_end', tell)", ["hub.on_end"]),
        ("self.on_end = action", ["self.on_end"]),
        ("self.on_end = check", ["self.on_end"]),
        ("self.on_end = action or None", ["self.on_end"]),
        ("self.on_end = self.tell", []),
        ("self.size = hub.size = len(seats)", []),
        ("hub.seats = action()", []),
    ],
)
def test_a_hook_is_found(statement: str, wanted: list[str]) -> None:
    source = f"""
Check: TypeAlias = Callable[[], None]
def tell(): ...
class Part:
    def __init__(self, action: Callable[[], None]):
        self.action = action
    def begin(self, hub: Hub, seats: list[Seat], action: Callable[[], None] | None, check: Check):
        {statement}
    def tell(self): ...
"""
    assert hooks(source) == wanted


def test_nobody_is_called_through_a_hook() -> None:
    found = hooks(SOURCE)
    print(f"\nhooks: {len(found)} ({', '.join(found)})")
    assert len(HOOKS) <= 2
    assert sorted(found) == sorted(HOOKS)


# What a reader has to take in

BOUNDS: dict[str, tuple[float, float]] = {  # a little above what it is, so that it cannot grow unseen
    "lines": (0, 11_430),
    "lines of code": (0, 7_950),
    "classes": (0, 94),
    "lines of the largest class": (0, 350),
    "methods of the largest class": (0, 40),
    "functions over 40 lines": (0, 1),
    "comment lines, in percent": (3.0, 100),
}


@cache
def measured() -> dict[str, tuple[float, str]]:
    """How large it is, and where that is; section marks are no comments, docstrings no code."""
    nodes = list(ast.walk(TREE))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    long = [node.name for node in functions if length(node) > 40]
    sizes = {node.name: length(node) for node in classes}
    methods = {node.name: sum(isinstance(each, FUNCTIONS) for each in node.body) for node in classes}
    tokens = list(tokenize.generate_tokens(io.StringIO(SOURCE).readline))
    comments = [token for token in tokens if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")]
    code = {line for token in tokens if token.type not in BLANK for line in range(token.start[0], token.end[0] + 1)}
    for node in (*classes, *functions, nodes[0]):
        if isinstance(node, ast.ClassDef | FUNCTIONS | ast.Module) and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = SOURCE.count("\n")
    return {
        "lines": (lines, ""),
        "lines of code": (len(code), ""),
        "classes": (len(classes), ""),
        "lines of the largest class": (max(sizes.values()), max(sizes, key=sizes.__getitem__)),
        "methods of the largest class": (max(methods.values()), max(methods, key=methods.__getitem__)),
        "functions over 40 lines": (len(long), ", ".join(long)),
        "comment lines, in percent": (round(100 * (len(comments) - len(marks())) / lines, 2), ""),
    }


# What the tests know of how it is built

# Those that speak to a port want nothing but what everybody has; what more they need has a meaning in tests/wire.py.
AT_THE_PORT = (
    "attacks", "browser", "console", "hardening", "http", "many_sockets", "recipes", "static", "tls", "uploads",
    "websocket",
)  # fmt: skip
MOST_NAMES = 39  # beyond __all__, in all of tests/*.py


def names_of(source: str) -> set[str]:
    """The module's names that a test imports, looks up in it, or patches, here or in a program that it runs.

    The module's own __names__ are left aside.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module="rested_emulator"):
                names |= {alias.name for alias in node.names}
            case ast.Attribute(value=ast.Name(id="rested_emulator"), attr=name):
                names.add(name)
            case ast.Call(args=[ast.Name(id="rested_emulator"), ast.Constant(value=str(name)), *_]):
                names.add(name)
            case ast.Constant(value=str(text)) if re.fullmatch(r"rested_emulator\.[A-Za-z_]\w*", text):
                names.add(text.partition(".")[2])
            case ast.Constant(value=str(text)) if "import" in text and "rested_emulator" in text:
                with suppress(SyntaxError):  # unless it is a program for another process
                    names |= names_of(text)
    return {name for name in names if not name.startswith("__")} - {"*", "py", "pyc", *rested_emulator.__all__}


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("from rested_emulator import Store, World", "Store"),
        ("rested_emulator.Store.of('')", "Store"),
        ("monkeypatch.setattr(rested_emulator, 'Store', None)", "Store"),
        ("getattr(rested_emulator, 'Store')", "Store"),
        ("monkeypatch.setattr('rested_emulator.Store', None)", "Store"),
        ("run('from rested_emulator import Store')", "Store"),
    ],
)
def test_a_name_that_a_test_uses_is_found(statement: str, name: str) -> None:
    assert names_of(statement) == {name}


def test_the_tests_name_what_it_holds_and_not_how_it_is_built() -> None:
    named = {path.stem.removeprefix("test_"): names_of(path.read_text()) for path in (ROOT / "tests").glob("*.py")}
    every = set().union(*named.values())
    print(f"\nnames of the module that tests use beyond __all__: {len(every)}; at most {MOST_NAMES}")
    assert {name: named[name] for name in AT_THE_PORT if named[name]} == {}
    assert len(every) <= MOST_NAMES, sorted(every)


def test_what_a_page_is_waited_for_is_a_function() -> None:
    # An expression is evaluated anew by eval() at each look, which the content policy of our pages forbids from the
    # second look on: such a wait fails where the first look comes too early.
    text = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py") if path.name != "test_house.py")
    waited = re.findall(r"wait_for_function\(\s*(.{0,40})", text)
    assert waited
    assert [what for what in waited if "=>" not in what and not re.match("[A-Z_]+,", what)] == []


def length(node: ast.stmt) -> int:
    """The lines of a class or function, its decorators aside."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("figure", BOUNDS)
def test_a_figure_keeps_within_its_bounds(figure: str) -> None:
    value, where = measured()[figure]
    least, most = BOUNDS[figure]
    print(f"\n{figure}: {value:,}{where and f' ({where})'}; {f'at least {least}' if least else f'at most {most:,}'}")
    assert least <= value <= most


def test_the_file_parses_on_a_python_that_is_too_old() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))  # there it can say what is wanted, instead of a SyntaxError


def test_the_first_answer_waits_for_no_import_that_it_does_not_need(tmp_path: Path) -> None:
    """As a program starts without a command line, with a plain request. It is killed: an end in order imports more."""
    log = tmp_path / "imports"
    command = [sys.executable, "-X", "importtime", "-m", "rested_emulator"]
    options = {f"RESTED_EMULATOR_{name}": value for name, value in (("MEMORY", "1"), ("PORT", "0"), ("JSON", "1"))}
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | options, stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        assert call(f"{facts['url']}/examples/unsecure-endpoint?key={facts['key']}").status == 200
    finally:
        process.kill()
        process.communicate(timeout=10)
    found = {
        line.rpartition("|")[2].strip() for line in log.read_text().splitlines() if line.startswith("import time:")
    }
    assert {"asyncio", "tinydb", "tornado"} <= found
    late = {"argparse", "email", "html", "http.client", "http.cookies", "random", "shlex", "unicodedata"}
    assert {name for name in found if name in late or name.startswith("tornado.")} == set()


OLD_PYTHON = "import sys; sys.version_info = (3, 9, 18); sys.version = '3.9.18 (main)'; "
AS_SCRIPT = f"import runpy; runpy.run_path({str(ROOT / 'rested_emulator.py')!r}, run_name='__main__')"
AS_MODULE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import rested_emulator"


@pytest.mark.parametrize(
    ("switches", "before", "wanted"),
    [
        ([], OLD_PYTHON, "Python 3.11 or newer, and this is 3.9.18: python3.11 "),
        (["-S"], "", f"packages that are missing (No module named 'tornado'): {sys.executable} -m pip install "),
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
    verbs = owners_verbs() | {"sign_in", "data"}  # a text in Python, and bytes that are JSON already
    assert verbs == set(EVERYWHERE)
    assert all(callable(getattr(RestedEmulator, verb, None)) for verb in verbs)
    assert all(callable(getattr(World, verb, None)) for verb in verbs - {"fork", "drop"})


@pytest.mark.parametrize("verb", EVERYWHERE)
def test_a_verb_takes_the_same_arguments_at_every_door(verb: str) -> None:
    wanted = list(inspect.signature(EVERYWHERE[verb]).parameters.values())[1:]
    offered = list(inspect.signature(getattr(RestedEmulator, verb)).parameters.values())[1:]
    assert offered == wanted


def test_control_understands_every_kind_of_argument(emulator: RestedEmulator) -> None:
    examples: dict[str, Any] = {
        "str": "notes/open",
        "bool": True,
        "float": 0.5,
        "int": 1000,
        "Json": [None],
        "Sequence[str]": ["http://localhost"],
        "Mapping[str, str]": {"welcome": "<p>{{email}}</p>"},
        "Mapping[str, Json]": {"notes/open": []},
    }
    for method, name, verb in (route for routes in CONTROL_ROUTES.values() for route in routes):
        parameters = list(inspect.signature(verb).parameters.values())[1:]
        given: Any = {camel(item.name): examples[item.annotation.removesuffix(" | None")] for item in parameters}
        url = f"{emulator.facts['controlUrl']}/{name}"
        reply = call(url, "POST", given) if method == "POST" else call(f"{url}?{urlencode(given)}", method)
        assert reply.status in (200, 400, 408), name
        assert not re.search("; it takes (true|an? )", reply.body.decode()), name


def test_every_file_is_opened_for_bytes_in_one_place() -> None:
    calls = [line.strip() for line in SOURCE.splitlines() if "os.open(" in line]
    assert calls == ['return os.open(path, flags | getattr(os, "O_BINARY", 0), mode)']
