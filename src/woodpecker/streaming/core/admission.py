"""Admission: may this batch be written, and what was a repeat answered with? (rules, section 7)

Everything here judges the fold *as sequenced*, and changes nothing. To admit, do all of this without
an await: ``judge``, take ticks and the writer's ``next_seq``, ``data_facts``, ``fold.apply``,
``writer.submit_many``. **P**
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from woodpecker.streaming.core.facts import NO_TXN, Body, Data, Facts, StreamColumn
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.tables import Result, Session, Txn
from woodpecker.streaming.settings import StreamSettings

MIN_KEEP_ALIVE_MS, MAX_KEEP_ALIVE_MS = 1_000, 60_000
ENTRY_BYTES = 64  # what an entry costs the writer's queue beside its bytes
TABLE_FULL_MS = 1_000
TRUE_FOR_EVER = frozenset({Class.STALE_PRODUCER, Class.ABORTED, Class.MOVED, Class.LATER})


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

    ``needs_proof``: and after a proof of ownership begun since the batch came: an owner of the past, whose
    tables end earlier, must not refuse for good. **P** If the writer ends or the proof fails: MOVED.
    """

    refusal: Refusal
    rests_on: int = 0

    @property
    def needs_proof(self) -> bool:
        """Whether an owner of the past could be wrong: it says what is not in the log, or not yet."""
        return self.rests_on > 0 and self.refusal.kind not in TRUE_FOR_EVER


def judge(
    fold: Fold, asked: Asked, *, tick: int, pressure: Pressure, settings: StreamSettings
) -> Admit | Repeat | Refuse:
    """Judge one batch that came to the serving owner at the right term and incarnation.

    The session comes first: a repeat shares the first result, whatever else has changed since. **P**

    Args:
        tick: the tick that the batch's first entry would get now (``Ticks.first``).
    """
    session = fold.sessions.get(asked.producer)
    first = _unknown(fold, asked, tick) if session is None else _known(session, asked)
    if first is not None:
        return first if isinstance(first, Repeat) else _resting(fold, first)
    plain = _malformed(asked, settings)
    if plain is not None:
        return Refuse(refusal=plain)
    if asked.vcid not in fold.vchannels:
        return _resting(fold, gone(asked.vcid))
    txn: Txn | None = None
    if asked.number >= 0:
        found = _transaction(fold, asked, settings)
        if isinstance(found, Refusal):
            return _resting(fold, found)
        txn = found
    pressed = _pressed(asked, pressure)
    if pressed is not None:
        return Refuse(refusal=pressed)
    return _admit(asked, txn, settings)


def _resting(fold: Fold, refusal: Refusal) -> Refuse:
    return Refuse(refusal=refusal, rests_on=fold.next_seq)


def _known(session: Session, asked: Asked) -> Repeat | Refusal | None:
    """Judge by a session that is there; None: this is its next batch."""
    who = f"producer {asked.producer!r}"
    if asked.epoch > session.epoch:
        return Refusal(
            kind=Class.MOVED,
            message=f"{who}: epoch {asked.epoch} was granted by a newer owner; find it",
        )
    if asked.epoch < session.epoch:
        return Refusal(
            kind=Class.STALE_PRODUCER,
            message=f"{who}: epoch {asked.epoch} was replaced by {session.epoch}; open a new producer",
        )
    expected = session.last_sequence + 1
    if asked.sequence == expected:
        return None
    if asked.sequence > expected:
        return _gap(asked, expected)
    for result in session.results:
        if result.sequence == asked.sequence:
            return Repeat(result=result)
    return Refusal(
        kind=Class.EXPIRED,
        message=f"{who}: sequence {asked.sequence} is older than the results kept; "
        "it was written, where is not known any more",
    )


def _unknown(fold: Fold, asked: Asked, tick: int) -> Refusal | None:
    """Judge without a session; None: this batch may introduce it.

    An id granted after all that was forgotten was never in the log: nothing of it was written.
    """
    who = f"producer {asked.producer!r}"
    if asked.epoch > 0 or asked.grant_tick <= fold.forgotten_tick:
        return Refusal(
            kind=Class.EXPIRED,
            message=f"{who} was idle for so long that it was forgotten; whether sequence {asked.sequence} "
            "was written is not known; open a new producer",
        )
    if asked.grant_tick > tick:
        return Refusal(
            kind=Class.INVALID, message=f"{who}: its grant was not made here; attach anew"
        )
    if asked.sequence > 0:
        return _gap(asked, 0)
    if not fold.has_room_for_session(tick):
        return Refusal(
            kind=Class.LATER,
            message=f"{who}: {len(fold.sessions)} producers write here, no more are taken now; come again",
            after_ms=TABLE_FULL_MS,
        )
    return None


def _gap(asked: Asked, expected: int) -> Refusal:
    return Refusal(
        kind=Class.GAP,
        message=f"producer {asked.producer!r}: sequence {asked.sequence} came before {expected}; "
        f"send again from {expected}",
        expected=expected,
    )


def gone(vcid: int) -> Refusal:
    """The refusal of what names a channel that is not there (any more)."""
    return Refusal(
        kind=Class.GONE,
        message=f"channel {vcid} was deleted, and its name with it; create_channel() makes a new one",
    )


def too_large(size_bytes: int, largest_bytes: int, settings: StreamSettings) -> Refusal | None:
    """Of a batch of so many bytes with such a largest message, whether it is to be written or not."""
    if largest_bytes <= settings.message_max_bytes and size_bytes <= settings.batch_max_bytes:
        return None
    return _invalid(
        f"a batch of {size_bytes} bytes, largest message {largest_bytes}; allowed are "
        f"{settings.batch_max_bytes} and {settings.message_max_bytes}"
    )


def _malformed(asked: Asked, settings: StreamSettings) -> Refusal | None:
    """What makes no sense whatever the state is."""
    large = too_large(asked.size_bytes, asked.largest_bytes, settings)
    if large is not None:
        return large
    is_end = asked.commit or asked.abort
    needs_number = asked.begin or is_end or asked.join
    if asked.number < (0 if needs_number else NO_TXN):
        return _invalid("begin, commit, abort and join need the number of a transaction, from 0 on")
    if asked.abort and (asked.begin or asked.commit or asked.count):
        return _invalid("an abort stands alone, without messages")
    if asked.join and not asked.commit:
        return _invalid("join is said with the commit")
    if not asked.count and not (asked.begin or is_end):
        return _invalid("a batch without messages")
    keep_alive = asked.keep_alive_ms or settings.transaction_keep_alive_ms
    if asked.begin and not MIN_KEEP_ALIVE_MS <= keep_alive <= MAX_KEEP_ALIVE_MS:
        return _invalid(
            f"keep-alive of {keep_alive} ms; allowed are {MIN_KEEP_ALIVE_MS} to {MAX_KEEP_ALIVE_MS}"
        )
    return None


def _invalid(message: str) -> Refusal:
    return Refusal(kind=Class.INVALID, message=message)


def _transaction(fold: Fold, asked: Asked, settings: StreamSettings) -> Txn | Refusal | None:
    """The open transaction that the batch goes on with; None: it begins one."""
    session = fold.sessions.get(asked.producer)
    if asked.begin:
        refused = _may_begin(fold, session, asked, settings)
        entries, size_bytes, found = 0, 0, None
    else:
        txn_id = open_txn(fold, asked.producer, asked.number)
        if txn_id is None:
            return _not_open(session, asked)
        found = fold.open[txn_id]
        entries, size_bytes = found.entries, found.size_bytes
        refused = None
        if found.vcid != asked.vcid:
            refused = _invalid(
                f"transaction {asked.number} is on channel {found.vcid}, not {asked.vcid}"
            )
    too_large = (
        entries + asked.count > settings.transaction_max_entries
        or size_bytes + asked.size_bytes > settings.transaction_max_bytes
    )
    if refused is None and too_large:
        refused = _invalid(
            f"transaction {asked.number} would have {entries + asked.count} messages, "
            f"{size_bytes + asked.size_bytes} bytes; allowed are {settings.transaction_max_entries} and "
            f"{settings.transaction_max_bytes}; abort it"
        )
    return found if refused is None else refused


def open_txn(fold: Fold, producer: str, number: int) -> int | None:
    """Id of the open transaction that a producer calls ``number``, or None."""
    session = fold.sessions.get(producer)
    for txn_id in () if session is None else session.open:
        if fold.open[txn_id].number == number:
            return txn_id
    return None


def _may_begin(
    fold: Fold, session: Session | None, asked: Asked, settings: StreamSettings
) -> Refusal | None:
    if session is not None and asked.number <= session.last_number:
        return _invalid(f"transaction {asked.number} after {session.last_number}: numbers grow")
    if session is not None and len(session.open) >= settings.transactions_per_session:
        return _invalid(
            f"{len(session.open)} transactions of this producer are open; allowed are "
            f"{settings.transactions_per_session}"
        )
    if len(fold.open) >= settings.transactions_open:
        return Refusal(
            kind=Class.LATER,
            message=f"{len(fold.open)} transactions are open here; come again",
            after_ms=TABLE_FULL_MS,
        )
    return None


def _not_open(session: Session | None, asked: Asked) -> Refusal:
    """Why a transaction cannot be gone on with."""
    number = asked.number
    if session is None or number > session.last_number:
        return _invalid(f"transaction {number} was never begun")
    for verdict in session.verdicts:
        if (verdict.epoch, verdict.number) == (asked.epoch, number):
            if verdict.position is not None:
                return _invalid(
                    f"transaction {number} is committed already, at {verdict.position.seq}"
                )
            return Refusal(
                kind=Class.ABORTED,
                message=f"transaction {number} was aborted: {verdict.reason}; run it again whole",
                reason=verdict.reason,
            )
    return _invalid(f"transaction {number} was decided long ago")


def _pressed(asked: Asked, pressure: Pressure) -> Refusal | None:
    """Ends of transactions pass in every state: they free what others wait for."""
    is_end = (asked.commit or asked.abort) and not asked.count
    room = pressure.control_room_bytes if is_end else pressure.room_bytes
    if asked.size_bytes + ENTRY_BYTES * max(asked.count, 1) <= room and (
        is_end or not pressure.is_rejecting
    ):
        return None
    return Refusal(
        kind=Class.LATER,
        message="this channel's log takes nothing now; come again",
        after_ms=pressure.after_ms,
    )


def _admit(asked: Asked, txn: Txn | None, settings: StreamSettings) -> Admit:
    entries = 0 if txn is None else txn.entries
    data = Data(
        producer=asked.producer,
        epoch=asked.epoch,
        sequence=asked.sequence,
        size_bytes=asked.size_bytes,
        number=asked.number,
        begin=asked.begin,
        commit=asked.commit,
        abort=asked.abort,
        join=asked.join,
        hollow=not asked.count,
        entries=entries + asked.count if asked.commit else 0,
        keep_alive_ms=(asked.keep_alive_ms or settings.transaction_keep_alive_ms) * asked.begin,
        type=asked.type,
    )
    return Admit(data=data, vcid=asked.vcid, count=max(asked.count, 1))


# ---------------------------------------------------------------------------- making facts


def data_facts(fold: Fold, admit: Admit, *, tick: int, limit: int) -> Facts:
    """The facts of an admitted batch, at the fold's next seq."""
    data = admit.data
    if data.begin:
        data = replace(data, txn=fold.next_seq)
    elif data.number >= 0:
        txn_id = open_txn(fold, data.producer, data.number)
        data = replace(data, txn=NO_TXN if txn_id is None else txn_id)
    return facts_of(fold, data, tick=tick, limit=limit, vcid=admit.vcid, count=admit.count)


def facts_of(
    fold: Fold, body: Body, *, tick: int, limit: int, term: int = 0, vcid: int = 0, count: int = 1
) -> Facts:
    """The facts of a batch at the fold's next seq. ``term`` 0: the fold's."""
    column = StreamColumn(term=term or fold.term, limit=limit, low=fold.low, body=body, vcid=vcid)
    return Facts(seq=fold.next_seq, count=count, tick=tick, column=column)
