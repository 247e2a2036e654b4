"""Consume streams: one per client and pchannel, with any number of consumers on it.

Consumers send by themselves (``consumer.py``); here frames are received, and Progress is told: once for the
whole stream where it can be, and for those who are behind one by one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

from woodpecker.errors import WoodpeckerError
from woodpecker.streaming import frames
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import EndForm, Position
from woodpecker.streaming.node.consumer import Consumer
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.outbox import Outbox
from woodpecker.streaming.node.refusing import refusal_from
from woodpecker.streaming.node.starts import begin_of, channel_of
from woodpecker.streaming.ports import Stream

LEAST_CREDIT_BYTES = 16 << 10  # of a consumer, however many there are
MOST_BACKLOG = 10_000  # frames
FULL_MS = 1_000
_log = logging.getLogger("woodpecker.streaming")

PROGRESS_MS = 1000.0  # without data, everybody hears this often


@dataclass(slots=True, kw_only=True, eq=False)
class _Place:
    """One consumer of the stream; ``consumer`` None: it is about to begin."""

    wish: frames.Subscribe
    consumer: Consumer | None = None
    task: asyncio.Task[None] | None = None
    seat: int = 0  # in the audience
    credit: int = 0  # that came before it began
    told: int = -1  # messages sent when Progress was told last
    seen: int = 0  # messages sent when looked at last
    position: Position = field(default=Position(-1))  # told last


class Consumption:
    """One Consume stream on the life that serves it."""

    def __init__(self, life: Life, stream: Stream[frames.ConsumeDown, frames.ConsumeUp]) -> None:
        self._life = life
        self._stream = stream
        self._outbox: Outbox[frames.ConsumeDown] = Outbox(stream)
        self._places: dict[int, _Place] = {}
        self._credit_bytes = 0  # of all of them
        self._told_ms = life.runtime.monotonic_ms()
        self._telling: asyncio.Task[None] | None = None
        self._is_quick = False  # somebody asked for signals of time, or ends by them

    async def run(self) -> None:
        """Serve until the stream ends."""
        self._outbox.put(frames.ConsumeReady(term=self._life.term))
        number = self._life.join(self)
        spawn = self._life.runtime.spawn
        receiving = spawn(self._receive(), "receive a Consume stream")
        self._tell_from_now_on()
        try:
            await self._outbox.run()
        finally:
            self._life.part(number)
            tasks = [receiving, *([self._telling] if self._telling else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_all()

    # --- what the life says ---

    def leave(self, last: frames.Moved) -> None:
        """The life has ended."""
        self._outbox.end(last, frames.Closed())

    def tell_rate(self, rate_bytes_s: int) -> None:
        """Of no concern to consumers."""

    # --- receiving ---

    async def _receive(self) -> None:
        try:
            await self._receive_all()
        except Refused:  # the client has gone
            self._outbox.end()
        except Exception:  # noqa: BLE001  the log says why, the client sees a cut
            _log.exception("a Consume stream of %s failed", self._life.name)
            self._stream.cut()
            self._outbox.end()

    async def _receive_all(self) -> None:
        most_bytes = self._life.settings.stream_credit_bytes
        while (frame := await self._stream.receive()) is not None:
            match frame:
                case frames.Subscribe():
                    await self._outbox.wait_below(most_bytes)  # the client has to read, too
                    self._subscribe(frame)
                case frames.Credit():
                    self._credit(frame)
                case frames.Unsubscribe(consumer=number):
                    self._unsubscribe(number)
                case frames.AskProgress():
                    self._tell()
                case frames.Close():
                    break
        self._outbox.end(frames.Closed())

    def _credit(self, frame: frames.Credit) -> None:
        place = self._places.get(frame.consumer)
        if place is None:
            return
        if place.consumer is None:
            place.credit += frame.size_bytes
        else:
            place.consumer.add_credit(frame.size_bytes)

    def _subscribe(self, wish: frames.Subscribe) -> None:
        refusal = self._problem_of(wish)
        if refusal is not None:
            self._outbox.put(frames.ConsumerRefused(consumer=wish.consumer, refusal=refusal))
            return
        # of what the client would take, no more than is left for all: the node may always send less
        left = self._life.settings.stream_credit_bytes - self._credit_bytes
        granted = min(wish.credit_bytes, max(left, LEAST_CREDIT_BYTES))
        wish = replace(wish, credit_bytes=granted)
        place = self._places[wish.consumer] = _Place(wish=wish)
        self._credit_bytes += wish.credit_bytes
        self._life.consumers += 1
        name = f"begin a consumer of {self._life.name}"
        place.task = self._life.runtime.spawn(self._begin(place), name)

    def _problem_of(self, wish: frames.Subscribe) -> Refusal | None:
        if wish.consumer in self._places:
            text = f"consumer {wish.consumer} is there already: take another number"
            return Refusal(kind=Class.INVALID, message=text)
        if wish.credit_bytes <= 0:
            text = (
                f"consumer {wish.consumer}: credit of {wish.credit_bytes} bytes lets nothing pass"
            )
            return Refusal(kind=Class.INVALID, message=text)
        settings, here = self._life.settings, self._life.consumers
        if len(self._places) >= settings.consumers_per_stream:
            text = (
                f"{len(self._places)} consumers are on this stream, no more are taken: end some, or open "
                "another client"
            )
            return Refusal(kind=Class.INVALID, message=text)
        if here >= settings.consumers_per_pchannel:
            text = f"{self._life.name} has {here} consumers, no more are taken now; come again"
            return Refusal(kind=Class.LATER, message=text, after_ms=FULL_MS)
        return None

    async def _begin(self, place: _Place) -> None:
        wish, life = place.wish, self._life
        try:
            channel = await channel_of(life, wish.vcid)
            begin = await begin_of(life, channel, wish.start)
            if wish.stop.form is EndForm.TAIL:
                await life.prove()  # a replaced owner's tail would end it too early
        except Refused as error:
            self._refuse(place, error.refusal)
            return
        except WoodpeckerError as error:
            self._refuse(place, refusal_from(error))
            return
        except Exception as error:  # noqa: BLE001  the client is told, the log says why
            _log.exception("a consumer of %s could not begin", life.name)
            text = f"it could not begin, for an internal error: {error!r}"
            self._refuse(place, Refusal(kind=Class.UNKNOWN, message=text))
            return
        if self._places.get(wish.consumer) is not place:
            return
        place.task = None
        consumer = place.consumer = Consumer(life, self._outbox, wish, begin, self._ended)
        started = frames.Started(
            consumer=wish.consumer, position=begin.position, tail=life.position
        )
        self._outbox.put(started)
        place.seat = life.audience.join(consumer)
        if place.credit:
            consumer.add_credit(place.credit)
        consumer.start()
        if (consumer.wants_ticks or consumer.has_stop) and not self._is_quick:
            self._is_quick = True
            self._tell_from_now_on()

    def _refuse(self, place: _Place, refusal: Refusal) -> None:
        if self._places.get(place.wish.consumer) is place:
            self._forget(place.wish.consumer)
            self._outbox.put(frames.ConsumerRefused(consumer=place.wish.consumer, refusal=refusal))

    def _unsubscribe(self, number: int) -> None:
        place = self._places.get(number)
        if place is None:
            return
        if place.consumer is not None:
            position = place.consumer.progress() or place.position
            place.consumer.end(frames.ConsumerEnded(consumer=number, position=position))
            return
        self._forget(number)
        self._outbox.put(frames.ConsumerEnded(consumer=number, position=place.position))

    def _ended(self, consumer: Consumer) -> None:
        place = self._forget(consumer.number)
        self._life.audience.leave(consumer, place.seat)

    def _forget(self, number: int) -> _Place:
        place = self._places.pop(number)
        self._credit_bytes -= place.wish.credit_bytes
        self._life.consumers -= 1
        return place

    async def _end_all(self) -> None:
        for number, place in list(self._places.items()):
            if place.task is not None:
                place.task.cancel()
                await asyncio.gather(place.task, return_exceptions=True)
            if place.consumer is not None:
                await place.consumer.close()
            elif number in self._places:
                self._forget(number)

    # --- progress ---

    def _tell_from_now_on(self) -> None:
        """(Again) at the pace that is wanted now."""
        if self._telling is not None:
            self._telling.cancel()
        name = "progress of a Consume stream"
        self._telling = self._life.runtime.spawn(self._tell_progress(), name)

    async def _tell_progress(self) -> None:
        runtime = self._life.runtime
        while True:
            idle_ms = self._life.settings.idle_signal_ms
            await runtime.sleep_ms(idle_ms if self._is_quick else PROGRESS_MS)
            consumers = [p.consumer for p in self._places.values() if p.consumer is not None]
            if any(consumer.has_stop for consumer in consumers):
                self._check_stops(consumers)
            is_due = runtime.monotonic_ms() - self._told_ms >= PROGRESS_MS
            is_idle = self._is_idle()
            if is_due or (is_idle and any(consumer.wants_ticks for consumer in consumers)):
                self._tell()

    def _check_stops(self, consumers: list[Consumer]) -> None:
        signal = self._life.signal()
        for consumer in consumers:
            if consumer.has_stop:
                consumer.check_stop(signal)

    def _is_idle(self) -> bool:
        """Whether nothing was sent since the last look."""
        is_idle = True
        for place in self._places.values():
            if place.consumer is not None and place.seen != place.consumer.sent:
                place.seen, is_idle = place.consumer.sent, False
        return is_idle

    def _tell(self) -> None:
        """Progress for all who have been sent everything, and for others who got no data since the last time."""
        self._told_ms = self._life.runtime.monotonic_ms()
        begun = [p for p in self._places.values() if p.consumer is not None]
        current, tick, position = [], self._life.signal(), self._life.position
        for place in begun:
            consumer = place.consumer
            assert consumer is not None
            if consumer.is_at_tail and consumer.progress() is not None:
                current.append(place.wish.consumer)
                place.position = position
            elif place.told == consumer.sent:
                self._tell_one(place, consumer)
            place.told = consumer.sent
        if current:
            to_all = len(current) == len(begun)
            self._put_progress(position, tick, () if to_all else tuple(current))

    def _tell_one(self, place: _Place, consumer: Consumer) -> None:
        position = consumer.progress()
        if position is not None and position != place.position:
            place.position = position
            self._put_progress(position, consumer.last_tick, (place.wish.consumer,))

    def _put_progress(self, position: Position, tick: int, consumers: tuple[int, ...]) -> None:
        if self._outbox.backlog > MOST_BACKLOG:
            return  # the client does not read: it need not hear how nothing happens
        self._outbox.put(
            frames.Progress(
                position=position,
                tick=tick,
                proof_age_ms=self._life.proof_age_ms,
                consumers=consumers,
            )
        )
