"""Model: names, origins, parameters, bodies, and what a PUT makes of two values (contract 2, 3, 4.3 and 5)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from rested_emulator import (
    SAMPLE_TIME,
    BadRequest,
    Forbidden,
    Json,
    Listing,
    Message,
    MethodNotAllowed,
    NotFound,
    NotInstalled,
    OptionError,
    OriginRefused,
    Overloaded,
    Parameters,
    RangeRefused,
    Record,
    Refusal,
    Strategy,
    TokenExpired,
    TooLarge,
    Unauthenticated,
    apply_strategy,
    camel,
    check_endpoint_name,
    check_key,
    check_kind,
    check_project_name,
    check_strategy,
    decode,
    encode,
    is_loopback,
    new_id,
    parse_body,
    parse_duration,
    parse_origin,
    parse_origins,
    parse_parameters,
    parse_size,
    shown,
    timestamp,
)
from tests.conftest import NOON, PLANTS, Sent, knock

LATER = "2027-01-15T08:00:00.000Z"

NOT_ASCII = "the patterns fold case and count digits as Unicode does; they want re.ASCII"


def send(body: bytes, kind: str | None = "application/json", encoding: str | None = None) -> Json:
    return decode(parse_body(knock(PLANTS, content=(kind, encoding, body))))


def refused(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value


# Names


@pytest.mark.parametrize(
    "name",
    [
        "notes",
        "12345",
        "a/b/c",
        "a-b-c",
        "notes/-/today",
        "examples/unsecure-endpoint",
        pytest.param("a" * 254, id="254 characters"),
        pytest.param("a/" * 126 + "ab", id="254 characters, 127 segments"),
    ],
)
def test_a_good_endpoint_name_is_kept(name: str) -> None:
    assert check_endpoint_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "four",
        pytest.param("a" * 255, id="255 characters"),
        "a--bc",
        "a//bc",
        "notes/--/a",
        "-notes",
        "notes-",
        "/notes",
        "notes/",
        "Notes",
        "nötes",
        "notes٣",
        "no tes",
        "no_tes",
        "no.tes",
        "../etc",
        "notes%2fa",
        "notes\n",
        "\nnotes",
        "notes\x00",
        "_projects",
    ],
)
def test_a_bad_endpoint_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(OptionError, match=re.escape(shown(name))):
        check_endpoint_name(name)


@pytest.mark.parametrize("name", ["games", "My first app_2 - beta", pytest.param("a" * 254, id="254 characters")])
def test_a_good_project_name_is_kept(name: str) -> None:
    assert check_project_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "four", pytest.param("a" * 255, id="255 characters"), "a/b/c", "<b>app", "my\tapp", "games\n", "game!"]
)
def test_a_bad_project_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="no project name"):
        check_project_name(name)


@pytest.mark.parametrize("key", ["k", "a b", "a#b&c", "ключ", "🗝", "d59eb2859c284168ac48aef65046d5dd"])
def test_any_text_that_is_not_empty_is_a_key(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key", [" ", " k", "k ", "k\n", "\tk", "\u00a0k", "a\0b", "a\x1b[31mb", "a\x9b31mb", "a\x7f", "\ufeffk"]
)
def test_a_key_that_does_not_show_as_it_is_is_refused(key: str) -> None:
    with pytest.raises(OptionError, match=r"masterKey is .* white space around it"):
        check_key(key, "masterKey")


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(OptionError, match="masterKey is empty"):
        check_key("", "masterKey")


def test_a_new_id_is_a_version_4_uuid_without_dashes() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", one) for one in ids)


# Origins


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://localhost:3000", "http://localhost:3000"),
        ("HTTP://LocalHost:3000", "http://localhost:3000"),
        ("https://App.Example", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("https://app.example:80", "https://app.example:80"),
        ("http://app.example:00080", "http://app.example"),
        ("http://app.example:1", "http://app.example:1"),
        ("http://app.example:65535", "http://app.example:65535"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]", "http://[::1]"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://xn--mller-kva.example", "https://xn--mller-kva.example"),
        ("https://app.example.evil.example", "https://app.example.evil.example"),
        ("ws://app.example:80", "ws://app.example"),
        ("WSS://App.Example:443", "wss://app.example"),
        ("ws://app.example:443", "ws://app.example:443"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost:80", "ionic://localhost:80"),
        ("tauri://LocalHost", "tauri://localhost"),
    ],
)
def test_an_origin_is_scheme_host_and_port(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "app.example",
        "//app.example",
        "ftp://app.example",
        "file://",
        "http://",
        "http:///",
        "http://:80",
        "http://app.example/",
        "http://app.example/path",
        "http://app.example?",
        "http://app.example#",
        "http://app.example:",
        "http://app.example:0",
        "http://app.example:65536",
        "http://app.example:-1",
        "http://app.example:80:80",
        "http://app.example:8e1",
        "http://ada@app.example",
        "http://ada:secret@app.example",
        "http://localhost@evil.example",
        "http://app.example\\.evil.example",
        "http://app.example,http://evil.example",
        "http://app.example http://evil.example",
        "http://[::1",
        "http://::1",
        "http://[::1]evil.example",
        "http://[evil.example]",
        " http://app.example",
        "http://app.example\n",
        "http\N{LATIN SMALL LETTER LONG S}://app.example",
        "http://app.example:8\N{FULLWIDTH DIGIT ZERO}",
        "http://[::::]",
        "http://[.]:80",
    ],
)
def test_what_is_no_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None


@pytest.mark.parametrize(
    ("texts", "origins"),
    [
        ([], ()),
        (["", " , "], ()),
        (["http://a.example"], ("http://a.example",)),
        (["http://a.example/"], ("http://a.example",)),
        (["http://a.example, https://b.example:8443"], ("http://a.example", "https://b.example:8443")),
        (["https://b.example", "http://a.example"], ("https://b.example", "http://a.example")),
        (["http://a.example", "HTTP://A.example:80/"], ("http://a.example",)),
        (["ws://a.example:80/,tauri://localhost"], ("ws://a.example", "tauri://localhost")),
    ],
)
def test_allowed_origins_are_a_list_or_have_commas_between(texts: list[str], origins: tuple[str, ...]) -> None:
    assert parse_origins(texts) == origins


@pytest.mark.parametrize("text", ["*", "null", "a.example", "http://a.example//", "http://a.example/app", "http://a:0"])
def test_allowed_origins_have_no_room_for_anything_else(text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"{shown(text)} is no origin")):
        parse_origins(["http://good.example", text])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "app.localhost",
        "a.b.LocalHost.",
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
    ],
)
def test_a_loopback_host_means_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "example.com",
        "localhost.example.com",
        "notlocalhost",
        "localhost..",
        "localhost@evil.example",
        "127.0.0.1.example.com",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "127.0.0.1:80",
        "0.0.0.0",
        "128.0.0.1",
        "192.168.0.1",
        "::",
        "[::]",
        "[::2]",
        "locaIhost",
        "localho\N{LATIN SMALL LETTER LONG S}t",
        "12\N{FULLWIDTH DIGIT SEVEN}.0.0.1",
    ],
)
def test_any_other_host_does_not(host: str) -> None:
    assert not is_loopback(host)


# Options


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30),
        ("0", 0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("10s", 10),
        ("1.5m", 90),
        ("1h", 3600),
        (30, 30),
        (0.25, 0.25),
        ("876000h", 3_153_600_000),
        pytest.param(0.00001, 0.00001),
    ],
)
def test_a_duration_is_in_seconds(value: str | float, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        -1,
        "1d",
        "1H",
        "10 s",
        "10s\n",
        "1h30m",
        ".5",
        "1.",
        "1e3",
        "nan",
        float("nan"),
        float("inf"),
        "876001h",
        True,
        pytest.param("9" * 400, id="400 digits"),
        "٣s",
    ],
)
def test_what_is_no_duration_is_refused(value: str | float) -> None:
    with pytest.raises(OptionError, match="is no duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("1", 1),
        (5000, 5000),
        ("5000B", 5000),
        ("100KB", 100_000),
        ("1mb", 1_000_000),
        ("1.5MB", 1_500_000),
        ("1GB", 10**9),
        pytest.param("1.001MB", 1_001_000),
    ],
)
def test_a_size_is_in_bytes(value: str | int, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "0.1",
        "-1",
        -1,
        "1 MB",
        "1MiB",
        "1TB",
        "1MB\n",
        "MB",
        "1.1GB",
        10**9 + 1,
        True,
        "1\N{KELVIN SIGN}B",
    ],
)
def test_what_is_no_size_is_refused(value: str | int) -> None:
    with pytest.raises(OptionError, match="is no size"):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, "bool", True),
        ("x", "str", "x"),
        ("x", "str | None", "x"),
        (3, "int", 3),
        (3, "float", 3.0),
        (2.5, "float", 2.5),
        (["a", "b"], "Sequence[str]", ("a", "b")),
        ([], "tuple[str, ...]", ()),
    ],
)
def test_a_value_of_the_right_kind_is_kept(value: object, kind: str, expected: object) -> None:
    assert check_kind(value, kind, "it") == expected


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (1, "bool", "true or false"),
        ("true", "bool", "true or false"),
        (None, "str", "a text"),
        (1, "str | None", "a text"),
        (True, "int", "a whole number"),
        (1.0, "int", "a whole number"),
        (True, "float", "a number"),
        ("1", "float", "a number"),
        (float("nan"), "float", "a finite number"),
        (float("inf"), "float", "a finite number"),
        pytest.param(10**400, "float", "a finite number", id="400 digits"),
        ("a", "Sequence[str]", "a list of texts"),
        (["a", 1], "tuple[str, ...]", "a list of texts"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_the_right_kind_named(value: object, kind: str, words: str) -> None:
    with pytest.raises(OptionError, match=f"^it is .*; it takes {words}"):
        check_kind(value, kind, "it")


@pytest.mark.parametrize(("name", "spelled"), [("secure", "secure"), ("others_can_read", "othersCanRead")])
def test_json_spells_names_in_camel_case(name: str, spelled: str) -> None:
    assert camel(name) == spelled


# Parameters


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", Parameters()),
        ("key=K&masterKey=M&accessToken=T", Parameters(key="K", master_key="M", access_token="T")),
        ("key=a&key=b", Parameters(key="b")),
        ("key=", Parameters(key="")),
        ("key", Parameters(key="")),
        ("masterKey=", Parameters(master_key="")),
        ("KEY=K&Key=K", Parameters()),
        ("key=a%26b%3Dc+d", Parameters(key="a&b=c d")),
        ("key=%C3%BC%F0%9F%8C%B1", Parameters(key="ü🌱")),
        ("key=a%00b", Parameters(key="a\0b")),
        ("&&key=K&", Parameters(key="K")),
        ("key=a;strategy=merge", Parameters(key="a;strategy=merge")),
        ("colour=red&page=2", Parameters()),
        ("strategy=merge", Parameters(strategy="merge")),
        ("strategy=merge&strategy=replace", Parameters(strategy="replace")),
        ("strategy=", Parameters(strategy="")),
        ("dataOnly=true", Parameters(data_only=True)),
        ("login=true", Parameters(login=True)),
        ("logout=true", Parameters(logout=True)),
        ("noATCookie=true", Parameters(no_at_cookie=True)),
        ("passwordreset=true", Parameters(password_reset=True)),
        ("dataOnly=false&dataOnly=true", Parameters(data_only=True)),
        ("dataOnly=true&dataOnly=false", Parameters()),
        ("dataOnly=true&dataOnly=", Parameters()),
        ("jsonata=%24count(%24)", Parameters(jsonata="$count($)")),
        ("uniqueId=a", Parameters(unique_ids=("a",))),
        ("uniqueId=", Parameters()),
        ("uniqueId=&uniqueId", Parameters()),
        ("uniqueId=b&uniqueId=a", Parameters(unique_ids=("b", "a"))),
        ("uniqueId=c,a,b", Parameters(unique_ids=("c,a,b",))),
        ("uniqueId=c%2Ca", Parameters(unique_ids=("c,a",))),
        ("uniqueId=c,%20a&dataOnly=true&uniqueId=,b", Parameters(unique_ids=("c, a", ",b"), data_only=True)),
        ("key=K&strategy=%FF", Parameters(key="K", strategy="\ufffd", malformed=True)),
        ("uniqueId=%EF%BF%BD", Parameters(unique_ids=("\ufffd",))),
        ("key=%C3", Parameters(key="\ufffd", malformed=True)),
        ("key=%ED%A0%80", Parameters(key="\ufffd\ufffd\ufffd", malformed=True)),
        ("key=K&%FF=1", Parameters(key="K", malformed=True)),
        ("key=100%", Parameters(key="100%")),
    ],
)
def test_a_query_becomes_parameters(query: str, parameters: Parameters) -> None:
    assert parse_parameters(query)._replace(flags=(), warnings=()) == parameters


@pytest.mark.parametrize("name", ["dataOnly", "login", "logout", "noATCookie", "passwordreset"])
@pytest.mark.parametrize("value", ["", "=", "=True", "=TRUE", "=1", "=yes", "=false", "=true%20", "=%20true"])
def test_a_flag_with_any_other_value_than_true_is_not_set(name: str, value: str) -> None:
    assert parse_parameters(name + value)._replace(warnings=()) == Parameters()


def test_many_parameters_are_read_like_few() -> None:
    assert parse_parameters("&".join(["x=1"] * 1500 + ["key=K"])) == Parameters(key="K")


# Bodies


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        " application/json ",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; Charset=utf8",
        "application/json; version=1; charset=utf-8",
        "application/json;",
    ],
)
def test_json_is_known_by_its_content_type(kind: str) -> None:
    assert send(b'"1"', kind) == "1"


@pytest.mark.parametrize(
    "kind", ["text/plain", "TEXT/Plain", "text/plain;charset=utf-8", 'text/plain; charset="UTF-8"']
)
@pytest.mark.parametrize("body", ['"1"', " ", "{", "NaN", "Möhre 🌱", "\ufeffmarked", "a\0b\r\n"])
def test_text_is_kept_as_it_is(kind: str, body: str) -> None:
    assert send(body.encode(), kind) == body


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        ";charset=utf-8",
        "application",
        "application/*",
        "application/jsonp",
        "application/json-patch+json",
        "application/ld+json",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "text/html",
        "text/json",
        "text/plain charset=utf-8",
        "application/json; charset=latin1",
        "application/json; charset=utf-16",
        "application/json; charset=",
        "application/json; charset",
        "application/json; charset=utf-8; charset=latin1",
        "text/plain; charset=iso-8859-1",
        "application/json,text/plain",
        "application/json,application/json",
        "application/json; charset=utf-8,text/plain",
        "application/json; version=1,text/plain",
        "application/json;,text/plain",
    ],
)
def test_any_other_content_type_is_refused(kind: str | None) -> None:
    refusal = refused(lambda: send(b"1", kind))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_CONTENT_TYPE)
    assert refusal.hint


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity "])
def test_a_body_that_is_not_encoded_is_read(encoding: str | None) -> None:
    assert send(b"1", encoding=encoding) == 1


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip"])
def test_an_encoded_body_is_refused(encoding: str) -> None:
    refusal = refused(lambda: send(b"\x1f\x8b", encoding=encoding))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_BODY)
    assert encoding in refusal.hint


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        pytest.param(None, 400, Message.WRONG_CONTENT_TYPE, id="nothing"),
        pytest.param((None, None, b""), 400, Message.WRONG_CONTENT_TYPE, id="no type"),
        pytest.param(("application/json", None, b""), 400, Message.NO_BODY, id="empty JSON"),
        pytest.param(("text/plain", None, b""), 400, Message.NO_BODY, id="empty text"),
        pytest.param(("application/json", None, None), 413, Message.TOO_LARGE, id="over the limit"),
    ],
)
def test_without_a_body_there_is_no_data(content: Sent, status: int, message: Message) -> None:
    refusal = refused(lambda: parse_body(knock(PLANTS, content=content)))
    assert (refusal.status, refusal.message) == (status, message)
    assert refusal.hint


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize(
    ("body", "byte"),
    [
        (b'"\xff"', 2),
        (b'"\xc3"', 2),
        (b'"\xed\xa0\x80"', 2),
        (b'"\xc0\xaf"', 2),
        (b'"\xf4\x90\x80\x80"', 2),
        ('"ü"'.encode("latin1"), 2),
        ('"ü"'.encode("utf-16"), 1),
        ('"ü"'.encode("utf-32"), 1),
    ],
)
def test_a_body_that_is_not_utf_8_is_refused_with_its_place(body: bytes, byte: int, kind: str) -> None:
    refusal = refused(lambda: send(body, kind))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_BODY)
    assert f"byte {byte}." in refusal.hint


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + "1" * (closing == "}") + closing * levels).encode()


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"null", None),
        (b"false", False),
        (b"0", 0),
        (b'""', ""),
        (b"[]", []),
        (b"{}", {}),
        (b" \t\r\n{ } \n", {}),
        (b"9007199254740993", 2**53 + 1),
        (b"-12345678901234567890", -12345678901234567890),
        pytest.param(b"1" * 4000, int("1" * 4000), id="4000 digits"),
        (b"-0", 0),
        (b"-0.0", -0.0),
        (b"1.0", 1.0),
        (b"1E2", 100.0),
        (b"1e-400", 0.0),
        (b"1.7976931348623157e308", 1.7976931348623157e308),
        (b'"\\u0000"', "\0"),
        (b'"\\ud83c\\udf31"', "🌱"),
        ('"Möhre 🌱 \u2028"'.encode(), "Möhre 🌱 \u2028"),
        (b'"\\/\\b\\f"', "/\b\f"),
        (b'{"":1,"__proto__":{},"constructor":2}', {"": 1, "__proto__": {}, "constructor": 2}),
        (b'{"uniqueId":"x","owner":"y","data":1}', {"uniqueId": "x", "owner": "y", "data": 1}),
        (b'{"a\\u0000":1,"\\n":2}', {"a\0": 1, "\n": 2}),
        (b'{"b":1,"a":2}', {"b": 1, "a": 2}),
        (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        pytest.param(b"[" + b"{}," * 1000 + b"[]]", [{}] * 1000 + [[]], id="wide, not deep"),
        pytest.param(b'"' + b"[{" * 1000 + b'"', "[{" * 1000, id="brackets in a text"),
    ],
)
def test_json_is_kept_as_it_is(body: bytes, value: Json) -> None:
    assert repr(send(body)) == repr(value)


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"\n\t",
        b"{",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a" 1}',
        b"{1:1}",
        b"1 2",
        b"{} //",
        b"/* */ 1",
        b"# 1",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1e",
        b"0x1",
        b"1_000",
        b"True",
        b"undefined",
        b"nan",
        b'"',
        b'"a\nb"',
        b'"a\x00b"',
        b'"\\x41"',
        b'"\\u12"',
        b"\x00",
        b"1\x00",
        b"\xc2\xa01",
        "\ufeff1".encode(),
        "1".encode("utf-16-le"),
        "{}".encode("utf-32-be"),
        "٣".encode(),
    ],
)
def test_what_is_not_json_is_refused_with_line_and_column(body: bytes) -> None:
    refusal = refused(lambda: send(body))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_BODY)
    assert re.search(r"line \d+ column \d+", refusal.hint)


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"a":[NaN]}',
        b"1e400",
        b"-1e400",
        b'{"a":1e999}',
        pytest.param(b"1" * 5000, id="5000 digits"),
        pytest.param(b"[-" + b"1" * 5000 + b"]", id="5000 digits inside"),
        b'"\\ud800"',
        b'"\\udc00x"',
        b'"\\udf31\\ud83c"',
        b'{"\\ud800":1}',
        pytest.param(nested(513), id="513 arrays"),
        pytest.param(nested(513, '{"a":', "}"), id="513 objects"),
        pytest.param(b"[" * 512 + b"{}" + b"]" * 512, id="512 arrays and an object"),
        pytest.param(nested(1000), id="1000 arrays"),
        pytest.param(nested(200_000), id="200000 arrays"),
        pytest.param(nested(200_000, '{"a":', "}"), id="200000 objects"),
        pytest.param(b"[" * 200_000, id="200000 arrays, none closed"),
    ],
)
def test_json_that_cannot_be_written_again_is_refused(body: bytes) -> None:
    refusal = refused(lambda: send(body))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_BODY)
    assert refusal.hint
    assert len(refusal.hint) < 200


@pytest.mark.parametrize("body", [nested(512), nested(512, '{"a":', "}")], ids=["arrays", "objects"])
def test_512_levels_are_read_and_written(body: bytes) -> None:
    assert encode(send(body)) == body


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1, 2.5, None, True]}, '{"b":1,"a":[1,2.5,null,true]}'),
        ("Möhre 🌱 \u2028 </script>", '"Möhre 🌱 \u2028 </script>"'),
        ('"\\\n\0', '"\\"\\\\\\n\\u0000"'),
        (2**64 + 1, "18446744073709551617"),
        (1.0, "1.0"),
    ],
)
def test_json_goes_out_compact_in_order_and_not_escaped(value: Json, text: str) -> None:
    assert encode(value) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_is_not_json_never_goes_out(value: Json) -> None:
    with pytest.raises(ValueError, match=r"JSON compliant|surrogates"):
        encode([value])


# Strategies


DEEP: Json = {"a": 1, "b": {"c": 1, "d": {"e": [1]}}}


@pytest.mark.parametrize(
    ("strategy", "old", "new", "data"),
    [
        ("force", {"a": 1}, {"b": 2}, {"b": 2}),
        ("force", {"a": 1}, [2], [2]),
        ("force", "text", None, None),
        ("force", None, "text", "text"),
        ("force", 1, True, True),
        ("replace", {"a": 1}, {"b": 2}, {"b": 2}),
        ("replace", [1, 2], [], []),
        ("replace", "a", "", ""),
        ("replace", 1, 2.5, 2.5),
        ("replace", True, False, False),
        ("replace", None, None, None),
        ("merge", {}, {}, {}),
        ("merge", {"a": 1}, {}, {"a": 1}),
        ("merge", {"b": 1, "a": 2}, {"c": 3, "b": 4}, {"b": 4, "a": 2, "c": 3}),
        ("merge", DEEP, {"b": {"d": {"f": 2}}}, {"a": 1, "b": {"c": 1, "d": {"e": [1], "f": 2}}}),
        ("merge", DEEP, {"b": {"d": {"e": [2]}}}, {"a": 1, "b": {"c": 1, "d": {"e": [2]}}}),
        ("merge", DEEP, {"b": None}, {"a": 1, "b": None}),
        ("merge", DEEP, {"b": {}}, DEEP),
        ("merge", {"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ("merge", {"a": [{"b": 1}]}, {"a": [{"c": 2}]}, {"a": [{"c": 2}]}),
    ],
)
def test_a_put_makes_new_data(strategy: str, old: Json, new: Json, data: Json) -> None:
    assert apply_strategy(encode(old), encode(new), check_strategy(strategy)) == encode(data)


@pytest.mark.parametrize(
    ("strategy", "old", "new"),
    [
        ("replace", {}, []),
        ("replace", [], {}),
        ("replace", {}, None),
        ("replace", None, {}),
        ("replace", 1, True),
        ("replace", False, 0),
        ("replace", 1, "1"),
        ("replace", "null", None),
        ("merge", {}, []),
        ("merge", [], {}),
        ("merge", [1], [2]),
        ("merge", "a", "b"),
        ("merge", {"a": 1}, "text"),
        ("merge", "text", {"a": 1}),
        ("merge", 1, 2),
        ("merge", None, {}),
        ("merge", {}, None),
    ],
)
def test_a_put_that_does_not_fit_is_refused(strategy: str, old: Json, new: Json) -> None:
    refusal = refused(lambda: apply_strategy(encode(old), encode(new), check_strategy(strategy)))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_PARAMETER)
    assert strategy in refusal.hint


def test_a_merge_goes_all_the_way_down() -> None:
    old, new = send(nested(512, '{"a":', "}")), send(nested(512, '{"b":', "}"))
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert apply_strategy(encode(old), encode(old), Strategy.MERGE) == encode(old)
    assert apply_strategy(encode(old), encode(new), Strategy.MERGE) == encode({**old, **new})


@pytest.mark.parametrize("name", ["", "Merge", "patch", "force ", "Strategy.FORCE"])
def test_an_unknown_strategy_is_refused(name: str) -> None:
    refusal = refused(lambda: check_strategy(name))
    assert (refusal.status, refusal.message) == (400, Message.WRONG_PARAMETER)
    assert "force, merge, replace" in refusal.hint


# Records and refusals


def test_a_record_is_shown_in_the_order_of_the_service_and_without_its_owner() -> None:
    record = Record.of("id", b'{"owner":"mine"}', SAMPLE_TIME, LATER, "ada", {"note": 1})
    shows = {"data": {"owner": "mine"}, "uniqueId": "id", "updatedAt": LATER, "createdAt": SAMPLE_TIME}
    assert list(record.public().items()) == list(shows.items())
    assert record.wire == encode(shows)


@pytest.mark.parametrize("unique_id", ["a", '"', "\\", 'a","uniqueId":"b', "ä", "\n", ',"uniqueId":"'])
@pytest.mark.parametrize(
    "data", [None, 0, "", {}, "\u2028", {"uniqueId": "x"}, ',"uniqueId":"x"', [{"createdAt": "x"}]]
)
def test_a_record_is_read_out_of_its_json(unique_id: str, data: Json) -> None:
    record = Record.of(unique_id, encode(data), SAMPLE_TIME, LATER)
    assert (record.data, record.created_at, record.updated_at) == (data, SAMPLE_TIME, LATER)
    assert record.packed_data == encode(data)
    assert record.with_data(b"[1]").public() == record.public() | {"data": [1]}


def test_a_listing_is_joined_once_and_as_its_records_are_shown() -> None:
    listing = Listing(Record.of(str(number), encode(number), SAMPLE_TIME, LATER) for number in range(3))
    assert json.loads(listing.wire) == [record.public() for record in listing]
    assert listing.wire is listing.wire
    assert listing.packed_data == b"[0,1,2]"
    assert (Listing().wire, Listing().packed_data) == (b"[]", b"[]")


@pytest.mark.parametrize(
    ("data", "shows"),
    [
        ({"username": "ada", "password": "secret"}, {"username": "ada"}),
        ({"password": None}, {}),
        ({"nested": {"password": "kept"}}, {"nested": {"password": "kept"}}),
        ("password", "password"),
        (["password"], ["password"]),
    ],
)
def test_a_user_is_shown_without_password_and_keeps_it(data: Json, shows: Json) -> None:
    record = Record.of("id", encode(data), SAMPLE_TIME, LATER, "ada")
    assert record.without_password() == Record.of("id", encode(shows), SAMPLE_TIME, LATER, "ada")
    assert record.data == data


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_624_900_724, "2021-06-28T17:18:44.000Z"),
        (1_624_900_724.999, "2021-06-28T17:18:44.000Z"),
        (NOON, "2027-01-15T08:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (253_402_300_799, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_time_is_utc_in_whole_seconds(moment: float, text: str) -> None:
    assert timestamp(moment) == text


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (BadRequest(Message.WRONG_BODY, "why"), 400),
        (Unauthenticated(Message.NO_TOKEN, "why"), 401),
        (TokenExpired(Message.TOKEN_EXPIRED, "why"), 401),
        (Forbidden(Message.KEY_MISSING, "why"), 403),
        (OriginRefused("why"), 403),
        (NotFound(Message.NOT_FOUND, "why"), 404),
        (MethodNotAllowed("TRACE", ["GET", "POST"]), 405),
        (TooLarge(Message.TOO_LARGE, "why"), 413),
        (NotInstalled("Uploads", "multipart"), 501),
        (RangeRefused("bytes=9-", 5), 416),
        (Overloaded(Message.TOO_MANY_SOCKETS, "why"), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Refusal) else str(value),
)
def test_a_refusal_has_a_status_a_message_a_reason_and_a_hint(refusal: Refusal, status: int) -> None:
    assert refusal.status == status
    assert refusal.message == refusal.reason
    assert refusal.hint
    assert refusal.hidden is isinstance(refusal, OriginRefused)


def test_a_socket_may_be_told_another_reason_than_the_message() -> None:
    refusal = TokenExpired(Message.TOKEN_EXPIRED, "why", reason=Message.NO_TOKEN)
    assert (refusal.message, refusal.reason) == (Message.TOKEN_EXPIRED, Message.NO_TOKEN)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ada", "'ada'"),
        ("a\r\nb\x1b[31m\0", r"'a\r\nb\x1b[31m\x00'"),
        ("\u2028\u202e\ud800", r"'\u2028\u202e\ud800'"),
        ("ü🌱", "'ü🌱'"),
        (12.5, "'12.5'"),
        pytest.param("x" * 121, repr("x" * 120 + "…"), id="121 characters"),
    ],
)
def test_a_value_is_quoted_for_the_log(value: object, text: str) -> None:
    assert shown(value) == text
