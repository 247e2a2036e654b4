"""Threads for work that blocks: few, started when work waits, ended when there is none.

A ``Lane`` does the work of one thing in order, on one thread at a time; ten thousand lanes share a
handful of threads, and none keeps a thread for long while others wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], None]

_IDLE_S = 5.0  # a thread without work ends after this
_TURN = 8  # pieces of work a lane does before others have their turn


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
    """Call back in the loop's thread; False if the loop is closed and nobody listens any more."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        return False
    return True


class Threads:
    """At most ``limit`` daemon threads: a disk that hangs must not keep the process from ending."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0
        self._free = 0  # threads waiting for work that nobody counts on yet

    def put(self, work: Work) -> None:
        """Do ``work`` (which must not raise) as soon as a thread is free. From any thread."""
        with self._lock:
            self._queue.put(work)
            if self._free:
                self._free -= 1
                return
            if self._count == self._limit:
                return
            self._count += 1
        threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    async def run(self, work: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        """Result of ``work``, done in a thread.

        Cancellation: the work is done nevertheless; ``discard`` then gets its result, in a thread.
        """
        return await _start(self.put, work, discard)

    def stop(self) -> None:
        """Let the threads end once the work that waits is done."""
        with self._lock:
            for _ in range(self._count):
                self._queue.put(None)

    def _serve(self) -> None:
        while True:
            work = self._next()
            if work is None:
                return
            work()
            del work  # it may hold a buffer; the next may be long in coming

    def _next(self) -> Work | None:
        try:
            work = self._queue.get_nowait()
        except Empty:
            work = self._wait()
        if work is None:
            with self._lock:
                self._count -= 1
        return work

    def _wait(self) -> Work | None:
        with self._lock:
            self._free += 1
        while True:
            try:
                return self._queue.get(timeout=_IDLE_S)
            except Empty:
                with self._lock:
                    if self._queue.empty():
                        self._free = max(0, self._free - 1)
                        return None


class Lane:
    """Work of one thing: in order, never two pieces at once."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._work: deque[Work] = deque()
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or waiting."""
        return not self._is_running

    def put(self, work: Work) -> None:
        """Do ``work`` (which must not raise) after all that was put before it."""
        with self._lock:
            self._work.append(work)
            if self._is_running:
                return
            self._is_running = True
        self._threads.put(self._turn)

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do ``work`` after all that was put before it, even if the future is cancelled."""
        return _start(self.put, work, None)

    def _turn(self) -> None:
        for _ in range(_TURN):
            with self._lock:
                if not self._work:
                    self._is_running = False
                    return
                work = self._work.popleft()
            work()
            del work
        self._threads.put(self._turn)


def _start(
    put: Callable[[Work], None], work: Callable[[], T], discard: Callable[[T], object] | None
) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T) -> None:
        if not future.done():
            future.set_result(result)
        elif discard is not None:
            put(lambda: _ignore(discard, result))

    def fail(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def job() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  it belongs to whoever waits
            post(loop, fail, error)
            return
        if not post(loop, settle, result) and discard is not None:
            _ignore(discard, result)

    put(job)
    return future


def _ignore(discard: Callable[[T], object], result: T) -> None:
    try:
        discard(result)
    except OSError:
        return  # nobody is left to be told
