"""The recipes: their page shows the files beside it, and those run with the real tools, on loopback alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml

from rested_emulator import RestedEmulator, World
from tests import probe
from tests.conftest import ROOT, SPARING, give_up, need, options_of
from tests.recipes import pull_seed
from tests.wire import bearer, call, free_port

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

RECIPES = ROOT / "tests" / "recipes"
PAGE = (RECIPES / "README.md").read_text()
WORLD = (RECIPES / "world.js").read_text()
REQUIRED = "RESTED_EMULATOR_TEST_RECIPES"
SECONDS = 120  # a limit for each command, not what it takes
MOST_LINES = 48  # but for world.js, which has the types too

WORKFLOW: dict[str, Any] = yaml.load((RECIPES / "github-actions" / "frontend.yml").read_text(), yaml.BaseLoader)
STEPS: list[dict[str, str]] = WORKFLOW["jobs"]["test"]["steps"]
COMMANDS = [step["run"] for step in STEPS if "run" in step]
# This step is not run, nor are those of other actions: the browser is the machine's, and so are Python and Node.
DOWNLOAD = "npx playwright install --with-deps chromium"
INSTALLING, TESTING = COMMANDS[: COMMANDS.index(DOWNLOAD)], COMMANDS[COMMANDS.index(DOWNLOAD) + 1 :]
# Whatever a browser would like to look up, nothing leaves this machine.
OFFLINE = ["--disable-quic", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost", SPARING]

# They want no package but the emulator's, or name what they build on in their own first words.
TAKE_NOTHING = ("GitHub Actions", "Docker", "Begin with your own data")

NOTES = "examples/unsecure-endpoint"

Run = Callable[..., str]


def put_command(folder: Path, name: str, *command: str, last: Sequence[str] = ()) -> None:
    """Make a command of this name in a folder that is on the path; ``last`` goes behind its arguments."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@" {shlex.join(last)}\n')
    path.chmod(0o755)


class Frontend(NamedTuple):
    """A copy of the frontend repository, and what commands in it find in their environment."""

    path: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Frontend:
    """A copy of the frontend repository, in which nothing is installed yet."""
    *_, chromium = need("bash", "npm", "npx", "node", "chromium", required=REQUIRED)
    project, commands = tmp_path_factory.mktemp("frontend") / "repository", tmp_path_factory.mktemp("bin")
    shutil.copytree(RECIPES, project, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    shutil.copy(ROOT / "rested_emulator.py", project)
    shutil.copytree(ROOT / "sample_data" / "console", project / "sample_data" / "console")
    put_command(commands, "python", sys.executable)
    put_command(commands, "pip", sys.executable, "-m", "pip")
    put_command(commands, "offline-chromium", chromium, last=OFFLINE)
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
    for name in ("FORCE_COLOR", "PYTHONDONTWRITEBYTECODE"):  # the latter would compile the module at each start
        environment.pop(name, None)
    return Frontend(project, environment)


def start(frontend: Frontend, command: list[str]) -> subprocess.Popen[str]:
    """Start a command in the repository, in a group of its own."""
    return subprocess.Popen(
        command, cwd=frontend.path, env=frontend.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(frontend: Frontend) -> Run:
    """Runs a command in the frontend repository, with everything installed as the GitHub job does it.

    Returns what it has printed. Fails where it does not end with 0.
    """

    def run(command: str, **more: str) -> str:
        shell = ["bash", "-e", "-c", command]  # as GitHub's runner does
        with start(Frontend(frontend.path, frontend.environment | more), shell) as process:
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


def test_the_page_shows_the_files_as_they_are() -> None:
    paths = [path for path in RECIPES.rglob("*") if path.suffix in (".js", ".html", ".py", ".yml")]
    paths += [RECIPES / "package.json", RECIPES / "docker" / "Containerfile"]
    files = {str(path.relative_to(RECIPES)): path.read_text() for path in paths if "node_modules" not in path.parts}
    del files["pull_seed.py"]  # which is run where it lies, and is long
    shown = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert dict(shown) == files
    assert len(shown) == len(files)


def test_a_file_is_short_enough_to_be_pasted() -> None:
    shown = re.findall(r"^```\w+\n(.*?)^```$", PAGE.replace(WORLD, ""), re.MULTILINE | re.DOTALL)
    assert max(len(block.splitlines()) for block in shown) <= MOST_LINES


def test_each_recipe_begins_with_what_it_installs() -> None:
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    first = {
        name: (re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) or [""])[0] for name, text in sections
    }
    without = [name for name, command in first.items() if "install" not in command and name not in TAKE_NOTHING]
    assert without == []
    used = {name for command in first.values() for name in re.findall(r"(?<=\s)(?:@\w+/)?[\w-]+(?=\s|$)", command)}
    assert set(json.loads((RECIPES / "package.json").read_text())["devDependencies"]) <= used


def test_the_commands_without_a_block_of_files_are_understood() -> None:
    shown("RESTED_EMULATOR_STATIC=app python -m rested_emulator --memory -- npx playwright test")  # as the job has it
    pulls, probes = (
        [shlex.split(line)[count:] for line in re.findall(rf"^{command} .*$", PAGE, re.MULTILINE)]
        for command, count in (("python pull_seed.py", 2), ("python -m tests.probe", 3))
    )
    assert len(pulls) == len(probes) == 1
    assert pull_seed.read_command_line(pulls[0]).output == "seed.json"
    assert probe.read_command_line(probes[0]).secure == "my-app/scratch-notes"


def test_the_container_asks_and_is_asked_what_there_is() -> None:
    text = (RECIPES / "docker" / "Containerfile").read_text()
    program = json.loads(re.findall(r"ENTRYPOINT (\[.*\])", text)[0])
    [run] = re.findall(r"^docker run .* rested-emulator (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    options = options_of([*program[3:], *run.split()])
    assert (options.data, options.host, options.port) == ("/data/db.json", "0.0.0.0", 7378)
    assert (options.allow_host, options.control_token) == (("rested",), "a-token-of-yours")
    [service] = yaml.safe_load((RECIPES / "docker" / "services.yml").read_text())["jobs"]["test"]["services"].values()
    assert service["ports"] == ["7378:7378"]
    options = options_of([], **dict.fromkeys(service["env"], "a-token"))
    assert (options.allow_host, options.control_token) == (("a-token",), "a-token")
    _, *check = json.loads(re.findall(r"CMD \\\n\s*(\[.*\])", text)[0])
    with RestedEmulator() as emulator:
        command = [sys.executable, *(word.replace("localhost:7378", str(emulator.facts["host"])) for word in check)]
        subprocess.run(command, check=True, timeout=20)
    assert subprocess.run(command, capture_output=True, timeout=20, check=False).returncode != 0


def test_the_lock_file_names_no_registry() -> None:
    assert "://registry" not in (RECIPES / "package-lock.json").read_text()


@pytest.mark.browser
def test_vitest(run: Run) -> None:
    assert "5 passed" in run(shown("npx vitest run"))


@pytest.mark.browser
def test_playwright_starts_the_emulator_and_each_worker_has_a_world(run: Run) -> None:
    printed = run(f"{shown('npx playwright test')} --workers 2", RESTED_TEST_PORT=str(free_port()))
    assert "4 passed" in printed
    assert {"playwright-0", "playwright-1"} == set(re.findall(r"\[WebServer\] .* world '(\S+)' begins", printed))


FAILING = """
import { expect } from "@playwright/test";
import { notes, test } from "./fixtures.js";

test("ends without the mail", async ({ page, world }) => {
  await page.goto(`/?key=${world.key}`);
  await expect(page.getByRole("status")).toHaveText("online");
  await world.control("faults", { kind: "abort" });
  await world.control("wait", { recoveries: {} });
  await world.store(notes, { text: "bread" });
  expect(await world.report("mails")).toHaveLength(1);
});

for (const refusals of [[], ["No record was found."]]) {
  test.describe(`with ${refusals.length} expected`, () => {
    test.use({ refusals });
    test("is refused", async ({ world }) => {
      expect((await fetch(`${world.url(notes)}&uniqueId=nobody`)).status).toBe(400);
    });
  });
}
"""


@pytest.mark.browser
def test_a_failure_in_playwright_shows_what_was_asked_and_who_came_back(run: Run, frontend: Frontend) -> None:
    failing = frontend.path / "playwright" / "failing.spec.js"
    failing.write_text(FAILING)
    try:
        printed = run("! npx playwright test failing", RESTED_TEST_PORT=str(free_port()))
    finally:
        failing.unlink()
    assert ("2 failed" in printed, "1 passed" in printed) == (True, True)
    folders = sorted(path.parent for path in frontend.path.glob("test-results/*/evidence.json"))
    without_mail, refused = (json.loads((folder / "evidence.json").read_text()) for folder in folders)
    requests, messages, recoveries = (without_mail[name] for name in ("requests", "messages", "recoveries"))
    assert [request["endpoint"] for request in requests if request["method"] == "POST"] == [NOTES]
    assert [push["record"]["data"] for push in messages if push["type"] == "POST"] == [{"text": "bread"}]
    assert [(recovery["rule"], recovery["token"]) for recovery in recoveries] == [("fault 1 abort", "none")]
    picture = ElementTree.parse(folders[0] / "timeline.svg")
    written = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert written >= {"connected", "Sockets dropped", "lost"}
    assert any(text and re.fullmatch(r"localhost:\d+ Chrome", text) for text in written)
    # A refusal that a test does not say that it expects is a failure as well.
    assert "has refused what the test did not say that it may" in printed
    [request] = refused["requests"]
    assert request["refusal"]["message"] == "No record was found."


@pytest.mark.browser
def test_playwright_starts_emulator_and_dev_server(run: Run) -> None:
    ports = {"RESTED_TEST_PORT": str(free_port()), "VITE_TEST_PORT": str(free_port())}
    assert "4 passed" in run(shown("npx playwright test --config playwright.vite.config.js"), **ports)


@contextmanager
def dev_server(frontend: Frontend, command: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A dev server on a free port, with its address; it is ended as Ctrl-C ends it, and so is what it has started."""
    port = free_port()
    with start(frontend, shlex.split(f"{command} --strictPort --port {port}")) as process:
        try:
            yield f"http://localhost:{port}", process
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=SECONDS)  # to the end of the output, which all of them share
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def line_with(text: str, process: subprocess.Popen[str]) -> str:
    """Wait for a line that a process prints."""
    assert process.stdout is not None
    line = next((line for line in process.stdout if text in line), None)
    assert line is not None, f"ended without {text!r}"
    return line


@pytest.mark.browser
def test_vite_starts_the_emulator_with_a_data_file_of_the_branch(
    run: Run, frontend: Frontend, context: BrowserContext
) -> None:
    need("git", required=REQUIRED)
    run("git init --quiet --initial-branch=feature/notes")
    with dev_server(frontend, shown("npx vite vite")) as (url, process):
        found = re.search(r"rested-emulator: (http://localhost:\d+)/ \(feature-notes\)", line_with("(feature", process))
        assert found
        line_with("Local:", process)
        page = context.new_page()
        page.goto(url)
        page.get_by_text("online", exact=True).wait_for()
        api = f"{found[1]}/api/1/ce/my-app/notes?key=d59eb2859c284168ac48aef65046d5dd"
        assert call(api, "POST", {"text": "bread"}).status == 200
        page.get_by_role("listitem").filter(has_text="bread").wait_for()
        page.close()
    assert '"bread"' in (frontend.path / "rested-db.feature-notes.json").read_text()


@pytest.mark.browser
def test_vite_as_a_proxy_passes_requests_and_messages(frontend: Frontend, context: BrowserContext) -> None:
    with RestedEmulator(endpoint=["my-app/notes"]) as emulator:
        told = Frontend(frontend.path, frontend.environment | {"RESTED_HOST": str(emulator.facts["host"])})
        with dev_server(told, shown("npx vite vite --config vite/proxy.config.js")) as (url, process):
            line_with("Local:", process)
            page = context.new_page()
            page.goto(url)
            page.get_by_text("online", exact=True).wait_for()
            assert call(emulator.url("my-app/notes"), "POST", {"text": "bread"}).status == 200
            page.get_by_role("listitem").filter(has_text="bread").wait_for()
            page.close()


# A client that comes back, and what tells it from those that are written wrongly

USERS, DIARY = "my-app/users", "my-app/diary"
LIVE = (RECIPES / "vite" / "live.js").read_text()
WRONG = {
    "lockstep": [
        ("minReconnectionDelay: wait * (1 + Math.random())", "minReconnectionDelay: wait * 4"),
        ("reconnectionDelayGrowFactor: 2", "reconnectionDelayGrowFactor: 1"),
    ],
    "keeps the expired token": [("token = undefined;", "return;")],
    "reads but once": [("reading = read()", "reading ??= read()")],
}


@pytest.fixture(scope="module")
def diary(run: Run, frontend: Frontend) -> Iterator[tuple[RestedEmulator, str]]:  # noqa: ARG001 - it installs
    """An emulator, and the address of a dev server with a page for the recipe's client and for each wrong one."""
    html = (RECIPES / "vite" / "diary.html").read_text()
    for name, changes in {"right": [], **WRONG}.items():
        client = LIVE
        for before, after in changes:
            assert client.count(before) == 1
            client = client.replace(before, after)
        (frontend.path / "vite" / f"{name}.js").write_text(client)
        (frontend.path / "vite" / f"{name}.html").write_text(html.replace("./live.js", f"./{name}.js"))
    with RestedEmulator(auth=[USERS], secure=[DIARY]) as emulator:
        facts = {f"RESTED_{name}": str(emulator.facts[fact]) for name, fact in (("URL", "url"), ("WS_URL", "wsUrl"))}
        with dev_server(Frontend(frontend.path, frontend.environment | facts), shown("npx vite vite")) as (url, server):
            line_with("Local:", server)
            yield emulator, url


Open = Callable[..., "tuple[World, Page]"]


@pytest.fixture
def open_diary(
    diary: tuple[RestedEmulator, str], context: BrowserContext, request: pytest.FixtureRequest
) -> Iterator[Open]:
    """Opens a page with one of the clients and a user, to whom chance gives what is told, in a world of the test."""
    emulator, url = diary
    world = emulator.world(re.sub(r"\W", "-", request.node.name))

    def open_diary(client: str, username: str, chance: float = 0) -> tuple[World, Page]:
        world.sign_in(USERS, username, "-")
        page = context.new_page()
        page.add_init_script(f"Math.random = () => {chance}")
        page.goto(f"{url}/{client}.html?key={world.key}&username={username}&wait=100")
        page.get_by_text("online", exact=True).wait_for()
        return world, page

    with world:
        yield open_diary


def assert_recovery(world: World, refused: list[str | None], **members: Any) -> None:
    """Compare the one recovery there is, with as many of its attempts as are told."""
    told: Any = world.recoveries()
    [one] = told
    assert [attempt["refused"] for attempt in one["attempts"]][: len(refused)] == refused
    assert {name: one[name] for name in members} == members


@pytest.mark.browser
@pytest.mark.parametrize("client", ["right", "lockstep"])
def test_recoveries_tell_who_backs_off_from_who_comes_in_lockstep(open_diary: Open, client: str) -> None:
    world, _ = open_diary(client, "ada", 0)
    open_diary(client, "ben", 0.9)
    for username in ("ada", "ben"):
        world.add_fault("refuse", username=username, times=3)
    world.add_fault("abort")
    told: Any = world.wait(recoveries={}, count=2)["recoveries"]
    ada, ben = told
    for one in (ada, ben):
        assert [attempt["refused"] for attempt in one["attempts"]] == ["503"] * 3 + [None]
        first, *_, before, last = (attempt["after"] for attempt in one["attempts"])
        assert (last - before > 2 * first) is (client == "right")
    assert (abs(ada["after"] - ben["after"]) > 0.3) is (client == "right")


@pytest.mark.browser
@pytest.mark.parametrize("client", ["right", "keeps the expired token"])
def test_recoveries_tell_who_has_a_new_token_from_who_keeps_the_expired_one(open_diary: Open, client: str) -> None:
    world, _ = open_diary(client, "ada")
    world.expire_tokens(username="ada")
    if client == "right":
        world.wait(recoveries={})
        assert_recovery(world, [None], token="new")
    else:
        world.wait(messages={"type": "CLOSE"}, count=4)  # the end of its socket, and three refusals
        assert_recovery(world, ["4000 No Access token or invalid."] * 3, back=None, token=None)


@pytest.mark.browser
@pytest.mark.parametrize("client", ["right", "reads but once"])
def test_recoveries_tell_who_reads_what_it_has_missed(open_diary: Open, client: str) -> None:
    world, page = open_diary(client, "ada")
    headers = bearer(world.sign_in(USERS, "ada"))
    world.add_fault("outage", method="WEBSOCKET", seconds=60)
    call(world.url(DIARY), "POST", {"text": "missed"}, headers=headers)
    world.advance(60)
    world.wait(recoveries={})
    call(world.url(DIARY), "POST", {"text": "heard"}, headers=headers)
    page.get_by_role("listitem").filter(has_text="heard").wait_for()
    assert_recovery(world, [], missed=1, read=client == "right")
    wanted = ["missed", "heard"] if client == "right" else ["heard"]
    assert page.get_by_role("listitem").all_inner_texts() == wanted


@pytest.fixture(scope="module")
def my_app(run: Run, frontend: Frontend) -> Path:
    """An app as the README's command makes it."""
    [create] = re.findall(r"^npm create .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    run(f"{create} && cd my-app && npm install", npm_config_yes="true")
    return frontend.path / "my-app"


@pytest.mark.browser
@pytest.mark.parametrize("is_proxy", [False, True])
def test_the_app_of_the_readme_is_made_by_vite_and_runs(
    my_app: Path, frontend: Frontend, context: BrowserContext, is_proxy: bool
) -> None:
    readme = (ROOT / "README.md").read_text()
    named, app = (
        re.findall(rf"^```js\n({start}.*?)^```$", readme, re.M | re.S)[0] for start in ("const url", "const orders")
    )
    [config] = re.findall(r"^```js\n(// vite.config.js.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    with RestedEmulator(auth=["my-app/users"], secure=["my-app/orders"]) as emulator:
        here = f"http://{emulator.facts['host']}"
        proxy = config.replace("http://localhost:7378", here)
        (my_app / "vite.config.js").write_text(proxy if is_proxy else "export default {}")
        if is_proxy:
            named = named.replace("http://localhost:7378", "${location.origin}")
        (my_app / "src" / "main.js").write_text(named.replace("http://localhost:7378", here) + app)
        token = emulator.sign_in("my-app/users", "ada", "apricot")
        with dev_server(Frontend(my_app, frontend.environment), "npm run dev --") as (url, process):
            line_with("Local:", process)
            page = context.new_page()
            page.goto(url)
            page.get_by_text("[]", exact=True).wait_for()
            call(emulator.url("my-app/orders"), "POST", {"car": 1}, headers=bearer(token))
            page.get_by_text('[{"car":1}]', exact=True).wait_for()
            page.close()


@pytest.mark.browser
def test_axios_keeps_a_login_as_the_readme_has_it(
    my_app: Path, run: Run, frontend: Frontend, context: BrowserContext
) -> None:
    [client] = re.findall(r"`(axios\.create\(.*\))`", (ROOT / "README.md").read_text())
    run("cd my-app && npm install axios")
    with RestedEmulator(auth=["my-app/users"], secure=["my-app/orders"]) as emulator:
        emulator.sign_in("my-app/users", "ada", "apricot")
        here = client.replace("localhost:7378", str(emulator.facts["host"]))
        (my_app / "src" / "main.js").write_text(f"""
            import axios from "axios";
            const key = "{emulator.facts["key"]}";
            const client = {here};
            const ada = {{ username: "ada", password: "apricot" }};
            await client.post("/my-app/users", ada, {{ params: {{ login: true }} }});
            await client.post("/my-app/orders", {{ car: 1 }});
        """)
        (my_app / "vite.config.js").write_text("export default {}")
        with dev_server(Frontend(my_app, frontend.environment), "npm run dev --") as (url, process):
            line_with("Local:", process)
            page = context.new_page()
            page.goto(url)
            emulator.wait(requests={"endpoint": "my-app/orders", "method": "POST", "status": 200}, timeout=SECONDS)
            page.close()


@pytest.mark.browser
def test_the_types_hold_and_say_what_is_wrong(run: Run) -> None:
    command = shown("npx tsc --noEmit --checkJs --strict --target esnext --lib esnext,dom world.js")
    run(command)
    right = ['control("reset")', 'control("advance", { seconds: 1 })', 'report("mails")', 'store("a/b", 1, "token")']
    wrong = ['control("advance")', 'control("advance", { second: 1 })', 'control("advence", {})', 'report("mail")',
             'control("faults", { kind: "none" })']  # fmt: skip
    calls = "\n".join(f"await world.{text};" for text in right + wrong)
    text = f'import {{ openWorld }} from "./world.js";\nconst world = await openWorld("localhost", "key");\n{calls}\n'
    checked = command.replace("world.js", "use.js")
    printed = run(f"cat > use.js <<'END'\n{text}\nEND\n! {checked}; rm use.js")
    lines = text.splitlines()
    assert [lines[int(number) - 1] for number in re.findall(r"^use\.js\((\d+),", printed, re.MULTILINE)] == [
        f"await world.{text};" for text in wrong
    ]


@pytest.mark.browser
def test_cypress_is_parsed(run: Run) -> None:
    run("node --check cypress.config.js && node --check cypress/notes.cy.js")


@pytest.mark.browser
def test_node(run: Run) -> None:
    tests = "node --test --test-timeout 20000 node/notes.test.js"
    assert "pass 2\n" in run(shown(f"python -m rested_emulator --memory --port 0 -- {tests}"))


@pytest.mark.browser
@pytest.mark.parametrize("workers", [0, 2])
def test_pytest(run: Run, workers: int) -> None:
    assert "5 passed" in run(f"{shown('python -m pytest pytest')} -n {workers}")


def test_the_github_job_is_one() -> None:
    assert WORKFLOW.keys() == {"name", "on", "permissions", "jobs"}
    assert all(("uses" in step) != ("run" in step) for step in STEPS)
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)


@pytest.mark.browser
def test_the_github_job_does_its_steps(run: Run) -> None:
    assert TESTING[0] == "npx vitest run"  # which a test of its own has run
    # One worker, so that the second test finds what the first one has stored, unless the checkpoint is restored.
    printed = run(f"{TESTING[1]} --workers 1")
    assert "4 passed" in printed
    assert "[WebServer]" not in printed
    for command in TESTING[2:]:
        run(command)
    assert "The suite met" in run('cat "$GITHUB_STEP_SUMMARY"')


def shown(command: str) -> str:
    """A command that stands on the page, in a block of its own."""
    assert f"```sh\n{command}\n```" in PAGE
    return command
