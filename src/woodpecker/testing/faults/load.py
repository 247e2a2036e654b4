"""A steady load on one writer, each append timed and remembered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from woodpecker.client.writer import LogWriter
from woodpecker.errors import WoodpeckerError

PAYLOAD_BYTES = 1024
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


@dataclass(slots=True, kw_only=True)
class Append:
    """One append: when it was called (monotonic), and how it ended, once it has."""

    number: int
    called_s: float
    took_s: float | None = None
    seq: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of the appends that were called in one phase. Times in ms; None: no append ended well."""

    phase: str
    seconds: float
    appends: int
    failed: int
    quantiles_ms: dict[str, float | None]


@dataclass(slots=True)
class Load:
    """``rate`` appends of 1 KiB a second, whether the ones before are answered or not."""

    writer: LogWriter
    rate: float
    appends: list[Append] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _pace: asyncio.Task[None] | None = None
    _phase: tuple[str, int, float] = ("", 0, 0.0)

    def begin(self) -> None:
        """Until ``end``."""
        self._pace = asyncio.create_task(self._run())

    async def end(self) -> None:
        """Call no more, wait for all answers."""
        assert self._pace is not None
        self._pace.cancel()
        await asyncio.gather(self._pace, *self._under_way, return_exceptions=True)

    @property
    def open(self) -> int:
        """Appends without an answer."""
        return len(self._under_way)

    @property
    def answered(self) -> int:
        """Appends that were acknowledged."""
        return sum(append.seq is not None for append in self.appends)

    @property
    def failures(self) -> list[str]:
        """Why appends failed."""
        return [append.error for append in self.appends if append.error]

    def phase(self, name: str) -> None:
        """From now on."""
        self._phase = (name, len(self.appends), time.monotonic())

    async def phase_over(self) -> Figures:
        """Of the appends called since ``phase``; waits until each has its answer."""
        name, first, began_s = self._phase
        took_s = time.monotonic() - began_s
        mine = self.appends[first:]
        while any(append.took_s is None for append in mine):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        found = Figures(
            phase=name,
            seconds=took_s,
            appends=len(mine),
            failed=sum(bool(append.error) for append in mine),
            quantiles_ms=quantiles_ms([a.took_s for a in mine if a.took_s and not a.error]),
        )
        self.figures.append(found)
        return found

    async def resumed(self, timeout_s: float) -> float:
        """Wait for the next acknowledged append; returns the seconds that it took.

        Raises: TimeoutError.
        """
        began_s, before = time.monotonic(), self.answered
        async with asyncio.timeout(timeout_s):
            while self.answered == before:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return time.monotonic() - began_s

    async def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            append = Append(number=len(self.appends), called_s=time.monotonic())
            self.appends.append(append)
            task = asyncio.create_task(self._append(append))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due_s = max(due_s + 1 / self.rate, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _append(self, append: Append) -> None:
        try:
            append.seq = await self.writer.append(payload(append.number))
        except WoodpeckerError as error:
            append.error = f"{error.code}: {error}"
        finally:
            append.took_s = time.monotonic() - append.called_s


def payload(number: int) -> bytes:
    """1 KiB that tells which append it was."""
    return b"%016d" % number * (PAYLOAD_BYTES // 16)


def quantiles_ms(times_s: Sequence[float]) -> dict[str, float | None]:
    """By name, of times in seconds."""
    ordered = sorted(times_s)
    if not ordered:
        return dict.fromkeys((name for name, _ in QUANTILES), None)
    last = len(ordered) - 1
    return {
        name: round(ordered[min(last, int(share * len(ordered)))] * 1000, 3)
        for name, share in QUANTILES
    }
