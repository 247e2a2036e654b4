"""Starting and ending the second process of a bench run."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from woodpecker.errors import Unavailable

_SOURCE = str(Path(__file__).resolve().parents[2])
LINE_LIMIT_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
HOST = "127.0.0.1"
START_TRIES, TRY_S = 1200, 0.05
STOP_TIMEOUT_S = 10.0
TAIL_BYTES = 1500


def child_environment() -> dict[str, str]:
    """This environment, in which a child finds the same Woodpecker."""
    path = os.pathsep.join(filter(None, [_SOURCE, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def end_with_parent() -> None:
    """For ``preexec_fn``: a process that does not outlive a bench that was killed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@asynccontextmanager
async def child(*args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``bench.child`` with ``args``, once it is ready; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "woodpecker.bench.child", *args,
        stdout=asyncio.subprocess.PIPE, env=child_environment(),
        limit=LINE_LIMIT_BYTES, preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise Unavailable(f"the second process of the bench ended early: {args}")
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(
    argv: Sequence[str], port: int, log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server once it listens on ``port``; ended at the end. Raises: Unavailable: it does not start."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            env=child_environment(), preexec_fn=end_with_parent,
            start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(START_TRIES):
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                break
            if process.returncode is not None:
                raise Unavailable(f"{argv[0]} has ended: {_end_of(log)}")
            await asyncio.sleep(TRY_S)
        else:
            raise Unavailable(f"{argv[0]} does not listen: {_end_of(log)}")
        yield process
    finally:
        await end(process)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL_BYTES:]


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process: kindly, then at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
                return
