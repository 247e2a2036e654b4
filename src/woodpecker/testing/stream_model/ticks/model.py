"""After a signal T nothing at or below T is delivered, whoever owns; ephemerals come in their order.

The log is what is durable of batches (last tick, limit); owners follow one another through its fence. An
observer keeps one signal or ephemeral that it was shown, by whichever owner, also one of the past.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from woodpecker.streaming.core.ticks import Ticks, next_limit, start_of_term

STEP = 2  # of the limit


class Batch(NamedTuple):
    """One batch of one entry."""

    tick: int
    limit: int
    token: int = 0  # of its writer


class Owner(NamedTuple):
    """One owner's life. ``base``: batches of the log when it opened; ``own``: what it sequenced since."""

    clock: int
    is_open: bool = False
    token: int = 0
    base: int = 0
    own: tuple[Batch, ...] = ()
    acked: int = 0  # of ``own``
    ticks: Ticks | None = None
    waiting: tuple[tuple[int, int], ...] = ()  # ephemerals: (tick, own batches before it)


class State(NamedTuple):
    """Everything. ``shown``: (tick, batches of the log delivered before it) of the signal looked at."""

    log: tuple[Batch, ...]
    token: int
    owners: tuple[Owner, ...]
    terms: int
    seen: tuple[int, int] | None = None
    ephemeral: int = -1  # newest one shown
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a mutant may replace."""

    start: Callable[..., int] = start_of_term
    unpersisted: Callable[[Ticks, int], int | None] = Ticks.unpersisted
    signal: Callable[[Ticks, int | None], int] = Ticks.signal
    ephemeral_waits: bool = True


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A world: the clocks of its owners, and how much may happen."""

    clocks: tuple[int, ...] = (5, 0)
    terms: int = 2
    batches: int = 2  # of one life
    ephemerals: int = 1  # waiting at once
    times: int = 1  # how often time passes
    closes: bool = False

    def __str__(self) -> str:
        return (
            f"clocks {', '.join(map(str, self.clocks))}; {self.terms} terms, {self.batches} batches each"
            f"{', close records' * self.closes}"
        )


class TicksModel:
    """A world of ``setup`` under ``rules``."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        self.setup = setup
        self.rules = rules

    def starts(self) -> list[State]:
        owners = tuple(Owner(clock=clock) for clock in self.setup.clocks)
        return [
            State(log=(), token=0, owners=owners, terms=self.setup.terms, times=self.setup.times)
        ]

    def canonical(self, state: State) -> State:
        return state

    def tell(self, before: State, move: Any, after: State) -> str:
        return f"{' '.join(map(str, move))}   [log: {[tuple(batch)[:2] for batch in after.log]}]"

    def fault(self, state: State) -> str | None:
        ticks = [batch.tick for batch in state.log]
        if ticks != sorted(set(ticks)):
            return "S3: ticks do not grow along the log"
        if state.seen is not None:
            tick, delivered = state.seen
            if any(batch.tick <= tick for batch in state.log[delivered:]):
                return f"S4: after the signal {tick} something at or below it is delivered"
        return None

    # ------------------------------------------------------------------------------------ moves

    def moves(self, state: State) -> Iterator[tuple[Any, State]]:
        for number, owner in enumerate(state.owners):
            if state.terms:
                yield ("owner", number, "opens the log"), self._open(state, number, owner)
            if owner.is_open:
                yield from self._life(state, number, owner)
        if state.times:
            owners = tuple(owner._replace(clock=owner.clock + 3) for owner in state.owners)
            yield ("time passes",), state._replace(owners=owners, times=state.times - 1)

    def _open(self, state: State, number: int, owner: Owner) -> State:
        last = state.log[-1] if state.log else Batch(-1, 0)
        tick = self.rules.start(limit=last.limit, last_tick=last.tick, clock_us=owner.clock)
        limit = self._limit(last.limit, tick, owner.clock)
        fresh = Owner(
            clock=owner.clock,
            is_open=True,
            token=state.token + 1,
            base=len(state.log),
            own=(Batch(tick, limit, state.token + 1),),
            ticks=Ticks(last=tick, limit=limit, acked=last.tick),
        )
        opened = state._replace(token=state.token + 1, terms=state.terms - 1)
        return _put(opened, number, fresh)

    def _limit(self, limit: int, tick: int, clock: int) -> int:
        return next_limit(limit=limit, last_tick=tick, clock_us=clock, step_us=STEP)

    def _life(self, state: State, number: int, owner: Owner) -> Iterator[tuple[Any, State]]:
        ticks = owner.ticks
        assert ticks is not None
        durable = len(state.log) - owner.base
        if owner.token == state.token and durable < len(owner.own):
            log = (*state.log, owner.own[durable])
            yield ("the log takes a batch of owner", number), state._replace(log=log)
        until = (
            min(len(owner.own), durable) if owner.token == state.token else self._kept(state, owner)
        )
        if owner.acked < until:
            batch = owner.own[owner.acked]
            heard = owner._replace(acked=owner.acked + 1, ticks=ticks.acknowledged(batch.tick))
            yield (
                ("owner", number, "hears that", batch.tick, "is durable"),
                _put(state, number, heard),
            )
        is_serving = owner.acked >= 1 and not ticks.is_closed
        if is_serving and len(owner.own) <= self.setup.batches:
            yield ("owner", number, "sequences a batch"), self._sequence(state, number, owner)
            if self.setup.closes:
                after = self._sequence(state, number, owner, is_close=True)
                yield ("owner", number, "sequences its close record"), after
        if owner.acked >= 1:
            yield from self._unpersisted(state, number, owner, ticks)

    def _kept(self, state: State, owner: Owner) -> int:
        """How many of a fenced owner's batches are in the log."""
        here = state.log[owner.base : owner.base + len(owner.own)]
        same = 0
        while same < len(here) and here[same] == owner.own[same]:
            same += 1
        return same

    def _sequence(
        self, state: State, number: int, owner: Owner, *, is_close: bool = False
    ) -> State:
        ticks = owner.ticks
        assert ticks is not None
        tick = ticks.first(owner.clock)
        limit = tick + 1 if is_close else self._limit(ticks.limit, tick, owner.clock)
        after = owner._replace(
            own=(*owner.own, Batch(tick, limit, owner.token)),
            ticks=ticks.sequenced(tick, limit, is_close=is_close),
        )
        return _put(state, number, after)

    def _unpersisted(
        self, state: State, number: int, owner: Owner, ticks: Ticks
    ) -> Iterator[tuple[Any, State]]:
        """Signals, and ephemerals that wait for what is in flight."""
        flight = [batch.tick for batch in owner.own[owner.acked :]]
        flight += [tick for tick, _ in owner.waiting]
        tick = self.rules.unpersisted(ticks, owner.clock)
        if tick is not None and len(owner.waiting) < self.setup.ephemerals:
            place = (tick, len(owner.own))
            queued = owner._replace(ticks=ticks.took(tick), waiting=(*owner.waiting, place))
            yield ("owner", number, "takes an ephemeral at", tick), _put(state, number, queued)
        if state.seen is None:
            yield from self._signals(state, number, owner, flight)
        if owner.waiting:
            yield from self._show(state, number, owner)

    def _signals(
        self, state: State, number: int, owner: Owner, flight: list[int]
    ) -> Iterator[tuple[Any, State]]:
        ticks = owner.ticks
        assert ticks is not None
        told = self.rules.signal(ticks, min(flight) if flight else None)
        fresh = None if flight else self.rules.unpersisted(ticks, owner.clock)
        after = owner
        if fresh is not None:
            told, after = fresh, owner._replace(ticks=ticks.took(fresh))
        seen = (told, owner.base + owner.acked)
        yield ("owner", number, "signals", told), _put(state, number, after)._replace(seen=seen)

    def _show(self, state: State, number: int, owner: Owner) -> Iterator[tuple[Any, State]]:
        """An ephemeral is shown: like a signal at its own tick, for all that was not delivered before."""
        tick, before = owner.waiting[0]
        if self.rules.ephemeral_waits and owner.acked < before:
            return
        after = owner._replace(waiting=owner.waiting[1:])
        seen = state.seen or (tick, owner.base + owner.acked)
        yield (
            ("owner", number, "shows the ephemeral", tick),
            _put(state, number, after)._replace(seen=seen),
        )


def _put(state: State, number: int, owner: Owner) -> State:
    owners = state.owners
    return state._replace(owners=(*owners[:number], owner, *owners[number + 1 :]))
