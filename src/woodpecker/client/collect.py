"""Garbage collection and orphan sweep of one living log: list first, read the manifest then, delete
what ``core/collect.py`` proves that nothing can refer to any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from woodpecker.client.environment import Environment
from woodpecker.client.kept import on_kept
from woodpecker.codec import keys
from woodpecker.codec.endmark import is_mark_size
from woodpecker.codec.keys import BlockKey, PageKey, RegisterKey, SealedKey
from woodpecker.core.collect import (
    BlockItem,
    Collector,
    FileItem,
    Item,
    PageItem,
    RegisterItem,
    SealedItem,
)
from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.observability.names import Counter, Span
from woodpecker.segments.base import SegmentRef, SegmentStore
from woodpecker.storage.base import ObjectInfo, ObjectStore

BATCH_OBJECTS = 5_000


async def collect_log(
    env: Environment, name: str, *, log_id: str | None = None, files_only: bool = False
) -> int:
    """Delete what no one can need any more; returns how many objects and files.

    Safe beside any number of writers, readers and other workers, and however late it is carried out.
    Args:
        files_only: only files in this machine's buffer directory.
    Raises: NotFound: the log is gone. Corrupt, Unavailable.
    """
    manifest = await env.catalog.read(name, log_id=log_id)
    count = 0
    with env.observer.span(Span.GC, log=name):
        for storage in manifest.storages:
            count += await _collect_files(env, manifest, storage)
            if not files_only:
                count += await _collect_objects(env, manifest, env.places.objects(storage))
    env.observer.count(Counter.GC_DELETED, count)
    return count


async def _collect_objects(env: Environment, manifest: Manifest, objects: ObjectStore) -> int:
    count = 0
    items: list[tuple[str, Item]] = []
    async for batch in _batches(objects, keys.log_prefix(manifest.log_id)):
        items = items[
            -1:
        ]  # once more: objects of one segment are told from each other side by side
        items += [(info.key, item) for info in batch if (item := item_of(info)) is not None]
        collector = await _collector(env, manifest, [item for _, item in items])
        for key, item in items:
            if collector.is_from_the_future(item):
                raise _older(env, manifest, f"{objects.url}/{key}")
        doomed = {key for key, item in items if collector.is_garbage(item)}
        if doomed:
            await objects.delete(sorted(doomed))
            items = [(key, item) for key, item in items if key not in doomed]
        count += len(doomed)
    return count


def _older(env: Environment, manifest: Manifest, where: str) -> Corrupt:
    return Corrupt(
        f"log {manifest.name!r}: {where} belongs to a later segment than the metadata at "
        f"{env.catalog.store.url} knows: an old copy of the metadata was put in place. Nothing is "
        "deleted; stop all writers and put the newest metadata back",
        where=where,
    )


async def _batches(objects: ObjectStore, prefix: str) -> AsyncIterator[list[ObjectInfo]]:
    batch: list[ObjectInfo] = []
    async for page in objects.list(prefix):
        batch.extend(page)
        if len(batch) >= BATCH_OBJECTS:
            yield batch
            batch = []
    if batch:
        yield batch


async def _collector(env: Environment, listed: Manifest, items: list[Item]) -> Collector:
    """A judge over the manifest as it is now, after the items were listed."""
    manifest = await env.catalog.read(listed.name, log_id=listed.log_id)
    return await on_kept(env, manifest, lambda now: _judge(env, now, items))


async def _judge(env: Environment, manifest: Manifest, items: list[Item]) -> Collector:
    """With whatever must be looked up in pages."""
    upper, paged = None, {}
    has_pages = any(isinstance(item, PageItem) for item in items)
    if has_pages and any(page.level > 0 for page in manifest.pages):
        upper = {page.key: page async for page in env.history(manifest).inner_pages(manifest)}
    doubtful = Collector(manifest).doubtful(items)
    if doubtful:
        paged = {s.id: s async for s in env.segments(manifest) if s.id in doubtful}
    return Collector(manifest, upper, paged)


def item_of(info: ObjectInfo) -> Item | None:
    """What a listed object is to the collector; None: it is not for the sweep to judge."""
    match keys.parse_object(info.key):
        case BlockKey(segment_id=segment, number=number):
            return BlockItem(segment_id=segment, number=number, is_mark=is_mark_size(info.size))
        case SealedKey(segment_id=segment, end_seq=end_seq, digest=digest):
            return SealedItem(segment_id=segment, end_seq=end_seq, digest=digest)
        case PageKey(level=level, first_segment=first, last_segment=last):
            return PageItem(key=info.key, level=level, first_segment=first, last_segment=last)
        case RegisterKey(is_anchor=is_anchor, segment_id=segment):
            return RegisterItem(key=info.key, segment_id=segment, is_anchor=is_anchor)
        case _:
            return None


async def _collect_files(env: Environment, listed: Manifest, storage: str) -> int:
    store = file_store(env, storage)
    if store is None:
        return 0
    held = await store.held(listed.log_id)
    if not held:
        return 0
    manifest = await env.catalog.read(listed.name, log_id=listed.log_id)
    collector = Collector(manifest)
    count = 0
    for segment_id, token in held:
        if collector.is_garbage(FileItem(segment_id=segment_id, token=token)):
            await store.drop(file_ref(listed.log_id, segment_id, token), keep_fence=True)
            count += 1
    return count


def file_store(env: Environment, storage: str) -> SegmentStore | None:
    """The buffer directory of this machine for that storage, if there is one."""
    try:
        return env.places.segments(Kind.FILE, storage)
    except InvalidRequest:
        return None


def file_ref(log_id: str, segment_id: int, token: str) -> SegmentRef:
    """A file found here, of a segment that no manifest describes any more."""
    segment = Segment(
        id=segment_id,
        kind=Kind.FILE,
        state=State.CLOSED,
        epoch=0,
        token=token,
        base_seq=0,
        prev_digest=ZERO_DIGEST,
    )
    return SegmentRef(log_id=log_id, segment=segment)
