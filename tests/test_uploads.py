"""Files: from a multipart body onto the disk, and back whole or in ranges (contract 8)."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from rested_emulator import RestedEmulator
from tests import test_crash, texts
from tests.conftest import ADA, CHORES, DIARY, GARDEN, GARDENERS, KEY, MASTER_KEY, PLANTS, TOMATO, Backend, knock, need
from tests.test_http import nothing_happens
from tests.wire import (
    FOREIGN,
    JSON,
    PAGE,
    Reply,
    answer_on,
    assert_refusal,
    at,
    at_end,
    base,
    bearer,
    call,
    cors_of,
    give_up_at_stop_after,
    head,
    next_of,
    open_socket,
    until,
    wire,
)

FORM = {"Content-Type": "multipart/form-data; boundary=x"}
LARGEST_FILE = 100 * 2**20
NOT_STORED = "The change could not be stored."


def part(disposition: str, content: bytes = b"abc", kind: str | None = "text/plain") -> bytes:
    """A part of a form, with the boundary before it."""
    lines = f"--x\r\nContent-Disposition: form-data; {disposition}\r\n"
    lines += f"Content-Type: {kind}\r\n" if kind else ""
    return lines.encode() + b"\r\n" + content + b"\r\n"


def file(content: bytes = b"abc", name: str = "a.txt", kind: str | None = "text/plain") -> bytes:
    return part(f'name="file"; filename="{name}"', content, kind)


def text(name: str, value: bytes) -> bytes:
    return part(f'name="{name}"', value, None)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


FILE = file()


def send(
    emulator: RestedEmulator, *parts: bytes, endpoint: str = PLANTS, headers: dict[str, str] | None = None, **flags: str
) -> Reply:
    """Upload, with Python's own client."""
    return call(emulator.url(endpoint), "POST", body=form(*parts), headers=FORM | (headers or {}), **flags)


def fetch(
    emulator: RestedEmulator,
    unique_id: str,
    query: str = "",
    *,
    endpoint: str = PLANTS,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Get the file of a record."""
    return call(f"{emulator.url(endpoint)}&fileOnly=true&uniqueId={unique_id}{query}", headers=headers)


def folder(emulator: RestedEmulator) -> Path:
    """Where an emulator with a data file keeps files."""
    return Path(f"{emulator.facts['data']}.files")


def names_on_disk(emulator: RestedEmulator) -> list[str]:
    """The names of all files that are kept, drafts included."""
    return [path.name for path in folder(emulator).glob("*")]


def on_disk(emulator: RestedEmulator) -> dict[str, bytes]:
    """All files that are kept, with their content."""
    return {name: (folder(emulator) / name).read_bytes() for name in names_on_disk(emulator)}


def keep(tmp_path: Path, **options: Any) -> RestedEmulator:
    """An emulator that keeps the garden, and files, on disk."""
    data = tmp_path / "garden.json"
    if not data.exists():
        shutil.copy(GARDEN, data)
    return RestedEmulator(data=data, memory=False, **options)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[RestedEmulator]:
    with keep(tmp_path) as running:
        yield running


def upload(backend: Backend, body: bytes, kind: str = FORM["Content-Type"], step: int | None = None) -> Any:
    """Upload without a socket; the body arrives in pieces of ``step`` bytes. Returns what the client gets."""
    sent = knock(PLANTS, content=(kind, None, b""))
    taken = backend.start_upload(sent, 1_000_000)
    try:
        for start in range(0, len(body), step or len(body)):
            taken.feed(body[start : start + (step or len(body))])
        made = backend.upload(sent, taken)
    finally:
        taken.discard()
    return made.public() if hasattr(made, "unique_id") else [record.public() for record in made]


# What clients send
#
# Each client was given a text field and a file of these bytes, under a name that has to be escaped, and its
# body was recorded as it arrived. All of them escape as browsers do, but for those that were told otherwise.

NAME = 'Grüße "eins" 日本.txt'
BYTES = b"Tomaten\r\n--\r\n\x00\xff"
BODY = (
    '--{boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\nMöhren\r\n'
    '--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    "Content-Type: text/plain\r\n\r\n<bytes>\r\n--{boundary}--\r\n"
)
CLIENTS = {
    "curl 7.88.1": ("------------------------8abbdf63650fa421", "Grüße %22eins%22 日本.txt", NAME),
    "curl 7.88.1 --form-escape": (
        "------------------------a655f5b9aedba4b7",
        r"Grüße \"eins\" a\\b.txt",
        r'Grüße "eins" a\b.txt',
    ),
    "Chromium 156 FormData": ("----WebKitFormBoundaryJW24eL81s65Nj4pg", "Grüße %22eins%22 日本.txt", NAME),
    "requests 2.34.2": ("6f84efb8701a88e6e01f22245e861d91", "Grüße %22eins%22 日本.txt", NAME),
    "axios 1.21.1 with form-data 4.0.6": (
        "--------------------------73a4bceb82101eb2d62d8921",
        "Grüße %22eins%22 日本.txt",
        NAME,
    ),
    "axios 1.21.1 with FormData": (
        "axios-1.21.1-boundary-P9TRJ6L1ZDmFz9T3m-Pt6wmhW",
        "Grüße %22eins%22 日本.txt",
        NAME,
    ),
    "fetch of Node 20.20.2": ("----formdata-undici-013872470678", "Grüße %22eins%22 日本.txt", NAME),
}
CHROMIUM_FORM = """\
------WebKitFormBoundaryASfnJL1ge1RSAGIK
Content-Disposition: form-data; name="title"

Möhren
------WebKitFormBoundaryASfnJL1ge1RSAGIK
Content-Disposition: form-data; name="file"; filename="Grüße %22eins%22 日本.txt"
Content-Type: text/plain

<bytes>
------WebKitFormBoundaryASfnJL1ge1RSAGIK
Content-Disposition: form-data; name="file"; filename="a;b\\c.txt"
Content-Type: text/plain

<bytes>
------WebKitFormBoundaryASfnJL1ge1RSAGIK
Content-Disposition: form-data; name="cover"; filename=""
Content-Type: application/octet-stream


------WebKitFormBoundaryASfnJL1ge1RSAGIK--
"""


@pytest.mark.parametrize("step", [1, 7, 64, None])
@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_client_sends_arrives_as_it_was(backend: Backend, client: str, step: int | None) -> None:
    boundary, escaped, name = CLIENTS[client]
    body = BODY.format(boundary=boundary, name=escaped).encode().replace(b"<bytes>", BYTES)
    record = upload(backend, body, f"multipart/form-data; boundary={boundary}", step)
    assert record["data"] == {
        "originalName": name,
        "mimeType": "text/plain",
        "size": len(BYTES),
        "metadata": {"title": "Möhren"},
    }
    path = backend.files.path(record["uniqueId"])
    assert path is not None
    assert Path(path).read_bytes() == BYTES
    backend.close()


@pytest.mark.parametrize("step", [1, None])
def test_a_form_of_a_browser_may_have_inputs_in_which_nothing_was_chosen(backend: Backend, step: int | None) -> None:
    body = CHROMIUM_FORM.encode().replace(b"\n", b"\r\n").replace(b"<bytes>", BYTES)
    records = upload(backend, body, "multipart/form-data; boundary=----WebKitFormBoundaryASfnJL1ge1RSAGIK", step)
    assert [record["data"]["originalName"] for record in records] == [NAME, r"a;b\c.txt"]
    assert [record["data"]["metadata"] for record in records] == [{"title": "Möhren"}] * 2
    backend.close()


def test_curl_uploads_and_downloads(kept: RestedEmulator, tmp_path: Path) -> None:
    [curl] = need("curl")
    for name in (NAME, "b.bin"):
        (tmp_path / name).write_bytes(BYTES * 1000)
    quoted = '"' + str(tmp_path / NAME).replace('"', '\\"') + '"'
    command = [curl, "-sS", "--noproxy", "*", "--max-time", "10"]
    arguments = ["-F", f"file=@{quoted};type=text/plain", "-F", f"file=@{tmp_path / 'b.bin'}", "-F", "title=Möhren"]
    done = subprocess.run([*command, *arguments, kept.url(PLANTS)], capture_output=True, check=True, timeout=20)
    first, second = json.loads(done.stdout)
    facts = {"size": 15000, "metadata": {"title": "Möhren"}}
    assert first["data"] == {"originalName": NAME, "mimeType": "text/plain"} | facts
    assert second["data"] == {"originalName": "b.bin", "mimeType": "application/octet-stream"} | facts
    url = f"{kept.url(PLANTS)}&fileOnly=true&uniqueId={first['uniqueId']}"
    done = subprocess.run([*command, url], capture_output=True, check=True, timeout=20)
    assert done.stdout == BYTES * 1000


# Names (hardening: never a path)

NAMES = {
    "a way out": ("../../x", "../../x"),
    "from the root": ("/etc/passwd", "/etc/passwd"),
    "a drive": (r"C:\a", r"C:\a"),
    "a server": (r"\\host\share\a.txt", r"\\host\share\a.txt"),
    "a device": ("CON", "CON"),
    "dots": ("..", ".."),
    "a draft": ("x.part", "x.part"),
    "a line break": ("a%0D%0AX: y", "a\r\nX: y"),
    "quotes": ("%22a%22", '"a"'),
    "quotes escaped": (r"\"a\"", '"a"'),
    "a backslash at the end": ("a\\", "a\\"),
    "what looks like an option": ("a; filename*=UTF-8''b", "a; filename*=UTF-8''b"),
    "a percent sign": ("100%25.txt", "100%25.txt"),
    "Unicode": ("日本 👩‍🌾 e\u0301", "日本 👩‍🌾 e\u0301"),
    "a null": ("a\0b", "a\0b"),
    "white space": (" ", " "),
    "long": ("x" * 1000, "x" * 1000),
    "long outside ASCII": ("🥕" * 1000, "🥕" * 1000),
}


@pytest.mark.parametrize(("escaped", "name"), NAMES.values(), ids=NAMES.keys())
def test_a_name_is_kept_exactly_and_is_never_a_path(tmp_path: Path, escaped: str, name: str) -> None:
    place = tmp_path / "one" / "two"
    place.mkdir(parents=True)
    with keep(place) as emulator:
        record = send(emulator, file(name=escaped)).json
        assert record["data"]["originalName"] == name
        assert on_disk(emulator) == {record["uniqueId"]: b"abc"}
        reply = fetch(emulator, record["uniqueId"])
        assert (reply.status, reply.body) == (200, b"abc")
        assert reply.headers["content-disposition"].endswith(f"; filename*=UTF-8''{quote(name, safe='')}")
    files = {path.relative_to(place).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"garden.json", f"garden.json.files/{record['uniqueId']}"}


EXTENDED_NAMES = {
    "UTF-8": ("filename*=UTF-8''M%C3%B6hren%20%22.txt", 'Möhren ".txt'),
    "with a language": ("filename*=utf-8'de'M%C3%B6hren", "Möhren"),
    "Latin-1": ("filename*=iso-8859-1''M%F6hren", "Möhren"),
    "in quotes": ("filename*=\"UTF-8''M%C3%B6hren\"", "Möhren"),
    "after the plain one": ("filename=\"Mohren\"; filename*=UTF-8''M%C3%B6hren", "Möhren"),
    "before the plain one": ("filename*=UTF-8''M%C3%B6hren; filename=\"Mohren\"", "Möhren"),
    "in upper case": ("FileName*=UTF-8''M%C3%B6hren", "Möhren"),
    "long": ("filename*=UTF-8''" + "%F0%9F%A5%95" * 1000, "🥕" * 1000),
    "of an unknown charset": ("filename=\"plain\"; filename*=klingon''M", "plain"),
    "not of its charset": ("filename=\"plain\"; filename*=UTF-8''%FF", "plain"),
    "without its quotes": ('filename="plain"; filename*=M', "plain"),
    "not quoted": ("filename=plain.txt", "plain.txt"),
}


@pytest.mark.parametrize(("disposition", "name"), EXTENDED_NAMES.values(), ids=EXTENDED_NAMES.keys())
def test_an_extended_name_counts_where_it_can_be_read(backend: Backend, disposition: str, name: str) -> None:
    record = upload(backend, form(part(f'name="file"; {disposition}')))
    assert record["data"]["originalName"] == name
    backend.close()


def test_a_text_field_is_no_file_whatever_its_name(backend: Backend) -> None:
    fields = ["; filename=x", "a; filename*=UTF-8''b", "", "__proto__"]
    record = upload(backend, form(FILE, *(text(name, b"1") for name in fields)))
    assert record["data"]["metadata"] == dict.fromkeys(fields, "1")
    backend.close()


# What an upload makes (contract 8.1)


def test_one_file_is_answered_with_its_record_and_heard_of(kept: RestedEmulator) -> None:
    with open_socket(kept.ws_url(PLANTS)) as listener:
        reply = send(kept, text("title", b"Beet 1"), FILE)
        assert (reply.status, reply.headers["content-type"]) == (200, JSON)
        record = reply.json
        assert list(record) == ["data", "uniqueId", "updatedAt", "createdAt"]
        metadata = {"title": "Beet 1"}
        assert list(record["data"].items()) == [
            ("originalName", "a.txt"),
            ("mimeType", "text/plain"),
            ("size", 3),
            ("metadata", metadata),
        ]
        assert next_of(listener) == {"type": "POST", "record": record}
    assert call(kept.url(PLANTS), uniqueId=record["uniqueId"]).json == record
    assert kept.records(PLANTS)[-1] == record
    assert on_disk(kept) == {record["uniqueId"]: b"abc"}


@pytest.mark.parametrize("count", [2, 10])
def test_several_files_are_answered_with_an_array_and_heard_of_once(kept: RestedEmulator, count: int) -> None:
    with open_socket(kept.ws_url(PLANTS)) as listener:
        records = send(kept, *(file(bytes([number]), f"{number}") for number in range(count))).json
        assert [record["data"]["originalName"] for record in records] == [str(number) for number in range(count)]
        assert next_of(listener) == {"type": "POST", "record": records}
        assert on_disk(kept) == {record["uniqueId"]: bytes([number]) for number, record in enumerate(records)}
        kept.delete_endpoint(PLANTS)
        with suppress(Exception):
            assert not listener.recv(timeout=10), "a second message"


def test_data_only_answers_the_data_alone(emulator: RestedEmulator) -> None:
    one = {"originalName": "a.txt", "mimeType": "text/plain", "size": 3, "metadata": {}}
    assert send(emulator, FILE, dataOnly="true").json == one
    assert send(emulator, FILE, FILE, dataOnly="true").json == [one, one]


def test_text_fields_are_metadata_of_every_file(emulator: RestedEmulator) -> None:
    fields = [text("a", b"1"), FILE, text("a", "ü".encode()), text("b", b""), FILE, text("a", b"3")]
    records = send(emulator, *fields).json
    assert [record["data"]["metadata"] for record in records] == [{"a": ["1", "ü", "3"], "b": ""}] * 2


MIME_TYPES = {
    None: "application/octet-stream",
    "text/html": "text/html",
    "text/plain; charset=utf-8": "text/plain; charset=utf-8",
    "image/svg+xml": "image/svg+xml",
    "application/vnd.ms-excel": "application/vnd.ms-excel",
    "text": "application/octet-stream",
    "text/": "application/octet-stream",
    "text/plain, text/html": "application/octet-stream",
    "text/plän": "application/octet-stream",
    "text/plain; a=\0": "application/octet-stream",
}


@pytest.mark.parametrize(("sent", "kind"), MIME_TYPES.items())
def test_a_file_is_sent_with_the_type_it_came_with(emulator: RestedEmulator, sent: str | None, kind: str) -> None:
    record = send(emulator, file(kind=sent)).json
    assert record["data"]["mimeType"] == kind
    assert fetch(emulator, record["uniqueId"]).headers["content-type"] == kind


WELL = {
    "no bytes": (form(file(b"")), b""),
    "no bytes in pieces of a form": (form(text("a", b""), file(b"")), b""),
    "bytes like a boundary": (form(file(b"\r\n--y\r\n--x?"[:-2])), b"\r\n--y\r\n--"),
    "line breaks": (form(file(b"\r\n\r\n")), b"\r\n\r\n"),
    "a file without a name": (form(part('name="file"; filename=""', b"abc")), b"abc"),
    "something before": (b"Hello.\r\n" + form(FILE), b"abc"),
    "something behind": (form(FILE) + b"Bye." * 1000, b"abc"),
    "no line break at the end": (form(FILE)[:-2], b"abc"),
    "headers in lower case": (form(FILE).replace(b"Content-", b"content-"), b"abc"),
    "its length": (form(FILE).replace(b"Content-Type", b"Content-Length: 3\r\nContent-Type"), b"abc"),
    "nothing chosen elsewhere": (form(part('name="cover"; filename=""', b""), FILE), b"abc"),
}


@pytest.mark.parametrize("step", [1, 2, 3, None])
@pytest.mark.parametrize(("body", "content"), WELL.values(), ids=WELL.keys())
def test_a_form_is_taken_apart_however_it_arrives(
    backend: Backend, body: bytes, content: bytes, step: int | None
) -> None:
    record = upload(backend, body, step=step)
    path = backend.files.path(record["uniqueId"])
    assert path is not None
    assert Path(path).read_bytes() == content
    assert record["data"]["size"] == len(content)
    backend.close()


def test_nothing_chosen_does_not_count_as_a_file(backend: Backend) -> None:
    nothing = part('name="file"; filename=""', b"")
    assert len(upload(backend, form(*[FILE] * 10, nothing))) == 10
    backend.close()


@pytest.mark.parametrize(
    "kind", ["Multipart/Form-Data; Boundary=x", 'multipart/form-data; charset=utf-8; boundary="x"']
)
def test_the_type_of_a_form_may_be_spelled_otherwise(emulator: RestedEmulator, kind: str) -> None:
    assert send(emulator, FILE, headers={"Content-Type": kind}).status == 200


def test_an_upload_may_come_in_chunks(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(
            head("POST", at(PLANTS), f"Content-Type: {FORM['Content-Type']}", "Transfer-Encoding: chunked")
        )
        for byte in form(FILE):
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        record = answer_on(connection).json
        connection.sendall(head("GET", at(PLANTS, f"fileOnly=true&uniqueId={record['uniqueId']}")))
        assert answer_on(connection).body == b"abc"


# What is refused: nothing is stored, nobody hears, nothing lies on disk


class Bad(NamedTuple):
    """An upload that is refused."""

    message: str
    body: bytes = form(FILE)
    target: str = at(PLANTS)
    headers: Mapping[str, str] = MappingProxyType({})
    status: int = 400


REFUSED = {
    "no file": Bad(texts.WRONG_FILES, form(text("title", b"x"))),
    "no file chosen": Bad(texts.WRONG_FILES, form(part('name="file"; filename=""', b""))),
    "eleven files": Bad(texts.WRONG_FILES, form(*[FILE] * 11)),
    "another part": Bad(texts.WRONG_FILES, form(FILE, part('name="photo"; filename="a.txt"'))),
    "another part without a name": Bad(texts.WRONG_FILES, form(FILE, part('name="photo"; filename=""'))),
    "a part of no name": Bad(texts.WRONG_FILES, form(FILE, part('filename="a.txt"'))),
    "fields over the limit": Bad(texts.TOO_LARGE, form(FILE, text("a", b"x" * 1_000_001)), status=413),
    "names of fields over the limit": Bad(texts.TOO_LARGE, form(FILE, *[text("n" * 4000, b"")] * 300), status=413),
    "a thousand parts": Bad(texts.WRONG_BODY, form(FILE, *[text("a", b"")] * 1000)),
    "a field not UTF-8": Bad(texts.WRONG_BODY, form(FILE, text("a", b"\xff"))),
    "a name not UTF-8": Bad(texts.WRONG_BODY, form(FILE, FILE.replace(b"a.txt", b"\xff"))),
    "a name that cannot be UTF-8": Bad(texts.WRONG_BODY, form(FILE, part("name=\"file\"; filename*=utf-7''+2AA-"))),
    "a header without end": Bad(texts.WRONG_BODY, form(FILE, file(name="x" * 20_000))),
    "a broken header": Bad(texts.WRONG_BODY, form(b"--x\r\nContent\r\n\r\nabc\r\n")),
    "a part without disposition": Bad(texts.WRONG_BODY, form(b"--x\r\n\r\nabc\r\n")),
    "no end": Bad(texts.WRONG_BODY, FILE),
    "no end of the part": Bad(texts.WRONG_BODY, FILE[:-10]),
    "no end of the last boundary": Bad(texts.WRONG_BODY, FILE + b"--x\r\n"),
    "an empty body": Bad(texts.WRONG_BODY, b""),
    "not a form": Bad(texts.WRONG_BODY, b"{}"),
    "another boundary": Bad(texts.WRONG_BODY, headers={"Content-Type": "multipart/form-data; boundary=y"}),
    "no boundary": Bad(texts.WRONG_BODY, headers={"Content-Type": "multipart/form-data"}),
    "compressed": Bad(texts.WRONG_BODY, headers={"Content-Encoding": "gzip"}),
    "another kind of form": Bad(
        texts.WRONG_CONTENT_TYPE, headers={"Content-Type": "multipart/form-database; boundary=x"}
    ),
    "no key": Bad(texts.KEY_MISSING, target=at(PLANTS, key=None), status=403),
    "no token": Bad(texts.NO_TOKEN, target=at(DIARY), status=401),
    "a wrong master key": Bad(texts.WRONG_MASTER_KEY, target=at(PLANTS, "masterKey=x"), status=403),
    "a foreign host": Bad(texts.HOST_REFUSED, headers={"Host": "evil.example"}, status=403),
    "a query not UTF-8": Bad(texts.WRONG_PARAMETER, target=at(PLANTS, "x=%ff")),
    "nowhere": Bad(texts.NOT_FOUND, target=f"/somewhere?key={KEY}", status=404),
    "as a user": Bad(texts.WRONG_CONTENT_TYPE, target=at(GARDENERS)),
}


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_upload_leaves_nothing(kept: RestedEmulator, bad: Bad) -> None:
    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")):
        reply = call(base(kept) + bad.target, "POST", body=bad.body, headers={**FORM, "Origin": PAGE, **bad.headers})
        assert_refusal(reply, bad.status, bad.message)
        assert on_disk(kept) == {}
    assert bool(cors_of(reply)) == ("evil" not in str(bad.headers))
    assert send(kept, FILE).status == 200


@pytest.mark.parametrize(
    "method",
    ["PUT", pytest.param("DELETE", marks=pytest.mark.warns("fileOnly=true counts for nothing here")), "GET"],
)
def test_only_post_takes_files(kept: RestedEmulator, method: str) -> None:
    record = send(kept, FILE).json
    reply = call(
        kept.url(PLANTS), method, body=form(file(b"other")), headers=FORM, uniqueId=record["uniqueId"], fileOnly="true"
    )
    if method == "PUT":
        assert_refusal(reply, 400, texts.WRONG_CONTENT_TYPE)
    assert on_disk(kept) == ({} if method == "DELETE" else {record["uniqueId"]: b"abc"})


def stream(connection: socket.socket, size: int, before: bytes = b"", behind: bytes = b"") -> Reply:
    """Upload a file of that many bytes, then read the answer."""
    start, end = FILE.split(b"abc")
    body = [before, start, *itertools.repeat(bytes(2**20), size // 2**20), bytes(size % 2**20), end, behind, form()]
    length = sum(map(len, body))
    connection.sendall(head("POST", at(PLANTS), f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {length}"))
    for piece in body:
        connection.sendall(piece)
    return answer_on(connection)


def test_a_file_may_have_a_hundred_megabytes_and_not_a_byte_more(kept: RestedEmulator) -> None:
    with wire(kept) as connection:
        record = stream(connection, LARGEST_FILE).json
    assert record["data"]["size"] == LARGEST_FILE
    assert (folder(kept) / record["uniqueId"]).stat().st_size == LARGEST_FILE
    assert call(kept.url(PLANTS), "DELETE", uniqueId=record["uniqueId"]).status == 200
    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")), wire(kept) as connection:
        assert_refusal(stream(connection, LARGEST_FILE + 1, FILE, FILE), 413, texts.TOO_LARGE)
        assert at_end(connection)
        assert on_disk(kept) == {}


EARLY = {
    "a wrong key": (at(PLANTS, key="wrong"), [], 400, texts.NOT_VALID),
    "no token": (at(DIARY), [], 401, texts.NO_TOKEN),
    "a foreign page": (at(PLANTS), [f"Origin: {FOREIGN}"], 403, texts.ORIGIN_REFUSED),
}


@pytest.mark.parametrize(("target", "headers", "status", "message"), EARLY.values(), ids=EARLY.keys())
def test_an_upload_that_will_be_refused_is_answered_before_it_arrives(
    kept: RestedEmulator, target: str, headers: list[str], status: int, message: str
) -> None:
    size = 200 * 2**20
    more = [f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {size}", "Expect: 100-continue", *headers]
    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")), wire(kept) as connection:
        connection.sendall(head("POST", target, *more))
        assert_refusal(answer_on(connection), status, message)
        connection.sendall(FILE)  # a client that does not wait
        for _ in range(20):  # may go on, without an error that would hide the answer from it
            connection.sendall(bytes(2**20))
        assert on_disk(kept) == {}
        assert not folder(kept).exists()


def test_files_are_refused_where_the_package_is_missing(kept: RestedEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "multipart", None)
    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")):
        reply = send(kept, FILE)
        assert_refusal(reply, 501, "A package is missing.")
        assert reply.json["hint"].endswith(": pip install 'multipart>=2,<3'")
        assert on_disk(kept) == {}
    assert_refusal(call(f"{kept.url(PLANTS)}x", "POST", body=form(FILE), headers=FORM), 400, texts.NOT_VALID)


# What breaks off, or cannot be stored


def begin(connection: socket.socket, target: str = at(PLANTS)) -> None:
    """Send the first half of an upload: one file, and some of another."""
    length = 10 * 2**20
    connection.sendall(head("POST", target, f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {length}"))
    connection.sendall(FILE + file(bytes(2**20))[:-2])


def test_an_upload_whose_world_begins_anew_is_told_so(emulator: RestedEmulator) -> None:
    emulator.world("one")
    whole = form(FILE)
    with wire(emulator) as connection:
        lines = (f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {len(whole)}")
        connection.sendall(head("POST", at(PLANTS, key="one"), *lines) + whole[:-10])
        until(lambda: emulator.call(lambda server: server.worlds.named("one").files._folder is not None))
        emulator.world("one")
        connection.sendall(whole[-10:])
        reply = answer_on(connection)
    assert_refusal(reply, 503, "The world is dropped.")
    assert "send it once more" in reply.json["hint"]
    assert len(emulator.world("one").records(PLANTS)) == 3


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_an_upload_that_breaks_off_leaves_nothing(kept: RestedEmulator, how: str) -> None:
    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")):
        with wire(kept) as connection:
            begin(connection)
            until(lambda: len(names_on_disk(kept)) == 2)
            assert all(name.endswith(".part") for name in names_on_disk(kept))
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: not names_on_disk(kept))


def test_an_upload_is_broken_off_by_the_end_of_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at_stop_after(0.2, monkeypatch)
    with keep(tmp_path) as emulator, wire(emulator) as connection:
        begin(connection)
        until(lambda: len(names_on_disk(emulator)) == 2)
        emulator.stop()
        assert not (tmp_path / "garden.json.files").exists()


def test_a_token_that_expires_during_an_upload_lets_nothing_in(kept: RestedEmulator) -> None:
    token = kept.sign_in(GARDENERS, "ada")
    before = kept.records(DIARY)
    body = form(FILE)
    lines = [f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {len(body)}", f"Authorization: Bearer {token}"]
    with wire(kept) as connection:
        connection.sendall(head("POST", at(DIARY), *lines) + body[:-5])
        until(lambda: names_on_disk(kept))
        kept.expire_tokens(token=token)
        connection.sendall(body[-5:])
        assert_refusal(answer_on(connection), 401, texts.TOKEN_EXPIRED)
    assert (kept.records(DIARY), on_disk(kept)) == (before, {})


def test_a_slow_upload_delays_nobody(kept: RestedEmulator) -> None:
    body = form(FILE)
    with wire(kept) as connection:
        lines = [f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {len(body)}"]
        connection.sendall(head("POST", at(PLANTS), *lines))
        for byte in body:
            connection.sendall(bytes([byte]))
            assert call(kept.url(PLANTS), uniqueId=TOMATO).status == 200
        record = answer_on(connection).json
    assert on_disk(kept) == {record["uniqueId"]: b"abc"}


def test_a_full_disk_takes_nothing_and_recovers(kept: RestedEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts: list[int] = []
    really_open, write = os.open, os.write

    def remember(path: str, *rest: Any) -> int:
        descriptor = really_open(path, *rest)
        if path.endswith(".part"):
            drafts.append(descriptor)
        return descriptor

    def write_until_full(out: int, data: bytes) -> int:
        if out in drafts and os.fstat(out).st_size >= 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(out, data[:50_000] if out in drafts else data)

    monkeypatch.setattr(os, "open", remember)
    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")):
        with monkeypatch.context() as full:
            full.setattr(os, "write", write_until_full)
            with wire(kept) as connection:
                reply = stream(connection, 5 * 2**20, FILE)
                assert_refusal(reply, 507, NOT_STORED)
                assert os.strerror(errno.ENOSPC) in reply.json["hint"]
                assert on_disk(kept) == {}
                assert at_end(connection)
        assert len(drafts) == 2
    with wire(kept) as connection:
        assert stream(connection, 5 * 2**20, FILE).status == 200


def keeping_one(error: BaseException) -> Callable[..., None]:
    """An ``os.replace`` by which one draft becomes a file, and the second one does not."""
    replace, drafts = os.replace, []

    def keep_one(source: str, target: str) -> None:
        if source.endswith(".part"):
            drafts.append(source)
            if len(drafts) == 2:
                raise error
        replace(source, target)

    return keep_one


@pytest.mark.parametrize("step", ["journal", "name", "folder"])
def test_an_upload_that_cannot_be_stored_at_its_end_leaves_nothing(
    kept: RestedEmulator, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write, really_open = os.write, os.open
    broken_disk = OSError(errno.EIO, os.strerror(errno.EIO))

    def write_no_journal(out: int, data: bytes) -> int:
        if data.startswith(b"[["):
            raise broken_disk
        return write(out, data)

    def open_no_draft(path: str, *rest: Any) -> int:
        if path.endswith(".part"):
            raise broken_disk
        return really_open(path, *rest)

    with nothing_happens(kept, kept.sign_in(GARDENERS, "ada")):
        with monkeypatch.context() as broken:
            if step == "journal":
                broken.setattr(os, "write", write_no_journal)
            elif step == "name":
                broken.setattr(os, "replace", keeping_one(broken_disk))
            else:
                broken.setattr(os, "open", open_no_draft)
            assert_refusal(send(kept, FILE, FILE, FILE), 507, NOT_STORED)
        assert on_disk(kept) == {}
    assert len(send(kept, FILE, FILE).json) == len(on_disk(kept)) == 2


def test_after_a_kill_during_an_upload_nothing_is_left_of_it(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    files = tmp_path / "data.json.files"
    with test_crash.emulator(data) as (process, facts):
        url = f"{facts['url']}/{test_crash.ENDPOINT}?key={facts['key']}"
        record = call(url, "POST", body=form(FILE), headers=FORM).json
        with socket.create_connection(("127.0.0.1", facts["port"]), timeout=10) as connection:
            begin(connection, at(test_crash.ENDPOINT, key=facts["key"]))
            until(lambda: len(list(files.glob("*.part"))) == 2)
            process.kill()
            process.wait(timeout=10)
    assert len(list(files.glob("*.part"))) == 2
    with test_crash.emulator(data) as (_, facts):
        assert [path.name for path in files.glob("*")] == [record["uniqueId"]]
        url = f"{facts['url']}/{test_crash.ENDPOINT}?key={facts['key']}"
        assert call(url).json == [record]
        assert call(url, uniqueId=record["uniqueId"], fileOnly="true").body == b"abc"


class Killed(BaseException):
    """The end of a process at a chosen moment."""


def test_a_kill_between_record_and_file_loses_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records are stored when the second of two files still has the name of a draft."""
    with keep(tmp_path) as emulator:
        data = Path(str(emulator.facts["data"]))

        def upload_and_die(server: Any) -> Any:
            sent = knock(PLANTS, content=(FORM["Content-Type"], None, b""))
            taken = server.world.service.start_upload(sent, 1_000_000)
            taken.feed(form(file(b"one"), file(b"two")))
            with pytest.raises(Killed):
                server.world.service.upload(sent, taken)
            return [record.public() for record in server.world.store.records(PLANTS)][-2:]

        with monkeypatch.context() as dying:
            dying.setattr(os, "replace", keeping_one(Killed()))
            records = emulator.call(upload_and_die)
        assert sorted(path.suffix for path in folder(emulator).iterdir()) == ["", ".part"]
        later = tmp_path / "later"
        later.mkdir()
        for path in (data, Path(f"{data}.journal")):
            shutil.copy(path, later)
        shutil.copytree(folder(emulator), later / folder(emulator).name)
    with keep(later) as emulator:
        assert emulator.records(PLANTS)[-2:] == records
        assert [fetch(emulator, record["uniqueId"]).body for record in records] == [b"one", b"two"]
        assert sorted(on_disk(emulator)) == sorted(record["uniqueId"] for record in records)


# Getting a file (contract 8.2)

DISPOSITIONS = {
    "a.txt": "inline; filename=\"a.txt\"; filename*=UTF-8''a.txt",
    'a"b\\c.txt': "inline; filename=\"a_b_c.txt\"; filename*=UTF-8''a%22b%5Cc.txt",
    "Möhren €.txt": "inline; filename=\"M_hren _.txt\"; filename*=UTF-8''M%C3%B6hren%20%E2%82%AC.txt",
    "a\r\nX: y": "inline; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y",
    "50%.txt": "inline; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt",
    "../x": "inline; filename=\"../x\"; filename*=UTF-8''..%2Fx",
    "": "inline; filename=\"\"; filename*=UTF-8''",
}


@pytest.mark.parametrize(("name", "header"), DISPOSITIONS.items())
def test_a_name_goes_out_as_rfc_6266_says(digits: tuple[RestedEmulator, str], name: str, header: str) -> None:
    emulator, _ = digits
    record = send(emulator, part(f'name="file"; filename="x"; filename*=UTF-8\'\'{quote(name)}')).json
    assert record["data"]["originalName"] == name
    assert fetch(emulator, record["uniqueId"]).headers["content-disposition"] == header


def test_a_file_is_sent_whole_and_harmless(emulator: RestedEmulator) -> None:
    record = send(emulator, file(b"<script>", "a.html", "text/html")).json
    reply = fetch(emulator, record["uniqueId"], headers={"Origin": PAGE})
    assert (reply.status, reply.body) == (200, b"<script>")
    assert reply.headers == {
        "content-type": "text/html",
        "content-length": "8",
        "content-disposition": "inline; filename=\"a.html\"; filename*=UTF-8''a.html",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    } | cors_of(reply)
    assert cors_of(reply)["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("size", [0, 1, 2**18, 2**18 + 1, 3 * 2**20])
def test_a_file_comes_back_as_it_was(emulator: RestedEmulator, size: int) -> None:
    content = os.urandom(size)
    record = send(emulator, file(content)).json
    assert fetch(emulator, record["uniqueId"]).body == content


@pytest.mark.warns("a flag is set by true alone")
def test_a_record_with_a_file_is_read_as_any_other(emulator: RestedEmulator) -> None:
    record = send(emulator, FILE).json
    url, unique_id = emulator.url(PLANTS), record["uniqueId"]
    assert call(url, uniqueId=unique_id, stream="true").json == record
    assert call(url, uniqueId=unique_id, fileOnly="yes").json == record
    assert call(url, uniqueId=unique_id, dataOnly="true").json == record["data"]
    assert call(url, uniqueId=unique_id, jsonata="data.size").json == 3


WITHOUT = {
    "no id": ([], 400, texts.ONE_UNIQUE_ID),
    "two ids": (["file", "file"], 400, texts.ONE_UNIQUE_ID),
    "a record without a file": ([TOMATO], 400, texts.NO_FILE),
    "an unknown record": (["nobody"], 400, texts.NO_RECORD),
    "a path": (["../garden.json"], 400, texts.NO_RECORD),
}


@pytest.mark.parametrize("stream", ["", "&stream=true"])
@pytest.mark.parametrize(("ids", "status", "message"), WITHOUT.values(), ids=WITHOUT.keys())
def test_file_only_wants_one_record_with_a_file(
    kept: RestedEmulator, ids: list[str], status: int, message: str, stream: str
) -> None:
    record = send(kept, FILE).json
    query = "".join(f"&uniqueId={record['uniqueId'] if name == 'file' else name}" for name in ids)
    reply = call(f"{kept.url(PLANTS)}{query}&fileOnly=true{stream}", headers={"Range": "bytes=0-0"})
    assert_refusal(reply, status, message)


def test_a_file_that_somebody_deleted_is_missed_and_its_record_stays(kept: RestedEmulator) -> None:
    record = send(kept, FILE).json
    (folder(kept) / record["uniqueId"]).unlink()
    reply = fetch(kept, record["uniqueId"])
    assert_refusal(reply, 400, texts.NO_FILE)
    assert "not on disk" in reply.json["hint"]
    assert call(kept.url(PLANTS), "DELETE", uniqueId=record["uniqueId"]).json == record


@pytest.mark.parametrize("query", ["", "&stream=true"])
def test_head_of_a_file_has_the_headers_of_its_get(emulator: RestedEmulator, query: str) -> None:
    target = at(PLANTS, f"fileOnly=true{query}&uniqueId={send(emulator, FILE).json['uniqueId']}")
    with wire(emulator) as connection:
        connection.sendall(head("HEAD", target, "Range: bytes=0-0") + head("GET", target))
        without, whole = answer_on(connection, "HEAD"), answer_on(connection)
    assert (without.status, without.headers) == (whole.status, whole.headers) == (200, whole.headers)
    assert without.headers["content-length"] == str(len(whole.body))
    emulator.settle()
    assert [(one["method"], one["status"]) for one in emulator.requests()[1:]] == [("HEAD", 200), ("GET", 200)]


def test_head_of_a_file_asks_what_its_get_asks(emulator: RestedEmulator) -> None:
    unique_id = send(emulator, FILE).json["uniqueId"]
    for name, wanted, status in ((PLANTS, "nobody", 400), (PLANTS, "", 400), (DIARY, unique_id, 401)):
        target = at(name, f"fileOnly=true&uniqueId={wanted}")
        with wire(emulator) as connection:
            connection.sendall(head("HEAD", target) + head("GET", target))
            without, whole = answer_on(connection, "HEAD"), answer_on(connection)
        assert (without.status, without.headers) == (whole.status, whole.headers) == (status, whole.headers)


# Ranges (RFC 9110, section 14), of a file of ten bytes

DIGITS = b"0123456789"
RANGES: dict[str, tuple[int, bytes]] = {
    # A single one
    "bytes=0-0": (206, b"0"),
    "bytes=2-4": (206, b"234"),
    "bytes=9-9": (206, b"9"),
    "bytes=0-9": (206, DIGITS),
    "bytes=5-99": (206, b"56789"),
    "bytes=5-9223372036854775807": (206, b"56789"),
    "BYTES=1-2": (206, b"12"),
    # Open-ended
    "bytes=0-": (206, DIGITS),
    "bytes=9-": (206, b"9"),
    # Suffix
    "bytes=-1": (206, b"9"),
    "bytes=-3": (206, b"789"),
    "bytes=-10": (206, DIGITS),
    "bytes=-99": (206, DIGITS),
    # Unsatisfiable
    "bytes=10-": (416, b""),
    "bytes=10-20": (416, b""),
    "bytes=99999999999999999999-": (416, b""),
    "bytes=-0": (416, b""),
    # Several: RFC 9110, section 14.2, lets a server ignore them. No player asks for several.
    "bytes=0-1,4-5": (200, DIGITS),
    "bytes=0-0,-1": (200, DIGITS),
    # Malformed, or of another unit
    "bytes=": (200, DIGITS),
    "bytes=-": (200, DIGITS),
    "bytes=4-2": (200, DIGITS),
    "bytes=1": (200, DIGITS),
    "bytes=-1-": (200, DIGITS),
    "bytes=+1-2": (200, DIGITS),
    "bytes=0x1-2": (200, DIGITS),
    "bytes=\u00b2-": (200, DIGITS),
    "bytes=1-2;": (200, DIGITS),
    "bytes": (200, DIGITS),
    "0-1": (200, DIGITS),
    "lines=0-1": (200, DIGITS),
    "": (200, DIGITS),
}


@pytest.fixture(scope="module")
def digits() -> Iterator[tuple[RestedEmulator, str]]:
    """An emulator, and the id of a file of ten digits."""
    with RestedEmulator(data=GARDEN) as running:
        yield running, send(running, file(DIGITS)).json["uniqueId"]


@pytest.mark.parametrize(("wanted", "expected"), RANGES.items())
def test_a_stream_is_sent_in_ranges(
    digits: tuple[RestedEmulator, str], wanted: str, expected: tuple[int, bytes]
) -> None:
    status, content = expected
    reply = fetch(*digits, "&stream=true", headers={"Range": wanted})
    if status == 416:
        assert_refusal(reply, 416, texts.WRONG_RANGE)
        assert reply.headers["content-range"] == "bytes */10"
        return
    assert (reply.status, reply.body) == expected
    assert (reply.headers["accept-ranges"], reply.headers["content-length"]) == ("bytes", str(len(content)))
    start = DIGITS.index(content)
    whole = f"bytes {start}-{start + len(content) - 1}/10"
    assert reply.headers.get("content-range") == (whole if status == 206 else None)


def test_without_stream_a_range_is_ignored(digits: tuple[RestedEmulator, str]) -> None:
    for wanted in ("bytes=2-4", "bytes=10-", "bytes="):
        reply = fetch(*digits, headers={"Range": wanted})
        assert (reply.status, reply.body) == (200, DIGITS)
        assert not {"accept-ranges", "content-range"} & set(reply.headers)


@pytest.mark.parametrize("validator", ['"an-etag"', 'W/"an-etag"', "Sat, 01 Jan 2022 00:00:00 GMT", "junk"])
def test_if_range_never_matches_as_there_is_nothing_to_match(
    digits: tuple[RestedEmulator, str], validator: str
) -> None:
    reply = fetch(*digits, "&stream=true", headers={"Range": "bytes=2-4", "If-Range": validator})
    assert (reply.status, reply.body) == (200, DIGITS)
    assert not {"etag", "last-modified"} & set(reply.headers)


@pytest.mark.parametrize(("wanted", "status"), [("bytes=0-", 416), ("bytes=-5", 416), ("bytes=0-0", 416), ("x", 200)])
def test_no_range_of_an_empty_file_can_be_had(emulator: RestedEmulator, wanted: str, status: int) -> None:
    record = send(emulator, file(b"")).json
    reply = fetch(emulator, record["uniqueId"], "&stream=true", headers={"Range": wanted})
    assert reply.status == status
    assert reply.headers.get("content-range") == ("bytes */0" if status == 416 else None)


# How long a file lives (contract 8.3)


def test_delete_deletes_record_and_file(kept: RestedEmulator) -> None:
    one, other = send(kept, FILE, FILE).json
    with open_socket(kept.ws_url(PLANTS)) as listener:
        assert call(kept.url(PLANTS), "DELETE", uniqueId=one["uniqueId"]).json == one
        assert next_of(listener) == {"type": "DELETE", "record": one}
    assert list(on_disk(kept)) == [other["uniqueId"]]
    assert_refusal(fetch(kept, one["uniqueId"]), 400, texts.NO_RECORD)


@pytest.mark.parametrize("strategy", ["force", "merge", "replace"])
def test_put_replaces_the_data_and_leaves_the_file(kept: RestedEmulator, strategy: str) -> None:
    unique_id = send(kept, file(b"abc", "ä.html", "text/html")).json["uniqueId"]
    data = {"originalName": "x", "mimeType": "image/png", "size": 99}
    reply = call(kept.url(PLANTS), "PUT", data, uniqueId=unique_id, strategy=strategy)
    assert reply.json["data"] == data | ({"metadata": {}} if strategy == "merge" else {})
    reply = fetch(kept, unique_id)
    assert (reply.body, reply.headers["content-type"]) == (b"abc", "text/html")
    assert reply.headers["content-disposition"].endswith("; filename*=UTF-8''%C3%A4.html")


def test_an_endpoint_is_deleted_with_its_files(kept: RestedEmulator) -> None:
    send(kept, FILE, FILE)
    other = send(kept, FILE, endpoint=CHORES, headers=bearer(kept.sign_in(GARDENERS, "ada"))).json
    kept.delete_endpoint(PLANTS)
    assert len(on_disk(kept)) == 3  # for undo
    kept.delete_endpoint(DIARY)
    assert list(on_disk(kept)) == [other["uniqueId"]]


def test_reset_goes_back_to_the_files_at_start(tmp_path: Path) -> None:
    with keep(tmp_path) as emulator:
        old = send(emulator, file(b"old")).json
    with keep(tmp_path) as emulator:
        new = send(emulator, file(b"new")).json
        call(emulator.url(PLANTS), "PUT", "changed", uniqueId=old["uniqueId"])
        call(emulator.url(PLANTS), "DELETE", uniqueId=old["uniqueId"])
        assert_refusal(fetch(emulator, old["uniqueId"]), 400, texts.NO_RECORD)
        assert emulator.reset()["messages"] == 2
        assert emulator.records(PLANTS)[-1] == old
        assert fetch(emulator, old["uniqueId"]).body == b"old"
        assert_refusal(fetch(emulator, new["uniqueId"]), 400, texts.NO_RECORD)
        assert emulator.reset()["messages"] == 0  # and now nothing of the state before can come back
        assert on_disk(emulator) == {old["uniqueId"]: b"old"}
        call(emulator.url(PLANTS), "DELETE", uniqueId=old["uniqueId"])
    assert not (tmp_path / "garden.json.files").exists()


def test_files_are_there_after_a_restart(tmp_path: Path) -> None:
    with keep(tmp_path) as emulator:
        records = send(emulator, file(b"one", NAME.replace('"', "%22")), file(b"two")).json
    stored = json.loads((tmp_path / "garden.json").read_text())[PLANTS][records[0]["uniqueId"]]
    assert stored["file"] == {"originalName": NAME, "mimeType": "text/plain", "size": 3}
    with keep(tmp_path) as emulator:
        assert emulator.records(PLANTS)[-2:] == records
        assert [fetch(emulator, record["uniqueId"]).body for record in records] == [b"one", b"two"]
        assert quote(NAME) in fetch(emulator, records[0]["uniqueId"]).headers["content-disposition"]


def edit(emulator: RestedEmulator, change: Callable[[Any], object]) -> None:
    """Edit the data file by hand, and let the emulator look at it."""
    emulator.call(lambda server: server.world.store.file.save())
    path = Path(str(emulator.facts["data"]))
    tree = json.loads(path.read_text())
    change(tree)
    draft = path.with_suffix(".edited")
    draft.write_text(json.dumps(tree))
    draft.replace(path)
    emulator.call(lambda server: server.world.tick())


def test_a_record_deleted_by_hand_takes_its_file_along(kept: RestedEmulator) -> None:
    one, other = send(kept, FILE, FILE).json
    edit(kept, lambda tree: tree[PLANTS].pop(one["uniqueId"]))
    assert kept.records(PLANTS)[-1] == other
    assert list(on_disk(kept)) == [other["uniqueId"]]


def test_an_endpoint_renamed_by_hand_keeps_its_files(kept: RestedEmulator) -> None:
    record = send(kept, FILE).json

    def rename(tree: Any) -> None:
        for table in (tree, tree["_endpoints"]):
            table["garden/herbs"] = table.pop(PLANTS)

    edit(kept, rename)
    assert kept.records("garden/herbs")[-1] == record
    assert fetch(kept, record["uniqueId"], endpoint="garden/herbs").body == b"abc"


@pytest.mark.parametrize("file", [1, {}, {"originalName": 1}, {"originalName": "a", "mimeType": "b", "size": "3"}])
@pytest.mark.warns("the edit is neither taken over nor written over")
def test_a_file_that_is_none_is_not_taken_over(kept: RestedEmulator, file: object) -> None:
    before = kept.records(PLANTS)
    edit(kept, lambda tree: tree[PLANTS][TOMATO].update(file=file))
    kept.call(lambda server: server.world.tick())
    assert kept.records(PLANTS) == before
    edit(kept, lambda tree: tree[PLANTS][TOMATO].pop("file"))


def test_a_type_written_by_hand_cannot_spoil_the_answer(kept: RestedEmulator) -> None:
    record = send(kept, FILE).json
    evil = {"originalName": "a\r\nX: y", "mimeType": "a/b\r\nX: y", "size": 3}
    edit(kept, lambda tree: tree[PLANTS][record["uniqueId"]].update(file=evil))
    reply = fetch(kept, record["uniqueId"])
    assert (reply.headers["content-type"], "x" in reply.headers) == ("application/octet-stream", False)


def test_in_memory_files_are_gone_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with RestedEmulator(data=GARDEN) as emulator:
        assert list(tmp_path.iterdir()) == []
        records = send(emulator, file(b"one"), file(b"two")).json
        (place,) = tmp_path.iterdir()
        assert sorted(path.name for path in place.iterdir()) == sorted(record["uniqueId"] for record in records)
        assert fetch(emulator, records[1]["uniqueId"]).body == b"two"
    assert list(tmp_path.iterdir()) == []


def test_in_memory_the_files_of_the_data_file_are_only_read(tmp_path: Path) -> None:
    with keep(tmp_path) as emulator:
        record = send(emulator, FILE).json
    data = tmp_path / "garden.json"
    before = data.read_bytes()
    with RestedEmulator(data=data) as emulator:
        assert fetch(emulator, record["uniqueId"]).body == b"abc"
        call(emulator.url(PLANTS), "DELETE", uniqueId=record["uniqueId"])
        emulator.reset()
        assert fetch(emulator, record["uniqueId"]).body == b"abc"
        call(emulator.url(PLANTS), "DELETE", uniqueId=record["uniqueId"])
    assert [path.read_bytes() for path in (tmp_path / "garden.json.files").iterdir()] == [b"abc"]
    assert data.read_bytes() == before


@pytest.mark.parametrize("memory", [True, False])
def test_a_seed_brings_its_files_and_reset_brings_them_back(tmp_path: Path, memory: bool) -> None:
    with keep(tmp_path) as emulator:
        record = send(emulator, FILE).json
    options: dict[str, Any] = {"seed": tmp_path / "garden.json"}
    if not memory:
        options |= {"memory": False, "data": tmp_path / "data.json"}
    for _ in range(2):
        with RestedEmulator(**options) as emulator:
            emulator.reset()
            assert fetch(emulator, record["uniqueId"]).body == b"abc"
            call(emulator.url(PLANTS), "DELETE", uniqueId=record["uniqueId"])
            emulator.reset()
            assert fetch(emulator, record["uniqueId"]).body == b"abc"
            call(emulator.url(PLANTS), "DELETE", uniqueId=record["uniqueId"])
    assert [path.read_bytes() for path in (tmp_path / "garden.json.files").iterdir()] == [b"abc"]


# Whose files they are (contract 6.8)


def test_files_of_a_secure_endpoint_belong_to_who_sent_them(kept: RestedEmulator) -> None:
    ada, ben = (bearer(kept.sign_in(GARDENERS, name)) for name in ("ada", "ben"))
    with open_socket(kept.ws_url(CHORES), additional_headers=ada) as own:
        record = send(kept, FILE, endpoint=CHORES, headers=ada).json
        assert next_of(own) == {"type": "POST", "record": record}
    unique_id = record["uniqueId"]
    owner = kept.call(lambda server: server.world.store.record(CHORES, unique_id))
    assert owner is not None
    assert owner.owner == ADA
    assert fetch(kept, unique_id, endpoint=CHORES, headers=ada).body == b"abc"
    assert fetch(kept, unique_id, f"&masterKey={MASTER_KEY}", endpoint=CHORES).body == b"abc"
    assert_refusal(fetch(kept, unique_id, endpoint=CHORES), 401, texts.NO_TOKEN)
    kept.change_endpoint(CHORES, others_can_read=False, others_can_delete=False)
    assert_refusal(fetch(kept, unique_id, endpoint=CHORES, headers=ben), 400, texts.NO_RECORD)
    assert_refusal(call(kept.url(CHORES), "DELETE", headers=ben, uniqueId=unique_id), 400, texts.NO_RECORD)
    kept.change_endpoint(CHORES, others_can_read=True)
    assert fetch(kept, unique_id, endpoint=CHORES, headers=ben).body == b"abc"
    assert call(kept.url(CHORES), "DELETE", headers=ben, uniqueId=unique_id).status == 403
    assert on_disk(kept) == {unique_id: b"abc"}


def test_the_master_key_uploads_without_a_token(kept: RestedEmulator) -> None:
    record = send(kept, FILE, endpoint=DIARY, masterKey=MASTER_KEY).json
    assert on_disk(kept) == {record["uniqueId"]: b"abc"}


# Without a socket


# The figures: memory and patience

FILES = 10
MOST_MEMORY = 32 * 2**20
LONGEST_STALL = 0.05


def memory_of(pid: int, what: str) -> int:
    """A process's memory in bytes: VmRSS now, or VmHWM, the most there was."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


class Prober(threading.Thread):
    """Asks for a record again and again; ``longest`` is how long it had to wait, in seconds."""

    def __init__(self, port: int, target: str) -> None:
        super().__init__()
        self.longest, self.count, self.is_done = 0.0, 0, threading.Event()
        self._target = target
        self._connection = HTTPConnection("127.0.0.1", port, timeout=10)

    def run(self) -> None:
        while not self.is_done.wait(0.002):
            start = perf_counter()
            self._connection.request("GET", self._target)
            assert self._connection.getresponse().read()
            self.longest = max(self.longest, perf_counter() - start)
            self.count += 1
        self._connection.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
@pytest.mark.alone
def test_ten_large_files_take_little_memory_and_delay_nobody(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """``pytest tests/test_uploads.py -k large_files -s --megabytes 100`` takes the largest files there may be."""
    size = pytestconfig.getoption("--megabytes") * 2**20
    front, end = file().split(b"abc")
    length = FILES * (len(front) + size + len(end)) + len(form())
    block = os.urandom(2**20)
    with test_crash.emulator(tmp_path / "data.json") as (process, facts):
        url = f"{facts['url']}/{test_crash.ENDPOINT}?key={facts['key']}"
        target = at(test_crash.ENDPOINT, key=facts["key"])
        for _ in range(20):  # what is imported and kept from the first requests on is not what is measured
            call(url, "POST", body=form(FILE, FILE), headers=FORM)
        before = memory_of(process.pid, "VmRSS")
        for _ in range(3):  # somebody else may keep this machine busy for a moment
            prober = Prober(facts["port"], target)
            prober.start()
            start = perf_counter()
            with socket.create_connection(("127.0.0.1", facts["port"]), timeout=60) as connection:
                lines = [f"Content-Type: {FORM['Content-Type']}", f"Content-Length: {length}"]
                connection.sendall(head("POST", target, *lines))
                for _ in range(FILES):
                    connection.sendall(front)
                    for _ in range(size // 2**20):
                        connection.sendall(block)
                    connection.sendall(end)
                connection.sendall(form())
                records = answer_on(connection).json
            seconds = perf_counter() - start
            prober.is_done.set()
            prober.join(timeout=10)
            rise = memory_of(process.pid, "VmHWM") - before
            assert [record["data"]["size"] for record in records] == [size] * FILES
            assert prober.count > 10
            print(f"\n{FILES} x {size} bytes in {seconds:.1f} s: {rise} bytes, {prober.longest * 1000:.1f} ms at most")
            assert rise <= MOST_MEMORY
            for record in records:
                assert call(url, "DELETE", uniqueId=record["uniqueId"]).status == 200
            if prober.longest <= LONGEST_STALL:
                break
        assert prober.longest <= LONGEST_STALL
