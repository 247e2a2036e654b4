"""A pchannel on a node: (wish, actual), and one step function that moves actual towards the newest wish.

IDLE -> OPENING -> REPLAYING -> SERVING -> CLOSING -> CLOSED, or FAILED (rules, section 4). The driver
runs one task per pchannel: it carries out the effects of a step, one after another, and tells
their outcome as the next event. Orders may come at any time. After ``Stop`` the driver answers ``Stopped``
once nothing of the old life is left; what was under way before then is not reported any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """What is there now."""

    IDLE = "idle"
    OPENING = "opening"  # record read, writer being opened
    REPLAYING = "replaying"  # checkpoint, fold, term record
    SERVING = "serving"
    CLOSING = "closing"
    CLOSED = "closed"
    FAILED = "failed"


_RESTING = frozenset({State.IDLE, State.CLOSED, State.FAILED})
_OPENING = frozenset({State.OPENING, State.REPLAYING})
_ALIVE = frozenset({State.REPLAYING, State.SERVING})
REOPENS, REOPEN_WINDOW_MS = 3, 60_000  # under one term, without the coordinator
WRITER_ENDED = "its writer ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """State of one pchannel on one node.

    Attributes:
        term: of the present or last life; 0: none.
        wanted: newest term that anybody asked for, assign or release.
        is_wanted: that order was an assign.
        reopened_ms: monotonic times of re-openings under ``term``, the last minute's.
    """

    state: State = State.IDLE
    term: int = 0
    wanted: int = 0
    is_wanted: bool = False
    reason: str = ""
    again: bool = False  # CLOSING only to open under the same term again
    reopened_ms: tuple[int, ...] = ()


# ------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignAsked:
    """The coordinator wants it served here at this term."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAsked:
    """Not here, at or below this term. Also: a newer term - 1 was seen anywhere."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRead:
    """``p/<name>``, read linearizably: (term, node, incarnation) is ours, or not; ``term`` is its; 0: none."""

    is_mine: bool
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOpened:
    """The log is ours: the claim stands, everybody else is fenced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRefused:
    """The manifest holds a larger claim, or an equal term of somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermRecorded:
    """The fold reached E, and the term record is acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """Opening failed for ``reason``: clock, features, Corrupt, a store that stays away."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterEnded:
    """Fenced, OutcomeUnknown or time-out. ``is_mine``: the manifest still shows this claim."""

    is_mine: bool
    monotonic_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """All of the old life is gone: writer, streams, tables."""


Event = (
    AssignAsked
    | ReleaseAsked
    | RecordRead
    | WriterOpened
    | ClaimRefused
    | TermRecorded
    | Broke
    | WriterEnded
    | Stopped
)


# ------------------------------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRecord:
    """Read the record, check clock and features -> RecordRead, Broke."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWriter:
    """-> WriterOpened, ClaimRefused, Broke."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Checkpoint, fold to E, term record -> TermRecorded, Broke, WriterEnded."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """Admit; re-arm the timers of all open transactions. -> WriterEnded"""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Stop serving or opening -> Stopped. ``graceful``: drain, close record, checkpoint, close the writer."""

    graceful: bool


Effect = ReadRecord | OpenWriter | Replay | Serve | Stop


def step(owner: Owner, event: Event) -> tuple[Owner, Effect | None]:
    """The next state, and what to do to go on. Events that mean nothing in a state change nothing."""
    match event:
        case AssignAsked(term=term):
            return _ordered(owner, term, is_wanted=True)
        case ReleaseAsked(term=term):
            return _ordered(owner, term, is_wanted=False)
        case WriterEnded() if owner.state in _ALIVE:
            return _ended(owner, event)
        case Broke(reason=reason) if owner.state in _OPENING:
            return replace(owner, state=State.CLOSING, reason=reason), Stop(graceful=False)
        case Stopped() if owner.state is State.CLOSING:
            return _stopped(owner)
    return _opening(owner, event)


def _opening(owner: Owner, event: Event) -> tuple[Owner, Effect | None]:
    match owner.state, event:
        case State.OPENING, RecordRead(is_mine=True):
            return owner, OpenWriter(term=owner.term)
        case State.OPENING, RecordRead(term=term) if term < owner.term:
            # Records come before their orders: this term was never given. An order of the real one still counts.
            known = max(0, term - 1)
            owner = replace(owner, term=known, wanted=known, is_wanted=False, reopened_ms=())
            return replace(owner, state=State.CLOSING), Stop(graceful=False)
        case State.OPENING, RecordRead() | ClaimRefused():
            owner = replace(owner, is_wanted=owner.wanted > owner.term and owner.is_wanted)
            return replace(owner, state=State.CLOSING), Stop(graceful=False)
        case State.OPENING, WriterOpened():
            return replace(owner, state=State.REPLAYING), Replay(term=owner.term)
        case State.REPLAYING, TermRecorded():
            return replace(owner, state=State.SERVING, reason=""), Serve(term=owner.term)
    return owner, None


def _ordered(owner: Owner, term: int, *, is_wanted: bool) -> tuple[Owner, Effect | None]:
    """A newer order counts; at one term a release is newer than an assign. **P**"""
    is_newer = term > owner.wanted or (term == owner.wanted and owner.is_wanted and not is_wanted)
    if not is_newer:
        return owner, None
    owner = replace(owner, wanted=term, is_wanted=is_wanted)
    if owner.state in _RESTING:
        return _begin(owner) if is_wanted else (owner, None)
    if owner.state is State.CLOSING:
        return owner, None
    graceful = owner.state is State.SERVING
    return replace(owner, state=State.CLOSING, reason=""), Stop(graceful=graceful)


def _begin(owner: Owner) -> tuple[Owner, Effect | None]:
    """A life under the term that is wanted."""
    reopened = owner.reopened_ms if owner.term == owner.wanted else ()
    fresh = replace(
        owner, state=State.OPENING, term=owner.wanted, reason="", reopened_ms=reopened, again=False
    )
    return fresh, ReadRecord(term=owner.wanted)


def _ended(owner: Owner, event: WriterEnded) -> tuple[Owner, Effect | None]:
    """Nothing of this life is used again; under the same term a new one may begin."""
    recent = tuple(at for at in owner.reopened_ms if event.monotonic_ms - at < REOPEN_WINDOW_MS)
    again = event.is_mine and len(recent) < REOPENS
    if again:
        recent = (*recent, event.monotonic_ms)
    reason = "" if again else WRITER_ENDED
    return (
        replace(owner, state=State.CLOSING, again=again, reason=reason, reopened_ms=recent),
        Stop(graceful=False),
    )


def _stopped(owner: Owner) -> tuple[Owner, Effect | None]:
    if owner.is_wanted and (owner.wanted > owner.term or owner.again):
        return _begin(owner)
    failed = owner.reason not in {"", WRITER_ENDED} and owner.is_wanted
    return replace(owner, state=State.FAILED if failed else State.CLOSED, again=False), None
