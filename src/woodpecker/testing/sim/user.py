"""For tests of your own code: a simulated store, several of your processes, faults by seed, virtual time.

``simulate(scenario, seed)`` runs ``await scenario(sim)`` on a loop of its own. Hours pass in no time, a
hang is an error at once, and a seed always does the same. ``docs/testing.md`` has an example.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from woodpecker.client.client import Client
from woodpecker.testing.sim.loop import SimLoop, simulated_loop
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.weather import OBJECT_FAULTS, RECORD_FAULTS, Fault, Weather
from woodpecker.testing.sim.world import Machine, World

T = TypeVar("T")
TRACE_LINES = 60


class SimulatedProcess:
    """One of your processes: it can be killed and stopped at any time, and owns its clients."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def name(self) -> str:
        """As given to ``Simulation.process``, with a number."""
        return self._machine.name

    def client(self, *, background: bool = True) -> Client:
        """A client of the simulated store, as ``woodpecker.connect`` returns; use it as ``async with``."""
        return self._machine.client(background=background)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` in this process. Await the task to learn how it ended.

        An exception that nobody has awaited fails the scenario.
        """
        task = self._machine.process.start(work, "main")
        self._tasks.append(task)
        return task

    def kill(self) -> None:
        """As SIGKILL: nothing of it runs while the scenario lasts, not even ``finally``.

        Requests under way go on.
        """
        self._machine.world.inject(Fault.KILLED, self.name)
        self._machine.kill()

    def stop(self) -> None:
        """As SIGSTOP, until ``wake``."""
        self._machine.world.inject(Fault.STOPPED, self.name)
        self._machine.process.stop()

    def wake(self) -> None:
        """As SIGCONT."""
        self._machine.world.say("world", f"{self.name} wakes")
        self._machine.process.wake()

    def jump_clock(self, seconds: float) -> None:
        """Its wall clock jumps."""
        self._machine.world.inject(Fault.CLOCK_JUMP, self.name, f"by {seconds} s")
        self._machine.runtime.clock_error_us += int(seconds * 1e6)

    def failures(self) -> list[BaseException]:
        """What its tasks ended with, as far as nobody has asked."""
        unasked: list[Any] = [task for task in self._tasks if task.done() and not task.cancelled()]
        found = [task.exception() for task in unasked if task._log_traceback]  # noqa: SLF001
        return [error for error in found if error is not None]


class Simulation:
    """The world of one scenario.

    Attributes:
        seed: of this run. random: draw all chance of the scenario from it, so that the seed decides.
    """

    def __init__(self, world: World, seed: int, fault_rate: float) -> None:
        self.seed = seed
        self.random = random.Random(f"{seed} scenario")
        self._world = world
        self._rate = fault_rate
        self._processes: list[SimulatedProcess] = []

    def process(self, name: str, *, fault_rate: float | None = None) -> SimulatedProcess:
        """A new process; its requests meet faults at this rate (default: the simulation's)."""
        rate = self._rate if fault_rate is None else fault_rate
        number = sum(process.name.partition(".")[0] == name for process in self._processes)
        weathers = self._weather(OBJECT_FAULTS, rate, 5.0), self._weather(RECORD_FAULTS, rate, 1.0)
        process = SimulatedProcess(self._world.machine(f"{name}.{number}", *weathers))
        self._processes.append(process)
        return process

    def client(self, *, background: bool = False) -> Client:
        """A client that meets no faults, for what the test itself has to do."""
        return self.process("test", fault_rate=0.0).client(background=background)

    async def sleep(self, seconds: float) -> None:
        """Virtual time."""
        await asyncio.sleep(seconds)

    @property
    def now_s(self) -> float:
        """Virtual seconds since the scenario began."""
        return self._world.loop.time()

    def heal(self) -> None:
        """No more faults of requests, for nobody."""
        self._rate = 0.0
        for machine in self._world.machines.values():
            machine.calm()

    def processes(self) -> list[SimulatedProcess]:
        """All that were made."""
        return list(self._processes)

    def _weather(self, faults: tuple[Fault, ...], rate: float, latency_ms: float) -> Weather:
        each = rate / len(faults)
        return Weather(rates={fault: each for fault in faults if rate}, latency_ms=latency_ms)


Scenario = Callable[[Simulation], Awaitable[None]]


class ScenarioFailed(AssertionError):
    """A scenario failed; the message has the seed, and what happened last."""


def simulate(
    scenario: Scenario,
    seed: int,
    *,
    fault_rate: float = 0.05,
    write: Callable[[str], object] | None = None,
) -> None:
    """Run ``scenario`` under ``seed``.

    Args:
        fault_rate: share of the requests of your processes that meet some fault.
        write: gets the whole trace, line by line.
    Raises:
        ScenarioFailed: the scenario, or a process nobody awaited, raised; all waited for ever; or a
            task's exception was lost. Its cause is what was raised.
    """
    last: deque[str] = deque(maxlen=TRACE_LINES)

    def tell(line: str) -> None:
        last.append(line)
        if write is not None:
            write(line)

    with simulated_loop(random.Random(f"{seed} loop")) as loop:
        world = World(loop, seed, Trace(loop.time, tell))
        sim = Simulation(world, seed, fault_rate)
        try:
            loop.run_until_complete(_all(scenario, sim, loop))
        except Exception as error:
            raise ScenarioFailed(_told(seed, repr(error), last)) from error
        if world.failures:
            raise ScenarioFailed(_told(seed, str(world.failures[0]), last))


async def _all(scenario: Scenario, sim: Simulation, loop: SimLoop) -> None:
    await scenario(sim)
    for process in sim.processes():
        for error in process.failures():
            raise error
    if loop.complaints:
        lost = loop.complaints[0].get("exception")
        raise lost if lost is not None else AssertionError(loop.complaints[0])


def _told(seed: int, what: str, last: deque[str]) -> str:
    return f"seed {seed}: {what}\nwhat happened last (virtual seconds, who, what):\n{''.join(last)}"
