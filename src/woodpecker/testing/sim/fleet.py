"""Simulated LogStore nodes: the real node, keeper and session, on a simulated disk and network.

A node has one disk and one address for ever; its process lives and dies. Whoever dies is started again
a little later. One node of a run may be *cursed*: it alone loses what was on its disk.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from woodpecker.client.client import Client
from woodpecker.codec.journal import RECORD_BYTES
from woodpecker.core.manifest import Segment
from woodpecker.core.membership import Load
from woodpecker.errors import Conflict, Corrupt, OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.logstore.keeper import NodeKeeper
from woodpecker.logstore.node import Node
from woodpecker.logstore.replay import disk_boot
from woodpecker.logstore.settings import NodeSettings
from woodpecker.metadata.node_session import NodeSession
from woodpecker.testing.sim.weather import Weather
from woodpecker.testing.sim.wire import WatchedHandler
from woodpecker.testing.sim.world import Machine, World
from woodpecker.testing.sim_disk import SimDisk

FILE_BYTES = 4 << 20
ROOMY_BYTES = 256 << 20
RETRY_S = 0.5


@dataclass(slots=True, kw_only=True)
class SimNode:
    """One node for ever: its name is its address too.

    Attributes:
        machine: its process now, or the last one. serving: while it does. snapshot: of its disk,
            and in how many lives it had served then.
    """

    name: str
    disk: SimDisk
    zone: str = ""
    is_cursed: bool = False
    lives: int = 0
    served: int = 0  # lives in which it was registered
    machine: Machine | None = None
    serving: Node | None = None
    snapshot: tuple[int, dict[int, bytearray], dict[str, bytes]] | None = None

    @property
    def is_down(self) -> bool:
        """Whether no process of it lives."""
        return self.machine is None or self.machine.has_ended


@dataclass(slots=True)
class Fleet:
    """All nodes of a run.

    Args:
        weathers: of the lines of a new process to the stores.
        disk_bytes: of each disk; small ones fill up.
        strike: told each message of a node, by kind, before it is served and after.
    """

    world: World
    rng: random.Random
    weathers: Callable[[], tuple[Weather, Weather]]
    disk_bytes: int = ROOMY_BYTES
    sync_ms: tuple[float, float] = (0.05, 0.5)
    nodes: list[SimNode] = field(default_factory=list)
    strike: Callable[[SimNode, str, str], None] = lambda _, __, ___: None
    _is_over: bool = False

    def start(self, count: int) -> None:
        """Make so many nodes and start them."""
        for number in range(1, count + 1):
            disk = SimDisk(
                random.Random(f"{self.world.seed} disk {number}"),
                capacity_bytes=self.disk_bytes,
                sync_ms=self.sync_ms,
            )
            self.nodes.append(SimNode(name=f"n{number}", disk=disk, zone=f"z{number % 3}"))
            self._begin(self.nodes[-1])

    def kill(self, node: SimNode, *, power: bool, down_s: float) -> None:
        """The process dies; with ``power`` what was not synced may be lost, or torn."""
        assert node.machine is not None
        node.machine.kill()
        (node.disk.crash if power else node.disk.kill)()
        self.world.network.crash(node.name)
        node.serving = None
        self.world.loop.at_ms(down_s * 1000, self._begin, node)

    def copies_of(self, log_id: str, segment: Segment) -> tuple[list[list[bytes]], int]:
        """Synced blocks of a segment on each member that serves; of how many members nothing is known."""
        assert segment.ensemble is not None
        found, unknown = [], 0
        for member in segment.ensemble.members:
            node = next(node for node in self.nodes if node.name == member.node)
            # what a cursed one acknowledged it may have lost since
            if node.serving is None or node.is_cursed:
                unknown += 1
            if node.serving is not None:
                found.append(_blocks_on(node, log_id, segment.id))
        return found, unknown

    def wake(self) -> None:
        """Whoever is down starts now."""
        for node in self.nodes:
            self._begin(node)

    async def wait_up(self) -> None:
        """Until all serve."""
        for _ in range(600):
            if all(node.serving is not None for node in self.nodes):
                return
            await asyncio.sleep(0.5)
        down = [node.name for node in self.nodes if node.serving is None]
        self.world.fail("I7", f"nodes do not come up again: {down}")

    async def end(self) -> None:
        """All end in good order."""
        self._is_over = True
        machines = [node.machine for node in self.nodes if node.machine is not None]
        for machine in machines:
            machine.should_end.set()
        for _ in range(200):
            if all(machine.has_ended for machine in machines):
                return
            await asyncio.sleep(0.5)
        left = [machine.name for machine in machines if not machine.has_ended]
        self.world.fail("I7", f"nodes do not end: {left}")

    # --- one life ---

    def _begin(self, node: SimNode) -> None:
        if self._is_over or not node.is_down:
            return
        machine = self.world.machine(f"{node.name}.{node.lives}", *self.weathers())
        node.lives += 1
        node.machine = machine
        machine.is_client = False
        self.world.say("world", f"{machine} starts")
        machine.task = machine.process.start(self._live(node, machine), "node")

    def _again(self, node: SimNode) -> None:
        self.world.loop.at_ms(self.rng.expovariate(0.5) * 1000, self._begin, node)

    async def _live(self, node: SimNode, machine: Machine) -> None:
        world = self.world
        try:
            async with AsyncExitStack() as parts:
                await self._serve(node, machine, parts)
        except (Unavailable, OutcomeUnknown, Conflict) as error:
            world.say(machine.name, f"ends: {error}")
        except Corrupt as error:
            if not node.is_cursed:
                world.fail("I6", f"{machine.name} met damage: {error}")
        except WoodpeckerError as error:
            world.fail("errors", f"{machine.name} ended on {type(error).__name__}: {error}")
        finally:
            node.serving = None
            self._again(node)
        left = machine.runtime.running()
        if left:
            world.fail("I8", f"node {machine.name} has ended and left tasks: {left}")

    async def _serve(self, node: SimNode, machine: Machine, parts: AsyncExitStack) -> None:
        """As ``logstore/service.py`` does it; returns when the node is to end."""
        world, places = self.world, machine.places()
        disk = node.disk.open()
        parts.push_async_callback(disk.close)
        client = Client(places.open, places.close, background=False)
        parts.push_async_callback(client.close)
        await _opened(client)
        env = client.environment
        keeper: NodeKeeper | None = None
        ended = asyncio.Event()
        session = NodeSession(
            env.catalog.store,
            machine.runtime,
            node.name,
            report=lambda: Load() if keeper is None else keeper.report(),
            on_state=lambda state: None if keeper is None else keeper.on_state(state),
            on_lost=lambda _: ended.set(),
        )
        boot_seen = await session.look(await disk_boot(disk))
        settings = NodeSettings(
            node=node.name,
            zone=node.zone,
            file_bytes=FILE_BYTES,
            keep_free_bytes=FILE_BYTES,
            cache_bytes=4 << 20,
            queue_max_bytes=4 << 20,
        )
        server = await Node.open(disk, machine.runtime, settings=settings, boot_seen=boot_seen)
        parts.push_async_callback(_closed, server)
        keeper = NodeKeeper(env, server, places.directory)
        server.attach(keeper)
        parts.push_async_callback(keeper.stop)
        handler = WatchedHandler(
            server, world.coverage, lambda kind, when: self.strike(node, kind, when)
        )
        parts.push_async_callback(session.stop)
        await session.register(
            boot=server.boot,
            incarnation=server.identity.incarnation,
            past=sorted(server.identity.past),
            address=node.name,
            zone=node.zone,
        )
        listening = world.network.serve(node.name, handler)
        parts.push_async_callback(listening.close)
        session.start()
        keeper.start()
        node.serving = server
        node.served += 1
        world.coverage["node starts"] += 1
        if server.lost:
            world.coverage["node lost its incarnation"] += 1
            world.say(machine.name, f"starts with a new incarnation: {server.lost}")
        await _first(machine, ended, machine.should_end, server)


def _blocks_on(node: SimNode, log_id: str, segment_id: int) -> list[bytes]:
    """As they lie on its disk."""
    assert node.serving is not None
    copy = node.serving.copies.get(log_id, segment_id)
    blocks = []
    for number in range(0 if copy is None else copy.replica.synced + 1):
        assert copy is not None
        file, offset = copy.index.place(number)
        begin = offset + RECORD_BYTES
        blocks.append(bytes(node.disk.journal[file][begin : begin + copy.index.size(number)]))
    return blocks


async def _opened(client: Client) -> None:
    while True:
        try:
            await client.open()
            return
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(RETRY_S)


async def _closed(node: Node) -> None:
    await node.close(clean=node.failure is None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _first(machine: Machine, lost: asyncio.Event, ended: asyncio.Event, node: Node) -> None:
    """Return when it was told to end, lost its record, or has failed."""
    waits = [
        machine.runtime.spawn(work, "wait for the end")
        for work in (lost.wait(), ended.wait(), node.wait_stopped())
    ]
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for wait in waits:
        wait.add_done_callback(lambda _: _resolve(over))
    try:
        await over
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
