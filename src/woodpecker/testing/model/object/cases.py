"""Worlds of kind ``object`` in which the rules hold, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.core import fence_walk as walk
from woodpecker.core import object_append as write
from woodpecker.core.ids import State
from woodpecker.testing.model import cases
from woodpecker.testing.model.object.model import ObjectModel
from woodpecker.testing.model.object.rules import BLOCK, MARK, OWN_MARK, RULES, Setup

Written = tuple[write.Pipeline, tuple[write.Effect, ...]]
Walked = tuple[walk.Walk, walk.Effect]


def _world(setup: Setup, *, is_large: bool = False) -> cases.World:
    return cases.World(name=str(setup), make=partial(ObjectModel, setup), is_large=is_large)


def _mutant(name: str, setup: Setup, review: str = "-", /, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(ObjectModel, setup, changed), review=review)


# --- the writer ---


def exists_means_mine(pipeline: write.Pipeline, event: write.Event) -> Written:
    """Whatever is at my key is mine."""
    if isinstance(event, write.Judged) and event.found is not write.Found.MINE:
        event = replace(event, found=write.Found.MINE, fate=None)
    return write.step(pipeline, event)


def mark_means_not_written(pipeline: write.Pipeline, event: write.Event) -> Written:
    """A mark is taken as proof without a look at the manifest."""
    if isinstance(event, write.Judged) and event.found is write.Found.MARK:
        event = replace(event, fate=write.Fate(state=State.OPEN, mine=False))
    return write.step(pipeline, event)


def own_put_means_fenced(pipeline: write.Pipeline, event: write.Event) -> Written:
    """The writer's own unclear create is taken for a rival's."""
    if isinstance(event, write.Judged) and event.found is write.Found.MINE:
        return replace(pipeline, limit=event.number), (
            write.Fail(first=event.number, until=pipeline.sent, not_written_from=event.number),
        )
    return write.step(pipeline, event)


def acknowledges_out_of_order(pipeline: write.Pipeline, event: write.Event) -> Written:
    """A block is acknowledged although one before it is not stored."""
    if isinstance(event, write.Stored) and event.number >= pipeline.acked:
        done = replace(pipeline, acked=event.number + 1)
        return done, (write.Acknowledge(first=pipeline.acked, until=event.number + 1),)
    return write.step(pipeline, event)


def closes_with_unresolved_puts(pipeline: write.Pipeline) -> int | None:
    """A live close at the acknowledged tail, while a later create has no answer yet."""
    return pipeline.acked or None


def marks_anywhere(pipeline: write.Pipeline, event: write.Event) -> Written:
    if isinstance(event, write.Finish):
        return replace(pipeline, mark=event.number), (write.Create(number=event.number),)
    return write.step(pipeline, event)


# --- takers ---


def walks_over_marks(state: walk.Walk, event: walk.Event) -> Walked:
    """Another opener's mark is "included, go on"."""
    if isinstance(event, walk.Looked) and event.seen is walk.Seen.MARK and not state.ahead:
        return replace(state, at=state.at + 1), walk.Mark(number=state.at + 1)
    return walk.step(state, event)


def marks_nothing(state: walk.Walk, event: walk.Event) -> Walked:
    """The end of the listing is taken as the end, without a mark."""
    if isinstance(event, walk.Listed):
        after, effect = walk.step(state, event)
        return after, walk.Ended(count=effect.number) if isinstance(effect, walk.Mark) else effect
    return walk.step(state, event)


def ends_at_the_mark_ahead(state: walk.Walk, event: walk.Event) -> Walked:
    """The mark that was put ahead is enough; the first hole is not marked."""
    after, effect = walk.step(state, event)
    if after.is_ahead_done and not state.is_ahead_done:
        return after, walk.Ended(count=after.at)
    return after, effect


WORLDS = (
    _world(Setup(blocks=2, takers=1, reads=True, trims=True)),
    _world(Setup(blocks=1, takers=2, reads=True, trims=True)),
    _world(Setup(blocks=2, takers=2)),
    _world(Setup(blocks=2, takers=2, reads=True), is_large=True),
    _world(Setup(blocks=3, takers=1, reads=True), is_large=True),
    _world(Setup(blocks=3, takers=2), is_large=True),
)

ONE = Setup(blocks=1, takers=1)
TWO = Setup(blocks=2, takers=1)
RACE = Setup(blocks=1, takers=2)

MUTANTS = (
    _mutant("whatever exists at my key is mine", ONE, write_step=exists_means_mine),
    _mutant("a mark alone proves NotWritten", RACE, write_step=mark_means_not_written),
    _mutant("the writer's own create is taken for a rival's", ONE, write_step=own_put_means_fenced),
    _mutant("acknowledged out of order", TWO, write_step=acknowledges_out_of_order),
    _mutant("a foreign mark is walked over", RACE, "213 states", walk_step=walks_over_marks),
    _mutant("no mark at the end", ONE, walk_step=marks_nothing),
    _mutant(
        "a mark ahead is enough",
        Setup(blocks=4, takers=1),
        walk_step=ends_at_the_mark_ahead,
    ),
    _mutant("end marks are collected", TWO, collected=BLOCK + OWN_MARK + MARK),
    _mutant("a listed mark is taken for a block", RACE, "6", listed_as_blocks=BLOCK + MARK),
    _mutant(
        "blocks are collected once CLOSED",
        ONE,
        "1,214 states",
        collects_in=(State.CLOSED, State.SEALED),
    ),
    _mutant(
        "a live close leaves a create unresolved",
        replace(TWO, reads=True),
        "115 states",
        end_of_live_close=closes_with_unresolved_puts,
        write_step=marks_anywhere,
    ),
    _mutant(
        "a reader takes a mark for the end",
        replace(RACE, reads=True),
        "14",
        reader_asks_manifest=False,
    ),
)

OBJECT = cases.Part(name="object", worlds=WORLDS, mutants=MUTANTS)
