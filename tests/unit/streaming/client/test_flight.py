"""One session's batches, against a node drawn by chance: order, once each, and what is told of the outcome."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import example, given, settings
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
    """A node with a log, and a wire that may be cut; every batch has a name of its own.

    What was under way on a stream that was cut may still come to the node, at any time later: it has buffers.
    """

    def __init__(self, *, is_anonymous: bool) -> None:
        self.flight = Flight()
        self.is_anonymous = is_anonymous
        self.log: list[str] = []
        self.session = 0
        self.known: dict[int, list[str]] = {0: []}  # what each session has written
        self.up: deque[tuple[int, int, str]] = deque()
        self.down: deque[tuple[int, Refusal | None]] = deque()
        self.ghosts: deque[tuple[int, int, str]] = deque()
        self.put: list[str] = []
        self.acked: list[str] = []
        self.never: list[str] = []
        self.unknown: list[str] = []
        self.is_over = False
        self.now_ms = 0.0

    def step(self, action: int) -> None:
        if self.is_over:
            self._ghost()
            return
        match action:
            case 0:
                name = str(len(self.put))
                self.put.append(name)
                self.flight.put(_draft(name, deadline_ms=self.now_ms + 500))
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
            case 10:
                self._ghost()
            case 11:
                late, is_unknown = self.flight.late(self.now_ms)
                self.never += [_name(draft) for draft in late]
                if is_unknown:
                    self._end()
        self._look_for_a_hole()

    def _send(self) -> None:
        if self.flight.is_forgotten and self.flight.is_quiet:
            self.session += 1
            self.known[self.session] = []
            self.flight.begin(0)
        draft = self.flight.next_draft(self.now_ms)
        if draft is not None:
            assert not draft.is_out
            assert all(
                d.is_out
                for d in self.flight.flying
                if draft.sequence < 0 or d.sequence < draft.sequence
            )
            self.flight.sent(draft)
            self.up.append((draft.sequence, self.session, _name(draft)))
        assert len(self.flight.flying) <= IN_FLIGHT
        sequences = [draft.sequence for draft in self.flight.flying]
        assert sequences == sorted(set(sequences))

    def _judge(self, against: Class | None) -> None:
        """The node takes the next frame: its session is asked first."""
        if not self.up:
            return
        sequence, session, name = self.up.popleft()
        known = self.known[session]
        if sequence < len(known):
            assert known[sequence] == name, "another batch under the number of one that is written"
            self.down.append((sequence, None))
        elif sequence > len(known):
            self.down.append((sequence, _refusal(Class.GAP, expected=len(known))))
        elif against is not None:
            self.down.append((sequence, _refusal(against, after_ms=50)))
        else:
            self._write(session, name)
            self.down.append((sequence, None))

    def _ghost(self) -> None:
        if self.ghosts:
            sequence, session, name = self.ghosts.popleft()
            if sequence == len(self.known[session]):
                self._write(session, name)

    def _write(self, session: int, name: str) -> None:
        assert name not in self.log, "written twice"
        self.known[session].append(name)
        self.log.append(name)

    def _answer(self) -> None:
        if not self.down:
            return
        sequence, refusal = self.down.popleft()
        if refusal is None:
            draft = self.flight.on_ack(sequence)
            if draft is not None:
                self.acked.append(_name(draft))
            return
        draft, verdict = self.flight.on_refused(
            sequence, refusal, self.now_ms, is_anonymous=self.is_anonymous
        )
        assert draft is not None
        if verdict is Verdict.DROP:
            self.never.append(_name(draft))
        elif verdict is Verdict.END:
            self._end()
        else:
            assert verdict is Verdict.AGAIN

    def _cut(self) -> None:
        self.ghosts += self.up
        self.up.clear()
        self.down.clear()
        assert self.flight.on_break() == []

    def _look_for_a_hole(self) -> None:
        if self.flight.is_stuck and not self.flight.leave_hole(may_renew=self.is_anonymous):
            self._end()

    def _end(self) -> None:
        self.is_over = True
        for draft in self.flight.end():
            (self.unknown if draft.is_out or draft.was_cut else self.never).append(_name(draft))

    def settle(self) -> None:
        """Nothing breaks any more."""
        for _ in range(10_000):
            if self.flight.is_empty:
                break
            self.now_ms += 100
            self._send()
            self._judge(None)
            self._answer()
            self._look_for_a_hole()
        else:
            raise AssertionError("it never settles")
        while self.ghosts:
            self._ghost()


def _name(draft: Draft) -> str:
    return draft.messages[0].payload.decode()


A_GHOST_BEHIND_A_HOLE = [0, 0, 1, 1, 4, 6, 8, 9, 1, 5, 6, 1, 3, 10]
A_GHOST_BEFORE_THE_REPEAT = [0, 0, 1, 8, 1, 4, 10]
A_HOLE_AND_THEN_A_CUT = [0, 0, 1, 1, 5, 6, 8, 1, 3, 10]


@settings(max_examples=1000, deadline=None)
@example(A_GHOST_BEHIND_A_HOLE, True)
@example(A_GHOST_BEHIND_A_HOLE, False)
@example(A_HOLE_AND_THEN_A_CUT, True)
@example(A_GHOST_BEFORE_THE_REPEAT, True)
@given(st.lists(st.integers(0, 11), max_size=200), st.booleans())
def test_written_once_in_order_and_told_truly(actions: list[int], is_anonymous: bool) -> None:
    world = _World(is_anonymous=is_anonymous)
    for action in actions:
        world.step(action)
    world.settle()
    assert len(set(world.acked)) == len(world.acked)
    assert set(world.acked) <= set(world.log)
    assert not set(world.never) & set(world.log), "told that it is not written"
    assert world.log == sorted(world.log, key=int)
    told = world.acked + world.never + world.unknown
    assert sorted(told, key=int) == world.put
