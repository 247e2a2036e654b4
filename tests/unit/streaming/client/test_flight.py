"""One session's batches, against a node drawn by chance: order, once each, and what is told of the outcome."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.streaming.client.flight import CUT_BYTES, IN_FLIGHT, Draft, Flight, Verdict, judge
from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.core.refusals import Class, Refusal


def _draft(name: str = "x", **facts: object) -> Draft:
    draft = Draft(messages=[Message(name.encode())], size_bytes=100, deadline_ms=1e9)
    for fact, value in facts.items():
        setattr(draft, fact, value)
    return draft


def _refusal(kind: Class, **facts: int) -> Refusal:
    return Refusal(kind=kind, message="a test says so", **facts)  # type: ignore[arg-type]


VERDICTS = [
    # class, was cut, may renew, verdict
    (Class.MOVED, False, True, Verdict.REROUTE),
    (Class.UNKNOWN, True, True, Verdict.REROUTE),
    (Class.LATER, True, True, Verdict.AGAIN),
    (Class.UNAVAILABLE, False, True, Verdict.AGAIN),
    (Class.GAP, True, False, Verdict.AGAIN),
    (Class.EXPIRED, False, True, Verdict.RENEW),
    (Class.EXPIRED, False, False, Verdict.END),
    (Class.ABORTED, False, True, Verdict.DROP),
    (Class.ABORTED, True, True, Verdict.DROP),
    (Class.STALE_PRODUCER, False, True, Verdict.END),
    (Class.GONE, False, True, Verdict.END),
    (Class.INVALID, False, True, Verdict.DROP),
    (Class.CONDITION, False, True, Verdict.DROP),
    (Class.INVALID, True, False, Verdict.END),
    (Class.GONE, True, False, Verdict.END),
]


@pytest.mark.parametrize(("kind", "was_cut", "may_renew", "verdict"), VERDICTS)
def test_what_a_refusal_means(
    kind: Class, was_cut: bool, may_renew: bool, verdict: Verdict
) -> None:
    assert judge(_draft(was_cut=was_cut), _refusal(kind), may_renew=may_renew) is verdict


def test_open_drafts_take_what_belongs_to_them() -> None:
    plain = _draft(is_open=True)
    assert plain.takes(_draft(is_open=True))
    assert not plain.takes(_draft())
    assert not plain.takes(_draft(is_open=True, txn=1))
    assert not plain.takes(_draft(is_open=True, ephemeral=True))
    assert not plain.takes(_draft(is_open=True, size_bytes=CUT_BYTES))
    body = _draft(is_open=True, txn=1, begin=True)
    assert body.takes(_draft(is_open=True, txn=1))
    assert body.takes(_draft(txn=1, commit=True))
    assert not body.takes(_draft(txn=1, abort=True))
    assert not _draft(txn=1).takes(_draft(txn=1, commit=True))
    body.add(_draft(txn=1, commit=True))
    assert body.commit
    assert body.begin
    assert not body.is_open


def test_an_open_draft_waits_while_something_is_in_flight() -> None:
    flight = Flight()
    first, second, third = (_draft(is_open=is_open) for is_open in (False, True, False))
    flight.put(first)
    flight.put(second)
    assert flight.next_draft(0) is first
    flight.sent(first)
    assert flight.next_draft(0) is None
    flight.put(third)
    assert flight.next_draft(0) is second  # nothing can join it any more


def test_a_gap_below_what_was_acknowledged_means_that_the_session_is_forgotten() -> None:
    flight = Flight()
    for _ in range(2):
        flight.put(_draft())
        draft = flight.next_draft(0)
        assert draft is not None
        flight.sent(draft)
    assert flight.on_ack(0) is not None
    assert flight.on_ack(0) is None  # again
    gap = _refusal(Class.GAP, expected=0)
    draft, verdict = flight.on_refused(1, gap, 0, is_anonymous=True)
    assert verdict is Verdict.RENEW
    assert flight.next_draft(0) is None
    flight.begin(0)
    assert flight.next_draft(0) is draft
    assert draft is not None
    assert draft.sequence == 0


class _World:
    """A node with a log, and a wire that may be cut; every batch has a name of its own."""

    def __init__(self) -> None:
        self.flight = Flight()
        self.log: list[str] = []
        self.up: deque[tuple[int, Draft]] = deque()
        self.down: deque[tuple[int, Refusal | None]] = deque()
        self.put: list[str] = []
        self.acked: list[str] = []
        self.dropped: list[str] = []
        self.now_ms = 0.0

    def step(self, action: int) -> None:
        match action:
            case 0:
                name = str(len(self.put))
                self.put.append(name)
                self.flight.put(_draft(name))
            case 1 | 2:
                self._send()
            case 3:
                self._judge(None)
            case 4:
                self._judge(Class.LATER)
            case 5:
                self._judge(Class.INVALID)
            case 6 | 7:
                self._answer()
            case 8:
                self._cut()
            case 9:
                self.now_ms += 60

    def _send(self) -> None:
        draft = self.flight.next_draft(self.now_ms)
        if draft is not None:
            assert not draft.is_out
            self.flight.sent(draft)
            self.up.append((draft.sequence, draft))
        assert len(self.flight.flying) <= IN_FLIGHT
        sequences = [draft.sequence for draft in self.flight.flying]
        assert sequences == sorted(set(sequences))

    def _judge(self, against: Class | None) -> None:
        """The node takes the next frame: its session is asked first."""
        if not self.up:
            return
        sequence, draft = self.up.popleft()
        name = draft.messages[0].payload.decode()
        if sequence < len(self.log):
            assert self.log[sequence] == name, (
                "another batch under the number of one that is written"
            )
            self.down.append((sequence, None))
        elif sequence > len(self.log):
            self.down.append((sequence, _refusal(Class.GAP, expected=len(self.log))))
        elif against is not None and not (against is Class.INVALID and draft.was_cut):
            self.down.append((sequence, _refusal(against, after_ms=50)))
        else:
            self.log.append(name)
            self.down.append((sequence, None))

    def _answer(self) -> None:
        if not self.down:
            return
        sequence, refusal = self.down.popleft()
        if refusal is None:
            draft = self.flight.on_ack(sequence)
            assert draft is not None
            self.acked.append(draft.messages[0].payload.decode())
            return
        draft, verdict = self.flight.on_refused(sequence, refusal, self.now_ms, is_anonymous=False)
        assert draft is not None
        if verdict is Verdict.DROP:
            self.dropped.append(draft.messages[0].payload.decode())
        else:
            assert verdict is Verdict.AGAIN

    def _cut(self) -> None:
        self.up.clear()
        self.down.clear()
        assert self.flight.on_break() == []

    def settle(self) -> None:
        """Nothing breaks any more."""
        for _ in range(10_000):
            if self.flight.is_empty:
                return
            self.now_ms += 100
            self._send()
            self._judge(None)
            self._answer()
        raise AssertionError("it never settles")


@settings(max_examples=400)
@given(st.lists(st.integers(0, 9), max_size=200))
def test_written_once_in_order_and_told_truly(actions: list[int]) -> None:
    world = _World()
    for action in actions:
        world.step(action)
    world.settle()
    assert world.acked == world.log
    assert world.log == [name for name in world.put if name not in world.dropped]
    assert sorted(world.acked + world.dropped, key=int) == world.put
