"""One seed, one run: faults first, then everything is healed and must come to rest, then it is judged."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from woodpecker.core.ids import Kind
from woodpecker.rpc.memory import Conditions
from woodpecker.testing.sim import limits
from woodpecker.testing.sim.fleet import Fleet
from woodpecker.testing.sim.judge import Judge
from woodpecker.testing.sim.loop import SimLoop, simulated_loop
from woodpecker.testing.sim.nemesis import JUMP_US, Nemesis
from woodpecker.testing.sim.node_nemesis import NodeNemesis
from woodpecker.testing.sim.plan import STREAM, Plan, draw
from woodpecker.testing.sim.readers import CarerRole, FollowerRole
from woodpecker.testing.sim.stage import Role, Stage
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.weather import Fault
from woodpecker.testing.sim.world import Machine, World
from woodpecker.testing.sim.writers import WriterRole
from woodpecker.testing.virtual import Hang

REST_S = 2_000.0  # virtual: whoever lives must have come to its end by then
MAX_MACHINES = 20
MAX_REQUESTS = 4_000  # then the faults end: a seed must not cost minutes,
MAX_ROLLS = 120  # ... and manifests must not get long


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run did and found; plain data, so that it goes from process to process."""

    seed: int
    violations: list[str] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    virtual_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Nothing was broken."""
        return not self.violations


def run_seed(
    seed: int, *, kind: str = "any", write: Callable[[str], object] | None = None
) -> Result:
    """Run one seed; ``write`` gets the trace, line by line."""
    if kind == STREAM:
        from woodpecker.testing.stream_sim.run import run_stream_seed  # it stands on this module

        return run_stream_seed(seed, write=write)
    began_s = time.process_time()
    plan = draw(seed, kind)
    result = Result(seed=seed)
    rng = random.Random(f"loop {seed}") if plan.interleave else None
    with simulated_loop(rng) as loop, limits.tiny(when=plan.tiny):
        trace = None if write is None else Trace(loop.time, write)
        world = World(loop, seed, trace)
        world.say("plan", str(plan))
        show = Show(world, plan)
        try:
            loop.run_until_complete(show.run())
        except Hang as hang:
            world.fail("I7", str(hang))
        except MemoryError:
            world.fail("I7", "out of memory")
        except Exception:  # noqa: BLE001  a bug of drivers or of the simulator: the seed has failed
            world.fail("errors", traceback.format_exc())
        for complaint in loop.complaints:
            world.fail("errors", _complaint(complaint))
        result.violations = [str(violation) for violation in world.failures]
        result.injected = Counter({str(f): n for f, n in world.injected.items()})
        result.coverage = +world.coverage
        for server in world.servers:
            result.coverage.update(server.seen)
        result.virtual_s = loop.time()
    result.cpu_s = time.process_time() - began_s
    return result


def _complaint(context: dict[str, Any]) -> str:
    """What the loop's handler was told: an exception that nobody took."""
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    return f"{context.get('message')}\n{text}"


class Show:
    """The course of one run."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._loop: SimLoop = world.loop
        self._plan = plan
        self._rng = random.Random(f"{world.seed} show")
        self._stage = Stage(world=world, plan=plan)
        self._replacing = True
        self._roles: dict[str, tuple[type[Role], str, int]] = {}  # machine -> role, log, slot
        world.page_objects = plan.page_objects
        self._nemesis = Nemesis(
            world,
            random.Random(f"{world.seed} nemesis"),
            strikes=(*plan.strikes, *plan.node_strikes),
            every_s=plan.strike_s,
            late=plan.late_sleepers,
            long_stop_s=plan.long_stop_s,
            replace=self._replace,
            on_nodes=self._strike_nodes,
        )
        self._admins: list[asyncio.Task[None]] = []
        self._fleet: Fleet | None = None
        self._node_nemesis: NodeNemesis | None = None
        if plan.nodes:
            self._make_fleet()
        self._judge = Judge(self._stage)

    async def run(self) -> None:
        """Faults, healing, rest, judgement."""
        if self._fleet is not None:
            self._fleet.start(self._plan.nodes)
        await self._create_logs()
        self._cast()
        await self._suffer()
        self._heal()
        if self._fleet is not None:
            await self._fleet.wait_up()
        if not await self._rest():
            return
        await self._judge.settle()
        self._nemesis.wake_all()  # those who slept through all of it
        if not await self._rest():
            return
        await self._judge.judge(self._followers())
        if self._fleet is not None:
            await self._fleet.end()

    # --- beginning ---

    def _make_fleet(self) -> None:
        world, plan = self._world, self._plan
        world.kind = Kind.QUORUM
        world.network.conditions = Conditions(delay_ms=plan.net_ms)
        self._fleet = Fleet(
            world,
            random.Random(f"{world.seed} fleet"),
            plan.weathers,
            disk_bytes=plan.disk_bytes,
            sync_ms=plan.sync_ms,
        )
        world.witness.copies_of = self._fleet.copies_of
        rng = random.Random(f"{world.seed} node nemesis")
        self._node_nemesis = NodeNemesis(
            world, self._fleet, rng, strikes=plan.node_strikes, run=self._do
        )

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of the world."""
        self._admins.append(self._loop.create_task(work, context=self._loop.world))

    def _strike_nodes(self, fault: Fault) -> None:
        if self._node_nemesis is not None:
            self._node_nemesis.strike(fault)

    async def _create_logs(self) -> None:
        for number in range(self._plan.logs):
            name = f"log{number}"
            log = await self._judge.create(name)
            self._stage.renew(name, log.log_id)

    def _cast(self) -> None:
        plan = self._plan
        for number in range(plan.writers):
            self._start(WriterRole, f"w{number}", f"log{number % plan.logs}", number)
        for number in range(plan.followers):
            self._start(FollowerRole, f"f{number}", f"log{number % plan.logs}", number)
        for number in range(plan.carers):
            self._start(CarerRole, f"c{number}", f"log{number % plan.logs}", number)

    def _start(self, role: type[Role], slot: str, log: str, number: int) -> None:
        life = sum(name.partition(".")[0] == slot for name in self._world.machines)
        machine = self._world.machine(f"{slot}.{life}", *self._plan.weathers())
        if self._plan.clocks_wrong and self._rng.random() < 0.7:
            error_us = self._rng.choice((*JUMP_US, 1_000, -200_000))
            self._world.inject(Fault.CLOCK_WRONG, machine.name, f"by {error_us / 1e6:.3f} s")
            machine.runtime.clock_error_us = error_us
        actor = role(self._stage, machine, log)
        if isinstance(actor, WriterRole):
            actor.slot = number
        self._roles[machine.name] = role, log, number
        self._world.say("world", f"{machine} starts")
        delay_s = self._rng.random() * 0.3
        machine.task = machine.process.start(_after(delay_s, actor.main()), "main")

    def _replace(self, machine: Machine) -> None:
        """Somebody died: the next life of its slot begins a little later."""
        self._world.loop.at_ms(self._rng.expovariate(1) * 1000, self._next_life, machine)

    def _next_life(self, machine: Machine) -> None:
        if self._replacing and len(self._world.machines) < MAX_MACHINES:
            role, log, number = self._roles[machine.name]
            self._start(role, machine.name.partition(".")[0], log, number)

    # --- faults, then none ---

    async def _suffer(self) -> None:
        strikes = self._plan.strikes or self._plan.node_strikes
        storm = asyncio.ensure_future(self._nemesis.run()) if strikes else None
        until_s = self._loop.time() + self._plan.active_s
        while self._goes_on(until_s):  # noqa: ASYNC110  several things end it; virtual time is free
            await asyncio.sleep(0.05)
        if storm is not None:
            storm.cancel()
            await asyncio.gather(storm, return_exceptions=True)

    def _goes_on(self, until_s: float) -> bool:
        world = self._world
        is_time = self._loop.time() < until_s and world.requests < MAX_REQUESTS
        is_short = world.coverage["manifest: rolled"] < MAX_ROLLS
        return is_time and is_short and not all(machine.has_ended for machine in self._working())

    def _heal(self) -> None:
        self._world.say("world", "heals")
        self._replacing = False
        self._nemesis.stop()
        if self._node_nemesis is not None:
            self._node_nemesis.stop()
        for machine in self._world.machines.values():
            machine.calm()
        for machine in self._working():  # while nodes come up writers would write on, at full speed
            machine.should_end.set()
        self._nemesis.wake_all(late=not self._plan.late_sleepers)

    def _working(self) -> list[Machine]:
        return [
            self._world.machines[name]
            for name, (role, _, _) in self._roles.items()
            if role is not FollowerRole
        ]

    def _followers(self) -> list[Machine]:
        return [
            self._world.machines[name]
            for name, (role, _, _) in self._roles.items()
            if role is FollowerRole and not self._world.machines[name].has_ended
        ]

    async def _rest(self) -> bool:
        """Everybody who works comes to an end by himself; nothing may hang."""
        machines = [m for m in self._working() if m.name not in self._nemesis.sleepers]
        for machine in machines:
            machine.should_end.set()
        until_s = self._loop.time() + REST_S
        while any(not machine.has_ended for machine in machines) or self._world.under_way:
            if self._loop.time() > until_s:
                for machine in machines:
                    if not machine.has_ended:
                        self._world.fail("I7", f"{machine} hangs: {_stack(machine)}")
                return False
            await asyncio.sleep(0.5)
        return True


async def _after(delay_s: float, work: Coroutine[Any, Any, None]) -> None:
    await asyncio.sleep(delay_s)
    await work


def _stack(machine: Machine) -> str:
    """Where its tasks wait."""
    waits = []
    for task in sorted(asyncio.all_tasks(machine.world.loop), key=hash):
        if task is machine.task or task.get_name() in machine.runtime.running():
            frames = task.get_stack()
            if frames:
                code = frames[-1].f_code
                waits.append(f"{task.get_name()} in {code.co_qualname}:{frames[-1].f_lineno}")
    return "; ".join(waits)
