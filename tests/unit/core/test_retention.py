"""Which entries go by age and size, when pages are due, and how small that keeps the manifest."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.codec import keys
from woodpecker.codec.records import encode_manifest, encode_register
from woodpecker.core.commands import SpillPage
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import (
    Anchor,
    End,
    FilePlace,
    Manifest,
    Options,
    PageRef,
    Sealed,
    Segment,
)
from woodpecker.core.register import ProducerState, Register
from woodpecker.core.retention import (
    CLOCK_TOLERANCE_MS,
    Span,
    clocks_agree,
    droppable,
    fold_due,
    has_work,
    spill_due,
    trim_target,
)
from woodpecker.core.transitions import apply, check
from woodpecker.metadata.history import REGISTER_INLINE_BYTES

LOG = "0123456789abcdef" * 2
DIGEST = "f" * 32
DAY_US = 86_400_000_000


def span(end_seq: int, size: int = 100, at_us: int = 0) -> Span:
    return Span(end_seq=end_seq, bytes=size, last_timestamp_us=at_us)


def test_age_takes_the_prefix_of_segments_whose_last_entry_is_older() -> None:
    spans = [span(10, at_us=1), span(20, at_us=DAY_US), span(30, at_us=3)]
    options = Options(retention_age_s=3600)
    assert trim_target(spans, options, now_us=DAY_US, kept_bytes=300) == 10
    assert trim_target(spans, options, now_us=3 * DAY_US, kept_bytes=300) == 30


def test_without_a_clock_that_can_be_trusted_age_takes_nothing() -> None:
    options = Options(retention_age_s=1)
    assert trim_target([span(10)], options, now_us=None, kept_bytes=100) is None


def test_size_leaves_at_least_what_was_asked_for() -> None:
    spans = [span(10), span(20), span(30)]
    assert trim_target(spans, Options(retention_bytes=150), now_us=None, kept_bytes=300) == 10
    assert trim_target(spans, Options(retention_bytes=200), now_us=None, kept_bytes=300) == 10
    assert trim_target(spans, Options(retention_bytes=201), now_us=None, kept_bytes=300) is None


def test_no_option_means_for_ever() -> None:
    assert trim_target([span(10)], Options(), now_us=DAY_US, kept_bytes=1 << 60) is None


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 50)), max_size=12),
    st.integers(1, 5000),
    st.integers(1, 60),
)
def test_both_rules_at_once_are_the_farther_of_the_two(
    rows: list[tuple[int, int]], limit_bytes: int, age_s: int
) -> None:
    spans = [span(i + 1, size, at * 1_000_000) for i, (size, at) in enumerate(rows)]
    total = sum(s.bytes for s in spans)
    now_us = 60_000_000

    def target(options: Options) -> int:
        return trim_target(spans, options, now_us=now_us, kept_bytes=total) or 0

    by_age = target(Options(retention_age_s=age_s))
    by_size = target(Options(retention_bytes=limit_bytes))
    both = target(Options(retention_age_s=age_s, retention_bytes=limit_bytes))
    assert both >= max(by_age, by_size)
    kept = sum(s.bytes for s in spans if s.end_seq > by_size)
    assert kept >= min(limit_bytes, total)


@pytest.mark.parametrize(
    ("store_ms", "own_ms", "agree"),
    [
        (None, 0, False),
        (1_000_000, 1_000_000 + CLOCK_TOLERANCE_MS, True),
        (1_000_000, 1_000_001 + CLOCK_TOLERANCE_MS, False),
        (1_000_001 + CLOCK_TOLERANCE_MS, 1_000_000, False),
    ],
)
def test_clocks_agree_within_five_minutes(store_ms: int | None, own_ms: int, agree: bool) -> None:
    assert clocks_agree(store_ms, own_ms) is agree


def sealed_segment(number: int) -> Segment:
    """As large as its record gets: kind file, long numbers."""
    base = number * 10_000_000_000
    return Segment(
        id=number,
        kind=Kind.FILE,
        state=State.SEALED,
        epoch=1_000_000,
        token=DIGEST,
        base_seq=base,
        prev_digest=DIGEST,
        place=FilePlace(host=DIGEST, boot=DIGEST, buffer=DIGEST),
        end=End(block=10_000, seq=base + 10_000_000_000, digest=DIGEST),
        sealed=Sealed(
            key=keys.sealed(LOG, number, base + 10_000_000_000, DIGEST),
            size=268_435_456_000,
            checksum=DIGEST,
        ),
        bytes=268_435_456_000,
        first_timestamp_us=1_700_000_000_000_000,
        last_timestamp_us=1_700_000_000_000_000,
        opened_at_ms=1_700_000_000_000,
        closed_at_ms=1_700_000_000_000,
    )


def page_over(items: tuple[Segment | PageRef, ...], level: int) -> PageRef:
    first = items[0].first_segment if isinstance(items[0], PageRef) else items[0].id
    last = items[-1].last_segment if isinstance(items[-1], PageRef) else items[-1].id
    ends = [item.end_seq if isinstance(item, PageRef) else item.end.seq for item in items]  # type: ignore[union-attr]
    return PageRef(
        key=keys.page(LOG, level, first, last, DIGEST),
        level=level,
        first_segment=first,
        last_segment=last,
        base_seq=items[0].base_seq,
        end_seq=ends[-1],
        bytes=sum(item.bytes for item in items),
        last_timestamp_us=1_700_000_000_000_000,
        digest=DIGEST,
    )


def spilled(manifest: Manifest) -> Manifest:
    """What the background worker does."""
    while True:
        segments, run = spill_due(manifest), fold_due(manifest)
        if segments:
            page = page_over(segments, 0)
        elif run is not None:
            page = page_over(manifest.pages[run[1] : run[2]], run[0] + 1)
        else:
            return manifest
        after = apply(manifest, SpillPage(log_id=LOG, page=page))
        assert isinstance(after, Manifest), after
        manifest = after


def large_register() -> Register:
    """The largest that is kept in the record itself."""
    state = ProducerState(epoch=1 << 40, last_sequence=1 << 40, timestamp_us=1 << 50)
    names = (f"producer-{number:040d}" for number in range(REGISTER_INLINE_BYTES // 105))
    register = Register(producers=tuple((name, state) for name in names))
    assert 0.8 * REGISTER_INLINE_BYTES < len(encode_register(register)) <= REGISTER_INLINE_BYTES
    return register


def test_the_manifest_of_100_000_segments_stays_below_256_kib() -> None:
    register = large_register()
    manifest = Manifest(
        name="n" * 200,
        log_id=LOG,
        created_at_ms=1,
        epoch=1_000_000,
        token=DIGEST,
        register=register,
        anchor=Anchor(register=register),
    )
    largest = 0
    for first in range(0, 100_000, 129):
        new = tuple(sealed_segment(number) for number in range(first, first + 129))
        last = new[-1]
        assert last.end is not None
        manifest = replace(
            manifest,
            segments=(*manifest.segments, *new),
            next_segment_id=last.id + 1,
            next_seq=last.end.seq,
            digest=last.end.digest,
        )
        manifest = spilled(manifest)
        if manifest.next_segment_id % 8 == 1 or len(manifest.segments) > 150:
            largest = max(largest, len(encode_manifest(manifest)))
    assert check(manifest) is None
    assert manifest.segments[-1].id == manifest.next_segment_id - 1
    covered = [(page.first_segment, page.last_segment) for page in manifest.pages]
    assert covered[0][0] == 0
    assert all(after[0] == before[1] + 1 for before, after in pairwise(covered))
    assert covered[-1][1] + 1 == manifest.segments[0].id
    assert max(page.level for page in manifest.pages) >= 1
    assert largest < 256 << 10, largest


def test_only_wholly_trimmed_closed_segments_are_dropped() -> None:
    segments = tuple(sealed_segment(number) for number in range(3))
    assert segments[0].end is not None
    manifest = Manifest(name="a", log_id=LOG, created_at_ms=1, segments=segments)
    assert droppable(manifest) == ()
    trimmed = replace(manifest, trim_point=segments[0].end.seq + 1)
    assert droppable(trimmed) == segments[:1]
    opened = replace(segments[1], state=State.OPEN, end=None, sealed=None)
    beyond = replace(trimmed, segments=(segments[0], opened), trim_point=1 << 60)
    assert droppable(beyond) == segments[:1]


def test_a_quiet_log_is_no_work() -> None:
    quiet = Manifest(name="a", log_id=LOG, created_at_ms=1, segments=(sealed_segment(0),))
    assert not has_work(quiet, DAY_US)
    closed = replace(sealed_segment(0), state=State.CLOSED, sealed=None)
    assert has_work(replace(quiet, segments=(closed,)), DAY_US)
    assert has_work(replace(quiet, trim_pending=4), DAY_US)
    assert has_work(replace(quiet, deleting=True), DAY_US)
    old = replace(quiet, options=Options(retention_age_s=1))
    assert has_work(old, 1_800_000_000_000_000)
    assert not has_work(old, 1_700_000_000_000_000)
    assert not has_work(replace(quiet, deleted_at_ms=1), DAY_US)
    assert has_work(replace(quiet, trim_point=1 << 60, anchor=Anchor()), DAY_US)
