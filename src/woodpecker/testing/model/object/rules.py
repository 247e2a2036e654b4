"""What the model of kind ``object`` is made of: the rules under test, how big the world is, its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from woodpecker.core import fence_walk as walk
from woodpecker.core import object_append as write
from woodpecker.core.ids import State

KEYS = 2 * walk.AHEAD  # marks may be put ahead
FREE, BLOCK, OWN_MARK, MARK = ".", "b", "w", "m"
"""What lies at a key: nothing, a block, the end mark of the writer, of a taker."""


def _drained(pipeline: write.Pipeline) -> int | None:
    return pipeline.sent if 0 < pipeline.sent == pipeline.acked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Each rule that the model can be run without. A mutant replaces one."""

    write_step: Callable[
        [write.Pipeline, write.Event], tuple[write.Pipeline, tuple[write.Effect, ...]]
    ] = write.step
    walk_step: Callable[[walk.Walk, walk.Event], tuple[walk.Walk, walk.Effect]] = walk.step
    # how many blocks a live close may end at (None: not yet)
    end_of_live_close: Callable[[write.Pipeline], int | None] = _drained
    # what the collector deletes, and once the segment is in which state
    collected: str = BLOCK
    collects_in: tuple[State, ...] = (State.SEALED,)
    # what a listing takes for blocks
    listed_as_blocks: str = BLOCK
    # whether a reader that meets a mark looks at the manifest before it calls that the end
    reader_asks_manifest: bool = True


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How big the world is, and what may happen in it."""

    blocks: int = 2
    takers: int = 2
    reads: bool = False  # a reader that holds an old view, in which the segment is OPEN
    trims: bool = False  # the sealed segment may be trimmed away

    def __str__(self) -> str:
        parts = [_count(self.blocks, "block"), _count(self.takers, "taker")]
        parts += ["a reader with an old view"] if self.reads else []
        parts += ["trimming"] if self.trims else []
        return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class Taker(NamedTuple):
    """phase: idle, list, walk, close, done."""

    phase: str = "idle"
    state: walk.Walk = walk.Walk()
    effect: walk.Effect | None = None


class Create(NamedTuple):
    """A create under way: ``sent``, answered ``ok`` or ``exists``; ``late``: given up, may still land."""

    number: int
    state: str


class Judging(NamedTuple):
    """An unclear create is judged: what lay at its key, once that was read."""

    number: int
    found: write.Found | None = None


class World(NamedTuple):
    """Everything. Owner 0 is the writer, then the takers."""

    takers: tuple[Taker, ...]
    store: str = FREE * KEYS
    pipeline: write.Pipeline = write.Pipeline()
    creates: frozenset[Create] = frozenset()
    judging: frozenset[Judging] = frozenset()
    acked: int = 0
    proven: int | None = None  # blocks from here on were reported NotWritten
    is_marked: bool = False  # the writer knows that its end mark stands
    owner: int = 0
    state: State | None = State.OPEN
    length: int | None = None  # blocks up to E, once closed
    is_collected: bool = False
    shown: int = 0  # blocks that the reader was shown
    ended_at: int | None = None  # where the reader called it the end


def put(store: str, number: int, value: str) -> str:
    """The store with ``value`` at a key."""
    return store[:number] + value + store[number + 1 :]
