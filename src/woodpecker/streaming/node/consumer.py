"""One consumer of one channel: at the tail, in the buffer behind it, or reading the log.

At the tail it is shown what is acknowledged, and has no task. Without credit it falls behind: it keeps its
place and nothing else. Further behind than the buffer reaches, a task of its own reads the log until it
can attach again, which is one step with the check. Nobody waits for it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from woodpecker.errors import OutOfRange, WoodpeckerError
from woodpecker.observability.names import Counter
from woodpecker.streaming import frames
from woodpecker.streaming.core.assembly import Assembly, Delivery
from woodpecker.streaming.core.facts import Grant
from woodpecker.streaming.core.filters import matches
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.tail_buffer import Slot
from woodpecker.streaming.core.values import EndForm, Position, Stop
from woodpecker.streaming.node.outbox import Outbox
from woodpecker.streaming.node.parcels import Parcel, cost_of, parcel_of
from woodpecker.streaming.node.pieces import Ephemeral, Piece
from woodpecker.streaming.node.refusing import refusal_from
from woodpecker.streaming.node.serving import Serving
from woodpecker.streaming.node.starts import Begin

SLOTS_A_TURN = 1000  # looked at before others have their turn
OUTBOX_BYTES = 1 << 20  # who reads the log waits while this much lies before the stream


class Consumer:
    """See the module. One event loop; only reading the log awaits.

    Args:
        serving: the owner's life it belongs to.
        on_end: called once when it has ended, for whatever reason.
    """

    def __init__(
        self,
        serving: Serving,
        outbox: Outbox[frames.ConsumeDown],
        wish: frames.Subscribe,
        begin: Begin,
        on_end: Callable[[Consumer], None],
    ) -> None:
        self.number = wish.consumer
        self.vcid = wish.vcid
        self.wants_ticks = wish.ticks
        self.has_stop = wish.stop.form is not EndForm.NEVER
        self.is_ended = False
        self._serving = serving
        self._outbox = outbox
        self._where = wish.where
        self._stop = _stop_of(wish.stop, serving)
        self._on_end = on_end
        self._credit = self._most_credit = wish.credit_bytes
        self._assembly: Assembly[Piece] = Assembly(
            wish.vcid,
            start=begin.position,
            read_from=begin.read_from,
            assembly_bytes=serving.settings.assembly_bytes,
        )
        self._last_tick = -1  # of the newest batch taken in
        self._slot: int | None = None  # the next one to look at, while in the buffer
        self._is_at_tail = False
        self._held: Parcel | None = None  # waits for credit
        self._is_completing = False  # what was taken in last is still being read again
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_due = False  # a turn is scheduled
        self.sent = 0  # messages; tells whether anything went out lately

    # --- from outside ---

    def start(self) -> None:
        """Begin: attach, or read the log."""
        self._attach_or_read()

    def show(self, slot: Slot[Piece | Ephemeral]) -> None:
        """Something of this channel, or of all, was acknowledged. The hot path."""
        if not self._is_at_tail:
            return
        if self._held is None and self._has_credit:
            self._take_slot(slot)
            if not self.is_ended and self._held is not None:
                self._fall_behind(slot.number + 1, self._serving.line.acked)
        else:
            seq = slot.facts.seq if slot.facts is not None else self._serving.line.acked
            self._fall_behind(slot.number, seq)

    def add_credit(self, size_bytes: int) -> None:
        """The client has room for more."""
        self._credit = min(self._credit + size_bytes, self._most_credit)
        if self._task is not None:
            self._wake.set()
        elif not self._is_at_tail:
            self._turn()

    def progress(self) -> Position | None:
        """Everything below it was sent or is not this consumer's; None: something waits to be sent."""
        if self._held is not None or self._is_completing or self.is_ended:
            return None
        return self._serving.position if self._is_at_tail else self._assembly.next

    @property
    def is_at_tail(self) -> bool:
        """Whether it has been sent all there is."""
        return self._is_at_tail

    @property
    def is_reading_log(self) -> bool:
        """Whether it is behind the buffer."""
        return self._task is not None

    @property
    def last_tick(self) -> int:
        """Nothing at or below it can still come to this consumer."""
        return self._last_tick

    def check_stop(self, signal: int) -> None:
        """At the tail without data: is the end bound reached by what is known now?"""
        position = self.progress()
        if position is None:
            return
        tick = signal if self._is_at_tail else self._last_tick
        if self._is_past(position, tick):
            self.end(frames.ConsumerEnded(consumer=self.number, position=position))

    def end(self, last: frames.ConsumeDown | None) -> None:
        """Send nothing after ``last``. Idempotent."""
        if self.is_ended:
            return
        self.is_ended = True
        self._held = None
        if last is not None:
            self._outbox.put(last)
        self._wake.set()
        self._on_end(self)

    def refuse(self, refusal: Refusal) -> None:
        """It ends with an error."""
        self.end(frames.ConsumerRefused(consumer=self.number, refusal=refusal))

    async def close(self) -> None:
        """End without a word and wait until nothing of it runs."""
        self.end(None)
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- in the buffer ---

    @property
    def _has_credit(self) -> bool:
        return self._credit > 0

    def _fall_behind(self, slot: int, seq: int) -> None:
        self._is_at_tail = False
        self._slot = slot
        self._assembly.pass_over(seq)

    def _attach_or_read(self) -> None:
        slot = self._serving.tail.attach(self._assembly.next_seq)
        if slot is None:
            self._read_log(None)
        else:
            self._slot = slot
            self._turn()

    def _turn(self) -> None:
        """Take in what is in the buffer, as far as credit goes."""
        self._is_due = False
        if self.is_ended or self._task is not None or self._is_at_tail or not self._send_held():
            return
        assert self._slot is not None
        for _ in range(SLOTS_A_TURN):
            try:
                slot = self._serving.tail.read(self._slot)
            except KeyError:
                self._slot = None
                self._read_log(None)
                return
            if slot is None:
                self._is_at_tail = True
                self.check_stop(self._serving.line.signal)
                return
            if self._concerns(slot):
                if not self._has_credit:
                    return
                self._take_slot(slot)
                if self.is_ended or self._task is not None:
                    return
            if slot.facts is not None:
                self._assembly.pass_over(slot.facts.end)
                self._last_tick = slot.facts.last_tick
            self._slot = slot.number + 1
            if self._held is not None:
                return
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _concerns(self, slot: Slot[Piece | Ephemeral]) -> bool:
        if slot.vcid == self.vcid:
            return True
        return slot.facts is not None and isinstance(slot.facts.column.body, Grant)

    def _take_slot(self, slot: Slot[Piece | Ephemeral]) -> None:
        content = slot.content
        if isinstance(content, Ephemeral):
            self._take_ephemeral(content)
        elif content is not None:
            self._take(content)

    # --- taking in and sending ---

    def _take(self, piece: Piece) -> None:
        """The next batch. What it makes deliverable goes out, or is held."""
        try:
            delivery = self._feed(piece)
            if delivery is not None:
                if any(part.content is None for part in delivery.pieces):
                    self._is_completing = True
                    self._read_log(delivery)
                    return
                self._deliver(delivery)
        except WoodpeckerError as error:
            self.refuse(refusal_from(error))
            return
        self._after_taking()

    def _feed(self, piece: Piece) -> Delivery[Piece] | None:
        self._assembly.pass_over(piece.facts.seq)
        delivery = self._assembly.feed(piece.facts, piece)
        self._last_tick = piece.facts.last_tick
        return delivery

    def _after_taking(self) -> None:
        if self.is_ended or self._held is not None:
            return
        if self.has_stop and self._is_past(self._assembly.next, self._last_tick):
            position = self._assembly.next
            self.end(frames.ConsumerEnded(consumer=self.number, position=position))
        elif self._assembly.is_gone:
            text = f"channel {self.vcid} was deleted; all that was in it has been delivered"
            self.refuse(Refusal(kind=Class.GONE, message=text))

    def _is_past(self, position: Position, tick: int) -> bool:
        match self._stop.form:
            case EndForm.POSITION:
                return (position.seq, position.index) >= (self._stop.value, self._stop.index)
            case EndForm.TICK:
                return tick >= self._stop.value - 1
        return False

    def _deliver(self, delivery: Delivery[Piece]) -> None:
        self._held = parcel_of(delivery, self._where, self._stop)
        self._send_held()

    def _take_ephemeral(self, ephemeral: Ephemeral) -> None:
        messages = ephemeral.messages
        if not all(
            matches(
                self._where,
                type_=messages.types[index] if messages.types else "",
                key=messages.keys[index] if messages.keys else b"",
                properties=messages.properties[index] if messages.properties else (),
            )
            for index in range(len(messages))
        ):
            return
        count = len(messages)
        parcel = Parcel(
            seqs=[ephemeral.seq] * count,
            indexes=(),
            ticks=[ephemeral.tick] * count,
            messages=messages,
            cost_bytes=cost_of(messages),
            low=-1,
            term=self._serving.term,
            ephemeral=True,
        )
        if parcel.cost_bytes <= self._credit:  # else it is dropped: nobody waits with it
            self._put(parcel)

    def _send_held(self) -> bool:
        """Send what is held as far as credit goes; whether nothing is left of it."""
        if self._held is None:
            return True
        fits, self._held = self._held.split(self._credit)
        if fits is not None:
            self._put(fits)
        if self._held is not None and self._credit >= self._most_credit:
            # nothing is outstanding, and it is still too large: it passes all the same
            fits, self._held = self._held.first()
            self._put(fits)
        if self._held is None:
            self._after_taking()
            return not self.is_ended
        return False

    def _put(self, parcel: Parcel) -> None:
        self._credit -= parcel.cost_bytes
        self.sent += len(parcel.seqs)
        self._serving.counts.delivered(len(parcel.seqs))
        self._outbox.put(parcel.frame(self.number), parcel.cost_bytes)

    # --- reading the log ---

    def _read_log(self, delivery: Delivery[Piece] | None) -> None:
        """A task reads the log: first what of ``delivery`` is not held, then on until it can attach."""
        self._is_at_tail = False
        self._serving.count_reading(1)
        self._task = self._serving.runtime.spawn(
            self._reading(delivery), f"consumer {self.vcid} reads {self._serving.name}"
        )

    async def _reading(self, delivery: Delivery[Piece] | None) -> None:
        try:
            if delivery is not None:
                await self._complete(delivery)
            while await self._sent_all():
                next_seq = self._assembly.next_seq
                self._slot = self._serving.tail.attach(next_seq)
                if self._slot is not None:
                    break
                self._serving.counts.add(Counter.STREAM_ATTACH_RETRIES)
                await self._outbox.wait_below(OUTBOX_BYTES)
                run = await self._serving.runs.at(next_seq, self._serving.line.acked)
                for piece in run.since(next_seq):
                    if not await self._take_read(piece):
                        return
                self._assembly.pass_over(run.end)
                self._after_taking()
        except OutOfRange as error:
            self.refuse(self._serving.trimmed(self._assembly.next_seq, error))
        except Refused as error:
            self.refuse(error.refusal)
        except WoodpeckerError as error:
            self.refuse(refusal_from(error))
        finally:
            self._task = None
            self._serving.count_reading(-1)
        self._turn()

    async def _take_read(self, piece: Piece) -> bool:
        """Take in a batch that was read; whether to go on."""
        facts = piece.facts
        if facts.column.vcid != self.vcid and not isinstance(facts.column.body, Grant):
            return True
        while not self._has_credit and not self.is_ended:
            await self._wait()
        if self.is_ended:
            return False
        delivery = self._feed(piece)
        if delivery is not None:
            await self._complete(delivery)
        else:
            self._after_taking()
        return await self._sent_all()

    async def _sent_all(self) -> bool:
        """Wait until nothing is held; False: it has ended."""
        while not self._send_held() and not self.is_ended:
            await self._wait()
        return not self.is_ended

    async def _wait(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    async def _complete(self, delivery: Delivery[Piece]) -> None:
        """Deliver it, with what was not held read again; nobody is told meanwhile that it was. **P**"""
        self._is_completing = True
        pieces = []
        for part in delivery.pieces:
            content = part.content
            if content is None:
                seq = part.facts.seq
                content = (await self._serving.runs.at(seq, self._serving.line.acked)).holding(seq)
            pieces.append(replace(part, content=content))
        self._is_completing = False
        self._deliver(replace(delivery, pieces=tuple(pieces)))


def _stop_of(stop: Stop, serving: Serving) -> Stop:
    """The end bound, with the tail as it is now for "tail"."""
    if stop.form is EndForm.TAIL:
        return Stop(form=EndForm.POSITION, value=serving.line.acked)
    return stop
