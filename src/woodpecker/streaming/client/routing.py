"""Who owns a pchannel, and whom to ask next: the map as coordinators push it, and one's own experience.

Any of the addresses may answer ``Discover``: nodes relay it, stand-by coordinators name the leader. While
nobody answers the last map goes on being used. What decides is the owner itself; the map only routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count

from woodpecker.core.backoff import delay_ms
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.client.bell import Bell
from woodpecker.streaming.core.assignment_map import EMPTY_MAP, AssignmentMap, applied
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.frames import (
    Close,
    DiscoverHello,
    DiscoverUp,
    MapChange,
    MapEntry,
    Report,
)
from woodpecker.streaming.ports import Dialer, Stream

FIRST_PAUSE_MS = 100.0
LAST_PAUSE_MS = 10_000.0
LAST_MAP_PAUSE_MS = 2_000.0  # of asking for the map: all that waits goes on with it
REPORTS = 4096  # (pchannel, term) that were reported, remembered

OnMap = Callable[[], None]


def pause_ms(attempt: int, chance: float) -> float:
    """Back-off of everything that is tried again, with jitter."""
    return delay_ms(attempt, chance, first_ms=FIRST_PAUSE_MS, limit_ms=LAST_PAUSE_MS)


class Routing:
    """Follows the map; one for each client.

    Attributes:
        map: the newest one known.
        is_closed: the client is; nothing is asked any more.
        trouble: what keeps one who asks, or looks for an owner, from an answer; "": nothing now.
    """

    def __init__(
        self, runtime: Runtime, dialer: Dialer, addresses: Sequence[str], client: str
    ) -> None:
        self.map: AssignmentMap = EMPTY_MAP
        self.is_closed = False
        self.trouble = ""
        self._runtime = runtime
        self._dialer = dialer
        self._given = tuple(addresses)
        self._client = client
        self._leader = ""
        self._watchers: dict[int, OnMap] = {}
        self._numbers = count()
        self._reported: dict[tuple[str, int], None] = {}
        self._stream: Stream[DiscoverUp, object] | None = None
        self._reports: asyncio.Queue[Report] = asyncio.Queue(REPORTS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = self._runtime.spawn(self._follow(), "streaming map")

    async def close(self) -> None:
        """Stop following."""
        self.is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def watch(self, on_map: OnMap) -> int:
        """Call ``on_map`` on each change of the map until ``unwatch`` of the number."""
        number = next(self._numbers)
        self._watchers[number] = on_map
        return number

    def unwatch(self, number: int) -> None:
        """See ``watch``."""
        del self._watchers[number]

    def owner(self, pchannel: str) -> MapEntry | None:
        """Who serves a pchannel as far as the map knows, or None: nobody yet."""
        entry = self.map.entries.get(pchannel)
        return entry if entry is not None and entry.serving and entry.address else None

    def candidates(self) -> Iterator[str]:
        """Addresses to ask, each once: the leader, those given, those of nodes that own something."""
        known = (entry.address for entry in self.map.entries.values())
        yield from dict.fromkeys(a for a in (self._leader, *self._given, *known) if a)

    def lead(self, address: str) -> None:
        """``address`` leads, or at least answers; "": nobody knows."""
        self._leader = address

    def report(self, entry: MapEntry, kind: Class) -> None:
        """Tell the coordinator what was met at an owner; once for each term."""
        key = (entry.pchannel, entry.term)
        if key in self._reported:
            return
        if len(self._reported) >= REPORTS:
            del self._reported[next(iter(self._reported))]
        self._reported[key] = None
        with suppress(asyncio.QueueFull):  # only a hint: the coordinator finds out by itself
            self._reports.put_nowait(
                Report(pchannel=entry.pchannel, term=entry.term, kind=kind.value)
            )

    # --- the stream ---

    async def _follow(self) -> None:
        attempt = 0
        while True:
            for address in list(self.candidates()):
                try:
                    if await self._discover(address):
                        attempt = 0
                except Refused as error:
                    self.lead(error.refusal.address)  # of a stand-by; "" else
                    if error.refusal.address:
                        break
            attempt += 1
            pause = pause_ms(attempt, self._runtime.random())
            await self._runtime.sleep_ms(min(pause, LAST_MAP_PAUSE_MS))

    async def _discover(self, address: str) -> bool:
        """Follow one stream to its end. Returns: whether it gave a map."""
        stream = self._dialer.endpoint(address).discover()
        sender = self._runtime.spawn(self._send_reports(stream), "streaming reports")
        has_map = False
        try:
            await stream.send(DiscoverHello(client=self._client))
            while (frame := await stream.receive()) is not None:
                match frame:
                    case MapChange():
                        await self._take(stream, frame)
                        self.lead(address)
                        has_map = True
                    case Close():
                        break
            return has_map
        except Refused:
            if has_map:
                return True  # it was good while it lasted
            raise
        finally:
            sender.cancel()
            stream.cut()
            await asyncio.gather(sender, return_exceptions=True)

    async def _take(self, stream: Stream[DiscoverUp, object], change: MapChange) -> None:
        after = applied(self.map, change)
        if after is None:
            if change.since is None:
                text = "the map and its digest differ"
                raise Refused(Refusal(kind=Class.CORRUPT, message=text))
            await stream.send(Report(resend_map=True))
        elif after is not self.map:
            self.map = after
            for on_map in list(self._watchers.values()):
                on_map()

    async def _send_reports(self, stream: Stream[DiscoverUp, object]) -> None:
        with suppress(Refused):
            while True:
                await stream.send(await self._reports.get())


class Route:
    """The way to one pchannel's owner, for one who goes there again and again."""

    def __init__(self, routing: Routing, runtime: Runtime, pchannel: str) -> None:
        self._routing = routing
        self._runtime = runtime
        self._pchannel = pchannel
        self._bell = Bell()
        self._failed: MapEntry | None = None
        self._again_at_ms = 0.0
        self._attempt = 0
        self.refusal: Refusal | None = None  # what was met last

    async def next(self) -> MapEntry:
        """The owner to try: at once if the map names another one than that which failed, else after a pause.

        Cancellation: at any time.
        """
        number = self._routing.watch(self._bell.ring)
        try:
            while True:
                owner = self._owner()
                left_ms = self._again_at_ms - self._runtime.monotonic_ms()
                if owner is not None and (left_ms <= 0 or not self._is_failed(owner)):
                    self._routing.trouble = ""
                    return owner
                self._routing.trouble = self.reason
                await self._bell.wait(left_ms if owner is not None else None)
        finally:
            self._routing.unwatch(number)

    @property
    def reason(self) -> str:
        """What keeps one from the owner."""
        if self.refusal is not None and self._owner() is not None:
            return self.refusal.message
        return (
            f"no streaming node serves pchannel {self._pchannel} as far as is known: see "
            "`woodpecker cluster status`, or start one with `woodpecker node serve`"
        )

    def is_stale(self, entry: MapEntry) -> bool:
        """Whether the map names a newer owner that serves: it wins over a stream that still lives."""
        owner = self._routing.owner(self._pchannel)
        return owner is not None and _life(owner) != _life(entry) and owner.term >= entry.term

    def failed(self, entry: MapEntry, refusal: Refusal) -> None:
        """``entry`` did not serve, or no longer: leave it alone for a while."""
        self.refusal = refusal
        self._failed = entry
        self._attempt += 1
        pause = pause_ms(self._attempt, self._runtime.random())
        self._again_at_ms = self._runtime.monotonic_ms() + max(pause, refusal.after_ms)
        if refusal.kind in (Class.MOVED, Class.UNKNOWN):
            self._routing.report(entry, refusal.kind)

    def worked(self) -> None:
        """The owner serves."""
        self._attempt = 0
        self.refusal = None

    def _owner(self) -> MapEntry | None:
        """Who serves as far as the map knows; nobody, if it names one that was replaced by whom we met since."""
        owner, met = self._routing.owner(self._pchannel), self._failed
        return None if owner is None or (met is not None and owner.term < met.term) else owner

    def _is_failed(self, owner: MapEntry) -> bool:
        return self._failed is not None and _life(owner) == _life(self._failed)


def _life(entry: MapEntry) -> tuple[int, str, str]:
    return entry.term, entry.incarnation, entry.address
