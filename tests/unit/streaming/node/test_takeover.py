"""Owners come and go: take-over by a newer term, release, writers that end, restarts."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.streaming.node.kit import (
    LATEST,
    Member,
    P,
    a_cluster,
    consume,
    is_class,
    one_node,
    produce,
    until,
)

from woodpecker.streaming import frames, requests
from woodpecker.streaming.codec.records import NODES
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import EndForm, Start, StartForm, Stop
from woodpecker.streaming.node.pieces import pieces_of
from woodpecker.testing.virtual import on_virtual_time


async def stored(cluster) -> list[bytes]:
    """Payloads of all messages in the log, read afresh; terms never fall."""
    log = await cluster.reader()
    found: list[bytes] = []
    term = 0
    async for batch in log.read_batches(0):
        for piece in pieces_of(batch, "log"):
            assert piece.facts.column.term >= term
            term = piece.facts.column.term
            if piece.facts.messages:
                found.extend(piece.messages.payloads)
    return found


@on_virtual_time
async def test_the_old_owner_acknowledges_nothing_after_a_newer_one_took_over() -> None:
    async with one_node() as (cluster, old):
        producing = await produce(cluster, old, "billing")
        acked = []

        async def load() -> None:
            while True:
                await producing.send(b"%d" % producing.sequence)
                await asyncio.sleep(0.005)

        async def collect() -> None:
            while isinstance(answer := await producing.answer(), frames.Ack):
                acked.append((answer.sequence, answer.seq))
            rest.append(answer)

        rest: list[object] = []
        loading = cluster.runtime.spawn(load(), "load")
        collecting = cluster.runtime.spawn(collect(), "collect")
        await asyncio.sleep(1)
        new = await cluster.node("n2")
        await cluster.assign(new)
        before = len(acked)
        await asyncio.sleep(2)
        loading.cancel()
        collecting.cancel()
        await asyncio.gather(loading, collecting, return_exceptions=True)
        assert len(acked) <= before + 1, "at most what was acknowledged before the fence"
        written = await stored(cluster)
        assert written[: len(acked)] == [b"%d" % sequence for sequence, _ in acked]
        # whatever was unknown is answered by the session at the new owner
        again = await produce(cluster, new, "billing", epoch=producing.attached.epoch)
        assert again.sequence >= len(acked)
        assert len(written) == again.sequence
        assert old.state == "closed"


@on_virtual_time
async def test_unanswered_batches_of_a_fenced_owner_are_unknown_or_unwritten_never_acknowledged() -> (
    None
):
    async with one_node() as (cluster, old):
        producing = await produce(cluster, old, "billing")
        await producing.put(b"0")
        await cluster.assign(await cluster.node("n2"))
        await producing.send(b"1")
        answer = await producing.answer()
        assert is_class(answer, Class.MOVED) or is_class(answer, Class.UNKNOWN), answer
        assert isinstance(await producing.answer(), frames.Moved)
        assert isinstance(await producing.answer(), frames.Closed)
        assert await stored(cluster) == [b"0"]


@on_virtual_time
async def test_a_release_answers_all_writes_a_close_record_and_a_checkpoint() -> None:
    async with one_node() as (cluster, old):
        old.site.on_objects.max_delay_ms = 20
        producing = await produce(cluster, old)
        consuming = await consume(cluster, old)
        for n in range(10):
            await producing.send(b"%d" % n)
        await asyncio.sleep(0.005)
        await cluster.release(old)
        answers = [await producing.answer() for _ in range(12)]
        assert all(isinstance(a, frames.Ack) or is_class(a, Class.MOVED) for a in answers[:10]), (
            answers
        )
        assert isinstance(answers[10], frames.Moved)
        assert isinstance(answers[11], frames.Closed)
        acked = [b"%d" % a.sequence for a in answers if isinstance(a, frames.Ack)]
        await until(lambda: old.state == "closed")
        assert consuming.payloads() == acked, "Moved comes after their last data"
        assert isinstance(consuming.others[-2], frames.Moved)
        assert await stored(cluster) == acked
        await consuming.close()
        new = await cluster.node("n2")
        life = await cluster.assign(new)
        assert life.line.fold.term == 2
        late = await consume(cluster, new)
        assert await late.until(len(acked)) == acked
        await late.close()


@on_virtual_time
async def test_a_writer_that_ends_by_itself_is_opened_again_under_the_same_term() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "billing")
        await producing.put(b"0")
        log = await cluster.reader()
        thief = await log.open_writer(
            claim=(1, member.node.incarnation)
        )  # our own claim, another token
        await thief.close()
        batch = await producing.send(b"1")
        answer = await producing.answer()
        assert is_class(answer, Class.MOVED) or is_class(answer, Class.UNKNOWN)
        await until(lambda: member.state != "serving")
        await asyncio.sleep(3)
        assert member.state == "closed", "the manifest shows another token: not ours any more"
        assert batch.sequence == 1


@on_virtual_time
async def test_after_a_store_outage_the_same_owner_serves_on() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "billing")
        await producing.put(b"0")
        member.site.on_objects.is_away = True
        batch = await producing.send(b"1")
        await asyncio.sleep(40)
        answer = await producing.answer()
        assert is_class(answer, Class.UNKNOWN) or is_class(answer, Class.MOVED), answer
        member.site.on_objects.is_away = False
        await until(lambda: member.state == "serving", within_s=120)
        assert member.life.term == 1
        again = await produce(cluster, member, "billing", epoch=producing.attached.epoch)
        await again.stream.send(batch)
        await again.ack()
        consuming = await consume(cluster, member)
        assert await consuming.until(2) == [b"0", b"1"]
        await consuming.close()


@on_virtual_time
async def test_orders_for_an_older_term_or_another_life_change_nothing() -> None:
    async with one_node() as (cluster, member):
        assign = requests.Assign(
            pchannel=P, log="stream.p0", log_id=cluster.log.log_id, term=1,
            incarnation=member.node.incarnation, epoch=1,
        )  # fmt: skip
        status = await member.endpoint.call(assign)
        assert (status.state, status.term) == ("serving", 1)
        await cluster.release(member, term=0)
        assert member.state == "serving"
        for request in (
            requests.Release(pchannel=P, term=5, incarnation="other", epoch=1),
            requests.Assign(pchannel=P, log="l", log_id="", term=5, incarnation="other", epoch=1),
        ):
            with pytest.raises(Refused) as refused:
                await member.endpoint.call(request)
            assert refused.value.refusal.kind is Class.MOVED
        assert member.state == "serving"


@on_virtual_time
async def test_who_is_not_in_the_record_does_not_touch_the_log() -> None:
    async with one_node() as (cluster, member):
        other = await cluster.node("n2")
        await other.endpoint.call(
            requests.Assign(
                pchannel=P, log="stream.p0", log_id=cluster.log.log_id, term=9,
                incarnation=other.node.incarnation, epoch=1,
            )
        )  # fmt: skip
        await until(lambda: other.state == "closed")
        producing = await produce(cluster, member)
        await producing.put(b"still here")


@on_virtual_time
async def test_a_clock_far_behind_is_refused_before_anybody_is_fenced() -> None:
    async with one_node(checkpoint_age_ms=1000) as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a")
        await asyncio.sleep(5)  # a checkpoint
        late = await cluster.node("n2")
        late.site.runtime.clock_jump_us = -3_600_000_000
        await cluster.order(late)
        await until(lambda: late.state == "failed")
        assert "clock" in late.node.owners[P].machine.reason
        await producing.put(b"b")


@on_virtual_time
async def test_ticks_go_on_above_everything_an_owner_before_has_shown() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        live = await consume(cluster, member, ticks=True)
        ack = await producing.put(b"a")
        await producing.send(b"e", ephemeral=True)
        shown = await producing.ack()
        assert shown.tick > ack.tick
        await asyncio.sleep(7)
        signal = max(p.tick for p in live.progress)
        assert signal > shown.tick
        await live.close()
        new = await cluster.node("n2")
        new.site.runtime.clock_jump_us = -300_000_000  # 5 minutes behind
        await cluster.assign(new)
        again = await produce(cluster, new)
        assert (await again.put(b"b")).tick > signal


@on_virtual_time
async def test_status_tells_everything_first_then_what_changed() -> None:
    async with a_cluster() as cluster:
        member = await cluster.node("n1")
        assert not member.node.is_known, "so it is not ready: nobody could give it anything"
        stream = member.endpoint.status()
        await stream.send(frames.WatchStatus(epoch=1))
        first = await stream.receive()
        assert member.node.is_known
        assert first is not None
        assert first.is_full
        assert first.pchannels == []
        await cluster.assign(member)
        states: list[str] = []
        while "serving" not in states:
            frame = await stream.receive()
            assert frame is not None
            assert not frame.is_full
            states.extend(s.state for s in frame.pchannels)
        at = asyncio.get_running_loop().time()
        beat = await stream.receive()
        assert beat is not None
        assert asyncio.get_running_loop().time() - at <= 1.1
        stream.cut()


@on_virtual_time
async def test_stop_gives_everything_up_in_good_order() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a")
        await member.node.stop()
        assert isinstance(await producing.answer(), frames.Moved)
        new = await cluster.node("n2")
        life = await cluster.assign(new)
        assert life.line.fold.vchannels
        record = (await cluster.admin.load(NODES.key("n1"))).record
        assert record is not None
        assert not record.is_up


@on_virtual_time
async def test_a_replaced_owner_does_not_say_what_only_the_owner_knows() -> None:
    async with one_node() as (cluster, old):
        producing = await produce(cluster, old)
        consuming = await consume(cluster, old)
        new = await cluster.node("n2")
        await cluster.assign(new)
        await cluster.create(new, 8)
        named = await produce(cluster, new, "billing")
        await named.put(b"a", vcid=8)
        await producing.send(b"b", vcid=8)
        assert is_class(await producing.answer(), Class.MOVED), "the channel is at the new owner"
        assert isinstance(await producing.answer(), frames.Moved)
        await until(lambda: old.state == "closed")
        await consuming.close()


@on_virtual_time
async def test_a_replaced_owner_knows_neither_sessions_nor_tails() -> None:
    for case in ("session", "gap", "channel", "tail", "latest", "time"):
        async with one_node() as (cluster, old):
            producing = await produce(cluster, old)
            consuming = await consume(cluster, old)
            new = await cluster.node("n2")
            await cluster.assign(new)
            named = await produce(cluster, new, "billing")
            if case == "session":
                await producing.stream.send(
                    frames.Attach(session=2, producer="billing", epoch=named.attached.epoch)
                )
                answer = await producing.answer()
            elif case == "gap":
                producing.sequence = 5
                await producing.send(b"b")
                answer = await producing.answer()
            elif case == "channel":
                answer = await consuming.subscribe(2, vcid=8)
            elif case == "tail":
                answer = await consuming.subscribe(2, stop=Stop(form=EndForm.TAIL))
            elif case == "latest":
                answer = await consuming.subscribe(2, start=LATEST)
            else:
                later = Start(form=StartForm.TIME, value=new.life.line.clock_us)
                answer = await consuming.subscribe(2, start=later)
            assert is_class(answer, Class.MOVED), (case, answer)
            await consuming.close()


@on_virtual_time
async def test_a_full_disk_refuses_for_now_and_ends_nothing() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "billing")
        await producing.put(b"0")
        member.site.disk.is_full = True
        batches = [await producing.send(b"%d" % n) for n in range(1, 4)]
        kinds = [(await producing.refusal()).refusal.kind for _ in range(3)]
        assert kinds == [Class.LATER, Class.GAP, Class.GAP]
        member.site.disk.is_full = False
        for batch in batches:
            await producing.stream.send(batch)
        assert [(await producing.ack()).sequence for _ in range(3)] == [1, 2, 3]
        assert await stored(cluster) == [b"0", b"1", b"2", b"3"]


@on_virtual_time
async def test_a_writer_that_will_not_close_does_not_hold_up_the_next_owner() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"0")
        member.site.disk.is_held = True
        await producing.send(b"1")
        await asyncio.sleep(0.1)
        at = asyncio.get_running_loop().time()
        await cluster.release(member)
        await until(lambda: member.state == "closed")
        assert asyncio.get_running_loop().time() - at < 11
        with pytest.raises(Refused) as refused:  # cut: nobody knows what became of it
            await producing.answer()
        assert refused.value.refusal.kind is Class.UNKNOWN
        new = await cluster.node("n2")
        await cluster.assign(new)
        member.site.disk.let_go()
        await asyncio.sleep(1)
        found = await stored(cluster)
        assert found in ([b"0"], [b"0", b"1"])


@on_virtual_time
async def test_pchannels_that_no_record_knows_leave_nothing_behind() -> None:
    async with one_node() as (cluster, member):
        for number in range(20):
            strange = requests.Assign(
                pchannel=f"strange-{number}", log="l", log_id="", term=1,
                incarnation=member.node.incarnation, epoch=1,
            )  # fmt: skip
            assert (await member.endpoint.call(strange)).state == "opening"
            await asyncio.sleep(1)
        owners = [name for name in cluster.running() if name.startswith("owner of")]
        assert owners == [f"owner of {P}", "owner of strange-19"]
        assert list(member.node.owners) == [P, "strange-19"]


async def watch(member: Member) -> asyncio.Task[None]:
    """As a coordinator does: from the first status on, which is there, each one is read."""
    stream = member.endpoint.status()
    await stream.send(frames.WatchStatus(epoch=1))
    assert await stream.receive() is not None

    async def read() -> None:
        try:
            while await stream.receive() is not None:
                pass
        finally:
            stream.cut()

    return asyncio.ensure_future(read())


@on_virtual_time
async def test_no_term_begins_by_a_clock_that_has_jumped_since_coordinators_heard_of_it() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a")
        wild = await cluster.node("n2")
        watching = await watch(wild)
        for jump_us in (3 * 86_400_000_000, -300_000_000):
            wild.site.runtime.clock_jump_us += jump_us
            await cluster.order(wild)
            await until(lambda: wild.state == "failed")
            assert "has just jumped" in wild.node.owners[P].machine.reason
            await asyncio.sleep(
                6
            )  # coordinators have heard: what they give now, they give knowingly
        ack = await producing.put(b"b")  # nobody was fenced
        assert ack.tick < member.site.runtime.now_us() + 1_000_000
        wild.site.runtime.clock_jump_us = 50_000_000
        await asyncio.sleep(7)
        await cluster.assign(wild)
        watching.cancel()


@on_virtual_time
async def test_a_clock_that_jumps_while_the_log_is_opened_begins_no_term() -> None:
    async with one_node() as (cluster, _):
        wild = await cluster.node("n2")
        watching = await watch(wild)
        wild.site.on_objects.max_delay_ms = wild.site.on_metadata.max_delay_ms = 100
        await cluster.order(wild)
        await until(lambda: wild.state == "replaying")
        wild.site.runtime.clock_jump_us += 3 * 86_400_000_000
        await until(lambda: wild.state == "failed")
        assert "has just jumped" in wild.node.owners[P].machine.reason
        wild.site.on_objects.max_delay_ms = wild.site.on_metadata.max_delay_ms = 0
        watching.cancel()
        right = await cluster.node("n3")
        life = await cluster.assign(right)
        assert life.line.ticks.last < right.site.runtime.now_us() + 60_000_000
