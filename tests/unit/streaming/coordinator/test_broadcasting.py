"""Broadcasts: once on each target, whoever begins, dies, repeats or forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.streaming.coordinator.kit import World

from woodpecker.streaming.codec import records as keys
from woodpecker.streaming.codec.records import COUNTERS
from woodpecker.streaming.core.records import BroadcastState, Counters
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.requests import (
    AppendControl,
    Broadcast,
    BroadcastInfo,
    CreateChannel,
    DeleteChannel,
    GetBroadcast,
    ListBroadcasts,
    Request,
    ResumeBroadcast,
)
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

NAMES = ["a", "b", "c"]


async def running() -> World:
    world = World(replace(DEFAULTS, pchannels=2, expected_nodes=1))
    await world.coordinator()
    await world.node("n1")
    await world.until(world.all_assigned)
    for name in NAMES:
        await world.ask(CreateChannel(name=name, request=name))
    await world.sleep(1)
    return world


def appended(world: World) -> list[tuple[str, int]]:
    """(channel, broadcast id) in the logs, in their order."""
    written = [r for log in world.log.controls.values() for r in log if r.kind == "broadcast"]
    return [(request.name, request.broadcast_id) for request in written]


async def counters(world: World) -> Counters:
    record = (await world.records.load(COUNTERS)).record
    assert record is not None
    return record


def refusing(channel: str, kind: Class) -> Callable[[Request[Any]], None]:
    def before(request: Request[Any]) -> None:
        is_broadcast = isinstance(request, AppendControl) and request.kind == "broadcast"
        if is_broadcast and request.name == channel:  # type: ignore[attr-defined]
            raise Refused(Refusal(kind=kind, message="no"))

    return before


@on_virtual_time
async def test_a_broadcast_is_once_on_each_target_and_a_repeat_tells_the_same() -> None:
    world = await running()
    request = Broadcast(key="k", targets=NAMES, payload=b"x", resources=["r"])
    first = await world.ask(request)
    assert first.state == "done" and sorted(first.positions) == NAMES
    assert await world.ask(request) == first
    assert await world.ask(GetBroadcast(key="k")) == first
    assert sorted(appended(world)) == [(name, first.id) for name in NAMES]
    assert (await counters(world)).unfinished == ()
    assert (await world.ask(ListBroadcasts())).broadcasts == []
    await world.stop()


@on_virtual_time
async def test_callers_at_once_under_one_key_share_it() -> None:
    world = await running()
    request = Broadcast(key="k", targets=NAMES, payload=b"x")
    infos = await asyncio.gather(*[world.ask(request) for _ in range(10)])
    assert len({info.id for info in infos}) == 1 and len(appended(world)) == 3
    await world.stop()


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (Broadcast(key="k", targets=["a", "no"], payload=b""), Class.NOT_FOUND),
        (Broadcast(key="k", targets=[], payload=b""), Class.INVALID),
        (Broadcast(key="k", targets=["a", "a"], payload=b""), Class.INVALID),
        (Broadcast(key="k", targets=["a"], payload=bytes(70_000)), Class.INVALID),
        (Broadcast(key="k", targets=["a"], payload=b"", type="t" * 257), Class.INVALID),
        (Broadcast(key="a/b", targets=["a"], payload=b""), Class.INVALID),
        (GetBroadcast(key="no"), Class.NOT_FOUND),
        (ResumeBroadcast(key="no"), Class.NOT_FOUND),
    ],
)
@on_virtual_time
async def test_what_cannot_be_is_refused_before_anything_begins(
    request_: Request[Any], kind: Class
) -> None:
    world = await running()
    with pytest.raises(Refused) as refused:
        await world.ask(request_)
    assert refused.value.refusal.kind is kind
    assert "there is no channel" not in str(refused.value) or "channel create" in str(refused.value)
    assert (await counters(world)).next_broadcast == 1
    await world.stop()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.UNAVAILABLE, Fault.LATE])
@on_virtual_time
async def test_lost_answers_of_the_store(fault: Fault) -> None:
    world = await running()
    for key in ("stream/counters", "stream/b/", "stream/bkey/"):
        world.faults.script("put", fault, key=key, times=2)
    info = await world.ask(Broadcast(key="k", targets=NAMES, payload=b"x"))
    assert info.state == "done" and sorted(appended(world)) == [(n, info.id) for n in NAMES]
    await world.sleep(10)
    assert (await counters(world)).unfinished == (), "an id taken twice is given up"
    await world.stop()


@on_virtual_time
async def test_a_deleted_target_is_skipped() -> None:
    world = await running()
    world.nodes["n1"].before = refusing("b", Class.GONE)
    info = await world.ask(Broadcast(key="k", targets=NAMES, payload=b"x"))
    assert info.state == "done" and list(info.skipped) == ["b"] and len(info.positions) == 2
    world.nodes["n1"].before = lambda _: None
    await world.ask(DeleteChannel(name="c", request="d"))
    with pytest.raises(Refused, match="no channel c"):
        await world.ask(Broadcast(key="k2", targets=NAMES, payload=b"x"))
    await world.stop()


@on_virtual_time
async def test_what_does_not_heal_is_parked_and_a_person_decides() -> None:
    world = await running()
    world.nodes["n1"].before = refusing("b", Class.INVALID)
    info = await world.ask(Broadcast(key="k", targets=NAMES, payload=b"x", resources=["r"]))
    assert info.state == "parked" and "b: no" in info.reason and len(info.positions) == 2
    other = await world.ask(Broadcast(key="k2", targets=["a"], payload=b"", resources=["s"]))
    assert other.state == "done", "others go on"
    waiting = world.runtime.spawn(
        world.ask(Broadcast(key="k3", targets=["b"], payload=b"", resources=["r"])), "waiting"
    )
    await world.sleep(5)
    assert not waiting.done(), "those that share a resource would overtake it"
    assert [b.key for b in (await world.ask(ListBroadcasts())).broadcasts] == ["k"]
    again = await world.ask(ResumeBroadcast(key="k"))
    assert again.state == "parked"
    world.nodes["n1"].before = lambda _: None
    done = await world.ask(ResumeBroadcast(key="k"))
    assert done.state == "done" and sorted(done.positions) == NAMES
    assert (await waiting).state == "done"
    with pytest.raises(Refused, match="is done, not parked"):
        await world.ask(ResumeBroadcast(key="k"))
    await world.stop()


@on_virtual_time
async def test_a_parked_broadcast_may_be_skipped_also_by_the_next_coordinator() -> None:
    world = await running()
    world.nodes["n1"].before = refusing("b", Class.INVALID)
    await world.ask(Broadcast(key="k", targets=NAMES, payload=b"x", resources=["r"]))
    await world.coordinator("c2")
    await world.coordinators.pop("c1").stop()
    await world.until(lambda: world.coordinators["c2"].is_leader)
    await world.sleep(2)
    done = await world.ask(ResumeBroadcast(key="k", skip=True))
    assert done.state == "done" and list(done.skipped) == ["b"]
    assert (await counters(world)).unfinished == ()
    await world.stop()


@on_virtual_time
async def test_the_next_coordinator_finishes_what_was_begun_and_keeps_its_locks() -> None:
    world = await running()
    world.nodes["n1"].before = refusing("b", Class.UNKNOWN)
    first = world.runtime.spawn(
        world.ask(Broadcast(key="k", targets=NAMES, payload=b"1", resources=["r"])), "first"
    )
    await world.sleep(2)
    await world.kill_coordinator("c1")
    await asyncio.gather(first, return_exceptions=True)
    second = await world.coordinator("c2")
    await world.until(lambda: second.is_leader)
    await world.sleep(2)
    later = world.runtime.spawn(
        world.ask(Broadcast(key="k2", targets=NAMES, payload=b"2", resources=["r"])), "later"
    )
    await world.sleep(5)
    assert {number for _, number in appended(world)} == {1}
    world.nodes["n1"].before = lambda _: None
    info: BroadcastInfo = await later
    assert info.state == "done" and info.id == 2
    assert (await world.ask(GetBroadcast(key="k"))).state == "done"
    for name in NAMES:
        assert [number for channel, number in appended(world) if channel == name] == [1, 2]
    await world.stop()


@on_virtual_time
async def test_an_id_without_a_record_gets_a_tombstone_and_its_key_begins_anew() -> None:
    world = await running()
    world.faults.script("put", Fault.DROPPED, key="stream/b/", times=10_000)
    first = world.runtime.spawn(world.ask(Broadcast(key="k", targets=NAMES, payload=b"1")), "first")
    await world.sleep(2)
    await world.kill_coordinator("c1")
    await asyncio.gather(first, return_exceptions=True)
    world.faults.calm()
    second = await world.coordinator("c2")
    await world.until(lambda: second.is_leader)
    await world.sleep(2)
    record = (await world.records.load(keys.broadcast(1))).record
    assert record is not None and record.state is BroadcastState.DONE
    with pytest.raises(Refused, match="no broadcast 'k'"):
        await world.ask(GetBroadcast(key="k"))
    info = await world.ask(Broadcast(key="k", targets=NAMES, payload=b"1"))
    assert info.id == 2 and len(appended(world)) == 3
    await world.stop()


@on_virtual_time
async def test_an_older_coordinator_takes_no_id_any_more() -> None:
    world = await running()
    seen = await world.records.load(COUNTERS)
    assert seen.record is not None
    newer = replace(seen.record, epoch=9)
    await world.records.put(COUNTERS, newer, expect=seen.version)
    with pytest.raises(Refused):
        await world.ask(Broadcast(key="k", targets=NAMES, payload=b"1"))
    assert (await counters(world)) == newer
    await world.stop()


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.3, 0.5, 0.8])
@on_virtual_time
async def test_a_coordinator_that_steps_down_leaves_nobody_waiting_and_nothing_running(
    after_s: float,
) -> None:
    world = await running()
    world.faults.max_delay_ms = 100
    request = Broadcast(key="k", targets=NAMES, payload=b"x")
    asked = world.runtime.spawn(world.ask(request), "asked")
    await world.sleep(after_s)
    await world.coordinators["c1"].stop()
    async with asyncio.timeout(5):
        await asyncio.gather(asked, return_exceptions=True)
    await world.stop()
