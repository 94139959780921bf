"""Command line and options: what a person types, what the program answers, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB

from rested_emulator import (
    OptionError,
    Options,
    Server,
    __version__,
    banner,
    build_parser,
    lan_address,
    read_command_line,
)
from tests.conftest import GARDEN, KEY, PLANTS
from tests.wire import PROGRAM, call, closing, open_socket, start_program


@contextlib.contextmanager
def program(*arguments: str, cwd: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the emulator as a program on a free port; yields the process and its ready line."""
    with start_program(*arguments, cwd=cwd, **environment) as process:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=10)[1])
        yield process, json.loads(line)


def finish(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the emulator with arguments that end it by themselves."""
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=20
    )


# Starting


def test_without_arguments_it_serves_the_sample_project(tmp_path: Path) -> None:
    with program(cwd=tmp_path) as (_, facts):
        url = f"{facts['url']}/examples/unsecure-endpoint?key=d59eb2859c284168ac48aef65046d5dd"
        assert call(url, "POST", {"a": 1}).json["data"] == {"a": 1}
        assert (tmp_path / "rested-db.json").exists()


def test_the_ready_line_has_all_facts(tmp_path: Path) -> None:
    with program(str(GARDEN), "--memory", cwd=tmp_path) as (process, facts):
        port = facts["port"]
        assert facts == {
            "url": f"http://localhost:{port}/api/1/ce",
            "wsUrl": f"ws://localhost:{port}/api/1/ce",
            "host": f"localhost:{port}",
            "port": port,
            "key": KEY,
            "masterKey": "d0c5b1e29a7f4c6e8b3a54f9027e61dc",
            "controlUrl": f"http://localhost:{port}/__emulator__",
            "controlToken": None,
            "pid": process.pid,
            "data": None,
            "ca": None,
        }


def test_localhost_means_both_families(tmp_path: Path) -> None:
    with program("--memory", cwd=tmp_path) as (_, facts):
        for address in ("127.0.0.1", "[::1]"):
            assert call(f"http://{address}:{facts['port']}/__emulator__/health").json["ready"] is True


def test_the_banner_shows_urls_key_and_endpoints(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, str(GARDEN), "--memory", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate(timeout=10)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=10)
    shown = "".join(lines)
    assert __version__ in shown
    assert KEY in shown
    assert "http://localhost:" in shown
    assert "garden/chores     secure, others can read, 3 records" in shown
    assert "127.0.0.1" not in shown, "page and emulator must share the host name, or cookies get lost"
    assert rest.strip() == "", "nothing but the banner goes to stdout"


def shown_rows(**options: Any) -> dict[str, str]:
    """The rows of the banner, by name."""
    server = Server(Options.of(memory=True, **options))
    server.port = 7378
    lines = [line.strip() for line in banner(server).splitlines()]
    return {line[:14].strip(): line[14:] for line in lines if line[14:].startswith(("http", "ws"))}


def test_the_banner_names_the_console(tmp_path: Path) -> None:
    assert shown_rows()["Console"] == "http://localhost:7378/"
    assert shown_rows(static=tmp_path)["Console"] == "http://localhost:7378/__emulator__/"
    assert "On the LAN" not in shown_rows()


def test_the_banner_names_the_address_on_the_lan_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rested_emulator.lan_address", lambda: "192.168.1.5")
    rows = shown_rows(host="0.0.0.0")
    token = rows["Console"].removeprefix("http://localhost:7378/#token=")
    assert len(token) == 32
    assert rows["On the LAN"] == f"http://192.168.1.5:7378/#token={token}"
    assert "On the LAN" not in shown_rows(host="127.0.0.1")


def test_the_address_on_the_lan_is_found_without_a_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(socket.socket):
        def sendto(self, *_: Any) -> int:
            raise AssertionError("a packet")

        send = sendall = sendto  # type: ignore[assignment]

    monkeypatch.setattr(socket, "socket", Probe)
    address = lan_address()
    assert address is None or not address.startswith("127.")
    monkeypatch.setattr(Probe, "connect", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "192.168.1.7")
    assert lan_address() == "192.168.1.7"


# Ending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_data_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with program(cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/examples/unsecure-endpoint?key={facts['key']}"
        unique_id = call(url, "POST", {"kept": True}).json["uniqueId"]
        with open_socket(url.replace("http", "ws")) as listener:
            process.send_signal(number)
            assert closing(listener)[0] == 1001
        assert process.wait(timeout=10) == 0
    with TinyDB(tmp_path / "rested-db.json") as database:
        [record] = database.storage.read()["examples/unsecure-endpoint"].items()
    assert record[0] == unique_id
    assert record[1]["data"] == {"kept": True}


def test_memory_leaves_no_file_and_the_data_as_it_was(tmp_path: Path) -> None:
    data = tmp_path / "garden.json"
    data.write_bytes(GARDEN.read_bytes())
    with program("garden.json", "--memory", cwd=tmp_path) as (process, facts):
        call(f"{facts['url']}/{PLANTS}?key={KEY}", "POST", {"name": "Leek"})
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["garden.json"]
    assert data.read_bytes() == GARDEN.read_bytes()


def test_a_second_start_goes_on_where_the_first_one_ended(tmp_path: Path) -> None:
    for count in (1, 2):
        with program(cwd=tmp_path) as (process, facts):
            url = f"{facts['url']}/examples/unsecure-endpoint?key={facts['key']}"
            call(url, "POST", count)
            assert [record["data"] for record in call(url).json] == list(range(1, count + 1))
            process.terminate()
            process.wait(timeout=10)


# With a command


def test_a_command_gets_the_facts_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['RESTED_URL'], 'RESTED_MASTER_KEY' in os.environ); sys.exit(7)"
    done = finish("--memory", "--port", "0", "--", sys.executable, "-c", code, cwd=tmp_path)
    url, has_master_key = done.stdout.split()
    assert url.startswith("http://localhost:")
    assert has_master_key == "False"
    assert done.returncode == 7
    assert "rested-emulator" in done.stderr, "the banner goes to stderr, stdout is the command's"


def test_a_command_can_use_the_emulator(tmp_path: Path) -> None:
    code = (
        "import os, urllib.request as r;"
        "url = os.environ['RESTED_URL'] + '/examples/unsecure-endpoint?key=' + os.environ['RESTED_KEY'];"
        "print(r.urlopen(url).read().decode())"
    )
    done = finish("--memory", "--port", "0", "-q", "--", sys.executable, "-c", code, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0)


@pytest.mark.parametrize("command", [["--"], ["--", "no-such-program-anywhere"]])
def test_a_command_that_cannot_be_run_is_wrong_usage(tmp_path: Path, command: list[str]) -> None:
    done = finish("--memory", "--port", "0", *command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("rested-emulator: error: ")


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "named", "accepted"),
    [
        (["--port", "seventy"], "--port", "0 to 65535"),
        (["--port", "65536"], "--port", "0 to 65535"),
        (["--token-ttl", "-1"], "--token-ttl", "10s, 5m or 1h"),
        (["--token-ttl", "0"], "--token-ttl", "10s, 5m or 1h"),
        (["--token-ttl", "NaN"], "--token-ttl", "10s, 5m or 1h"),
        (["--latency", "2s-1s"], "--latency", "100ms-2s"),
        (["--latency", "-1"], "--latency", "500ms"),
        (["--max-body", "lots"], "--max-body", "100KB or 1MB"),
        (["--endpoint", "Notes"], "--endpoint", "a-z, 0-9, - and /"),
        (["--secure", "no"], "--secure", "5 to 254"),
        (["--others-can", "eat:notes/x"], "--others-can", "read, update or delete"),
        (["--allow-origin", "localhost:3000"], "--allow-origin", "http:// or https://"),
        (["--allow-host", "http://box"], "--allow-host", "host name"),
        (["--key", ""], "--key", "is empty"),
        (["--no-such-option"], "--no-such-option", "unrecognized"),
        (["--mem"], "--mem", "unrecognized"),
        (["one.json", "two.json"], "two.json", "unrecognized"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_accepts(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str, accepted: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_command_line(["--memory", *arguments], {})
    message = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert named in message
    assert accepted in message


def test_a_taken_port_is_named_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = finish("--memory", "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert port in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("", 1, "line 1 column 1"),
        ('{"notes/open": {"a": {"data": 1}}, }', 1, "line 1 column 34: not JSON: a trailing comma"),
        (
            '{"notes/open": {"a": {"data": 1}, "a": {"data": 2}}}',
            1,
            "line 1 column 35: table 'notes/open', 'a'",
        ),
        ('{"notes/open": {"a": 1}}', 1, "table 'notes/open', 'a': not an object"),
        ("[]", 1, "the file: not an object"),
    ],
)
def test_a_broken_data_file_is_left_alone(tmp_path: Path, content: str, code: int, said: str) -> None:
    data = tmp_path / "broken.json"
    data.write_text(content)
    done = finish("broken.json", cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert "broken.json" in done.stderr
    assert said in done.stderr
    assert data.read_text() == content


def test_records_that_are_no_users_are_named_where_an_option_makes_them_users(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text('{"notes/open": {"a1": {"data": "text"}}}')
    before = data.read_text()
    done = finish("data.json", "--auth", "notes/open", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'notes/open' cannot be an authentication endpoint: table 'notes/open', 'a1': a user is an" in done.stderr
    assert data.read_text() == before
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("path", ["no/such/folder/db.json", ".", "pipe"])
def test_a_data_file_that_cannot_be_had_ends_with_2(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = finish(path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert path in done.stderr


def test_a_missing_seed_is_named(tmp_path: Path) -> None:
    done = finish("--memory", "--seed", "gone.json", cwd=tmp_path)
    assert (done.returncode, "gone.json" in done.stderr) == (2, True)


# Options


def test_the_command_line_beats_the_environment_beats_the_default() -> None:
    environment = {"RESTED_EMULATOR_PORT": "1111", "RESTED_EMULATOR_TOKEN_TTL": "5m", "RESTED_EMULATOR_MEMORY": "yes"}
    options, _ = read_command_line(["--port", "2222"], environment)
    assert (options.port, options.token_ttl, options.memory, options.host) == (2222, 300.0, True, "localhost")


def test_the_environment_gives_several_values_with_commas() -> None:
    options, _ = read_command_line([], {"RESTED_EMULATOR_SECURE": "notes/one, notes/two", "RESTED_EMULATOR_KEY": ""})
    assert (options.secure, options.key) == (("notes/one", "notes/two"), None)
    text = '{"kind": "delay", "seconds": 2}, {"kind": "cut"}'
    assert len(read_command_line([], {"RESTED_EMULATOR_FAULT": text})[0].fault) == 2


def test_a_wrong_environment_variable_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_command_line([], {"RESTED_EMULATOR_QUIET": "perhaps"})
    assert "RESTED_EMULATOR_QUIET: 'perhaps' is neither true nor false" in capsys.readouterr().err


def test_every_option_has_a_twin_in_the_environment() -> None:
    texts = {"port": "0", "others_can": "read:notes/x", "allow_origin": "http://a.example", "allow_host": "box"}
    texts |= dict.fromkeys(("latency", "token_ttl", "expire_tokens_after", "change_options_after"), "1s")
    texts |= {"max_body": "1KB", "reset_template": "welcome=mail.html", "static": "."}
    texts |= {"set_time": "2030-01-01", "fault": '{"kind": "cut"}', "coverage_fail_under": "80"}
    for item in dataclasses.fields(Options):
        text = texts.get(item.name, "true" if item.default is False else "notes/x")
        options, _ = read_command_line([], {f"RESTED_EMULATOR_{item.name.upper()}": text})
        assert getattr(options, item.name) != item.default or item.name == "port", item.name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"secur": ["notes/x"]}, "unknown option secur"),
        ({"token_ttl": -5}, "token_ttl: -5 is no duration"),
        ({"token_ttl": True}, "token_ttl: True is no duration"),
        ({"port": "http"}, "port: 'http' is no port"),
        ({"secure": 5}, "secure: "),
        ({"latency": "slow"}, "latency: 'slow' is no duration"),
        ({"memory": "maybe"}, "memory: 'maybe' is neither true nor false"),
    ],
)
def test_a_wrong_option_in_python_raises_option_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as raised:
        Options.of(**given)
    assert said in str(raised.value).replace("'-5'", "-5").replace("'True'", "True")


def test_options_take_values_as_well_as_their_texts() -> None:
    options = Options.of(data=GARDEN, token_ttl=90, latency=(0.1, 0.2), secure="notes/one", max_body="2KB")
    assert options == Options(
        data=str(GARDEN), token_ttl=90.0, latency=(0.1, 0.2), secure=("notes/one",), max_body=2000
    )


def test_help_names_every_option() -> None:
    text = build_parser().format_help()
    missing = [item.name for item in dataclasses.fields(Options) if item.name.replace("_", "-") not in text.lower()]
    assert missing == []
