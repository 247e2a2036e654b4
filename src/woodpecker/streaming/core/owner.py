"""A pchannel on a node: (wish, actual), and one step function that moves actual towards the newest wish.

IDLE -> OPENING -> REPLAYING -> SERVING -> CLOSING -> CLOSED, or FAILED (rules, section 4). The driver
runs one task per pchannel: it carries out the effects of a step, one after another, and tells
their outcome as the next event. Orders may come at any time. After ``Stop`` the driver answers ``Stopped``
once nothing of the old life is left; what was under way before then is not reported any more.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """``p/<name>``, read linearizably: (term, node, incarnation) is ours, or not."""

    is_mine: bool


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
    raise NotImplementedError
