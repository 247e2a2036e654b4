"""What befalls LogStore nodes, their disks, and the network between them and everybody."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from woodpecker.errors import WoodpeckerError
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.rpc.memory import Conditions
from woodpecker.testing.sim.fleet import Fleet, SimNode
from woodpecker.testing.sim.weather import DESTROYING, Fault
from woodpecker.testing.sim.world import World

NODE_STRIKES = (
    Fault.NODE_KILLED,
    Fault.NODE_POWER,
    Fault.NODE_AT_MESSAGE,
    Fault.NODE_STOPPED,
    Fault.NODE_LOST,
    Fault.NODE_FLIPPED,
    Fault.NODE_SET_BACK,
    Fault.DISK_ERROR,
    Fault.DISK_SLOW,
    Fault.NODES_ALL_DOWN,
    Fault.DRAINED,
    Fault.NET_CUT,
    Fault.NET_ONE_WAY,
    Fault.NET_RESET,
    Fault.NET_SLOW,
    Fault.NET_LOSSY,
)
MESSAGES = ("Append", "Append", "Append", "Fence", "Repair", "Read", "Advance", "Tell", "Upload")


class NodeNemesis:
    """See the module; one strike per call. Everything ends with ``stop``.

    Args:
        strikes: those there will be. run: starts a task of the world (an administrator's).
    """

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        rng: random.Random,
        *,
        strikes: Sequence[Fault],
        run: Callable[..., object],
    ) -> None:
        self._world = world
        self._fleet = fleet
        self._rng = rng
        self._run = run
        self._trap: tuple[str, str] | None = None
        self._stopped: dict[str, SimNode] = {}
        # a lost disk and a torn journal elsewhere together are more than the protocol survives alone
        self._has_curse = any(fault in DESTROYING for fault in strikes)
        self._cuts: set[tuple[str, str]] = set()
        fleet.strike = self.spring

    def strike(self, fault: Fault) -> None:
        """Do it, if it can be done now."""
        node = self._victim(fault)
        match fault:
            case Fault.NODES_ALL_DOWN:
                self._all_down()
            case (
                Fault.NET_CUT
                | Fault.NET_ONE_WAY
                | Fault.NET_RESET
                | Fault.NET_SLOW
                | Fault.NET_LOSSY
            ):
                self._on_network(fault)
            case Fault.NODE_AT_MESSAGE:
                self._trap = self._rng.choice(MESSAGES), self._rng.choice(("before", "after"))
            case _ if node is not None:
                self._on_node(fault, node)
            case _:
                pass

    def stop(self) -> None:
        """Everything is well again; who was stopped goes on, who is down starts."""
        self._trap = None
        self._world.network.ways.clear()
        self._world.network.conditions = Conditions(delay_ms=(0.05, 1.0))
        for way in sorted(self._cuts):
            self._world.network.heal(*way)
        self._cuts.clear()
        for node in list(self._stopped.values()):
            self._wake(node)
        for node in self._fleet.nodes:
            node.disk.sync_ms, node.disk.fail_write_in = self._fleet.sync_ms, None
            self._run(self._undrain(node))
        self._fleet.wake()

    def spring(self, node: SimNode, kind: str, when: str) -> None:
        """A node has a message: perhaps it is the one it dies of."""
        if self._trap == (kind, when) and node.name not in self._stopped:
            self._trap = None
            self._world.inject(Fault.NODE_AT_MESSAGE, node.name, f"{when} {kind}")
            self._down(node, power=not self._has_curse and self._rng.random() < 0.5)

    # --- nodes ---

    def _victim(self, fault: Fault) -> SimNode | None:
        alive = [n for n in self._fleet.nodes if not n.is_down and n.name not in self._stopped]
        if fault in DESTROYING:
            cursed = [node for node in self._fleet.nodes if node.is_cursed]
            if not cursed and alive:
                self._rng.choice(alive).is_cursed = True  # for this run, and no other beside it
            alive = [node for node in alive if node.is_cursed]
        return self._rng.choice(alive) if alive else None

    def _on_node(self, fault: Fault, node: SimNode) -> None:
        if fault is not Fault.NODE_SET_BACK:  # which takes three strikes
            self._world.inject(fault, node.name)
        match fault:
            case Fault.NODE_KILLED | Fault.NODE_POWER:
                self._down(node, power=fault is Fault.NODE_POWER)
            case Fault.NODE_STOPPED:
                self._stop(node)
            case Fault.NODE_LOST:
                self._down(node, power=True)
                node.disk.wipe()
            case Fault.NODE_FLIPPED:
                self._down(node, power=True)
                self._flip(node)
            case Fault.NODE_SET_BACK:
                self._set_back(node)
            case Fault.DISK_ERROR:
                node.disk.fail_write_in = self._rng.randint(1, 20)
            case Fault.DISK_SLOW:
                node.disk.sync_ms = (20.0, 400.0)
                self._world.loop.at_ms(self._span_ms(), self._fast, node)
            case Fault.DRAINED:
                self._run(self._drain(node))
            case _:
                raise AssertionError(fault)

    def _down(self, node: SimNode, *, power: bool) -> None:
        self._fleet.kill(node, power=power, down_s=self._rng.choice((0.0, 1.0, 15.0)))

    def _all_down(self) -> None:
        self._world.inject(Fault.NODES_ALL_DOWN, "all nodes")
        for node in self._fleet.nodes:
            if not node.is_down and node.name not in self._stopped:
                self._fleet.kill(node, power=True, down_s=self._rng.random() * 3)

    def _stop(self, node: SimNode) -> None:
        assert node.machine is not None
        node.machine.process.stop()
        self._stopped[node.name] = node
        self._world.loop.at_ms(self._span_ms() * self._rng.choice((1, 8)), self._wake, node)

    def _wake(self, node: SimNode) -> None:
        if self._stopped.pop(node.name, None) is not None and node.machine is not None:
            self._world.say("world", f"{node.machine} wakes")
            node.machine.process.wake()

    def _fast(self, node: SimNode) -> None:
        node.disk.sync_ms = self._fleet.sync_ms

    def _flip(self, node: SimNode) -> None:
        """Somewhere in what was written."""
        for number, data in sorted(node.disk.journal.items()):
            used = len(bytes(data).rstrip(b"\0"))
            if used and (self._rng.random() < 0.5 or number == max(node.disk.journal)):
                node.disk.flip(number, self._rng.randrange(used), 1 << self._rng.randrange(8))
                return

    def _set_back(self, node: SimNode) -> None:
        """A copy of the disk is made now; later it is put in the disk's place.

        Only once the node was started again in between: else nobody can tell (see docs/protocol.md).
        """
        disk = node.disk
        if node.snapshot is None:
            if node.serving is None:
                return  # a copy of a start that is not registered yet would be of that start
            copied = {number: bytearray(data) for number, data in disk.journal.items()}
            node.snapshot = node.served, copied, dict(disk.small)
            return
        served, journal, small = node.snapshot
        self._down(node, power=True)
        if node.served == served:
            return  # no later start of it has been registered yet
        self._world.inject(Fault.NODE_SET_BACK, node.name)
        disk.wipe()
        disk.journal.update({n: bytearray(d) for n, d in journal.items()})
        disk.small.update(small)
        node.snapshot = None

    async def _drain(self, node: SimNode) -> None:
        try:
            await self._records().drain(node.name)
        except WoodpeckerError as error:
            self._world.say("world", f"drain {node.name}: {error}")

    async def _undrain(self, node: SimNode) -> None:
        try:
            await self._records().cancel_drain(node.name)
        except WoodpeckerError as error:
            self._world.say("world", f"cancel drain of {node.name}: {error}")

    def _records(self) -> NodeRecords:
        return NodeRecords(self._world.records, self._world.runtime)

    # --- network ---

    def _on_network(self, fault: Fault) -> None:
        network = self._world.network
        node = self._rng.choice(self._fleet.nodes)
        names = [m.name for m in self._world.machines.values() if not m.has_ended]
        if not names:
            return
        other = self._rng.choice(names)
        everybody = self._rng.random() < 0.3  # the node is alone
        pairs = [(name, node.name) for name in (names if everybody else [other])]
        self._world.inject(fault, "everybody" if everybody else other, f"and {node.name}")
        match fault:
            case Fault.NET_CUT:
                self._cut([*pairs, *[(b, a) for a, b in pairs]])
            case Fault.NET_ONE_WAY:
                self._cut([(b, a) for a, b in pairs] if self._rng.random() < 0.5 else pairs)
            case Fault.NET_RESET:
                for a, b in pairs:
                    network.snap(a, b)
            case Fault.NET_SLOW:
                self._weather(pairs, Conditions(delay_ms=(20.0, 800.0)))
            case _:
                self._weather(pairs, Conditions(delay_ms=(0.1, 5.0), loss=0.05))

    def _cut(self, ways: list[tuple[str, str]]) -> None:
        ways = [way for way in ways if way not in self._cuts]
        for way in ways:
            self._cuts.add(way)
            self._world.network.cut(*way)
        self._world.loop.at_ms(self._span_ms() * self._rng.choice((1, 6)), self._join, ways)

    def _join(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            if way in self._cuts:
                self._cuts.discard(way)
                self._world.network.heal(*way)

    def _weather(self, pairs: list[tuple[str, str]], conditions: Conditions) -> None:
        ways = [*pairs, *[(b, a) for a, b in pairs]]
        for way in ways:
            self._world.network.ways[way] = conditions
        self._world.loop.at_ms(self._span_ms(), self._clear, ways)

    def _clear(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            self._world.network.ways.pop(way, None)

    def _span_ms(self) -> float:
        return min(self._rng.expovariate(0.5), 10.0) * 1000
