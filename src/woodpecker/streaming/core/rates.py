"""Back-pressure on producers: NORMAL, SLOWDOWN(bytes/s), REJECT (rules, section 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How strict."""

    NORMAL = "normal"
    SLOWDOWN = "slowdown"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One source of pressure: slow down from ``soft``, refuse from ``hard``."""

    name: str
    value: float
    soft: float
    hard: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RateState:
    """What producers are told. ``cause``: the source that decided."""

    mode: Mode = Mode.NORMAL
    bytes_s: int = 0  # with SLOWDOWN
    cause: str = ""

    @property
    def frame_value(self) -> int:
        """As in frames.Rate: 0 no limit, -1 REJECT."""
        raise NotImplementedError


def step(state: RateState, loads: Sequence[Load], *, measured_bytes_s: int) -> RateState:
    """The next state; call it once a second. Multiply down, add up; leaves a mode only 20 % below its bound."""
    raise NotImplementedError
