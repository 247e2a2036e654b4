"""The fold: every table of a pchannel as a pure function of the batches in its log (rules, section 5).

The owner folds its own batches as it sequences them, before they are durable: what rests on those is
answered when they are. ``codec/checkpoint.py`` turns a fold into bytes and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from woodpecker.errors import Corrupt
from woodpecker.streaming.core import tables
from woodpecker.streaming.core.facts import (
    AbortTxn,
    Broadcast,
    Close,
    Create,
    Data,
    Delete,
    Facts,
    Grant,
    TableLimits,
    Term,
    Trim,
)
from woodpecker.streaming.core.tables import (
    Place,
    Result,
    Session,
    Txn,
    Vchannel,
    Verdict,
)
from woodpecker.streaming.core.values import Position

__all__ = ["Fold", "Place", "Result", "Session", "Txn", "Vchannel", "Verdict"]

BY_PRODUCER = "aborted"  # reasons, as errors.Aborted has them
REPLACED = "fenced"
DELETED = "deleted"


@dataclass(slots=True, kw_only=True, eq=False)
class Fold:
    """Tables after all batches below ``next_seq``. Values are immutable; only ``apply`` changes a fold.

    Attributes:
        vchannels: by vcid. deleted: vcids that never come back.
        sessions: by producer id, longest idle first.
        forgotten_tick: newest tick of any session that was forgotten. An anonymous id granted at or below it
            may have been one of those. **P**
        open: open transactions by id, lowest first.
        broadcasts: by (id, vcid): those at or above ``broadcast_floor``.
        ignored: verdicts that came after another one (should stay 0).
    """

    next_seq: int = 0
    last_tick: int = -1
    limit: int = 0
    term: int = 0
    incarnation: str = ""
    features: int = 0
    is_closed: bool = False
    limits: TableLimits = field(default_factory=TableLimits)
    vchannels: dict[int, Vchannel] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    sessions: dict[str, Session] = field(default_factory=dict)
    forgotten_tick: int = -1
    open: dict[int, Txn] = field(default_factory=dict)
    broadcasts: dict[tuple[int, int], Place] = field(default_factory=dict)
    broadcast_floor: int = 0
    ignored: int = 0

    @property
    def low(self) -> int:
        """First seq of the oldest open transaction, else the next seq."""
        return next(iter(self.open), self.next_seq)

    def copy(self) -> Fold:
        """A fold of its own; values are shared."""
        return replace(
            self,
            vchannels=dict(self.vchannels),
            deleted=set(self.deleted),
            sessions=dict(self.sessions),
            open=dict(self.open),
            broadcasts=dict(self.broadcasts),
        )

    def __eq__(self, other: object) -> bool:
        """Everything is the same, also who was idle longest."""
        if not isinstance(other, Fold):
            return NotImplemented
        return list(self.sessions) == list(other.sessions) and all(
            getattr(self, one.name) == getattr(other, one.name) for one in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    # ------------------------------------------------------------------------------- applying

    def apply(self, facts: Facts) -> None:
        """Take the next batch in.

        Raises: Corrupt: it cannot follow: another seq, a tick, term or limit that falls, a batch of a foreign or
        closed term, a sequence or epoch that is not its session's. The fold is unchanged.
        """
        self._check(facts)
        column = facts.column
        match column.body:
            case Data() as data:
                self._data(facts, data)
            case Term() as term:
                self.term, self.incarnation, self.is_closed = column.term, term.incarnation, False
                self.features, self.limits = max(self.features, term.features), term.limits
            case Close():
                self.is_closed = True
            case Create() as create:
                self._create(facts, create)
            case Delete():
                self._abort_all(DELETED, vcid=column.vcid)
                self.vchannels.pop(column.vcid, None)
                self.deleted.add(column.vcid)
            case Trim(before=before):
                self._trim(column.vcid, before)
            case Grant(producer=producer):
                self._grant(facts, producer)
            case AbortTxn(txn=txn, reason=reason):
                self._decide(txn, reason=reason)
            case Broadcast() as broadcast:
                self._broadcast(facts, broadcast)
        self.next_seq, self.last_tick, self.limit = facts.end, facts.last_tick, column.limit

    def _check(self, facts: Facts) -> None:
        column, body = facts.column, facts.column.body
        if facts.seq != self.next_seq or facts.count < 1:
            raise self._corrupt(
                facts, f"{facts.count} entries where seq {self.next_seq} must follow"
            )
        if facts.tick <= self.last_tick:
            raise self._corrupt(facts, f"tick {facts.tick} after tick {self.last_tick}")
        if column.limit <= facts.last_tick:
            raise self._corrupt(facts, f"tick limit {column.limit} at tick {facts.last_tick}")
        if column.limit < self.limit and not isinstance(body, Close):
            raise self._corrupt(facts, f"the tick limit falls from {self.limit} to {column.limit}")
        if isinstance(body, Term):
            if column.term < self.term:
                raise self._corrupt(facts, f"term {column.term} after term {self.term}")
        elif column.term != self.term or self.is_closed:
            raise self._corrupt(
                facts,
                f"a batch of term {column.term} in {'closed ' * self.is_closed}term {self.term}",
            )
        if isinstance(body, Data):
            self._check_session(facts, body)

    def _check_session(self, facts: Facts, data: Data) -> None:
        known = self.sessions.get(data.producer)
        epoch = data.epoch if known is None else known.epoch
        expected = 0 if known is None else known.last_sequence + 1
        if (data.epoch, data.sequence) != (epoch, expected):
            raise self._corrupt(
                facts,
                f"sequence {data.sequence} under epoch {data.epoch} of producer {data.producer!r}; "
                f"its session is at {expected} under {epoch}",
            )

    def _corrupt(self, facts: Facts, what: str) -> Corrupt:
        return Corrupt(f"stream batch at seq {facts.seq}: {what}", where=f"seq {facts.seq}")

    # ------------------------------------------------------------------------ sessions and data

    def _data(self, facts: Facts, data: Data) -> None:
        session = self.sessions.pop(data.producer, None)
        if session is None:
            self._make_room(facts.tick)
            session = Session(epoch=data.epoch, last_tick=facts.tick)
        self.sessions[data.producer] = replace(
            session, last_sequence=data.sequence, last_tick=facts.last_tick
        )
        total = self._transact(facts, data)
        result = tables.result_of(facts, data, total)
        session = self.sessions[data.producer]
        self.sessions[data.producer] = replace(
            session, results=(*session.results, result)[-tables.KEPT_RESULTS :]
        )

    def _transact(self, facts: Facts, data: Data) -> int | None:
        """The batch's part in its transaction; after a commit: messages of the whole."""
        if data.txn < 0:
            return None
        if data.begin:
            self._begin(facts, data)
        txn = self.open.get(data.txn)
        if txn is None:
            self.ignored += 1
            return None
        entries = txn.entries + facts.messages
        self.open[data.txn] = replace(
            txn, entries=entries, size_bytes=txn.size_bytes + data.size_bytes
        )
        if data.commit:
            position = Position(
                facts.end - 1, 0, facts.last_tick, facts.column.low, facts.column.term
            )
            self._decide(data.txn, position=position)
            return entries
        if data.abort:
            self._decide(data.txn, reason=BY_PRODUCER)
        return None

    def _begin(self, facts: Facts, data: Data) -> None:
        self.open[data.txn] = Txn(
            vcid=facts.column.vcid,
            producer=data.producer,
            epoch=data.epoch,
            number=data.number,
            keep_alive_ms=data.keep_alive_ms,
            tick=facts.tick,
        )
        session = self.sessions[data.producer]
        self.sessions[data.producer] = replace(
            session, last_number=data.number, open=(*session.open, data.txn)
        )

    def _decide(self, txn_id: int, *, position: Position | None = None, reason: str = "") -> None:
        """The first verdict counts; later ones are ignored. **P**"""
        txn = self.open.pop(txn_id, None)
        if txn is None:
            self.ignored += 1
            return
        verdict = Verdict(
            epoch=txn.epoch,
            number=txn.number,
            position=position,
            count=0 if position is None else txn.entries,
            reason=reason,
        )
        session = self.sessions[txn.producer]
        self.sessions[txn.producer] = tables.with_verdict(session, txn_id, verdict)

    def _abort_all(self, reason: str, *, vcid: int = -1, producer: str | None = None) -> None:
        doomed = [
            txn_id
            for txn_id, txn in self.open.items()
            if txn.vcid == vcid or txn.producer == producer
        ]
        for txn_id in doomed:
            self._decide(txn_id, reason=reason)

    def _grant(self, facts: Facts, producer: str) -> None:
        if producer not in self.sessions:
            self._make_room(facts.tick)
        self._abort_all(REPLACED, producer=producer)
        known = self.sessions.pop(producer, None)
        fresh = Session(epoch=facts.seq, last_tick=facts.tick, dropped=(facts.seq, -1))
        self.sessions[producer] = (
            fresh
            if known is None
            else replace(known, epoch=facts.seq, last_tick=facts.tick, last_number=-1)
        )

    def has_room_for_session(self, tick: int) -> bool:
        """Whether a producer not yet known may be introduced by a batch at ``tick``."""
        return len(self.sessions) < self.limits.sessions or self._evictable(tick) is not None

    def _make_room(self, tick: int) -> None:
        """Before a session is added: forget the expired ones; if it is still full, the longest idle."""
        expired = tick - self.limits.session_forget_us
        for producer in list(tables.idle_since(self.sessions, expired)):
            self._forget(producer)
        idlest = self._evictable(tick)
        if len(self.sessions) >= self.limits.sessions and idlest is not None:
            self._forget(idlest)

    def _evictable(self, tick: int) -> str | None:
        young = tick - self.limits.session_young_us
        return next(tables.idle_since(self.sessions, young), None)

    def _forget(self, producer: str) -> None:
        session = self.sessions.pop(producer)
        self.forgotten_tick = max(self.forgotten_tick, session.last_tick)

    # ------------------------------------------------------------------- channels and broadcasts

    def _create(self, facts: Facts, create: Create) -> None:
        vcid = facts.column.vcid
        if vcid not in self.vchannels and vcid not in self.deleted:
            self.vchannels[vcid] = Vchannel(
                name=create.name,
                seq=facts.seq,
                tick=facts.tick,
                retention_age_s=create.retention_age_s,
                retention_bytes=create.retention_bytes,
            )

    def _trim(self, vcid: int, before: int) -> None:
        known = self.vchannels.get(vcid)
        if known is not None and before > known.trim_before:
            self.vchannels[vcid] = replace(known, trim_before=before)

    def _broadcast(self, facts: Facts, broadcast: Broadcast) -> None:
        if broadcast.floor > self.broadcast_floor:
            self.broadcast_floor = broadcast.floor
            for key in [key for key in self.broadcasts if key[0] < broadcast.floor]:
                del self.broadcasts[key]
        if broadcast.id >= self.broadcast_floor:
            place = Place(seq=facts.seq, tick=facts.tick, low=facts.column.low)
            self.broadcasts.setdefault((broadcast.id, facts.column.vcid), place)
