"""Back-pressure on producers: NORMAL, SLOWDOWN(bytes/s), REJECT (rules, section 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

DOWN = 0.8  # a step down multiplies
UP_BYTES_S = 4 << 20  # a step up adds
LEAST_BYTES_S = 1 << 20
LEAVE = 0.8  # a mode is left below this part of its bound
FELT = 0.5  # a limit twice as large as what is written is not felt


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
        return {Mode.NORMAL: 0, Mode.SLOWDOWN: self.bytes_s, Mode.REJECT: -1}[self.mode]


def step(state: RateState, loads: Sequence[Load], *, measured_bytes_s: int) -> RateState:
    """The next state; call it once a second. Multiply down, add up; leaves a mode only 20 % below its bound.

    Args:
        measured_bytes_s: what was really written in the last second.
    """
    hard = _over(loads, lambda load: load.hard, is_in=state.mode is Mode.REJECT)
    if hard is not None:
        return RateState(mode=Mode.REJECT, cause=hard.name)
    soft = _over(loads, lambda load: load.soft, is_in=state.mode is not Mode.NORMAL)
    if soft is None:
        return _faster(state, measured_bytes_s)
    if soft.value < soft.soft and state.mode is Mode.SLOWDOWN:
        return replace(state, cause=soft.name)  # between the bounds: neither up nor down
    known = state.bytes_s if state.mode is Mode.SLOWDOWN else measured_bytes_s
    slower = max(LEAST_BYTES_S, round(min(known, max(measured_bytes_s, LEAST_BYTES_S)) * DOWN))
    return RateState(mode=Mode.SLOWDOWN, bytes_s=slower, cause=soft.name)


def _over(loads: Sequence[Load], bound: Callable[[Load], float], *, is_in: bool) -> Load | None:
    """The load furthest above its bound; a mode that we are in is left only well below."""
    factor = LEAVE if is_in else 1.0
    over = [load for load in loads if load.value >= bound(load) * factor]
    return max(over, key=lambda load: load.value / bound(load), default=None)


def _faster(state: RateState, measured_bytes_s: int) -> RateState:
    """No load is left: a step up; without limit again once the limit is not felt any more."""
    if state.mode is Mode.NORMAL:
        return state
    if state.mode is Mode.REJECT:
        return RateState(mode=Mode.SLOWDOWN, bytes_s=UP_BYTES_S, cause=state.cause)
    if measured_bytes_s < state.bytes_s * FELT:
        return RateState()
    return replace(state, bytes_s=state.bytes_s + UP_BYTES_S)
