"""Back-pressure: appends that wait until a writer's queue has room, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque

from woodpecker.client.queue import Queue


class _Ticket:
    """One who waits; once let in, its bytes are held until it runs and puts its entry in."""

    __slots__ = ("cost_bytes", "is_holding", "turn")

    def __init__(self, cost_bytes: int) -> None:
        self.cost_bytes = cost_bytes
        self.is_holding = False
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class RoomLine:
    """The line before a full queue: nobody overtakes those who wait."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._line: deque[_Ticket] = deque()
        self._entering = 0  # let in, but not running yet

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits or has been let in and not run yet."""
        return bool(self._line or self._entering)

    def is_open(self, cost_bytes: int) -> bool:
        """Whether an item of this cost need not wait."""
        return not self.is_crowded and self._queue.has_room(cost_bytes)

    async def enter(self, cost_bytes: int) -> None:
        """Wait for room; the caller puts its entry in before it awaits anything else."""
        ticket = _Ticket(cost_bytes)
        self._line.append(ticket)
        self._queue.close_quick_way()
        self._queue.has_line = True
        self.let_in()
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket in self._line:
                self._line.remove(ticket)
            self._enter(ticket)
            self.let_in()
            raise
        self._enter(ticket)
        # the caller may yet be refused (disk, timestamp ...), or want no more than to know
        asyncio.get_running_loop().call_soon(self.let_in)

    def _enter(self, ticket: _Ticket) -> None:
        if ticket.is_holding:
            ticket.is_holding = False
            self._entering -= 1
            self._queue.hold(-ticket.cost_bytes)
        self._queue.has_line = self.is_crowded

    def let_in(self) -> None:
        """Let in as many as there is room for."""
        while self._line and self._queue.has_room(self._line[0].cost_bytes):
            ticket = self._line.popleft()
            if not ticket.turn.done():
                ticket.is_holding = True
                self._queue.hold(ticket.cost_bytes)
                self._entering += 1
                ticket.turn.set_result(None)

    def open_up(self) -> None:
        """The writer takes nothing more: let everybody go, to be refused."""
        while self._line:
            ticket = self._line.popleft()
            if not ticket.turn.done():
                ticket.turn.set_result(None)
