"""The map as clients get it: whole at first, then what changes; one object serves all streams.

What changes within a few milliseconds is published together. A stream that falls behind by more than
``KEPT_COUNT`` versions gets the whole map once more: the memory for pushes does not grow with the number of
streams or of changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.core.assignment_map import EMPTY_MAP, AssignmentMap
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.frames import (
    Close,
    DiscoverDown,
    DiscoverHello,
    DiscoverUp,
    MapChange,
    MapEntry,
    MapVersion,
    Report,
)
from woodpecker.streaming.ports import Stream

KEPT_COUNT = 64
GATHER_MS = 10.0


class Publisher:
    """Versions of the map, and the streams that follow them. One event loop.

    Args:
        epoch: of the coordinator: first part of every version.
        on_report: a client could not use an owner.
    """

    def __init__(self, runtime: Runtime, epoch: int, on_report: Callable[[Report], None]) -> None:
        self._runtime = runtime
        self._epoch = epoch
        self._on_report = on_report
        self._pending: dict[str, MapEntry] = {}
        self._has_pending = asyncio.Event()
        self._steps: deque[MapChange] = deque(maxlen=KEPT_COUNT)
        self._whole: MapChange | None = None
        self._followers: dict[int, _Follower] = {}
        self._joined = 0
        self.map: AssignmentMap = EMPTY_MAP

    @property
    def streams(self) -> int:
        """How many follow."""
        return len(self._followers)

    def show(self, entry: MapEntry) -> None:
        """The pchannel is so; nothing happens if it was so already."""
        if self._pending.get(entry.pchannel, self.map.entries.get(entry.pchannel)) != entry:
            self._pending[entry.pchannel] = entry
            self._has_pending.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._has_pending.wait()
            await self._runtime.sleep_ms(GATHER_MS)
            self._publish()

    def _publish(self) -> None:
        version = MapVersion(epoch=self._epoch, counter=self.map.version.counter + 1)
        before, self.map = self.map, self.map.changed(version, self._pending.values())
        self._steps.append(
            MapChange(
                version=version,
                entries=tuple(self._pending.values()),
                digest=self.map.digest,
                since=before.version,
            )
        )
        self._pending = {}
        self._has_pending.clear()
        self._whole = None
        for follower in self._followers.values():
            follower.wake.set()

    def end(self) -> None:
        """End all streams."""
        for follower in self._followers.values():
            follower.end()

    async def serve(self, stream: Stream[DiscoverDown, DiscoverUp]) -> None:
        """One Discover stream, until either side ends it. Raises: Refused(UNKNOWN): it was cut."""
        hello = await stream.receive()
        if not isinstance(hello, DiscoverHello):
            return
        follower = _Follower(self, stream)
        reading = self._runtime.spawn(
            follower.read(self._on_report), f"reports of {hello.client or 'a client'}"
        )
        self._joined += 1
        number = self._joined
        self._followers[number] = follower
        try:
            await follower.push()
        finally:
            del self._followers[number]
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def frames_since(self, version: MapVersion | None) -> list[MapChange]:
        """What leads somebody who has ``version`` to the newest map; none if there is nothing yet."""
        if version == self.map.version:
            return []
        for index, step in enumerate(self._steps):
            if step.since == version:
                return list(self._steps)[index:]
        if self._whole is None:
            self._whole = self.map.whole()
        return [self._whole] if self.map.version > EMPTY_MAP.version else []


class _Follower:
    """One stream: what its client has, and whether it wants more."""

    def __init__(self, publisher: Publisher, stream: Stream[DiscoverDown, DiscoverUp]) -> None:
        self._publisher = publisher
        self._stream = stream
        self._wants_whole = True
        self._is_over = False
        self.wake = asyncio.Event()

    async def read(self, on_report: Callable[[Report], None]) -> None:
        """Take what the client says."""
        try:
            while (frame := await self._stream.receive()) is not None:
                if isinstance(frame, Close):
                    break
                if isinstance(frame, Report) and frame.resend_map:
                    self._wants_whole = True
                    self.wake.set()
                elif isinstance(frame, Report):
                    on_report(frame)
        except Refused:
            pass
        finally:
            self.end()

    def end(self) -> None:
        """Push no more."""
        self._is_over = True
        self.wake.set()

    async def push(self) -> None:
        """Send every version, or what leads past several."""
        version: MapVersion | None = None
        while not self._is_over:
            self.wake.clear()
            if self._wants_whole:
                version, self._wants_whole = None, False
            for frame in self._publisher.frames_since(version):
                await self._stream.send(frame)
                version = frame.version
            await self.wake.wait()
        await self._stream.send(Close())
