"""Who leads: elections, abdication, two at once, clients sent on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.streaming.coordinator.kit import World

from woodpecker.observability.names import Gauge
from woodpecker.streaming.codec.records import COORDINATOR, FEATURES
from woodpecker.streaming.core.assignment_map import EMPTY_MAP, AssignmentMap, applied
from woodpecker.streaming.core.election import abdicated
from woodpecker.streaming.core.records import Features
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.frames import Close, DiscoverHello, MapChange, Report
from woodpecker.streaming.requests import DescribeCluster, Move
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time


class Follower:
    """A client's side of Discover."""

    def __init__(self, world: World, address: str) -> None:
        self.world = world
        self.map: AssignmentMap = EMPTY_MAP
        self.frames: list[MapChange] = []
        self.ended: Refused | None = None
        self.stream = world.network.dialer().endpoint(address).discover()
        self.task = world.runtime.spawn(self._run(), "follower")

    async def _run(self) -> None:
        try:
            await self.stream.send(DiscoverHello(client="t"))
            while (frame := await self.stream.receive()) is not None:
                if isinstance(frame, Close):
                    continue
                self.frames.append(frame)
                after = applied(self.map, frame)
                assert after is not None
                self.map = after
        except Refused as error:
            self.ended = error


async def running(*nodes: str, pchannels: int = 4) -> World:
    world = World(replace(DEFAULTS, pchannels=pchannels, expected_nodes=len(nodes)))
    await world.coordinator("c1")
    for name in nodes:
        await world.node(name)
    await world.until(world.all_assigned)
    return world


@on_virtual_time
async def test_a_stand_by_sends_to_the_leader_and_follows_a_killed_one() -> None:
    world = await running("n1", "n2")
    second = await world.coordinator("c2")
    await world.sleep(5)
    with pytest.raises(Refused) as refused:
        await second.assign(DescribeCluster())
    assert refused.value.refusal.kind is Class.NOT_LEADER
    assert refused.value.refusal.address == "c1:1"
    before = await world.pchannels()
    await world.kill_coordinator("c1")
    assert 5 < await world.until(lambda: second.is_leader) < 16
    await world.sleep(30)
    assert await world.pchannels() == before, "a new coordinator moves nothing that serves"
    assert (await world.state()).epoch == 2
    await world.stop()


@on_virtual_time
async def test_one_that_starts_anew_at_its_address_does_not_name_itself_as_leader() -> None:
    world = await running("n1")
    await world.kill_coordinator("c1")
    again = await world.coordinator("c1")
    await world.sleep(1)
    with pytest.raises(Refused, match="there is none yet") as refused:
        await again.assign(DescribeCluster())
    assert refused.value.refusal.address == ""
    await world.until(lambda: again.is_leader)
    await world.stop()


@on_virtual_time
async def test_a_leader_that_stops_abdicates() -> None:
    world = await running("n1")
    second = await world.coordinator("c2")
    await world.sleep(5)
    await world.coordinators.pop("c1").stop()
    assert await world.until(lambda: second.is_leader) < 1.5
    await world.stop()


@on_virtual_time
async def test_a_leader_that_cannot_beat_stops_deciding_before_another_begins() -> None:
    world = await running("n1", "n2")
    first = world.coordinators["c1"]
    other = World(world.settings)
    world.faults, world_faults = other.faults, world.faults  # the next coordinator has its own way
    second = await world.coordinator("c2")
    await world.sleep(5)
    world_faults.is_away = True
    led = []
    for _ in range(200):
        await world.sleep(0.1)
        led.append((first.is_leader, second.is_leader))
    assert (True, True) not in led and led[-1] == (False, True)
    world_faults.is_away = False
    await world.sleep(5)
    assert first.office is None, "it has found out"
    await world.until(world.all_assigned)
    await world.stop()


@on_virtual_time
async def test_maps_are_whole_at_first_then_change_and_a_new_epoch_wins() -> None:
    world = await running("n1", "n2")
    followers = [Follower(world, "c1:1") for _ in range(5)]
    await world.sleep(1)
    assert {len(follower.map.entries) for follower in followers} == {4}
    assert all(entry.serving for entry in followers[0].map.entries.values())
    await world.ask(Move(pchannel="p0"))
    await world.sleep(3)
    assert followers[0].map.entries["p0"].term == 2 and followers[0].map.entries["p0"].serving
    last = [follower.frames[-1] for follower in followers]
    assert all(frame is last[0] for frame in last), "one object serves all"
    assert last[0].since is not None and len(last[0].entries) == 1
    await world.coordinator("c2")
    await world.sleep(2)
    await world.coordinators.pop("c1").stop()
    await world.sleep(3)
    assert all(f.ended and f.ended.refusal.kind is Class.NOT_LEADER for f in followers)
    follower = Follower(world, "c2:1")
    follower.map = followers[0].map
    await world.sleep(3)
    assert follower.map.version.epoch == 2 and len(follower.map.entries) == 4
    await world.stop()


@on_virtual_time
async def test_a_client_asks_for_the_whole_map_again() -> None:
    world = await running("n1")
    follower = Follower(world, "c1:1")
    await world.sleep(1)
    await follower.stream.send(Report(resend_map=True))
    await world.sleep(1)
    assert [frame.since for frame in follower.frames] == [None, None]
    await follower.stream.close()
    await world.sleep(1)
    office = world.coordinators["c1"].office
    assert follower.task.done() and office is not None and office.publisher.streams == 0
    await world.stop()


@on_virtual_time
async def test_a_report_counts_when_the_node_is_silent_and_only_then() -> None:
    world = await running("n1", "n2", pchannels=2)
    follower = Follower(world, "c1:1")
    await world.sleep(1)
    name = next(iter(world.nodes["n1"].serving))
    await follower.stream.send(Report(pchannel=name, term=1, kind="unknown"))
    await world.sleep(5)
    assert (await world.pchannels())[name].term == 1, "its Status says that all is well"
    await world.nodes["n1"].kill()
    await follower.stream.send(Report(pchannel=name, term=1, kind="unknown"))
    took = await world.until(lambda: name in world.nodes["n2"].serving)
    assert took < 5, "sooner than its session lapses"
    await follower.stream.close()
    await world.stop()


@on_virtual_time
async def test_a_vanished_record_deposes_and_is_taken_anew() -> None:
    world = await running("n1")
    seen = await world.records.load(COORDINATOR)
    assert seen.version is not None
    await world.calm.remove(COORDINATOR.path, expect=seen.version)
    await world.sleep(10)
    assert world.coordinators["c1"].is_leader
    await world.stop()


@on_virtual_time
async def test_a_coordinator_that_is_too_old_does_not_lead() -> None:
    world = World()
    await world.records.put(FEATURES, Features(level=2), expect=None)
    coordinator = await world.coordinator("c1")
    await world.sleep(20)
    assert not coordinator.is_leader
    with pytest.raises(Refused, match="there is none yet"):
        await coordinator.assign(DescribeCluster())
    await world.stop()


@on_virtual_time
async def test_nobody_is_sent_to_a_leader_that_has_abdicated() -> None:
    world = await running("n1")
    second = await world.coordinator("c2")
    await world.sleep(3)
    world.faults.script("put", Fault.UNAVAILABLE, key="stream/coordinator", times=10_000)
    seen = await world.records.load(COORDINATOR)
    assert seen.record is not None
    await world.records.put(COORDINATOR, abdicated(seen.record), expect=seen.version)
    await world.sleep(3)
    with pytest.raises(Refused) as refused:
        await second.assign(DescribeCluster())
    assert refused.value.refusal.address == ""
    world.faults.calm()
    await world.sleep(10)
    assert second.is_leader or world.coordinators["c1"].is_leader
    await world.stop()


@on_virtual_time
async def test_gauges_show_what_the_leader_sees_and_nothing_of_who_has_left() -> None:
    world = await running("n1", "n2")
    await world.sleep(10)
    shown = world.gauges.shown
    assert shown[Gauge.STREAM_LEADER, ""] == 1 and shown[Gauge.STREAM_NODES, "live"] == 2
    assert shown[Gauge.STREAM_ASSIGNMENTS, "assigned"] == 4
    assert shown[Gauge.STREAM_BROADCASTS, "parked"] == 0
    await world.coordinators["c1"].stop()
    assert set(shown.values()) == {0}
    await world.stop()
