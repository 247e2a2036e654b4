"""One seed of a streaming service: faults, healing, rest, judgement."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.node import retention
from woodpecker.streaming.requests import Drain
from woodpecker.testing.sim.loop import simulated_loop
from woodpecker.testing.sim.nemesis import JUMP_US, Nemesis
from woodpecker.testing.sim.run import Result
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.weather import Fault
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim.books import Book
from woodpecker.testing.stream_sim.judge import Judge
from woodpecker.testing.stream_sim.plan import Plan, draw
from woodpecker.testing.stream_sim.town import AGAIN_S, SlotDialer, Town, serve
from woodpecker.testing.stream_sim.users import FINISHES, USERS
from woodpecker.testing.virtual import Hang

REST_S = 900.0  # virtual: producers must have come to their end by then
MAX_MACHINES = 60
MAX_REQUESTS = 12_000
LONGEST_CUT_S = 15.0
AMBUSHED = ("create block", "create block", "create block", "put manifest", "put cursor")
TRIM_MS = 2_000.0  # virtual: between looks at what may go; a run is too short for the usual minute


def run_stream_seed(seed: int, *, write: Callable[[str], object] | None = None) -> Result:
    """Run one seed; ``write`` gets the trace, line by line."""
    result = Result(seed=seed)
    began_s = time.process_time()
    plan = draw(seed)
    rng = random.Random(f"stream loop {seed}") if plan.interleave else None
    with simulated_loop(rng) as loop, patch.object(retention, "EVERY_MS", TRIM_MS):
        trace = None if write is None else Trace(loop.time, write)
        town = Town(loop, seed, plan, trace)
        town.say("plan", str(plan))
        show = Show(town)
        try:
            loop.run_until_complete(show.run())
        except Hang as hang:
            town.fail("S14", str(hang))
        except Exception:  # noqa: BLE001  a bug of drivers or of the simulator: the seed has failed
            town.fail("errors", traceback.format_exc())
        for complaint in loop.complaints:
            town.fail("errors", _complaint(complaint))
        result.violations = [str(violation) for violation in town.failures]
        result.injected = Counter({str(fault): count for fault, count in town.injected.items()})
        result.coverage = +town.coverage
        result.virtual_s = loop.time()
    result.cpu_s = time.process_time() - began_s
    return result


def _complaint(context: dict[str, Any]) -> str:
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    return f"{context.get('message')}\n{text}"


class Show:
    """The course of one run."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._plan: Plan = town.plan
        self._rng = random.Random(f"{town.seed} stream show")
        self._replacing = True
        self._held: list[tuple[str, str]] = []
        self._channels: dict[str, str] = {}  # slot of a user -> channel
        self._nemesis = Nemesis(
            town,
            random.Random(f"{town.seed} stream nemesis"),
            strikes=tuple(one for one in self._plan.strikes if one is not Fault.CLOCK_JUMP),
            every_s=self._plan.strike_s,
            late=False,
            long_stop_s=(20.0, 60.0),
            replace=self._replace,
            on_nodes=self._strike_network,
            ambushed=AMBUSHED,
        )

    async def run(self) -> None:
        """Faults, healing, rest, judgement."""
        plan, town = self._plan, self._town
        for number in range(plan.channels):
            town.books[f"ch{number}"] = Book(f"ch{number}")
        for slot in town.addresses:
            self._start(slot)
        for letter, count in (
            ("p", plan.producers), ("r", plan.consumers), ("s", plan.subscribers),
            ("o", int(plan.moves)), ("d", plan.deleters), ("b", plan.broadcasters),
        ):  # fmt: skip
            for number in range(count):
                channel = 0 if letter == "s" else number % plan.channels
                name = f"d{number}" if letter == "d" else f"ch{channel}"
                self._channels[f"{letter}{number}"] = name
                self._start(f"{letter}{number}")
        await self._suffer()
        await self._heal()
        if not await self._rest("p", "o", "d", "b"):
            return
        judge = Judge(town)
        if not await judge.settle() or not await self._rest("r", "s"):
            return
        await judge.judge()
        await self._rest("n", "c")

    # ------------------------------------------------------------------------------- machines

    def _start(self, slot: str) -> None:
        town = self._town
        life = sum(name.partition(".")[0] == slot for name in town.machines)
        machine = town.machine(f"{slot}.{life}", *self._plan.weathers())
        if self._plan.clocks_wrong and slot[0] in "nc" and self._rng.random() < 0.7:
            error_us = self._clock_error_us(slot)
            town.inject(Fault.CLOCK_WRONG, machine.name, f"by {error_us / 1e6:.3f} s")
            machine.runtime.clock_error_us = error_us
        work: Coroutine[Any, Any, None]
        if slot in town.addresses:
            work = serve(town, machine, slot)
        else:
            work = USERS[slot[0]](town, machine, self._channels[slot]).main()
        town.say("world", f"{machine} starts")
        machine.task = machine.process.start(_after(self._rng.random() * 0.3, work), "main")
        machine.task.add_done_callback(lambda task: self._ended(machine, task))

    def _ended(self, machine: Machine, task: asyncio.Task[None]) -> None:
        """A member whose name another process has taken ends by itself; nobody ends by an error."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            text = "".join(traceback.format_exception(error))
            self._town.fail("errors", f"{machine} ended: {text}")

    def _clock_error_us(self, slot: str) -> int:
        """One of three slots may be hours behind, the others by little: without a majority of right clocks
        nobody can tell which ones are, and no node is fit.

        Nobody is days ahead: a term that began at such a time would have to be waited for.
        """
        is_far = slot == "n0" and self._plan.members > 2
        return self._rng.choice(JUMP_US[:3] if is_far else (1_000, -200_000, -30_000_000))

    def _replace(self, machine: Machine) -> None:
        self._town.loop.at_ms(self._rng.expovariate(1) * 1000, self._next_life, machine)

    def _next_life(self, machine: Machine) -> None:
        slot = machine.name.partition(".")[0]
        for book in self._town.books.values():
            for view in book.views:
                if view.who == machine.name:
                    view.is_alive = False
        if self._replacing and len(self._town.machines) < MAX_MACHINES:
            self._start(slot)
        elif slot in self._town.addresses or slot[0] in FINISHES:
            self._start(slot)  # the service must be whole in the end, and so must these

    # ------------------------------------------------------------------------ faults, then none

    async def _suffer(self) -> None:
        town = self._town
        if Fault.CLOCK_JUMP in self._plan.strikes:
            self._jump()
        storm = asyncio.ensure_future(self._nemesis.run()) if self._plan.strikes else None
        until_s = town.loop.time() + self._plan.active_s
        while (  # noqa: ASYNC110  several things end it; virtual time is free
            town.loop.time() < until_s and town.requests < MAX_REQUESTS
        ):
            await asyncio.sleep(0.2)
        if storm is not None:
            storm.cancel()
            await asyncio.gather(storm, return_exceptions=True)

    def _jump(self) -> None:
        """The wall clock of a member jumps, now and then."""
        members = [m for m in self._town.machines.values() if m.name[0] in "nc" and not m.has_ended]
        if members and self._replacing:
            machine = self._rng.choice(members)
            jump_us = self._clock_error_us(machine.name.partition(".")[0])
            self._town.inject(Fault.CLOCK_JUMP, machine.name, f"by {jump_us / 1e6:.0f} s")
            machine.runtime.clock_error_us += jump_us
            self._town.loop.at_ms(self._rng.expovariate(1 / 8_000), self._jump)

    def _strike_network(self, fault: Fault) -> None:
        town, rng = self._town, self._rng
        alive = sorted(m.name for m in town.machines.values() if not m.has_ended)
        if len(alive) < 2:
            return
        one, other = rng.sample(alive, 2)
        town.inject(fault, f"{one} {other}")
        if fault is Fault.NET_RESET:
            town.streams.snap(one, other)
        elif fault is Fault.NET_SLOW:
            town.streams.delay_ms = (0.0, rng.choice((100.0, 1_000.0)))
            town.loop.at_ms(rng.random() * 5_000, self._be_quick)
        else:
            ways = [(one, other)] if fault is Fault.NET_ONE_WAY else [(one, other), (other, one)]
            for way in ways:
                town.streams.hold(*way)
                self._held.append(way)
                town.loop.at_ms(rng.random() * LONGEST_CUT_S * 1000, town.streams.release, *way)

    def _be_quick(self) -> None:
        self._town.streams.delay_ms = self._plan.net_ms

    async def _heal(self) -> None:
        town = self._town
        town.say("world", "heals")
        self._replacing = False
        self._nemesis.stop()
        for machine in town.machines.values():
            machine.calm()
        for way in self._held:
            town.streams.release(*way)
        self._be_quick()
        self._nemesis.wake_all()
        for slot in town.addresses:
            await self._undrain(slot)

    async def _undrain(self, slot: str) -> None:
        """What the operator has drained serves again."""
        if not slot.startswith("n"):
            return
        dialer = SlotDialer(self._town, "world")
        for _ in range(200):
            for address in self._town.addresses:
                try:
                    await dialer.endpoint(address).call(Drain(node=slot, draining=False))
                except (Refused, Unavailable, OutcomeUnknown):
                    continue
                return
            await asyncio.sleep(AGAIN_S)
        self._town.fail("S14", f"nobody decides: {slot} cannot be taken back")

    async def _rest(self, *letters: str) -> bool:
        """Those users come to their end by themselves."""
        town = self._town
        machines = [m for m in town.machines.values() if m.name[0] in letters]
        for machine in machines:
            machine.should_end.set()
            if machine.name[0] in "rs" and machine.task is not None:
                machine.task.cancel()  # who waits for messages is not told
        until_s = town.loop.time() + REST_S
        while any(not machine.has_ended for machine in machines):
            if town.loop.time() > until_s:
                for machine in machines:
                    if not machine.has_ended:
                        town.fail("S14", f"{machine} hangs: {_stack(machine)}")
                return False
            await asyncio.sleep(0.5)
        return True


async def _after(delay_s: float, work: Coroutine[Any, Any, None]) -> None:
    await asyncio.sleep(delay_s)
    await work


def _stack(machine: Machine) -> str:
    """Where its main task waits."""
    task = machine.task
    if task is None:
        return "nowhere"
    lines = []
    coroutine: Any = task.get_coro()
    while coroutine is not None and hasattr(coroutine, "cr_frame"):
        frame = coroutine.cr_frame
        if frame is not None:
            lines.append(f"{coroutine.__qualname__}:{frame.f_lineno}")
        coroutine = coroutine.cr_await
    return " > ".join(lines[-6:])
