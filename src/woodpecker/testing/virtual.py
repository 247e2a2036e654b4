"""An event loop on which time is only a number: waits cost nothing, and a hang is an error at once.

``run(main(runtime))`` runs it to its end. When every task waits and no timer is set, nothing can ever
happen again: ``Hang`` is raised, naming the tasks. Only for code without threads, sockets and files.
"""

from __future__ import annotations

import asyncio
import functools
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

START_US = 1_700_000_000_000_000  # the wall clock when a run begins


class Hang(AssertionError):
    """Every task waits for something that nothing can bring about."""


class _Task(asyncio.Task[Any]):
    """Hashes by its number: sets of tasks come out in one order in every run."""

    def __init__(self, work: Any, *, loop: VirtualLoop, **kwargs: Any) -> None:
        loop.spawned += 1
        self._number = loop.spawned
        super().__init__(work, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _Clock(selectors.BaseSelector):
    """A selector without files: to wait is to move the clock."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self.loop))
            raise Hang(f"nothing can happen any more at {self.now_s:.3f} s; waiting: {waiting}")
        self.now_s += timeout
        return []

    loop: asyncio.AbstractEventLoop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module; remembers what its exception handler was told in ``complaints``."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self._clock.loop = self
        self.spawned = 0  # tasks; a loop counts its own, whatever ran before it
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.set_task_factory(lambda _, work, **kw: _Task(work, loop=self, **kw))

    def time(self) -> float:
        return self._clock.now_s


class VirtualRuntime:
    """``Runtime`` on a virtual loop: one seed, one run."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.tasks: list[asyncio.Task[Any]] = []
        self.clock_jump_us = 0  # set it to let the wall clock jump

    def now_us(self) -> int:
        return START_US + int(asyncio.get_running_loop().time() * 1e6) + self.clock_jump_us

    def monotonic_ms(self) -> float:
        return asyncio.get_running_loop().time() * 1000

    def token(self) -> str:
        return f"{self.rng.getrandbits(128):032x}"

    def random(self) -> float:
        return self.rng.random()

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1000)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks = [other for other in self.tasks if not other.done()]
        self.tasks.append(task)
        return task

    def running(self) -> list[str]:
        """Names of the tasks that were spawned and have not ended."""
        return [task.get_name() for task in self.tasks if not task.done()]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on a loop of its own.

    Raises: what ``work`` raises; Hang; AssertionError: an exception that nobody took reached the loop.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(work)
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
    assert not loop.complaints, loop.complaints
    return result


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make an asynchronous test a plain one that runs on virtual time."""

    @functools.wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))  # type: ignore[arg-type]

    return plain
