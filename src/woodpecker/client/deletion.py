"""Deleting a log: a take-over, then a tombstone, then the objects go (log protocol, section 1).

From the take-over on nobody else can open the log (``deleting``); from the tombstone on its name is
free. End marks stay for 30 days more, so that a writer that slept meets them; a grave in the record
remembers that. Killed at any point, ``finish_deletions`` goes on.
"""

from __future__ import annotations

import contextlib
import logging

from woodpecker.client.collect import file_ref, file_store, item_of
from woodpecker.client.cursor import cursors_of
from woodpecker.client.environment import Environment
from woodpecker.client.takeover import close_open_segment, raise_epoch
from woodpecker.codec import keys
from woodpecker.core.collect import BlockItem
from woodpecker.core.commands import BuryLog, Owner, RemoveGrave
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Grave, Manifest
from woodpecker.core.retention import clocks_agree
from woodpecker.errors import (
    Conflict,
    Corrupt,
    Fenced,
    NotFound,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.observability.names import Counter, Event
from woodpecker.segments.base import SegmentRef

TAKE_OVER_TRIES = 8
GRAVE_MS = 30 * 86_400_000
IMPORT_MS = 86_400_000  # an import that has not ended after a day is taken for dead

_log = logging.getLogger("woodpecker.background")


async def delete_log(
    env: Environment, name: str, *, force: bool = False, log_id: str | None = None
) -> None:
    """Delete a log for good. An open writer is fenced; what it had acknowledged is deleted as well.

    Args:
        force: do not fence. A person's decision: a writer that still runs may go on acknowledging
            entries, which are lost, until it next reads the metadata.
        log_id: only this incarnation of the name.
    Raises:
        NotFound: no such log. Unavailable: the OPEN segment cannot be fenced from here; ``force``
        would skip that. OutcomeUnknown: call it again. Others as for opening a writer.
    Cancellation: the log may be half deleted: nobody can open it; call it again, or run ``gc``.
    """
    manifest = (await env.catalog.load(name)).manifest
    if manifest is None or manifest.is_tombstone or log_id not in (None, manifest.log_id):
        raise NotFound(f"log {name!r} does not exist in {env.url}")
    await _bury(env, manifest, force=force)
    env.observer.event(Event.DELETED, log=name)
    try:
        await _clean(env, name, manifest.log_id)
    except WoodpeckerError as error:
        # the log is deleted; only its objects still take up room
        _log.warning("log %s is deleted, its objects go later: %s", name, error)
        env.hub.work(name)


async def finish_deletions(env: Environment, name: str) -> int:
    """Go on with everything that deletions of logs of this name left to do; returns objects deleted.

    A deletion begun and killed is ended; graves are emptied, and removed when 30 days have passed.
    Raises: as ``delete_log``.
    """
    manifest = (await env.catalog.load(name)).manifest
    if manifest is None:
        return 0
    if manifest.deleting and not manifest.is_tombstone:
        if is_import(manifest, env.runtime.now_us() // 1000):
            return 0
        await _bury(env, manifest, force=False)
    seen = await env.catalog.load(name)
    graves = seen.manifest.graves if seen.manifest is not None else ()
    count = 0
    for grave in graves:
        count += await _empty_grave(env, name, grave)
    await _remove_tombstone(env, name)
    return count


async def drop_dead_files(env: Environment, manifest: Manifest) -> int:
    """Drop files in this machine's buffer directory that belong to deleted logs of this name."""
    count = 0
    for grave in manifest.graves:
        for storage in grave.storages:
            count += await _drop_files(env, grave.log_id, storage)
    return count


def is_import(manifest: Manifest, now_ms: int) -> bool:
    """Whether the name is reserved by an import that may still be running."""
    return (
        manifest.deleting
        and manifest.epoch == 0
        and not manifest.is_tombstone
        and now_ms - manifest.created_at_ms < IMPORT_MS
    )


async def _bury(env: Environment, manifest: Manifest, *, force: bool) -> None:
    """Take over, fence, close, write the tombstone; whoever else does the same meanwhile, helps."""
    name, log_id = manifest.name, manifest.log_id
    for attempt in range(1, TAKE_OVER_TRIES + 1):
        try:
            taken, owner = await raise_epoch(env, name, log_id=log_id, to_delete=True)
            if not force:
                await _fence(env, taken, owner)
            now_ms = env.runtime.now_us() // 1000
            await env.catalog.change(name, BuryLog(owner=owner, now_ms=now_ms, forced=force))
            await _tell_nodes(env, taken)
        except (Fenced, NotFound):
            now = (await env.catalog.load(name)).manifest
            is_buried = now is None or any(grave.log_id == log_id for grave in now.graves)
            if not is_buried and attempt < TAKE_OVER_TRIES:
                continue
            if not is_buried:
                raise
        break
    env.hub.moved(log_id)


async def _fence(env: Environment, manifest: Manifest, owner: Owner) -> None:
    hint = "; force=True (--force) deletes the log without fencing its writer"
    try:
        await close_open_segment(env, manifest.name, manifest, owner)
    except Unavailable as error:
        raise Unavailable(f"{error}{hint}") from error
    except Corrupt as error:
        raise Corrupt(f"{error}{hint}", where=error.where) from error


async def _tell_nodes(env: Environment, manifest: Manifest) -> None:
    """Nodes that hold un-sealed segments of the log may let them go; untold, they find out later."""
    for segment in manifest.segments:
        if segment.kind is Kind.QUORUM and segment.sealed is None:
            ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
            with contextlib.suppress(WoodpeckerError):
                await env.store_of(manifest, segment).drop(ref, keep_fence=False)


async def _clean(env: Environment, name: str, log_id: str) -> None:
    manifest = (await env.catalog.load(name)).manifest
    for grave in manifest.graves if manifest is not None else ():
        if grave.log_id == log_id:
            await _empty_grave(env, name, grave)


async def _empty_grave(env: Environment, name: str, grave: Grave) -> int:
    """Delete what a deleted log has left; once 30 days have passed its end marks and grave too."""
    is_due = await _is_due(env, grave)
    count = 0
    for storage in grave.storages:
        count += await _delete_objects(env, grave.log_id, storage, keep_fence=not is_due)
        count += await _drop_files(env, grave.log_id, storage)
    await cursors_of(env).purge(grave.log_id)
    env.observer.count(Counter.GC_DELETED, count)
    if is_due and count == 0:  # nothing came to light in a whole pass
        await env.catalog.change(name, RemoveGrave(log_id=grave.log_id))
    return count


async def _delete_objects(env: Environment, log_id: str, storage: str, *, keep_fence: bool) -> int:
    objects = env.places.objects(storage)
    count = 0
    async for page in objects.list(keys.log_prefix(log_id)):
        doomed = []
        for info in page:
            item = item_of(info)
            is_mark = isinstance(item, BlockItem) and item.is_mark
            if not (keep_fence and is_mark):
                doomed.append(info.key)
        if doomed:
            await objects.delete(doomed)
        count += len(doomed)
    return count


async def _drop_files(env: Environment, log_id: str, storage: str) -> int:
    """Files fence by what their writers have mapped, not by their names: nothing has to stay."""
    store = file_store(env, storage)
    held = await store.held(log_id) if store is not None else ()
    for segment_id, token in held:
        assert store is not None
        await store.drop(file_ref(log_id, segment_id, token), keep_fence=False)
    return len(held)


async def _is_due(env: Environment, grave: Grave) -> bool:
    """Whether 30 days have passed, by our clock and the store's, which must agree."""
    own_ms = env.runtime.now_us() // 1000
    store_ms = await env.places.objects(grave.storages[0]).clock_ms()
    if store_ms is None or not clocks_agree(store_ms, own_ms):
        return False
    return min(own_ms, store_ms) - grave.deleted_at_ms >= GRAVE_MS


async def _remove_tombstone(env: Environment, name: str) -> None:
    """Remove the record itself, under a condition, where the store can; elsewhere it stays."""
    seen = await env.catalog.load(name)
    manifest = seen.manifest
    if manifest is None or not manifest.is_tombstone or manifest.graves or seen.version is None:
        return
    with contextlib.suppress(Conflict):  # the name was used again
        await env.catalog.store.remove(keys.manifest(name), expect=seen.version)
