"""A TCP relay between clients and one server: delay, loss, stalls and cuts, for each direction by itself.

Loss is what an application sees of it under TCP: now and then everything stands until a packet has been
sent again. Nothing is ever dropped, reordered or changed, for TCP does not let that happen either.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

CHUNK_BYTES = 64 << 10
QUEUED_CHUNKS = 64  # under way in one direction of one connection; more waits in the sender
RETRANSMIT_MS = (200.0, 400.0)  # how long a lost packet holds up those behind it

MakeSocket = Callable[[], socket.socket]


@dataclass(slots=True)
class Way:
    """What happens to bytes in one direction; may be changed at any time."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0  # of chunks: each holds up all behind it
    stalled: asyncio.Event = field(default_factory=asyncio.Event)  # nothing goes on while it is set
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def stall(self) -> None:
        """Hold everything up until ``flow``."""
        self.stalled.set()
        self._moved.clear()

    def flow(self) -> None:
        """Go on."""
        self.stalled.clear()
        self._moved.set()

    async def wait(self) -> None:
        """Until it is not stalled."""
        while self.stalled.is_set():
            await self._moved.wait()

    def heal(self) -> None:
        """No delay, no loss, no stall."""
        self.delay_ms = self.jitter_ms = self.loss = 0.0
        self.flow()


class Relay:
    """Accepts on ``listener``, connects to ``target``; ``async with``.

    Args:
        target: address and port.
        listener: bound, perhaps in another network namespace; closed by the relay.
        make_socket: for connections to the target; default: in this namespace.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        listener: socket.socket,
        make_socket: MakeSocket = lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        seed: int = 0,
    ) -> None:
        self.to_server, self.to_client = Way(), Way()
        self.injected: Counter[str] = Counter()
        self._target = target
        self._listener = listener
        self._make_socket = make_socket
        self._rng = random.Random(seed)
        self._is_cut = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """It listens on."""
        return int(self._listener.getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, sock=self._listener)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._end_connections()
        await self._server.wait_closed()

    async def cut(self) -> None:
        """Break all connections and refuse new ones until ``heal``."""
        self._is_cut = True
        self.injected["cut"] += 1
        await self._end_connections()

    def heal(self) -> None:
        """Relay as if it were not there."""
        self._is_cut = False
        self.to_server.heal()
        self.to_client.heal()

    async def _end_connections(self) -> None:
        ended = list(self._connections)
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self._is_cut:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the connection ends; whoever used it sees that
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = self._make_socket()
        sock.settimeout(0)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._target)
        except BaseException:
            sock.close()
            raise
        far_reader, far_writer = await asyncio.open_connection(sock=sock)
        _send_at_once(writer)
        _send_at_once(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, self.to_server))
                both.create_task(self._pump(far_reader, writer, self.to_client))
        except* OSError:
            pass
        finally:
            far_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        """Read and write are two tasks, so that a delay does not limit what is under way."""
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(reader, due, way))
            both.create_task(self._write(writer, due, way))

    async def _read(
        self, reader: asyncio.StreamReader, due: asyncio.Queue[tuple[float, bytes]], way: Way
    ) -> None:
        now = asyncio.get_running_loop().time
        free_at = 0.0  # the line is held up until then
        while True:
            data = await reader.read(CHUNK_BYTES)
            free_at = max(free_at, now() + self._delay_s(way))
            await due.put((free_at, data))
            if not data:
                return

    def _delay_s(self, way: Way) -> float:
        delay_ms = way.delay_ms + self._rng.random() * way.jitter_ms
        if way.loss and self._rng.random() < way.loss:
            self.injected["loss"] += 1
            delay_ms += self._rng.uniform(*RETRANSMIT_MS)
        return delay_ms / 1000

    async def _write(
        self, writer: asyncio.StreamWriter, due: asyncio.Queue[tuple[float, bytes]], way: Way
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            at, data = await due.get()
            if at > now():
                await asyncio.sleep(at - now())
            await way.wait()
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


def _send_at_once(writer: asyncio.StreamWriter) -> None:
    """Or small packets wait 40 ms for an answer to what went before; asyncio only sees to sockets of its own."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def listen_on(address: str, port: int = 0) -> socket.socket:
    """A socket for a relay to accept on, in the namespace of the calling thread."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.settimeout(0)
    return listener
