"""Records of cursors: who may move one, and what of the log it holds (rules, section 9).

Every change is a compare-and-swap by a node, on behalf of the holder. What protects a cursor is its
generation: each attach raises it, and whoever comes with an older one is refused. **P**
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from woodpecker.streaming.core.acks import Range
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.values import ANYTHING, Position, Where


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorRecord:
    """One cursor. ``nonce``: of the attach that made this generation."""

    done: Position
    generation: int = 0
    holder: str = ""
    nonce: str = ""
    ranges: tuple[Range, ...] = ()
    where: Where = ANYTHING

    @property
    def low(self) -> int:
        """Position of the log's cursor: what must be kept of the log to resume. **P** Never ``done`` itself."""
        return self.done.low if self.done.low >= 0 else self.done.seq


def attached(
    record: CursorRecord | None, *, start: Position, holder: str, nonce: str, where: Where
) -> CursorRecord | Refusal:
    """The record after an attach, or the refusal; the same one if this attach was done before.

    The filter never changes: ranges would cover what nobody has seen. Who gives none takes the record's.

    Args:
        start, where: of a new cursor.
    """
    if record is None:
        return CursorRecord(done=start, generation=1, holder=holder, nonce=nonce, where=where)
    if where not in (ANYTHING, record.where):
        return Refusal(
            kind=Class.INVALID,
            message=f"this cursor has another filter, {record.where}: give the same one, none, or another name",
        )
    if record.nonce == nonce:
        return record
    return replace(record, generation=record.generation + 1, holder=holder, nonce=nonce)


def committed(
    record: CursorRecord,
    *,
    generation: int,
    done: Position,
    ranges: tuple[Range, ...] = (),
    reset: bool = False,
) -> CursorRecord | Refusal:
    """The record after a commit of acknowledgements, or the refusal.

    ``done`` never falls, nor is a range taken back: what comes late changes nothing. ``reset`` sets it anywhere and begins a new
    generation, so that nothing of the old one can move it.
    """
    if generation != record.generation:
        return Refusal(
            kind=Class.FENCED,
            message=f"generation {generation} of this cursor was replaced by {record.generation}, "
            f"held by {record.holder!r}; subscribe again",
        )
    if reset:
        return replace(record, done=done, ranges=ranges, generation=generation + 1, nonce="")
    is_late = done < record.done or (done == record.done and _hold(record.ranges, ranges))
    return record if is_late else replace(record, done=done, ranges=ranges)


def _hold(ranges: Sequence[Range], others: Sequence[Range]) -> bool:
    """Whether each of ``others`` lies in one of ``ranges``."""
    for first, last in others:
        at = bisect_right(ranges, first, key=itemgetter(0)) - 1
        if at < 0 or last > ranges[at][1]:
            return False
    return True
