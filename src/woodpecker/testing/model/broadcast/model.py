"""Two broadcasts that share a resource, two logs, two coordinators of which one may be of yesterday.

Every step of ``streaming/core/broadcasts.py`` is a move of its own, in which a coordinator may be stopped for
ever, or go on after another was elected. What was sent to a log arrives at will, late and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from woodpecker.streaming.core import broadcasts
from woodpecker.streaming.core.broadcasts import Deposed
from woodpecker.streaming.core.records import Counters

KEYS = ("a", "b")
TOMBSTONE = "tombstone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How big the world is. ``is_zombie``: an old coordinator goes on until it finds out."""

    elections: int = 2
    numbers: int = 3
    logs: int = 2
    is_zombie: bool = True

    def __str__(self) -> str:
        old = ", the old one goes on" if self.is_zombie else ""
        return f"{self.elections} elections{old}, {self.logs} logs, {self.numbers} ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Those in force; mutants replace some."""

    fenced: Callable[[Counters, int], Counters] = broadcasts.fenced
    listed: Callable[[Counters, int], Counters] = broadcasts.listed
    floor: Callable[[Counters], int] = broadcasts.floor
    refuses_repeats: bool = True
    refuses_below_floor: bool = True
    rebuilds_locks: bool = True  # what is unfinished is gone on with before anything begins
    buries: bool = True  # a listed id without a record gets a tombstone
    has_keys: bool = True
    unlists_early: bool = False  # before all logs have it


class Task(NamedTuple):
    """One broadcast under way. ``step``: what comes next."""

    key: str
    number: int = 0
    step: str = "list"


class Coordinator(NamedTuple):
    """One coordinator; ``epoch`` 0: it does not lead. ``counters``: as it last saw them."""

    epoch: int = 0
    is_ready: bool = False
    found: tuple[int, ...] = ()  # unfinished ids it has to see to
    task: Task | None = None
    counters: Counters = Counters()


class Log(NamedTuple):
    """One log: ids in their order, and the floor it was told of."""

    numbers: tuple[int, ...] = ()
    floor: int = 0


class World(NamedTuple):
    """All of it. ``records``: by id, from 1: "", "pending", "done" or TOMBSTONE, and the key."""

    epoch: int = 0
    counters: Counters = Counters()
    keys: tuple[int, ...] = (0,) * len(KEYS)
    records: tuple[tuple[str, str], ...] = ()
    logs: tuple[Log, ...] = ()
    sent: frozenset[tuple[int, int, int]] = frozenset()  # id, log, floor
    refused: frozenset[tuple[int, int]] = frozenset()  # id, log: below the floor
    coordinators: tuple[Coordinator, ...] = (Coordinator(), Coordinator())


Step = tuple[str, World]


class BroadcastModel:
    """See the module. ``setup``: how big; ``rules``: those in force."""

    def __init__(self, setup: Setup, rules: Rules = Rules()) -> None:
        self._setup = setup
        self._rules = rules

    # --- as the checker sees it ---

    def starts(self) -> Iterable[World]:
        yield World(
            records=(("", ""),) * (self._setup.numbers + 1), logs=(Log(),) * self._setup.logs
        )

    def canonical(self, state: World) -> World:
        return state

    def tell(self, before: World, move: str, after: World) -> str:
        return move

    def fault(self, state: World) -> str | None:
        for log in state.logs:
            if len(set(log.numbers)) < len(log.numbers):
                return "a broadcast is twice on one target"
            keys = [state.records[number][1] for number in log.numbers]
            if len(set(keys)) < len(keys):
                return "one key is broadcast twice"
        for number, (what, _) in enumerate(state.records):
            if what == "done" and any(number not in log.numbers for log in state.logs):
                return "a broadcast is done, and not on all its targets"
        first, *others = state.logs
        for other in others:
            both = [number for number in first.numbers if number in other.numbers]
            if both != [number for number in other.numbers if number in first.numbers]:
                return "two broadcasts that share a resource differ in their order"
        return None

    def is_good(self, state: World) -> bool:
        """All done, or the ids of this world are used up."""
        if state.counters.next_broadcast > self._setup.numbers:
            begun = [what for what, _ in state.records if what == "pending"]
            return not begun
        done = {key for what, key in state.records if what == "done"}
        return done == set(KEYS) and not state.counters.unfinished

    def moves(self, state: World) -> Iterator[Step]:
        for index, me in enumerate(state.coordinators):
            if not me.epoch:
                if state.epoch < self._setup.elections:
                    yield from self._elected(state, index)
                continue
            if me.epoch < state.epoch:
                yield (
                    f"coordinator {index} is gone",
                    _with(state, index, Coordinator()),
                )
                if not self._setup.is_zombie:
                    continue
            yield from self._works(state, index, me)
        for number, log, floor in sorted(state.sent):
            yield from self._arrives(state, number, log, floor)

    # --- coordinators ---

    def _elected(self, world: World, index: int) -> Iterator[Step]:
        epoch = world.epoch + 1
        after = _with(world._replace(epoch=epoch), index, Coordinator(epoch=epoch))
        yield f"coordinator {index} is elected, epoch {epoch}", after

    def _works(self, world: World, index: int, me: Coordinator) -> Iterator[Step]:
        who = f"coordinator {index}"
        if not me.is_ready:
            yield f"{who} looks for what is unfinished", self._fences(world, index, me)
        elif me.task is not None:
            yield from self._goes_on(world, index, me, me.task)
        else:
            if me.found:
                number = me.found[0]
                yield f"{who} takes {number} over", self._takes_over(world, index, me, number)
            if not me.found or not self._rules.rebuilds_locks:
                for key in KEYS:
                    if self._may_begin(world, key):
                        yield (
                            f"{who} begins {key}",
                            _with(world, index, me._replace(task=Task(key))),
                        )

    def _may_begin(self, world: World, key: str) -> bool:
        number = world.keys[KEYS.index(key)]
        return not number or world.records[number][0] == TOMBSTONE

    def _fences(self, world: World, index: int, me: Coordinator) -> World:
        try:
            counters = self._rules.fenced(world.counters, me.epoch)
        except Deposed:
            return _with(world, index, Coordinator())
        ready = me._replace(is_ready=True, found=counters.unfinished, counters=counters)
        return _with(world._replace(counters=counters), index, ready)

    def _takes_over(self, world: World, index: int, me: Coordinator, number: int) -> World:
        what, key = world.records[number]
        me = me._replace(found=me.found[1:])
        if what == "pending":
            return _with(world, index, me._replace(task=Task(key, number, "send")))
        if not what and self._rules.buries:
            world = _recorded(world, number, TOMBSTONE, key)
        return self._unlists(world, index, me, number)

    def _unlists(self, world: World, index: int, me: Coordinator, number: int) -> World:
        counters = broadcasts.ended(world.counters, number)
        return _with(world._replace(counters=counters), index, me._replace(counters=counters))

    def _goes_on(self, world: World, index: int, me: Coordinator, task: Task) -> Iterator[Step]:
        text = f"coordinator {index}, {task.key} {task.number or ''}: {task.step}"
        match task.step:
            case "list":
                if world.counters.next_broadcast <= self._setup.numbers:
                    yield text, self._lists(world, index, me, task)
            case "key":
                yield text, self._takes_key(world, index, me, task)
            case "record":
                yield text, self._records(world, index, me, task)
            case "send":
                floor = self._rules.floor(me.counters)
                sent = {(task.number, log, floor) for log in range(self._setup.logs)}
                after = me._replace(task=task._replace(step="done"))
                if self._rules.unlists_early:
                    world = self._unlists(world, index, me, task.number)
                    after = world.coordinators[index]._replace(task=after.task)
                yield text, _with(world._replace(sent=world.sent | sent), index, after)
            case "done":
                logs = enumerate(world.logs)
                if all(
                    task.number in log.numbers or (task.number, i) in world.refused
                    for i, log in logs
                ):
                    done = _recorded(world, task.number, "done", task.key)
                    yield text, self._unlists(done, index, me._replace(task=None), task.number)

    def _lists(self, world: World, index: int, me: Coordinator, task: Task) -> World:
        try:
            counters = self._rules.listed(world.counters, me.epoch)
        except Deposed:
            return _with(world, index, Coordinator())
        number = world.counters.next_broadcast
        after = me._replace(counters=counters, task=Task(task.key, number, "key"))
        return _with(world._replace(counters=counters), index, after)

    def _takes_key(self, world: World, index: int, me: Coordinator, task: Task) -> World:
        if not self._rules.has_keys:
            return _with(world, index, me._replace(task=task._replace(step="record")))
        if not self._may_begin(world, task.key):
            return _with(world, index, me._replace(task=None, found=(*me.found, task.number)))
        keys = tuple(
            task.number if key == task.key else number
            for key, number in zip(KEYS, world.keys, strict=True)
        )
        after = me._replace(task=task._replace(step="record"))
        return _with(world._replace(keys=keys), index, after)

    def _records(self, world: World, index: int, me: Coordinator, task: Task) -> World:
        if world.records[task.number][0]:  # a tombstone
            return _with(world, index, me._replace(task=None))
        after = me._replace(task=task._replace(step="send"))
        return _with(_recorded(world, task.number, "pending", task.key), index, after)

    # --- logs ---

    def _arrives(self, world: World, number: int, index: int, floor: int) -> Iterator[Step]:
        log = world.logs[index]
        if self._rules.refuses_below_floor and number < max(log.floor, floor):
            if number not in log.numbers and (number, index) not in world.refused:
                refused = world.refused | {(number, index)}
                yield f"log {index} refuses {number}", world._replace(refused=refused)
            return
        if number in log.numbers and (self._rules.refuses_repeats or log.numbers.count(number) > 1):
            return
        written = Log((*log.numbers, number), max(log.floor, floor))
        logs = tuple(written if i == index else other for i, other in enumerate(world.logs))
        yield f"log {index} has {number}", world._replace(logs=logs)


def _with(world: World, index: int, coordinator: Coordinator) -> World:
    others = enumerate(world.coordinators)
    return world._replace(
        coordinators=tuple(coordinator if i == index else other for i, other in others)
    )


def _recorded(world: World, number: int, what: str, key: str) -> World:
    records = enumerate(world.records)
    return world._replace(
        records=tuple((what, key) if i == number else record for i, record in records)
    )
