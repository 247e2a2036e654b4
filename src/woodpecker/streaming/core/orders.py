"""What the owner writes beside producers' batches: attachments, and control records that were ordered.

As in ``admission``: judged is the fold as sequenced, nothing is changed, and what rests on something
not yet acknowledged is answered when it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.streaming.core.admission import Refuse, gone, open_txn
from woodpecker.streaming.core.facts import AbortTxn, Body, Broadcast, Create, Delete, Grant, Trim
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.tables import Place, Verdict, order_of
from woodpecker.streaming.settings import StreamSettings

OPEN, FORGOTTEN = "open", "forgotten"
NEVER_BEGUN = "never begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedAs:
    """A producer's session. Answer when everything below ``rests_on`` is acknowledged."""

    producer: str
    epoch: int
    next_sequence: int
    rests_on: int


def attach(fold: Fold, producer: str, epoch: int) -> AttachedAs | Refuse:
    """A re-attach: changes nothing. An anonymous id (epoch 0) not in the log is taken as not yet introduced."""
    session = fold.sessions.get(producer)
    if session is None:
        if epoch == 0:
            return AttachedAs(producer=producer, epoch=0, next_sequence=0, rests_on=fold.next_seq)
        return _refuse(
            fold, Class.EXPIRED, f"producer {producer!r} was forgotten; open a new producer"
        )
    if epoch < session.epoch:
        return _refuse(
            fold,
            Class.STALE_PRODUCER,
            f"producer {producer!r}: epoch {epoch} was replaced by {session.epoch}; open a new producer",
        )
    if epoch > session.epoch:
        return _refuse(
            fold, Class.MOVED, f"producer {producer!r}: epoch {epoch} was granted by a newer owner"
        )
    return granted(fold, producer)


def grant(fold: Fold, producer: str, *, tick: int) -> Grant | Refuse:
    """A named producer's next epoch: append the Grant, apply it; then ``granted`` says what to answer."""
    if producer in fold.sessions or fold.has_room_for_session(tick):
        return Grant(producer=producer)
    refusal = Refusal(
        kind=Class.LATER,
        message=f"producer {producer!r}: {len(fold.sessions)} producers write here; come again",
        after_ms=1_000,
    )
    return Refuse(refusal=refusal, rests_on=fold.next_seq)


def granted(fold: Fold, producer: str) -> AttachedAs:
    """The session as it stands, after its Grant was applied."""
    session = fold.sessions[producer]
    return AttachedAs(
        producer=producer,
        epoch=session.epoch,
        next_sequence=session.last_sequence + 1,
        rests_on=fold.next_seq,
    )


def _refuse(fold: Fold, kind: Class, message: str) -> Refuse:
    return Refuse(refusal=Refusal(kind=kind, message=message), rests_on=fold.next_seq)


# ----------------------------------------------------------------------------- control records


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Append this control batch."""

    body: Body
    vcid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """It is in the log. Answer once everything below ``rests_on`` is acknowledged."""

    place: Place
    rests_on: int


def judge_create(
    fold: Fold, vcid: int, create: Create, *, settings: StreamSettings
) -> Write | Written | Refuse:
    """AppendControl vc-create: GONE if it was deleted, LATER if the pchannel is full."""
    if vcid in fold.deleted:
        return Refuse(refusal=gone(vcid), rests_on=fold.next_seq)
    known = fold.vchannels.get(vcid)
    if known is not None:
        return _written(fold, Place(seq=known.seq, tick=known.tick, low=known.seq))
    if len(fold.vchannels) >= settings.vchannels_per_pchannel:
        return _refuse(
            fold, Class.LATER, f"{len(fold.vchannels)} channels are in this log: it is full"
        )
    return Write(body=create, vcid=vcid)


def judge_delete(fold: Fold, vcid: int) -> Write | Written:
    """AppendControl vc-delete. A channel that never was here is deleted too: its create may still be under way."""
    if vcid in fold.deleted:
        return _written(fold, Place(seq=-1))
    return Write(body=Delete(), vcid=vcid)


def judge_trim(fold: Fold, vcid: int, before: int) -> Write | Written | Refuse:
    """AppendControl vc-trim: hides what was delivered below the seq ``before``. INVALID above the tail."""
    known = fold.vchannels.get(vcid)
    if known is None:
        return Refuse(refusal=gone(vcid), rests_on=fold.next_seq)
    if before <= known.trim_before:
        return _written(fold, Place(seq=-1))
    if before > fold.next_seq:
        return _refuse(
            fold, Class.INVALID, f"trim before {before}, the log ends at {fold.next_seq}"
        )
    return Write(body=Trim(before=before), vcid=vcid)


def judge_broadcast(fold: Fold, vcid: int, broadcast: Broadcast) -> Write | Written | Refuse:
    """AppendControl broadcast: once per (id, channel), whoever repeats it. **P**

    Below the floor INVALID: such a broadcast is finished everywhere. Without the channel GONE.
    """
    known = fold.broadcasts.get((broadcast.id, vcid))
    if known is not None:
        return _written(fold, known)
    if broadcast.id < max(fold.broadcast_floor, broadcast.floor):
        return _refuse(
            fold,
            Class.INVALID,
            f"broadcast {broadcast.id} is below the floor {fold.broadcast_floor}: it is finished",
        )
    if vcid not in fold.vchannels:
        return Refuse(refusal=gone(vcid), rests_on=fold.next_seq)
    return Write(body=broadcast, vcid=vcid)


def _written(fold: Fold, place: Place) -> Written:
    return Written(place=place, rests_on=fold.next_seq)


def judge_abort(fold: Fold, txn: int, reason: str) -> AbortTxn | None:
    """The owner gives a transaction up; None: it is decided already. **P**"""
    return AbortTxn(txn=txn, reason=reason) if txn in fold.open else None


def describe(fold: Fold, producer: str, epoch: int, number: int) -> str | Verdict:
    """What became of a producer's transaction: its verdict, or OPEN, or FORGOTTEN; never a guess.

    Of everything sequenced so far: answer when that is acknowledged, after a check of ownership. A number
    of a replaced epoch that is not in the table and not below what was dropped from it never began.
    """
    session = fold.sessions.get(producer)
    if session is None:
        return FORGOTTEN
    if epoch == session.epoch and open_txn(fold, producer, number) is not None:
        return OPEN
    for verdict in session.verdicts:
        if order_of(verdict) == (epoch, number):
            return verdict
    if epoch < session.epoch and (epoch, number) > session.dropped:
        return Verdict(epoch=epoch, number=number, reason=NEVER_BEGUN)
    return FORGOTTEN
