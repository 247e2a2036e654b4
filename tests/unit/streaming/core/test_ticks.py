"""Ticks: clocks that step, limits, signals."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.streaming.core.ticks import (
    MOST_LEAD_US,
    IdleSteps,
    TickClock,
    Ticks,
    is_far_behind,
    next_limit,
    start_of_term,
)


def test_a_step_of_the_wall_clock_does_not_show() -> None:
    clock = TickClock(at_us=1_000_000, monotonic_us=500)
    later = clock.slewed(1_000_500, wall_us=99_000_000)
    assert later.read(1_000_500) == 2_000_000 + 10_000  # 1 % of a second
    back = later.slewed(2_000_500, wall_us=0)
    assert back.read(2_000_500) == 2_010_000 + 1_000_000 - 10_000


def test_a_clock_near_the_wall_follows_it_exactly() -> None:
    clock = TickClock(at_us=1_000_000, monotonic_us=0).slewed(1_000_000, wall_us=2_000_123)
    assert clock.read(1_000_000) == 2_000_123


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**10)), min_size=1, max_size=20
    )
)
def test_the_clock_never_falls_and_stays_within_one_percent(steps: list[tuple[int, int]]) -> None:
    clock, now = TickClock(at_us=5 * 10**9, monotonic_us=0), 0
    for passed, wall in steps:
        before, now = clock.read(now), now + passed
        clock = clock.slewed(now, wall)
        assert abs(clock.read(now) - before - passed) <= passed // 100


def test_a_term_starts_above_everything_shown_before() -> None:
    assert start_of_term(limit=50, last_tick=10, clock_us=20) == 50
    assert start_of_term(limit=5, last_tick=10, clock_us=3) == 11
    assert start_of_term(limit=5, last_tick=10, clock_us=99) == 99


def test_limits_do_not_run_away_in_a_crash_loop() -> None:
    limit, last = 0, -1
    for _ in range(1000):  # each term: one record, then a crash; the clock stands still
        last = start_of_term(limit=limit, last_tick=last, clock_us=100)
        limit = next_limit(limit=limit, last_tick=last, clock_us=100, step_us=5_000_000)
    assert limit <= 5_000_100 + 1000


def test_unpersisted_ticks_stop_below_the_limit() -> None:
    ticks = Ticks(last=10, limit=12, acked=10)
    assert ticks.unpersisted(5) == 11
    assert ticks.took(11).unpersisted(5) is None
    assert ticks.unpersisted(12) is None
    assert ticks.sequenced(11, 99).unpersisted(12) == 12
    assert ticks.sequenced(11, 12, is_close=True).unpersisted(5) is None


def test_a_signal_stays_below_what_is_in_flight() -> None:
    ticks = Ticks(last=10, limit=100, acked=10)
    assert ticks.signal(None) == 10
    busy = ticks.sequenced(20, 100)
    assert busy.signal(11) == 10
    assert busy.acknowledged(15).signal(16) == 15
    assert busy.acknowledged(20).signal(None) == 20


def test_idle_steps_double_up_to_the_most() -> None:
    steps = IdleSteps(step_us=5, most_us=12)
    assert [steps.doubled().step_us, steps.doubled().doubled().step_us] == [10, 12]


def test_clock_far_behind_the_last_tick() -> None:
    assert is_far_behind(0, 10 * 60_000_000 + 1)
    assert not is_far_behind(0, 10 * 60_000_000)


@given(last=st.integers(0, 10**7), clock=st.integers(0, 10**7))
def test_who_waits_as_told_finds_ticks_close_to_the_clock(last: int, clock: int) -> None:
    ticks = Ticks(last=last, limit=last + 1, acked=0)
    wait_us = ticks.wait_us(clock)
    assert last - (clock + wait_us) <= MOST_LEAD_US
    assert wait_us == 0 or last - (clock + wait_us) == MOST_LEAD_US
