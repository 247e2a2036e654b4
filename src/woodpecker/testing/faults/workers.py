"""The orchestrator's side of worker processes: start, signal, kill, wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from woodpecker.errors import Unavailable
from woodpecker.testing.faults.job import Job

POLL_S = 0.003
ANSWER_TIMEOUT_S = 30
WAIT_S = 60.0


@dataclass(slots=True, kw_only=True)
class Worker:
    """One life of one process. ``status``: exit code, or minus the signal, once it has ended."""

    job: Job
    pid: int
    status: int | None = None
    words: dict[str, asyncio.Event] = field(default_factory=dict)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Ended processes stay zombies until waited for, so the pid is its own."""
        if self.status is None:
            os.kill(self.pid, number)

    def said(self, word: str) -> asyncio.Event:
        """Set when the worker says ``word`` ("opening", "loaded", "closing", "leaving")."""
        return self.words.setdefault(word, asyncio.Event())


class Workers:
    """All workers of one run; ``async with``. At the end all are killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started = 0
        self._by_name: dict[str, Worker] = {}
        self._zygote: asyncio.subprocess.Process | None = None
        self._signals: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._look_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._signals = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._signals.settimeout(0)
        self._signals.bind(str(self.directory / "signals"))
        asyncio.get_running_loop().add_reader(self._signals, self._heard)
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "woodpecker.testing.faults.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._zygote is not None and self._zygote.stdin is not None
        self._zygote.stdin.close()
        await self._zygote.wait()
        if self._signals is not None:
            asyncio.get_running_loop().remove_reader(self._signals)
            self._signals.close()

    async def start(self, job: Job) -> Worker:
        """Start a worker."""
        pid = await self._ask({"job": asdict(job)})
        assert pid is not None
        worker = Worker(job=job, pid=pid)
        self._by_name[job.name] = worker
        self.started += 1
        return worker

    async def kill(self, worker: Worker) -> bool:
        """SIGKILL and wait; returns whether it still lived."""
        worker.signal(signal.SIGKILL)
        return await self.wait(worker) == -signal.SIGKILL

    async def wait(self, worker: Worker, timeout_s: float = WAIT_S) -> int:
        """Wait for its end. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not await self._has_ended(worker):  # noqa: ASYNC110  another process sets it
                await asyncio.sleep(POLL_S)
        assert worker.status is not None
        return worker.status

    async def heard(self, worker: Worker, word: str, timeout_s: float = WAIT_S) -> bool:
        """Wait until it says ``word``; False: it ended, or time is up, before it did."""
        said = worker.said(word)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not said.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(said.wait(), 0.05)
                    if not said.is_set() and await self._has_ended(worker):
                        break
        return said.is_set()

    async def has_failed(self, worker: Worker) -> bool:
        """Whether it has ended by an error of its own."""
        return await self._has_ended(worker) and bool(worker.status)

    async def _has_ended(self, worker: Worker) -> bool:
        # who gives up waiting must not take the answer away: it is told once
        await asyncio.shield(asyncio.ensure_future(self._look(worker)))
        return worker.status is not None

    async def _look(self, worker: Worker) -> None:
        async with self._look_lock:
            if worker.status is None:
                worker.status = await self._ask({"poll": worker.pid})

    async def _ask(self, request: object) -> int | None:
        assert self._zygote is not None
        stdin, stdout = self._zygote.stdin, self._zygote.stdout
        assert stdin is not None and stdout is not None
        async with self._lock, asyncio.timeout(ANSWER_TIMEOUT_S):
            stdin.write(json.dumps(request).encode() + b"\n")
            line = await stdout.readline()
        if not line:
            raise Unavailable("the process that starts workers has ended")
        answer: int | None = json.loads(line)
        return answer

    def _heard(self) -> None:
        assert self._signals is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                name, _, word = self._signals.recv(200).decode().partition(" ")
                if name in self._by_name:
                    self._by_name[name].said(word).set()
