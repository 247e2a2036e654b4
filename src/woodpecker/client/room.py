"""Back-pressure: appends that wait until a writer's queue has room, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque

from woodpecker.client.queue import Queue


class RoomLine:
    """The line before a full queue. Who is let in has its bytes held until it puts its entry in."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._entering = 0  # let in, but not running yet: nobody overtakes them

    def is_open(self, size_bytes: int) -> bool:
        """Whether an item of this size need not wait."""
        return not self._line and not self._entering and self._queue.has_room(size_bytes)

    async def enter(self, size_bytes: int) -> None:
        """Wait for room; the caller puts its entry in before it awaits anything else."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size_bytes, waiting))
        self.let_in()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._enter(size_bytes)
                self.let_in()
            raise
        self._enter(size_bytes)

    def _enter(self, size_bytes: int) -> None:
        if self._entering:  # not if everybody was sent away by ``open_up``
            self._entering -= 1
            self._queue.bytes -= size_bytes

    def let_in(self) -> None:
        """Let in as many as there is room for."""
        while self._line and self._queue.has_room(self._line[0][0]):
            size_bytes, waiting = self._line.popleft()
            if not waiting.done():
                self._queue.bytes += size_bytes
                self._entering += 1
                waiting.set_result(None)

    def open_up(self) -> None:
        """The writer has ended: let everybody go, to meet its error."""
        while self._line:
            _, waiting = self._line.popleft()
            if not waiting.done():
                waiting.set_result(None)
