"""One connection, as both sides have it: frames in, frames out, signs of life."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol, cast

from woodpecker.codec.compression import Buffer
from woodpecker.codec.frames import Allocate, Frame, Parser, encode
from woodpecker.codec.messages import Ping
from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp_outbox import Outbox

_PING = encode(Ping())


class Owner(Protocol):
    """Whose connection it is."""

    def connected(self) -> None:
        """Frames may be sent."""

    def took(self, frame: Frame) -> None:
        """A frame came. Raises: Corrupt, InvalidRequest: it has no business here."""

    def drained(self) -> None:
        """The network has taken everything that was sent."""

    def broken(self, why: str, error: Exception | None) -> None:
        """Nothing comes and nothing goes any more. ``error``: what the peer sent was no frame, or TLS's."""


class Stream(asyncio.BufferedProtocol):
    """See the module. Made before the connection is; one event loop.

    Args:
        scratch: where to receive, shared by all connections of a loop.
    Attributes:
        parser: its limits may be changed.
        is_paused: nothing is read.
    """

    def __init__(
        self, owner: Owner, settings: WireSettings, allocate: Allocate, scratch: memoryview
    ) -> None:
        self.parser = Parser(allocate, scratch)
        self._owner = owner
        self._settings = settings
        self._transport: asyncio.Transport | None = None
        self._outbox: Outbox | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._why = ""
        self._error: Exception | None = None
        self._has_sent = False  # since the last tick
        self._has_heard = False
        self._silent_ms = 0
        self.is_paused = False
        self._is_lost = False

    # --- for the owner ---

    def send(self, head: bytes, parts: Sequence[Buffer] = ()) -> None:
        """Send a frame; on a broken connection it is dropped."""
        if self._outbox is not None and not self._is_lost:
            self._has_sent = True
            self._outbox.put(head, parts)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the network has not taken."""
        return 0 if self._outbox is None or self._is_lost else self._outbox.unsent_bytes

    @property
    def is_made(self) -> bool:
        """Whether there ever was a connection."""
        return self._transport is not None

    def pause(self, *, should: bool) -> None:
        """Read no further, or go on."""
        if should is self.is_paused or self._transport is None or self._is_lost:
            return
        self.is_paused = should
        if should:
            self._transport.pause_reading()
        else:
            self._silent_ms = 0
            self._transport.resume_reading()

    def close(self, why: str) -> None:
        """Close once what was sent has left; at once if the network does not take it."""
        if self._transport is None or self._is_lost:
            return
        self._why = self._why or why
        if self._outbox is not None:
            self._outbox.flush()
        if self.unsent_bytes:
            self._transport.abort()
        else:
            self._transport.close()

    def abort(self, why: str, error: Exception | None = None) -> None:
        """Break the connection; one that has ended stays as it is."""
        if self._is_lost:
            return
        self._why = self._why or why
        self._error = self._error or error
        if self._transport is not None:
            self._transport.abort()

    # --- for asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        _tune(transport.get_extra_info("socket"))
        self._outbox = Outbox(self._transport, self._cannot_send)
        self._set_timer()
        if self._why:  # given up before it was there
            self._transport.abort()
        else:
            self._owner.connected()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive."""
        return self.parser.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Something was received."""
        self._has_heard = True
        try:
            for frame in self.parser.received(nbytes):
                self._owner.took(frame)
        except (Corrupt, InvalidRequest) as error:
            self.abort(f"it sent what is no frame: {error}", error)

    def eof_received(self) -> None:
        """The peer has closed; asyncio closes in return."""
        self._why = self._why or "the other side closed the connection"

    def pause_writing(self) -> None:
        """The socket is full."""
        if self._outbox is not None:
            self._outbox.block()

    def resume_writing(self) -> None:
        """It has room."""
        if self._outbox is not None and not self._is_lost:
            self._outbox.unblock()
            if not self._outbox.unsent_bytes:
                self._owner.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._outbox is not None:
            self._outbox.close()
        self._owner.broken(self._why or _text(exc), self._error or exc)

    # --- signs of life ---

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._settings.keepalive_ms / 1000, self._tick)

    def _tick(self) -> None:
        """Counted in ticks, not by a clock: a process that was stopped itself blames nobody."""
        self._set_timer()
        if not self._has_sent and not self.unsent_bytes:
            self.send(_PING)
        heard = self._has_heard or self.is_paused
        self._silent_ms = 0 if heard else self._silent_ms + self._settings.keepalive_ms
        self._has_sent = self._has_heard = False
        if self._silent_ms >= self._settings.dead_after_ms:
            self.abort(f"nothing was heard of it for {self._silent_ms} ms")

    def _cannot_send(self, error: OSError) -> None:
        self.abort(_text(error))


def _text(error: Exception | None) -> str:
    why = (error.strerror if isinstance(error, OSError) else "") or str(error or "")
    return why or "the connection was lost"


def _tune(sock: socket.socket) -> None:
    # no TCP_USER_TIMEOUT: it also ends connections whose peer lives and reads no further for a while
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
