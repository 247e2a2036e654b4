"""What ``log.describe()`` tells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from woodpecker.client.cursor import list_cursors
from woodpecker.client.environment import Environment
from woodpecker.client.kept import on_kept
from woodpecker.client.reader import tail
from woodpecker.core.manifest import Claim, Loss, Manifest, Options, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorLag:
    """A cursor and how many entries it is behind the tail."""

    name: str
    position: int
    lag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """State of a log as one manifest read showed it; bytes of closed segments only."""

    name: str
    log_id: str
    epoch: int
    claim: Claim | None
    ended: bool
    trim_point: int
    tail: int
    bytes: int
    segment_count: int
    unsealed_count: int
    segments: tuple[Segment, ...]  # the newest, those kept in the record itself
    storages: tuple[str, ...]
    cursors: tuple[CursorLag, ...]
    options: Options
    attributes: dict[str, str]
    losses: tuple[Loss, ...]
    created_at_ms: int


async def describe(env: Environment, name: str, log_id: str) -> Description:
    """Read the manifest, the tail and the cursors. Raises: NotFound, Unavailable."""
    manifest = await env.catalog.read(name, log_id=log_id)
    tail_seq = await tail(env, name, log_id)
    manifest, segments = await on_kept(env, manifest, partial(_listed, env))
    cursors = await list_cursors(env, name, log_id)
    return Description(
        name=name,
        log_id=log_id,
        epoch=manifest.epoch,
        claim=manifest.claim,
        ended=manifest.ended,
        trim_point=manifest.trim_point,
        tail=tail_seq,
        bytes=sum(segment.bytes for segment in segments),
        segment_count=len(segments),
        unsealed_count=sum(segment.sealed is None for segment in segments),
        segments=manifest.segments,
        storages=tuple(url or env.url for url in manifest.storages),
        cursors=tuple(
            CursorLag(name=c.name, position=c.position, lag=max(0, tail_seq - c.position))
            for c in cursors
        ),
        options=manifest.options,
        attributes=dict(manifest.attributes),
        losses=manifest.losses,
        created_at_ms=manifest.created_at_ms,
    )


async def _listed(env: Environment, manifest: Manifest) -> tuple[Manifest, list[Segment]]:
    return manifest, [segment async for segment in env.segments(manifest)]
