"""One connection on a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp_stream import Stream

SENT_BYTES = 8 << 20  # more than a socket takes


class Owner:
    """Notes the end."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def connected(self) -> None:
        pass

    def took(self, frame: object) -> None:
        raise AssertionError(frame)

    def drained(self) -> None:
        pass

    def broken(self, why: str, error: Exception | None) -> None:
        self.ends.append(why)


async def test_a_connection_that_has_ended_is_not_broken_once_more():
    """The peer closes while asyncio still sends: it ends by itself then, and breaks if it is aborted after that."""
    loop, owner, complaints = asyncio.get_running_loop(), Owner(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    near, far = socket.socketpair()
    far.setblocking(False)
    scratch = memoryview(bytearray(1 << 16))
    stream = Stream(owner, WireSettings(), lambda _, size: memoryview(bytearray(size)), scratch)
    await loop.create_connection(lambda: stream, sock=near)
    stream.send(b"", [bytes(SENT_BYTES)])
    far.shutdown(socket.SHUT_WR)
    got = 0
    while got < SENT_BYTES and not owner.ends:
        got += len(await loop.sock_recv(far, 1 << 20))
    while not owner.ends:
        await asyncio.sleep(0)
    stream.abort("too late")
    for _ in range(5):
        await asyncio.sleep(0)
    far.close()
    assert not complaints
    assert len(owner.ends) == 1
