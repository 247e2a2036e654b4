"""Back-pressure of one producer: its queue is bounded in bytes, and nobody overtakes those who wait."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Bytes that may be queued; one item is always admitted when there is nothing else."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        self._refused_bytes = 0  # largest item refused since somebody waited until it is ready
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size_bytes: int) -> bool:
        """Take room now, if there is any and nobody waits for it."""
        if self._line or not self._has(size_bytes):
            return False
        self.taken_bytes += size_bytes
        return True

    def refuse(self, size_bytes: int) -> None:
        """Somebody was sent away with so much; ``ready`` waits for room for it."""
        self._refused_bytes = max(self._refused_bytes, size_bytes)

    async def ready(self) -> None:
        """Wait until what was refused would be taken."""
        size_bytes, self._refused_bytes = self._refused_bytes, 0
        await self.enter(size_bytes)
        self.leave(size_bytes)

    async def enter(self, size_bytes: int) -> None:
        """Take room, when there is; first come, first served. Cancellation: none is taken."""
        if self.take(size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = (size_bytes, turn)
        self._line.append(ticket)
        try:
            await turn
        except asyncio.CancelledError:
            if ticket in self._line:
                self._line.remove(ticket)
                self._let_in()
            else:
                self.leave(size_bytes)
            raise

    def leave(self, size_bytes: int) -> None:
        """Give room back."""
        self.taken_bytes -= size_bytes
        self._let_in()

    def open_up(self) -> None:
        """Nothing is taken any more: let everybody go, to be refused."""
        while self._line:
            self._admit()

    def _has(self, size_bytes: int) -> bool:
        return self.taken_bytes == 0 or self.taken_bytes + size_bytes <= self.limit_bytes

    def _let_in(self) -> None:
        while self._line and self._has(self._line[0][0]):
            self._admit()

    def _admit(self) -> None:
        size_bytes, turn = self._line.popleft()
        self.taken_bytes += size_bytes
        if not turn.done():  # else it was cancelled just now, and gives the room back itself
            turn.set_result(None)
