"""Command line and options: what a person types, what the program answers, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB

from rested_emulator import (
    LogStream,
    OptionError,
    Options,
    RestedEmulator,
    Server,
    __version__,
    banner,
    read_command_line,
)
from tests.conftest import GARDEN, GARDENERS, KEY, PLANTS, ROOT, need
from tests.wire import PROGRAM, banner_of, call, closing, open_socket, shown_in_log, start_program, until


@contextlib.contextmanager
def program(*arguments: str, **how: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the emulator as ``start_program`` does; yields the process and its ready line."""
    with start_program(*arguments, **how) as process:
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


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process behind, whatever a test finds."""
    try:
        yield
    finally:
        process.kill()
        process.communicate(timeout=10)


def program_after(code: str) -> tuple[str, ...]:
    """The words that run the emulator as a program, in a process that has run this code before."""
    *python, run = PROGRAM
    return (*python, f"import asyncio, enum, os, pathlib, shutil, signal, sys\n{code}\n{run}")


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


def test_the_banners_example_registers_somebody_new_at_every_start() -> None:
    lines = banner(Server(Options.of(data=ROOT / "sample_data" / "demo.json", memory=True))).splitlines()
    assert '{"username": "user-1", ' in next(line for line in lines if "curl" in line)  # there is an ada already


def test_the_banner_names_the_console(tmp_path: Path) -> None:
    assert shown_rows()["Console"] == "http://localhost:7378/"
    assert shown_rows(static=tmp_path)["Console"] == "http://localhost:7378/__emulator__/"
    assert "On the LAN" not in shown_rows()
    assert shown_rows(control_token="a+b&c")["Console"] == "http://localhost:7378/#token=a%2Bb%26c"


def test_the_banner_names_the_stage_of_the_demo_with_the_token(tmp_path: Path) -> None:
    assert "Stage" not in shown_rows(static=tmp_path)
    rows = shown_rows(static=ROOT / "sample_data" / "demo", control_token="a+b")
    assert rows["Stage"] == "http://localhost:7378/stage.html#token=a%2Bb"


@pytest.mark.parametrize(
    ("routed", "named", "shown"),
    [
        ("192.168.1.5", "192.168.1.7", "192.168.1.5"),
        (None, "192.168.1.7", "192.168.1.7"),
        (None, "127.0.1.1", None),
        (None, None, None),
    ],
    ids=["by the way out", "by the name", "a name that leads home", "no network"],
)
def test_the_banner_names_the_address_on_the_lan_with_the_token(
    monkeypatch: pytest.MonkeyPatch, routed: str | None, named: str | None, shown: str | None
) -> None:
    """It is found without a packet: a datagram socket that sends nothing knows what it would leave by."""

    def found(address: str | None) -> Callable[..., Any]:
        def find(*_: object) -> Any:
            if address is None:
                raise OSError("no network")
            return address

        return find

    class Probe(socket.socket):
        connect = found(routed)
        getsockname = staticmethod(lambda: (routed, 9))
        send = sendall = sendto = lambda *_: pytest.fail("a packet")

    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(socket, "gethostbyname", found(named))
    rows = shown_rows(host="0.0.0.0")
    token = rows["Console"].removeprefix("http://localhost:7378/#token=")
    assert len(token) == 32
    assert rows.get("On the LAN") == (f"http://{shown}:7378/#token={token}" if shown else None)
    assert "On the LAN" not in shown_rows(host="127.0.0.1")


# Ending


ENDINGS = [
    signal.SIGINT,
    signal.SIGTERM,
    *(getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)),
]


RARE_ENDINGS = [getattr(signal, name) for name in ("SIGALRM", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)]


@pytest.mark.parametrize("number", [*ENDINGS, *RARE_ENDINGS])
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


def test_a_hangup_that_was_ignored_at_the_start_is_ignored(tmp_path: Path) -> None:
    start = program_after("signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    with program("--memory", cwd=tmp_path, start=start) as (process, facts):
        process.send_signal(signal.SIGHUP)
        assert call(f"{facts['controlUrl']}/health").status == 200
        process.terminate()
        assert "stopping, by SIGTERM" in process.communicate(timeout=10)[1]


def test_ctrl_c_while_its_imports_run_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "tinydb.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    done = finish("--memory", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_ctrl_c_before_it_serves_ends_with_0(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [*PROGRAM, "--memory", "--reset-template", f"mail={pipe}"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with ended(process), pipe.open("w"):  # which waits until it is read
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 0


SHELL = "/bin/sh"
limited = pytest.mark.skipif(not os.path.exists(SHELL), reason="there is no shell with ulimit here")


def program_within(limits: str) -> tuple[str, ...]:
    """The words that run the emulator as a program, in a process that has these limits."""
    return SHELL, "-c", f'ulimit {limits}; exec "$@"', SHELL, *PROGRAM


@limited
def test_with_too_few_files_it_says_so_and_ends(tmp_path: Path) -> None:
    words = [*program_within("-n 127"), "--memory", "--port", "0"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "ulimit -n 1024" in done.stderr


@limited
def test_with_just_enough_files_it_serves_and_says_503_beyond(tmp_path: Path) -> None:
    with (
        program("--memory", cwd=tmp_path, start=program_within("-n 128")) as (process, facts),
        contextlib.ExitStack() as connections,
    ):
        last = None
        for _ in range(150):
            last = connections.enter_context(socket.create_connection(("127.0.0.1", facts["port"]), timeout=10))
        assert last
        assert last.recv(12) == b"HTTP/1.1 503"
        connections.close()
        until(lambda: call(f"{facts['controlUrl']}/health").status == 200)
        process.terminate()
        assert process.communicate(timeout=10)[1].count("\n") < 200


# With a command


def test_a_command_gets_the_facts_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    code = (
        "import os, sys, urllib.request as r;"
        "url = os.environ['RESTED_URL'] + '/examples/unsecure-endpoint?key=' + os.environ['RESTED_KEY'];"
        "print(url, 'RESTED_MASTER_KEY' in os.environ, r.urlopen(url).read().decode());"
        "sys.exit(7)"
    )
    done = finish("--memory", "--port", "0", "--", sys.executable, "-c", code, cwd=tmp_path)
    url, has_master_key, records = done.stdout.split()
    assert url.startswith("http://localhost:")
    assert (has_master_key, records) == ("False", "[]")
    assert done.returncode == 7
    assert "rested-emulator" in done.stderr, "the banner goes to stderr, stdout is the command's"


@pytest.mark.parametrize("command", [["--"], ["--", "no-such-program-anywhere"]])
def test_a_command_that_cannot_be_run_is_wrong_usage(tmp_path: Path, command: list[str]) -> None:
    done = finish("--memory", "--port", "0", *command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("rested-emulator: error: ")


ENDS = "import signal, sys, time; {}; print(1, flush=True); time.sleep(60)"
OBEYS = ENDS.format("signal.signal(signal.SIGINT, signal.SIG_DFL)")
# By no print, within which Python lets no other one begin: the signal may come before the first has returned.
TELLS = "lambda *_: os.write(1, b'2\\n')"
IGNORES = ENDS.format(f"[signal.signal(number, {TELLS}) for number in (1, 2, 3, 15)]")


@contextlib.contextmanager
def program_with(
    code: str, cwd: Path, *, start: tuple[str, ...] = PROGRAM, **streams: Any
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the emulator with a command in Python; yields its process, and that of the command once it runs."""
    code = f"import os; print(os.getpid(), flush=True); {code}"
    words = [*start, "--memory", "--port", "0", "-q", "--", sys.executable, "-c", code]
    streams = {"stderr": subprocess.DEVNULL} | streams
    process = subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, text=True, **streams)
    with ended(process):
        assert process.stdout
        command = int(process.stdout.readline())
        assert process.stdout.readline() == "1\n"
        try:
            yield process, command
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(command, signal.SIGKILL)


def is_running(process: int) -> bool:
    """Whether a process is there, and is no zombie that nobody has asked for yet."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc").exists()
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_goes_on_to_the_command(tmp_path: Path, number: signal.Signals) -> None:
    with program_with(OBEYS, tmp_path, stdin=subprocess.DEVNULL) as (process, command):
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
        assert not is_running(command)


TO_ANOTHER_THREAD = """
import asyncio, signal, sys, threading
from rested_emulator import catch_signals

async def wait(number):
    loop = asyncio.get_running_loop()
    ending = loop.create_future()
    catch_signals(lambda number, _: loop.call_soon_threadsafe(ending.set_result, number))
    sleeping = threading.Event()

    def send():
        sleeping.wait()
        signal.pthread_kill(threading.get_ident(), number)

    threading.Thread(target=send, daemon=True).start()
    loop.call_soon(sleeping.set)  # the thread goes on when the loop sleeps, for which it lets go of the interpreter
    print(int(await ending))

asyncio.run(wait(int(sys.argv[1])))
"""


def test_a_signal_that_comes_to_another_thread_wakes_the_loop() -> None:
    number = int(signal.SIGTERM)
    words = [sys.executable, "-c", TO_ANOTHER_THREAD, str(number)]
    assert subprocess.run(words, capture_output=True, text=True, timeout=10).stdout == f"{number}\n"


@pytest.mark.parametrize("number", ENDINGS[:2])
def test_a_second_signal_takes_the_command_along(tmp_path: Path, number: signal.Signals) -> None:
    with program_with(IGNORES, tmp_path, stdin=subprocess.DEVNULL) as (process, command):
        process.send_signal(number)
        assert process.stdout
        assert process.stdout.readline() == "2\n"  # signals of one kind might come as one
        process.send_signal(number)
        assert process.wait(timeout=5) == 128 + number
        until(lambda: not is_running(command))


A_HUNDRED_TIMES_AS_FAST = """
wait = asyncio.wait
asyncio.wait = lambda *what, timeout=None, **how: wait(*what, timeout=timeout and timeout / 100, **how)
"""


@pytest.mark.parametrize(
    ("system", "command", "ending"), [("posix", IGNORES, "SIGTERM"), ("nt", OBEYS, "SIGINT"), ("nt", OBEYS, "SIGTERM")]
)
def test_a_command_that_does_not_end_by_a_signal_is_killed(
    tmp_path: Path, system: str, command: str, ending: str
) -> None:
    """On Windows the console has told the command already, which therefore is sent nothing."""
    start = program_after(f"os.name = {system!r}{A_HUNDRED_TIMES_AS_FAST}")
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with program_with(command, tmp_path, start=start, **streams) as (process, _):
        process.send_signal(signal.Signals[ending])
        _, said = process.communicate(timeout=10)
        assert process.returncode == 128 + signal.SIGKILL
        assert f"{sys.executable} goes on 10 s after {ending}, and is killed" in said


TERMINAL = """
import os, sys
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)  # the first one that a session opens is its terminal
os.dup2(terminal, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(("typed", "code"), [(b"\x03", 1), (b"\x1c", 128 + signal.SIGQUIT)], ids=["Ctrl-C", "Ctrl-\\"])
def test_ctrl_c_at_a_terminal_ends_both_and_reaches_the_command_once(tmp_path: Path, typed: bytes, code: int) -> None:
    ours, theirs = os.openpty()
    start = (sys.executable, "-c", TERMINAL, os.ttyname(theirs), *PROGRAM)
    # Not print: the signal may come amid the other one, which is not reentrant.
    counting = ENDS.format("signal.signal(2, lambda *_: (os.write(1, b'int\\n'), sys.exit(1)))")
    with program_with(counting, tmp_path, start=start) as (process, command):
        os.write(ours, typed)
        said = process.communicate(timeout=10)[0]
        assert said == ("int\n" if code == 1 else "")
        assert process.returncode == code
        assert not is_running(command)
    os.close(ours)
    os.close(theirs)


def test_the_end_of_a_terminal_ends_both(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    start = (sys.executable, "-c", TERMINAL, os.ttyname(theirs), *PROGRAM)
    with program_with(OBEYS, tmp_path, start=start) as (process, command):
        os.close(theirs)
        os.close(ours)
        assert process.wait(timeout=10) == 128 + signal.SIGHUP
        assert not is_running(command)


def test_a_command_is_run_as_it_was_found(tmp_path: Path) -> None:
    """By its whole path: Windows finds npx.cmd by the name of npx only in a shell."""
    folder, name = os.path.split(sys.executable)
    words = ("--", name, "-c", "import sys; print(sys.orig_argv[0])")
    done = finish("--memory", "--port", "0", "-q", *words, cwd=tmp_path, PATH=folder)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)


THE_SIGNALS_OF_WINDOWS = """
signal.Signals = enum.IntEnum("Signals", {name: getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGABRT")})
asyncio.SelectorEventLoop.add_signal_handler = asyncio.AbstractEventLoop.add_signal_handler  # which raises
"""


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM"])
def test_no_signal_has_to_be_there_but_those_of_every_system(tmp_path: Path, ending: str) -> None:
    with program("--memory", cwd=tmp_path, start=program_after(THE_SIGNALS_OF_WINDOWS)) as (process, _):
        process.send_signal(signal.Signals[ending])
        assert f"stopping, by {ending}" in process.communicate(timeout=10)[1]
        assert process.returncode == 0


@limited
def test_a_full_disk_at_the_end_is_told_of_the_data_file_and_not_of_the_coverage(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    before = json.dumps(json.loads(GARDEN.read_text()) | {"garden/large": ["x" * 100_000]})
    data.write_text(before)
    start = program_within("-f 64")  # what is larger than 32 KiB cannot be written
    with program(str(data), "--coverage", "met.md", cwd=tmp_path, start=start) as (process, facts):
        assert call(f"{facts['url']}/{PLANTS}?key={KEY}", "POST", {"name": "Leek"}).status == 200
        process.terminate()
        said = process.communicate(timeout=10)[1]
        assert process.returncode == 1
        assert "the data file could not be saved, the journal beside it has what is new: [Errno 27]" in said
    assert data.read_text() == before


FULL = "/dev/full"


@pytest.mark.skipif(not os.path.exists(FULL), reason="there is no file here that is always full")
def test_a_full_disk_at_the_end_is_told_of_the_coverage_where_that_is_written(tmp_path: Path) -> None:
    done = finish("--memory", "--port", "0", "--coverage", FULL, "--", sys.executable, "-c", "", cwd=tmp_path)
    assert done.returncode == 1
    assert f"the coverage could not be written: [Errno 28] No space left on device: '{FULL}'" in done.stderr


def test_with_parent_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdout=1); sys.stdin.read()"
    words = [*PROGRAM, "data.json", "--port", "0", "--json", "--with-parent"]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with ended(parent):
        assert parent.stdout
        facts = json.loads(parent.stdout.readline())
        assert call(f"{facts['url']}/examples/unsecure-endpoint?key={facts['key']}", "POST", "kept").status == 200
        parent.kill()
        assert parent.stderr
        assert f"process {parent.pid}, which has started this one, has ended" in parent.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert "kept" in (tmp_path / "data.json").read_text()


# What a terminal is shown


RED = "\x1b[31m"


def test_the_banner_shows_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    folder = tmp_path / f"{RED}\n\x9b2J"
    folder.mkdir()
    server = Server(Options.of(data=folder / "data.json", key="a#b'c"))
    text = banner(server)
    server.close()
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b[31m\n\x9b2J" in text
    assert "?key=a%23b%27c'" in text
    assert "  Key           a#b'c\n" in text


def test_a_terminal_is_shown_no_option_raw(tmp_path: Path) -> None:
    for arguments in (["a", RED], ["--port", RED], ["--host", f"\x9b{RED}"], ["--memory", "--", f"{RED}\u202e"]):
        done = finish(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert all(line.isprintable() for line in done.stderr.split("\n")), arguments


def test_a_line_that_is_told_waits_with_others_and_others_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    stream = LogStream()
    stream.tell(logging.INFO, "first")
    assert (stream._lines, caplog.messages) == ([], ["first"])
    stream._lines.append("12:00:00 first")
    stream.tell(logging.INFO, "GET /\x07%s 200")
    assert stream._lines[1:] == ["12:00:00 GET /\\x07%s 200"]
    stream.tell(logging.INFO, "x" * 5000)
    assert (len(stream._lines), caplog.messages[1:]) == (2, ["x" * 5000])


def shown_line(level: int, text: str) -> str:
    """A line as the program's log writes it, without the time."""
    return shown_in_log(logging.LogRecord("x", level, "", 0, text, None, None))[len("12:00:00 ") :]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("level", "text", "colour"),
    [
        (logging.INFO, "GET /api/1/ce/notes/open 200", ""),
        (logging.INFO, "GET /api/1/ce/404/500 200 404 500", ""),
        (logging.INFO, "push POST notes/open 404 to 1", ""),
        (logging.INFO, "close notes/open: 1000 Access token expired.", ""),
        (logging.INFO, "GET /api/1/ce/notes/open 401 No Access token or invalid.", RED),
        (logging.INFO, "DELETE /api/1/ce/notes/open 503", RED),
        (logging.INFO, "open notes/open refused: 4000 Origin not allowed.", RED),
        (logging.INFO, "open /api/1/ce/notes/open refused: 403 Host", RED),
        (logging.WARNING, "GET /api/1/ce/notes/open 200 did you mean", "\x1b[33m"),
        (logging.ERROR, "GET / failed", RED),
    ],
)
def test_a_terminal_shows_refusals_and_warnings_in_colours(
    monkeypatch: pytest.MonkeyPatch, level: int, text: str, colour: str
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown_line(level, text) == (f"{colour}{text}\x1b[0m" if colour else text)


@pytest.mark.parametrize(
    ("stream", "system", "environment", "has_colours"),
    [
        (Terminal, "posix", {}, True),
        (Terminal, "posix", {"NO_COLOR": ""}, True),  # which is as if it was not set, says no-color.org
        (Terminal, "posix", {"NO_COLOR": "1"}, False),
        (Terminal, "posix", {"TERM": "dumb"}, False),
        (io.StringIO, "posix", {}, False),
        (lambda: None, "posix", {}, False),
        (Terminal, "nt", {}, False),
        (Terminal, "nt", {"WT_SESSION": "a-terminal"}, True),
        (Terminal, "nt", {"WT_SESSION": "a-terminal", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_that_are_known_to_show_them(
    monkeypatch: pytest.MonkeyPatch,
    stream: Callable[[], Any],
    system: str,
    environment: dict[str, str],
    has_colours: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    for name in ("NO_COLOR", "TERM", "WT_SESSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        line = shown_line(logging.WARNING, "ill")
    assert line == ("\x1b[33mill\x1b[0m" if has_colours else "ill")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_log_of_a_program_is_coloured_on_a_terminal_alone(tmp_path: Path, is_terminal: bool) -> None:
    ours, theirs = os.openpty() if is_terminal else os.pipe()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [*PROGRAM, "--memory", "--port", "0", "--json"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True,
    )  # fmt: skip
    os.close(theirs)
    with ended(process):
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        # Two at once, so that the second line waits with the first.
        with ThreadPoolExecutor() as pool:
            list(pool.map(call, [f"{facts['url']}/secure-endpoint?key={facts['key']}"] * 2))
        process.terminate()
        said = b""
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            while part := os.read(ours, 2**16):
                said += part
    os.close(ours)
    lines = [line for line in said.decode().splitlines() if "GET" in line]
    shape = (
        r"\d\d:\d\d:\d\d \x1b\[31mGET .* 401 .*\x1b\[0m" if is_terminal else r"\d\d:\d\d:\d\d GET [^\x1b]* 401 [^\x1b]*"
    )
    assert [bool(re.fullmatch(shape, line)) for line in lines] == [True, True], lines


# With an open console


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of requests and sockets that the log has without --verbose."""
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    caplog.clear()
    return [text for text in texts if re.match(r"[A-Z]+ /|open |close |push ", text)]


def test_the_log_leaves_out_what_an_open_console_asks_by_itself(
    emulator: RestedEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    control = str(emulator.facts["controlUrl"])
    console: dict[str, Any] = {"from": "console"}
    here = control.removesuffix("__emulator__")
    for name in ("", "main.js", "console.css", "__emulator__/", "__emulator__/main.js"):
        assert call(f"{here}{name}").status == 200
    for verb in ("status", "listeners?from=console", "faults", "mails", "recoveries"):
        assert call(f"{control}/{verb}").status == 200
    wait = json.dumps({"requests": {"since": 0, "from": "console"}, "timeout": 0.01}, separators=(",", ":")).encode()
    kind = {"Content-Type": "application/json"}
    assert call(f"{control}/wait", "POST", body=wait, headers=kind).status == 408
    assert call(emulator.url(PLANTS), **console).status == 200
    assert call(f"{control}/wait", "POST", body=wait, headers=kind).status == 200
    with open_socket(f"{emulator.ws_url(PLANTS)}&from=console"):
        pass
    with open_socket(f"{emulator.ws_url(PLANTS)}&from=console") as listener:
        emulator.close_listeners()
        closing(listener)
    assert told(caplog) == []
    # What a person does with it, what is refused, and what others ask, is told.
    call(emulator.url(PLANTS), "POST", {"name": "Leek"}, **console)
    call(f"{control}/nothing")
    call(f"{control}/wait", "POST", {"requests": {}, "timeout": 0})
    call(f"{here}main.js", headers={"Host": "evil.example"})
    call(emulator.url(GARDENERS), **console)
    call(emulator.url(PLANTS))
    assert [" ".join(line.split()[:3]) for line in told(caplog)] == [
        f"POST /api/1/ce/{PLANTS} 200",
        "GET /__emulator__/nothing 404",
        "POST /__emulator__/wait 408",
        "GET /main.js 403",
        f"GET /api/1/ce/{GARDENERS} 401",
        f"GET /api/1/ce/{PLANTS} 200",
    ]


def test_a_trace_in_the_log_is_escaped_too() -> None:
    try:
        raise ValueError(RED)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, f"é{RED}", None, sys.exc_info())
    text = shown_in_log(record)
    assert all(line.isprintable() for line in text.split("\n"))
    assert re.search(r"é\\x1b\[31m\nTraceback", text)


def tried(text: str) -> list[str]:
    """The words of the line that a banner has to try; here and in cmd.exe they are the same where there are no \\."""
    return shlex.split(text.split("  Try\n")[1].splitlines()[0])


@pytest.mark.parametrize("system", ["posix", "nt"])
@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, "examples/unsecure-endpoint"),
        ({"endpoint": ["my-app/notes"]}, "my-app/notes"),
        ({"secure": ["my-app/diary"], "endpoint": ["my-app/notes"], "auth": ["my-app/users"]}, "my-app/notes"),
        ({"secure": ["my-app/diary"], "auth": ["my-app/users"]}, "my-app/users"),
        ({"secure": ["my-app/diary"]}, "examples/unsecure-endpoint"),
        ({"data": GARDEN}, PLANTS),
    ],
)
def test_ones_own_endpoints_stand_first_and_one_of_them_is_tried(
    monkeypatch: pytest.MonkeyPatch, system: str, options: dict[str, Any], first: str
) -> None:
    with RestedEmulator(**options) as emulator:
        monkeypatch.setattr(os, "name", system)
        text = banner_of(emulator)
        monkeypatch.undo()
        names = [line.split()[0] for line in text.split("  Endpoints\n")[1].split("\n\n")[0].splitlines()]
        own = [name for name in names if name not in ("secure-endpoint", "examples/auth", "examples/unsecure-endpoint")]
        assert names[: len(own)] == own
        program, url, _, header, _, body = tried(text)
        if system == "nt":  # between double quotes cmd.exe and PowerShell agree on what has none of these
            assert not any(set(part) & set("$`\\^!'") for part in text.split("  Try\n")[1].split('"')[1:6])
            if first == "my-app/users":
                first = "examples/unsecure-endpoint"  # for there is no quoting a user's JSON there
        assert (program, url.partition("?")[0]) == (
            "curl.exe" if system == "nt" else "curl",
            f"{emulator.facts['url']}/{first}",
        )
        sent = call(url, "POST", body=body.encode(), headers=dict([header.split(": ")]))
        assert (sent.status, sent.json["data"]) == (200, json.loads(body))


def test_the_line_to_try_has_the_key_of_its_own_project(tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    tables = {"_projects": {"a": {"name": "first"}, "b'&c": {"name": "second"}}}
    path.write_text(json.dumps(tables | {"_endpoints": {"notes/open": {"project": "b'&c"}}}))
    with RestedEmulator(data=path) as emulator:
        assert tried(banner_of(emulator))[1].endswith("/notes/open?key=b%27%26c")


@pytest.mark.parametrize("option", ["endpoint", "auth"])
def test_the_line_to_try_works_when_it_is_pasted(option: str) -> None:
    [shell, _] = need("sh", "curl")
    with RestedEmulator(**{option: ["my-app/things"]}) as emulator:
        line = banner_of(emulator).split("  Try\n")[1].splitlines()[0]
        done = subprocess.run([shell, "-c", line], capture_output=True, text=True, timeout=20, check=True)
        assert [record["uniqueId"] for record in emulator.records("my-app/things")] == [
            json.loads(done.stdout)["uniqueId"]
        ]


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
        (["--allow-origin", "*"], "--allow-origin", "name none to allow every one"),
        (["--allow-host", "http://box"], "--allow-host", "host name"),
        (["--allow-host", "*"], "--allow-host", "host name"),
        (["--key", ""], "--key", "is empty"),
        (["--key", " k"], "--key", "white space around it"),
        (["--master-key", "k\n"], "--master-key", "white space around it"),
        (["--fork-keys", "test-*\t"], "--fork-keys", "white space around it"),
        (["--control-token", "a b"], "--control-token", "without spaces"),
        (["--static", "nowhere"], "--static", "'nowhere'"),
        (["--no-such-option"], "--no-such-option", "--help shows all options"),
        (["--mem"], "--mem", "unrecognized"),
        (["--portt", "80"], "--portt", "did you mean --port?"),
        (["--verison"], "--verison", "did you mean --version?"),
        (["--others-can", "read"], "--others-can", "WHAT:NAME"),
        (["--end-point=my-app/cars"], "--end-point", "did you mean --endpoint?"),
        (["one.json", "two.json"], "two.json", "a command to run stands behind --"),
        (["--data", "one.json"], "--data", "named without an option"),
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


def test_a_broken_data_file_is_left_alone(tmp_path: Path) -> None:
    data, content = tmp_path / "broken.json", '{"notes/open": {"a": {"data": 1}}, }'
    data.write_text(content)
    done = finish("broken.json", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "broken.json: line 1 column 34: not JSON: a trailing comma" in done.stderr
    assert data.read_text() == content
    assert list(tmp_path.iterdir()) == [data]


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seed", "gone.json"], "gone.json: No such file or directory"),
        (["--cert-key", "key.pem"], "argument --cert-key: there is no --cert to go with it"),
    ],
)
def test_what_only_the_start_finds_wrong_is_named(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = finish("--memory", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"rested-emulator: error: {told}\n")


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
    assert len(read_command_line([], {"RESTED_EMULATOR_FAULT": f"{text},\n"})[0].fault) == 2


@pytest.mark.parametrize("text", ["notes/one,notes/two,", " notes/one , , notes/two, ", ",notes/one,\nnotes/two,\n"])
def test_an_empty_value_of_an_environment_list_is_passed_over(text: str) -> None:
    assert read_command_line([], {"RESTED_EMULATOR_SECURE": text})[0].secure == ("notes/one", "notes/two")


def test_a_wrong_environment_variable_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_command_line([], {"RESTED_EMULATOR_QUIET": "perhaps"})
    assert "RESTED_EMULATOR_QUIET: 'perhaps' is neither true nor false" in capsys.readouterr().err


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    words = "--memory", "--port", "0", "--", sys.executable, "-c", ""
    done = finish(*words, cwd=tmp_path, RESTED_EMULATOR_TOKENTTL="5m", RESTED_EMULATOR_TEST_BROWSER="required")
    assert done.returncode == 0
    told = "environment RESTED_EMULATOR_TOKENTTL counts for nothing; did you mean RESTED_EMULATOR_TOKEN_TTL?"
    assert done.stderr.count("counts for nothing") == done.stderr.count(told) == 1


def test_every_option_has_a_twin_in_the_environment() -> None:
    texts = {"port": "0", "others_can": "read:notes/x", "allow_origin": "http://a.example", "allow_host": "box"}
    texts |= dict.fromkeys(("latency", "token_ttl", "expire_tokens_after", "change_options_after"), "1s")
    texts |= {"max_body": "1KB", "reset_template": "welcome=mail.html", "static": "."}
    texts |= {"set_time": "2030-01-01", "fault": '{"kind": "cut"}'}
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
        ({"secure": 5}, "secure: 5 is not a text"),
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


def test_help_has_every_option_in_the_group_that_it_names(help_at: Callable[[int], str]) -> None:
    shown: dict[str, list[str]] = {}
    for title, text in re.findall(r"^([\w ]+):\n((?:  .*\n)+)", help_at(80), re.MULTILINE):
        shown[title] = re.findall(r"^  (?:-\w(?: \w+)?, --|--|)([\w-]+)", text, re.MULTILINE)
    del shown["Examples"]
    assert list(shown) == ["data", "endpoints", "access", "time", "trouble", "serving", "in CI", "about"]
    assert shown.pop("about") == ["help", "version"]
    wanted: dict[str, list[str]] = {}
    group = ""
    for item in dataclasses.fields(Options):
        name = "DATA" if item.name == "data" else item.name.replace("_", "-")
        group = item.metadata["group"] or group
        wanted.setdefault(group, []).append(name)
    assert shown == wanted


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(help_at: Callable[[int], str], columns: int) -> None:
    assert [line for line in help_at(columns).splitlines() if len(line) > columns] == []


def test_help_ends_with_three_examples_that_are_understood(
    help_at: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    _, _, examples = help_at(80).partition("Examples:\n")
    commands = re.findall(r"^    rested-emulator (.+)", examples, re.MULTILINE)
    app, slow, run = (read_command_line(shlex.split(words), {}) for words in commands)
    assert (app[0].auth, app[0].secure, app[0].static) == (("my-app/users",), ("my-app/notes",), "dist")
    assert (slow[0].token_ttl, slow[0].latency) == (30, (0.2, 2))
    assert (run[0].memory, run[0].seed, run[1]) == (True, "seed.json", ["npx", "playwright", "test"])
