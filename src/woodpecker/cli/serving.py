"""What every command that goes on until it is told to end has in common: signals, its log, its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from woodpecker.cli.exits import INTERNAL
from woodpecker.runtime.runtime import SystemRuntime

KILLED = 143
END_LIMIT_S = 30.0  # longer than all parts of a server take to end, each bounded
GC_THRESHOLDS = (50_000, 20, 1_000)

Facts_co = TypeVar("Facts_co", covariant=True)


class Server(Protocol[Facts_co]):
    """A process of the service: a LogStore node, or a member of the streaming service."""

    async def start(self) -> Facts_co:
        """Begin; what the ready line tells."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set."""

    async def close(self) -> None:
        """End all parts. Bounded."""


def run_server(make: Callable[[], Server[Facts_co]], say_ready: Callable[[Facts_co], None]) -> None:
    """Run one until Ctrl-C or SIGTERM; the second one ends it at once. Its log goes to stderr.

    ``make`` is called in the event loop. Raises: what the server raises.
    """
    _log_to_stderr()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(make, say_ready))


async def _serve(
    make: Callable[[], Server[Facts_co]], say_ready: Callable[[Facts_co], None]
) -> None:
    server = make()

    async def start() -> None:
        say_ready(await server.start())
        gc.collect()
        gc.freeze()  # what is loaded now stays: collections need not look at it again
        gc.set_threshold(*GC_THRESHOLDS)

    with stop_signals(at_second=lambda: os._exit(KILLED)) as stop:
        try:
            if await done_before(stop, start()):
                await server.run(stop)
        finally:
            _end_for_sure()
            await server.close()


def _end_for_sure() -> None:
    """However a disk or a store hangs: the process ends."""
    timer = threading.Timer(END_LIMIT_S, os._exit, (INTERNAL,))
    timer.daemon = True
    timer.start()


def _log_to_stderr() -> None:
    """A server's log: what it does, with times, instead of the bare warnings of a command."""
    root = logging.getLogger("woodpecker")
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _loop_factory() -> Any:  # noqa: ANN401  uvloop is not there for everybody
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


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
