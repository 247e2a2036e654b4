"""The ports over TCP, with or without TLS: ``TcpTransport`` for clients, ``serve`` for nodes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

from woodpecker.access import Access
from woodpecker.codec.frames import SCRATCH_BYTES
from woodpecker.codec.messages import Challenge, Hello, Welcome
from woodpecker.errors import Closed, InvalidRequest, Unavailable
from woodpecker.rpc import hello
from woodpecker.rpc.base import Handler
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp_link import TcpLink
from woodpecker.rpc.tcp_server import CLOSE_TIMEOUT_S, TcpServer
from woodpecker.rpc.tls import client_context, server_context
from woodpecker.runtime.runtime import Runtime


async def serve(
    handler: Handler,
    host: str,
    port: int,
    runtime: Runtime,
    access: Access | None = None,
    settings: WireSettings | None = None,
) -> TcpServer:
    """Serve ``handler`` on ``host:port`` (0: any free port); clients must know the secret, if there is one.

    Raises: Unavailable: the address is taken, or not of this machine. InvalidRequest: TLS files.
    """
    server = await bind(handler, host, port, runtime, access, settings)
    server.listen()
    return server


async def bind(
    handler: Handler,
    host: str,
    port: int,
    runtime: Runtime,
    access: Access | None = None,
    settings: WireSettings | None = None,
) -> TcpServer:
    """As ``serve``, but nobody can connect before ``TcpServer.listen``: the address is known first."""
    access = access or Access()
    server = TcpServer(
        handler,
        runtime,
        settings or WireSettings(),
        secret=access.secret,
        tls=server_context(access),
    )
    await server.bind(host, port)
    return server


class TcpTransport:
    """``Transport`` over TCP. One event loop.

    Raises (when made): InvalidRequest: TLS files.
    """

    def __init__(
        self, runtime: Runtime, access: Access | None = None, settings: WireSettings | None = None
    ) -> None:
        access = access or Access()
        self._runtime = runtime
        self._secret = access.secret
        self._tls = client_context(access)
        self._has_certificate = access.tls_cert is not None
        self._settings = settings or WireSettings()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._links: dict[TcpLink, None] = {}
        self._is_closed = False
        self._client = f"{socket.gethostname()}, process {os.getpid()}"

    async def connect(self, address: str, *, timeout_ms: int) -> TcpLink:
        self._check_open()
        host, port = split_address(address)
        link = TcpLink(
            address, self._settings, self._scratch, self._greet, self._check, self._ended
        )
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._open(link, host, port, timeout_ms)
                await self._greeted(link)
            self._check_open()
        except TimeoutError:
            link.give_up()
            raise Unavailable(
                f"node at {address}: no hello within {timeout_ms} ms (does it expect TLS?)"
                if link.stream.is_made
                else f"node at {address}: no connection within {timeout_ms} ms"
            ) from None
        except BaseException:
            link.give_up()
            raise
        if link.is_open:
            self._links[link] = None
        return link

    async def close(self) -> None:
        self._is_closed = True
        for link in list(self._links):
            await link.close()

    async def _open(self, link: TcpLink, host: str, port: int, timeout_ms: int) -> None:
        loop = asyncio.get_running_loop()
        encrypted = self._tls is not None
        try:
            await loop.create_connection(
                lambda: link.stream,
                host,
                port,
                ssl=self._tls,
                ssl_handshake_timeout=timeout_ms / 1000 if encrypted else None,
                ssl_shutdown_timeout=CLOSE_TIMEOUT_S if encrypted else None,
            )
        except ssl.SSLError as error:
            raise InvalidRequest(f"node at {host}:{port}: TLS failed: {error}") from error
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            raise Unavailable(f"node at {host}:{port}: {why}") from error

    async def _greeted(self, link: TcpLink) -> None:
        try:
            await link.greeted
        except Unavailable as error:
            if self._tls is None or self._has_certificate:
                raise
            # asyncio closes without a word when a client has no certificate
            raise Unavailable(f"{error} (does it ask for a certificate, tls_cert?)") from None

    def _greet(self, asked: Challenge) -> Hello:
        nonce = bytes.fromhex(self._runtime.token() + self._runtime.token())
        return hello.answer(asked, self._secret, nonce, self._client)

    def _check(self, told: Welcome, said: Hello, asked: Challenge) -> None:
        hello.check_welcome(told, said, asked, self._secret)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed("this client is closed: it makes no links to nodes")

    def _ended(self, link: TcpLink) -> None:
        self._links.pop(link, None)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[host]:port``. Raises: InvalidRequest."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise InvalidRequest(f"{address!r} is no address of a node: host:port is expected")
    return host, int(port)
