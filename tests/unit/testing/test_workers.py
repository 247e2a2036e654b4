"""The orchestrator's side of worker processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from woodpecker.testing.faults.job import Job
from woodpecker.testing.faults.workers import Worker, Workers


class SlowZygote:
    """Answers late; like the real one it tells a status once."""

    def __init__(self) -> None:
        self.stdin = self.stdout = self
        self._left = {1: 0, 2: -9}
        self._asked: list[int] = []
        self.gate = asyncio.Event()

    def write(self, line: bytes) -> None:
        self._asked.append(json.loads(line)["poll"])

    async def readline(self) -> bytes:
        await self.gate.wait()
        return b"%d\n" % self._left.pop(self._asked.pop(0))


async def test_an_answer_that_nobody_waits_for_any_more_is_taken_down(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    zygote: Any = SlowZygote()
    workers._zygote = zygote
    job = Job(role="writer", name="w", log="l", url="memory://", directory=".", seed=0)
    first, second = Worker(job=job, pid=1), Worker(job=job, pid=2)
    assert not await workers.heard(first, "loaded", 0.1)
    zygote.gate.set()
    assert await workers.wait(second) == -9
    assert await workers.wait(first) == 0
