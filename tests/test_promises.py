"""What must happen when things go wrong on sockets, disk and process, row by row, and which tests hold it.

From a row to its tests, and from a test to its row: search for the name in this file. What the README promises
names its tests the same way.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conftest import ROOT
from tests.soak import Reading, judge

MB = 2**20

SOCKETS: dict[str, tuple[str, ...]] = {
    "never reads; reads one byte a second; reads after 30 s": (
        "test_many_sockets.py::test_healthy_listeners_lose_nothing_by_stalled_ones_which_cost_little",
        "test_many_sockets.py::test_a_listener_that_reads_a_byte_a_second_is_cut_when_much_waits_for_it",
        "test_many_sockets.py::test_a_listener_that_reads_late_gets_everything_unless_much_waits_for_it",
        "test_websocket.py::test_a_writer_does_not_wait_for_a_listener_that_does_not_read",
        "test_websocket.py::test_a_listener_that_stopped_reading_is_cut_and_the_others_lose_nothing",
    ),
    "RST during fan-out, 500 at once; peer gone without a word": (
        "test_many_sockets.py::test_five_hundred_that_reset_their_connections_at_once_are_a_line_of_the_log_each",
        "test_many_sockets.py::test_a_peer_that_is_gone_without_a_word_is_noticed",
        "test_many_sockets.py::test_a_silenced_connection_is_let_go_once_its_client_leaves",
        "test_websocket.py::test_a_client_that_resets_the_connection_leaves_its_seat",
    ),
    "floods of messages, pings, empty fragments; a frame announcing 2^63 bytes; fragments over the limit": (
        "test_many_sockets.py::test_a_flood_keeps_nobody_waiting_and_costs_no_memory",
        "test_websocket.py::test_a_client_that_breaks_the_protocol_harms_nobody",
    ),
    "close codes 0, 999, 1004 to 1006, 1016, 2999 from the client": (
        "test_websocket.py::test_a_client_may_close_with_any_code",
        "test_websocket.py::test_a_client_may_close_without_a_proper_reason",
    ),
    "reset, option change, SIGTERM with 1,000 sockets open": (
        "test_many_sockets.py::test_every_socket_of_many_hears_its_end_within_a_second",
        "test_many_sockets.py::test_a_sigterm_amid_a_write_with_many_sockets_open_loses_nothing",
        "test_websocket.py::test_a_reset_ends_the_sockets_of_tokens_made_since",
    ),
    "opening during reset, endpoint deleted a moment later": (
        "test_many_sockets.py::test_a_socket_that_opens_amid_a_change_is_closed_or_hears_everything",
        "test_server.py::test_a_handshake_that_matures_while_it_stops_is_told_so",
    ),
    "more sockets than descriptors": (
        "test_many_sockets.py::test_more_sockets_than_descriptors_are_refused_with_503_and_the_cpu_is_quiet",
        "test_websocket.py::test_sockets_beyond_the_limit_of_the_system_are_refused",
        "test_server.py::test_beyond_the_limit_of_connections_it_says_503_and_stays_well",
    ),
}

DISK: dict[str, tuple[str, ...]] = {
    "SIGKILL under load": (
        "test_crash.py::test_nothing_acknowledged_is_lost_by_a_kill",
        "test_journal.py::test_what_was_done_before_a_kill_is_there_after",
        "test_journal.py::test_a_kill_at_any_byte_of_the_last_line_takes_that_verb_alone",
        "test_sequences.py::test_every_sequence_of_verbs_does_what_the_model_says",
    ),
    "truncated at any byte, garbage tail, NUL-filled, zero length, BOM, root a list, wrong inner types": (
        "test_disk.py::test_a_file_of_the_emulators_own_that_was_cut_off_anywhere_is_refused",
        "test_disk.py::test_garbage_behind_a_file_of_the_emulators_own_is_refused",
        "test_store.py::test_a_file_cut_off_anywhere_is_refused",
        "test_store.py::test_a_broken_file_is_refused_with_name_and_place_and_left_alone",
        "test_command_line.py::test_a_broken_data_file_is_left_alone",
        "test_journal.py::test_any_other_line_stops_the_start_and_changes_nothing",
    ),
    "read-only file or folder, folder missing, path a directory, FIFO, symlink": (
        "test_disk.py::test_what_may_not_be_written_ends_the_start_with_2",
        "test_disk.py::test_a_path_that_leads_nowhere_ends_with_2",
        "test_disk.py::test_a_link_to_a_file_that_is_not_there_yet_makes_that_file",
        "test_command_line.py::test_a_data_file_that_cannot_be_had_ends_with_2",
        "test_store.py::test_a_symlink_is_followed_and_stays",
    ),
    "full or read-only while running": (
        "test_disk.py::test_on_a_full_disk_writing_is_a_507_reading_goes_on_and_it_recovers",
        "test_disk.py::test_a_disk_that_is_full_at_the_end_keeps_all_in_the_journal",
        "test_disk.py::test_a_start_on_a_full_disk_changes_nothing",
        "test_disk.py::test_a_journal_that_may_not_grow_takes_nothing_and_recovers",
        "test_disk.py::test_a_folder_that_becomes_read_only_is_a_507_until_it_is_not",
        "test_journal.py::test_a_change_the_disk_refuses_is_none",
        "test_journal.py::test_a_vanished_folder_answers_507_and_is_well_again_when_it_is_back",
    ),
    "two emulators on one file": (
        "test_journal.py::test_a_second_emulator_on_the_same_file_is_refused",
        "test_journal.py::test_a_lock_left_by_a_kill_is_no_lock",
        "test_journal.py::test_of_two_that_race_for_a_data_file_one_has_it",
        "test_crash.py::test_of_two_programs_that_race_for_a_data_file_one_has_it",
    ),
    "a data file that is a mount point": (
        "test_disk.py::test_a_data_file_that_is_a_mount_point_keeps_all",
        "test_crash.py::test_a_kill_while_the_data_file_is_written_in_place_leaves_a_whole_one",
        "test_journal.py::test_a_kill_at_any_byte_of_writing_in_place_leaves_the_old_or_the_new",
    ),
    "a journal beside another data file": (
        "test_journal.py::test_a_journal_of_another_data_file_is_brought_in_and_told",
        "test_journal.py::test_a_journal_whose_data_file_is_gone_is_brought_in_and_told",
    ),
    "edited, replaced or deleted by hand while running": (
        "test_disk.py::test_a_data_file_replaced_by_another_while_running_is_taken_over",
        "test_journal.py::test_an_edit_is_taken_over_and_listeners_hear_the_difference",
        "test_journal.py::test_an_edit_that_cannot_be_read_is_reported_once_and_nothing_is_lost",
        "test_journal.py::test_a_data_file_deleted_by_hand_is_written_again",
        "test_journal.py::test_a_deleted_journal_is_made_good_before_anything_else_is_acknowledged",
        "test_journal.py::test_an_edit_that_keeps_size_and_time_is_taken_over",
        "test_journal.py::test_what_takes_the_place_of_the_data_file_is_reported_and_left_alone",
    ),
    "upload broken off at half, disk full at half, 11 files, one byte too many": (
        "test_disk.py::test_an_upload_that_fills_the_disk_at_half_leaves_nothing",
        "test_uploads.py::test_an_upload_that_breaks_off_leaves_nothing",
        "test_uploads.py::test_a_full_disk_takes_nothing_and_recovers",
        "test_uploads.py::test_a_refused_upload_leaves_nothing",
        "test_uploads.py::test_a_file_may_have_a_hundred_megabytes_and_not_a_byte_more",
        "test_uploads.py::test_ten_large_files_take_little_memory_and_delay_nobody",
    ),
    "file names `../../x`, `C:\\a`, `CON`, 1,000 characters, CR LF, `filename*`": (
        "test_uploads.py::test_a_name_is_kept_exactly_and_is_never_a_path",
        "test_uploads.py::test_an_extended_name_counts_where_it_can_be_read",
        "test_uploads.py::test_a_name_goes_out_as_rfc_6266_says",
    ),
    "an uploaded `text/html` opened in a browser": ("test_uploads.py::test_a_file_is_sent_whole_and_harmless",),
    "port taken, privileged, IPv4-only or IPv6-only machine": (
        "test_disk.py::test_a_privileged_port_is_named_in_one_line",
        "test_disk.py::test_on_a_machine_with_one_family_that_one_is_served",
        "test_disk.py::test_on_a_machine_without_any_address_the_error_says_so",
        "test_disk.py::test_in_a_network_of_one_family_that_one_is_served",
        "test_command_line.py::test_a_taken_port_is_named_in_one_line",
        "test_server.py::test_a_taken_port_on_the_second_family_alone_is_taken_too",
    ),
    "SIGTERM, Ctrl-C, twice": (
        "test_disk.py::test_a_second_signal_leaves_at_once_with_the_file_safe",
        "test_disk.py::test_a_signal_waits_two_seconds_at_most_for_a_request_under_way",
        "test_command_line.py::test_a_signal_saves_the_data_and_ends_with_0",
    ),
    "stdout closed, not a terminal, non-UTF-8 locale, `python -OO`": (
        "test_disk.py::test_it_goes_on_with_stdout_or_stderr_closed",
        "test_disk.py::test_it_goes_on_where_nobody_takes_what_it_says",
        "test_disk.py::test_it_goes_on_in_a_locale_that_is_not_utf8",
        "test_disk.py::test_it_works_without_asserts_and_docstrings",
        "test_command_line.py::test_the_banner_shows_urls_key_and_endpoints",
    ),
    "options out of range (latency -1, NaN, chance 2)": (
        "test_command_line.py::test_a_wrong_option_is_named_with_what_it_accepts",
        "test_control.py::test_a_wrong_argument_is_a_400_that_lists_the_known_ones",
        "test_disk.py::test_a_fault_out_of_range_ends_the_start_with_2",
    ),
}

FIGURES: dict[str, tuple[str, ...]] = {
    "200 SIGKILL rounds, at least 10,000 acknowledged writes": (
        "test_crash.py::test_nothing_acknowledged_is_lost_by_a_kill",
    ),
    "Every disk call x {EIO, ENOSPC, EACCES, torn}": (
        "test_journal.py::test_a_change_the_disk_refuses_is_none",
        "test_journal.py::test_a_data_file_that_cannot_be_written_stays_as_it_was_and_the_journal_has_the_rest",
        "test_journal.py::test_a_draft_the_disk_refuses_to_take_loses_nothing",
    ),
    "1,000 listeners, 100 stalled, 600 messages of 10 KB": (
        "test_many_sockets.py::test_healthy_listeners_lose_nothing_by_stalled_ones_which_cost_little",
    ),
    "10,000 idle listeners under 300 MB; a burst of 10,000 messages to 200 healthy listeners cuts none": (
        "test_many_sockets.py::test_idle_listeners_take_little_memory",
        "test_many_sockets.py::test_a_burst_cuts_no_healthy_listener",
        "test_many_sockets.py::test_a_reset_of_more_than_a_listener_may_owe_cuts_no_healthy_listener",
    ),
    "SIGTERM with 1,000 sockets and a write in flight": (
        "test_many_sockets.py::test_a_sigterm_amid_a_write_with_many_sockets_open_loses_nothing",
    ),
    "5,000 generated sequences of verbs (model test)": (
        "test_sequences.py::test_every_sequence_of_verbs_does_what_the_model_says",
    ),
    "One hour of mixed load": ("test_promises.py::test_the_soak_judges_what_it_measured",),
}

ROWS = SOCKETS | DISK | FIGURES


@cache
def names_of_tests(name: str) -> frozenset[str]:
    """The tests of a file."""
    tree = ast.parse((ROOT / "tests" / name).read_text())
    return frozenset(item.name for item in tree.body if isinstance(item, ast.FunctionDef) and item.name[:5] == "test_")


def missing(tests: Iterator[str] | tuple[str, ...]) -> list[str]:
    """Those of the tests that there are not."""
    return [test for test in tests if test.partition("::")[2] not in names_of_tests(test.partition("::")[0])]


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_of_a_row_are_there(row: str) -> None:
    assert ROWS[row]
    assert missing(ROWS[row]) == []


@pytest.mark.parametrize("name", ["test_disk.py", "test_many_sockets.py"])
def test_every_test_of_what_goes_wrong_has_its_row(name: str) -> None:
    held = {test for tests in ROWS.values() for test in tests}
    assert {f"{name}::{test}" for test in names_of_tests(name)} <= held


def promises() -> list[str]:
    """The rows of the README's table of promises."""
    section = (ROOT / "README.md").read_text().partition("## What it promises\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_promise_of_the_readme_names_tests_that_are_there() -> None:
    rows = promises()
    assert len(rows) >= 10
    for row in rows:
        tests = re.findall(r"`(test_\w+\.py::test_\w+)`", row)
        assert tests, row
        assert missing(tuple(tests)) == []


def test_the_soak_judges_what_it_measured() -> None:
    """``python -m tests.soak --seconds 3600`` is the hour; here, what it takes for a leak and what it does not."""

    def judged(growth: float, descriptors: int = 0) -> bool:
        readings = [
            Reading(float(at), int(50 * MB + at * growth), 14 + at * descriptors // 600, 1) for at in range(0, 600, 5)
        ]
        wrong: list[str] = []
        judge(readings, 600, wrong.append)
        return wrong == []

    assert judged(0)
    assert judged(0.5 * MB / 600)
    assert not judged(1.5 * MB / 600)
    assert not judged(0, descriptors=20)
