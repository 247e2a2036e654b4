"""Sessions of nodes: beats, drains, namesakes, outages."""

from __future__ import annotations

from dataclasses import replace

from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.streaming.codec.records import NODES
from woodpecker.streaming.core.records import NodeRecord
from woodpecker.streaming.metadata.node_session import NodeSession
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.faulty import Fault, Faults, FaultyMetadata
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


def drained(record: NodeRecord | None) -> NodeRecord:
    assert record is not None
    return replace(record, draining=True)


class World:
    def __init__(self) -> None:
        self.runtime = VirtualRuntime()
        shared = MemoryRecords()
        self.faults = Faults(self.runtime)
        calm = MemoryMetadata(self.runtime, shared)
        self.records = StreamRecords(calm, self.runtime)
        self.faulty = StreamRecords(FaultyMetadata(calm, self.faults), self.runtime)
        self.changes: list[NodeRecord] = []
        self.lost: list[str] = []

    def session(self) -> NodeSession:
        return NodeSession(
            self.faulty,
            self.runtime,
            "n1",
            settings=DEFAULTS,
            on_change=self.changes.append,
            on_lost=self.lost.append,
        )

    async def read(self) -> NodeRecord:
        record = (await self.records.load(NODES.key("n1"))).record
        assert record is not None
        return record


@on_virtual_time
async def test_a_node_beats_and_says_goodbye() -> None:
    world = World()
    session = world.session()
    await session.register(address="h:1", zone="z")
    await world.runtime.sleep_ms(30_000)
    record = await world.read()
    assert 7 <= record.beat <= 14 and record.is_up and record.zone == "z"
    await session.stop()
    assert not (await world.read()).is_up
    assert not world.runtime.running()


@on_virtual_time
async def test_a_drain_arrives_with_the_next_beat_and_outlives_a_crash_but_no_goodbye() -> None:
    world = World()
    session = world.session()
    await session.register(address="h:1")
    await world.records.change(NODES.key("n1"), drained)
    await world.runtime.sleep_ms(5_000)
    assert [record.draining for record in world.changes] == [True]
    await session.abandon()
    second = world.session()
    assert (await second.register(address="h:2")).draining
    await second.stop()
    third = world.session()
    assert not (await third.register(address="h:3")).draining
    await third.stop()


@on_virtual_time
async def test_a_namesake_ends_the_older_process_only() -> None:
    world = World()
    first, second = world.session(), world.session()
    await first.register(address="h:1")
    await second.register(address="h:2")
    await world.runtime.sleep_ms(10_000)
    assert len(world.lost) == 1 and "h:2" in world.lost[0]
    await first.stop()
    assert (await world.read()).is_up
    await second.stop()


@on_virtual_time
async def test_lost_answers_and_an_outage_end_nothing() -> None:
    world = World()
    session = world.session()
    world.faults.script("put", Fault.LOST, times=3)
    await session.register(address="h:1")
    world.faults.script("put", Fault.LOST, times=3)
    await world.runtime.sleep_ms(20_000)
    world.faults.is_away = True
    await world.runtime.sleep_ms(20_000)
    assert session.beat_age_ms > 15_000
    world.faults.is_away = False
    await world.runtime.sleep_ms(5_000)
    assert session.beat_age_ms < 5_000 and not world.lost and not world.changes
    await session.stop()
