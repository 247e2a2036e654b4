"""Produce streams: order, repeats, gaps, producers by name and without, limits, the end of a stream."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.streaming.node.kit import (
    P,
    Producing,
    consume,
    is_class,
    one_node,
    produce,
)

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_batches_in_flight_are_answered_in_order() -> None:
    async with one_node() as (cluster, member):
        member.site.on_objects.max_delay_ms = 20
        producing = await produce(cluster, member)
        for n in range(50):
            await producing.send(b"%d" % n, b"-")
        acks = [await producing.ack() for _ in range(50)]
        assert [a.sequence for a in acks] == list(range(50))
        assert [a.seq for a in acks] == list(range(acks[0].seq, acks[0].seq + 100, 2))
        assert all(a.count == 2 for a in acks)


@on_virtual_time
async def test_a_repeat_shares_the_first_result_and_is_written_once() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "billing")
        first = await producing.send(b"a")
        await producing.stream.send(first)  # while in flight
        one, two = await producing.ack(), await producing.ack()
        await producing.stream.send(first)  # and after
        three = await producing.ack()
        assert one == two == three
        await producing.put(b"b")
        consuming = await consume(cluster, member)
        assert await consuming.until(2) == [b"a", b"b"]
        await consuming.close()


@on_virtual_time
async def test_a_repeat_is_answered_also_where_such_a_batch_is_not_taken_any_more() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member, "billing")
        first = await producing.send(b"a", b"b")
        one = await producing.ack()
        member.life.settings = replace(member.life.settings, batch_max_messages=1)
        await producing.stream.send(first)
        assert await producing.ack() == one
        await producing.send(b"c", b"d")
        assert is_class(await producing.answer(), Class.INVALID)


@on_virtual_time
async def test_a_refused_batch_makes_the_later_ones_gaps() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a")
        await producing.send(b"b", vcid=99)
        await producing.send(b"c")
        await producing.send(b"d")
        assert is_class(await producing.answer(), Class.GONE)
        for _ in range(2):
            refused = await producing.refusal()
            assert (refused.refusal.kind, refused.refusal.expected) == (Class.GAP, 1)
        producing.sequence = 1
        assert (await producing.put(b"c")).sequence == 1


@on_virtual_time
async def test_a_named_producer_fences_its_predecessor() -> None:
    async with one_node() as (cluster, member):
        old = await produce(cluster, member, "billing")
        await old.put(b"1")
        new = await produce(cluster, member, "billing")
        assert new.attached.epoch > old.attached.epoch
        assert new.attached.next_sequence == 1
        await old.send(b"2")
        assert is_class(await old.answer(), Class.STALE_PRODUCER)
        await new.put(b"3")
        again = await produce(cluster, member, "billing", epoch=new.attached.epoch)
        assert (again.attached.epoch, again.sequence) == (new.attached.epoch, 2)


@on_virtual_time
async def test_an_anonymous_producer_goes_on_on_another_stream() -> None:
    async with one_node() as (cluster, member):
        first = await produce(cluster, member)
        batch = await first.send(b"1")
        ack = await first.ack()
        again = await produce(cluster, member, first.attached.producer, epoch=0)
        assert again.sequence == 1
        await again.stream.send(batch)
        assert await again.ack() == ack
        await again.put(b"2")


@on_virtual_time
async def test_what_is_wrong_with_a_batch_is_said() -> None:
    async with one_node(
        batch_max_bytes=1000, batch_max_messages=50, message_max_bytes=600, key_max_bytes=4
    ) as (c, member):
        producing = await produce(c, member)
        cases: list[tuple[tuple[bytes, ...], dict[str, Any]]] = [
            ((b"x" * 601,), {}),
            ((b"x" * 600, b"y" * 500), {}),
            ((b"",) * 51, {}),
            ((b"x" * 601,), {"ephemeral": True}),
            ((b"x" * 600, b"y" * 500), {"ephemeral": True}),
            ((b"",) * 51, {"ephemeral": True}),
            ((b"a",), {"keys": [b"12345"]}),
            ((b"a", b"b"), {"keys": [b"1"]}),
            ((b"a",), {"properties": [((b"\x00k", b"v"),)]}),
            ((), {}),
            ((b"a",), {"commit": True}),
        ]
        for payloads, fields in cases:
            await producing.send(*payloads, **fields)
            assert is_class(await producing.answer(), Class.INVALID), fields
            producing.sequence = 0
        batch = producing.batch([b"ok"])
        await producing.stream.send(
            frames.Batch(session=9, sequence=0, vcid=7, messages=batch.messages)
        )
        assert is_class(await producing.answer(), Class.INVALID)
        await producing.stream.send(batch)
        await producing.ack()


@on_virtual_time
async def test_keys_types_and_properties_come_back_as_they_went() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        live = await consume(cluster, member)
        await producing.put(b"a", b"b", types=["event", "event"], keys=[b"1", b""])
        await producing.put(b"c", b"d", types=["x", ""], properties=[((b"p", b"v"),), ()])
        await producing.put(b"e")
        await live.until(5)
        late = await consume(cluster, member)
        await late.until(5)
        for got in (live.got[1], late.got[1]):
            assert [m.type for m in got] == ["event", "event", "x", "", ""]
            assert [m.key for m in got] == [b"1", b"", b"", b"", b""]
            assert [m.properties for m in got] == [(), (), ((b"p", b"v"),), (), ()]
        await live.close()
        await late.close()


@on_virtual_time
async def test_close_answers_everything_before_it_says_so() -> None:
    async with one_node() as (cluster, member):
        member.site.on_objects.max_delay_ms = 50
        producing = await produce(cluster, member)
        for n in range(3):
            await producing.send(b"%d" % n)
        await producing.stream.send(frames.Close())
        answers = [await producing.answer() for _ in range(4)]
        assert [type(a) for a in answers] == [frames.Ack] * 3 + [frames.Closed]
        assert await producing.answer() is None


@on_virtual_time
async def test_a_cut_stream_takes_nothing_back() -> None:
    async with one_node() as (cluster, member):
        member.site.on_objects.max_delay_ms = 50
        producing = await produce(cluster, member)
        batch = await producing.send(b"1")
        await asyncio.sleep(0.01)
        producing.stream.cut()
        await asyncio.sleep(1)
        again = await produce(cluster, member, producing.attached.producer, epoch=0)
        assert again.sequence == 1
        await again.stream.send(batch)
        await again.ack()


@on_virtual_time
async def test_who_comes_to_the_wrong_place_is_told_where_to_look() -> None:
    async with one_node() as (_, member):
        for term, pchannel, incarnation in (
            (9, P, member.node.incarnation),
            (1, "p9", member.node.incarnation),
            (1, P, "other"),
        ):
            stream = member.endpoint.produce()
            await stream.send(
                frames.ProduceHello(pchannel=pchannel, term=term, incarnation=incarnation)
            )
            with pytest.raises(Refused) as refused:
                await stream.receive()
            assert refused.value.refusal.kind is Class.MOVED


@on_virtual_time
async def test_a_deleted_channel_is_gone_for_its_producers_and_a_new_one_is_another() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a")
        await member.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        await producing.send(b"b")
        assert is_class(await producing.answer(), Class.GONE)
        await cluster.create(member, 8)
        producing.sequence = 1
        await producing.put(b"b", vcid=8)
        with pytest.raises(Refused):
            await cluster.create(member, 7)


@on_virtual_time
async def test_a_full_queue_makes_the_stream_wait_and_loses_nothing() -> None:
    async with one_node(queue_bytes=4000) as (cluster, member):
        member.site.on_objects.max_delay_ms = 30
        producing = await produce(cluster, member)

        async def flood() -> None:
            for n in range(100):
                await producing.send(b"%3d" % n + b"x" * 1000)

        sending = cluster.runtime.spawn(flood(), "flood")
        most = 0
        for n in range(100):
            answer = await producing.answer()
            assert isinstance(answer, frames.Ack), answer
            assert answer.sequence == n
            most = max(most, member.life.line.queued_bytes)
        await sending
        assert most < 6000


@on_virtual_time
async def test_many_sessions_share_a_stream() -> None:
    async with one_node() as (cluster, member):
        producing = Producing(cluster, member)
        await producing.open()
        sessions = {1: producing.attached}
        for number in (2, 3):
            await producing.stream.send(frames.Attach(session=number, producer=f"p{number}"))
            sessions[number] = await producing.answer()
        for sequence in range(3):
            for number, attached in sessions.items():
                await producing.stream.send(
                    frames.Batch(
                        session=number, sequence=sequence, vcid=7,
                        messages=frames.Messages(payloads=[b"%d-%d" % (number, sequence)]),
                        grant_tick=attached.grant_tick if sequence == 0 else -1,
                    )
                )  # fmt: skip
        acks = [await producing.ack() for _ in range(9)]
        assert [(a.session, a.sequence) for a in acks] == [
            (number, sequence) for sequence in range(3) for number in (1, 2, 3)
        ]


@on_virtual_time
async def test_more_messages_than_microseconds_wait_for_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("woodpecker.streaming.core.ticks.MOST_LEAD_US", 1000)
    async with one_node() as (cluster, member):
        streams = [await produce(cluster, member) for _ in range(3)]
        line, furthest = member.life.line, 0
        for _ in range(20):
            for producing in streams:
                await producing.send(*[b""] * 500)
        for _ in range(20):
            for producing in streams:
                ack = await producing.ack()
                furthest = max(furthest, ack.tick + ack.count - 1 - line.clock_us)
        assert furthest <= 1000 + 500
