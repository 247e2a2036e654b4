"""Subscriptions: what is acknowledged is never seen again, what is not comes again, one holder at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.streaming.client.kit import SMALL, Service, refusal, serving
from tests.unit.streaming.client.test_consuming import FAULTS

from woodpecker.errors import Closed, Fenced, InvalidRequest
from woodpecker.streaming import Message, Position, Where
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.requests import CommitCursor
from woodpecker.testing.virtual import on_virtual_time, run


def _commits(service: Service) -> list[CommitCursor]:
    return [frame for frame in service.seen if isinstance(frame, CommitCursor)]


@on_virtual_time
async def test_what_is_acknowledged_does_not_come_again() -> None:
    async with serving() as (service, client):
        for number in range(10):
            service.put(b"%d" % number)
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            seen = [await anext(sub) for _ in range(6)]
            for number in (0, 1, 3, 5):
                await sub.ack(seen[number])
            assert sub.position == Position(2)  # the oldest one that is not acknowledged
            assert sub.lag == 8
        async with channel.subscribe("mailer") as sub:
            again = [(await anext(sub)).payload for _ in range(6)]
            assert again == [b"2", b"4", b"6", b"7", b"8", b"9"]
            await sub.ack_through(Position(9))
            assert sub.position == Position(9, 1)
            assert sub.lag == 0
        assert service.cursors["mailer"].done == Position(9, 1)


@on_virtual_time
async def test_acknowledgements_are_stored_together() -> None:
    async with serving() as (service, client):
        for number in range(3000):
            service.put(b"%d" % number)
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            for _ in range(2500):
                await sub.ack(await anext(sub))
            await asyncio.sleep(0.5)
            few = len(_commits(service))
            assert 1 <= few <= 3
            await asyncio.sleep(1)
            assert len(_commits(service)) <= few + 1
            assert service.cursors["mailer"].done == Position(2499, 1)
            await asyncio.sleep(100)
            assert len(_commits(service)) <= few + 1


@on_virtual_time
async def test_whoever_attaches_last_has_the_cursor() -> None:
    async with serving() as (service, client):
        service.put(b"1", b"2")
        channel = await client.open_channel("orders")
        first = await channel.subscribe("mailer").open()
        message = await anext(first)
        async with channel.subscribe("mailer") as second:
            assert (await anext(second)).payload == b"1"
            await first.ack(message)
            await asyncio.sleep(2)
            with pytest.raises(Fenced):
                await anext(first)
            with pytest.raises(Fenced):
                await first.ack(message)
            assert service.cursors["mailer"].done == Position(0)
        await first.close()


@on_virtual_time
async def test_being_fenced_is_told_at_the_end_too() -> None:
    async with serving() as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        first = await channel.subscribe("mailer").open()
        await first.ack(await anext(first))
        second = await channel.subscribe("mailer").open()
        with pytest.raises(Fenced):
            await first.close()
        await second.close()
        with pytest.raises(Closed):
            await second.ack(Position(0))


@on_virtual_time
async def test_progress_alone_moves_the_cursor_when_nothing_is_outstanding() -> None:
    async with serving() as (service, client):
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer", where=Where(type="never")) as sub:
            service.next_seq = 100  # of other channels: only Progress tells
            task = asyncio.create_task(anext(sub))
            service.put(b"x")
            message = await task
            assert sub.position == Position(100)
            await sub.ack(message)
            assert sub.position == Position(100, 1)
            await asyncio.sleep(40)
        assert service.cursors["mailer"].done == Position(100, 1)


@on_virtual_time
async def test_a_place_counts_even_if_nobody_iterates() -> None:
    async with serving() as (service, client):
        service.next_seq = 50
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            await asyncio.sleep(1)
            assert sub.position == Position(50)
            await sub.wait_until(Position(49))
            await asyncio.sleep(31)
            assert service.cursors["mailer"].done == Position(50)


@on_virtual_time
async def test_progress_never_passes_what_was_not_handed_out() -> None:
    async with serving() as (service, client):
        service.put(b"1", b"2")
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            await sub.ack(await anext(sub))
            service.next_seq = 50
            service.move("n2")
            await asyncio.sleep(5)
            assert sub.position == Position(1)
        assert service.cursors["mailer"].done == Position(1)


@on_virtual_time
async def test_wait_until_waits_for_acknowledgements() -> None:
    async with serving() as (service, client):
        channel = await client.open_channel("orders")
        async with channel.producer() as producer, channel.subscribe("mailer") as sub:
            applied: list[bytes] = []

            async def apply() -> None:
                async for message in sub:
                    await asyncio.sleep(1)
                    applied.append(message.payload)
                    await sub.ack(message)

            task = asyncio.create_task(apply())
            place = (await producer.send_many([b"1", b"2", b"3"]))[-1]
            await sub.wait_until(place)
            assert applied == [b"1", b"2", b"3"]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            waiting = asyncio.create_task(sub.wait_until(Position(1000)))
            await asyncio.sleep(1)
            waiting.cancel()
            other = asyncio.create_task(sub.wait_until(Position(1000)))
            await asyncio.sleep(1)
        with pytest.raises(Closed):
            await other
        assert service.payloads == applied


@on_virtual_time
async def test_too_many_gaps_pause_delivery_until_the_oldest_are_acknowledged() -> None:
    async with serving() as (service, client):
        for number in range(3000):
            service.put(b"%d" % number)
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            seen: list[Message] = []

            async def every_other() -> None:
                async for message in sub:
                    seen.append(message)
                    if len(seen) % 2 == 0:
                        await sub.ack(message)

            task = asyncio.create_task(every_other())
            await asyncio.sleep(5)
            assert 1999 <= len(seen) <= 2002
            assert not task.done()
            await sub.ack_through(seen[-1])
            await asyncio.sleep(5)
            assert len(seen) == 3000
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@on_virtual_time
async def test_what_was_not_delivered_cannot_be_acknowledged() -> None:
    async with serving() as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            message = await anext(sub)
            with pytest.raises(InvalidRequest):
                await sub.ack(Position(7))
            await sub.ack(message)
            await sub.ack(message)


@on_virtual_time
async def test_a_filter_belongs_to_the_cursor() -> None:
    async with serving() as (_, client):
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer", where=Where(type="a")):
            pass
        async with channel.subscribe("mailer"):
            pass
        with pytest.raises(InvalidRequest):
            await channel.subscribe("mailer", where=Where(type="b")).open()


@on_virtual_time
async def test_more_gaps_than_the_record_takes_are_no_end() -> None:
    async with serving(settings=replace(SMALL, cursor_ranges=3)) as (service, client):
        service.put(*[b"%d" % n for n in range(20)])
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:
            seen = [await anext(sub) for _ in range(20)]  # one delivery
            for number in range(1, 20, 2):
                await sub.ack(seen[number])
        assert [first.seq for first, _ in service.cursors["mailer"].ranges] == [1, 3, 5]
        assert max(len(frame.ranges) for frame in _commits(service)) == 3
        async with channel.subscribe("mailer") as sub:
            again = [(await asyncio.wait_for(anext(sub), 60)).payload for _ in range(3)]
            assert again == [b"0", b"2", b"4"]


@on_virtual_time
async def test_a_store_that_is_away_delays_and_loses_nothing() -> None:
    async with serving(timeout_s=3) as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        async with channel.subscribe("mailer") as sub:

            def away(request: Any) -> Any:
                raise Refused(refusal(Class.UNAVAILABLE, after_ms=100))

            service.answers[CommitCursor] = away
            await sub.ack(await anext(sub))
            await asyncio.sleep(20)
            assert service.cursors["mailer"].done == Position(0)
            del service.answers[CommitCursor]
            await asyncio.sleep(5)
            assert service.cursors["mailer"].done == Position(0, 1)


@on_virtual_time
async def test_closed_after_its_client_it_says_that_nothing_was_stored() -> None:
    async with serving() as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        sub = await channel.subscribe("mailer").open()
        await sub.ack(await anext(sub))
        await client.close()
        begin = asyncio.get_running_loop().time()
        with pytest.raises(Closed):
            await sub.close()
        assert asyncio.get_running_loop().time() == begin


@pytest.mark.parametrize("name", FAULTS)
def test_broken_at_every_point(name: str) -> None:
    """A worker that acknowledges each message and is replaced now and then sees all, in order."""

    async def broken(at: int) -> bool:
        async with serving() as (service, client):
            for number in range(12):
                service.put(b"%d" % number)

            async def fault(stream: Any) -> None:
                await FAULTS[name](service, stream)

            service.break_at, service.fault = at, fault
            channel = await client.open_channel("orders")
            found = []
            for _ in range(4):
                async with channel.subscribe("mailer") as sub:
                    for _ in range(3):
                        message = await anext(sub)
                        found.append(message.payload)
                        await sub.ack(message)
            assert found == service.payloads
            return service.points > at

    at = 0
    while run(broken(at)):
        at += 1
    assert at > 10
