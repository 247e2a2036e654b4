"""Where a consumer begins: a wish turned into a position, and the seq from which reading shows it whole."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from woodpecker.errors import OutOfRange
from woodpecker.streaming.core.admission import gone
from woodpecker.streaming.core.assembly import read_from
from woodpecker.streaming.core.fold import Vchannel
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import Position, Start, StartForm
from woodpecker.streaming.node.line import moved
from woodpecker.streaming.node.serving import Serving

# what was trimmed is not meant
_BY_SEARCH = (StartForm.EARLIEST, StartForm.LATEST, StartForm.TICK, StartForm.TIME)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Deliver all at or above ``position``; feed from ``read_from`` on, where a batch begins."""

    position: Position
    read_from: int


async def channel_of(place: Serving, vcid: int) -> Vchannel:
    """The channel. Raises: Refused: GONE; MOVED: it may be at a newer owner."""
    fold = place.line.fold
    channel = fold.vchannels.get(vcid)
    if channel is None:
        if vcid not in fold.deleted:
            await place.prove()
        raise Refused(gone(vcid))
    return channel


async def begin_of(place: Serving, channel: Vchannel, start: Start) -> Begin:
    """Where a consumer of ``channel`` begins.

    Raises: Refused: OUT_OF_RANGE, MOVED (a newer term told the position), UNAVAILABLE and the like.
    """
    if start.term > place.term:
        raise Refused(moved(f"that position is of term {start.term}, this owner of {place.term}"))
    earliest = max(place.earliest, channel.trim_before, channel.seq)
    position = await _position_of(place, channel, start, earliest)
    acked = place.line.acked
    if position.seq > acked:
        await place.prove()  # a stale owner must not say so
        acked = place.line.acked
        if position.seq > acked:
            text = f"seq {position.seq} is beyond the tail of channel {channel.name!r} ({acked}); "
            text += "begin at it or before, or at 'latest'"
            raise Refused(Refusal(kind=Class.OUT_OF_RANGE, message=text))
    if position.seq == acked:
        low = place.line.low
    elif position.seq < earliest:
        raise Refused(out_of_range(channel, position.seq, earliest))
    else:
        try:
            low = await _low_of(place, position, acked)
        except Refused:
            if start.form in _BY_SEARCH and place.earliest > earliest:  # trimmed meanwhile
                return await begin_of(place, channel, start)
            raise
        earliest = max(earliest, place.earliest)
        is_cut = max(low, channel.seq) < place.earliest and position.seq != earliest
        if is_cut and start.form not in _BY_SEARCH:
            # trimmed meanwhile, or from under a transaction delivered there: never passed over in silence **P**
            raise Refused(out_of_range(channel, position.seq, earliest))
    position = replace(position, low=low, term=place.term)
    return Begin(position=position, read_from=read_from(position, earliest=place.earliest))


def out_of_range(channel: Vchannel, seq: int, earliest: int) -> Refusal:
    """Nothing is left of what begins at ``seq``."""
    text = f"channel {channel.name!r}: what begins at seq {seq} was trimmed; the earliest is {earliest}"
    return Refusal(kind=Class.OUT_OF_RANGE, message=text, earliest=earliest)


async def _position_of(place: Serving, channel: Vchannel, start: Start, earliest: int) -> Position:
    match start.form:
        case StartForm.EARLIEST:
            return Position(max(earliest, await _kept_from(place, channel)))
        case StartForm.LATEST:
            tail = Position(place.line.acked, low=place.line.low)
            await place.prove()  # a stale owner's tail lies before what others have acknowledged
            return tail
        case StartForm.SEQ | StartForm.POSITION:
            return Position(start.value, start.index, low=start.low)
        case StartForm.AFTER:
            return Position(start.value, start.index, low=start.low).after()
        case StartForm.TICK | StartForm.TIME:
            acked = place.line.acked
            seq = await seq_at(place, start.value)
            if seq == acked:  # nothing that new is here: it may be at a newer owner
                await place.prove()
            return Position(max(seq, earliest))


async def _kept_from(place: Serving, channel: Vchannel) -> int:
    """Where the channel's own retention begins: the log keeps as much as the channel that wants most."""
    if channel.retention_age_s is None:
        return 0
    return await seq_at(place, place.line.clock_us - channel.retention_age_s * 1_000_000)


async def seq_at(place: Serving, tick: int) -> int:
    """Seq of the first entry with that tick or a later one, else the tail.

    The tail as it is now: what is acknowledged while the log is read counts as later. **P**
    """
    acked = place.line.acked
    if tick > place.line.ticks.acked:
        return acked
    try:
        when = _EPOCH + timedelta(microseconds=max(tick, 0))
    except OverflowError:
        return acked
    async with place.log.read_batches(when, acked, follow=True) as batches:
        async for batch in batches:
            at = bisect_left(batch.timestamps_us, tick)  # it may begin before, where readers lag
            if at < len(batch):
                return batch.first_seq + at
    return acked


async def _low_of(place: Serving, position: Position, acked: int) -> int:
    """Where reading must begin to see what is delivered at ``position`` whole; a batch begins there."""
    try:
        if 0 <= position.low <= position.seq and await _begins_at(place, position.low, acked):
            return position.low
        return await low_at(place, position.seq)
    except OutOfRange as error:
        raise Refused(place.trimmed(position.seq, error)) from error


async def low_at(place: Serving, seq: int) -> int:
    """``low`` of the batch that holds ``seq``. Raises: OutOfRange, Corrupt and the like."""
    if seq >= place.line.acked:
        return place.line.low
    return (await place.runs.at(seq, place.line.acked)).holding(seq).facts.column.low


async def _begins_at(place: Serving, seq: int, acked: int) -> bool:
    """Whether a batch begins at ``seq``: what a client says is looked at."""
    if seq == acked:
        return True
    number = place.tail.attach(seq)
    if number is not None:
        slot = place.tail.read(number)
        while slot is not None and slot.facts is None:
            slot = place.tail.read(slot.number + 1)
        return slot is not None and slot.facts is not None and slot.facts.seq == seq
    if seq < place.earliest:
        return False
    run = await place.runs.at(seq, acked)
    return run.holding(seq).facts.seq == seq
