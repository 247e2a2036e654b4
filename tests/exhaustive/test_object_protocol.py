"""Kind object, every interleaving: a writer with several creates under way, two takers, sealing, GC.

The very functions of ``core/object_append.py`` and ``core/fence_walk.py`` run here; the world around
them is a dict of keys, messages that land late, twice or never, and a manifest. Breadth first, so that
a counter-example is as short as can be. Each mutant leaves one rule out and must be caught.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from woodpecker.core import fence_walk as walk
from woodpecker.core import object_append as write
from woodpecker.core.ids import State

OPEN, CLOSED, SEALED = State.OPEN, State.CLOSED, State.SEALED
NO_WALK, NO_PIPELINE = walk.Walk(), write.Pipeline()
KEYS = 22  # marks may be put ahead: at + 16


@dataclass(frozen=True, slots=True)
class Taker:
    """phase: idle, list, walk, close, done."""

    phase: str = "idle"
    state: walk.Walk = NO_WALK
    effect: walk.Effect | None = None


@dataclass(frozen=True, slots=True)
class World:
    store: tuple[str, ...] = ("",) * KEYS  # "", "b" (block), "m0".."m2" (mark of writer or taker)
    pipeline: write.Pipeline = NO_PIPELINE
    creates: frozenset[tuple[int, str]] = frozenset()  # (number, "sent" | "ok" | "exists" | "late")
    judging: frozenset[tuple[int, write.Found | None]] = frozenset()
    acked: int = 0
    proven: int | None = None  # blocks from here on were reported NotWritten
    marked: bool = False
    owner: int = 0
    state: State | None = OPEN
    count: int | None = None  # blocks up to E, once closed
    cleaned: bool = False
    takers: tuple[Taker, ...] = (Taker(), Taker())


@dataclass(frozen=True, slots=True)
class Rules:
    """What a mutant changes."""

    blocks: int = 2
    write_step: Callable[..., tuple[write.Pipeline, tuple[write.Effect, ...]]] = write.step
    walk_step: Callable[..., tuple[walk.Walk, walk.Effect]] = walk.step
    gc_deletes_marks: bool = False
    reads_manifest_first: bool = False
    takes_listed_marks_for_blocks: bool = False
    is_trim_allowed: bool = False


def put(store: tuple[str, ...], number: int, value: str) -> tuple[str, ...]:
    return (*store[:number], value, *store[number + 1 :])


def advance(world: World, rules: Rules, event: write.Event) -> World:
    pipeline, effects = rules.write_step(world.pipeline, event)
    world = replace(world, pipeline=pipeline)
    for effect in effects:
        match effect:
            case write.Create(number=number):
                world = replace(world, creates=world.creates | {(number, "sent")})
            case write.Judge(number=number):
                world = replace(world, judging=world.judging | {(number, None)})
            case write.Acknowledge(first=first, until=until):
                assert first == world.acked, "acknowledged out of order"
                world = replace(world, acked=until)
            case write.Marked():
                world = replace(world, marked=True)
            case write.Fail(not_written_from=proven) if proven is not None:
                known = proven if world.proven is None else min(proven, world.proven)
                world = replace(world, proven=known)
    return world


def writer_moves(world: World, rules: Rules) -> Iterator[World]:
    pipeline = world.pipeline
    if not pipeline.failed and pipeline.mark is None:
        if pipeline.sent < rules.blocks:
            yield advance(world, rules, write.Submit(number=pipeline.sent))
        if pipeline.sent and pipeline.sent == pipeline.acked:
            yield advance(world, rules, write.Finish(number=pipeline.sent))
    if world.marked and world.owner == 0 and world.state is OPEN:
        yield replace(world, state=CLOSED, count=pipeline.mark)


def network_moves(world: World, rules: Rules) -> Iterator[World]:
    for message in sorted(world.creates):
        number, state = message
        rest = world.creates - {message}
        if state in ("sent", "late"):
            mine = "m0" if number == world.pipeline.mark else "b"
            is_free = world.store[number] == ""
            landed = put(world.store, number, mine) if is_free else world.store
            answer = "ok" if is_free else "exists"
            kept = rest | {(number, answer)} if state == "sent" else rest
            yield replace(world, store=landed, creates=kept)
            if state == "late":
                yield replace(world, creates=rest)  # never arrives
            else:  # given up, but it may still land
                gone = replace(world, creates=rest | {(number, "late")})
                yield advance(gone, rules, write.Unclear(number=number))
        else:
            delivered = replace(world, creates=rest)
            if state == "ok":
                yield advance(delivered, rules, write.Stored(number=number))
            yield advance(delivered, rules, write.Unclear(number=number))


def fate(world: World) -> write.Fate:
    end = None if world.count is None else world.count - 1
    if world.state is None:
        return write.Fate(state=None, mine=False)
    return write.Fate(state=world.state, mine=world.owner == 0, end_block=end)


def judge_moves(world: World, rules: Rules) -> Iterator[World]:
    for item in sorted(world.judging, key=str):
        number, found = item
        rest = replace(world, judging=world.judging - {item})
        if found is None:
            seen = look(world, number)
            yield replace(rest, judging=rest.judging | {(number, seen)})
        else:
            known = None if found is write.Found.MINE else fate(world)
            yield advance(rest, rules, write.Judged(number=number, found=found, fate=known))


def look(world: World, number: int) -> write.Found:
    value = world.store[number]
    if value == "":
        return write.Found.NOTHING
    if value in ("b", "m0"):
        is_mine = (value == "m0") == (number == world.pipeline.mark)
        return write.Found.MINE if is_mine else write.Found.FOREIGN
    return write.Found.MARK


def taker_moves(world: World, rules: Rules) -> Iterator[World]:
    for index, taker in enumerate(world.takers):
        for changed, after in taker_steps(world, rules, index, taker):
            takers = (*world.takers[:index], changed, *world.takers[index + 1 :])
            yield replace(after, takers=takers)


def taker_steps(
    world: World, rules: Rules, index: int, taker: Taker
) -> Iterator[tuple[Taker, World]]:
    me = index + 1
    match taker.phase:
        case "idle":
            if world.state is OPEN:
                yield replace(taker, phase="list"), replace(world, owner=me)
        case "list":
            is_block = "bm" if rules.takes_listed_marks_for_blocks else "b"
            blocks = {n for n, v in enumerate(world.store) if v[:1] and v[:1] in is_block}
            marks = {n for n, v in enumerate(world.store) if v.startswith("m")} - blocks
            listed = walk.Listed(blocks=frozenset(blocks), marks=frozenset(marks))
            yield stepped(rules, taker, listed), world
        case "walk":
            yield from walk_steps(world, rules, me, taker)
        case "close":
            assert isinstance(taker.effect, walk.Ended)
            if world.owner == me and world.state is OPEN:
                count = taker.effect.count
                state = CLOSED if count else None
                yield replace(taker, phase="done"), replace(world, state=state, count=count)


def stepped(rules: Rules, taker: Taker, event: walk.Event) -> Taker:
    state, effect = rules.walk_step(taker.state, event)
    phase = "close" if isinstance(effect, walk.Ended) else "walk"
    return Taker(phase=phase, state=state, effect=effect)


def walk_steps(world: World, rules: Rules, me: int, taker: Taker) -> Iterator[tuple[Taker, World]]:
    effect = taker.effect
    assert isinstance(effect, walk.Mark | walk.Look)
    value = world.store[effect.number]
    if isinstance(effect, walk.Mark) and value == "":
        landed = replace(world, store=put(world.store, effect.number, f"m{me}"))
        yield stepped(rules, taker, walk.Created()), landed
        yield stepped(rules, taker, walk.Looked(seen=walk.Seen.MARK)), landed  # answer lost
    else:
        seen = {"": walk.Seen.NOTHING, "b": walk.Seen.BLOCK}.get(value, walk.Seen.MARK)
        yield stepped(rules, taker, walk.Looked(seen=seen)), world


def background_moves(world: World, rules: Rules) -> Iterator[World]:
    if world.state is CLOSED:
        yield replace(world, state=SEALED)
    if world.state is SEALED and not world.cleaned:
        doomed = "bm" if rules.gc_deletes_marks else "b"
        store = tuple("" if v[:1] and v[:1] in doomed else v for v in world.store)
        yield replace(world, store=store, cleaned=True)
    if rules.is_trim_allowed and world.state is SEALED and world.cleaned:
        yield replace(world, state=None)


def moves(world: World, rules: Rules) -> Iterator[World]:
    yield from writer_moves(world, rules)
    yield from network_moves(world, rules)
    yield from judge_moves(world, rules)
    yield from taker_moves(world, rules)
    yield from background_moves(world, rules)


def fault(world: World) -> str | None:
    """First broken invariant."""
    if world.count is not None and world.acked > world.count:
        return f"acknowledged {world.acked} blocks, the log has {world.count}"
    if world.count is None and world.state is None and world.acked:
        return "acknowledged blocks of a segment that was dropped as empty"
    if world.proven is not None and world.count is not None and world.proven < world.count:
        return f"block {world.proven} was reported NotWritten and is in the log"
    if world.count and not world.cleaned and "" in world.store[: world.count]:
        return "a hole in the log"
    if world.count and not world.cleaned and any(v != "b" for v in world.store[: world.count]):
        return "a mark in the middle of the log"
    return None


def explore(rules: Rules, limit: int) -> tuple[int, str | None]:
    """(states seen, first fault with its depth); at most ``limit`` states."""
    start = World()
    seen = {start}
    queue = deque([(start, 0)])
    while queue and len(seen) < limit:
        world, depth = queue.popleft()
        for after in moves(world, rules):
            if after in seen:
                continue
            seen.add(after)
            broken = fault(after)
            if broken:
                return len(seen), f"{broken} (depth {depth + 1})"
            queue.append((after, depth + 1))
    return len(seen), None


def test_the_rules_hold_in_every_interleaving() -> None:
    states, broken = explore(Rules(blocks=2), limit=120_000)
    assert broken is None
    assert states > 20_000  # it really explored


def test_the_rules_hold_with_trimming() -> None:
    _, broken = explore(Rules(blocks=1, is_trim_allowed=True), limit=120_000)
    assert broken is None


def exists_means_mine(pipeline: write.Pipeline, event: write.Event) -> object:
    if isinstance(event, write.Judged) and event.found is not write.Found.MINE:
        event = replace(event, found=write.Found.MINE, fate=None)
    return write.step(pipeline, event)


def mark_means_fenced(pipeline: write.Pipeline, event: write.Event) -> object:
    """A mark is taken as proof without reading the manifest."""
    if isinstance(event, write.Judged) and event.found is write.Found.MARK:
        event = replace(event, fate=write.Fate(state=OPEN, mine=False))
    return write.step(pipeline, event)


def out_of_order(pipeline: write.Pipeline, event: write.Event) -> object:
    if isinstance(event, write.Stored) and event.number >= pipeline.acked:
        done = replace(pipeline, acked=event.number + 1)
        return done, (write.Acknowledge(first=pipeline.acked, until=event.number + 1),)
    return write.step(pipeline, event)


def walks_over_marks(state: walk.Walk, event: walk.Event) -> object:
    """Another opener's mark is "included, go on"."""
    if isinstance(event, walk.Looked) and event.seen is walk.Seen.MARK:
        return replace(state, at=state.at + 1), walk.Mark(number=state.at + 1)
    return walk.step(state, event)


def marks_nothing(state: walk.Walk, event: walk.Event) -> object:
    """The end of the listing is taken as the end, without a mark."""
    if isinstance(event, walk.Listed):
        after, effect = walk.step(state, event)
        return after, walk.Ended(count=effect.number) if isinstance(effect, walk.Mark) else effect
    return walk.step(state, event)


MUTANTS = {
    "whatever exists at my key is mine": Rules(write_step=exists_means_mine),  # type: ignore[arg-type]
    "a mark alone proves NotWritten": Rules(write_step=mark_means_fenced),  # type: ignore[arg-type]
    "acknowledged out of order": Rules(write_step=out_of_order),  # type: ignore[arg-type]
    "a foreign mark is walked over": Rules(walk_step=walks_over_marks),  # type: ignore[arg-type]
    "no mark at the end": Rules(walk_step=marks_nothing),  # type: ignore[arg-type]
    "GC deletes end marks": Rules(gc_deletes_marks=True),
    "a listed mark is taken for a block": Rules(takes_listed_marks_for_blocks=True),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_left_out_is_caught(name: str) -> None:
    try:
        _, broken = explore(MUTANTS[name], limit=120_000)
    except AssertionError as error:
        broken = str(error)
    assert broken is not None, f"{name}: not caught"
