"""The forecast: sums that can be checked by hand, and how it moves with what is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.core.costs import MONTH_S, RequestPrices
from woodpecker.core.planning import (
    CUT_BYTES,
    GIB,
    Forecast,
    Load,
    Prices,
    Speeds,
    forecast,
)

MB = 1e6


def plan(bytes_s: float, *, entry: float = 1024, linger: int = 0) -> dict[str, Forecast]:
    load = Load(bytes_s=bytes_s, entry_bytes=entry, days=10)
    return {one.mode: one for one in forecast(load, (linger,), (), Prices(), Speeds())}


def of_object(bytes_s: float, linger: int = 0, entry: float = 1024) -> Forecast:
    return plan(bytes_s, entry=entry, linger=linger)[f"object, linger {linger} ms"]


def test_at_low_load_an_entry_is_a_put_and_takes_as_long():
    one = of_object(1024, entry=1024)  # one a second
    assert one.puts_s == 1
    assert one.p50_ms == Speeds().put_ms
    assert one.requests_usd == pytest.approx(MONTH_S * (5 + 0.4) / 1e6, rel=0.02)


def test_a_linger_of_a_quarter_second_is_four_puts_a_second():
    one = of_object(1 * MB, 250)
    assert one.puts_s == pytest.approx(4)
    assert 125 < one.p50_ms < 200
    assert one.requests_usd == pytest.approx(51.84 + 4 * MONTH_S * 0.4 / 1e6, rel=0.05)


def test_under_load_blocks_are_full_whatever_the_linger():
    slow, quick = of_object(100 * MB, 1000), of_object(100 * MB)
    assert slow.block_bytes == CUT_BYTES
    assert quick.block_bytes < CUT_BYTES
    assert slow.puts_s == pytest.approx(100 * MB / CUT_BYTES)


def test_a_log_that_is_too_fast_for_one_pipeline_is_told_so():
    assert "too fast" in of_object(2000 * MB).note
    assert not of_object(100 * MB).note


def test_a_budget_is_kept_where_blocks_are_not_full():
    load = Load(bytes_s=0.1 * MB, entry_bytes=100, days=0)
    (_, one, _) = forecast(load, (), (20,), Prices(requests=RequestPrices(gets=0)), Speeds())
    assert one.mode == "object, $20 a month"
    assert one.puts_s * MONTH_S * 5 / 1e6 == pytest.approx(20)


def test_nodes_cost_machines_and_traffic_files_cost_disk():
    found = plan(GIB / 86_400)  # a GiB a day, kept for ten
    assert found["file"].storage_usd == pytest.approx(0.8)
    quorum = found["quorum, 3 nodes"]
    assert quorum.machines_usd == pytest.approx(180 + 30 * 2 * 0.02)
    assert quorum.storage_usd == pytest.approx(0.23)
    assert quorum.p50_ms < 2 < of_object(GIB / 86_400).p50_ms
    assert quorum.total_usd == quorum.requests_usd + quorum.storage_usd + quorum.machines_usd


@given(st.floats(1, 1e9), st.floats(1, 1e6), st.integers(0, 59_000))
def test_longer_lingers_never_cost_more_and_never_answer_sooner(bytes_s, entry, linger):
    short, long = of_object(bytes_s, linger, entry), of_object(bytes_s, linger + 1000, entry)
    assert long.puts_s <= short.puts_s * (1 + 1e-9)
    assert long.requests_usd <= short.requests_usd * (1 + 1e-9)
    assert long.p99_ms >= short.p99_ms * (1 - 1e-9) or long.block_bytes == CUT_BYTES
