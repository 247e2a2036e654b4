"""Records of the service in the metadata store, one key each, changed by compare-and-swap alone.

========================  =====================================================================
``stream/coordinator``    CoordinatorRecord
``stream/node/<id>``      NodeRecord
``stream/p/<name>``       PchannelRecord
``stream/vc/<name>``      VchannelRecord
``stream/counters``       Counters
``stream/features``       Features
``stream/policy``         Policy
``stream/ckpt/<log id>``  CheckpointsRecord
``stream/b/<id>``         BroadcastRecord
``stream/bkey/<key>``     BroadcastKey
========================  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorRecord:
    """Who decides. ``epoch`` grows with every change of holder; ``beat`` with every sign of life."""

    epoch: int
    holder: str  # token of the process: 32 hex digits
    address: str
    beat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One streaming node, judged by observed change of ``beat``, never by comparing clocks."""

    node: str
    incarnation: str  # 128 random bits per process start, hex
    address: str
    zone: str = ""
    features_min: int = 1
    features_max: int = 1
    draining: bool = False
    frozen: bool = False
    is_up: bool = True  # False: it left in good order
    beat: int = 0
    version: str = ""


class Assignment(StrEnum):
    """State of a pchannel in its record."""

    UNASSIGNED = "unassigned"
    ASSIGNING = "assigning"
    ASSIGNED = "assigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A node's life under a term."""

    node: str
    incarnation: str
    address: str
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PchannelRecord:
    """One pchannel: which log, which term, whose. ``term`` grows by 1 with every change of owner."""

    name: str
    log: str  # name of the log
    log_id: str
    term: int = 0
    state: Assignment = Assignment.UNASSIGNED
    owner: Owner | None = None
    epoch: int = 0  # of the coordinator that wrote it
    former: tuple[Owner, ...] = ()  # not yet confirmed gone; at most the newest 4


class Life(StrEnum):
    """State of a vchannel in its record."""

    CREATING = "creating"
    ACTIVE = "active"
    DELETING = "deleting"
    DELETED = "deleted"  # tombstone


@dataclass(frozen=True, slots=True, kw_only=True)
class VchannelRecord:
    """One vchannel. ``vcid`` is never used again; the name may be, with another vcid."""

    name: str
    vcid: int
    pchannel: str
    state: Life
    retention_age_s: int | None = None
    retention_bytes: int | None = None
    request: str = ""  # id of the request that created it, for repeats
    deletion: str = ""  # ... that deleted it, or the one before it of this name
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Grow only. ``unfinished``: ids of broadcasts begun and not ended, sorted.

    ``epoch``: of the newest coordinator that takes broadcast ids; older ones take none.
    """

    epoch: int = 0
    pchannels: int = 0  # how many there are to be, p0 and on; 0: not yet decided
    next_vcid: int = 1
    next_broadcast: int = 1
    unfinished: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The level up to which formats and kinds may be written. Never lowered."""

    level: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a person wants of balancing."""

    balance: bool = True
    expected_nodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRef:
    """One durable checkpoint: the fold of all entries below ``seq``."""

    seq: int
    low: int  # lowest ``low`` a trim must respect when this checkpoint is used
    object: str  # name under the log's objects
    digest: str
    size: int
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsRecord:
    """The two newest checkpoints, newest first; seq grows only."""

    checkpoints: tuple[CheckpointRef, ...] = ()


class BroadcastState(StrEnum):
    """PENDING will finish; DONE has a result for each target."""

    PENDING = "pending"
    DONE = "done"
    PARKED = "parked"  # waits for a person


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastResult:
    """What became of a broadcast on one target."""

    channel: str
    seq: int = -1
    tick: int = -1
    skipped: str = ""  # why; "": it was written


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastRecord:
    """One broadcast."""

    id: int
    key: str
    targets: tuple[tuple[str, int], ...]  # (channel, vcid)
    payload: bytes
    type: str = ""
    resources: tuple[str, ...] = ()
    state: BroadcastState = BroadcastState.PENDING
    results: tuple[BroadcastResult, ...] = ()
    reason: str = ""  # of PARKED


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastKey:
    """Which broadcast a caller's key stands for."""

    id: int
