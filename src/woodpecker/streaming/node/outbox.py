"""The way out of one stream: frames are put without waiting and sent in order by one task.

What may lie here is bounded by those who put it: credit of consumers, batches in flight of producers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Generic, TypeVar

from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.ports import Stream

Frame = TypeVar("Frame")

FRAME_BYTES = 256  # what a frame takes that has no data, about


class Outbox(Generic[Frame]):
    """Frames of one stream that are not sent yet."""

    def __init__(self, stream: Stream[Frame, Any]) -> None:
        self._stream = stream
        self._frames: deque[tuple[Frame, int]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._is_ending = False
        self.size_bytes = 0

    def put(self, frame: Frame, size_bytes: int = FRAME_BYTES) -> None:
        """Send it after all before it; dropped once the stream has ended."""
        if self._is_ending:
            return
        self._frames.append((frame, size_bytes))
        self.size_bytes += size_bytes
        self._wake.set()

    @property
    def backlog(self) -> int:
        """Frames that are not sent yet."""
        return len(self._frames)

    def end(self, *last: Frame) -> None:
        """Send what is here and ``last``, then nothing more. Idempotent."""
        for frame in last:
            self.put(frame)
        self._is_ending = True
        self._wake.set()

    async def wait_below(self, size_bytes: int) -> None:
        """Wait until less than this lies here: who can wait does not fill it for those who cannot."""
        while self.size_bytes >= size_bytes and not self._is_ending:
            self._room.clear()
            await self._room.wait()

    async def run(self) -> None:
        """Send until ``end``, or until the other side has gone; then whatever is put is dropped."""
        try:
            while self._frames or not self._is_ending:
                if not self._frames:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                frame, size_bytes = self._frames.popleft()
                await self._stream.send(frame)
                self.size_bytes -= size_bytes
                self._room.set()
        except Refused:  # the stream is cut: its other side knows what that means
            self._frames.clear()
        finally:
            self._is_ending = True
            self._room.set()
