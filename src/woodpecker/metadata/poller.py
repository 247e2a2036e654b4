"""Waiting for changes in a store that can only be asked: one poll for all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime

POLL_MIN_MS = 5
POLL_MAX_MS = 100


class ReadVersions(Protocol):
    """Asks the store: versions of ``keys``; may leave out all if none changed, unless ``anew``."""

    async def __call__(self, keys: Sequence[str], *, anew: bool) -> dict[str, str | None]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiter:
    key: str
    version: str | None
    future: asyncio.Future[None]


class ChangePoller:
    """Polls while somebody waits: after 5 ms at first, then ever slower down to every 100 ms."""

    def __init__(self, read: ReadVersions, runtime: Runtime) -> None:
        self._read = read
        self._runtime = runtime
        self._waiters: dict[_Waiter, None] = {}
        self._anew = False  # somebody joined since the last poll
        self._pause_ms = POLL_MIN_MS
        self._task: asyncio.Task[None] | None = None

    async def wait(self, key: str, version: str | None, timeout_ms: int) -> None:
        """Return when ``key`` is seen at another version, or after ``timeout_ms``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(key=key, version=version, future=future)
        self._waiters[waiter] = None
        self._anew, self._pause_ms = True, POLL_MIN_MS
        if self._task is None:
            self._task = self._runtime.spawn(self._poll(), "metadata poll")
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await future
        except TimeoutError:
            return
        finally:
            del self._waiters[waiter]

    async def close(self) -> None:
        """Let all who wait return, and stop."""
        for waiter in self._waiters:
            _wake(waiter)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        while self._waiters:
            await self._poll_once()
            await self._runtime.sleep_ms(self._pause_ms)
            self._pause_ms = min(2 * self._pause_ms, POLL_MAX_MS)
        self._task = None

    async def _poll_once(self) -> None:
        anew, self._anew = self._anew, False
        keys = list(dict.fromkeys(waiter.key for waiter in self._waiters))
        try:
            now = await self._read(keys, anew=anew)
        except WoodpeckerError:  # a store that is away: those who wait come back by time
            self._anew = True
            return
        for waiter in self._waiters:
            if waiter.key in now and now[waiter.key] != waiter.version:
                _wake(waiter)


def _wake(waiter: _Waiter) -> None:
    if not waiter.future.done():
        waiter.future.set_result(None)
