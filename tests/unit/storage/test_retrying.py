from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.retrying import LONGEST_DELAY_MS, TRIES, delay_ms, retry


class Impatient(SystemRuntime):
    def __init__(self):
        super().__init__()
        self.slept_ms = []

    async def sleep_ms(self, delay_ms):
        self.slept_ms.append(delay_ms)


def failing(times, error=Unavailable):
    calls = iter(range(100))

    async def attempt():
        if next(calls) < times:
            raise error("away")
        return "done"

    return attempt


async def test_a_passing_failure_is_overcome():
    runtime = Impatient()
    assert await retry(runtime, failing(TRIES - 1)) == "done"
    assert len(runtime.slept_ms) == TRIES - 1


async def test_tries_are_bounded():
    runtime = Impatient()
    with pytest.raises(Unavailable):
        await retry(runtime, failing(TRIES))
    assert len(runtime.slept_ms) == TRIES - 1


async def test_other_errors_pass_at_once():
    runtime = Impatient()
    with pytest.raises(InvalidRequest):
        await retry(runtime, failing(1, InvalidRequest))
    assert runtime.slept_ms == []


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_delays_are_bounded(tried, chance):
    assert 0 <= delay_ms(tried, chance) <= LONGEST_DELAY_MS
