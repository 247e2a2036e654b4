"""Keepers, sessions and directory on real nodes with simulated disks and network, in virtual time."""

from __future__ import annotations

from tests.unit.logstore.fleet_kit import Fleet, Load, a_fleet, create, members, payloads, states

from woodpecker.client.deletion import delete_log
from woodpecker.client.log import Log
from woodpecker.client.sealing import write_sealed
from woodpecker.core.ids import State
from woodpecker.core.keeping import ABSENT_MS
from woodpecker.core.membership import NodeState
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

SEALED, OPEN = State.SEALED, State.OPEN


def unsealed(fleet: Fleet, *nodes: str) -> list[int]:
    return [fleet.node(node).unsealed().segments for node in nodes]


@on_virtual_time
async def test_what_is_closed_is_sealed_within_seconds_and_let_go() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env, segment_max_blocks=1)
        async with await log.open_writer() as writer:
            for number in range(5):
                await writer.append(b"%d" % number)
        await fleet.settle(3_000)
        assert await states(env) == [SEALED] * 5
        assert unsealed(fleet, "n1", "n2", "n3") == [0, 0, 0]
        assert await payloads(log) == [b"0", b"1", b"2", b"3", b"4"]
        await log.verify()


@on_virtual_time
async def test_a_drain_under_load_fails_no_append_and_is_truthful() -> None:
    async with a_fleet("n1", "n2", "n3", "n4") as fleet:
        env = fleet.client()
        busy, idle = await create(env, "busy"), await create(env, "idle")
        load = Load(fleet, await busy.open_writer())
        sleeper = await idle.open_writer()
        await sleeper.append(b"one")
        await fleet.settle(5_000)
        drained = min(members(await env.catalog.read("idle")))
        await fleet.records.drain(drained)
        took_ms = await fleet.until_state(drained, NodeState.DRAINED)
        assert took_ms < 90_000
        for name in ("busy", "idle"):
            manifest = await env.catalog.read(name)
            assert manifest.open_segment is None or drained not in members(manifest)
        assert unsealed(fleet, drained) == [0]
        await fleet.stop(drained)  # for ever: nothing may be missing
        await fleet.settle(10_000)
        assert await sleeper.append(b"two") == 1
        await load.end()
        assert await payloads(busy) == [b"%d" % number for number in range(load.count)]
        assert await payloads(idle) == [b"one", b"two"]
        await busy.verify()
        await sleeper.close()


@on_virtual_time
async def test_of_three_one_drains_the_others_go_on_with_two_of_two_and_back() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env)
        writer = await log.open_writer()
        load = Load(fleet, writer)
        await fleet.settle(2_000)
        await fleet.records.drain("n2")
        await fleet.until_state("n2", NodeState.DRAINED)
        assert members(await env.catalog.read("orders")) == {"n1", "n3"}
        await fleet.records.cancel_drain("n2")
        await fleet.settle(90_000)
        assert members(await env.catalog.read("orders")) == {"n1", "n2", "n3"}
        await load.end()
        await writer.close()
        assert await payloads(log) == [b"%d" % number for number in range(load.count)]


@on_virtual_time
async def test_a_drained_node_takes_no_block_of_a_new_segment() -> None:
    """A client may not have heard yet: its view of the nodes may be old."""
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env)
        manifest = await env.catalog.read("orders")
        client = fleet.processes["client"]
        await client.directory.choose(manifest)
        await fleet.records.drain("n1")
        await fleet.until_state("n1", NodeState.DRAINED)
        client.metadata.script("list", Fault.UNAVAILABLE, times=1000)  # the old view must do
        writer = await log.open_writer()
        await writer.append(b"x")
        assert fleet.node("n1").writing.refused > 0
        await fleet.settle(5_000)
        assert unsealed(fleet, "n1") == [0]
        assert (await fleet.record("n1")).state is NodeState.DRAINED
        client.metadata.calm()
        await writer.close()


@on_virtual_time
async def test_a_writer_that_is_gone_holds_up_a_drain_for_minutes_not_for_ever() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client("gone")
        log = await create(env)
        await (await log.open_writer()).append(b"last words")
        fleet.cut_off("gone")
        await fleet.records.drain("n3")
        await fleet.settle(ABSENT_MS - 60_000)
        assert (await fleet.record("n3")).state is NodeState.DRAINING
        await fleet.until_state("n3", NodeState.DRAINED, 600_000)
        other = fleet.client("other")
        assert await states(other) == [SEALED]
        assert await payloads(Log(other, "orders", log.log_id)) == [b"last words"]


@on_virtual_time
async def test_a_living_idle_writer_moves_by_itself_long_before_a_node_would_close_for_it() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env)
        writer = await log.open_writer()
        await writer.append(b"one")
        await fleet.settle(2 * ABSENT_MS)  # idle is no reason
        epoch = (await env.catalog.read("orders")).epoch
        await fleet.records.drain("n3")
        assert await fleet.until_state("n3", NodeState.DRAINED) < ABSENT_MS / 5
        assert await writer.append(b"two") == 1
        assert (await env.catalog.read("orders")).epoch == epoch
        await writer.close()


@on_virtual_time
async def test_a_node_that_returns_with_an_empty_disk_is_a_new_member() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env)
        writer = await log.open_writer()
        load = Load(fleet, writer)
        await fleet.settle(2_000)
        before = (await fleet.record("n1")).incarnation
        await fleet.stop("n1")
        fleet.disks["n1"].wipe()
        await fleet.start("n1")
        record = await fleet.record("n1")
        assert record.incarnation != before
        assert record.boot == 2
        await fleet.settle(90_000)
        manifest = await env.catalog.read("orders")
        assert members(manifest) == {"n1", "n2", "n3"}
        assert manifest.open_segment is not None and manifest.open_segment.ensemble is not None
        assert record.incarnation in {
            member.incarnation for member in manifest.open_segment.ensemble.members
        }
        await load.end()
        await writer.close()
        assert await payloads(log) == [b"%d" % number for number in range(load.count)]


@on_virtual_time
async def test_what_only_its_object_holds_is_read_before_anybody_has_sealed_it() -> None:
    """A take-over has it written where too few nodes can hold the blocks; then these may go."""
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        for node in ("n1", "n2", "n3"):
            fleet.processes[node].objects.is_away = True  # nobody seals
        log = await create(env)
        async with await log.open_writer() as writer:
            await writer.append(b"one")
        manifest = await env.catalog.read("orders")
        await write_sealed(env, manifest, manifest.segments[-1])
        for node in ("n1", "n2", "n3"):
            await fleet.stop(node)
            del fleet.disks[node]
            await fleet.start(node)
        assert await states(env) == [State.CLOSED]
        assert await payloads(log) == [b"one"]


@on_virtual_time
async def test_a_rolling_restart_fails_no_append() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env)
        writer = await log.open_writer()
        load = Load(fleet, writer)
        for node in ("n1", "n2", "n3"):
            await fleet.settle(5_000)
            await fleet.stop(node)
            await fleet.settle(1_000)
            await fleet.start(node)
        await fleet.settle(5_000)
        await load.end()
        await writer.close()
        assert load.count > 100
        assert await payloads(log) == [b"%d" % number for number in range(load.count)]
        assert {(await fleet.record(node)).boot for node in ("n1", "n2", "n3")} == {2}


@on_virtual_time
async def test_a_deleted_log_leaves_nothing_on_the_nodes() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env)
        writer = await log.open_writer()
        await writer.append(b"x")
        await delete_log(fleet.client("other"), "orders")
        await fleet.settle(5_000)
        assert unsealed(fleet, "n1", "n2", "n3") == [0, 0, 0]
        assert [fleet.node(node).held_logs() for node in ("n1", "n2", "n3")] == [[]] * 3


@on_virtual_time
async def test_outages_of_both_stores_are_outlasted() -> None:
    async with a_fleet("n1", "n2", "n3") as fleet:
        env = fleet.client()
        log = await create(env, segment_max_blocks=20)
        writer = await log.open_writer()
        load = Load(fleet, writer)
        await fleet.settle(1_000)
        for process in fleet.processes.values():
            process.objects.is_away = True
        await fleet.settle(20_000)
        for process in fleet.processes.values():
            process.metadata.is_away = True
        await fleet.settle(20_000)
        for process in fleet.processes.values():
            process.metadata.calm()
            process.objects.calm()
        await load.end()
        await writer.close()
        await fleet.settle(400_000)
        assert set(await states(env)) == {SEALED}
        assert unsealed(fleet, "n1", "n2", "n3") == [0, 0, 0]
        assert not [process.lost for process in fleet.processes.values() if process.lost]
        assert await payloads(log) == [b"%d" % number for number in range(load.count)]
