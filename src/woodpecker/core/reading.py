"""Rules of reading: where a reader is, what comes next there, and when it is at an end (section 8).

A reader's place is (seq, digest of the last block it took, the segment of that block). Segments and
their sealed forms come and go; whatever is read next must continue the chain from that digest, so a
reader never skips an entry silently, never shows another history, and never goes back.

Taking blocks (``fit``):
    block links to my digest                    -> take it
    block is mine, or ends at or below my seq   -> skip it (seen before)
    anything else                               -> it does not continue what was shown
A block without entries is taken silently: it moves the digest, not the seq.

Choosing segments (``enter``), in the order of the manifest:
    my segment or an earlier one, read to its end -> pass over
    the next one                                  -> its ``prev_digest`` must be my digest
    mine and all between are trimmed away         -> the first kept one, if it begins at my seq
Of several segments with equal base_seq the last owns the seq: those that end at it are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from woodpecker.core.manifest import Manifest, Segment
from woodpecker.errors import Corrupt, InvalidRequest, OutOfRange

MAX_SEQ = (1 << 63) - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a reader is: everything below ``seq`` was shown (or lies before its start).

    ``digest`` is None until a block was taken or a segment entered at its beginning.
    """

    seq: int
    digest: bytes | None = None
    segment_id: int = -1


class Fit(Enum):
    """What a block is to a reader at some place."""

    TAKE = "take"
    SKIP = "skip"
    BREAK = "break"


def fit(place: Place, *, base_seq: int, count: int, prev_digest: bytes, digest: bytes) -> Fit:
    """Judge the block (base_seq, count, digests) that a source yields to a reader at ``place``."""
    end_seq = base_seq + count
    if place.digest is None:  # nothing taken yet: the start may lie inside this block
        if end_seq < place.seq or (count and end_seq == place.seq):
            return Fit.SKIP
        return Fit.TAKE if base_seq <= place.seq else Fit.BREAK
    if prev_digest == place.digest:
        return Fit.TAKE if base_seq == place.seq else Fit.BREAK
    return Fit.SKIP if digest == place.digest or end_seq <= place.seq else Fit.BREAK


def enter(place: Place, segment: Segment, manifest: Manifest) -> Place | None:
    """The place from which ``segment`` is read, or None if there is nothing in it for the reader.

    Raises:
        Corrupt: it does not continue what the reader has shown.
    """
    if _is_behind(place, segment):
        return None
    here = bytes.fromhex(segment.prev_digest)
    if place.digest is None:
        if segment.base_seq > place.seq:
            raise _gap(place, segment)
        digest = here if segment.base_seq == place.seq else None
        return Place(seq=place.seq, digest=digest, segment_id=segment.id)
    if segment.id == place.segment_id:
        return place
    if segment.base_seq != place.seq:
        raise _gap(place, segment)
    # mine may be trimmed away, and with it segments without entries between mine and this one
    is_mine_gone = place.segment_id < manifest.anchor.first_segment
    is_anchored = is_mine_gone and segment.prev_digest == manifest.anchor.digest
    if here != place.digest and not is_anchored:
        raise Corrupt(
            f"log {manifest.name!r}: segment {segment.id} does not continue what was read up to "
            f"seq {place.seq}",
            where=f"{manifest.name} segment {segment.id}",
        )
    return Place(seq=place.seq, digest=here, segment_id=segment.id)


def _is_behind(place: Place, segment: Segment) -> bool:
    if segment.end is None:
        return segment.id < place.segment_id
    if place.digest is None:
        return segment.end.seq <= place.seq
    if segment.id == place.segment_id:
        return segment.end.digest == place.digest.hex()
    return segment.id < place.segment_id


def _gap(place: Place, segment: Segment) -> Corrupt:
    return Corrupt(
        f"segment {segment.id} begins at seq {segment.base_seq}, a reader is at {place.seq}",
        where=f"segment {segment.id}",
    )


def is_read_through(place: Place, segment: Segment) -> bool:
    """Whether a closed segment was read to its end E.

    Raises:
        Corrupt: the reader was shown something else than what E says.
    """
    end = segment.end
    if end is None or place.segment_id != segment.id:
        return False
    if place.seq > end.seq:
        raise Corrupt(
            f"segment {segment.id} ends at seq {end.seq}, but entries up to {place.seq} were read",
            where=f"segment {segment.id}",
        )
    return place.digest is not None and place.digest.hex() == end.digest


def check_place(place: Place, manifest: Manifest) -> None:
    """Look at the log as it is now, before a reader goes on.

    Raises:
        OutOfRange(earliest=): what comes next was trimmed.
        Corrupt: what was shown is not in the log any more.
    """
    if place.seq < manifest.trim_point:
        raise OutOfRange(
            f"log {manifest.name!r}: seq {place.seq} was trimmed; the earliest is "
            f"{manifest.trim_point}",
            earliest=manifest.trim_point,
        )
    if place.digest is not None and manifest.open_segment is None and place.seq > manifest.next_seq:
        raise Corrupt(
            f"log {manifest.name!r} ends at seq {manifest.next_seq}, but entries up to {place.seq} "
            "were read" + (" (a loss was accepted)" if manifest.losses else ""),
            where=manifest.name,
        )


def is_finished(place: Place, manifest: Manifest) -> bool:
    """Whether the log was ended and everything in it read: nothing will ever follow.

    Raises:
        OutOfRange(tail=): it ended below the place the reader waits for.
    """
    if not manifest.ended or manifest.open_segment is not None:
        return False
    if place.seq > manifest.next_seq:
        raise beyond_tail(manifest.name, place.seq, manifest.next_seq)
    return place.seq == manifest.next_seq


def beyond_tail(name: str, seq: int, tail: int) -> OutOfRange:
    """The error for a place that was not written yet."""
    return OutOfRange(
        f"log {name!r}: seq {seq} is beyond the tail {tail}; read with follow=True to wait for it",
        tail=tail,
    )


# --- where to start and end -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSeq:
    """This seq."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeTail:
    """So many entries before the tail, or the earliest."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AtTime:
    """The first entry with a timestamp at or after this one."""

    timestamp_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Earliest:
    """The first entry that is not trimmed."""


Spot = AtSeq | BeforeTail | AtTime | Earliest
EndSpot = AtSeq | BeforeTail | AtTime


def parse_start(start: object) -> Spot:
    """What a ``start`` argument means: seq, -n, "earliest", "latest", datetime, or with a ``position``.

    Raises: InvalidRequest.
    """
    if isinstance(start, str) and start in ("earliest", "latest"):
        return Earliest() if start == "earliest" else BeforeTail(count=0)
    if isinstance(start, datetime):
        return AtTime(timestamp_us=as_timestamp_us(start))
    position = getattr(start, "position", start)
    if isinstance(position, int) and not isinstance(position, bool):
        if position < 0 and position is start:
            return BeforeTail(count=-position)
        if 0 <= position <= MAX_SEQ:
            return AtSeq(seq=position)
    raise InvalidRequest(
        f"start={start!r}: use a seq, -n (n before the tail), 'earliest', 'latest', "
        "a datetime with a timezone, or a cursor"
    )


def parse_end(end: object) -> EndSpot | None:
    """What an ``end`` argument (exclusive) means: seq, datetime, "tail", or None.

    Raises: InvalidRequest.
    """
    if end is None:
        return None
    if isinstance(end, str) and end == "tail":
        return BeforeTail(count=0)
    if isinstance(end, datetime):
        return AtTime(timestamp_us=as_timestamp_us(end))
    if isinstance(end, int) and not isinstance(end, bool) and 0 <= end <= MAX_SEQ:
        return AtSeq(seq=end)
    raise InvalidRequest(f"end={end!r}: use a seq, a datetime with a timezone, or 'tail'")


def as_timestamp_us(moment: datetime) -> int:
    """Microseconds since 1970; times before that are 0.

    Raises: InvalidRequest: without a timezone.
    """
    if moment.utcoffset() is None:
        raise InvalidRequest(
            f"datetime {moment.isoformat()} has no timezone: it could mean many moments; "
            "use datetime(..., tzinfo=timezone.utc) or .astimezone()"
        )
    return max(0, (moment - EPOCH) // timedelta(microseconds=1))
