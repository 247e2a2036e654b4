"""The example of docs/testing.md: a consumer that commits too early loses work, and the fixture finds it."""

from __future__ import annotations

import asyncio

import pytest

from woodpecker.testing.pytest_plugin import Simulator
from woodpecker.testing.sim.user import ScenarioFailed, SimulatedProcess, Simulation

ORDERS = [b"order %d" % number for number in range(20)]


async def ship_all(process: SimulatedProcess, shipped: list[bytes], *, is_naive: bool) -> None:
    async with process.client() as client:
        log = await client.open_log("orders")
        cursor = await log.cursor("shipping")
        async for entry in log.read(cursor):
            if is_naive:
                await cursor.commit(entry.seq + 1)
            await asyncio.sleep(0.01)
            shipped.append(bytes(entry.payload))
            if not is_naive:
                await cursor.commit(entry.seq + 1)


async def ship_with_a_crash(sim: Simulation, *, is_naive: bool) -> None:
    async with sim.client() as client:
        log = await client.create_log("orders")
        async with await log.open_writer() as writer:
            await writer.append_many(ORDERS)
    shipped: list[bytes] = []
    first, second = sim.process("first", fault_rate=0.0), sim.process("second", fault_rate=0.0)
    first.start(ship_all(first, shipped, is_naive=is_naive))
    await sim.sleep(0.3 * sim.random.random())
    first.kill()
    await second.start(ship_all(second, shipped, is_naive=is_naive))
    assert set(shipped) == set(ORDERS)


def test_a_consumer_that_commits_first_is_found_out(woodpecker_sim: Simulator) -> None:
    async def scenario(sim: Simulation) -> None:
        await ship_with_a_crash(sim, is_naive=True)

    with pytest.raises(ScenarioFailed, match="seed"):
        woodpecker_sim(scenario, seeds=20)


def test_a_consumer_that_commits_afterwards_loses_nothing(woodpecker_sim: Simulator) -> None:
    async def scenario(sim: Simulation) -> None:
        await ship_with_a_crash(sim, is_naive=False)

    woodpecker_sim(scenario, seeds=20)
