"""Trimming: by a person, or by age and size; then dropping what is wholly trimmed (protocol, section 8)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from woodpecker.client.checkpoints import register_after
from woodpecker.client.cursor import cursors_of
from woodpecker.client.environment import Environment
from woodpecker.client.kept import on_kept
from woodpecker.client.reader_start import tail
from woodpecker.core.commands import DropSegments, SetTrimPending, TrimLog
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Anchor, Manifest, Segment
from woodpecker.core.retention import clocks_agree, is_expired, span_of
from woodpecker.errors import Conflict, InvalidRequest, OutOfRange, Unavailable
from woodpecker.observability.names import Counter, Event
from woodpecker.observability.names import Span as Operation
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.prefetch import closing

HOLD_TRIES = 3
DROP_SEGMENTS = 256  # forgotten by one change of the manifest

_log = logging.getLogger("woodpecker.background")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimReport:
    """What a trim did, or (``dry_run``) would do. Segments and bytes are those that go as a whole."""

    trim_point: int  # afterwards: the first seq that can be read
    entries: int
    segments: int
    bytes: int
    held_by: str | None  # the cursor that kept it from going further, with ``hold``
    dry_run: bool


async def trim(
    env: Environment,
    name: str,
    log_id: str,
    *,
    before: int,
    hold: bool = False,
    dry_run: bool = False,
) -> TrimReport:
    """Drop all entries below seq ``before``.

    Args:
        hold: go no further than the lowest cursor; without it cursors are passed.
        dry_run: change nothing, tell what would go.
    Raises:
        InvalidRequest: no seq. OutOfRange(tail=): beyond what is readable. NotFound: no such log.
        Conflict: with ``hold``, retention was at work all the time; try again. Unavailable, ...
    """
    if isinstance(before, bool) or not isinstance(before, int) or before < 0:
        raise InvalidRequest(f"trim(before=) is a seq from 0 on, not {before!r}")
    manifest = await env.catalog.read(name, log_id=log_id)
    visible = await tail(env, name, log_id)
    if before > visible:
        raise OutOfRange(
            f"log {name!r} cannot be trimmed before seq {before}: its tail is {visible}",
            tail=visible,
        )
    target, holder = await _held(env, manifest, before) if hold else (before, None)
    report = await on_kept(
        env, manifest, lambda now: _report(env, now, target, holder, dry_run=dry_run)
    )
    if dry_run or target <= manifest.trim_point:
        return report
    with env.observer.span(Operation.TRIM, log=name):
        if hold:
            changed = await _trim_held(env, manifest, before, visible)
        else:
            changed = await _change(env, manifest, before, visible)
    env.hub.work(name)
    return replace(report, trim_point=changed.trim_point)


async def apply_retention(env: Environment, manifest: Manifest, *, store_ms: int | None) -> int:
    """Trim by the log's options; returns the trim point. ``store_ms``: the store's clock now.

    Raises: NotFound, Conflict (another run): again later. Unavailable, OutcomeUnknown.
    """
    options, own_ms = manifest.options, env.runtime.now_us() // 1000
    target = None
    if options.retention_age_s is not None or options.retention_bytes is not None:
        agree = clocks_agree(store_ms, own_ms)
        if store_ms is None or agree:
            now_us = store_ms * 1000 if store_ms is not None else None
            target = await on_kept(env, manifest, lambda now: _target(env, now, now_us))
        else:
            _log.warning(
                "log %s: nothing is trimmed: the store's clock and this machine's are %.0f s apart",
                manifest.name, abs(store_ms - own_ms) / 1000,
            )  # fmt: skip
    if target is not None and target > manifest.trim_point:
        return (await _trim_held(env, manifest, target, manifest.next_seq)).trim_point
    if manifest.trim_pending is not None:
        await _withdraw(env, manifest)
    return manifest.trim_point


async def drop_trimmed(env: Environment, name: str, *, log_id: str | None = None) -> int:
    """Forget segments that are wholly trimmed, then delete what they were; returns how many.

    Killed in between, the sweep deletes what is left over.
    Raises: NotFound: the log is gone. Corrupt, Unavailable, OutcomeUnknown.
    """
    count = 0
    while True:
        manifest = await env.catalog.read(name, log_id=log_id)
        doomed, anchor = await on_kept(env, manifest, partial(_doomed, env))
        if anchor is None:
            return count
        await env.catalog.change(name, DropSegments(log_id=manifest.log_id, anchor=anchor))
        env.hub.moved(manifest.log_id)
        await delete_segments(env, manifest, doomed)
        count += len(doomed)


async def delete_segments(
    env: Environment, manifest: Manifest, segments: Sequence[Segment]
) -> None:
    """Delete sealed objects and blocks of segments that the manifest has forgotten."""
    by_storage: dict[int, list[str]] = {}
    for segment in segments:
        if segment.sealed is not None:
            by_storage.setdefault(segment.storage, []).append(segment.sealed.key)
        else:
            await _drop_blocks(env, manifest, segment)
    for storage, sealed_keys in by_storage.items():
        await env.places.objects(manifest.storages[storage]).delete(sealed_keys)
        env.observer.count(Counter.GC_DELETED, len(sealed_keys))


async def _drop_blocks(env: Environment, manifest: Manifest, segment: Segment) -> None:
    ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
    try:
        await env.store_of(manifest, segment).drop(ref, keep_fence=True)
    except Unavailable:
        if segment.kind is Kind.OBJECT:
            raise
        # the file is on another host, the nodes are away: their own sweeps find it


async def _doomed(env: Environment, manifest: Manifest) -> tuple[list[Segment], Anchor | None]:
    """Segments to drop, and what the manifest then begins with; None: there is nothing to drop."""
    doomed = [segment async for segment in _trimmed(env, manifest)]
    return doomed, await _anchor_after(env, manifest, doomed[-1]) if doomed else None


async def _anchor_after(env: Environment, manifest: Manifest, segment: Segment) -> Anchor:
    assert segment.end is not None
    register = await register_after(env, manifest, segment)
    first = segment.id + 1
    inline, key = await env.history(manifest).store_register(
        manifest.log_id, first, register, is_anchor=True
    )
    return Anchor(
        first_segment=first,
        seq=segment.end.seq,
        digest=segment.end.digest,
        register=inline,
        register_key=key,
    )


async def _trimmed(env: Environment, manifest: Manifest) -> AsyncIterator[Segment]:
    """The oldest kept segments that lie wholly below the trim point, a bounded number of them."""
    count = 0
    async with closing(env.segments(manifest)) as segments:
        async for segment in segments:
            is_kept = segment.end is None or segment.end.seq > manifest.trim_point
            if is_kept or count == DROP_SEGMENTS:
                return
            count += 1
            yield segment


async def _target(env: Environment, manifest: Manifest, now_us: int | None) -> int | None:
    """The end of the last closed segment that age or size lets go, or None."""
    kept_bytes = await env.history(manifest).kept_bytes(manifest)
    target = None
    async with closing(env.segments(manifest, from_seq=manifest.trim_point)) as segments:
        async for segment in segments:
            if segment.end is None:
                break
            if segment.end.seq <= manifest.trim_point:
                continue
            span = span_of(segment)
            if not is_expired(span, manifest.options, now_us=now_us, kept_bytes=kept_bytes):
                break
            target = span.end_seq
            kept_bytes -= span.bytes
    return target


# --- with cursors ------------------------------------------------------------------------------------


async def _trim_held(env: Environment, manifest: Manifest, before: int, visible: int) -> Manifest:
    """Publish the intention, read the cursors, trim to the lower. Raises: Conflict."""
    for attempt in range(1, HOLD_TRIES + 1):
        token = env.runtime.token()
        pending = await env.catalog.change(
            manifest.name, SetTrimPending(log_id=manifest.log_id, before=before, token=token)
        )
        if pending.trim_token != token:
            return pending  # trimmed so far already
        target, _ = await _held(env, manifest, before)
        try:
            return await _change(env, manifest, target, visible, token=token)
        except Conflict:
            if attempt == HOLD_TRIES:
                raise
    raise AssertionError("unreachable")


async def _withdraw(env: Environment, manifest: Manifest) -> None:
    """Take an intention back that nobody follows (its worker died, or the options changed)."""
    command = TrimLog(
        log_id=manifest.log_id, before=0, visible=manifest.next_seq, token=manifest.trim_token
    )
    await env.catalog.change(manifest.name, command)


async def _held(env: Environment, manifest: Manifest, before: int) -> tuple[int, str | None]:
    """How far the cursors let a trim go, and which one holds it."""
    lowest, holder = before, None
    async for stored in cursors_of(env).all(manifest.log_id):
        assert stored.cursor is not None
        if stored.cursor.position < lowest:
            lowest, holder = stored.cursor.position, stored.name
    return lowest, holder


async def _change(
    env: Environment, manifest: Manifest, before: int, visible: int, *, token: str | None = None
) -> Manifest:
    command = TrimLog(log_id=manifest.log_id, before=before, visible=visible, token=token)
    changed = await env.catalog.change(manifest.name, command)
    env.hub.moved(manifest.log_id)
    if changed.trim_point > manifest.trim_point:
        env.observer.count(Counter.TRIMS)
        env.observer.event(Event.TRIMMED, log=manifest.name, before=changed.trim_point)
    return changed


async def _report(
    env: Environment, manifest: Manifest, target: int, holder: str | None, *, dry_run: bool
) -> TrimReport:
    trim_point = max(target, manifest.trim_point)
    after = replace(manifest, trim_point=trim_point)
    segments = 0
    size = 0
    async with closing(env.segments(manifest)) as kept:
        async for segment in kept:
            if segment.end is None or segment.end.seq > after.trim_point:
                break
            segments += 1
            size += segment.bytes
    return TrimReport(
        trim_point=trim_point,
        entries=trim_point - manifest.trim_point,
        segments=segments,
        bytes=size,
        held_by=holder,
        dry_run=dry_run,
    )
