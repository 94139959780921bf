"""A real Chromium: what a page on another origin can do with the emulator, and what it cannot (contract 6, 7, 9).

The pages are files in ``tests/pages``; every request, socket and wait below happens in their own JavaScript, and every
wait there has a time-out. Python only asks and compares.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Error, JSHandle, Page, expect

from rested_emulator import RestedEmulator
from tests import texts
from tests.conftest import DIARY, EVIL, GARDEN, GARDENERS, KEY, PLANTS, SAMPLE_KEY, TIMEOUT, TOMATO
from tests.wire import COOKIE, call

pytestmark = pytest.mark.browser

PAGES = Path(__file__).parent / "pages"
UNREADABLE = "TypeError: Failed to fetch"  # all that Chromium tells a page of an answer not meant for it
OPAQUE = {"status": 0, "authorization": None, "body": None}
ADA = {"username": "ada", "password": "apricot"}


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass(frozen=True)
class Ear:
    """A WebSocket in a page."""

    handle: JSHandle

    def heard(self, count: int = 0) -> list[Any]:
        """Wait for that many messages; all that came until then."""
        messages: list[Any] = self.handle.evaluate("(ear, count) => ear.heard(count)", count)
        return messages

    def closed(self) -> tuple[int, str, bool]:
        """Wait for the close event: its code, reason and wasClean."""
        code, reason, was_clean = self.handle.evaluate("ear => ear.closed()")
        return code, reason, was_clean


@dataclass(frozen=True)
class App:
    """The page app.html, open in the browser."""

    page: Page

    @property
    def origin(self) -> str:
        origin: str = self.page.evaluate("origin")
        return origin

    def fetch(self, url: str, method: str = "GET", data: Any = ..., **headers: str) -> Any:
        """Send one request; ``data`` goes as JSON. Raises Error where the page may not read the answer."""
        body = None
        if data is not ...:
            body, headers = json.dumps(data), {"Content-Type": "application/json"} | headers
        return self.page.evaluate("request => call(...request)", [url, method, body, headers])

    def upload(self, url: str, files: list[tuple[str, str, str]], **fields: str) -> Any:
        """Send files, each a name, type and text, as a form of JavaScript's."""
        return self.page.evaluate("request => upload(...request)", [url, files, fields])

    def fetch_blindly(self, url: str, text: str) -> Any:
        """Send a POST of the kind that browsers send without asking first, and do not show the answer of."""
        request = [url, "POST", text, {"Content-Type": "text/plain"}, {"mode": "no-cors"}]
        return self.page.evaluate("request => call(...request)", request)

    def control(self, emulator: RestedEmulator, verb: str, arguments: Any = None) -> Any:
        """Use the control interface, which wants no cookie; without arguments with GET."""
        method, body, headers = "GET", None, {}
        if arguments is not None:
            method, body, headers = "POST", json.dumps(arguments), {"Content-Type": "application/json"}
        request = [f"{emulator.facts['controlUrl']}/{verb}", method, body, headers, {"credentials": "omit"}]
        return self.page.evaluate("request => call(...request)", request)

    def listen(self, url: str) -> Ear:
        """Open a WebSocket in the page."""
        ear = Ear(self.page.evaluate_handle("url => new Ear(url)", url))
        ear.handle.evaluate("ear => ear.opened()")
        return ear

    def log_in(self, emulator: RestedEmulator, user: dict[str, str] = ADA, flags: str = "") -> Any:
        """Log in; the answer."""
        answer = self.fetch(emulator.url(GARDENERS) + "&login=true" + flags, "POST", user)
        assert answer["status"] == 200
        return answer


OpenApp = Callable[..., App]


@pytest.fixture(scope="module")
def page_port() -> Iterator[int]:
    """The port of a web server for the pages, which is what makes them of another origin than the emulator."""
    handler = functools.partial(QuietHandler, directory=str(PAGES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="pages")
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def open_app(context: BrowserContext, page_port: int) -> OpenApp:
    """Open the page in a new tab, under another host name if one is given."""

    def open_app(host: str = "localhost") -> App:
        page = context.new_page()
        page.goto(f"http://{host}:{page_port}/app.html")
        return App(page)

    return open_app


@pytest.fixture
def app(open_app: OpenApp) -> App:
    """The page as its developer opens it."""
    return open_app()


def check_error(answer: Any, status: int, message: str) -> None:
    """Compare an answer with what contract 5.1 says of errors."""
    assert answer["status"] == status
    assert (answer["body"]["code"], answer["body"]["message"]) == (status, message)
    assert answer["body"]["hint"]


# The cookie


def test_a_login_leaves_a_cookie_that_no_script_can_read(
    emulator: RestedEmulator, app: App, context: BrowserContext
) -> None:
    eve = {"username": "eve", "password": "elder"}
    assert app.fetch(emulator.url(GARDENERS), "POST", eve)["body"]["data"] == eve
    answer = app.log_in(emulator, eve)
    assert answer["body"]["data"] == {"username": "eve"}
    assert answer["authorization"] is None
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"]) == (COOKIE, True, True)
    assert (cookie["path"], cookie["sameSite"]) == ("/", "None")
    assert app.page.evaluate("document.cookie") == ""


def test_with_the_cookie_alone_every_change_is_made_and_heard_in_order(emulator: RestedEmulator, app: App) -> None:
    app.log_in(emulator)
    diary = emulator.url(DIARY)
    ear = app.listen(emulator.ws_url(DIARY))
    created = app.fetch(diary, "POST", {"text": "Möhren!", "bed": 1})["body"]
    record = f"{diary}&uniqueId={created['uniqueId']}"
    assert app.fetch(record)["body"] == created
    updated = app.fetch(f"{record}&strategy=merge", "PUT", {"bed": 2})["body"]
    assert updated["data"] == {"text": "Möhren!", "bed": 2}
    assert app.fetch(record, "DELETE")["body"] == updated
    assert app.fetch(record)["body"]["message"] == texts.NO_RECORD
    emulator.close_listeners()
    ear.closed()
    assert ear.heard() == [
        {"type": "POST", "record": created},
        {"type": "PUT", "record": updated},
        {"type": "DELETE", "record": updated},
    ]


def test_two_tabs_share_the_cookie_and_hear_the_same(emulator: RestedEmulator, open_app: OpenApp) -> None:
    one, other = open_app(), open_app()
    one.log_in(emulator)
    ears = [tab.listen(emulator.ws_url(DIARY)) for tab in (one, other)]
    record = other.fetch(emulator.url(DIARY), "POST", "from the other tab")["body"]
    assert [ear.heard(1) for ear in ears] == [[{"type": "POST", "record": record}]] * 2


def test_after_logout_the_cookie_is_gone_and_the_page_reads_why(
    emulator: RestedEmulator, app: App, context: BrowserContext
) -> None:
    app.log_in(emulator)
    ear = app.listen(emulator.ws_url(DIARY))
    assert app.fetch(emulator.url(GARDENERS) + "&logout=true", "POST")["body"] == {}
    assert ear.closed() == (1000, texts.TOKEN_EXPIRED, True)
    assert context.cookies() == []
    refused = app.fetch(emulator.url(DIARY))
    check_error(refused, 401, texts.NO_TOKEN)
    assert "log in" in refused["body"]["hint"]


# The token in the page's own hands


def test_a_token_from_the_login_header_opens_an_endpoint_after_a_preflight(
    emulator: RestedEmulator, app: App, context: BrowserContext, caplog: pytest.LogCaptureFixture
) -> None:
    bearer = app.log_in(emulator, flags="&noATCookie=true")["authorization"]
    assert bearer.startswith("Bearer ")
    assert context.cookies() == []
    assert app.fetch(emulator.url(DIARY))["status"] == 401
    assert f"OPTIONS /api/1/ce/{DIARY} 204" not in caplog.messages
    (record,) = app.fetch(emulator.url(DIARY), Authorization=bearer)["body"]
    assert record["data"] == {"text": "First tomato flower."}
    assert f"OPTIONS /api/1/ce/{DIARY} 204" in caplog.messages


def test_a_token_from_the_login_header_opens_a_socket_by_its_url(emulator: RestedEmulator, app: App) -> None:
    bearer = app.log_in(emulator, flags="&noATCookie=true")["authorization"]
    ear = app.listen(f"{emulator.ws_url(DIARY)}&accessToken={bearer.removeprefix('Bearer ')}")
    record = app.fetch(emulator.url(DIARY), "POST", "by header", Authorization=bearer)["body"]
    assert ear.heard(1) == [{"type": "POST", "record": record}]


# How a socket ends


def test_a_refused_socket_says_why(emulator: RestedEmulator, app: App) -> None:
    for address, reason in (
        (f"{PLANTS}?key=wrong", texts.NOT_VALID),
        (PLANTS, texts.NOT_VALID),
        (f"garden/nothing?key={KEY}", texts.NOT_VALID),
        (f"{DIARY}?key={KEY}", texts.NO_TOKEN),
        (f"{DIARY}?key={KEY}&accessToken=invented", texts.NO_TOKEN),
    ):
        assert app.listen(f"{emulator.facts['wsUrl']}/{address}").closed() == (4000, reason, True)


def test_a_socket_of_an_expired_token_ends_and_the_page_reads_why(emulator: RestedEmulator, app: App) -> None:
    app.log_in(emulator)
    ear = app.listen(emulator.ws_url(DIARY))
    assert emulator.advance(3600)["closed"] == 1
    assert ear.closed() == (1000, texts.TOKEN_EXPIRED, True)
    refused = app.fetch(emulator.url(DIARY))
    check_error(refused, 401, texts.TOKEN_EXPIRED)
    assert app.listen(emulator.ws_url(DIARY)).closed() == (4000, texts.NO_TOKEN, True)


def test_a_socket_ends_when_options_change_and_with_1001_when_the_emulator_stops(
    emulator: RestedEmulator, app: App
) -> None:
    ear = app.listen(emulator.ws_url(PLANTS))
    emulator.change_endpoint(PLANTS, description="another")
    assert ear.closed() == (1000, texts.OPTIONS_CHANGED, True)
    ear = app.listen(emulator.ws_url(PLANTS))
    emulator.stop()
    assert ear.closed() == (1001, "The emulator stops.", True)


# Errors that a page can read


def test_a_page_reads_what_is_wrong_with_or_without_a_preflight(emulator: RestedEmulator, app: App) -> None:
    for address, status, message in (
        (f"/api/1/ce/{PLANTS}?key=wrong", 400, texts.NOT_VALID),
        (f"/api/1/ce/garden/nothing?key={KEY}", 400, texts.NOT_VALID),
        (f"/api/1/ce/{PLANTS}", 403, texts.KEY_MISSING),
        (f"/api/2/ce/{PLANTS}?key={KEY}", 404, texts.NOT_FOUND),
    ):
        url = f"http://{emulator.facts['host']}{address}"
        check_error(app.fetch(url), status, message)
        check_error(app.fetch(url, "POST", {"name": "Leek"}), status, message)
    check_error(app.fetch(f"{emulator.url(PLANTS)}&uniqueId=nobody"), 400, texts.NO_RECORD)
    check_error(app.fetch(emulator.url(PLANTS), "PUT", {"bed": 1}), 400, texts.ONE_UNIQUE_ID)


def test_a_page_reads_that_its_body_is_too_large(emulator: RestedEmulator, app: App) -> None:
    before = emulator.records(PLANTS)
    answer = app.fetch(emulator.url(PLANTS), "POST", "x" * 2_000_000)
    check_error(answer, 413, texts.TOO_LARGE)
    assert emulator.records(PLANTS) == before


def test_a_page_reads_that_a_control_verb_is_misspelt(emulator: RestedEmulator, app: App) -> None:
    refused = app.control(emulator, "resett", {})
    check_error(refused, 404, texts.NOT_FOUND)
    assert "did you mean reset?" in refused["body"]["hint"]


def test_a_page_that_forgot_its_credentials_reads_so(emulator: RestedEmulator, app: App) -> None:
    app.log_in(emulator)
    request = [emulator.url(DIARY), "GET", None, {}, {"credentials": "same-origin"}]
    refused = app.page.evaluate("request => call(...request)", request)
    check_error(refused, 401, texts.NO_TOKEN)
    assert 'credentials: "include"' in refused["body"]["hint"]


@pytest.mark.warns("will drop the access token cookie")
def test_a_page_on_another_host_reads_in_every_401_why_its_cookie_is_gone(
    emulator: RestedEmulator, open_app: OpenApp
) -> None:
    app = open_app("127.0.0.1")
    app.log_in(emulator)
    for _ in range(2):
        refused = app.fetch(emulator.url(DIARY))
        check_error(refused, 401, texts.NO_TOKEN)
        assert "the page is on '127.0.0.1' and the emulator on 'localhost'" in refused["body"]["hint"]


@pytest.mark.warns("The body is JSON and counts as text")
def test_json_that_fetch_calls_text_is_told(emulator: RestedEmulator, app: App) -> None:
    answer = app.page.evaluate("request => call(...request)", [emulator.url(PLANTS), "POST", '{"name": "Leek"}'])
    assert answer["body"]["data"] == '{"name": "Leek"}'
    emulator.settle()
    assert emulator.requests(method="POST")[-1]["warnings"]


@pytest.mark.warns("so the client will leave")
def test_a_browser_leaves_where_its_subprotocol_is_not_spoken(emulator: RestedEmulator, app: App) -> None:
    script = "url => new Promise((end) => (new WebSocket(url, 'graphql-ws').onclose = ({ code }) => end(code)))"
    assert app.page.evaluate(script, emulator.ws_url(PLANTS)) == 1006
    assert emulator.messages(type="OPEN")[-1]["warnings"]


# Pages that are not allowed


def check_kept_out(app: App, emulator: RestedEmulator) -> None:
    """Try all ways in from a page, also with a token; none may show, change or tell anything."""
    before = emulator.records(PLANTS)
    bearer = f"Bearer {emulator.sign_in(GARDENERS, 'ada', 'apricot')}"
    plants, diary = emulator.url(PLANTS), emulator.url(DIARY)
    tomato = f"{plants}&uniqueId={TOMATO}"
    attempts: list[tuple[Any, ...]] = [
        (plants,),
        (diary,),
        (plants, "POST", {}),
        (tomato, "PUT", {}),
        (tomato, "DELETE"),
    ]
    for attempt in attempts:
        with pytest.raises(Error, match=UNREADABLE):
            app.fetch(*attempt)
    with pytest.raises(Error, match=UNREADABLE):
        app.fetch(diary, Authorization=bearer)
    assert app.fetch_blindly(plants, "text") == OPAQUE
    assert emulator.records(PLANTS) == before
    with_token = f"{emulator.ws_url(DIARY)}&accessToken={bearer.removeprefix('Bearer ')}"
    ears = [app.listen(url) for url in (emulator.ws_url(PLANTS), emulator.ws_url(DIARY), with_token)]
    assert call(plants, "POST", "not for foreign ears").status == 200
    for ear in ears:
        assert ear.closed() == (4000, texts.ORIGIN_REFUSED, True)
        assert ear.heard() == []


def test_a_page_that_the_project_does_not_allow_is_kept_out(app: App) -> None:
    with RestedEmulator(data=GARDEN, allow_origin=["http://localhost:1"]) as emulator:
        check_kept_out(app, emulator)


def test_a_page_that_the_project_no_longer_allows_is_cut_off_and_kept_out(emulator: RestedEmulator, app: App) -> None:
    app.log_in(emulator)
    ear = app.listen(emulator.ws_url(DIARY))
    emulator.change_project(allowed_origins=["http://localhost:1"])
    assert ear.closed() == (1000, texts.OPTIONS_CHANGED, True)
    check_kept_out(app, emulator)


def test_a_page_that_the_project_names_gets_in(app: App) -> None:
    with RestedEmulator(data=GARDEN, allow_origin=[app.origin]) as emulator:
        assert app.fetch(emulator.url(PLANTS), "POST", {"name": "Leek"})["status"] == 200
        app.listen(emulator.ws_url(PLANTS))


def test_a_foreign_page_is_kept_out_although_every_origin_is_allowed(
    emulator: RestedEmulator, open_app: OpenApp
) -> None:
    open_app().log_in(emulator)
    check_kept_out(open_app(EVIL), emulator)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_foreign_page_gets_in_where_the_owner_says_so(open_app: OpenApp, by_name: bool) -> None:
    evil = open_app(EVIL)
    options: dict[str, Any] = {"allow_origin": [evil.origin]} if by_name else {"allow_any_origin": True}
    with RestedEmulator(data=GARDEN, **options) as emulator:
        ear = evil.listen(emulator.ws_url(PLANTS))
        record = evil.fetch(emulator.url(PLANTS), "POST", {"name": "Leek"})["body"]
        assert ear.heard(1) == [{"type": "POST", "record": record}]


def test_a_foreign_name_that_leads_to_this_machine_opens_nothing(
    emulator: RestedEmulator, context: BrowserContext
) -> None:
    rebound = emulator.url(PLANTS).replace("localhost", EVIL)
    page = context.new_page()
    response = page.goto(rebound)
    assert response is not None
    assert (response.status, response.json()["message"]) == (403, texts.HOST_REFUSED)
    # Now the page is of the very origin that it asks, so no rule of the browser's is in the way.
    post = (
        "url => fetch(url, {method: 'POST', body: 'text', signal: AbortSignal.timeout(10_000)}).then(it => it.status)"
    )
    assert page.evaluate(post, rebound) == 403
    page.evaluate(
        "url => void (new WebSocket(url).onclose = event => window.code = event.code)", rebound.replace("http:", "ws:")
    )
    assert page.wait_for_function("() => window.code").json_value() == 1006
    assert len(emulator.records(PLANTS)) == 3


# The control interface


def test_a_page_on_this_machine_can_use_the_control_interface(emulator: RestedEmulator, app: App) -> None:
    ear = app.listen(emulator.ws_url(PLANTS))
    assert app.control(emulator, "status")["status"] == 200
    assert app.control(emulator, "close-listeners", {"code": 4321})["body"] == {"closed": 1}
    assert ear.closed() == (4321, "", True)


# Files (contract 8)


def element(name: str, content: bytes | int) -> bytes:
    """An element of a WebM file; numbers and lengths always take eight bytes."""
    content = content.to_bytes(8, "big") if isinstance(content, int) else content
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def webm(frames: list[bytes], width: int, height: int, milliseconds: int) -> bytes:
    """A video of VP8 frames, each a key frame that the cues in front lead to."""
    kind = element("4282", b"webm") + element("4287", 2) + element("4285", 2)
    duration = struct.pack(">d", len(frames) * milliseconds)
    info = element("1549A966", element("2AD7B1", 1_000_000) + element("4489", duration))
    picture = element("E0", element("B0", width) + element("BA", height))
    track = element("D7", 1) + element("73C5", 1) + element("83", 1) + element("86", b"V_VP8") + picture
    tracks = element("1654AE6B", element("AE", track))
    times = range(0, len(frames) * milliseconds, milliseconds)
    clusters = [
        element("1F43B675", element("E7", time) + element("A3", b"\x81\0\0\x80" + frame))
        for time, frame in zip(times, frames, strict=True)
    ]

    def cues(at: int) -> bytes:
        starts = itertools.accumulate(map(len, clusters[:-1]), initial=at)
        places = zip(times, starts, strict=True)
        points = [
            element("B3", time) + element("B7", element("F7", 1) + element("F1", start)) for time, start in places
        ]
        return element("1C53BB6B", b"".join(element("BB", point) for point in points))

    front = info + tracks
    front += cues(len(front) + len(cues(0)))
    return element("1A45DFA3", kind) + element("18538067", front + b"".join(clusters))


def key_frame(webp: bytes) -> bytes:
    """The VP8 key frame that a picture in lossy WebP consists of."""
    at = 12
    while webp[at : at + 4] != b"VP8 ":
        at += 8 + -(-int.from_bytes(webp[at + 4 : at + 8], "little") // 2) * 2
    return webp[at + 8 : at + 8 + int.from_bytes(webp[at + 4 : at + 8], "little")]


def test_a_video_plays_and_seeks(emulator: RestedEmulator, context: BrowserContext, page_port: int) -> None:
    page = context.new_page()
    asked: list[tuple[int, str]] = []
    page.on("response", lambda answer: asked.append((answer.status, answer.headers.get("content-range", ""))))
    page.goto(f"http://localhost:{page_port}/video.html")
    pictures = page.evaluate("pictures(4, 640, 480)")
    frames = [key_frame(base64.b64decode(picture.partition(",")[2])) for picture in pictures]
    video = webm(frames * 30, 640, 480, 500)
    assert len(video) > 10 * 2**20, "so small that Chromium reads it all at once"
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="noise.webm"\r\n'
    form += b"Content-Type: video/webm\r\n\r\n%b\r\n--x--\r\n" % video
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    record = call(emulator.url(PLANTS), "POST", body=form, headers=headers).json
    assert record["data"]["mimeType"] == "video/webm"

    asked.clear()
    url = f"{emulator.url(PLANTS)}&uniqueId={record['uniqueId']}&fileOnly=true&stream=true"
    assert page.evaluate("url => load(url)", url) == [60, 640, 480]
    assert page.evaluate("play()") > 0
    assert page.evaluate("seek(57)") == 57
    assert page.evaluate("play()") > 57
    assert page.evaluate("seek(3)") == 3
    assert {status for status, _ in asked} == {206}
    assert any(not ranges.startswith("bytes 0-") for _, ranges in asked), f"{asked}: it did not jump"


SCRIPTS = {
    "text/html": "<!doctype html><title>still</title><script>document.title = 'ran'</script>",
    "image/svg+xml": (
        '<svg xmlns="http://www.w3.org/2000/svg"><title>still</title><script>document.title = "ran"</script></svg>'
    ),
    "application/xhtml+xml": (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>still</title>'
        "<script>document.title = 'ran'</script></head></html>"
    ),
}


def test_an_uploaded_page_is_shown_and_does_not_run(
    emulator: RestedEmulator, context: BrowserContext, app: App
) -> None:
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    for kind, content in SCRIPTS.items():
        refused.clear()
        record = app.upload(emulator.url(PLANTS), [("page", kind, content)])["body"]
        page.goto(f"{emulator.url(PLANTS)}&uniqueId={record['uniqueId']}&fileOnly=true")
        assert page.title() == "still"
        assert any("sandboxed" in text for text in refused), refused


def test_an_uploaded_text_is_no_script_of_a_page(emulator: RestedEmulator, app: App) -> None:
    record = app.upload(emulator.url(PLANTS), [("a.txt", "text/plain", "window.ran = true")])["body"]
    url = f"{emulator.url(PLANTS)}&uniqueId={record['uniqueId']}&fileOnly=true"
    assert app.page.evaluate("url => loadScript(url)", url) == "error"
    assert app.page.evaluate("window.ran") is None


def test_a_page_uploads_files_and_hears_of_them(emulator: RestedEmulator, app: App) -> None:
    ear = app.listen(emulator.ws_url(PLANTS))
    files = [('Grüße "eins" 日本.txt', "text/plain", "Möhren"), ("leer", "", "")]
    records = app.upload(emulator.url(PLANTS), files, title="Beet 1")["body"]
    assert [record["data"] for record in records] == [
        {"originalName": files[0][0], "mimeType": "text/plain", "size": 7, "metadata": {"title": "Beet 1"}},
        {"originalName": "leer", "mimeType": "application/octet-stream", "size": 0, "metadata": {"title": "Beet 1"}},
    ]
    assert ear.heard(1) == [{"type": "POST", "record": records}]


def test_a_page_reads_that_its_files_are_too_many(emulator: RestedEmulator, app: App) -> None:
    before = emulator.records(PLANTS)
    answer = app.upload(emulator.url(PLANTS), [("a.txt", "text/plain", "abc")] * 11)
    check_error(answer, 400, texts.WRONG_FILES)
    assert emulator.records(PLANTS) == before


def test_a_form_without_javascript_uploads_what_is_chosen(
    emulator: RestedEmulator, context: BrowserContext, page_port: int, tmp_path: Path
) -> None:
    names = ["Möhren 'rot'.txt", "a;b\\c.txt"]
    for name in names:
        (tmp_path / name).write_bytes(b"line\r\nline\0")
    page = context.new_page()
    page.goto(f"http://localhost:{page_port}/form.html")
    page.evaluate("url => (document.forms[0].action = url)", emulator.url(PLANTS))
    page.get_by_label("Files").set_input_files([tmp_path / name for name in names])
    page.get_by_label("Title").fill("Beet 1")
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Send").click()
    data = [record["data"] for record in navigation.value.json()]
    assert [each["originalName"] for each in data] == names
    assert [(each["mimeType"], each["size"]) for each in data] == [("text/plain", 11)] * 2
    assert [each["metadata"] for each in data] == [{"title": "Beet 1"}] * 2


# What the documentation shows


def test_the_snippet_of_the_services_page_works_against_the_sample_project(
    context: BrowserContext, page_port: int
) -> None:
    with RestedEmulator() as emulator:
        host = emulator.facts["host"]
        page = context.new_page()
        page.goto(f"http://localhost:{page_port}/snippet.html?{host}")
        expect(page).to_have_title("open", timeout=TIMEOUT)
        url = f"http://{host}/api/1/ce/examples/unsecure-endpoint?key={SAMPLE_KEY}"
        assert call(url, "POST", {"text": "Hello, ears!"}).status == 200
        expect(page.get_by_role("listitem")).to_have_text("POST Hello, ears!", timeout=TIMEOUT)


# Attacks by a page of another site

FORM = """([url, kind, name, value]) => new Promise((resolve, reject) => {
    const frame = document.createElement('iframe'), form = document.createElement('form')
    const area = document.createElement('textarea')
    frame.name = form.target = 'answer'
    document.body.append(frame, form)
    form.append(area)
    Object.assign(area, {name, value})
    Object.assign(form, {action: url, method: 'POST', enctype: kind})
    frame.onload = () => { frame.remove(); form.remove(); resolve(true) }
    setTimeout(() => reject(new Error('the form got no answer')), 10000)
    form.submit()
})"""
IMAGE = """url => new Promise((resolve, reject) => {
    const image = new Image()
    image.onload = () => resolve('loaded')
    image.onerror = () => resolve('error')
    setTimeout(() => reject(new Error('the image got no answer')), 10000)
    image.src = url
})"""
CLOSED = """url => new Promise((resolve, reject) => {
    new WebSocket(url).onclose = event => resolve(event.code)
    setTimeout(() => reject(new Error('the socket was not closed')), 10000)
})"""
# What each makes of a body, where the other side does not look closely: JSON, with what a form adds at its end.
FORM_KINDS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")


@pytest.mark.parametrize("gate", ["shut", "open", "open by name"])
def test_a_hostile_page_reads_and_changes_nothing_by_control(open_app: OpenApp, gate: str) -> None:
    evil = open_app(EVIL)
    options = {"allow_any_origin": gate == "open", "allow_origin": [evil.origin] if gate == "open by name" else []}
    with RestedEmulator(data=GARDEN, **options) as emulator:
        attack(evil, emulator, f"{emulator.facts['controlUrl']}/delete-endpoint", f'{{"name": "{PLANTS}", "x": "', '"}')
        for verb, arguments in (("status", None), ("reset", {})):
            with pytest.raises(Error, match=UNREADABLE):
                evil.control(emulator, verb, arguments)
        url = f"{emulator.facts['controlUrl']}/reset".replace("http:", "ws:")
        assert evil.page.evaluate(CLOSED, url) == 1006


def test_a_hostile_page_changes_nothing_by_the_api(emulator: RestedEmulator, open_app: OpenApp) -> None:
    open_app().log_in(emulator)  # so that the browser has a cookie to send along
    evil = open_app(EVIL)
    for url in (emulator.url(PLANTS), emulator.url(DIARY), f"{emulator.url(GARDENERS)}&logout=true"):
        attack(evil, emulator, url, '{"a": "', '"}')
        with pytest.raises(Error, match=UNREADABLE):
            evil.fetch(url, "POST", {})
    for url in (emulator.ws_url(PLANTS), emulator.ws_url(DIARY)):
        assert evil.listen(url).closed() == (4000, texts.ORIGIN_REFUSED, True)


def attack(evil: App, emulator: RestedEmulator, url: str, name: str, value: str) -> None:
    """Send all that a page may send without asking first; nothing changes, and nobody hears of anything."""
    before = emulator.status()["projects"], [emulator.records(each) for each in (PLANTS, DIARY, GARDENERS)]
    assert evil.fetch_blindly(url, name + value) == OPAQUE
    for kind in FORM_KINDS:
        assert evil.page.evaluate(FORM, [url, kind, name, value])
    assert evil.page.evaluate(IMAGE, url) == "error"
    assert evil.page.evaluate("([url, text]) => navigator.sendBeacon(url, text)", [url, name + value])
    assert evil.page.evaluate(IMAGE, url) == "error"
    after = emulator.status()["projects"], [emulator.records(each) for each in (PLANTS, DIARY, GARDENERS)]
    assert after == before
