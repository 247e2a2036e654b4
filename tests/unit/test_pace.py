"""Work that nobody waits for rests twice as long as it works."""

from __future__ import annotations

from woodpecker.runtime.pace import STEP_BYTES, Pace
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


async def took_ms(runtime: VirtualRuntime, *, is_hurried: bool, work_ms: float = 0.5) -> float:
    """Of eight steps, each for half of what it may do without a rest."""
    began_ms, pace = runtime.monotonic_ms(), Pace(runtime, is_hurried=is_hurried)
    for _ in range(8):
        await runtime.sleep_ms(work_ms)
        await pace.did(STEP_BYTES // 2)
    return round(runtime.monotonic_ms() - began_ms, 3)


@on_virtual_time
async def test_a_rest_is_twice_as_long_as_the_work() -> None:
    assert await took_ms(VirtualRuntime(), is_hurried=False) == 4 + 8


@on_virtual_time
async def test_who_hurries_does_not_rest() -> None:
    assert await took_ms(VirtualRuntime(), is_hurried=True) == 4


@on_virtual_time
async def test_who_waits_for_something_slow_rests_for_a_moment_only() -> None:
    assert await took_ms(VirtualRuntime(), is_hurried=False, work_ms=100.0) == 800 + 4 * 10
