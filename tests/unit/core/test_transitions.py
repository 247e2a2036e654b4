"""Named rules of the manifest, one test each; the sentence tested is in docs/protocol.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from woodpecker.core.commands import (
    AlterLog,
    BuryLog,
    CloseSegment,
    Command,
    CreateLog,
    DropSegments,
    OpenSegment,
    OpenWriter,
    Owner,
    Refusal,
    Refused,
    RemoveGrave,
    SealSegment,
    SetTrimPending,
    SpillPage,
    TrimLog,
)
from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.manifest import (
    Anchor,
    Claim,
    End,
    Manifest,
    Options,
    PageRef,
    Sealed,
    Segment,
)
from woodpecker.core.register import EMPTY_REGISTER
from woodpecker.core.transitions import apply, check, took_effect

LOG = "a" * 32


def digest(n: int) -> str:
    return f"{n:032x}"


def create(log_id: str = LOG) -> CreateLog:
    return CreateLog(name="log", log_id=log_id, now_ms=1, options=Options(), attributes={})


def opened(manifest: Manifest | None, token: str = "t1", claim: Claim | None = None) -> Manifest:
    assert manifest is not None
    return run(
        manifest,
        OpenWriter(log_id=manifest.log_id, seen_epoch=manifest.epoch, token=token, claim=claim),
    )


def owner(manifest: Manifest) -> Owner:
    return Owner(log_id=manifest.log_id, epoch=manifest.epoch, token=manifest.token)


def next_segment(manifest: Manifest) -> Segment:
    return Segment(
        id=manifest.next_segment_id,
        kind=Kind.OBJECT,
        state=State.OPEN,
        epoch=manifest.epoch,
        token=manifest.token,
        base_seq=manifest.next_seq,
        prev_digest=manifest.digest,
    )


def close(manifest: Manifest, count: int, **more: object) -> CloseSegment:
    segment = manifest.open_segment
    assert segment is not None
    end = End(block=0, seq=segment.base_seq + count, digest=digest(segment.id + 1))
    fields: dict[str, object] = {
        "owner": owner(manifest),
        "segment_id": segment.id,
        "end": end,
        "bytes": 10,
        "first_timestamp_us": 1,
        "last_timestamp_us": 2,
        "now_ms": 3,
        "register": EMPTY_REGISTER,
    }
    return CloseSegment(**(fields | more))  # type: ignore[arg-type]


def run(manifest: Manifest | None, *commands: Command) -> Manifest:
    for command in commands:
        after = apply(manifest, command)
        assert isinstance(after, Manifest), after
        assert check(after) is None, check(after)
        assert took_effect(after, command), command
        manifest = after
    assert manifest is not None
    return manifest


def refused(manifest: Manifest | None, command: Command) -> Refused:
    answer = apply(manifest, command)
    assert isinstance(answer, Refusal), answer
    return answer.why


def with_closed(counts: list[int]) -> Manifest:
    manifest = opened(run(None, create()))
    for count in counts:
        manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
        manifest = run(manifest, close(manifest, count))
    return manifest


def seal(manifest: Manifest, index: int = 0) -> SealSegment:
    segment = [s for s in manifest.segments if s.state is State.CLOSED][index]
    assert segment.end is not None
    return SealSegment(
        log_id=LOG,
        segment_id=segment.id,
        end=segment.end,
        sealed=Sealed(key=f"k{segment.id}", size=1, checksum=ZERO_DIGEST),
    )


def test_a_name_is_created_once() -> None:
    manifest = run(None, create())
    assert refused(manifest, create("b" * 32)) is Refused.EXISTS
    assert took_effect(manifest, create())  # an ambiguous creation is known by its log id
    assert not took_effect(manifest, create("b" * 32))


def test_opening_raises_the_epoch_under_a_token() -> None:
    manifest = opened(run(None, create()))
    assert (manifest.epoch, manifest.token) == (1, "t1")
    late = OpenWriter(log_id=LOG, seen_epoch=0, token="t2")
    assert refused(manifest, late) is Refused.FENCED
    assert not took_effect(manifest, late)


def test_a_writer_owns_by_log_id_epoch_and_token() -> None:
    manifest = opened(run(None, create()))
    stranger = replace(owner(manifest), token="other")
    command = OpenSegment(owner=stranger, segment=next_segment(manifest))
    assert refused(manifest, command) is Refused.FENCED
    again = replace(manifest, log_id="b" * 32)  # deleted and created anew: same epoch, same token
    assert refused(again, replace(command, owner=owner(manifest))) is Refused.FENCED


def test_segment_ids_are_never_used_again() -> None:
    manifest = opened(run(None, create()))
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    dropped = run(manifest, replace(close(manifest, 0), end=None))
    assert dropped.segments == () and dropped.next_segment_id == 1
    old = replace(next_segment(dropped), id=0)
    assert refused(dropped, OpenSegment(owner=owner(dropped), segment=old)) is Refused.BROKEN


def test_a_segment_with_only_control_blocks_is_closed_not_dropped() -> None:
    manifest = with_closed([0, 3])
    assert [s.id for s in manifest.segments] == [0, 1]
    assert manifest.segments[0].end == End(block=0, seq=0, digest=digest(1))


def test_positions_go_on_after_everything_is_trimmed() -> None:
    manifest = run(with_closed([5, 5]), TrimLog(log_id=LOG, before=10, visible=10))
    anchor = Anchor(first_segment=2, seq=10, digest=manifest.digest)
    manifest = run(manifest, DropSegments(log_id=LOG, anchor=anchor))
    assert manifest.segments == () and manifest.next_seq == 10
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    assert manifest.segments[0].base_seq == 10


def test_rolling_is_one_step() -> None:
    manifest = opened(run(None, create()))
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    closing = close(manifest, 4)
    following = replace(
        next_segment(manifest), base_seq=4, prev_digest=digest(1), id=manifest.next_segment_id
    )
    manifest = run(manifest, replace(closing, next=following))
    assert [s.state for s in manifest.segments] == [State.CLOSED, State.OPEN]
    assert manifest.next_seq == 4


def test_background_commands_never_touch_epoch_or_open_segment() -> None:
    manifest = with_closed([5, 5])
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    commands: list[Command] = [
        seal(manifest),
        SetTrimPending(log_id=LOG, before=3, token="w"),
        TrimLog(log_id=LOG, before=7, visible=12),
        AlterLog(log_id=LOG, options=Options(linger_ms=5), attributes={"a": "b"}),
    ]
    for command in commands:
        after = run(manifest, command)
        assert (after.epoch, after.token) == (manifest.epoch, manifest.token)
        assert after.open_segment == manifest.open_segment
        assert after.next_seq == manifest.next_seq
        for writer_command in (close(manifest, 2),):  # both orders give the same
            one = run(after, writer_command)
            other = run(run(manifest, writer_command), command)
            assert one == other


def test_segments_are_sealed_in_order_at_the_end_that_was_fixed() -> None:
    manifest = with_closed([5, 5])
    assert refused(manifest, seal(manifest, 1)) is Refused.STALE
    first = seal(manifest)
    assert first.end is not None
    other_end = replace(first, end=replace(first.end, seq=4))
    assert refused(manifest, other_end) is Refused.STALE
    sealed = run(manifest, first)
    twice = replace(first, sealed=replace(first.sealed, key="another"))
    assert apply(sealed, twice) == sealed  # somebody else's object stands


def test_a_trim_point_never_passes_what_was_seen() -> None:
    manifest = with_closed([5])
    assert refused(manifest, TrimLog(log_id=LOG, before=6, visible=5)) is Refused.BROKEN
    manifest = run(manifest, TrimLog(log_id=LOG, before=4, visible=0))
    assert run(manifest, TrimLog(log_id=LOG, before=2, visible=5)).trim_point == 4


def test_what_was_visible_cannot_vanish_by_a_close() -> None:
    manifest = with_closed([5])
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    manifest = run(manifest, TrimLog(log_id=LOG, before=8, visible=8))
    assert refused(manifest, close(manifest, 2)) is Refused.BROKEN
    assert refused(manifest, replace(close(manifest, 2), end=None)) is Refused.BROKEN
    assert run(manifest, close(manifest, 3)).next_seq == 8


def test_only_trimmed_closed_segments_are_dropped() -> None:
    manifest = with_closed([5, 5])
    anchor = Anchor(first_segment=1, seq=5, digest=digest(1))
    assert refused(manifest, DropSegments(log_id=LOG, anchor=anchor)) is Refused.BROKEN
    trimmed = run(manifest, TrimLog(log_id=LOG, before=5, visible=0))
    assert [s.id for s in run(trimmed, DropSegments(log_id=LOG, anchor=anchor)).segments] == [1]


@pytest.mark.parametrize(
    ("standing", "new", "is_allowed"),
    [
        (None, None, True),
        (None, Claim(number=1, holder="x"), True),
        (Claim(number=2, holder="x"), Claim(number=1, holder="y"), False),
        (Claim(number=2, holder="x"), Claim(number=2, holder="y"), False),
        (Claim(number=2, holder="x"), Claim(number=2, holder="x"), True),
        (Claim(number=2, holder="x"), Claim(number=3, holder="y"), True),
        (Claim(number=2, holder="x"), None, False),
    ],
)
def test_claims_never_fall(standing: Claim | None, new: Claim | None, is_allowed: bool) -> None:
    manifest = opened(run(None, create()), claim=standing)
    command = OpenWriter(log_id=LOG, seen_epoch=1, token="t2", claim=new)
    if is_allowed:
        assert run(manifest, command).epoch == 2
    else:
        assert refused(manifest, command) is Refused.CLAIM
        assert manifest.epoch == 1


def test_an_ended_log_takes_no_writer() -> None:
    manifest = opened(run(None, create()))
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    manifest = run(manifest, close(manifest, 2, ended=True))
    command = OpenWriter(log_id=LOG, seen_epoch=1, token="t2")
    assert refused(manifest, command) is Refused.ENDED
    assert (
        refused(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
        is Refused.ENDED
    )


def test_deletion_is_a_takeover_and_leaves_a_grave() -> None:
    manifest = with_closed([5])
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    old = owner(manifest)
    dying = run(manifest, OpenWriter(log_id=LOG, seen_epoch=1, token="d", to_delete=True))
    assert refused(dying, close(manifest, 1)) is Refused.FENCED
    assert refused(dying, OpenWriter(log_id=LOG, seen_epoch=2, token="x")) is Refused.NOT_FOUND
    assert refused(dying, BuryLog(owner=owner(dying), now_ms=9)) is Refused.BROKEN
    dead = run(dying, replace(close(dying, 0), end=None), BuryLog(owner=owner(dying), now_ms=9))
    assert dead.is_tombstone and dead.graves[0].log_id == LOG
    assert refused(dead, OpenWriter(log_id=LOG, seen_epoch=2, token="x")) is Refused.NOT_FOUND
    reborn = run(dead, create("b" * 32))
    assert reborn.graves == dead.graves and reborn.epoch == 0
    assert not reborn.owned_by(old.log_id, old.epoch, old.token)
    assert run(reborn, RemoveGrave(log_id=LOG)).graves == ()


def test_closing_is_known_by_its_effect() -> None:
    manifest = with_closed([])
    manifest = run(manifest, OpenSegment(owner=owner(manifest), segment=next_segment(manifest)))
    command = close(manifest, 2)
    assert not took_effect(manifest, command)
    closed = run(manifest, command)
    assert took_effect(run(closed, seal(closed)), command)
    other = replace(command, end=replace(command.end, seq=9) if command.end else None)
    assert not took_effect(closed, other)
    assert not took_effect(opened(closed, "t2"), command)  # somebody else owns it: fenced


def test_pages_cover_the_oldest_sealed_segments_exactly() -> None:
    manifest = with_closed([1, 1, 1])
    manifest = run(manifest, seal(manifest))
    manifest = run(manifest, seal(manifest))
    page = PageRef(
        key="p", level=0, first_segment=0, last_segment=1, base_seq=0, end_seq=2, bytes=20,
        last_timestamp_us=2, digest=ZERO_DIGEST,
    )  # fmt: skip
    wide = replace(page, last_segment=2)
    assert refused(manifest, SpillPage(log_id=LOG, page=wide)) is Refused.STALE
    spilled = run(manifest, SpillPage(log_id=LOG, page=page))
    assert [s.id for s in spilled.segments] == [2] and spilled.pages == (page,)
    assert apply(spilled, SpillPage(log_id=LOG, page=page)) == spilled
    higher = replace(page, key="q", level=1)
    assert run(spilled, SpillPage(log_id=LOG, page=higher)).pages == (higher,)
