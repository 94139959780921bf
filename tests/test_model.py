"""Model: names, origins, parameters, bodies, and what a PUT makes of two values (contract 2, 3, 4.3 and 5)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rested_emulator import Clock, OptionError, Options, Parameters, parse_origin, parse_parameters
from tests import texts
from tests.conftest import AGO, NOON, PLANTS, Backend, Sent, knock, packed, record_of, refused

LATER = "2027-01-15T08:00:00.000Z"


def send(backend: Backend, body: bytes, kind: str | None = "application/json", encoding: str | None = None) -> Any:
    """The data that a POST with this body makes."""
    return backend.create(knock(PLANTS, content=(kind, encoding, body))).data


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
    assert Options.of(endpoint=[name]).endpoint == (name,)


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
def test_a_bad_endpoint_name_is_refused_and_named(backend: Backend, name: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(repr(name)[:120])}.* is no endpoint name"):
        backend.change_endpoint(name)
    assert len(backend.store.endpoints()) == 4


@pytest.mark.parametrize("name", ["games", "My first app_2 - beta", pytest.param("a" * 254, id="254 characters")])
def test_a_good_project_name_is_kept(backend: Backend, name: str) -> None:
    backend.change_project(name=name)
    assert backend.store.projects()[0].name == name


@pytest.mark.parametrize(
    "name", ["", "four", pytest.param("a" * 255, id="255 characters"), "a/b/c", "<b>app", "my\tapp", "games\n", "game!"]
)
def test_a_bad_project_name_is_refused(backend: Backend, name: str) -> None:
    with pytest.raises(OptionError, match="no project name"):
        backend.change_project(name=name)


@pytest.mark.parametrize("key", ["k", "a b", "a#b&c", "ключ", "🗝", "d59eb2859c284168ac48aef65046d5dd"])
def test_any_text_that_is_not_empty_is_a_key(key: str) -> None:
    assert Options.of(master_key=key).master_key == key


@pytest.mark.parametrize(
    "key", [" ", " k", "k ", "k\n", "\tk", "\u00a0k", "a\0b", "a\x1b[31mb", "a\x9b31mb", "a\x7f", "\ufeffk"]
)
def test_a_key_that_does_not_show_as_it_is_is_refused(backend: Backend, key: str) -> None:
    with pytest.raises(OptionError, match=r"masterKey is .* white space around it"):
        backend.change_project(master_key=key)


def test_an_empty_key_is_refused(backend: Backend) -> None:
    with pytest.raises(OptionError, match="key is empty"):
        backend.change_project(key="")


def test_a_new_id_is_a_version_4_uuid_without_dashes(backend: Backend) -> None:
    ids = {backend.create(knock(PLANTS, None)).unique_id for _ in range(100)}
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
    ("given", "origins"),
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
def test_allowed_origins_are_a_list_or_have_commas_between(
    backend: Backend, given: list[str], origins: tuple[str, ...]
) -> None:
    backend.change_project(allowed_origins=given)
    assert backend.store.projects()[0].allowed_origins == origins


@pytest.mark.parametrize("text", ["*", "null", "a.example", "http://a.example//", "http://a.example/app", "http://a:0"])
def test_allowed_origins_have_no_room_for_anything_else(backend: Backend, text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"{text!r} is no origin")):
        backend.change_project(allowed_origins=["http://good.example", text])


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
    assert Options.of(latency=value).latency == pytest.approx((seconds, seconds))


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
        Options.of(token_ttl=value)


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
    assert Options.of(max_body=value).max_body == size


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
        Options.of(max_body=value)


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
        ("login=true", Parameters(flags=("login",))),
        ("logout=true", Parameters(flags=("logout",))),
        ("noATCookie=true", Parameters(flags=("noATCookie",))),
        ("passwordreset=true", Parameters(flags=("passwordreset",))),
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
    assert parse_parameters(query)._replace(warnings=()) == parameters


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
def test_json_is_known_by_its_content_type(backend: Backend, kind: str) -> None:
    assert send(backend, b'"1"', kind) == "1"


@pytest.mark.parametrize(
    "kind", ["text/plain", "TEXT/Plain", "text/plain;charset=utf-8", 'text/plain; charset="UTF-8"']
)
@pytest.mark.parametrize("body", ['"1"', " ", "{", "NaN", "Möhre 🌱", "\ufeffmarked", "a\0b\r\n"])
def test_text_is_kept_as_it_is(backend: Backend, kind: str, body: str) -> None:
    assert send(backend, body.encode(), kind) == body


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
def test_any_other_content_type_is_refused(backend: Backend, kind: str | None) -> None:
    with refused(400, texts.WRONG_CONTENT_TYPE) as refusal:
        send(backend, b"1", kind)
    assert refusal.value.hint


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity "])
def test_a_body_that_is_not_encoded_is_read(backend: Backend, encoding: str | None) -> None:
    assert send(backend, b"1", encoding=encoding) == 1


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip"])
def test_an_encoded_body_is_refused(backend: Backend, encoding: str) -> None:
    with refused(400, texts.WRONG_BODY) as refusal:
        send(backend, b"\x1f\x8b", encoding=encoding)
    assert encoding in refusal.value.hint


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        pytest.param(None, 400, texts.WRONG_CONTENT_TYPE, id="nothing"),
        pytest.param((None, None, b""), 400, texts.WRONG_CONTENT_TYPE, id="no type"),
        pytest.param(("application/json", None, b""), 400, texts.NO_BODY, id="empty JSON"),
        pytest.param(("text/plain", None, b""), 400, texts.NO_BODY, id="empty text"),
        pytest.param(("application/json", None, None), 413, texts.TOO_LARGE, id="over the limit"),
    ],
)
def test_without_a_body_there_is_no_data(backend: Backend, content: Sent, status: int, message: str) -> None:
    with refused(status, message) as refusal:
        backend.create(knock(PLANTS, content=content))
    assert refusal.value.hint


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
def test_a_body_that_is_not_utf_8_is_refused_with_its_place(
    backend: Backend, body: bytes, byte: int, kind: str
) -> None:
    with refused(400, texts.WRONG_BODY) as refusal:
        send(backend, body, kind)
    assert f"byte {byte}." in refusal.value.hint


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
def test_json_is_kept_as_it_is(backend: Backend, body: bytes, value: object) -> None:
    assert repr(send(backend, body)) == repr(value)


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"\n\t",
        b"{",
        b"[1,]",
        b"{'a':1}",
        b"1 2",
        b"{} //",
        b"01",
        b"1.",
        b"True",
        b"nan",
        b'"a\nb"',
        b'"\\x41"',
        b"1\x00",
        b"\xc2\xa01",
        "\ufeff1".encode(),
        "1".encode("utf-16-le"),
        "{}".encode("utf-32-be"),
        "٣".encode(),
    ],
)
def test_what_is_not_json_is_refused_with_line_and_column(backend: Backend, body: bytes) -> None:
    with refused(400, texts.WRONG_BODY) as refusal:
        send(backend, body)
    assert re.search(r"line \d+ column \d+", refusal.value.hint)


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
def test_json_that_cannot_be_written_again_is_refused(backend: Backend, body: bytes) -> None:
    with refused(400, texts.WRONG_BODY) as refusal:
        send(backend, body)
    assert refusal.value.hint
    assert len(refusal.value.hint) < 200


@pytest.mark.parametrize("body", [nested(512), nested(512, '{"a":', "}")], ids=["arrays", "objects"])
def test_512_levels_are_read_and_written(backend: Backend, body: bytes) -> None:
    data = body.decode()
    assert f'"data":{data},' in backend.create(knock(PLANTS, content=("application/json", None, body))).wire.decode()


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
def test_json_goes_out_compact_in_order_and_not_escaped(backend: Backend, value: object, text: str) -> None:
    assert backend.create(knock(PLANTS, value)).wire.decode().startswith(f'{{"data":{text},"uniqueId":"')


# Strategies


DEEP: dict[str, Any] = {"a": 1, "b": {"c": 1, "d": {"e": [1]}}}


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
def test_a_put_makes_new_data(backend: Backend, strategy: str, old: object, new: object, data: object) -> None:
    record = backend.create(knock(PLANTS, old))
    updated = backend.update(knock(PLANTS, new, unique_id=record.unique_id, strategy=strategy))
    assert packed(updated.data) == packed(data)
    assert backend.read(knock(PLANTS, unique_id=record.unique_id)) == updated


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
        ("replace", None, False),
        ("replace", "1", 1),
    ],
)
def test_a_put_that_does_not_fit_is_refused(backend: Backend, strategy: str, old: object, new: object) -> None:
    record = backend.create(knock(PLANTS, old))
    backend.advance(90)
    with refused(400, texts.WRONG_PARAMETER) as refusal:
        backend.update(knock(PLANTS, new, unique_id=record.unique_id, strategy=strategy))
    assert strategy in refusal.value.hint
    assert backend.read(knock(PLANTS, unique_id=record.unique_id)) == record


def test_a_merge_goes_all_the_way_down(backend: Backend) -> None:
    old, new = (json.loads(nested(512, f'{{"{name}":', "}")) for name in "ab")
    unique_id = backend.create(knock(PLANTS, old)).unique_id
    for data, merged in ((old, old), (new, {**old, **new})):
        updated = backend.update(knock(PLANTS, data, unique_id=unique_id, strategy="merge"))
        assert packed(updated.data) == packed(merged)


@pytest.mark.parametrize("name", ["", "Merge", "patch", "force ", "Strategy.FORCE", "ключ"])
def test_an_unknown_strategy_is_refused(backend: Backend, name: str) -> None:
    unique_id = backend.create(knock(PLANTS, {})).unique_id
    with refused(400, texts.WRONG_PARAMETER) as refusal:
        backend.update(knock(PLANTS, {}, unique_id=unique_id, strategy=name))
    assert "force, merge, replace" in refusal.value.hint


# Records


def test_a_record_is_shown_in_the_order_of_the_service_and_without_its_owner() -> None:
    record = record_of("id", {"owner": "mine"}, AGO, LATER, "ada")
    shows = {"data": {"owner": "mine"}, "uniqueId": "id", "updatedAt": LATER, "createdAt": AGO}
    assert list(record.public().items()) == list(shows.items())
    assert record.wire == packed(shows)


@pytest.mark.parametrize("unique_id", ["a", '"', "\\", 'a","uniqueId":"b', "ä", "\n", ',"uniqueId":"'])
@pytest.mark.parametrize(
    "data", [None, 0, "", {}, "\u2028", {"uniqueId": "x"}, ',"uniqueId":"x"', [{"createdAt": "x"}]]
)
def test_a_record_is_read_out_of_its_json(unique_id: str, data: object) -> None:
    record = record_of(unique_id, data, AGO, LATER)
    assert (record.data, record.created_at, record.updated_at) == (data, AGO, LATER)
    assert record.packed_data == packed(data)
    assert record.with_data(b"[1]").public() == record.public() | {"data": [1]}


def test_a_listing_is_joined_once_and_as_its_records_are_shown(backend: Backend) -> None:
    listing = backend.read(knock(PLANTS))
    assert json.loads(listing.wire) == [record.public() for record in listing]
    assert listing.wire is listing.wire
    assert listing.packed_data == packed([record.data for record in listing])
    backend.change_endpoint("garden/seeds")
    nothing = backend.read(knock("garden/seeds"))
    assert (nothing.wire, nothing.packed_data) == (b"[]", b"[]")


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
def test_a_user_is_shown_without_password_and_keeps_it(data: object, shows: object) -> None:
    record = record_of("id", data, owner="ada")
    assert record.without_password() == record_of("id", shows, owner="ada")
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
    assert Clock(lambda: moment).timestamp() == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ada", "'ada'"),
        ("a\r\nb\x1b[31m\0", r"'a\r\nb\x1b[31m\x00'"),
        ("\u2028\u202e\ud800", r"'\u2028\u202e\ud800'"),
        ("Ü🌱", "'Ü🌱'"),
        (0.25, "'0.25'"),
        pytest.param("X" * 121, repr("X" * 120 + "…"), id="121 characters"),
    ],
)
def test_a_value_is_quoted_in_what_is_said_of_it(value: object, text: str) -> None:
    with pytest.raises(OptionError, match=f"^max_body: {re.escape(text)} is no size"):
        Options.of(max_body=value)
