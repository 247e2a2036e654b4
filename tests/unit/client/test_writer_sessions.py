"""Producer sessions: repeats, gaps, epochs, what is forgotten, across take-over and failures."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.client.writing_kit import a_world, idle

from woodpecker.errors import Conflict, InvalidRequest, NotWritten
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_a_repeat_gets_the_first_result_final_or_pending():
    async with a_world() as world:
        async with await world.writer(producer="p") as writer:
            first = await writer.append_many([b"a", b"b"], sequence=0)
            assert first == range(2)
            assert await writer.append_many([b"a", b"b"], sequence=0) == first
            results = await asyncio.gather(
                *(writer.append_many([b"c"], sequence=1) for _ in range(10))
            )
            assert results == [range(2, 3)] * 10
            assert writer.next_sequence == 2
        assert await world.entries() == [b"a", b"b", b"c"]
        idle(writer)


@on_virtual_time
async def test_a_repeat_of_a_batch_nobody_waits_for_any_more():
    async with a_world() as world, await world.writer(producer="p") as writer:
        world.site().on_objects.script("create", Fault.HELD, key=world.log_id)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(writer.append_many([b"a"], sequence=0), 1)
        again = asyncio.create_task(writer.append_many([b"a"], sequence=0))
        await asyncio.sleep(1)
        assert not again.done()
        world.site().on_objects.gate.set()
        assert await again == range(1)
        assert await world.entries() == [b"a"]


@on_virtual_time
async def test_gaps_old_epochs_and_unknown_producers_are_distinct():
    async with a_world() as world, await world.writer(producer="p") as writer:
        await writer.append_many([b"a"], sequence=0)
        with pytest.raises(Conflict, match="gap") as caught:
            await writer.append_many([b"x"], sequence=2)
        assert caught.value.actual == 1
        with pytest.raises(Conflict, match="unknown"):
            await writer.append_many([b"x"], producer="q", producer_epoch=0, sequence=0)
        assert await writer.grant_producer("p") == 1
        with pytest.raises(Conflict, match="epoch"):
            await writer.append_many([b"x"], sequence=1)
        assert await writer.append_many([b"b"], producer_epoch=1, sequence=1) == range(1, 2)
        await writer.drop_producer("p")
        with pytest.raises(Conflict, match="unknown"):
            await writer.append_many([b"x"], producer_epoch=1, sequence=2)
        with pytest.raises(Conflict):
            assert writer.next_sequence
        for wrong in (
            {"sequence": -1},
            {"sequence": "0"},
            {"producer": "p"},
            {"producer_epoch": 1},
        ):
            with pytest.raises(InvalidRequest):
                await writer.append_many([b"x"], **wrong)
        with pytest.raises(InvalidRequest):
            await writer.append_many([b"x"], sequence=0, producer="")
        assert await world.entries() == [b"a", b"b"]


@on_virtual_time
async def test_results_of_the_last_16_batches_are_kept():
    async with a_world() as world:
        async with await world.writer(producer="p") as writer:
            for n in range(20):
                assert await writer.append_many([b"x"], sequence=n) == range(n, n + 1)
            # a refusal has no side effect on what is kept
            with pytest.raises(Conflict):
                await writer.append_many([b"x"], sequence=20, expect_seq=7)
            for n in range(4, 20):
                assert await writer.append_many([b"x"], sequence=n) == range(n, n + 1)
            with pytest.raises(Conflict, match="older"):
                await writer.append_many([b"x"], sequence=3)
        async with await world.writer(1, producer="p") as writer:
            assert writer.next_sequence == 20
            assert await writer.append_many([b"x"], sequence=4) == range(4, 5)
            with pytest.raises(Conflict, match="older"):
                await writer.append_many([b"x"], sequence=3)


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 100])
@on_virtual_time
async def test_sessions_survive_a_take_over(is_closed: bool, blocks: int):
    async with a_world(segment_max_blocks=blocks) as world:
        writer = await world.writer(producer="p")
        for n in range(5):
            await writer.append_many([b"%d" % n], sequence=n)
        if is_closed:
            await writer.close()
        async with await world.writer(1, producer="p") as taker:
            assert taker.next_sequence == 5
            assert await taker.append_many([b"4"], sequence=4) == range(4, 5)
            assert await taker.append_many([b"5"], sequence=5) == range(5, 6)
        if not is_closed:
            with pytest.raises(Exception):  # noqa: B017  fenced: one kind or the other
                await writer.append_many([b"no"], sequence=5)
            await writer.close()
        assert await world.entries() == [b"%d" % n for n in range(6)]


@on_virtual_time
async def test_the_longest_idle_producer_is_forgotten_when_the_table_is_full():
    async with a_world(max_producers=2) as world:
        async with await world.writer() as writer:
            for name in ("old", "new"):
                assert await writer.grant_producer(name) == 0
            await writer.append_many([b"1"], producer="new", producer_epoch=0, sequence=0)
            await writer.append_many([b"2"], producer="old", producer_epoch=0, sequence=0)
            assert await writer.grant_producer("third") == 0
            with pytest.raises(Conflict, match="unknown"):
                await writer.append_many([b"x"], producer="new", producer_epoch=0, sequence=1)
            await writer.append_many([b"3"], producer="old", producer_epoch=0, sequence=1)
            await writer.append_many([b"4"], producer="third", producer_epoch=0, sequence=0)
        async with await world.writer(1) as writer:
            await writer.append_many([b"5"], producer="old", producer_epoch=0, sequence=2)
            with pytest.raises(Conflict, match="unknown"):
                await writer.append_many([b"x"], producer="new", producer_epoch=0, sequence=1)


@on_virtual_time
async def test_two_sessions_of_one_producer_opened_at_once_get_two_epochs():
    async with a_world() as world, await world.writer() as writer:
        assert await asyncio.gather(*(writer.grant_producer("p") for _ in range(3))) == [0, 1, 2]


@on_virtual_time
async def test_a_batch_refused_for_want_of_room_may_be_sent_again():
    async with a_world() as world:
        writer = await world.writer(producer="p")
        disk = world.site().disk
        await writer.append_many([b"a"], sequence=0)
        disk.is_full = True
        for _ in range(3):
            with pytest.raises(NotWritten):
                await writer.append_many([b"b"], sequence=1)
        disk.is_full = False
        assert await writer.append_many([b"b"], sequence=1) == range(1, 2)
        await writer.close()
        assert await world.entries() == [b"a", b"b"]


@on_virtual_time
async def test_a_batch_or_grant_refused_in_the_queue_is_forgotten():
    async with a_world(append_timeout_ms=1_000) as world:
        async with await world.writer(producer="p") as writer:
            await writer.append_many([b"a"], sequence=0)
        writer = await world.writer()
        assert await writer.grant_producer("p") == 1
        await writer.close()
        writer = await world.writer()
        world.site().on_metadata.is_away = True  # no segment can be opened
        jobs = [
            writer.append_many([b"b"], producer="p", producer_epoch=1, sequence=1),
            writer.append_many([b"c"], producer="p", producer_epoch=1, sequence=2),
            writer.grant_producer("q"),
        ]
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(answer, NotWritten) for answer in answers)
        world.calm()
        with pytest.raises(Conflict, match="gap"):
            await writer.append_many([b"c"], producer="p", producer_epoch=1, sequence=2)
        with pytest.raises(Conflict, match="unknown"):
            await writer.append_many([b"x"], producer="q", producer_epoch=0, sequence=0)
        assert await writer.append_many([b"b"], producer="p", producer_epoch=1, sequence=1)
        assert await writer.grant_producer("q") == 0
        await writer.close()
        assert await world.entries() == [b"a", b"b"]
        idle(writer)


@on_virtual_time
async def test_a_producer_id_must_be_sensible():
    async with a_world() as world, await world.writer() as writer:
        for wrong in ("", "x" * 201, "é" * 101, None, 7):
            with pytest.raises(InvalidRequest):
                await writer.grant_producer(wrong)
        assert await writer.grant_producer("é" * 100) == 0
        with pytest.raises(InvalidRequest):
            assert writer.next_sequence


@on_virtual_time
async def test_columns_are_kept_with_their_batch():
    async with a_world() as world:
        async with await world.writer(producer="p") as writer:
            await asyncio.gather(
                writer.append(b"plain"),
                writer.append_many([b"a", b"b"], column=b"one"),
                writer.append_many([b"c"], sequence=0, column=b"two"),
            )
        found = [c async for b in world.log(1).read_batches() for c in b.columns]
        assert [(c.first_seq, c.count, c.data) for c in found] == [(1, 2, b"one"), (3, 1, b"two")]
