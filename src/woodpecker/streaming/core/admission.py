"""Admission: may this batch be written, and what was a repeat answered with? (rules, section 7)

Everything here judges the fold *as sequenced*, and changes nothing. To admit, do all of this without
an await: ``judge``, take ticks and the writer's ``next_seq``, ``data_facts``, ``fold.apply``,
``writer.submit_many``. **P**
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.streaming.core.facts import AbortTxn, Body, Data, Facts, Grant
from woodpecker.streaming.core.fold import Fold, Place, Result, Verdict
from woodpecker.streaming.core.refusals import Refusal
from woodpecker.streaming.settings import StreamSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A batch as a producer sent it (frames.Batch), with the session it came on."""

    producer: str
    epoch: int  # 0: anonymous
    sequence: int
    vcid: int
    count: int  # messages
    size_bytes: int = 0  # payloads, keys, properties
    largest_bytes: int = 0  # largest message
    number: int = -1
    begin: bool = False
    commit: bool = False
    abort: bool = False
    join: bool = False
    keep_alive_ms: int = 0
    grant_tick: int = -1
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """What else speaks against a batch now."""

    is_rejecting: bool = False  # the rate is REJECT
    room_bytes: int = 1 << 62  # left in the queue; ends of transactions use the control share
    control_room_bytes: int = 1 << 62
    after_ms: int = 100  # when to come again


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Write it: ``data_facts`` makes its facts."""

    data: Data  # ``txn`` and ``entries`` are filled in by ``data_facts``
    vcid: int
    count: int  # entries of the log batch: one if it has no messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """It was written before. Answer with ``result`` once everything below ``result.end`` is acknowledged."""

    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Do not write it. Answer once everything below ``rests_on`` is acknowledged (0: at once). **P**

    If the writer ends before, the answer is MOVED.
    """

    refusal: Refusal
    rests_on: int = 0


def judge(
    fold: Fold, asked: Asked, *, tick: int, pressure: Pressure, settings: StreamSettings
) -> Admit | Repeat | Refuse:
    """Judge one batch that came to the serving owner at the right term and incarnation.

    Args:
        tick: the tick that the batch's first entry would get now (``Ticks.first``).
    """
    raise NotImplementedError


def data_facts(fold: Fold, admit: Admit, *, tick: int, limit: int) -> Facts:
    """The facts of an admitted batch, at the fold's next seq."""
    raise NotImplementedError


def control_facts(
    fold: Fold, body: Body, *, tick: int, limit: int, term: int = 0, vcid: int = 0, count: int = 1
) -> Facts:
    """The facts of a control batch at the fold's next seq. ``term`` 0: the fold's."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedAs:
    """The session of a re-attach. Answer when everything below ``rests_on`` is acknowledged."""

    producer: str
    epoch: int
    next_sequence: int
    rests_on: int


def attach(fold: Fold, producer: str, epoch: int) -> AttachedAs | Refuse:
    """A re-attach: changes nothing. An anonymous id (epoch 0) not in the log is taken as not yet introduced."""
    raise NotImplementedError


def grant(fold: Fold, producer: str, *, tick: int) -> Grant | Refuse:
    """A named producer's next epoch: append the Grant, apply it; then ``granted`` says what to answer."""
    raise NotImplementedError


def granted(fold: Fold, producer: str) -> AttachedAs:
    """The session after its Grant was applied."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Append this control batch."""

    body: Body
    vcid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """It is in the log. Answer once everything up to and with ``place.seq`` is acknowledged."""

    place: Place


def judge_create(
    fold: Fold,
    vcid: int,
    name: str,
    *,
    retention_age_s: int | None = None,
    retention_bytes: int | None = None,
    settings: StreamSettings,
) -> Write | Written | Refuse:
    """AppendControl vc-create: GONE if it was deleted, LATER if the pchannel is full."""
    raise NotImplementedError


def judge_delete(fold: Fold, vcid: int) -> Write | Written:
    """AppendControl vc-delete. A channel that never was here is deleted as well: it can not come later. **P**"""
    raise NotImplementedError


def judge_trim(fold: Fold, vcid: int, before: int) -> Write | Written | Refuse:
    """AppendControl vc-trim."""
    raise NotImplementedError


def judge_broadcast(
    fold: Fold, vcid: int, broadcast: int, floor: int, type_: str = ""
) -> Write | Written | Refuse:
    """AppendControl broadcast: idempotent by (id, vcid); below the floor INVALID; GONE without the channel. **P**"""
    raise NotImplementedError


def judge_abort(fold: Fold, txn: int, reason: str) -> AbortTxn | None:
    """The owner gives a transaction up; None: it is decided already."""
    raise NotImplementedError


def describe(fold: Fold, producer: str, epoch: int, number: int) -> str | Verdict:
    """What became of a producer's transaction: its verdict, or "open", or "forgotten".

    Of everything sequenced so far: answer when that is acknowledged, after a check of ownership.
    """
    raise NotImplementedError
