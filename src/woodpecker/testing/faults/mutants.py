"""Bugs planted on purpose, to see that the runs find them; a worker's setting ``mutant`` names one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from woodpecker.client.writer import LogWriter
from woodpecker.segments import object as object_kind
from woodpecker.segments.file_side import SideFile


def forget_the_last_block() -> None:
    """Recovery of kind ``object`` fixes the end one block too early."""
    walker = object_kind._Walker  # noqa: SLF001
    run = walker.run

    async def shorter(self: Any) -> int:
        return max(0, await run(self) - 1)

    walker.run = shorter  # type: ignore[method-assign]


def acknowledge_at_once() -> None:
    """Futures of ``submit`` are answered when the entry is in the queue, not when it is durable."""
    submit = LogWriter.submit

    def hasty(self: LogWriter, *args: Any, **named: Any) -> asyncio.Future[Any]:
        seq = self.next_seq
        submit(self, *args, **named).add_done_callback(_forget)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(seq)
        return done

    LogWriter.submit = hasty  # type: ignore[method-assign]


def _forget(late: asyncio.Future[Any]) -> None:
    if not late.cancelled():
        late.exception()


def ignore_the_fence() -> None:
    """Writers of kind ``file`` do not look at the fence word."""
    SideFile.is_fenced = property(lambda _: False)  # type: ignore[assignment]


MUTANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (forget_the_last_block, acknowledge_at_once, ignore_the_fence)
}
