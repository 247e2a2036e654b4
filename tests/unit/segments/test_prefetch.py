from __future__ import annotations

import asyncio
from functools import partial

import pytest

from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.prefetch import Load, closing, in_order


class Counting(SystemRuntime):
    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[object]] = []

    def spawn(self, work, name):
        task = super().spawn(work, name)
        self.tasks.append(task)
        return task


class Loads:
    """Loads that end when told; knows how many bytes were under way or held at most."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.started: list[int] = []
        self.gates = [asyncio.Event() for _ in sizes]

    async def one(self, number: int) -> int:
        self.started.append(number)
        await self.gates[number].wait()
        if self.sizes[number] < 0:
            raise ValueError(number)
        return number

    def __iter__(self):
        return (
            Load(size_bytes=abs(size), start=partial(self.one, n))
            for n, size in enumerate(self.sizes)
        )


async def test_results_come_in_order_whatever_ends_first() -> None:
    loads = Loads([1] * 9)
    results = in_order(Counting(), loads, max_loads=4, max_bytes=100)
    for gate in reversed(loads.gates):
        gate.set()
    assert [n async for n in results] == list(range(9))


async def test_it_begins_gently_and_is_bounded_in_number() -> None:
    loads = Loads([1] * 20)
    results = in_order(Counting(), loads, max_loads=6, max_bytes=100)
    seen = []
    for gate in loads.gates:
        gate.set()
    async with closing(results):
        async for n in results:
            await asyncio.sleep(0.001)
            seen.append(len(loads.started) - n)  # this one, and those started ahead of it
    assert seen[0] == 2
    assert max(seen) == 1 + 6 - 1


async def test_bytes_are_bounded_and_a_larger_load_runs_alone() -> None:
    loads = Loads([40, 40, 40, 500, 10])
    for gate in loads.gates:
        gate.set()
    results = in_order(Counting(), loads, max_loads=8, max_bytes=100)
    ahead = []
    async for _ in results:
        await asyncio.sleep(0.001)
        ahead.append(len(loads.started))
    assert ahead == [2, 3, 3, 4, 5]


async def test_a_failure_ends_it_and_cancels_the_rest() -> None:
    runtime = Counting()
    loads = Loads([1, -1, 1, 1])
    loads.gates[0].set()
    loads.gates[1].set()
    results = in_order(runtime, loads, max_loads=4, max_bytes=100)
    assert await anext(results) == 0
    with pytest.raises(ValueError, match="1"):
        await anext(results)
    assert all(task.done() for task in runtime.tasks)


async def test_closing_and_cancelling_end_what_runs() -> None:
    for steps in range(6):
        runtime = Counting()
        loads = Loads([1] * 8)
        loads.gates[0].set()

        async def consume(runtime=runtime, loads=loads) -> None:
            results = in_order(runtime, loads, max_loads=4, max_bytes=100)
            async with closing(results):
                async for _ in results:
                    pass

        task = asyncio.get_running_loop().create_task(consume())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(task.done() for task in runtime.tasks)
