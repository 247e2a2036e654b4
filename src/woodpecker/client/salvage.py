"""``woodpecker log recover NAME --accept-loss``: a person gives up what an OPEN segment cannot show.

For a log whose last segment can neither be fenced nor recovered: its file or host is gone, or it is
damaged below its end. Everything up to the damage is kept; what may be lost is recorded in the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.client.environment import Environment
from woodpecker.client.takeover import close_at, raise_epoch
from woodpecker.core.manifest import Loss, Manifest, Segment
from woodpecker.core.register import fold
from woodpecker.errors import Corrupt, NotFound, Unavailable
from woodpecker.segments.base import Recovered, SegmentRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverReport:
    """What was done. ``loss`` is None if nothing had to be given up."""

    next_seq: int
    loss: Loss | None


async def recover_log(
    env: Environment, name: str, log_id: str, *, accept_loss: bool
) -> RecoverReport:
    """Close the OPEN segment of a log without opening a writer.

    Args:
        accept_loss: if it cannot be recovered, keep what can be read and record the rest as lost.
    Raises:
        Corrupt, Unavailable: it cannot be recovered, and ``accept_loss`` is not given.
        Fenced: somebody opened the log meanwhile. NotFound.
    """
    manifest, owner = await raise_epoch(env, name, log_id=log_id)
    segment = manifest.open_segment
    if segment is None:
        return RecoverReport(next_seq=manifest.next_seq, loss=None)
    found, reason = await _recover(env, manifest, segment, owner.token, accept_loss=accept_loss)
    loss = None if reason is None else _loss(env, segment, found, reason)
    register = await env.history(manifest).load_register(manifest.register, manifest.register_key)
    register = fold(register, found.facts)
    closed = await close_at(env, name, manifest, owner, found, register, loss)
    return RecoverReport(next_seq=closed.next_seq, loss=loss)


async def _recover(
    env: Environment, manifest: Manifest, segment: Segment, token: str, *, accept_loss: bool
) -> tuple[Recovered, str | None]:
    """What the segment holds, and why that may not be all."""
    store = env.store_of(manifest, segment)
    ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
    try:
        return await store.recover(ref, token=token), None
    except (Corrupt, Unavailable, NotFound) as error:
        if not accept_loss:
            raise
        return await store.salvage(ref, token=token), str(error)


def _loss(env: Environment, segment: Segment, found: Recovered, reason: str) -> Loss:
    return Loss(
        segment=segment.id,
        from_seq=segment.base_seq if found.end is None else found.end.seq,
        reason=reason,
        at_ms=env.runtime.now_us() // 1000,
    )
