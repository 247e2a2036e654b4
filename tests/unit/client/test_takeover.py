"""Taking a log over: openers that race, crash at every step, or come too late; claims; what is folded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.client.writing_kit import NAME, World, a_world, idle

from woodpecker.client import takeover
from woodpecker.codec import keys
from woodpecker.core.ids import State
from woodpecker.errors import (
    Conflict,
    Corrupt,
    Fenced,
    LogEnded,
    NotFound,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.segments.base import Recovered, SegmentRef
from woodpecker.segments.object import ObjectSegments
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time


async def drop(world: World, number: int) -> None:
    """The process dies: nothing of it goes on."""
    tasks = [task for task in world.site(number).runtime.tasks if not task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@on_virtual_time
async def test_whoever_opens_last_owns_the_log():
    async with a_world() as world:
        writers = [await world.writer(n) for n in range(4)]
        for writer in writers[:-1]:
            assert await writer.still_owner() is False
            with pytest.raises(Fenced):
                await writer.append(b"no")
        assert await writers[-1].append(b"yes") == 0
        assert [writer.epoch for writer in writers] == [1, 2, 3, 4]
        for writer in writers:
            await writer.close()
        assert await world.entries() == [b"yes"]


@pytest.mark.parametrize("seed", range(20))
@on_virtual_time
async def test_openers_that_race(seed: int):
    async with a_world(seed) as world:
        async with await world.writer(9) as before:
            await before.append_many([b"a", b"b"])
        for n in range(4):
            site = world.site(n)
            site.on_objects.max_delay_ms = site.on_metadata.max_delay_ms = 50
        opened = await asyncio.gather(*(world.writer(n) for n in range(4)), return_exceptions=True)
        assert all(not isinstance(e, Exception) or isinstance(e, Fenced) for e in opened)
        writers = [w for w in opened if not isinstance(w, BaseException)]
        assert writers
        answers = await asyncio.gather(*(w.append(b"c") for w in writers), return_exceptions=True)
        won = [answer for answer in answers if isinstance(answer, int)]
        assert won == [2]
        for writer in writers:
            await writer.close()
        world.calm()
        assert await world.entries() == [b"a", b"b", b"c"]


@on_virtual_time
async def test_an_opener_beaten_by_an_opener_is_fenced_and_by_anything_else_tries_again():
    async with a_world() as world:
        metadata = world.site(1).on_metadata
        metadata.script("put", Fault.HELD)
        slow = asyncio.create_task(world.writer(1))
        await asyncio.sleep(1)
        await world.log(2).alter(linger_ms=1)  # background work, not an opener
        metadata.gate.set()
        writer = await slow
        assert writer.epoch == 1
        await writer.close()
        metadata.gate.clear()
        metadata.script("put", Fault.HELD)
        slow = asyncio.create_task(world.writer(1))
        await asyncio.sleep(1)
        other = await world.writer(2)
        metadata.gate.set()
        with pytest.raises(Fenced):
            await slow
        assert await other.append(b"a") == 0
        await other.close()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.LATE, Fault.UNAVAILABLE])
@pytest.mark.parametrize("step", [0, 1])
@on_virtual_time
async def test_a_lost_answer_at_each_cas_of_a_take_over(fault: Fault, step: int):
    async with a_world() as world:
        await (await world.writer(1)).append(b"a")
        metadata = world.site(2).on_metadata
        if step == 0:
            metadata.script("put", fault, times=3)
            writer = await world.writer(2)
        else:
            manifest, owner = await takeover.raise_epoch(world.site(2).env, NAME)
            metadata.script("put", fault, times=3)
            closed, _ = await takeover.close_open_segment(world.site(2).env, NAME, manifest, owner)
            assert closed.next_seq == 1
            writer = await world.writer(2)
        assert await writer.append(b"b") == 1
        await writer.close()
        await drop(world, 1)
        assert await world.entries() == [b"a", b"b"]


@pytest.mark.parametrize("requests", range(1, 14))
@on_virtual_time
async def test_a_taker_that_crashes_after_any_request_is_followed_by_another(requests: int):
    async with a_world(segment_max_blocks=3) as world:
        writer = await world.writer(1, producer="p")
        for n in range(4):
            await writer.append_many([b"%d" % n], sequence=n)
        taker = world.site(2)
        count = 0
        stores: tuple[Any, Any] = (taker.on_objects, taker.on_metadata)
        for faults in stores:
            around = faults.around

            async def crashing(op, key, request, around=around):
                nonlocal count
                count += 1
                if count > requests:
                    await asyncio.Event().wait()  # the process is gone
                return await around(op, key, request)

            faults.around = crashing
        opening = asyncio.create_task(world.writer(2))
        await asyncio.sleep(30)
        crashed = not opening.done()
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        next_one = await world.writer(3, producer="p")
        assert next_one.next_sequence == 4
        assert await next_one.append_many([b"4"], sequence=4) == range(4, 5)
        await next_one.close()
        assert await world.entries() == [b"%d" % n for n in range(5)]
        with pytest.raises(WoodpeckerError):
            await writer.append(b"no")
        await writer.close()
        if not crashed and not opening.cancelled():
            await opening.result().close()
        await drop(world, 2)


@on_virtual_time
async def test_a_slow_opener_whose_blocks_were_sealed_away_is_fenced():
    async with a_world() as world:
        writer = await world.writer(1)
        for n in range(3):
            await writer.append(b"%d" % n)
        slow = world.site(2)
        slow.on_objects.script("get", Fault.HELD)  # it has listed the blocks and put its mark
        opening = asyncio.create_task(world.writer(2))
        await asyncio.sleep(1)
        following = await world.writer(3)
        for number in range(3):  # sealed elsewhere, cleaned; marks stay
            del world.bucket.objects[keys.block(world.log_id, 0, number)]
        slow.on_objects.gate.set()
        with pytest.raises(Fenced):
            await opening
        await following.close()
        await drop(world, 1)


@on_virtual_time
async def test_a_slow_opener_that_meets_the_mark_of_another_slow_one_is_fenced():
    async with a_world() as world:
        async with await world.writer(1) as writer:
            await writer.append(b"a")
        writer = await world.writer(1)
        for n in range(3):
            await writer.append(b"%d" % n)
        slow = world.site(2)
        slow.on_objects.script("get", Fault.HELD)
        opening = asyncio.create_task(world.writer(2))
        await asyncio.sleep(1)
        following = await world.writer(3)
        for number in range(3):
            del world.bucket.objects[keys.block(world.log_id, 1, number)]
        mark = world.bucket.objects[keys.block(world.log_id, 1, 3)]
        world.bucket.objects[keys.block(world.log_id, 1, 2)] = mark
        slow.on_objects.gate.set()
        with pytest.raises(Fenced):
            await opening
        await following.close()
        await drop(world, 1)


@on_virtual_time
async def test_an_opener_that_stood_still_while_its_register_was_collected_is_fenced(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("woodpecker.metadata.history.REGISTER_INLINE_BYTES", 10)
    async with a_world() as world:
        async with await world.writer(1, producer="p") as writer:
            await writer.append(b"a")
        (key,) = [key for key in world.bucket.objects if "/registers/" in key]
        slow = world.site(2)
        slow.on_objects.script("get", Fault.HELD, key="/registers/")
        opening = asyncio.create_task(world.writer(2))
        await asyncio.sleep(1)
        following = await world.writer(3)
        register = world.bucket.objects.pop(key)
        slow.on_objects.gate.set()
        with pytest.raises(Fenced):
            await opening
        await following.close()
        with pytest.raises(Corrupt):  # nobody came later: it is missing
            await world.writer(4)
        world.bucket.objects[key] = register


@on_virtual_time
async def test_blocks_that_vanish_under_the_rightful_opener_are_damage():
    async with a_world() as world:
        writer = await world.writer(1)
        await writer.append(b"a")
        await writer.append(b"b")
        site = world.site(2)
        site.on_objects.script("get", Fault.HELD)
        opening = asyncio.create_task(world.writer(2))
        await asyncio.sleep(1)
        del world.bucket.objects[keys.block(world.log_id, 0, 1)]
        site.on_objects.gate.set()
        with pytest.raises(Corrupt):
            await opening
        await drop(world, 1)


@on_virtual_time
async def test_what_is_trimmed_beside_an_opener_is_not_damage(monkeypatch: pytest.MonkeyPatch):
    """A node may look for what the manifest of the opener still names, and find it trimmed."""
    real = ObjectSegments.recover

    async def recover(self: ObjectSegments, ref: SegmentRef, *, token: str) -> Recovered:
        if (await world.log(3).describe()).options.linger_ms != 7:
            await world.log(3).alter(linger_ms=7)  # as a trim would, it changes the manifest
            raise NotFound("trimmed")
        return await real(self, ref, token=token)

    async with a_world() as world:
        writer = await world.writer(1)
        await writer.append(b"a")
        monkeypatch.setattr(ObjectSegments, "recover", recover)
        async with await world.writer(2) as second:
            assert await second.append(b"b") == 1
        await drop(world, 1)


@on_virtual_time
async def test_a_segment_without_blocks_is_dropped_and_its_id_never_used_again():
    async with a_world(segment_max_blocks=1) as world:
        writer = await world.writer(1)
        await writer.append(b"a")
        await asyncio.sleep(1)
        opened = (await world.manifest()).open_segment
        assert opened is not None and opened.id == 1
        taker = await world.writer(2)
        assert [s.id for s in (await world.manifest()).segments] == [0]
        assert await taker.append(b"b") == 1
        manifest = await world.manifest()
        assert [s.id for s in manifest.segments][:2] == [0, 2]
        with pytest.raises(Fenced):
            await writer.append(b"no")
        await writer.close()
        await taker.close()
        assert await world.entries() == [b"a", b"b"]


@on_virtual_time
async def test_claims_never_fall_nor_change_holder():
    async with a_world() as world:
        first = await world.writer(0, claim=(5, "a"))
        epoch = (await world.manifest()).epoch
        for refused in ((4, "a"), (5, "b"), (0, "z")):
            with pytest.raises(Conflict):
                await world.writer(1, claim=refused)
        with pytest.raises(Conflict):
            await world.writer(1)  # none is no claim at all
        assert (await world.manifest()).epoch == epoch, "a refusal raises no epoch"
        assert await first.append(b"a") == 0
        again = await world.writer(1, claim=(5, "a"))
        higher = await world.writer(2, claim=(6, "b"))
        assert await higher.append(b"b") == 1
        for writer in (first, again, higher):
            await writer.close()


@on_virtual_time
async def test_opening_what_is_not_there():
    async with a_world() as world:
        log = world.log()
        log.name = "nothing"
        with pytest.raises(NotFound):
            await log.open_writer()
        other = world.log()
        other.log_id = "f" * 32  # the name belongs to another log now
        with pytest.raises(NotFound):
            await other.open_writer()


@on_virtual_time
async def test_an_open_cut_short_by_a_store_that_is_away():
    async with a_world() as world:
        writer = await world.writer(1)
        await writer.append(b"a")
        world.site(2).on_objects.is_away = True
        with pytest.raises(Unavailable):
            await world.writer(2)
        assert await writer.append(b"b") == 1, "nothing fenced it in the store yet"
        world.calm()
        async with await world.writer(2) as taker:
            assert await taker.append(b"c") == 2
        assert await world.entries() == [b"a", b"b", b"c"]
        await writer.close()
        idle(writer)


@on_virtual_time
async def test_an_open_cancelled_anywhere_hurts_nobody():
    for turns in range(0, 40, 2):
        async with a_world(turns) as world:
            writer = await world.writer(1)
            await writer.append(b"a")
            site = world.site(2)
            site.on_objects.max_delay_ms = site.on_metadata.max_delay_ms = 8
            opening = asyncio.create_task(world.writer(2, producer="p"))
            await asyncio.sleep(turns / 1000)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            async with await world.writer(3) as taker:
                assert await taker.append(b"b") == 1
            await writer.close()
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
            assert await world.entries() == [b"a", b"b"]


@pytest.mark.parametrize("seed", range(30))
@on_virtual_time
async def test_the_register_folded_over_any_cut_is_the_checkpoint(seed: int):
    """The same batches in one segment or many, closed or taken over: one register."""
    registers = []
    for blocks in (1, 2, 3, 1000):
        async with a_world(seed, segment_max_blocks=blocks) as world:
            rng = world.site(50).runtime.rng
            writer = await world.writer(0)
            epochs: dict[str, int] = {}
            sequences: dict[str, int] = {}
            for step in range(40):
                name = rng.choice("abc")
                if name not in epochs or rng.random() < 0.1:
                    epochs[name] = await writer.grant_producer(name)
                    sequences.setdefault(name, 0)
                elif rng.random() < 0.05:
                    await writer.drop_producer(name)
                    del epochs[name], sequences[name]
                else:
                    await writer.append_many(
                        [b"x"] * rng.randrange(1, 4),
                        producer=name,
                        producer_epoch=epochs[name],
                        sequence=sequences[name],
                    )
                    sequences[name] += 1
                if step % 13 == 12:
                    crashed, writer = writer, await world.writer(step)
                    await crashed.close()
            settled = writer._sessions.settled()
            taken = await takeover.take_over(world.site(60).env, NAME)
            assert taken.register == settled
            await writer.close()
            times = [(n, replace(p, timestamp_us=0)) for n, p in taken.register.producers]
            registers.append(times)
    assert all(register == registers[0] for register in registers)


@on_virtual_time
async def test_a_register_too_big_for_the_manifest():
    async with a_world(max_producers=2000) as world:
        async with await world.writer() as writer:
            await asyncio.gather(*(writer.grant_producer("p" * 150 + str(n)) for n in range(1500)))
            world.site().on_objects.script("create", Fault.UNAVAILABLE, key="register", times=2)
            world.site().on_objects.script("create", Fault.LOST, key="register", times=2)
        manifest = await world.manifest()
        assert manifest.register_key is not None
        assert manifest.segments[0].state is State.CLOSED
        async with await world.writer(1) as writer:
            assert await writer.grant_producer("p" * 150 + "7") == 1


@on_virtual_time
async def test_an_ended_log_is_not_opened_whatever_its_end_was_interrupted_by():
    async with a_world() as world:
        await world.log().end()
        for n in range(3):
            with pytest.raises(LogEnded):
                await world.writer(n)
        with pytest.raises(LogEnded):
            await world.writer(4, producer="p")
