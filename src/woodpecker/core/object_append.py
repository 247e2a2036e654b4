"""Kind ``object``: the pipeline of one writer over one segment (log protocol, section 5).

Blocks are created at keys 0, 1, 2 ... with several creates under way, acknowledged strictly in order.
``step(pipeline, event) -> (pipeline, effects)``; the driver carries out effects and reports events.

Rules:
- A create without a definite "written" is never judged by itself. The object is read: ours means
  stored; anything else is decided by the manifest. CLOSED or SEALED at E: stored if the number is
  <= E, else fenced. OPEN, ours and nothing there: the same create again. All else: fenced.
- A mark seen at k while a manifest read begun after that still shows the segment OPEN proves that
  blocks from k on are not in the log, for E can only come to lie below k.
- Once our own end mark is sent, nothing is ever sent at or above its number.
- After the first fault nothing is sent; blocks below it may still turn out stored and be acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from woodpecker.core.ids import State


class Found(StrEnum):
    """What lies at a key after an unclear create."""

    MINE = "mine"
    MARK = "mark"  # somebody else's end mark
    FOREIGN = "foreign"  # neither ours nor a mark
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What a manifest read says of the segment: state None when it is gone; E where closed."""

    state: State | None
    mine: bool
    end_block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """The driver has block ``number`` ready to be created."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Live close: all blocks are acknowledged, the end mark is to be created at ``number``."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The create at ``number`` answered "written"."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """The create at ``number`` answered anything else: exists, time-out, cut, 409, 5xx."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The object at ``number`` was read, then (unless it is ours) the manifest."""

    number: int
    found: Found
    fate: Fate | None = None  # None iff found is MINE


Event = Submit | Finish | Stored | Unclear | Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create the block (or, at the mark's number, the mark) with the same bytes as ever."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Read the object at ``number``; if it is not ours, read the manifest after that; say Judged."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """Blocks [first, until) are durable, as are all before them."""

    first: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Blocks [first, until) are fenced off; from ``not_written_from`` on they are surely not in the log."""

    first: int
    until: int
    not_written_from: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """Our end mark stands."""


Effect = Create | Judge | Acknowledge | Fail | Marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """State: [0, acked) acknowledged, [0, sent) handed to the store, nothing from ``limit`` on."""

    sent: int = 0
    acked: int = 0
    stored: frozenset[int] = frozenset()  # out of order, waiting for an earlier one
    mark: int | None = None  # number of our end mark, once sent
    limit: int | None = None  # first number that failed

    @property
    def failed(self) -> bool:
        """Whether a fault has been met: nothing is sent any more."""
        return self.limit is not None


def step(pipeline: Pipeline, event: Event) -> tuple[Pipeline, tuple[Effect, ...]]:
    """Advance by one event."""
    match event:
        case Submit(number=number):
            assert number == pipeline.sent and pipeline.mark is None, "blocks are sent in order"
            if pipeline.failed:
                return pipeline, ()
            return replace(pipeline, sent=number + 1), (Create(number=number),)
        case Finish(number=number):
            assert number == pipeline.sent == pipeline.acked, "a close drains first"
            if pipeline.failed:
                return pipeline, ()
            return replace(pipeline, mark=number), (Create(number=number),)
        case Stored(number=number):
            return _stored(pipeline, number)
        case Unclear(number=number):
            return pipeline, (() if _is_over(pipeline, number) else (Judge(number=number),))
        case Judged(number=number, found=found, fate=fate):
            return _judged(pipeline, number, found, fate)


def _is_over(pipeline: Pipeline, number: int) -> bool:
    return pipeline.limit is not None and number >= pipeline.limit


def _stored(pipeline: Pipeline, number: int) -> tuple[Pipeline, tuple[Effect, ...]]:
    if _is_over(pipeline, number):
        return pipeline, ()
    if number == pipeline.mark:
        return pipeline, (Marked(),)
    stored = pipeline.stored | {number}
    until = pipeline.acked
    while until in stored:
        until += 1
    if until == pipeline.acked:
        return replace(pipeline, stored=stored), ()
    later = frozenset(n for n in stored if n >= until)
    after = replace(pipeline, acked=until, stored=later)
    return after, (Acknowledge(first=pipeline.acked, until=until),)


def _judged(
    pipeline: Pipeline, number: int, found: Found, fate: Fate | None
) -> tuple[Pipeline, tuple[Effect, ...]]:
    if _is_over(pipeline, number):
        return pipeline, ()
    if found is Found.MINE:
        return _stored(pipeline, number)
    assert fate is not None, "the manifest is read whenever the object is not ours"
    if fate.end_block is not None:
        if number <= fate.end_block:
            return _stored(pipeline, number)
        return _fail(pipeline, number, fate.end_block + 1)
    if fate.state is State.OPEN and fate.mine and found is Found.NOTHING:
        if pipeline.failed:
            return _fail(pipeline, number, None)  # nothing is sent after a fault
        return pipeline, (Create(number=number),)
    proven = fate.state is State.OPEN and found is Found.MARK
    return _fail(pipeline, number, number if proven else None)


def _fail(
    pipeline: Pipeline, number: int, not_written_from: int | None
) -> tuple[Pipeline, tuple[Effect, ...]]:
    until = pipeline.limit if pipeline.limit is not None else pipeline.sent
    if number == pipeline.mark:
        until = number + 1
    fail = Fail(first=number, until=until, not_written_from=not_written_from)
    return replace(pipeline, limit=number), (fail,)
