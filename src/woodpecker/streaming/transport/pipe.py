"""One direction of a stream: a bounded queue of frames that can be closed, refused and cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from woodpecker.streaming.core.refusals import Refused

Frame = TypeVar("Frame")


class Pipe(Generic[Frame]):
    """Of one sender's side and one receiver's; one event loop.

    Args:
        capacity: frames not yet taken; who puts more waits.
        ended: makes what is raised on both sides when it was cut, and in ``put`` once it is closed.
    """

    def __init__(self, capacity: int, ended: Callable[[], Refused]) -> None:
        self._capacity = capacity
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._frames: deque[Frame] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        self._turn = asyncio.Lock()  # frames of several senders go in the order in which they came
        self._is_cut = False
        self._takes_more = True
        self._reason: Refused | None = None
        self.is_closed = False

    async def put(self, frame: Frame) -> None:
        """Hand over; waits while there is no room. Raises: Refused(UNKNOWN): closed, refused or cut."""
        async with self._turn:
            while self._takes_more and len(self._frames) >= self._capacity:
                await self._change(None)
            if not self._takes_more:
                raise self._ended()
            self._append(frame)
            self.wake()

    async def take(self) -> Frame | None:
        """The next frame; None: closed after the last one. Raises: Refused: closed for a reason, or cut."""
        while not self._is_cut:
            wait_s = self._wait_s()
            if wait_s is None or wait_s > 0:
                await self._change(wait_s)
            elif self._frames:
                frame = self._pop()
                self.wake()
                return frame
            elif self._reason is not None:
                raise self._reason
            else:
                return None
        raise self._ended()

    def close(self, reason: Refused | None = None) -> None:
        """After what was put: None is taken, or ``reason`` raised. Idempotent; the first one counts."""
        if not self.is_closed:
            self.is_closed = True
            self._reason = reason
            self._takes_more = False
            self.wake()

    def refuse(self) -> None:
        """Nobody takes any more: what waits is dropped."""
        self._takes_more = False
        self._frames.clear()
        self.wake()

    def cut(self) -> None:
        """End both sides at once. Idempotent."""
        self._is_cut = self.is_closed = True
        self.refuse()

    def wake(self) -> None:
        """Whoever waits looks again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # --- for a subclass in which frames take time ---

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)

    def _pop(self) -> Frame:
        return self._frames.popleft()

    def _wait_s(self) -> float | None:
        """Until there is something to take, or the end; None: nobody knows."""
        return 0 if self._frames or self.is_closed else None

    async def _change(self, wait_s: float | None) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        timer = None if wait_s is None else self._loop.call_later(wait_s, self.wake)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
