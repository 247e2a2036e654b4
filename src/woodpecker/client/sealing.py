"""Sealing: a CLOSED segment is rewritten once as one immutable object (log protocol, section 8).

Segments are sealed in order. Any number of workers may seal the same segment, each may be killed at
any point: what they write at the key is the same, byte for byte. The manifest names an object only
after all of it was read back; blocks go only after a manifest read shows the segment SEALED.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

from woodpecker.client.chain import ChainScan
from woodpecker.client.checkpoints import last_closed, register_before, scan_blocks
from woodpecker.client.environment import Environment
from woodpecker.client.sealed_objects import SealedCheck, check_sealed
from woodpecker.codec import keys
from woodpecker.codec.block import Block, Buffer
from woodpecker.core.backoff import delay_ms
from woodpecker.core.commands import SealSegment
from woodpecker.core.file_rules import padded
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Manifest, Sealed, Segment
from woodpecker.core.register import Register
from woodpecker.errors import Conflict, Corrupt, NotFound, OutcomeUnknown
from woodpecker.observability.names import Counter, Event, Histogram, Span
from woodpecker.runtime.pace import Pace
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.prefetch import closing
from woodpecker.storage.base import ObjectStore

PART_BYTES = 4 << 20
WRITE_TRIES = 5


async def seal_log(
    env: Environment,
    name: str,
    *,
    log_id: str | None = None,
    settle_ms: int = 0,
    leave_ms: int = 0,
) -> int:
    """Seal all CLOSED segments of a log, oldest first; returns how many this call sealed.

    Args:
        settle_ms: leave those closed less than this ago to the process that closed them; by a clock
            that is further away from ours than that, it says nothing.
        leave_ms: likewise, leave them to the nodes that hold them, where there are any to be asked.
    Raises: NotFound: the log is gone. Unavailable, OutcomeUnknown: again later. Corrupt: damage.
    Cancellation: nothing is lost; the next call goes on.
    """
    count = 0
    while True:
        manifest = await env.catalog.read(name, log_id=log_id)
        segment = first_to_seal(manifest)
        if segment is None:
            return count
        if _is_younger(env, segment, settle_ms):
            return count
        if _is_younger(env, segment, leave_ms) and await hand_over(env, manifest, segment):
            return count
        log_id = manifest.log_id
        try:
            with env.observer.span(Span.SEAL, log=name, segment=segment.id):
                await seal_segment(env, manifest, segment)
        except (NotFound, Conflict) as error:
            if _needs(await env.catalog.read(name, log_id=log_id)) != _needs(manifest):
                continue  # somebody else sealed it, or trimmed it or what is before it, meanwhile
            where = f"log {name!r} segment {segment.id}"
            raise Corrupt(
                f"{where} cannot be sealed, what the manifest names is not there: {error}",
                where=where,
            ) from error
        count += 1


def _needs(manifest: Manifest) -> tuple[object, ...]:
    """What sealing the next segment reads: itself, and where the register before it is found."""
    first_unsealed = first_to_seal(manifest)
    return first_unsealed, manifest.anchor, manifest.pages, manifest.register_key


def first_to_seal(manifest: Manifest) -> Segment | None:
    """The oldest CLOSED segment, unless all of it is trimmed: then it will be dropped as it is."""
    for segment in manifest.segments:
        if segment.end is not None and segment.sealed is None:
            return segment if segment.end.seq > manifest.trim_point else None
    return None


def _is_younger(env: Environment, segment: Segment, age_ms: int) -> bool:
    return abs(env.runtime.now_us() // 1000 - segment.closed_at_ms) < age_ms


async def hand_over(env: Environment, manifest: Manifest, segment: Segment) -> bool:
    """Ask those that hold a CLOSED segment to seal it; False: there is nobody but the caller."""
    ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
    return await env.store_of(manifest, segment).hand_over(ref)


async def seal_segment(env: Environment, manifest: Manifest, segment: Segment) -> None:
    """Seal one CLOSED segment whose predecessors are SEALED, and drop its blocks.

    Raises: Conflict, NotFound: read the manifest again. Others as ``seal_log``.
    """
    started_ms = env.runtime.monotonic_ms()
    others = sum(kept.state is State.CLOSED for kept in manifest.segments) - 1
    check = await write_sealed(env, manifest, segment, is_hurried=others > 0)
    assert segment.end is not None
    command = SealSegment(
        log_id=manifest.log_id, segment_id=segment.id, end=segment.end, sealed=check.sealed
    )
    await env.catalog.change(manifest.name, command)
    env.hub.moved(manifest.log_id)
    shown = await env.catalog.read(manifest.name, log_id=manifest.log_id)
    if all(kept.id != segment.id or kept.state is State.SEALED for kept in shown.segments):
        ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
        await env.store_of(manifest, segment).drop(ref, keep_fence=True)
    took_ms = env.runtime.monotonic_ms() - started_ms
    env.observer.count(Counter.SEALED)
    env.observer.observe(Histogram.SEAL, took_ms)
    env.observer.event(
        Event.SEGMENT_SEALED, log=manifest.name, segment=segment.id, bytes=check.sealed.size
    )


async def write_sealed(
    env: Environment, manifest: Manifest, segment: Segment, *, is_hurried: bool = True
) -> SealedCheck:
    """Make sure that the sealed object lies at its key; returns what was read back.

    The key may be taken: by an earlier try, or by another worker. It is adopted if it is sound.

    Args:
        is_hurried: somebody waits for it; else it rests in between.
    """
    pace = Pace(env.runtime, is_hurried=is_hurried)
    key = sealed_key(manifest, segment)
    objects = env.objects_of(manifest, segment)
    before = await register_before(env, manifest, segment)

    async def check() -> SealedCheck:
        return await check_sealed(objects, key, manifest.log_id, segment, pace=pace)

    if await objects.head(key) is not None:
        try:
            return _trusted(manifest, await check(), before)
        except Corrupt:
            pass  # incomplete or damaged, and the blocks are still there: written anew below
    if not await _seal_in_place(env, manifest, segment, objects, before, pace):
        await _write(env, manifest, segment, objects, before)
    return _trusted(manifest, await check(), before)


def sealed_key(manifest: Manifest, segment: Segment) -> str:
    """The one key at which this closed segment is sealed."""
    assert segment.end is not None
    return keys.sealed(manifest.log_id, segment.id, segment.end.seq, segment.end.digest)


async def written_ahead(env: Environment, manifest: Manifest, segment: Segment) -> Segment | None:
    """A CLOSED segment as it will be once SEALED, if its object is there already; None: it is not.

    A take-over has it written where too few nodes can hold the blocks (protocol, section 7): it may be
    all there is before anybody has sealed the segment.
    Raises: Unavailable.
    """
    key = sealed_key(manifest, segment)
    found = await env.objects_of(manifest, segment).head(key)
    if found is None:
        return None
    sealed = Sealed(key=key, size=found.size, checksum="")  # readers check blocks and index
    return replace(segment, state=State.SEALED, sealed=sealed)


def _trusted(manifest: Manifest, check: SealedCheck, before: Register) -> SealedCheck:
    """The register must be the fold of the blocks and, at the end of the log, the checkpoint."""
    segment = check.scan.segment
    expected = check.scan.register(before)
    if segment == last_closed(manifest) and manifest.register_key is None:
        expected = manifest.register
    if check.register != expected or check.scan.register(before) != expected:
        where = f"log {manifest.name!r} segment {segment.id}"
        raise Corrupt(f"{where}: the register is not the fold of the blocks", where=where)
    return check


async def _seal_in_place(
    env: Environment,
    manifest: Manifest,
    segment: Segment,
    objects: ObjectStore,
    before: Register,
    pace: Pace,
) -> bool:
    key = sealed_key(manifest, segment)
    if not is_padded(segment, objects, key):
        return False
    scan = await scan_blocks(env, manifest, segment, pace)
    sizes = [padded(header.size_bytes) for header in scan.headers]
    *offsets, at = accumulate(sizes, initial=0)
    ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
    store = env.store_of(manifest, segment)
    return await store.seal_in_place(ref, scan.tail(before, offsets, at), at, objects, key)


async def _write(
    env: Environment, manifest: Manifest, segment: Segment, objects: ObjectStore, before: Register
) -> None:
    key = sealed_key(manifest, segment)
    for attempt in range(1, WRITE_TRIES + 1):
        source = env.source(manifest, segment)
        parts = Parts(source, manifest, segment, padding=is_padded(segment, objects, key))
        try:
            async with closing(parts.joined(before)) as stream:
                await objects.write_stream(key, stream)
        except OutcomeUnknown:
            # the key determines the content: writing it again is harmless
            if attempt == WRITE_TRIES:
                raise
            await env.runtime.sleep_ms(delay_ms(attempt, env.runtime.random()))
        else:
            return


def is_padded(segment: Segment, objects: ObjectStore, key: str) -> bool:
    """Whether blocks are laid out as in a data file: where one may become the object by a new name.

    A copy must have the same bytes, or a slow copier would replace the object by another one.
    """
    return segment.kind is Kind.FILE and objects.local_path(key) is not None


class Blocks(Protocol):
    """Where the blocks of a segment are read from."""

    def blocks(self, seq: int) -> AsyncIterator[Block]:
        """Verified blocks, from the first one on."""

    async def close(self) -> None:
        """Release what is held."""


class Parts:
    """The bytes of a sealed object, block by block from where its blocks are now. Used once."""

    def __init__(
        self, source: Blocks, manifest: Manifest, segment: Segment, *, padding: bool
    ) -> None:
        self._source = source
        self._scan = ChainScan(
            manifest.log_id, segment, f"log {manifest.name!r} segment {segment.id}"
        )
        self._padding = padding

    async def joined(self, before: Register) -> AsyncIterator[Buffer]:
        """Parts of a useful size; small blocks are joined."""
        pending: list[Buffer] = []
        size = 0
        async with closing(self._blocks_and_tail(before)) as parts:
            async for part in parts:
                pending.append(part)
                size += len(part)
                if size >= PART_BYTES:
                    yield pending[0] if len(pending) == 1 else b"".join(pending)
                    pending, size = [], 0
        yield b"".join(pending)

    async def _blocks_and_tail(self, before: Register) -> AsyncIterator[Buffer]:
        offsets: list[int] = []
        offset = 0
        try:
            async with closing(self._source.blocks(self._scan.segment.base_seq)) as blocks:
                async for block in blocks:
                    self._scan.add(block)
                    offsets.append(offset)
                    size = block.header.size_bytes
                    length = padded(size) if self._padding else size
                    yield block.buffer
                    if length > size:
                        yield bytes(length - size)
                    offset += length
                    if self._scan.is_complete:
                        break
        finally:
            await self._source.close()
        self._scan.finish()
        yield self._scan.tail(before, offsets, offset)
