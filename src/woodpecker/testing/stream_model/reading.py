"""Every small log of plain batches and overlapping transactions, read from everywhere.

A state is a log; the checks of one state read it from each position there is. Part "stream-read".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from woodpecker.errors import Corrupt
from woodpecker.streaming.core.admission import Admit, Asked, Pressure, data_facts, facts_of, judge
from woodpecker.streaming.core.assembly import Assembly, read_from
from woodpecker.streaming.core.facts import AbortTxn, Body, Create, Data, Facts, Term
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.model import cases
from woodpecker.testing.stream_model.logs import EMPTY, Logs

LIMIT = 1 << 40
PRODUCERS = ("a", "b")
TYPES = ("x", "y")  # of bodies with an even, an odd sequence


class Message(NamedTuple):
    """One message as a reader got it: effective position, and what it is."""

    position: Position
    own: int  # seq of its entry
    type: str


Reader = Assembly[None]


def by_position(message: Message, start: Position) -> bool:
    """What is delivered: everything at or above the start."""
    return message.position >= start


def by_own_seq(message: Message, start: Position) -> bool:
    """Mutant: what was written at or above the start."""
    return message.position >= start and message.own >= start.seq


def from_done(start: Position, *, earliest: int) -> int:
    """Mutant: reading begins at the position itself."""
    return max(earliest, start.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a mutant may replace."""

    passes: Callable[[Message, Position], bool] = by_position
    read_from: Callable[..., int] = read_from
    filters_whole: bool = True
    progress_has_low: bool = True


RULES = Rules()


class ReadModel:
    """All logs of up to ``batches`` batches."""

    def __init__(self, batches: int, rules: Rules = RULES) -> None:
        self.batches = batches
        self.rules = rules
        self.logs = Logs()

    def starts(self) -> list[tuple[int, int]]:
        log = EMPTY
        bodies: list[tuple[Body, int]] = [(Term(incarnation="i"), 0)]
        bodies += [(Create(name=f"{vcid}"), vcid) for vcid in (1, 2)]
        for body, vcid in bodies:
            log = self._control(log, body, vcid)
        return [(log, 0)]

    def canonical(self, state: tuple[int, int]) -> tuple[int, int]:
        return state

    def tell(self, before: Any, move: Any, after: Any) -> str:
        return " ".join(map(str, move))

    # ------------------------------------------------------------------------------------ moves

    def moves(self, state: tuple[int, int]) -> Iterator[tuple[Any, tuple[int, int]]]:
        log, count = state
        if count == self.batches:
            return
        fold = self.logs.fold(log)
        yield from self._sent(state, "plain", "p", count=1)
        yield from self._sent(state, "elsewhere", "q", count=1, vcid=2)
        for producer in PRODUCERS:
            session = fold.sessions.get(producer)
            if session is None or not session.open:
                number = 0 if session is None else session.last_number + 1
                yield from self._sent(state, "begin", producer, count=1, number=number, begin=True)
                continue
            number = fold.open[session.open[0]].number
            yield from self._sent(state, "body", producer, count=2, number=number)
            yield from self._sent(state, "commit", producer, count=0, number=number, commit=True)
            yield from self._sent(
                state, "join", producer, count=1, number=number, commit=True, join=True
            )
            abort = self._control(log, AbortTxn(txn=session.open[0], reason="x"), 1)
            yield ("abort", producer), (abort, count + 1)

    def _sent(
        self, state: tuple[int, int], word: str, producer: str, *, vcid: int = 1, **more: Any
    ) -> Iterator[tuple[Any, tuple[int, int]]]:
        log, count = state
        fold = self.logs.fold(log)
        session = fold.sessions.get(producer)
        sequence = 0 if session is None else session.last_sequence + 1
        asked = Asked(
            producer=producer,
            epoch=0,
            sequence=sequence,
            vcid=vcid,
            grant_tick=0,
            type=TYPES[sequence % 2],
            size_bytes=10,
            **more,
        )
        tick = fold.last_tick + 1
        admit = judge(fold, asked, tick=tick, pressure=Pressure(), settings=DEFAULTS)
        assert isinstance(admit, Admit), admit
        after = self.logs.add(log, data_facts(fold, admit, tick=tick, limit=LIMIT))
        yield (word, producer), (after, count + 1)

    def _control(self, log: int, body: Body, vcid: int) -> int:
        fold = self.logs.fold(log)
        facts = facts_of(fold, body, tick=fold.last_tick + 1, limit=LIMIT, vcid=vcid)
        return self.logs.add(log, facts)

    # ----------------------------------------------------------------------------------- checks

    def fault(self, state: tuple[int, int]) -> str | None:
        batches = self.logs.batches(state[0])
        whole, _ = self._read(batches, Position(0))
        try:
            return (
                self._starts(batches, whole)
                or self._stands(batches, whole)
                or self._filtered(batches, whole)
            )
        except Corrupt as error:
            return f"S6: a reader fails: {error}"

    def _starts(self, batches: list[Facts], whole: list[Message]) -> str | None:
        """S6: from each message, from after each, and from each batch: exactly the rest."""
        starts = [message.position for message in whole]
        starts += [replace(one, index=one.index + 1) for one in starts]
        starts += [Position(facts.seq, low=facts.column.low) for facts in batches]
        for start in starts:
            rest, _ = self._read(batches, start)
            if rest != [message for message in whole if message.position >= start]:
                return f"S6: from {start.seq}, {start.index} on a reader sees {len(rest)} messages"
        return None

    def _stands(self, batches: list[Facts], whole: list[Message]) -> str | None:
        """S6: a reader goes on where another one stands after any batch."""
        for cut in range(len(batches)):
            first, assembly = self._read(batches[:cut], Position(0))
            stands = assembly.next
            if not self.rules.progress_has_low:
                stands = replace(stands, low=stands.seq)
            rest, _ = self._read(batches, stands)
            if first + rest != whole:
                return f"S6: who stands at {stands.seq} goes on with {len(rest)} messages"
        return None

    def _filtered(self, batches: list[Facts], whole: list[Message]) -> str | None:
        """A filter takes single messages out of what is delivered, nothing else."""
        wanted = [message for message in whole if message.type == TYPES[0]]
        shown, _ = self._read(batches, Position(0), only=TYPES[0])
        return None if shown == wanted else "a filter changes what else is delivered"

    def _read(
        self, batches: list[Facts], start: Position, *, only: str | None = None
    ) -> tuple[list[Message], Reader]:
        begin = self.rules.read_from(start, earliest=0)
        assembly = Reader(1, start=start, read_from=begin, assembly_bytes=0)
        found = []
        for facts in batches:
            body = facts.column.body
            if facts.seq < begin:
                continue
            is_other = isinstance(body, Data) and body.type != only and not body.commit
            if only is not None and not self.rules.filters_whole and is_other:
                assembly.pass_over(facts.end)
                continue
            delivery = assembly.feed(facts, None)
            if delivery is None:
                continue
            entries = [
                (piece.facts.seq + index, getattr(piece.facts.column.body, "type", ""))
                for piece in delivery.pieces
                for index in range(piece.facts.count)
            ]
            for index in range(delivery.skip, delivery.count):
                message = Message(delivery.position(index), *entries[index])
                if self.rules.passes(message, start) and only in {None, message.type}:
                    found.append(message)
        return found, assembly


def _mutant(name: str, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(ReadModel, 6, changed))


READ = cases.Part(
    name="stream-read",
    worlds=(
        cases.World(name="logs of up to 5 batches", make=partial(ReadModel, 5)),
        cases.World(name="logs of up to 6 batches", make=partial(ReadModel, 6), is_large=True),
    ),
    mutants=(
        _mutant("suppress by own seq", passes=by_own_seq),
        _mutant("resume at the position, not at its low", read_from=from_done),
        _mutant("progress without low", progress_has_low=False),
        _mutant("filter before assembly", filters_whole=False),
    ),
)
