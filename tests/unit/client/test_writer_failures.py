"""What becomes of entries when something fails: each one's outcome, the writer's end, resolve()."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from tests.unit.client.writing_kit import NAME, World, a_world, idle

from woodpecker.client.deletion import delete_log
from woodpecker.codec import keys
from woodpecker.errors import (
    Fenced,
    NotWritten,
    OutcomeUnknown,
    WoodpeckerError,
)
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

BIG = 4 << 20  # an entry of this size is a block of its own


async def outcomes(*futures) -> list[object]:
    return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 600)


def kinds(answers: list[object]) -> list[object]:
    return [
        f"fenced {a.outcome}" if isinstance(a, Fenced) else type(a).__name__
        if isinstance(a, Exception) else a
        for a in answers
    ]  # fmt: skip


def key(world: World, number: int) -> str:
    return keys.block(world.log_id, 0, number)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.LATE, Fault.UNAVAILABLE])
@pytest.mark.parametrize("times", [1, 3])
@on_virtual_time
async def test_an_unclear_put_is_cleared_up(fault: Fault, times: int):
    async with a_world() as world:
        async with await world.writer() as writer:
            world.site().on_objects.script("create", fault, key=key(world, 0), times=times)
            assert await writer.append(b"a") == 0
            assert await writer.append(b"b") == 1
            assert world.site().on_objects.injected[fault] >= 1
        idle(writer)
        assert await world.entries() == [b"a", b"b"]


@on_virtual_time
async def test_the_failure_of_a_later_block_is_not_taken_for_that_of_an_older_one():
    """A mark ahead of the pipeline fails block 2 while blocks 0 and 1 are still under way."""
    async with a_world() as world:
        writer = await world.writer()
        faults = world.site().on_objects
        for number in (0, 1):
            faults.script("create", Fault.HELD, key=key(world, number))
        bucket = world.bucket
        futures = [writer.submit(b"%d" % n * BIG) for n in range(4)]
        bucket.put(key(world, 2), bytes(96), 0)  # somebody's end mark
        await asyncio.sleep(1)
        assert [future.done() for future in futures] == [False, False, True, True]
        faults.gate.set()
        answers = await outcomes(*futures)
        assert kinds(answers) == [0, 1, "fenced not_written", "fenced not_written"]
        assert writer.visible == 2
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_a_writer_that_failed_sends_nothing_more():
    async with a_world(append_timeout_ms=1_000) as world:
        writer = await world.writer()
        assert await writer.append(b"first") == 0
        world.site().on_objects.is_away = True
        futures = [writer.submit(b"x" * BIG) for _ in range(12)]
        waiting = asyncio.create_task(writer.append(b"y" * (60 << 20)))
        flushing = asyncio.create_task(writer.flush())
        answers = await outcomes(*futures, waiting, flushing)
        in_flight = 8
        assert kinds(answers[:12]) == ["OutcomeUnknown"] * in_flight + ["NotWritten"] * 4
        assert kinds(answers[12:]) == ["NotWritten", "OutcomeUnknown"]
        assert "refused, nothing happened" in str(answers[0]), "the text tells the last trouble"
        world.calm()
        await asyncio.sleep(100)
        assert await world.entries() == [b"first"], "retries stopped with the writer"
        for call in (writer.append(b"z"), writer.append_many([b"z"]), writer.ready()):
            with pytest.raises(NotWritten):
                await call
        with pytest.raises(NotWritten):
            writer.submit(b"z")
        with pytest.raises(OutcomeUnknown):
            await writer.flush()
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_errors_raised_again_do_not_grow():
    async with a_world(append_timeout_ms=1_000) as world:
        writer = await world.writer()
        world.site().on_objects.is_away = True
        await outcomes(writer.submit(b"x"))
        lengths = []
        for _ in range(3):
            try:
                writer.submit(b"x")
            except NotWritten as error:
                trace, depth = error.__traceback__, 0
                while trace is not None:
                    trace, depth = trace.tb_next, depth + 1
                lengths.append(depth)
        assert len(set(lengths)) == 1
        world.calm()
        await writer.close()


@on_virtual_time
async def test_a_fenced_writer_tells_each_entry_what_is_known():
    async with a_world() as world:
        writer = await world.writer()
        assert await writer.append(b"kept") == 0
        async with await world.writer(1) as taker:
            assert await taker.append(b"taken") == 1
            answers = await outcomes(writer.submit(b"lost"), writer.submit(b"x" * BIG))
            assert kinds(answers) == ["fenced not_written"] * 2
            with pytest.raises(Fenced) as caught:
                writer.submit(b"later")
            assert caught.value.outcome == "not_written"
        assert await writer.resolve() == {}
        await writer.close()
        assert await world.entries() == [b"kept", b"taken"]
        idle(writer)


@pytest.mark.parametrize("applied", [False, True])
@on_virtual_time
async def test_resolve_in_every_state(applied: bool):
    async with a_world(append_timeout_ms=1_000) as world:
        writer = await world.writer()
        assert await writer.append(b"known") == 0
        fault = Fault.LATE if applied else Fault.DROPPED
        world.site().on_objects.script("create", fault, key=key(world, 1), times=1)
        world.site().on_objects.script("get", Fault.HELD, key=key(world, 1))
        [answer] = await outcomes(writer.submit(b"doubtful"))
        assert isinstance(answer, OutcomeUnknown)
        assert "resolve" in str(answer)
        await asyncio.sleep(5)
        found = await writer.resolve()
        assert kinds(list(found.values())) == ["OutcomeUnknown"], "the segment is still open"
        world.site().on_metadata.is_away = True
        with pytest.raises(WoodpeckerError):
            await writer.resolve()
        world.calm()
        async with await world.writer(1) as taker:
            assert await taker.append(b"next") == (2 if applied else 1)
            found = await writer.resolve()
            assert kinds(list(found.values())) == ([1] if applied else ["NotWritten"])
        trimmed = await world.manifest()
        assert trimmed.segments[0].end is not None
        await writer.close()
        assert kinds(list((await writer.resolve()).values())) == (
            [1] if applied else ["NotWritten"]
        )


@on_virtual_time
async def test_resolve_of_a_deleted_log_stays_unknown():
    async with a_world(append_timeout_ms=1_000) as world:
        writer = await world.writer()
        world.site().on_objects.script("create", Fault.DROPPED, times=1)
        world.site().on_objects.script("get", Fault.HELD)
        [answer] = await outcomes(writer.submit(b"doubtful"))
        assert isinstance(answer, OutcomeUnknown)
        world.calm()
        await delete_log(world.site(5).env, NAME, force=False)
        assert kinds(list((await writer.resolve()).values())) == ["OutcomeUnknown"]
        await writer.close()


@on_virtual_time
async def test_blocks_fail_in_order_when_the_disk_breaks():
    async with a_world() as world:
        writer = await world.writer()
        world.site().disk.fails_from = 2
        answers = await outcomes(*(writer.submit(b"%d" % n * BIG) for n in range(6)))
        assert kinds(answers) == [0, 1, "OutcomeUnknown", "NotWritten", "NotWritten", "NotWritten"]
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_a_bug_below_ends_the_writer_and_is_not_swallowed():
    async with a_world() as world:
        writer = await world.writer()
        world.site().disk.fails_from = 0
        world.site().disk.error = RuntimeError("a bug")
        answers = await outcomes(writer.submit(b"a"), writer.submit(b"b" * BIG))
        assert kinds(answers) == ["OutcomeUnknown", "NotWritten"]
        assert "a bug" in str(answers[0])
        await writer.close()
        idle(writer)
        loop: Any = asyncio.get_running_loop()
        complaints = loop.complaints
        assert [str(c["exception"]) for c in complaints] == ["a bug"]
        complaints.clear()


@on_virtual_time
async def test_a_bug_in_a_roll_ends_the_writer_and_hangs_nobody(monkeypatch):
    async with a_world(segment_max_blocks=1) as world:
        writer = await world.writer()

        async def broken(register: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(writer._pump.chain, "roll", broken)
        assert await writer.append(b"a") == 0
        await asyncio.sleep(1)
        answers = await outcomes(writer.append(b"b"), writer.flush())
        assert kinds(answers) == ["NotWritten", "OutcomeUnknown"]
        await writer.close()
        idle(writer)
        loop: Any = asyncio.get_running_loop()
        world.site().runtime.tasks.clear()
        gc.collect()
        assert [str(c["exception"]) for c in loop.complaints] == ["a bug"]
        loop.complaints.clear()


@on_virtual_time
async def test_a_full_disk_refuses_and_the_writer_goes_on_later():
    async with a_world() as world:
        writer = await world.writer()
        disk = world.site().disk
        disk.is_full = True
        with pytest.raises(NotWritten):
            await writer.append(b"no")  # nothing could be opened
        disk.is_full = False
        assert await writer.append(b"a") == 0
        disk.is_full = True
        for _ in range(3):
            with pytest.raises(NotWritten):
                await writer.append(b"no")
            with pytest.raises(NotWritten):
                writer.reserve(1)
        disk.is_full = False
        assert await writer.append(b"b") == 1
        await writer.close()
        assert await world.entries() == [b"a", b"b"]
        idle(writer)


@on_virtual_time
async def test_flush_tells_that_what_was_put_in_was_refused():
    async with a_world() as world:
        writer = await world.writer()
        world.site().disk.is_full = True
        future = writer.submit(b"no")
        with pytest.raises(NotWritten):
            await writer.flush()
        assert isinstance(future.exception(), NotWritten)
        world.site().disk.is_full = False
        assert await writer.append(b"a") == 0
        await writer.flush()
        world.site().disk.is_full = False
        await writer.close()


@on_virtual_time
async def test_a_disk_full_at_the_roll_lets_the_segment_grow_then_refuses_then_goes_on():
    async with a_world(segment_max_blocks=4, append_timeout_ms=5_000) as world:
        writer = await world.writer()
        for _ in range(3):
            await writer.append(b"x")
        segments: Any = world.site()._segments
        prepare = segments.prepare

        async def full(*args, **kwargs):
            raise NotWritten("the disk is full")

        segments.prepare = full
        written = 3
        with pytest.raises(NotWritten) as caught:  # noqa: PT012
            while True:
                await writer.append(b"x")
                written += 1
        assert 12 <= written <= 17
        assert "disk is full" in str(caught.value)
        segments.prepare = prepare
        assert await writer.append(b"y") == written
        await writer.close()
        assert len(await world.entries()) == written + 1
        assert len((await world.manifest()).segments) == 2
        idle(writer)


@on_virtual_time
async def test_resolve_of_several_blocks_behind_the_end():
    """The segment was closed below all of them, not only right before the first."""
    async with a_world(append_timeout_ms=1_000) as world:
        writer = await world.writer()
        assert await writer.append(b"first") == 0
        for number in range(1, 5):
            world.site().on_objects.script("create", Fault.DROPPED, key=key(world, number))
            world.site().on_objects.script("get", Fault.HELD, key=key(world, number))
        answers = await outcomes(*(writer.submit(b"x" * BIG) for _ in range(4)))
        assert kinds(answers) == ["OutcomeUnknown"] * 4
        world.calm()
        async with await world.writer(1) as taker:
            assert await taker.append(b"next") == 1
        assert kinds(list((await writer.resolve()).values())) == ["NotWritten"] * 4
        await writer.close()
