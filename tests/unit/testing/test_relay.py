"""The relay in its place between two ends of loopback: what it holds up, cuts, and lets through again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from woodpecker.testing.servers.relay import Relay, Way, listen_on

BIG = bytes(range(256)) * 4096 * 4  # more than all buffers on the way hold


@asynccontextmanager
async def relayed() -> AsyncIterator[Relay]:
    """Before a server that answers what it is sent."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()
    async with server, Relay(target, listener=listen_on("127.0.0.1")) as relay:
        yield relay


async def ask(relay: Relay, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        sending = asyncio.ensure_future(_send(writer, data))
        answer = await reader.readexactly(len(data))
        await sending
        return answer
    finally:
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def test_bytes_pass_unchanged_also_with_delay_and_loss() -> None:
    async with relayed() as relay:
        assert await ask(relay, BIG) == BIG
        relay.to_server.delay_ms = relay.to_client.jitter_ms = 2
        relay.to_client.loss = 0.1
        assert await ask(relay, BIG) == BIG


async def test_loss_is_counted() -> None:
    async with relayed() as relay:
        relay.to_server.loss = 1
        await ask(relay, b"once")
        assert relay.injected["loss"] >= 1


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_a_stalled_direction_holds_its_bytes_and_no_others(way: str) -> None:
    async with relayed() as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        stalled: Way = getattr(relay, way)
        stalled.stall()
        writer.write(b"held")
        answer = asyncio.ensure_future(reader.readexactly(4))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not answer.done()
        stalled.flow()
        assert await answer == b"held"
        writer.transport.abort()


async def test_a_cut_breaks_what_is_open_and_refuses_what_is_new() -> None:
    async with relayed() as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"before")
        await reader.readexactly(6)
        await relay.cut()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.transport.abort()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await ask(relay, b"refused")
        relay.heal()
        assert await ask(relay, b"after") == b"after"


async def test_the_end_of_a_stream_passes_behind_its_bytes() -> None:
    async with relayed() as relay:
        relay.to_server.delay_ms = 5
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"last words")
        writer.write_eof()
        assert await reader.read() == b"last words"
        writer.transport.abort()


async def test_a_server_that_is_not_there_is_a_connection_that_ends() -> None:
    gone = listen_on("127.0.0.1")
    target = gone.getsockname()
    gone.close()
    async with Relay(target, listener=listen_on("127.0.0.1")) as relay:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await ask(relay, b"anybody")


async def test_nothing_is_left_at_the_end() -> None:
    async with relayed() as relay:
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(BIG)
        relay.to_client.stall()
        await asyncio.sleep(0)
    tasks = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    assert not [name for name in tasks if name.startswith("Relay.")], tasks
    writer.transport.abort()


async def test_nothing_small_waits_for_an_answer_to_what_went_before() -> None:
    """Nagle's rule and late acknowledgements make 40 ms of every second packet."""
    made: list[socket.socket] = []

    def make() -> socket.socket:
        made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        return made[-1]

    async with relayed() as plain:
        target = ("127.0.0.1", plain.port)
        async with Relay(target, listener=listen_on("127.0.0.1"), make_socket=make) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.transport.abort()
