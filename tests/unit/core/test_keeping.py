"""What a node concludes from a manifest about its copies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.keeping import (
    ABSENT_MS,
    FORGET_ALL,
    SEAL_STEP_MS,
    closed_here,
    first_closed,
    floor_of,
    may_close,
    place_of,
    seal_delay_ms,
)
from woodpecker.core.manifest import End, Ensemble, Grave, Manifest, Member, Sealed, Segment
from woodpecker.core.replica import Identity

ME = Identity(node="n2", incarnation="now", past=frozenset({"before"}))
LOG, OTHER = "a" * 32, "b" * 32


def segment(
    number: int, state: State, *, incarnation: str = "now", kind: Kind = Kind.QUORUM
) -> Segment:
    members = tuple(Member(node=node, incarnation=incarnation) for node in ("n1", "n2", "n3"))
    return Segment(
        id=number,
        kind=kind,
        state=state,
        epoch=1,
        token="",
        base_seq=number,
        prev_digest=ZERO_DIGEST,
        ensemble=Ensemble(members=members, acks=2),
        end=None if state is State.OPEN else End(block=0, seq=number + 1, digest=ZERO_DIGEST),
        sealed=Sealed(key="k", size=1, checksum="") if state is State.SEALED else None,
        bytes=32 << 20,
    )


def manifest(*segments: Segment, next_id: int = 9) -> Manifest:
    return Manifest(
        name="orders", log_id=LOG, created_at_ms=0, next_segment_id=next_id, segments=segments
    )


SEALED, CLOSED, OPEN = (
    segment(1, State.SEALED),
    segment(2, State.CLOSED),
    segment(3, State.OPEN),
)


def test_the_floor_is_the_first_segment_that_is_not_sealed() -> None:
    assert floor_of(manifest(SEALED, CLOSED, OPEN), LOG) == 2
    assert floor_of(manifest(SEALED, OPEN), LOG) == 3
    assert floor_of(manifest(OPEN), LOG) == 3
    assert floor_of(manifest(SEALED), LOG) == 9
    assert floor_of(manifest(), LOG) == 9
    file = segment(0, State.CLOSED, kind=Kind.FILE)
    assert floor_of(manifest(file, replace(SEALED), OPEN), LOG) == 0


def test_a_log_is_gone_only_if_a_grave_or_its_tombstone_says_so() -> None:
    grave = Grave(log_id=OTHER, deleted_at_ms=1, storages=("",))
    assert floor_of(replace(manifest(OPEN), graves=(grave,)), OTHER) == FORGET_ALL
    assert floor_of(replace(manifest(), deleted_at_ms=1), LOG) == FORGET_ALL
    assert floor_of(manifest(OPEN), OTHER) == 0
    assert floor_of(replace(manifest(), deleted_at_ms=1), OTHER) == 0
    assert floor_of(replace(manifest(CLOSED, OPEN), deleting=True), LOG) == 2


def test_members_are_known_by_name_and_incarnation() -> None:
    assert place_of(ME, OPEN) == 1
    assert place_of(ME, segment(3, State.OPEN, incarnation="before")) == 1
    assert place_of(ME, segment(3, State.OPEN, incarnation="other")) is None
    assert place_of(replace(ME, node="n9"), OPEN) is None
    assert place_of(ME, segment(3, State.OPEN, kind=Kind.FILE)) is None


def test_what_is_closed_here() -> None:
    foreign = segment(4, State.CLOSED, incarnation="other")
    found = manifest(SEALED, CLOSED, foreign)
    assert list(closed_here(ME, found)) == [CLOSED]
    assert first_closed(found) == CLOSED
    assert first_closed(manifest(SEALED, OPEN)) is None


def test_members_seal_one_after_the_other() -> None:
    assert seal_delay_ms(0, CLOSED) == 0
    assert seal_delay_ms(1, CLOSED) == SEAL_STEP_MS + 2_048
    assert seal_delay_ms(2, CLOSED) == 2 * seal_delay_ms(1, CLOSED)


@pytest.mark.parametrize(
    ("found", "left_ms", "idle_ms", "expected"),
    [
        (manifest(OPEN), 1e9, 1e9, True),
        (manifest(OPEN), ABSENT_MS, 1e9, False),  # the first member's turn
        (manifest(OPEN), 1e9, ABSENT_MS, False),
        (manifest(OPEN), 0.0, 1e9, False),
        (manifest(OPEN), 1e9, 0.0, False),
        (manifest(CLOSED), 1e9, 1e9, False),
        (replace(manifest(OPEN), deleting=True), 1e9, 1e9, False),
        (manifest(segment(3, State.OPEN, incarnation="other")), 1e9, 1e9, False),
    ],
)
def test_when_a_node_may_close(
    found: Manifest, left_ms: float, idle_ms: float, expected: bool
) -> None:
    assert may_close(ME, found, left_ms=left_ms, idle_ms=idle_ms) is expected
