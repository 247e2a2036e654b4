"""Where to start and end, as users say it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from woodpecker.errors import InvalidRequest
from woodpecker.streaming.client.messages import Tick
from woodpecker.streaming.core.values import (
    NO_STOP,
    EndForm,
    Position,
    Start,
    StartForm,
    Stop,
)

StartInput = str | int | datetime | Tick | Position
StopInput = str | int | datetime | Tick | Position | None

MAX_PLACE = (1 << 63) - 1  # what frames carry
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def start_at(place: Position) -> Start:
    """Begin with the first message at or above a position."""
    return Start(
        form=StartForm.POSITION,
        value=place.seq,
        index=place.index,
        term=place.term,
        low=place.low,
    )


def parse_start(start: StartInput) -> Start:
    """A place to start.

    Args:
        start: "earliest" | "latest" | position (of a message: with that message; ``position.after()``: behind
            it) | seq | datetime with a time zone or Tick: the first message at or after that time.
    Raises: InvalidRequest.
    """
    match start:
        case "earliest":
            return Start(form=StartForm.EARLIEST)
        case "latest":
            return Start(form=StartForm.LATEST)
        case Position():
            return start_at(start)
        case Tick():
            return Start(form=StartForm.TICK, value=_in_bounds(start))
        case datetime():
            return Start(form=StartForm.TIME, value=_microseconds(start))
        case int() if not isinstance(start, bool):
            return Start(form=StartForm.SEQ, value=_in_bounds(start))
    raise InvalidRequest(
        f"start {start!r}: give 'earliest', 'latest', a position, a seq, a datetime or a Tick"
    )


def parse_stop(end: StopInput) -> Stop:
    """A place to end, exclusive. None: never; "tail": what is there when reading begins.

    Raises: InvalidRequest.
    """
    match end:
        case None:
            return NO_STOP
        case "tail":
            return Stop(form=EndForm.TAIL)
        case Position():
            return Stop(form=EndForm.POSITION, value=end.seq, index=end.index)
        case Tick():
            return Stop(form=EndForm.TICK, value=_in_bounds(end))
        case datetime():
            return Stop(form=EndForm.TICK, value=_microseconds(end))
        case int() if not isinstance(end, bool):
            return Stop(form=EndForm.POSITION, value=_in_bounds(end))
    raise InvalidRequest(f"end {end!r}: give 'tail', a position, a seq, a datetime or a Tick")


def _in_bounds(value: int) -> int:
    if not 0 <= value <= MAX_PLACE:
        raise InvalidRequest(
            f"a place to start or end lies between 0 and {MAX_PLACE}, not at {value}"
        )
    return int(value)


def _microseconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise InvalidRequest(f"the datetime {moment} has no time zone: give it one")
    return _in_bounds((moment - _EPOCH) // timedelta(microseconds=1))
