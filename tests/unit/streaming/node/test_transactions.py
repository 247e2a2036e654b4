"""Transactions through a node: whole or not at all, one verdict, timers, owners that change in the middle."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.streaming.node.kit import (
    Member,
    P,
    Producing,
    consume,
    is_class,
    one_node,
    produce,
)

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import Start, StartForm
from woodpecker.testing.virtual import on_virtual_time


async def describe(member: Member, producing: Producing, number: int) -> requests.TransactionState:
    return await member.endpoint.call(
        requests.DescribeTransaction(
            pchannel=P, producer=producing.attached.producer, epoch=producing.attached.epoch,
            txn_number=number,
        )
    )  # fmt: skip


@on_virtual_time
async def test_committed_ones_come_whole_at_their_commit_aborted_ones_never() -> None:
    async with one_node() as (cluster, member):
        producing, other = await produce(cluster, member, "a"), await produce(cluster, member)
        live = await consume(cluster, member)
        await producing.put(b"t0", txn_number=0, begin=True)
        await producing.put(b"u0", txn_number=1, begin=True)
        await other.put(b"x")
        await producing.put(txn_number=1, abort=True)
        ack = await producing.put(b"t1", txn_number=0, commit=True)
        assert ack.count == 2
        await producing.put(b"v", txn_number=2, begin=True, commit=True)
        await producing.put(b"w1", txn_number=3, begin=True)
        await producing.put(txn_number=3, commit=True)  # an end without messages
        assert await live.until(5) == [b"x", b"t0", b"t1", b"v", b"w1"]
        assert [m.position.index for m in live.got[1]] == [0, 0, 1, 0, 0]
        assert live.got[1][2].position.seq == ack.seq
        assert live.got[1][2].position.tick == live.got[1][1].position.tick == ack.tick
        assert (await describe(member, producing, 0)).state == "committed"
        assert (await describe(member, producing, 1)).state == "aborted"
        assert (await describe(member, producing, 9)).state == "forgotten"
        late = await consume(cluster, member)
        assert await late.until(5) == live.payloads()
        await live.close()
        await late.close()


@on_virtual_time
async def test_a_large_message_is_joined_at_its_commit() -> None:
    async with one_node() as (cluster, member):
        producing, other = await produce(cluster, member), await produce(cluster, member)
        live = await consume(cluster, member)
        await producing.put(b"ab", txn_number=0, begin=True, keys=[b"k"])
        await other.put(b"x")
        await producing.put(b"cd", b"ef", txn_number=0)
        ack = await producing.put(txn_number=0, commit=True, join=True)
        assert await live.until(2) == [b"x", b"abcdef"]
        assert live.got[1][1].key == b"k"
        assert live.got[1][1].position.seq == ack.seq
        await live.close()


@on_virtual_time
async def test_nobody_keeps_it_alive() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "a")
        await producing.put(b"1", txn_number=0, begin=True, keep_alive_ms=2000)
        await producing.put(b"2", txn_number=1, begin=True, keep_alive_ms=2000)
        for _ in range(10):
            await asyncio.sleep(1)
            await producing.stream.send(frames.KeepAlive(session=1, txn_number=1))
        assert (await describe(member, producing, 0)).state == "aborted"
        assert (await describe(member, producing, 1)).state == "open"
        await producing.send(b"3", txn_number=0, commit=True)
        refused = await producing.refusal()
        assert (refused.refusal.kind, bool(refused.refusal.reason)) == (Class.ABORTED, True)
        producing.sequence -= 1
        await producing.put(b"4", txn_number=1, commit=True)
        await asyncio.sleep(20)
        live = await consume(cluster, member)
        assert await live.until(2) == [b"2", b"4"]
        await live.close()


@on_virtual_time
async def test_a_replaced_producer_keeps_nothing_of_its_successor_alive() -> None:
    async with one_node() as (cluster, member):
        old, new = await produce(cluster, member, "a"), await produce(cluster, member, "a")
        await new.put(b"1", txn_number=0, begin=True, keep_alive_ms=2000)
        for _ in range(10):
            await asyncio.sleep(1)
            await old.stream.send(frames.KeepAlive(session=1, txn_number=0))
        assert (await describe(member, new, 0)).state == "aborted"


@on_virtual_time
async def test_slow_appends_stop_the_timers() -> None:
    async with one_node() as (cluster, member):
        producing, other = await produce(cluster, member, "a"), await produce(cluster, member)
        await producing.put(b"1", txn_number=0, begin=True, keep_alive_ms=3000)
        member.site.disk.is_held = True
        await other.send(b"x")
        await asyncio.sleep(12)
        member.site.disk.let_go()
        await other.ack()
        ack = await producing.put(
            txn_number=0, commit=True
        )  # an end passes, though the rate is REJECT
        assert ack.count == 1
        assert -1 in producing.rates


@on_virtual_time
async def test_open_ones_survive_a_new_owner_and_get_their_time_anew() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "a")
        await producing.put(b"1", txn_number=0, begin=True, keep_alive_ms=3000)
        await asyncio.sleep(2)
        new = await cluster.node("n2")
        await cluster.assign(new)
        again = await produce(cluster, new, "a", epoch=producing.attached.epoch)
        await asyncio.sleep(2)
        assert (await describe(new, producing, 0)).state == "open"
        commit = again.batch([b"2"], txn_number=0, commit=True)
        await again.stream.send(commit)
        ack = await again.ack()
        await again.stream.send(commit)
        assert await again.ack() == ack
        live = await consume(cluster, new)
        assert await live.until(2) == [b"1", b"2"]
        await live.close()
        with pytest.raises(Refused) as refused:
            await describe(member, producing, 0)
        assert refused.value.refusal.kind is Class.MOVED, "a replaced owner does not guess"


@on_virtual_time
async def test_a_newer_epoch_aborts_what_was_open() -> None:
    async with one_node() as (cluster, member):
        old = await produce(cluster, member, "a")
        live = await consume(cluster, member)
        await old.put(b"1", txn_number=0, begin=True)
        new = await produce(cluster, member, "a")
        await new.put(b"2", txn_number=0, begin=True, commit=True)
        assert await live.until(1) == [b"2"]
        assert (await describe(member, old, 0)).state == "aborted"
        late = await consume(cluster, member)
        assert await late.until(1) == [b"2"]
        consumers = [c for there in member.life.audience._by_vcid.values() for c in there.values()]
        assert [c._assembly.held_bytes for c in consumers] == [0, 0], "nobody waits for its commit"
        await live.close()
        await late.close()


@on_virtual_time
async def test_limits_of_transactions() -> None:
    async with one_node(transactions_per_session=2, transaction_max_entries=3) as (cluster, member):
        producing = await produce(cluster, member, "a")
        await producing.put(b"1", txn_number=0, begin=True)
        await producing.put(b"1", txn_number=1, begin=True)
        await producing.send(b"1", txn_number=2, begin=True)
        assert is_class(await producing.answer(), Class.INVALID)
        producing.sequence -= 1
        await producing.send(b"2", b"3", b"4", txn_number=0)
        assert is_class(await producing.answer(), Class.INVALID)
        producing.sequence -= 1
        await producing.put(b"2", b"3", txn_number=0, commit=True)
        await producing.put(txn_number=1, abort=True)
        assert member.life.line.fold.open == {}
        assert member.life.timers._expiry.next_due_us() is None


@on_virtual_time
async def test_who_begins_at_the_tail_while_a_commit_is_in_flight_gets_it_whole() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "a")
        await producing.put(b"t1", txn_number=0, begin=True)
        member.site.disk.is_held = True
        await producing.send(b"t2", txn_number=0, commit=True)
        await asyncio.sleep(0.05)
        assert member.life.line.fold.open == {}
        live = await consume(cluster, member, start=Start(form=StartForm.LATEST))
        await live.stream.send(frames.AskProgress())
        await asyncio.sleep(0.05)
        resumed = live.progress[-1].position
        member.site.disk.let_go()
        await producing.ack()
        assert await live.until(2) == [b"t1", b"t2"]
        again = await consume(
            cluster,
            member,
            start=Start(form=StartForm.POSITION, value=resumed.seq, low=resumed.low),
        )
        assert await again.until(2) == [b"t1", b"t2"]
        await live.close()
        await again.close()


@on_virtual_time
async def test_a_new_owner_gives_up_what_nobody_goes_on_with() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "a")
        await producing.put(b"1", txn_number=0, begin=True, keep_alive_ms=3000)
        new = await cluster.node("n2")
        await cluster.assign(new)
        await asyncio.sleep(2.5)
        assert (await describe(new, producing, 0)).state == "open"
        await asyncio.sleep(2)
        assert (await describe(new, producing, 0)).state == "aborted"
