"""Counting requests to a bucket, and what they cost."""

from __future__ import annotations

import pytest

from woodpecker.bench.report import Row
from woodpecker.bench.requests import GIB, Requests, priced
from woodpecker.core.costs import MONTH_S, RequestPrices
from woodpecker.observability.names import Counter
from woodpecker.storage.cloud_stream import PART_BYTES


def test_requests_are_counted_as_they_are_billed():
    requests = Requests()
    for op in ("create", "replace", "get", "get", "head", "list", "delete"):
        requests.count(Counter.STORE_REQUESTS, op=op, result="ok")
        requests.count(Counter.STORE_SENT_BYTES, 3 * PART_BYTES)
    assert requests.per_gib(GIB) == {"puts_per_gib": 2, "gets_per_gib": 3, "lists_per_gib": 1}
    requests.clear()
    assert requests.per_gib(0) == {}


@pytest.mark.parametrize(
    ("size", "puts"), [(1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 4), (10 * PART_BYTES, 12)]
)
def test_an_upload_in_parts_is_begun_sent_and_completed(size, puts):
    requests = Requests()
    requests.count(Counter.STORE_REQUESTS, op="write_stream", result="ok")
    requests.count(Counter.STORE_SENT_BYTES, size)
    assert requests.per_gib(GIB)["puts_per_gib"] == puts


def test_what_idle_logs_ask_for_is_told_for_one_log_and_a_month():
    requests = Requests()
    requests.count(Counter.STORE_REQUESTS, 5, op="list", result="ok")
    assert requests.per_log_month(10, 60)["lists_per_log_month"] == 5 / 10 * MONTH_S / 60


def test_rows_that_count_requests_say_what_they_cost():
    counted = Row(name="a", figures={"puts_per_gib": 256, "gets_per_gib": 10, "lists_per_gib": 1})
    prices = RequestPrices(puts=5, gets=0.5, lists=6)
    first, second = priced([counted, Row(name="b", figures={"mb_s": 1})], prices)
    assert first.figures["usd_per_gib"] == pytest.approx((256 * 5 + 10 * 0.5 + 6) / 1e6)
    assert second.figures == {"mb_s": 1}
