"""Producers: whatever breaks and wherever, each message is written once, in order, and told truly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.streaming.client.kit import PCHANNEL, Service, refusal, serving

from woodpecker.errors import (
    Aborted,
    Closed,
    Fenced,
    InvalidRequest,
    NotFound,
    NotWritten,
    OutcomeUnknown,
    Overloaded,
    ProducerExpired,
    Unavailable,
)
from woodpecker.streaming import Message, StreamingClient
from woodpecker.streaming.core.refusals import Class
from woodpecker.streaming.frames import Attach, Batch, KeepAlive, Rate
from woodpecker.testing.virtual import on_virtual_time, run

Fault = Callable[[Service, Any], Awaitable[None]]


async def cut(service: Service, stream: Any) -> None:
    stream.cut()


async def move(service: Service, stream: Any) -> None:
    service.move("n2" if service.owner == "n1" else "n1")


async def move_slowly(service: Service, stream: Any) -> None:
    service.move("n2", serving=False)
    stream.cut()

    async def arrive() -> None:
        await asyncio.sleep(3)
        service.owner = "n2"
        service.push("n2")

    service.late = asyncio.create_task(arrive())  # type: ignore[attr-defined]


FAULTS: dict[str, Fault] = {"cut": cut, "move": move, "move_slowly": move_slowly}


async def _story(client: StreamingClient) -> list[bytes]:
    """All ways of sending. Returns: what must be in the log, in this order."""
    channel = await client.open_channel("orders")
    async with channel.producer() as producer:
        early = [producer.submit(b"%d" % n) for n in range(5)]
        many = await producer.send_many([b"a", b"b"])
        assert [p.seq for p in many] == [many[0].seq, many[0].seq + 1]
        large = bytes(range(256)) * 5
        place = await producer.send(large, key=b"k")
        assert place is not None
        async with producer.transaction() as first:
            await first.send(b"t1")
            between = producer.submit(b"between")
            await first.send_many([b"t2", b"t3"])
        try:
            async with producer.transaction() as second:
                await second.send(b"never")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        last = await producer.send(b"last")
        await producer.flush()
    places = [future.result() for future in early]
    assert first.position is not None
    assert last is not None
    assert [*places, *many, place, between.result(), first.position, last] == sorted(
        [*places, *many, place, between.result(), first.position, last]
    )
    return [b"%d" % n for n in range(5)] + [
        b"a", b"b", large, b"between", b"t1", b"t2", b"t3", b"last",
    ]  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_broken_at_every_point(name: str) -> None:
    async def broken(at: int) -> bool:
        async with serving() as (service, client):
            service.break_at = at

            async def fault(stream: Any) -> None:
                await FAULTS[name](service, stream)

            service.fault = fault
            expected = await _story(client)
            assert service.payloads == expected, at
            return service.points > at

    at = 0
    while run(broken(at)):
        at += 1
    assert at > 40


@pytest.mark.parametrize("gap", [1, 2, 3, 7])
def test_broken_again_and_again(gap: int) -> None:
    async def always() -> None:
        async with serving() as (service, client):
            count = 0

            async def fault(stream: Any) -> None:
                nonlocal count
                count += 1
                service.break_at = service.points + gap + count
                stream.cut() if count % 2 else await move(service, stream)

            service.break_at, service.fault = gap, fault
            expected = await _story(client)
            assert service.payloads == expected

    run(always())


async def _opened(client: StreamingClient, name: str | None = None) -> Any:
    channel = await client.open_channel("orders")
    return await channel.producer(name).open()


@on_virtual_time
async def test_batches_close_when_nothing_is_in_flight_or_at_256_kib() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        for _ in range(1000):
            producer.submit(bytes(900))
        await producer.close()
        batches = [frame for frame in service.seen if isinstance(frame, Batch)]
        sizes = [len(batch.messages) for batch in batches]
        assert sum(sizes) == 1000
        assert len(batches) == 4
        assert max(sum(map(len, batch.messages.payloads)) for batch in batches) <= 256 << 10


@on_virtual_time
async def test_at_most_16_batches_are_in_flight() -> None:
    async with serving() as (service, client):
        service.network.delay_ms = (10.0, 10.0)
        producer = await _opened(client)
        work = [asyncio.create_task(producer.send_many([b"x"])) for _ in range(40)]
        await asyncio.sleep(0.0149)
        assert sum(isinstance(frame, Batch) for frame in service.seen) == 16
        await asyncio.gather(*work)
        await producer.close()


@on_virtual_time
async def test_later_is_waited_for_and_order_is_kept() -> None:
    async with serving() as (service, client):
        left = 5

        def judge(batch: Batch) -> Any:
            nonlocal left
            left -= 1
            return refusal(Class.LATER, after_ms=50) if left >= 0 else None

        service.judge = judge
        producer = await _opened(client)
        work = [asyncio.create_task(producer.send_many([b"%d" % n])) for n in range(10)]
        await asyncio.gather(*work)
        await producer.close()
        assert service.payloads == [b"%d" % n for n in range(10)]
        assert asyncio.get_running_loop().time() >= 0.25


@on_virtual_time
async def test_what_is_refused_leaves_no_gap_behind() -> None:
    async with serving() as (service, client):
        service.judge = lambda batch: (
            refusal(Class.INVALID) if b"bad" in batch.messages.payloads else None
        )
        producer = await _opened(client)
        texts = [b"1", b"bad", b"2", b"bad", b"3", b"4"]
        work = [asyncio.create_task(producer.send_many([text])) for text in texts]
        results = await asyncio.gather(*work, return_exceptions=True)
        await producer.close()
        assert service.payloads == [b"1", b"2", b"3", b"4"]
        assert [isinstance(result, InvalidRequest) for result in results] == [
            text == b"bad" for text in texts
        ]


@pytest.mark.parametrize("name", [None, "billing"])
def test_what_is_behind_a_refused_batch_is_not_given_its_number_if_it_was_cut(
    name: str | None,
) -> None:
    """It may still be in the buffers of its owner, under its old number: it would be written twice."""

    async def story() -> None:
        async with serving() as (service, client):
            producer = await _opened(client, name)
            service.judge = lambda batch: (
                refusal(Class.INVALID) if b"bad" in batch.messages.payloads else None
            )

            async def fault(stream: Any) -> None:  # "good" is not looked at any more
                service.break_at = -1
                await asyncio.sleep(0.001)  # "bad" is told
                stream.cut()

            service.fault, service.break_at = fault, service.points + 3
            work = [asyncio.create_task(producer.send_many([text])) for text in (b"bad", b"good")]
            bad, good = await asyncio.gather(*work, return_exceptions=True)
            assert isinstance(bad, InvalidRequest)
            if name is None:
                assert isinstance(good, list)
                await producer.send(b"more")
                assert service.payloads == [b"good", b"more"]
                assert service.grants == 2
            else:  # a new epoch might fence a newer producer of this name
                assert isinstance(good, NotWritten)
                with pytest.raises(Closed):
                    producer.submit(b"more")
                assert service.payloads == []
            await producer.close()

    run(story())


@on_virtual_time
async def test_a_part_that_is_refused_takes_its_transaction_with_it() -> None:
    async with serving() as (service, client):
        service.judge = lambda batch: (
            refusal(Class.INVALID) if b"bad" in batch.messages.payloads else None
        )
        producer = await _opened(client)
        with pytest.raises(InvalidRequest):  # noqa: PT012
            async with producer.transaction() as tx:
                parts = [tx.send_many([text]) for text in (b"a", b"bad", b"c")]
                await asyncio.gather(*parts, return_exceptions=True)
        await producer.send(b"after")
        await producer.close()
        assert service.payloads == [b"after"]
        (session,) = service.sessions.values()
        assert [txn.state for txn in session.txns.values()] == ["aborted"]


@on_virtual_time
async def test_no_part_of_a_large_message_is_written_without_the_others() -> None:
    async with serving() as (service, client):
        service.judge = lambda batch: (
            refusal(Class.INVALID) if batch.messages.payloads[:1] == [b"b" * 300] else None
        )
        producer = await _opened(client)
        large = b"".join(bytes([letter]) * 300 for letter in b"abcdefghij")
        with pytest.raises(InvalidRequest):
            await producer.send(large)  # all pieces and the commit are out before one is refused
        await producer.send(b"after")
        await producer.close()
        assert service.payloads == [b"after"]
        (session,) = service.sessions.values()
        assert [txn.state for txn in session.txns.values()] == ["aborted"]


@on_virtual_time
async def test_an_aborted_transaction_is_told_with_its_reason() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        with pytest.raises(Aborted) as told:  # noqa: PT012
            async with producer.transaction() as tx:
                await tx.send(b"a")
                (session,) = service.sessions.values()
                session.txns[0].state = "aborted"
        assert told.value.reason == "expired"
        await producer.send(b"after")
        await producer.close()
        assert service.payloads == [b"after"]


@on_virtual_time
async def test_a_named_producer_is_fenced_by_the_next_one() -> None:
    async with serving() as (service, client):
        first = await _opened(client, "billing")
        await first.send(b"1")
        second = await _opened(client, "billing")
        with pytest.raises(Fenced) as told:
            await first.send(b"2")
        assert told.value.outcome == "not_written"
        with pytest.raises(Fenced):
            first.submit(b"3")
        await second.send(b"4")
        await first.close()
        await second.close()
        assert service.payloads == [b"1", b"4"]


@on_virtual_time
async def test_a_batch_once_unknown_stays_unknown_when_its_repeat_is_refused() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)

        async def fault(stream: Any) -> None:
            stream.cut()
            service.judge = lambda _: refusal(Class.GONE)

        service.fault, service.break_at = fault, service.points
        with pytest.raises(OutcomeUnknown):
            await producer.send(b"x")
        with pytest.raises(NotFound):
            producer.submit(b"y")
        await producer.close()
        assert service.payloads == []


@on_virtual_time
async def test_gone_is_told_as_not_found() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        service.judge = lambda _: refusal(Class.GONE)
        with pytest.raises(NotFound):
            await producer.send(b"x")
        await producer.close()


@on_virtual_time
async def test_a_commit_that_nobody_answered_is_asked_about() -> None:
    async with serving() as (service, client):
        producer = await _opened(client, "billing")
        tx = await producer.transaction().__aenter__()
        await tx.send(b"debit")

        async def fault(stream: Any) -> None:  # written, and the session fenced before it can tell
            service.break_at = -1
            stream.cut()
            service.sessions["billing"].epoch += 1

        service.fault, service.break_at = fault, service.points + 1
        await tx.__aexit__(None, None, None)
        assert tx.position is not None
        assert tx.position.seq == 1
        assert service.payloads == [b"debit"]
        with pytest.raises(Fenced):
            producer.submit(b"more")
        await producer.close()


@pytest.mark.parametrize(
    ("state", "error"),
    [("aborted", Aborted), ("forgotten", OutcomeUnknown), ("open", OutcomeUnknown)],
)
def test_what_becomes_of_a_commit_nobody_knows(state: str, error: type[Exception]) -> None:
    async def story() -> None:
        async with serving() as (service, client):
            producer = await _opened(client, "billing")
            tx = await producer.transaction().__aenter__()
            await tx.send(b"debit")

            async def fault(stream: Any) -> None:
                service.break_at = -1
                stream.cut()
                session = service.sessions["billing"]
                session.epoch += 1
                if state == "forgotten":
                    session.txns.clear()
                else:
                    session.txns[0].state = state

            service.fault, service.break_at = fault, service.points
            with pytest.raises(error):
                await tx.__aexit__(None, None, None)
            await producer.close()

    run(story())


@on_virtual_time
async def test_an_anonymous_session_that_is_forgotten_is_replaced_if_that_can_do_no_harm() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        await producer.send(b"1")
        service.judge = lambda batch: refusal(Class.EXPIRED) if batch.sequence != 0 else None
        await producer.send(b"2")
        await producer.close()
        assert service.payloads == [b"1", b"2"]
        assert service.grants == 2


@on_virtual_time
async def test_a_forgotten_session_with_an_unknown_batch_ends_the_producer() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        await producer.send(b"1")

        async def fault(stream: Any) -> None:
            service.break_at = -1
            stream.cut()
            service.judge = lambda _: refusal(Class.EXPIRED)

        service.fault, service.break_at = fault, service.points
        with pytest.raises(ProducerExpired):
            await producer.send(b"2")
        with pytest.raises(Closed):
            producer.submit(b"3")
        await producer.close()


@on_virtual_time
async def test_nothing_is_told_before_the_deadline_and_the_producer_stays_usable() -> None:
    async with serving(timeout_s=5) as (service, client):
        producer = await _opened(client)
        service.judge = lambda _: refusal(Class.LATER, after_ms=400)
        begin = asyncio.get_running_loop().time()
        with pytest.raises(Overloaded):
            await producer.send(b"never")
        assert 5 <= asyncio.get_running_loop().time() - begin < 5.1
        service.judge = lambda _: None
        await producer.send(b"later")
        await producer.close()
        assert service.payloads == [b"later"]


@on_virtual_time
async def test_with_nobody_serving_what_was_not_sent_is_not_written() -> None:
    async with serving(timeout_s=5) as (service, client):
        producer = await _opened(client)
        service.move("n2", serving=False)
        service.cut()
        await asyncio.sleep(0.1)
        with pytest.raises(NotWritten):
            await producer.send(b"never")
        service.owner = "n2"
        service.push("n2")
        await producer.send(b"later")
        await producer.close()
        assert service.payloads == [b"later"]


@on_virtual_time
async def test_what_was_sent_and_not_answered_by_its_deadline_is_unknown() -> None:
    async with serving(timeout_s=5) as (service, client):
        producer = await _opened(client)

        async def fault(stream: Any) -> None:
            await asyncio.sleep(1000)

        service.fault, service.break_at = fault, service.points
        with pytest.raises(OutcomeUnknown):
            await producer.send(b"x")
        with pytest.raises(Closed):
            await producer.send(b"y")
        await producer.close()


@on_virtual_time
async def test_opening_with_nobody_serving_is_unavailable() -> None:
    async with serving(timeout_s=2) as (service, client):
        service.move("n2", serving=False)
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match=r"within 2 s.*`woodpecker node serve`"):
            await _opened(client)
        assert "no streaming node serves" in client.trouble


@on_virtual_time
async def test_a_name_that_no_producer_may_have_is_an_invalid_request() -> None:
    async with serving() as (_, client):
        channel = await client.open_channel("orders")
        for name in ("", 7, b"billing", "\udcff"):
            with pytest.raises(InvalidRequest, match="name"):
                channel.producer(name)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            await channel.producer("p" * 300).open()


@on_virtual_time
async def test_a_full_queue_is_told_and_ready_waits() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        service.move("n2", serving=False)
        service.cut()
        futures = []
        with pytest.raises(Overloaded):  # noqa: PT012
            while True:
                futures.append(producer.submit(bytes(999)))
        assert len(futures) * 999 <= 32 << 20
        ready = asyncio.create_task(producer.ready())
        await asyncio.sleep(1)
        assert not ready.done()
        service.owner = "n2"
        service.push("n2")
        await ready
        await producer.close()
        assert len(service.payloads) == len(futures)


@on_virtual_time
async def test_credit_of_the_stream_bounds_what_is_out() -> None:
    async with serving() as (service, client):
        service.credit_bytes = 1000
        service.network.delay_ms = (10.0, 10.0)
        producer = await _opened(client)
        work = [asyncio.create_task(producer.send_many([bytes(400)])) for _ in range(6)]
        await asyncio.sleep(0.0149)
        assert sum(isinstance(frame, Batch) for frame in service.seen) == 2
        await asyncio.gather(*work)
        await producer.send(Message(bytes(990)))  # larger than all credit, with what it costs
        await producer.close()


@on_virtual_time
async def test_the_rate_that_the_owner_allows_is_kept() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        await service.streams[-1].send(Rate(rate_bytes_s=10_000))
        begin = asyncio.get_running_loop().time()
        for _ in range(21):
            await producer.send(bytes(1000 - 64))
        assert 1.9 <= asyncio.get_running_loop().time() - begin <= 2.2
        await service.streams[-1].send(Rate(rate_bytes_s=0))
        begin = asyncio.get_running_loop().time()
        for _ in range(20):
            await producer.send(bytes(1000))
        assert asyncio.get_running_loop().time() - begin <= 0.2
        await producer.close()


@on_virtual_time
async def test_while_the_owner_rejects_only_ends_of_transactions_go_out() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        other = await _opened(client)
        tx = await producer.transaction().__aenter__()
        await tx.send(b"t")
        await service.streams[-1].send(Rate(rate_bytes_s=-1))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(other.send(b"later"))
        await tx.__aexit__(None, None, None)
        await asyncio.sleep(5)
        assert service.payloads == [b"t"]
        await service.streams[-1].send(Rate(rate_bytes_s=0))
        await waiting
        assert service.payloads == [b"t", b"later"]
        await producer.close()
        await other.close()


@on_virtual_time
async def test_cancelled_senders_leave_the_producer_usable() -> None:
    async with serving() as (service, client):
        service.network.delay_ms = (10.0, 10.0)
        producer = await _opened(client)
        for delay_ms in range(0, 40, 3):
            task = asyncio.create_task(producer.send(b"c%d" % delay_ms))
            await asyncio.sleep(delay_ms / 1000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await producer.send(b"last")
        await producer.close()
        assert service.payloads[-1] == b"last"
        assert len(set(service.payloads)) == len(service.payloads)


@on_virtual_time
async def test_cancelled_at_any_time_while_opening_leaves_nothing() -> None:
    async with serving() as (service, client):
        service.network.delay_ms = (10.0, 10.0)
        channel = await client.open_channel("orders")
        for delay_ms in range(0, 60, 4):
            task = asyncio.create_task(channel.producer().open())
            await asyncio.sleep(delay_ms / 1000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                await task.result().close()


@on_virtual_time
async def test_transactions_are_kept_alive() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        async with producer.transaction(keep_alive_s=3) as tx:
            await tx.send(b"a")
            await asyncio.sleep(10)
        alive = [frame for frame in service.seen if isinstance(frame, KeepAlive)]
        assert 8 <= len(alive) <= 10
        await producer.close()


@on_virtual_time
async def test_an_empty_transaction_says_nothing() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        async with producer.transaction() as tx:
            pass
        assert tx.position is None
        assert not [frame for frame in service.seen if isinstance(frame, Batch)]
        await producer.close()


@on_virtual_time
async def test_producers_of_a_pchannel_share_a_stream() -> None:
    async with serving() as (service, client):
        producers = [await _opened(client) for _ in range(20)]
        await asyncio.gather(*(producer.send(b"x") for producer in producers))
        assert len(service.streams) == 1
        assert len([frame for frame in service.seen if isinstance(frame, Attach)]) == 20
        for producer in producers:
            await producer.close()


@on_virtual_time
async def test_a_failure_is_reported_once_for_each_term() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        for _ in range(3):
            await producer.send(b"x")
            service.cut()
            await asyncio.sleep(1)
        service.move("n2")
        await producer.send(b"x")
        service.cut()
        await producer.send(b"x")
        await producer.close()
        assert [(r.pchannel, r.term) for r in service.reports] == [(PCHANNEL, 1), (PCHANNEL, 2)]


@on_virtual_time
async def test_ephemeral_messages_are_accepted_and_not_written() -> None:
    async with serving() as (service, client):
        producer = await _opened(client)
        assert await producer.send(b"here", ephemeral=True) is None
        await producer.send(b"kept")
        await producer.close()
        assert service.payloads == [b"kept"]


def _attaches(service: Service) -> list[Attach]:
    return [frame for frame in service.seen if isinstance(frame, Attach)]


@on_virtual_time
async def test_no_session_is_taken_while_an_ephemeral_is_unanswered() -> None:
    """Its refusal would be taken for one of the session: a second one, and the node and we go by different ids."""
    async with serving() as (service, client):
        producer = await _opened(client)
        session, before = producer.session, len(_attaches(service))
        ephemeral = session.draft([Message(b"x")], 1)
        ephemeral.ephemeral = True
        session.flight.ephemerals.append(ephemeral)
        assert session.on_forgotten("as a test wants it") is None
        await asyncio.sleep(1)
        assert len(_attaches(service)) == before
        session.flight.ephemerals.clear()
        await producer.send(b"y")
        assert len(_attaches(service)) == before + 1
        await producer.close()
