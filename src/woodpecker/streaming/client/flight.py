"""What one producer session has on its way: which batch goes next, what an answer means. Pure.

Drafts wait until they are cut into batches; a batch has a sequence and is in flight until it is answered.
Four rules carry it:

- A batch goes out only if all before it are out: after a break everything unanswered goes again, the oldest
  first, before anything new.
- What was out when its stream ended *was cut*: only its session's answer to a repeat can tell what became of it.
- A batch that is given up leaves a hole, and the node refuses all behind it (GAP). They get the numbers that
  are free, but not before each of them is answered.
- A transaction that has lost a batch loses all the later ones but its abort: no part of it is ever committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from woodpecker.streaming.client.failures import ROUTING, WAITING
from woodpecker.streaming.client.messages import Message, to_columns
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.frames import Batch

CUT_BYTES = 256 << 10  # an open draft closes at this size
IN_FLIGHT = 16
RETRY_MS = 100  # after a LATER that does not say when
NO_TXN = -1


@dataclass(slots=True, kw_only=True, eq=False)
class Draft:
    """What goes in one batch. ``waiters`` are its owner's, as is ``size_bytes`` of the queue."""

    messages: list[Message]
    size_bytes: int
    deadline_ms: float
    waiters: list[Any] = field(default_factory=list)
    txn: int = NO_TXN
    begin: bool = False
    commit: bool = False
    abort: bool = False
    join: bool = False
    ephemeral: bool = False
    keep_alive_ms: int = 0
    is_open: bool = False  # takes more messages
    sequence: int = -1
    is_out: bool = False  # sent on the present stream, not answered
    was_cut: bool = (
        False  # was out when a stream ended, or its owner does not know: its outcome is unknown
    )
    refusal: Refusal | None = None  # what its last sending met

    def takes(self, other: Draft) -> bool:
        """Whether ``other`` may join this batch."""
        return (
            self.is_open
            and self.txn == other.txn
            and self.ephemeral == other.ephemeral
            and not (other.abort or other.begin or other.join)
            and (other.is_open or other.commit)
            and self.size_bytes + other.size_bytes <= CUT_BYTES
        )

    def add(self, other: Draft) -> None:
        """Let ``other`` join; it ``takes`` it."""
        self.messages += other.messages
        self.waiters += other.waiters
        self.size_bytes += other.size_bytes
        self.commit = other.commit
        self.is_open = other.is_open and self.size_bytes < CUT_BYTES

    def frame(self, session: int, vcid: int, grant_tick: int) -> Batch:
        """As it is sent."""
        return Batch(
            session=session,
            sequence=self.sequence,
            vcid=vcid,
            messages=to_columns(self.messages),
            txn_number=self.txn,
            begin=self.begin,
            commit=self.commit,
            abort=self.abort,
            join=self.join,
            ephemeral=self.ephemeral,
            keep_alive_ms=self.keep_alive_ms,
            grant_tick=grant_tick,
        )


class Verdict(Enum):
    """What becomes of a batch and its session after a refusal."""

    AGAIN = auto()  # to the same owner, when it is time
    REROUTE = auto()  # to the owner that a newer map names
    DROP = auto()  # this batch is given up, the session goes on
    RENEW = auto()  # the session is forgotten, and nothing of it can be in the log: take a new one
    END = auto()  # the session is over


def judge(draft: Draft, refusal: Refusal, *, may_renew: bool) -> Verdict:
    """What a refusal of ``draft`` means. ``may_renew``: an anonymous session of which nothing was cut."""
    match refusal.kind:
        case kind if kind in ROUTING:
            return Verdict.REROUTE
        case kind if kind is Class.GAP or kind in WAITING:
            return Verdict.AGAIN
        case Class.EXPIRED if may_renew:
            return Verdict.RENEW
    if (
        refusal.kind is Class.ABORTED
    ):  # no part of the transaction is ever seen, whatever was written
        return Verdict.DROP
    if draft.was_cut:
        return Verdict.END
    if refusal.kind in (Class.STALE_PRODUCER, Class.EXPIRED, Class.GONE, Class.DENIED):
        return Verdict.END
    return Verdict.DROP


class Flight:
    """The drafts of one session, in order."""

    def __init__(self) -> None:
        self.waiting: deque[Draft] = deque()
        self.flying: deque[Draft] = deque()  # with sequences that follow one another
        self.ephemerals: deque[Draft] = deque()  # out, answered in order
        self.expected = 0  # sequence of the next one to be acknowledged
        self.is_forgotten = False  # a new session has to be taken, when nothing is out
        self._next = 0
        self._hole_at: int | None = None  # the lowest number that was given up
        self._broken: set[int] = set()  # transactions that lost a batch
        self._paused_until_ms = 0.0

    # --- in ---

    def put(self, draft: Draft) -> Draft:
        """Take a draft, behind all others. Returns: the one that it is now, or is now part of."""
        if self.waiting and self.waiting[-1].takes(draft):
            self.waiting[-1].add(draft)
        else:
            self.waiting.append(draft)
        return self.waiting[-1]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return not (self.waiting or self.flying or self.ephemerals)

    @property
    def has_cut(self) -> bool:
        """Whether the outcome of some batch is unknown."""
        return any(draft.was_cut for draft in self.flying)

    @property
    def is_quiet(self) -> bool:
        """Whether each batch that was sent is answered."""
        return not any(draft.is_out for draft in self.flying)

    @property
    def is_stuck(self) -> bool:
        """Whether a batch behind the hole was cut: it may still come to its owner under its old number.

        With another number it could then be written twice, so the hole cannot be closed.
        """
        at = self._hole_at
        return at is not None and any(d.was_cut and d.sequence > at for d in self.flying)

    def leave_hole(self, *, may_renew: bool) -> bool:
        """Give the session up: what is behind the hole was never written in it, and never will be.

        Returns: whether to take a new session for it, if ``may_renew``; else this one is over.
        """
        at = self._hole_at
        assert at is not None
        for draft in self.flying:
            draft.was_cut = draft.was_cut and draft.sequence < at
        self.is_forgotten = may_renew and not self.has_cut
        return self.is_forgotten

    def begin(self, next_sequence: int) -> None:
        """A new session: all unanswered batches belong to it from now on."""
        assert self.is_quiet
        self.expected = next_sequence
        self.is_forgotten = False
        self._renumber()

    def drafts(self) -> Iterator[Draft]:
        """All that is on its way, oldest first, ephemerals that are out before."""
        yield from self.ephemerals
        yield from self.flying
        yield from self.waiting

    # --- out ---

    def next_draft(self, now_ms: float) -> Draft | None:
        """What to send next, or None. It counts as sent by ``sent``; until then it may stay here."""
        if self.is_forgotten or (self._hole_at is not None and not self._close_hole()):
            return None
        for draft in self.flying:
            if not draft.is_out:
                return draft if now_ms >= self._paused_until_ms else None
        if not self.waiting:
            return None
        head = self.waiting[0]
        if len(self.ephemerals if head.ephemeral else self.flying) >= IN_FLIGHT:
            return None
        is_closed = not head.is_open or len(self.waiting) > 1
        return head if is_closed or not (self.flying or self.ephemerals) else None

    def sent(self, draft: Draft) -> None:
        """It goes out now."""
        if draft.sequence < 0:
            self.waiting.popleft()
            draft.is_open = False
            if draft.ephemeral:
                self.ephemerals.append(draft)
            else:
                draft.sequence = self._next
                self._next += 1
                self.flying.append(draft)
        draft.is_out = True

    def paused_ms(self, now_ms: float) -> float:
        """How long the owner wants to be left alone; 0: it does not."""
        return max(0.0, self._paused_until_ms - now_ms)

    # --- answers ---

    def on_ack(self, sequence: int) -> Draft | None:
        """The batch that is durable, or None: it was known already, or is not the next one."""
        if sequence < 0:
            return self.ephemerals.popleft() if self.ephemerals else None
        draft = next((d for d in self.flying if d.is_out and d.sequence == sequence), None)
        if draft is None:
            return None
        draft.is_out = False
        if draft is not self.flying[0]:
            # a sending on an old stream was written after the newer one was refused: both are in the log, and
            # told again in their order
            draft.was_cut = True
            return None
        self.flying.popleft()
        self.expected = sequence + 1
        if draft.abort:
            self._broken.discard(draft.txn)
        return draft

    def on_refused(
        self, sequence: int, refusal: Refusal, now_ms: float, *, is_anonymous: bool
    ) -> tuple[Draft | None, Verdict]:
        """The batch that was refused, or None if it is not out, and what follows. DROP took it away."""
        if sequence < 0:
            return (self.ephemerals.popleft() if self.ephemerals else None), Verdict.DROP
        draft = next((d for d in self.flying if d.is_out and d.sequence == sequence), None)
        if draft is None:
            return None, Verdict.AGAIN
        draft.is_out = False
        if refusal.kind is Class.GAP and 0 <= refusal.expected < self.expected:
            # batches that were acknowledged are not known there
            refusal = Refusal(kind=Class.EXPIRED, message=refusal.message)
        draft.refusal = refusal
        verdict = judge(draft, refusal, may_renew=is_anonymous and not self.has_cut)
        if refusal.kind is Class.UNKNOWN:
            draft.was_cut = True
        elif refusal.kind in WAITING:
            self._paused_until_ms = now_ms + (refusal.after_ms or RETRY_MS)
        elif refusal.kind is Class.GAP and draft is self.flying[0]:
            self._paused_until_ms = max(self._paused_until_ms, now_ms + RETRY_MS)
        if verdict is Verdict.DROP:
            self.drop(draft)
        elif verdict is Verdict.RENEW:
            self.is_forgotten = True
        return draft, verdict

    def on_break(self) -> list[Draft]:
        """The stream ended: all that was out is unknown. Returns: ephemerals, which are lost."""
        for draft in self.flying:
            draft.was_cut = draft.was_cut or draft.is_out
            draft.is_out = False
        self.is_forgotten = self.is_forgotten and not self.has_cut
        lost, self.ephemerals = list(self.ephemerals), deque()
        return lost

    # --- giving up ---

    def drop(self, draft: Draft) -> None:
        """Give up a batch that is certainly not in the log."""
        if draft.sequence < 0:
            self.waiting.remove(draft)
        else:
            self.flying.remove(draft)
            at = self._hole_at
            self._hole_at = draft.sequence if at is None else min(at, draft.sequence)
        if draft.abort:
            self._broken.discard(draft.txn)
        elif draft.txn != NO_TXN:
            self._broken.add(draft.txn)

    def take_broken(self) -> list[Draft]:
        """Take out the batches of transactions that lost one, but for what is out and their aborts."""
        if not self._broken:
            return []
        taken = [
            draft
            for draft in (*self.flying, *self.waiting)
            if draft.txn in self._broken and not draft.is_out and not draft.abort
        ]
        for draft in taken:
            self.drop(draft)
        return taken

    def late(self, now_ms: float) -> tuple[list[Draft], bool]:
        """Drafts past their deadline that are certainly not written, and whether another one may be.

        If so the session is over; else the drafts have been taken out.
        """
        late = [d for d in (*self.flying, *self.waiting) if d.deadline_ms <= now_ms]
        if any(draft.is_out or draft.was_cut for draft in late):
            return [], True
        for draft in late:
            self.drop(draft)
        return late, False

    def take_unknown_commits(self) -> list[Draft]:
        """Take out commits that may be written: their transactions can be asked about."""
        taken = [d for d in self.flying if d.commit and (d.is_out or d.was_cut)]
        for draft in taken:
            self.flying.remove(draft)
        return taken

    def end(self) -> list[Draft]:
        """The session is over: everything that was on its way, oldest first."""
        drafts = list(self.drafts())
        self.waiting.clear()
        self.flying.clear()
        self.ephemerals.clear()
        return drafts

    def _close_hole(self) -> bool:
        if not self.is_quiet or self.is_stuck:
            return False
        self._renumber()
        return True

    def _renumber(self) -> None:
        for number, draft in enumerate(self.flying, self.expected):
            draft.sequence = number
        self._next = self.expected + len(self.flying)
        self._hole_at = None
