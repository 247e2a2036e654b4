"""The world of a streaming service: machines by the names of their slots, and the network between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.member import Member, Roles
from woodpecker.streaming.ports import Endpoint
from woodpecker.streaming.transport.memory import MemoryDialer, MemoryNetwork
from woodpecker.testing.sim.loop import SimLoop
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.weather import Fault, Weather
from woodpecker.testing.sim.world import Machine, World
from woodpecker.testing.stream_sim.books import Announced, Book
from woodpecker.testing.stream_sim.plan import Plan

AGAIN_S = 0.3


class Town(World):
    """A world with a network for streams.

    Attributes:
        newest: by slot ("n0"), the machine that goes by it now.
        books: by channel name; of channels that are deleted now and then, by name and vcid.
        numbers: of messages.
        announced: broadcasts, by the slot that sent them.
    """

    def __init__(self, loop: SimLoop, seed: int, plan: Plan, trace: Trace | None) -> None:
        super().__init__(loop, seed, trace)
        self.plan = plan
        self.streams = MemoryNetwork(self.runtime)
        self.streams.delay_ms = plan.net_ms
        self.newest: dict[str, str] = {}
        self.books: dict[str, Book] = {}
        self.numbers = count(1)
        self.announced: dict[str, list[Announced]] = {}

    def machine(self, name: str, on_objects: Weather, on_records: Weather) -> Machine:
        assert name not in self.machines, name
        machine = self.machines[name] = TownMachine(self, name, on_objects, on_records)
        self.newest[name.partition(".")[0]] = name
        return machine

    @property
    def addresses(self) -> list[str]:
        """Slots that answer clients."""
        nodes = [f"n{number}" for number in range(self.plan.members)]
        others = 0 if self.plan.combined else self.plan.coordinators
        return [*nodes, *(f"c{number}" for number in range(others))]

    def client(self, machine: Machine, *, timeout_s: float = 60.0) -> StreamingClient:
        """A client on a machine."""
        return StreamingClient(
            SlotDialer(self, machine.name),
            self.addresses,
            timeout_s=timeout_s,
            name=machine.name,
            runtime=machine.runtime,
            settings=self.plan.settings,
        )


class TownMachine(Machine):
    """A process whose streams break when it is killed."""

    world: Town

    def kill(self) -> None:
        super().kill()
        self.world.streams.crash(self.name)


class SlotDialer:
    """Reaches slots by their names, whichever machine goes by them; and machines by theirs."""

    def __init__(self, town: Town, source: str) -> None:
        self._town = town
        self._dialer: MemoryDialer = town.streams.dialer(source)

    def endpoint(self, address: str) -> Endpoint:
        if address in self._town.addresses:
            return SlotEndpoint(self._town, self._dialer, address)
        return self._dialer.endpoint(address)

    async def close(self) -> None:
        await self._dialer.close()


class SlotEndpoint:
    """One slot, looked up for each stream and call."""

    def __init__(self, town: Town, dialer: MemoryDialer, address: str) -> None:
        self.address = address
        self._town = town
        self._dialer = dialer

    def __getattr__(self, name: str) -> Any:
        machine = self._town.newest.get(self.address, self.address)
        return getattr(self._dialer.endpoint(machine), name)


@asynccontextmanager
async def opened(town: Town, machine: Machine, name: str) -> AsyncIterator[Channel]:
    """A client of its own, and the channel."""
    async with town.client(machine) as client:
        yield await created(town, client, name)


async def created(town: Town, client: StreamingClient, name: str) -> Channel:
    """The channel, made if need be."""
    while True:
        try:
            return await client.create_channel(
                name, exist_ok=True, retention_age_s=town.plan.retention_age_s
            )
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(AGAIN_S)


async def serve(town: Town, machine: Machine, slot: str) -> None:
    """A member, from its start until it is told to end."""
    is_node = slot.startswith("n")
    roles = Roles(coordinator=town.plan.combined or not is_node, node=slot if is_node else "")
    store = machine.client(background=False)
    while True:
        try:
            await store.open()
            break
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(AGAIN_S)
    member = Member(
        store, SlotDialer(town, machine.name), roles, address=machine.name,
        settings=town.plan.settings,
    )  # fmt: skip
    server = town.streams.serve(machine.name, member.services, runtime=machine.runtime)
    while True:
        try:
            await member.start()
            break
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(AGAIN_S)
    ends = [machine.should_end.wait()]
    if member.node is not None:
        ends.append(member.node.lost.wait())
    waits = [asyncio.ensure_future(one) for one in ends]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for one in waits:
        one.cancel()
    town.say(machine.name, "leaves")
    await member.stop()
    await server.close()
    await store.close()
    check_rest(town, machine)


def check_rest(town: Town, machine: Machine) -> None:
    """S13: whoever has left holds nothing and waits for nothing."""
    left = [name for name in machine.runtime.running() if "background" not in name]
    if left:
        town.fail("S13", f"{machine.name} has left, and still runs {left[:5]}")


NET_FAULTS = (Fault.NET_CUT, Fault.NET_ONE_WAY, Fault.NET_RESET, Fault.NET_SLOW)
