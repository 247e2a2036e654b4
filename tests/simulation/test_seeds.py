"""Seeds that found something once; what it was is in docs/bugs-found.md."""

from __future__ import annotations

import pytest

from woodpecker.testing.sim.run import run_seed

ONCE_BROKEN = [
    (543, "any"),  # trims and descriptions beside a trim that took their pages
    (2596, "any"),  # a predecessor that was trimmed while its successor was sealed
    (4726, "any"),  # a cursor moved back by two that had slept
    (21312, "any"),  # a log trimmed while it was opened
    (55263, "any"),  # an upload of a segment that was dropped meanwhile
    (139, "object"),  # a question of still_owner() that was given up and failed
]


@pytest.mark.parametrize(("seed", "kind"), ONCE_BROKEN)
def test_a_seed_that_found_a_bug_finds_none(seed: int, kind: str) -> None:
    result = run_seed(seed, kind=kind)
    assert result.is_good, result.violations
    assert result.injected
