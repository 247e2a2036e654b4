"""A client and a node that speak frames by hand, so that they can speak them wrongly."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from woodpecker.access import Access
from woodpecker.codec.frames import Frame, Parser, encode
from woodpecker.codec.messages import AnyMessage, Hello, Ping, Welcome
from woodpecker.rpc import hello
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp import TcpTransport, serve
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.testing.conformance.transport import Node

RUNTIME = SystemRuntime()
NONCE = b"n" * hello.NONCE_BYTES
LONG_MS = 60_000


class Raw:
    """One end of a connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.parser = Parser()
        self.frames: list[Frame] = []

    def send(self, message: AnyMessage, number: int = 0, payload: bytes = b"") -> None:
        self.writer.write(encode(message, number, len(payload)) + payload)

    async def frame(self) -> Frame | None:
        """The next one, signs of life too; None: the other side has closed."""
        while not self.frames:
            try:
                data = await self.reader.read(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self.frames += self.parser.feed(data)
        return self.frames.pop(0)

    async def message(self) -> AnyMessage | None:
        """The next one that says something; None: the other side has closed."""
        while True:
            frame = await self.frame()
            if frame is None or not isinstance(frame.message, Ping):
                return None if frame is None else frame.message

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def raw_client(address: str):
    """Connected, nothing said."""
    host, port = address.split(":")
    raw = Raw(*await asyncio.open_connection(host, int(port)))
    try:
        yield raw
    finally:
        await raw.close()


@asynccontextmanager
async def greeted_client(address: str):
    """Past the hello."""
    async with raw_client(address) as raw:
        asked = await raw.message()
        raw.send(hello.answer(asked, b"", NONCE, "raw"), 1)
        assert isinstance(await raw.message(), Welcome)
        yield raw


@asynccontextmanager
async def raw_node(serve_one):
    """``serve_one(raw)`` answers each connection; yields the address."""

    async def answer(reader, writer):
        raw = Raw(reader, writer)
        try:
            await serve_one(raw)
        finally:
            await raw.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def greet(raw: Raw) -> None:
    """The hello of a node without a secret."""
    asked = hello.challenge(b"", NONCE)
    raw.send(asked)
    said = await raw.message()
    assert isinstance(said, Hello)
    raw.send(hello.welcome(Node().welcome(), said, asked, b"", 1 << 20), 1)


@asynccontextmanager
async def served(node=None, access: Access | None = None, **settings):
    """A node behind the real server; yields the server."""
    server = await serve(node or Node(), "127.0.0.1", 0, RUNTIME, access, WireSettings(**settings))
    try:
        yield server
    finally:
        await server.close()
    assert server.connections == 0


@asynccontextmanager
async def client(access: Access | None = None, **settings):
    """A real transport."""
    transport = TcpTransport(RUNTIME, access, WireSettings(**settings))
    try:
        yield transport
    finally:
        await transport.close()
