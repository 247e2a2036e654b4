"""Timestamps as stored: per policy, never falling, across blocks, segments and writers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.client.writing_kit import a_world

from woodpecker.client.entry import Entry
from woodpecker.errors import InvalidRequest
from woodpecker.testing.virtual import START_US, on_virtual_time

HOUR_US = 3_600_000_000


async def stored(world) -> list[int]:
    return [entry.timestamp_us async for entry in world.log(7).read()]


@on_virtual_time
async def test_prefer_takes_what_is_supplied_clamped_from_below_and_above():
    async with a_world(timestamps="prefer") as world:
        async with await world.writer() as writer:
            for us in (5, 3, START_US - 7, START_US + 2 * HOUR_US, 1):
                await writer.append(b"x", timestamp_us=us)
            await writer.append(b"clock")
        times = await stored(world)
        assert times[:3] == [5, 5, START_US - 7]
        assert START_US + HOUR_US <= times[3] < START_US + 2 * HOUR_US
        assert times[3:] == [times[3]] * 3, "one in the future is repeated: order rules"


@on_virtual_time
async def test_arrival_ignores_what_is_supplied():
    async with a_world(timestamps="arrival") as world:
        async with await world.writer() as writer:
            await asyncio.sleep(1)
            await writer.append(b"x", timestamp_us=5)
            await writer.append_many([Entry(b"a", timestamp_us=9), b"b"])
        assert all(us >= START_US + 1_000_000 for us in await stored(world))


@on_virtual_time
async def test_require_wants_one_not_too_far_ahead():
    async with a_world(timestamps="require") as world:
        async with await world.writer() as writer:
            with pytest.raises(InvalidRequest):
                await writer.append(b"x")
            with pytest.raises(InvalidRequest):
                await writer.append_many([Entry(b"a", timestamp_us=9), b"b"])
            with pytest.raises(InvalidRequest):
                await writer.append(b"x", timestamp_us=START_US + 2 * HOUR_US)
            await writer.append_many([Entry(b"a", timestamp_us=9), Entry(b"b", timestamp_us=7)])
        assert await stored(world) == [9, 9]


@pytest.mark.parametrize("producer", [None, "p"])
@on_virtual_time
async def test_exact_keeps_what_is_supplied_also_beside_controls(producer):
    async with a_world(timestamps="exact", segment_max_blocks=2) as world:
        times = [5, 5, 9, START_US + 9 * HOUR_US, START_US + 9 * HOUR_US]
        for number, us in enumerate(times):
            writer = await world.writer(number, producer=producer)
            await writer.append(b"x", timestamp_us=us)
            with pytest.raises(InvalidRequest):
                await writer.append(b"below", timestamp_us=us - 1)
            with pytest.raises(InvalidRequest):
                await writer.append(b"none")
            if number % 2:
                await writer.close()
        assert await stored(world) == times
        for number in range(0, len(times), 2):
            await world.site(number).runtime.sleep_ms(1)
            await _drop(world, number)


async def _drop(world, number: int) -> None:
    for task in world.site(number).runtime.tasks:
        task.cancel()
    await asyncio.gather(*world.site(number).runtime.tasks, return_exceptions=True)


@on_virtual_time
async def test_a_session_does_not_raise_the_times_of_older_entries():
    async with a_world(timestamps="prefer") as world:
        async with await world.writer(producer="p") as writer:
            await writer.append_many([Entry(b"a", timestamp_us=5)], sequence=0)
        async with await world.writer(1, producer="p") as writer:
            await writer.append_many([Entry(b"b", timestamp_us=6)], sequence=1)
        assert await stored(world) == [5, 6]


@on_virtual_time
async def test_times_never_fall_whatever_is_mixed_and_however_the_clock_jumps():
    async with a_world(segment_max_blocks=3) as world:
        for number in range(3):
            writer = await world.writer(number)
            jobs: list[Any] = []
            for n in range(40):
                world.site(number).runtime.clock_jump_us = (n * 7919 % 13 - 6) * HOUR_US
                us = [None, START_US - n * HOUR_US, START_US + n, 0][n % 4]
                jobs.append(writer.append(b"x" * (n * 50_000), timestamp_us=us))
                if n % 5 == 0:
                    jobs.append(writer.append_many([b"a", Entry(b"b", timestamp_us=us or 3)]))
                if n % 7 == 0:
                    await asyncio.sleep(0.1)
            await asyncio.gather(*jobs)
            await writer.close()
        times = await stored(world)
        assert times == sorted(times)
        assert len(times) == 3 * 56


@pytest.mark.parametrize("wrong", [-1, 1 << 63, "now", 1.5])
@pytest.mark.parametrize("policy", ["prefer", "arrival", "require", "exact"])
@on_virtual_time
async def test_a_timestamp_that_is_none_is_refused(policy: str, wrong: object):
    async with a_world(timestamps=policy) as world, await world.writer() as writer:
        with pytest.raises(InvalidRequest):
            await writer.append(b"x", timestamp_us=wrong)
        assert writer.next_seq == 0


@on_virtual_time
async def test_batches_may_bring_headers_and_timestamps_as_columns():
    async with a_world(timestamps="exact") as world:
        async with await world.writer() as writer:
            first = writer.submit_many([b"a", b"b"], timestamps_us=range(5, 7))
            pairs = [((b"k", b"v"),), ()]
            second = writer.submit_many([b"c", b"d"], headers=pairs, timestamps_us=[7, 9])
            for wrong in (range(8, 10), range((1 << 63) - 1, (1 << 63) + 1)):
                with pytest.raises(InvalidRequest):
                    writer.submit_many([b"x", b"y"], timestamps_us=wrong)
            with pytest.raises(InvalidRequest, match="one for each"):
                writer.submit_many([b"x"], timestamps_us=range(20, 22))
            assert (await first, await second) == (range(2), range(2, 4))
        entries = [entry async for entry in world.log(7).read()]
        assert [entry.timestamp_us for entry in entries] == [5, 6, 7, 9]
        assert [entry.headers for entry in entries] == [(), (), ((b"k", b"v"),), ()]
