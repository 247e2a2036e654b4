"""Consumers: whatever breaks and wherever, everything comes once, in order, and memory stays bounded."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.streaming.client.kit import Service, refusal, serving

from woodpecker.errors import Closed, InvalidRequest, NotFound, OutOfRange, Unavailable
from woodpecker.streaming import Message, Position, StreamingClient, Tick, TickSignal
from woodpecker.streaming.client.consumer import share_of
from woodpecker.streaming.client.messages import as_where
from woodpecker.streaming.client.places import StartInput, StopInput, parse_start, parse_stop
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import EndForm, StartForm, Where
from woodpecker.streaming.frames import Batch, Credit, Messages, Subscribe, Unsubscribe
from woodpecker.streaming.requests import GetReadPoint
from woodpecker.streaming.settings import StreamSettings
from woodpecker.testing.virtual import on_virtual_time, run

Fault = Callable[[Service, Any], Awaitable[None]]


async def cut(service: Service, stream: Any) -> None:
    stream.cut()


async def move(service: Service, stream: Any) -> None:
    service.move("n2" if service.owner == "n1" else "n1")


async def take_over(service: Service, stream: Any) -> None:
    """A newer owner in the map, while the old one says nothing any more."""
    service.move("n2" if service.owner == "n1" else "n1")
    await asyncio.sleep(100_000)


FAULTS: dict[str, Fault] = {"cut": cut, "move": move, "take_over": take_over}


def _fill(service: Service) -> list[bytes]:
    """Plain batches and transactions, whose commits are positions with an index."""
    for number in range(6):
        service.put(b"%d.a" % number, b"%d.b" % number)
        session = service.sessions.setdefault("somebody", _session())
        for step in range(3):
            body = Messages(payloads=[b"%d.t%d" % (number, step), b"%d.u%d" % (number, step)])
            service.write(
                session,
                Batch(
                    session=0, sequence=0, vcid=1, messages=body, txn_number=number,
                    begin=step == 0, commit=step == 2,
                ),
            )  # fmt: skip
    return service.payloads


def _session() -> Any:
    from tests.unit.streaming.client.kit import Session

    return Session(1)


async def _read(client: StreamingClient, **wishes: Any) -> list[bytes]:
    channel = await client.open_channel("orders")
    found = []
    async with asyncio.timeout(3000):
        async for message in channel.consume(**wishes):
            assert isinstance(message, Message)
            found.append(message.payload)
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_broken_at_every_point(name: str) -> None:
    async def broken(at: int) -> bool:
        async with serving() as (service, client):
            expected = _fill(service)
            service.break_at = at

            async def fault(stream: Any) -> None:
                await FAULTS[name](service, stream)

            service.fault = fault
            assert await _read(client, end="tail") == expected, at
            return service.points > at

    at = 0
    while run(broken(at)):
        at += 1
    assert at >= 14


@pytest.mark.parametrize("gap", [1, 2, 3, 5])
def test_broken_again_and_again(gap: int) -> None:
    async def always() -> None:
        async with serving() as (service, client):
            expected = _fill(service)
            count = 0

            async def fault(stream: Any) -> None:
                nonlocal count
                count += 1
                service.break_at = service.points + gap + count
                stream.cut() if count % 2 else await move(service, stream)

            service.break_at, service.fault = gap, fault
            assert await _read(client, end="tail") == expected

    run(always())


@on_virtual_time
async def test_any_position_that_was_delivered_is_one_to_go_on_from() -> None:
    async with serving() as (service, client):
        expected = _fill(service)
        channel = await client.open_channel("orders")
        messages = [m async for m in channel.consume(end="tail")]
        for number, message in enumerate(messages):
            assert isinstance(message, Message)
            assert await _read(client, start=message.position, end="tail") == expected[number:]
            behind = message.position.after()
            assert await _read(client, start=behind, end="tail") == expected[number + 1 :]


@on_virtual_time
async def test_the_tail_is_that_of_the_beginning_whatever_breaks() -> None:
    async with serving() as (service, client):
        service.put(b"1", b"2")

        async def fault(stream: Any) -> None:  # after Started, before any data
            service.put(b"3")
            await asyncio.sleep(0.001)
            stream.cut()

        service.fault, service.break_at = fault, 2
        assert await _read(client, end="tail") == [b"1", b"2"]
        assert service.points > 3


@on_virtual_time
async def test_a_follower_waits_for_what_comes() -> None:
    async with serving() as (service, client):
        channel = await client.open_channel("orders")
        reading = channel.consume(start="latest")
        task = asyncio.create_task(anext(reading))
        await asyncio.sleep(1)
        service.put(b"new")
        assert (await task).payload == b"new"  # type: ignore[union-attr]
        await reading.aclose()
        with pytest.raises(Closed):
            await anext(reading)


@on_virtual_time
async def test_cancelling_a_wait_loses_nothing() -> None:
    async with serving() as (service, client):
        channel = await client.open_channel("orders")
        reading, found = channel.consume(), []
        for number in range(20):
            if number % 3 == 0:
                service.put(b"%d" % number)
            try:
                async with asyncio.timeout(0.01):
                    while True:
                        found.append((await anext(reading)).payload)  # type: ignore[union-attr]
            except TimeoutError:
                pass
        assert found == [b"%d" % n for n in range(0, 20, 3)]
        await reading.aclose()


@on_virtual_time
async def test_two_tasks_cannot_share_a_consumer() -> None:
    async with serving() as (_, client):
        channel = await client.open_channel("orders")
        reading = channel.consume()
        task = asyncio.create_task(anext(reading))
        await asyncio.sleep(0.1)
        with pytest.raises(InvalidRequest):
            await anext(reading)
        await reading.aclose()
        with pytest.raises(Closed):
            await task


@on_virtual_time
async def test_a_slow_reader_holds_no_more_than_its_credit() -> None:
    async with serving() as (service, client):
        for _ in range(100):
            service.put(bytes(300))
        channel = await client.open_channel("orders")
        reading = channel.consume_batches(credit_bytes=16 << 10)
        await anext(reading)
        held = _held(reading)
        for _ in range(20):
            service.cut()
            await asyncio.sleep(5)
        assert held <= 16 << 10
        assert _held(reading) <= (16 << 10) * 3 // 2
        count = 1
        while count < 100:
            await anext(reading)
            count += 1
        assert count == 100
        await reading.aclose()


def _held(reading: Any) -> int:
    consumer = reading._deliveries.consumer
    held: int = consumer._held_bytes
    assert held >= sum(len(m.payload) for d in consumer._queue for m in d.messages)
    return held


@on_virtual_time
async def test_a_message_larger_than_all_credit_comes_when_nothing_is_outstanding() -> None:
    async with serving() as (service, client):
        service.put(bytes(300))
        service.put(bytes(50_000))
        service.put(b"end")
        sizes = [len(p) for p in await _read(client, end="tail", credit_bytes=16 << 10)]
        assert sizes == [300, 50_000, 3]


@on_virtual_time
async def test_a_slow_reader_does_not_slow_another() -> None:
    async with serving() as (service, client):
        for number in range(200):
            service.put(b"%d" % number + bytes(300))
        channel = await client.open_channel("orders")
        slow = channel.consume(credit_bytes=16 << 10)
        await anext(slow)
        assert len(await _read(client, end="tail")) == 200
        assert len(service.streams) == 1
        await slow.aclose()


@on_virtual_time
async def test_credit_is_not_granted_message_by_message() -> None:
    async with serving() as (service, client):
        for _ in range(100):
            service.put(bytes(300))
        assert len(await _read(client, end="tail", credit_bytes=16 << 10)) == 100
        grants = [frame for frame in service.seen if isinstance(frame, Credit)]
        assert len(grants) < 60


@on_virtual_time
async def test_signals_of_time_come_when_asked_for() -> None:
    async with serving() as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        reading = channel.consume(ticks=True)
        assert isinstance(await anext(reading), Message)
        signal = await anext(reading)
        assert isinstance(signal, TickSignal)
        assert signal.tick == 0
        await reading.aclose()


@on_virtual_time
async def test_what_a_node_refuses_for_good_is_told() -> None:
    cases: list[tuple[Class, type[Exception]]] = [
        (Class.GONE, NotFound),
        (Class.OUT_OF_RANGE, OutOfRange),
        (Class.INVALID, InvalidRequest),
    ]
    for kind, error in cases:
        async with serving() as (service, client):
            _refuse(service, [refusal(kind, earliest=7)])
            with pytest.raises(error) as told:
                await _read(client)
            assert getattr(told.value, "earliest", 7) == 7


@on_virtual_time
async def test_what_can_be_handled_is_not_told() -> None:
    async with serving() as (service, client):
        service.put(b"1")
        _refuse(
            service,
            [
                refusal(kind)
                for kind in (Class.LATER, Class.UNAVAILABLE, Class.MOVED, Class.UNKNOWN)
            ],
        )
        assert await _read(client, end="tail") == [b"1"]


@on_virtual_time
async def test_one_that_is_sent_away_does_not_take_the_others_with_it() -> None:
    async with serving() as (service, client):
        channel = await client.open_channel("orders")
        good = channel.consume()
        task = asyncio.create_task(anext(good))
        await asyncio.sleep(1)
        _refuse(service, [refusal(Class.MOVED) for _ in range(20)])
        bad = asyncio.create_task(anext(channel.consume(start=Position(0, term=99))))
        await asyncio.sleep(60)
        service.put(b"1")
        await task
        assert len(service.streams) == 1
        assert not bad.done()
        assert len(service.reports) == 1
        await asyncio.sleep(200)
        assert (await bad).payload == b"1"  # type: ignore[union-attr]
        await good.aclose()


@on_virtual_time
async def test_progress_of_others_does_not_count_for_one_that_has_not_begun() -> None:
    async with serving() as (service, client):
        service.put(b"1", b"2")
        show, is_first = service.show_consumer, True

        async def slow_at_first(node: Any, stream: Any, wish: Subscribe, term: int) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                await asyncio.sleep(1000)
            await show(node, stream, wish, term)

        service.show_consumer = slow_at_first  # type: ignore[method-assign]
        channel = await client.open_channel("orders")
        late = channel.consume(end="tail")
        waiting = asyncio.create_task(anext(late))
        await asyncio.sleep(1)
        assert len(await _read(client, end="tail")) == 2
        other = channel.consume()
        for _ in range(2):
            await anext(other)
        await asyncio.sleep(1)  # Progress for all that have begun
        service.cut()
        assert (await waiting).payload == b"1"  # type: ignore[union-attr]
        await other.aclose()
        await late.aclose()


def _refuse(service: Service, refusals: list[Any]) -> None:
    """The next subscriptions are refused, one after another."""
    from woodpecker.streaming.frames import ConsumerRefused

    left = list(refusals)
    show = type(service).show_consumer

    async def refused(node: Any, stream: Any, wish: Subscribe, term: int) -> None:
        if left:
            await stream.send(ConsumerRefused(consumer=wish.consumer, refusal=left.pop(0)))
        else:
            await show(service, node, stream, wish, term)

    service.show_consumer = refused  # type: ignore[method-assign]


@on_virtual_time
async def test_a_dropped_consumer_is_taken_off_the_stream() -> None:
    async with serving() as (service, client):
        service.put(b"1", b"2")
        channel = await client.open_channel("orders")
        other = channel.consume()
        await anext(other)
        async for _ in channel.consume():
            break
        gc.collect()
        await asyncio.sleep(1)
        assert len([frame for frame in service.seen if isinstance(frame, Unsubscribe)]) == 1
        await other.aclose()


@on_virtual_time
async def test_one_stream_serves_all_consumers_and_ends_with_the_last() -> None:
    async with serving() as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        readers = [channel.consume() for _ in range(10)]
        for reading in readers:
            await anext(reading)
        assert len(service.streams) == 1
        for reading in readers:
            await reading.aclose()
        service.put(b"2")
        again = channel.consume(start=1)
        assert (await anext(again)).payload == b"2"  # type: ignore[union-attr]
        await again.aclose()


@on_virtual_time
async def test_read_point_waits_for_an_owner_until_its_deadline() -> None:
    async with serving(timeout_s=5) as (service, client):
        service.put(b"1")
        channel = await client.open_channel("orders")
        assert await channel.read_point() == Position(1)
        left = 2

        def answer(request: Any) -> Any:
            nonlocal left
            left -= 1
            raise Refused(refusal(Class.MOVED if left >= 0 else Class.LATER, after_ms=600))

        service.answers[GetReadPoint] = answer
        with pytest.raises(Unavailable):
            await channel.read_point()


def test_where_to_start_and_end_can_be_said_in_many_ways() -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    forms: dict[StartInput, StartForm] = {
        "earliest": StartForm.EARLIEST,
        "latest": StartForm.LATEST,
        7: StartForm.SEQ,
        Tick(8): StartForm.TICK,
        moment: StartForm.TIME,
        Position(7, 2, term=3, low=5): StartForm.POSITION,
    }
    for said, form in forms.items():
        assert parse_start(said).form is form
    place = parse_start(Position(7, 2, term=3, low=5))
    assert (place.value, place.index, place.term, place.low) == (7, 2, 3, 5)
    assert parse_start(moment).value == 1_769_860_800_000_000
    ends: dict[StopInput, EndForm] = {
        None: EndForm.NEVER, "tail": EndForm.TAIL, 7: EndForm.POSITION, Tick(8): EndForm.TICK,
        moment: EndForm.TICK, Position(7, 2): EndForm.POSITION,
    }  # fmt: skip
    for said_end, form_end in ends.items():
        assert parse_stop(said_end).form is form_end
    for wrong in ("first", -1, 1 << 63, True, 1.5, datetime(2026, 1, 31), Tick(-1)):  # noqa: DTZ001
        with pytest.raises(InvalidRequest):
            parse_start(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            parse_stop(wrong)  # type: ignore[arg-type]


def test_consumers_share_the_credit_of_a_stream() -> None:
    granted, shares = 0, []
    for number in range(1000):
        shares.append(share_of(4 << 20, granted, number, 256 << 20))
        granted += shares[-1]
    assert granted <= 256 << 20
    assert shares[0] == 4 << 20
    assert shares == sorted(shares, reverse=True)
    assert shares[20] >= 3 << 20
    assert shares[-1] >= 4 << 10


def test_messages_say_what_is_wrong_with_them() -> None:
    message = Message(b"p", key="k", type="t", properties=[("a", "b"), ("c", b"d")])
    assert message.properties == {b"a": b"b", b"c": b"d"}
    assert (message.key, message.type) == (b"k", "t")
    assert Message(bytearray(b"x")).payload == b"x"
    with pytest.raises(InvalidRequest):
        _ = message.position
    for wrong in (
        lambda: Message("text"),  # type: ignore[arg-type]
        lambda: Message(b"", type=b"t"),  # type: ignore[arg-type]
        lambda: Message(b"", properties=[("a", "b"), ("a", "c")]),
        lambda: Message(b"", properties={"\0k": "b"}),
        lambda: Message(b"", properties=[1]),  # type: ignore[list-item]
        lambda: Message(b"", key=7),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRequest):
            wrong()


def test_a_message_is_named_in_errors_without_all_its_bytes() -> None:
    with pytest.raises(InvalidRequest, match="key of 1000000 bytes; at most 4096") as caught:
        Message(b"x", key=b"k" * 1_000_000, type="t" * 1_000_000).check(StreamSettings())
    assert len(str(caught.value)) < 300


@on_virtual_time
async def test_a_filter_is_taken_as_messages_are_and_a_wrong_one_is_refused_at_once() -> None:
    async with serving() as (_, client):
        channel = await client.open_channel("orders")
        for where in (Where(key=7), Where(type=b"t"), Where(type="\udcff"), Where(properties=7)):  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest):
                channel.consume(where=where)
            with pytest.raises(InvalidRequest):
                channel.subscribe("mailer", where=where)
    said = Where(type="t", key="7", properties={"shop": "12"})  # type: ignore[arg-type]
    assert as_where(said) == Where(type="t", key=b"7", properties=((b"shop", b"12"),))
    with pytest.raises(InvalidRequest):
        Message(b"x", type="\udcff")
    with pytest.raises(InvalidRequest):
        Message(b"x", key="\udcff")
