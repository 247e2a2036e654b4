"""Mending a damaged or missing sealed object, without ever losing what is still there.

The object is rewritten with the very bytes the manifest names, from its own blocks if only index,
register, footer or padding are damaged, else from the blocks of the open part if they were not
deleted yet. An object is replaced by a whole sound one, or left as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

from woodpecker.client.checkpoints import register_before
from woodpecker.client.environment import Environment
from woodpecker.client.sealed_objects import check_sealed
from woodpecker.client.sealing import Blocks, Parts, is_padded
from woodpecker.codec.block import HEADER_BYTES, Block, parse_header
from woodpecker.core.file_rules import padded
from woodpecker.core.ids import State
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.errors import Corrupt, NotFound
from woodpecker.storage.base import ObjectStore


async def repair_segment(
    env: Environment, manifest: Manifest, segment: Segment, damage: Corrupt | NotFound
) -> None:
    """Rewrite the sealed object of ``segment``.

    Raises:
        Corrupt: it cannot be mended; says which entries are lost. The object is left as it is.
        NotFound: the manifest does not name it any more. Unavailable, OutcomeUnknown.
    """
    assert segment.sealed is not None and segment.end is not None
    now = await env.catalog.read(manifest.name, log_id=manifest.log_id)
    if segment.id < now.anchor.first_segment:
        raise NotFound(f"segment {segment.id} was trimmed meanwhile") from damage
    objects = env.objects_of(manifest, segment)
    closed = replace(segment, state=State.CLOSED, sealed=None)  # its blocks, if not deleted yet
    for source in (partial(_Salvage, objects, segment), partial(env.source, manifest, closed)):
        try:
            await _rewrite(env, manifest, segment, objects, source)
        except (Corrupt, NotFound):
            continue
        return
    where = f"{objects.url}/{segment.sealed.key}"
    raise Corrupt(
        f"{damage}; it cannot be repaired: entries {segment.base_seq} to {segment.end.seq - 1} (segment "
        f"{segment.id}) are damaged and no other copy of their blocks is left. Restore {where} from a "
        "backup of the store, or trim the log beyond it",
        where=getattr(damage, "where", "") or where,
    ) from damage


async def _rewrite(
    env: Environment,
    manifest: Manifest,
    segment: Segment,
    objects: ObjectStore,
    source: Callable[[], Blocks],
) -> None:
    """First a dry pass, so that a good object is never replaced by less. Raises: Corrupt, NotFound."""
    sealed = segment.sealed
    assert sealed is not None
    before = await register_before(env, manifest, segment)
    padding = is_padded(segment, objects, sealed.key)
    parts = Parts(source(), manifest, segment, padding=padding)
    size = 0
    async for part in parts.joined(before):
        size += len(part)
    if size != sealed.size:
        raise Corrupt(f"{size} bytes instead of the manifest's {sealed.size}", where=sealed.key)
    again = Parts(source(), manifest, segment, padding=padding)
    await objects.write_stream(sealed.key, again.joined(before))
    await check_sealed(objects, sealed.key, manifest.log_id, segment)


class _Salvage:
    """Blocks of a sealed object read one after the other, without its index."""

    def __init__(self, objects: ObjectStore, segment: Segment) -> None:
        assert segment.sealed is not None
        self._objects = objects
        self._segment = segment
        self._key = segment.sealed.key
        self._padding = is_padded(segment, objects, self._key)

    async def blocks(self, seq: int) -> AsyncIterator[Block]:
        """All blocks from the first one on. Raises: Corrupt, NotFound, Unavailable."""
        assert self._segment.end is not None
        offset = 0
        for _ in range(self._segment.end.block + 1):
            where = f"{self._objects.url}/{self._key} byte {offset}"
            front, _info = await self._objects.get(self._key, start=offset, length=HEADER_BYTES)
            size = parse_header(front, where=where).size_bytes
            data, _info = await self._objects.get(self._key, start=offset, length=size)
            yield Block.parse(data, where=where)
            offset += padded(size) if self._padding else size

    async def close(self) -> None:
        """Nothing is held."""
