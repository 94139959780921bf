"""The README and the reference: their commands and snippets run, and their tables are those of the program."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rested_emulator import (
    CONTROL_ROUTES,
    OptionError,
    Options,
    RestedEmulator,
    Server,
    __version__,
    banner,
    read_command_line,
)
from tests.conftest import GARDEN, ROOT, need, options_of
from tests.wire import OTHER_PAGE, bearer, call, camel, closing, open_socket

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

RECIPES = ROOT / "tests" / "recipes"
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "sample_data/REFERENCE.md")}
README, REFERENCE = PAGES.values()
BOTH = README + REFERENCE
LARGEST_README = 20_000  # bytes: what somebody reads from top to bottom
WIDEST = 160
MINE = {"endpoint": ["my-app/cars"], "auth": ["my-app/users"], "secure": ["my-app/orders"]}  # as the README starts it


def blocks(language: str, text: str = BOTH) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(name: str, text: str = REFERENCE) -> str:
    """What stands below a heading of the second level."""
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without those of its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def code(cell: str) -> str:
    """The code that a cell is."""
    found = re.fullmatch("`([^`]*)`", cell)
    assert found, cell
    return found[1]


def option_table(text: str) -> str:
    """The help's options as a table, in its groups; paste it between the marks when a test asks for it."""
    text = re.sub(r"\n {10,}", "  ", text.partition("Examples:")[0])  # each option and what it means, in one line
    table = ["| option | meaning |", "|---|---|"]
    for title, lines in re.findall(r"^([\w ]+):\n((?:  .*\n)+)", text, re.MULTILINE):
        table.append(f"| **{title}** | |")
        for spelled, meaning in re.findall(r"^  (\S.*?) {2,}(.+)$", lines, re.MULTILINE):
            name = re.sub("^(-.) [A-Z]+,", r"\1,", spelled)  # argparse names what an option takes twice
            table.append(f"| `{name}` | {meaning} |")
    return "\n".join(table)


# How they are written


def test_the_first_command_comes_early_and_the_second_one_starts() -> None:
    lines = README.splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("python3 -m venv"))
    assert first <= 12
    assert lines[first] == ".venv/bin/rested-emulator"


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.encode()) <= LARGEST_README


@pytest.mark.parametrize("name", [*PAGES, "tests/recipes/README.md"])
def test_a_line_is_short_enough_to_be_read(name: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > WIDEST and not line.startswith("|")] == []


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings: small letters, hyphens for spaces, other signs left out."""
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("name", [*PAGES, "tests/recipes/README.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text())
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there.read_text()), link


# What the program has


def test_the_option_table_is_that_of_the_help(help_at: Callable[[int], str]) -> None:
    shown = REFERENCE.split("<!-- options -->\n")[1].split("\n<!-- /options -->")[0]
    assert shown == option_table(help_at(1000))


def test_the_table_of_variables_has_every_fact() -> None:
    named = [re.findall(r"`(\w+)`", cell) for row in rows(section("Start and end")) for cell in row[:2]]
    variables = [name for names in named for name in names if name.startswith("RESTED_")]
    with RestedEmulator() as emulator:
        facts = list(emulator.facts)
    assert sorted(variables) == sorted("RESTED_" + re.sub("([A-Z])", r"_\1", fact).upper() for fact in facts)
    assert sorted(facts) == sorted(name for names in named for name in names if name in facts)


def test_the_table_of_control_verbs_has_them_all() -> None:
    verbs = re.findall(r"^\| `(?:GET |DELETE )?([a-z-]+)` \|", section("The control interface"), re.MULTILINE)
    assert set(verbs) == {name for routes in CONTROL_ROUTES.values() for _, name, _ in routes}


def test_every_control_verb_is_the_method_that_the_reference_says() -> None:
    verbs = [(method, name) for routes in CONTROL_ROUTES.values() for method, name, _ in routes]
    prefix = {"DELETE": "clear_", "GET": "", "POST": ""}
    named = {prefix[method] + name.replace("-", "_") for method, name in verbs if (method, name) != ("POST", "faults")}
    assert {"fork", "drop"} < named  # these are a world's beginning and end
    methods = (named - {"fork", "drop", "health"}) | {"add_fault", "world"}
    assert [name for name in methods if not callable(getattr(RestedEmulator, name, None))] == []


def kinds_of_faults(emulator: RestedEmulator) -> dict[str, set[str]]:
    """The kinds that a refusal names, each with what it takes besides what all of them do."""

    def refusal(kind: str, **arguments: Any) -> str:
        with pytest.raises(OptionError) as raised:
            emulator.add_fault(kind, **arguments)
        return str(raised.value)

    strange = {"status": {"seconds": 1}, "refuse": {"seconds": 1}}  # which the kind does not take
    return {
        kind: set(refusal(kind, **strange.get(kind, {"status": 500})).rpartition("which takes ")[2].split(" and "))
        - {"nothing of its own"}
        for kind in refusal("no such kind").rpartition(" one of ")[2].split(", ")
    }


def test_the_table_of_faults_has_every_kind_with_what_it_takes(emulator: RestedEmulator) -> None:
    table = section("Faults").split("| kind |")[1]
    takes = {
        kind: set(re.findall(r"`([a-z]+)`", text)) for kind, text in re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.M)
    }
    kinds = kinds_of_faults(emulator)
    assert list(takes) == list(kinds)
    assert all(takes[kind] >= arguments for kind, arguments in kinds.items())
    world = (RECIPES / "world.js").read_text()
    assert set(re.findall(r'"(\w+)"', world.split("} Kind")[0].split("@typedef {")[-1])) == set(kinds)


def test_the_version_is_the_programs() -> None:
    own = README + REFERENCE.split("## How fast")[0]  # where others are named with theirs
    assert set(re.findall(r"(?<![\d.])\d+\.\d+\.\d+(?![\d.])", own)) - {"0.0.0"} == {__version__}


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


def test_the_gardeners_passwords_are_the_printed_ones() -> None:
    users = json.loads(GARDEN.read_text())["garden/gardeners"].values()
    prose = README.replace("\n", " ")
    for user in users:
        assert f"`{user['data']['username']}` (password `{user['data']['password']}`)" in prose


def test_every_promise_names_its_tests() -> None:
    promises = rows(section("What it promises"))
    assert len(promises) >= 10
    assert [promise for promise, tests in promises if "`test_" not in tests] == []


@pytest.mark.parametrize("name", ["sample_data/REFERENCE.md", "tests/test_disk.py", "tests/test_many_sockets.py"])
def test_a_table_names_tests_that_are_there_and_all_of_its_file(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"\b(test_\w+\.py)::(test_\w+)", text))
    assert len(named) >= 10
    files = {file: (ROOT / "tests" / file).read_text() for file, _ in named}
    assert [f"{file}::{test}" for file, test in named if f"\ndef {test}(" not in files[file]] == []
    own = re.findall(r"^def (test_\w+)", text, re.MULTILINE) if name.endswith(".py") else []
    assert {(Path(name).name, test) for test in own} <= named


# What is run


def test_no_snippet_is_of_a_kind_that_is_not_run() -> None:
    assert set(re.findall(r"^```(\w+)$", BOTH, re.MULTILINE)) == {
        "bat",
        "js",
        "json",
        "powershell",
        "python",
        "sh",
        "text",
    }
    starts = ("socket =", "const url", "// vite.config.js", "const orders", "import assert")
    assert [block.startswith(start) for block, start in zip(blocks("js"), starts, strict=True)] == [True] * len(starts)
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    known = r"curl |[A-Z]+=|\.venv/bin/|python3 -m venv \.venv|npm create |cd my-app$|npm install$|npm run dev$"
    assert [line for line in lines if not re.match(known, line)] == []


@pytest.mark.parametrize("text", blocks("json"))
def test_a_json_snippet_is_json(text: str) -> None:
    json.loads(text)


def test_the_error_shown_is_the_one_that_is_answered() -> None:
    [text] = [block for block in blocks("json") if '"code": 401' in block]
    with RestedEmulator(**MINE) as emulator:
        assert call(emulator.url("my-app/orders")).json == json.loads(text)


def test_the_shortest_data_file_is_one(tmp_path: Path) -> None:
    [text] = [block for block in blocks("json") if "notes/open" in block]
    (tmp_path / "short.json").write_text(text)
    with RestedEmulator(data=tmp_path / "short.json") as emulator:
        assert [record["data"] for record in emulator.records("notes/open")] == [{"text": "hello"}]


def in_shell(command: str, emulator: RestedEmulator, folder: Path) -> str:
    """Run a command of curl's against this emulator, and return what it prints."""
    [bash, _] = need("bash", "curl")
    here = command.replace("localhost:7378", str(emulator.facts["host"]))
    done = subprocess.run([bash, "-c", here], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


def test_windows_starts_with_the_same_commands() -> None:
    [there] = blocks("bat")
    here = there.replace(".venv\\Scripts\\", ".venv/bin/").replace("py -m venv", "python3 -m venv")
    assert here.splitlines() == blocks("sh")[0].replace(" && ", "\n").splitlines()


@pytest.mark.parametrize("block", blocks("powershell"))
def test_a_request_of_powershell_is_one(block: str) -> None:
    """PowerShell itself is not on every machine: its words are read here, and the request is sent."""
    for name, value in re.findall(r'^(\$\w+) = "(.*)"\n', block, re.MULTILINE):
        block = block.replace(name, value)
    sent = re.findall(
        r"^(?:Invoke-RestMethod|curl\.exe -X (\w+)) \"?(\S+?)\"?"
        r"(?:(?: `\n)? +-Method (\w+) -ContentType (\S+) -Body '(.*)')?$",
        block,
        re.MULTILINE,
    )
    assert len(sent) == len(re.findall(r"Invoke-RestMethod|curl\.exe", block))
    unique_id = ""
    with RestedEmulator(**MINE) as emulator:
        for curls, address, method, kind, body in sent:
            url = address.replace("localhost:7378", str(emulator.facts["host"])).replace("=ID", f"={unique_id}")
            headers = {"Content-Type": kind} if kind else {}
            reply = call(url, curls or method.upper() or "GET", body=body.encode() or None, headers=headers)
            assert reply.status == 200
            unique_id = (re.findall(r'"uniqueId":"(\w+)"', reply.body.decode()) or [unique_id])[-1]


@pytest.mark.parametrize("command", [block for block in blocks("sh") if block.startswith("curl ")])
def test_a_curl_command_works(command: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"a picture")
    with RestedEmulator(data=GARDEN if "/garden/" in command else None) as emulator:
        printed = in_shell(command, emulator, tmp_path)
    head, _, body = printed.rpartition("\n\n")
    assert "code" not in json.loads(body)
    assert not head or "Authorization: Bearer " in head


def test_the_commands_of_the_table_work_one_after_the_other(tmp_path: Path) -> None:
    [names] = [block for block in blocks("sh", README) if block.startswith("KEY=")]
    printed = []
    known = {"ID": "", "TOKEN": ""}
    with RestedEmulator(**MINE) as emulator:
        for _, command, _ in rows(section("Your endpoints", README)):
            given = re.sub("ID|TOKEN", lambda name: known[name[0]], code(command))
            printed.append(in_shell(names + given, emulator, tmp_path))
            for name, found in (("ID", r'"uniqueId":"(\w+)"'), ("TOKEN", r"Authorization: Bearer (\w+)")):
                known[name] = (re.findall(found, printed[-1]) or [known[name]])[-1]
        assert [record["data"] for record in emulator.records("my-app/orders")] == [{"car": 1}]
        assert emulator.records("my-app/cars") == emulator.listeners() == []
        assert emulator.status()["users"] == []
    assert [text for text in printed if '"code"' in text] == []
    assert [len(re.findall('"Beetle"', text)) for text in printed[:3]] == [1, 1, 1]
    assert '"data":{"name":"Golf","doors":5}' in printed[5]


def snippet(start: str) -> str:
    """The snippet of JavaScript in the README that begins so."""
    [found] = [block for block in blocks("js", README) if block.startswith(start)]
    return found


@contextmanager
def page_of(script: str, emulator: RestedEmulator, context: BrowserContext, folder: Path) -> Iterator[Page]:
    """A page on a port of its own that runs a script, in which this emulator stands for the one on port 7378."""
    (folder / "main.js").write_text(script.replace("localhost:7378", str(emulator.facts["host"])))
    (folder / "index.html").write_text('<div id="app"></div><script type="module" src="main.js"></script>')
    with RestedEmulator(static=folder) as pages:
        page = context.new_page()
        page.goto(f"http://{pages.facts['host']}/")
        yield page
        page.close()


@pytest.mark.browser
def test_the_fetches_of_the_table_work_one_after_the_other(context: BrowserContext, tmp_path: Path) -> None:
    steps = [code(fetches) for _, _, fetches in rows(section("Your endpoints", README))]
    script = snippet("const url") + ";\n".join([*steps, 'document.querySelector("#app").textContent = "done"'])
    with RestedEmulator(**MINE) as emulator, page_of(script, emulator, context, tmp_path) as page:
        page.get_by_text("done").wait_for()
        asked = [(request["method"], request["status"]) for request in emulator.requests()]
        assert [method for method, _ in asked if method != "OPTIONS"] == [
            *("POST", "GET", "GET", "PUT", "PUT", "DELETE", "POST", "POST", "POST", "POST")
        ]
        assert [status for method, status in asked if status not in (200, 204)] == []
        assert [record["data"] for record in emulator.records("my-app/orders")] == [{"car": 1}]


@pytest.mark.browser
def test_the_socket_to_paste_prints_the_message(context: BrowserContext, tmp_path: Path) -> None:
    tell = 'console.log = (text) => (document.querySelector("#app").textContent = text);'
    socket = f"let socket;\n{tell}\n{snippet('socket =')}"
    with RestedEmulator() as emulator, page_of(socket, emulator, context, tmp_path) as page:
        emulator.wait(messages={"type": "OPEN"})
        call(emulator.url("examples/unsecure-endpoint"), "POST", {"hello": "world"})
        page.get_by_text('"type":"POST"').wait_for()
        printed = page.locator("#app").text_content() or ""
    [shown] = [block for block in blocks("json", README) if '"POST"' in block]
    different = r'(?<=")(\w{32}|[\d-]+T[\d:.]+Z)(?=")'
    assert re.sub(different, "", printed) == re.sub(different, "", shown.strip())


@pytest.mark.browser
def test_the_app_logs_in_hears_changes_and_comes_back(context: BrowserContext, tmp_path: Path) -> None:
    script = snippet("const url") + snippet("const orders")
    with RestedEmulator(**MINE) as emulator:
        token = emulator.sign_in("my-app/users", "ada", "apricot")
        orders, shows = emulator.url("my-app/orders"), {"Authorization": f"Bearer {token}"}
        call(orders, "POST", {"car": 1}, headers=shows)
        with page_of(script, emulator, context, tmp_path) as page:
            page.get_by_text('[{"car":1}]', exact=True).wait_for()
            call(orders, "POST", {"car": 2}, headers=shows)
            page.get_by_text('[{"car":1},{"car":2}]', exact=True).wait_for()
            emulator.expire_tokens()
            page.get_by_text("offline 1000 Access token expired.", exact=True).wait_for()
            page.get_by_text('[{"car":1},{"car":2}]', exact=True).wait_for()
            emulator.clear_recoveries()
            emulator.add_fault("abort")
            page.get_by_text("offline 1006", exact=True).wait_for()
            page.get_by_text('[{"car":1},{"car":2}]', exact=True).wait_for()
            found: Any = emulator.wait(recoveries={"username": "ada"})["recoveries"]
            [shown] = [json.loads(block) for block in blocks("json", README) if '"attempts"' in block]
            assert [(list(each), each["token"], each["read"]) for each in found] == [(list(shown[0]), "same", True)]
            members = {name for cell, _ in rows(section("In a test suite")) for name in re.findall(r"`(\w+)`", cell)}
            assert members == set(shown[0])
            emulator.change_project(allowed_origins=["https://example.com"])
            page.get_by_text("offline 4000 Origin not allowed.", exact=True).wait_for()


def test_a_test_in_javascript_passes(tmp_path: Path) -> None:
    [node] = need("node")
    (tmp_path / "cars.test.mjs").write_text(snippet("import assert"))
    [command] = [line for block in blocks("sh", README) for line in block.splitlines() if "node --test" in line]
    options = command.split()[1:]
    options[options.index("node")] = node
    program = [sys.executable, str(ROOT / "rested_emulator.py"), *options]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 1\n" in done.stdout


PYTESTS = [block for block in blocks("python") if "def test_" in block]


def test_a_test_in_python_passes(tmp_path: Path) -> None:
    [text] = PYTESTS
    (tmp_path / "test_orders.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(ROOT)
    [command] = re.findall(r"^\.venv/bin/python (-m pytest .*)", README, re.MULTILINE)
    program = [sys.executable, *command.split(), "-p", "no:cacheprovider"]
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


# The one with TinyDB is run in test_store.py.
@pytest.mark.parametrize(
    "text", [block for block in blocks("python") if block not in PYTESTS and "TinyDB" not in block]
)
def test_a_python_snippet_runs(text: str) -> None:
    exec(compile(text, "REFERENCE.md", "exec"), {})


COMMAND = re.compile(r"^\.venv/bin/rested-emulator (.*)", re.MULTILINE)


@pytest.mark.parametrize("command", [found[1] for block in blocks("sh") for found in COMMAND.finditer(block)])
def test_a_command_line_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options, _ = read_command_line(command.split(), {})
    Server(Options.of(**{**vars(options), "memory": True}))


WRONGS = rows(section("Make things go wrong", README))


@pytest.mark.parametrize("row", WRONGS, ids=[row[0].replace(" ", "-") for row in WRONGS])
def test_what_goes_wrong_is_seen_as_the_table_says(row: list[str]) -> None:
    _, what, option, sees = row
    verb, arguments = code(what).split(" ", 1)
    given = json.loads(arguments)
    if option == "`--fault JSON`":
        assert options_of(["--fault", arguments]).fault
    elif option:
        assert options_of(code(option).split())
    if "seconds" in given:
        given["seconds"] = 0.01 if given["kind"] == "delay" else 10
    with RestedEmulator(**MINE) as emulator:
        name = "my-app/orders" if verb == "expire-tokens" else "my-app/cars"
        shows = {"Origin": OTHER_PAGE}
        if verb == "expire-tokens":
            shows |= bearer(emulator.sign_in("my-app/users", "ada"))
        with open_socket(emulator.ws_url(name), additional_headers=shows) as listener:
            assert call(f"{emulator.facts['controlUrl']}/{verb}", "POST", given).status == 200
            seen = set(answered(emulator, name, shows))
            if "sockets" in sees:
                seen |= set(map(str, closing(listener)))
        if "4000" in sees:
            with open_socket(emulator.ws_url(name), additional_headers=shows) as listener:
                seen |= set(map(str, closing(listener)))
        assert set(re.findall(r"\b\d{3,4}\b", sees)) <= seen
        assert set(re.findall("`([^`]+)`", sees)) - {"fetch"} <= seen
        if "stored all the same" in sees:
            assert len(emulator.records(name)) == 1
        assert all(fault["hits"] for fault in emulator.faults())


def answered(emulator: RestedEmulator, name: str, shows: dict[str, str]) -> Iterator[str]:
    """What a POST is answered: its status, and the message of an error."""
    try:
        reply = call(emulator.url(name), "POST", {"name": "Beetle"}, headers=shows)
    except OSError:
        return
    yield str(reply.status)
    if reply.status != 200:
        yield reply.json.get("message", "")


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


def test_the_recipe_for_data_of_ones_own_starts_with_it() -> None:
    [command] = re.findall(r"^python -m rested_emulator --seed .*$", (RECIPES / "README.md").read_text(), re.MULTILINE)
    options, _ = read_command_line(command.split()[3:], {})
    assert options.seed == "seed.json"
