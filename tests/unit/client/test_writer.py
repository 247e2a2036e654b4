"""The writer as its user meets it: append, submit, flush, reserve, ready, headers, limits, closing."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tests.unit.client.writing_kit import a_world, idle

from woodpecker.client.entry import Entry
from woodpecker.errors import (
    Closed,
    Conflict,
    Fenced,
    InvalidRequest,
    LogEnded,
    Overloaded,
)
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

KIB, MIB = 1 << 10, 1 << 20


@on_virtual_time
async def test_append_gives_dense_seqs_and_is_durable_on_return():
    async with a_world() as world:
        writer = await world.writer()
        for seq in range(5):
            assert await writer.append(b"%d" % seq) == seq
            assert writer.visible == writer.next_seq == seq + 1
            assert await world.entries() == [b"%d" % n for n in range(seq + 1)]
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_an_empty_batch_carries_nothing_and_ends_no_writer():
    async with a_world() as world, await world.writer(producer="p") as writer:
        with pytest.raises(InvalidRequest, match="at least one entry"):
            await writer.append_many([], sequence=0)
        with pytest.raises(InvalidRequest, match="at least one entry"):
            await writer.append_many([], column=b"x")
        assert await writer.append_many([b"a"], sequence=0) == range(1)


@on_virtual_time
async def test_append_many_is_contiguous_and_one_block():
    async with a_world() as world:
        async with await world.writer() as writer:
            first = writer.submit(b"before")
            assert await writer.append_many([b"a", Entry(b"b"), memoryview(b"c")]) == range(1, 4)
            assert await writer.append_many([]) == range(4, 4)
            assert await first == 0
        batches = [batch async for batch in world.log(1).read_batches()]
        assert any({1, 2, 3} <= set(range(b.first_seq, b.end_seq)) for b in batches)


@on_virtual_time
async def test_append_many_takes_any_iterable():
    async with a_world() as world, await world.writer() as writer:
        assert await writer.append_many(b"%d" % n for n in range(3)) == range(3)
        assert await world.entries() == [b"0", b"1", b"2"]


@on_virtual_time
async def test_a_batch_is_never_split_over_blocks():
    async with a_world() as world:
        async with await world.writer() as writer:
            results = await asyncio.gather(
                *(writer.append_many([bytes([n]) * (300 * KIB)] * 5) for n in range(20))
            )
        batches = [b async for b in world.log(1).read_batches()]
        blocks = [range(b.first_seq, b.end_seq) for b in batches]
        for seqs in results:
            assert sum(1 for block in blocks if seqs[0] in block and seqs[-1] in block) == 1


@on_virtual_time
async def test_submit_keeps_the_order_of_the_calls():
    async with a_world() as world, await world.writer() as writer:
        futures = [writer.submit(b"%d" % n) for n in range(100)]
        assert await asyncio.gather(*futures) == list(range(100))


@on_virtual_time
async def test_submit_refuses_when_full_and_ready_tells_when_not():
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        futures = []
        with pytest.raises(Overloaded):  # noqa: PT012
            while True:
                futures.append(writer.submit(b"x" * KIB))
        await writer.ready()
        futures.append(writer.submit(b"y"))
        assert await asyncio.gather(*futures) == list(range(len(futures)))


@on_virtual_time
async def test_an_item_above_the_queue_is_admitted_when_it_is_empty():
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        assert await writer.append(b"x" * MIB) == 0
        assert await writer.submit(b"x" * MIB) == 1
        assert await writer.append_many([b"x" * MIB] * 3) == range(2, 5)


@pytest.mark.parametrize("size", [1, 60, 100, 1000, 60 * KIB])
@on_virtual_time
async def test_append_waits_and_is_never_overloaded(size: int):
    async with a_world(queue_max_bytes=64 * KIB) as world:
        async with await world.writer() as writer:
            jobs: list[Any] = [
                writer.append(b"x" * size) for _ in range(3000 if size < 2000 else 30)
            ]
            jobs += [writer.append_many([b"y"] * 100) for _ in range(30)]
            jobs += [writer.append(b"z", headers=[(b"n", b"v" * size)]) for _ in range(30)]
            await asyncio.gather(*jobs)
        idle(writer)


@on_virtual_time
async def test_waiting_appends_are_let_in_in_order():
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        sizes = [50, 200, 3, 60, 1, 64, 10] * 20
        tasks = [asyncio.create_task(writer.append(bytes(n * KIB))) for n in sizes]
        assert await asyncio.gather(*tasks) == list(range(len(sizes)))


@on_virtual_time
async def test_a_large_append_is_not_starved_by_small_submits():
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        world.site().on_objects.max_delay_ms = 50
        large: list[asyncio.Task[int]] = []

        async def feed() -> None:
            while not large[0].done():
                try:
                    writer.submit(b"x" * 100)
                except Overloaded:
                    await writer.ready()
                await asyncio.sleep(0.001)

        writer.submit(b"first")
        large.append(asyncio.create_task(writer.append(bytes(MIB))))
        await asyncio.wait_for(asyncio.gather(feed(), large[0]), 60)


@on_virtual_time
async def test_a_cancelled_waiter_leaves_its_place_to_the_next():
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        world.site().on_objects.script("create", Fault.HELD, key="/")
        first = writer.submit(b"x" * (40 * KIB))
        await asyncio.sleep(1)
        large = asyncio.create_task(writer.append(bytes(60 * KIB)))
        small = asyncio.create_task(writer.append(b"small"))
        await asyncio.sleep(1)
        large.cancel()
        await asyncio.sleep(1)
        assert writer.next_seq == 2, "the small one fits and need not wait any more"
        world.site().on_objects.gate.set()
        assert (await first, await small) == (0, 1)
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_reserve_tells_the_seq_and_submit_is_admitted():
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        futures = []
        with pytest.raises(Overloaded):  # noqa: PT012
            while True:
                seq = writer.reserve(500)
                futures.append(writer.submit(b"x" * 500))  # never refused after reserve
                assert seq == len(futures) - 1
        await asyncio.gather(*futures)


@on_virtual_time
async def test_flush_cuts_linger_short():
    async with a_world(linger_ms=5_000) as world, await world.writer() as writer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        future = writer.submit(b"a")
        await writer.flush()
        assert future.done()
        assert loop.time() - began < 1
        future = writer.submit(b"b")
        await future
        assert loop.time() - began >= 5


@on_virtual_time
async def test_linger_collects_entries_into_one_block():
    async with a_world(linger_ms=1_000) as world, await world.writer() as writer:
        futures = []
        for _ in range(5):
            futures.append(writer.submit(b"a"))
            await asyncio.sleep(0.1)
        await asyncio.gather(*futures)
        assert [len(b) async for b in world.log(1).read_batches()] == [5]


@on_virtual_time
async def test_flush_ends_although_others_go_on_appending():
    async with a_world() as world:
        writer = await world.writer()
        world.site().on_objects.max_delay_ms = 20
        is_over = False

        async def busy() -> None:
            while not is_over:
                writer.submit(b"x")
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(busy()) for _ in range(3)]
        await asyncio.sleep(0.1)
        mine = writer.submit(b"mine")
        await asyncio.wait_for(writer.flush(), 10)
        assert mine.done()
        is_over = True
        await asyncio.gather(*tasks)
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_close_ends_although_others_go_on_appending():
    async with a_world() as world:
        writer = await world.writer()
        world.site().on_objects.max_delay_ms = 20
        acknowledged = []

        async def busy() -> None:
            with pytest.raises(Closed):  # noqa: PT012
                while True:
                    acknowledged.append(await writer.append(b"x"))

        tasks = [asyncio.create_task(busy()) for _ in range(20)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(writer.close(), 10)
        await asyncio.gather(*tasks)
        assert sorted(acknowledged) == list(range(len(acknowledged)))
        assert len(await world.entries()) == len(acknowledged)
        idle(writer)


@on_virtual_time
async def test_flush_of_an_idle_writer_returns_at_once():
    async with a_world() as world, await world.writer() as writer:
        await writer.flush()
        await writer.append(b"a")
        await writer.flush()


@on_virtual_time
async def test_expect_seq_is_judged_when_the_seq_is_given_out():
    async with a_world() as world, await world.writer() as writer:
        assert await writer.append(b"a", expect_seq=0) == 0
        pending = writer.submit(b"b")
        for wrong in (0, 1, 3):
            with pytest.raises(Conflict) as caught:
                await writer.append(b"x", expect_seq=wrong)
            assert caught.value.actual == 2
            with pytest.raises(Conflict) as caught:
                await writer.append_many([b"x", b"y"], expect_seq=wrong)
            assert caught.value.actual == 2
        assert await writer.append_many([b"c", b"d"], expect_seq=2) == range(2, 4)
        assert await writer.append_many([], expect_seq=4) == range(4, 4)
        await pending
        assert await world.entries() == [b"a", b"b", b"c", b"d"]
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_headers_keep_order_duplicates_and_empty_names():
    async with a_world() as world:
        async with await world.writer() as writer:
            await writer.append(b"a", headers={"id": b"7", b"raw": "text"})
            await writer.append(b"b", headers=[(b"k", b"1"), ("k", b"2"), (b"", b"")])
            await writer.append(b"c")
            await writer.append_many([Entry(b"d", headers={"x": "y"}), b"e"])
            for wrong in ([("k",)], {"k": 1}, 7, ["ab", 5]):
                with pytest.raises(InvalidRequest):
                    await writer.append(b"no", headers=wrong)
        got = {e.payload: e.headers async for e in world.log(1).read()}
        assert got == {
            b"a": ((b"id", b"7"), (b"raw", b"text")),
            b"b": ((b"k", b"1"), (b"k", b"2"), (b"", b"")),
            b"c": (),
            b"d": ((b"x", b"y"),),
            b"e": (),
        }


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
@on_virtual_time
async def test_what_is_read_is_what_was_written(compression: str):
    payloads = [b"", b"x", b"ab" * 5000, os.urandom(100_000), b"z" * (5 * MIB), b"", b"end"]
    async with a_world(compression=compression) as world:
        async with await world.writer() as writer:
            await asyncio.gather(*(writer.append(p, headers={"n": p[:9]}) for p in payloads))
        assert await world.entries() == payloads


@on_virtual_time
async def test_payloads_that_are_no_bytes_are_refused():
    async with a_world() as world, await world.writer() as writer:
        for wrong in ("text", 7, None, ["a"], Entry(b"a")):
            with pytest.raises(InvalidRequest):
                await writer.append(wrong)
            with pytest.raises(InvalidRequest):
                await writer.append_many([b"a", wrong] if wrong != Entry(b"a") else "text")
        with pytest.raises(InvalidRequest):
            await writer.append_many(b"one payload")
        assert await writer.append(bytearray(b"fine")) == 0


@on_virtual_time
async def test_a_buffer_changed_after_the_call_does_not_change_the_log():
    async with a_world() as world, await world.writer() as writer:
        buffer = bytearray(b"before")
        future = writer.submit(buffer)
        buffer[:] = b"after!"
        await future
        assert await world.entries() == [b"before"]


@on_virtual_time
async def test_the_largest_entry_and_one_byte_more():
    async with a_world() as world, await world.writer() as writer:
        assert await writer.append(bytes(64 * MIB)) == 0
        with pytest.raises(InvalidRequest):
            await writer.append(bytes(64 * MIB + 1))
        with pytest.raises(InvalidRequest):
            writer.submit(bytes(64 * MIB + 1))
        assert await writer.append(b"next") == 1
        assert [len(p) for p in await world.entries()] == [64 * MIB, 4]


@on_virtual_time
async def test_the_largest_batch_and_one_byte_more():
    async with a_world() as world, await world.writer() as writer:
        half = bytes(64 * MIB)
        with pytest.raises(InvalidRequest):
            await writer.append_many([half, half, b"x"])
        assert await writer.append_many([half, half]) == range(2)
        assert writer.next_seq == 2


@on_virtual_time
async def test_zero_length_entries_by_the_million():
    async with a_world(queue_max_bytes=1 << 30) as world, await world.writer() as writer:
        futures = [writer.submit(b"") for _ in range(1_000_000)]
        assert await futures[-1] == 999_999
        assert await writer.append_many([b""] * MIB) == range(1_000_000, 1_000_000 + MIB)
        counts = [len(b) async for b in world.log(1).read_batches()]
        assert sum(counts) == 1_000_000 + MIB
        assert max(counts) <= MIB + 140_000
        assert len(counts) < 40
        with pytest.raises(InvalidRequest):
            await writer.append_many([b""] * (MIB + 1))


@on_virtual_time
async def test_too_many_header_bytes_are_refused_before_a_seq_is_given_out():
    async with a_world() as world, await world.writer() as writer:
        big = {"k": bytes(40 * MIB)}
        with pytest.raises(InvalidRequest):
            await writer.append_many([Entry(b"", headers=big), Entry(b"", headers=big)])
        assert await writer.append(b"ok", headers=big) == 0


@on_virtual_time
async def test_a_caller_column_above_the_limit_does_not_end_the_writer():
    async with a_world() as world, await world.writer() as writer:
        with pytest.raises(InvalidRequest):
            await writer.append_many([b"a"], column=bytes(64 * KIB + 1))
        assert await writer.append_many([b"a"], column=bytes(64 * KIB)) == range(1)
        [batch] = [b async for b in world.log(1).read_batches()]
        assert [column.data for column in batch.columns] == [bytes(64 * KIB)]


@on_virtual_time
async def test_a_cancelled_append_keeps_its_seq():
    async with a_world() as world, await world.writer() as writer:
        task = asyncio.create_task(writer.append(b"cancelled"))
        await asyncio.sleep(0)
        assert writer.next_seq == 1
        task.cancel()
        assert await writer.append(b"next") == 1
        assert await world.entries() == [b"cancelled", b"next"]


@pytest.mark.parametrize("turns", range(12))
@on_virtual_time
async def test_cancelling_an_append_anywhere_leaves_the_writer_usable(turns: int):
    async with a_world(queue_max_bytes=64 * KIB) as world:
        async with await world.writer() as writer:
            writer.submit(b"x" * (50 * KIB))
            tasks = [asyncio.create_task(writer.append(b"y" * (30 * KIB))) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert await writer.append(b"last") == writer.next_seq - 1
            entries = await world.entries()
            assert len(entries) == writer.next_seq
            for seq in done:
                if isinstance(seq, int):
                    assert entries[seq] == b"y" * (30 * KIB)
        idle(writer)


@on_virtual_time
async def test_close_drains_and_is_idempotent_also_at_the_same_time():
    async with a_world() as world:
        writer = await world.writer()
        futures = [writer.submit(b"%d" % n) for n in range(10)]
        await asyncio.gather(writer.close(), writer.close(), writer.close())
        assert all(future.done() for future in futures)
        await writer.close()
        with pytest.raises(Closed):
            writer.submit(b"late")
        with pytest.raises(Closed):
            await writer.append(b"late")
        with pytest.raises(Closed):
            await writer.append_many([b"late"])
        with pytest.raises(Closed):
            writer.reserve(1)
        with pytest.raises(Closed):
            await writer.ready()
        with pytest.raises(Closed):
            await writer.grant_producer("late")
        assert (await world.manifest()).open_segment is None
        assert len(await world.entries()) == 10


@on_virtual_time
async def test_a_cancelled_close_loses_nothing_and_leaves_nothing_waiting():
    async with a_world() as world:
        writer = await world.writer()
        assert await writer.append(b"kept") == 0
        world.site().on_objects.script("create", Fault.HELD)
        sent = writer.submit(b"in flight")
        await asyncio.sleep(1)
        waiting = [writer.submit(b"x" * (5 * MIB)) for _ in range(12)]
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        done = await asyncio.wait_for(asyncio.gather(sent, *waiting, return_exceptions=True), 5)
        assert all(isinstance(answer, Exception) for answer in done)
        world.calm()
        assert (await world.entries())[0] == b"kept"
        idle(writer)


@on_virtual_time
async def test_leaving_without_close_loses_nothing_acknowledged():
    async with a_world() as world:
        writer = await world.writer()
        await writer.append_many([b"a", b"b"])
        async with await world.writer(1) as following:
            assert await following.append(b"c") == 2
        assert await world.entries() == [b"a", b"b", b"c"]
        with pytest.raises(Fenced) as caught:
            await writer.append(b"fenced")
        assert caught.value.outcome == "not_written"
        await writer.close()


@on_virtual_time
async def test_after_a_fork_the_child_is_refused_and_may_close():
    async with a_world() as world:
        writer = await world.writer()
        await writer.append(b"a")
        parents = writer._pump.error
        writer.on_fork()
        with pytest.raises(Closed):
            await writer.append(b"child")
        with pytest.raises(Closed):
            writer.submit(b"child")
        with pytest.raises(Closed):
            await writer.flush()
        with pytest.raises(Closed):
            await writer.still_owner()
        with pytest.raises(Closed):
            await writer.resolve()
        requests = len(world.site().on_objects.requests)
        await writer.close()
        assert len(world.site().on_objects.requests) == requests, "the parent's segment is let be"
        writer._pump.error = parents
        await writer._pump.close()


@on_virtual_time
async def test_still_owner_shares_reads_but_never_one_begun_before_the_call():
    async with a_world() as world, await world.writer() as writer:
        faults = world.site().on_metadata
        faults.script("read", Fault.HELD)
        faults.requests.clear()
        first = asyncio.create_task(writer.still_owner())
        await asyncio.sleep(1)
        others = [asyncio.create_task(writer.still_owner()) for _ in range(20)]
        await asyncio.sleep(1)
        assert faults.requests.count(("read", "meta/logs/orders")) == 1
        faults.gate.set()
        assert await asyncio.gather(first, *others) == [True] * 21
        assert sum(op == "read" for op, _ in faults.requests) == 2
        async with await world.writer(1):
            assert await writer.still_owner() is False


@on_virtual_time
async def test_nobody_is_shouted_at_when_a_question_fails_that_was_given_up():
    """Simulator, seed 139 of kind object with a planted bug."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    async with a_world() as world, await world.writer() as writer:
        faults = world.site().on_metadata
        faults.script("read", Fault.UNAVAILABLE)
        faults.max_delay_ms = 1_000
        asked = asyncio.create_task(writer.still_owner())
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.sleep(10)
        assert faults.injected[Fault.UNAVAILABLE] == 1
        assert await writer.still_owner() is True
    assert complaints == []


@on_virtual_time
async def test_end_is_durable_and_idempotent():
    async with a_world() as world:
        async with await world.writer() as writer:
            await writer.append(b"a")
        followed = [e async for e in world.log(2).read()]
        follower = asyncio.create_task(_follow(world.log(2)))
        await asyncio.sleep(1)
        assert await world.log(1).end() == 1
        assert await world.log(1).end() == 1
        assert (await world.manifest()).ended
        with pytest.raises(LogEnded):
            await world.writer()
        assert [e.payload for e in followed] == await asyncio.wait_for(follower, 60) == [b"a"]


async def _follow(log):
    return [entry.payload async for entry in log.read(follow=True)]


@pytest.mark.parametrize("options", [{"segment_max_blocks": 1}, {"segment_max_blocks": 2}])
@on_virtual_time
async def test_a_log_can_be_ended_when_a_roll_is_due(options):
    async with a_world(**options) as world:
        async with await world.writer() as writer:
            await writer.append(b"a")
        assert await world.log().end() == 1
        assert (await world.manifest()).ended


@on_virtual_time
async def test_nothing_is_sequenced_after_the_end():
    async with a_world() as world:
        writer = await world.writer()
        await writer.append(b"a")
        ending = asyncio.create_task(writer.end_log())
        await asyncio.sleep(0)
        with pytest.raises((LogEnded, Closed)):
            writer.submit(b"b")
        assert await ending == 1
        assert await world.entries() == [b"a"]


@on_virtual_time
async def test_a_taker_over_finishes_an_end_that_crashed_before_its_cas():
    async with a_world() as world:
        writer = await world.writer()
        await writer.append(b"a")
        world.site().on_metadata.is_away = True
        ending = asyncio.create_task(writer.end_log())
        await asyncio.sleep(5)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        assert not (await world.manifest()).ended
        with pytest.raises(LogEnded):
            await world.writer(1)
        assert (await world.manifest()).ended
        assert await world.log(1).end() == 1


@pytest.mark.parametrize("refused_by", ["disk", "expect_seq", "timestamp", "ready"])
@on_virtual_time
async def test_who_is_let_in_and_then_refused_lets_the_next_one_in(refused_by: str):
    async with a_world(queue_max_bytes=64 * KIB) as world, await world.writer() as writer:
        assert await writer.append(b"x") == 0
        world.site().on_objects.script("create", Fault.HELD)
        first = writer.submit(b"x" * (60 * KIB))
        await asyncio.sleep(1)
        size = b"y" * (40 * KIB)  # one at a time
        calls = {
            "disk": lambda: writer.append(size),
            "expect_seq": lambda: writer.append(size, expect_seq=99),
            "timestamp": lambda: writer.append(size, timestamp_us=-1),
            "ready": writer.ready,
        }
        with pytest.raises(Overloaded):
            writer.submit(size)
        waiting = [asyncio.create_task(calls[refused_by]()) for _ in range(3)]
        last = asyncio.create_task(writer.append(size))
        await asyncio.sleep(1)
        world.site().disk.is_full = refused_by == "disk"
        world.site().on_objects.gate.set()
        answers = await asyncio.wait_for(
            asyncio.gather(first, *waiting, last, return_exceptions=True), 60
        )
        assert answers[0] == 1
        assert all(not isinstance(answer, int) for answer in answers[1:4])
        assert answers[4] == 2 or refused_by == "disk"
        world.site().disk.is_full = False


@on_virtual_time
async def test_submit_many_gives_the_seqs_that_next_seq_told():
    async with a_world() as world:
        writer = await world.writer()
        first = writer.next_seq
        one = writer.submit_many([b"a", b"b"], column=b"x")
        two = writer.submit_many([b"c"])
        assert writer.next_seq == first + 3
        assert await two == range(first + 2, first + 3)
        assert await one == range(first, first + 2)
        await writer.close()


@on_virtual_time
async def test_a_budget_spreads_blocks_over_the_month_but_a_burst_after_a_pause_is_not_held_up():
    async with a_world(max_cost_per_month=5) as world, await world.writer() as writer:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(3600)  # saved: 1388 blocks
        began = loop.time()
        for _ in range(1000):
            await writer.append(b"a")
        assert loop.time() - began < 10
        for _ in range(386):
            await writer.append(b"a")
        before, began = writer._pump.visible, loop.time()
        while loop.time() - began < 600:
            writer.submit(b"b")
            await asyncio.sleep(0.05)
        blocks = [len(b) async for b in world.log(1).read_batches(before)]
        assert sum(blocks) > 11_000
        assert len(blocks) == pytest.approx(600 / 2.592, abs=5)


@on_virtual_time
async def test_with_a_budget_linger_is_the_longest_wait_and_flush_waits_for_nothing():
    async with (
        a_world(max_cost_per_month=1, linger_ms=2_000) as world,
        await world.writer() as writer,
    ):
        loop = asyncio.get_running_loop()
        await writer.append(b"paid")
        began = loop.time()
        await writer.append(b"not paid: a dollar is a block in 13 s")
        assert 2 <= loop.time() - began < 2.2
        began = loop.time()
        future = writer.submit(b"flushed")
        await writer.flush()
        assert future.done()
        assert loop.time() - began < 0.2


@on_virtual_time
async def test_where_nothing_waits_nothing_is_sent():
    async with a_world(max_cost_per_month=1_000_000) as world, await world.writer() as writer:
        await writer.append(b"a")
        objects = len(world.bucket.objects)
        await asyncio.sleep(3000)
        assert len(world.bucket.objects) == objects
