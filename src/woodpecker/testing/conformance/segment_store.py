"""What every ``SegmentStore`` must do. Subclass the suite and give it a fixture ``open_store``.

    class TestMySegments(SegmentStoreSuite):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MySegments(tmp_path)

``open_store()`` returns a new store object, as another process would have it; all of one test work on
the same place, empty at first. The manifest is kept by the suite, which plays the log's drivers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar

import pytest
import pytest_asyncio

from woodpecker.core.ids import ZERO_DIGEST
from woodpecker.core.manifest import End, placed
from woodpecker.core.register import EndLog, GrantProducer
from woodpecker.errors import Fenced, NotFound, OutcomeUnknown, WoodpeckerError
from woodpecker.segments.base import BlockSource, Recovered, SegmentStore
from woodpecker.testing.conformance.segment_log import (
    FIRST_US,
    TAKER,
    FakeLog,
    payloads_of,
    read,
    until_visible,
    write_until_failure,
)

OpenStore = Callable[[], SegmentStore]

PATIENCE_S = 20


class SegmentStoreSuite:
    """The contract, test by test.

    ``lags``: what is acknowledged becomes visible to other processes only a little later.
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]
    lags: ClassVar = False

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Overridden by the subclass."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def opened(self, open_store: OpenStore) -> AsyncIterator[OpenStore]:
        """As ``open_store``; all are closed at the end."""
        stores: list[SegmentStore] = []

        def open_one() -> SegmentStore:
            stores.append(open_store())
            return stores[-1]

        yield open_one
        for store in stores:
            await store.close()

    @pytest_asyncio.fixture
    async def store(self, opened: OpenStore) -> SegmentStore:
        """The writer's store."""
        return opened()

    @pytest_asyncio.fixture
    async def other(self, opened: OpenStore) -> SegmentStore:
        """The store of another client on the same place."""
        return opened()

    @pytest.fixture
    def log(self) -> FakeLog:
        return FakeLog()

    async def visible_end(self, source: BlockSource, expected: int) -> int:
        """What is visible, once as much may be expected."""
        visible = await source.visible_end()
        while self.lags and visible < expected:
            await source.wait_visible(visible, 1000)
            visible = await source.visible_end()
        return visible

    # -------------------------------------------------------------------- writing and reading

    async def test_a_closed_segment_reads_as_it_was_written(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.append(b"a", b"", b"ccc")
        await segment.append(b"d" * 10_000)
        ref = await segment.finish()
        for reader in (store, other):
            blocks = await read(reader, ref)
            assert payloads_of(blocks) == [b"a", b"", b"ccc", b"d" * 10_000]
            assert [b.header.digest for b in blocks] == [b.header.digest for b in segment.blocks]

    async def test_an_acknowledged_block_is_visible_to_every_reader(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        sources = [store.source(log.ref()), other.source(log.ref())]
        for number in range(20):
            await segment.append(b"%d" % number)
            for source in sources:
                assert await self.visible_end(source, number + 1) == number + 1
                found = [block async for block in source.blocks(number)]
                assert payloads_of(found) == [b"%d" % number]
        for source in sources:
            await source.close()
        await segment.writer.abandon()

    async def test_nothing_is_visible_before_the_first_block(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        base = End(block=3, seq=17, digest="ab" * 16)
        segment = await log.open(store, base=base)
        source = other.source(log.ref())
        assert await source.visible_end() == 17
        assert await source.seq_at(FIRST_US) == 17
        assert [block async for block in source.blocks(17)] == []
        await segment.append(b"first")
        assert await self.visible_end(source, 18) == 18
        assert payloads_of([block async for block in source.blocks(17)]) == [b"first"]
        await source.close()
        await segment.writer.abandon()

    async def test_reading_starts_with_the_block_that_holds_the_seq(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        counts = [3, 1, 0, 5, 2, 1, 4]
        for count in counts:
            control = None if count else GrantProducer(id="p", epoch=1)
            await segment.submit(segment.pack([b"x"] * count, control=control))
        ref = await segment.finish()
        starts = [sum(counts[:n]) for n in range(len(counts) + 1)]
        for seq in range(sum(counts)):
            first = (await read(other, ref, seq))[0]
            holds = max(n for n in range(len(counts)) if counts[n] and starts[n] <= seq)
            # blocks without entries right before it may come too
            assert first.header.number in range(holds - (counts[holds - 1] == 0), holds + 1)
        behind = await read(other, ref, sum(counts))
        assert all(block.header.end_seq == sum(counts) for block in behind)

    async def test_a_block_without_entries_reaches_a_reader_who_waits_at_the_tail(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.append(b"a", b"b")
        source = other.source(log.ref())
        assert await self.visible_end(source, 2) == 2
        assert len([block async for block in source.blocks(0)]) == 1
        await segment.submit(segment.pack(control=EndLog()))
        found = [block async for block in source.blocks(2)]
        while self.lags and not found:
            await source.wait_visible(2, 1000)
            found = [block async for block in source.blocks(2)]
        assert [block.controls for block in found] == [(EndLog(),)]
        await source.close()
        await segment.writer.abandon()

    async def test_seq_at_finds_the_first_entry_of_a_time(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        times = [10, 20, 20, 30, 50, 50, 50, 80, 90]
        for start in range(0, len(times), 3):
            block = segment.pack([b"x"] * 3, timestamps=times[start : start + 3])
            await segment.submit(block)
        source = other.source(await segment.finish())
        for wanted in range(5, 96):
            expected = sum(time < wanted for time in times)
            assert await source.seq_at(wanted) == expected
        await source.close()

    async def test_blocks_of_every_size(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        rng = random.Random(5)
        sizes = [0, 1, 100, 3967, 3968, 3969, 70_000, 1 << 20, (4 << 20) + 5, 9 << 20, 1]
        payloads = [rng.randbytes(size) for size in sizes]
        segment = await log.open(store)
        for payload in payloads:
            await segment.append(payload)
        ref = await segment.finish()
        assert payloads_of(await read(other, ref)) == payloads
        assert payloads_of(await read(other, ref, 8)) == payloads[8:]

    async def test_blocks_in_flight_are_acknowledged_in_order(
        self, store: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        order: list[int] = []
        futures: list[asyncio.Future[None]] = []
        for number in range(segment.writer.slots):
            future = segment.submit(segment.pack([b"x" * (100_000 if number == 0 else 1)]))
            future.add_done_callback(partial(_note, order, number))
            futures.append(future)
        await asyncio.wait_for(asyncio.gather(*futures), PATIENCE_S)
        await asyncio.sleep(0)
        assert order == sorted(order)
        assert len(order) == segment.writer.slots
        await segment.finish()

    async def test_a_waiting_reader_learns_of_new_blocks(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        for reader in (store, other):
            source = reader.source(log.ref())
            before = await source.visible_end()
            waiting = asyncio.create_task(until_visible(reader, log.ref(), before))
            await asyncio.sleep(0.05)
            await segment.append(b"x")
            await asyncio.wait_for(waiting, PATIENCE_S)
            await asyncio.wait_for(source.wait_visible(before + 99, 30), PATIENCE_S)
            await source.close()
        await segment.writer.abandon()

    async def test_an_iteration_may_be_left_early(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        for number in range(30):
            await segment.append(b"%d" % number * 1000)
        source = other.source(await segment.finish())
        for _ in range(3):
            iterator = source.blocks(0)
            async for block in iterator:
                if block.header.number == 2:
                    break
            await iterator.aclose()  # type: ignore[attr-defined]
        assert len([block async for block in source.blocks(0)]) == 30
        await source.close()

    async def test_nothing_above_the_end_is_shown(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.append(b"kept")
        end = segment.end
        await segment.append(b"above")
        await segment.writer.abandon()
        ref = log.close(end)
        source = other.source(ref)
        assert await source.visible_end() == 1
        assert payloads_of([block async for block in source.blocks(0)]) == [b"kept"]
        assert [block async for block in source.blocks(1)] == []
        await source.close()

    # -------------------------------------------------------------------- recovery

    async def test_recovery_finds_what_a_dead_writer_left(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        for number in range(50):
            await segment.append(b"%d" % number, b"more")
        await segment.writer.abandon()
        found = await other.recover(log.ref(), token=TAKER)
        assert found == Recovered(
            end=segment.end,
            bytes=sum(block.header.size_bytes for block in segment.blocks),
            first_timestamp_us=FIRST_US,
            last_timestamp_us=FIRST_US + 49,
            facts=found.facts,
        )
        assert list(found.facts) == []
        assert len(payloads_of(await read(other, log.close(segment.end)))) == 100

    async def test_recovery_of_a_segment_without_blocks(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.writer.abandon()
        found = await other.recover(log.ref(), token=TAKER)
        assert found.end is None
        assert (found.bytes, list(found.facts)) == (0, [])
        await other.drop(log.ref(), keep_fence=True)

    async def test_a_block_without_entries_counts_as_a_block(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.submit(segment.pack(control=EndLog()))
        await segment.writer.abandon()
        found = await other.recover(log.ref(), token=TAKER)
        assert found.end == segment.end
        assert [facts.controls for facts in found.facts] == [(EndLog(),)]

    async def test_recovery_returns_the_register_facts_in_order(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        blocks = [
            segment.pack(control=GrantProducer(id="p", epoch=1)),
            segment.pack([b"plain"]),
            segment.pack([b"one", b"two"], producer="p"),
            segment.pack([b"plain"]),
        ]
        for block in blocks:
            await segment.submit(block)
        await segment.writer.abandon()
        found = await other.recover(log.ref(), token=TAKER)
        assert [(len(f.controls), len(f.batches)) for f in found.facts] == [(1, 0), (0, 1)]
        assert (found.facts[1].batches[0].seq, found.facts[1].batches[0].count) == (1, 2)

    async def test_recovery_fences_a_writer_that_lives(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        """The writer was stopped, is taken over, and wakes: it gets nothing acknowledged any more."""
        segment = await log.open(store)
        await segment.append(b"kept")
        end = segment.end
        log.take_over()
        found = await other.recover(log.ref(), token=TAKER)
        assert found.end == end
        ref = log.close(end)
        with pytest.raises((Fenced, OutcomeUnknown)):
            await asyncio.wait_for(segment.append(b"late"), PATIENCE_S)
        with pytest.raises(WoodpeckerError):
            await segment.append(b"later")
        await segment.writer.abandon()
        assert segment.acknowledged_seq == 1
        assert payloads_of(await read(other, ref)) == [b"kept"]

    async def test_recovery_against_a_busy_writer_keeps_all_that_was_acknowledged(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        for attempt in range(5):
            segment = await log.open(store)
            begun = asyncio.Event()
            writing = asyncio.create_task(write_until_failure(segment, begun, 5 + attempt))
            await asyncio.wait_for(begun.wait(), PATIENCE_S)
            log.take_over()
            found = await other.recover(log.ref(), token=TAKER)
            assert found.end is not None
            ref = log.close(found.end)
            await asyncio.wait_for(writing, PATIENCE_S)
            assert segment.acknowledged_seq <= found.end.seq
            assert len(payloads_of(await read(other, ref))) == found.end.seq - ref.segment.base_seq
            await segment.writer.abandon()

    async def test_recovery_may_run_twice_and_at_once(
        self, store: SegmentStore, opened: OpenStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        for number in range(10):
            await segment.append(b"%d" % number)
        takers = [opened() for _ in range(3)]
        for _ in range(2):
            found = await asyncio.gather(
                *(
                    taker.recover(log.ref(), token=f"{number:032x}")
                    for number, taker in enumerate(takers)
                )
            )
            assert [one.end for one in found] == [segment.end] * 3
        await segment.writer.abandon()

    async def test_recovery_after_a_live_close_finds_the_same_end(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        """The writer finished, then died before its closing CAS."""
        segment = await log.open(store)
        await segment.append(b"a")
        await segment.append(b"b")
        await segment.writer.finish(segment.end)
        found = await other.recover(log.ref(), token=TAKER)
        assert found.end == segment.end

    async def test_salvage_of_an_undamaged_segment_loses_nothing(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.append(b"a", b"b")
        log.take_over()
        found = await other.salvage(log.ref(), token=TAKER)
        assert found.end is not None
        assert found.end == segment.end
        with pytest.raises((Fenced, OutcomeUnknown)):
            await asyncio.wait_for(segment.append(b"late"), PATIENCE_S)
        await segment.writer.abandon()
        assert payloads_of(await read(other, log.close(found.end))) == [b"a", b"b"]

    async def test_the_next_segment_goes_on_where_the_last_one_ended(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        first = await log.open(store)
        await first.append(b"a", b"b")
        await first.writer.abandon()
        found = await other.recover(log.ref(), token=TAKER)
        assert found.end is not None
        log.close(found.end)
        log.epoch = 2
        second = await log.open(other)
        await second.append(b"c")
        await second.finish()
        blocks = [*(await read(store, log.ref(0))), *(await read(store, log.ref(1), 2))]
        assert payloads_of(blocks) == [b"a", b"b", b"c"]
        assert blocks[1].header.prev_digest == blocks[0].header.digest

    # -------------------------------------------------------------------- ending

    async def test_a_segment_is_prepared_while_another_is_written(
        self, store: SegmentStore, log: FakeLog
    ) -> None:
        first = await log.open(store)
        await first.append(b"a")
        log.manifest = replace(log.manifest, next_segment_id=1)
        prepared, place, writer = await log.prepare(store)
        await first.append(b"more")
        await first.finish()
        second = log.open_prepared(placed(prepared, place), writer)
        source = store.source(log.ref())
        assert await source.visible_end() == 2
        await source.close()
        await second.append(b"b")
        await second.finish()
        assert payloads_of(await read(store, log.ref(0))) == [b"a", b"more"]
        assert payloads_of(await read(store, log.ref(1), 2)) == [b"b"]

    async def test_nothing_is_sent_after_the_end(self, store: SegmentStore, log: FakeLog) -> None:
        segment = await log.open(store)
        await segment.append(b"a")
        ref = await segment.finish()
        with pytest.raises((WoodpeckerError, AssertionError)):  # a mistake of the driver
            await segment.append(b"late")
        assert payloads_of(await read(store, ref)) == [b"a"]

    async def test_abandon_is_idempotent_and_follows_anything(
        self, store: SegmentStore, log: FakeLog
    ) -> None:
        for ending in ("nothing", "block", "finish"):
            segment = await log.open(store)
            if ending != "nothing":
                await segment.append(b"x")
            if ending == "finish":
                await segment.writer.finish(segment.end)
            await segment.writer.abandon()
            await segment.writer.abandon()
            log.close(segment.end if segment.blocks else End(block=-1, seq=0, digest=ZERO_DIGEST))

    async def test_dropped_blocks_are_not_found(
        self, store: SegmentStore, other: SegmentStore, log: FakeLog
    ) -> None:
        segment = await log.open(store)
        await segment.append(b"a")
        ref = await segment.finish()
        for _ in range(2):
            await store.drop(ref, keep_fence=True)
        with pytest.raises(NotFound):
            await read(other, ref)
        await store.drop(ref, keep_fence=False)
        assert list(await store.held(log.log_id)) == []

    async def test_segments_of_one_log_do_not_disturb_another(
        self, store: SegmentStore, other: SegmentStore
    ) -> None:
        logs = [FakeLog(log_id=f"{number:032x}") for number in range(8)]
        segments = [await log.open(store) for log in logs]
        for number in range(5):
            await asyncio.gather(
                *(s.append(b"%d of %s" % (number, s.log.log_id.encode())) for s in segments)
            )
        for segment in segments:
            ref = await segment.finish()
            expected = [b"%d of %s" % (n, segment.log.log_id.encode()) for n in range(5)]
            assert payloads_of(await read(other, ref)) == expected


def _note(order: list[int], number: int, _done: asyncio.Future[None]) -> None:
    order.append(number)
