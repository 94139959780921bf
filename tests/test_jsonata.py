"""JSONata: what an expression makes of an answer, and that none of them, however wicked, keeps the emulator
from its work (contract 4.6)."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import py_compile
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any
from urllib.parse import quote

import pytest

import rested_emulator
from rested_emulator import Evaluator, Refusal, RestedEmulator
from tests import texts
from tests.conftest import (
    ADA,
    CHORES,
    DIARY,
    DIARY_OF_ADA,
    GARDEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    PLANTS,
    PUMPKIN,
    ROOT,
    ROSEMARY,
    TOMATO,
)
from tests.wire import (
    CORS,
    FOREIGN,
    JSON,
    OTHER_PAGE,
    PAGE,
    Reply,
    answer_on,
    assert_refusal,
    at,
    at_end,
    bearer,
    call,
    cors_of,
    head,
    next_of,
    open_socket,
    start_program,
    wire,
)

THINGS, NOTHING = "garden/things", "garden/nothing"
EVALUATORS = 4  # processes at the most
SOON = 8.0  # seconds that no single expression takes, on a slow machine; the emulator's own limit is 2
ENDLESS = "($f := function($x){$f($x)}; $f(1))"
HANGING = f"$match('{'a' * 45}!', /^(a+)+$/)"  # not even the package's own limit ends this one
DEEPER = "($f := function($x){1 + $f($x)}; $f(1))"


def ask(
    emulator: RestedEmulator,
    endpoint: str,
    expression: str,
    *,
    method: str = "GET",
    data: Any = ...,
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> Reply:
    """Send a request with an expression."""
    parameters["jsonata"] = quote(expression, safe="")
    return call(emulator.url(endpoint), method, data, body=None, headers=headers, **parameters)


def result(reply: Reply) -> str:
    """The JSON that an expression came to, as text."""
    assert (reply.status, reply.headers["content-type"]) == (200, JSON), reply.body
    return reply.body.decode()


def asking(expression: str, endpoint: str = PLANTS) -> bytes:
    """A request with an expression, as bytes."""
    return head("GET", at(endpoint, f"jsonata={quote(expression, safe='')}"))


def children(pid: int | None = None) -> set[int]:
    """The processes that a process has started and that have not been waited for, as Linux tells."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def ends(pid: int) -> bool:
    """Wait until a process has ended, and no longer than 10 seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(10_000))
    finally:
        os.close(descriptor)


Started = Callable[[], set[int]]


@pytest.fixture
def started() -> Iterator[Started]:
    """What tells the processes that are there and were not before the test; in the end all of them must end."""
    before = children()
    yield lambda: children() - before
    gc.collect()  # so that a future that failed unseen shows up in the log
    assert all(ends(process) for process in children() - before)


@pytest.fixture
def emulator(started: Started) -> Iterator[RestedEmulator]:
    """The garden over a real port; what it has started is looked at once it has stopped."""
    assert started() == set()
    with RestedEmulator(data=GARDEN) as running:
        yield running


@pytest.fixture(scope="module")
def evaluate() -> Iterator[Callable[..., bytes]]:
    """What an expression comes to without HTTP, which has limits of its own; raises Refusal."""
    loop, evaluator = asyncio.new_event_loop(), Evaluator()
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield lambda expression, data=b"null": asyncio.run_coroutine_threadsafe(
        evaluator.evaluate(expression, data), loop
    ).result()
    asyncio.run_coroutine_threadsafe(evaluator.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Semaphore:
    """Released for every expression whose turn it is; where a process is idle, it has it a moment later."""
    begun = Semaphore(0)
    really = Evaluator.evaluate

    async def say_so(evaluator: Evaluator, expression: str, data: bytes) -> bytes:
        begun.release()
        return await really(evaluator, expression, data)

    monkeypatch.setattr(Evaluator, "evaluate", say_so)
    return begun


@contextmanager
def running(
    emulator: RestedEmulator, asked: Semaphore, count: int = 1, expression: str = HANGING
) -> Iterator[list[socket.socket]]:
    """Clients that wait for expressions, which run by now, as far as there are processes for them."""
    with ExitStack() as stack:
        connections = [stack.enter_context(wire(emulator)) for _ in range(count)]
        for connection in connections:
            connection.sendall(asking(expression))
        for _ in connections:
            assert asked.acquire(timeout=10)
        yield connections


# What it is evaluated on

DATA: list[Any] = [
    {"b": 1, "a": {"b": [None, True, {}], "ä": "🥕"}, "": "", "null": None},
    "text, “quoted”",
    "",
    7,
    -2.5,
    None,
    False,
    [],
    [1, [2, [3]], None],
    {},
    12345678901234567890,
]


@pytest.fixture(scope="module")
def things() -> Iterator[RestedEmulator]:
    """The garden with an endpoint of all sorts of data; tests only read it."""
    with RestedEmulator(data=GARDEN, endpoint=[THINGS, NOTHING]) as running:
        for data in DATA:
            call(running.url(THINGS), "POST", data)
        yield running


@pytest.fixture(scope="module")
def ids(things: RestedEmulator) -> list[str]:
    return [record["uniqueId"] for record in call(things.url(THINGS)).json]


@pytest.mark.parametrize("data_only", ["true", "false"])
def test_the_expression_is_given_the_answer_as_it_would_have_been_sent(things: RestedEmulator, data_only: str) -> None:
    for endpoint in (PLANTS, THINGS, NOTHING):
        plain = call(things.url(endpoint), dataOnly=data_only)
        assert json.loads(result(ask(things, endpoint, "$", dataOnly=data_only))) == plain.json
        assert json.loads(result(ask(things, endpoint, "$count($)", dataOnly=data_only))) == len(plain.json)


@pytest.mark.parametrize("number", range(len(DATA)), ids=[str(data) for data in DATA])
def test_of_one_record_the_expression_is_given_the_record(things: RestedEmulator, ids: list[str], number: int) -> None:
    plain = call(things.url(THINGS), uniqueId=ids[number])
    assert result(ask(things, THINGS, "$", uniqueId=ids[number])) == plain.body.decode()
    assert json.loads(result(ask(things, THINGS, "data", uniqueId=ids[number]))) == DATA[number]
    assert json.loads(result(ask(things, THINGS, "$", uniqueId=ids[number], dataOnly="true"))) == DATA[number]
    assert result(ask(things, THINGS, "data.nothing", uniqueId=ids[number], dataOnly="true")) == "null"


def test_of_text_alone_the_result_is_json_all_the_same(things: RestedEmulator, ids: list[str]) -> None:
    assert call(things.url(THINGS), uniqueId=ids[1], dataOnly="true").headers["content-type"].startswith("text/plain")
    assert result(ask(things, THINGS, "$", uniqueId=ids[1], dataOnly="true")) == '"text, “quoted”"'
    assert result(ask(things, THINGS, "$length($)", uniqueId=ids[1], dataOnly="true")) == "14"


@pytest.mark.parametrize(
    ("wanted", "expression", "found"),
    [
        ({}, "data.name", '["Tomato","Rosemary","Kürbis"]'),
        ({"dataOnly": "true"}, "name", '["Tomato","Rosemary","Kürbis"]'),
        ({"uniqueId": ROSEMARY}, "data.name", '"Rosemary"'),
        ({"uniqueId": ROSEMARY, "dataOnly": "true"}, "name", '"Rosemary"'),
        ({"uniqueId": f"{PUMPKIN},{TOMATO}"}, "data.bed", "[3,1]"),
        ({"uniqueId": f"{PUMPKIN},nobody,{TOMATO}", "dataOnly": "true"}, "bed", "[3,1]"),
        ({}, "$[data.waterDaily].data.bed", "[1,3]"),
        ({}, "$[0].$keys($)", '["data","uniqueId","updatedAt","createdAt"]'),
    ],
)
def test_an_expression_comes_after_unique_id_and_data_only(
    things: RestedEmulator, wanted: dict[str, Any], expression: str, found: str
) -> None:
    assert result(ask(things, PLANTS, expression, **wanted)) == found


def test_of_the_expression_given_twice_the_last_counts(things: RestedEmulator) -> None:
    assert call(things.url(PLANTS) + "&jsonata=1&jsonata=2").body == b"2"


# Evaluating, in the process that is there for it


def test_a_process_needs_no_source(started: Started, tmp_path: Path) -> None:
    py_compile.compile(str(ROOT / "rested_emulator.py"), str(tmp_path / "rested_emulator.pyc"), dfile="gone.py")
    start = (sys.executable, "-m", "rested_emulator")
    with start_program("--memory", cwd=tmp_path, start=start) as process:
        facts = json.loads(said(process))
        url = f"{facts['url']}/examples/unsecure-endpoint?key={facts['key']}"
        assert call(url, jsonata="1%2B1").json == 2
        process.terminate()
        process.wait(timeout=10)
    assert started() == set()


# What a user may read


def test_an_expression_sees_only_what_its_user_may_read(emulator: RestedEmulator) -> None:
    ada, ben = (bearer(emulator.sign_in(GARDENERS, name)) for name in ("ada", "ben"))
    assert result(ask(emulator, DIARY, "data.text", headers=ada)) == '"First tomato flower."'
    assert result(ask(emulator, DIARY, "data.text", headers=ben)) == '"Rosemary needs a bigger pot."'
    assert result(ask(emulator, DIARY, "$count($)", masterKey=MASTER_KEY)) == "2"
    assert result(ask(emulator, CHORES, "$count($)", headers=ada)) == "3"
    assert_refusal(ask(emulator, DIARY, "$", headers=ben, uniqueId=DIARY_OF_ADA), 400, texts.NO_RECORD)
    assert_refusal(ask(emulator, DIARY, "$"), 401, texts.NO_TOKEN)


@pytest.mark.parametrize("expression", ["$", "data", "**", "*", "$string($)", "$spread(data)", "$keys(data)", "%.data"])
def test_no_expression_finds_a_password(emulator: RestedEmulator, expression: str) -> None:
    ada = bearer(emulator.sign_in(GARDENERS, "ada"))
    shows: list[dict[str, Any]] = [{}, {"uniqueId": ADA}, {"dataOnly": "true"}]
    replies = [ask(emulator, GARDENERS, expression, headers=ada, **show) for show in shows]
    replies += [ask(emulator, GARDENERS, expression, masterKey=MASTER_KEY, **show) for show in shows]
    for reply in replies:
        assert b"apricot" not in reply.body
        assert b"password" not in reply.body


def test_a_user_is_one_object_and_with_the_master_key_users_are_a_list(emulator: RestedEmulator) -> None:
    ada = bearer(emulator.sign_in(GARDENERS, "ada"))
    assert result(ask(emulator, GARDENERS, "data.username", headers=ada)) == '"ada"'
    assert result(ask(emulator, GARDENERS, "data.password", headers=ada)) == "null"
    assert result(ask(emulator, GARDENERS, "data.username", masterKey=MASTER_KEY)) == '["ada","ben"]'
    assert result(ask(emulator, GARDENERS, "data.password", masterKey=MASTER_KEY)) == "null"


def test_a_refused_request_starts_no_process(emulator: RestedEmulator, asked: Semaphore, started: Started) -> None:
    emulator.change_project(allowed_origins=[PAGE])
    for origin in (FOREIGN, OTHER_PAGE, "null"):
        assert_refusal(ask(emulator, PLANTS, "1", headers={"Origin": origin}), 403, texts.ORIGIN_REFUSED)
    assert_refusal(ask(emulator, PLANTS, "1", headers={"Host": "evil.example"}), 403, texts.HOST_REFUSED)
    assert ask(emulator, DIARY, "1").status == 401
    assert not asked.acquire(blocking=False)
    assert started() == set()


# Results


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        # Every type of JSON
        ("'x'", '"x"'),
        ("2.5", "2.5"),
        ("false", "false"),
        ("null", "null"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("[1, 'a', null, true, {'b': [2]}]", '[1,"a",null,true,{"b":[2]}]'),
        ("{'a': null}", '{"a":null}'),
        # No result
        ("nothing", "null"),
        ("()", "null"),
        ("{'a': nothing}", "{}"),
        # Functions
        ("$sum", "null"),
        ("/a/", "null"),
        ("[1, $sum, 2]", "[1,null,2]"),
        # Numbers
        ("1.0", "1"),
        ("-0.0", "0"),
        ("10 / 2", "5"),
        ("[4 / 2, {'a': 6 / 2}]", '[2,{"a":3}]'),
        ("1 / 4", "0.25"),
        ("1e20", "100000000000000000000"),
        ("$string(3.0)", '"3"'),
        # Unicode
        ("'Kürbis ж 🥕 \u2028'", '"Kürbis ж 🥕 \u2028"'),
        ("{'ü': 'ж'}", '{"ü":"ж"}'),
        ("'\\ud83e\\udd55'", '"🥕"'),
        ("{'\\ud83e\\udd55': '\\ud83e\\udd55!'}", '{"🥕":"🥕!"}'),
        ("'a\\n\\t\\\"'", '"a\\n\\t\\""'),
        ("'\\u0000'", '"\\u0000"'),
        ("🥕", "null"),
        ("\x00", "null"),
        # The order of members
        ("{'b': 1, 'a': 2}", '{"b":1,"a":2}'),
        ("$merge([{'z': 1}, {'y': 2}, {'z': 3}])", '{"z":3,"y":2}'),
        # More of the language
        ("$eval('1 + 1')", "2"),
        (" \n1\t", "1"),
    ],
)
def test_a_result_is_json(things: RestedEmulator, expression: str, found: str) -> None:
    assert result(ask(things, NOTHING, expression)) == found


def test_integers_of_the_data_keep_their_precision(things: RestedEmulator, ids: list[str]) -> None:
    assert result(ask(things, THINGS, "data", uniqueId=ids[-1])) == "12345678901234567890"
    assert result(ask(things, THINGS, "[data, {'a': data}]", uniqueId=ids[-1])) == (
        '[12345678901234567890,{"a":12345678901234567890}]'
    )


@pytest.mark.parametrize(
    ("data", "shown"), [(3.0, "3"), (-0.0, "0"), (1e20, "100000000000000000000"), (1e21, "1e+21")], ids=str
)
def test_whole_numbers_are_written_as_javascript_writes_them(emulator: RestedEmulator, data: float, shown: str) -> None:
    unique_id = call(emulator.url(PLANTS), "POST", [data, {"a": data}]).json["uniqueId"]
    assert result(ask(emulator, PLANTS, "data", uniqueId=unique_id)) == f'[{shown},{{"a":{shown}}}]'


@pytest.mark.parametrize(
    "expression",
    ["1 / 0", "0 / 0", "[-1e308 * 10]", "$power(10, 400)", "1e400"],
)
def test_what_is_no_number_of_json_is_refused(things: RestedEmulator, expression: str) -> None:
    assert_refusal(ask(things, NOTHING, expression), 400, texts.WRONG_EXPRESSION)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_data_as_deep_as_it_may_be_comes_back_whole(emulator: RestedEmulator, opening: str) -> None:
    levels = 512
    body = opening * levels + "1" + ("]" if opening == "[" else "}") * levels
    created = call(emulator.url(PLANTS), "POST", body=body.encode(), headers={"Content-Type": "application/json"})
    assert result(ask(emulator, PLANTS, "data", uniqueId=created.json["uniqueId"])) == body


def test_a_large_list_goes_in_and_comes_out_whole(emulator: RestedEmulator) -> None:
    data = ["ü" * 100] * 1000
    unique_id = call(emulator.url(PLANTS), "POST", data).json["uniqueId"]
    assert json.loads(result(ask(emulator, PLANTS, "[data, data, data]", uniqueId=unique_id))) == data * 3


def test_one_expression_leaves_nothing_behind_for_the_next(emulator: RestedEmulator) -> None:
    assert result(ask(emulator, PLANTS, "($sum := function($x){7}; $mine := 1; $sum([1, 2]))")) == "7"
    assert result(ask(emulator, PLANTS, "$sum([1, 2])")) == "3"
    assert result(ask(emulator, PLANTS, "$mine")) == "null"
    assert result(ask(emulator, PLANTS, "$ ~> |$|{'data': 'changed'}|")).count("changed") == 3
    assert result(ask(emulator, PLANTS, "data.bed")) == "[1,2,3]"


def test_a_result_of_one_request_does_not_change_the_records(emulator: RestedEmulator) -> None:
    before = emulator.records(PLANTS)
    ask(emulator, PLANTS, "$ ~> |data|{'bed': 9}, 'name'|")
    assert emulator.records(PLANTS) == before


# Failures


@pytest.mark.parametrize(
    ("expression", "error", "position"),
    [
        ("", "S0207", 0),
        ("  ", "S0207", 2),
        ("a.(", "S0203", 3),
        ("'never ends", "S0101", 11),
        ("1e400", "S0102", 0),
        ("$nobody(1)", "T1006", 8),
        ("$error('boo')", "D3137", 7),
    ],
)
def test_a_failure_says_what_and_where(things: RestedEmulator, expression: str, error: str, position: int) -> None:
    reply = ask(things, PLANTS, expression)
    assert_refusal(reply, 400, texts.WRONG_EXPRESSION)
    assert f" fails: {error}: " in reply.json["hint"]
    assert reply.json["hint"].endswith(f" at position {position}.")
    assert repr(expression) in reply.json["hint"]


@pytest.mark.parametrize("expression", ["'a' + 1", "/* never ends", "$eval('(')", "'\\ud800'", "[1..1e12]"])
def test_whatever_fails_otherwise_is_refused_too(things: RestedEmulator, expression: str) -> None:
    assert_refusal(ask(things, PLANTS, expression), 400, texts.WRONG_EXPRESSION)


def test_a_failure_is_told_without_the_data_and_in_a_few_words(things: RestedEmulator) -> None:
    reply = ask(things, PLANTS, f"$error($string($) & '{'x' * 5000}')")
    assert reply.json["message"] == texts.WRONG_EXPRESSION
    assert len(reply.json["hint"]) < 600


# Expressions that never end, or take all there is

WICKED = {
    "endless recursion": DEEPER,
    "a recursion by eval": "($f := function(){$eval('[$f()]')}; $f())",
    "text that doubles for ever": "($f := function($s){$f($s & $s)}; $f('xx'))",
    "too long a text": "$length($pad('x', 2000000000))",
    "too long a list": "$count([1..9000000].[1..9000000])",
    "five thousand parentheses": "(" * 5000 + "1" + ")" * 5000,
    "open parentheses": "(" * 20_000,
}


@pytest.mark.parametrize("expression", WICKED.values(), ids=WICKED.keys())
def test_an_expression_that_takes_all_there_is_fails_soon(
    emulator: RestedEmulator, expression: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 1.0)
    assert result(ask(emulator, PLANTS, "1")) == "1"
    begun = time.monotonic()
    reply = ask(emulator, PLANTS, expression)
    assert time.monotonic() - begun < SOON
    assert_refusal(reply, 400, texts.WRONG_EXPRESSION)
    assert result(ask(emulator, PLANTS, "$count($)")) == "3"
    assert len(started()) <= EVALUATORS


@pytest.mark.parametrize(
    "expression",
    [
        ENDLESS,
        HANGING,
        "($f := function($n){$n = 0 ? 0 : $f($n - 1) + $f($n - 1)}; $f(90))",
    ],
    ids=["tail recursion", "match", "two to the ninety"],
)
def test_an_endless_expression_is_stopped_and_its_process_with_it(
    emulator: RestedEmulator, expression: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 0.4)
    assert result(ask(emulator, PLANTS, "1")) == "1"
    [process] = started()
    reply = ask(emulator, PLANTS, expression)
    assert_refusal(reply, 400, texts.WRONG_EXPRESSION)
    assert "it takes longer than 0.4 seconds" in reply.json["hint"]
    assert ends(process)
    assert result(ask(emulator, PLANTS, "$count($)")) == "3"
    assert process not in started()


def test_the_limit_is_two_seconds(emulator: RestedEmulator) -> None:
    begun = time.monotonic()
    assert "it takes longer than 2 seconds" in ask(emulator, PLANTS, ENDLESS).json["hint"]
    assert 1.9 < time.monotonic() - begun < SOON


MEGABYTE = 10**6
LONG = {
    "spaces": " " * MEGABYTE,
    "parentheses": "(" * (MEGABYTE // 2) + ")" * (MEGABYTE // 2),
    "a sum": "1" + "+1" * (MEGABYTE // 2),
    "a number": "1" * MEGABYTE,
    "text outside ASCII": "'" + "🥕" * (MEGABYTE // 4),
}


@pytest.mark.parametrize("expression", LONG.values(), ids=LONG.keys())
def test_an_expression_of_a_megabyte_comes_to_an_end(
    evaluate: Callable[..., bytes], expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 0.7)
    begun, refusal = time.monotonic(), None
    try:
        found = evaluate(expression)
    except Refusal as error:
        refusal = error
    assert time.monotonic() - begun < SOON
    if refusal is None:
        json.loads(found)
    else:
        assert refusal.message == texts.WRONG_EXPRESSION
        assert len(refusal.hint) < 600


def test_a_long_expression_is_evaluated(emulator: RestedEmulator) -> None:
    expression = f"$length('{'x' * 200_000}')"
    assert result(ask(emulator, PLANTS, expression)) == "200000"


def test_an_expression_that_is_longer_than_any_url_costs_a_connection_and_no_more(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection, suppress(ConnectionError):
        connection.sendall(head("GET", at(PLANTS, f"jsonata='{'x' * MEGABYTE}'")))
        assert at_end(connection)
    assert result(ask(emulator, PLANTS, "1")) == "1"


def test_a_result_that_explodes_is_refused(emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 10.0)
    reply = ask(emulator, PLANTS, "$pad('x', 34000000)")
    assert_refusal(reply, 400, texts.WRONG_EXPRESSION)
    assert "it results in more than 32 MB" in reply.json["hint"]


def test_text_of_many_megabytes_is_still_a_result(emulator: RestedEmulator) -> None:
    assert len(result(ask(emulator, PLANTS, "$pad('x', 8000000)"))) == 8_000_002


# Many at once


def test_an_expression_needs_a_process_only_when_there_is_one_and_the_next_has_it_too(
    emulator: RestedEmulator, started: Started
) -> None:
    call(emulator.url(PLANTS))
    assert started() == set()
    ask(emulator, PLANTS, "1")
    first = started()
    assert len(first) == 1
    for expression in ("2", "a.(", DEEPER, "$error('x')", "3"):
        ask(emulator, PLANTS, expression)
    assert started() == first


def test_everyone_gets_the_answer_to_their_own_expression(emulator: RestedEmulator, started: Started) -> None:
    numbers = range(5 * EVALUATORS)
    with ExitStack() as stack:
        connections = [stack.enter_context(wire(emulator)) for _ in numbers]
        for number, connection in zip(numbers, connections, strict=True):
            connection.sendall(asking(f"$sum([1..{1000 * number}]) * 0 + {number}"))
        answers = [answer_on(connection).body for connection in connections]
    assert answers == [str(number).encode() for number in numbers]
    assert 1 < len(started()) <= EVALUATORS


def test_others_are_served_while_more_expressions_hang_than_there_are_processes(
    emulator: RestedEmulator, asked: Semaphore, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 60.0)
    with open_socket(emulator.ws_url(PLANTS)) as ear, running(emulator, asked, EVALUATORS + 2) as hanging:
        for count in range(4, 9):
            record = call(emulator.url(PLANTS), "POST", {"count": count}).json
            assert next_of(ear)["record"] == record
            assert len(call(emulator.url(PLANTS)).json) == count
        assert call(f"{emulator.facts['controlUrl']}/health").status == 200
        assert select.select(hanging, [], [], 0)[0] == []
        with wire(emulator) as patient:
            patient.sendall(asking("$count($)"))
            assert asked.acquire(timeout=10)
            for connection in hanging[:3]:  # who leaves makes room for the next
                connection.close()
            assert answer_on(patient).body == b"8"
    assert len(started()) <= EVALUATORS


def test_a_connection_gets_its_answers_in_order(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(asking("$sum([1..10000])") + head("GET", at(PLANTS, f"uniqueId={TOMATO}")) + asking("2"))
        assert answer_on(connection).body == b"50005000"
        assert answer_on(connection).json["uniqueId"] == TOMATO
        assert answer_on(connection).body == b"2"


def test_an_expression_over_a_connection_that_closes_after_it(emulator: RestedEmulator) -> None:
    with wire(emulator) as connection:
        connection.sendall(head("GET", at(PLANTS, "jsonata=$count($)"), "Connection: close"))
        assert answer_on(connection).body == b"3"
        assert at_end(connection)


def test_latency_comes_on_top() -> None:
    with RestedEmulator(data=GARDEN, latency=0.3) as emulator:
        begun = time.monotonic()
        assert result(ask(emulator, PLANTS, "$count($)")) == "3"
        assert time.monotonic() - begun > 0.3


# Clients and processes that go away


@pytest.mark.parametrize("expression", [HANGING, "$sum([1..300000])"], ids=["endless", "long"])
def test_a_client_that_leaves_does_no_harm(
    emulator: RestedEmulator,
    asked: Semaphore,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    expression: str,
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 1.0)
    ask(emulator, PLANTS, "1")
    assert asked.acquire(timeout=10)
    processes = started()
    with running(emulator, asked, EVALUATORS + 1, expression):
        pass
    for number in range(2 * EVALUATORS):
        assert result(ask(emulator, PLANTS, f"{number}")) == str(number)
    if expression == HANGING:
        assert all(ends(process) for process in processes)
    assert len(started()) <= EVALUATORS


def test_a_process_that_has_died_idle_costs_nobody_an_answer(emulator: RestedEmulator, started: Started) -> None:
    ask(emulator, PLANTS, "1")
    [process] = started()
    os.kill(process, signal.SIGKILL)
    assert ends(process)
    assert result(ask(emulator, PLANTS, "$count($)")) == "3"


def test_a_process_that_dies_at_work_is_a_failure_and_the_next_expression_has_another(
    emulator: RestedEmulator, asked: Semaphore, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 0.5)  # should it die before it begins, another does
    ask(emulator, PLANTS, "1")
    assert asked.acquire(timeout=10)
    [process] = started()
    with running(emulator, asked) as [connection]:
        os.kill(process, signal.SIGKILL)
        assert_refusal(answer_on(connection), 400, texts.WRONG_EXPRESSION)
    assert ends(process)
    assert result(ask(emulator, PLANTS, "$count($)")) == "3"


@pytest.mark.parametrize("program", ["/no/such/python", "/bin/false"])
def test_a_process_that_cannot_start_is_no_fault_of_the_expression(
    emulator: RestedEmulator, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with wire(emulator) as connection:
        connection.sendall(asking("1 + 1"))
        reply = answer_on(connection)
    assert_refusal(reply, 500, texts.BUG)
    assert program in reply.json["hint"]
    monkeypatch.undo()
    assert result(ask(emulator, PLANTS, "1 + 1")) == "2"


# Stopping


@pytest.mark.parametrize("count", [1, EVALUATORS + 2])
def test_a_stop_waits_for_no_expression_and_leaves_no_process(
    emulator: RestedEmulator, asked: Semaphore, started: Started, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(rested_emulator, "EVALUATION_SECONDS", 60.0)
    ask(emulator, PLANTS, "1")
    assert asked.acquire(timeout=10)
    with running(emulator, asked, count) as connections:
        begun = time.monotonic()
        emulator.stop()
        assert time.monotonic() - begun < SOON
        assert started() == set()
        for connection in connections:
            assert_refusal(answer_on(connection), 503, "The emulator stops.")


def test_a_stop_after_the_client_has_left_leaves_no_process(
    emulator: RestedEmulator, asked: Semaphore, started: Started
) -> None:
    ask(emulator, PLANTS, "1")
    assert asked.acquire(timeout=10)
    with running(emulator, asked):
        pass
    emulator.stop()
    assert started() == set()


def test_a_stop_with_idle_processes_leaves_none(emulator: RestedEmulator, started: Started) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(wire(emulator)) for _ in range(EVALUATORS)]
        for connection in connections:
            connection.sendall(asking("$sum([1..1000])"))
        for connection in connections:
            assert answer_on(connection).body == b"500500"
    assert started() != set()
    emulator.stop()
    assert started() == set()


def test_stops_amid_expressions_whose_clients_leave_lose_no_process(asked: Semaphore, started: Started) -> None:
    for number in range(12):
        with RestedEmulator(data=GARDEN) as emulator, running(emulator, asked, EVALUATORS) as connections:
            for connection in connections[number % (EVALUATORS + 1) :]:
                connection.close()
            emulator.status()  # by then it knows that they have left, and is ending their processes
            emulator.stop()
            assert started() == set()


# The emulator as a program, which says on stdout when it begins with an expression.
DRIVER = """
import os, sys
import rested_emulator

os.setsid()
really = rested_emulator.Evaluator.evaluate

async def evaluate(evaluator, expression, data):
    print("asked", flush=True)
    return await really(evaluator, expression, data)

rested_emulator.Evaluator.evaluate = evaluate
rested_emulator.EVALUATION_SECONDS = float(sys.argv[1])
sys.exit(rested_emulator.main(sys.argv[2:]))
"""


@contextmanager
def program(cwd: Path, seconds: float = 60) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the emulator in a process group of its own, with a limit for expressions; yields it and its port."""
    start = (sys.executable, "-c", DRIVER, str(seconds))
    words = (str(GARDEN), "--memory", "--quiet")
    with start_program(*words, cwd=cwd, start=start, PYTHONPATH=str(ROOT)) as process:
        yield process, json.loads(said(process))["port"]


def said(process: subprocess.Popen[str]) -> str:
    """The next line on stdout."""
    assert process.stdout
    return process.stdout.readline()


@contextmanager
def at_work(process: subprocess.Popen[str], port: int, count: int) -> Iterator[set[int]]:
    """Let a program evaluate endless expressions; yields the processes that do."""
    with ExitStack() as stack:
        for expression in ("1", *[HANGING] * count):
            address = "127.0.0.1", port
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(asking(expression))
            assert said(process) == "asked\n"
            if expression == "1":
                assert answer_on(connection).body == b"1"
        processes = children(process.pid)
        assert processes
        yield processes


@pytest.mark.parametrize(("number", "count"), [(signal.SIGTERM, EVALUATORS + 2), (signal.SIGINT, 0)])
def test_a_program_that_is_stopped_ends_with_0_and_takes_its_processes_along(
    tmp_path: Path, number: signal.Signals, count: int
) -> None:
    with program(tmp_path) as (process, port), at_work(process, port, count) as processes:
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - begun < SOON
        assert all(ends(child) for child in processes)
        _, errors = process.communicate(timeout=10)
        assert errors == ""


def test_a_ctrl_c_at_the_terminal_reaches_all_processes_and_ends_with_0(tmp_path: Path) -> None:
    with program(tmp_path) as (process, port), at_work(process, port, 1) as processes:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert all(ends(child) for child in processes)
        _, errors = process.communicate(timeout=10)
        assert errors == ""


@pytest.mark.parametrize("count", [0, 2])
def test_a_program_that_is_killed_leaves_no_process_behind(tmp_path: Path, count: int) -> None:
    with program(tmp_path, 0.5) as (process, port), at_work(process, port, count) as processes:
        process.kill()
        process.wait(timeout=10)
        assert all(ends(child) for child in processes)


# Only GET


def test_only_get_evaluates(emulator: RestedEmulator, asked: Semaphore, started: Started) -> None:
    for expression in ("a.(", "1", ENDLESS):
        created = ask(emulator, PLANTS, expression, method="POST", data={"a": 1})
        assert created.json["data"] == {"a": 1}
        unique_id = created.json["uniqueId"]
        updated = ask(emulator, PLANTS, expression, method="PUT", data={"a": 2}, uniqueId=unique_id)
        assert updated.json["data"] == {"a": 2}
        assert ask(emulator, PLANTS, expression, method="DELETE", uniqueId=unique_id).json == updated.json
        login = {"username": "ada", "password": "apricot"}
        assert ask(emulator, GARDENERS, expression, method="POST", data=login, login="true").json["uniqueId"] == ADA
        assert ask(emulator, PLANTS, expression, method="OPTIONS", headers={"Origin": PAGE}).status == 204
    assert not asked.acquire(blocking=False)
    assert started() == set()


def test_a_websocket_hears_messages_whatever_expression_it_brings(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS) + "&jsonata=1") as ear:
        record = call(emulator.url(PLANTS), "POST", "whole").json
        assert next_of(ear) == {"type": "POST", "record": record}


# Pages


@pytest.mark.parametrize(("expression", "status"), [("1", 200), ("a.(", 400), (DEEPER, 400)])
def test_a_page_may_read_the_result_and_why_there_is_none(things: RestedEmulator, expression: str, status: int) -> None:
    reply = ask(things, PLANTS, expression, headers={"Origin": PAGE})
    assert (reply.status, cors_of(reply)) == (status, CORS)


# What is installed, and what lies about


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as if the package was not there."""
    really = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "jsonata" else really(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.usefixtures("not_installed")
def test_without_the_package_it_is_a_501_that_says_how_to_install_it(
    emulator: RestedEmulator, started: Started
) -> None:
    for expression in ("1", "a.(", ""):
        reply = ask(emulator, PLANTS, expression, headers={"Origin": PAGE})
        assert_refusal(reply, 501, "A package is missing.")
        assert "pip install 'jsonata-python>=0.6,<0.8'" in reply.json["hint"]
        assert cors_of(reply) == CORS
    assert '"jsonata-python>=0.6,<0.8"' in (ROOT / "pyproject.toml").read_text()
    assert ask(emulator, PLANTS, "1", method="POST", data=1).status == 200
    assert call(emulator.url(PLANTS)).status == 200
    assert ask(emulator, DIARY, "1").status == 401
    assert started() == set()


def test_modules_in_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("json", "jsonata", "struct", "math"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}-sprung', 'w').close()\nraise SystemExit\n")
    (tmp_path / "jsonata").mkdir()
    command = [sys.executable, str(ROOT / "rested_emulator.py"), str(GARDEN), "--memory", "--port", "0", "--json", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            facts = json.loads(said(process))
            url = f"{facts['url']}/{PLANTS}?key={KEY}"
            assert call(url, jsonata="$count($)").body == b"3"
        finally:
            process.terminate()
    assert list(tmp_path.glob("*-sprung")) == []
    assert process.returncode == 0


# It is a thread of its own that starts the processes


def test_two_emulators_in_one_process_evaluate_side_by_side(started: Started) -> None:
    with RestedEmulator(data=GARDEN) as one, RestedEmulator(data=GARDEN) as other:
        call(one.url(PLANTS), "POST", {"name": "Leek"})
        assert result(ask(one, PLANTS, "$count($)")) == "4"
        assert result(ask(other, PLANTS, "$count($)")) == "3"
        assert len(started()) == 2
        one.stop()
        assert len(started()) == 1
        assert result(ask(other, PLANTS, "$count($)")) == "3"
