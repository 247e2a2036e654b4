"""Connections over TCP: signs of life, peers that vanish or do not read, bounds on what is taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.rpc.wire_kit import LONG_MS, client, greet, greeted_client, raw_node, served

from woodpecker.codec.messages import Append, Blocks, Done, Ping, Read, Tell
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.testing.conformance.transport import KIB, MIB, TARGET, Node, agree

APPEND = Append(target=TARGET, name="x")
QUICK: dict[str, Any] = {"keepalive_ms": 10, "dead_after_ms": 40}


async def turns(count: int = 300) -> None:
    """Let everything happen that can happen by itself."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- signs of life ---


async def test_an_idle_client_gives_signs_of_life():
    beats = asyncio.Event()

    async def count(raw):
        await greet(raw)
        for _ in range(3):
            assert isinstance((await raw.frame()).message, Ping)
            raw.send(Ping())
        beats.set()
        await raw.frame()

    async with raw_node(count) as address, client(keepalive_ms=10) as transport:
        link = await transport.connect(address, timeout_ms=LONG_MS)
        await beats.wait()
        assert link.is_open


async def test_an_idle_node_gives_signs_of_life():
    async with served(keepalive_ms=10) as server, greeted_client(server.address) as raw:
        for _ in range(3):
            frame = await raw.frame()
            assert (frame.message, frame.request_id) == (Ping(), 0)
            raw.send(Ping())


async def test_two_idle_sides_keep_their_link():
    async with served(**QUICK) as server, client(**QUICK) as transport:
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        async with served(keepalive_ms=10) as clock, greeted_client(clock.address) as raw:
            for _ in range(15):  # far beyond dead_after_ms
                assert isinstance((await raw.frame()).message, Ping)
        assert link.is_open
        assert (await link.send(Ping(), timeout_ms=LONG_MS)).message == Done()


async def test_a_node_that_falls_silent_is_given_up():
    async def silent(raw):
        await greet(raw)
        while await raw.frame() is not None:
            pass

    async with raw_node(silent) as address, client(**QUICK) as transport:
        link = await transport.connect(address, timeout_ms=LONG_MS)
        future = link.send(Tell(name="x"), timeout_ms=LONG_MS)
        await link.wait_closed()
        with pytest.raises(Unavailable, match=r"n1.+nothing was heard of it for 40 ms"):
            await future


async def test_a_client_that_falls_silent_is_given_up():
    async with served(**QUICK) as server, greeted_client(server.address) as raw:
        while await raw.frame() is not None:
            pass
        assert server.connections == 0


async def test_a_node_that_is_stuck_with_requests_still_gives_signs_of_life():
    node = Node()
    settings = {"max_unanswered_bytes": 64 * KIB, **QUICK}
    async with served(node, **settings) as server, client(**QUICK) as transport:
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        futures = [link.send(APPEND, bytes(64 * KIB), timeout_ms=LONG_MS) for _ in range(400)]
        await node.wait_for(1)
        async with served(keepalive_ms=10) as clock, greeted_client(clock.address) as raw:
            for _ in range(15):
                assert isinstance((await raw.frame()).message, Ping)
        assert link.is_open
        assert link.unsent_bytes > 0
        node.on_request = agree
        while node.waiting:
            node.waiting.popleft()[2].reply(Done())
        assert [(await future).message for future in futures] == [Done()] * 400


# --- bounds ---


async def test_who_does_not_read_replies_is_not_served_for_ever():
    node, size = Node(), 256 * KIB
    handled = 0

    def blocks(_request, _payload, responder):
        nonlocal handled
        handled += 1
        responder.reply(Blocks(first=0, sizes=(size,), last=0, visible=1), bytes(size))

    node.on_request = blocks
    bounded = served(node, max_unsent_bytes=MIB)
    async with bounded as server, greeted_client(server.address) as raw:
        for number in range(1, 201):
            raw.send(Read(target=TARGET, first=0, max_bytes=size), number)
            await asyncio.sleep(0)  # each a piece of its own
        await turns()
        assert handled < 200  # 50 MiB are more than the sockets and the bound hold
        came = [await raw.frame() for _ in range(200)]
        assert [frame.request_id for frame in came] == list(range(1, 201))
        assert handled == 200


async def test_all_connections_together_are_bounded():
    node, size = Node(), 64 * KIB
    async with served(node, max_unanswered_total_bytes=MIB) as server, client() as transport:
        links = [await transport.connect(server.address, timeout_ms=LONG_MS) for _ in range(8)]
        futures = [
            link.send(APPEND, bytes(size), timeout_ms=LONG_MS) for link in links for _ in range(10)
        ]
        await node.wait_for(15)
        await turns()
        taken = len(node.waiting)
        assert taken < 16 + 2 * len(links)  # each may be in the middle of one
        reading = links[0].send(Ping(), timeout_ms=LONG_MS)
        small = await transport.connect(server.address, timeout_ms=LONG_MS)
        tell = small.send(Tell(name="x"), timeout_ms=LONG_MS)  # carries nothing: it passes
        await node.wait_for(taken + 1)
        node.on_request = agree
        while node.waiting:
            node.waiting.popleft()[2].reply(Done())
        for future in (*futures, tell, reading):
            assert (await future).message == Done()
        assert server.unanswered_bytes == 0


async def test_what_was_unanswered_on_a_broken_connection_is_forgotten():
    node = Node()  # nothing is read of it any more: that it has gone is seen by a sign of life
    async with served(node, max_unanswered_total_bytes=MIB, keepalive_ms=10) as server:
        async with client() as transport:
            link = await transport.connect(server.address, timeout_ms=LONG_MS)
            futures = [link.send(APPEND, bytes(MIB), timeout_ms=LONG_MS) for _ in range(2)]
            await node.wait_for(1)
        while server.connections:
            await asyncio.sleep(0)
        assert server.unanswered_bytes == 0
        for _, _, responder in node.waiting:
            responder.reply(Done())
        assert server.unanswered_bytes == 0
        await asyncio.gather(*futures, return_exceptions=True)


async def test_a_block_that_the_node_does_not_take_is_not_sent():
    node = Node()
    async with served(node, max_payload_bytes=100) as server, client() as transport:
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        with pytest.raises(InvalidRequest, match="at most 100 bytes, not 101"):
            await link.send(APPEND, bytes(101), timeout_ms=LONG_MS)
        node.on_request = agree
        assert (await link.send(APPEND, bytes(100), timeout_ms=LONG_MS)).message == Done()


async def test_a_server_closes_though_a_client_does_not_read():
    node = Node()

    def flood(_request, _payload, responder):
        size = 64 * MIB
        responder.reply(Blocks(first=0, sizes=(size,), last=0, visible=1), bytes(size))

    node.on_request = flood
    async with served(node) as server, greeted_client(server.address) as raw:
        raw.send(Read(target=TARGET, first=0), 1)
        await turns()
        await server.close()
        assert server.connections == 0


async def test_replies_given_before_the_close_still_leave():
    node = Node()
    async with served(node) as server, client() as transport:
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        futures = [link.send(APPEND, b"x", timeout_ms=LONG_MS) for _ in range(50)]
        await node.wait_for(50)
        for _, _, responder in node.waiting:
            responder.reply(Done())
        await server.close()
        assert [(await future).message for future in futures] == [Done()] * 50


async def test_a_broken_handler_memory_closes_that_connection_alone():
    class Wrong(Node):
        def allocate(self, size_bytes):
            raise MemoryError("no room")

    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with served(Wrong()) as server, client() as transport:
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        other = await transport.connect(server.address, timeout_ms=LONG_MS)
        with pytest.raises(Unavailable):
            await link.send(APPEND, b"x", timeout_ms=LONG_MS)
        assert (await other.send(Ping(), timeout_ms=LONG_MS)).message == Done()
    assert [type(context["exception"]) for context in reported] == [MemoryError]
