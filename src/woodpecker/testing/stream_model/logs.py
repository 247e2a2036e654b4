"""Logs by number, so that a state holds a log as one int: each is another one and one batch more."""

from __future__ import annotations

from collections.abc import Callable

from woodpecker.streaming.core.facts import Facts
from woodpecker.streaming.core.fold import Fold

EMPTY = 0


class Logs:
    """All logs seen so far. Folds are shared: copy before ``apply``."""

    def __init__(self, new_fold: Callable[[], Fold] = Fold) -> None:
        self._numbers: dict[tuple[int, Facts], int] = {}
        self._parents = [EMPTY]
        self._depths = [0]
        self._last: list[Facts | None] = [None]
        self._folds = [new_fold()]

    def add(self, log: int, facts: Facts) -> int:
        """The log after one more batch. Raises: Corrupt: it cannot follow."""
        key = (log, facts)
        found = self._numbers.get(key)
        if found is not None:
            return found
        fold = self._folds[log].copy()
        fold.apply(facts)
        number = self._numbers[key] = len(self._parents)
        self._parents.append(log)
        self._depths.append(self._depths[log] + 1)
        self._last.append(facts)
        self._folds.append(fold)
        return number

    def fold(self, log: int) -> Fold:
        """Its tables."""
        return self._folds[log]

    def end(self, log: int) -> int:
        """The seq after its last entry."""
        return self._folds[log].next_seq

    def batches(self, log: int) -> list[Facts]:
        """All its batches, in order."""
        found = []
        while log != EMPTY:
            facts = self._last[log]
            assert facts is not None
            found.append(facts)
            log = self._parents[log]
        return found[::-1]

    def shared(self, one: int, other: int) -> int:
        """Their longest common beginning."""
        parents, depths = self._parents, self._depths
        while one != other:
            if depths[one] >= depths[other]:
                one = parents[one]
            else:
                other = parents[other]
        return one

    def towards(self, log: int, goal: int) -> int:
        """The log one batch longer on the way to ``goal``, which begins with ``log``."""
        while self._parents[goal] != log:
            goal = self._parents[goal]
        return goal

    def cut(self, log: int, end: int) -> int:
        """Its beginning that ends at or below the seq ``end``."""
        while self.end(log) > end:
            log = self._parents[log]
        return log
