"""A reader that changes between the log and the tail buffer, while batches come and are evicted.

Readers of the log see a batch only once a later one was published with the news (``visible``), as it is
when nothing follows for a long time. Part "stream-tail".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

from woodpecker.streaming.core.facts import Facts, Null, StreamColumn
from woodpecker.streaming.core.tail_buffer import TailBuffer
from woodpecker.testing.model import cases
from woodpecker.testing.model.checker import Broken

COLUMN = StreamColumn(term=1, limit=1 << 40, low=0, body=Null())
CATCH_UP = -1


class State(NamedTuple):
    """Batches are one entry each."""

    next: int  # acknowledged end
    visible: int  # what readers of the log are guaranteed to see
    first: int  # of the buffer
    reader: int  # its next seq
    slot: int  # that it reads next, or CATCH_UP
    checked: bool = False  # it may attach (mutant: in a second step)


@lru_cache(maxsize=4096)
def buffer_of(first: int, next_: int) -> TailBuffer[int]:
    """The buffer after ``next_`` batches of which those below ``first`` were evicted."""
    buffer = TailBuffer[int](0)
    for seq in range(next_):
        buffer.append(Facts(seq=seq, count=1, tick=seq, column=COLUMN), seq, 1)
    buffer.evict(visible=first, excess_bytes=first)
    return buffer


def attach(buffer: TailBuffer[int], seq: int) -> int | None:
    """The rule."""
    return buffer.attach(seq)


def attach_one_below(buffer: TailBuffer[int], seq: int) -> int | None:
    """Mutant: one below the first is near enough."""
    return buffer.attach(max(seq, buffer.first) if seq == buffer.first - 1 else seq)


def evict(buffer: TailBuffer[int], visible: int) -> int:
    """The rule."""
    return buffer.evict(visible=visible, excess_bytes=1)


def evict_anything(buffer: TailBuffer[int], _visible: int) -> int:
    """Mutant: what is acknowledged may go."""
    return buffer.evict(visible=buffer.next, excess_bytes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a mutant may replace."""

    attach: Callable[[TailBuffer[int], int], int | None] = attach
    evict: Callable[[TailBuffer[int], int], int] = evict
    in_one_step: bool = True


RULES = Rules()


class TailModel:
    """A reader of ``batches`` batches."""

    def __init__(self, batches: int, rules: Rules = RULES) -> None:
        self.batches = batches
        self.rules = rules

    def starts(self) -> list[State]:
        return [State(0, 0, 0, 0, CATCH_UP)]

    def canonical(self, state: State) -> State:
        return state

    def fault(self, state: State) -> str | None:
        return None

    def tell(self, before: State, move: Any, after: State) -> str:
        return f"{move}   [buffer {after.first} to {after.next}, visible {after.visible}]"

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        buffer = buffer_of(state.first, state.next)
        if state.next < self.batches:
            after = state._replace(next=state.next + 1, visible=state.next)
            yield "a batch is acknowledged", after
        fresh = buffer_of.__wrapped__(state.first, state.next)
        if self.rules.evict(fresh, state.visible):
            yield "the oldest batch is evicted", state._replace(first=fresh.first)
        if state.slot == CATCH_UP:
            yield from self._catches_up(state, buffer)
        else:
            yield from self._reads(state, buffer)

    def _catches_up(self, state: State, buffer: TailBuffer[int]) -> Iterator[tuple[str, State]]:
        if state.reader < state.visible:
            yield "the reader reads the log", state._replace(reader=state.reader + 1, checked=False)
        number = self.rules.attach(buffer, state.reader)
        if self.rules.in_one_step:
            if number is not None:
                yield "the reader attaches", state._replace(slot=number)
        elif state.checked:
            slot = max(buffer.first, state.reader)
            yield "the reader attaches", state._replace(slot=slot, checked=False)
        elif number is not None:
            yield "the reader sees that it may attach", state._replace(checked=True)

    def _reads(self, state: State, buffer: TailBuffer[int]) -> Iterator[tuple[str, State]]:
        try:
            slot = buffer.read(state.slot)
        except KeyError:
            yield "the reader has fallen behind", state._replace(slot=CATCH_UP)
            return
        if slot is None:
            return
        if slot.content != state.reader:
            raise Broken(
                f"S7: the reader gets batch {slot.content} where {state.reader} must follow",
                move="the reader reads the buffer",
            )
        after = state._replace(reader=state.reader + 1, slot=slot.number + 1)
        yield "the reader reads the buffer", after


def has_all(model: TailModel, state: State) -> bool:
    """The reader has seen every batch."""
    return state.reader == model.batches


def _mutant(name: str, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(TailModel, 4, changed), goal=has_all)


TAIL = cases.Part(
    name="stream-tail",
    worlds=(cases.World(name="8 batches", make=partial(TailModel, 8), goal=has_all),),
    mutants=(
        _mutant("evict above what readers of the log see", evict=evict_anything),
        _mutant("attach one below the first", attach=attach_one_below),
        _mutant("check and attach in two steps", in_one_step=False),
    ),
)
