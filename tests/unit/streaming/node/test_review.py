"""What a careless or hostile client sends must hurt nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.streaming.node.kit import (
    EARLIEST,
    VCID,
    Consuming,
    P,
    consume,
    is_class,
    one_node,
    produce,
    until,
)

from woodpecker.errors import NotWritten
from woodpecker.streaming import frames, requests
from woodpecker.streaming.codec.records import COORDINATOR
from woodpecker.streaming.core.records import CoordinatorRecord
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import Start, StartForm
from woodpecker.streaming.node.consuming import Consumption
from woodpecker.streaming.node.producing import Production
from woodpecker.streaming.transport.services import Services
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_a_number_that_no_reader_would_take_is_not_written() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.send(b"a", txn_number=-5)
        assert is_class(await producing.answer(), Class.INVALID)
        producing.sequence = 0
        await producing.put(b"b")
        again = await cluster.node("n2")
        await cluster.assign(again)
        consuming = await consume(cluster, again)
        assert await consuming.until(1) == [b"b"]
        await consuming.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "vc-create", "vcid": -1, "name": "x"},
        {"kind": "vc-create", "vcid": 8, "name": "x", "retention_age_s": -1},
        {"kind": "vc-create", "vcid": 8, "name": "x", "retention_bytes": -1},
        {"kind": "vc-delete", "vcid": -3},
        {"kind": "broadcast", "vcid": VCID, "broadcast_id": 1, "broadcast_floor": -1},
    ],
)
@on_virtual_time
async def test_a_control_record_that_no_reader_would_take_is_not_written(
    fields: dict[str, object],
) -> None:
    async with one_node() as (cluster, member):
        with pytest.raises(Refused) as caught:
            await member.endpoint.call(
                requests.AppendControl(pchannel=P, term=cluster.term, **fields)  # type: ignore[arg-type]
            )
        assert caught.value.refusal.kind is Class.INVALID
        producing = await produce(cluster, member)
        await producing.put(b"b")
        await cluster.assign(await cluster.node("n2"))


@on_virtual_time
async def test_what_is_written_while_a_start_by_time_is_looked_up_is_not_passed_over() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        member.site.on_objects.max_delay_ms = 20
        member.site.on_metadata.max_delay_ms = 20
        for round_ in range(20):
            await producing.send(b"before")
            await producing.send(b"now", ephemeral=True)
            await producing.ack()
            shown = await producing.ack()  # its tick is in no batch
            consuming = await Consuming(cluster, member).open()
            start = Start(form=StartForm.TICK, value=shown.tick)
            asked = asyncio.ensure_future(consuming.subscribe(start=start))
            await asyncio.sleep(round_ / 1000)
            first = await producing.put(b"after")
            assert (await asked).position.seq <= first.seq
            await consuming.close()


class _Silent:
    """A coordinator whose map never changes."""

    def __init__(self) -> None:
        self.streams = 0

    async def assign(self, request: requests.Request[Any]) -> Any:
        raise AssertionError(request)

    async def discover(self, stream: Any) -> None:
        self.streams += 1
        try:
            while await stream.receive() is not None:
                pass
        finally:
            self.streams -= 1


@pytest.mark.parametrize("is_cut", [True, False])
@on_virtual_time
async def test_a_client_that_goes_takes_its_relayed_stream_along(is_cut: bool) -> None:
    async with one_node() as (cluster, member):
        silent = _Silent()
        server = cluster.network.serve(
            "c:1", Services(assignment=silent), runtime=member.site.runtime
        )
        record = CoordinatorRecord(epoch=1, holder="c" * 32, address="c:1")
        await cluster.admin.change(COORDINATOR, lambda _: record)
        stream = member.endpoint.discover()
        await stream.send(frames.DiscoverHello(client="x"))
        await until(lambda: silent.streams == 1)
        if is_cut:
            stream.cut()
        else:
            await stream.close()
        await until(lambda: silent.streams == 0)
        await asyncio.sleep(1)
        assert [name for name in cluster.running() if name.startswith("relay")] == []
        await server.close()


@on_virtual_time
async def test_answers_that_a_client_does_not_read_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("woodpecker.streaming.node.producing.CREDIT_BYTES", 10_000)
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        (production,) = member.life._streams.values()
        assert isinstance(production, Production)

        async def flood() -> None:
            while True:
                await producing.stream.send(frames.Attach(session=2))
                await asyncio.sleep(0.1)

        task = asyncio.ensure_future(flood())
        await asyncio.sleep(30)
        assert 1 < production._outbox.backlog < 40
        task.cancel()
        producing.stream.cut()


@on_virtual_time
async def test_a_stream_of_many_forgotten_producers_is_begun_anew() -> None:
    async with one_node(sessions_per_pchannel=10) as (cluster, member):
        producing = await produce(cluster, member)
        for session in range(2, 12):
            await producing.stream.send(frames.Attach(session=session))
        for _ in range(2, 12):
            assert isinstance(await producing.answer(), frames.Attached)
        assert isinstance(await producing.answer(), frames.Closed)


@on_virtual_time
async def test_refusals_that_a_consumer_does_not_read_do_not_pile_up() -> None:
    async with one_node(stream_credit_bytes=10_000) as (cluster, member):
        consuming = await Consuming(cluster, member).open()
        consuming.task.cancel()
        (consumption,) = member.life._streams.values()
        assert isinstance(consumption, Consumption)

        async def flood() -> None:
            while True:
                await consuming.stream.send(
                    frames.Subscribe(consumer=1, vcid=VCID, start=EARLIEST, credit_bytes=0)
                )
                await asyncio.sleep(0.1)

        task = asyncio.ensure_future(flood())
        await asyncio.sleep(30)
        assert 1 < consumption._outbox.backlog < 100  # Progress included
        task.cancel()
        await consuming.close()


@on_virtual_time
async def test_many_who_come_back_at_once_do_not_all_read_the_same_end_of_the_log() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        firsts = [(await producing.put(b"x" * 1000)).seq for _ in range(60)]
        second = await cluster.node("n2")
        life = await cluster.assign(second)
        second.site.on_objects.max_delay_ms = 50
        consuming = await Consuming(cluster, second).open()
        wishes = [Start(form=StartForm.SEQ, value=seq) for seq in firsts]
        fetched = 0
        read = life.runs._read

        async def counted(seq: int, visible: int) -> Any:
            nonlocal fetched
            fetched += 1
            return await read(seq, visible)

        life.runs._read = counted  # type: ignore[method-assign]
        await asyncio.gather(
            *(consuming.subscribe(n, start=start) for n, start in enumerate(wishes))
        )
        for n in range(60):
            await consuming.until(60 - n, n)
        assert fetched < 30
        await consuming.close()


@on_virtual_time
async def test_earliest_is_found_while_the_log_is_being_trimmed() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        for n in range(4):
            await producing.put(b"%d" % n)
        kept = await producing.put(b"kept")
        await member.life.log.trim(kept.seq)  # and the owner has not heard yet that it is done
        consuming = await consume(cluster, member)
        assert await consuming.until(1) == [b"kept"]
        await consuming.close()


@on_virtual_time
async def test_a_payload_that_the_log_does_not_take_ends_no_life() -> None:
    async with one_node() as (cluster, member):
        life = member.life
        with pytest.raises(Refused) as caught:
            await member.endpoint.call(
                requests.AppendControl(
                    pchannel=P,
                    term=cluster.term,
                    kind="broadcast",
                    vcid=VCID,
                    broadcast_id=1,
                    payload=bytes((64 << 20) + 1),
                )
            )
        assert caught.value.refusal.kind is Class.INVALID
        assert member.life is life
        assert life.line.ended is None


@on_virtual_time
async def test_an_abort_that_finds_no_room_is_not_tried_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"a", txn_number=0, begin=True, keep_alive_ms=1000)
        tries = 0

        def full(*_: object, **__: object) -> None:
            nonlocal tries
            tries += 1
            raise NotWritten("no room")

        with monkeypatch.context() as patch:
            patch.setattr(member.life.line, "write_control", full)
            await asyncio.sleep(11)
        assert 10 <= tries <= 200
        await asyncio.sleep(1)
        await producing.send(b"b", txn_number=0)
        assert is_class(await producing.answer(), Class.ABORTED)


@on_virtual_time
async def test_what_is_read_for_who_is_behind_counts_against_the_budget_of_the_node() -> None:
    async with one_node(tail_bytes=20_000) as (cluster, member):
        producing = await produce(cluster, member)
        firsts = [(await producing.put(b"x" * 1000)).seq for _ in range(60)]
        budget, life = member.node._tools.budget, member.life
        assert life.runs.size_bytes == 0
        consuming = await Consuming(cluster, member).open()
        for n, first in enumerate(firsts[:30]):
            await consuming.subscribe(n, start=Start(form=StartForm.SEQ, value=first))
            assert await consuming.until(60 - n, n) == [b"x" * 1000] * (60 - n)
            assert budget.size_bytes == life.tail.size_bytes + life.runs.size_bytes
            assert budget.size_bytes <= 20_000
        await consuming.close()


@on_virtual_time
async def test_runs_are_shared_as_long_as_the_budget_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("woodpecker.streaming.node.runs.RUN_BYTES", 5000)
    monkeypatch.setattr("woodpecker.streaming.node.runs.CACHE_BYTES", 12_000)
    async with one_node(tail_bytes=30_000) as (cluster, member):
        producing = await produce(cluster, member)
        for _ in range(60):
            await producing.put(b"x" * 1000)
        life = member.life
        consuming = await consume(cluster, member)
        await consuming.until(60)
        assert 0 < life.runs.size_bytes <= 12_000
        assert life.runs.size_bytes == sum(run.size_bytes for run in life.runs._kept.values())
        await consuming.close()


@on_virtual_time
async def test_consumers_are_counted_and_limited() -> None:
    async with one_node(consumers_per_stream=3, consumers_per_pchannel=5) as (cluster, member):
        one = await Consuming(cluster, member).open()
        for number in range(3):
            assert isinstance(await one.subscribe(number), frames.Started)
        refused = await one.subscribe(3)
        assert is_class(refused, Class.INVALID), "this stream has its share"
        assert "another client" in refused.refusal.message
        two = await Consuming(cluster, member).open()
        for number in range(2):
            assert isinstance(await two.subscribe(number), frames.Started)
        assert is_class(await two.subscribe(2), Class.LATER), "others may leave"
        await one.stream.send(frames.Unsubscribe(consumer=0))
        await until(lambda: member.life.consumers == 4)
        assert isinstance(await two.subscribe(3), frames.Started)
        member.site.on_metadata.max_delay_ms = 200
        waiting = asyncio.ensure_future(one.subscribe(7, start=Start(form=StartForm.LATEST)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await one.close()
        await two.close()
        await until(lambda: member.life.consumers == 0)


@on_virtual_time
async def test_a_disk_without_room_is_told_until_there_is_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        owner = member.node.owners[P]

        def full(*_: object) -> None:
            raise NotWritten("no room for 5 bytes in /data/x: No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(member.life.writer, "reserve", full)
            await producing.send(b"a")
            assert is_class(await producing.answer(), Class.LATER)
            assert (owner.status.state, owner.status.reason) == (
                "serving",
                "no room for 5 bytes in /data/x: No space left on device",
            )
        producing.sequence = 0
        await producing.put(b"a")
        assert owner.status.reason == ""


@on_virtual_time
async def test_a_cursor_that_came_to_be_beside_the_end_of_its_channel_holds_nothing() -> None:
    """Its owner may sleep between the look at the channel and the record, while a new one deletes the channel."""
    async with one_node(checkpoint_age_ms=5000) as (cluster, member):
        await cluster.create(member, 9, retention_age_s=20)
        producing = await produce(cluster, member)
        await producing.put(b"old", vcid=9)
        await member.endpoint.call(
            requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        )
        await cluster.log.cursor("7.late", start=0)
        for n in range(12):
            await producing.put(b"%d" % n, vcid=9)
            await asyncio.sleep(20)
        assert await cluster.log.earliest() > 0
        assert await cluster.log.cursors() == []


@on_virtual_time
async def test_latest_is_found_though_all_is_trimmed_while_it_is_proven() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.put(b"old")
        life = member.life
        prove = life.prove

        async def slow() -> None:
            life.prove = prove  # type: ignore[method-assign]
            await prove()
            for n in range(3):
                await producing.put(b"%d" % n)
            kept = await producing.put(b"kept")
            await life.log.trim(kept.seq)
            life.tail.evict(1 << 30)  # so the log has to be asked

        life.prove = slow  # type: ignore[method-assign]
        consuming = await consume(cluster, member, start=Start(form=StartForm.LATEST))
        await producing.put(b"new")
        await until(lambda: consuming.payloads()[-1:] == [b"new"])
        await consuming.close()
