"""Pchannels come to nodes, and stay with them, whatever befalls nodes, coordinators and the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tests.unit.streaming.coordinator.kit import World, owner_of

from woodpecker.streaming.core.records import Assignment
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.requests import AddPchannels, Assign, Drain, Freeze, Move
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time


async def running(*nodes: str, pchannels: int = 4, expected: int = 0) -> World:
    count = expected or len(nodes)
    world = World(replace(DEFAULTS, pchannels=pchannels, expected_nodes=count))
    await world.coordinator()
    for name in nodes:
        await world.node(name)
    await world.until(world.all_assigned)
    return world


def spread(world: World) -> Counter[str]:
    return Counter({name: len(node.serving) for name, node in world.nodes.items()})


@on_virtual_time
async def test_a_first_start_makes_pchannels_and_spreads_them() -> None:
    world = await running("n1", "n2", "n3", pchannels=6)
    assert spread(world) == {"n1": 2, "n2": 2, "n3": 2}
    assert sorted(world.made_logs) == [f"stream.p{n}" for n in range(6)]
    assert {record.term for record in (await world.pchannels()).values()} == {1}
    await world.stop()


@on_virtual_time
async def test_one_expected_node_is_not_kept_waiting() -> None:
    world = World(replace(DEFAULTS, pchannels=4, expected_nodes=1))
    await world.coordinator()
    await world.node("n1")
    assert await world.until(world.all_assigned) < 2.5
    await world.stop()


@on_virtual_time
async def test_a_killed_node_is_followed_within_ttl() -> None:
    world = await running("n1", "n2", "n3")
    await world.nodes["n1"].kill()
    del world.nodes["n1"]
    assert await world.until(world.all_assigned) < 15
    await world.stop()


@on_virtual_time
async def test_what_a_dead_node_had_is_shared_out() -> None:
    """All of it went to one: on its way, a pchannel with much traffic counted as one without any."""
    world = World(replace(DEFAULTS, pchannels=12, expected_nodes=3))
    await world.coordinator()
    for name, bytes_s in (("n1", 100_000.0), ("n2", 60_000.0), ("n3", 100_000.0)):
        node = await world.node(name)
        node.loads = {f"p{n}": (bytes_s, 0) for n in range(12)}
    await world.until(world.all_assigned)
    assert spread(world) == {"n1": 4, "n2": 4, "n3": 4}
    await world.sleep(2)
    await world.nodes.pop("n1").kill()
    await world.until(world.all_assigned)
    assert spread(world) == {"n2": 7, "n3": 5}
    await world.stop()


@on_virtual_time
async def test_a_killed_node_that_returns_serves_again_at_once() -> None:
    world = await running("n1")
    await world.nodes["n1"].kill()
    await world.node("n1")
    assert await world.until(world.all_assigned) < 5
    assert {record.term for record in (await world.pchannels()).values()} == {2}
    await world.stop()


@on_virtual_time
async def test_a_node_that_says_goodbye_is_followed_at_once() -> None:
    world = await running("n1", "n2")
    await world.nodes.pop("n1").stop()
    assert await world.until(world.all_assigned) < 3
    await world.stop()


@on_virtual_time
async def test_a_node_cut_off_from_metadata_keeps_its_channels() -> None:
    world = await running("n1", "n2")
    before = await world.pchannels()
    for name in ("n1", "n2"):
        await world.nodes[name].session.abandon()
    await world.sleep(60)
    assert await world.pchannels() == before
    await world.stop()


@on_virtual_time
async def test_an_outage_of_metadata_moves_nothing() -> None:
    world = await running("n1", "n2")
    before = await world.pchannels()
    world.faults.is_away = world.node_faults.is_away = True
    await world.sleep(60)
    with pytest.raises(Refused) as refused:
        await world.ask(Move(pchannel="p1"))
    assert refused.value.refusal.kind is Class.UNAVAILABLE
    world.faults.is_away = world.node_faults.is_away = False
    await world.sleep(30)
    assert await world.pchannels() == before
    await world.stop()


@on_virtual_time
async def test_a_new_coordinator_that_reads_the_nodes_late_moves_nothing() -> None:
    """It took every owner for gone, since it knew of no node yet."""
    world = await running("n1", "n2")
    before = await world.pchannels()
    world.faults.script("list", Fault.UNAVAILABLE, key="stream/node/", times=3)
    await world.kill_coordinator("c1")
    await world.coordinator("c2")
    await world.until(lambda: world.coordinators["c2"].office is not None)
    await world.sleep(20)
    assert await world.pchannels() == before
    await world.stop()


@on_virtual_time
async def test_an_owner_that_was_taken_for_gone_and_is_idle_is_released() -> None:
    world = await running("n1", "n2")
    node = world.nodes["n1"]
    held = dict(node.serving)
    await node.session.abandon()
    world.hold("n1")
    await world.until(lambda: len(world.nodes["n2"].serving) == 4)
    await world.sleep(5)
    assert node.serving == held, "nobody has told it, and nothing is written"
    world.release("n1")
    assert await world.until(lambda: not node.serving) < 10
    await world.stop()


@on_virtual_time
async def test_mass_loss_waits_and_asks_before_anything_moves() -> None:
    world = await running("n1", "n2", "n3", "n4")
    before = await world.pchannels()
    for name in ("n1", "n2", "n3"):  # nobody hears them, and they cannot beat
        await world.nodes[name].session.abandon()
        world.hold(name)
    await world.sleep(15)
    assert await world.pchannels() == before
    for name in ("n1", "n2", "n3"):
        world.release(name)
    await world.sleep(30)
    assert await world.pchannels() == before, "they answer: whatever their records say, they live"
    for name in ("n1", "n2", "n3"):
        await world.nodes.pop(name).kill()
    assert 12 < await world.until(world.all_assigned) < 45
    await world.stop()


@on_virtual_time
async def test_a_planned_move_releases_first_and_leaves_no_gap() -> None:
    world = await running("n1", "n2", pchannels=2)
    name = next(iter(world.nodes["n1"].serving))
    await world.ask(Move(pchannel=name, node="n2"))
    await world.until(lambda: name in world.nodes["n2"].serving)
    asked = [r for r in world.nodes["n2"].requests if isinstance(r, Assign) and r.pchannel == name]
    assert len(asked) == 1
    assert world.nodes["n1"].statuses[name].state == "closed"
    await world.until(world.all_assigned)
    assert (await world.pchannels())[name].former == ()
    await world.stop()


@on_virtual_time
async def test_a_former_owner_that_does_not_close_is_not_waited_for_for_ever() -> None:
    world = await running("n1", "n2", pchannels=2)
    name = next(iter(world.nodes["n1"].serving))
    world.nodes["n1"].close_ms = 100_000
    await world.ask(Move(pchannel=name, node="n2"))
    took = await world.until(lambda: name in world.nodes["n2"].serving)
    assert 5 <= took < 7
    await world.stop()


@on_virtual_time
async def test_a_drained_node_ends_empty_and_says_so() -> None:
    world = await running("n1", "n2", "n3", pchannels=24)
    info = await world.ask(Drain(node="n1"))
    assert info.draining and not info.safe_to_terminate and info.waits_for
    took = await world.until(lambda: not world.nodes["n1"].serving)
    await world.until(world.all_assigned)
    await world.sleep(2)
    info = await world.node_info("n1")
    assert info.safe_to_terminate and not info.pchannels and not info.waits_for and took < 10
    assert spread(world) == {"n1": 0, "n2": 12, "n3": 12}
    await world.ask(Drain(node="n1", draining=False))
    assert not (await world.node_info("n1")).safe_to_terminate
    await world.stop()


@on_virtual_time
async def test_a_drain_without_another_node_waits_and_says_for_whom() -> None:
    world = await running("n1")
    await world.ask(Drain(node="n1"))
    await world.sleep(5)
    info = await world.node_info("n1")
    assert len(info.pchannels) == 4 and "another node" in info.waits_for
    assert not info.safe_to_terminate and len(world.nodes["n1"].serving) == 4
    await world.node("n2")
    await world.until(world.all_assigned)
    await world.until(lambda: not world.nodes["n1"].serving)
    await world.stop()


@on_virtual_time
async def test_a_frozen_node_gets_nothing() -> None:
    world = await running("n1", "n2", "n3")
    await world.ask(Freeze(node="n2"))
    before = world.nodes["n2"].serving
    await world.nodes.pop("n1").kill()
    await world.until(world.all_assigned)
    assert world.nodes["n2"].serving == before
    with pytest.raises(Refused, match=r"n2.*`woodpecker cluster status`"):
        await world.ask(Move(pchannel="p0", node="n2"))
    await world.stop()


@on_virtual_time
async def test_a_slow_opening_that_moves_is_never_ended() -> None:
    world = World(replace(DEFAULTS, pchannels=1, expected_nodes=2))
    await world.coordinator()
    for name in ("n1", "n2"):
        (await world.node(name)).open_ms = 900_000
    await world.until(world.all_assigned, 1_000)
    assert (await world.pchannels())["p0"].term == 1
    await world.stop()


@on_virtual_time
async def test_an_opening_that_stands_still_goes_elsewhere() -> None:
    world = World(replace(DEFAULTS, pchannels=1, expected_nodes=2))
    await world.coordinator()
    for name in ("n1", "n2"):
        await world.node(name)
    world.nodes["n1"].open_ms, world.nodes["n1"].moves = 1e9, False
    assert 120 < await world.until(world.all_assigned, 200) < 140
    assert owner_of((await world.pchannels())["p0"]).node == "n2"
    assert "stands still" in (await world.state()).pchannels[0].reason
    await world.stop()


@on_virtual_time
async def test_failed_openings_go_round_then_pause_and_say_why() -> None:
    world = World(replace(DEFAULTS, pchannels=1, expected_nodes=2))
    await world.coordinator()
    for name in ("n1", "n2"):
        (await world.node(name)).fails = lambda _p, _t: "disk on fire"
    await world.sleep(300)
    record, info = (await world.pchannels())["p0"], (await world.state()).pchannels[0]
    assert 6 <= record.term <= 14, "two at once, then ever longer pauses up to a minute"
    assert info.reason == "disk on fire" and "pause" in info.waits_for
    assert {owner for n in world.nodes for owner in [n] if world.nodes[n].requests} == {"n1", "n2"}
    for node in world.nodes.values():
        node.fails = lambda _p, _t: ""
    await world.until(world.all_assigned, 70)
    await world.sleep(65)
    assert (await world.state()).pchannels[0].reason == ""
    await world.stop()


@on_virtual_time
async def test_without_a_fit_node_a_pchannel_is_unassigned_until_one_comes() -> None:
    world = await running("n1")
    await world.nodes.pop("n1").kill()
    await world.sleep(20)
    records = (await world.pchannels()).values()
    assert {record.state for record in records} == {Assignment.UNASSIGNED}
    await world.node("n2")
    await world.until(world.all_assigned)
    await world.stop()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.UNAVAILABLE, Fault.LATE])
@on_virtual_time
async def test_lost_and_late_answers_of_the_store(fault: Fault) -> None:
    world = World(replace(DEFAULTS, pchannels=4, expected_nodes=2))
    world.faults.script("put", fault, times=6)
    await world.coordinator()
    for name in ("n1", "n2"):
        await world.node(name)
    await world.until(world.all_assigned)
    world.faults.script("put", fault, key="stream/p/", times=3)
    await world.nodes.pop("n1").kill()
    await world.until(world.all_assigned)
    await world.stop()


@on_virtual_time
async def test_a_node_without_answers_is_not_waited_for() -> None:
    world = World(replace(DEFAULTS, pchannels=2, expected_nodes=2))
    await world.coordinator()
    for name in ("n1", "n2"):
        await world.node(name)

    def mute(request: object) -> None:
        raise Refused(Refusal(kind=Class.UNKNOWN, message="lost"))

    world.nodes["n1"].before = mute
    await world.until(world.all_assigned, 140)
    assert len(world.nodes["n2"].serving) == 2
    await world.stop()


@on_virtual_time
async def test_a_node_whose_clock_is_off_gets_nothing() -> None:
    world = World(replace(DEFAULTS, pchannels=2, expected_nodes=1))
    await world.coordinator()
    (await world.node("n1")).clock_off_us = 600_000_000
    await world.sleep(20)
    assert not world.nodes["n1"].serving
    await world.node("n2")
    await world.until(world.all_assigned)
    assert len(world.nodes["n2"].serving) == 2
    await world.stop()


@on_virtual_time
async def test_pchannels_are_added_while_all_goes_on() -> None:
    world = await running("n1", "n2")
    await world.ask(AddPchannels(count=2))
    world.settings = replace(world.settings, pchannels=6)
    await world.until(world.all_assigned)
    assert sorted(await world.pchannels()) == [f"p{n}" for n in range(6)]
    with pytest.raises(Refused, match="4096"):
        await world.ask(AddPchannels(count=5000))
    await world.stop()


@on_virtual_time
async def test_hot_pchannels_are_spread_in_the_long_run_few_at_a_time() -> None:
    world = await running("n1", "n2", pchannels=8)
    for name, node in world.nodes.items():
        for pchannel, status in list(node.statuses.items()):
            bytes_s = 1e6 if name == "n1" else 1e3
            node.loads[pchannel] = (bytes_s, 0)
            node.set(replace(status, bytes_s=bytes_s))
    await world.sleep(299)
    assert spread(world) == {"n1": 4, "n2": 4}
    await world.sleep(20)
    assert spread(world) == {"n1": 2, "n2": 6}
    await world.stop()


@on_virtual_time
async def test_a_write_that_lands_late_is_not_overlooked() -> None:
    """It was read again too early, and the wish had gone: nobody told the new owner."""
    world = await running("n1", "n2", pchannels=1)
    (owner,) = [name for name, node in world.nodes.items() if node.serving]
    (other,) = [name for name in world.nodes if name != owner]
    office = world.coordinators["c1"].office
    assert office is not None
    world.faults.max_delay_ms = 50
    world.faults.script("put", Fault.LATE, key="stream/p/")
    await world.ask(Move(pchannel="p0", node=other))
    await world.until(lambda: "write p0" in office.assigner._jobs)
    office.assigner._wishes.clear()  # what it was written for is over
    await world.sleep(10)
    assert await world.all_assigned() and (await world.pchannels())["p0"].term == 2
    await world.stop()


@on_virtual_time
async def test_what_was_decided_before_an_outage_is_not_done_after_it() -> None:
    world = await running("n1", "n2", pchannels=2)
    name = next(iter(world.nodes["n1"].serving))
    world.faults.is_away = True  # nothing is decided
    await world.ask(Move(pchannel=name, node="n2"))
    await world.sleep(8)
    await world.nodes["n2"].kill()
    await world.sleep(5)
    world.faults.is_away = False
    await world.sleep(30)
    await world.node("n2")
    await world.sleep(10)
    assert name in world.nodes["n1"].serving and await world.all_assigned()
    assert (await world.pchannels())[name].term == 1
    await world.stop()


@on_virtual_time
async def test_while_a_write_is_in_doubt_nothing_else_is_decided_however_long() -> None:
    world = await running("n1", "n2", pchannels=1)
    (owner,) = [name for name, node in world.nodes.items() if node.serving]
    (other,) = [name for name in world.nodes if name != owner]
    world.faults.script("put", Fault.DROPPED, key="stream/p/", times=1_000_000)
    await world.ask(Move(pchannel="p0", node=other))
    await world.sleep(75)
    office = world.coordinators["c1"].office
    assert office is not None and "write p0" in office.assigner._jobs
    assert (await world.pchannels())["p0"].term == 1 and world.nodes[owner].serving
    world.faults.calm()
    await world.until(lambda: world.nodes[other].serving.get("p0") == 2)
    await world.stop()
