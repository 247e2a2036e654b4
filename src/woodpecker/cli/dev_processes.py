"""The processes of a development cluster: started, waited for, watched and ended."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from woodpecker.cli.dev_layout import Program
from woodpecker.errors import Unavailable
from woodpecker.runtime.runtime import SystemRuntime

START_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 15.0
POLL_MS = 50
ASK_TIMEOUT_S = 2.0
TAIL_BYTES = 1500
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Child:
    """One running process; its output goes to its log.

    In a session of its own, so that Ctrl-C on the terminal reaches only the command that started it.
    """

    def __init__(self, program: Program, process: asyncio.subprocess.Process) -> None:
        self.program = program
        self._process = process
        self._watch = SystemRuntime().spawn(process.wait(), f"watch {program.name}")

    @classmethod
    async def start(cls, program: Program, directory: Path) -> Child:
        """Start it; does not wait until it serves. Raises: Unavailable."""
        program.log.parent.mkdir(exist_ok=True)
        try:
            with program.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *program.argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, preexec_fn=_end_with_parent,
                )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"{program.name} cannot be started: {error}") from error
        return cls(program, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False once it has ended."""
        return self._process.returncode is None

    def on_end(self, call: Callable[[Child, int], None]) -> None:
        """Call with the exit code when it ends."""

        def done(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                call(self, task.result())

        self._watch.add_done_callback(done)

    async def wait_ready(self) -> None:
        """Wait until it serves. Raises: Unavailable with the end of its output."""
        runtime = SystemRuntime()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await asyncio.to_thread(_answers, self.program.ready_url):
                    if not self.is_running:
                        raise Unavailable(self._failed("ended at once"))
                    await runtime.sleep_ms(POLL_MS)
        except TimeoutError:
            raise Unavailable(self._failed("does not get ready")) from None

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.is_running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting for it."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._watch)
        except TimeoutError:
            return False
        return True

    def _failed(self, what: str) -> str:
        with self.program.log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - TAIL_BYTES))
            tail = log.read().decode(errors="replace").strip()
        return f"{self.program.name} {what}; {self.program.log} ends with: {tail}"


async def stop_all(children: Sequence[Child]) -> None:
    """SIGTERM to all, in a while SIGKILL; returns when all have ended."""
    for child in children:
        child.signal(signal.SIGTERM)
    for child in children:
        if not await child.ended(STOP_TIMEOUT_S):
            child.signal(signal.SIGKILL)
            await child.ended(STOP_TIMEOUT_S)


def _answers(url: str) -> bool:
    """Whether the process says that it is ready: any other answer, or none, is a no."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ASK_TIMEOUT_S) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError):
        return False


def _end_with_parent() -> None:
    """In the child: if the command is killed outright, its processes still end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
