"""The timeline in a real Chromium: what is drawn of whom, in words and by keys, what it costs, and its picture."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Literal
from xml.etree import ElementTree

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Locator, Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from rested_emulator import RestedEmulator
from tests.conftest import CHORES, GARDENERS, PLANTS, TIMEOUT
from tests.test_console import DEMO, SAMPLES, Stage, add
from tests.test_console import stage as stage  # a fixture
from tests.wire import PAGE, base, bearer, call, closing, open_socket

pytestmark = pytest.mark.browser


@pytest.fixture
def page(emulator: RestedEmulator, context: BrowserContext) -> Iterator[Page]:
    """The console; an error in its scripts fails the test."""
    expect.set_options(timeout=TIMEOUT)
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(base(emulator))
    expect(page.locator("#clock")).to_contain_text("UTC")
    yield page
    assert errors == []


@pytest.fixture
def tokens(emulator: RestedEmulator) -> dict[str, str]:
    return {name: emulator.sign_in(GARDENERS, name) for name in ("ada", "ben")}


def listen(emulator: RestedEmulator, token: str) -> ClientConnection:
    return open_socket(emulator.ws_url(CHORES), additional_headers=bearer(token))


def post(emulator: RestedEmulator, token: str, chore: str) -> None:
    assert call(emulator.url(CHORES), "POST", {"chore": chore}, headers=bearer(token)).status == 200


def lane(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=re.compile(rf"^{re.escape(name)}: walk along"))


def walk(page: Page, name: str, steps: int) -> list[str]:
    """Walk along a lane from its beginning with the arrow keys; what it says, without the clock."""
    lane(page, name).focus()
    said = []
    for key in ["Home", *["ArrowRight"] * (steps - 1)]:
        page.keyboard.press(key)
        said.append(page.locator(".timeline-words").inner_text())
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", each) for each in said]


def middle_of(page: Page, selector: str) -> tuple[float, float]:
    """The middle of what is drawn, in one look: a moment later it may be drawn anew."""
    script = """(selector) => {
        const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
        return [x + width / 2, y + height / 2];
    }"""
    x, y = page.evaluate(script, selector)
    return x, y


def tell(page: Page, script: str, argument: Any = None) -> Any:
    """Run a function with what a Story is, in the page."""
    module = "import('/story.js').then((module) => Object.assign(globalThis, module))"
    page.evaluate(module)
    return page.evaluate(script, argument)


def live_through(emulator: RestedEmulator, tokens: dict[str, str]) -> None:
    """Ben loses his socket, is refused, misses a change, and comes back; ada hears everything."""
    with listen(emulator, tokens["ada"]):
        with listen(emulator, tokens["ben"]) as ben:
            post(emulator, tokens["ada"], "Weed bed 2")
            emulator.add_fault("abort", username="ben")
            assert closing(ben)[0] == 1006
        post(emulator, tokens["ada"], "Sow lettuce")
        emulator.add_fault("refuse", status=503, times=1)
        with pytest.raises(InvalidStatus):
            listen(emulator, tokens["ben"])
        with listen(emulator, tokens["ben"]):
            assert call(emulator.url(CHORES), headers=bearer(tokens["ben"])).status == 200
            emulator.wait(recoveries={"username": "ben"})


def test_a_lane_says_what_its_client_heard_missed_and_did(
    page: Page, emulator: RestedEmulator, tokens: dict[str, str]
) -> None:
    live_through(emulator, tokens)
    expect(page.locator(".timeline-list li")).to_have_count(1)
    if page.get_by_role("tab", name="Activity").is_visible():
        page.get_by_role("tab", name="Activity").click()
    page.get_by_role("button", name="In words").click()
    sentence = re.compile(r"^ben was away for (a moment|0\.\d s), missed 1 change, and read it\.$")
    expect(page.locator(".timeline-list li")).to_have_text([sentence])
    expect(page.locator(".timeline-words")).to_have_text(sentence)
    told = walk(page, "ben", 9)
    assert [
        re.sub(r"after (0\.\d s|a moment)", "after a while", each)
        for each in told
        if not each.startswith("ben was away")
    ] == [
        f"ben opened a socket of {CHORES}.",
        f"ben heard a POST message of {CHORES}.",
        f"ben: the socket of {CHORES} ended, lost: 1006 (fault 1 abort).",
        f"ben missed a POST message of {CHORES}.",
        f"ben tried to come back to {CHORES} after a while, and was refused: 503.",
        f"ben opened a socket of {CHORES}.",
        f"ben read {CHORES} after coming back.",
        f"ben: the socket of {CHORES} ended, left: 1000 (closed by the client).",
    ]
    assert walk(page, "ada", 4) == [
        f"ada opened a socket of {CHORES}.",
        f"ada heard a POST message of {CHORES}.",
        f"ada heard a POST message of {CHORES}.",
        f"ada: the socket of {CHORES} ended, left: 1000 (closed by the client).",
    ]


def test_somebody_without_a_user_is_told_apart_by_page_and_browser(page: Page, emulator: RestedEmulator) -> None:
    with (
        open_socket(emulator.ws_url(PLANTS), origin=PAGE, user_agent_header="Mozilla/5.0 Firefox/153.0"),
        open_socket(emulator.ws_url(PLANTS), user_agent_header=None),
    ):
        expect(lane(page, "localhost:3000 Firefox")).to_be_visible()
        expect(lane(page, "somebody")).to_be_visible()
    expect(page.locator("#timeline [role=button]")).to_have_count(2)  # the console itself is none of them


def test_what_is_chosen_in_one_place_is_shown_in_the_other(
    page: Page, emulator: RestedEmulator, tokens: dict[str, str]
) -> None:
    ring, opened = page.locator("#timeline .ring"), page.locator("#log li:visible", has_text="#2 ada listens")
    with listen(emulator, tokens["ada"]):
        opened.click()
        expect(ring).to_have_attribute("visibility", "visible")
        expect(page.locator(".timeline-words")).to_contain_text(f"ada opened a socket of {CHORES}.")
        opened.click()
        expect(page.locator("#log li.chosen:visible")).to_have_count(0)
        page.mouse.click(*middle_of(page, "#timeline .open"))
        expect(page.locator("#log li.chosen:visible")).to_contain_text("#2 ada listens")
        post(emulator, tokens["ada"], "Sow lettuce")
        expect(page.locator("#timeline .timeline-box .heard")).to_have_count(1)
        assert walk(page, "ada", 2)[-1] == f"ada heard a POST message of {CHORES}."
        page.keyboard.press("Enter")
        expect(page.locator("#log li.chosen:visible")).to_contain_text("Sow lettuce")
        page.keyboard.press("Escape")
        expect(ring).to_have_attribute("visibility", "hidden")


def test_faults_expiries_and_changed_options_stand_across_the_lanes(
    page: Page, emulator: RestedEmulator, tokens: dict[str, str]
) -> None:
    drawn = page.locator("#timeline svg text")
    with listen(emulator, tokens["ada"]), listen(emulator, tokens["ben"]):
        emulator.change_endpoint(CHORES)
        expect(drawn.filter(has_text="⚑ options changed")).to_have_count(1)
    with listen(emulator, tokens["ada"]), listen(emulator, tokens["ben"]):
        emulator.expire_tokens()
        emulator.add_fault("outage")
        expect(page.locator("#timeline .band-outage")).to_have_count(1)
        emulator.clear_faults()
        expect(page.locator("#timeline .band-outage")).to_have_count(1)  # it was there, and is over
    flags = tell(
        page,
        """(told) => {
            const story = new Story();
            story.hear(told);
            return story.flags(0, 1e9).map(({ name }) => name);
        }""",
        {"messages": emulator.messages(), "recoveries": emulator.recoveries()},
    )
    assert flags == ["options changed", "tokens expired"]


def test_the_axis_says_where_the_clock_jumps_and_stands(page: Page, emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)):
        emulator.advance(3600)
        expect(page.locator("#timeline svg text", has_text="clock +1 h")).to_have_count(1)
    script = """(moments) => {
        const story = new Story();
        for (const [at, clock] of moments) story.seeClock(at, clock);
        return [story.jumps(0, 1e9).map(({ at, name }) => `${at} ${name}`), story.clockAt(4), story.clockAt(104)];
    }"""
    # A clock that is told in whole seconds; it stands from 3 s on, is put back by an hour, and runs from 6 s on.
    moments = [[0.9, 7200], [1.0, 7201], [2.2, 7202], [3.0, 7203], [4.4, 7203], [4.9, 7203], [5.0, 3603], [6.0, 3603]]
    moments += [[7.1, 3604], [8.1, 3605]]
    jumps, standing, later = tell(page, script, moments)
    assert jumps == ["3 clock stands", "5 clock −1 h", "5 clock runs"]  # noqa: RUF001 - the sign of minus
    assert (standing, later) == ("02:00:03", "01:01:42")


def test_of_a_record_that_is_not_theirs_nobody_has_missed_a_message(page: Page) -> None:
    """The emulator says how many were missed; where others were not theirs to hear, they are counted, not drawn."""
    messages: list[dict[str, Any]] = [
        {"number": 1, "uptime": 1.0, "type": "OPEN", "to": [1], "username": "ben", "origin": None, "agent": ""},
        {"number": 2, "uptime": 2.0, "type": "CLOSE", "to": [1], "code": 1006, "reason": ""},
        *({"number": number, "uptime": number, "type": "POST", "to": [], "faults": []} for number in (3, 4)),
    ]
    for message in messages:
        message |= {"at": "2026-11-28T10:00:00.000Z", "endpoint": CHORES}
    recovery = {"number": 2, "listener": 1, "endpoint": CHORES, "username": "ben", "rule": "lost by the client"}
    recovery |= {"attempts": [], "back": 2, "after": 4.0, "read": False, "missed": 1}
    script = """(told) => {
        const story = new Story();
        story.hear(told);
        const lane = story.lanes.get("user ben");
        return story.itemsOf(lane, 0, 9).filter(({ kind }) => kind === "missed").map(({ at, words }) => [at, words]);
    }"""
    missed = tell(page, script, {"messages": messages, "recoveries": [recovery]})
    assert missed == [[6, f"ben missed 1 message of {CHORES}"]]
    # Its end may be heard of later than how it came back.
    script = script.replace("story.hear(told)", "story.hear({ recoveries: told.recoveries }); story.hear(told)")
    missed = tell(page, script, {"messages": messages, "recoveries": [recovery | {"missed": 2}]})
    assert missed == [[at, f"ben missed a POST message of {CHORES}"] for at in (3, 4)]


def test_of_one_moment_what_came_first_stands_first(page: Page) -> None:
    """Moments are told in milliseconds, and a socket may hear of a change within the one in which it opened."""
    client = {"username": "ben", "origin": None, "agent": ""}
    messages: list[dict[str, Any]] = [
        {"number": 1, "type": "OPEN", "to": [1], **client},
        {"number": 2, "type": "POST", "to": [1], "faults": []},
        {"number": 3, "type": "CLOSE", "to": [1], "code": 1000, "reason": ""},
    ]
    for message in messages:
        message |= {"at": "2026-11-28T10:00:00.000Z", "endpoint": CHORES, "uptime": 1.0}
    script = """(messages) => {
        const story = new Story();
        story.hear({ messages });
        return story.itemsOf(story.lanes.get("user ben"), 0, 9).map(({ kind }) => kind);
    }"""
    assert tell(page, script, messages) == ["open", "heard", "end"]


def test_who_is_forgotten_or_of_an_emulator_before_is_drawn_no_more(
    page: Page, emulator: RestedEmulator, tokens: dict[str, str]
) -> None:
    with listen(emulator, tokens["ben"]) as ben:
        emulator.add_fault("abort")
        assert closing(ben)[0] == 1006
    expect(page.locator(".timeline-words")).to_have_text("ben is not back, and has not tried.")
    expect(page.locator("#timeline .timeline-box .away")).to_have_count(1)
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".timeline-words")).to_have_text("")
    expect(page.locator("#timeline .timeline-box .away")).to_have_count(0)
    script = """(told) => {
        const story = new Story();
        story.hear(told);
        const before = story.lanes.size;
        story.hear({ messages: [], status: { uptime: 1, now: "2026-11-28T10:00:00.000Z" } });
        return [before, story.lanes.size, story.since.messages];
    }"""
    with listen(emulator, tokens["ada"]):
        seen: Any = emulator.messages()
    assert tell(page, script, {"messages": [each | {"uptime": each["uptime"] + 100} for each in seen]}) == [1, 0, 0]


def test_of_many_lanes_those_of_clients_that_fell_out_stand_first(
    page: Page, emulator: RestedEmulator, tokens: dict[str, str]
) -> None:
    for number in range(6):
        emulator.put_record(GARDENERS, {"username": f"amy{number}", "password": "x"})
    names = ["ada", *(f"amy{number}" for number in range(6)), "ben"]
    for name in names[1:-1]:
        tokens[name] = emulator.sign_in(GARDENERS, name)
    with ExitStack() as sockets:
        for name in names:
            sockets.enter_context(listen(emulator, tokens[name]))
        lanes = page.get_by_role("button", name="walk along")
        expect(lanes).to_have_text(names)
        emulator.add_fault("abort", username="ben")
        expect(lanes).to_have_text(["ben", *names[:-1]])


def test_of_a_long_day_the_latest_clients_are_kept(page: Page) -> None:
    """Client 0 listens all day; of the others each comes and goes, and nothing grows."""
    script = """() => {
        const story = new Story();
        const client = (n) => ({ endpoint: "a/b", username: `user${n}`, origin: null, agent: "" });
        let number = 0;
        const hear = (type, n) => {
            const event = { type, to: [n], code: 1006, reason: "", number: ++number, uptime: number, ...client(n) };
            story.hear({ messages: [event] });
        };
        hear("OPEN", 0);
        for (let n = 1; n <= 3000; n++) for (const type of ["OPEN", "CLOSE"]) hear(type, n);
        const names = [...story.lanes.values()].map(({ name }) => name);
        return [names.length, names[0], names[1], names.at(-1), story.closes.size];
    }"""
    assert tell(page, script) == [100, "user0", "user2902", "user3000", 2000]


def test_what_is_pointed_at_is_said_in_words(page: Page, emulator: RestedEmulator, tokens: dict[str, str]) -> None:
    with listen(emulator, tokens["ada"]):
        expect(page.locator("#timeline .open")).to_have_count(1)
        page.mouse.move(*middle_of(page, "#timeline .open"))
        expect(page.locator(".timeline-words")).to_contain_text(f"ada opened a socket of {CHORES}.")
        emulator.add_fault("delay", seconds=0.0, endpoint=CHORES)
        expect(page.locator("#timeline .band-fault")).to_have_count(1)
        page.mouse.move(0, 0)
        expect(page.locator(".timeline-words")).to_have_text("")
    script = """(told) => {
        const story = new Story();
        story.hear(told);
        const lane = story.lanes.get("user ada");
        return story.stateOf(lane, (lane.sockets[0].from + lane.sockets[0].to) / 2).words;
    }"""
    emulator.wait(messages={"type": "CLOSE"})
    said = tell(page, script, {"messages": emulator.messages()})
    assert re.fullmatch(rf"ada listened to {CHORES} from [\d:]{{8}} on until [\d:]{{8}}", said)


def test_it_is_zoomed_paused_and_dragged(page: Page, emulator: RestedEmulator) -> None:
    shown = page.locator("#timeline .timeline-box text.soft").last
    with open_socket(emulator.ws_url(PLANTS)):
        pause, zoom = page.get_by_role("button", name="Pause timeline"), page.get_by_role("button", name="10 min")
        expect(shown).to_be_visible()
        line = page.locator("#timeline .timeline-box .socket")
        expect(line).to_have_count(1)
        pause.click()
        expect(pause).to_have_attribute("aria-pressed", "true")
        page.evaluate("() => new Promise(requestAnimationFrame)")  # it is drawn as it stands in the next frame
        before = line.get_attribute("d")
        zoom.click()
        expect(zoom).to_have_attribute("aria-pressed", "true")
        expect(line).not_to_have_attribute("d", before or "")
        zoom.click()
        expect(line).to_have_attribute("d", before or "")  # it stands still, so a minute is the same minute
        box = page.locator("#timeline .timeline-box svg").bounding_box()
        assert box
        pause.click()
        expect(pause).to_have_attribute("aria-pressed", "false")
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        expect(pause).to_have_attribute("aria-pressed", "true")


def test_it_folds_to_a_line_and_stays_so(page: Page, emulator: RestedEmulator, tokens: dict[str, str]) -> None:
    fold = page.get_by_role("button", name="Show the timeline")
    expect(fold).to_have_attribute("aria-expanded", "true")
    fold.click()
    page.reload()
    live_through(emulator, tokens)
    expect(page.locator(".timeline-words")).to_contain_text("ben was away")
    expect(fold).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#timeline .timeline-box")).not_to_be_visible()
    fold.click()
    expect(lane(page, "ben")).to_be_visible()


@pytest.mark.alone
def test_fifty_lanes_with_a_thousand_events_are_drawn_within_a_frame(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    script = """async () => {
        const { Strip } = await import("/strip.js");
        const at = "2026-11-28T10:00:00.000Z";
        const nobody = { origin: null, agent: "" };
        const story = new Story();
        const event = (number, more) => ({ number, at, uptime: number / 20, endpoint: "a/b", ...more });
        const open = (n) => event(n, { type: "OPEN", to: [n], username: `user ${n}`, ...nobody });
        const post = (n) => event(n, { type: "POST", to: [1 + (n % 50), 1 + ((n * 7) % 50)], faults: [] });
        const messages = [];
        for (let n = 1; n <= 50; n++) messages.push(open(n));
        for (let n = 51; n <= 1050; n++) messages.push(post(n));
        const hearing = performance.now();
        story.hear({ messages });
        const heard = performance.now() - hearing;
        const box = document.createElement("div");
        document.querySelector("#timeline").append(box);
        const strip = new Strip(box, story);
        strip.right = 60;
        const times = [];
        for (let round = 0; round < 30; round++) {
            const begin = performance.now();
            strip.drawNow();
            strip.svg.getBoundingClientRect();
            times.push(performance.now() - begin);
        }
        const inside = strip.svg.querySelectorAll("*").length;
        strip.right = 600; // all of it has left, but the sockets are open
        strip.drawNow();
        const outside = strip.svg.querySelectorAll("*").length;
        const lanes = strip.plan.lanes.length;
        box.remove();
        const median = (all) => all.sort((one, other) => one - other)[all.length / 2];
        return { heard, drawn: median(times), most: Math.max(...times), inside, outside, lanes };
    }"""
    measured = tell(page, script)
    print(f"\n{measured}", file=sys.stderr)
    assert measured["lanes"] == 50
    assert measured["inside"] < 900  # not one for each event
    assert measured["drawn"] < 16
    assert measured["outside"] < measured["inside"] * 0.7  # lanes and open sockets are left, and no event


def picture_of(text: str) -> set[str]:
    """What is written in a picture, which has to be well-formed and to bring its own colours for both schemes."""
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text
    return {element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_the_picture_is_copied_with_its_legend(page: Page, emulator: RestedEmulator, tokens: dict[str, str]) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    live_through(emulator, tokens)
    expect(page.locator(".timeline-list li")).to_have_count(1)
    page.get_by_role("button", name="Copy picture").click()
    expect(page.locator(".timeline-words")).to_have_text("The picture is copied, as SVG.")
    written = picture_of(page.evaluate("navigator.clipboard.readText()"))
    legend = {"connected", "ended", "away", "try refused", "change heard", "change missed", "read again"}
    assert written >= {"ada", "ben", *legend}
    taken = page.evaluate("import('/timeline.js').then((module) => module.takePicture())")
    assert picture_of(taken) >= {"ada", "ben", *legend}
    assert "ben was away for" in taken


def test_the_strip_of_the_stage_says_what_happened_to_each_of_the_two(stage: Stage) -> None:
    expect(lane(stage.page, "ada")).to_be_visible()
    expect(lane(stage.page, "ben")).to_be_visible()
    stage.press("Drop ben")
    expect(stage.ben.locator("#line")).to_contain_text("Connection lost")
    add(stage.ada, "Lemonade")
    drawn = stage.page.locator("#timeline svg text")
    expect(drawn.filter(has_text="Outage for ben")).to_have_count(1)
    expect(drawn.filter(has_text="lost")).to_have_count(1)
    stage.emulator.clear_faults()
    expect(stage.page.locator("#timeline .timeline-words")).to_contain_text("ben was away")
    assert "ben missed a POST message of picnic/items." in walk(stage.page, "ben", 12)
    assert not any("missed" in said for said in walk(stage.page, "ada", 12))


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
def test_axe_finds_nothing_in_a_lively_timeline(
    page: Page, emulator: RestedEmulator, tokens: dict[str, str], size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    live_through(emulator, tokens)
    expect(page.locator(".timeline-list li")).to_have_count(1)
    if page.get_by_role("tab", name="Activity").is_visible():
        page.get_by_role("tab", name="Activity").click()
    page.get_by_role("button", name="In words").click()
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        violations = Axe().run(page, context="#timeline").response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_banner_app_console_and_stage_lead_to_each_other(stage: Stage, context: BrowserContext) -> None:
    root = base(stage.emulator)
    assert stage.page.get_by_role("link", name="Console").get_attribute("href") == "/__emulator__/"
    assert stage.ada.get_by_role("link").count() == 0  # there it would open a stage on the stage
    page = context.new_page()
    for address in (f"{root}/", f"{root}/__emulator__/"):
        page.goto(address)
        page.get_by_role("link", name=re.compile("^Stage$|side by side")).click()
        expect(page).to_have_url(f"{root}/stage.html")


def test_twelve_things_fit_the_stage_on_a_projector(context: BrowserContext) -> None:
    with RestedEmulator(data=SAMPLES / "demo.json", static=DEMO) as emulator:
        token = emulator.sign_in("picnic/people", "ada")
        for number in range(9):
            item = {"text": f"Thing {number}", "by": "ada", "done": False}
            call(emulator.url("picnic/items"), "POST", item, headers=bearer(token))
        page = context.new_page()
        page.set_viewport_size({"width": 1280, "height": 720})
        page.goto(f"{base(emulator)}/stage.html")
        assert page.evaluate("document.documentElement.scrollHeight") <= 720
        for name in ("ada", "ben"):
            items = page.frame_locator(f"iframe[name={name}]").get_by_role("listitem")
            expect(items).to_have_count(12)
            frame = page.frame(name=name)
            assert frame
            last = "document.querySelector('#items li:last-child')"
            frame.wait_for_function(f"() => {last}.getBoundingClientRect().bottom <= innerHeight")
