"""Kind ``object``: how a taker-over ends somebody else's segment (log protocol, section 5).

One listing gives the contiguous prefix of blocks (sizes tell marks from blocks). The walker creates
an end mark at its end k; a writer that is still alive may be faster, then its block is included and
the walk goes on. After two losses a mark is put ahead of the writer, so that its pipeline runs into
it and the walk is bounded. The first mark met, whoever put it, ends the walk: E is the block below.

``step(walk, event) -> (walk, effect)``: exactly one effect is under way at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

AHEAD = 16  # first distance of a mark put ahead; more than any pipeline is deep, then doubling
LOSSES_BEFORE_AHEAD = 2


class Seen(StrEnum):
    """What lies at a key."""

    BLOCK = "block"
    MARK = "mark"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The listing: numbers that hold a block, numbers that hold a mark, by size."""

    blocks: frozenset[int]
    marks: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """Our mark was created at the number asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was read at the number asked for (after an unclear create too)."""

    seen: Seen


Event = Listed | Created | Looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Create our mark at ``number``; answer Created, or look what is there and answer Looked."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Read what is at ``number``; answer Looked."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The segment ends: ``count`` blocks, numbers [0, count); a mark stands at ``count``."""

    count: int


Effect = Mark | Look | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """State: blocks [0, at) exist; ``ahead`` is the distance of the mark being put ahead, else 0."""

    at: int = 0
    losses: int = 0
    ahead: int = 0
    is_ahead_done: bool = False


def step(walk: Walk, event: Event) -> tuple[Walk, Effect]:
    """Advance by one event."""
    match event:
        case Listed(blocks=blocks, marks=marks):
            at = 0
            while at in blocks:
                at += 1
            # a listed mark may be stale or a trick of sizes: it is looked at before it counts
            effect: Effect = Look(number=at) if at in marks else Mark(number=at)
            return replace(walk, at=at), effect
        case Created():
            return _mark_stands(walk)
        case Looked(seen=seen):
            return _looked(walk, seen)


def _looked(walk: Walk, seen: Seen) -> tuple[Walk, Effect]:
    if seen is Seen.MARK:
        return _mark_stands(walk)
    if seen is Seen.BLOCK:
        return _lost(walk)
    return walk, Mark(number=walk.at + walk.ahead)  # an unclear create: again


def _mark_stands(walk: Walk) -> tuple[Walk, Effect]:
    if walk.ahead:
        return replace(walk, ahead=0, is_ahead_done=True), Mark(number=walk.at)
    return walk, Ended(count=walk.at)


def _lost(walk: Walk) -> tuple[Walk, Effect]:
    """A block is where we wanted the mark."""
    if walk.ahead:
        return replace(walk, ahead=walk.ahead * 2), Mark(number=walk.at + walk.ahead * 2)
    walk = replace(walk, at=walk.at + 1, losses=walk.losses + 1)
    if walk.losses >= LOSSES_BEFORE_AHEAD and not walk.is_ahead_done:
        return replace(walk, ahead=AHEAD), Mark(number=walk.at + AHEAD)
    return walk, Mark(number=walk.at)
