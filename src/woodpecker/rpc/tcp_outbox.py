"""What a connection sends, in order, without joining large parts; the network sets the pace."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from woodpecker.codec.compression import Buffer

PARTS_AT_ONCE = 256  # of one system call
FULL_PARTS = 64  # frames of one turn do not wait for its end any more
SLICE_BYTES = 64 << 10  # copied at most when the socket is full, and joined at most for TLS


class Outbox:
    """The sending half of one connection.

    The first frame of a turn of the loop leaves at once, those that follow in the same turn together at
    its end, or when they are many: the other side begins while we go on. Parts go from where they are to the socket; only when it is full is one slice handed to
    asyncio's transport, which then waits for room.

    Args:
        failed: told why, when the system refuses to send.
    """

    def __init__(self, transport: asyncio.Transport, failed: Callable[[OSError], None]) -> None:
        self._transport = transport
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._is_plain = transport.get_extra_info("sslcontext") is None
        self._socket = transport.get_extra_info("socket").fileno()
        self._parts: deque[Buffer] = deque()
        self._bytes = 0
        self._is_blocked = False  # the transport has something left: the socket is full
        self._is_corked = False  # something has left in this turn
        self._is_closed = False
        # told as soon as anything is left; asyncio's TLS means "at least", its sockets "more than"
        transport.set_write_buffer_limits(high=0 if self._is_plain else 1, low=0)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the network has not taken."""
        if not self._is_blocked:
            return self._bytes
        return self._bytes + self._transport.get_write_buffer_size()

    def put(self, head: bytes, parts: Sequence[Buffer] = ()) -> None:
        """Send a frame."""
        self._parts.append(head)
        self._bytes += len(head)
        for part in parts:
            self._parts.append(part)
            self._bytes += len(part)
        if not self._is_corked:
            self._is_corked = True
            self._loop.call_soon(self._uncork)
            self.flush()
        elif len(self._parts) >= FULL_PARTS:
            self.flush()

    def block(self) -> None:
        """The transport has more than the socket takes."""
        self._is_blocked = True

    def unblock(self) -> None:
        """It has sent everything."""
        self._is_blocked = False
        self.flush()

    def close(self) -> None:
        """Nothing can be sent any more."""
        self._is_closed = True
        self._parts.clear()
        self._bytes = 0

    def flush(self) -> None:
        """Send what the socket takes now."""
        while self._parts and not self._is_blocked and not self._is_closed:
            if self._is_plain:
                self._write()
            else:
                self._hand_over()

    def _uncork(self) -> None:
        self._is_corked = False
        self.flush()

    def _write(self) -> None:
        try:
            sent = os.writev(self._socket, list(islice(self._parts, PARTS_AT_ONCE)))
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.close()
            self._failed(error)
            return
        self._bytes -= sent
        while self._parts and sent >= len(self._parts[0]):
            sent -= len(self._parts.popleft())
        if sent:
            self._parts[0] = memoryview(self._parts[0])[sent:]
        if self._parts:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the transport about one slice: small parts together, or the beginning of a large one."""
        slices: list[Buffer] = []
        room = SLICE_BYTES
        while self._parts and room > 0:
            part = self._parts.popleft()
            if len(part) > room:
                view = memoryview(part)
                self._parts.appendleft(view[room:])
                part = view[:room]
            slices.append(part)
            room -= len(part)
        self._bytes -= SLICE_BYTES - room
        self._transport.write(b"".join(slices))
