"""Faults of the network: each node on a host of its own, everything between them cut, slow or lossy.

Hosts are network namespaces (``testing/servers/network.py``). A relay stands before each node: it delays, loses
(as TCP sees it), stalls and cuts, each direction by itself; routes swallow packets from one host to another.
The run itself and all writers and readers are on the host ``CLIENTS``: enter it before anything starts a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from woodpecker.testing.faults.arena import Arena, Report, arena, say
from woodpecker.testing.faults.cluster_kill import APPEND_TIMEOUT_MS
from woodpecker.testing.faults.lives import Lives
from woodpecker.testing.faults.nodes import Nodes
from woodpecker.testing.faults.places import STORES, Place
from woodpecker.testing.servers.logstore import LogStoreNode
from woodpecker.testing.servers.network import Network
from woodpecker.testing.servers.relay import Relay, Way

CLIENTS = "clients"
NODES = 3
FAULT_S = (0.3, 8.0)
KILL_SHARE = 0.1  # of rounds in which nodes are struck as well
SAY_EVERY = 20


def hosts() -> list[str]:
    """Names of all hosts."""
    return [CLIENTS, STORES, *(f"node-{number + 1}" for number in range(NODES))]


class Farm(Place):
    """A place whose nodes and stores are on hosts of ``network``, each node behind a relay."""

    def __init__(self, directory: Path, network: Network, *, seed: int) -> None:
        super().__init__("quorum", directory, seed=seed, nodes=NODES, host_of=network.host)
        self.network = network
        self.relays: dict[str, Relay] = {}
        self._stack = AsyncExitStack()

    async def make_node(self, name: str) -> LogStoreNode:
        """Others are told the relay's port."""
        listener = self.network.listener(name)
        node = LogStoreNode(
            name,
            self._directory,
            store=self.url,
            metadata=self.metadata,
            host=self.network.host(name),
            advertise_port=listener.getsockname()[1],
        )
        relay = Relay(
            (self.network.address(name), node.port),
            listener=listener,
            make_socket=lambda: self.network.open_socket(name),
            seed=self._seed,
        )
        self.relays[name] = await self._stack.enter_async_context(relay)
        return node

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        await self._stack.aclose()


async def partitions(
    directory: Path, network: Network, *, minutes: float, seed: int, command: str
) -> Report:
    """For ``minutes``; the calling thread is on the host ``CLIENTS``."""
    place = Farm(directory, network, seed=seed)
    until = time.monotonic() + minutes * 60
    async with arena("partitions", place, directory, seed=seed, command=command) as run:
        await run.create(append_timeout_ms=APPEND_TIMEOUT_MS)
        weather, lives = _Weather(run, place), Lives(run)
        struck = Nodes(run, lives)
        await lives.begin()
        rounds = 0
        while time.monotonic() < until and not run.report.is_hopeless:
            await _round(run, weather, struck, lives)
            rounds += 1
            if rounds % SAY_EVERY == 0:
                say(f"  {rounds} rounds")
        run.report.counts["rounds"] = rounds
        await struck.await_whole()
        await run.settle(await lives.finish())
        await struck.end()
        weather.count()
    return run.report


async def _round(run: Arena, weather: _Weather, struck: Nodes, lives: Lives) -> None:
    acts: list[Awaitable[object]] = [weather.turn()]
    strike = await struck.draw() if run.rng.random() < KILL_SHARE else None
    if strike is not None:
        acts.append(struck.strike(strike))
    if strike is None or not strike.takes_writer:
        acts.append(lives.turn())
    name, *_ = await asyncio.gather(*acts)
    await struck.heal()
    await run.must_progress(str(name))
    await lives.beside()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    name: str
    share: int
    begin: Callable[[_Weather], Awaitable[None]]


class _Weather:
    """What the network does; one or two faults at a time."""

    def __init__(self, run: Arena, place: Farm) -> None:
        self._place = place
        self._counts = run.report.counts
        self.rng = run.rng
        self.network = place.network
        self.relays = list(place.relays.values())
        self.nodes = [node.name for node in place.nodes]

    async def turn(self) -> str:
        """Bad weather for a while, then none; returns its name."""
        faults = self.rng.choices(FAULTS, [f.share for f in FAULTS], k=self.rng.choice((1, 1, 2)))
        for fault in faults:
            await fault.begin(self)
            self._counts[f"network: {fault.name}"] += 1
        await asyncio.sleep(self.rng.uniform(*FAULT_S))
        self.network.heal()
        for relay in self.relays:
            relay.heal()
        return " and ".join(fault.name for fault in faults)

    def count(self) -> None:
        """Injected by the relays."""
        for relay in self.relays:
            for what, count in relay.injected.items():
                self._counts[f"relay: {what}"] += count

    def cut(self, sender: str, receiver: str) -> None:
        """One direction."""
        self.network.cut(sender, receiver)

    def part(self, one: str, other: str) -> None:
        """Both directions."""
        self.cut(one, other)
        self.cut(other, one)

    def ways(self) -> list[Way]:
        """Directions through relays: of one node or all, in or out or both."""
        relays = self.rng.choice([[self.rng.choice(self.relays)], self.relays])
        choices = self.rng.choice((("to_server",), ("to_client",), ("to_server", "to_client")))
        return [getattr(relay, way) for relay in relays for way in choices]


async def _deaf(weather: _Weather) -> None:
    """Somebody does not hear somebody else, but is heard."""
    sender, receiver = weather.rng.sample(hosts(), 2)
    weather.cut(sender, receiver)


async def _from_clients(weather: _Weather) -> None:
    weather.part(CLIENTS, weather.rng.choice(weather.nodes))


async def _minority(weather: _Weather) -> None:
    """One node reaches nobody."""
    node = weather.rng.choice(weather.nodes)
    for other in hosts():
        if other != node:
            weather.part(node, other)


async def _majority(weather: _Weather) -> None:
    """Clients reach one node only."""
    for node in weather.rng.sample(weather.nodes, len(weather.nodes) - 1):
        weather.part(CLIENTS, node)


async def _from_stores(weather: _Weather) -> None:
    """Some cannot reach etcd and SeaweedFS."""
    victims = [CLIENTS, *weather.nodes]
    for victim in weather.rng.sample(victims, weather.rng.randint(1, len(victims))):
        weather.part(victim, STORES)


async def _between_nodes(weather: _Weather) -> None:
    weather.part(*weather.rng.sample(weather.nodes, 2))


async def _slow(weather: _Weather) -> None:
    delay_ms = weather.rng.choice((2, 20, 100, 500))
    for way in weather.ways():
        way.delay_ms, way.jitter_ms = delay_ms, delay_ms / 2


async def _lossy(weather: _Weather) -> None:
    loss = weather.rng.choice((0.01, 0.05, 0.3))
    for way in weather.ways():
        way.loss = loss


async def _stalled(weather: _Weather) -> None:
    for way in weather.ways():
        way.stall()


async def _flapping(weather: _Weather) -> None:
    """Connections break, and may be made again at once, or later."""
    for relay in weather.rng.sample(weather.relays, weather.rng.randint(1, len(weather.relays))):
        await relay.cut()
        if weather.rng.random() < 0.5:
            relay.heal()


FAULTS = (
    _Fault(name="one way cut", share=18, begin=_deaf),
    _Fault(name="a node away from clients", share=10, begin=_from_clients),
    _Fault(name="a node alone", share=12, begin=_minority),
    _Fault(name="clients with one node", share=8, begin=_majority),
    _Fault(name="away from the stores", share=12, begin=_from_stores),
    _Fault(name="two nodes apart", share=8, begin=_between_nodes),
    _Fault(name="slow", share=10, begin=_slow),
    _Fault(name="lossy", share=8, begin=_lossy),
    _Fault(name="stalled", share=8, begin=_stalled),
    _Fault(name="connections broken", share=6, begin=_flapping),
)
