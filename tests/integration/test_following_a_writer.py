"""Readers beside a real writer that rolls, is taken over, and whose segments are sealed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

import woodpecker as wp


@pytest.fixture(params=["memory", "file", "object over files"])
async def log(request: pytest.FixtureRequest, tmp_path: Path):
    url = "memory://" if request.param == "memory" else f"file://{tmp_path}/store"
    mode = "file" if request.param == "file" else "object"
    async with wp.connect(url) as client:
        yield await client.create_log("orders", mode=mode, segment_max_bytes=64 << 10)


async def _follow(log: wp.Log, start: int) -> list[tuple[int, bytes]]:
    return [(entry.seq, entry.payload) async for entry in log.read(start, follow=True)]


async def test_followers_see_every_entry_once_through_rolls_and_take_overs(log: wp.Log) -> None:
    rng = Random(1)
    starts = [0, 0, 7, 350]
    followers = [asyncio.ensure_future(_follow(log, start)) for start in starts]
    wanted: list[bytes] = []
    for _ in range(4):
        async with await log.open_writer() as writer:
            while rng.random() < 0.98:
                many = [rng.randbytes(rng.randrange(3000)) for _ in range(rng.randrange(1, 9))]
                assert (await writer.append_many(many))[0] == len(wanted)
                wanted += many
                if rng.random() < 0.02:
                    followers.append(asyncio.ensure_future(_follow(log, len(wanted) // 2)))
                    starts.append(len(wanted) // 2)
    assert len(wanted) > 400
    assert await log.tail() == len(wanted)
    await log.end()
    async with asyncio.timeout(60):
        seen = await asyncio.gather(*followers)
    everything = list(enumerate(wanted))
    assert seen == [everything[start:] for start in starts]
    assert [entry.payload async for entry in log.read(3, 399)] == wanted[3:399]


async def test_append_to_reader_in_one_process_needs_no_poll(log: wp.Log) -> None:
    """The reader is woken: a hundred round trips take nothing like a hundred polls."""
    async with await log.open_writer() as writer:
        reader = log.read("latest", follow=True)
        first = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            for seq in range(100):
                await writer.append(b"%d" % seq)
                entry = await (first if seq == 0 else anext(reader))
                assert (entry.seq, entry.payload) == (seq, b"%d" % seq)
        await reader.aclose()
