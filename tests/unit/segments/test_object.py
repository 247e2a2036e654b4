"""Kind object over a store that fails: the pipeline, the fence walk, tails, and readers of an open segment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from woodpecker.codec import endmark, keys
from woodpecker.core.manifest import End
from woodpecker.core.register import GrantProducer
from woodpecker.errors import (
    Closed,
    Corrupt,
    Fenced,
    NotFound,
    NotWritten,
    Unavailable,
)
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.conformance.segment_log import TAKER, FakeLog, payloads_of, read
from woodpecker.testing.faulty import Fault, Faults, FaultyObjectStore
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


class Place:
    """A bucket, a log, and stores of kind object on it, each with its faults."""

    def __init__(self) -> None:
        self.runtime = VirtualRuntime()
        self.bucket = MemoryBucket()
        self.log = FakeLog()

    def store(self) -> tuple[ObjectSegments, Faults]:
        faults = Faults(self.runtime)
        objects = FaultyObjectStore(MemoryObjectStore(self.bucket), faults)
        return ObjectSegments(objects, self.runtime), faults

    def key(self, number: int) -> str:
        return keys.block(self.log.log_id, 0, number)

    def mark(self, number: int) -> None:
        data = endmark.encode(log_id=self.log.log_id, segment_id=0, epoch=2, token=TAKER)
        self.bucket.put(self.key(number), data, 0)


async def answers(*futures: asyncio.Future[None]) -> list[str]:
    done = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 600)
    return [
        "ok" if answer is None
        else f"fenced {answer.outcome}" if isinstance(answer, Fenced)
        else type(answer).__name__
        for answer in done
    ]  # fmt: skip


@on_virtual_time
async def test_a_mark_of_somebody_else_with_the_segment_open_proves_that_nothing_was_written():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    await segment.append(b"a")
    place.mark(1)
    assert await answers(
        segment.submit(segment.pack([b"b"])), segment.submit(segment.pack([b"c"]))
    ) == ["fenced not_written", "fenced not_written"]
    assert await answers(segment.submit(segment.pack([b"d"]))) == ["fenced not_written"]
    with pytest.raises(Fenced):
        await segment.writer.finish(segment.end)
    await segment.writer.abandon()
    assert place.runtime.running() == []


@pytest.mark.parametrize("end_block", [0, 1, 2])
@on_virtual_time
async def test_the_end_in_the_manifest_decides_about_a_block_without_answer(end_block: int):
    """Blocks 1 and 2 landed, their answers were lost, a taker-over closed at ``end_block``."""
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store)
    await segment.append(b"0")
    blocks = [segment.pack([b"1"]), segment.pack([b"2"])]
    faults.script("create", Fault.DROPPED, key=place.key(1))
    faults.script("create", Fault.DROPPED, key=place.key(2))
    faults.script("get", Fault.HELD, key=place.key(1))
    faults.script("get", Fault.HELD, key=place.key(2))
    futures = [segment.submit(block) for block in blocks]
    await asyncio.sleep(1)
    last = [segment.blocks[0], *blocks][end_block].header
    place.log.epoch = 2
    end = End(block=end_block, seq=last.end_seq, digest=last.digest.hex())
    place.log.close(end, 0)
    faults.gate.set()
    wanted = {0: ["fenced not_written"] * 2, 1: ["ok", "fenced not_written"], 2: ["ok", "ok"]}
    assert await answers(*futures) == wanted[end_block]
    await segment.writer.abandon()


@on_virtual_time
async def test_a_deleted_log_leaves_the_outcome_unknown():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    place.mark(0)
    place.log.manifest = replace(place.log.manifest, deleted_at_ms=1)
    assert await answers(segment.submit(segment.pack([b"x"]))) == ["fenced unknown"]
    await segment.writer.abandon()


@pytest.mark.parametrize("error", [Corrupt("damaged"), Unavailable("away"), Fenced("gone")])
@on_virtual_time
async def test_a_manifest_that_cannot_be_read_is_unknown_never_fenced(error: Exception):
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store, timeout_ms=5_000)
    place.mark(0)

    async def unreadable():
        raise error

    writer: Any = segment.writer
    writer._read_manifest = unreadable
    assert await answers(segment.submit(segment.pack([b"x"]))) == ["OutcomeUnknown"]
    await asyncio.sleep(10)
    assert place.runtime.running() == [], "nothing goes on trying after the writer gave up"


@on_virtual_time
async def test_the_watch_gives_up_on_the_oldest_block_and_stops_the_retries():
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store, timeout_ms=5_000)
    await segment.append(b"a")
    faults.is_away = True
    first = segment.submit(segment.pack([b"b"]))
    await asyncio.sleep(4)
    second = segment.submit(segment.pack([b"c"]))
    began = asyncio.get_running_loop().time()
    assert await answers(first, second) == ["OutcomeUnknown"] * 2
    assert asyncio.get_running_loop().time() - began == pytest.approx(1, abs=0.1)
    third = segment.submit(segment.pack([b"d"]))
    assert await answers(third) == ["NotWritten"]
    with pytest.raises(NotWritten):
        await segment.writer.finish(segment.end)
    faults.calm()
    await asyncio.sleep(100)
    assert place.key(1) not in place.bucket.objects
    assert place.runtime.running() == []
    await segment.writer.abandon()


@on_virtual_time
async def test_the_watch_counts_anew_after_each_pause():
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store, timeout_ms=5_000)
    for n in range(10):
        await asyncio.sleep(3)
        faults.script("create", Fault.DROPPED, times=2)
        await segment.append(b"%d" % n)
    await asyncio.sleep(100)
    assert place.runtime.running() == []
    await segment.finish()


@on_virtual_time
async def test_a_client_closed_before_its_writer_is_told_at_once():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    await store._objects.close()
    began = asyncio.get_running_loop().time()
    assert await answers(segment.submit(segment.pack([b"b"]))) == ["OutcomeUnknown"]
    assert asyncio.get_running_loop().time() - began < 5
    with pytest.raises(Closed):
        await store._objects.get("x")


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.LATE, Fault.UNAVAILABLE])
@on_virtual_time
async def test_unclear_puts_of_block_and_mark_are_cleared_up(fault: Fault):
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store)
    faults.script("create", fault, times=3)
    await segment.append(b"a")
    faults.script("create", fault, times=3)
    ref = await segment.finish()
    assert payloads_of(await read(place.store()[0], ref)) == [b"a"]
    await asyncio.sleep(10)
    assert place.runtime.running() == []


@pytest.mark.parametrize("turns", range(6))
@on_virtual_time
async def test_a_cancelled_finish_leaves_nothing_behind(turns: int):
    place = Place()
    store, faults = place.store()
    faults.max_delay_ms = 4
    segment = await place.log.open(store)
    await segment.append(b"a")
    task = asyncio.create_task(segment.writer.finish(segment.end))
    await asyncio.sleep(turns / 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert place.runtime.running() == []


@on_virtual_time
async def test_abandon_settles_what_is_in_flight():
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store)
    faults.script("create", Fault.HELD, times=3)
    futures = [segment.submit(segment.pack([b"%d" % n])) for n in range(3)]
    await asyncio.sleep(1)
    await segment.writer.abandon()
    assert await answers(*futures) == ["OutcomeUnknown"] * 3
    assert place.runtime.running() == []


# --- recovery ---


@on_virtual_time
async def test_recovery_bears_a_store_that_falters():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    for n in range(3):
        await segment.append(b"%d" % n)
    await segment.writer.abandon()
    other, faults = place.store()
    for fault in (Fault.UNAVAILABLE, Fault.DROPPED, Fault.LOST, Fault.LATE):
        faults.script("create", fault, times=2)
    found = await other.recover(place.log.ref(), token=TAKER)
    assert found.end == segment.end
    await asyncio.sleep(10)
    faults.calm()
    del place.bucket.objects[place.key(3)]
    faults.script("create", Fault.DROPPED, times=99)
    with pytest.raises(Unavailable, match="tried again"):
        await other.recover(place.log.ref(), token=TAKER)


@on_virtual_time
async def test_recovery_with_a_read_that_fails_raises_an_error_of_ours():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    await segment.submit(segment.pack(control=GrantProducer(id="p", epoch=0)))
    for n in range(40):
        await segment.submit(segment.pack([b"%d" % n], producer="p"))
    await segment.writer.abandon()
    other, faults = place.store()
    faults.script("get", Fault.UNAVAILABLE, key=place.key(17))
    with pytest.raises(Unavailable):
        await other.recover(place.log.ref(), token=TAKER)
    assert place.runtime.running() == []
    found = await other.recover(place.log.ref(), token=TAKER)
    assert len(found.facts) == 41
    assert [f.batches[0].seq for f in found.facts[1:]] == list(range(40))


# --- readers ---


@on_virtual_time
async def test_a_reader_beside_the_writer_needs_no_request_for_new_blocks():
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store)
    source = store.source(place.log.ref())
    for n in range(5):
        waiting = asyncio.create_task(source.wait_visible(n, 60_000))
        await asyncio.sleep(1)
        assert not waiting.done()
        await segment.append(b"%d" % n)
        await asyncio.wait_for(waiting, 1)
        assert payloads_of([b async for b in source.blocks(n)]) == [b"%d" % n]
    assert {op for op, _ in faults.requests} == {"create"}
    await segment.finish()


@on_virtual_time
async def test_a_source_made_before_the_writer_began_finds_its_tail():
    place = Place()
    store, faults = place.store()
    prepared, _, writer = await place.log.prepare(store)
    place.log.put(prepared)
    source = store.source(place.log.ref())
    assert await source.visible_end() == 0
    segment = place.log.open_prepared(prepared, writer)
    waiting = asyncio.create_task(source.wait_visible(0, 60_000))
    await asyncio.sleep(3)
    faults.requests.clear()
    await asyncio.sleep(30)
    assert faults.requests == [], "it waits on the tail instead of polling"
    await segment.append(b"a")
    await asyncio.wait_for(waiting, 1)
    await segment.finish()


@pytest.mark.parametrize("state", ["abandoned", "marked"])
@on_virtual_time
async def test_waiting_where_nothing_more_comes_does_not_spin(state: str):
    """The writer is gone, or a taker-over has put its mark and crashed; the segment is still OPEN."""
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    await segment.append(b"a")
    other, faults = place.store()
    reader = (store if state == "abandoned" else other).source(place.log.ref())
    assert await reader.visible_end() == 1
    if state == "marked":
        place.mark(1)
    await segment.writer.abandon()
    assert await reader.visible_end() == 1
    began = asyncio.get_running_loop().time()
    await reader.wait_visible(1, 5_000)
    assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.1)
    assert len(faults.requests) < 30


@on_virtual_time
async def test_another_process_polls_ever_more_rarely():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    other, faults = place.store()
    source = other.source(place.log.ref())
    waiting = asyncio.create_task(source.wait_visible(0, 600_000))
    await asyncio.sleep(100)
    assert 90 < len(faults.requests) < 130
    await segment.append(b"a")
    await asyncio.wait_for(waiting, 2)
    assert payloads_of([b async for b in source.blocks(0)]) == [b"a"]
    await segment.finish()


@on_virtual_time
async def test_only_the_contiguous_prefix_is_shown():
    place = Place()
    store, faults = place.store()
    segment = await place.log.open(store)
    faults.script("create", Fault.HELD, key=place.key(1))
    futures = [segment.submit(segment.pack([b"%d" % n])) for n in range(4)]
    await asyncio.sleep(1)
    for reader in (store, place.store()[0]):
        source = reader.source(place.log.ref())
        assert await source.visible_end() == 1
        assert payloads_of([b async for b in source.blocks(0)]) == [b"0"]
        assert await source.seq_at(1 << 60) == 1
    faults.gate.set()
    assert await answers(*futures) == ["ok"] * 4
    await segment.finish()


@on_virtual_time
async def test_a_hole_in_a_closed_segment_is_not_its_end():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    for n in range(4):
        await segment.append(b"%d" % n)
    ref = await segment.finish()
    del place.bucket.objects[place.key(2)]
    with pytest.raises(NotFound):
        await read(place.store()[0], ref)


@on_virtual_time
async def test_a_foreign_block_is_corrupt_and_fences_a_writer_with_unknown_outcome():
    place = Place()
    store, _ = place.store()
    segment = await place.log.open(store)
    await segment.append(b"0")
    place.bucket.put(place.key(1), place.bucket.objects[place.key(0)].data, 0)
    assert await answers(segment.submit(segment.pack([b"1"]))) == ["fenced unknown"]
    await segment.writer.abandon()
    with pytest.raises(Corrupt):
        await read(place.store()[0], place.log.ref())
    with pytest.raises(Corrupt):
        await place.store()[0].recover(place.log.ref(), token=TAKER)
