"""An event loop in a thread of its own, and the way into it; the ground of ``woodpecker.blocking``."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from woodpecker.errors import Closed, InvalidRequest, WoodpeckerError
from woodpecker.runtime.forks import refuse_after_fork

T = TypeVar("T")


class Portal:
    """A thread with an event loop, and the way into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop,), name="woodpecker-loop", daemon=True
        )
        self._thread.start()
        self._close = weakref.finalize(self, _stop_loop, self._loop, self._thread)
        refuse_after_fork(self)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the loop and wait. Raises: what it raises; Closed: the client is closed."""
        if not self._close.alive or threading.get_ident() == self._thread.ident:
            work.close()
            raise self._refusal()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:  # the loop was stopped, by a close in another thread
            raise Closed("this client was closed while a call was waiting") from None
        except BaseException:
            future.cancel()  # no effect if it is the call's own failure
            raise

    def post(self, work: Callable[[], object]) -> None:
        """Run ``work`` in the loop some time. Raises: Closed."""
        if not self._close.alive:
            raise self._refusal()
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            raise self._refusal() from None

    def close(self) -> None:
        """Cancel what still runs, end the loop and join its thread. Idempotent."""
        self._close()

    def on_fork(self) -> None:
        """The thread lives in the parent only."""
        self._close.detach()

    def _refusal(self) -> WoodpeckerError:
        if self._close.alive:
            return InvalidRequest(
                "a blocking call inside the client's own thread would wait for itself: "
                "do it in another thread than the callback's"
            )
        return Closed("this client is closed, or belongs to the process that forked this one")


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _stop_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
    if threading.get_ident() != thread.ident:  # the collector may run there
        thread.join()
