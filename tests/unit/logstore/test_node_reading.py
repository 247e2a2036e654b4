"""What a node shows to readers, and when it wakes those that wait."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.logstore.node_kit import (
    LOG,
    Lab,
    ask,
    send,
)

from woodpecker.codec.messages import (
    Appended,
    Blocks,
    Find,
    Found,
    Read,
    Refused,
)
from woodpecker.core.ids import NO_BLOCK
from woodpecker.testing.virtual import on_virtual_time

# --- reading ---


@on_virtual_time
async def test_readers_see_the_lac_and_with_a_limit_more():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 4)
        answer, blocks = await writer.read(lab.node, limit=None)
        assert (answer.last, answer.visible, blocks) == (NO_BLOCK, None, [])
        await writer.advance(lab.node, 1)
        answer, blocks = await writer.read(lab.node, limit=None)
        assert (answer.first, answer.last, answer.visible) == (0, 1, 2)
        assert blocks == writer.blocks[:2]
        assert not answer.is_fenced
        await writer.advance(lab.node, 99)
        answer, blocks = await writer.read(lab.node, limit=None, first=2)
        assert (answer.last, blocks) == (3, writer.blocks[2:])
        answer, blocks = await writer.read(lab.node, limit=2)
        assert (answer.last, answer.visible, blocks) == (2, 3, writer.blocks[:3])


@on_virtual_time
async def test_reading_by_seq():
    async with Lab() as lab:
        writer = lab.writer(seq=100)
        for count in (3, 0, 2, 1):  # [100, 103) [103) [103, 105) [105]
            answer, _ = await writer.append(lab.node, writer.pack(5, count=count))
            assert isinstance(answer, Appended)
        for seq, number in ((0, 0), (100, 0), (101, 0), (103, 1), (104, 2), (105, 3), (106, 4)):
            answer, blocks = await writer.read(lab.node, first=NO_BLOCK, seq=seq)
            assert blocks == writer.blocks[number:], seq
            assert not blocks or answer.first == number


@on_virtual_time
async def test_answers_are_bounded_but_never_without_progress():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 5, 1000)
        size = len(writer.blocks[0])
        for limit, count in ((1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (1 << 40, 5)):
            _, blocks = await writer.read(lab.node, max_bytes=limit)
            assert blocks == writer.blocks[:count]
        answer, blocks = await writer.read(lab.node, max_bytes=0)
        assert (answer.sizes, answer.last, answer.visible) == ((), 4, 5)


@on_virtual_time
async def test_what_is_not_in_memory_is_read_from_the_disk():
    async with Lab(cache_bytes=0) as lab:
        writer, other = lab.writer(), lab.writer(log_id="cd" * 16, name="other")
        for size in (10, 5000, 70_000, 200_000):
            await writer.write(lab.node, 2, size)
            await other.write(lab.node, 1, 30)
        assert await writer.read_all(lab.node) == writer.blocks
        assert await other.read_all(lab.node) == other.blocks
        assert lab.node.status()["readers"]["blocks_from_memory"] == 0
        assert lab.node.status()["cache"]["bytes"] == 0


@on_virtual_time
async def test_damage_on_the_disk_is_told_never_shown():
    async with Lab(cache_bytes=0) as lab:
        writer = lab.writer()
        await writer.write(lab.node, 3, 5000)
        file, offset = lab.node.copies.logs[LOG].copies[0].index.place(1)
        lab.disk.flip(file, offset + 3000)
        _, blocks = await writer.read(lab.node, max_bytes=1)
        assert blocks == writer.blocks[:1]
        answer = await ask(lab.node, Read(target=writer.target, first=1, limit=9, max_bytes=1))
        assert isinstance(answer, Refused)
        assert answer.code == "corrupt"
        assert "block 1" in answer.text
        _, blocks = await writer.read(lab.node, first=2)
        assert blocks == writer.blocks[2:]


@on_virtual_time
async def test_find_by_time():
    async with Lab(cache_bytes=0) as lab:
        writer = lab.writer()
        for time in (10, 20, 20, 40):
            await writer.append(lab.node, writer.pack(5, time_us=time))
        await writer.append(lab.node, writer.pack(count=0, time_us=40))
        await writer.append(lab.node, writer.pack(time_us=50))
        for time, number in ((0, 0), (10, 0), (11, 1), (20, 1), (21, 3), (41, 5), (51, NO_BLOCK)):
            found = await ask(lab.node, Find(target=writer.target, timestamp_us=time, limit=99))
            assert found == Found(number=number), time
        assert await ask(lab.node, Find(target=writer.target, timestamp_us=0)) == Found(
            number=NO_BLOCK
        ), "above the LAC nothing is found"
        found = await ask(lab.node, Find(target=writer.target, timestamp_us=41, limit=4))
        assert found == Found(number=NO_BLOCK)
        unseen = lab.writer(segment_id=9).target
        assert await ask(lab.node, Find(target=unseen, timestamp_us=0)) == Found(number=NO_BLOCK)


# --- waiting readers ---


def waiting(lab, writer, **fields):
    values = {"first": 0, "max_bytes": 1 << 20, "wait_ms": 60_000} | fields
    return send(lab.node, Read(target=writer.target, **values))


@on_virtual_time
async def test_a_waiting_reader_is_woken_by_the_lac_not_before():
    async with Lab() as lab:
        writer = lab.writer()
        reading = waiting(lab, writer)
        await writer.write(lab.node, 2)
        await asyncio.sleep(1)
        assert not reading.done(), "synced is not confirmed"
        began = lab.runtime.monotonic_ms()
        await writer.advance(lab.node, 0)
        answer, data = await reading
        assert (answer.last, data) == (0, writer.blocks[0])
        assert lab.runtime.monotonic_ms() == began
        reading = waiting(lab, writer, first=1)
        writer.append(lab.node, writer.pack(), lac=1)
        assert (await reading)[1] == writer.blocks[1], "the LAC comes with the next block as well"


@on_virtual_time
async def test_a_reader_with_a_limit_is_woken_by_the_sync():
    async with Lab() as lab:
        writer = lab.writer()
        reading = waiting(lab, writer, limit=5)
        await writer.write(lab.node)
        assert (await reading)[1] == writer.blocks[0]


@pytest.mark.parametrize("what", ["fence", "end", "close"])
@on_virtual_time
async def test_a_waiting_reader_hears_of_fence_and_end_and_stop(what):
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node)
        reading = waiting(lab, writer)
        if what == "fence":
            await writer.fence(lab.node)
        elif what == "end":
            lab.node.set_end(LOG, 0, 0)
        else:
            await lab.restart()
        answer = (await reading)[0]
        if what == "close":
            assert isinstance(answer, Refused)
            assert answer.code == "unavailable"
        else:
            assert isinstance(answer, Blocks)
            assert (answer.sizes, answer.last) == ((), NO_BLOCK)
            assert answer.is_fenced == (what == "fence")


@on_virtual_time
async def test_a_wait_ends_in_time_and_is_bounded_by_the_node():
    async with Lab(wait_max_ms=500) as lab:
        writer = lab.writer()
        began = lab.runtime.monotonic_ms()
        for wait_ms, took in ((100, 100), (60_000, 500), (-1, 0)):
            answer = (await waiting(lab, writer, wait_ms=wait_ms))[0]
            assert (answer.last, answer.visible) == (NO_BLOCK, None)
            assert lab.runtime.monotonic_ms() - began == pytest.approx(took)
            began = lab.runtime.monotonic_ms()
        assert lab.node.status()["readers"]["waiting"] == 0


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@on_virtual_time
async def test_numbers_that_make_no_sense_show_nothing_wrong(cache_bytes):
    async with Lab(cache_bytes=cache_bytes) as lab:
        writer = lab.writer(seq=50)
        await writer.write(lab.node, 4)
        for first in (-2, -5, -(1 << 62)):
            answer = await ask(
                lab.node, Read(target=writer.target, first=first, limit=9, max_bytes=99)
            )
            assert isinstance(answer, Refused)
            assert answer.code == "invalid_request"
        for limit in (-1, -2, -(1 << 62)):
            answer, blocks = await writer.read(lab.node, limit=limit)
            assert (answer.last, answer.visible, blocks) == (NO_BLOCK, None, [])
            found = await ask(lab.node, Find(target=writer.target, timestamp_us=0, limit=limit))
            assert found == Found(number=NO_BLOCK)
        for seq in (0, -7, 1 << 63):
            answer, blocks = await writer.read(lab.node, first=NO_BLOCK, seq=seq)
            assert blocks == (writer.blocks if seq < 50 else [])
        answer, blocks = await writer.read(lab.node, max_bytes=-1)
        assert (answer.last, blocks) == (3, []), "as none at all: only a look"
        answer, blocks = await writer.read(lab.node, first=1 << 62)
        assert blocks == []


@on_virtual_time
async def test_a_block_is_moved_while_the_read_of_its_run_waits_for_its_turn():
    async with Lab(cache_bytes=1, reads_at_once=1) as lab:
        node, writer = lab.node, lab.writer()
        await writer.write(node, 4, 3000)
        other = lab.writer(log_id="cd" * 16, name="other")
        for _ in range(400):  # the journal goes on, to another file
            await other.write(node, 1, 4000)
        copy = node.copies.get(LOG, 0)
        numbers = range(4)
        first = asyncio.ensure_future(node.reading.load(copy, numbers))
        second = asyncio.ensure_future(node.reading.load(copy, numbers))
        await asyncio.sleep(0)  # the first one reads, the second one waits
        place = node.upkeep._put_moved(copy, 0, writer.blocks[0])
        assert place[0] != copy.index.file(1)
        node.copies.moved(copy, 0, place)
        await node.journal.synced()
        for loading in (first, second):
            assert list(map(bytes, await loading)) == writer.blocks
