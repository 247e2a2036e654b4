"""Dialers and streams within one process: for standalone, for tests, for the simulator.

Frames are handed over as they are, in order, at most ``CAPACITY`` of one direction not yet taken. Everything
a server does runs in the context in which it was made, so a simulated process that was stopped or killed
neither receives nor answers.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming import frames
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.ports import Stream
from woodpecker.streaming.requests import Request
from woodpecker.streaming.transport.pipe import Pipe
from woodpecker.streaming.transport.services import Services, StreamKind, ended, failed

CAPACITY = 16
DEAD_AFTER_MS = 10_000

Out = TypeVar("Out")
In = TypeVar("In")
Frame = TypeVar("Frame")
Reply = TypeVar("Reply")
Way = tuple[str, str]  # from whom to whom


class MemoryNetwork:
    """Everybody reachable from one another. ``runtime`` is the world's: it draws all that is chance.

    Attributes:
        delay_ms: least and most of what a frame, request or reply takes; none passes another of its stream.
        dead_after_ms: a stream that is held up in one direction for this long is cut for both sides.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.delay_ms = (0.0, 0.0)
        self.dead_after_ms = DEAD_AFTER_MS
        self._held: set[Way] = set()
        self._servers: dict[str, MemoryServer] = {}
        self._lines: list[_Line] = []

    def serve(
        self, address: str, services: Services, *, runtime: Runtime | None = None
    ) -> MemoryServer:
        """Serve at ``address``; tasks are ``runtime``'s. Raises: Refused(EXISTS): it is taken."""
        if address in self._servers:
            raise Refused(Refusal(kind=Class.EXISTS, message=f"{address} is in use"))
        server = MemoryServer(self, address, services, runtime or self.runtime)
        self._servers[address] = server
        return server

    def dialer(self, source: str = "client") -> MemoryDialer:
        """A dialer of somebody; several may go by one name."""
        return MemoryDialer(self, source)

    # --- bad times ---

    def hold(self, source: str, target: str) -> None:
        """Nothing gets from ``source`` to ``target`` any more; neither side is told."""
        self._held.add((source, target))
        doomed = [line for line in self._lines if (source, target) in line.ways]

        def give_up() -> None:
            if (source, target) in self._held:
                for line in doomed:
                    line.cut()

        asyncio.get_running_loop().call_later(self.dead_after_ms / 1000, give_up)

    def release(self, source: str, target: str) -> None:
        """The way is free again; what was held up arrives."""
        self._held.discard((source, target))
        for line in list(self._lines):
            line.wake()

    def snap(self, source: str, target: str) -> None:
        """Cut all streams and calls between the two; what is on its way is lost."""
        for line in list(self._lines):
            if line.ways[0] in ((source, target), (target, source)):
                line.cut()

    def crash(self, name: str) -> None:
        """``name`` is gone: what it serves, and all streams and calls from and to it."""
        self._servers.pop(name, None)
        for line in list(self._lines):
            if name in line.ways[0]:
                line.cut()

    # --- for what is below ---

    def is_held(self, way: Way) -> bool:
        """Whether frames are held up."""
        return way in self._held

    def draw_delay_s(self) -> float:
        """How long the next frame takes."""
        least, most = self.delay_ms
        if most <= least:
            return least / 1000
        return (least + (most - least) * self.runtime.random()) / 1000

    def server_at(self, address: str) -> MemoryServer | None:
        """Who serves there."""
        return self._servers.get(address)

    def forget_server(self, server: MemoryServer) -> None:
        """It has closed; another may be there already."""
        if self._servers.get(server.address) is server:
            del self._servers[server.address]

    def add(self, line: _Line) -> None:
        """A stream or call has begun."""
        self._lines.append(line)

    def remove(self, line: _Line) -> None:
        """It has ended."""
        if line in self._lines:
            self._lines.remove(line)

    def lines_of(self, dialer: object) -> list[_Line]:
        """Streams and calls that somebody made."""
        return [line for line in self._lines if line.maker is dialer]


class MemoryServer:
    """Serves until it is closed."""

    def __init__(
        self, network: MemoryNetwork, address: str, services: Services, runtime: Runtime
    ) -> None:
        self.address = address
        self.services = services
        self._network = network
        self._runtime = runtime
        self._context = contextvars.copy_context()
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._lines: dict[int, _Line] = {}
        self._made = 0

    def start(self, line: _Line, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` as this server's own; ``line`` ends with the server."""
        self._made += 1
        number = self._made

        def forget(_: object) -> None:
            del self._tasks[number], self._lines[number]

        self._lines[number] = line
        self._tasks[number] = task = self._context.run(self._runtime.spawn, work, name)
        task.add_done_callback(forget)

    async def close(self) -> None:
        """Cut all streams and calls and wait for what served them."""
        self._network.forget_server(self)
        for line in list(self._lines.values()):
            line.cut()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class MemoryDialer:
    """``Dialer`` of one member of the network."""

    def __init__(self, network: MemoryNetwork, source: str) -> None:
        self._network = network
        self._source = source
        self.is_closed = False

    def endpoint(self, address: str) -> MemoryEndpoint:
        return MemoryEndpoint(self._network, self, self._source, address)

    async def close(self) -> None:
        self.is_closed = True
        for line in self._network.lines_of(self):
            line.cut()


class MemoryEndpoint:
    """``Endpoint`` in this process."""

    def __init__(
        self, network: MemoryNetwork, dialer: MemoryDialer, source: str, address: str
    ) -> None:
        self.address = address
        self._network = network
        self._dialer = dialer
        self._source = source

    def produce(self) -> Stream[frames.ProduceUp, frames.ProduceDown]:
        return self._open(StreamKind.PRODUCE)

    def consume(self) -> Stream[frames.ConsumeUp, frames.ConsumeDown]:
        return self._open(StreamKind.CONSUME)

    def discover(self) -> Stream[frames.DiscoverUp, frames.DiscoverDown]:
        return self._open(StreamKind.DISCOVER)

    def status(self) -> Stream[frames.WatchStatus, frames.NodeStatus]:
        return self._open(StreamKind.STATUS)

    async def call(self, request: Request[Reply], *, timeout_ms: int = 10_000) -> Reply:
        what = f"{type(request).__name__} to {self.address}"
        server = None if self._dialer.is_closed else self._network.server_at(self.address)
        if server is None:
            text = f"{what}: nobody answers there; nothing was done"
            raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text))
        line = self._line(what)
        here, there = line.ends()
        server.start(line, _answer(server.services, there), f"answer {what}")
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await here.send(request)
                return await here.receive()  # type: ignore[return-value]  # of the request's type
        except TimeoutError:
            text = f"{what}: no answer within {timeout_ms} ms; whether it was done is not known"
            raise Refused(Refusal(kind=Class.UNKNOWN, message=text)) from None
        finally:
            self._network.remove(line)

    def _open(self, kind: StreamKind) -> MemoryStream[Any, Any]:
        line = self._line(f"{kind} to {self.address}")
        here, there = line.ends()
        server = None if self._dialer.is_closed else self._network.server_at(self.address)
        if server is None:
            line.cut()
        else:
            server.start(line, _serve(server.services, kind, there), f"serve {kind}")
        return here

    def _line(self, what: str) -> _Line:
        return _Line(self._network, (self._source, self.address), what, self._dialer)


async def _serve(services: Services, kind: StreamKind, stream: MemoryStream[Any, Any]) -> None:
    refused: Refused | None = None
    try:
        await services.stream(kind)(stream)
    except Refused as error:
        refused = error
    except Exception as error:  # noqa: BLE001  the client is told, the log says why
        refused = failed(kind, error)
    except asyncio.CancelledError:
        stream.cut()
        raise
    stream.end(refused)


async def _answer(services: Services, stream: MemoryStream[Any, Any]) -> None:
    try:
        request = await stream.receive()
        if request is not None:
            await stream.send(await services.answer(request))
    except Refused as error:
        stream.end(error)


class MemoryStream(Generic[Out, In]):
    """One end of a stream."""

    def __init__(self, line: _Line, out: _Way[Out], into: _Way[In]) -> None:
        self._line = line
        self._out = out
        self._into = into

    async def send(self, frame: Out) -> None:
        await self._out.put(frame)

    async def receive(self) -> In | None:
        return await self._into.take()

    async def close(self) -> None:
        self._out.close()
        self._line.settle()

    def cut(self) -> None:
        self._line.cut()

    def end(self, refused: Refused | None) -> None:
        """The server is done: the client hears no more than what was sent, and why."""
        self._out.close(refused)
        self._into.refuse()
        self._line.settle()


class _Line:
    """What is between the two ends of a stream or call."""

    def __init__(self, network: MemoryNetwork, way: Way, what: str, maker: object) -> None:
        self.ways = (way, way[::-1])
        self.maker = maker
        self._network = network
        self._there: _Way[Any] = _Way(network, way, lambda: ended(what))
        self._back: _Way[Any] = _Way(network, way[::-1], lambda: ended(what))
        network.add(self)

    def ends(self) -> tuple[MemoryStream[Any, Any], MemoryStream[Any, Any]]:
        """The client's and the server's."""
        return (
            MemoryStream(self, self._there, self._back),
            MemoryStream(self, self._back, self._there),
        )

    def cut(self) -> None:
        """Both directions end; what is on its way is lost."""
        self._network.remove(self)
        self._there.cut()
        self._back.cut()

    def settle(self) -> None:
        """Forget it once both sides have closed."""
        if self._there.is_closed and self._back.is_closed:
            self._network.remove(self)

    def wake(self) -> None:
        """What held frames up may be over."""
        self._there.wake()
        self._back.wake()


class _Way(Pipe[Frame]):
    """A pipe whose frames take as long as the network says."""

    def __init__(self, network: MemoryNetwork, way: Way, ended: Callable[[], Refused]) -> None:
        super().__init__(CAPACITY, ended)
        self._network = network
        self._way = way
        self._dues: deque[float] = deque()  # of each frame: from when it may be taken
        self._last_due = 0.0

    def close(self, reason: Refused | None = None) -> None:
        if not self.is_closed:
            self._draw()
        super().close(reason)

    def refuse(self) -> None:
        self._dues.clear()
        super().refuse()

    def _append(self, frame: Frame) -> None:
        self._draw()
        self._dues.append(self._last_due)
        super()._append(frame)

    def _pop(self) -> Frame:
        self._dues.popleft()
        return super()._pop()

    def _wait_s(self) -> float | None:
        if self._network.is_held(self._way):
            return None
        if self._dues:
            return self._dues[0] - self._loop.time()
        return self._last_due - self._loop.time() if self.is_closed else None

    def _draw(self) -> None:
        self._last_due = max(self._last_due, self._loop.time() + self._network.draw_delay_s())
