"""One producer's session: its drafts, and those who wait for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from copy import copy
from enum import Enum, auto

from woodpecker.errors import Closed, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.failures import as_error, unknown, unwritten
from woodpecker.streaming.client.flight import NO_TXN, Draft, Flight
from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.client.room import Room
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.frames import Ack, Attach, Attached

QUEUE_BYTES = 32 << 20

Result = Position | list[Position] | None


class Waiter:
    """One who waits for messages ``first`` up to ``first + count`` of a draft; ``count`` None: one message."""

    __slots__ = ("count", "first", "future")

    def __init__(self, future: asyncio.Future[Result], first: int, count: int | None) -> None:
        self.future = future
        self.first = first
        self.count = count

    def resolve(self, draft: Draft, ack: Ack, term: int) -> None:
        """It is durable."""
        if self.future.done():
            return
        if draft.ephemeral or (draft.txn != NO_TXN and not draft.commit):
            self.future.set_result(None)
        elif draft.txn != NO_TXN:
            self.future.set_result(Position(ack.seq, 0, ack.tick, ack.low, term))
        else:
            places = [
                Position(ack.seq + n, 0, ack.tick + n, ack.low, term)
                for n in range(self.first, self.first + (self.count or 1))
            ]
            self.future.set_result(places[0] if self.count is None else places)

    def fail(self, error: WoodpeckerError) -> None:
        """It gets no better answer than ``error``."""
        if not self.future.done():
            self.future.set_exception(copy(error))
            self.future.exception()  # who submitted without looking is not shouted at


class Flush:
    """One who waits for several drafts, whatever becomes of each."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = len(drafts)
        self._error: WoodpeckerError | None = None
        for draft in drafts:
            draft.waiters.append(self)

    def resolve(self, draft: Draft, ack: Ack, term: int) -> None:
        """One of them is durable."""
        self._count()

    def fail(self, error: WoodpeckerError) -> None:
        """One of them is not."""
        self._error = self._error or error
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left or self.future.done():
            return
        if self._error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(copy(self._error))


class Standing(Enum):
    """Of a session on the present stream."""

    AWAY = auto()
    ATTACHING = auto()
    ATTACHED = auto()


class Session:
    """State of one producer; the lane of its pchannel sends and receives for it.

    Attributes:
        number: on the lane's streams.
        channel: name, for messages.
        ended_by: what every later call gets; None: it lives.
    """

    def __init__(
        self,
        env: Environment,
        *,
        number: int,
        channel: str,
        vcid: int,
        name: str | None,
        wake: Callable[[Session], None],
    ) -> None:
        self.number = number
        self.channel = channel
        self.vcid = vcid
        self.is_anonymous = name is None
        self.producer = name or ""
        self.epoch = -1
        self.grant_tick = -1
        self.standing = Standing.AWAY
        self.flight = Flight()
        self.room = Room(QUEUE_BYTES)
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended_by: WoodpeckerError | None = None
        self.transactions: set[int] = set()  # open ones that have a batch
        self.attach_at_ms = 0.0
        self._env = env
        self._wake = wake
        self._next_txn = 0
        self._slots = asyncio.Semaphore(env.settings.transactions_per_session)

    @property
    def what(self) -> str:
        """In messages."""
        return f"channel {self.channel!r}"

    # --- from the user ---

    def check(self) -> None:
        """Raises: what has ended this producer."""
        if self.ended_by is not None:
            raise copy(self.ended_by)

    def draft(self, messages: list[Message], size_bytes: int) -> Draft:
        """A draft with the deadline of all that comes now; room for it was taken.

        Raises: what has ended this producer; the room is given back.
        """
        if self.ended_by is not None:
            self.room.leave(size_bytes)
            raise copy(self.ended_by)
        deadline_ms = self._env.runtime.monotonic_ms() + self._env.timeout_ms
        return Draft(messages=messages, size_bytes=size_bytes, deadline_ms=deadline_ms)

    def put(self, draft: Draft, count: int | None = None) -> asyncio.Future[Result]:
        """Send it; the future gives the position of its one message, or of ``count``."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        added = len(draft.messages)
        tail = self.flight.put(draft)
        first = len(tail.messages) - added
        tail.waiters.append(Waiter(future, first, count))
        self._wake(self)
        return future

    async def flush(self) -> None:
        """Wait for all that was put until now. Raises: the first failure among it."""
        drafts = list(self.flight.drafts())
        if drafts:
            await Flush(drafts).future

    async def begin_transaction(self) -> None:
        """Room for one more transaction; waits while too many are open."""
        await self._slots.acquire()

    def number_transaction(self) -> int:
        """Number of the transaction whose first batch is put now: numbers grow in the order of these."""
        number = self._next_txn
        self._next_txn += 1
        self.transactions.add(number)
        return number

    def end_transaction(self, number: int) -> None:
        """Its last batch is answered, or on its way with nobody waiting, or it had none (``NO_TXN``)."""
        self.transactions.discard(number)
        self._slots.release()

    # --- from the lane ---

    def attach(self) -> Attach:
        """The frame that puts the session on a stream."""
        if self.flight.is_forgotten:
            self.producer, self.epoch, self.grant_tick = "", -1, -1
        return Attach(session=self.number, producer=self.producer, epoch=self.epoch)

    def on_attached(self, frame: Attached) -> Refusal | None:
        """The session stands. Returns: why it is over, if it does not."""
        is_new = self.epoch < 0
        self.standing = Standing.ATTACHED
        if is_new:
            self.producer, self.epoch = frame.producer, frame.epoch
            self.grant_tick = frame.grant_tick
            self.flight.begin(frame.next_sequence)
            if not self.opened.done():
                self.opened.set_result(None)
        elif frame.next_sequence < self.flight.expected:
            return self.on_forgotten("its owner knows less of it than was acknowledged")
        return None

    def on_forgotten(self, why: str) -> Refusal | None:
        """The session is not known any more: take a new one if that can do no harm. Returns: else, why."""
        refusal = Refusal(
            kind=Class.EXPIRED, message=f"the session of this producer is gone: {why}"
        )
        if self.is_anonymous and not self.flight.has_cut and not self.transactions:
            self.flight.is_forgotten = True
            self.standing = Standing.AWAY
            self._wake(self)
            return None
        return refusal

    def leave_hole(self) -> Refusal | None:
        """Go on with a new session if this one is stuck behind a hole. Returns: why it is over, if not."""
        if not self.flight.is_stuck:
            return None
        may_renew = self.is_anonymous and not self.transactions
        if self.flight.leave_hole(may_renew=may_renew):
            self.standing = Standing.AWAY
            self._wake(self)
            return None
        text = "a batch was given up while later ones were under way on a stream that was cut"
        return Refusal(kind=Class.INVALID, message=text)

    def acknowledge(self, draft: Draft, ack: Ack, term: int) -> None:
        """It is durable."""
        self.room.leave(draft.size_bytes)
        for waiter in draft.waiters:
            waiter.resolve(draft, ack, term)

    def fail(self, draft: Draft, error: WoodpeckerError) -> None:
        """It was given up, and is in the flight no longer."""
        self.room.leave(draft.size_bytes)
        for waiter in draft.waiters:
            waiter.fail(error)

    def fail_broken(self) -> None:
        """Give up what is left of transactions that lost a batch."""
        for draft in self.flight.take_broken():
            text = f"{self.what}: an earlier batch of this transaction failed, so nothing of it is kept"
            self.fail(draft, NotWritten(text))

    def give_up_late(self, now_ms: float, met: Refusal | None) -> None:
        """Fail what is past its deadline."""
        late, is_unknown = self.flight.late(now_ms)
        for draft in late:
            self.fail(draft, unwritten(draft.refusal or met, self.what, self._env.timeout_ms))
        if is_unknown:
            self.end(met)
        elif late:
            self._wake(self)

    def end(self, refusal: Refusal | None, closed: str = "") -> None:
        """The session is over: everything on its way fails, each by what is known of it."""
        kind = None if refusal is None else refusal.kind
        ended: WoodpeckerError
        is_invalid = kind is Class.INVALID and not self.opened.done()  # as it was asked for
        if refusal is not None and (
            is_invalid or kind in (Class.STALE_PRODUCER, Class.GONE, Class.DENIED)
        ):
            ended = as_error(refusal, self.what)
        else:
            met = "what became of a batch is not known" if refusal is None else refusal.message
            ended = Closed(
                f"{self.what}: {closed or f'this producer has ended: {met}'}; open a new one"
            )
        self.ended_by = self.ended_by or ended
        for draft in self.flight.end():
            if draft.is_out or draft.was_cut:
                self.fail(draft, unknown(refusal, self.what))
            elif isinstance(ended, Closed):
                self.fail(draft, NotWritten(f"{ended}; this message was not written"))
            else:
                self.fail(draft, ended)
        self.room.open_up()
        if not self.opened.done():
            self.opened.set_exception(copy(self.ended_by))
            self.opened.exception()

    def lose(self, drafts: Sequence[Draft]) -> None:
        """Ephemerals whose stream ended."""
        for draft in drafts:
            text = f"{self.what}: its owner went away; whether listeners were told is not known"
            self.fail(draft, OutcomeUnknown(text))
