"""The fixture for users: what their code meets in it, and that it finds what is wrong with their code."""

from __future__ import annotations

import asyncio

import pytest

import woodpecker as wp
from woodpecker.testing.pytest_plugin import Simulator
from woodpecker.testing.sim.user import ScenarioFailed, Simulation, simulate
from woodpecker.testing.virtual import Hang


async def written(sim: Simulation, count: int) -> None:
    async with sim.client() as client:
        log = await client.create_log("orders")
        async with await log.open_writer() as writer:
            for number in range(count):
                await writer.append(b"%d" % number)


def test_a_scenario_runs_under_every_seed_and_time_costs_nothing(
    woodpecker_sim: Simulator,
) -> None:
    seeds = []

    async def scenario(sim: Simulation) -> None:
        seeds.append(sim.seed)
        await written(sim, 3)
        await sim.sleep(86_400)
        assert sim.now_s >= 86_400
        async with sim.process("reader").client() as client:
            log = await client.open_log("orders")
            assert [entry.payload async for entry in log.read()] == [b"0", b"1", b"2"]

    woodpecker_sim(scenario, seeds=3)
    assert seeds == [0, 1, 2]


def test_a_seed_always_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(sim: Simulation) -> None:
        await written(sim, 5)
        process = sim.process("other", fault_rate=0.5)
        async with process.client() as client:
            log = await client.open_log("orders")
            await asyncio.gather(log.tail(), log.describe(), return_exceptions=True)
        await sim.sleep(sim.random.random())

    traces = []
    for _ in range(2):
        lines: list[str] = []
        simulate(scenario, 7, write=lines.append)
        traces.append(lines)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 20


def test_a_killed_process_runs_nothing_more_and_a_stopped_one_goes_on() -> None:
    steps: list[str] = []

    async def work(name: str) -> None:
        try:
            for _ in range(10):
                await asyncio.sleep(1)
                steps.append(name)
        finally:
            steps.append(f"{name} cleans up")

    async def scenario(sim: Simulation) -> None:
        dead, sleeper = sim.process("dead"), sim.process("sleeper")
        dead.start(work("dead"))
        task = sleeper.start(work("sleeper"))
        await sim.sleep(2.5)
        dead.kill()
        sleeper.stop()
        await sim.sleep(1_000)
        assert not task.done()
        sleeper.wake()
        await task
        assert "dead cleans up" not in steps

    simulate(scenario, 0)
    assert steps.count("dead") == 2
    assert steps.count("sleeper") == 10
    assert "sleeper cleans up" in steps


def test_a_writer_that_slept_through_a_take_over_is_fenced() -> None:
    async def scenario(sim: Simulation) -> None:
        await written(sim, 1)
        old = sim.process("writer")
        opened = asyncio.Event()

        async def write() -> None:
            async with old.client() as client:
                writer = await (await client.open_log("orders")).open_writer()
                await writer.append(b"mine")
                opened.set()
                await asyncio.sleep(1)
                with pytest.raises(wp.Fenced):
                    await writer.append(b"too late")

        task = old.start(write())
        await opened.wait()
        old.stop()
        async with sim.process("writer").client() as client:
            writer = await (await client.open_log("orders")).open_writer()
            assert await writer.append(b"ours") == 2
            await writer.close()
        await sim.sleep(600)
        old.wake()
        await task

    simulate(scenario, 0, fault_rate=0.0)


def test_what_a_process_raises_and_nobody_awaits_fails_the_scenario() -> None:
    async def broken() -> None:
        raise KeyError("a bug")

    async def scenario(sim: Simulation) -> None:
        sim.process("worker").start(broken())
        await sim.sleep(1)

    with pytest.raises(ScenarioFailed, match=r"seed 4.*KeyError") as failed:
        simulate(scenario, 4)
    assert isinstance(failed.value.__cause__, KeyError)


def test_a_wait_for_ever_fails_at_once() -> None:
    async def scenario(sim: Simulation) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ScenarioFailed) as failed:
        simulate(scenario, 0)
    assert isinstance(failed.value.__cause__, Hang)


def test_a_failing_seed_says_how_to_run_it_again(woodpecker_sim: Simulator) -> None:
    async def scenario(sim: Simulation) -> None:
        assert sim.seed != 2, "seed two is bad"

    with pytest.raises(ScenarioFailed) as failed:
        woodpecker_sim(scenario, seeds=5)
    (note,) = failed.value.__notes__
    assert "--woodpecker-seed 2" in note


def test_faults_befall_processes_until_they_are_healed() -> None:
    async def scenario(sim: Simulation) -> None:
        await written(sim, 1)
        async with sim.process("bad", fault_rate=0.0).client(background=False) as client:
            log = await client.open_log("orders")
            assert await log.tail() == 1
        errors = 0
        process = sim.process("bad", fault_rate=0.9)
        client = process.client(background=False)
        for _ in range(20):
            try:
                await client.open()
                await (await client.open_log("orders")).tail()
            except (wp.Unavailable, wp.OutcomeUnknown):
                errors += 1
        assert errors
        sim.heal()
        await client.open()
        assert await (await client.open_log("orders")).tail() == 1
        await client.close()

    simulate(scenario, 1)
