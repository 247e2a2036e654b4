"""What every command that goes on until it is told to end has in common: signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from woodpecker.runtime.runtime import SystemRuntime


@contextmanager
def stop_signals(at_second: Callable[[], None]) -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or Ctrl-C sets; ``at_second`` is called for each further one."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            at_second()
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def done_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Run ``work`` to its end, unless ``stop`` is set before: then it is cancelled.

    Returns: whether it came to its end. Raises: what ``work`` raises.
    """
    runtime = SystemRuntime()
    working = runtime.spawn(work, "work until stopped")
    stopping = runtime.spawn(stop.wait(), "wait for a signal")
    stopping.add_done_callback(lambda _: working.cancel())
    try:
        await working
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        return False
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
    return True
