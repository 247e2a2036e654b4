"""Segments under a writer: rolls by size, blocks and age, stores that are away, answers that are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.client.writing_kit import a_world, idle

from woodpecker.core.ids import State
from woodpecker.errors import Fenced, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

KIB = 1 << 10
ROLLS = [
    {"segment_max_blocks": 1},
    {"segment_max_blocks": 3},
    {"segment_max_bytes": 64 * KIB},
    {"segment_max_age_s": 1},
]


@pytest.mark.parametrize("options", ROLLS)
@pytest.mark.parametrize("delay_ms", [0, 300])
@on_virtual_time
async def test_rolling_loses_and_doubles_nothing_and_keeps_the_order(options, delay_ms):
    async with a_world(**options) as world:
        site = world.site()
        site.on_objects.max_delay_ms = site.on_metadata.max_delay_ms = delay_ms
        async with await world.writer() as writer:

            async def append(task: int) -> list[int]:
                return [await writer.append(b"%d %d" % (task, n) + bytes(KIB)) for n in range(30)]

            seqs = await asyncio.gather(*(append(task) for task in range(4)))
        idle(writer)
        world.calm()
        assert sorted(seq for mine in seqs for seq in mine) == list(range(120))
        entries = [e.rstrip(b"\0") for e in await world.entries()]
        for task, mine in enumerate(seqs):
            assert [entries[seq] for seq in mine] == [b"%d %d" % (task, n) for n in range(30)]
        manifest = await world.manifest()
        assert len(manifest.segments) > 1 or "segment_max_age_s" in options
        assert manifest.open_segment is None or manifest.open_segment.base_seq == 120


@on_virtual_time
async def test_an_idle_segment_is_closed_when_it_is_old_and_the_writer_goes_on():
    async with a_world(segment_max_age_s=10) as world:
        writer = await world.writer()
        await writer.append(b"a")
        await asyncio.sleep(9)
        assert (await world.manifest()).open_segment is not None
        await asyncio.sleep(3)
        manifest = await world.manifest()
        assert [s.state for s in manifest.segments] == [State.CLOSED]
        assert await writer.append(b"b") == 1
        await writer.close()
        assert await world.entries() == [b"a", b"b"]
        idle(writer)


@on_virtual_time
async def test_a_segment_made_ready_before_an_aged_close_is_used_after_it():
    async with a_world(segment_max_age_s=10, segment_max_blocks=5) as world:
        writer = await world.writer()
        for n in range(4):  # four fifths: the next one is made ready
            assert await writer.append(b"x") == n
        await asyncio.sleep(12)
        assert (await world.manifest()).open_segment is None
        assert await writer.append(b"y") == 4
        await writer.close()
        assert len(await world.entries()) == 5


@on_virtual_time
async def test_an_empty_open_segment_does_not_age():
    async with a_world(segment_max_age_s=10, segment_max_blocks=1) as world:
        writer = await world.writer()
        await writer.append(b"a")
        await asyncio.sleep(1)
        assert (await world.manifest()).open_segment is not None, "rolled, nothing in it yet"
        loop: Any = asyncio.get_running_loop()
        calls = 0
        call_later = loop.call_later

        def counting(*args, **kwargs):
            nonlocal calls
            calls += 1
            return call_later(*args, **kwargs)

        loop.call_later = counting
        await asyncio.sleep(1000)
        assert calls <= 110
        assert len((await world.manifest()).segments) == 2
        assert await writer.append(b"b") == 1
        await writer.close()


@on_virtual_time
async def test_an_idle_writer_survives_that_the_metadata_store_is_away_when_its_segment_is_old():
    async with a_world(segment_max_age_s=10, append_timeout_ms=1_000) as world:
        writer = await world.writer()
        await writer.append(b"a")
        world.site().on_metadata.is_away = True
        await asyncio.sleep(60)
        world.calm()
        assert await writer.append(b"b") == 1
        await asyncio.sleep(60)
        assert (await world.manifest()).open_segment is None
        await writer.close()
        assert await world.entries() == [b"a", b"b"]


@on_virtual_time
async def test_while_the_metadata_store_is_away_the_segment_grows_then_appends_wait_then_go_on():
    async with a_world(segment_max_blocks=4) as world:
        writer = await world.writer()
        assert await writer.append(b"x") == 0
        world.site().on_metadata.is_away = True
        for n in range(1, 16):
            assert await writer.append(b"x") == n
        waiting = [asyncio.create_task(writer.append(b"w")) for _ in range(5)]
        await asyncio.sleep(20)
        assert sum(task.done() for task in waiting) <= 1
        assert len((await world.manifest()).segments) == 1
        world.site().on_metadata.calm()
        assert sorted(await asyncio.gather(*waiting)) == list(range(16, 21))
        await writer.close()
        assert len(await world.entries()) == 21
        idle(writer)


@on_virtual_time
async def test_a_wait_for_the_metadata_store_is_bounded_and_close_does_not_hang():
    async with a_world(segment_max_blocks=1, append_timeout_ms=5_000) as world:
        writer = await world.writer()
        assert await writer.append(b"x") == 0
        await asyncio.sleep(1)
        world.site().on_metadata.is_away = True
        answers: list[object] = []
        for _ in range(8):
            answers += await asyncio.gather(writer.append(b"x"), return_exceptions=True)
        assert isinstance(answers[-1], NotWritten)
        written = sum(isinstance(answer, int) for answer in answers)
        world.site().on_metadata.calm()
        await asyncio.sleep(1)
        assert await writer.append(b"y") == 1 + written
        world.site().on_metadata.is_away = True
        await asyncio.wait_for(writer.close(), 120)
        world.calm()
        assert len(await world.entries()) == 2 + written


@on_virtual_time
async def test_a_first_append_waits_for_the_metadata_store_as_long_as_it_may():
    async with a_world(append_timeout_ms=5_000) as world:
        writer = await world.writer()
        world.site().on_metadata.is_away = True
        with pytest.raises(NotWritten):
            await writer.append(b"no")
        task = asyncio.create_task(writer.append(b"a"))
        await asyncio.sleep(2)
        world.calm()
        assert await task == 0
        await writer.close()
        idle(writer)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.LATE, Fault.UNAVAILABLE])
@pytest.mark.parametrize("nth", range(4))
@on_virtual_time
async def test_a_lost_answer_of_a_cas_changes_nothing(fault: Fault, nth: int):
    """The CAS that opens, rolls, rolls again, or closes."""
    async with a_world(segment_max_blocks=2) as world:
        writer = await world.writer()
        faults = world.site().on_metadata
        for seq in range(6):
            if seq == 2 * nth:
                faults.script("put", fault, times=2)
            assert await writer.append(b"%d" % seq) == seq
        if nth == 3:
            faults.script("put", fault, times=2)
        await writer.close()
        assert faults.injected[fault] >= 1
        assert await world.entries() == [b"%d" % n for n in range(6)]
        idle(writer)


@pytest.mark.parametrize("is_applied", [False, True])
@pytest.mark.parametrize("step", ["open", "roll"])
@on_virtual_time
async def test_a_cas_whose_outcome_stays_unknown_ends_the_writer(is_applied: bool, step: str):
    async with a_world(segment_max_blocks=2, append_timeout_ms=1_000) as world:
        site = world.site()
        writer = await world.writer()
        acknowledged: list[object] = []
        if step == "roll":
            acknowledged.append(await writer.append(b"0"))
        catalog: Any = site.env.catalog
        store = catalog.store.inner
        put = store.put

        async def unanswered(key, value, *, expect):
            site.on_metadata.is_away = True
            if is_applied:
                await put(key, value, expect=expect)
            raise OutcomeUnknown("the connection was cut")

        store.put = unanswered
        answers: list[object] = [*await asyncio.gather(writer.append(b"1"), return_exceptions=True)]
        if step == "roll":
            acknowledged += answers
            answers = await asyncio.gather(
                *(writer.append(b"no") for _ in range(3)), return_exceptions=True
            )
        assert all(isinstance(answer, NotWritten) for answer in answers)
        with pytest.raises(OutcomeUnknown):
            await writer.flush()
        await writer.close()
        store.put = put
        world.calm()
        async with await world.writer(1) as taker:
            assert await taker.append(b"end") == len(acknowledged)
        assert await world.entries() == [*[b"0", b"1"][: len(acknowledged)], b"end"]
        assert site.disk.left.count("abandon") >= 1, "what was made ready is let go"
        idle(writer)


@pytest.mark.parametrize("turns", range(0, 60, 3))
@on_virtual_time
async def test_close_at_any_moment_of_a_roll_or_open(turns: int):
    async with a_world(segment_max_blocks=2) as world:
        site = world.site()
        site.on_objects.max_delay_ms = site.on_metadata.max_delay_ms = 5
        writer = await world.writer()
        futures = [writer.submit(b"%d" % n) for n in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0.001)
        futures += [writer.submit(b"%d" % n) for n in range(3, 5)]
        await asyncio.wait_for(writer.close(), 60)
        assert [future.result() for future in futures] == list(range(5))
        assert await world.entries() == [b"%d" % n for n in range(5)]
        idle(writer)


@pytest.mark.parametrize("turns", range(0, 60, 3))
@on_virtual_time
async def test_a_close_cancelled_at_any_moment_loses_nothing_acknowledged(turns: int):
    async with a_world(segment_max_blocks=2) as world:
        site = world.site()
        site.on_objects.max_delay_ms = site.on_metadata.max_delay_ms = 20
        writer = await world.writer()
        futures = [writer.submit(b"%d" % n) for n in range(9)]
        closing = asyncio.create_task(writer.close())
        for _ in range(turns):
            await asyncio.sleep(0.001)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        answers = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10)
        world.calm()
        await asyncio.sleep(5)
        async with await world.writer(1) as taker:
            await taker.append(b"end")
        entries = await world.entries()
        await writer.close()
        for n, answer in enumerate(answers):
            if answer == n:
                assert entries[n] == b"%d" % n
            elif isinstance(answer, NotWritten):
                assert b"%d" % n not in entries
        idle(writer)


@on_virtual_time
async def test_the_next_writer_is_not_hindered_by_one_who_made_a_segment_ready():
    """Two writers of one process: the one beaten prepares segment 1 after the other has opened it."""
    async with a_world(segment_max_blocks=5) as world:
        first = await world.writer()
        for n in range(3):
            await first.append(b"%d" % n)
        world.site().on_metadata.script("read", Fault.HELD)  # prepare has asked, the answer is late
        await first.append(b"3")
        await asyncio.sleep(1)
        second = await world.writer()
        assert await second.append(b"4") == 4
        world.site().on_metadata.gate.set()
        await asyncio.sleep(1)
        follower = asyncio.create_task(_take(world.log(0), 6))
        assert await second.append(b"5") == 5
        assert await asyncio.wait_for(follower, 10) == [b"%d" % n for n in range(6)]
        with pytest.raises(Fenced):
            await first.append(b"no")
        await first.close()
        await second.close()


async def _take(log, count: int) -> list[bytes]:
    found = []
    async for entry in log.read(follow=True):
        found.append(entry.payload)
        if len(found) == count:
            return found
    raise AssertionError("ended early")


@on_virtual_time
async def test_altered_options_count_from_the_next_segment_on():
    async with a_world(segment_max_blocks=2) as world:
        writer = await world.writer()
        assert await writer.append(b"a") == 0
        await world.log(3).alter(queue_max_bytes=64 * KIB, timestamps="require", linger_ms=5)
        assert await writer.append(b"b") == 1
        await asyncio.sleep(1)
        with pytest.raises(WoodpeckerError, match="require"):
            await writer.append(b"no time")
        assert await writer.append(b"c", timestamp_us=1) == 2
        assert writer._queue.max_bytes == 64 * KIB
        await writer.close()
        assert await world.entries() == [b"a", b"b", b"c"]


@on_virtual_time
async def test_a_shorter_linger_counts_for_what_waits_when_the_next_segment_begins():
    async with a_world(linger_ms=60_000, segment_max_age_s=1) as world:
        writer = await world.writer()
        writer.submit(b"a")
        await writer.flush()
        await world.log(3).alter(linger_ms=5_000)
        waiting = writer.submit(
            b"b"
        )  # under the old linger; the roll by age comes before that ends
        assert await asyncio.wait_for(waiting, 10) == 1
        await writer.close()
