"""The arithmetic of the bench: percentiles, rates, ratios of pairs, changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.bench.figures import (
    Slice,
    change,
    latency_figures,
    pair_ratio,
    percentile,
    rate_figures,
    total,
)
from woodpecker.bench.pairs import Pairs, Plan, measure


@pytest.mark.parametrize(
    ("quantile", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)]
)
def test_percentiles_are_values_that_occurred(quantile, expected):
    assert percentile(range(1, 101), quantile) == expected


def test_nothing_measured_is_zero_not_an_error():
    assert percentile([], 0.5) == 0
    assert latency_figures([]) == {}
    assert rate_figures([Slice()]) == {}
    assert pair_ratio([], []) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_at_least_the_quantile_is_not_above_the_percentile(values, quantile):
    found = percentile(sorted(values), quantile)
    assert found in values
    assert sum(value <= found for value in values) >= quantile * len(values)


def test_rates_are_medians_of_slices_and_processor_time_is_of_all():
    slices = [
        Slice(entries=10, bytes=10_000_000, seconds=1, cpu_seconds=1),
        Slice(entries=20, bytes=20_000_000, seconds=1, cpu_seconds=1),
        Slice(entries=90, bytes=90_000_000, seconds=1, cpu_seconds=1),
    ]
    figures = rate_figures(slices)
    assert figures["mb_s"] == 20
    assert figures["entries_s"] == 20
    assert figures["cpu_s_per_gb"] == pytest.approx(3 / 0.12)


def test_latencies_are_said_in_milliseconds_and_joined():
    slices = [Slice(seconds=1, latencies=[0.001] * 99), Slice(seconds=1, latencies=[0.1])]
    assert rate_figures(slices)["p50_ms"] == 1
    assert rate_figures(slices)["p999_ms"] == 100
    assert len(total(slices).latencies) == 100


def test_a_ratio_is_the_median_of_pairs_not_the_pair_of_medians():
    assert pair_ratio([1, 50, 90], [1, 100, 100]) == 0.9
    assert pair_ratio([1, 2], [0, 4]) == 0.5  # a pair without a limit says nothing
    with pytest.raises(ValueError, match="zip"):
        pair_ratio([1], [])


def test_changes_are_shares_of_the_old_figure():
    found = change({"a": 2, "gone": 1, "zero": 0}, {"a": 3, "new": 1, "zero": 5})
    assert found == {"a": pytest.approx(0.5)}


async def test_pairs_alternate_and_the_first_short_slice_does_not_count():
    taken = []

    async def ours(seconds):
        taken.append(("ours", seconds))
        return Slice(bytes=50, seconds=1, latencies=[0.002])

    async def limit(seconds):
        taken.append(("limit", seconds))
        return Slice(bytes=100, seconds=1, latencies=[0.001])

    pairs = await measure(ours, limit, Plan(pairs=3, seconds=9))
    assert taken == [("ours", 0.2), *[("limit", 9), ("ours", 9)] * 3]
    assert (pairs.throughput_ratio, pairs.latency_ratio) == (0.5, 2)
    assert pairs.volume_bytes == 150
    assert Pairs().throughput_ratio == 0
