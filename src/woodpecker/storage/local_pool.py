"""A few threads for blocking file work, cheaper per call than an executor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from woodpecker.errors import Closed

T = TypeVar("T")

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ThreadPool:
    """Runs functions in its own daemon threads, started one by one as they are needed.

    Concurrency: ``run`` and ``close`` on one event loop.
    """

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread. Cancellation: work that has been handed over still runs.

        Raises:
            Closed: after ``close``; and whatever ``work`` raises.
        """
        self.check_open()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self._unfinished += 1
        self._idle.clear()
        if self._unfinished > len(self._threads) < self._threads_max:
            self._start_thread()
        self._queue.put((loop, result, work))
        return await result

    def check_open(self) -> None:
        """Raises: Closed, after ``close``."""
        if self._closed:
            raise Closed(f"{self._name} is closed; open a new store")

    async def close(self) -> None:
        """Refuse new work, wait until all handed over has ended, end the threads."""
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        for _ in self._threads:
            self._queue.put(None)

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            loop, result, work = job
            value: Any = None
            error: BaseException | None = None
            try:
                value = work()
            except BaseException as raised:  # noqa: BLE001  it belongs to the one who waits
                error = raised
            try:
                loop.call_soon_threadsafe(self._deliver, result, value, error)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
                return
            del job, work, result, value, error  # an idle thread must not keep buffers alive

    def _deliver(
        self, result: asyncio.Future[Any], value: object, error: BaseException | None
    ) -> None:
        self._unfinished -= 1
        if self._unfinished == 0:
            self._idle.set()
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)
