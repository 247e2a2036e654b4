"""Kind ``object`` as a model: a writer with several creates under way, takers, sealing, collection.

The functions of ``core/object_append.py`` and ``core/fence_walk.py`` run here; the world around them is a
row of keys, creates that land late, twice or never, and a manifest. A writer that is stopped for ever is
one that makes no move, while everything else goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from woodpecker.core import fence_walk as walk
from woodpecker.core import object_append as write
from woodpecker.core.ids import State
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.model.object.rules import (
    BLOCK,
    FREE,
    MARK,
    OWN_MARK,
    RULES,
    Create,
    Judging,
    Rules,
    Setup,
    Taker,
    World,
    put,
)

Step = tuple[str, World]  # a move in words, and the world after it


class ObjectModel:
    """See the module. ``setup``: how big; ``rules``: those in force."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        self._setup = setup
        self._rules = rules
        self._write = cache(rules.write_step)
        self._walk = cache(rules.walk_step)

    # --- as the checker sees it ---

    def starts(self) -> Iterable[World]:
        yield World(takers=(Taker(),) * self._setup.takers)

    def canonical(self, state: World) -> World:
        return state

    def tell(self, before: World, move: str, after: World) -> str:
        return move

    def moves(self, state: World) -> Iterator[Step]:
        yield from self._writer(state)
        yield from self._network(state)
        yield from self._judges(state)
        for index, taker in enumerate(state.takers):
            yield from self._taker(state, index, taker)
            if taker.phase == "idle":
                break  # they are alike: let them begin in order
        yield from self._background(state)
        if self._setup.reads:
            yield from self._reader(state)

    def fault(self, state: World) -> str | None:
        count = state.length
        if count is None:
            if state.state is None and (state.acked or state.shown):
                return "acknowledged or shown blocks of a segment that was dropped as empty"
            return None
        lost = max(state.acked, state.shown)
        if lost > count:
            what = "acknowledged" if lost == state.acked else "shown to a reader"
            return f"{lost} blocks were {what}, the log has {count}"
        if state.proven is not None and state.proven < count:
            return f"block {state.proven} was reported NotWritten and is in the log"
        if state.ended_at is not None and state.ended_at < count:
            return f"a reader took {state.ended_at} blocks for all, the log has {count}"
        kept = state.store[:count]
        if state.state is State.CLOSED and kept != BLOCK * count:
            return f"the segment is not sealed and its blocks are {kept!r}"
        return None

    # --- the writer ---

    def _writer(self, world: World) -> Iterator[Step]:
        pipeline = world.pipeline
        if not pipeline.failed and pipeline.mark is None:
            if pipeline.sent < self._setup.blocks:
                yield (
                    f"the writer sends block {pipeline.sent}",
                    self._written(world, write.Submit(number=pipeline.sent)),
                )
            end = self._rules.end_of_live_close(pipeline)
            if end is not None:
                yield (
                    f"the writer closes: it sends its end mark at {end}",
                    self._written(world, write.Finish(number=end)),
                )
        if world.is_marked and world.owner == 0 and world.state is State.OPEN:
            yield (
                f"the CAS of the live close lands: {pipeline.mark} blocks",
                world._replace(state=State.CLOSED, length=pipeline.mark),
            )

    def _written(self, world: World, event: write.Event) -> World:
        pipeline, effects = self._write(world.pipeline, event)
        world = world._replace(pipeline=pipeline)
        for effect in effects:
            match effect:
                case write.Create(number=number):
                    world = world._replace(creates=world.creates | {Create(number, "sent")})
                case write.Judge(number=number):
                    world = world._replace(judging=world.judging | {Judging(number)})
                case write.Acknowledge(first=first, until=until):
                    if first != world.acked:
                        raise Broken(f"block {first} is acknowledged after {world.acked}")
                    world = world._replace(acked=until)
                case write.Marked():
                    world = world._replace(is_marked=True)
                case write.Fail(not_written_from=proven) if proven is not None:
                    known = proven if world.proven is None else min(proven, world.proven)
                    world = world._replace(proven=known)
        return world

    def _network(self, world: World) -> Iterator[Step]:
        for message in sorted(world.creates):
            number, state = message
            rest = world._replace(creates=world.creates - {message})
            if state in ("sent", "late"):
                yield from self._landings(rest, number, state)
            else:
                if state == "ok":
                    yield (
                        f"the writer hears that {number} is written",
                        self._written(rest, write.Stored(number=number)),
                    )
                yield (
                    f"the answer to create {number} is lost or says 'exists'",
                    self._written(rest, write.Unclear(number=number)),
                )

    def _landings(self, rest: World, number: int, state: str) -> Iterator[Step]:
        mine = OWN_MARK if number == rest.pipeline.mark else BLOCK
        is_free = rest.store[number] == FREE
        landed = put(rest.store, number, mine) if is_free else rest.store
        if state == "late":
            yield f"the late create {number} lands", rest._replace(store=landed)
            return
        answer = Create(number, "ok" if is_free else "exists")
        yield (
            f"create {number} lands",
            rest._replace(store=landed, creates=rest.creates | {answer}),
        )
        given_up = rest._replace(creates=rest.creates | {Create(number, "late")})
        yield (
            f"the writer waits no longer for create {number}",
            self._written(given_up, write.Unclear(number=number)),
        )

    def _judges(self, world: World) -> Iterator[Step]:
        for item in sorted(world.judging, key=str):
            rest = world._replace(judging=world.judging - {item})
            number, found = item
            if found is None:
                seen = _seen_by_writer(world, number)
                yield (
                    f"the writer reads key {number}: {seen}",
                    rest._replace(judging=rest.judging | {Judging(number, seen)}),
                )
            else:
                fate = None if found is write.Found.MINE else _fate(world)
                event = write.Judged(number=number, found=found, fate=fate)
                yield f"the writer judges block {number}", self._written(rest, event)

    # --- takers ---

    def _taker(self, world: World, index: int, taker: Taker) -> Iterator[Step]:
        me, name = index + 1, "AB"[index]
        match taker.phase:
            case "idle" if world.state is State.OPEN:
                after = taker._replace(phase="list")
                yield f"taker {name} raises the epoch", _with(world, index, after, owner=me)
            case "list":
                blocks = _numbers(world.store, self._rules.listed_as_blocks)
                marks = _numbers(world.store, OWN_MARK + MARK) - blocks
                listed = walk.Listed(blocks=blocks, marks=marks)
                yield (
                    f"taker {name} lists {len(blocks)} blocks, {len(marks)} marks",
                    self._walked(world, index, listed),
                )
            case "walk":
                yield from self._walks(world, index, taker, name)
            case "close":
                assert isinstance(taker.effect, walk.Ended)
                if world.owner == me and world.state is State.OPEN:
                    count = taker.effect.count
                    state = State.CLOSED if count else None
                    done = taker._replace(phase="done")
                    kept = count or None
                    yield (
                        f"the CAS of taker {name} lands: {count} blocks",
                        _with(world, index, done, state=state, length=kept),
                    )

    def _walks(self, world: World, index: int, taker: Taker, name: str) -> Iterator[Step]:
        effect = taker.effect
        assert isinstance(effect, walk.Mark | walk.Look)
        number, value = effect.number, world.store[effect.number]
        if isinstance(effect, walk.Mark) and value == FREE:
            landed = world._replace(store=put(world.store, number, MARK))
            yield (
                f"taker {name} creates a mark at {number}",
                self._walked(landed, index, walk.Created()),
            )
            looked = walk.Looked(seen=walk.Seen.MARK)
            yield (
                f"taker {name} creates a mark at {number}, loses the answer and looks",
                self._walked(landed, index, looked),
            )
        else:
            seen = {FREE: walk.Seen.NOTHING, BLOCK: walk.Seen.BLOCK}.get(value, walk.Seen.MARK)
            yield (
                f"taker {name} finds at {number}: {seen}",
                self._walked(world, index, walk.Looked(seen=seen)),
            )

    def _walked(self, world: World, index: int, event: walk.Event) -> World:
        state, effect = self._walk(world.takers[index].state, event)
        phase = "close" if isinstance(effect, walk.Ended) else "walk"
        return _with(world, index, Taker(phase, state, effect))

    # --- sealing, collection, reading ---

    def _background(self, world: World) -> Iterator[Step]:
        if world.state is State.CLOSED and not world.is_collected:
            yield "the segment is sealed", world._replace(state=State.SEALED)
        if world.state in self._rules.collects_in and not world.is_collected:
            kept = (FREE if value in self._rules.collected else value for value in world.store)
            yield "its blocks are collected", world._replace(store="".join(kept), is_collected=True)
        if self._setup.trims and world.state is State.SEALED and world.is_collected:
            yield "it is trimmed away", world._replace(state=None)

    def _reader(self, world: World) -> Iterator[Step]:
        """It saw the segment OPEN once, and reads keys from 0 on."""
        prefix = len(world.store) - len(world.store.lstrip(BLOCK))
        if prefix > world.shown:
            yield f"the reader is shown {prefix} blocks", world._replace(shown=prefix)
        is_at_mark = world.store[prefix] in (OWN_MARK, MARK)
        if is_at_mark and not self._rules.reader_asks_manifest and world.ended_at is None:
            yield f"the reader meets a mark at {prefix}", world._replace(ended_at=prefix)


def _with(world: World, index: int, taker: Taker, **changes: object) -> World:
    takers = (*world.takers[:index], taker, *world.takers[index + 1 :])
    return world._replace(takers=takers, **changes)  # type: ignore[arg-type]


def _numbers(store: str, values: str) -> frozenset[int]:
    return frozenset(number for number, value in enumerate(store) if value in values)


def _seen_by_writer(world: World, number: int) -> write.Found:
    value = world.store[number]
    if value == FREE:
        return write.Found.NOTHING
    if value == MARK:
        return write.Found.MARK
    is_mine = (value == OWN_MARK) == (number == world.pipeline.mark)
    return write.Found.MINE if is_mine else write.Found.FOREIGN


def _fate(world: World) -> write.Fate:
    if world.state is None:
        return write.Fate(state=None, mine=False)
    end = None if world.length is None else world.length - 1
    return write.Fate(state=world.state, mine=world.owner == 0, end_block=end)
