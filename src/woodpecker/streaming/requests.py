"""Unary requests of the service and their replies: ``Endpoint.call(request)`` gives the reply of its type.

A request that cannot be done raises ``Refused``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from woodpecker.streaming.core.values import ANYTHING, Position, Start, Where
from woodpecker.streaming.frames import PchannelStatus

Reply_co = TypeVar("Reply_co", covariant=True)


class Request(Generic[Reply_co]):
    """A unary request; its parameter is the class of the reply."""

    __slots__ = ()


# ------------------------------------------------------------------------- HandlerService, unary


@dataclass(frozen=True, slots=True, kw_only=True)
class GetReadPoint(Request["ReadPoint"]):
    """-> ReadPoint. Refused: MOVED."""

    pchannel: str
    vcid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPoint:
    """Whoever has seen all below this position and tick has seen all that was acknowledged before."""

    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeTransaction(Request["TransactionState"]):
    """-> TransactionState. Of a producer's transaction, by its number."""

    pchannel: str
    producer: str
    epoch: int
    txn_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionState:
    """``state``: open, committed, aborted or forgotten."""

    state: str
    position: Position | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCursor(Request["CursorState"]):
    """-> CursorState. Creates it at ``start`` if it is not there; ``attach`` raises the generation.

    ``attach`` False: only look (NOT_FOUND if it is not there). ``nonce``: of this attach, for repeats.
    """

    pchannel: str
    vcid: int
    cursor: str
    start: Start
    attach: bool = True
    holder: str = ""
    nonce: str = ""
    where: Where = ANYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitCursor(Request["CursorState"]):
    """-> CursorState. Refused: FENCED if the generation is not the newest. ``done`` never falls, but by reset."""

    pchannel: str
    vcid: int
    cursor: str
    generation: int
    done: Position  # all below it is acknowledged; with its low
    ranges: tuple[tuple[Position, Position], ...] = ()  # acknowledged above it, inclusive
    reset: bool = False  # done may fall


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorState:
    """One cursor."""

    cursor: str
    vcid: int
    generation: int
    holder: str
    done: Position
    ranges: tuple[tuple[Position, Position], ...] = ()
    where: Where = ANYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCursors(Request["CursorList"]):
    """-> CursorList. Of one vchannel, or (vcid 0) of the whole pchannel."""

    pchannel: str
    vcid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorList:
    """Cursors by (vcid, name)."""

    cursors: Sequence[CursorState]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCursor(Request["Done"]):
    """-> Done."""

    pchannel: str
    vcid: int
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """It is so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendControl(Request["ControlWritten"]):
    """-> ControlWritten. Coordinator to owner: one control record, idempotent by what it names.

    ``kind``: vc-create, vc-delete, vc-trim, broadcast. ``broadcast_floor``: lowest unfinished id.
    """

    pchannel: str
    term: int
    kind: str
    vcid: int
    name: str = ""
    trim_before: int = 0
    retention_age_s: int | None = None
    retention_bytes: int | None = None
    broadcast_id: int = 0
    broadcast_floor: int = 0
    payload: bytes = b""
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlWritten:
    """Durable; of a repeat, where the first one is. ``seq`` -1: it was so before the checkpoint."""

    position: Position


# ------------------------------------------------------------------------- ManagerService


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign(Request["PchannelStatus"]):
    """-> PchannelStatus. Coordinator: serve this pchannel at this term. Records the wish, answers at once."""

    pchannel: str
    log: str
    log_id: str
    term: int
    incarnation: str
    epoch: int  # of the coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Request["PchannelStatus"]):
    """-> PchannelStatus. Coordinator: give this pchannel up if your term is at or below ``term``."""

    pchannel: str
    term: int
    incarnation: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate(Request["Channels"]):
    """-> Channels: those that exist, in any order."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One vchannel."""

    name: str
    vcid: int
    pchannel: str
    state: str = "active"
    retention_age_s: int | None = None
    retention_bytes: int | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Vchannels; ``more``: the listing goes on after the last one."""

    channels: Sequence[Channel]
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateChannel(Request["Channel"]):
    """-> Channel. EXISTS if it was there and neither ``exist_ok`` nor the same ``request``.

    GONE: this ``request`` has made it, and it was deleted since.
    """

    name: str
    request: str
    exist_ok: bool = False
    pchannel: str = ""  # "": the one with the least load
    retention_age_s: int | None = None
    retention_bytes: int | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteChannel(Request["Done"]):
    """-> Done. NOT_FOUND if it never was there; a repeat of ``request`` succeeds and deletes nothing else."""

    name: str
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListChannels(Request["Channels"]):
    """-> Channels, sorted by name."""

    prefix: str = ""
    start_after: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeCluster(Request["ClusterState"]):
    """-> ClusterState."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """One streaming node as the coordinator sees it."""

    node: str
    incarnation: str
    address: str
    zone: str
    is_alive: bool
    draining: bool
    frozen: bool
    pchannels: Sequence[str]
    version: str = ""
    safe_to_terminate: bool = False
    waits_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PchannelInfo:
    """One pchannel as the coordinator sees it; ``waits_for``: whom or what."""

    pchannel: str
    log: str
    term: int
    state: str
    node: str
    reason: str = ""
    waits_for: str = ""
    status: PchannelStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """The service at a glance."""

    coordinator: str
    epoch: int
    features: int
    nodes: Sequence[NodeInfo]
    pchannels: Sequence[PchannelInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Request["Done"]):
    """-> Done. A planned move of one pchannel; ``node`` "": wherever it fits best."""

    pchannel: str
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(Request["Done"]):
    """-> Done. A frozen node gets nothing new."""

    node: str
    frozen: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Request["NodeInfo"]):
    """-> NodeInfo. Move everything away from the node; ``draining`` False takes it back."""

    node: str
    draining: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPolicy(Request["Done"]):
    """-> Done."""

    balance: bool = True
    expected_nodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPchannels(Request["Done"]):
    """-> Done. So many more pchannels."""

    count: int


# ------------------------------------------------------------------------- BroadcastService


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast(Request["BroadcastInfo"]):
    """-> BroadcastInfo, when it is done. Idempotent by key."""

    key: str
    targets: Sequence[str]
    payload: bytes
    type: str = ""
    resources: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBroadcast(Request["BroadcastInfo"]):
    """-> BroadcastInfo."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListBroadcasts(Request["BroadcastList"]):
    """-> BroadcastList: all that are not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeBroadcast(Request["BroadcastInfo"]):
    """-> BroadcastInfo. A person's decision: try the parked targets again, or ``skip`` them."""

    key: str
    skip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastInfo:
    """One broadcast; a position per channel where it was written."""

    id: int
    key: str
    state: str
    positions: dict[str, Position] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastList:
    """Broadcasts by id."""

    broadcasts: Sequence[BroadcastInfo]
