"""Fetching ahead: several loads at a time, results in order, bounded in number and bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from woodpecker.runtime.runtime import Runtime

T = TypeVar("T")

FIRST_AHEAD = 2  # loads started for the first result; doubles with every result taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Generic[T]):
    """One load to come: how many bytes its result holds, and what starts it."""

    size_bytes: int
    start: Callable[[], Coroutine[Any, Any, T]]


async def in_order(
    runtime: Runtime, loads: Iterable[Load[T]], *, max_loads: int, max_bytes: int
) -> AsyncIterator[T]:
    """Results of ``loads`` in their order, while the next ones are under way.

    It begins gently, so that whoever wants one result does not pay for many. At most ``max_loads`` run
    or wait to be taken, of at most ``max_bytes`` together; a larger one runs alone. The first failure
    ends it. Closing it, or cancelling the consumer, cancels what runs and waits for that.
    """
    waiting = iter(loads)
    upcoming = next(waiting, None)
    running: deque[tuple[int, asyncio.Task[T]]] = deque()
    held_bytes, allowed = 0, min(FIRST_AHEAD, max_loads)
    try:
        while upcoming is not None or running:
            while upcoming is not None and (
                not running
                or (len(running) < allowed and held_bytes + upcoming.size_bytes <= max_bytes)
            ):
                running.append((upcoming.size_bytes, runtime.spawn(upcoming.start(), "prefetch")))
                held_bytes += upcoming.size_bytes
                upcoming = next(waiting, None)
            result = await running[0][1]
            held_bytes -= running.popleft()[0]
            allowed = min(2 * allowed, max_loads)
            yield result
            del result
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close ``iterator`` on the way out, now and not when it is collected."""
    try:
        yield iterator
    finally:
        close: Callable[[], Awaitable[None]] | None = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
