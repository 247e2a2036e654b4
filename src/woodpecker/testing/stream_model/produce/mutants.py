"""Core functions with one rule left out, for the mutants of the model of producing."""

from __future__ import annotations

from dataclasses import replace

from woodpecker.streaming.core.admission import Asked, Refuse, gone
from woodpecker.streaming.core.facts import Facts
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.tables import order_of
from woodpecker.streaming.core.values import Position
from woodpecker.testing.stream_model.produce.rules import Claim, Verdict, judged


def every_claim(_standing: Claim | None, _new: Claim) -> bool:
    """Whoever opens the log gets it."""
    return True


def channel_first(fold: Fold, asked: Asked, tick: int) -> Verdict:
    """The channel is judged before the session."""
    if asked.vcid not in fold.vchannels:
        return Refuse(refusal=gone(asked.vcid), rests_on=fold.next_seq)
    return judged(fold, asked, tick)


def transaction_first(fold: Fold, asked: Asked, tick: int) -> Verdict:
    """The transaction is judged before the session: a repeated commit finds it decided."""
    session = fold.sessions.get(asked.producer)
    if session is not None and not asked.begin and asked.number >= 0 and not session.open:
        asked = replace(asked, sequence=session.last_sequence + 1)
    return judged(fold, asked, tick)


def late_first_batch(fold: Fold, asked: Asked, tick: int) -> Verdict:
    """Nobody remembers that sessions were forgotten."""
    fold = fold.copy()
    fold.forgotten_tick = -1
    return judged(fold, asked, tick)


def gaps_admitted(fold: Fold, asked: Asked, tick: int) -> Verdict:
    """A batch after a gap is taken as the next one."""
    session = fold.sessions.get(asked.producer)
    expected = 0 if session is None else session.last_sequence + 1
    if asked.sequence > expected:
        asked = replace(asked, sequence=expected)
    return judged(fold, asked, tick)


class CountedEpochs(Fold):
    """An epoch is one more than the one before, if that is known."""

    def _grant(self, facts: Facts, producer: str) -> None:
        known = self.sessions.get(producer)
        super()._grant(facts, producer)
        epoch = 1 if known is None else known.epoch + 1
        self.sessions[producer] = replace(self.sessions[producer], epoch=epoch)


class ForgetsYoung(Fold):
    """A full table forgets whoever was idle longest, however short that was."""

    def _evictable(self, tick: int) -> str | None:
        return next(iter(self.sessions), None) if tick >= 0 else None


class LateAborts(Fold):
    """An abort that comes after the commit wins."""

    def _decide(self, txn_id: int, *, position: Position | None = None, reason: str = "") -> None:
        txn = self.open.get(txn_id)
        super()._decide(txn_id, position=position, reason=reason)
        if txn is None:
            return
        session = self.sessions[txn.producer]
        verdicts = {order_of(verdict): verdict for verdict in session.verdicts}
        self.sessions[txn.producer] = replace(session, verdicts=tuple(verdicts.values()))
        if position is not None:
            self.open[txn_id] = txn


class ForgetsDeleted(Fold):
    """A deleted channel leaves nothing behind."""

    def apply(self, facts: Facts) -> None:
        super().apply(facts)
        self.deleted = set()
