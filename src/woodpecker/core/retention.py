"""Retention: up to which seq may be trimmed, by age and by size. Whole closed segments only.

Spans are closed segments, oldest first, that lie (partly) above the trim point; the OPEN segment is
never touched and its bytes do not count, so that rather more is kept than told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Manifest, Options, Segment

CLOCK_TOLERANCE_MS = 5 * 60_000
INLINE_SEALED_MAX = 160  # SEALED segments in the manifest itself before some spill into a page
PAGE_SEGMENTS = 128
LEVEL_PAGES_MAX = 64  # references to pages of one level before they are folded into one above


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What retention looks at in one closed segment."""

    end_seq: int
    bytes: int
    last_timestamp_us: int


def span_of(segment: Segment) -> Span:
    """A closed segment as retention sees it."""
    assert segment.end is not None
    return Span(
        end_seq=segment.end.seq,
        bytes=segment.bytes,
        last_timestamp_us=segment.last_timestamp_us,
    )


def clocks_agree(store_ms: int | None, own_ms: int) -> bool:
    """Whether ages may be judged: the store shows its clock, and ours is within five minutes of it."""
    return store_ms is not None and abs(store_ms - own_ms) <= CLOCK_TOLERANCE_MS


def is_expired(span: Span, options: Options, *, now_us: int | None, kept_bytes: int) -> bool:
    """Whether the oldest span may go.

    Args:
        now_us: the store's clock, or None while ages cannot be judged.
        kept_bytes: of it and all later spans. At least ``retention_bytes`` stay.
    """
    if options.retention_bytes is not None and kept_bytes - span.bytes >= options.retention_bytes:
        return True
    if options.retention_age_s is None or now_us is None:
        return False
    return span.last_timestamp_us < now_us - options.retention_age_s * 1_000_000


def trim_target(
    spans: Iterable[Span], options: Options, *, now_us: int | None, kept_bytes: int
) -> int | None:
    """The seq before which all may go: the end of the last span of the expired prefix, or None."""
    target = None
    for span in spans:
        if not is_expired(span, options, now_us=now_us, kept_bytes=kept_bytes):
            break
        target = span.end_seq
        kept_bytes -= span.bytes
    return target


def droppable(manifest: Manifest) -> tuple[Segment, ...]:
    """Inline segments wholly below the trim point; they can be dropped once the pages before are."""
    dropped = []
    for segment in manifest.segments:
        if segment.end is None or segment.end.seq > manifest.trim_point:
            break
        dropped.append(segment)
    return tuple(dropped)


def spill_due(manifest: Manifest) -> tuple[Segment, ...]:
    """The oldest SEALED segments, if so many are inline that they should move into a page."""
    sealed = 0
    for segment in manifest.segments:
        if segment.sealed is None:
            break
        sealed += 1
    return manifest.segments[:PAGE_SEGMENTS] if sealed > INLINE_SEALED_MAX else ()


def fold_due(manifest: Manifest) -> tuple[int, int, int] | None:
    """(level, first, end) of a run of pages to fold into one of ``level + 1``, or None."""
    for level in sorted({page.level for page in manifest.pages}):
        run = [i for i, page in enumerate(manifest.pages) if page.level == level]
        if len(run) > LEVEL_PAGES_MAX:
            return level, run[0], run[0] + LEVEL_PAGES_MAX
    return None


def may_trim(manifest: Manifest, now_us: int) -> bool:
    """Whether retention could find something, judged by the manifest alone."""
    options = manifest.options
    if options.retention_age_s is None and options.retention_bytes is None:
        return False
    if manifest.pages:
        return True  # their segments have to be looked at
    spans = [
        span_of(segment)
        for segment in manifest.segments
        if segment.end is not None and segment.end.seq > manifest.trim_point
    ]
    kept_bytes = sum(span.bytes for span in spans)
    return trim_target(spans, options, now_us=now_us, kept_bytes=kept_bytes) is not None


def has_work(manifest: Manifest, now_us: int) -> bool:
    """Whether a background worker should look closer at the log. Cheap: asked for every log."""
    if manifest.is_tombstone:
        return False  # the sweep sees to graves
    return bool(
        manifest.deleting
        or has_unsealed(manifest)
        or droppable(manifest)
        or (manifest.pages and manifest.anchor.seq < manifest.trim_point)
        or manifest.trim_pending is not None
        or may_trim(manifest, now_us)
        or spill_due(manifest)
        or fold_due(manifest)
    )


def has_unsealed(manifest: Manifest, kind: Kind | None = None) -> bool:
    """Whether a CLOSED segment (of ``kind``) waits to be sealed."""
    return any(
        segment.state is State.CLOSED and kind in (None, segment.kind)
        for segment in manifest.segments
    )
