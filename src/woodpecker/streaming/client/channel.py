"""A channel, as users see it."""

from __future__ import annotations

from woodpecker.errors import Closed
from woodpecker.streaming.client.calls import ask_owner
from woodpecker.streaming.client.consumer import Asked
from woodpecker.streaming.client.consuming import ConsumeLane
from woodpecker.streaming.client.deliveries import BatchConsumption, Consumption
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.messages import as_where
from woodpecker.streaming.client.places import StartInput, StopInput, parse_start, parse_stop
from woodpecker.streaming.client.producer import Producer
from woodpecker.streaming.client.producing import ProduceLane
from woodpecker.streaming.client.subscriptions import Subscription
from woodpecker.streaming.core.values import ANYTHING, Position, Where
from woodpecker.streaming.requests import Channel as ChannelInfo
from woodpecker.streaming.requests import GetReadPoint


class Lanes:
    """The streams of one client, by pchannel."""

    def __init__(self, env: Environment) -> None:
        self.is_closed = False
        self._env = env
        self._produce: dict[str, ProduceLane] = {}
        self._consume: dict[str, ConsumeLane] = {}

    def produce(self, pchannel: str) -> ProduceLane:
        """Where producers of a pchannel send. Raises: Closed."""
        self._check()
        if pchannel not in self._produce:
            self._produce[pchannel] = ProduceLane(self._env, pchannel)
        return self._produce[pchannel]

    def consume(self, pchannel: str) -> ConsumeLane:
        """Where consumers of a pchannel receive. Raises: Closed."""
        self._check()
        if pchannel not in self._consume:
            self._consume[pchannel] = ConsumeLane(self._env, pchannel)
        return self._consume[pchannel]

    async def close(self) -> None:
        """End all of them."""
        self.is_closed = True
        for producing in self._produce.values():
            await producing.close()
        for consuming in self._consume.values():
            await consuming.close()

    def _check(self) -> None:
        if self.is_closed:
            raise Closed("this client is closed; connect again")


class Channel:
    """One named channel. Cheap: make as many as you like.

    It stands for what had this name when it was opened: when that is deleted, calls raise NotFound, even if
    another channel gets the name.

    Attributes:
        name: of the channel.
        attributes: free-form text kept with it.
        retention_age_s: how long messages are kept; None: for ever.
    """

    def __init__(self, env: Environment, lanes: Lanes, info: ChannelInfo) -> None:
        self._env = env
        self._lanes = lanes
        self._info = info
        self.name = info.name
        self.attributes = dict(info.attributes)
        self.retention_age_s = info.retention_age_s

    @property
    def vcid(self) -> int:
        """Its number, never used again."""
        return self._info.vcid

    @property
    def pchannel(self) -> str:
        """What it shares with other channels: an owner, and an order of ticks."""
        return self._info.pchannel

    def __repr__(self) -> str:
        return f"<Channel {self.name!r}, number {self.vcid} on {self.pchannel}>"

    def producer(self, name: str | None = None) -> Producer:
        """A producer, for ``async with``.

        Args:
            name: a producer of the same name that is still at work is fenced, and what it left open is
                aborted; None: a producer of its own.
        """
        return Producer(self._env, self._lanes.produce(self.pchannel), self._info, name)

    def consume(
        self,
        start: StartInput = "earliest",
        *,
        end: StopInput = None,
        where: Where = ANYTHING,
        ticks: bool = False,
        credit_bytes: int | None = None,
    ) -> Consumption:
        """Messages from ``start`` on, one by one; asked for when the first one is awaited.

        Args:
            start: "earliest" | "latest" | position (with that message; ``position.after()``: behind it) |
                seq | datetime with a time zone or ``Tick``: the first message at or after that time.
            end: exclusive: position | seq | datetime | ``Tick`` | "tail": what is there when it begins.
                None: never.
            where: only these messages.
            ticks: also give a ``TickSignal`` from time to time: no message at or below it will come.
            credit_bytes: how much may be on its way; 4 MiB by default.
        Raises: InvalidRequest: not a place. While iterating: see ``Consumption``.
        """
        asked = self._asked(start, end, where, ticks=ticks)
        return Consumption(self._lanes.consume(self.pchannel), asked, credit_bytes)

    def consume_batches(
        self,
        start: StartInput = "earliest",
        *,
        end: StopInput = None,
        where: Where = ANYTHING,
        credit_bytes: int | None = None,
    ) -> BatchConsumption:
        """As ``consume``, in lists: messages that were written together, or all of a transaction."""
        asked = self._asked(start, end, where, ticks=False)
        return BatchConsumption(self._lanes.consume(self.pchannel), asked, credit_bytes)

    def subscribe(
        self, cursor: str, *, start: StartInput = "earliest", where: Where | None = None
    ) -> Subscription:
        """Consume under a durable cursor, for ``async with``; what is not acknowledged comes again.

        Args:
            cursor: its name in the channel. Whoever attaches last has it; others get Fenced.
            start: where it begins if it is new; see ``consume``.
            where: only these messages; it is kept with the cursor and cannot change. None: as the cursor has
                it, all for a new one.
        """
        lane = self._lanes.consume(self.pchannel)
        kept = None if where is None else as_where(where)
        return Subscription(self._env, lane, self._info, cursor, parse_start(start), kept)

    async def read_point(self) -> Position:
        """Where one must have read to, to have seen all that was acknowledged before this call.

        Raises: Unavailable: no owner could tell in time. NotFound: the channel was deleted.
        """
        request = GetReadPoint(pchannel=self.pchannel, vcid=self.vcid)
        what = f"read point of channel {self.name!r}"
        return (await ask_owner(self._env, self.pchannel, request, what)).position

    def _asked(self, start: StartInput, end: StopInput, where: Where, *, ticks: bool) -> Asked:
        return Asked(
            vcid=self.vcid,
            start=parse_start(start),
            stop=parse_stop(end),
            where=as_where(where),
            ticks=ticks,
        )
