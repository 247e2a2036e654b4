"""A streaming service under load that loses everything once: nodes, coordinators, etcd, the object store.

After each strike every channel must go on within ``PROGRESS_S``; the longest pause of any of them is the
strike's figure. At the end nothing acknowledged may be lost or repeated, transactions are whole or not there, and a
consumer that has lived throughout was given exactly what is kept.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from woodpecker.app_streaming import connect
from woodpecker.cli.stream_session import Desk
from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming.requests import DescribeCluster, Drain, Move
from woodpecker.streaming.transport.grpc_client import GrpcDialer
from woodpecker.testing.faults.arena import Report, say
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.stream_load import ChannelLoad
from woodpecker.testing.servers.process import Host
from woodpecker.testing.servers.relay import Relay, listen_on
from woodpecker.testing.servers.streaming import StreamingMember

NODES, COORDINATORS = 3, 2
PROGRESS_S = 150.0
MORE = 20  # messages of each channel between two strikes
OUTAGE_S, TTL_S = 10.0, 6.0
TIED = Host(is_tied=True)


class Service:
    """What is struck."""

    def __init__(self, place: Place, directory: Path, rng: random.Random) -> None:
        store = "wp://" + ",".join(node.address for node in place.nodes)
        self.place = place
        self.rng = rng
        self.loaded: list[str] = []  # names of the channels that are used
        self.nodes: list[StreamingMember] = []
        self.doors: dict[str, Relay] = {}  # by node: through which others reach it
        self.to_etcd: dict[str, Relay] = {}  # by node: through which it reaches etcd
        self._relays = AsyncExitStack()
        host, _, port = place.etcd.endpoint.rpartition(":")
        etcd = (host, int(port))
        for number in range(1, NODES + 1):
            name = f"stream-{number}"
            self.to_etcd[name] = Relay(etcd, listener=listen_on("127.0.0.1"))
            door = listen_on("127.0.0.1")
            node = StreamingMember(
                name,
                directory,
                node=name,
                store=store,
                metadata=f"etcd://127.0.0.1:{self.to_etcd[name].port}/run",
                advertise_port=door.getsockname()[1],
                host=TIED,
            )
            self.doors[name] = Relay(("127.0.0.1", node.port), listener=door)
            self.nodes.append(node)
        self.coordinators = [
            StreamingMember(f"coordinator-{n}", directory, store=store, host=TIED)
            for n in range(1, COORDINATORS + 1)
        ]

    @property
    def members(self) -> list[StreamingMember]:
        """All processes of the service."""
        return [*self.coordinators, *self.nodes]

    @property
    def addresses(self) -> list[str]:
        """Of all of them."""
        return [member.address for member in self.members]

    async def start(self) -> None:
        """All of it."""
        for relay in (*self.doors.values(), *self.to_etcd.values()):
            await self._relays.enter_async_context(relay)
        for member in self.members:
            member.spawn()
        for member in self.members:
            await member.wait_ready()

    async def end(self) -> None:
        """At once."""
        for member in self.members:
            await member.kill()
        await self._relays.aclose()

    async def pause(self, least_s: float, most_s: float) -> None:
        """Some time."""
        await asyncio.sleep(self.rng.uniform(least_s, most_s))

    async def node(self) -> StreamingMember:
        """A node that has one of the loaded channels."""
        name = self.rng.choice(self.loaded)
        found = self.rng.choice(self.nodes)

        async def look(desk: Desk) -> None:
            nonlocal found
            pchannel = (await desk.channel(name)).pchannel
            state = await desk.ask(DescribeCluster(), "find an owner")
            owners = {each.pchannel: each.node for each in state.pchannels}
            found = next((node for node in self.nodes if node.node == owners[pchannel]), found)

        await self.ask(look)
        return found

    async def ask(self, work: Callable[[Desk], Awaitable[None]]) -> None:
        """Ask the coordinator, as commands do; what it refuses is no fault."""
        runtime = SystemRuntime()
        dialer = GrpcDialer(runtime)
        desk = Desk(dialer, self.addresses, runtime)
        try:
            await work(desk)
        except WoodpeckerError as error:
            say(f"    refused: {error}")
        finally:
            await desk.close()
            await dialer.close()


# --- strikes ---------------------------------------------------------------------------------------------


async def node_killed(service: Service) -> None:
    """Killed outright, and it comes back."""
    node = await service.node()
    await node.kill()
    await service.pause(0, 8)
    await node.start()


async def node_stopped(service: Service) -> None:
    """SIGTERM, and it comes back."""
    node = await service.node()
    await node.stop()
    await service.pause(0, 3)
    await node.start()


async def node_paused(service: Service) -> None:
    """It sleeps, perhaps for longer than its session, and wakes up as an owner of former days."""
    node = await service.node()
    node.pause()
    await service.pause(1, 12)
    node.resume()


async def coordinator_killed(service: Service) -> None:
    """One of the two."""
    coordinator = service.rng.choice(service.coordinators)
    await coordinator.kill()
    await service.pause(0, 8)
    await coordinator.start()


async def both_killed(service: Service) -> None:
    """A node and a coordinator at once."""
    await asyncio.gather(node_killed(service), coordinator_killed(service))


async def pchannel_moved(service: Service) -> None:
    """A planned move."""
    name = service.rng.choice(service.loaded)

    async def move(desk: Desk) -> None:
        await desk.ask(Move(pchannel=(await desk.channel(name)).pchannel), "move")

    await service.ask(move)
    await service.pause(1, 2)


async def node_drained(service: Service) -> None:
    """Emptied, and taken back."""
    node = (await service.node()).node

    async def drain(desk: Desk) -> None:
        await desk.ask(Drain(node=node), "drain")
        await service.pause(3, 6)
        await desk.ask(Drain(node=node, draining=False), "take back")

    await service.ask(drain)


async def logstore_killed(service: Service) -> None:
    """One of the three nodes that hold open segments."""
    node = service.rng.choice(service.place.nodes)
    await node.kill()
    await service.pause(0, 5)
    await node.start()


async def etcd_stopped(service: Service) -> None:
    """Ten seconds without metadata."""
    service.place.etcd.pause()
    await asyncio.sleep(OUTAGE_S)
    service.place.etcd.resume()


async def object_store_stopped(service: Service) -> None:
    """Ten seconds without the bucket."""
    assert service.place.server is not None
    service.place.server.pause()
    await asyncio.sleep(OUTAGE_S)
    service.place.server.resume()


async def node_without_etcd(service: Service) -> None:
    """Longer than its session; it is asked whether it serves, and keeps what it has."""
    relay = service.to_etcd[(await service.node()).node]
    await relay.cut()
    await asyncio.sleep(OUTAGE_S + TTL_S)
    relay.heal()


async def node_cut_off(service: Service) -> None:
    """From etcd, coordinators and clients, but not from the logs: it goes on as owner beside its successor."""
    name = (await service.node()).node
    relays = (service.to_etcd[name], service.doors[name])
    await asyncio.gather(*(relay.cut() for relay in relays))
    await asyncio.sleep(OUTAGE_S + TTL_S)
    for relay in relays:
        relay.heal()


STRIKES: Mapping[str, Callable[[Service], Awaitable[None]]] = {
    strike.__name__.replace("_", " "): strike
    for strike in (
        node_killed, node_stopped, node_paused, coordinator_killed, both_killed, pchannel_moved,
        node_drained, node_without_etcd, node_cut_off, logstore_killed, etcd_stopped, object_store_stopped,
    )
}  # fmt: skip


async def streaming(
    directory: Path, *, strikes: int, channels: int, loaded: int, seed: int, command: str
) -> Report:
    """``strikes`` of them, all kinds in turn, on ``channels`` channels of which ``loaded`` are used."""
    report = Report(title="streaming service", seed=seed, command=command)
    rng, began_s = random.Random(seed), time.monotonic()
    async with Place("quorum", directory, seed=seed) as place:
        service = Service(place, directory, rng)
        try:
            await service.start()
            await _run(service, report, strikes=strikes, channels=channels, loaded=loaded)
        finally:
            await service.end()
    report.seconds = time.monotonic() - began_s
    return report


async def _run(
    service: Service, report: Report, *, strikes: int, channels: int, loaded: int
) -> None:
    names = [f"channel-{number}" for number in range(channels)]
    async with connect(service.addresses) as client:
        for name in names:
            await client.create_channel(name)
    report.counts["channels"] = len(names)
    service.loaded = names[:loaded]
    loads = [ChannelLoad(service.addresses, name, service.rng) for name in service.loaded]
    pauses: dict[str, list[float]] = defaultdict(list)
    await _progress(report, loads, "the start")
    order = list(STRIKES)
    for number in range(strikes):
        if number % len(order) == 0:
            service.rng.shuffle(order)
        name = order[number % len(order)]
        for load in loads:
            load.mark()
        await STRIKES[name](service)
        await _progress(report, loads, name)
        pauses[name].append(max(load.longest_s for load in loads))
        report.counts[f"strike: {name}"] += 1
        say(f"  {name}: longest pause {pauses[name][-1]:.1f} s")
        if report.is_hopeless:
            return
    for load in loads:
        await load.end()
    for load in loads:
        await load.judge(report)
    report.details = {"longest pause of a channel, s": _rounded(pauses)}


async def _progress(report: Report, loads: list[ChannelLoad], after: str) -> None:
    found = await asyncio.gather(
        *(load.more(MORE, PROGRESS_S) for load in loads), return_exceptions=True
    )
    for load, error in zip(loads, found, strict=True):
        if isinstance(error, TimeoutError):
            report.fail(
                "progress", f"{load.name} stands still for {PROGRESS_S:.0f} s after {after}"
            )
        elif error is not None:
            report.fail("progress", f"{load.name} has ended after {after}: {error!r}")


def _rounded(pauses: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(pause, 2) for pause in found] for name, found in sorted(pauses.items())}
