"""ManagerService.Status: what this node does with each pchannel, to whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from woodpecker.streaming import frames
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.node.life import Tools
from woodpecker.streaming.node.outbox import Outbox
from woodpecker.streaming.node.owner import PchannelOwner
from woodpecker.streaming.ports import Stream

BEAT_MS = 1000.0


class Statuses:
    """All Status streams of a node.

    Attributes:
        is_known: a coordinator has asked, in this life.
    """

    def __init__(self, tools: Tools, owners: Mapping[str, PchannelOwner]) -> None:
        self._tools = tools
        self._owners = owners
        self._changed: dict[int, asyncio.Event] = {}
        self._streams = 0
        self.is_known = False

    def wake(self) -> None:
        """Something has changed: it is told at once."""
        for event in self._changed.values():
            event.set()

    async def serve(self, stream: Stream[frames.NodeStatus, frames.WatchStatus]) -> None:
        """First everything, then what changed, and a beat each second."""
        if await stream.receive() is None:
            return
        self.is_known = True
        outbox: Outbox[frames.NodeStatus] = Outbox(stream)
        self._streams += 1
        number = self._streams
        changed = self._changed[number] = asyncio.Event()
        spawn = self._tools.runtime.spawn
        tasks = [
            spawn(self._tell(outbox, changed), "tell status"),
            spawn(_until_gone(stream, outbox), "watch a Status stream"),
            spawn(self._beat(changed), "beats of a Status stream"),
        ]
        try:
            await outbox.run()
        finally:
            del self._changed[number]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, outbox: Outbox[frames.NodeStatus], changed: asyncio.Event) -> None:
        told: dict[str, frames.PchannelStatus] = {}
        is_full = True
        while True:
            await outbox.wait_below(1)
            changed.clear()
            now = {name: owner.status for name, owner in self._owners.items()}
            news = [status for name, status in now.items() if told.get(name) != status]
            told = now
            outbox.put(self._frame(news, is_full=is_full), 1)
            is_full = False
            await changed.wait()

    async def _beat(self, changed: asyncio.Event) -> None:
        while True:
            await self._tools.runtime.sleep_ms(BEAT_MS)
            changed.set()

    def _frame(self, news: list[frames.PchannelStatus], *, is_full: bool) -> frames.NodeStatus:
        tools = self._tools
        return frames.NodeStatus(
            node=tools.node,
            incarnation=tools.incarnation,
            is_full=is_full,
            pchannels=news,
            clock_us=tools.clock.tell(),
            memory_bytes=tools.budget.size_bytes,
        )


async def _until_gone(
    stream: Stream[frames.NodeStatus, frames.WatchStatus], outbox: Outbox[frames.NodeStatus]
) -> None:
    try:
        while await stream.receive() is not None:
            pass
    except Refused:
        pass
    outbox.end()
