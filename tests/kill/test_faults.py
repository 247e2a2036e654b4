"""Short runs with real faults: each must hold every invariant, and must have done what it says.

``make test`` runs the smoke only; ``make kill-short`` all of them; ``make kill`` the long ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from woodpecker.testing.faults.arena import Report
from woodpecker.testing.faults.clean_exit import clean_exit
from woodpecker.testing.faults.fight import fight
from woodpecker.testing.faults.kill import kill_loop
from woodpecker.testing.faults.outage import outages
from woodpecker.testing.faults.paused import paused

AGAIN = "make kill-short"
STORES = ("file", "directory", "object")
kill_short = pytest.mark.kill_short


def assert_good(report: Report) -> None:
    assert report.is_good, str(report)


async def test_smoke_a_few_kills(tmp_path: Path) -> None:
    report = await kill_loop(tmp_path, kind="file", kills=8, seed=5, command=AGAIN)
    assert_good(report)
    assert report.counts["kills of writers"] >= 8
    assert report.counts["entries acknowledged"] > 0
    assert report.counts["note segment_recovered"] > 0


@kill_short
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", STORES)
async def test_kills(tmp_path: Path, kind: str) -> None:
    report = await kill_loop(tmp_path, kind=kind, kills=100, seed=1, command=AGAIN)
    assert_good(report)
    counts = report.counts
    assert counts["kills of writers"] >= 100
    assert counts["take-overs"] > 50
    assert counts["entries acknowledged"] > 2000
    assert counts["entries unknown"] > 0
    for what in ("trims", "kills of followers", "sleepers woken", "note segment_sealed"):
        assert counts[what] > 0, what


@kill_short
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["file", "object"])
async def test_fight(tmp_path: Path, kind: str) -> None:
    report = await fight(tmp_path, kind=kind, seconds=10, seed=2, command=AGAIN)
    assert_good(report)
    assert report.counts["take-overs"] > 20


@kill_short
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", STORES)
async def test_sleeping_writers(tmp_path: Path, kind: str) -> None:
    report = await paused(tmp_path, kind=kind, times=4, seed=3, command=AGAIN)
    assert_good(report)
    assert report.counts["take-overs"] >= 7


@kill_short
@pytest.mark.timeout(300)
async def test_outages_of_the_object_store(tmp_path: Path) -> None:
    report = await outages(tmp_path, metadata="", times=11, seed=4, command=AGAIN)
    assert_good(report)
    assert report.counts["outage: killed"] and report.counts["outage: stopped"]
    assert report.counts["injected: COMMIT_CUT"] > 0


@kill_short
@pytest.mark.timeout(300)
async def test_outages_of_etcd(tmp_path: Path) -> None:
    report = await outages(tmp_path, metadata="etcd", times=4, seed=4, command=AGAIN)
    assert_good(report)
    assert report.counts["outage: etcd killed"] == 2


@kill_short
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["file", "object"])
async def test_clean_exits(tmp_path: Path, kind: str) -> None:
    report = await clean_exit(tmp_path, kind=kind, times=10, seed=0, command=AGAIN)
    assert_good(report)
    assert report.counts["entries found"] == 10
