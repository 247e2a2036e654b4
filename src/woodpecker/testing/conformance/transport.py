"""What every transport must do. Subclass the suite and give it a fixture ``place``.

    class TestMine(TransportSuite):
        @pytest.fixture
        def place(self):
            return MyPlace()

A ``Place`` is where one test happens: it serves handlers and makes transports that reach them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import ClassVar, Protocol

import pytest
import pytest_asyncio

from woodpecker.codec.compression import Buffer
from woodpecker.codec.messages import (
    Advance,
    Append,
    Appended,
    Blocks,
    Done,
    Fence,
    Find,
    Found,
    GetObject,
    GetStatus,
    ListSegments,
    Object,
    Ping,
    Read,
    Refused,
    Repair,
    Reply,
    Request,
    Status,
    Stored,
    Tell,
    Upload,
    Voted,
    Welcome,
)
from woodpecker.core.manifest import End
from woodpecker.core.replica import Target, Tip, Verdict
from woodpecker.errors import Closed, NotFound, Unavailable
from woodpecker.rpc.base import Answer, Handler, Link, Responder, Server, Transport

TARGET = Target(log_id="1" * 32, segment_id=3, epoch=7, incarnation="2" * 32)
TIP = Tip(number=4, end_seq=99, digest=b"d" * 16)
LONG_MS = 60_000
KIB, MIB = 1024, 1024 * 1024


class Place(Protocol):
    """Where a test happens.

    Attributes:
        max_unanswered_bytes: how much of one connection its servers leave unanswered; about 4 MiB.
    """

    max_unanswered_bytes: int

    async def serve(self, handler: Handler, address: str | None = None) -> Server:
        """Serve a handler, at an address that was in use before if one is given."""

    def transport(self) -> Transport:
        """A new transport."""

    async def nowhere(self) -> str:
        """An address where nobody answers."""


class Node:
    """A handler that writes down what it gets and answers when a test says so.

    Attributes:
        waiting: requests not answered yet, with their payload and responder.
        on_request: if set, answers instead.
        buffer: if set, ``allocate`` hands out of it.
    """

    def __init__(self) -> None:
        self.waiting: deque[tuple[Request, memoryview, Responder]] = deque()
        self.received_bytes = 0
        self.came = asyncio.Event()
        self.on_request: Callable[[Request, memoryview, Responder], None] | None = None
        self.buffer: memoryview | None = None

    def welcome(self) -> Welcome:
        return Welcome(
            node="n1",
            incarnation="2" * 32,
            store_id="3" * 32,
            storage_url="s3://bucket",
            metadata_url="etcd://here:2379",
            zone="z1",
        )

    def handle(self, request: Request, payload: memoryview, responder: Responder) -> None:
        self.received_bytes += len(payload)
        self.came.set()
        if self.on_request is not None:
            self.on_request(request, payload, responder)
        else:
            self.waiting.append((request, payload, responder))

    def allocate(self, size_bytes: int) -> memoryview | None:
        return None if self.buffer is None else self.buffer[:size_bytes]

    async def wait_for(self, count: int) -> None:
        """Until so many requests wait."""
        while len(self.waiting) < count:
            self.came.clear()
            await self.came.wait()


def echo(request: Request, payload: memoryview, responder: Responder) -> None:
    """Answers each request with its own number and bytes."""
    assert isinstance(request, Append)
    sizes = (len(payload),)
    responder.reply(Blocks(first=request.lac, sizes=sizes, last=0, visible=None), payload)


def agree(_request: Request, _payload: memoryview, responder: Responder) -> None:
    """Answers everything with Done."""
    responder.reply(Done())


def append(number: int) -> Append:
    """A request that can be told from others."""
    return Append(target=TARGET, name="orders", lac=number)


EXCHANGES: tuple[tuple[Request, Buffer, Reply, Buffer], ...] = (
    (append(5), b"block", Appended(number=6, pressure=1), b""),
    (Fence(target=TARGET, name="x", epoch=8, token="t"), b"", Voted(tip=TIP, complete=True), b""),
    (Fence(target=TARGET, name="x", epoch=8, token="t"), b"", Voted(tip=None, complete=False), b""),
    (Repair(target=TARGET, name="x", end=5), b"b", Stored(number=5), b""),
    (Upload(target=TARGET, name="x", end=End(block=4, seq=9, digest="d" * 32)), b"", Done(), b""),
    (Read(target=TARGET, first=1, max_bytes=9), b"", Blocks(
        first=1, sizes=(2, 3), last=4, visible=7, is_fenced=True), b"aabbb"),
    (Find(target=TARGET, timestamp_us=5, limit=8), b"", Found(number=3), b""),
    (GetObject(storage="", key="k"), b"", Object(size=3), b"abc"),
    (GetObject(storage="", key="k"), b"", Object(size=None), b""),
    (Tell(name="x"), b"", Done(), b""),
    (GetStatus(), b"", Status(text=b"{}"), b""),
    (ListSegments(), b"", Status(text=b"[]"), b""),
    (append(5), b"block", Refused(code="overloaded", text="disk full"), b""),
    (append(5), b"", Refused(code="unavailable", text="gap", verdict=Verdict.GAP, last=4), b""),
)  # fmt: skip


class TransportSuite:
    """The contract, test by test."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest.fixture
    def place(self) -> Place:
        """Overridden by the subclass."""
        raise NotImplementedError

    @pytest.fixture
    def node(self) -> Node:
        """The handler of the test."""
        return Node()

    @pytest_asyncio.fixture
    async def server(self, place: Place, node: Node) -> AsyncIterator[Server]:
        """Serves ``node``."""
        server = await place.serve(node)
        yield server
        await server.close()

    @pytest_asyncio.fixture
    async def transport(self, place: Place) -> AsyncIterator[Transport]:
        """Reaches it."""
        transport = place.transport()
        yield transport
        await transport.close()

    @pytest_asyncio.fixture
    async def link(self, server: Server, transport: Transport) -> Link:
        """A link to ``node``."""
        return await transport.connect(server.address, timeout_ms=LONG_MS)

    # --- the hello ---

    async def test_the_hello_tells_who_the_node_is(self, link: Link, node: Node) -> None:
        told, own = link.welcome, node.welcome()
        for name in ("node", "incarnation", "store_id", "storage_url", "metadata_url", "zone"):
            assert getattr(told, name) == getattr(own, name)
        assert link.is_open
        assert link.unsent_bytes == 0

    async def test_nobody_there(self, place: Place, transport: Transport) -> None:
        address = await place.nowhere()
        with pytest.raises(Unavailable, match=address):
            await transport.connect(address, timeout_ms=LONG_MS)

    async def test_a_cancelled_connect_leaves_nothing(
        self, server: Server, transport: Transport
    ) -> None:
        for turns in range(8):
            connecting = asyncio.ensure_future(
                transport.connect(server.address, timeout_ms=LONG_MS)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        assert link.is_open

    # --- requests and answers ---

    @pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda one: type(one[0]).__name__)
    async def test_each_request_and_its_reply(
        self, link: Link, node: Node, exchange: tuple[Request, Buffer, Reply, Buffer]
    ) -> None:
        request, payload, reply, data = exchange
        future = link.send(request, payload, timeout_ms=LONG_MS)
        await node.wait_for(1)
        came, came_with, responder = node.waiting.pop()
        assert (came, bytes(came_with)) == (request, payload)
        responder.reply(reply, data)
        answer = await future
        assert (answer.message, bytes(answer.payload)) == (reply, data)

    async def test_pings_are_answered_by_the_transport(self, link: Link, node: Node) -> None:
        answer = await link.send(Ping(), timeout_ms=LONG_MS)
        assert answer.message == Done()
        assert not node.waiting

    async def test_requests_arrive_in_the_order_they_were_sent(
        self, link: Link, node: Node
    ) -> None:
        sizes = [(number * 7919) % 3_000 * (50 if number % 25 == 0 else 1) for number in range(500)]
        seen = []

        def answer(request: Request, payload: memoryview, responder: Responder) -> None:
            assert isinstance(request, Append)
            seen.append((request.lac, len(payload), bytes(payload[:1]), bytes(payload[-1:])))
            responder.reply(Appended(number=request.lac))

        node.on_request = answer
        sent = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
        futures = [link.send(append(n), data, timeout_ms=LONG_MS) for n, data in enumerate(sent)]
        for number, future in enumerate(futures):
            assert (await future).message == Appended(number=number)
        assert seen == [(n, len(data), data[:1], data[-1:]) for n, data in enumerate(sent)]

    async def test_replies_in_any_order_find_their_requests(self, link: Link, node: Node) -> None:
        futures = [link.send(append(number), timeout_ms=LONG_MS) for number in range(20)]
        await node.wait_for(20)
        for at in range(0, 20, 2):  # every second one, from the last on; the others then
            request, _, responder = node.waiting[19 - at]
            responder.reply(Appended(number=request.lac))  # type: ignore[union-attr]
        for at in range(0, 20, 2):
            request, _, responder = node.waiting[at]
            responder.reply(Appended(number=request.lac))  # type: ignore[union-attr]
        answers = [(await future).message for future in futures]
        assert answers == [Appended(number=number) for number in range(20)]

    async def test_large_payloads_both_ways(self, link: Link, node: Node) -> None:
        node.on_request = echo
        data = bytes(range(256)) * (5 * MIB // 256) + b"end"
        futures = [link.send(append(n), data[n:], timeout_ms=LONG_MS) for n in range(4)]
        for number, future in enumerate(futures):
            answer = await future
            assert isinstance(answer.message, Blocks)
            assert answer.message.first == number
            assert answer.payload == data[number:]

    async def test_a_reply_of_many_parts(self, link: Link, node: Node) -> None:
        parts: list[Buffer] = [bytes([n]) * (1 + n * 3_000) for n in range(100)]
        sizes = tuple(map(len, parts))
        future = link.send(Read(target=TARGET), timeout_ms=LONG_MS)
        await node.wait_for(1)
        node.waiting.pop()[2].reply(Blocks(first=0, sizes=sizes, last=99, visible=1), parts)
        answer = await future
        assert answer.payload == b"".join(parts)

    @pytest.mark.parametrize("size", [1, 1_000, 64 * KIB, MIB])
    async def test_blocks_lie_in_the_memory_the_node_named(
        self, link: Link, node: Node, size: int
    ) -> None:
        node.buffer = memoryview(bytearray(MIB))
        requests: tuple[Request, ...] = (append(1), Repair(target=TARGET, name="x", end=1))
        for number, request in enumerate(requests, 1):
            future = link.send(request, bytes([number]) * size, timeout_ms=LONG_MS)
            await node.wait_for(1)
            _, payload, responder = node.waiting.pop()
            assert payload.obj is node.buffer.obj
            assert node.buffer[:size] == bytes([number]) * size
            responder.reply(Done())
            await future

    async def test_nobody_shares_memory_with_the_other_side(self, link: Link, node: Node) -> None:
        data = bytearray(b"a" * 1_000)
        future = link.send(append(1), memoryview(data), timeout_ms=LONG_MS)
        await node.wait_for(1)
        _, payload, responder = node.waiting.pop()
        mine = bytearray(b"b" * 1_000)
        responder.reply(Blocks(first=0, sizes=(1_000,), last=0, visible=1), mine)
        answer = await future
        data[:] = mine[:] = b"c" * 1_000
        assert payload == b"a" * 1_000
        assert answer.payload == b"b" * 1_000

    async def test_what_is_posted_arrives_in_order_and_is_not_answered(
        self, link: Link, node: Node
    ) -> None:
        link.post(Advance(target=TARGET, lac=1))
        future = link.send(append(2), timeout_ms=LONG_MS)
        link.post(Advance(target=TARGET, lac=3))
        await node.wait_for(3)
        assert [getattr(request, "lac", 0) for request, _, _ in node.waiting] == [1, 2, 3]
        for _, _, responder in node.waiting:
            responder.reply(Done())
        assert (await future).message == Done()

    async def test_thousands_under_way(self, link: Link, node: Node) -> None:
        count = 10_000
        futures = [link.send(append(number), b"x", timeout_ms=LONG_MS) for number in range(count)]
        await node.wait_for(count)
        while node.waiting:
            request, _, responder = node.waiting.pop()
            responder.reply(Appended(number=request.lac))  # type: ignore[union-attr]
        answers = await asyncio.gather(*futures)
        assert [answer.message.number for answer in answers] == list(range(count))  # type: ignore[union-attr]

    # --- what goes wrong ---

    async def test_a_handler_that_fails_refuses_and_the_link_goes_on(
        self, link: Link, node: Node
    ) -> None:
        reported: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))

        def fail(request: Request, _payload: memoryview, responder: Responder) -> None:
            if isinstance(request, Tell):
                raise NotFound("no such log")
            if isinstance(request, GetStatus):
                raise ZeroDivisionError("a bug")
            responder.reply(Done())

        node.on_request = fail
        refused = (await link.send(Tell(name="x"), timeout_ms=LONG_MS)).message
        assert refused == Refused(code="not_found", text="no such log")
        assert not reported  # the caller is told; nobody else needs to know
        broken = (await link.send(GetStatus(), timeout_ms=LONG_MS)).message
        assert isinstance(broken, Refused)
        assert broken.code == "error"
        assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
        assert (await link.send(append(1), b"x", timeout_ms=LONG_MS)).message == Done()
        loop.set_exception_handler(None)

    async def test_a_cancelled_request_only_stops_waiting(self, link: Link, node: Node) -> None:
        cancelled = link.send(append(1), b"x", timeout_ms=LONG_MS)
        other = link.send(append(2), b"y", timeout_ms=LONG_MS)
        cancelled.cancel()
        await node.wait_for(2)
        for request, _, responder in node.waiting:
            responder.reply(Appended(number=request.lac))  # type: ignore[union-attr]
        assert (await other).message == Appended(number=2)
        assert cancelled.cancelled()
        assert link.is_open

    async def test_time_is_up_for_each_request_by_itself(self, link: Link, node: Node) -> None:
        slow = link.send(append(1), timeout_ms=LONG_MS)
        hasty = [link.send(append(2), timeout_ms=ms) for ms in (30, 1, 30, 2_000)]
        await node.wait_for(5)
        for future in hasty[:3]:
            with pytest.raises(Unavailable, match=r"did not answer within \d+ ms .append"):
                await future
        assert not slow.done()
        for _, _, responder in node.waiting:
            responder.reply(Appended(number=1))  # for some it comes too late
        assert (await slow).message == (await hasty[3]).message == Appended(number=1)
        assert link.is_open

    async def test_closing_a_link_fails_what_is_under_way(self, link: Link, node: Node) -> None:
        futures = [link.send(append(number), timeout_ms=LONG_MS) for number in range(3)]
        await node.wait_for(3)
        waiting = asyncio.ensure_future(link.wait_closed())
        await asyncio.gather(link.close(), link.close())
        await waiting
        assert not link.is_open
        for future in futures:
            with pytest.raises(Unavailable, match=r"n1.+closed.+may have been done"):
                await future
        with pytest.raises(Unavailable, match="closed"):
            await link.send(append(1), b"x", timeout_ms=LONG_MS)
        link.post(Advance(target=TARGET, lac=1))  # lost, silently
        assert link.unsent_bytes == 0
        for _, _, responder in node.waiting:
            responder.reply(Done())  # nobody listens

    async def test_a_node_that_goes_away_fails_what_is_under_way(
        self, place: Place, link: Link, server: Server, transport: Transport, node: Node
    ) -> None:
        future = link.send(append(1), timeout_ms=LONG_MS)
        await node.wait_for(1)
        await server.close()
        await link.wait_closed()
        with pytest.raises(Unavailable, match="n1"):
            await future
        with pytest.raises(Unavailable, match=server.address):
            await transport.connect(server.address, timeout_ms=LONG_MS)
        again = await place.serve(node, server.address)
        new = await transport.connect(server.address, timeout_ms=LONG_MS)
        assert (await new.send(Ping(), timeout_ms=LONG_MS)).message == Done()
        await again.close()

    async def test_closing_a_transport_closes_its_links(
        self, place: Place, server: Server, node: Node
    ) -> None:
        transport = place.transport()
        links = [await transport.connect(server.address, timeout_ms=LONG_MS) for _ in range(3)]
        future = links[2].send(append(1), timeout_ms=LONG_MS)
        await node.wait_for(1)
        await transport.close()
        assert not any(link.is_open for link in links)
        with pytest.raises(Unavailable):
            await future
        with pytest.raises(Closed):
            await transport.connect(server.address, timeout_ms=LONG_MS)

    # --- flow control, two links ---

    async def test_a_stuck_node_is_sent_no_more_than_it_takes(
        self, place: Place, link: Link, node: Node
    ) -> None:
        size, count = 64 * KIB, 400
        most = place.max_unanswered_bytes
        futures = [link.send(append(n), bytes(size), timeout_ms=LONG_MS) for n in range(count)]
        while node.received_bytes < most // 2:
            await node.wait_for(len(node.waiting) + 1)
        for _ in range(300):  # whatever else would come, comes now
            await asyncio.sleep(0)
        assert node.received_bytes <= most + 4 * size
        assert link.unsent_bytes > 0
        assert link.is_open
        node.on_request = agree
        for _, _, responder in node.waiting:
            responder.reply(Done())
        assert [(await future).message for future in futures] == [Done()] * count
        assert node.received_bytes == count * size
        assert link.unsent_bytes == 0

    async def test_two_links_do_not_wait_for_each_other(
        self, place: Place, server: Server, node: Node
    ) -> None:
        first, second = place.transport(), place.transport()
        stuck = await first.connect(server.address, timeout_ms=LONG_MS)
        free = await second.connect(server.address, timeout_ms=LONG_MS)
        futures = [stuck.send(append(n), bytes(64 * KIB), timeout_ms=LONG_MS) for n in range(100)]
        while node.received_bytes < place.max_unanswered_bytes // 2:
            await node.wait_for(len(node.waiting) + 1)
        node.on_request = agree
        assert (await free.send(append(1), b"x", timeout_ms=LONG_MS)).message == Done()
        await first.close()
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert {type(result) for result in results} <= {Unavailable, Answer}
        assert (await free.send(append(1), b"x", timeout_ms=LONG_MS)).message == Done()
        for _, _, responder in node.waiting:
            responder.reply(Done())
        await second.close()
