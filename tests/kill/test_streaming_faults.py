"""A short run of a streaming service that loses each of its parts once; see docs/testing.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kill.test_faults import AGAIN, assert_good

from woodpecker.testing.faults.streaming import STRIKES, streaming

pytestmark = [pytest.mark.kill_short, pytest.mark.timeout(400)]


async def test_everything_is_lost_once(tmp_path: Path) -> None:
    report = await streaming(
        tmp_path, strikes=len(STRIKES), channels=20, loaded=4, seed=1, command=AGAIN
    )
    assert_good(report)
    assert all(report.counts[f"strike: {name}"] == 1 for name in STRIKES)
    assert report.counts["messages acknowledged"] > 500
    assert report.counts["transactions committed"] > 50
    assert report.counts["transactions aborted"] > 5
