"""Cursors against retention: every interleaving of their steps, on the real transitions.

Two retention runs and a cursor being created or moved back: an accepted cursor is never trimmed past.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from woodpecker.core.commands import Command, SetTrimPending, TrimLog
from woodpecker.core.manifest import Manifest
from woodpecker.core.transitions import apply

LOG = "a" * 32
START = Manifest(name="a", log_id=LOG, created_at_ms=0, next_seq=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The manifest, the cursors, and what each process remembers (program counter, reading)."""

    manifest: Manifest = START
    cursors: tuple[tuple[str, int], ...] = ()
    at: tuple[int, ...] = (0, 0, 0)
    read: tuple[int, int] = (0, 0)
    accepted: bool | None = None


Step = Callable[[State], State]


def changed(state: State, command: Command) -> State:
    after = apply(state.manifest, command)
    return replace(state, manifest=after) if isinstance(after, Manifest) else state


def retention(which: int, before: int, *, has_token: bool = True) -> list[Step]:
    token = f"t{which}"

    def publish(state: State) -> State:
        return changed(state, SetTrimPending(log_id=LOG, before=before, token=token))

    def look(state: State) -> State:
        lowest = min([before, *(position for _, position in state.cursors)])
        read = tuple(lowest if i == which else old for i, old in enumerate(state.read))
        return replace(state, read=(read[0], read[1]))

    def trim(state: State) -> State:
        stands = state.manifest.trim_token if not has_token else token
        command = TrimLog(log_id=LOG, before=state.read[which], visible=100, token=stands)
        return changed(state, command)

    return [publish, look, trim]


def creation(position: int, *, checks_first: bool = False) -> list[Step]:
    """A new cursor, or one moved back from far ahead: write, then look whether it may stay."""

    def write(state: State) -> State:
        return replace(state, cursors=(("c", position),))

    def check(state: State) -> State:
        earliest = max(state.manifest.trim_point, state.manifest.trim_pending or 0)
        if position >= earliest:
            return replace(state, accepted=True)
        return replace(state, accepted=False, cursors=(("c", 90),))

    def check_only(state: State) -> State:
        earliest = max(state.manifest.trim_point, state.manifest.trim_pending or 0)
        return replace(state, accepted=position >= earliest)

    def write_if_accepted(state: State) -> State:
        return write(state) if state.accepted else state

    return [check_only, write_if_accepted] if checks_first else [write, check]


def interleavings(processes: list[list[Step]]) -> Iterator[State]:
    """All states after all steps, whatever the order; any process may also stop in the middle."""
    todo, seen = [State()], set()
    while todo:
        state = todo.pop()
        key = (repr(state),)
        if key in seen:
            continue
        seen.add(key)
        yield state
        for which, steps in enumerate(processes):
            if state.at[which] < len(steps):
                at = tuple(n + (i == which) for i, n in enumerate(state.at))
                todo.append(replace(steps[state.at[which]](state), at=(at[0], at[1], at[2])))


def broken(processes: list[list[Step]], position: int) -> bool:
    """Whether some order lets an accepted cursor be trimmed past."""
    return any(
        state.accepted and ("c", position) in state.cursors and state.manifest.trim_point > position
        for state in interleavings(processes)
    )


CASES = [(10, 10, 5), (10, 8, 5), (10, 8, 9), (10, 20, 15), (20, 10, 15), (10, 8, 10)]


@pytest.mark.parametrize(("first", "second", "position"), CASES)
def test_an_accepted_cursor_is_never_trimmed_past(first: int, second: int, position: int) -> None:
    # the first run may begin anew after the second: a stalled one must not profit from that
    again = [*retention(1, second), *retention(1, first)]
    for runs in ([retention(0, first), retention(1, second)], [retention(0, first), again]):
        processes = [*runs, creation(position)]
        assert not broken(processes, position)
        assert any(state.accepted for state in interleavings(processes))
        assert any(state.manifest.trim_point for state in interleavings(processes))


def test_a_trim_on_somebody_elses_intention_is_caught() -> None:
    """The rule this replaced: any run may clear any intention."""
    careless = [retention(0, 10, has_token=False), retention(1, 10, has_token=False)]
    assert broken([*careless, creation(5)], 5)


def test_looking_before_writing_is_caught() -> None:
    runs = [retention(0, 10), retention(1, 8)]
    assert broken([*runs, creation(5, checks_first=True)], 5)


def test_explicit_trims_pass_cursors_and_leave_a_higher_intention() -> None:
    pending = apply(START, SetTrimPending(log_id=LOG, before=50, token="t"))
    assert isinstance(pending, Manifest)
    low = apply(pending, TrimLog(log_id=LOG, before=20, visible=100))
    assert isinstance(low, Manifest)
    assert (low.trim_point, low.trim_pending, low.trim_token) == (20, 50, "t")
    high = apply(low, TrimLog(log_id=LOG, before=60, visible=100))
    assert isinstance(high, Manifest)
    assert (high.trim_point, high.trim_pending, high.trim_token) == (60, None, "")
