"""What coordinator, nodes and clients say to one another, whatever carries it (docs/streaming-wire.md).

``transport/memory.py`` hands these objects over as they are; ``transport/grpc_*.py`` turn them into the
messages of ``woodpecker.streaming.v1`` and back. Unary requests are in ``requests.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from woodpecker.streaming.core.refusals import Refusal
from woodpecker.streaming.core.values import (
    ANYTHING,
    NO_STOP,
    Position,
    Properties,
    Start,
    Stop,
    Where,
)

# ------------------------------------------------------------------------------ messages in columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Messages in columns; ``keys``, ``properties``, ``types`` are empty or as long as ``payloads``.

    A key of b"" and a type of "" stand for none.
    """

    payloads: Sequence[bytes]
    keys: Sequence[bytes] = ()
    properties: Sequence[Properties] = ()
    types: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.payloads)


# ------------------------------------------------------------------- HandlerService.Produce, a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceHello:
    """Client, first. One stream per (pchannel, node life); any number of producers on it."""

    pchannel: str
    term: int
    incarnation: str
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceReady:
    """Node, first: it serves under this term."""

    credit_bytes: int  # batches not yet answered may hold this much
    rate_bytes_s: int = 0  # 0: no limit
    batch_max_bytes: int = 0
    message_max_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Client: a producer session on this stream. ``producer`` "": an anonymous one is granted.

    ``epoch`` -1: a named producer's next epoch is granted (fencing its zombie). Else a re-attach, which
    changes nothing.
    """

    session: int  # chosen by the client, unique on this stream
    producer: str = ""
    epoch: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """Node: the session stands, durably where an epoch was granted."""

    session: int
    producer: str
    epoch: int
    next_sequence: int
    grant_tick: int = -1  # of an anonymous id: goes with its batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Client: one batch, all or nothing. Sequences of a session are 0, 1, 2, ... without gaps.

    ``txn_number``: of the session's transaction it belongs to; -1: none. ``begin`` with its first batch,
    ``commit`` or ``abort`` with its last; these may have no messages. ``join``: at COMMIT all payloads are
    joined to one message. ``expect_last``: P1. ``ephemeral``: sequence -1; never written.
    """

    session: int
    sequence: int
    vcid: int
    messages: Messages
    txn_number: int = -1
    begin: bool = False
    commit: bool = False
    abort: bool = False
    join: bool = False
    ephemeral: bool = False
    keep_alive_ms: int = 0  # with begin; 0: the default
    grant_tick: int = -1  # with every batch of an anonymous producer


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAlive:
    """Client: the transaction is still wanted."""

    session: int
    txn_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Node: durable. Answers of a session come in the order of its batches.

    ``seq``, ``tick``: of the first entry; of a commit: effective seq and tick. Ephemeral: seq -1.
    """

    session: int
    sequence: int
    seq: int
    tick: int
    count: int
    low: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRefused:
    """Node: what became of this sending of the batch, or of an ``Attach`` (sequence -1)."""

    session: int
    sequence: int
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Either side: this many bytes more may be outstanding; ``consumer`` on Consume streams."""

    size_bytes: int
    consumer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Node: send no faster. 0: no limit; -1: send nothing but ends of transactions (REJECT)."""

    rate_bytes_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Node, last but for ``Closed``: it serves this pchannel no longer. ``term``: newest it knows."""

    pchannel: str
    term: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Either side: answer all that is here, then ``Closed``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The last frame: nothing is unanswered."""


# ------------------------------------------------------------------- HandlerService.Consume, a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeHello:
    """Client, first. One stream per (pchannel, node life); any number of consumers on it."""

    pchannel: str
    term: int
    incarnation: str
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeReady:
    """Node, first."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """Client: a consumer of one vchannel. ``ticks``: also send signals of time."""

    consumer: int  # chosen by the client, unique on this stream
    vcid: int
    start: Start
    stop: Stop = NO_STOP
    where: Where = ANYTHING
    credit_bytes: int = 4 << 20
    ticks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """Client: nothing more for this consumer; answered by ``ConsumerEnded``."""

    consumer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskProgress:
    """Client: send ``Progress`` now, for the whole stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Node: delivery begins at ``position``; ``tail``: where the channel's tail was."""

    consumer: int
    position: Position
    tail: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Node: messages of one log batch or one transaction. All columns are equally long or empty.

    ``seqs``, ``indexes`` (empty: all 0): effective positions. ``low``: as ``Position.low``, of all of them.
    ``ephemeral``: never persisted, positions mean nothing. ``cost_bytes``: what it takes of the credit.
    """

    consumer: int
    seqs: Sequence[int]
    ticks: Sequence[int]
    messages: Messages
    indexes: Sequence[int] = ()
    low: int = -1
    term: int = 0
    ephemeral: bool = False
    cost_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Node: all below ``position`` was delivered, filtered out, or is none of these consumers'.

    ``consumers`` empty: for every consumer of the stream that was ``Started``. Else it names those whose data
    below ``position`` has all been sent before this frame: the receiver cannot know by itself who waits for
    credit, and resumes there after a cut. ``tick``: nothing at or below it can still come. ``proof_age_ms``:
    how old the newest proof of ownership is.
    """

    position: Position
    tick: int
    proof_age_ms: int
    consumers: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerEnded:
    """Node: the end bound is reached, or ``Unsubscribe`` was done."""

    consumer: int
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRefused:
    """Node: this consumer has ended with an error; others go on."""

    consumer: int
    refusal: Refusal


# --------------------------------------------------------------- ManagerService.Status, a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class PchannelStatus:
    """What a node does with one pchannel. ``state``: core/owner.py's names."""

    pchannel: str
    term: int
    state: str  # idle, opening, replaying, serving, closing, closed, failed
    done_bytes: int = 0  # progress of an opening
    total_bytes: int = 0
    reason: str = ""
    bytes_s: float = 0.0
    lag_ms: int = 0
    memory_bytes: int = 0
    vchannels: int = 0
    vchannels_limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """Manager.Status, a stream from node to coordinator: first everything, then what changed, and beats."""

    node: str
    incarnation: str
    is_full: bool
    pchannels: Sequence[PchannelStatus]
    clock_us: int
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchStatus:
    """Coordinator, first on Manager.Status."""

    epoch: int


# -------------------------------------------------------- AssignmentService.Discover, a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverHello:
    """Client, first on Assignment.Discover."""

    client: str
    features: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEntry:
    """Who owns a pchannel. ``node`` "": nobody yet."""

    pchannel: str
    term: int
    node: str = ""
    incarnation: str = ""
    address: str = ""
    serving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class MapVersion:
    """Versions of the map grow as they compare."""

    epoch: int
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapChange:
    """Coordinator: the map, whole (``since`` None) or what changed since that version.

    ``digest``: of the whole map at ``version`` (core/assignment_map.py); a mismatch asks for the whole again.
    """

    version: MapVersion
    entries: Sequence[MapEntry]
    digest: str
    since: MapVersion | None = None
    removed: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Client: what it met at that owner; ``resend_map`` asks for the whole map."""

    pchannel: str = ""
    term: int = 0
    kind: str = ""
    resend_map: bool = False


ProduceUp = ProduceHello | Attach | Batch | KeepAlive | Close
ProduceDown = ProduceReady | Attached | Ack | BatchRefused | Credit | Rate | Moved | Close | Closed
ConsumeUp = ConsumeHello | Subscribe | Credit | Unsubscribe | AskProgress | Close
ConsumeDown = (
    ConsumeReady
    | Started
    | Data
    | Progress
    | ConsumerEnded
    | ConsumerRefused
    | Moved
    | Close
    | Closed
)
DiscoverUp = DiscoverHello | Report | Close
DiscoverDown = MapChange | Close
