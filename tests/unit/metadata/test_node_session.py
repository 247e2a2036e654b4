"""Sessions of nodes in virtual time: boot numbers, beats, drains, outages, namesakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.metadata.nodes_kit import Cell

from woodpecker.codec import keys
from woodpecker.core.membership import DEAD_AFTER_MS, Load, NodeRecord, NodeState
from woodpecker.errors import Conflict, InvalidRequest, NotFound, OutcomeUnknown, Unavailable
from woodpecker.metadata.node_session import BEAT_MS
from woodpecker.testing.faulty import Fault, Faults
from woodpecker.testing.virtual import on_virtual_time

SAFE = Load(is_safe=True)
KEY = keys.node("n1")


@asynccontextmanager
async def a_cell(seed: int = 0) -> AsyncIterator[Cell]:
    cell = Cell(seed)
    try:
        yield cell
    finally:
        await cell.close()


async def record_of(cell: Cell, node: str = "n1") -> NodeRecord:
    stored = await cell.records.load(node)
    assert stored is not None
    return stored.record


# --- registering -------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_new_node_finds_no_boot_number_and_registers_as_active() -> None:
    async with a_cell() as cell:
        process = cell.process()
        assert await process.session.look(0) == 0
        state = await process.session.register(
            boot=1, incarnation="i", past=("p",), address="h:1", http="h:2", zone="z", group="g"
        )
        assert state is NodeState.ACTIVE
        assert process.states == [NodeState.ACTIVE]
        record = await record_of(cell)
        assert (record.boot, record.incarnation, record.past) == (1, "i", ("p",))
        assert (record.address, record.http, record.zone, record.group) == ("h:1", "h:2", "z", "g")
        assert (record.is_up, record.beat) == (True, 1)


@on_virtual_time
async def test_the_boot_number_of_the_last_start_is_returned() -> None:
    async with a_cell() as cell:
        await (await cell.node(boot=7)).session.stop()
        assert await cell.process().session.look(7) == 7
        assert await cell.process().session.look(3) == 7  # an older disk: the node can tell


@on_virtual_time
async def test_a_crashed_process_is_followed_at_once() -> None:
    async with a_cell() as cell:
        crashed = cell.process()
        await crashed.session.register(boot=1, incarnation="i", address="h:1")
        before_ms = cell.runtime.monotonic_ms()
        again = cell.process()
        assert await again.session.look(1) == 1
        await again.session.register(boot=2, incarnation="i", address="h:1")
        assert cell.runtime.monotonic_ms() == before_ms


@on_virtual_time
async def test_a_living_namesake_is_found_out() -> None:
    async with a_cell() as cell:
        await cell.node(address="here:1")
        with pytest.raises(Conflict, match=r"node name 'n1' is in use.*here:1"):
            await cell.process().session.look(0)


@on_virtual_time
async def test_a_dead_namesake_is_not_in_the_way_of_an_empty_disk() -> None:
    async with a_cell() as cell:
        dead = cell.process()
        await dead.session.register(boot=5, incarnation="i", address="h:1")
        assert await cell.process().session.look(0) == 5


@on_virtual_time
async def test_a_process_that_is_followed_stops_and_says_why() -> None:
    async with a_cell() as cell:
        old = await cell.node(boot=1)
        new = await cell.node(boot=2, address="there:1")
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        (why,) = old.lost
        assert "another process runs as this node: boot 2 at there:1, this one is boot 1" in why
        assert not new.lost
        await old.session.stop()  # its goodbye must not touch the other's record
        record = await record_of(cell)
        assert (record.boot, record.is_up) == (2, True)


@on_virtual_time
async def test_of_two_starts_at_once_one_goes_on() -> None:
    async with a_cell() as cell:
        first, second = cell.process(), cell.process()
        done = await asyncio.gather(
            *(
                process.session.register(boot=3, incarnation="i", address="h:1")
                for process in (first, second)
            ),
            return_exceptions=True,
        )
        assert {type(result) for result in done} == {NodeState, Conflict}


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.LATE, Fault.UNAVAILABLE])
@on_virtual_time
async def test_registering_decides_by_effect(fault: Fault) -> None:
    async with a_cell() as cell:
        faults = Faults(cell.runtime)
        faults.script("put", fault, key=KEY)
        await cell.node(boot=1, faults=faults)
        await cell.runtime.sleep_ms(5 * BEAT_MS)
        process = cell.processes[-1]
        assert not process.lost
        assert (await record_of(cell)).beat >= 3


@on_virtual_time
async def test_a_node_that_cannot_register_says_so_after_a_while() -> None:
    async with a_cell() as cell:
        faults = Faults(cell.runtime, is_away=True)
        with pytest.raises(Unavailable):
            await cell.node(faults=faults)
        faults = Faults(cell.runtime)
        faults.script("put", Fault.DROPPED, times=1000)
        with pytest.raises(OutcomeUnknown):
            await cell.node(faults=faults)


# --- beating -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_beats_carry_the_load() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        process.load = Load(pressure=1, unsealed_bytes=5, unsealed_segments=2)
        await cell.runtime.sleep_ms(20 * BEAT_MS)
        record = await record_of(cell)
        assert record.load == process.load
        assert 15 <= record.beat <= 27
        assert process.session.beat_age_ms <= 1.5 * BEAT_MS


@pytest.mark.parametrize("seed", range(5))
@on_virtual_time
async def test_beats_go_on_through_every_kind_of_trouble(seed: int) -> None:
    async with a_cell(seed) as cell:
        faults = Faults(cell.runtime, seed=seed, max_delay_ms=300.0)
        process = await cell.node(faults=faults)
        faults.rate = 0.5
        await cell.runtime.sleep_ms(60_000)
        faults.is_away = True
        await cell.runtime.sleep_ms(600_000)
        assert process.session.beat_age_ms >= 600_000
        faults.calm()
        await cell.runtime.sleep_ms(3 * BEAT_MS)
        assert not process.lost
        assert process.session.beat_age_ms <= 2 * BEAT_MS
        assert (await record_of(cell)).load == process.load


@on_virtual_time
async def test_a_record_that_vanished_stops_the_node() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        stored = await cell.records.load("n1")
        assert stored is not None
        store = cell.records._store
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        stored = await cell.records.load("n1")
        assert stored is not None
        await store.remove(KEY, expect=stored.version)
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        (why,) = process.lost
        assert "its record vanished" in why


@on_virtual_time
async def test_a_stopped_node_says_goodbye_and_a_crashed_one_cannot() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        await process.session.stop()
        assert not (await record_of(cell)).is_up


@on_virtual_time
async def test_goodbye_is_said_over_an_administrators_write_and_not_waited_for_long() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        await cell.records.drain("n1")
        await process.session.stop()
        record = await record_of(cell)
        assert (record.is_up, record.state) == (False, NodeState.DRAINING)
        faults = Faults(cell.runtime)
        held = await cell.node("n2", faults=faults)
        faults.script("put", Fault.HELD)
        before_ms = cell.runtime.monotonic_ms()
        await held.session.stop()
        assert cell.runtime.monotonic_ms() - before_ms <= 3_000


# --- administrators ----------------------------------------------------------------------------------


@on_virtual_time
async def test_a_drain_reaches_the_node_and_ends_when_it_is_safe() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        process.load = Load(unsealed_segments=2)
        assert (await cell.records.drain("n1")).state is NodeState.DRAINING
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        assert process.states == [NodeState.ACTIVE, NodeState.DRAINING]
        assert (await record_of(cell)).state is NodeState.DRAINING
        process.load = SAFE
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        assert process.states[-1] is NodeState.DRAINED
        assert (await cell.records.drain("n1")).state is NodeState.DRAINED  # nothing left to do
        process.load = Load(unsealed_segments=1)  # a repair came in, say
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        assert (await record_of(cell)).state is NodeState.DRAINING


@pytest.mark.parametrize("load", [SAFE, Load(unsealed_segments=1)])
@on_virtual_time
async def test_a_drain_can_be_cancelled_at_any_time(load: Load) -> None:
    async with a_cell() as cell:
        process = await cell.node()
        process.load = load
        await cell.records.drain("n1")
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        assert (await cell.records.cancel_drain("n1")).state is NodeState.ACTIVE
        await cell.runtime.sleep_ms(2 * BEAT_MS)
        assert process.states[-1] is NodeState.ACTIVE


@on_virtual_time
async def test_a_drain_outlasts_a_restart() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        await cell.records.drain("n1")
        await process.session.stop()
        again = cell.process()
        assert await again.session.register(boot=2, incarnation="i", address="h:1") is (
            NodeState.DRAINING
        )
        assert again.states == [NodeState.DRAINING]


@pytest.mark.parametrize("seed", range(5))
@on_virtual_time
async def test_administrators_win_against_beats_and_faults(seed: int) -> None:
    async with a_cell(seed) as cell:
        process = await cell.node(faults=Faults(cell.runtime, seed=seed, rate=0.3, max_delay_ms=50))
        cell.faults.rate, cell.faults.max_delay_ms = 0.3, 50.0
        for _ in range(20):
            await cell.records.drain("n1")
            await cell.records.cancel_drain("n1")
        await cell.records.drain("n1")
        cell.faults.calm()
        await cell.runtime.sleep_ms(10 * BEAT_MS)
        assert process.states[-1] is NodeState.DRAINING
        assert not process.lost


@on_virtual_time
async def test_a_node_is_forgotten_only_when_it_is_dead() -> None:
    async with a_cell() as cell:
        process = await cell.node()
        with pytest.raises(InvalidRequest, match="n1 lives at n1:7100"):
            await cell.records.forget("n1")
        await process.session.stop()
        assert (await cell.records.forget("n1")).state is NodeState.FORGOTTEN
        crashed = cell.process("n2")
        await crashed.session.register(boot=1, incarnation="i", address="h:1")
        before_ms = cell.runtime.monotonic_ms()
        await cell.records.forget("n2")
        assert cell.runtime.monotonic_ms() - before_ms >= DEAD_AFTER_MS
        with pytest.raises(InvalidRequest, match="n2 is forgotten"):
            await cell.records.drain("n2")
        with pytest.raises(NotFound, match="no LogStore node 'n3'"):
            await cell.records.drain("n3")


@on_virtual_time
async def test_a_forgotten_node_keeps_its_boot_number_and_may_come_back() -> None:
    async with a_cell() as cell:
        await (await cell.node(boot=4)).session.stop()
        await cell.records.forget("n1")
        back = cell.process()
        assert await back.session.look(0) == 4
        assert (
            await back.session.register(boot=5, incarnation="new", address="h:1")
            is NodeState.ACTIVE
        )


@on_virtual_time
async def test_a_record_that_cannot_be_read_hides_no_other_node() -> None:
    async with a_cell() as cell:
        await cell.node("n1")
        await cell.node("n3")
        await cell.records._store.put(keys.node("n2"), b"damaged", expect=None)
        assert [stored.record.node for stored in await cell.records.all()] == ["n1", "n3"]
