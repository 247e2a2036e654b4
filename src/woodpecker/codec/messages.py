"""Messages between clients and LogStore nodes, as values; ``frames.py`` lays them out in bytes.

Each is a MessagePack array that begins with its tag; what a later version adds comes at the end, with a
default. Blocks and other bulk bytes travel behind the message as its *payload*. docs/wire.md has the
whole protocol, so that other languages can speak it.

A request gets exactly one reply of the type named beside it, or ``Refused``. ``Advance`` gets none.
"""

from __future__ import annotations

import msgspec

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.manifest import End
from woodpecker.core.replica import Target, Tip, Verdict

WIRE_VERSION = 1


class Message(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Base of all messages. ``msgspec`` decodes tuples, bytes and nested frozen dataclasses."""


# --- on a new connection, in this order ---


class Challenge(Message, frozen=True, tag="challenge"):
    """Node -> client, unasked: prove that you know the secret (if ``auth`` is not ``none``)."""

    versions: tuple[int, int]  # lowest and highest wire version spoken
    auth: str  # "none" | "secret"
    nonce: bytes  # 32 random bytes


class Hello(Message, frozen=True, tag="hello"):
    """Client -> node -> Welcome."""

    version: int
    client: str  # who asks, for people: host, pid
    nonce: bytes  # 32 random bytes
    proof: bytes = b""  # HMAC-SHA256(secret, "client" + nonce of the node + nonce of the client)


class Welcome(Message, frozen=True, tag="welcome"):
    """The node may be used. URLs carry no credentials."""

    node: str
    incarnation: str  # 32 hex digits
    store_id: str
    storage_url: str
    metadata_url: str
    zone: str = ""
    proof: bytes = b""  # HMAC-SHA256(secret, "node" + nonce of the client + nonce of the node)
    max_payload_bytes: int = 0


# --- writers ---


class Append(Message, frozen=True, tag="append"):
    """Payload: one block -> Appended, when it is synced."""

    target: Target
    name: str  # of the log: the node finds its manifest by it
    lac: int = NO_BLOCK  # last confirmed block of the segment


class Advance(Message, frozen=True, tag="advance"):
    """The LAC has moved and no block carries it. No reply; lost ones do no harm."""

    target: Target
    lac: int


class Appended(Message, frozen=True, tag="appended"):
    """Block ``number`` and all before it are on the disk of the node."""

    number: int
    pressure: int = 0  # 0 fine, 1 soft watermark: seal early, slow down, 2 hard: refuses blocks


# --- taking over ---


class Fence(Message, frozen=True, tag="fence"):
    """End the segment on this node -> Voted."""

    target: Target
    name: str
    epoch: int  # of the taker-over
    token: str
    reason: str = ""


class Voted(Message, frozen=True, tag="voted"):
    """What the node has; a lower bound unless ``complete``.

    ``size_bytes``: of its blocks as stored. ``lac``: the last block that it was told to be confirmed.
    """

    tip: Tip | None
    complete: bool
    size_bytes: int = 0
    lac: int = NO_BLOCK


class Repair(Message, frozen=True, tag="repair"):
    """Payload: one block at or below the end that the recoverer found -> Stored."""

    target: Target
    name: str
    end: int


class Stored(Message, frozen=True, tag="stored"):
    """The repaired block and all before it are on the disk."""

    number: int


class Upload(Message, frozen=True, tag="upload"):
    """Write the sealed object of the segment as it ends at ``end`` (it may still be OPEN) -> Done.

    For a recoverer that finds too few nodes to hold E. The node reads the manifest by itself.
    """

    target: Target
    name: str
    end: End


# --- readers ---


class Read(Message, frozen=True, tag="read"):
    """Blocks from one on -> Blocks.

    By number (``first``) or, with ``first`` = NO_BLOCK, from the first block whose end is above ``seq``
    or that begins at ``seq`` (so for the base seq of the segment: block 0).
    ``limit``: last block to show, where the reader knows E from the manifest or is a recoverer;
    None: the LAC. ``max_bytes``: at least one block is sent if there is one; 0: none, only look.
    ``wait_ms``: if there is nothing to show yet, wait so long for it.
    ``facts_only``: only blocks that change the register.
    """

    target: Target
    first: int = NO_BLOCK
    seq: int = 0
    limit: int | None = None
    max_bytes: int = 0
    wait_ms: int = 0
    facts_only: bool = False


class Blocks(Message, frozen=True, tag="blocks"):
    """Payload: blocks, one behind the other; ``sizes`` of each in bytes.

    ``last``: last block that may be shown here now; ``visible``: the seq after it (None: no block yet,
    or the copy is not here at all). Fewer blocks than asked for says nothing about the end.
    """

    first: int
    sizes: tuple[int, ...]
    last: int
    visible: int | None
    is_fenced: bool = False


class Find(Message, frozen=True, tag="find"):
    """First block up to ``limit`` (None: LAC) that has an entry of that time or later -> Found."""

    target: Target
    timestamp_us: int
    limit: int | None = None


class Found(Message, frozen=True, tag="found"):
    """Number of that block; NO_BLOCK: none."""

    number: int


class GetObject(Message, frozen=True, tag="get_object"):
    """Bytes of a sealed object, page or register, for clients without rights of their own -> Object.

    ``storage`` as in the manifest ("" is the store's own). ``length`` None: to the end. Nodes refuse
    every other key.
    """

    storage: str
    key: str
    start: int = 0
    length: int | None = None


class Object(Message, frozen=True, tag="object"):
    """Payload: the bytes; ``size``: of the whole object; None: it does not exist."""

    size: int | None


# --- the rest ---


class Tell(Message, frozen=True, tag="tell"):
    """The manifest of log ``name`` has moved: seal, reclaim -> Done at once."""

    name: str


class GetStatus(Message, frozen=True, tag="get_status"):
    """-> Status."""


class Status(Message, frozen=True, tag="status"):
    """JSON, for people and tools: see docs/observability.md."""

    text: bytes


class ListSegments(Message, frozen=True, tag="list_segments"):
    """Copies on this node, from (log_id, segment_id) on -> Status with one JSON array."""

    log_id: str = ""
    segment_id: int = -1
    limit: int = 1000


class Ping(Message, frozen=True, tag="ping"):
    """Keep-alive, either way -> Done."""


class Done(Message, frozen=True, tag="done"):
    """Nothing more to say."""


class Refused(Message, frozen=True, tag="refused"):
    """Not done. ``verdict`` where the copy's rules refused (``last``: what a GAP needs); else ``code``,
    one of ``woodpecker.errors`` (unavailable, overloaded, invalid_request, corrupt, ...).
    """

    code: str
    text: str
    verdict: Verdict | None = None
    last: int = NO_BLOCK


Request = (
    Hello | Append | Advance | Fence | Repair | Upload | Read | Find | GetObject | Tell | GetStatus
    | ListSegments | Ping
)  # fmt: skip
Reply = (
    Challenge | Welcome | Appended | Voted | Stored | Blocks | Found | Object | Status | Done | Refused
)  # fmt: skip
AnyMessage = Request | Reply
