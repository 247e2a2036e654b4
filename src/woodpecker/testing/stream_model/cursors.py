"""A cursor with holders that replace one another, checkpoints, and trims of the log under both.

The log is one story with a transaction; it becomes sequenced, durable and acknowledged batch by batch, and
an owner that dies takes what was not durable with it. Part "stream-cursors".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from woodpecker.streaming.core.acks import Acks, Range
from woodpecker.streaming.core.admission import facts_of
from woodpecker.streaming.core.assembly import Assembly
from woodpecker.streaming.core.cursors import CursorRecord, attached, committed
from woodpecker.streaming.core.facts import Body, Create, Data, Facts, Term
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.records import CheckpointRef, CheckpointsRecord
from woodpecker.streaming.core.refusals import Refusal
from woodpecker.streaming.core.retention import trim_point
from woodpecker.streaming.core.values import ANYTHING, Position
from woodpecker.testing.model import cases
from woodpecker.testing.model.checker import Broken

FOREVER = 1 << 40
START = Position(0, low=0)


def _story() -> list[Facts]:
    """Begin (2), plain (3), commit (4), plain (5): messages at (3, 0), (4, 0), (4, 1), (5, 0)."""
    plain = Data(producer="p", epoch=0, sequence=0)
    begin = Data(producer="a", epoch=0, sequence=0, txn=2, number=0, begin=True)
    commit = replace(begin, sequence=1, begin=False, commit=True, entries=2)
    bodies: list[tuple[Body, int]] = [
        (Term(incarnation="i"), 0),
        (Create(name="ch"), 1),
        (begin, 1),
        (plain, 1),
        (commit, 1),
        (replace(plain, sequence=1), 1),
    ]
    fold, story = Fold(), []
    for tick, (body, vcid) in enumerate(bodies):
        facts = facts_of(fold, body, tick=tick, limit=FOREVER, vcid=vcid)
        fold.apply(facts)
        story.append(facts)
    return story


STORY = _story()
LOWS = [facts.column.low for facts in STORY] + [len(STORY)]  # of the place before each batch


def delivered_from(start: Position, read_from: int, end: int) -> tuple[list[Position], Position]:
    """Messages that a reader gets, and where it stands, of the log below ``end`` from ``read_from`` on."""
    assembly = Assembly[None](1, start=start, read_from=read_from, assembly_bytes=0)
    found: list[Position] = []
    for facts in STORY[read_from:end]:
        delivery = assembly.feed(facts, None)
        if delivery is not None:
            found += [delivery.position(at) for at in range(delivery.skip, delivery.count)]
    return found, assembly.next


WHOLE = delivered_from(START, 0, len(STORY))[0]


def _checkpoint(seq: int) -> CheckpointRef:
    return CheckpointRef(seq=seq, low=LOWS[seq], object="", digest="", size=0, term=1)


class Holder(NamedTuple):
    """One attach of the subscription: what it started from, how many messages it got, which it did."""

    generation: int
    start: Position
    ranges: tuple[Range, ...]
    got: int = 0
    acked: int = 0  # bits, by place in what it gets


class State(NamedTuple):
    """Everything."""

    sequenced: int
    durable: int
    acknowledged: int
    checkpoints: CheckpointsRecord
    record: CursorRecord | None
    trimmed: int
    holders: tuple[Holder | None, ...]
    done: int  # bits of WHOLE: acknowledged since the last reset
    crashes: int
    resets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a mutant may replace."""

    low: Callable[[CursorRecord], int] = lambda record: record.low
    trim_point: Callable[..., int] = trim_point
    fences: bool = True
    checkpoints_acked: bool = True
    progress: bool = True


RULES = Rules()


def to_the_newer(checkpoints: CheckpointsRecord, **more: Any) -> int:
    """Mutant: the newest checkpoint is enough."""
    newest = checkpoints.checkpoints[:1]
    return trim_point(CheckpointsRecord(checkpoints=newest * 2), **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A world."""

    holders: int = 2
    crashes: int = 0
    resets: int = 0
    filtered: bool = False  # the filter lets nothing pass
    is_whole: bool = False  # the log and two checkpoints are there from the beginning

    def __str__(self) -> str:
        return (
            f"{self.holders} holders, {self.crashes} crashes, {self.resets} resets"
            f"{', nothing passes the filter' * self.filtered}"
            f"{', the whole log at once' * self.is_whole}"
        )


class CursorModel:
    """A world of ``setup`` under ``rules``."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        self.setup = setup
        self.rules = rules

    def starts(self) -> list[State]:
        at = len(STORY) if self.setup.is_whole else 2
        kept = tuple(_checkpoint(seq) for seq in (at, at - 1)) if self.setup.is_whole else ()
        return [
            State(
                sequenced=at,
                durable=at,
                acknowledged=at,
                checkpoints=CheckpointsRecord(checkpoints=kept),
                record=None,
                trimmed=0,
                holders=(None,) * self.setup.holders,
                done=0,
                crashes=self.setup.crashes,
                resets=self.setup.resets,
            )
        ]

    def canonical(self, state: State) -> State:
        return state

    def tell(self, before: State, move: Any, after: State) -> str:
        record = after.record
        place = "none" if record is None else f"{record.done.seq}, {record.done.index}"
        return f"{' '.join(map(str, move))}   [cursor {place}, trimmed {after.trimmed}]"

    # ------------------------------------------------------------------------------------ rules

    def fault(self, state: State) -> str | None:
        readable = [one for one in state.checkpoints.checkpoints if one.seq >= state.trimmed]
        older = state.checkpoints.checkpoints[1:2]
        if state.trimmed and (not older or older[0].seq < state.trimmed):
            return (
                "S9: the newest checkpoint turns out unreadable, and no other one reaches the log"
            )
        if any(one.seq > state.durable for one in readable) and state.sequenced == state.durable:
            return "S8: a checkpoint holds what is not in the log of the next owner"
        record = state.record
        if record is None:
            return None
        if record.low < state.trimmed or record.done.seq < state.trimmed:
            return (
                f"S9: the log is trimmed to {state.trimmed}, the cursor needs it from {record.low}"
            )
        return self._resumed(state, record)

    def _resumed(self, state: State, record: CursorRecord) -> str | None:
        """Everything that nobody has acknowledged comes again."""
        if self.setup.filtered:
            return None
        acks = Acks(done=record.done, ranges=record.ranges)
        again, _ = delivered_from(record.done, max(record.low, state.trimmed), len(STORY))
        again = [position for position in again if not acks.is_known(position)]
        for number, position in enumerate(WHOLE):
            if not state.done & (1 << number) and position not in again:
                return f"S11: {position.seq}, {position.index} was not acknowledged, and does not come again"
        return None

    # ------------------------------------------------------------------------------------ moves

    def moves(self, state: State) -> Iterator[tuple[Any, State]]:
        yield from self._log(state)
        for number, holder in enumerate(state.holders):
            if holder is None:
                yield ("holder", number, "attaches"), self._attach(state, number)
            else:
                yield from self._holder(state, number, holder)
        record = state.record
        lows = [] if record is None else [self.rules.low(record)]
        point = self.rules.trim_point(
            state.checkpoints, cursor_lows=lows, retention_low=LOWS[state.acknowledged]
        )
        if point > state.trimmed and record is not None:
            yield ("the owner trims before", point), state._replace(trimmed=point)

    def _log(self, state: State) -> Iterator[tuple[Any, State]]:
        if state.sequenced < len(STORY) and state.sequenced - state.acknowledged < 2:
            yield ("a batch is sequenced",), state._replace(sequenced=state.sequenced + 1)
        if state.durable < state.sequenced:
            yield ("a batch is durable",), state._replace(durable=state.durable + 1)
        if state.acknowledged < state.durable:
            yield ("a batch is acknowledged",), state._replace(acknowledged=state.acknowledged + 1)
        at = state.acknowledged if self.rules.checkpoints_acked else state.sequenced
        newest = state.checkpoints.checkpoints[:1]
        if not newest or newest[0].seq < at:
            both = CheckpointsRecord(checkpoints=(_checkpoint(at), *newest))
            yield ("a checkpoint at", at), state._replace(checkpoints=both)
        if state.crashes:
            yield (
                ("the owner dies",),
                state._replace(
                    sequenced=state.durable, acknowledged=state.durable, crashes=state.crashes - 1
                ),
            )

    def _attach(self, state: State, number: int) -> State:
        record = attached(
            state.record, start=START, holder=f"{number}", nonce=f"{number}", where=ANYTHING
        )
        assert isinstance(record, CursorRecord)
        holder = Holder(record.generation, record.done, record.ranges)
        return self._with(state, number, holder)._replace(record=record)

    def _with(self, state: State, number: int, holder: Holder) -> State:
        holders = state.holders
        return state._replace(holders=(*holders[:number], holder, *holders[number + 1 :]))

    def _holder(self, state: State, number: int, holder: Holder) -> Iterator[tuple[Any, State]]:
        messages, stands = delivered_from(holder.start, holder.start.low, state.acknowledged)
        if self.setup.filtered:
            messages = []
        acks = self._acks(holder, messages)
        if holder.got < len(messages):
            got = holder._replace(got=holder.got + 1)
            yield ("holder", number, "gets a message"), self._with(state, number, got)
        elif self.rules.progress:
            acks.progress(stands)
        for place in range(holder.got):
            if not holder.acked & (1 << place) and not acks.is_known(messages[place]):
                did = holder._replace(acked=holder.acked | 1 << place)
                yield ("holder", number, "acknowledges", place), self._with(state, number, did)
        yield from self._commit(state, number, holder, messages, acks)

    def _acks(self, holder: Holder, messages: list[Position]) -> Acks:
        acks = Acks(done=holder.start, ranges=holder.ranges)
        for place in range(holder.got):
            acks.delivered(messages[place])
        for place in range(holder.got):
            if holder.acked & (1 << place):
                acks.ack(messages[place])
        return acks

    def _commit(
        self, state: State, number: int, holder: Holder, messages: list[Position], acks: Acks
    ) -> Iterator[tuple[Any, State]]:
        record = state.record
        assert record is not None
        generation = holder.generation if self.rules.fences else record.generation
        after = committed(record, generation=generation, done=acks.done, ranges=acks.ranges)
        if not isinstance(after, Refusal) and after != record:
            done = state.done
            if holder.generation == record.generation:
                for place in range(holder.got):
                    known = acks.is_known(messages[place]) or holder.acked & (1 << place)
                    done |= bool(known) << WHOLE.index(messages[place])
            yield ("holder", number, "commits"), state._replace(record=after, done=done)
        if state.resets and holder.generation == record.generation and state.trimmed == 0:
            reset = committed(record, generation=holder.generation, done=START, reset=True)
            if isinstance(reset, Refusal):
                raise Broken("the newest generation is refused")
            fresh = Holder(reset.generation, START, ())
            wiped = self._with(state, number, fresh)
            yield (
                ("holder", number, "resets the cursor to the start"),
                wiped._replace(record=reset, done=0, resets=state.resets - 1),
            )


def pins_nothing(_model: CursorModel, state: State) -> bool:
    """The cursor has passed the whole log."""
    return state.record is not None and state.record.low == len(STORY)


def _world(setup: Setup, *, ends: bool = False, is_large: bool = False) -> cases.World:
    goal = pins_nothing if ends else None
    make = partial(CursorModel, setup)
    return cases.World(name=str(setup), make=make, is_large=is_large, goal=goal)


def _mutant(name: str, setup: Setup, *, ends: bool = False, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    goal = pins_nothing if ends else None
    return cases.Mutant(name=name, make=partial(CursorModel, setup, changed), goal=goal)


ONE = Setup(holders=1)
TWO = Setup(is_whole=True)
RESETS = Setup(holders=2, resets=1, is_whole=True)
CRASHES = Setup(holders=1, crashes=1)
FILTERED = Setup(holders=1, filtered=True)

CURSORS = cases.Part(
    name="stream-cursors",
    worlds=(
        _world(ONE, ends=True),
        _world(TWO, ends=True, is_large=True),
        _world(RESETS, ends=True, is_large=True),
        _world(CRASHES),
        _world(FILTERED, ends=True),
        _world(replace(TWO, is_whole=False), is_large=True),
    ),
    mutants=(
        _mutant("the cursor's position is done", ONE, low=lambda record: record.done.seq),
        _mutant("trim to the newer checkpoint", ONE, trim_point=to_the_newer),
        _mutant("a checkpoint ahead of acknowledgement", CRASHES, checkpoints_acked=False),
        _mutant("acknowledgement without generation", RESETS, fences=False),
        _mutant("no Progress for filtered readers", FILTERED, progress=False, ends=True),
    ),
)
