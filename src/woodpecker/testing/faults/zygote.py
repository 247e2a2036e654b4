"""Starts worker processes quickly: everything is imported once, each worker is a fork.

A request is one line of JSON on stdin, an answer one line on stdout: ``{"job": ...}`` starts a worker
and answers its pid; ``{"poll": pid}`` answers its status once it has ended, else null, and forgets it.
Until it has been polled an ended worker stays a zombie: its pid is never somebody else's. At the end of
stdin all workers are killed. Nothing here has a loop, a thread or a client, so forks are safe.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from woodpecker import app
from woodpecker.testing.faults.job import Job
from woodpecker.testing.faults.mutants import MUTANTS
from woodpecker.testing.faults.readers import FollowerRole, TrimmerRole
from woodpecker.testing.faults.recorder import Recorder
from woodpecker.testing.faults.writer import WriterRole

__all__ = ["app", "main"]


class Role(Protocol):
    """What a worker does."""

    held: int

    def stop(self) -> None: ...

    async def run(self) -> None: ...


ROLES: dict[str, Callable[[Job, Recorder], Role]] = {
    "writer": WriterRole,
    "follower": FollowerRole,
    "trimmer": TrimmerRole,
}


def main() -> None:
    """Serve until stdin ends."""
    workers: set[int] = set()
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        answer: int | None
        if "job" in request:
            answer = _fork(Job(**request["job"]))
            workers.add(answer)
        else:
            answer = _poll(request["poll"])
            if answer is not None:
                workers.discard(request["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(job: Job) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _work(job)
        except BaseException:  # noqa: BLE001  it must never get back into the parent's loop
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def _work(job: Job) -> int:
    """The life of a worker; returns its exit status."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # the answers of the parent
    signal.alarm(job.max_s)
    os.environ.update(job.env)
    if "mutant" in job.settings:
        MUTANTS[job.settings["mutant"]]()
    recorder = job.recorder()
    try:
        asyncio.run(_run(job, recorder))
    except Exception:  # noqa: BLE001  the history is where it is read
        recorder.note("failed", traceback.format_exc())
        return 1
    return 0


async def _run(job: Job, recorder: Recorder) -> None:
    role: Role = ROLES[job.role](job, recorder)
    loop = asyncio.get_running_loop()

    def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        others = {
            key: value for key, value in context.items() if key not in ("message", "exception")
        }
        recorder.note("failed", f"{trace}{context.get('message')}: {others}")

    loop.set_exception_handler(unhandled)
    loop.add_signal_handler(signal.SIGTERM, role.stop)
    await role.run()
    recorder.ended(held=role.held)


if __name__ == "__main__":
    main()
