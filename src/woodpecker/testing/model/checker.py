"""Explore everything a model can do, breadth first: the first broken rule comes by the shortest way.

A model is any object with the methods of ``Model``. Its states are hashable values that are never
changed; equal means the same. Whatever may happen next (a message arrives, is lost, arrives again; a
process crashes; somebody decides) is one *move*. A message that may be lost, late or repeated costs no
state if the model lets it arrive in any later state: *sent for ever, delivered at will*.

    class Counter:
        def starts(self): return [0]
        def moves(self, state): return [("add", state + 1)] if state < 3 else []
        def fault(self, state): return "three!" if state == 3 else None
        def canonical(self, state): return state
        def tell(self, before, move, after): return f"{move}: {before} -> {after}"

    print(explore(Counter()).told())

**Symmetry.** If members, nodes or clients are interchangeable, ``canonical`` maps states that differ only
by who is who to one of them. Sound only if neither the rules nor the initial states tell them apart.
**Bounds.** ``max_states`` and ``max_depth`` end a search early; the result then says so, and
``is_complete`` is False. Everything is deterministic, except for the time that it took.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


class Broken(AssertionError):
    """Raised by ``Model.moves``: the move under way breaks a rule. The text says which.

    ``move``: what was being done, for ``tell``.
    """

    def __init__(self, text: str, *, move: Any = None) -> None:
        super().__init__(text)
        self.move = move


class Model(Protocol[State]):
    """What can be explored."""

    def starts(self) -> Iterable[State]:
        """The states in which all begins."""

    def moves(self, state: State) -> Iterable[tuple[Any, State]]:
        """Everything that may happen next: (move, state after it). Deterministic, also in its order.

        Raises: Broken: one of the moves breaks a rule that no state shows.
        """

    def fault(self, state: State) -> str | None:
        """The rule that this state breaks, in words; None: all is well."""

    def canonical(self, state: State) -> State:
        """The one that stands for all states of the same meaning; ``state`` itself if there are none."""

    def tell(self, before: State, move: Any, after: State) -> str:
        """The move, as a line of a story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a search saw."""

    states: int  # different ones, up to symmetry
    moves: int  # looked at
    depth: int  # of the deepest state: moves from the beginning; with a fault, of the fault
    seconds: float
    is_complete: bool  # every reachable state was seen, and none is at fault
    fault: str | None = None
    story: Sequence[str] = ()  # the moves that lead to the fault

    def told(self) -> str:
        """The result in words: numbers first, then the story, a line for each move."""
        rate = round(self.states / self.seconds) if self.seconds else 0
        ending = f"broken: {self.fault}" if self.fault else "holds"
        if self.fault is None and not self.is_complete:
            ending = "nothing found, NOT COMPLETE: a bound was hit"
        numbers = (
            f"{self.states:,} states, {self.moves:,} moves, depth {self.depth}, "
            f"{self.seconds:.1f} s ({rate:,} states/s): {ending}"
        )
        steps = [f"  {number:>2}. {line}" for number, line in enumerate(self.story, start=1)]
        return "\n".join([numbers, *steps])


def explore(
    model: Model[State],
    *,
    goal: Callable[[State], bool] | None = None,
    max_states: int | None = None,
    max_depth: int | None = None,
) -> Result:
    """Visit every state, up to the bounds, until a rule is broken.

    Args:
        goal: must stay within reach: a state from which no way leads to one of these is a fault too.
            Looked at once everything was visited; keeps every move in memory.
        max_states: stop when so many states have been seen. max_depth: look at no longer ways.
    """
    was_collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and looking through millions of states takes most of the time
    try:
        return _Search(model, goal, max_states, max_depth).run()
    finally:
        if was_collecting:
            gc.enable()


class _Search:
    """One run: what was seen, with the state that each was reached from."""

    def __init__(
        self,
        model: Model[Any],
        goal: Callable[[Any], bool] | None,
        max_states: int | None,
        max_depth: int | None,
    ) -> None:
        self._model = model
        self._goal = goal
        self._max_states = float("inf") if max_states is None else max_states
        self._max_depth = float("inf") if max_depth is None else max_depth
        self._parents: dict[Any, Any] = {}  # canonical state -> canonical state before it
        self._sources: dict[Any, list[Any]] = {}  # the same, all of them; only with a goal
        self._moves = 0
        self._depth = 0
        self._started = time.perf_counter()

    def run(self) -> Result:
        frontier = []
        for start in map(self._model.canonical, self._model.starts()):
            if start not in self._parents:
                self._parents[start] = None
                frontier.append(start)
                text = self._model.fault(start)
                if text is not None:
                    return self._result(fault=text)
        while frontier:
            if self._depth >= self._max_depth:
                return self._result()
            frontier, ended = self._level(frontier)
            if ended is not None:
                return ended
            self._depth += bool(frontier)
        return self._result(is_complete=True) if self._goal is None else self._judge_goal()

    def _level(self, frontier: list[Any]) -> tuple[list[Any], Result | None]:
        """All moves from states of one depth: the new states; a result if the search ends here."""
        parents, sources, canonical = self._parents, self._sources, self._model.canonical
        moves, fault, keeps = self._model.moves, self._model.fault, self._goal is not None
        found: list[Any] = []
        for before in frontier:
            try:
                for _, raw in moves(before):
                    self._moves += 1
                    after = canonical(raw)
                    if keeps:
                        sources.setdefault(after, []).append(before)
                    if after in parents:
                        continue
                    parents[after] = before
                    found.append(after)
                    text = fault(after)
                    if text is not None:
                        return [], self._broken(text, after)
            except Broken as broken:
                return [], self._broken(str(broken), before, broken)
            if len(parents) >= self._max_states:
                return [], self._result()
        return found, None

    def _judge_goal(self) -> Result:
        assert self._goal is not None
        good = {state for state in self._parents if self._goal(state)}
        waiting = list(good)
        while waiting:
            for before in self._sources.get(waiting.pop(), ()):
                if before not in good:
                    good.add(before)
                    waiting.append(before)
        stuck = next((state for state in self._parents if state not in good), None)
        if stuck is None:
            return self._result(is_complete=True)
        way = self._way(stuck)
        self._depth = len(way) - 1
        return self._result(
            fault="stuck: no way leads to the goal any more", story=self._story(way)
        )

    def _broken(self, text: str, last: Any, broken: Broken | None = None) -> Result:
        self._depth += 1
        return self._result(fault=text, story=self._story(self._way(last), broken))

    def _way(self, state: Any) -> list[Any]:
        way = []
        while state is not None:
            way.append(state)
            state = self._parents[state]
        return way[::-1]

    def _story(self, way: list[Any], broken: Broken | None = None) -> list[str]:
        """The way told again, without symmetry: who is who stays the same from line to line."""
        model = self._model
        at = next(start for start in model.starts() if model.canonical(start) == way[0])
        lines = []
        for goal in way[1:]:
            steps = ((move, after, model.canonical(after)) for move, after in model.moves(at))
            move, after = next((move, after) for move, after, found in steps if found == goal)
            lines.append(model.tell(at, move, after))
            at = after
        if broken is not None:
            lines.append(self._last_line(at, broken))
        return lines

    def _last_line(self, at: Any, broken: Broken) -> str:
        """The forbidden move, made again from the state as it is told."""
        try:
            for _ in self._model.moves(at):
                pass
        except Broken as again:
            broken = again
        return self._model.tell(at, broken.move, at)

    def _result(
        self, *, is_complete: bool = False, fault: str | None = None, story: Sequence[str] = ()
    ) -> Result:
        return Result(
            states=len(self._parents),
            moves=self._moves,
            depth=self._depth,
            seconds=time.perf_counter() - self._started,
            is_complete=is_complete,
            fault=fault,
            story=tuple(story),
        )
