"""Generated input for what is pure: JSON, origins, names, hosts, durations, ranges, queries, multipart.

Each property says what must never happen, or agrees with somebody else's reading. The examples are the same on every
run; ``--fuzz 20000`` makes up that many new ones for each property.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rested_emulator import (
    Clock,
    DataFileError,
    Gate,
    JsonFile,
    OptionError,
    Options,
    Refusal,
    RestedEmulator,
    Store,
    load_tree,
    parse_origin,
    parse_parameters,
    parse_range,
)
from tests.conftest import GARDEN, PLANTS, TOMATO, Backend, knock, refused
from tests.wire import JSON, answer_on, at, call, head, seen, wire

# JSON

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)
PIECES = [
    *'[]{},:"\\/ \t\n01-+.eE',
    *(
        "NaN",
        "Infinity",
        "null",
        "true",
        "\\u",
        "\\ud800",
        "\\udc00",
        "\\n",
        "\ufeff",
        "\0",
        "\x1f",
        "é",
        "🥕",
        "1e400",
    ),
    *("-0", "9" * 400, "[" * 600, "]" * 600, '{"a":', "}" * 600, "//", "/*", "'", '"__proto__"'),
]
ALMOST = st.lists(st.sampled_from(PIECES)).map("".join)


def no_constant(name: str) -> None:
    raise ValueError(name)


def strictly(text: str) -> Any:
    """JSON as Python's own module reads it where it is told to be strict; raises ValueError."""
    try:
        value = json.loads(text, parse_constant=no_constant)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError from None
    if depth(value) > 512:
        raise ValueError
    return value


def depth(value: Any) -> int:
    level, levels = [value], 0
    while level := [one for one in level if isinstance(one, list | dict)]:
        levels += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return levels


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, with the order of their members, and 1 another than 1.0 and true."""
    return json.dumps(one) == json.dumps(other)


@pytest.fixture(scope="module")
def garden_service() -> Backend:
    """A backend for all examples."""
    return Backend(Store(JsonFile(None, load_tree(str(GARDEN)))), Clock(), Gate())


def kept(service: Backend, body: bytes | None, kind: str | None = "application/json", coding: str | None = None) -> Any:
    """The data that a PUT of a body makes."""
    approach = knock(PLANTS, unique_id=TOMATO, content=(kind, coding, body))
    return service.update(approach).packed_data


@given(VALUE, st.sampled_from([None, 1]), st.booleans())
def test_json_comes_back_as_it_was(garden_service: Backend, value: Any, indent: int | None, escaped: bool) -> None:
    packed = kept(garden_service, json.dumps(value, indent=indent, ensure_ascii=escaped).encode())
    assert same(json.loads(packed), value)
    assert kept(garden_service, packed) == packed


@given(st.text() | ALMOST)
@example("[" * 513 + "]" * 513)
@example("[" * 512 + "]" * 512)
@example('["' + "[" * 600 + '\\"",1]')
def test_json_is_read_as_strictly_as_python_can(garden_service: Backend, text: str) -> None:
    body = text.encode(errors="surrogatepass")
    try:
        expected = strictly(text)
    except ValueError:
        with refused(400):
            kept(garden_service, body)
    else:
        assert same(json.loads(kept(garden_service, body)), expected)


def check_refusal(refusal: Refusal) -> None:
    assert refusal.status in (400, 413)
    assert str(refusal).isprintable()


@given(
    st.sampled_from(["application/json", "text/plain; charset=utf-8"]) | st.text() | st.none(),
    st.none() | st.text(),
    st.none() | st.binary() | ALMOST.map(lambda text: text.encode(errors="surrogatepass")),
)
def test_a_body_is_data_or_a_refusal(
    garden_service: Backend, kind: str | None, encoding: str | None, body: bytes | None
) -> None:
    try:
        packed = kept(garden_service, body, kind, encoding)
    except Refusal as refusal:
        check_refusal(refusal)
    else:
        assert body
        assert same(json.loads(packed), body.decode() if str(kind).lower().startswith("text") else json.loads(body))


# Names, hosts, origins

NAMES = st.text("az09-/_A.%\n\x00é", max_size=12) | st.text()


@given(NAMES | st.from_regex(r"[a-z0-9/-]{3,260}", fullmatch=True))
def test_a_name_follows_the_rule(garden_service: Backend, name: str) -> None:
    good = (
        5 <= len(name) <= 254
        and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-/")
        and name[0] not in "-/"
        and name[-1] not in "-/"
        and "--" not in name
        and "//" not in name
    )
    if good:
        assert Options.of(endpoint=(name,)).endpoint == (name,)
    else:
        with pytest.raises(OptionError, match="no endpoint name"):
            garden_service.change_endpoint(name)


ADDRESSES = st.ip_addresses().map(lambda address: f"[{address}]" if address.version == 6 else str(address))
LABELS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,5}", fullmatch=True)
HOSTS = (
    ADDRESSES
    | st.sampled_from(["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost."])
    | st.lists(LABELS | st.just("localhost"), min_size=1, max_size=4).map(".".join)
)
JUNK = st.sampled_from(
    [*"@#?/\\:,. []%\n\t\0", "evil.com", ".localhost", "localhost", "127.0.0.1", "[::1]", "xn--a", "é"]
)
ALMOST_HOSTS = st.lists(HOSTS | JUNK | st.text(max_size=3), max_size=5).map("".join)


def is_here(host: str) -> bool:
    """Whether a browser takes a host for this machine, however it finds the host in what it is given."""
    name = host.lower()
    try:
        return ipaddress.ip_address(name.strip("[]").removesuffix(".")).is_loopback
    except ValueError:
        return name.strip(".").split(".")[-1] == "localhost"


@given(HOSTS | ALMOST_HOSTS, st.none() | st.integers(0, 99_999))
def test_a_host_that_passes_is_what_a_url_of_it_leads_to(host: str, port: int | None) -> None:
    header = host if port is None else f"{host}:{port}"
    with suppress(Refusal):
        Gate().check_host(header)
        assert re.search(r"[\s/?#@\\]", header) is None
        if header.isascii() and (port is None or port < 65536):
            assert is_here(urlsplit(f"http://{header}/").hostname or "")


def passes(origin: str) -> bool:
    """Whether the gate lets in a page from there, as one of this machine."""
    try:
        Gate().check_origin(origin, [])
    except Refusal:
        return False
    return True


@given(
    st.sampled_from(["http", "https", "HTTPS", "ws", "WSS", "tauri", "ftp", "file", ""]),
    HOSTS | ALMOST_HOSTS,
    st.none() | st.integers(-1, 70_000),
)
def test_an_origin_is_what_a_url_says(scheme: str, host: str, port: int | None) -> None:
    text = f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"
    origin = parse_origin(text)
    if origin is None:
        assert not passes(text)
        return
    assert parse_origin(origin) == origin
    said, kept = urlsplit(text), urlsplit(origin)
    assert (kept.scheme, kept.path, kept.query, kept.fragment, kept.username) == (said.scheme, "", "", "", None)
    default = {"http": 80, "https": 443, "ws": 80, "wss": 443}.get(kept.scheme)
    assert (kept.port or default) == (said.port or default)
    if text.isascii():
        assert kept.hostname == said.hostname
        assert not passes(text) or is_here(said.hostname or "")


@given(HOSTS, st.integers(1, 65_535))
def test_an_origin_of_a_browser_is_one(host: str, port: int) -> None:
    assert parse_origin(f"http://{host}:{port}") is not None
    assert passes(f"http://{host}:{port}") == is_here(host)


# Durations, ranges, queries


@given(st.floats(0, 3e9) | st.integers(0, 3 * 10**9), st.sampled_from(["", "ms", "s", "m", "h"]))
def test_a_duration_is_its_number_times_its_unit(number: float, unit: str) -> None:
    text = f"{number:f}"
    expected = float(text) * {"ms": 0.001, "m": 60, "h": 3600}.get(unit, 1)
    if expected <= 100 * 365 * 86400:
        assert Options.of(latency=text + unit).latency == (expected, expected)
    else:
        with pytest.raises(OptionError):
            Options.of(latency=text + unit)


@given(st.text() | st.text("0123456789.msh -+e_\n") | st.floats() | st.integers() | st.booleans())
def test_what_is_no_duration_is_an_option_error(value: Any) -> None:
    try:
        seconds = Options.of(token_ttl=value).token_ttl
    except OptionError:
        return
    assert seconds is not None
    assert 0 <= seconds <= 100 * 365 * 86400
    assert not isinstance(value, bool)


@given(st.integers(0, 50), st.none() | st.integers(0, 60), st.none() | st.integers(0, 60))
def test_a_range_is_a_slice(size: int, first: int | None, last: int | None) -> None:
    content = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert parse_range(header, size) is None
        return
    expected = (
        content[-last or size :]
        if first is None and last is not None
        else content[first : None if last is None else last + 1]
    )
    if not expected:
        with refused(416):
            parse_range(header, size)
        return
    found = parse_range(header, size)
    assert found is not None
    assert content[found[0] : found[0] + found[1]] == expected


@given(st.text() | st.text("bytes=-0123456789, \t٣", max_size=300), st.integers(0, 2**40))
@example("bytes=" + " " * 250_000 + "x", 5)
@example("bytes=0-" + "9" * 5000, 5)
def test_any_other_range_lies_within_the_file(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except Refusal:
        return
    assert found is None or (found[0] >= 0 and found[1] > 0 and sum(found) <= size)


QUERIES = st.lists(
    st.sampled_from(
        ["key", "uniqueId", "dataOnly", "strategy", "=", "=", "&", "&", "true", "%", "%2", "%20", "%ff", "+", ";"]
    )
    | st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=4)
).map("".join)


@given(QUERIES)
@example("&" * 200_000)
@example("x=%20&" * 40_000)
def test_a_query_is_read_as_everybody_reads_it(query: str) -> None:
    parameters = parse_parameters(query)
    said = parse_qs(query, keep_blank_values=True)
    assert parameters.key == said.get("key", [None])[-1]
    assert parameters.data_only == (said.get("dataOnly", [""])[-1] == "true")
    assert parameters.unique_ids == tuple(filter(None, said.get("uniqueId", [])))
    if not parameters.malformed:
        assert query.isascii()


# Unique ids

IDS = st.lists(st.sampled_from([*",&=%+ ;#?/\\\"'\u2028\ufffd\x7f\n"]) | TEXT.map(lambda text: text[:3])).map("".join)


@given(IDS)
@example("Smith, John")
@example(" a b ")
@example("\ufffd")
@example("🌱" * 1000)
def test_every_id_that_a_file_may_hold_can_be_read_changed_and_deleted(tmp_path: Path, unique_id: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({PLANTS: {"other": {"data": 0}, unique_id: {"data": 1}, "others": {"data": 0}}}))
    try:
        tree = load_tree(str(path))
    except DataFileError as error:
        refused_with = str(error)
    else:
        refused_with = ""
    if refused_with:
        assert "uniqueId is" in refused_with
        assert PLANTS in refused_with
        return
    backend = Backend(Store(JsonFile(None, tree)), Clock(), Gate())
    [key] = tree["_projects"]
    for verb, data in ((Backend.read, 1), (Backend.update, 2), (Backend.delete, 2)):
        asked = parse_parameters(urlencode({"uniqueId": unique_id})).unique_ids
        record = verb(backend, knock(PLANTS, 2, key=key, unique_ids=asked))
        assert (record.unique_id, record.data) == (unique_id, data)
    assert backend.store.count(PLANTS) == 2


# Multipart

PARTS = st.lists(
    st.sampled_from(
        [
            *(b"--x", b"--x--", b"\r\n", b"\r\n\r\n", b"\n", b"Content-Disposition: form-data", b'; name="file"'),
            *(b'; filename="a"', b"; filename=", b"; filename*=utf-8''%ff", b"; name=title", b'"', b"\\", b";", b"\0"),
            *(
                b"Content-Type: text/plain",
                b"Content-Type: \xff",
                b'--x\r\nContent-Disposition: form-data; name="file"',
            ),
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n',
        ]
    )
    | st.binary(max_size=10)
).map(b"".join)


@given(PARTS, st.integers(1, 50), st.sampled_from(["x", '"x"', "", "\xff", "x" * 300]))
@example(b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + b'\\"' * 8000 + b"\r\n\r\n", 50, "x")
def test_a_multipart_body_is_files_or_a_refusal(garden_service: Backend, body: bytes, step: int, boundary: str) -> None:
    kind = f"multipart/form-data; boundary={boundary}"
    try:
        upload = garden_service.start_upload(knock(PLANTS, content=(kind, None, b"")), 1000)
    except Refusal as refusal:
        check_refusal(refusal)
        return
    try:
        for start in range(0, len(body), step):
            upload.feed(body[start : start + step])
        kept, metadata = upload.finish()
    except Refusal as refusal:
        check_refusal(refusal)
    else:
        assert 1 <= len(kept) <= 10
        json.dumps(metadata).encode()
    finally:
        upload.discard()


# The whole, over the wire


@pytest.fixture(scope="module")
def shared() -> Iterator[RestedEmulator]:
    with RestedEmulator(data=GARDEN) as emulator:
        before = seen(emulator)
        yield emulator
        assert seen(emulator) == before


KINDS = [
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "multipart/form-data; boundary=x",
    "text/html",
    "",
]


@pytest.mark.may_warn("counts for nothing here", "JSON.stringify")
@given(
    st.sampled_from(KINDS),
    st.binary()
    | ALMOST.map(lambda text: text.encode(errors="surrogatepass"))
    | VALUE.map(lambda value: json.dumps(value).encode())
    | PARTS,
    st.sampled_from(["", "&dataOnly=true", "&uniqueId=x", "&login=true", "&strategy=merge", "&masterKey=x", "&%ff"]),
    st.sampled_from(["POST", "PUT"]),
)
def test_a_generated_body_is_stored_whole_or_refused(
    shared: RestedEmulator, kind: str, body: bytes, query: str, method: str
) -> None:
    before = shared.records(PLANTS)
    with wire(shared) as connection:
        kinds = [f"Content-Type: {kind}"] if kind else []
        connection.sendall(head(method, at(PLANTS) + query, *kinds, f"Content-Length: {len(body)}") + body)
        reply = answer_on(connection)
    if reply.status == 200:
        assert method == "POST"
        for record in shared.records(PLANTS)[3:]:
            call(shared.url(PLANTS), "DELETE", uniqueId=str(record["uniqueId"]))
    else:
        assert reply.status in (400, 403)
        assert (reply.headers["content-type"], list(reply.json)) == (JSON, ["code", "message", "hint"])
    assert shared.records(PLANTS) == before
