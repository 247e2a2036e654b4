"""Kind ``quorum``: the pipeline of one writer over one segment (log protocol, section 7).

Every block goes to all N members, each with a pipeline of its own; ``step(pipeline, event)`` gives the
new state and what the driver is to do. Rules:

- A block is acknowledged when A members have it and all before it on disk: the LAC. Members take blocks
  in order, so the number a member acknowledges covers all before it; numbers only grow.
- A slow or dead member delays nobody. What it lacks is sent again when it returns as the same
  incarnation; a member that can never take a block of this segment again is *lost*. What it has still
  counts, unless it has lost records.
- ``FENCED`` or ``GONE`` from a member says nothing about the outcome: nothing is sent any more, and the
  manifest is read. CLOSED or SEALED at E: what is up to E is in the log, the rest never will be. OPEN
  and mine: that one member is lost (a person fenced it), the writer goes on. Anything else: fenced,
  outcome unknown. Acknowledgements that arrive meanwhile still count: the fence covers sets of A.
- With fewer than A members left that can take blocks, nothing can ever be confirmed again (``can_confirm``).
  The driver then closes the segment as a stranger would, while what was sent waits for its time-out.
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.core.ids import NO_BLOCK, State
from woodpecker.core.moved import mover
from woodpecker.core.quorum import confirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """State of the writer. ``acked`` and ``lost`` are by index of the member."""

    acks: int
    acked: tuple[int, ...]
    lost: frozenset[int] = frozenset()
    sent: int = NO_BLOCK  # last block handed over
    lac: int = NO_BLOCK
    is_judging: bool = False  # a manifest read is under way: nothing is sent
    has_ended: bool = False


_moved = mover(Pipeline)


def start(members: int, acks: int) -> Pipeline:
    """A segment that was just opened."""
    return Pipeline(acks=acks, acked=(NO_BLOCK,) * members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """The next block is there."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """Member ``member`` has block ``number`` and all before it on disk."""

    member: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Member ``member`` takes no more blocks of this segment: another incarnation, or retired.

    ``has_forgotten``: it has lost records: what it acknowledged does not count any more.
    """

    member: int
    has_forgotten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Member ``member`` answered FENCED or GONE."""

    member: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A manifest read that began after ``Stopped``: the segment's state (None: gone), is it mine."""

    member: int
    state: State | None
    mine: bool
    end_block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The oldest block has waited for ``append_timeout_ms``; or the writer is being abandoned."""


Event = Submit | Acked | Lost | Stopped | Judged | TimedOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send what waits to every member that is not lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """All blocks up to ``number`` are confirmed; readers may be told."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Read the manifest, then report ``Judged``."""

    member: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The writer has ended: blocks from ``first`` on failed.

    Those from ``not_written_from`` on (None: none) are certainly not in the log.
    """

    first: int
    fenced: bool
    not_written_from: int | None = None


Effect = Send | Acknowledge | Judge | Fail


def step(pipeline: Pipeline, event: Event) -> tuple[Pipeline, tuple[Effect, ...]]:
    """One event; see the module."""
    if pipeline.has_ended:
        return pipeline, ()
    match event:
        case Submit():
            assert event.number == pipeline.sent + 1
            pipeline = _moved(pipeline, sent=event.number)
            return pipeline, () if pipeline.is_judging else (Send(),)
        case Acked():
            return _acked(pipeline, event)
        case Lost():
            return _lost(pipeline, event.member, has_forgotten=event.has_forgotten)
        case Stopped():
            if pipeline.is_judging or event.member in pipeline.lost:
                return pipeline, ()
            return _moved(pipeline, is_judging=True), (Judge(member=event.member),)
        case Judged():
            return _judged(pipeline, event)
        case TimedOut():
            return _fail(pipeline, fenced=False)


def _acked(pipeline: Pipeline, event: Acked) -> tuple[Pipeline, tuple[Effect, ...]]:
    if event.member in pipeline.lost:
        return pipeline, ()  # said before it was lost: by now it may have forgotten the block
    acked = list(pipeline.acked)
    acked[event.member] = max(acked[event.member], min(event.number, pipeline.sent))
    lac = confirmed(acked, pipeline.acks)
    moved = _moved(pipeline, acked=tuple(acked), lac=max(lac, pipeline.lac))
    return moved, (Acknowledge(number=lac),) if lac > pipeline.lac else ()


def _lost(
    pipeline: Pipeline, member: int, *, has_forgotten: bool = False
) -> tuple[Pipeline, tuple[Effect, ...]]:
    """What a lost member has synced still counts, if it still has it; it only gets nothing more."""
    pipeline = _moved(pipeline, lost=pipeline.lost | {member})
    if has_forgotten:  # else a block could be confirmed that is on fewer than A disks
        acked = pipeline.acked
        pipeline = _moved(pipeline, acked=(*acked[:member], NO_BLOCK, *acked[member + 1 :]))
    return pipeline, ()


def _judged(pipeline: Pipeline, event: Judged) -> tuple[Pipeline, tuple[Effect, ...]]:
    pipeline = _moved(pipeline, is_judging=False)
    if event.state is State.OPEN and event.mine:
        pipeline, effects = _lost(pipeline, event.member)
        return pipeline, effects if pipeline.has_ended else (*effects, Send())
    if event.state in (State.CLOSED, State.SEALED) and event.end_block is not None:
        end = min(event.end_block, pipeline.sent)
        known: tuple[Effect, ...] = ()
        if end > pipeline.lac:
            pipeline, known = _moved(pipeline, lac=end), (Acknowledge(number=end),)
        pipeline, failed = _fail(pipeline, fenced=True, not_written_from=end + 1)
        return pipeline, (*known, *failed)
    return _fail(pipeline, fenced=True)


def _fail(
    pipeline: Pipeline, *, fenced: bool, not_written_from: int | None = None
) -> tuple[Pipeline, tuple[Effect, ...]]:
    failed = Fail(first=pipeline.lac + 1, fenced=fenced, not_written_from=not_written_from)
    return _moved(pipeline, has_ended=True), (failed,)


def can_confirm(pipeline: Pipeline, number: int) -> bool:
    """Whether block ``number`` can still come to be on A disks."""
    able = sum(
        index not in pipeline.lost or acked >= number for index, acked in enumerate(pipeline.acked)
    )
    return able >= pipeline.acks


def wants_new_ensemble(pipeline: Pipeline, behind: frozenset[int]) -> bool:
    """Whether the segment should be closed and the next opened elsewhere.

    ``behind``: members that have been away, or too far behind, for too long.
    """
    return bool(pipeline.lost | behind)
