"""A log is read while its segment is closed, sealed and emptied; sealing is broken off half-way."""

from __future__ import annotations

import gc

import pytest

import woodpecker as wp
from woodpecker.client.sealing import Parts
from woodpecker.errors import Unavailable
from woodpecker.segments.object_reader import ObjectSource
from woodpecker.storage.memory import MemoryObjectStore


async def test_the_tail_does_not_fall_back_when_the_open_segment_is_sealed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        wp.connect("memory://tail-race", background=False) as writing,
        wp.connect("memory://tail-race", background=False) as reading,
    ):
        log = await writing.create_log("l")
        writer = await log.open_writer()
        for number in range(5):
            await writer.append(b"%d" % number)
        look = ObjectSource.visible_end
        meanwhile = [writer]

        async def late_look(source: ObjectSource) -> int:
            if meanwhile:
                await meanwhile.pop().close()
                await writing.run_background("l")
            return await look(source)

        monkeypatch.setattr(ObjectSource, "visible_end", late_look)
        assert await (await reading.open_log("l")).tail() == 5
        assert meanwhile == []


async def test_sealing_that_is_broken_off_leaves_no_generator_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []
    blocks = Parts._blocks_and_tail

    async def watched(self, before):
        try:
            async for part in blocks(self, before):
                yield part
        finally:
            ended.append("closed")

    async def breaks_off(self, key, parts):
        async for _ in parts:
            raise Unavailable("away")

    monkeypatch.setattr("woodpecker.client.sealing.PART_BYTES", 1)
    monkeypatch.setattr(Parts, "_blocks_and_tail", watched)
    monkeypatch.setattr(MemoryObjectStore, "write_stream", breaks_off)
    async with wp.connect("memory://", background=False) as client:
        log = await client.create_log("l")
        async with await log.open_writer() as writer:
            await writer.append(b"x")
        gc.disable()
        try:
            await client.run_background("l")
            assert ended == ["closed"]
        finally:
            gc.enable()
