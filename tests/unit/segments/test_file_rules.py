"""Rules of kind ``file``: order of a write, plan of a take-over, verdicts of a scan, pace."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from woodpecker.core.file_rules import (
    INLINE_MAX_MS,
    PAUSE_FACTOR,
    SLOW_SYNC_MS,
    Act,
    Identity,
    Pace,
    Position,
    Step,
    Verdict,
    after,
    judge,
    padded,
    proves_damage,
    takeover_plan,
)

WHO = Identity(log_id="ab" * 16, segment_id=3, epoch=7)
HERE = Position(offset=8192, block=5, seq=100, digest=b"d" * 16)


@dataclass(frozen=True, kw_only=True)
class Header:
    log_id: str = WHO.log_id
    segment_id: int = WHO.segment_id
    epoch: int = WHO.epoch
    number: int = HERE.block
    base_seq: int = HERE.seq
    end_seq: int = HERE.seq + 3
    size_bytes: int = 5000
    digest: bytes = b"n" * 16
    prev_digest: bytes = HERE.digest


def steps(answers):
    """Steps taken while the n-th one answers ``answers[n]``."""
    taken = [Step.WRITE]
    while not taken[-1].is_end:
        taken.append(after(taken[-1], ok=answers.get(taken[-1], True)))
    return taken


def test_a_block_is_acknowledged_after_write_sync_look_publish_in_this_order():
    assert steps({}) == [Step.WRITE, Step.SYNC, Step.LOOK, Step.PUBLISH, Step.ACKNOWLEDGED]


def test_a_fence_seen_after_the_sync_ends_the_writer_before_anything_is_shown():
    assert steps({Step.LOOK: False}) == [Step.WRITE, Step.SYNC, Step.LOOK, Step.FENCED]


def test_a_failed_write_or_sync_ends_the_writer():
    assert steps({Step.WRITE: False}) == [Step.WRITE, Step.FAILED]
    assert steps({Step.SYNC: False}) == [Step.WRITE, Step.SYNC, Step.FAILED]


def test_a_taker_over_fences_before_it_scans_if_it_can_even_with_the_lock():
    for is_locked, is_same_boot, is_side_sound in itertools.product((True, False), repeat=3):
        plan = takeover_plan(
            is_locked=is_locked, is_same_boot=is_same_boot, is_side_sound=is_side_sound
        )
        if not is_same_boot:
            assert plan == (Act.SCAN, Act.SYNC)
        elif is_side_sound:
            assert plan == (Act.FENCE, Act.BARRIER, Act.SCAN, Act.SYNC)
        else:
            assert plan == ((Act.SCAN, Act.SYNC) if is_locked else None)


def test_the_block_that_links_on_is_the_next():
    assert judge(WHO, HERE, Header(), is_sound=True) is Verdict.NEXT
    assert HERE.after(Header()) == Position(offset=8192 + 8192, block=6, seq=103, digest=b"n" * 16)


@pytest.mark.parametrize(
    "change", [{"log_id": "cd" * 16}, {"segment_id": 2}, {"epoch": 6}, {"number": 4}]
)
def test_blocks_of_others_and_older_blocks_are_nothing(change):
    assert judge(WHO, HERE, replace(Header(), **change), is_sound=True) is Verdict.NOTHING
    assert not proves_damage(WHO, HERE, replace(Header(), **change))


@pytest.mark.parametrize("change", [{"number": 6}, {"base_seq": 99}, {"prev_digest": b"x" * 16}])
def test_a_sound_block_of_this_writer_that_does_not_link_on_is_damage(change):
    assert judge(WHO, HERE, replace(Header(), **change), is_sound=True) is Verdict.DAMAGE


def test_a_torn_block_is_nothing_and_forbids_no_cut_at_its_own_place_only():
    assert judge(WHO, HERE, Header(), is_sound=False) is Verdict.NOTHING
    assert judge(WHO, HERE, None, is_sound=False) is Verdict.NOTHING
    assert proves_damage(WHO, HERE, replace(Header(), number=6))


def test_padding_goes_to_whole_units():
    assert [padded(n) for n in (0, 1, 4095, 4096, 4097)] == [0, 4096, 4096, 4096, 8192]


def test_the_loop_waits_for_fast_disks_only():
    pace = Pace()
    assert not pace.allows_inline(0)  # nothing is known
    pace.took(INLINE_MAX_MS / 2, 0)
    assert pace.allows_inline(0)
    slow_ms = SLOW_SYNC_MS * 1.01
    pace.took(slow_ms, 10)
    for _ in range(50):
        pace.took(INLINE_MAX_MS / 2, 11)
    assert not pace.allows_inline(10 + slow_ms * PAUSE_FACTOR - 1)
    assert pace.allows_inline(10 + slow_ms * PAUSE_FACTOR)
    for _ in range(50):
        pace.took(INLINE_MAX_MS * 2, 2000)
    assert not pace.allows_inline(10_000)
