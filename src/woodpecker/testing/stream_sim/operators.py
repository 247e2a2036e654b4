"""Who runs the service: an operator who moves and drains, and whoever tells all channels something."""

from __future__ import annotations

import asyncio

from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.requests import Drain, Move
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim.books import Announced
from woodpecker.testing.stream_sim.town import AGAIN_S, SlotDialer, Town, created

BROADCASTS = 12
RESOURCES = ((), ("schema",), ("schema",), ("rights", "schema"))


class OperatorUser:
    """Moves pchannels and drains nodes, without asking why."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._dialer = SlotDialer(town, machine.name)

    async def main(self) -> None:
        rng, plan = self._machine.rng, self._town.plan
        while not self._machine.is_over:
            await asyncio.sleep(rng.expovariate(0.25))
            address = rng.choice(self._town.addresses)
            node = f"n{rng.randrange(plan.members)}"
            drain = rng.random() < 0.3
            try:
                endpoint = self._dialer.endpoint(address)
                if drain:
                    await endpoint.call(Drain(node=node, draining=rng.random() < 0.5))
                else:
                    await endpoint.call(Move(pchannel=f"p{rng.randrange(2)}", node=node))
                self._town.coverage["operator: drain" if drain else "operator: move"] += 1
            except Refused:
                continue


class BroadcasterUser:
    """Tells several channels something, again and again until it is told that it is done.

    What an earlier life of its slot has begun it sends again, under the same key.
    """

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._slot = machine.name.partition(".")[0]
        self._mine = town.announced.setdefault(self._slot, [])

    async def main(self) -> None:
        rng, plan = self._machine.rng, self._town.plan
        names = [f"ch{number}" for number in range(plan.channels)]
        async with self._town.client(self._machine, timeout_s=plan.timeout_s) as client:
            for name in names:
                await created(self._town, client, name)
            for one in list(self._mine):
                if one.positions is None:
                    await self._tell(client, one)
            while not self._machine.is_over and len(self._mine) < BROADCASTS:
                await asyncio.sleep(rng.expovariate(0.5))
                if self._mine and rng.random() < 0.2:
                    await self._tell(client, rng.choice(self._mine))
                    continue
                key = f"{self._slot}-{len(self._mine)}"
                targets = tuple(rng.sample(names, rng.randint(1, len(names))))
                one = Announced(key, key.encode(), targets, rng.choice(RESOURCES))
                self._mine.append(one)
                await self._tell(client, one)

    async def _tell(self, client: StreamingClient, one: Announced) -> None:
        while True:
            try:
                positions = await client.broadcast(
                    one.targets, one.payload, key=one.key, type="a", resources=one.resources
                )
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(AGAIN_S)
                continue
            self._note(one, positions)
            return

    def _note(self, one: Announced, positions: dict[str, Position]) -> None:
        """S12: a key stands for one broadcast, whoever asks again."""
        if one.positions is not None and one.positions != positions:
            self._town.fail("S12", f"{one} was told again as {positions}")
        self._town.coverage[
            "broadcast done" if one.positions is None else "broadcast repeated"
        ] += 1
        one.positions = positions
