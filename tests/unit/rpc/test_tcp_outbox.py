"""When frames leave."""

from __future__ import annotations

import asyncio
import socket

from woodpecker.rpc.tcp_outbox import FULL_PARTS, Outbox


class Plain:
    """As much of a transport as is asked for while the socket has room."""

    def __init__(self, sock: socket.socket) -> None:
        self.extra = {"socket": sock}

    def get_extra_info(self, name):
        return self.extra.get(name)

    def set_write_buffer_limits(self, high, low):
        pass


async def test_frames_of_a_turn_leave_first_then_many_then_at_its_end():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(Plain(ours), failed=lambda _: None)  # type: ignore[arg-type]

        def came():
            try:
                return theirs.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return b""

        outbox.put(b"a")
        assert came() == b"a"
        for _ in range(FULL_PARTS - 1):
            outbox.put(b"b")
        assert came() == b""
        outbox.put(b"c")
        assert came() == b"b" * (FULL_PARTS - 1) + b"c", "the other side can begin"
        outbox.put(b"d")
        assert came() == b""
        await asyncio.sleep(0)
        assert came() == b"d"
        assert outbox.unsent_bytes == 0
