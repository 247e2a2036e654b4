"""One consumer: where it is, and what has come for it and was not taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from woodpecker.errors import WoodpeckerError
from woodpecker.streaming.client.bell import Bell
from woodpecker.streaming.client.messages import Message, TickSignal, from_data
from woodpecker.streaming.client.places import start_at
from woodpecker.streaming.core.values import EndForm, Position, Start, Stop, Where
from woodpecker.streaming.frames import Data, Progress, Started, Subscribe

LEAST_CREDIT_BYTES = 4 << 10
FRAME_BYTES = 256  # what a frame costs that does not say


class Delivery(NamedTuple):
    """What is handed over at once: messages, or a signal; then ``place`` is reached."""

    messages: list[Message]
    place: Position
    signal: TickSignal | None = None
    cost_bytes: int = 0
    visit: int = 0  # the subscribing that brought it


@dataclass(slots=True, kw_only=True)
class Asked:
    """What a consumer wants."""

    vcid: int
    start: Start
    stop: Stop
    where: Where
    ticks: bool


def share_of(wanted_bytes: int, granted_bytes: int, count: int, limit_bytes: int) -> int:
    """Credit of one more consumer of a stream, of which ``count`` others have ``granted_bytes``.

    The more there are, the smaller a part of what is left it takes; there is enough for a thousand of them.
    """
    left = max(0, limit_bytes - granted_bytes)
    return max(LEAST_CREDIT_BYTES, min(wanted_bytes, left // (16 + count)))


class Consumer:
    """State of one consumer; the lane of its pchannel sends and receives for it.

    Attributes:
        next: all below it has come here; where to subscribe again. None: nothing is known yet.
        tail: the newest position known of the channel's end.
        is_on: subscribed on the present stream. has_started: and the owner has said where it begins.
        error: why it has ended. is_over: the end bound is reached, or there is an error.
    """

    def __init__(self, number: int, asked: Asked, window_bytes: int) -> None:
        self.number = number
        self.window_bytes = window_bytes
        self.next: Position | None = None
        self.tail: Position | None = None
        self.is_on = self.has_started = False
        self.is_over = False
        self.error: WoodpeckerError | None = None
        self.attempt = 0  # refusals since it began last
        self.again_at_ms = 0.0
        self.bell = Bell()  # of whoever iterates
        self.on_change: Callable[[], None] = self.bell.ring
        self._asked = asked
        self._stop = asked.stop
        self._queue: deque[Delivery] = deque()
        self._visit = 0
        self._held_bytes = 0  # came and is not done with
        self._due_bytes = 0  # done with, and not given back as credit

    # --- the stream ---

    def subscribe(self) -> Subscribe:
        """The frame that begins or goes on, on whatever stream."""
        self.is_on, self.has_started = True, False
        asked = self._asked
        self._visit += 1
        self._due_bytes = 0
        return Subscribe(
            consumer=self.number,
            vcid=asked.vcid,
            start=asked.start if self.next is None else start_at(self.next),
            stop=self._stop,
            where=asked.where,
            credit_bytes=self.window_bytes,
            ticks=asked.ticks,
        )

    def on_started(self, frame: Started) -> None:
        """Delivery begins."""
        self.has_started = True
        self.attempt = 0
        self.tail = frame.tail
        if self._stop.form is EndForm.TAIL:  # the tail as it was the first time
            self._stop = Stop(form=EndForm.POSITION, value=frame.tail.seq, index=frame.tail.index)
        if self.next is None:
            self._reach(frame.position)

    def on_data(self, frame: Data) -> None:
        """Messages came."""
        messages = list(from_data(frame))
        cost_bytes = frame.cost_bytes or FRAME_BYTES + sum(m.size_bytes for m in messages)
        if not frame.ephemeral and messages:
            last = messages[-1].position
            self.next = last.after()
            if self.tail is None or self.tail < self.next:
                self.tail = self.next
        self._held_bytes += cost_bytes
        place = self.next or Position(0)
        self._queue.append(Delivery(messages, place, None, cost_bytes, self._visit))
        self.on_change()

    def on_progress(self, frame: Progress) -> None:
        """Nothing for this consumer below a place, or nothing up to a time."""
        if self.tail is None or self.tail < frame.position:
            self.tail = frame.position
        signal = TickSignal(frame.tick) if self._asked.ticks else None
        self._reach(frame.position, signal)

    def _reach(self, place: Position, signal: TickSignal | None = None) -> None:
        if self.next is None or self.next < place:
            self.next = place
        if self._queue and not self._queue[-1].messages:
            before = self._queue.pop()
            signal = signal or before.signal
        self._queue.append(Delivery([], self.next, signal))
        self.on_change()

    def end(self, error: WoodpeckerError | None) -> None:
        """Nothing more will come."""
        self.is_over, self.error = True, error
        self.bell.ring()

    # --- whoever iterates ---

    def take(self) -> Delivery | None:
        """The next delivery, if there is one."""
        return self._queue.popleft() if self._queue else None

    def take_place(self) -> Position | None:
        """A place that is reached with no messages before it, if that is what comes next."""
        if self._queue and not self._queue[0].messages and self._queue[0].signal is None:
            return self._queue.popleft().place
        return None

    def give_back(self, delivery: Delivery) -> None:
        """It is done with."""
        self._held_bytes -= delivery.cost_bytes
        if delivery.visit == self._visit:  # else its credit went with its stream
            self._due_bytes += delivery.cost_bytes

    @property
    def has_room(self) -> bool:
        """Whether to subscribe again: a new stream brings a whole window, beside what is still here."""
        return self._held_bytes <= self.window_bytes // 2

    def due_credit(self) -> int:
        """Bytes to grant now, or 0: little by little would be a frame for each message.

        When nothing waits here all is given back: a message larger than what is left comes only then.
        """
        due = self._due_bytes
        if due and (not self._queue or due >= self.window_bytes // 4):
            self._due_bytes = 0
            return due
        return 0
