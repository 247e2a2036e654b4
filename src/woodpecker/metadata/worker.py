"""A thread that runs blocking calls, one after the other or several at once, and answers to asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue
from typing import Any, TypeVar

AT_ONCE = 256  # calls taken from the queue

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one call: what it returned, or what it raised."""

    result: object = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A call that waits for its turn.

    Attributes:
        joins: it may run together with its neighbours, and again if that came to nothing.
        writes: it changes something.
    """

    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    joins: bool
    writes: bool

    def run(self) -> Outcome:
        """Make the call."""
        try:
            return Outcome(result=self.call())
        except BaseException as error:  # noqa: BLE001  belongs to the caller, not to this thread
            return Outcome(error=error)

    def answer(self, outcome: Outcome) -> None:
        """Tell the caller."""
        try:
            self.loop.call_soon_threadsafe(self._resolve, outcome)
        except RuntimeError:  # the loop is closed: nobody waits
            return

    def _resolve(self, outcome: Outcome) -> None:
        if self.future.done():
            return
        if outcome.error is None:
            self.future.set_result(outcome.result)
        else:
            self.future.set_exception(outcome.error)


class Worker:
    """One daemon thread, started by the first call; calls of any event loop keep their order.

    Cancelling a call does not stop it: it runs, and its result is dropped.

    Args:
        together: runs neighbours in the queue that join; their outcomes, in order.
    """

    def __init__(self, name: str, together: Callable[[Sequence[Job]], Sequence[Outcome]]) -> None:
        self._name = name
        self._together = together
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], T], *, joins: bool = False, writes: bool = False) -> T:
        """Run ``call`` in the thread and return its result or raise its error; see ``Job``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(Job(call=call, loop=loop, future=future, joins=joins, writes=writes))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return await future

    def stop(self) -> None:
        """End the thread after the calls it has; nothing may be called afterwards."""
        self._jobs.put(None)

    def _work(self) -> None:
        while self._run_those_waiting():
            pass

    def _run_those_waiting(self) -> bool:
        """Run what stands in the queue; wait for one if nothing does. False: it was the last."""
        jobs = [self._jobs.get()]
        while jobs[-1] is not None and len(jobs) < AT_ONCE and not self._jobs.empty():
            jobs.append(self._jobs.get())
        for joins, group in groupby(filter(None, jobs), key=attrgetter("joins")):
            neighbours = list(group)
            if joins and len(neighbours) > 1:
                try:
                    outcomes = self._together(neighbours)
                except Exception as error:  # noqa: BLE001  else the thread ends, and all calls wait for ever
                    outcomes = [Outcome(error=error)] * len(neighbours)
                for job, outcome in zip(neighbours, outcomes, strict=True):
                    job.answer(outcome)
            else:
                for job in neighbours:
                    job.answer(job.run())
        return jobs[-1] is not None
