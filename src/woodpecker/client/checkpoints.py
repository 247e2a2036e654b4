"""The register at the borders of segments: from the nearest checkpoint, folded over blocks if need be."""

from __future__ import annotations

from dataclasses import replace

from woodpecker.client.chain import ChainScan
from woodpecker.client.environment import Environment
from woodpecker.client.sealed_objects import read_register
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.core.register import Register
from woodpecker.errors import Corrupt
from woodpecker.runtime.pace import Pace
from woodpecker.segments.prefetch import closing


async def scan_blocks(
    env: Environment, manifest: Manifest, segment: Segment, pace: Pace | None = None
) -> ChainScan:
    """Follow all blocks of a CLOSED segment, up to E. ``pace``: of the work.

    Raises: NotFound: sealed or gone meanwhile. Corrupt, Unavailable.
    """
    scan = ChainScan(manifest.log_id, segment, f"log {manifest.name!r} segment {segment.id}")
    source = env.source(manifest, segment)
    try:
        async with closing(source.blocks(segment.base_seq)) as blocks:
            async for block in blocks:
                scan.add(block)
                if scan.is_complete:
                    break
                if pace is not None:
                    await pace.did(block.header.size_bytes)
    finally:
        await source.close()
    scan.finish()
    return scan


async def register_before(env: Environment, manifest: Manifest, segment: Segment) -> Register:
    """The register just before a kept segment. Raises: NotFound: read the manifest again. Corrupt."""
    previous = await previous_segment(env, manifest, segment)
    if previous is None:
        anchor = manifest.anchor
        if (anchor.seq, anchor.digest) != (segment.base_seq, segment.prev_digest):
            raise Corrupt(
                f"log {manifest.name!r}: segment {segment.id} does not follow the anchor at seq "
                f"{anchor.seq}",
                where=manifest.name,
            )
        return await env.history(manifest).load_register(anchor.register, anchor.register_key)
    return await register_after(env, manifest, previous)


async def register_after(env: Environment, manifest: Manifest, segment: Segment) -> Register:
    """The register at the end of a kept, closed segment. Raises: as ``register_before``."""
    assert segment.end is not None
    if segment.sealed is not None:
        return await read_register(env.objects_of(manifest, segment), segment)
    if segment == last_closed(manifest):
        register, key = manifest.register, manifest.register_key
        return await env.history(manifest).load_register(register, key)
    before = await register_before(env, manifest, segment)
    return (await scan_blocks(env, manifest, segment)).register(before)


def last_closed(manifest: Manifest) -> Segment | None:
    """The newest closed segment: the manifest's checkpoint stands at its end."""
    closed = [segment for segment in manifest.segments if segment.end is not None]
    return closed[-1] if closed else None


async def previous_segment(
    env: Environment, manifest: Manifest, segment: Segment
) -> Segment | None:
    """The kept segment right before ``segment``, or None if it is the first."""
    inline = [kept for kept in manifest.segments if kept.id < segment.id]
    if inline:
        return inline[-1]
    previous = None
    paged = replace(manifest, segments=())
    async with closing(env.history(manifest).segments(paged, from_seq=segment.base_seq)) as kept:
        async for earlier in kept:
            if earlier.id >= segment.id:
                break
            previous = earlier
    return previous
