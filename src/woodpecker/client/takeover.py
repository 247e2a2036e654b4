"""Taking a log over: raise the epoch, fence the OPEN segment, fix its end (log protocol, section 2).

Every step may crash and be run again by anybody; only the closing CAS fixes E.
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.client.environment import Environment
from woodpecker.core.commands import CloseSegment, Command, OpenWriter, Owner
from woodpecker.core.manifest import Claim, Loss, Manifest
from woodpecker.core.register import Register, fold
from woodpecker.errors import Corrupt, Fenced, LogEnded, NotFound
from woodpecker.observability.names import Counter, Event, Histogram, Span
from woodpecker.segments.base import Recovered, SegmentRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """A log without OPEN segment, owned by ``owner``; the register is folded up to the end."""

    manifest: Manifest
    owner: Owner
    register: Register


async def take_over(
    env: Environment, name: str, *, claim: Claim | None = None, log_id: str | None = None
) -> TakenOver:
    """Become the one writer of log ``name``.

    Raises:
        NotFound, LogEnded: no such log (any more); ended. Fenced: another opener was faster.
        Conflict: the claim is too small. Unavailable: a store is away, or the OPEN segment can only
        be fenced elsewhere. Corrupt: the OPEN segment is damaged below its end.
    Cancellation: the epoch may have been raised; the old writer may be fenced already.
    """
    started_ms = env.runtime.monotonic_ms()
    with env.observer.span(Span.OPEN_WRITER, log=name):
        manifest, owner = await raise_epoch(env, name, claim=claim, log_id=log_id)
        manifest, register = await close_open_segment(env, name, manifest, owner)
    env.observer.count(Counter.TAKEOVERS)
    env.observer.observe(
        Histogram.TAKEOVER,
        env.runtime.monotonic_ms() - started_ms,
        kind=manifest.options.mode,
    )
    if register.ended:
        raise LogEnded(f"log {name!r} was ended at seq {manifest.next_seq}: nothing can follow")
    env.observer.event(Event.WRITER_OPENED, log=name, epoch=owner.epoch)
    return TakenOver(manifest=manifest, owner=owner, register=register)


async def raise_epoch(
    env: Environment,
    name: str,
    *,
    claim: Claim | None = None,
    log_id: str | None = None,
    to_delete: bool = False,
) -> tuple[Manifest, Owner]:
    """Step 1: one CAS gives the log a new epoch under a token that nobody else has."""
    token = env.runtime.token()

    def command(manifest: Manifest | None) -> Command:
        if manifest is None or (log_id is not None and manifest.log_id != log_id):
            raise NotFound(f"log {name!r} does not exist (any more) in {env.url}")
        return OpenWriter(
            log_id=manifest.log_id,
            seen_epoch=manifest.epoch,
            token=token,
            claim=claim,
            to_delete=to_delete,
        )

    manifest = await env.catalog.change(name, command)
    owner = Owner(log_id=manifest.log_id, epoch=manifest.epoch, token=token)
    env.hub.moved(manifest.log_id)
    return manifest, owner


async def close_open_segment(
    env: Environment, name: str, manifest: Manifest, owner: Owner
) -> tuple[Manifest, Register]:
    """Steps 2 to 4: fence, recover the end, make it safe, fold, close by one CAS."""
    manifest, register, found = await _recover(env, name, manifest, owner)
    if found is None:
        return manifest, register
    register = fold(register, found.facts)
    segment = manifest.open_segment
    assert segment is not None
    closed = await close_at(env, name, manifest, owner, found, register)
    env.observer.event(
        Event.SEGMENT_RECOVERED, log=name, segment=segment.id, end_seq=closed.next_seq
    )
    return closed, register


async def _recover(
    env: Environment, name: str, manifest: Manifest, owner: Owner
) -> tuple[Manifest, Register, Recovered | None]:
    """Steps 2 and 3 of the newest manifest: what an older one names may have been trimmed meanwhile."""
    while True:
        try:
            history = env.history(manifest)
            register = await history.load_register(manifest.register, manifest.register_key)
            return manifest, register, await _recovered(env, manifest, owner)
        except (NotFound, Corrupt) as error:
            now = await _still_mine(env, manifest, owner)
            if now == manifest and isinstance(error, NotFound):
                raise Corrupt(
                    f"log {name!r}: what its metadata names vanished while it was opened: {error}",
                    where=name,
                ) from error
            if now == manifest:
                raise
            manifest = now


async def _recovered(env: Environment, manifest: Manifest, owner: Owner) -> Recovered | None:
    """The end of the open segment, if there is one."""
    segment = manifest.open_segment
    if segment is None:
        return None
    ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
    span = env.observer.span(
        Span.RECOVER, log=manifest.name, segment=segment.id, kind=str(segment.kind)
    )
    with span:
        return await env.store_of(manifest, segment).recover(ref, token=owner.token)


async def _still_mine(env: Environment, manifest: Manifest, owner: Owner) -> Manifest:
    """The manifest as it is now: what is missing or strange may be the doing of others who cleaned up.

    Raises: Fenced: there is a later opener.
    """
    now = (await env.catalog.load(manifest.name)).manifest
    if now is None or not now.owned_by(owner.log_id, owner.epoch, owner.token):
        raise Fenced(
            f"log {manifest.name!r}: another opener was faster; open it again",
            outcome="not_written",
        )
    return now


async def close_at(
    env: Environment,
    name: str,
    manifest: Manifest,
    owner: Owner,
    found: Recovered,
    register: Register,
    loss: Loss | None = None,
) -> Manifest:
    """Step 4: the CAS that fixes E, or drops a segment without any block."""
    segment = manifest.open_segment
    assert segment is not None
    inline, key = register, None
    if found.end is not None:  # dropped for want of blocks, it leaves the checkpoint before it
        history = env.history(manifest)
        inline, key = await history.store_register(manifest.log_id, segment.id, register)
    closed = await env.catalog.change(
        name,
        CloseSegment(
            owner=owner,
            segment_id=segment.id,
            end=found.end,
            bytes=found.bytes,
            first_timestamp_us=found.first_timestamp_us,
            last_timestamp_us=found.last_timestamp_us,
            now_ms=env.runtime.now_us() // 1000,
            register=inline,
            register_key=key,
            ended=register.ended,
            loss=loss,
        ),
    )
    env.hub.moved(manifest.log_id)
    env.hub.work(name)
    return closed
