"""The steady load: what it remembers of each append, and the figures of a phase."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import woodpecker as wp
from woodpecker.testing.faults.load import Load, payload, quantiles_ms


async def test_every_append_is_remembered_with_its_seq() -> None:
    async with wp.connect("memory://") as client:
        log = await client.create_log("load")
        async with await log.open_writer() as writer:
            load = Load(writer, rate=2000)
            load.phase("all is well")
            load.begin()
            while load.answered < 50:
                await asyncio.sleep(0)
            await load.end()
            figures = await load.phase_over()
        assert (figures.appends, figures.failed) == (len(load.appends), 0)
        assert load.open == 0 and load.failures == []
        by_seq = {append.seq: append.number for append in load.appends}
        read = {entry.seq: bytes(entry.payload) async for entry in log.read()}
        assert read == {seq: payload(number) for seq, number in by_seq.items() if seq is not None}


class _Refusing:
    def __init__(self) -> None:
        self.calls = 0

    async def append(self, data: bytes) -> int:
        self.calls += 1
        if self.calls % 2:
            raise wp.OutcomeUnknown("nobody knows")
        return self.calls


async def test_failures_are_counted_and_are_no_times() -> None:
    writer: Any = _Refusing()
    load = Load(writer, rate=2000)
    load.phase("half of it")
    load.begin()
    while len(load.failures) < 5:
        await asyncio.sleep(0)
    await load.end()
    figures = await load.phase_over()
    assert figures.failed == len(load.failures) >= 5
    assert load.failures[0] == "outcome_unknown: nobody knows"
    assert load.answered + figures.failed == figures.appends


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        ([], {"p50": None, "p99": None, "p99.9": None, "max": None}),
        ([0.5], {"p50": 500.0, "p99": 500.0, "p99.9": 500.0, "max": 500.0}),
        (
            [number / 1000 for number in range(1000)],
            {"p50": 500.0, "p99": 990.0, "p99.9": 999.0, "max": 999.0},
        ),
    ],
)
def test_quantiles(times_s: list[float], expected: dict[str, float | None]) -> None:
    assert quantiles_ms(times_s) == expected
