"""Consume streams: catch-up and tail, places to begin and end, filters, credit, signals, ephemerals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.streaming.node.kit import (
    EARLIEST,
    LATEST,
    Consuming,
    P,
    consume,
    is_class,
    one_node,
    produce,
    until,
)

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class
from woodpecker.streaming.core.values import EndForm, Start, StartForm, Stop, Where
from woodpecker.testing.virtual import on_virtual_time


def at(form: StartForm, value: int, index: int = 0, **fields: Any) -> Start:
    return Start(form=form, value=value, index=index, **fields)


@on_virtual_time
async def test_no_gap_and_no_repeat_from_catch_up_to_the_tail_while_others_write() -> None:
    async with one_node(tail_bytes=3000) as (cluster, member):
        member.site.on_objects.max_delay_ms = 8
        producing = await produce(cluster, member)

        async def load() -> None:
            for n in range(300):
                await producing.send(b"%d" % n)
                if n % 3 == 0:
                    await asyncio.sleep(0.002)

        loading = cluster.runtime.spawn(load(), "load")
        consumers = []
        for _ in range(6):
            await asyncio.sleep(0.03)
            consumers.append(await consume(cluster, member))
        await loading
        wanted = [b"%d" % n for n in range(300)]
        for consuming in consumers:
            assert await consuming.until(300) == wanted
            positions = [m.position for m in consuming.got[1]]
            assert positions == sorted(set(positions))
            assert member.life.reading == 0
            await consuming.close()


@on_virtual_time
async def test_from_every_place_and_to_every_end() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        acks = [await producing.put(b"%d" % (2 * n), b"%d" % (2 * n + 1)) for n in range(5)]
        everything = [b"%d" % n for n in range(10)]
        one = acks[2].seq + 1  # of b"5", inside a batch
        cases = [
            (EARLIEST, 0),
            (at(StartForm.SEQ, acks[2].seq), 4),
            (at(StartForm.SEQ, one), 5),
            (at(StartForm.POSITION, one), 5),
            (at(StartForm.POSITION, one, low=one), 5),  # a wrong low is found out
            (at(StartForm.POSITION, one, low=0), 5),
            (at(StartForm.POSITION, one, 1), 6),
            (at(StartForm.AFTER, one), 6),
            (at(StartForm.TICK, acks[3].tick), 6),
            (at(StartForm.TICK, acks[3].tick + 1), 7),
            (at(StartForm.TIME, acks[2].tick + 2), 6),
            (at(StartForm.TICK, 1 << 62), 10),
            (at(StartForm.TICK, 0), 0),
            (LATEST, 10),
        ]
        number = 0
        consuming = await Consuming(cluster, member).open()
        for start, first in cases:
            number += 1
            started = await consuming.subscribe(number, start=start)
            assert isinstance(started, frames.Started), (start, started)
            assert await consuming.until(10 - first, number) == everything[first:], start
        ends = [
            (Stop(form=EndForm.TAIL), 10),
            (Stop(form=EndForm.POSITION, value=one), 5),
            (Stop(form=EndForm.POSITION, value=one, index=1), 6),
            (Stop(form=EndForm.TICK, value=acks[3].tick), 6),
            (Stop(form=EndForm.POSITION, value=0), 0),
        ]
        for stop, count in ends:
            number += 1
            await consuming.subscribe(number, stop=stop)
            assert await consuming.until(count, number) == everything[:count], stop
            await consuming.wait_for(
                lambda f, n=number: isinstance(f, frames.ConsumerEnded) and f.consumer == n
            )
        await consuming.close()


@on_virtual_time
async def test_resuming_at_any_delivered_position_gives_exactly_the_rest() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        other = await produce(cluster, member)
        await producing.put(b"a")
        await producing.put(b"t1", txn_number=0, begin=True)
        await other.put(b"b", b"c")
        await producing.put(b"t2", b"t3", txn_number=0)
        await other.put(b"d")
        await producing.put(b"t4", txn_number=0, commit=True)
        await other.put(b"e")
        consuming = await consume(cluster, member)
        wanted = await consuming.until(9)
        assert wanted == [b"a", b"b", b"c", b"d", b"t1", b"t2", b"t3", b"t4", b"e"]
        for number, got in enumerate(list(consuming.got[1])):
            position = got.position
            for form, shift, low in (
                (StartForm.POSITION, 0, position.low),
                (StartForm.POSITION, 0, -1),
                (StartForm.AFTER, 1, position.low),
            ):
                again = await consume(
                    cluster, member, start=at(form, position.seq, position.index, low=low)
                )
                assert await again.until(9 - number - shift) == wanted[number + shift :]
                await again.close()
        await consuming.close()


@on_virtual_time
async def test_latest_sees_a_transaction_begun_before_it() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"t1", txn_number=0, begin=True)
        await producing.put(b"x", vcid=7)
        consuming = await consume(cluster, member, start=LATEST)
        await producing.put(b"t2", txn_number=0, commit=True)
        assert await consuming.until(2) == [b"t1", b"t2"]
        await consuming.close()


@on_virtual_time
async def test_filters_choose_single_messages_and_progress_moves_on() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        live = await consume(cluster, member, where=Where(type="event", key=b"1"))
        await producing.put(b"a", b"b", types=["event", "other"], keys=[b"1", b"1"])
        await producing.put(b"c", types=["event"], keys=[b"2"])
        ack = await producing.put(b"d", types=["event"], keys=[b"1"])
        last = await producing.put(b"e")
        assert await live.until(2) == [b"a", b"d"]
        assert [m.position.seq for m in live.got[1]] == [ack.seq - 3, ack.seq]
        await asyncio.sleep(1.1)
        assert live.progress[-1].position.seq == last.seq + 1
        late = await consume(cluster, member, where=Where(type="event", key=b"1"))
        assert await late.until(2) == [b"a", b"d"]
        await live.close()
        await late.close()


@on_virtual_time
async def test_a_consumer_sees_only_its_channel() -> None:
    async with one_node() as (cluster, member):
        await cluster.create(member, 8)
        producing = await produce(cluster, member)
        consuming = await Consuming(cluster, member).open()
        await consuming.subscribe(1, vcid=7)
        await consuming.subscribe(2, vcid=8)
        for n in range(10):
            await producing.put(b"%d" % n, vcid=7 + n % 2)
        assert await consuming.until(5, 1) == [b"%d" % n for n in range(0, 10, 2)]
        assert await consuming.until(5, 2) == [b"%d" % n for n in range(1, 10, 2)]
        refused = await consuming.subscribe(3, vcid=9)
        assert is_class(refused, Class.GONE)
        assert "was deleted, and its name with it" in refused.refusal.message
        await consuming.close()


@on_virtual_time
async def test_without_credit_a_consumer_keeps_its_place_and_blocks_nobody() -> None:
    async with one_node(tail_bytes=20_000) as (cluster, member):
        producing = await produce(cluster, member)
        consuming = await Consuming(cluster, member, gives_credit=False).open()
        await consuming.subscribe(1, credit_bytes=500)
        fast = await consume(cluster, member)
        for n in range(100):
            await producing.put(b"%03d" % n + b"x" * 100)
        await fast.until(100)
        await asyncio.sleep(0.2)
        assert 0 < len(consuming.got[1]) <= 4
        assert sum(data.cost_bytes for data in consuming.data) <= 500
        consuming.gives_credit = True
        spent = sum(data.cost_bytes for data in consuming.data)
        await consuming.stream.send(frames.Credit(consumer=1, size_bytes=spent))
        assert await consuming.until(100) == fast.payloads()
        await fast.close()
        await consuming.close()


@on_virtual_time
async def test_a_message_larger_than_all_credit_passes_when_nothing_is_outstanding() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a" * 10, b"b" * 5000, b"c" * 10)
        consuming = await consume(cluster, member, credit_bytes=300)
        assert [len(p) for p in await consuming.until(3)] == [10, 5000, 10]
        await producing.put(b"d" * 5000)
        await consuming.until(4)
        await consuming.close()


@on_virtual_time
async def test_the_credits_of_a_stream_are_shared_when_there_are_many() -> None:
    async with one_node(stream_credit_bytes=100_000) as (cluster, member):
        producing = await produce(cluster, member)
        consuming = await Consuming(cluster, member, gives_credit=False).open()
        for number in range(1, 21):
            started = await consuming.subscribe(number, credit_bytes=40_000)
            assert isinstance(started, frames.Started)
        for _ in range(60):
            await producing.put(b"x" * 1000)
        await asyncio.sleep(0.3)
        outstanding = sum(data.cost_bytes for data in consuming.data)
        assert outstanding <= 100_000 + 18 * (16 << 10)
        consuming.gives_credit = True
        for data in list(consuming.data):
            credit = frames.Credit(consumer=data.consumer, size_bytes=data.cost_bytes)
            await consuming.stream.send(credit)
        for number in range(1, 21):
            await consuming.until(60, number)
        await consuming.close()


@on_virtual_time
async def test_many_consumers_of_one_history_share_what_is_read() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        for n in range(50):
            await producing.put(b"%d" % n + b"x" * 1000)
        member.life.tail.evict(1 << 30)  # who begins at the start has to read the log
        before = len(member.site.on_objects.requests)
        one = await consume(cluster, member)
        await one.until(50)
        cost = len(member.site.on_objects.requests) - before
        before = len(member.site.on_objects.requests)
        consuming = await Consuming(cluster, member).open()
        for number in range(1, 21):
            await consuming.subscribe(number)
        for number in range(1, 21):
            await consuming.until(50, number)
        assert len(member.site.on_objects.requests) - before <= 2 * cost
        await one.close()
        await consuming.close()


@on_virtual_time
async def test_signals_of_time_come_when_idle_and_hold_what_they_say() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        ticking = await consume(cluster, member, ticks=True)
        await asyncio.sleep(0.7)
        ticks = [p.tick for p in ticking.progress]
        assert len(ticks) >= 3
        assert ticks == sorted(ticks)
        ack = await producing.put(b"a")
        assert ack.tick > ticks[-1]
        await ticking.until(1)
        await asyncio.sleep(0.5)
        assert ticking.progress[-1].tick > ack.tick
        before = member.life.line.fold.next_seq
        await asyncio.sleep(600)
        written = member.life.line.fold.next_seq - before
        assert 5 <= written <= 14, "a limit each 5, 10, 20, 40, then 60 s"
        assert ticking.progress[-1].tick > ack.tick + 590_000_000
        await ticking.close()
        before = member.life.line.fold.next_seq
        await asyncio.sleep(600)
        assert member.life.line.fold.next_seq == before, "nobody wants ticks: nothing is written"


@on_virtual_time
async def test_progress_comes_each_second_and_when_asked() -> None:
    async with one_node() as (cluster, member):
        consuming = await consume(cluster, member)
        await asyncio.sleep(5.1)
        assert 4 <= len(consuming.progress) <= 6
        count = len(consuming.progress)
        await consuming.stream.send(frames.AskProgress())
        await asyncio.sleep(0.01)
        assert len(consuming.progress) == count + 1
        progress = consuming.progress[-1]
        assert progress.consumers == ()
        assert progress.position.term == 1
        assert progress.position.seq == member.life.line.acked
        await consuming.close()


@on_virtual_time
async def test_progress_names_those_who_have_everything() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        consuming = await Consuming(cluster, member, gives_credit=False).open()
        await consuming.subscribe(1)
        await consuming.subscribe(2, credit_bytes=100)
        for _ in range(5):
            await producing.put(b"x" * 50)
        await asyncio.sleep(2.5)
        last = [p for p in consuming.progress if 1 in p.consumers][-1]
        assert last.position.seq == member.life.line.acked
        assert not any(
            2 in p.consumers and p.position.seq > last.position.seq for p in consuming.progress
        )
        assert all(p.consumers for p in consuming.progress[-2:])
        await consuming.close()


@on_virtual_time
async def test_ephemerals_are_shown_in_order_to_who_is_there_and_never_written() -> None:
    async with one_node() as (cluster, member):
        member.site.on_objects.max_delay_ms = 30
        producing = await produce(cluster, member)
        live = await consume(cluster, member)
        writes = len([r for r in member.site.on_objects.requests if r[0] == "create"])
        for n in range(20):
            await producing.send(b"e%d" % n, ephemeral=True)
        acks = [await producing.ack() for _ in range(20)]
        assert all(a.seq == -1 and a.count == 1 for a in acks)
        assert len([r for r in member.site.on_objects.requests if r[0] == "create"]) == writes
        await producing.send(b"a")
        await producing.send(b"e", ephemeral=True)
        await producing.send(b"b")
        assert [(await producing.ack()).seq >= 0 for _ in range(3)] == [True, False, True]
        assert (await live.until(23))[20:] == [b"a", b"e", b"b"]
        ticks = [m.position.tick for m in live.got[1]]
        assert ticks == sorted(set(ticks))
        late = await consume(cluster, member)
        await until(lambda: [m.payload for m in late.got[1] if not m.ephemeral] == [b"a", b"b"])
        await live.close()
        await late.close()


@on_virtual_time
async def test_out_of_range_is_said_and_beyond_the_tail_only_by_the_owner() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        ack = await producing.put(b"a")
        consuming = await Consuming(cluster, member).open()
        refused = await consuming.subscribe(1, start=at(StartForm.SEQ, ack.seq + 10))
        assert is_class(refused, Class.OUT_OF_RANGE)
        assert "'latest'" in refused.refusal.message, "what to do next"
        refused = await consuming.subscribe(2, start=at(StartForm.SEQ, 0))
        assert is_class(refused, Class.OUT_OF_RANGE)
        assert refused.refusal.earliest == 1, "where the channel begins"
        refused = await consuming.subscribe(3, start=at(StartForm.SEQ, 1, term=2))
        assert is_class(refused, Class.MOVED)
        new = await cluster.node("n2")
        await cluster.assign(new)
        refused = await consuming.subscribe(4, start=at(StartForm.SEQ, ack.seq + 10))
        assert is_class(refused, Class.MOVED), "a stale owner must not say OUT_OF_RANGE"
        await consuming.close()


@on_virtual_time
async def test_a_trim_of_the_channel_hides_what_is_below() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        acks = [await producing.put(b"%d" % n) for n in range(5)]
        await member.endpoint.call(
            requests.AppendControl(
                pchannel=P, term=1, kind="vc-trim", vcid=7, trim_before=acks[3].seq
            )
        )
        consuming = await consume(cluster, member)
        assert await consuming.until(2) == [b"3", b"4"]
        refused = await consuming.subscribe(2, start=at(StartForm.SEQ, acks[1].seq))
        assert is_class(refused, Class.OUT_OF_RANGE)
        assert refused.refusal.earliest == acks[3].seq
        await consuming.close()


@on_virtual_time
async def test_a_deleted_channel_ends_its_consumers_after_its_last_message() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        consuming = await consume(cluster, member)
        await producing.put(b"a")
        await member.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        await consuming.until(1)
        assert is_class(
            await consuming.wait_for(lambda f: isinstance(f, frames.ConsumerRefused)), Class.GONE
        )
        await consuming.close()


@on_virtual_time
async def test_others_messages_move_the_place_and_reach_the_end() -> None:
    async with one_node() as (cluster, member):
        await cluster.create(member, 8)
        producing = await produce(cluster, member)
        consuming = await Consuming(cluster, member).open()
        far = member.life.line.acked + 5
        await consuming.subscribe(1, stop=Stop(form=EndForm.POSITION, value=far))
        await consuming.subscribe(2)
        for n in range(10):
            await producing.put(b"%d" % n, vcid=8)
        ended = await consuming.wait_for(lambda f: isinstance(f, frames.ConsumerEnded))
        assert ended.position.seq >= far
        await consuming.stream.send(frames.Unsubscribe(consumer=2))
        ended = await consuming.wait_for(
            lambda f: isinstance(f, frames.ConsumerEnded) and f.consumer == 2
        )
        assert ended.position.seq == member.life.line.acked
        await consuming.close()


@on_virtual_time
async def test_unsubscribe_and_subscribe_again() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        consuming = await consume(cluster, member)
        await producing.put(b"a")
        await consuming.until(1)
        await consuming.stream.send(frames.Unsubscribe(consumer=1))
        ended = await consuming.wait_for(lambda f: isinstance(f, frames.ConsumerEnded))
        await producing.put(b"b")
        await consuming.until(1)
        position = ended.position
        await consuming.subscribe(1, start=at(StartForm.POSITION, position.seq, position.index))
        assert await consuming.until(2) == [b"a", b"b"]
        assert is_class(await consuming.subscribe(2, credit_bytes=0), Class.INVALID)
        await consuming.close()


@on_virtual_time
@pytest.mark.parametrize("seed", range(5))
async def test_large_transactions_are_read_again_at_their_commit(seed: int) -> None:
    async with one_node(seed, assembly_bytes=1000, tail_bytes=5000) as (cluster, member):
        producing, other = await produce(cluster, member), await produce(cluster, member)
        live = await consume(cluster, member)
        wanted: list[bytes] = []
        for n in range(12):
            payload = b"%d" % n + b"x" * 300
            await producing.put(payload, txn_number=0, begin=n == 0, commit=n == 11)
            wanted.append(payload)
            if n < 11:
                await other.put(b"o%d" % n)
        others = [b"o%d" % n for n in range(11)]
        assert await live.until(23) == others + wanted
        await other.put(b"after")
        assert (await live.until(24))[-1] == b"after"
        late = await consume(cluster, member)
        assert await late.until(24) == [*others, *wanted, b"after"]
        await live.close()
        await late.close()
