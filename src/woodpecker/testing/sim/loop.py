"""A virtual event loop shared by several simulated processes, which it can stop, wake and kill.

A process is a mark in the context of its tasks. Everything a task starts inherits the mark, and the
loop looks at it before it runs a callback: callbacks of a stopped process are kept back until it goes
on, those of a killed one never run again, not even ``finally``. Code without a mark is the world:
servers, networks, whoever orders the faults.

Between processes there is no order that anybody could rely on: with ``interleave`` a seed draws it.
Within one process callbacks run in the order asyncio promises.
"""

# ruff: noqa: SLF001  a loop is made of the private parts of asyncio's

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import sys
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from woodpecker.testing.virtual import Hang, VirtualLoop

T = TypeVar("T")

_CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
CLOSINGS = 100  # ``finally`` blocks that wait, one inside the other
MAX_TURNS = 1_500_000  # of the loop: a run that goes on for ever fails,
MAX_STILL_TURNS = 50_000  # ... and one that does not let time pass


class Process:
    """A simulated operating-system process: its tasks live and die together."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_stopped = False
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self._context = contextvars.copy_context()
        self._context.run(_CURRENT.set, self)
        self.tasks: list[asyncio.Task[Any]] = []

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``work`` as a task of this process."""
        task = self._loop.create_task(work, name=f"{self.name}: {name}", context=self._context)
        self.tasks.append(task)
        return task

    def stop(self) -> None:
        """As SIGSTOP: nothing of it runs until ``wake``; what it has sent goes on its way."""
        self.is_stopped = True

    def wake(self) -> None:
        """As SIGCONT: what became due meanwhile runs now, in its order."""
        self.is_stopped = False
        if self.is_dead:
            return
        held, self._held = self._held, []
        self._loop.put_back(held)

    def kill(self) -> None:
        """As SIGKILL, for good: nothing of it ever runs again."""
        self.is_dead = True

    def hold(self, handle: asyncio.Handle) -> None:
        """For the loop: a callback that may not run now.

        Those of a killed process are kept as well: dropped, they would take tasks with them, which complain.
        """
        self._held.append(handle)


def current() -> Process | None:
    """The process whose code is running; None: the world's."""
    return _CURRENT.get()


class SimLoop(VirtualLoop):
    """See the module.

    Args:
        interleave: draws whose callback comes next; None: first come, first served.
    """

    _ready: Any
    _scheduled: list[Any]
    _selector: Any
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self, interleave: random.Random | None = None) -> None:
        super().__init__()
        self._interleave = interleave
        self.world = contextvars.copy_context()  # to run what no process does
        self.turns = 0
        self._still_turns = 0

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Make ``handles`` ready again, in their order."""
        self._ready.extend(handles)

    def at_ms(self, delay_ms: float, act: Any, *args: Any) -> asyncio.TimerHandle:
        """Have the world do something later, whatever becomes of the process that asks."""
        return self.call_later(delay_ms / 1000, act, *args, context=self.world)

    def _write_to_self(self) -> None:
        """Nobody sleeps: there is nobody to be woken."""

    def _run_once(self) -> None:
        self.turns += 1
        self._still_turns += 1
        if self.turns > MAX_TURNS or self._still_turns > MAX_STILL_TURNS:
            raise Hang(f"no end after {self.turns} turns of the loop, at {self.time():.6f} s")
        if not self._ready and not self._stopping:
            self._move_clock()
        self._take_due()
        batch = [self._ready.popleft() for _ in range(len(self._ready))]
        if self._interleave is not None and len(batch) > 1:
            batch = _interleaved(batch, self._interleave)
        for handle in batch:
            if handle._cancelled:
                continue
            process = handle._context.get(_CURRENT)
            if process is None or not (process.is_stopped or process.is_dead):
                handle._run()
            else:
                process.hold(handle)

    def _move_clock(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            self._selector.select(None)  # nothing can happen: Hang
        pause_s = max(0.0, scheduled[0].when() - self.time())
        if pause_s > 0:
            self._still_turns = 0
        self._selector.select(pause_s)

    def _take_due(self) -> None:
        scheduled, now = self._scheduled, self.time() + 1e-9
        while scheduled and scheduled[0].when() < now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(handle)


def _interleaved(batch: list[Any], rng: random.Random) -> list[Any]:
    """The same callbacks, each process's in its order, processes mixed at random."""
    queues: dict[Process | None, list[Any]] = {}
    for handle in batch:
        queues.setdefault(handle._context.get(_CURRENT), []).append(handle)
    if len(queues) == 1:
        return batch
    turns = [process for process, queue in queues.items() for _ in queue]
    rng.shuffle(turns)
    upcoming = {process: iter(queue) for process, queue in queues.items()}
    return [next(upcoming[process]) for process in turns]


@contextmanager
def simulated_loop(interleave: random.Random | None = None) -> Iterator[SimLoop]:
    """A loop for one run; afterwards everything that never ended is let go of, silently.

    The garbage collector rests meanwhile: when it runs would depend on what ran before.
    """
    loop = SimLoop(interleave)
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield loop
    finally:
        _bury(loop)
        if was_collecting:
            gc.enable()


def _close(coroutine: Any) -> None:
    """Whatever it still wants to do, and wherever it wants to wait: nobody is there."""
    for _ in range(CLOSINGS):
        with suppress(BaseException):
            coroutine.close()
            return


def _bury(loop: SimLoop) -> None:
    """Killed processes never ran their ``finally``; close their frames where nobody listens."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tasks: list[Any] = sorted(asyncio.all_tasks(loop), key=hash)
            for task in tasks:
                task._log_destroy_pending = False
                _close(task.get_coro())
            loop._ready.clear()
            loop._scheduled.clear()
            loop.close()
            gc.collect()
    finally:
        sys.unraisablehook = hook
