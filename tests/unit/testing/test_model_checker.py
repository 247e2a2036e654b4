"""The model checker itself, on worlds small enough to count by hand."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest

from woodpecker.testing.model import Broken, explore
from woodpecker.testing.model.__main__ import main

State = tuple[int, ...]


class Walkers:
    """Some walkers on a line from 0 to ``end``; each may step up, and those at the end stay there."""

    def __init__(self, walkers: int = 2, end: int = 3, *, bad: State = ()) -> None:
        self.walkers, self.end, self.bad = walkers, end, bad
        self.is_symmetric = False

    def starts(self) -> Iterable[State]:
        return [(0,) * self.walkers]

    def moves(self, state: State) -> Iterable[tuple[int, State]]:
        for index, at in enumerate(state):
            if at < self.end:
                yield index, (*state[:index], at + 1, *state[index + 1 :])

    def fault(self, state: State) -> str | None:
        return "there" if self.canonical(state) == self.bad else None

    def canonical(self, state: State) -> State:
        return tuple(sorted(state)) if self.is_symmetric else state

    def tell(self, before: State, move: int, after: State) -> str:
        return f"walker {move} goes to {after[move]}"


def test_every_state_and_move_is_counted_once() -> None:
    result = explore(Walkers(walkers=2, end=3))
    assert (result.states, result.moves, result.depth) == (16, 24, 6)
    assert result.is_complete and result.fault is None
    assert "16 states" in result.told() and "holds" in result.told()


def test_symmetry_leaves_one_of_the_states_that_differ_by_who_is_who() -> None:
    model = Walkers(walkers=3, end=3)
    model.is_symmetric = True
    assert explore(model).states == 20  # multisets of 3 out of 4


def test_the_shortest_way_is_told_with_names_that_stay() -> None:
    model = Walkers(walkers=3, end=3, bad=(0, 1, 2))
    model.is_symmetric = True
    result = explore(model)
    assert (result.fault, result.depth) == ("there", 3)
    places = [0, 0, 0]
    for line in result.story:
        _, walker, _, _, place = line.split()
        places[int(walker)] += 1
        assert places[int(walker)] == int(place)
    assert sorted(places) == [0, 1, 2]
    assert "1. walker" in result.told()


def test_bounds_are_admitted() -> None:
    few = explore(Walkers(), max_states=5)
    assert not few.is_complete and few.states >= 5 and "NOT COMPLETE" in few.told()
    near = explore(Walkers(), max_depth=2)
    assert not near.is_complete and (near.depth, near.states) == (2, 6)
    assert explore(Walkers(), max_depth=7).is_complete


def test_a_move_may_be_forbidden_in_itself() -> None:
    class Strict(Walkers):
        def moves(self, state: State) -> Iterable[tuple[int, State]]:
            yield from super().moves(state)
            if state == (1, 1):
                raise Broken("both at once", move=0)

    result = explore(Strict())
    assert (result.fault, result.depth) == ("both at once", 3)
    assert len(result.story) == 3


def test_a_goal_out_of_reach_is_a_fault() -> None:
    class Trap(Walkers):
        def moves(self, state: State) -> Iterable[tuple[int, State]]:
            return [] if state == (2, 0) else super().moves(state)

    assert explore(Walkers(), goal=lambda state: state == (3, 3)).is_complete
    result = explore(Trap(), goal=lambda state: state == (3, 3))
    assert result.fault is not None and result.fault.startswith("stuck")
    assert result.depth == len(result.story) == 2


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    explore(Walkers())
    assert gc.isenabled()


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
