"""HTTP: what a request gets, byte by byte, and that a refused one has done nothing (contract 1 to 6, 9)."""

from __future__ import annotations

import json
import logging
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rested_emulator import RestedEmulator
from tests import texts
from tests.conftest import (
    ADA,
    BEN,
    CHORES,
    DIARY,
    DIARY_OF_ADA,
    DIARY_OF_BEN,
    GARDEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    PLANTS,
    TOMATO,
)
from tests.wire import (
    COOKIE,
    CORS,
    FOREIGN,
    JSON,
    OTHER_PAGE,
    PAGE,
    TEXT,
    Reply,
    answer_on,
    assert_refusal,
    at,
    at_end,
    base,
    bearer,
    call,
    cors_of,
    head,
    open_socket,
    seen,
    wire,
)

# Refusals


@dataclass(frozen=True)
class Row:
    """A request, and the refusal it gets; {ada}, {expired} and so on in a header stand for access tokens."""

    method: str
    target: str
    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    project: dict[str, Any] = field(default_factory=dict)


AS_JSON, AS_TEXT = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
AS_ADA = {"Authorization": "Bearer {ada}"}
ONLY_PAGE: dict[str, Any] = {"allowed_origins": [PAGE]}


def post(body: bytes | None, message: str, headers: dict[str, str] = AS_JSON, status: int = 400) -> Row:
    """A POST to the open endpoint whose body is refused."""
    return Row("POST", at(PLANTS), status, message, headers, body)


def put(query: str, message: str, body: bytes = b"{}", headers: dict[str, str] = AS_JSON) -> Row:
    """A PUT to the open endpoint that is refused."""
    return Row("PUT", at(PLANTS, query), 400, message, headers, body)


def user(query: str, body: bytes, message: str, status: int = 400) -> Row:
    """A POST to the authentication endpoint that is refused."""
    return Row("POST", at(GARDENERS, query), status, message, AS_JSON, body)


def put_password(body: bytes, message: str) -> Row:
    """A new password that is refused."""
    return Row("PUT", at(GARDENERS, "passwordreset=true"), 400, message, AS_JSON, body)


def from_origin(origin: str | None, message: str = texts.ORIGIN_REFUSED, **project: Any) -> Row:
    """A POST from a page that may not."""
    headers = AS_JSON if origin is None else AS_JSON | {"Origin": origin}
    return Row("POST", at(PLANTS), 403, message, headers, b"{}", project)


SECRET = "s3cret"  # what no refusal repeats
REFUSED = {
    # Addresses and methods (1.7)
    "no address": Row("GET", "/nothing", 404, texts.NOT_FOUND),
    "no prefix": Row("POST", f"/{PLANTS}?key={KEY}", 404, texts.NOT_FOUND, AS_JSON, b"{}"),
    "another version": Row("POST", f"/api/2/ce/{PLANTS}?key={KEY}", 404, texts.NOT_FOUND, AS_JSON, b"{}"),
    "patch": Row("PATCH", at(PLANTS), 405, texts.WRONG_METHOD, AS_JSON, b"{}"),
    "patch without key": Row("PATCH", at(PLANTS, key=None), 405, texts.WRONG_METHOD, AS_JSON, b"{}"),
    # Key and endpoint (5.2, 5.3), names (2.3)
    "no key": Row("POST", at(PLANTS, key=None), 403, texts.KEY_MISSING, AS_JSON, b"{}"),
    "no query": Row("GET", f"/api/1/ce/{PLANTS}", 403, texts.KEY_MISSING),
    "key not UTF-8": Row("POST", at(PLANTS, key="%ff"), 400, texts.NOT_VALID, AS_JSON, b"{}"),
    "wrong key": Row("POST", at(PLANTS, key="wrong"), 400, texts.NOT_VALID, AS_JSON, b"{}"),
    "unknown endpoint": Row("POST", at("garden/weeds"), 400, texts.NOT_VALID, AS_JSON, b"{}"),
    "no name": Row("GET", at(""), 400, texts.NOT_VALID),
    # Hosts and origins (2.7, 5.2, the outer gate)
    "foreign host": Row("POST", at(PLANTS), 403, texts.HOST_REFUSED, AS_JSON | {"Host": "evil.example"}, b"{}"),
    "foreign host and method": Row("PATCH", at(PLANTS), 403, texts.HOST_REFUSED, {"Host": "evil.example"}),
    "foreign origin": from_origin(FOREIGN),
    "no origin": from_origin(None, texts.NO_ORIGIN, disallow_no_origin=True),
    "foreign origin and method": Row("PATCH", at(PLANTS), 403, texts.ORIGIN_REFUSED, {"Origin": FOREIGN}),
    "foreign origin and no address": Row("GET", f"/api/2/ce/{PLANTS}", 403, texts.ORIGIN_REFUSED, {"Origin": FOREIGN}),
    "foreign origin without key": Row("GET", at(PLANTS, key=None), 403, texts.ORIGIN_REFUSED, {"Origin": FOREIGN}),
    # The master key (4.5)
    "wrong master key": Row("POST", at(PLANTS, f"masterKey={SECRET}"), 403, texts.WRONG_MASTER_KEY, AS_JSON, b"{}"),
    # Access tokens (5.4, 6.1, 6.8)
    "read without token": Row("GET", at(DIARY), 401, texts.NO_TOKEN),
    "create without token": Row("POST", at(DIARY), 401, texts.NO_TOKEN, AS_JSON, b"{}"),
    "read users without token": Row("GET", at(GARDENERS), 401, texts.NO_TOKEN),
    "update users without token": Row("PUT", at(GARDENERS, f"uniqueId={ADA}"), 401, texts.NO_TOKEN, AS_JSON, b"{}"),
    "delete users without token": Row("DELETE", at(GARDENERS, f"uniqueId={ADA}"), 401, texts.NO_TOKEN),
    "unknown token": Row("GET", at(DIARY), 401, texts.NO_TOKEN, bearer(SECRET)),
    "expired token in a cookie": Row("GET", at(DIARY), 401, texts.TOKEN_EXPIRED, {"Cookie": COOKIE + "={expired}"}),
    # Bodies (3.3, 3.4)
    "no body": post(None, texts.NO_BODY),
    "no JSON": post(b'{"password": s3cret}', texts.WRONG_BODY),
    "one byte too many": post(b'"' + b"x" * 999_999 + b'"', texts.TOO_LARGE, status=413),
    # Records (4.2 to 4.4)
    "read what is not there": Row("GET", at(PLANTS, "uniqueId=nobody"), 400, texts.NO_RECORD),
    "read several that are not there": Row("GET", at(PLANTS, "uniqueId=a,b&uniqueId=c"), 400, texts.NO_RECORD),
    "update without uniqueId": put("", texts.ONE_UNIQUE_ID),
    "update two": put(f"uniqueId={TOMATO},b", texts.ONE_UNIQUE_ID),
    "update what is not there": put("uniqueId=nobody", texts.NO_RECORD),
    "unknown strategy": put(f"uniqueId={TOMATO}&strategy=best", texts.WRONG_PARAMETER),
    "delete without uniqueId": Row("DELETE", at(PLANTS), 400, texts.ONE_UNIQUE_ID),
    "delete two": Row("DELETE", at(PLANTS, f"uniqueId={TOMATO}&uniqueId=b"), 400, texts.ONE_UNIQUE_ID),
    "delete what is not there": Row("DELETE", at(PLANTS, "uniqueId=nobody"), 400, texts.NO_RECORD),
    "query not UTF-8": Row("DELETE", at(PLANTS, f"uniqueId={TOMATO}&x=%ff"), 400, texts.WRONG_PARAMETER),
    # Owners (5.5, 6.8)
    "read another's secret": Row("GET", at(DIARY, f"uniqueId={DIARY_OF_BEN}"), 400, texts.NO_RECORD, AS_ADA),
    # Users (6.2 to 6.5)
    "register without password": user("", b'{"username": "cy"}', texts.MEMBER_MISSING),
    "register who is there": user("", b'{"username": "ada", "password": "s3cret"}', texts.USER_EXISTS),
    "login with a wrong password": user(
        "login=true", b'{"username": "ada", "password": "s3cret"}', texts.WRONG_CREDENTIALS, 401
    ),
    "login as nobody": user("login=true", b'{"username": "cy", "password": "s3cret"}', texts.NO_USER, 401),
    "logout without token": user("logout=true", b"", texts.NO_TOKEN),
    "logout with a wrong token": Row(
        "POST", at(GARDENERS, "logout=true"), 400, texts.NO_TOKEN, {"Cookie": f"{COOKIE}={SECRET}"}
    ),
    "logout with an expired token": Row(
        "POST", at(GARDENERS, "logout=true"), 400, texts.TOKEN_EXPIRED, {"Authorization": "Bearer {expired}"}
    ),
    "logout twice": Row("POST", at(GARDENERS, "logout=true"), 400, texts.NO_TOKEN, {"Authorization": "Bearer {left}"}),
    # The order of the checks (5.6)
    "origin before credentials": Row(
        "POST", at(GARDENERS, "login=true"), 403, texts.ORIGIN_REFUSED, {"Origin": OTHER_PAGE}, b"", ONLY_PAGE
    ),
    "token before size": Row("POST", at(DIARY), 401, texts.NO_TOKEN, AS_JSON, b" " * 1_000_001),
    # Password reset (6.9)
    "mail without template": user("passwordreset=true", b'{"email": "ada@garden.example"}', texts.MEMBER_MISSING),
    "mail without email": user("passwordreset=true", b'{"templateName": "reset"}', texts.MEMBER_MISSING),
    "mail to a number": user("passwordreset=true", b'{"email": 1, "templateName": "reset"}', texts.MEMBER_MISSING),
    "password without token": put_password(
        b'{"password": "s3cret", "passwordConfirmation": "s3cret"}', texts.MEMBER_MISSING
    ),
    "password without confirmation": put_password(b'{"verificationToken": "x", "password": "x"}', texts.MEMBER_MISSING),
    "password by a list": put_password(b"[]", texts.MEMBER_MISSING),
}


@contextmanager
def nothing_happens(emulator: RestedEmulator, ada: str) -> Iterator[None]:
    """What is done inside changes nothing and is heard by nobody, and afterwards all goes on as usual."""
    shows = bearer(ada) | {"Origin": PAGE}
    with ExitStack() as stack:
        sockets = {
            name: stack.enter_context(open_socket(emulator.ws_url(name), additional_headers=shows))
            for name in (PLANTS, DIARY, CHORES, GARDENERS)
        }
        before = seen(emulator)
        yield
        assert seen(emulator) == before
        for name in (PLANTS, DIARY, CHORES):
            created = call(emulator.url(name), "POST", {"all": "well"}, headers=shows).json
            assert created["data"] == {"all": "well"}
            assert call(emulator.url(name), headers=shows, uniqueId=created["uniqueId"]).json == created
            assert json.loads(sockets[name].recv(timeout=10)) == {"type": "POST", "record": created}
        updated = call(emulator.url(GARDENERS), "PUT", {}, headers=shows, uniqueId=ADA, strategy="merge").json
        assert json.loads(sockets[GARDENERS].recv(timeout=10)) == {"type": "PUT", "record": updated}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_request_is_told_why_and_has_done_nothing(
    emulator: RestedEmulator, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    names = {name: emulator.sign_in(GARDENERS, "ada") for name in ("ada", "expired", "left")}
    emulator.expire_tokens(token=names["expired"])
    call(emulator.url(GARDENERS), "POST", headers=bearer(names["left"]), logout="true")
    if row.project:
        emulator.change_project(**row.project)
    headers = {name: value.format(**names) for name, value in row.headers.items()}
    target = row.target.replace("{ada}", names["ada"])
    with nothing_happens(emulator, names["ada"]):
        reply = call(base(emulator) + target, row.method, body=row.body, headers=headers)
    assert_refusal(reply, row.status, row.message)
    assert ("set-cookie" in reply.headers, "server" in reply.headers) == (False, False)
    told = reply.body.decode() + caplog.text
    assert [secret for secret in (*names.values(), MASTER_KEY, "apricot", SECRET) if secret in told] == []


def test_head_has_no_body_and_the_connection_goes_on(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("HEAD", at(PLANTS)) + head("GET", at(PLANTS)))
        first, second = answer_on(connection, "HEAD"), answer_on(connection)
    assert (first.status, first.body, first.headers["content-type"]) == (405, b"", JSON)
    assert (second.status, len(second.json)) == (200, 3)


# Successes


def assert_record(reply: Reply, data: Any) -> None:
    assert (reply.status, reply.headers["content-type"]) == (200, JSON)
    assert list(reply.json) == ["data", "uniqueId", "updatedAt", "createdAt"]
    assert reply.json["data"] == data
    assert re.fullmatch(r"[0-9a-f]{32}", reply.json["uniqueId"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", reply.json["updatedAt"])


@pytest.mark.parametrize(
    ("kind", "body", "data"),
    [
        ("application/json", b'{"b":1,"a":[null,true,1.5]}', {"b": 1, "a": [None, True, 1.5]}),
        ("application/json", b"null", None),
        ("application/json", b"[" * 512 + b"]" * 512, ...),
        ("Application/JSON; charset=UTF-8", b"{}", {}),
        ("text/plain", b"{not json", "{not json"),
        ("text/plain; charset=utf-8", "Möhre 🥕".encode(), "Möhre 🥕"),
    ],
)
def test_a_body_comes_back_as_the_data_of_a_record(emulator: RestedEmulator, kind: str, body: bytes, data: Any) -> None:
    reply = call(emulator.url(PLANTS), "POST", body=body, headers={"Content-Type": kind})
    assert_record(reply, json.loads(body) if data is ... else data)
    assert call(emulator.url(PLANTS), uniqueId=reply.json["uniqueId"]).body == reply.body


def test_a_record_is_written_in_the_order_of_the_service_and_not_escaped(emulator: RestedEmulator) -> None:
    reply = call(emulator.url(PLANTS), "POST", body='{"name": "Möhre", "bed": 2}'.encode(), headers=AS_JSON)
    record = reply.json
    times = f'"updatedAt":"{record["updatedAt"]}","createdAt":"{record["createdAt"]}"'
    expected = f'{{"data":{{"name":"Möhre","bed":2}},"uniqueId":"{record["uniqueId"]}",{times}}}'
    assert reply.body.decode() == expected
    assert reply.headers["content-length"] == str(len(expected.encode()))


KUERBIS = "0b6f3c1e5a7d4e8c9f20a1b2c3d4e5f3"
TOMATO_DATA = {"name": "Tomato", "bed": 1, "waterDaily": True}
KUERBIS_DATA = {"name": "Kürbis", "bed": 3, "waterDaily": True}
BEN_LOGS_IN = b'{"username": "ben", "password": "bramble"}'
BEN_DATA = {"username": "ben", "beds": [2]}
CY = b'{"username": "cy", "password": "c"}'


@pytest.mark.parametrize(
    ("method", "endpoint", "query", "body", "expected"),
    [
        ("GET", PLANTS, f"uniqueId={TOMATO}", None, TOMATO_DATA),
        ("GET", PLANTS, f"uniqueId={KUERBIS},nobody,{TOMATO}", None, [KUERBIS_DATA, TOMATO_DATA]),
        ("GET", PLANTS, f"uniqueId={KUERBIS}&uniqueId={TOMATO}", None, [KUERBIS_DATA, TOMATO_DATA]),
        ("POST", PLANTS, "", b"[1]", [1]),
        ("POST", PLANTS, "", b"null", None),
        ("PUT", PLANTS, f"uniqueId={TOMATO}", b"3", 3),
        ("PUT", PLANTS, f"uniqueId={TOMATO}&strategy=merge", b'{"bed":9}', TOMATO_DATA | {"bed": 9}),
        ("PUT", PLANTS, f"uniqueId={TOMATO}&strategy=best&strategy=replace", b"{}", {}),
        ("DELETE", PLANTS, f"uniqueId={TOMATO}", None, TOMATO_DATA),
        ("POST", GARDENERS, "", CY, {"username": "cy", "password": "c"}),
        ("POST", GARDENERS, "login=true", BEN_LOGS_IN, BEN_DATA),
        ("GET", GARDENERS, "", None, {"username": "ada", "email": "ada@garden.example", "beds": [1, 3]}),
        ("GET", DIARY, "", None, [{"text": "First tomato flower."}]),
        ("GET", PLANTS, "key=x&key=" + KEY + f"&uniqueId={TOMATO}", None, TOMATO_DATA),
        ("GET", PLANTS, f"uniqueId={TOMATO}&fruit=red&secure=true&jso=1", None, TOMATO_DATA),
    ],
)
def test_data_only_leaves_out_everything_else(
    emulator: RestedEmulator, method: str, endpoint: str, query: str, body: bytes | None, expected: Any
) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    target = base(emulator) + at(endpoint, f"dataOnly=true&{query}")
    reply = call(target, method, body=body, headers=AS_JSON | bearer(token))
    assert (reply.status, reply.headers["content-type"], reply.json) == (200, JSON, expected)
    assert reply.body == json.dumps(reply.json, ensure_ascii=False, separators=(",", ":")).encode()


def test_text_alone_is_answered_as_text(emulator: RestedEmulator) -> None:
    url, text = emulator.url(PLANTS), '"Möhre", 🥕\n'.encode()
    posted = call(url, "POST", body=text, headers=AS_TEXT, dataOnly="true")
    unique_id = call(url).json[-1]["uniqueId"]
    got = call(url, uniqueId=unique_id, dataOnly="true")
    put = call(url, "PUT", body=b"leek", headers=AS_TEXT, uniqueId=unique_id, dataOnly="true")
    gone = call(url, "DELETE", uniqueId=unique_id, dataOnly="true")
    assert [(reply.status, reply.headers["content-type"]) for reply in (posted, got, put, gone)] == [(200, TEXT)] * 4
    assert [reply.body for reply in (posted, got, put, gone)] == [text, text, b"leek", b"leek"]


def test_several_texts_are_answered_as_json(emulator: RestedEmulator) -> None:
    url = emulator.url(PLANTS)
    ids = [call(url, "POST", body=text, headers=AS_TEXT).json["uniqueId"] for text in (b"one", b"two")]
    reply = call(url, uniqueId=",".join(ids), dataOnly="true")
    assert (reply.headers["content-type"], reply.body) == (JSON, b'["one","two"]')


@pytest.mark.warns("a flag is set by true alone")
@pytest.mark.parametrize("value", ["1", ""])
def test_a_flag_is_set_by_true_alone(emulator: RestedEmulator, value: str) -> None:
    assert_record(call(emulator.url(PLANTS), dataOnly=value, uniqueId=TOMATO), TOMATO_DATA)
    assert call(emulator.url(GARDENERS), "POST", body=CY, headers=AS_JSON, login=value).json["data"]["username"] == "cy"


def test_an_endpoint_without_records_is_an_empty_array(emulator: RestedEmulator) -> None:
    emulator.change_endpoint("garden/seeds")
    assert call(emulator.url("garden/seeds")).body == b"[]"


def test_put_moves_one_time_and_delete_answers_the_record_as_it_was(emulator: RestedEmulator) -> None:
    url = emulator.url(PLANTS)
    updated = call(url, "PUT", {"name": "Leek"}, uniqueId=TOMATO)
    assert_record(updated, {"name": "Leek"})
    assert updated.json["createdAt"] == "2021-06-28T17:18:44.000Z" < updated.json["updatedAt"]
    assert call(url, "DELETE", uniqueId=TOMATO).body == updated.body
    assert TOMATO not in [record["uniqueId"] for record in call(url).json]


def test_the_master_key_opens_every_record_and_shows_no_password(emulator: RestedEmulator) -> None:
    diary = call(emulator.url(DIARY), masterKey=MASTER_KEY).json
    users = call(emulator.url(GARDENERS), masterKey=MASTER_KEY).json
    assert [record["uniqueId"] for record in diary] == [DIARY_OF_ADA, DIARY_OF_BEN]
    assert [(record["uniqueId"], "password" in record["data"]) for record in users] == [(ADA, False), (BEN, False)]
    assert call(emulator.url(DIARY), "DELETE", masterKey=MASTER_KEY, uniqueId=DIARY_OF_BEN).status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_none_belongs_is_ignored(emulator: RestedEmulator, method: str) -> None:
    for body in (b"\xff", b"x" * 1_000_001):
        unique_id = call(emulator.url(PLANTS), "POST", {}).json["uniqueId"]
        assert call(emulator.url(PLANTS), method, body=body, uniqueId=unique_id).status == 200


def test_an_answer_has_no_header_of_tornado(emulator: RestedEmulator) -> None:
    assert set(call(emulator.url(PLANTS)).headers) == {"content-type", "content-length"}


# Served, but hardly as it was meant


AS_FETCH = {"Content-Type": "text/plain;charset=UTF-8"}  # as it sends a text unless told otherwise
NEWCOMER = b'{"username": "cy", "password": "c"}'


@dataclass(frozen=True)
class Odd:
    """A request that is served all the same, and a part of what is said of it."""

    method: str
    target: str
    warning: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


ODD = {
    "JSON as fetch sends it": Odd("POST", at(PLANTS), "JSON and counts as text", b'{"a": 1}', AS_FETCH),
    "an array as fetch sends it": Odd("POST", at(PLANTS), "JSON and counts as text", b" [1]", AS_FETCH),
    "a PUT as fetch sends it": Odd("PUT", at(PLANTS, f"uniqueId={TOMATO}"), "counts as text", b"{}", AS_FETCH),
    "an object without stringify": Odd("POST", at(PLANTS), "'[object Object]'", b"[object Object]", AS_FETCH),
    "objects without stringify": Odd("POST", at(PLANTS), "JSON.stringify", b"[object Object],[object Map]", AS_TEXT),
    "an object without stringify as JSON": Odd("POST", at(PLANTS), "JSON.stringify", b'"[object Object]"', AS_JSON),
    "nothing without stringify": Odd("POST", at(PLANTS), "'undefined'", b"undefined", AS_FETCH),
    "stringified twice": Odd("POST", at(PLANTS), "an object as JSON", b'"{\\"a\\": 1}"', AS_JSON),
    "login=1 registers": Odd("POST", at(GARDENERS, "login=1"), "login='1' counts as not set", NEWCOMER, AS_JSON),
    "a bare flag": Odd("GET", at(PLANTS, "dataOnly"), "dataOnly='' counts as not set"),
    "a flag in upper case": Odd("GET", at(PLANTS, "fileOnly=TRUE"), "fileOnly='TRUE' counts as not set"),
    "brackets": Odd("GET", at(PLANTS, f"uniqueId[]={TOMATO}"), "'uniqueId[]' counts for nothing"),
    "escaped brackets": Odd("GET", at(PLANTS, f"uniqueId%5B0%5D={TOMATO}"), "'uniqueId[0]' counts for nothing"),
    "another case": Odd("GET", at(PLANTS, f"uniqueid={TOMATO}"), "the parameter is called uniqueId"),
    "an underscore": Odd("GET", at(PLANTS, "data_only=true"), "the parameter is called dataOnly"),
    "camel case": Odd("POST", at(PLANTS, "passwordReset=true"), "is called passwordreset", b"{}", AS_JSON),
    "a login on a data endpoint": Odd("POST", at(PLANTS, "login=true"), "no authentication endpoint", b"{}", AS_JSON),
    "a logout on a data endpoint": Odd("POST", at(PLANTS, "logout=true"), "logout=true counts for", b"{}", AS_JSON),
    "a reset on a data endpoint": Odd(
        "PUT", at(PLANTS, f"passwordreset=true&uniqueId={TOMATO}"), "passwordreset=true counts for", b"{}", AS_JSON
    ),
    "a login with GET": Odd("GET", at(PLANTS, "login=true"), "means read"),
    "no cookie for who registers": Odd("POST", at(GARDENERS, "noATCookie=true"), "means register", NEWCOMER, AS_JSON),
    "a handshake without Upgrade": Odd(
        "GET", at(PLANTS), "it lacks Upgrade: websocket", None, {"Sec-WebSocket-Key": "x"}
    ),
}


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=pytest.mark.warns(row.warning)) for name, row in ODD.items()]
)
def test_what_is_served_but_hardly_as_it_was_meant_is_told_once_in_log_and_evidence(
    emulator: RestedEmulator, row: Odd, caplog: pytest.LogCaptureFixture
) -> None:
    assert call(base(emulator) + row.target, row.method, body=row.body, headers=row.headers).status == 200
    emulator.settle()
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    warnings: Any = emulator.requests()[-1]["warnings"]
    [told] = warnings
    assert line == f"{row.method} {row.target.partition('?')[0]} 200 {told}"


@pytest.mark.parametrize(
    ("method", "query", "headers", "body"),
    [
        ("GET", "dataOnly=false&fileOnly=0&_=17&page=2", {}, None),
        ("GET", f"uniqueId={TOMATO}&fileOnly=false&stream=false", {}, None),
        ("GET", "masterKey=d0c5b1e29a7f4c6e8b3a54f9027e61dc&accessToken=x", {}, None),
        ("POST", "", AS_FETCH, b"{hello}"),
        ("POST", "", AS_FETCH, b"7"),
        ("POST", "", AS_TEXT, b'{"a": 1}'),
        ("POST", "", AS_JSON, b'"[1] see below"'),
        ("POST", "", {"Content-Type": "application/json; charset=utf-8"}, b'{"a": "[object Object]"}'),
    ],
)
def test_what_is_meant_is_not_warned_of(
    emulator: RestedEmulator, method: str, query: str, headers: dict[str, str], body: bytes | None
) -> None:
    assert call(base(emulator) + at(PLANTS, query), method, body=body, headers=headers).status == 200
    emulator.settle()
    assert emulator.requests()[-1]["warnings"] == []


def test_many_odd_parameters_are_few_warnings(emulator: RestedEmulator, caplog: pytest.LogCaptureFixture) -> None:
    query = "&".join(f"uniqueId[{number}]=x" for number in range(1000))
    reply = call(base(emulator) + at(PLANTS, query), "PUT", {})
    assert reply.json["hint"].count("the parameter is called uniqueId") == 5
    assert not [record for record in caplog.records if record.levelno > logging.INFO], "a refusal says it itself"


# Hints that name the remedy

WITH_CREDENTIALS = 'credentials: "include" (axios: withCredentials: true)'
SAFARI = {"User-Agent": "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15"}


@dataclass(frozen=True)
class Hint:
    """A request that is refused, what its hint says, and what it does not say."""

    row: Row
    says: str
    not_says: str = "sesame"


def read_diary(says: str, not_says: str = "sesame", query: str = "", **headers: str) -> Hint:
    return Hint(
        Row("GET", at(DIARY, query), 401, texts.NO_TOKEN, {name.replace("_", "-"): v for name, v in headers.items()}),
        says,
        not_says,
    )


def not_json(body: bytes, says: str, not_says: str = "sesame") -> Hint:
    return Hint(post(body, texts.WRONG_BODY), says, not_says)


def not_there(name: str, says: str, method: str = "GET") -> Hint:
    return Hint(Row(method, at(name), 400, texts.NOT_VALID, AS_JSON), says)


HINTS = {
    "a page without cookie": read_diary(WITH_CREDENTIALS, "one host name", Origin=PAGE),
    "a page on another host": read_diary("use one host name for both", Origin="http://127.0.0.1:3000"),
    "a page on another host, credentials": read_diary(WITH_CREDENTIALS, Origin="http://[::1]:3000"),
    "a page with cookies": read_diary("log in", WITH_CREDENTIALS, Origin=PAGE, Cookie="theme=dark"),
    "no page": read_diary("log in", WITH_CREDENTIALS),
    "Safari": read_diary("noATCookie=true, or start with --plain-cookie or --tls", **SAFARI),
    "Safari with other cookies": read_diary("Safari drops a Secure cookie", Cookie="theme=dark", **SAFARI),
    "a page on another host with other cookies": read_diary(
        "use one host name for both", WITH_CREDENTIALS, Origin="http://127.0.0.1:3000", Cookie="theme=dark"
    ),
    "Bearer null": read_diary("is the word null", Authorization="Bearer null"),
    "Bearer undefined": read_diary("is the word undefined", Authorization="Bearer undefined"),
    "Bearer [object Object]": read_diary("is the word [object object]", Authorization="Bearer [object Object]"),
    "Bearer Bearer": read_diary("Authorization says that once", Authorization="Bearer Bearer sesame"),
    "a token in quotation marks": read_diary("in quotation marks", Authorization='Bearer "sesame"'),
    "Bearer alone": read_diary("Authorization lacks the token", Authorization="Bearer "),
    "no Bearer": read_diary("lacks the word Bearer", Authorization="sesame"),
    "another word": read_diary("lacks the word Bearer", Authorization="Token sesame"),
    "accessToken over HTTP": read_diary("counts for a WebSocket alone", query="accessToken=sesame"),
    "an unknown token": read_diary("The access token is unknown here", Authorization="Bearer sesame"),
    "a logout without cookie": Hint(
        Row("POST", at(GARDENERS, "logout=true"), 400, texts.NO_TOKEN, {"Origin": PAGE}), WITH_CREDENTIALS
    ),
    "multipart without boundary": Hint(
        post(b"--x", texts.WRONG_BODY, {"Content-Type": "multipart/form-data"}), "leave the Content-Type header out"
    ),
    "multipart as JSON": not_json(b"------x\r\nContent-Disposition: form-data", "leave the Content-Type header out"),
    "a form as JSON": not_json(b"password=sesame&username=ada", "begins with 'password=': that is a form"),
    "a page as JSON": not_json(b"<!doctype html>", "begins with '<!doctype html>': that is HTML"),
    "single quotes": not_json(b"{'password': 'sesame'}", "begins with \"{'password':\": JSON has double quotes"),
    "a shell's quotes": not_json(b"'{password:sesame}'", "JSON has double quotes"),
    "names without quotes": not_json(b"{password: 'sesame'}", "begins with '{password:': JSON has its names"),
    "an object": not_json(b"[object Object]", "an object was sent without JSON.stringify"),
    "undefined": not_json(b"undefined", "begins with 'undefined': a value was sent without JSON.stringify"),
    "a long word": not_json(b"sesame" * 10, "begins with", "sesame" * 4),
    "a record in the path": not_there(
        f"{PLANTS}/1234", f"A record of {PLANTS} is chosen in the query: '&uniqueId=1234'"
    ),
    "a record in the path, and a slash": not_there(f"{PLANTS}/1234/", "'&uniqueId=1234'"),
    "a PUT to a record": not_there(f"{PLANTS}/1234", "'&uniqueId=1234'", "PUT"),
    "a DELETE of a record": not_there(f"{PLANTS}/1234", "'&uniqueId=1234'", "DELETE"),
    "a slash at the end": not_there(f"{PLANTS}/", f"Did you mean {PLANTS}?"),
    "an escaped slash": not_there("garden%2Fplants", f"Did you mean {PLANTS}?"),
    "upper case": not_there("Garden/Plants", f"Did you mean {PLANTS}?"),
    "a letter less": not_there("garden/plant", f"Did you mean {PLANTS}?"),
    "without its folder": not_there("plants", f"Did you mean {PLANTS}?"),
    "another name": not_there("garden/weeds", "make it with --endpoint"),
    "an unknown record": Hint(
        Row("GET", at(PLANTS, "uniqueId=no-such-id"), 400, texts.NO_RECORD), "has no record 'no-such-id'"
    ),
    "no prefix": Hint(
        Row("POST", f"/{PLANTS}?key={KEY}", 404, texts.NOT_FOUND, AS_JSON, b"{}"), f"/api/1/ce/{PLANTS}?"
    ),
    "the key in another case": Hint(
        Row("GET", at(PLANTS, f"KEY={KEY}", key=None), 403, texts.KEY_MISSING), "is called key"
    ),
    "login=1 as nobody": Hint(
        user("login=1", b'{"username": "ada", "password": "x"}', texts.USER_EXISTS), "login='1' counts"
    ),
    "a login as fetch sends it": Hint(
        Row("POST", at(GARDENERS, "login=true"), 400, texts.MEMBER_MISSING, AS_FETCH, NEWCOMER),
        "JSON and counts as text",
    ),
}


@pytest.mark.parametrize("case", HINTS.values(), ids=HINTS.keys())
def test_a_hint_names_the_remedy_and_no_secret(
    emulator: RestedEmulator, case: Hint, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # every time, not once
        reply = call(base(emulator) + case.row.target, case.row.method, body=case.row.body, headers=case.row.headers)
        assert_refusal(reply, case.row.status, case.row.message)
        assert case.says in reply.json["hint"]
        assert case.not_says not in reply.json["hint"]
    assert len(reply.json["hint"]) < 1000
    assert "sesame" not in caplog.text or case.not_says != "sesame"
    assert caplog.text.count(case.says) == 2


# Browsers


def assert_readable(reply: Reply, origin: str = PAGE) -> None:
    assert cors_of(reply) == CORS | {"access-control-allow-origin": origin}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", at(PLANTS), 200),
        ("GET", at(PLANTS, "uniqueId=nobody"), 400),
        ("GET", at("garden/weeds"), 400),
        ("GET", at(DIARY), 401),
        ("GET", at(PLANTS, key=None), 403),
        ("GET", at(PLANTS, "masterKey=x"), 403),
        ("GET", "/favicon.ico", 404),
        ("PATCH", at(PLANTS), 405),
    ],
)
@pytest.mark.parametrize("allowed", [[], [PAGE]], ids=["every origin", "this origin"])
def test_a_page_can_read_every_answer(
    emulator: RestedEmulator, method: str, target: str, status: int, allowed: list[str]
) -> None:
    emulator.change_project(allowed_origins=allowed)
    reply = call(base(emulator) + target, method, headers={"Origin": PAGE})
    assert reply.status == status
    assert_readable(reply)


def test_a_page_can_read_that_its_body_is_too_large(emulator: RestedEmulator) -> None:
    reply = call(emulator.url(PLANTS), "POST", body=b" " * 1_000_001, headers=AS_JSON | {"Origin": PAGE})
    assert reply.status == 413
    assert_readable(reply)


@pytest.mark.parametrize(
    "target",
    ["/favicon.ico", at(PLANTS, key=None), at("garden/weeds"), at(PLANTS, key="wrong")],
    ids=["no endpoint's address", "no key", "unknown endpoint", "wrong key"],
)
def test_where_no_project_is_known_every_page_of_this_machine_can_read(emulator: RestedEmulator, target: str) -> None:
    emulator.change_project(allowed_origins=[PAGE])
    assert_readable(call(base(emulator) + target, headers={"Origin": OTHER_PAGE}), OTHER_PAGE)


def test_a_preflight_names_methods_headers_and_how_long_that_holds(emulator: RestedEmulator) -> None:
    asks = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization, content-type"}
    reply = call(emulator.url(DIARY), "OPTIONS", headers=asks | {"Origin": PAGE})
    assert (reply.status, reply.body) == (204, b"")
    assert int(reply.headers["access-control-max-age"]) > 0
    assert cors_of(reply) == CORS | {
        "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-max-age": reply.headers["access-control-max-age"],
    }
    assert not {"content-length", "content-type", "transfer-encoding"} & set(reply.headers)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (at(PLANTS, key=None), 403),
        (at(PLANTS, key="wrong"), 400),
        (at("garden/weeds"), 400),
        (at(PLANTS, "masterKey=x"), 403),
        (at(DIARY), 401),
    ],
    ids=["no key", "wrong key", "unknown endpoint", "wrong master key", "no token"],
)
def test_a_preflight_lets_the_request_itself_say_what_is_wrong(
    emulator: RestedEmulator, target: str, status: int
) -> None:
    preflight, reply = (
        call(base(emulator) + target, method, headers={"Origin": PAGE}) for method in ("OPTIONS", "PUT")
    )
    assert (preflight.status, reply.status) == (204, status)
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert_readable(reply)


@pytest.mark.parametrize(
    ("origin", "query"),
    [(OTHER_PAGE, ""), (FOREIGN, ""), ("null", ""), (OTHER_PAGE, "masterKey=x"), (FOREIGN, "masterKey=x")],
    ids=["refused", "foreign", "null", "refused with a wrong master key", "foreign with a wrong master key"],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_refused_page_can_read_nothing(emulator: RestedEmulator, origin: str, query: str, method: str) -> None:
    emulator.change_project(allowed_origins=[PAGE])
    reply = call(base(emulator) + at(PLANTS, query), method, headers={"Origin": origin})
    assert reply.status == 403
    assert reply.headers.keys() == {"content-type", "content-length"}


@pytest.mark.parametrize("origin", [OTHER_PAGE, FOREIGN])
@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("DELETE", 400), ("OPTIONS", 204)])
def test_the_master_key_lifts_the_limits_of_origins(
    emulator: RestedEmulator, origin: str, method: str, status: int
) -> None:
    emulator.change_project(allowed_origins=[PAGE], disallow_no_origin=True)
    reply = call(emulator.url(DIARY), method, headers={"Origin": origin}, masterKey=MASTER_KEY)
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == origin
    assert call(emulator.url(DIARY), "GET", masterKey=MASTER_KEY).status == 200


def test_a_preflight_for_a_login_does_not_look_at_the_master_key(emulator: RestedEmulator) -> None:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    assert call(emulator.url(GARDENERS), "OPTIONS", headers=headers, login="true", masterKey="x").status == 204


def test_an_allowed_origin_passes_the_outer_gate_wherever_it_is(emulator: RestedEmulator) -> None:
    emulator.change_project(allowed_origins=["https://garden.example"])
    for origin in ("https://garden.example", "https://GARDEN.example:443"):
        reply = call(emulator.url(PLANTS), headers={"Origin": origin})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, origin)


def test_any_origin_may_come_in_where_the_option_says_so() -> None:
    with RestedEmulator(data=GARDEN, allow_any_origin=True) as emulator:
        for origin in (FOREIGN, "null"):
            assert call(emulator.url(PLANTS), headers={"Origin": origin}).status == 200


def test_an_allowed_host_may_be_named() -> None:
    with RestedEmulator(data=GARDEN, allow_host=["garden.test"]) as emulator:
        assert call(emulator.url(PLANTS), headers={"Host": "Garden.test:80"}).status == 200
        assert call(emulator.url(PLANTS), headers={"Host": "x.garden.test"}).status == 403


# Logging in and out


def cookies_set(emulator: RestedEmulator, body: bytes | None = None, **headers: str) -> list[tuple[str, str, set[str]]]:
    """Log in with a body or out without: name, value and attributes of each cookie that is set."""
    connection = HTTPConnection("localhost", int(str(emulator.facts["port"])), timeout=10)
    try:
        query = "login=true" if body else "logout=true"
        connection.request("POST", at(GARDENERS, query), body, AS_JSON | headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        lines = [line.split("; ") for line in response.headers.get_all("Set-Cookie", [])]
    finally:
        connection.close()
    return [(*line[0].partition("=")[::2], set(line[1:])) for line in lines]


STRICT, LAX = {"Path=/", "Secure", "HttpOnly", "SameSite=None"}, {"Path=/", "HttpOnly", "SameSite=Lax"}


def test_a_login_sets_the_cookie_of_the_service(emulator: RestedEmulator) -> None:
    ((name, token, attributes),) = cookies_set(emulator, BEN_LOGS_IN)
    assert (name, attributes) == (COOKIE, STRICT)
    assert re.fullmatch(r"[0-9a-f]{32}", token)
    reply = call(emulator.url(GARDENERS), headers={"Cookie": f"{COOKIE}={token}"})
    assert reply.json["data"] == BEN_DATA


def test_a_login_without_cookie_brings_the_token_in_a_header(emulator: RestedEmulator) -> None:
    headers = AS_JSON | {"Origin": PAGE}
    reply = call(emulator.url(GARDENERS), "POST", body=BEN_LOGS_IN, headers=headers, login="true", noATCookie="true")
    assert_record(reply, BEN_DATA)
    assert "set-cookie" not in reply.headers
    assert reply.headers["access-control-expose-headers"] == "Authorization"
    assert re.fullmatch(r"Bearer [0-9a-f]{32}", reply.headers["authorization"])
    assert call(emulator.url(DIARY), headers={"Authorization": reply.headers["authorization"]}).status == 200


def test_a_logout_expires_the_cookie_and_the_token(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    assert cookies_set(emulator, Cookie=f"{COOKIE}={token}") == [(COOKIE, "", STRICT | {"Max-Age=0"})]
    assert call(emulator.url(DIARY), headers=bearer(token)).status == 401


@pytest.mark.parametrize("body", [None, b"\xff", b"{", b"x" * 1_000_001], ids=["none", "bytes", "torn", "too large"])
def test_a_logout_answers_an_empty_object_and_ignores_its_body(emulator: RestedEmulator, body: bytes | None) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    reply = call(emulator.url(GARDENERS), "POST", body=body, headers=bearer(token), logout="true", dataOnly="true")
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, JSON, b"{}")


def test_the_plain_cookie_comes_in_addition_and_opens_too() -> None:
    with RestedEmulator(data=GARDEN, plain_cookie=True) as emulator:
        strict, plain = cookies_set(emulator, BEN_LOGS_IN)
        token = strict[1]
        assert (strict, plain) == ((COOKIE, token, STRICT), ("rested-access-token", token, LAX))
        assert call(emulator.url(DIARY), headers={"Cookie": f"rested-access-token={token}"}).status == 200
        assert cookies_set(emulator, Cookie=f"rested-access-token={token}") == [
            (COOKIE, "", STRICT | {"Max-Age=0"}),
            ("rested-access-token", "", LAX | {"Max-Age=0"}),
        ]


def test_the_plain_cookie_is_nothing_unless_asked_for(emulator: RestedEmulator) -> None:
    headers = {"Cookie": f"rested-access-token={emulator.sign_in(GARDENERS, 'ada')}"}
    assert call(emulator.url(DIARY), headers=headers).status == 401


SEVERAL_TOKENS = {
    "header before cookie": ({"Authorization": "Bearer {0}", "Cookie": COOKIE + "=wrong"}, 200),
    "a wrong header before a cookie": ({"Authorization": "Bearer wrong", "Cookie": COOKIE + "={0}"}, 401),
    "another scheme beside a cookie": ({"Authorization": "Basic d3Jvbmc=", "Cookie": COOKIE + "={0}"}, 200),
    "an empty header beside a cookie": ({"Authorization": "Bearer ", "Cookie": COOKIE + "={0}"}, 200),
    "the scheme in lower case": ({"Authorization": "bearer  {0} "}, 200),
}


@pytest.mark.parametrize(("shows", "status"), SEVERAL_TOKENS.values(), ids=SEVERAL_TOKENS.keys())
def test_of_several_tokens_one_counts(emulator: RestedEmulator, shows: dict[str, str], status: int) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    headers = {name: value.format(token) for name, value in shows.items()}
    assert call(emulator.url(DIARY), headers=headers).status == status


def test_of_two_cookie_headers_the_last_counts(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(DIARY), f"Cookie: {COOKIE}=wrong", f"Cookie: {COOKIE}={token}"))
        assert answer_on(connection).status == 200


def test_the_access_token_parameter_counts_for_nothing_over_http(emulator: RestedEmulator) -> None:
    token = emulator.sign_in(GARDENERS, "ada")
    assert call(emulator.url(DIARY), accessToken=token).status == 401
    assert call(emulator.url(DIARY), headers=bearer(token), accessToken="wrong").status == 200


@pytest.mark.warns("will drop the access token cookie")
@pytest.mark.parametrize(
    "headers", [{"Origin": "http://127.0.0.1:3000"}, {"User-Agent": "AppleWebKit/605 Safari"}], ids=["host", "WebKit"]
)
def test_a_browser_that_will_drop_the_cookie_is_warned_of_once(
    emulator: RestedEmulator, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        call(emulator.url(GARDENERS), "POST", body=BEN_LOGS_IN, headers=AS_JSON | headers, login="true")
    assert len([record for record in caplog.records if "will drop" in record.getMessage()]) == 1


# Bodies over the limit


def test_who_is_still_sending_can_read_that_it_is_too_large(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("POST", at(PLANTS), "Content-Type: application/json", f"Content-Length: {2**30}"))
        connection.sendall(b"x" * 2**20)
        reply = answer_on(connection)
        connection.sendall(b"x" * 2**20)
        connection.shutdown(socket.SHUT_WR)
        assert at_end(connection)
    assert_refusal(reply, 413, texts.TOO_LARGE)
    assert reply.headers["connection"] == "close"
    assert len(emulator.records(PLANTS)) == 3


def test_who_reads_only_after_sending_all_can_read_it_too(emulator: RestedEmulator) -> None:
    reply = call(emulator.url(PLANTS), "POST", body=b"x" * 20_000_000, headers=AS_TEXT)
    assert_refusal(reply, 413, texts.TOO_LARGE)


def test_chunks_over_the_limit_are_refused_as_soon_as_known() -> None:
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    with RestedEmulator(data=GARDEN, max_body=10_000) as emulator, wire(emulator) as connection:
        connection.sendall(head("POST", at(PLANTS), "Content-Type: text/plain", "Transfer-Encoding: chunked"))
        connection.sendall(chunk * 20)
        reply = answer_on(connection)
        connection.sendall(chunk + b"0\r\n\r\n")
        assert at_end(connection)
        assert_refusal(reply, 413, texts.TOO_LARGE)
        assert reply.headers["connection"] == "close"
        assert len(emulator.records(PLANTS)) == 3


def test_chunks_within_the_limit_are_a_body_like_any_other(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("POST", at(PLANTS), "Content-Type: application/json", "Transfer-Encoding: chunked"))
        connection.sendall(b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n')
        assert_record(answer_on(connection), {"a": 1})


def test_after_a_body_over_the_limit_the_connection_closes_and_the_limit_itself_is_allowed() -> None:
    with RestedEmulator(data=GARDEN, max_body=10) as emulator, wire(emulator) as connection:
        for size, status in ((10, 200), (11, 413)):
            connection.sendall(head("POST", at(PLANTS), "Content-Type: text/plain", f"Content-Length: {size}"))
            connection.sendall(b"x" * size)
            assert answer_on(connection).status == status
        assert at_end(connection)


# Connections


def test_a_connection_serves_several_requests(emulator: RestedEmulator) -> None:
    connection = HTTPConnection("localhost", int(str(emulator.facts["port"])), timeout=10)
    connection.connect()
    taken = connection.sock
    for method, target, body, status in [
        ("POST", at(PLANTS), b"{}", 200),
        ("POST", at(PLANTS), b"{", 400),
        ("OPTIONS", at(PLANTS), None, 204),
        ("PATCH", at(PLANTS), b"{}", 405),
        ("GET", "/nowhere", None, 404),
        ("GET", at(PLANTS), None, 200),
    ]:
        connection.request(method, target, body, AS_JSON)
        response = connection.getresponse()
        content = response.read()
        assert response.status == status
        assert connection.sock is taken
    connection.close()
    assert len(json.loads(content)) == 4


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_wants_the_connection_closed_gets_that(emulator: RestedEmulator, version: str) -> None:
    with wire(emulator) as connection:
        request = f"GET {at(PLANTS)} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        assert answer_on(connection).status == 200
        assert at_end(connection)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(emulator: RestedEmulator) -> None:
    with nothing_happens(emulator, emulator.sign_in(GARDENERS, "ada")):
        for sent in (b"POST", head("POST", at(PLANTS), "Content-Type: text/plain", "Content-Length: 9") + b"Leek"):
            with wire(emulator) as connection:
                connection.sendall(sent)


def is_silent(connection: socket.socket) -> bool:
    return not select.select([connection], [], [], 0)[0]


def test_latency_delays_answers_and_refusals_but_not_control() -> None:
    with RestedEmulator(data=GARDEN, latency=0.8) as emulator, wire(emulator) as first, wire(emulator) as second:
        first.sendall(head("GET", at(PLANTS)))
        second.sendall(head("GET", at(DIARY)))
        assert call(f"{emulator.facts['controlUrl']}/status").status == 200
        assert is_silent(first)
        assert is_silent(second)
        assert [answer_on(first).status, answer_on(second).status] == [200, 401]


def test_a_delayed_answer_to_a_client_that_left_disturbs_nobody() -> None:
    with RestedEmulator(data=GARDEN, latency=0.2) as emulator, open_socket(emulator.ws_url(PLANTS)) as listener:
        with wire(emulator) as connection:
            connection.sendall(head("POST", at(PLANTS), "Content-Type: text/plain", "Content-Length: 4") + b"Leek")
        assert json.loads(listener.recv(timeout=10))["record"]["data"] == "Leek"
        assert len(call(emulator.url(PLANTS)).json) == 4


def test_latency_does_not_swallow_that_a_body_is_too_large() -> None:
    with RestedEmulator(data=GARDEN, latency=0.2) as emulator:
        reply = call(emulator.url(PLANTS), "POST", body=b"x" * 1_000_001, headers=AS_TEXT)
        assert_refusal(reply, 413, texts.TOO_LARGE)


# A bug of ours


@pytest.mark.warns("GET /api/1/ce/garden/plants failed")
def test_a_failure_of_ours_looks_like_any_other_error(emulator: RestedEmulator) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    emulator.call(lambda server: setattr(server.world.service, "read", fail))
    reply = call(emulator.url(PLANTS), headers={"Origin": PAGE})
    assert_refusal(reply, 500, texts.BUG)
    assert_readable(reply)
    assert b"ZeroDivision" not in reply.body


@pytest.mark.parametrize(
    "unique_id",
    [
        "Smith, John",
        ",",
        "a&b=c#d",
        "100%",
        "ключ 🌱",
        "x" * 1000,
    ],
)
def test_every_id_of_a_data_file_can_be_read_changed_and_deleted(tmp_path: Path, unique_id: str) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps({PLANTS: [{"id": "a"}, {"id": unique_id}, {"id": "b"}]}))
    with RestedEmulator(data=data, memory=True) as emulator:
        url = f"{emulator.url(PLANTS)}&uniqueId={quote(unique_id, safe='')}"
        assert call(url).json["data"] == {"id": unique_id}
        assert call(url, "PUT", [1]).json["uniqueId"] == unique_id
        assert call(url, fileOnly="true").json["message"] == texts.NO_FILE
        assert call(url, "DELETE").json["data"] == [1]
        assert [record["uniqueId"] for record in call(emulator.url(PLANTS)).json] == ["a", "b"]
