"""Static: the files of a folder at /, with what browsers want of them, and no way out of the folder (--static)."""

from __future__ import annotations

import mimetypes
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import trustme

from rested_emulator import OptionError, Options, RestedEmulator
from tests import texts
from tests.conftest import GARDEN, GARDENERS, PLANTS
from tests.wire import (
    FOREIGN,
    HANDSHAKE,
    OTHER_PAGE,
    PAGE,
    Reply,
    answer_on,
    assert_refusal,
    at,
    at_end,
    base,
    call,
    call_securely,
    cors_of,
    give_up_at_stop_after,
    head,
    next_of,
    open_socket,
    send,
    wire,
)

SECRET = b"the key is under the third stone"
DIGITS = b"0123456789"
BINARY = bytes(range(256))
NAVIGATION = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"  # as browsers send it

FILES = {
    "index.html": b"<!doctype html><title>Garden</title>",
    "app.js": b"export {}",
    "digits.bin": DIGITS,
    "empty.bin": b"",
    "docs/index.html": b"<p>docs",
    "docs/deep/index.html": b"<p>deep",
    "docs/page.html": b"<p>page",
    "bare/file.txt": b"bare",
    "with space/index.html": b"<p>space",
    "K\u00fcrbis/index.html": b"<p>pumpkin",
    "evil.example/index.html": b"<p>harmless",
}


def make_site(parent: Path) -> Path:
    """Make a folder of files, next to which lies what is nobody's business."""
    folder = parent / "site"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for secret in ("secret.txt", "site-secret.txt", "index.html", "outside/index.html"):
        path = parent / secret
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(SECRET)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestedEmulator]:
    """The garden, and files; tests only read them, and ``put`` others beside them."""
    with RestedEmulator(data=GARDEN, static=make_site(tmp_path_factory.mktemp("served"))) as running:
        yield running


@pytest.fixture
def emulator(site: Path) -> Iterator[RestedEmulator]:
    """The garden, and the files, over a real port."""
    with RestedEmulator(data=GARDEN, static=site) as running:
        yield running


def get(emulator: RestedEmulator, target: str, method: str = "GET", **headers: str) -> Reply:
    """Ask for a file, by a target that no client library puts in order."""
    with wire(emulator) as connection:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall(head(method, target, *lines))
        return answer_on(connection, method)


def put(emulator: RestedEmulator, name: str, content: bytes = BINARY) -> None:
    """Put a file into the folder that is served."""
    path = Path(str(emulator.options.static)) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def assert_file(reply: Reply, content: bytes) -> None:
    assert (reply.status, reply.body) == (200, content)
    assert reply.headers["content-length"] == str(len(content))


# What there is


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/", "index.html"),
        ("/index.html", "index.html"),
        ("/app.js", "app.js"),
        ("/empty.bin", "empty.bin"),
        ("/docs/", "docs/index.html"),
        ("/docs/deep/", "docs/deep/index.html"),
        ("/docs/page.html", "docs/page.html"),
        ("/bare/file.txt", "bare/file.txt"),
        ("/with%20space/", "with space/index.html"),
        ("/K%C3%BCrbis/", "K\u00fcrbis/index.html"),
        ("/K%c3%bcrbis/index.html", "K\u00fcrbis/index.html"),
        ("/K\u00fcrbis/index.html", "K\u00fcrbis/index.html"),
        ("/%61pp.js", "app.js"),
        ("/app.js?v=2", "app.js"),
        ("/app.js?/../../secret.txt", "app.js"),
        ("/?route=/docs", "index.html"),
        ("/docs/?a=%00", "docs/index.html"),
        ("/docs/../app.js", "app.js"),
        ("/./app.js", "app.js"),
    ],
)
def test_a_file_is_sent_as_it_is(served: RestedEmulator, target: str, name: str) -> None:
    assert_file(get(served, target), FILES[name])


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("100%.txt", "/100%25.txt"),
        ("%41.txt", "/%2541.txt"),
        ("%2e%2e", "/%252e%252e"),
        ("what?.txt", "/what%3F.txt"),
        ("a#b.txt", "/a%23b.txt"),
        ("a;b.txt", "/a;b.txt"),
        ("a+b.txt", "/a+b.txt"),
        ("a b.txt", "/a%20b.txt"),
        (" .txt", "/%20.txt"),
        ("\U0001f955 \u0436.txt", "/%F0%9F%A5%95%20%D0%B6.txt"),
        ("'\"<>&.txt", "/%27%22%3C%3E%26.txt"),
        ("back\\slash.txt", "/back%5Cslash.txt"),
        ("new\nline.txt", "/new%0Aline.txt"),
        ("http:x.txt", "/http:x.txt"),
        (".well-known", "/.well-known"),
        ("a.", "/a."),
        ("x" * 255, "/" + "x" * 255),
    ],
)
def test_a_file_may_have_any_name(served: RestedEmulator, name: str, target: str) -> None:
    put(served, f"names/{name}")
    assert_file(get(served, f"/names{target}"), BINARY)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.htm", "text/html; charset=utf-8"),
        ("A.HTML", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.min.JS", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.js.map", "application/json; charset=utf-8"),
        ("a.webmanifest", "application/manifest+json; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.ico", "image/vnd.microsoft.icon"),
        ("a.woff2", "font/woff2"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.wasm", "application/wasm"),
        ("a.pdf", "application/pdf"),
        ("a.nobodyknows", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("a.b/c", "application/octet-stream"),
        ("a.js.gz", "application/octet-stream"),
        ("a.html.br", "application/octet-stream"),
    ],
)
def test_the_content_type_is_by_the_name(served: RestedEmulator, name: str, kind: str) -> None:
    put(served, f"types/{name}")
    reply = get(served, f"/types/{name}")
    assert_file(reply, BINARY)
    assert "content-encoding" not in reply.headers
    assert reply.headers["content-type"] == kind


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which somebody has said what they think of types."""
    table = tmp_path / "mime.types"
    table.write_text("text/plain js mjs css html json pdf nobodyknows\n")
    with monkeypatch.context() as patch:
        patch.setattr(mimetypes, "knownfiles", [str(table)])
        mimetypes.init()
        yield
    mimetypes.init()


@pytest.mark.usefixtures("poisoned")
def test_the_machine_has_no_say_in_content_types(emulator: RestedEmulator, site: Path) -> None:
    assert mimetypes.guess_type("a.js")[0] == mimetypes.guess_type("a.nobodyknows")[0] == "text/plain"
    (site / "a.pdf").touch()
    (site / "a.nobodyknows").touch()
    assert get(emulator, "/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert get(emulator, "/").headers["content-type"] == "text/html; charset=utf-8"
    assert get(emulator, "/a.pdf").headers["content-type"] == "application/pdf"
    assert get(emulator, "/a.nobodyknows").headers["content-type"] == "application/octet-stream"
    assert get(emulator, "/__emulator__/main.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_an_answer_has_these_headers_and_no_others(served: RestedEmulator) -> None:
    reply = get(served, "/docs/page.html")
    assert reply.headers == {
        "content-type": "text/html; charset=utf-8",
        "content-length": "7",
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
    }


# What is there now


def test_a_file_that_changes_is_served_fresh(emulator: RestedEmulator, site: Path) -> None:
    page = site / "page.html"
    assert get(emulator, "/page.html").status == 404
    for content in (b"one", b"another", b"", b"two"):
        page.write_bytes(content)
        assert_file(get(emulator, "/page.html", If_Modified_Since="Fri, 31 Dec 9999 23:59:59 GMT"), content)
    page.unlink()
    page.mkdir()
    assert get(emulator, "/page.html").status == 301
    (page / "index.html").write_bytes(b"a folder now")
    assert_file(get(emulator, "/page.html/"), b"a folder now")


def test_a_folder_that_is_built_anew_is_served_fresh(emulator: RestedEmulator, site: Path) -> None:
    site.rename(site.parent / "old")
    assert get(emulator, "/").status == 404
    site.mkdir()
    (site / "index.html").write_bytes(b"built")
    assert_file(get(emulator, "/"), b"built")


def test_a_large_file_arrives_whole_while_others_are_served(emulator: RestedEmulator, site: Path) -> None:
    content = BINARY * 2**15
    (site / "large.bin").write_bytes(content)
    with wire(emulator) as patient:
        patient.sendall(head("GET", "/large.bin"))
        assert_file(get(emulator, "/app.js"), b"export {}")
        assert len(call(emulator.url(PLANTS)).json) == 3
        assert_file(answer_on(patient), content)


def test_a_client_that_leaves_amid_a_file_does_no_harm(emulator: RestedEmulator, site: Path) -> None:
    (site / "large.bin").write_bytes(bytes(2**26))
    for _ in range(3):
        with wire(emulator) as connection:
            connection.sendall(head("GET", "/large.bin"))
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert_file(get(emulator, "/app.js"), b"export {}")


def test_a_connection_that_closes_after_the_file(served: RestedEmulator) -> None:
    with wire(served) as connection:
        connection.sendall(head("GET", "/digits.bin", "Connection: close"))
        assert_file(answer_on(connection), DIGITS)
        assert at_end(connection)


@pytest.mark.parametrize(("patience", "leaves"), [(9.0, True), (0.2, False)])
def test_a_stop_does_not_wait_for_a_client_that_has_left_nor_long_for_one_that_does_not_read(
    site: Path, monkeypatch: pytest.MonkeyPatch, patience: float, leaves: bool
) -> None:
    give_up_at_stop_after(patience, monkeypatch)
    (site / "large.bin").write_bytes(bytes(2**26))
    emulator = RestedEmulator(data=GARDEN, static=site)
    emulator.start()
    with wire(emulator) as connection:
        connection.sendall(head("GET", "/large.bin"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        if leaves:
            connection.close()
        begun = time.monotonic()
        emulator.stop()
        assert time.monotonic() - begun < 8


def test_a_file_that_is_cut_while_it_is_sent_ends_the_connection(emulator: RestedEmulator, site: Path) -> None:
    size = 2**26
    (site / "large.bin").write_bytes(bytes(size))
    with wire(emulator) as connection:
        connection.sendall(head("GET", "/large.bin"))
        received = len(connection.recv(1000))
        os.truncate(site / "large.bin", 2**20)
        while part := connection.recv(2**20):
            received += len(part)
    assert received < size
    assert_file(get(emulator, "/app.js"), b"export {}")


def test_requests_on_one_connection_are_answered_in_order(served: RestedEmulator) -> None:
    with wire(served) as connection:
        targets = ["/", "/nothing", "/docs", "/app.js", at(PLANTS), "/empty.bin", "/digits.bin"]
        connection.sendall(b"".join(head("GET", target) for target in targets))
        answers = [answer_on(connection) for _ in targets]
    assert [answer.status for answer in answers] == [200, 404, 301, 200, 200, 200, 200]
    assert (answers[0].body, answers[3].body, answers[6].body) == (FILES["index.html"], b"export {}", DIGITS)


# What there is not


NOTHING = {
    "no file": "/nothing.html",
    "no file in a folder": "/docs/nothing.html",
    "no folder": "/nothing/",
    "a file as a folder": "/app.js/",
    "a file in a file": "/app.js/index.html",
    "another case": "/APP.JS",
    "a folder without index": "/bare/",
    "index of a folder without": "/bare/index.html",
    "dots": "/../secret.txt",
    "dots in a folder": "/docs/../../secret.txt",
    "dots as a folder": "/..",
    "dots and a slash": "/../",
    "many dots": "/" + "../" * 40 + "etc/passwd",
    "escaped dots": "/%2e%2e/secret.txt",
    "upper case escapes": "/%2E%2E%2Fsecret.txt",
    "an escaped slash": "/..%2fsecret.txt",
    "escaped dots in a folder": "/docs/%2e%2e/%2e%2e/secret.txt",
    "escaped twice": "/%252e%252e/secret.txt",
    "escaped twice whole": "/%252e%252e%252fsecret.txt",
    "an overlong slash": "/..%c0%afsecret.txt",
    "an overlong dot": "/%c0%ae%c0%ae/secret.txt",
    "a wide slash": "/..%ef%bc%8fsecret.txt",
    "dots by backslash": "/..\\secret.txt",
    "dots by escaped backslash": "/..%5csecret.txt",
    "a backslash": "/docs\\page.html",
    "a folder that begins like ours": "/../site-secret.txt",
    "an absolute path": "//etc/passwd",
    "an escaped absolute path": "/%2fetc/passwd",
    "a path below": "/../outside/",
    "a null": "/app.js%00",
    "a null and more": "/app.js%00.html",
    "a null before": "/%00/app.js",
    "not UTF-8": "/%ff",
    "half of a letter": "/K%C3",
    "a surrogate": "/%ed%a0%80",
    "a broken escape": "/%zz",
    "an escape that breaks off": "/app.js%",
    "a question mark escaped": "/app.js%3Fv=2",
    "a fragment": "/app.js%23top",
    "a very long name": "/" + "x" * 256,
    "a very long path": "/" + "x/" * 5000,
    "a home": "/~root/.profile",
    "a variable": "/$HOME",
    "a drive": "/C:/index.html",
    "a star": "*",
    "a whole URL": "http://localhost/app.js",
    "a whole file URL": "file:///etc/passwd",
    "the API without its slash": "/api/1/ce",
    "another API": "/api/2/ce/garden/plants",
    "control without its slash": "/__emulator__",
}


ROUTES_TOO = {  # which an app may have made up, so that a browser gets the index
    *("no folder", "a folder without index", "an absolute path", "an escaped absolute path", "a broken escape"),
    *("a very long name", "a variable"),
}


@pytest.mark.parametrize(("name", "target"), NOTHING.items(), ids=NOTHING.keys())
def test_what_is_not_in_the_folder_is_a_404(served: RestedEmulator, name: str, target: str) -> None:
    assert get(served, target, "HEAD").status == 404
    reply = get(served, target)
    assert_refusal(reply, 404, texts.NOT_FOUND)
    assert SECRET not in reply.body
    assert "--static" in reply.json["hint"]
    assert str(served.options.static) not in reply.json["hint"]
    browsed = get(served, target, Accept=NAVIGATION)
    assert browsed.status == (200 if name in ROUTES_TOO else 404)
    assert browsed.status == 404 or browsed.body == FILES["index.html"]


HIDDEN = "begins with a dot"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".env", "/.env"),
        (".env", "/%2eenv"),
        (".env", "/%2Eenv"),
        (".env", "//.env"),
        (".env", "/docs/../.env"),
        (".env", "/.env/"),
        (".html", "/.html"),
        ("...", "/..."),
        ("..data", "/..data"),
        (".git/config", "/.git/config"),
        (".git/index.html", "/.git/"),
        (".git/index.html", "/.git"),
        ("docs/.git/config", "/docs/.git/config"),
        (".well-known/.env", "/.well-known/.env"),
        (".well-knownx", "/.well-knownx"),
    ],
)
def test_what_begins_with_a_dot_is_not_served(served: RestedEmulator, name: str, target: str) -> None:
    put(served, name, SECRET)
    assert get(served, target, "HEAD").status == 404
    reply = get(served, target)
    assert_refusal(reply, 404, texts.NOT_FOUND)
    assert HIDDEN in reply.json["hint"]
    assert get(served, "/.nothing").json["hint"].count(HIDDEN) == 1


def test_what_is_well_known_is_served(emulator: RestedEmulator, site: Path) -> None:
    (site / ".well-known").mkdir()
    (site / ".well-known" / "assetlinks.json").write_bytes(b"[]")
    assert_file(get(emulator, "/.well-known/assetlinks.json"), b"[]")


def test_no_link_makes_what_is_hidden_seen(emulator: RestedEmulator, site: Path) -> None:
    (site / ".env").write_bytes(SECRET)
    (site / ".git").mkdir()
    (site / ".git" / "config").write_bytes(SECRET)
    (site / "env.txt").symlink_to(".env")
    (site / "git").symlink_to(".git")
    (site / ".page").symlink_to("app.js")
    for target in ("/env.txt", "/git/config", "/git/", "/.page"):
        assert HIDDEN in get(emulator, target).json["hint"]


def test_a_folder_that_is_hidden_itself_may_be_served(tmp_path: Path) -> None:
    site = make_site(tmp_path / ".output")
    with RestedEmulator(data=GARDEN, static=site) as emulator:
        assert_file(get(emulator, "/app.js"), b"export {}")


def test_a_stream_of_a_file_and_a_drive_are_nothing_on_windows(
    emulator: RestedEmulator, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("app.js::$DATA", "C:"):
        (site / name).write_bytes(SECRET)
    monkeypatch.setattr(os, "name", "nt")
    replies = [get(emulator, target) for target in ("/app.js::$DATA", "/app.js%3a%3a$DATA", "/C:", "/app.js")]
    monkeypatch.undo()
    assert [reply.status for reply in replies] == [404, 404, 404, 200]


# What is the emulator's own

OWN = "the emulator's own"
UPLOAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nfile\r\n--x--\r\n'
LEFT = ["kept", "kept.tmp", "tmp", "draft", "journal.tmp", "ca-key.pem.new", "ca.pem.new", "files/half.part"]


def test_whatever_the_emulator_writes_is_not_served(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    (site / "seed.json").write_bytes(GARDEN.read_bytes())
    before = {path for path in site.rglob("*") if path.is_file()} - {site / "seed.json"}
    with RestedEmulator(data="db.json", seed="seed.json", memory=False, tls=True, static=".") as emulator:
        trust = ssl.create_default_context(cafile=str(emulator.facts["ca"]))
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        url, here = emulator.url(PLANTS), f"https://{emulator.facts['host']}"
        assert send(HTTPSConnection("localhost", urlsplit(url).port, context=trust), url, "POST", ..., UPLOAD, kind, {})
        for name in LEFT:
            Path(f"db.json.{name}").write_bytes(SECRET)
        mine = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()} - {
            str(path.relative_to(site)) for path in before
        }
        assert mine >= {
            "db.json",
            "db.json.journal",
            "db.json.lock",
            "db.json.ca.pem",
            "db.json.ca-key.pem",
            "seed.json",
        }
        assert sum(name.startswith("db.json.files/") for name in mine) == 2
        for name in sorted(mine):
            reply = call_securely(trust, f"{here}/{name}")
            assert_refusal(reply, 404, texts.NOT_FOUND)
            assert OWN in reply.json["hint"]
        assert call_securely(trust, f"{here}/db.json.files/").status == 404
        for path in before:
            assert call_securely(trust, f"{here}/{quote(str(path.relative_to(site)))}").status == 200


COPIES = ("db.json~", "#db.json#", "copy of db.json")  # as editors and people make them
OWN_TARGETS = """
    /db.json /db%2Ejson /%64b.json //db.json /docs/../db.json /link.txt /hard.txt /docs/up/db.json /uploads/
    /uploads/photo /db.json~ /%23db.json%23 /copy%20of%20db.json
    /db.json.files /copy.json.ca-key.pem /rested-db.json /key.pem /both.pem
"""


def test_no_other_name_makes_what_is_the_emulators_own_seen(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    Path("db.json").write_bytes(GARDEN.read_bytes())
    Path("db.json.files").mkdir()
    for name in ("db.json.files/photo", "copy.json.ca-key.pem", "rested-db.json", *COPIES):
        Path(name).write_bytes(SECRET)
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    Path("both.pem").write_bytes(pair.private_key_and_cert_chain_pem.bytes())
    Path("key.pem").write_bytes(pair.private_key_pem.bytes())
    Path("link.txt").symlink_to("db.json")
    Path("hard.txt").hardlink_to("db.json")
    Path("docs/up").symlink_to("..")
    Path("uploads").symlink_to("db.json.files")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with RestedEmulator(data="db.json", memory=True, static=".", cert="both.pem", cert_key="key.pem") as emulator:
        here = f"https://{emulator.facts['host']}"
        for target in OWN_TARGETS.split():
            reply = call_securely(trust, here + target)
            assert_refusal(reply, 404, texts.NOT_FOUND)
            assert OWN in reply.json["hint"], target


def test_the_folder_of_uploads_is_no_folder_to_serve(site: Path) -> None:
    uploads = site / "db.json.files"
    uploads.mkdir()
    (uploads / "photo").write_bytes(SECRET)
    with RestedEmulator(data=site / "db.json", memory=False, static=uploads) as emulator:
        assert OWN in get(emulator, "/photo").json["hint"]


def test_a_folder_is_not_listed(served: RestedEmulator) -> None:
    for target in ("/bare/", "/bare"):
        assert b"file.txt" not in get(served, target).body


@pytest.mark.parametrize(
    ("link", "leads_to", "target"),
    [
        ("link.txt", "../secret.txt", "/link.txt"),
        ("link", "..", "/link/secret.txt"),
        ("link", "..", "/link/"),
        ("link", "..", "/link"),
        ("link", "../outside", "/link/"),
        ("link", "/", "/link/etc/passwd"),
        ("link", "/etc/passwd", "/link"),
        ("link", "/dev/null", "/link"),
        ("link", "/dev/zero", "/link"),
        ("link", "/proc/self/environ", "/link"),
        ("bare/index.html", "../../secret.txt", "/bare/"),
        ("loop", "loop", "/loop"),
        ("loop", ".", "/loop/loop/nothing"),
        ("one", "two", "/one/"),
        ("lost", "nothing", "/lost"),
    ],
)
def test_a_link_leads_nowhere_outside(
    emulator: RestedEmulator, site: Path, link: str, leads_to: str, target: str
) -> None:
    (site / link).symlink_to(leads_to)
    if link == "one":
        (site / "two").symlink_to("one")
    reply = get(emulator, target)
    assert_refusal(reply, 404, texts.NOT_FOUND)


@pytest.mark.parametrize(
    ("link", "leads_to", "target", "content"),
    [
        ("link.js", "app.js", "/link.js", b"export {}"),
        ("manual", "docs", "/manual/", b"<p>docs"),
        ("manual", "docs", "/manual/page.html", b"<p>page"),
        ("docs/root", "..", "/docs/root/docs/page.html", b"<p>page"),
        ("bare/index.html", "../docs/page.html", "/bare/", b"<p>page"),
        ("one", "two", "/one", b"export {}"),
    ],
)
def test_a_link_to_what_is_inside_works(
    emulator: RestedEmulator, site: Path, link: str, leads_to: str, target: str, content: bytes
) -> None:
    (site / link).symlink_to(leads_to)
    if link == "one":
        (site / "two").symlink_to(site / "app.js")
    assert_file(get(emulator, target), content)


def test_the_type_of_what_a_link_leads_to_is_by_the_name_of_the_link(emulator: RestedEmulator, site: Path) -> None:
    (site / "page.html").symlink_to("digits.bin")
    assert get(emulator, "/page.html").headers["content-type"] == "text/html; charset=utf-8"


def test_a_link_to_the_folder_may_be_the_folder(site: Path) -> None:
    link = site.parent / "current"
    link.symlink_to("site")
    with RestedEmulator(static=link) as emulator:
        assert_file(get(emulator, "/docs/page.html"), b"<p>page")
        assert get(emulator, "/../secret.txt").status == 404


@pytest.mark.parametrize("name", ["pipe", "bare/index.html", "door"])
def test_what_is_no_regular_file_is_not_opened(emulator: RestedEmulator, site: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        if name == "door":
            door.bind(os.path.relpath(site / name))
        else:
            os.mkfifo(site / name)
        for method in ("GET", "HEAD"):
            assert get(emulator, f"/{name}", method).status == 404
            assert get(emulator, "/bare/", method).status == 404
    assert_file(get(emulator, "/app.js"), b"export {}")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_index_that_is_a_folder_is_no_index(emulator: RestedEmulator, site: Path, method: str) -> None:
    (site / "bare" / "index.html").mkdir()
    assert get(emulator, "/bare/", method).status == 404


def test_a_file_that_cannot_be_read_says_so_of_the_file(
    emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = open

    def refuse(path: Any, *rest: Any, **named: Any) -> Any:
        if str(path).endswith("app.js"):
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, *rest, **named)

    monkeypatch.setattr("builtins.open", refuse)
    reply = get(emulator, "/app.js")
    assert_refusal(reply, 404, texts.NOT_FOUND)
    assert "Permission denied" in reply.json["hint"]


# The paths of an app

ROUTES = [
    "/notes",
    "/notes/5",
    "/notes/5/",
    "/notes?page=2&next=a.b",
    "/v1.2/about",
    "/K%C3%BCche",
    "/a%20b/c",
    "/apis/1",
    "/bare/",
    "/bare/nothing",
    "/docs/nothing",
    "//notes",
    "/app.js/notes",
]


@pytest.mark.parametrize("target", ROUTES)
def test_a_browser_that_goes_to_a_path_without_a_file_gets_the_index(served: RestedEmulator, target: str) -> None:
    whole, without = get(served, target, Accept=NAVIGATION), get(served, target, "HEAD", Accept=NAVIGATION)
    assert_file(whole, FILES["index.html"])
    assert whole.headers == get(served, "/").headers == without.headers
    assert (without.status, without.body) == (200, b"")


@pytest.mark.parametrize("accept", ["text/html", "TEXT/HTML;q=0.9", "image/png , text/html"])
def test_whoever_accepts_html_by_name_is_a_browser(served: RestedEmulator, accept: str) -> None:
    assert_file(get(served, "/notes", Accept=accept), FILES["index.html"])


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/*", "application/json", "text/html2", "x-text/html"])
@pytest.mark.parametrize("target", ["/notes", "/bare/"])
def test_a_program_that_asks_for_such_a_path_gets_a_404(
    served: RestedEmulator, target: str, accept: str | None
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    assert get(served, target, "HEAD", **headers).status == 404
    assert_refusal(get(served, target, **headers), 404, texts.NOT_FOUND)


@pytest.mark.parametrize(
    "target",
    [
        "/notes.html",
        "/logo.png",
        "/notes/5.json",
        "/assets/index-4f2a.js",
        "/notes.",
        "/users/jane.doe",
        "/notes%2Ehtml",
        "/api",
        "/api/",
        "/api/1",
        "/%61pi/2/notes",
        "//api/2/notes",
        "/./api/2/notes",
        "/x/../api/2/notes",
        "/api%2F2/notes",
        "/__emulator__/nothing",
        "/%5F_emulator__/nothing",
        "//__emulator__/status",
        "/.git",
        "/.git/config",
        "/docs/.hidden",
        "/../notes",
        "/docs/../notes",
        "/%2e%2e/notes",
        "/..%2fnotes",
        "/notes%00",
    ],
)
def test_no_index_stands_for_a_file_for_api_and_control_or_for_what_is_not_served(
    served: RestedEmulator, target: str
) -> None:
    assert get(served, target, "HEAD", Accept=NAVIGATION).status == 404
    assert_refusal(get(served, target, Accept=NAVIGATION), 404, texts.NOT_FOUND)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_what_reads_gets_the_index(served: RestedEmulator, method: str) -> None:
    reply = call(f"{base(served)}/notes", method, {}, headers={"Accept": NAVIGATION})
    assert_refusal(reply, 405, texts.WRONG_METHOD)


def test_an_index_that_is_not_there_or_not_served_stands_for_nothing(emulator: RestedEmulator, site: Path) -> None:
    index = site / "index.html"
    index.unlink()
    assert_refusal(get(emulator, "/notes", Accept=NAVIGATION), 404, texts.NOT_FOUND)
    index.mkdir()
    assert_refusal(get(emulator, "/notes", Accept=NAVIGATION), 404, texts.NOT_FOUND)
    index.rmdir()
    index.symlink_to("../secret.txt")
    assert_refusal(get(emulator, "/notes", Accept=NAVIGATION), 404, texts.NOT_FOUND)


def test_a_file_stands_before_the_index(emulator: RestedEmulator, site: Path) -> None:
    (site / "notes").write_bytes(BINARY)
    assert_file(get(emulator, "/notes", Accept=NAVIGATION), BINARY)
    assert get(emulator, "/docs", Accept=NAVIGATION).status == 301
    assert_file(get(emulator, "/docs/", Accept=NAVIGATION), b"<p>docs")


def test_without_the_option_no_path_is_an_apps() -> None:
    with RestedEmulator() as emulator:
        assert call(f"{base(emulator)}/notes", headers={"Accept": NAVIGATION}).status == 404


# Folders


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/docs", "/docs/"),
        ("/docs/deep", "/docs/deep/"),
        ("/docs?a=1&b=%20#", "/docs/?a=1&b=%20#"),
        ("/docs?", "/docs/"),
        ("/docs?next=//evil.example", "/docs/?next=//evil.example"),
        ("/bare", "/bare/"),
        ("/with%20space", "/with%20space/"),
        ("/K%C3%BCrbis", "/K%C3%BCrbis/"),
        ("/docs%2Fdeep", "/docs/deep/"),
        ("//evil.example", "/evil.example/"),
        ("///evil.example", "/evil.example/"),
        ("//evil.example?x", "/evil.example/?x"),
        ("/%2Fevil.example", "/evil.example/"),
        ("/%2f%2fevil.example", "/evil.example/"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_folder_without_its_slash_leads_to_the_one_with_it(
    served: RestedEmulator, method: str, target: str, location: str
) -> None:
    reply = get(served, target, method)
    assert (reply.status, reply.headers["location"], reply.body) == (301, location, b"")
    followed = get(served, location.partition("#")[0])
    assert followed.status == (404 if location == "/bare/" else 200)


@pytest.mark.parametrize("name", ["\\evil.example", "\\\\evil.example", "@evil.example", "a\r\nSet-Cookie: x=y", "\t"])
def test_a_redirect_never_leaves_this_host(emulator: RestedEmulator, site: Path, name: str) -> None:
    (site / name).mkdir()
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    for prefix in ("/", "//", "/%2f", "/.//"):
        reply = get(emulator, prefix + escaped)
        location = reply.headers["location"]
        assert reply.status == 301
        assert "set-cookie" not in reply.headers
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))
        assert not set(location) & set("\\\r\n\t")


# Parts of a file


def test_a_range_gets_its_part(served: RestedEmulator) -> None:
    """What a range is, stands with the uploaded files, which are sent by the same code."""
    for wanted, first, last in (("bytes=2-5", 2, 5), ("bytes=7-", 7, 9), ("bytes=-4", 6, 9)):
        reply = get(served, "/digits.bin", Range=wanted)
        assert (reply.status, reply.body) == (206, DIGITS[first : last + 1])
        assert reply.headers["content-range"] == f"bytes {first}-{last}/10"
        assert reply.headers["content-length"] == str(last - first + 1)
        assert reply.headers["accept-ranges"] == "bytes"


def test_what_is_behind_the_end_and_what_is_no_range(served: RestedEmulator) -> None:
    reply = get(served, "/digits.bin", Range="bytes=10-")
    assert_refusal(reply, 416, texts.WRONG_RANGE)
    assert reply.headers["content-range"] == "bytes */10"
    for wanted in ("bytes=5-2", "items=0-3", f"bytes={'9' * 5000}-", f"bytes=-{'9' * 5000}"):
        reply = get(served, "/digits.bin", Range=wanted)
        assert_file(reply, DIGITS)
        assert "content-range" not in reply.headers
    assert_file(get(served, "/digits.bin", Range="bytes=0-3", If_Range='"of-another-server"'), DIGITS)


def test_a_range_of_what_is_not_there_is_a_404(served: RestedEmulator) -> None:
    assert get(served, "/nothing", Range="bytes=99-").status == 404
    assert get(served, "/docs", Range="bytes=99-").status == 301


def test_a_range_deep_inside_a_large_file_is_found(emulator: RestedEmulator, site: Path) -> None:
    content = b"".join(number.to_bytes(4) for number in range(2**18))
    (site / "large.bin").write_bytes(content)
    reply = get(emulator, "/large.bin", Range="bytes=500001-900002")
    assert (reply.status, reply.body) == (206, content[500001:900003])


# Methods


@pytest.mark.parametrize("target", ["/", "/app.js", "/docs/", "/digits.bin", "/empty.bin"])
def test_head_gets_the_same_headers_and_no_body(served: RestedEmulator, target: str) -> None:
    with wire(served) as connection:
        connection.sendall(head("HEAD", target) + head("GET", target))
        without, whole = answer_on(connection, "HEAD"), answer_on(connection)
    assert (without.status, without.body, without.headers) == (200, b"", whole.headers)


def test_a_range_is_for_get_alone(served: RestedEmulator) -> None:
    for wanted in ("bytes=0-3", "bytes=99-"):
        reply = get(served, "/digits.bin", "HEAD", Range=wanted)
        assert (reply.status, reply.headers["content-length"]) == (200, "10")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get"])
def test_other_methods_get_a_405_that_says_what_is_allowed(served: RestedEmulator, method: str) -> None:
    for target in ("/", "/app.js", "/docs", "/nothing", "/../secret.txt"):
        reply = call(base(served) + target, method, body=b"{}", headers={"Content-Type": "application/json"})
        assert_refusal(reply, 405, texts.WRONG_METHOD)
        assert reply.headers["allow"].split(", ") == ["GET", "HEAD"]
    assert get(served, "/app.js").body == b"export {}"


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "text/plain"])
def test_a_large_body_for_a_file_is_answered_too(emulator: RestedEmulator, site: Path, kind: str) -> None:
    before = sorted(path.name for path in site.iterdir())
    reply = call(f"{base(emulator)}/upload", "POST", body=bytes(3 * 2**20), headers={"Content-Type": kind})
    assert_refusal(reply, 405, texts.WRONG_METHOD)
    assert sorted(path.name for path in site.iterdir()) == before


# Beside it


def test_api_and_control_stand_before_the_files(site: Path) -> None:
    for name in (f"api/1/ce/{PLANTS}", "api/1/ce/index.html", "__emulator__/status", "__emulator__/index.html"):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECRET)
    with RestedEmulator(data=GARDEN, static=site) as emulator:
        assert len(call(emulator.url(PLANTS)).json) == 3
        assert call(emulator.url(PLANTS), "POST", {"name": "Leek"}).status == 200
        assert call(f"{emulator.facts['controlUrl']}/status").json["projects"]
        assert call(f"{emulator.facts['controlUrl']}/health").json["ready"] is True
        for target in ("/api/1/ce/", "/api/1/ce/index.html", "/__emulator__/", "/__emulator__/index.html"):
            assert SECRET not in get(emulator, target).body
        # An address that only looks like one of these is a file's.
        assert get(emulator, "/api/1").headers["location"] == "/api/1/"


def test_sockets_work_beside_it_and_a_handshake_for_a_file_is_a_request_for_it(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as ear:
        record = call(emulator.url(PLANTS), "POST", {"name": "Leek"}).json
        assert next_of(ear) == {"type": "POST", "record": record}
    with wire(emulator) as connection:
        connection.sendall(head("GET", "/app.js", *HANDSHAKE))
        reply = answer_on(connection)
    assert reply.status != 101
    assert reply.body in (b"", b"export {}")


def test_a_page_from_here_uses_the_api(served: RestedEmulator) -> None:
    here = base(served)
    reply = call(served.url(PLANTS), headers={"Origin": here})
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, here)


def test_latency_is_none_of_its_business(site: Path) -> None:
    with RestedEmulator(data=GARDEN, static=site, latency=60) as emulator:
        assert_file(get(emulator, "/"), FILES["index.html"])
        assert get(emulator, "/nothing").status == 404
        assert get(emulator, "/docs").status == 301


def test_without_the_option_there_are_no_files(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    with RestedEmulator(data=GARDEN) as emulator:
        for target in ("/app.js", "/docs/", "/digits.bin"):
            assert_refusal(get(emulator, target), 404, texts.NOT_FOUND)
        assert get(emulator, "/").body != FILES["index.html"]


# The outer gate


@pytest.mark.parametrize("target", ["/", "/app.js", "/docs", "/nothing"])
def test_a_foreign_host_or_page_gets_nothing(served: RestedEmulator, target: str) -> None:
    for method, headers, message in (
        ("GET", {"Host": "evil.example"}, texts.HOST_REFUSED),
        ("POST", {"Host": "localhost.evil.example"}, texts.HOST_REFUSED),
        ("HEAD", {"Host": ""}, ""),
        ("GET", {"Origin": FOREIGN}, texts.ORIGIN_REFUSED),
        ("POST", {"Origin": "null"}, texts.ORIGIN_REFUSED),
        ("HEAD", {"Origin": "http://localhost.evil.example"}, ""),
    ):
        reply = call(base(served) + target, method, headers={"Accept": NAVIGATION} | headers)
        assert (reply.status, cors_of(reply), "location" in reply.headers) == (403, {}, False)
        assert not message or reply.json["message"] == message


def test_a_page_of_another_port_may_load_a_file_but_not_read_it(served: RestedEmulator) -> None:
    for origin in (PAGE, OTHER_PAGE):
        reply = get(served, "/app.js", Origin=origin)
        assert_file(reply, b"export {}")
        assert cors_of(reply) == {}


def test_the_gate_opens_as_for_the_api(site: Path) -> None:
    options: dict[str, Any] = {"data": GARDEN, "static": site}
    with RestedEmulator(**options, allow_host=["box.lan"], allow_origin=[FOREIGN]) as emulator:
        assert call(f"{base(emulator)}/app.js", headers={"Host": "box.lan", "Origin": FOREIGN}).status == 200
        assert call(f"{base(emulator)}/app.js", headers={"Origin": "https://other.example"}).status == 403
    with RestedEmulator(**options, allow_any_origin=True) as emulator:
        assert call(f"{base(emulator)}/app.js", headers={"Origin": "https://other.example"}).status == 200
        assert call(f"{base(emulator)}/app.js", headers={"Host": "evil.example"}).status == 403


def test_what_the_project_asks_of_the_api_is_not_asked_for_a_file(emulator: RestedEmulator) -> None:
    emulator.change_project(disallow_no_origin=True, allowed_origins=[PAGE])
    emulator.change_endpoint(PLANTS, secure=True)
    assert_file(get(emulator, "/app.js"), b"export {}")
    assert call(emulator.url(GARDENERS)).status == 403


# The option


def test_a_folder_that_is_not_there_is_an_option_error(site: Path) -> None:
    for folder in (site / "nowhere", site / "app.js", "", 5):
        with pytest.raises(OptionError, match=r"^static: "):
            RestedEmulator(static=folder)
    assert Options.of(static=site).static == str(site)
