"""Ticks: microseconds that grow with seq along a pchannel, whoever owns it (rules, section 6).

Ticks in the log are safe by the log's order. Un-persisted ones (signals, ephemeral messages, grants of
anonymous producers) are safe because every successor begins at or above the limit that is in the log:
they stay below the limit of the last sequenced batch, and are shown only once all sequenced before
them is acknowledged. **P**
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SLEW_DIVISOR = 100  # at most 1 % faster or slower than real time
MAX_BEHIND_US = 10 * 60_000_000  # a clock further behind the last tick must not open a pchannel
MOST_LEAD_US = 1_000_000  # ticks further ahead of the clock: what is to be sequenced waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class TickClock:
    """Wall time at a term's start plus monotonic time, led gently towards the wall: no step shows."""

    at_us: int  # what it shows ...
    monotonic_us: int  # ... at this monotonic time

    def read(self, monotonic_us: int) -> int:
        """What it shows now."""
        return self.at_us + max(0, monotonic_us - self.monotonic_us)

    def slewed(self, monotonic_us: int, wall_us: int) -> TickClock:
        """The same clock, led towards ``wall_us`` by at most 1 % of the time since it was led last."""
        passed = max(0, monotonic_us - self.monotonic_us)
        most = passed // SLEW_DIVISOR
        away = wall_us - self.read(monotonic_us)
        at_us = self.read(monotonic_us) + max(-most, min(most, away))
        return TickClock(at_us=at_us, monotonic_us=max(monotonic_us, self.monotonic_us))


def is_far_behind(wall_us: int, last_tick: int) -> bool:
    """Whether a node with this clock must not open a pchannel whose last tick is ``last_tick``."""
    return wall_us < last_tick - MAX_BEHIND_US


def start_of_term(*, limit: int, last_tick: int, clock_us: int) -> int:
    """First tick of a term: above everything an owner before may have shown. **P**"""
    return max(limit, last_tick + 1, clock_us)


def next_tick(last_tick: int, clock_us: int) -> int:
    """The tick after ``last_tick``."""
    return max(last_tick + 1, clock_us)


def next_limit(*, limit: int, last_tick: int, clock_us: int, step_us: int) -> int:
    """The limit that a batch ending at ``last_tick`` carries."""
    return max(limit, last_tick + 1, clock_us + step_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """The ticks of one term as given away so far.

    Attributes:
        last: newest tick given away, in the log or not.
        limit: of the newest sequenced batch.
        acked: last tick of the newest acknowledged batch, or a newer un-persisted one shown since.
        is_closed: the close record was sequenced: nothing un-persisted is ticked any more.
    """

    last: int
    limit: int
    acked: int
    is_closed: bool = False

    def first(self, clock_us: int) -> int:
        """First tick of a batch sequenced now."""
        return next_tick(self.last, clock_us)

    def sequenced(self, last_tick: int, limit: int, *, is_close: bool = False) -> Ticks:
        """After a batch with this last tick and limit was sequenced."""
        return Ticks(last=last_tick, limit=limit, acked=self.acked, is_closed=is_close)

    def acknowledged(self, last_tick: int) -> Ticks:
        """After all up to ``last_tick`` was acknowledged."""
        if last_tick <= self.acked:
            return self
        return Ticks(last=self.last, limit=self.limit, acked=last_tick, is_closed=self.is_closed)

    def wait_us(self, clock_us: int) -> int:
        """How long to wait before more is sequenced, so that the clock keeps up with one tick a message."""
        return max(0, self.last - clock_us - MOST_LEAD_US)

    def unpersisted(self, clock_us: int) -> int | None:
        """A tick for something that is not written; None: a Limit batch must be sequenced first.

        Give it away with ``took``. What carries it is shown only when all sequenced before it is acknowledged.
        """
        tick = next_tick(self.last, clock_us)
        return None if self.is_closed or tick >= self.limit else tick

    def took(self, tick: int) -> Ticks:
        """After ``tick`` of ``unpersisted`` was given away."""
        return replace(self, last=tick)

    def signal(self, first_in_flight: int | None) -> int:
        """The T of a signal: nothing at or below it can still come.

        With nothing in flight everything given away so far was shown or dropped; else what is acknowledged,
        which lies below ``first_in_flight``, the tick of the oldest thing not yet acknowledged.
        """
        return self.last if first_in_flight is None else min(self.acked, first_in_flight - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSteps:
    """How far a Limit batch of an idle pchannel reaches: 5 s, doubling to 60 s."""

    step_us: int
    most_us: int

    def doubled(self) -> IdleSteps:
        """After one more idle Limit batch."""
        return replace(self, step_us=min(2 * self.step_us, self.most_us))
