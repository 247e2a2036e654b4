"""Starting and ending the second process of a bench run."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from woodpecker.errors import Unavailable

_SOURCE = str(Path(__file__).resolve().parents[2])
LINE_LIMIT_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
