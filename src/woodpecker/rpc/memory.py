"""The ports within one process: for tests and simulated clusters, whose network can be made a bad one.

As with TCP, what is sent one way on one link arrives in order or not at all: a lost message is a broken
link. Links do not wait for one another, so requests of two links change places. Messages are encoded and
decoded as on a wire, and payloads copied.

Everything a side does runs in the context in which it was made (``serve``, ``connect``): a simulated
process that was stopped or killed neither receives nor answers.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from woodpecker.codec.compression import Buffer
from woodpecker.codec.frames import Parser, encode
from woodpecker.codec.messages import AnyMessage, Reply, Request, Welcome
from woodpecker.errors import Closed, Corrupt, InvalidRequest, Unavailable
from woodpecker.rpc.base import Answer, Handler, Told
from woodpecker.rpc.calls import Calls, waiting
from woodpecker.rpc.desk import Desk, Load
from woodpecker.runtime.runtime import Runtime

MAX_UNANSWERED_BYTES = 32 << 20
DEAD_AFTER_MS = 10_000

Way = tuple[str, str]  # from whom to whom


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How messages fare on one way.

    Attributes:
        delay_ms: least and most; each message draws its own, but none passes another.
        loss: chance of a message to be lost, and the link with it.
    """

    delay_ms: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0

    def draw_ms(self, runtime: Runtime) -> float:
        """A delay."""
        least, most = self.delay_ms
        return least + (most - least) * runtime.random() if most > least else least


class MemoryNetwork:
    """Everybody reachable from one another. ``runtime`` is the world's: it draws all that is chance.

    Attributes:
        conditions: of all ways without conditions of their own in ``ways``.
        dead_after_ms: after this long a link that is cut in one direction breaks for both sides.
        max_unanswered_bytes: a server takes no more of a link that has this much unanswered.
    """

    def __init__(self, runtime: Runtime, conditions: Conditions | None = None) -> None:
        self.runtime = runtime
        self.conditions = conditions or Conditions()
        self.ways: dict[Way, Conditions] = {}
        self.dead_after_ms = DEAD_AFTER_MS
        self.max_unanswered_bytes = MAX_UNANSWERED_BYTES
        self._cuts: set[Way] = set()
        self._servers: dict[str, MemoryServer] = {}
        self._lines: list[_Line] = []

    def serve(self, address: str, handler: Handler) -> MemoryServer:
        """Serve ``handler`` at ``address``. Raises: InvalidRequest: the address is taken."""
        if address in self._servers:
            raise InvalidRequest(f"{address} is in use")
        server = self._servers[address] = MemoryServer(self, address, handler)
        return server

    def transport(self, source: str = "client") -> MemoryTransport:
        """A transport of somebody; several may go by one name."""
        return MemoryTransport(self, source)

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from ``source`` to ``target`` any more; neither side is told."""
        self._cuts.add((source, target))
        doomed = [line for line in self._lines if (source, target) in line.ways]

        def give_up() -> None:
            if (source, target) in self._cuts:
                for line in doomed:
                    line.snap("nothing was heard of the other side for too long")

        asyncio.get_running_loop().call_later(self.dead_after_ms / 1000, give_up)

    def heal(self, source: str, target: str) -> None:
        """The way is free again; what was held up arrives."""
        self._cuts.discard((source, target))
        for line in self._lines:
            line.go_on()

    def snap(self, source: str, target: str) -> None:
        """Break all links between the two; what is on its way is lost."""
        for line in list(self._lines):
            if line.ways[0] in ((source, target), (target, source)):
                line.snap("connection reset")

    def crash(self, name: str) -> None:
        """``name`` is gone: its server, and all links from and to it."""
        self._servers.pop(name, None)
        for line in list(self._lines):
            if name in line.ways[0]:
                line.snap("connection reset")

    # --- for links and servers ---

    def is_cut(self, way: Way) -> bool:
        """Whether messages are held up."""
        return way in self._cuts

    def conditions_of(self, way: Way) -> Conditions:
        """Of one way."""
        return self.ways.get(way, self.conditions)

    def server_at(self, address: str) -> MemoryServer | None:
        """Who serves there."""
        return self._servers.get(address)

    def forget_server(self, server: MemoryServer) -> None:
        """It has closed; another may be there already."""
        if self._servers.get(server.address) is server:
            del self._servers[server.address]

    def add(self, line: _Line) -> None:
        """A link was made."""
        self._lines.append(line)

    def remove(self, line: _Line) -> None:
        """It is broken."""
        if line in self._lines:
            self._lines.remove(line)

    def lines_to(self, address: str) -> Iterator[_Line]:
        """Links made to a server."""
        return (line for line in list(self._lines) if line.ways[0][1] == address)


class MemoryServer:
    """``Server`` of a handler."""

    def __init__(self, network: MemoryNetwork, address: str, handler: Handler) -> None:
        self._network = network
        self._address = address
        self.handler = handler
        self.context = contextvars.copy_context()

    @property
    def address(self) -> str:
        return self._address

    async def close(self) -> None:
        self._network.forget_server(self)
        for line in self._network.lines_to(self._address):
            line.snap("the node closed the connection")


class MemoryTransport:
    """``Transport`` of one member of the network."""

    def __init__(self, network: MemoryNetwork, source: str) -> None:
        self._network = network
        self._source = source
        self._links: list[MemoryLink] = []
        self._is_closed = False

    async def connect(self, address: str, *, timeout_ms: int) -> MemoryLink:
        self._check_open()
        network, runtime = self._network, self._network.runtime
        there, back = (self._source, address), (address, self._source)
        travel_ms = sum(network.conditions_of(way).draw_ms(runtime) for way in (there, back))
        if network.is_cut(there) or network.is_cut(back) or travel_ms > timeout_ms:
            await runtime.sleep_ms(timeout_ms)
            raise Unavailable(f"node at {address}: no connection within {timeout_ms} ms")
        await runtime.sleep_ms(travel_ms)
        server = network.server_at(address)
        if server is None:
            raise Unavailable(f"node at {address}: connection refused")
        self._check_open()
        link = MemoryLink(network, self._source, server)
        self._links = [*(link for link in self._links if link.is_open), link]
        return link

    async def close(self) -> None:
        self._is_closed = True
        for link in self._links:
            await link.close()
        self._links.clear()

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed("this client is closed: it makes no links to nodes")


class MemoryLink:
    """``Link`` to a node in this process."""

    def __init__(self, network: MemoryNetwork, source: str, server: MemoryServer) -> None:
        welcome = server.context.run(server.handler.welcome)
        (told,) = Parser().feed(encode(welcome))
        assert isinstance(told.message, Welcome)
        self.welcome = told.message
        self._peer = f"node {self.welcome.node} at {server.address}"
        self._calls = Calls(self._peer)
        self._closed = asyncio.Event()
        self._parser = Parser()
        self._line = _Line(network, (source, server.address), self._received, self._snapped, server)

    def send(
        self, request: Request, payload: Buffer = b"", *, timeout_ms: int
    ) -> asyncio.Future[Answer]:
        future, told = waiting()
        self.call(request, payload, timeout_ms=timeout_ms, told=told)
        return future

    def call(self, request: Request, payload: Buffer = b"", *, timeout_ms: int, told: Told) -> None:
        if not self.is_open:
            self._calls.refuse(told, Unavailable(f"{self._peer}: the link is closed"))
            return
        try:
            head = encode(request, self._calls.next_number, len(payload))
        except InvalidRequest as error:
            self._calls.refuse(told, error)
            return
        self._calls.begin(request, timeout_ms, told)
        self._line.there.put(head, (payload,))

    def post(self, request: Request) -> None:
        if self.is_open:
            self._line.there.put(encode(request), ())

    @property
    def unsent_bytes(self) -> int:
        return self._line.there.stuck_bytes

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self._line.snap("the link was closed")
        await self._closed.wait()

    def _received(self, data: bytes) -> None:
        for frame in self._parser.feed(data):
            self._calls.answered(frame.request_id, Answer(_reply(frame.message), frame.payload))

    def _snapped(self, why: str) -> None:
        self._closed.set()
        self._calls.fail(f"{self._peer}: {why}; what was under way may have been done")


def _reply(message: AnyMessage) -> Reply:
    assert isinstance(message, Reply), message
    return message


class _Line:
    """What is between the two ends of one link."""

    def __init__(
        self,
        network: MemoryNetwork,
        way: Way,
        received: Callable[[bytes], None],
        snapped: Callable[[str], None],
        server: MemoryServer,
    ) -> None:
        self.ways = (way, way[::-1])
        self._network = network
        self._snapped = snapped
        self._context = contextvars.copy_context()
        self._desk = Desk(server.handler, self._answer, self._relieved, Load())
        self._parser = Parser(self._desk.allocate)
        self.there = _Pipe(network, way, self._take, self._lost, server.context, self._is_full)
        self._back = _Pipe(network, way[::-1], received, self._lost, self._context, lambda: False)
        network.add(self)

    def snap(self, why: str) -> None:
        """Break it; both ends are told, each in its own time."""
        if self.there.is_closed:
            return
        self._network.remove(self)
        for pipe in (self.there, self._back):
            pipe.close()
        loop = asyncio.get_running_loop()
        loop.call_soon(self._desk.close, context=self.there.context)
        loop.call_soon(self._snapped, why, context=self._context)

    def go_on(self) -> None:
        """What held messages up may be over."""
        self.there.go_on()
        self._back.go_on()

    def _take(self, data: bytes) -> None:
        try:
            for frame in self._parser.feed(data):
                self._desk.take(frame)
        except Corrupt as error:
            self.snap(f"the node closed the connection: {error}")

    def _lost(self) -> None:
        self.snap("connection reset")

    def _answer(self, head: bytes, parts: Sequence[Buffer]) -> None:
        self._back.put(head, parts)

    def _is_full(self) -> bool:
        return self._desk.unanswered_bytes > self._network.max_unanswered_bytes

    def _relieved(self) -> None:
        self.there.go_on()


class _Pipe:
    """One direction of a link."""

    def __init__(
        self,
        network: MemoryNetwork,
        way: Way,
        deliver: Callable[[bytes], None],
        lost: Callable[[], None],
        context: contextvars.Context,
        is_full: Callable[[], bool],
    ) -> None:
        self._network = network
        self._way = way
        self._deliver = deliver
        self._lost = lost
        self._is_full = is_full
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes | None]] = deque()  # None: the link breaks here
        self._bytes = 0
        self._last_due = 0.0
        self._handle: asyncio.Handle | None = None
        self.context = context
        self.is_closed = False

    @property
    def stuck_bytes(self) -> int:
        """Bytes that wait though their time has come."""
        return self._bytes if self._waiting and self._is_stuck() else 0

    def put(self, head: bytes, parts: Sequence[Buffer]) -> None:
        """Send a frame."""
        if self.is_closed:
            return
        conditions, runtime = self._network.conditions_of(self._way), self._network.runtime
        due = self._loop.time() + conditions.draw_ms(runtime) / 1000
        self._last_due = max(self._last_due, due)
        is_lost = conditions.loss > 0 and runtime.random() < conditions.loss
        data = None if is_lost else b"".join((head, *parts))
        self._waiting.append((self._last_due, data))
        self._bytes += len(data or b"")
        self.go_on()

    def go_on(self) -> None:
        """Have the first message delivered when it is due."""
        if self._handle is not None or not self._waiting or self._is_stuck():
            return
        due = self._waiting[0][0]
        if due <= self._loop.time():
            self._handle = self._loop.call_soon(self._next, context=self.context)
        else:
            self._handle = self._loop.call_at(due, self._next, context=self.context)

    def close(self) -> None:
        """What is on its way is lost."""
        self.is_closed = True
        self._waiting.clear()
        self._bytes = 0
        if self._handle is not None:
            self._handle.cancel()

    def _is_stuck(self) -> bool:
        return self._is_full() or self._network.is_cut(self._way)

    def _next(self) -> None:
        self._handle = None
        if self.is_closed or not self._waiting or self._is_stuck():
            return
        _, data = self._waiting.popleft()
        if data is None:
            self._lost()
            return
        self._bytes -= len(data)
        self._deliver(data)
        self.go_on()
