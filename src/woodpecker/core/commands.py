"""Everything that can happen to a manifest, as plain values; ``transitions.apply`` carries it out.

Writer commands carry the owner's identity; background and administrative ones only the log's, for
they never change the epoch, never touch the OPEN segment and commute with the writer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from woodpecker.core.manifest import (
    Anchor,
    Claim,
    End,
    Loss,
    Manifest,
    Options,
    PageRef,
    Sealed,
    Segment,
)
from woodpecker.core.register import Register


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Identity of one open attempt: it owns the log iff all three are the manifest's."""

    log_id: str
    epoch: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateLog:
    """Create the log, over nothing or over a tombstone."""

    name: str
    log_id: str
    now_ms: int
    options: Options
    attributes: dict[str, str]
    storage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLog:
    """Create the log with all it holds, over nothing or over a tombstone: ``manifest`` is the whole.

    Sent twice: first with ``deleting`` set and nothing in it (epoch 0), which reserves the name while
    the objects are written, then with everything.
    """

    log_id: str
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWriter:
    """Take the log over: epoch + 1 under my token, if nobody else did so since ``seen_epoch``."""

    log_id: str
    seen_epoch: int
    token: str
    claim: Claim | None = None
    to_delete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSegment:
    """Open the prepared segment after the last closed one."""

    owner: Owner
    segment: Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSegment:
    """Close the OPEN segment at ``end``, or drop it if it has no block; perhaps open ``next`` too."""

    owner: Owner
    segment_id: int
    end: End | None
    bytes: int
    first_timestamp_us: int
    last_timestamp_us: int
    now_ms: int
    register: Register
    register_key: str | None = None  # set: the register is too big for the record and lies there
    ended: bool = False
    next: Segment | None = None
    loss: Loss | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealSegment:
    """Name the sealed object of the first CLOSED segment; ``end`` proves which content is meant."""

    log_id: str
    segment_id: int
    end: End
    sealed: Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTrimPending:
    """Publish retention's intention before it reads the cursors; it replaces an older intention.

    The cursors that another run has read may be outdated by now, so that its trim is refused.
    """

    log_id: str
    before: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimLog:
    """Move the trim point to ``before``. ``visible``: the tail the trimmer itself has seen as readable.

    With ``token`` it is refused unless the intention published under this token still stands, and
    the intention is cleared. Without, cursors are passed.
    """

    log_id: str
    before: int
    visible: int
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSegments:
    """Forget segments below ``anchor.first_segment``, all of them below the trim point."""

    log_id: str
    anchor: Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillPage:
    """Replace what the page covers (SEALED segments, or pages of one level) by a reference to it."""

    log_id: str
    page: PageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterLog:
    """Set options and attributes; ``storage`` names where segments go from the next one on."""

    log_id: str
    options: Options
    attributes: dict[str, str]
    storage: str | None = None  # None: leave


@dataclass(frozen=True, slots=True, kw_only=True)
class BuryLog:
    """Make the log a tombstone; its deletion owns it and has fenced the OPEN segment (or was forced)."""

    owner: Owner
    now_ms: int
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveGrave:
    """Forget a deleted incarnation whose end marks are gone."""

    log_id: str


Command = (
    CreateLog
    | ImportLog
    | OpenWriter
    | OpenSegment
    | CloseSegment
    | SealSegment
    | SetTrimPending
    | TrimLog
    | DropSegments
    | SpillPage
    | AlterLog
    | BuryLog
    | RemoveGrave
)


class Refused(StrEnum):
    """Why a command was not carried out; each maps to one public error in ``metadata/catalog.py``."""

    NOT_FOUND = "not_found"  # no such log, or another incarnation of the name
    EXISTS = "exists"
    FENCED = "fenced"  # another owner
    ENDED = "ended"
    CLAIM = "claim"  # a larger claim, or an equal one of another holder, stands
    STALE = "stale"  # the state moved on: read again, there may be nothing left to do
    BROKEN = "broken"  # the state contradicts itself or the command: a bug or damage


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refused command: why, and the facts for the message."""

    why: Refused
    detail: str
