"""The budget of a log: how long a block may wait, and what a month of them costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.core.costs import (
    LONGEST_WAIT_MS,
    MONTH_S,
    SAVED_MS,
    block_every_ms,
    budget,
    due_ms,
    paid_until,
)
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Options

moments = st.floats(0, 1e10)
dollars = st.integers(1, 1_000_000)


def test_a_dollar_is_two_hundred_thousand_puts():
    assert MONTH_S * 1000 / block_every_ms(1) == pytest.approx(200_000)
    assert block_every_ms(52) == pytest.approx(249, abs=1)


def test_only_blocks_that_are_objects_have_a_budget():
    assert budget(Options(max_cost_per_month=5)) == 5
    assert budget(Options()) is None
    for mode in (Kind.FILE, Kind.QUORUM):
        options = Options(mode=mode, max_cost_per_month=5, linger_ms=7)
        assert budget(options) is None
        assert due_ms(options, 100, 1e9) == 107


@given(st.integers(0, LONGEST_WAIT_MS), moments, moments)
def test_without_a_budget_linger_is_what_a_block_waits(linger_ms, first_ms, paid_ms):
    assert due_ms(Options(linger_ms=linger_ms), first_ms, paid_ms) == first_ms + linger_ms


@given(st.integers(0, LONGEST_WAIT_MS), dollars, moments, moments)
def test_a_block_is_never_later_than_asked_and_waits_only_for_money(
    linger_ms, cost, first_ms, paid_ms
):
    options = Options(linger_ms=linger_ms, max_cost_per_month=cost)
    due = due_ms(options, first_ms, paid_ms)
    assert first_ms <= due <= first_ms + (linger_ms or LONGEST_WAIT_MS)
    if paid_ms <= first_ms:
        assert due == first_ms


@given(dollars, st.lists(st.floats(0, 1e8), max_size=300))
def test_blocks_that_wait_until_they_are_due_cost_no_more_than_the_budget(cost, gaps):
    """Entries come whenever they like; each waits as long as it must, without a bound of its own."""
    now = paid_ms = 0.0
    count = 0
    for gap in gaps:
        now = max(now + gap, paid_ms)
        paid_ms = paid_until(paid_ms, now, cost)
        count += 1
    most = (now + SAVED_MS) / block_every_ms(cost) + 1
    assert count <= most * (1 + 1e-9)


def test_what_an_idle_log_leaves_is_saved_for_an_hour_and_no_longer():
    burst, paid_ms = 0, paid_until(0, 10 * SAVED_MS, 5)
    while paid_ms <= 10 * SAVED_MS:
        burst += 1
        paid_ms = paid_until(paid_ms, 10 * SAVED_MS, 5)
    assert burst + 1 == pytest.approx(SAVED_MS / block_every_ms(5), abs=2)
