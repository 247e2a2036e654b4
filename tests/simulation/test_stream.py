"""A few seeds of a streaming service; the same seed is the same run."""

from __future__ import annotations

import pytest

from woodpecker.testing.sim.mutants import planted
from woodpecker.testing.sim.run import run_seed


@pytest.mark.parametrize("seed", range(10))
def test_a_seed_of_a_streaming_service_is_sound(seed: int) -> None:
    result = run_seed(seed, kind="stream")
    assert result.is_good, result.violations


def test_the_same_seed_is_the_same_run() -> None:
    def traced(seed: int) -> list[str]:
        lines: list[str] = []
        run_seed(seed, kind="stream", write=lines.append)
        return lines

    assert traced(2) == traced(2)


@pytest.mark.parametrize(
    "mutant",
    [
        "stream_acks_when_sequenced",
        "stream_client_takes_cut_for_unwritten",
        "stream_cursors_hold_done",
        "stream_writes_into_what_is_deleted",
    ],
)
def test_a_planted_bug_is_found(mutant: str) -> None:
    with planted(mutant):
        assert any(not run_seed(seed, kind="stream").is_good for seed in range(12))
