"""Files, disk and process on the real thing: a disk that is full, folders that may not be written, signals, pipes.

What can be had only by root is skipped elsewhere, with its reason.

What goes wrong there, and who holds it, here and in other files:

SIGKILL under load:
    test_crash.py::test_nothing_acknowledged_is_lost_by_a_kill
    test_journal.py::test_what_was_done_before_a_kill_is_there_after_and_the_data_file_is_whole
    test_journal.py::test_a_kill_at_any_byte_of_the_last_line_takes_that_verb_alone
    test_sequences.py::test_every_sequence_of_verbs_does_what_the_model_says
truncated at any byte, garbage tail, NUL-filled, zero length, BOM, root a list, wrong inner types:
    test_disk.py::test_a_file_of_the_emulators_own_that_was_cut_off_anywhere_is_refused
    test_disk.py::test_garbage_behind_a_file_of_the_emulators_own_is_refused
    test_store.py::test_a_file_cut_off_anywhere_is_refused
    test_store.py::test_a_broken_file_is_refused_with_name_and_place_and_left_alone
    test_command_line.py::test_a_broken_data_file_is_left_alone
    test_journal.py::test_any_other_line_stops_the_start_and_changes_nothing
read-only file or folder, folder missing, path a directory, FIFO, symlink:
    test_disk.py::test_what_may_not_be_written_ends_the_start_with_2
    test_disk.py::test_a_path_that_leads_nowhere_ends_with_2
    test_disk.py::test_a_link_to_a_file_that_is_not_there_yet_makes_that_file
    test_command_line.py::test_a_data_file_that_cannot_be_had_ends_with_2
    test_store.py::test_a_symlink_is_followed_and_stays
full or read-only while running:
    test_disk.py::test_on_a_full_disk_writing_is_a_507_reading_goes_on_and_it_recovers
    test_disk.py::test_a_disk_that_is_full_at_the_end_keeps_all_in_the_journal
    test_disk.py::test_a_start_on_a_full_disk_changes_nothing
    test_disk.py::test_a_journal_that_may_not_grow_takes_nothing_and_recovers
    test_disk.py::test_a_folder_that_becomes_read_only_is_a_507_until_it_is_not
    test_journal.py::test_a_change_the_disk_refuses_is_none
    test_journal.py::test_a_vanished_folder_answers_507_and_is_well_again_when_it_is_back
two emulators on one file:
    test_journal.py::test_a_second_emulator_on_the_same_file_is_refused
    test_journal.py::test_a_lock_left_by_a_kill_is_no_lock
    test_journal.py::test_of_two_that_race_for_a_data_file_one_has_it
    test_crash.py::test_of_two_programs_that_race_for_a_data_file_one_has_it
a data file that is a mount point:
    test_disk.py::test_a_data_file_that_is_a_mount_point_keeps_all
    test_disk.py::test_a_mounted_data_file_that_is_replaced_outside_is_told_and_loses_nothing
    test_crash.py::test_a_kill_while_the_data_file_is_written_in_place_leaves_a_whole_one
    test_journal.py::test_a_kill_at_any_byte_of_writing_in_place_leaves_the_old_or_the_new
a journal beside another data file:
    test_journal.py::test_a_journal_of_another_data_file_is_brought_in_and_told
    test_journal.py::test_a_record_whose_endpoint_went_with_the_data_file_is_there_at_once_and_after
edited, replaced or deleted by hand while running:
    test_disk.py::test_a_data_file_replaced_by_another_while_running_is_taken_over
    test_journal.py::test_an_edit_is_taken_over_and_listeners_hear_the_difference
    test_journal.py::test_an_edit_that_cannot_be_read_is_reported_once_and_nothing_is_lost
    test_journal.py::test_a_data_file_deleted_by_hand_is_written_again
    test_journal.py::test_a_deleted_journal_is_made_good_before_anything_else_is_acknowledged
    test_journal.py::test_an_edit_that_keeps_size_and_time_is_taken_over
    test_journal.py::test_what_takes_the_place_of_the_data_file_is_reported_and_left_alone
upload broken off at half, disk full at half, 11 files, one byte too many:
    test_disk.py::test_an_upload_that_fills_the_disk_at_half_leaves_nothing
    test_uploads.py::test_an_upload_that_breaks_off_leaves_nothing
    test_uploads.py::test_a_full_disk_takes_nothing_and_recovers
    test_uploads.py::test_a_refused_upload_leaves_nothing
    test_uploads.py::test_a_file_may_have_a_hundred_megabytes_and_not_a_byte_more
    test_uploads.py::test_ten_large_files_take_little_memory_and_delay_nobody
file names `../../x`, `C:\\a`, `CON`, 1,000 characters, CR LF, `filename*`:
    test_uploads.py::test_a_name_is_kept_exactly_and_is_never_a_path
    test_uploads.py::test_an_extended_name_counts_where_it_can_be_read
    test_uploads.py::test_a_name_goes_out_as_rfc_6266_says
an uploaded `text/html` opened in a browser:
    test_uploads.py::test_a_file_is_sent_whole_and_harmless
port taken, privileged, IPv4-only or IPv6-only machine:
    test_disk.py::test_a_privileged_port_is_named_in_one_line
    test_disk.py::test_on_a_machine_with_one_family_that_one_is_served
    test_disk.py::test_on_a_machine_without_any_address_the_error_says_so
    test_disk.py::test_in_a_network_of_one_family_that_one_is_served
    test_command_line.py::test_a_taken_port_is_named_in_one_line
    test_server.py::test_a_taken_port_on_the_second_family_alone_is_taken_too
SIGTERM, Ctrl-C, twice:
    test_disk.py::test_a_second_signal_leaves_at_once_with_the_file_safe
    test_disk.py::test_a_signal_waits_for_a_request_under_way
    test_disk.py::test_a_stop_gives_up_a_request_that_takes_too_long
    test_command_line.py::test_a_signal_saves_the_data_and_ends_with_0
stdout closed, not a terminal, non-UTF-8 locale, `python -OO`:
    test_disk.py::test_it_goes_on_with_stdout_or_stderr_closed
    test_disk.py::test_it_goes_on_where_nobody_takes_what_it_says
    test_disk.py::test_it_goes_on_in_a_locale_that_is_not_utf8
    test_disk.py::test_it_works_without_asserts_and_docstrings
    test_command_line.py::test_the_banner_shows_urls_key_and_endpoints
options out of range (latency -1, NaN, chance 2):
    test_command_line.py::test_a_wrong_option_is_named_with_what_it_accepts
    test_control.py::test_a_wrong_argument_is_a_400_that_lists_the_known_ones
    test_faults.py::test_a_wrong_fault_option_says_why

And the figures:

200 SIGKILL rounds, at least 10,000 acknowledged writes:
    test_crash.py::test_nothing_acknowledged_is_lost_by_a_kill
Every disk call x {EIO, ENOSPC, EACCES, torn}:
    test_journal.py::test_a_change_the_disk_refuses_is_none
    test_journal.py::test_a_data_file_that_cannot_be_written_stays_as_it_was_and_the_journal_has_the_rest
    test_journal.py::test_a_draft_the_disk_refuses_to_take_loses_nothing
5,000 generated sequences of verbs (model test):
    test_sequences.py::test_every_sequence_of_verbs_does_what_the_model_says
One hour of mixed load:
    test_soak.py::test_the_soak_judges_what_it_measured
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from rested_emulator import DataFileError, Options, RestedEmulator, load_tree, open_store
from tests.conftest import GARDEN, KEY, PLANTS, knock
from tests.measured import IS_MEASURABLE, measured
from tests.test_command_line import finish, program
from tests.test_journal import save_when_quiet, served
from tests.wire import (
    PROGRAM,
    Reply,
    answer_on,
    assert_refusal,
    at,
    call,
    closing,
    free_port,
    give_up_at_stop_after,
    head,
    open_socket,
    until,
    wire,
)

MB = 2**20
NOT_STORED = "The change could not be stored."
BOUNDARY = "--file-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY[2:]}"}


def post(url: str, data: object) -> Reply:
    return call(url, "POST", data)


def stored(path: Path) -> list[Any]:
    """The data of all plants that a data file holds."""
    return [record["data"] for record in json.loads(path.read_text())[PLANTS].values()]


def one_line(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for text in said:
        assert text in done.stderr


# A disk that is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of a megabyte, with the garden on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    (folder / "data.json").write_bytes(GARDEN.read_bytes())
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def test_on_a_full_disk_writing_is_a_507_reading_goes_on_and_it_recovers(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "data.json"
    with (
        measured(tmp_path / "log", str(data), "-q", cwd=tmp_path) as emulator,
        open_socket(emulator.ws_url(PLANTS)) as ear,
    ):
        url = emulator.url(PLANTS)
        assert post(url, "before").status == 200
        filler = fill(small_disk)
        refused = [post(url, "x" * 20_000) for _ in range(3)]
        before = emulator.memory() if IS_MEASURABLE else 0
        refused += [post(url, "x" * 20_000) for _ in range(200)]
        for reply in (refused[0], refused[-1]):
            assert_refusal(reply, 507, NOT_STORED)
            assert os.strerror(errno.ENOSPC) in reply.json["hint"]
        if IS_MEASURABLE:
            assert emulator.memory() - before < 20 * MB
        assert call(url).json[-1]["data"] == "before"
        filler.unlink()
        assert post(url, "after").status == 200
        assert [json.loads(ear.recv(timeout=10))["record"]["data"] for _ in range(2)] == ["before", "after"]
        emulator.process.terminate()
        assert emulator.process.wait(timeout=10) == 0
        assert len(emulator.lines()) <= 3, "a line of the log for each refusal would fill the next disk"
    assert stored(data)[-2:] == ["before", "after"]


def test_a_disk_that_is_full_at_the_end_keeps_all_in_the_journal(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "data.json"
    with program(str(data), "-q", cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        assert post(url, "acknowledged").status == 200
        original = data.read_bytes()
        filler = fill(small_disk)
        process.terminate()
        _, said = process.communicate(timeout=10)
        assert process.returncode == 1
        assert "the data file could not be saved, the journal beside it has what is new" in said.splitlines()[-1]
        assert "Traceback" not in said
    assert data.read_bytes() == original
    filler.unlink()
    with program(str(data), cwd=tmp_path) as (_, facts):
        assert call(f"{facts['url']}/{PLANTS}?key={KEY}").json[-1]["data"] == "acknowledged"


def test_a_start_on_a_full_disk_changes_nothing(small_disk: Path, tmp_path: Path) -> None:
    fill(small_disk)
    one_line(
        finish("--port", "0", "--endpoint", "garden/new", str(small_disk / "data.json"), cwd=tmp_path), 2, "data.json"
    )
    one_line(finish("--port", "0", str(small_disk / "other.json"), cwd=tmp_path), 2, "other.json")
    assert sorted(path.name for path in small_disk.iterdir()) == ["data.json", "filler"]
    assert (small_disk / "data.json").read_bytes() == GARDEN.read_bytes()


def test_an_upload_that_fills_the_disk_at_half_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    part = f'{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'.encode()
    with program(str(small_disk / "data.json"), "-q", cwd=tmp_path) as (_, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        for size, status in ((2 * MB, 507), (200_000, 200)):
            body = part + bytes(size) + b"\r\n" + f"{BOUNDARY}--\r\n".encode()
            assert call(url, "POST", body=body, headers=FORM).status == status
            files = list((small_disk / "data.json.files").glob("*"))
            assert [file.stat().st_size for file in files] == [size] * (status == 200)


def test_a_journal_that_may_not_grow_takes_nothing_and_recovers(tmp_path: Path, data_file: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    with measured(tmp_path / "log", str(data_file), "-q", cwd=tmp_path, prepare=limit) as emulator:
        url = emulator.url(PLANTS)
        replies = [post(url, [number, "x" * 9_000]) for number in range(20)]
        taken = [reply.json["data"] for reply in replies if reply.status == 200]
        assert 5 < len(taken) < 20
        assert {reply.status for reply in replies} == {200, 507}
        assert [record["data"] for record in call(url).json][3:] == taken
        resource.prlimit(emulator.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert post(url, "after").status == 200
        emulator.process.terminate()
        assert emulator.process.wait(timeout=10) == 0
    assert stored(data_file)[3:] == [*taken, "after"]


# A data file that is mounted by itself, as into a container


@pytest.fixture
def mounted_file(tmp_path: Path) -> Iterator[Path]:
    """The garden as a file that is a mount point of its own, in a folder that has nothing else."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a file")
    (tmp_path / "outside.json").write_bytes(GARDEN.read_bytes())
    data = tmp_path / "container" / "data.json"
    data.parent.mkdir()
    data.touch()
    done = subprocess.run([mount, "--bind", str(tmp_path / "outside.json"), str(data)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file can be mounted here: {done.stderr.strip()}")
    yield data
    subprocess.run(["umount", "-l", str(data)], check=True, capture_output=True)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_data_file_that_is_a_mount_point_keeps_all(mounted_file: Path, tmp_path: Path, end: signal.Signals) -> None:
    with program(str(mounted_file), "-q", cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        for number in range(5):
            assert post(url, number).status == 200
        process.send_signal(end)
        _, said = process.communicate(timeout=10)
        if end == signal.SIGTERM:
            assert process.returncode == 0, said
            assert stored(tmp_path / "outside.json")[3:] == [*range(5)]
            assert os.listdir(mounted_file.parent) == ["data.json"]
            assert f"{mounted_file} cannot be replaced ({os.strerror(errno.EBUSY)})" in said
            assert "mount its folder" in said
    with program(str(mounted_file), "-q", cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        assert [record["data"] for record in call(url).json][3:] == [*range(5)]
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert stored(tmp_path / "outside.json")[3:] == [*range(5)]


def test_a_mounted_data_file_that_is_replaced_outside_is_told_and_loses_nothing(
    mounted_file: Path, tmp_path: Path
) -> None:
    with program(str(mounted_file), "-q", cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        assert post(url, 0).status == 200
        (tmp_path / "new.json").write_bytes(GARDEN.read_bytes())
        os.replace(tmp_path / "new.json", tmp_path / "outside.json")
        assert post(url, 1).status == 200
        status, since = f"{facts['controlUrl']}/status", monotonic()
        while (refused := call(status).json["refusedEdit"]) is None and monotonic() - since < 10:
            pass  # it looks twice a second
        assert "was replaced outside of its mount" in refused
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert "mount its folder instead" in said
    assert json.loads(Path(f"{mounted_file}.kept").read_bytes())[PLANTS].popitem()[1]["data"] == 1


# What may not be written


def without(*capabilities: str) -> list[str]:
    """What to put before a command that root runs, so that it may do no more than anybody else."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root may write everything, and there is no setpriv to change that")
    return [setpriv, "--bounding-set", ",".join(f"-{name}" for name in capabilities)]


WRITE_ALL = ("dac_override", "dac_read_search")


@pytest.mark.parametrize(
    ("what", "mode", "hint"),
    [
        (".", 0o555, "; its folder has to take its lock and its journal"),
        ("data.json", 0o444, "; with --memory it is only read"),
        ("data.json", 0o000, ""),
        ("data.json.lock", 0o444, "; it is another user's, whose emulator runs, or was killed: then delete it"),
    ],
)
def test_what_may_not_be_written_ends_the_start_with_2(tmp_path: Path, what: str, mode: int, hint: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    data, locked = folder / "data.json", folder / what
    data.write_bytes(GARDEN.read_bytes())
    if what == "data.json.lock":
        locked.touch()
    before = set(folder.iterdir())
    locked.chmod(mode)
    done = subprocess.run(
        [*without(*WRITE_ALL), *PROGRAM, str(data), "--port", "0"], capture_output=True, text=True, timeout=20
    )
    one_line(done, 2, f"{data if what == '.' else locked}: {os.strerror(errno.EACCES)}{hint}\n")
    folder.chmod(0o755)
    data.chmod(0o644)
    assert data.read_bytes() == GARDEN.read_bytes()
    assert set(folder.iterdir()) == before


def test_a_folder_that_becomes_read_only_is_a_507_until_it_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    data = folder / "data.json"
    data.write_bytes(GARDEN.read_bytes())
    with started([*without(*WRITE_ALL), *PROGRAM, str(data), "-q"]) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        folder.chmod(0o555)
        try:
            assert_refusal(post(url, 1), 507, NOT_STORED)
            assert len(call(url).json) == 3
        finally:
            folder.chmod(0o755)
        assert post(url, 2).status == 200
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert stored(data)[3:] == [2]


@pytest.mark.parametrize("name", ["loop", "dangling/data.json", "file/data.json", "n" * 300, "a\nb/c"])
def test_a_path_that_leads_nowhere_ends_with_2(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    one_line(finish(name, "--port", "0", cwd=tmp_path), 2)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_to_a_file_that_is_not_there_yet_makes_that_file(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "data.json")
    with program("link.json", cwd=tmp_path) as (process, _):
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert (tmp_path / "link.json").is_symlink()
    assert "_projects" in json.loads((tmp_path / "data.json").read_text())


# What stands in it


def test_a_file_of_the_emulators_own_that_was_cut_off_anywhere_is_refused(data_file: Path) -> None:
    store = open_store(Options(data=str(data_file)))
    served(store).create(knock(PLANTS, "ours"))
    store.file.close()
    whole = data_file.read_bytes().rstrip()
    for size in range(0, len(whole), 11):
        data_file.write_bytes(whole[:size])
        with pytest.raises(DataFileError, match=r"data\.json: line \d+ column \d+: "):
            load_tree(str(data_file))


@pytest.mark.parametrize("tail", [b"x", b"{}", b"\0" * 4096, b'\n"more": {}\n}\n'])
def test_garbage_behind_a_file_of_the_emulators_own_is_refused(tmp_path: Path, data_file: Path, tail: bytes) -> None:
    open_store(Options(data=str(data_file))).file.close()
    store = open_store(Options(data=str(data_file)))
    served(store).create(knock(PLANTS, "ours"))
    store.file.close()
    content = data_file.read_bytes() + tail
    data_file.write_bytes(content)
    with pytest.raises(DataFileError, match=r"data\.json: line \d+ column \d+: "):
        open_store(Options(data=str(data_file)))
    assert data_file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [data_file]


def test_a_data_file_replaced_by_another_while_running_is_taken_over(tmp_path: Path, data_file: Path) -> None:
    store = open_store(Options(data=str(data_file)))
    backend = served(store)
    backend.create(knock(PLANTS, "ours"))
    save_when_quiet(store)
    save_when_quiet(store)
    other = tmp_path / "other.json"
    tree = json.loads(data_file.read_text())
    tree[PLANTS] = {"a1": {"data": "theirs"}}
    other.write_text(json.dumps(tree))
    other.replace(data_file)
    backend.tick()
    assert [record["data"] for record in backend.records(PLANTS)] == ["theirs"]
    store.file.close()
    assert stored(data_file) == ["theirs"]


# Ports


def test_a_privileged_port_is_named_in_one_line(tmp_path: Path) -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first.exists() and int(first.read_text()) <= 81:
        pytest.skip("this machine gives low ports to everybody")
    done = subprocess.run(
        [*without("net_bind_service"), *PROGRAM, "--memory", "--port", "81"],
        cwd=tmp_path, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    one_line(done, 2, "port 81", "--port", os.strerror(errno.EACCES))


def without_family(monkeypatch: pytest.MonkeyPatch, *families: socket.AddressFamily) -> None:
    """Be a machine that lacks these."""
    create = socket.create_server

    def create_server(address: Any, *, family: socket.AddressFamily, **options: Any) -> socket.socket:
        if family in families:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return create(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", create_server)


@pytest.mark.parametrize(
    ("lacking", "address"), [(socket.AF_INET6, "127.0.0.1"), (socket.AF_INET, "[::1]")], ids=["IPv4 only", "IPv6 only"]
)
def test_on_a_machine_with_one_family_that_one_is_served(
    monkeypatch: pytest.MonkeyPatch, lacking: socket.AddressFamily, address: str
) -> None:
    without_family(monkeypatch, lacking)
    with RestedEmulator(data=GARDEN) as emulator:
        assert call(f"http://{address}:{emulator.facts['port']}{at(PLANTS)}").status == 200


def test_on_a_machine_without_any_address_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    without_family(monkeypatch, socket.AF_INET, socket.AF_INET6)
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        RestedEmulator(data=GARDEN).start()


@pytest.mark.parametrize(("lacking", "address"), [("-6", "127.0.0.1"), ("-4", "[::1]")], ids=["IPv4", "IPv6"])
def test_in_a_network_of_one_family_that_one_is_served(tmp_path: Path, lacking: str, address: str) -> None:
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if os.geteuid() != 0 or not unshare or not ip:
        pytest.skip("only root can make a network of its own, and with unshare and ip")
    if subprocess.run([unshare, "-n", "true"], capture_output=True).returncode:
        pytest.skip("no network can be made here")
    url = f"f'http://{address}:{{os.environ[\"RESTED_PORT\"]}}/__emulator__/health'"
    code = f"import os, urllib.request as r; print(r.urlopen({url}).status)"
    start = [*PROGRAM, "--memory", "--port", "0", "-q", "--", sys.executable, "-c", code]
    done = subprocess.run(
        [unshare, "-n", "sh", "-c", f'ip link set lo up; ip {lacking} addr flush dev lo; exec "$@"', "sh", *start],
        cwd=tmp_path, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr


# Signals, pipes, and how it is run


@contextlib.contextmanager
def started(
    command: list[str], *, cwd: Path | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Run a command on a free port; yields the process and its ready line."""
    process = subprocess.Popen(
        [*command, "--port", "0", "--json"],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate(timeout=10)[1]
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate(timeout=10)


def is_reachable(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.alone
def test_a_second_signal_leaves_at_once_with_the_file_safe(
    tmp_path: Path, data_file: Path, number: signal.Signals
) -> None:
    with program(str(data_file), "--fault", '{"kind": "delay", "seconds": 30, "method": "GET"}', cwd=tmp_path) as (
        process,
        facts,
    ):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        assert post(url, "acknowledged").status == 200
        with socket.create_connection(("127.0.0.1", facts["port"]), timeout=10) as waiting:
            waiting.sendall(f"GET {at(PLANTS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            call(f"{facts['controlUrl']}/health")  # by now the other one waits
            start = monotonic()
            process.send_signal(number)
            while is_reachable(facts["port"]):
                assert monotonic() - start < 1.5, "the first signal was not heard"
            process.send_signal(number)
            assert process.wait(timeout=10) == 128 + number
            assert monotonic() - start < 1.9
    assert json.loads(data_file.read_text())
    with program(str(data_file), cwd=tmp_path) as (_, facts):
        assert call(f"{facts['url']}/{PLANTS}?key={KEY}").json[-1]["data"] == "acknowledged"


def test_a_signal_waits_for_a_request_under_way(tmp_path: Path) -> None:
    fault = json.dumps({"kind": "delay", "seconds": 0.4, "method": "POST"})
    with program("--endpoint", PLANTS, "--key", KEY, "--fault", fault, cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        with (
            socket.create_connection(("127.0.0.1", facts["port"]), timeout=10) as waiting,
            open_socket(url.replace("http", "ws")) as listener,
        ):
            head = f"POST {at(PLANTS)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            waiting.sendall(f"{head}Content-Length: 1\r\n\r\n1".encode())
            call(f"{facts['controlUrl']}/health")
            start = monotonic()
            process.send_signal(signal.SIGTERM)
            assert answer_on(waiting).status == 200
            assert closing(listener)[0] == 1001
        assert process.wait(timeout=10) == 0
        assert monotonic() - start < 4
    assert len(json.loads((tmp_path / "rested-db.json").read_text())[PLANTS]) == 1


def test_a_stop_gives_up_a_request_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at_stop_after(0.2, monkeypatch)
    # A fault would end with the stop.
    with RestedEmulator(endpoint=[PLANTS], key=KEY, latency="30s") as emulator, wire(emulator) as waiting:
        waiting.sendall(head("POST", at(PLANTS), "Content-Type: application/json", "Content-Length: 1") + b"1")
        until(lambda: emulator.records(PLANTS))
        emulator.stop()
        assert waiting.recv(2**16) == b""


def wait_for(url: str) -> None:
    """Ask until somebody answers."""
    deadline = monotonic() + 20
    while True:
        try:
            assert call(url).status == 200
            return
        except OSError:
            assert monotonic() < deadline, "nobody answers"


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=["stdout", "stderr", "all"])
def test_it_goes_on_with_stdout_or_stderr_closed(tmp_path: Path, data_file: Path, closed: tuple[int, ...]) -> None:
    port = free_port()
    process = subprocess.Popen(
        [*PROGRAM, str(data_file), "--port", str(port), "-v"], cwd=tmp_path, preexec_fn=lambda: [*map(os.close, closed)]
    )
    try:
        url = f"http://127.0.0.1:{port}{at(PLANTS)}"
        wait_for(url)
        for number in range(20):
            assert post(url, number).status == 200
        assert call(url, "POST", body=b"{").status == 400
        with open_socket(url.replace("http", "ws")) as listener:
            post(url, "heard")
            assert json.loads(listener.recv(timeout=10))["record"]["data"] == "heard"
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait(timeout=10)
    assert stored(data_file)[3:] == [*range(20), "heard"], "nothing of the log may get into the data"


@pytest.mark.parametrize("where", ["a pipe that nobody reads", "a full device"])
def test_it_goes_on_where_nobody_takes_what_it_says(tmp_path: Path, where: str) -> None:
    if where == "a full device":
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full")
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        end, out = os.pipe()
        os.close(end)
    port = free_port()
    # Without this variable, which images for containers set, Python keeps what it could not write, and tries again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [*PROGRAM, "--endpoint", PLANTS, "--key", KEY, "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
    os.close(out)
    try:
        url = f"http://127.0.0.1:{port}{at(PLANTS)}"
        wait_for(url)
        assert post(url, 1).status == 200
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait(timeout=10)


def test_it_goes_on_in_a_locale_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "gärten"
    folder.mkdir()
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    with started([*PROGRAM, "--endpoint", PLANTS, "--key", KEY], cwd=folder, **ascii_only) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        assert post(url, "Kürbis").json["data"] == "Kürbis"
        process.terminate()
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0
        assert b"Traceback" not in said
    assert stored(folder / "rested-db.json") == ["Kürbis"]
    code = ["--", sys.executable, "-c", "pass"]
    done = subprocess.run(
        [*PROGRAM, "--port", "0", *code], cwd=folder, env=os.environ | ascii_only, capture_output=True, timeout=20
    )
    assert done.returncode == 0
    assert b"Ctrl-C stops it." in done.stderr, "the banner is shown, whatever its letters"
    process_of_banner = subprocess.Popen(
        [*PROGRAM, "--port", "0"],
        cwd=folder,
        env=os.environ | ascii_only,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process_of_banner.stdout
    assert b"rested-emulator" in process_of_banner.stdout.readline()
    process_of_banner.terminate()
    process_of_banner.communicate(timeout=10)
    assert process_of_banner.returncode == 0


def test_it_works_without_asserts_and_docstrings(tmp_path: Path, data_file: Path) -> None:
    command = [sys.executable, "-OO", *PROGRAM[1:], str(data_file)]
    with started(command, cwd=tmp_path) as (process, facts):
        url = f"{facts['url']}/{PLANTS}?key={KEY}"
        with open_socket(url.replace("http", "ws")) as listener:
            record = post(url, {"a": 1}).json
            assert json.loads(listener.recv(timeout=10))["record"] == record
            call(url, "PUT", {"b": 2}, uniqueId=record["uniqueId"], strategy="merge")
            assert json.loads(listener.recv(timeout=10))["record"]["data"] == {"a": 1, "b": 2}
            assert call(url, uniqueId="nobody").status == 400
            assert call(f"{facts['controlUrl']}/change-endpoint", "POST", {"name": PLANTS}).json == {"closed": 1}
            assert closing(listener)[0] == 1000
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert stored(data_file)[3:] == [{"a": 1, "b": 2}]
    done = subprocess.run([*command[:-1], "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert "--port" in done.stdout
