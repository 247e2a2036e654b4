"""Node records and what a watcher makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from woodpecker.core import membership
from woodpecker.core.membership import (
    AVOID_FIRST_MS,
    AVOID_LIMIT_MS,
    DEAD_AFTER_MS,
    GAP_LIMIT_MS,
    Load,
    NodeRecord,
    NodeState,
    answered,
    beaten,
    failed,
    looked,
)

NODE = NodeRecord(node="n1", boot=1, token="t", incarnation="i", past=("p",), address="h:1")
BUSY, SAFE = Load(unsealed_segments=1), Load(is_safe=True)


def in_state(state: NodeState) -> NodeRecord:
    return replace(NODE, state=state)


@pytest.mark.parametrize(
    ("state", "load", "after"),
    [
        (NodeState.ACTIVE, BUSY, NodeState.ACTIVE),
        (NodeState.ACTIVE, SAFE, NodeState.ACTIVE),
        (NodeState.DRAINING, BUSY, NodeState.DRAINING),
        (NodeState.DRAINING, SAFE, NodeState.DRAINED),
        (NodeState.DRAINED, SAFE, NodeState.DRAINED),
        (NodeState.DRAINED, BUSY, NodeState.DRAINING),  # what was safe must not be a lie later
        (NodeState.FORGOTTEN, BUSY, NodeState.ACTIVE),
    ],
)
def test_a_beat_carries_load_and_follows_the_drain(
    state: NodeState, load: Load, after: NodeState
) -> None:
    record = beaten(replace(in_state(state), is_up=False), load, now_ms=5)
    assert (record.state, record.load, record.beat, record.beat_at_ms) == (after, load, 1, 5)
    assert record.is_up


def test_what_administrators_do() -> None:
    for state in NodeState:
        drained = membership.draining(in_state(state)).state
        assert drained is (NodeState.DRAINING if state is NodeState.ACTIVE else state)
        active = membership.active(in_state(state)).state
        stays = state is NodeState.FORGOTTEN
        assert active is (state if stays else NodeState.ACTIVE)
        gone = membership.forgotten(in_state(state))
        assert (gone.state, gone.is_up) == (NodeState.FORGOTTEN, False)


def test_a_node_speaks_for_its_past_as_well() -> None:
    assert NODE.speaks_for("i")
    assert NODE.speaks_for("p")
    assert not NODE.speaks_for("other")


def test_silence_is_what_was_watched() -> None:
    seen = looked(None, "v1", 0.0)
    for second in range(1, 8):
        seen = looked(seen, "v1", second * 1000.0)
        assert not seen.is_silent
    assert looked(seen, "v1", DEAD_AFTER_MS).is_silent
    assert not looked(seen, "v2", DEAD_AFTER_MS).is_silent


def test_a_long_time_without_looking_proves_nothing() -> None:
    """After an outage of the metadata store every record looks as it did an hour before."""
    seen = looked(looked(None, "v1", 0.0), "v1", 3_600_000.0)
    assert seen.silent_ms == GAP_LIMIT_MS
    assert not seen.is_silent


def test_an_answer_ends_silence_and_failure() -> None:
    seen = replace(looked(None, "v1", 0.0), silent_ms=DEAD_AFTER_MS)
    assert seen.is_silent
    assert not answered(seen).is_silent
    assert answered(failed(seen, 1.0)) == answered(seen)
    fresh = looked(None, "v1", 0.0)
    assert answered(fresh) is fresh


def test_a_node_that_fails_is_avoided_ever_longer_while_it_fails() -> None:
    seen, now_ms, pauses = looked(None, "v1", 0.0), 0.0, []
    for _ in range(20):
        seen = failed(seen, now_ms)
        assert failed(seen, now_ms) is seen  # all links break at once: that is one failure
        pauses.append(seen.avoided_until_ms - now_ms)
        now_ms = seen.avoided_until_ms
    assert pauses[:3] == [AVOID_FIRST_MS, 2 * AVOID_FIRST_MS, 4 * AVOID_FIRST_MS]
    assert pauses[-1] == AVOID_LIMIT_MS
    assert seen.failing_since_ms == 0.0
    assert answered(seen).avoided_until_ms == 0.0
