"""Who makes processes and servers fail: at random times, and right before or after a chosen request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from woodpecker.testing.sim.line import Server
from woodpecker.testing.sim.loop import Process
from woodpecker.testing.sim.weather import Fault
from woodpecker.testing.sim.world import Machine, World

WAYS_OF_SERVERS = (Fault.REFUSING, Fault.SILENT, Fault.MUTE)
AMBUSHED = (  # requests at which a process is struck: the steps of the protocol
    "create block", "create block", "create mark", "create mark", "write sealed", "create page",
    "create register", "delete block", "delete sealed", "get block", "head sealed", "list",
    "put manifest", "put manifest", "put manifest", "put cursor", "put lease", "get manifest",
)  # fmt: skip
LONGEST_OUTAGE_S = 10.0
JUMP_US = (-3 * 3_600_000_000, -1_000_000, 60_000_000, 40 * 86_400_000_000)


@dataclass(slots=True)
class _Trap:
    what: str
    is_before: bool
    fault: Fault


class Nemesis:
    """Strikes while ``run`` runs. A process that was killed is replaced by ``replace``.

    Args:
        late: stopped processes stay so until ``wake_all``, now and then.
        on_nodes: strikes that are not of clients or stores.
        ambushed: requests at which processes are struck.
    """

    def __init__(
        self,
        world: World,
        rng: random.Random,
        *,
        strikes: tuple[Fault, ...],
        every_s: float,
        late: bool,
        long_stop_s: tuple[float, float],
        replace: Callable[[Machine], None],
        on_nodes: Callable[[Fault], None] = lambda _: None,
        ambushed: tuple[str, ...] = AMBUSHED,
    ) -> None:
        self._world = world
        self._rng = rng
        self._strikes = strikes
        self._every_s = every_s
        self._late = late
        self._long_stop_s = long_stop_s
        self._on_nodes = on_nodes
        self._replace = replace
        self._ambushed = ambushed
        self._trap: _Trap | None = None
        self.sleepers: dict[str, Machine] = {}
        self._late_sleepers: set[str] = set()
        for server in world.servers:
            server.ambush = self

    async def run(self) -> None:
        """Strike again and again until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._every_s))
            self._strike(self._rng.choice(self._strikes))

    def stop(self) -> None:
        """No more strikes; servers are well, processes may still sleep."""
        self._trap = None
        for server in self._world.servers:
            server.heal()

    def wake_all(self, *, late: bool = True) -> None:
        """Everybody who was stopped goes on; without ``late``, only who would soon do so by himself."""
        for name, machine in list(self.sleepers.items()):
            if late or name not in self._late_sleepers:
                self._wake(machine)

    # --- strikes ---

    def _strike(self, fault: Fault) -> None:
        machine = self._victim()
        match fault:
            case Fault.KILLED if machine is not None:
                self._kill(machine, fault)
            case Fault.STOPPED | Fault.STOPPED_LONG if machine is not None:
                self._stop(machine, fault)
            case Fault.KILLED_AT_REQUEST | Fault.STOPPED_AT_REQUEST:
                self._trap = _Trap(
                    self._rng.choice(self._ambushed), self._rng.random() < 0.4, fault
                )
            case Fault.REFUSING | Fault.SILENT | Fault.MUTE:
                self._outage(self._rng.choice(self._world.servers), fault)
            case Fault.CUT_OFF if machine is not None:
                self._cut_off(self._rng.choice(self._world.servers), machine)
            case Fault.CLOCK_JUMP if machine is not None:
                jump_us = self._rng.choice(JUMP_US)
                self._world.inject(fault, machine.name, f"by {jump_us / 1e6:.0f} s")
                machine.runtime.clock_error_us += jump_us
            case _:
                self._on_nodes(fault)

    def _victim(self) -> Machine | None:
        clients = (m for m in self._world.machines.values() if m.is_client)
        alive = [machine for machine in clients if self._can_be_struck(machine)]
        return self._rng.choice(alive) if alive else None

    def _can_be_struck(self, machine: Machine) -> bool:
        return not machine.has_ended and machine.name not in self.sleepers

    def _kill(self, machine: Machine, fault: Fault) -> None:
        self._world.inject(fault, machine.name)
        machine.kill()
        self._replace(machine)

    def _stop(self, machine: Machine, fault: Fault) -> None:
        is_long = fault is Fault.STOPPED_LONG
        for_s = self._rng.uniform(*self._long_stop_s) if is_long else self._rng.expovariate(0.5)
        if self._late and (is_long or self._rng.random() < 0.3):
            for_s = float("inf")
        self._world.inject(fault, machine.name, f"for {for_s:.3f} s")
        machine.process.stop()
        self.sleepers[machine.name] = machine
        if for_s < float("inf"):
            self._world.loop.at_ms(for_s * 1000, self._wake, machine)
        else:
            self._late_sleepers.add(machine.name)
        if is_long:
            self._replace(machine)  # whoever runs it takes it for dead

    def _wake(self, machine: Machine) -> None:
        if self.sleepers.pop(machine.name, None) is not None:
            self._world.say("world", f"{machine} wakes")
            machine.process.wake()

    def _outage(self, server: Server, fault: Fault) -> None:
        if server.trouble is None:
            self._world.inject(fault, server.name)
            server.trouble = fault
            self._world.loop.at_ms(self._outage_ms(), self._end_outage, server)

    def _end_outage(self, server: Server) -> None:
        server.trouble = None
        self._world.say("world", f"{server.name} is well again")

    def _cut_off(self, server: Server, machine: Machine) -> None:
        way = self._rng.choice(WAYS_OF_SERVERS)
        self._world.inject(Fault.CUT_OFF, f"{machine} from {server.name}", f"({way})")
        server.cut_off[machine.name] = way
        self._world.loop.at_ms(self._outage_ms(), server.cut_off.pop, machine.name, None)

    def _outage_ms(self) -> float:
        return min(self._rng.expovariate(0.5), LONGEST_OUTAGE_S) * 1000

    # --- ambushes ---

    def before(self, process: Process, what: str) -> None:
        """See ``line.Ambush``."""
        self._spring(process, what, is_before=True)

    def after(self, process: Process, what: str) -> None:
        """See ``line.Ambush``."""
        self._spring(process, what, is_before=False)

    def _spring(self, process: Process, what: str, *, is_before: bool) -> None:
        trap = self._trap
        if trap is None or (trap.what, trap.is_before) != (what, is_before):
            return
        machine = self._world.machines[process.name]
        if not machine.is_client or not self._can_be_struck(machine):
            return
        self._trap = None
        self._world.say("world", f"ambush {'before' if is_before else 'after'} {what}")
        if trap.fault is Fault.KILLED_AT_REQUEST:
            self._kill(machine, trap.fault)
        else:
            self._stop(machine, trap.fault)
