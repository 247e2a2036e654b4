"""Runtime: clock, randomness, sleep and tasks as one object handed to every driver.

The simulator passes its own; nothing else in Woodpecker reads a clock, draws a random number or
starts a task by itself.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Coroutine
from typing import Any, Protocol


class Runtime(Protocol):
    """What a driver may know of the world's time and chance."""

    def now_us(self) -> int:
        """Wall clock, microseconds since 1970; may jump. For timestamps and retention only."""

    def monotonic_ms(self) -> float:
        """Clock that never goes back, milliseconds from an arbitrary start."""

    def token(self) -> str:
        """128 random bits as 32 hex digits."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    async def sleep_ms(self, delay_ms: float) -> None:
        """Sleep; cancellation passes through."""

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task owned by the caller, who must await or cancel it."""


class SystemRuntime:
    """The real clock, the system's randomness, the running asyncio loop."""

    def __init__(self) -> None:
        self._rng = random.Random(secrets.randbits(128))  # noqa: S311  jitter, not secrets

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ms(self) -> float:
        return time.monotonic_ns() / 1e6

    def token(self) -> str:
        return secrets.token_hex(16)

    def random(self) -> float:
        return self._rng.random()

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1000)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, name=name)
