"""Clock: whose time it is, what is due when, and what an advance does before it returns (contract 7.4)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from rested_emulator import Clock
from tests.conftest import NOON, StoppedTime

Action = Callable[[], None]


@pytest.fixture
def rung() -> list[str]:
    """The names of the alarms that rang."""
    return []


@pytest.fixture
def alarm(rung: list[str]) -> Callable[[str], Action]:
    """Make an alarm that notes its name when it rings."""
    return lambda name: lambda: rung.append(name)


Alarm = Callable[[str], Action]


def test_the_clock_shows_the_time_of_the_machine(clock: Clock, time: StoppedTime) -> None:
    assert clock.now() == NOON
    time.now += 7.5
    assert clock.now() == NOON + 7.5


def test_an_advance_adds_to_the_time_of_the_machine(clock: Clock, time: StoppedTime) -> None:
    clock.advance(3600)
    clock.advance(0.5)
    time.now += 10
    assert clock.now() == NOON + 3610.5


def test_two_clocks_know_nothing_of_each_other(clock: Clock, time: StoppedTime, rung: list[str], alarm: Alarm) -> None:
    other = Clock(time)
    other.at(NOON + 1, alarm("other"))
    clock.advance(60)
    assert (other.now(), rung) == (NOON, [])


def test_the_uptime_does_not_count_advances(clock: Clock, time: StoppedTime) -> None:
    time.now += 5
    clock.advance(3600)
    assert clock.uptime() == 5


@pytest.mark.parametrize(
    ("moments", "advanced", "expected"),
    [
        ([1, 2, 3], 3, ["0", "1", "2"]),
        ([3, 1, 2], 3, ["1", "2", "0"]),
        ([2, 2, 1, 2], 3, ["2", "0", "1", "3"]),
        ([5], 4.999, []),
        ([5], 5, ["0"]),
        ([1, 9], 5, ["0"]),
        ([0], 0, ["0"]),
        ([-10, -20], 0, ["1", "0"]),
        ([math.inf], 1e9, []),
        ([], 10, []),
    ],
)
def test_an_advance_rings_what_is_due_in_order(
    clock: Clock, rung: list[str], alarm: Alarm, moments: list[float], advanced: float, expected: list[str]
) -> None:
    for number, moment in enumerate(moments):
        clock.at(NOON + moment, alarm(str(number)))
    clock.advance(advanced)
    assert rung == expected


def test_an_alarm_rings_once(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.at(NOON + 1, alarm("once"))
    clock.advance(1)
    clock.advance(1)
    clock.ring()
    assert rung == ["once"]


def test_an_alarm_rings_at_the_next_ring_and_not_when_it_is_set(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.at(NOON - 1, alarm("late"))
    assert rung == []
    clock.ring()
    assert rung == ["late"]


def test_what_is_due_by_the_time_of_the_machine_rings_too(
    clock: Clock, time: StoppedTime, rung: list[str], alarm: Alarm
) -> None:
    clock.at(NOON + 5, alarm("five"))
    time.now += 5
    clock.ring()
    assert rung == ["five"]


def test_an_alarm_sees_the_time_after_the_advance(clock: Clock) -> None:
    seen: list[float] = []
    clock.at(NOON + 1, lambda: seen.append(clock.now()))
    clock.advance(10)
    assert seen == [NOON + 10]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(0, ["first", "inner", "last"]), (2, ["first", "inner", "last"]), (4, ["first", "last", "inner"]), (11, None)],
)
def test_an_alarm_may_set_another_which_rings_in_its_turn(
    clock: Clock, rung: list[str], alarm: Alarm, moment: float, expected: list[str] | None
) -> None:
    def first() -> None:
        rung.append("first")
        clock.at(NOON + moment, alarm("inner"))

    clock.at(NOON + 1, first)
    clock.at(NOON + 3, alarm("last"))
    clock.advance(10)
    assert rung == (expected or ["first", "last"])


def test_an_alarm_may_advance_the_clock(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    def first() -> None:
        rung.append("first")
        clock.advance(10)
        rung.append("advanced")

    clock.at(NOON + 1, first)
    clock.at(NOON + 1, alarm("second"))
    clock.at(NOON + 11, alarm("third"))
    clock.advance(1)
    assert rung == ["first", "second", "third", "advanced"]
    assert clock.now() == NOON + 11


def test_an_alarm_may_reset_the_clock_and_nothing_more_rings(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.at(NOON + 1, lambda: clock.restore(clock.another().state))
    clock.at(NOON + 2, alarm("forgotten"))
    clock.advance(10)
    assert (rung, clock.now(), clock.until_next()) == ([], NOON, math.inf)


def test_an_alarm_that_fails_spares_the_others(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    def fail() -> None:
        raise RuntimeError("on purpose")

    clock.at(NOON + 1, fail)
    clock.at(NOON + 2, alarm("spared"))
    with pytest.raises(RuntimeError, match="on purpose"):
        clock.advance(5)
    clock.ring()
    assert rung == ["spared"]


# Timers


def test_a_timer_rings_after_every_interval(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.every(10, alarm("timer"))
    counts = []
    for seconds in (9, 1, 9, 1, 5, 5):
        clock.advance(seconds)
        counts.append(len(rung))
    assert counts == [0, 1, 1, 2, 2, 3]


def test_a_timer_goes_by_the_time_of_the_machine_too(
    clock: Clock, time: StoppedTime, rung: list[str], alarm: Alarm
) -> None:
    clock.every(10, alarm("timer"))
    for _ in range(3):
        time.now += 10
        clock.ring()
    assert rung == ["timer"] * 3


def test_a_timer_of_too_little_to_be_told_apart_ends_all_the_same(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.every(1e-9, alarm("timer"))
    clock.advance(0.005)
    assert 1 <= len(rung) <= 6


def test_timers_and_alarms_ring_in_the_order_of_their_moments(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.every(4, alarm("four"))
    clock.every(3, alarm("three"))
    clock.at(NOON + 3.5, alarm("alarm"))
    for _ in range(8):
        clock.advance(1)
    assert rung == ["three", "alarm", "four", "three", "four"]


def test_a_timer_keeps_its_beat(clock: Clock, time: StoppedTime, rung: list[str], alarm: Alarm) -> None:
    clock.every(10, alarm("timer"))
    clock.advance(35)
    assert rung, "an advance over several intervals does not pass it by"
    assert clock.until_next() == 5
    time.now += 5.25
    clock.ring()
    assert clock.until_next() == 9.75


def test_a_timer_that_resets_the_clock_begins_anew_once(clock: Clock, time: StoppedTime, rung: list[str]) -> None:
    def reset_at_first() -> None:
        rung.append("timer")
        if len(rung) == 1:
            clock.restore(clock.another().state)

    clock.every(10, reset_at_first)
    for _ in range(2):
        time.now += 10
        clock.ring()
    assert len(rung) == 2


def test_a_timer_that_fails_rings_again(clock: Clock, rung: list[str]) -> None:
    def fail() -> None:
        rung.append("timer")
        raise RuntimeError("on purpose")

    clock.every(10, fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose"):
            clock.advance(10)
    assert len(rung) == 2


# Going back


def test_a_reset_goes_back_to_the_time_of_the_machine(clock: Clock, time: StoppedTime) -> None:
    clock.advance(3600)
    time.now += 1
    clock.restore(clock.another().state)
    assert clock.now() == NOON + 1


def test_a_reset_forgets_alarms(clock: Clock, rung: list[str], alarm: Alarm) -> None:
    clock.at(NOON + 1, alarm("forgotten"))
    clock.restore(clock.another().state)
    clock.advance(10)
    assert rung == []


def test_a_reset_rings_nothing(clock: Clock, time: StoppedTime, rung: list[str], alarm: Alarm) -> None:
    clock.every(10, alarm("timer"))
    time.now += 60
    clock.restore(clock.another().state)
    assert rung == []


def test_timers_begin_anew_at_a_reset(clock: Clock, time: StoppedTime, rung: list[str], alarm: Alarm) -> None:
    clock.every(10, alarm("timer"))
    time.now += 4
    clock.advance(5)
    clock.restore(clock.another().state)
    assert clock.until_next() == 10
    clock.advance(9)
    assert rung == []
    clock.advance(1)
    assert rung == ["timer"]


# Waiting


def test_nothing_to_wait_for_is_an_infinite_wait(clock: Clock) -> None:
    assert clock.until_next() == math.inf


@pytest.mark.parametrize(
    ("moments", "passed", "wait"),
    [([5], 0, 5), ([5, 3, 9], 0, 3), ([5], 2, 3), ([5], 5, 0), ([5], 60, 0), ([-1], 0, 0), ([5, 9], 6, 0)],
)
def test_the_wait_is_until_the_next_alarm_and_never_negative(
    clock: Clock, time: StoppedTime, moments: list[float], passed: float, wait: float
) -> None:
    for moment in moments:
        clock.at(NOON + moment, lambda: None)
    time.now += passed
    assert clock.until_next() == wait


def test_after_an_advance_the_wait_is_for_what_is_left(clock: Clock) -> None:
    clock.at(NOON + 5, lambda: None)
    clock.at(NOON + 9, lambda: None)
    clock.advance(6)
    assert clock.until_next() == 3


def test_whoever_waits_hears_of_an_earlier_alarm_and_of_no_later_one(time: StoppedTime) -> None:
    waits: list[float] = []
    clock = Clock(time, lambda clock: waits.append(clock.until_next()))
    for moment in (9, 12, 5, 6, 1):
        clock.at(NOON + moment, lambda: None)
    assert waits == [9, 5, 1]


def test_whoever_waits_hears_of_timers_when_they_are_set_and_set_anew_and_of_every_advance(time: StoppedTime) -> None:
    waits: list[float] = []
    clock = Clock(time, lambda clock: waits.append(clock.until_next()))
    clock.every(10, lambda: None)
    clock.advance(10)
    clock.restore(clock.another().state)
    assert waits == [10, 10, 10, 10]
