"""Channels: made once, deleted for good, finished when half done; many of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.streaming.coordinator.kit import World

from woodpecker.streaming.codec.records import COUNTERS, VCHANNELS
from woodpecker.streaming.core.records import Life, VchannelRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.requests import (
    AppendControl,
    CreateChannel,
    DeleteChannel,
    ListChannels,
    Locate,
    Request,
)
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time


async def running(*, pchannels: int = 2, limit: int = 100_000) -> World:
    world = World(
        replace(DEFAULTS, pchannels=pchannels, expected_nodes=1, vchannels_per_pchannel=limit)
    )
    await world.coordinator()
    await world.node("n1")
    await world.until(world.all_assigned)
    return world


async def record_of(world: World, name: str) -> VchannelRecord:
    record = (await world.records.load(VCHANNELS.key(name))).record
    assert record is not None
    return record


def controls(world: World) -> list[tuple[str, int]]:
    return [(r.kind, r.vcid) for written in world.log.controls.values() for r in written]


@on_virtual_time
async def test_a_channel_is_made_found_listed_and_deleted() -> None:
    world = await running()
    made = await world.ask(CreateChannel(name="a", request="r1", retention_age_s=60))
    assert made.vcid >= 1 and made.state == "active" and made.retention_age_s == 60
    assert (await world.ask(Locate(names=["a", "b"]))).channels == [made]
    assert await world.ask(CreateChannel(name="a", request="r1")) == made, "a repeat"
    assert await world.ask(CreateChannel(name="a", request="r2", exist_ok=True)) == made
    with pytest.raises(Refused) as refused:
        await world.ask(CreateChannel(name="a", request="r2"))
    assert refused.value.refusal.kind is Class.EXISTS
    await world.ask(DeleteChannel(name="a", request="r3"))
    await world.ask(DeleteChannel(name="a", request="r3"))
    assert (await world.ask(Locate(names=["a"]))).channels == []
    assert (await world.ask(ListChannels())).channels == []
    with pytest.raises(Refused, match=r"no channel 'b'.*`woodpecker channel list`"):
        await world.ask(DeleteChannel(name="b", request="r4"))
    again = await world.ask(CreateChannel(name="a", request="r5"))
    assert again.vcid > made.vcid, "a vcid is never used again"
    assert controls(world).count(("vc-create", made.vcid)) == 1
    assert ("vc-delete", made.vcid) in controls(world)
    await world.stop()


@on_virtual_time
async def test_a_retention_that_keeps_nothing_is_refused() -> None:
    world = await running()
    for wrong in (
        CreateChannel(name="a", request="r", retention_age_s=-1),
        CreateChannel(name="a", request="r", retention_bytes=1 << 30),  # a promise nobody keeps
    ):
        with pytest.raises(Refused, match=r"at least 1|not enforced yet") as refused:
            await world.ask(wrong)
        assert refused.value.refusal.kind is Class.INVALID
    assert (await world.ask(ListChannels())).channels == []
    await world.stop()


@on_virtual_time
async def test_channels_go_where_there_are_fewest_and_no_further_than_allowed() -> None:
    world = await running(pchannels=3, limit=4)
    for number in range(12):
        await world.ask(CreateChannel(name=f"c{number}", request=f"r{number}"))
    found = (await world.ask(ListChannels())).channels
    assert Counter(channel.pchannel for channel in found) == {"p0": 4, "p1": 4, "p2": 4}
    with pytest.raises(Refused, match="add pchannels"):
        await world.ask(CreateChannel(name="x", request="x"))
    with pytest.raises(Refused, match="no pchannel 'p9'"):
        await world.ask(CreateChannel(name="x", request="x", pchannel="p9"))
    with pytest.raises(Refused, match="channel name"):
        await world.ask(CreateChannel(name="a/b", request="x"))
    await world.stop()


@on_virtual_time
async def test_listings_have_pages_and_prefixes() -> None:
    world = await running()
    for name in ("a1", "a2", "a3", "b1"):
        await world.ask(CreateChannel(name=name, request=name))
    await world.ask(DeleteChannel(name="a2", request="d"))
    page = await world.ask(ListChannels(prefix="a", limit=1))
    assert [channel.name for channel in page.channels] == ["a1"] and page.more
    page = await world.ask(ListChannels(prefix="a", start_after="a1", limit=1))
    assert [channel.name for channel in page.channels] == ["a3"] and not page.more
    await world.stop()


@on_virtual_time
async def test_many_at_once_under_one_name_make_one_channel() -> None:
    world = await running()
    made = await asyncio.gather(
        *[world.ask(CreateChannel(name="a", request=f"r{n}", exist_ok=True)) for n in range(20)]
    )
    assert len({channel.vcid for channel in made}) == 1
    assert [kind for kind, _ in controls(world)] == ["vc-create"]
    await world.stop()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.UNAVAILABLE, Fault.LATE])
@on_virtual_time
async def test_lost_answers_of_the_store_make_nothing_twice(fault: Fault) -> None:
    world = await running()
    world.faults.script("put", fault, key="stream/vc/", times=2)
    world.faults.script("put", fault, key="stream/counters", times=1)
    made = await world.ask(CreateChannel(name="a", request="r1"))
    world.faults.script("put", fault, key="stream/vc/", times=2)
    await world.ask(DeleteChannel(name="a", request="r2"))
    assert controls(world) == [("vc-create", made.vcid), ("vc-delete", made.vcid)]
    assert (await record_of(world, "a")).state is Life.DELETED
    await world.sleep(10)
    await world.stop()


def failing(*kinds: str) -> Any:
    def before(request: Request[Any]) -> None:
        if isinstance(request, AppendControl) and request.kind in kinds:
            raise Refused(Refusal(kind=Class.UNKNOWN, message="cut"))

    return before


@pytest.mark.parametrize("kind", ["vc-create", "vc-delete"])
@on_virtual_time
async def test_the_next_coordinator_finishes_what_is_half_done(kind: str) -> None:
    world = await running()
    if kind == "vc-delete":
        await world.ask(CreateChannel(name="a", request="r1"))
    world.nodes["n1"].before = failing(kind)
    request: Any = CreateChannel(name="a", request="r1")
    if kind == "vc-delete":
        request = DeleteChannel(name="a", request="r2")
    with pytest.raises((Refused, TimeoutError)):
        async with asyncio.timeout(5):
            await world.ask(request)
    await world.kill_coordinator("c1")
    world.nodes["n1"].before = lambda _: None
    second = await world.coordinator("c2")
    await world.until(lambda: second.is_leader)
    await world.sleep(10)
    wanted = Life.ACTIVE if kind == "vc-create" else Life.DELETED
    assert (await record_of(world, "a")).state is wanted
    await world.stop()


@on_virtual_time
async def test_what_a_caller_gave_up_is_finished() -> None:
    world = await running()
    world.nodes["n1"].before = failing("vc-create")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await world.ask(CreateChannel(name="a", request="r1"))
    assert (await record_of(world, "a")).state is Life.CREATING
    world.nodes["n1"].before = lambda _: None
    await world.sleep(5)
    assert (await record_of(world, "a")).state is Life.ACTIVE
    await world.stop()


@on_virtual_time
async def test_without_a_node_that_is_said_in_time_and_nothing_is_begun() -> None:
    world = World(replace(DEFAULTS, pchannels=2, expected_nodes=1))
    await world.coordinator()
    await world.until(lambda: any(c.is_leader for c in world.coordinators.values()))
    await world.sleep(1)
    async with asyncio.timeout(10):
        with pytest.raises(
            Refused, match=r"no streaming node serves it.*`woodpecker node serve`"
        ) as refused:
            await world.ask(CreateChannel(name="a", request="r1"))
    assert refused.value.refusal.kind is Class.LATER, "not done, and nobody will"
    async with asyncio.timeout(1):  # whoever is asking when its time is up could not be sure
        with pytest.raises(Refused, match="nothing was done"):
            await world.ask(CreateChannel(name="a", request="r1"))
    assert (await world.records.load(VCHANNELS.key("a"))).record is None
    await world.node("n1")
    await world.until(world.all_assigned)
    await world.ask(CreateChannel(name="a", request="r1"))
    await world.stop()


@on_virtual_time
async def test_where_all_have_just_started_a_channel_waits_for_an_owner() -> None:
    world = World(replace(DEFAULTS, pchannels=2, expected_nodes=1))
    await world.coordinator()
    await world.until(lambda: any(c.is_leader for c in world.coordinators.values()))
    made = asyncio.ensure_future(world.ask(CreateChannel(name="a", request="r1")))
    await world.sleep(2)
    await world.node("n1")
    assert (await made).name == "a"
    await world.stop()


@on_virtual_time
async def test_whoever_hears_no_end_of_what_is_begun_is_told_that_it_may_come() -> None:
    """Whatever goes wrong after the record was written: the coordinator goes on with it."""
    world = await running()
    await world.ask(CreateChannel(name="b", request="r1"))
    world.nodes["n1"].before = failing("vc-create", "vc-delete")
    for request in (CreateChannel(name="a", request="r2"), DeleteChannel(name="b", request="r3")):
        async with asyncio.timeout(10):
            with pytest.raises(Refused) as refused:
                await world.ask(request)
        assert refused.value.refusal.kind is Class.UNKNOWN

    def away(request: Request[Any]) -> None:
        world.faults.is_away = isinstance(request, AppendControl)

    world.nodes["n1"].before = away
    with pytest.raises(Refused) as refused:
        await world.ask(CreateChannel(name="c", request="r4"))
    assert refused.value.refusal.kind is Class.UNKNOWN
    world.nodes["n1"].before = lambda _: None
    world.faults.is_away = False
    await world.sleep(30)
    assert (await record_of(world, "a")).state is Life.ACTIVE
    assert (await record_of(world, "b")).state is Life.DELETED
    assert (await record_of(world, "c")).state is Life.ACTIVE
    await world.stop()


@on_virtual_time
async def test_a_new_coordinator_goes_on_with_new_numbers() -> None:
    world = await running()
    first = await world.ask(CreateChannel(name="a", request="r1"))
    await world.coordinator("c2")
    await world.coordinators.pop("c1").stop()
    await world.until(lambda: world.coordinators["c2"].is_leader)
    await world.until(world.all_assigned)
    await world.sleep(1)
    second = await world.ask(CreateChannel(name="b", request="r2"))
    assert second.vcid == first.vcid + 1000
    assert (await world.records.load(COUNTERS)).record.next_vcid == 2001  # type: ignore[union-attr]
    await world.stop()


@on_virtual_time
async def test_thousands_of_channels_leave_nothing_in_memory() -> None:
    world = await running(pchannels=4)
    for start in range(0, 3000, 500):
        await asyncio.gather(
            *[
                world.ask(CreateChannel(name=f"c{n:05}", request=f"r{n}"))
                for n in range(start, start + 500)
            ]
        )
    office = world.coordinators["c1"].office
    assert office is not None
    assert dict(office.channels.counts) == dict.fromkeys(("p0", "p1", "p2", "p3"), 750)
    assert not office.channels._unfinished and not len(office.channels._jobs)
    names = [f"c{n:05}" for n in range(0, 3000, 3)]
    assert len((await world.ask(Locate(names=names))).channels) == 1000
    await world.stop()


@on_virtual_time
async def test_late_repeats_do_not_touch_what_came_after() -> None:
    world = await running()
    create, delete = CreateChannel(name="a", request="r1"), DeleteChannel(name="a", request="r2")
    await world.ask(create)
    await world.ask(delete)
    with pytest.raises(Refused) as refused:
        await world.ask(create)
    assert refused.value.refusal.kind is Class.GONE, "it was made, and deleted since"
    again = await world.ask(CreateChannel(name="a", request="r3"))
    await world.ask(delete)
    assert (await world.ask(Locate(names=["a"]))).channels == [again], "that was another one"
    await world.ask(DeleteChannel(name="a", request="r4"))
    assert (await world.ask(Locate(names=["a"]))).channels == []
    await world.stop()
