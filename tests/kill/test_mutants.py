"""Bugs planted in the writers' processes: each must be found, or the runs prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from woodpecker.testing.faults.kill import kill_loop
from woodpecker.testing.faults.paused import paused

pytestmark = [pytest.mark.kill_short, pytest.mark.timeout(300)]


@pytest.mark.parametrize("mutant", ["forget_the_last_block", "acknowledge_at_once"])
async def test_a_lost_entry_is_found(tmp_path: Path, mutant: str) -> None:
    report = await kill_loop(tmp_path, kind="object", kills=10, seed=1, command="", mutant=mutant)
    assert "I1" in {violation.rule for violation in report.violations}, str(report)


async def test_a_writer_that_goes_on_after_the_fence_is_found(tmp_path: Path) -> None:
    report = await paused(
        tmp_path, kind="file", times=40, seed=1, command="", mutant="ignore_the_fence"
    )
    assert {"I1", "I4"} & {violation.rule for violation in report.violations}
