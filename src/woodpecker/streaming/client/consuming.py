"""The consumers of one pchannel: one Consume stream to its owner, shared by all of them.

Each consumer knows its own next position. After a cut, a ``Moved`` or a newer owner in the map it subscribes
again there: no gap and no repeat. The stream is always read; credit alone bounds what comes.
"""

from __future__ import annotations

import asyncio
from itertools import count

from woodpecker import errors
from woodpecker.streaming.client.bell import Bell
from woodpecker.streaming.client.consumer import Asked, Consumer, share_of
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.failures import HANDLED, ROUTING, as_error
from woodpecker.streaming.client.following import follow_owner, greet, moved
from woodpecker.streaming.client.routing import Route, pause_ms
from woodpecker.streaming.core.refusals import Refusal, Refused
from woodpecker.streaming.frames import (
    AskProgress,
    Close,
    Closed,
    ConsumeDown,
    ConsumeHello,
    ConsumeReady,
    ConsumerEnded,
    ConsumerRefused,
    ConsumeUp,
    Credit,
    Data,
    MapEntry,
    Moved,
    Progress,
    Started,
    Unsubscribe,
)
from woodpecker.streaming.ports import Stream


class ConsumeLane:
    """Receives for all consumers of one pchannel in this client."""

    def __init__(self, env: Environment, pchannel: str) -> None:
        self._env = env
        self._pchannel = pchannel
        self._route = Route(env.routing, env.runtime, pchannel)
        self._consumers: dict[int, Consumer] = {}
        self._numbers = count(1)
        self._dirty: dict[int, None] = {}  # consumers with something to say to the owner
        self._gone: dict[int, None] = {}  # consumers to take off the stream
        self._asks_progress = False
        self._bell = Bell()
        self._is_on = False
        self._task: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """What keeps it from its owner."""
        met = self._route.refusal
        return "nobody owns it as far as is known" if met is None else met.message

    # --- consumers come and go ---

    def open(self, asked: Asked, credit_bytes: int | None) -> Consumer:
        """One more consumer."""
        settings = self._env.settings
        others = self._consumers.values()
        window = share_of(
            credit_bytes or settings.credit_bytes,
            sum(other.window_bytes for other in others),
            len(others),
            settings.stream_credit_bytes,
        )
        consumer = Consumer(next(self._numbers), asked, window)
        self._consumers[consumer.number] = consumer
        if self._task is None:
            work = self._follow()
            self._task = self._env.runtime.spawn(work, f"consume from {self._pchannel}")
        self.wake(consumer)
        return consumer

    def leave(self, consumer: Consumer) -> None:
        """It is not read any more. The last one ends the stream. Idempotent."""
        if self._consumers.pop(consumer.number, None) is None:
            return
        self._dirty.pop(consumer.number, None)
        if consumer.is_on:
            self._gone[consumer.number] = None
            self._bell.ring()
        if not self._consumers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """The client is closed."""
        for consumer in self._consumers.values():
            consumer.end(errors.Closed("this client was closed: connect again"))
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def wake(self, consumer: Consumer) -> None:
        """It may have credit to give, or have to subscribe."""
        if consumer.number in self._consumers:
            self._dirty[consumer.number] = None
            self._bell.ring()

    def ask_progress(self) -> None:
        """Have the owner say at once how far it is."""
        self._asks_progress = True
        self._bell.ring()

    # --- one stream after another ---

    async def _follow(self) -> None:
        await follow_owner(self._env, self._route, lambda at: at.consume(), self._talk)

    async def _talk(self, stream: Stream[ConsumeUp, ConsumeDown], entry: MapEntry) -> None:
        hello = ConsumeHello(
            pchannel=self._pchannel,
            term=entry.term,
            incarnation=entry.incarnation,
            client=self._env.name,
        )
        ready = await greet(stream, hello, entry)
        if not isinstance(ready, ConsumeReady):
            raise Refused(moved(entry))
        self._dirty = dict.fromkeys(self._consumers)
        sender = self._env.runtime.spawn(self._send(stream), f"ask {self._pchannel}")
        try:
            while (frame := await stream.receive()) is not None:
                self._take(frame, entry)
        finally:
            sender.cancel()
            self._gone.clear()
            for consumer in self._consumers.values():
                consumer.is_on = False
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, stream: Stream[ConsumeUp, ConsumeDown]) -> None:
        while True:
            frame, pause_ms = self._next_frame()
            if frame is None:
                await self._bell.wait(pause_ms)
                if pause_ms is not None:
                    self._dirty.update(dict.fromkeys(self._consumers))
                continue
            try:
                await stream.send(frame)
            except Refused:
                return  # whoever receives finds out as well

    def _next_frame(self) -> tuple[ConsumeUp | None, float | None]:
        """What to send now; if nothing, after which time to look again."""
        for number in self._gone:
            del self._gone[number]
            return Unsubscribe(consumer=number), None
        now_ms = self._env.runtime.monotonic_ms()
        while self._dirty:
            number = next(iter(self._dirty))
            del self._dirty[number]
            consumer = self._consumers[number]
            if consumer.is_over:
                continue
            if consumer.is_on:
                size_bytes = consumer.due_credit()
                if size_bytes:
                    return Credit(consumer=number, size_bytes=size_bytes), None
            elif consumer.again_at_ms <= now_ms and consumer.has_room:
                return consumer.subscribe(), None
        if self._asks_progress:
            self._asks_progress = False
            return AskProgress(), None
        pauses = [c.again_at_ms - now_ms for c in self._consumers.values() if not c.is_on]
        return None, min((pause for pause in pauses if pause > 0), default=None)

    def _take(self, frame: ConsumeDown, entry: MapEntry) -> None:
        match frame:
            case Moved() | Close() | Closed():
                raise Refused(moved(entry))
            case Progress():
                self._route.worked()
                for number in frame.consumers or list(self._consumers):
                    consumer = self._on(number)
                    if consumer is not None and consumer.has_started:
                        consumer.on_progress(frame)
            case Data() | Started() | ConsumerEnded() | ConsumerRefused():
                consumer = self._on(frame.consumer)
                if consumer is not None:
                    self._give(consumer, frame, entry)

    def _give(
        self,
        consumer: Consumer,
        frame: Data | Started | ConsumerEnded | ConsumerRefused,
        entry: MapEntry,
    ) -> None:
        match frame:
            case Data():
                self._route.worked()
                consumer.on_data(frame)
            case Started():
                consumer.on_started(frame)
            case ConsumerEnded():
                consumer.end(None)
            case ConsumerRefused():
                self._on_refused(consumer, frame.refusal, entry)

    def _on(self, number: int) -> Consumer | None:
        consumer = self._consumers.get(number)
        return consumer if consumer is not None and consumer.is_on else None

    def _on_refused(self, consumer: Consumer, refusal: Refusal, entry: MapEntry) -> None:
        """Only this one has ended. If the owner has gone, the map or the end of the stream tells all."""
        consumer.is_on = False
        if refusal.kind not in HANDLED:
            consumer.end(as_error(refusal, "consuming"))
            return
        consumer.attempt += 1
        pause = pause_ms(consumer.attempt, self._env.runtime.random())
        now_ms = self._env.runtime.monotonic_ms()
        consumer.again_at_ms = now_ms + max(pause, refusal.after_ms)
        if refusal.kind in ROUTING:
            self._env.routing.report(entry, refusal.kind)
        self.wake(consumer)
