"""Port: where the open and closed parts of segments live, one adapter per kind.

Life of a segment: ``prepare`` (before the CAS that opens it) -> ``SegmentWriter`` -> ``finish`` (live
close) or, by a stranger, ``recover`` (fence, find the end E, make everything up to E safe) -> the
closing CAS -> sealing reads it through ``source`` -> ``drop`` once the manifest allows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from woodpecker.codec.block import Block, PackedBlock
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import End, Manifest, Place, Segment
from woodpecker.core.register import BlockFacts
from woodpecker.storage.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """A segment together with the identity of its log."""

    log_id: str
    segment: Segment
    name: str = ""  # of the log: nodes of kind quorum find its manifest by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a fenced segment holds for ever: its end E, and what the closing CAS needs to know.

    ``end`` is None if no block was found. ``facts`` are the register facts of its blocks, in order,
    blocks without any left out.
    """

    end: End | None
    bytes: int
    first_timestamp_us: int
    last_timestamp_us: int
    facts: Sequence[BlockFacts]


ReadManifest = Callable[[], Awaitable[Manifest]]
"""Linearizable read of the manifest of the writer's log (a tombstone too). Raises: Unavailable."""


class SegmentWriter(Protocol):
    """The open end of one segment, owned by one writer. All calls from the loop's thread."""

    cut_bytes: int  # target size of a block
    partial_slots: int  # a partial block is cut only while fewer blocks than this are in flight
    bytes_left: int  # room for blocks in this segment, by the store's own limits
    on_roll: Callable[[], None] | None  # set by the driver: called when ``wants_roll`` becomes true

    @property
    def slots(self) -> int:
        """Blocks that may be in flight now. 0: this segment can take none any more and is to be rolled."""

    @property
    def wants_roll(self) -> bool:
        """Whether the segment should be closed soon and the next one opened elsewhere.

        Before ``begin``: whether it had better be prepared anew.
        """

    def begin(self, segment: Segment) -> None:
        """The CAS has opened the segment: its base_seq and prev_digest are final; blocks follow."""

    def allocate(self, size_bytes: int) -> memoryview | None:
        """A buffer to pack the next block into, or None: the packer makes its own."""

    def reserve(self, size_bytes: int) -> None:
        """Make sure there is room for ``size_bytes`` more, before seqs are given out. Cheap.

        Raises:
            NotWritten: no room now (disk full); the writer goes on once there is.
        """

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        """Start writing the next block; blocks come in order of their numbers.

        The future resolves, in order of the blocks, when the block is durable, the fence was looked at
        after that, and readers may see it. It fails, and so do all later ones, with:
            Fenced(outcome=): the segment is not ours any more.
            OutcomeUnknown: the store failed for good, or ``append_timeout_ms`` passed.
        After a failure nothing later is sent.
        """

    async def finish(self, end: End) -> None:
        """Close at E = ``end`` (all submitted blocks are acknowledged); nothing is sent hereafter.

        On return nobody can append to the segment, so that the closing CAS may name E.
        Raises: Fenced, OutcomeUnknown, Unavailable: close as a stranger would (``recover``).
        """

    async def abandon(self) -> None:
        """Let go of resources without closing the segment. Waits for writes under way."""


class BlockSource(Protocol):
    """Read access to one segment as some manifest showed it (OPEN, CLOSED at E, or SEALED)."""

    def blocks(self, seq: int) -> AsyncIterator[Block]:
        """Verified consecutive blocks from the one that holds ``seq``, up to what is visible now.

        Prefetches in the background, bounded in bytes; closing the iterator ends the prefetch.
        Zero-entry blocks are included, those at ``seq`` before the one that holds it too (for the
        segment's base_seq: from block 0). None if ``seq`` is not visible yet. A source asked again
        where its last iteration ended goes on behind the blocks it gave.
        Raises:
            NotFound: blocks are gone (sealed, trimmed, deleted): read the manifest again.
            Corrupt: bytes fail their checks. Unavailable: the store is away.
        """

    async def visible_end(self) -> int:
        """The seq after the last one a reader may see here now. Raises: as ``blocks``."""

    async def wait_visible(self, seq: int, timeout_ms: int) -> None:
        """Return when ``visible_end()`` may be above ``seq``, or after ``timeout_ms``; a hint.

        Wakes at once where it can (same process, inotify); else looks now and then, ever more rarely.
        """

    async def seq_at(self, timestamp_us: int) -> int:
        """First visible seq whose timestamp is >= ``timestamp_us``, else ``visible_end()``."""

    async def check_rest(self) -> None:
        """For ``verify``: look at what lies beside the visible blocks of an OPEN or CLOSED segment.

        Alignment padding is zero; a CLOSED segment still has what stops a sleeping writer.
        Raises: Corrupt(where=); else as ``blocks``.
        """

    async def close(self) -> None:
        """Release files; iterators end."""


class SegmentStore(Protocol):
    """One kind of segments in one place (bucket prefix, or buffer directory)."""

    kind: Kind

    async def prepare(
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[Place | None, SegmentWriter]:
        """Get everything ready and durable for a segment that the next CAS opens.

        ``segment`` has no place yet; a place returned (kinds file, quorum) goes into the CAS. Its
        base_seq and prev_digest may still change: the segment before goes on while this one is made
        ready (see ``begin``).
        Raises: NotWritten (disk full), Unavailable, InvalidRequest.
        """

    async def recover(self, ref: SegmentRef, *, token: str) -> Recovered:
        """Fence an OPEN segment against its writer, find its end E, make all up to E safe.

        ``token`` is the taker-over's. Idempotent; may be run by several at once; only a CAS fixes E.
        Raises:
            Unavailable(host or pid): cannot be fenced from here. Corrupt: damaged below its end.
        """

    async def salvage(self, ref: SegmentRef, *, token: str) -> Recovered:
        """As ``recover``, for a segment that it refuses: up to the first block that is not there.

        Only after a person has accepted the loss of what follows (``woodpecker log recover``).
        Raises: Unavailable: the writer may live and cannot be fenced from here.
        """

    def source(self, ref: SegmentRef) -> BlockSource:
        """Reader of an OPEN or CLOSED segment."""

    async def seal_in_place(
        self, ref: SegmentRef, tail: bytes, at: int, objects: ObjectStore, key: str
    ) -> bool:
        """Turn a CLOSED segment into its sealed object at ``key`` without copying, where that is possible.

        Args:
            tail: index and footer for the blocks where they lie, padded; all of them were just verified.
            at: byte at which the padding of the last one ends.

        Returns: False: not possible here (another place, somebody still holds the segment); then the blocks
            are copied.
        Raises: NotFound: the segment is gone. Corrupt, Unavailable.
        """

    async def hand_over(self, ref: SegmentRef) -> bool:
        """Ask whoever is closer to the data to seal a CLOSED segment (kind quorum: its nodes).

        True: somebody was asked, which is no promise. False: nobody is closer than the caller, or
        nobody could be asked. Raises: nothing.
        """

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        """Delete the blocks of a segment that is SEALED, trimmed, never opened, or of a deleted log.

        ``keep_fence``: leave what stops a sleeping writer (end marks). False only when the log itself
        was deleted 30 days ago. Idempotent. Raises: Unavailable.
        """

    async def held(self, log_id: str) -> Sequence[tuple[int, str]]:
        """Segments (id, token of the writer that prepared them) of a log that have files here.

        For finding what a killed process left behind. Blocks that lie in the object store are found
        there, so kind ``object`` has none. Raises: Unavailable.
        """

    async def close(self) -> None:
        """Release resources of the store."""
