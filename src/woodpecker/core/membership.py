"""LogStore nodes as they describe themselves, and how others judge whether one lives (section 7).

Each node has one record in the metadata store and rewrites it every second or two: a **beat**. No clocks
are compared: whoever watches judges by *change*, on a clock of its own, and by whether the node answers.
A record is never removed: its boot number tells a disk that was put back, or emptied, from the newest one.

``state`` is what an administrator wants, but for one step: a draining node becomes DRAINED, by itself,
when it holds nothing any more that is not safe elsewhere. Then, and only then, it may be ended for good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

DEAD_AFTER_MS = 8_000.0  # silence of a node that is taken for dead
GAP_LIMIT_MS = 3_000.0  # two looks further apart than this say no more about silence
AVOID_FIRST_MS = 15_000.0
AVOID_LIMIT_MS = 300_000.0


class NodeState(StrEnum):
    """What a node is to do."""

    ACTIVE = "active"
    DRAINING = "draining"  # takes part in no new segment while two others live
    DRAINED = "drained"  # holds nothing that is not safe elsewhere, refuses new segments
    FORGOTTEN = "forgotten"  # gone for ever; comes back to life with its next beat


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a node tells of itself with each beat. ``is_safe``: nothing would be lost with it."""

    pressure: int = 0  # as in Appended
    unsealed_segments: int = 0
    unsealed_bytes: int = 0
    is_safe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One LogStore node. Times are for people only."""

    node: str
    boot: int  # grows with every start; 0: never started
    token: str  # of the process: 32 hex digits, new for each start
    incarnation: str
    past: tuple[str, ...] = ()  # incarnations it still answers for, as lower bounds
    address: str
    http: str = ""  # where metrics and health are served; "" if nowhere
    zone: str = ""
    group: str = ""
    version: str = ""
    state: NodeState = NodeState.ACTIVE
    is_up: bool = True  # False: it was stopped in good order
    beat: int = 0
    load: Load = Load()
    started_at_ms: int = 0
    beat_at_ms: int = 0

    def speaks_for(self, incarnation: str) -> bool:
        """Whether the node can say anything about what that incarnation held."""
        return incarnation == self.incarnation or incarnation in self.past


def beaten(record: NodeRecord, load: Load, *, now_ms: int) -> NodeRecord:
    """The record with the next beat; the state follows what the node holds."""
    state = record.state
    if state is NodeState.DRAINING and load.is_safe:
        state = NodeState.DRAINED
    elif state is NodeState.DRAINED and not load.is_safe:
        state = NodeState.DRAINING
    elif state is NodeState.FORGOTTEN:
        state = NodeState.ACTIVE
    return replace(
        record, state=state, load=load, is_up=True, beat=record.beat + 1, beat_at_ms=now_ms
    )


def draining(record: NodeRecord) -> NodeRecord:
    """What an administrator's drain makes of the record; unchanged if it drains already."""
    return replace(record, state=NodeState.DRAINING) if record.state is NodeState.ACTIVE else record


def active(record: NodeRecord) -> NodeRecord:
    """What cancelling a drain makes of the record; unchanged if it is not drained."""
    is_drained = record.state in (NodeState.DRAINING, NodeState.DRAINED)
    return replace(record, state=NodeState.ACTIVE) if is_drained else record


def forgotten(record: NodeRecord) -> NodeRecord:
    """What is left of a node that is gone for ever."""
    return replace(record, state=NodeState.FORGOTTEN, is_up=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one watcher knows of one node. Times are of the watcher's own monotonic clock.

    ``silent_ms``: for how long the record has been seen unchanged while nothing was heard of the node.
    ``failing_since_ms``: first failure after the last answer; None: none.
    """

    version: str
    seen_ms: float
    silent_ms: float = 0.0
    failing_since_ms: float | None = None
    avoided_until_ms: float = 0.0
    failures: int = 0

    @property
    def is_silent(self) -> bool:
        """Whether the node is taken for dead."""
        return self.silent_ms >= DEAD_AFTER_MS


def looked(before: Sighting | None, version: str, now_ms: float) -> Sighting:
    """The record was read: has it changed since the last look?

    A long time without looking counts little: perhaps nobody could write meanwhile.
    """
    if before is None:
        return Sighting(version=version, seen_ms=now_ms)
    if before.version != version:
        return replace(before, version=version, seen_ms=now_ms, silent_ms=0.0)
    gap_ms = min(now_ms - before.seen_ms, GAP_LIMIT_MS)
    return replace(before, seen_ms=now_ms, silent_ms=before.silent_ms + gap_ms)


def failed(before: Sighting, now_ms: float) -> Sighting:
    """The node did not answer: it is avoided for a while, ever longer if that goes on."""
    if now_ms < before.avoided_until_ms:
        return before
    avoid_ms = min(AVOID_FIRST_MS * 2.0 ** min(before.failures, 10), AVOID_LIMIT_MS)
    since_ms = now_ms if before.failing_since_ms is None else before.failing_since_ms
    return replace(
        before,
        failing_since_ms=since_ms,
        avoided_until_ms=now_ms + avoid_ms,
        failures=before.failures + 1,
    )


def answered(before: Sighting) -> Sighting:
    """The node answered: whatever its record says, it lives."""
    if before.failures == 0 and before.silent_ms == 0.0:
        return before
    return replace(before, silent_ms=0.0, failing_since_ms=None, avoided_until_ms=0.0, failures=0)
