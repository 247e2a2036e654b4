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


def test_a_planted_bug_is_found() -> None:
    with planted("stream_signals_what_is_in_flight"):
        assert not run_seed(0, kind="stream").is_good
