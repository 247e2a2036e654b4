"""Serves a node's handler over TCP: connections, their hello, flow control."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress

from woodpecker.codec.compression import Buffer
from woodpecker.codec.frames import MAX_META_BYTES, SCRATCH_BYTES, Frame, encode
from woodpecker.codec.messages import Challenge, Hello, Ping, Refused
from woodpecker.errors import Corrupt, InvalidRequest, Overloaded, Unavailable
from woodpecker.rpc import hello
from woodpecker.rpc.base import Handler
from woodpecker.rpc.desk import Desk, Load
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp_stream import Stream
from woodpecker.runtime.runtime import Runtime

BACKLOG = 1024
CLOSE_TIMEOUT_S = 2.0
RETRY_MS = 200  # after the system had no descriptor or memory for a connection
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class TcpServer:
    """``Server`` of ``handler`` on one listening socket. One event loop; see ``tcp.serve``."""

    def __init__(
        self,
        handler: Handler,
        runtime: Runtime,
        settings: WireSettings,
        *,
        secret: bytes,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.handler = handler
        self.runtime = runtime
        self.settings = settings
        self.secret = secret
        self.load = Load()
        self._tls = tls
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._connections: dict[Connection, None] = {}
        self.starved: dict[Connection, None] = {}  # wait for the others' requests to be answered
        self._half_open = asyncio.Semaphore(settings.max_half_open)
        self._hellos: dict[asyncio.Task[None], None] = {}
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._address = ""

    async def bind(self, host: str, port: int) -> None:
        """Take the address; nobody can connect yet.

        Raises: Unavailable: the address is taken, or not of this machine.
        """
        loop = asyncio.get_running_loop()
        try:
            infos = await loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, place = infos[0]
            self._listener = socket.socket(family, kind, protocol)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.settimeout(0)
            self._listener.bind(place)
        except OSError as error:
            if self._listener is not None:
                self._listener.close()
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
        shown = f"[{host}]" if ":" in host else host
        self._address = f"{shown}:{self._listener.getsockname()[1]}"

    def listen(self) -> None:
        """From now on clients are served. After ``bind``. Raises: Unavailable: the address is taken."""
        assert self._listener is not None
        try:
            self._listener.listen(BACKLOG)
        except OSError as error:
            raise Unavailable(f"cannot listen on {self._address}: {error.strerror}") from error
        self._accepting = self.runtime.spawn(self._accept(self._listener), "wire: accept")

    # --- Server ---

    @property
    def address(self) -> str:
        return self._address

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def close(self) -> None:
        tasks = [task for task in (self._accepting, *self._hellos) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        closing = list(self._connections)
        for connection in closing:
            connection.stream.close("the node closed the connection")
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for connection in closing:
                    await connection.closed.wait()
        for connection in closing:
            connection.stream.abort("the node closed the connection")

    # --- for connections ---

    @property
    def unanswered_bytes(self) -> int:
        """Weight of the requests that all connections together have unanswered."""
        return self.load.bytes

    @property
    def is_full(self) -> bool:
        """Whether that is too much."""
        return self.load.bytes > self.settings.max_unanswered_total_bytes

    def starve(self, connection: Connection) -> None:
        """It waits until the server is not full any more."""
        self.starved[connection] = None

    def feed(self) -> None:
        """There may be room for those that wait."""
        if not self.is_full:
            starved, self.starved = self.starved, {}
            for connection in starved:
                connection.balance()

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.pop(connection, None)
        self.starved.pop(connection, None)
        self.feed()

    # --- accepting ---

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._half_open.acquire()
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._half_open.release()
                if error.errno in _NO_ROOM:
                    await self.runtime.sleep_ms(RETRY_MS)
                continue
            except BaseException:
                self._half_open.release()
                raise
            task = self.runtime.spawn(self._admit(sock), "wire: hello")
            self._hellos[task] = None
            task.add_done_callback(self._hello_ended)

    def _hello_ended(self, task: asyncio.Task[None]) -> None:
        self._hellos.pop(task, None)
        self._half_open.release()
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection could not be admitted", "exception": task.exception()}
            )

    async def _admit(self, sock: socket.socket) -> None:
        """Make a connection of it and see the hello through; bounded in time."""
        if len(self._connections) >= self.settings.max_connections:
            self._turn_away(sock)
            return
        connection = Connection(self, self._scratch)
        self._connections[connection] = None
        loop = asyncio.get_running_loop()
        seconds = self.settings.hello_timeout_ms / 1000
        try:
            async with asyncio.timeout(seconds):
                await loop.connect_accepted_socket(
                    lambda: connection.stream,
                    sock,
                    ssl=self._tls,
                    ssl_handshake_timeout=seconds if self._tls else None,
                    ssl_shutdown_timeout=CLOSE_TIMEOUT_S if self._tls else None,
                )
                await connection.greeted.wait()
        except (TimeoutError, OSError):  # of a stranger; TLS failures are OSErrors
            connection.stream.abort("no hello")
        except BaseException:
            connection.stream.abort("the node closed the connection")
            raise
        finally:
            if not connection.is_greeted:
                self.forget(connection)
            if not connection.stream.is_made:
                sock.close()

    def _turn_away(self, sock: socket.socket) -> None:
        most = self.settings.max_connections
        refusal = Refused(
            code=Overloaded.code, text=f"the node has {most} connections, and takes no more"
        )
        with suppress(OSError):
            if self._tls is None:
                sock.send(encode(refusal))
        sock.close()


class Connection:
    """One client's connection: owner of its stream."""

    def __init__(self, server: TcpServer, scratch: memoryview) -> None:
        self._server = server
        self._desk = Desk(server.handler, self._send, self._relieved, server.load)
        self.stream = Stream(self, server.settings, self._desk.allocate, scratch)
        self.stream.parser.max_meta_bytes = hello.MAX_HELLO_BYTES
        self.stream.parser.max_payload_bytes = 0
        self.greeted = asyncio.Event()  # or ended before
        self.closed = asyncio.Event()
        self.is_greeted = False
        self._max_unanswered_bytes = server.settings.max_unanswered_bytes
        self._asked: Challenge | None = None

    def connected(self) -> None:
        """The node speaks first."""
        runtime = self._server.runtime
        nonce = bytes.fromhex(runtime.token() + runtime.token())
        self._asked = hello.challenge(self._server.secret, nonce)
        self.stream.send(encode(self._asked))

    def took(self, frame: Frame) -> None:
        """A request, or the hello."""
        if self.is_greeted:
            self._desk.take(frame)
            if self._desk.unanswered_bytes > self._max_unanswered_bytes or self._server.is_full:
                self.balance(has_payload=bool(frame.payload))
        elif isinstance(frame.message, Hello):
            self._took_hello(frame.message, frame.request_id)
        elif not isinstance(frame.message, Ping):
            raise Corrupt(f"a {type(frame.message).__name__} before the hello", where="wire")

    def drained(self) -> None:
        """The client took its replies."""
        self.balance()

    def broken(self, why: str, error: Exception | None) -> None:
        """Replies to what is still served are dropped."""
        self._desk.close()
        self._server.forget(self)
        self.greeted.set()
        self.closed.set()

    def balance(self, *, has_payload: bool = False) -> None:
        """Read on, or no further: see ``WireSettings``."""
        settings, server = self._server.settings, self._server
        has_enough = (
            self._desk.unanswered_bytes > settings.max_unanswered_bytes
            or self.stream.unsent_bytes > settings.max_unsent_bytes
        )
        is_starved = not has_enough and server.is_full and (has_payload or self.stream.is_paused)
        if is_starved:
            server.starve(self)
        self.stream.pause(should=has_enough or is_starved)

    def _took_hello(self, said: Hello, number: int) -> None:
        assert self._asked is not None
        server = self._server
        try:
            hello.check_hello(said, self._asked, server.secret)
        except InvalidRequest as error:
            self.stream.send(encode(Refused(code=error.code, text=str(error)), number))
            self.stream.close("refused")
            return
        self.is_greeted = True
        self.stream.parser.max_meta_bytes = MAX_META_BYTES
        self.stream.parser.max_payload_bytes = server.settings.max_payload_bytes
        welcome = hello.welcome(
            server.handler.welcome(),
            said,
            self._asked,
            server.secret,
            server.settings.max_payload_bytes,
        )
        self.stream.send(encode(welcome, number))
        self.greeted.set()

    def _send(self, head: bytes, parts: Sequence[Buffer]) -> None:
        self.stream.send(head, parts)
        if self.stream.unsent_bytes > self._server.settings.max_unsent_bytes:
            self.balance()

    def _relieved(self) -> None:
        if self.stream.is_paused:
            self.balance()
        if self._server.starved:
            self._server.feed()
