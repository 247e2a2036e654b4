"""What outlives an owner: checkpoints, cursors, trims."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.unit.streaming.node.kit import (
    EARLIEST,
    LATEST,
    Cluster,
    Consuming,
    Member,
    P,
    consume,
    is_class,
    one_node,
    produce,
    until,
)

from woodpecker.errors import Unavailable
from woodpecker.streaming import requests
from woodpecker.streaming.codec.checkpoint import decoding, encode_checkpoint, encoding
from woodpecker.streaming.codec.records import CHECKPOINTS
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.records import CheckpointsRecord
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import Position, Start, StartForm, Where
from woodpecker.streaming.node import upkeep
from woodpecker.streaming.node.checkpoints import (
    Progress,
    fold_rest,
    in_steps,
    load_checkpoint,
    name_of,
)
from woodpecker.streaming.node.owner import PchannelOwner
from woodpecker.testing.virtual import on_virtual_time


async def checkpoints(cluster: Cluster) -> CheckpointsRecord:
    found = (await cluster.admin.load(CHECKPOINTS.key(cluster.log.log_id))).record
    return found or CheckpointsRecord()


@on_virtual_time
async def test_a_checkpoint_and_the_rest_are_as_good_as_everything() -> None:
    async with one_node(checkpoint_age_ms=2000) as (cluster, member):
        producing = await produce(cluster, member, "a")
        for n in range(10):
            await producing.put(b"%d" % n, txn_number=n, begin=True, commit=n % 2 == 0)
            await asyncio.sleep(0.9)
        record = await checkpoints(cluster)
        assert len(record.checkpoints) == 2
        assert record.checkpoints[0].seq > record.checkpoints[1].seq
        objects = await cluster.log.objects.list()
        assert sorted(o.name for o in objects) == sorted(r.object for r in record.checkpoints)
        log, end = await cluster.reader(), member.life.line.acked
        whole = Fold()
        await fold_rest(log, whole, end, Progress())
        assert whole == member.life.line.fold
        rest = await load_checkpoint(cluster.admin, log, cluster.runtime)
        assert rest.next_seq == record.checkpoints[0].seq
        await fold_rest(log, rest, end, Progress())
        assert rest == whole
        await asyncio.sleep(100)
        requests_before = len(member.site.on_objects.requests)
        await asyncio.sleep(600)
        assert len(member.site.on_objects.requests) == requests_before, "idle: nothing is written"


@on_virtual_time
async def test_what_dead_openers_left_behind_is_swept() -> None:
    async with one_node(checkpoint_age_ms=1000) as (cluster, member):
        producing = await produce(cluster, member)
        for n in range(3):
            await producing.put(b"%d" % n)
            await asyncio.sleep(3)
        await cluster.log.objects.put(name_of(2, "dead"), b"?")
        await cluster.log.objects.put(name_of(10**9, "later"), b"?")
        new = await cluster.node("n2")
        await cluster.assign(new)
        await asyncio.sleep(5)
        names = {ref.object for ref in (await checkpoints(cluster)).checkpoints}
        found = {one.name for one in await cluster.log.objects.list()}
        assert found == names | {name_of(10**9, "later")}


@on_virtual_time
async def test_a_checkpoint_holds_nothing_that_is_not_acknowledged() -> None:
    async with one_node(checkpoint_age_ms=1000) as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a")
        member.site.disk.is_held = True
        await producing.send(b"b")
        await asyncio.sleep(8)
        assert all(
            ref.seq <= member.life.line.acked for ref in (await checkpoints(cluster)).checkpoints
        )
        member.site.disk.let_go()
        await producing.ack()
        await asyncio.sleep(3)
        assert (await checkpoints(cluster)).checkpoints[0].seq == member.life.line.acked


@on_virtual_time
async def test_what_cannot_be_saved_is_said_once_for_each_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_node(checkpoint_age_ms=1000) as (cluster, member):
        producing = await produce(cluster, member)
        room = itertools.count(1000)
        why = "no room for {} bytes"

        async def refuse(*_: Any, **__: Any) -> None:
            raise Unavailable(why.format(next(room)))

        with monkeypatch.context() as full:
            full.setattr(upkeep, "write_checkpoint", refuse)
            await producing.put(b"a")
            await asyncio.sleep(60)
            assert caplog.text.count("no checkpoint or trim") == 1
            why = "the store is away"
            await asyncio.sleep(60)
            assert caplog.text.count("no checkpoint or trim") == 2
        await asyncio.sleep(60)
        monkeypatch.setattr(upkeep, "write_checkpoint", refuse)
        await producing.put(b"b")
        await asyncio.sleep(60)
        assert caplog.text.count("no checkpoint or trim") == 3


@on_virtual_time
async def test_an_unreadable_checkpoint_is_passed_over_and_none_readable_is_corrupt() -> None:
    async with one_node(checkpoint_age_ms=1000) as (cluster, member):
        producing = await produce(cluster, member)
        for n in range(3):
            await producing.put(b"%d" % n)
            await asyncio.sleep(3)
        record = await checkpoints(cluster)
        newest, older = record.checkpoints
        await cluster.log.objects.delete(newest.object)
        fold = await load_checkpoint(cluster.admin, cluster.log, cluster.runtime)
        assert fold.next_seq == older.seq
        new = await cluster.node("n2")
        await cluster.assign(new)
        consuming = await consume(cluster, new)
        assert await consuming.until(3) == [b"0", b"1", b"2"]
        await consuming.close()


async def open_cursor(member: Member, name: str = "mailer", **fields: Any) -> requests.CursorState:
    fields.setdefault("start", EARLIEST)
    fields.setdefault("nonce", "n")
    return await member.endpoint.call(
        requests.OpenCursor(pchannel=P, vcid=7, cursor=name, holder="h", **fields)
    )


async def commit(
    member: Member, generation: int, done: Position, name: str = "mailer", **fields: Any
) -> requests.CursorState:
    return await member.endpoint.call(
        requests.CommitCursor(
            pchannel=P, vcid=7, cursor=name, generation=generation, done=done, **fields
        )
    )


@on_virtual_time
async def test_a_cursor_is_made_attached_moved_and_fenced() -> None:
    async with one_node() as (cluster, member):
        with pytest.raises(Refused) as refused:
            await open_cursor(member, attach=False)
        assert refused.value.refusal.kind is Class.NOT_FOUND
        producing = await produce(cluster, member)
        acks = [await producing.put(b"%d" % n) for n in range(5)]
        state = await open_cursor(member, where=Where(type="x"))
        assert (state.generation, state.done.seq, state.where.type) == (1, 1, "x")
        assert await open_cursor(member, where=Where(type="x")) == state, "a repeat of the attach"
        done = Position(acks[2].seq, 0, acks[2].tick, acks[2].low, 1)
        ranges = ((Position(acks[4].seq), Position(acks[4].seq)),)
        moved = await commit(member, 1, done, ranges=ranges)
        assert (moved.done, moved.ranges) == (done, ranges)
        late = await commit(member, 1, Position(acks[0].seq, low=acks[0].seq))
        assert late == moved, "done never falls"
        taken = await open_cursor(member, nonce="m")
        assert (taken.generation, taken.done, taken.ranges) == (2, done, ranges)
        with pytest.raises(Refused) as refused:
            await commit(member, 1, Position(acks[4].seq, low=acks[4].seq))
        assert refused.value.refusal.kind is Class.FENCED
        reset = await commit(member, 2, Position(1, low=1), reset=True)
        assert (reset.done.seq, reset.generation) == (1, 3)
        listed = await member.endpoint.call(requests.ListCursors(pchannel=P, vcid=7))
        assert [c.cursor for c in listed.cursors] == ["mailer"]
        await member.endpoint.call(requests.DeleteCursor(pchannel=P, vcid=7, cursor="mailer"))
        await member.endpoint.call(requests.DeleteCursor(pchannel=P, vcid=7, cursor="mailer"))
        listed = await member.endpoint.call(requests.ListCursors(pchannel=P))
        assert listed.cursors == []


@on_virtual_time
async def test_the_filter_of_a_cursor_stays_whoever_attaches() -> None:
    async with one_node() as (_, member):
        state = await open_cursor(member, where=Where(type="x"))
        with pytest.raises(Refused) as refused:
            await open_cursor(member, nonce="2", where=Where(type="y"))
        assert refused.value.refusal.kind is Class.INVALID
        seen = await open_cursor(member, attach=False)
        assert seen == state, "who is refused fences nobody"
        taken = await open_cursor(member, nonce="3")  # says nothing of a filter
        assert (taken.generation, taken.where) == (2, Where(type="x"))
        assert (await open_cursor(member, nonce="4", where=Where(type="x"))).generation == 3


@on_virtual_time
async def test_a_replaced_owner_takes_no_offence_at_what_it_has_not_seen() -> None:
    async with one_node() as (cluster, old):
        await open_cursor(old)
        new = await cluster.node("n2")
        await cluster.assign(new)
        producing = await produce(cluster, new)
        ack = await producing.put(b"a")
        with pytest.raises(Refused) as refused:
            await commit(old, 1, Position(ack.seq + 1, low=ack.seq + 1))
        assert refused.value.refusal.kind is Class.MOVED
        await commit(new, 1, Position(ack.seq + 1, low=ack.seq + 1))


@on_virtual_time
async def test_the_log_cursor_stays_at_low_not_at_done() -> None:
    async with one_node() as (cluster, member):
        producing, other = await produce(cluster, member, "t"), await produce(cluster, member)
        first = await producing.put(b"t1", txn_number=0, begin=True)
        ack = await other.put(b"x")
        assert ack.low == first.seq
        state = await open_cursor(member, start=LATEST)
        assert state.done.seq == ack.seq + 1
        assert state.done.low == first.seq
        cursor = await cluster.log.cursor("7.mailer", create=False)
        assert cursor.position == first.seq
        await producing.put(b"t2", txn_number=0, commit=True)
        again = await open_cursor(member, nonce="2")
        done = again.done
        consuming = await Consuming(cluster, member).open()
        await consuming.subscribe(
            1, start=Start(form=StartForm.POSITION, value=done.seq, index=done.index, low=done.low)
        )
        assert await consuming.until(2) == [b"t1", b"t2"]
        await consuming.close()


@on_virtual_time
async def test_commits_that_cross_lose_nothing() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        acks = [await producing.put(b"%d" % n) for n in range(20)]
        await open_cursor(member)
        member.site.on_metadata.max_delay_ms = 10
        await asyncio.gather(*(commit(member, 1, Position(a.seq, low=a.low)) for a in acks[::-1]))
        state = await open_cursor(member, attach=False)
        assert state.done.seq == acks[-1].seq


async def aged(cluster: Cluster, member: Member, count: int = 8) -> list[int]:
    """Messages over a while, with checkpoints in between; their seqs."""
    producing = await produce(cluster, member)
    seqs = []
    for n in range(count):
        seqs.append((await producing.put(b"%d" % n)).seq)
        await asyncio.sleep(10)
    return seqs


@on_virtual_time
async def test_retention_trims_to_the_older_checkpoint_at_most() -> None:
    async with one_node(checkpoint_age_ms=5000) as (cluster, member):
        await cluster.create(member, 8, retention_age_s=30)
        await aged(cluster, member)
        await asyncio.sleep(200)
        assert await cluster.log.earliest() == 0, "channel 7 keeps everything"
        await member.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        await asyncio.sleep(200)
        earliest = await cluster.log.earliest()
        record = await checkpoints(cluster)
        assert earliest == record.checkpoints[1].low
        before = len(member.site.on_objects.requests)
        await asyncio.sleep(600)
        assert len(member.site.on_objects.requests) == before, "old and gone: nobody looks any more"
        refused = await (await Consuming(cluster, member).open()).subscribe(
            1, vcid=8, start=Start(form=StartForm.SEQ, value=earliest - 1)
        )
        assert is_class(refused, Class.OUT_OF_RANGE)
        new = await cluster.node("n2")
        life = await cluster.assign(new)
        assert life.earliest == earliest
        assert 8 in life.line.fold.vchannels


@on_virtual_time
async def test_the_beginning_of_a_channel_is_its_own_though_the_log_keeps_more() -> None:
    async with one_node() as (cluster, member):
        await cluster.create(member, 8, retention_age_s=25)
        producing = await produce(cluster, member)
        for n in range(10):
            await producing.put(b"%d" % n, vcid=8)
            await asyncio.sleep(10)
        consuming = await Consuming(cluster, member).open()
        await consuming.subscribe(1, vcid=8)
        assert await consuming.until(2) == [b"8", b"9"]
        old = Start(form=StartForm.SEQ, value=3)  # who knows a place in it is not sent away
        await consuming.subscribe(2, vcid=8, start=old)
        await consuming.until(10, 2)
        await consuming.close()


@on_virtual_time
async def test_who_sleeps_between_its_checkpoint_and_the_fence_loads_a_newer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The owner before goes on meanwhile, and trims what the old checkpoint needs."""
    woken, open_writer = asyncio.Event(), PchannelOwner._open_writer

    async def sleepy(self: PchannelOwner, term: int) -> Any:
        if term == 2:
            await woken.wait()
        return await open_writer(self, term)

    monkeypatch.setattr(PchannelOwner, "_open_writer", sleepy)
    async with one_node(checkpoint_age_ms=5000) as (cluster, old):
        await cluster.create(old, 8, retention_age_s=20)
        await old.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        producing = await produce(cluster, old)
        await producing.put(b"a", vcid=8)
        await asyncio.sleep(10)
        new = await cluster.node("n2")
        await cluster.order(new)
        for n in range(12):
            await producing.put(b"%d" % n, vcid=8)
            await asyncio.sleep(20)
        loaded = new.node.owners[P]._checkpoint
        assert loaded is not None
        assert loaded.next_seq < await cluster.log.earliest()
        woken.set()
        await until(lambda: new.state in ("serving", "failed"))
        assert new.state == "serving"
        assert 8 in new.life.line.fold.vchannels


@on_virtual_time
async def test_a_cursor_holds_the_log_for_as_long_as_it_may() -> None:
    async with one_node(checkpoint_age_ms=5000, cursor_hold_s=1000) as (cluster, member):
        await cluster.create(member, 9, retention_age_s=20)
        await member.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        await cluster.create(member, 10, retention_age_s=20)
        producing = await produce(cluster, member)
        seqs = [(await producing.put(b"%d" % n, vcid=9)).seq for n in range(4)]
        state = await member.endpoint.call(
            requests.OpenCursor(
                pchannel=P, vcid=9, cursor="c", start=Start(form=StartForm.SEQ, value=seqs[2]),
                holder="h", nonce="1",
            )
        )  # fmt: skip
        for n in range(6):
            await producing.put(b"%d" % n, vcid=9)
            await asyncio.sleep(40)
        assert await cluster.log.earliest() == seqs[2]
        for n in range(12):
            await producing.put(b"more %d" % n, vcid=9)
            await asyncio.sleep(100)
        assert await cluster.log.earliest() > seqs[2]
        consuming = await Consuming(cluster, member).open()
        refused = await consuming.subscribe(
            1, vcid=9,
            start=Start(form=StartForm.POSITION, value=state.done.seq, low=state.done.low),
        )  # fmt: skip
        assert is_class(refused, Class.OUT_OF_RANGE)
        await consuming.close()


@on_virtual_time
async def test_read_points_cover_what_was_acknowledged_and_come_from_the_owner_alone() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        ack = await producing.put(b"a")
        ask = requests.GetReadPoint(pchannel=P, vcid=7)
        point = (await member.endpoint.call(ask)).position
        assert point.seq == ack.seq + 1
        new = await cluster.node("n2")
        await cluster.assign(new)
        with pytest.raises(Refused) as refused:
            await member.endpoint.call(ask)
        assert refused.value.refusal.kind is Class.MOVED
        assert (await new.endpoint.call(ask)).position > point
        new.site.on_metadata.is_away = True
        with pytest.raises(Refused) as refused:
            await new.endpoint.call(ask)
        assert refused.value.refusal.kind in (Class.UNAVAILABLE, Class.UNKNOWN)


@on_virtual_time
async def test_control_records_are_written_once() -> None:
    async with one_node() as (cluster, member):
        first = await cluster.create(member, 7)
        assert first == await cluster.create(member, 7)
        broadcast = requests.AppendControl(
            pchannel=P, term=1, kind="broadcast", vcid=7, broadcast_id=3, broadcast_floor=2,
            payload=b"all", type="b",
        )  # fmt: skip
        one = await member.endpoint.call(broadcast)
        consuming = await consume(cluster, member)
        two = await member.endpoint.call(broadcast)
        assert one.position == two.position
        assert await consuming.until(1) == [b"all"]
        assert consuming.got[1][0].type == "b"
        await consuming.close()


@on_virtual_time
async def test_what_was_trimmed_from_under_a_transaction_is_not_passed_over_in_silence() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a", txn_number=0, begin=True)
        kept = await producing.put(b"between")
        await producing.put(b"b", txn_number=0)
        done = await producing.put(b"c", txn_number=0, commit=True)
        await producing.put(b"after")
        await member.life.log.trim(kept.seq)
        member.life.earliest = kept.seq
        consuming = await Consuming(cluster, member).open()
        asked = Start(form=StartForm.POSITION, value=done.seq, low=done.low)
        refused = await consuming.subscribe(1, start=asked)
        assert is_class(refused, Class.OUT_OF_RANGE)
        again = Start(form=StartForm.SEQ, value=refused.refusal.earliest)
        await consuming.subscribe(2, start=again)
        assert await consuming.until(2, consumer=2) == [b"between", b"after"]
        await consuming.subscribe(3)
        assert await consuming.until(2, consumer=3) == [b"between", b"after"]
        await consuming.close()


@on_virtual_time
async def test_a_place_that_is_trimmed_while_it_is_looked_up_is_not_passed_over_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        acks = [await producing.put(b"%d" % n) for n in range(4)]
        life = member.life
        look = life.runs.at

        async def slow(seq: int, visible: int) -> Any:
            run = await look(seq, visible)
            await life.log.trim(acks[2].seq)
            life.earliest = acks[2].seq
            return run

        monkeypatch.setattr(life.runs, "at", slow)
        consuming = await Consuming(cluster, member).open()
        refused = await consuming.subscribe(1, start=Start(form=StartForm.SEQ, value=acks[1].seq))
        assert is_class(refused, Class.OUT_OF_RANGE)
        assert refused.refusal.earliest == acks[2].seq
        await consuming.close()


@on_virtual_time
async def test_others_have_their_turn_while_a_large_checkpoint_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("woodpecker.streaming.codec.checkpoint.ROWS_A_STEP", 1)
    async with one_node() as (cluster, member):
        for n in range(30):
            await (await produce(cluster, member, f"p{n}")).put(b"x")
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        fold = member.life.line.fold.copy()
        task = asyncio.ensure_future(others())
        await in_steps(cluster.runtime, encoding(fold))
        assert turns > 30
        turns = 0
        assert await in_steps(cluster.runtime, decoding(encode_checkpoint(fold))) == fold
        assert turns > 30
        task.cancel()


@on_virtual_time
async def test_a_channel_that_began_above_the_trim_lost_nothing_to_it() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a", txn_number=0, begin=True)
        kept = await producing.put(b"between")
        await cluster.create(member, 8)
        mine = await producing.put(b"mine", vcid=8)
        await member.life.log.trim(kept.seq)
        member.life.earliest = kept.seq
        consuming = await Consuming(cluster, member).open()
        await consuming.subscribe(1, vcid=8, start=Start(form=StartForm.SEQ, value=mine.seq))
        assert await consuming.until(1) == [b"mine"]
        refused = await consuming.subscribe(2, vcid=8, start=Start(form=StartForm.SEQ, value=0))
        assert is_class(refused, Class.OUT_OF_RANGE)
        begin = Start(form=StartForm.SEQ, value=refused.refusal.earliest)
        await consuming.subscribe(3, vcid=8, start=begin)
        assert await consuming.until(1, consumer=3) == [b"mine"]
        await consuming.close()


@on_virtual_time
async def test_retention_cuts_no_transaction_that_is_kept() -> None:
    async with one_node(checkpoint_age_ms=5000) as (cluster, member):
        await cluster.create(member, 8, retention_age_s=100)
        await member.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        producing = await produce(cluster, member)
        await producing.put(b"old", vcid=8)
        begun = await producing.put(b"a", vcid=8, txn_number=0, begin=True, keep_alive_ms=60_000)
        for payload in (b"b", b"c"):
            await asyncio.sleep(50)
            await producing.put(payload, vcid=8, txn_number=0)
        await producing.put(b"d", vcid=8, txn_number=0, commit=True)
        for payload in (b"e", b"f"):  # checkpoints that know of no open transaction
            await asyncio.sleep(10)
            await producing.put(payload, vcid=8)
        while member.life.earliest < begun.seq:
            await asyncio.sleep(1)
        assert member.life.earliest == begun.seq, "its commit is not old yet"
        consuming = await Consuming(cluster, member).open()
        await consuming.subscribe(1, vcid=8)
        assert await consuming.until(6) == [b"a", b"b", b"c", b"d", b"e", b"f"]
        await consuming.close()
