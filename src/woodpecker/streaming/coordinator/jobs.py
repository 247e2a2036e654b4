"""Short pieces of work that run beside one another, each under a name, so many at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.core.refusals import Refused

_log = logging.getLogger("woodpecker.streaming")


class Jobs:
    """See the module. What a job raises of the stores and nodes goes to the log: whoever started it looks
    at the state, not at the job. One event loop.
    """

    def __init__(self, runtime: Runtime, *, at_once: int) -> None:
        self._runtime = runtime
        self._room = asyncio.Semaphore(at_once)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_over = False

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, name: str, work: Coroutine[Any, Any, object]) -> bool:
        """Begin it, unless one of this name runs, or all have been stopped."""
        if name in self._tasks or self._is_over:
            work.close()
            return False
        task = self._runtime.spawn(self._run(name, work), name)
        self._tasks[name] = task
        return True

    async def stop(self) -> None:
        """End all of them; no other begins."""
        self._is_over = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _run(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        try:
            async with self._room:
                await work
        except (WoodpeckerError, Refused) as error:
            _log.info("%s: %s", name, error)
        except Exception:  # noqa: BLE001  others go on; the log says why
            _log.exception("%s failed", name)
        finally:
            work.close()
            self._tasks.pop(name, None)
