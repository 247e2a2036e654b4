"""What every transport of the streaming service must do. Subclass the suite and give it a fixture ``place``.

class TestMine(StreamTransportSuite):
    @pytest.fixture
    def place(self):
        return MyPlace()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import pytest_asyncio

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.ports import Dialer, Endpoint, Stream
from woodpecker.streaming.requests import Request
from woodpecker.streaming.transport.services import Services
from woodpecker.testing.conformance import stream_samples as samples
from woodpecker.testing.conformance.stream_samples import as_sent

LIMIT_S = 20
LONG_MS = 60_000
MIB = 1 << 20
HELLO = frames.ProduceHello(pchannel="p0", term=1, incarnation="1" * 32)


class Server(Protocol):
    """What a place serves."""

    address: str

    async def close(self) -> None:
        """Cut everything, free the address."""


class Place(Protocol):
    """Where a test happens: it serves, and makes dialers that reach what it serves."""

    async def serve(self, services: Services, address: str | None = None) -> Server:
        """Serve, at an address that was in use before if one is given."""

    def dialer(self) -> Dialer:
        """A new dialer."""

    async def nowhere(self) -> str:
        """An address where nobody answers."""


AnyStream = Stream[Any, Any]
Work = Callable[[AnyStream], Awaitable[None]]


async def take_nothing(_stream: AnyStream) -> None:
    """A server that neither sends nor receives until it is ended."""
    await asyncio.Event().wait()


async def answer_all(stream: AnyStream) -> None:
    """A server that answers each frame of a Produce stream with a ``Credit`` of its own size."""
    while (frame := await stream.receive()) is not None:
        await stream.send(credit(frame))


def credit(frame: frames.ProduceUp) -> frames.Credit:
    """The answer of ``answer_all``; a KeepAlive's says which one it answers."""
    if isinstance(frame, frames.KeepAlive):
        return frames.Credit(size_bytes=frame.txn_number, consumer=frame.session)
    return frames.Credit(size_bytes=1, consumer=1)


@dataclass
class Service:
    """All services; what they do, a test says.

    Attributes:
        work: serves all streams.
        ends: how the work of each stream ended.
        asked: unary requests so far.
        reply: of the next requests; an exception is raised.
        wait: if set, requests are answered when it is.
    """

    work: Work = answer_all
    ends: asyncio.Queue[BaseException | None] = field(default_factory=asyncio.Queue)
    asked: list[Request[Any]] = field(default_factory=list)
    reply: Any = field(default_factory=requests.Done)
    wait: asyncio.Event | None = None
    done: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def produce(self, stream: AnyStream) -> None:
        try:
            await self.work(stream)
        except BaseException as error:
            self.ends.put_nowait(error)
            raise
        self.ends.put_nowait(None)

    consume = status = discover = produce

    async def handle(self, request: Request[Any]) -> Any:
        self.asked.append(request)
        self.changed.set()
        if self.wait is not None:
            await self.wait.wait()
        self.done += 1
        self.changed.set()
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    manage = assign = handle

    async def until(self, condition: Callable[[], object]) -> None:
        """Until a request that came or was done makes it true."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    @property
    def all(self) -> Services:
        """It as all services of one address."""
        return Services(handler=self, manager=self, assignment=self)


async def refused(work: Awaitable[object]) -> Refused:
    """The refusal that must come of ``work``."""
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


async def drain(stream: AnyStream) -> list[Any]:
    """All frames up to a good end."""
    found = []
    while (frame := await stream.receive()) is not None:
        found.append(frame)
    return found


class StreamTransportSuite:
    """The suite. ``place`` is yours."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def service(self) -> Service:
        return Service()

    @pytest_asyncio.fixture
    async def server(self, place: Place, service: Service) -> AsyncIterator[Server]:
        server = await place.serve(service.all)
        yield server
        await server.close()

    @pytest_asyncio.fixture
    async def dialer(self, place: Place) -> AsyncIterator[Dialer]:
        dialer = place.dialer()
        async with asyncio.timeout(LIMIT_S):
            yield dialer
        await dialer.close()

    @pytest_asyncio.fixture
    async def endpoint(self, dialer: Dialer, server: Server) -> Endpoint:
        return dialer.endpoint(server.address)

    # --- streams ---

    @pytest.mark.parametrize(
        ("kind", "up", "down"),
        [
            ("produce", samples.PRODUCE_UP, samples.PRODUCE_DOWN),
            ("consume", samples.CONSUME_UP, samples.CONSUME_DOWN),
            ("status", samples.STATUS_UP, samples.STATUS_DOWN),
            ("discover", samples.DISCOVER_UP, samples.DISCOVER_DOWN),
        ],
    )
    async def test_every_frame_arrives_as_it_was_in_order(
        self, endpoint: Endpoint, service: Service, kind: str, up: Any, down: Any
    ) -> None:
        got: list[Any] = []

        async def work(stream: AnyStream) -> None:
            got.extend(await drain(stream))
            for frame in down:
                await stream.send(frame)

        service.work = work
        stream = getattr(endpoint, kind)()
        for frame in up:
            await stream.send(frame)
        await stream.close()
        assert as_sent(await drain(stream)) == as_sent(down)
        assert as_sent(got) == as_sent(up)
        assert await service.ends.get() is None

    async def test_both_sides_talk_at_once(self, endpoint: Endpoint) -> None:
        stream = endpoint.produce()
        for number in range(100):
            frame = frames.KeepAlive(session=number, txn_number=number)
            await stream.send(frame)
            assert await stream.receive() == credit(frame)
        await stream.close()
        assert await stream.receive() is None

    async def test_streams_do_not_mix(self, endpoint: Endpoint) -> None:
        async def one(number: int) -> None:
            stream = endpoint.produce()
            mine = [frames.KeepAlive(session=number, txn_number=i) for i in range(20)]
            for frame in mine:
                await stream.send(frame)
            await stream.close()
            assert await drain(stream) == [credit(frame) for frame in mine]

        await asyncio.gather(*(one(number) for number in range(20)))

    async def test_the_servers_end_closes_the_stream_after_its_last_frame(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        async def work(stream: AnyStream) -> None:
            await stream.receive()
            await stream.send(frames.Closed())

        service.work = work
        stream = endpoint.produce()
        await stream.send(HELLO)
        assert await drain(stream) == [frames.Closed()]
        error = await refused(self._send_until_it_fails(stream))
        assert error.refusal.kind is Class.UNKNOWN

    async def test_a_refusal_arrives_whole_after_the_frames_before_it(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        async def work(stream: AnyStream) -> None:
            await stream.send(frames.ConsumeReady(term=5))
            raise Refused(samples.REFUSAL)

        service.work = work
        stream = endpoint.consume()
        assert await stream.receive() == frames.ConsumeReady(term=5)
        assert (await refused(stream.receive())).refusal == samples.REFUSAL
        assert (await refused(stream.receive())).refusal == samples.REFUSAL

    async def test_a_failure_of_the_server_is_unknown(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        async def work(_stream: AnyStream) -> None:
            raise ValueError("a bug")

        service.work = work
        assert (await refused(endpoint.produce().receive())).refusal.kind is Class.UNKNOWN

    async def test_a_cut_by_the_client_is_unknown_to_the_server_which_ends_by_itself(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        stream = endpoint.produce()
        await stream.send(HELLO)
        assert await stream.receive() == credit(HELLO)
        stream.cut()
        stream.cut()
        end = await service.ends.get()
        assert isinstance(end, Refused)
        assert end.refusal.kind is Class.UNKNOWN
        assert (await refused(stream.receive())).refusal.kind is Class.UNKNOWN
        assert (await refused(stream.send(HELLO))).refusal.kind is Class.UNKNOWN
        await stream.close()

    async def test_a_cut_wakes_whoever_waits(self, endpoint: Endpoint, service: Service) -> None:
        stream = endpoint.produce()
        await stream.send(HELLO)
        await stream.receive()
        waiting = asyncio.ensure_future(stream.receive())
        await asyncio.sleep(0)
        stream.cut()
        assert (await refused(waiting)).refusal.kind is Class.UNKNOWN

    async def test_a_cut_by_the_server_is_unknown_to_the_client(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        async def work(stream: AnyStream) -> None:
            await stream.receive()
            stream.cut()

        service.work = work
        stream = endpoint.produce()
        await stream.send(HELLO)
        assert (await refused(stream.receive())).refusal.kind is Class.UNKNOWN

    async def test_a_cancelled_receive_loses_nothing(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        stream = endpoint.produce()
        for number in range(30):
            waiting = asyncio.ensure_future(stream.receive())
            await asyncio.sleep(0)
            waiting.cancel()
            frame = frames.KeepAlive(session=number, txn_number=0)
            await stream.send(frame)
            result = (await asyncio.gather(waiting, return_exceptions=True))[0]
            if isinstance(result, BaseException):
                assert isinstance(result, asyncio.CancelledError)
                result = await stream.receive()
            assert result == credit(frame)

    async def test_nobody_sends_without_end_to_one_who_takes_nothing(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        service.work = take_nothing
        stream = endpoint.produce()
        messages = frames.Messages(payloads=[bytes(MIB)])
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await stream.send(
                        frames.Batch(session=1, sequence=sent, vcid=1, messages=messages)
                    )
                    sent += 1
        assert sent <= 64
        stream.cut()

    async def test_large_frames_pass_both_ways(self, endpoint: Endpoint, service: Service) -> None:
        messages = frames.Messages(payloads=[bytes(MIB)] * 16)
        batch = frames.Batch(session=1, sequence=0, vcid=1, messages=messages)
        data = frames.Data(consumer=1, seqs=range(16), ticks=range(16), messages=messages)

        async def work(stream: AnyStream) -> None:
            assert as_sent(await stream.receive()) == as_sent(batch)
            await stream.send(frames.Closed())

        async def work_down(stream: AnyStream) -> None:
            await stream.send(data)

        service.work = work
        stream = endpoint.produce()
        await stream.send(batch)
        assert await stream.receive() == frames.Closed()
        service.work = work_down
        assert as_sent(await endpoint.consume().receive()) == as_sent(data)

    async def test_a_stream_to_nobody_is_unknown(self, place: Place, dialer: Dialer) -> None:
        stream = dialer.endpoint(await place.nowhere()).discover()
        assert (await refused(stream.receive())).refusal.kind is Class.UNKNOWN
        error = await refused(self._send_until_it_fails(stream))
        assert error.refusal.kind is Class.UNKNOWN

    async def test_a_stream_of_a_service_that_is_elsewhere_is_invalid(
        self, place: Place, service: Service, dialer: Dialer
    ) -> None:
        server = await place.serve(Services(handler=service))
        endpoint = dialer.endpoint(server.address)
        assert (await refused(endpoint.status().receive())).refusal.kind is Class.INVALID
        assert (await refused(endpoint.discover().receive())).refusal.kind is Class.INVALID
        await server.close()

    # --- unary ---

    @pytest.mark.parametrize("number", range(len(samples.EXCHANGES)))
    async def test_every_request_and_reply_arrives_as_it_was(
        self, endpoint: Endpoint, service: Service, number: int
    ) -> None:
        request, service.reply = samples.EXCHANGES[number]
        assert as_sent(await endpoint.call(request)) == as_sent(service.reply)
        assert as_sent(service.asked) == as_sent([request])

    async def test_a_refused_request(self, endpoint: Endpoint, service: Service) -> None:
        service.reply = Refused(samples.REFUSAL)
        call = endpoint.call(requests.GetReadPoint(pchannel="p0", vcid=1))
        assert (await refused(call)).refusal == samples.REFUSAL

    async def test_a_request_that_fails_at_the_server_is_unknown(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        service.reply = ValueError("a bug")
        call = endpoint.call(requests.DeleteChannel(name="x", request="r"))
        assert (await refused(call)).refusal.kind is Class.UNKNOWN

    async def test_a_request_that_is_served_elsewhere_is_invalid(
        self, place: Place, service: Service, dialer: Dialer
    ) -> None:
        server = await place.serve(Services(assignment=service))
        endpoint = dialer.endpoint(server.address)
        call = endpoint.call(requests.GetReadPoint(pchannel="p0", vcid=1))
        assert (await refused(call)).refusal.kind is Class.INVALID
        assert await endpoint.call(requests.AddPchannels(count=1)) == requests.Done()
        await server.close()

    async def test_a_request_to_nobody_is_unavailable(self, place: Place, dialer: Dialer) -> None:
        endpoint = dialer.endpoint(await place.nowhere())
        call = endpoint.call(requests.DescribeCluster(), timeout_ms=2000)
        assert (await refused(call)).refusal.kind is Class.UNAVAILABLE

    async def test_a_time_out_is_unknown_and_takes_nothing_back(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        service.wait = asyncio.Event()
        call = endpoint.call(requests.AddPchannels(count=1), timeout_ms=200)
        assert (await refused(call)).refusal.kind is Class.UNKNOWN
        service.wait.set()
        await service.until(lambda: service.done)

    async def test_a_caller_that_gives_up_takes_nothing_back(
        self, endpoint: Endpoint, service: Service
    ) -> None:
        service.wait = asyncio.Event()
        call = asyncio.ensure_future(endpoint.call(requests.AddPchannels(count=1)))
        await service.until(lambda: service.asked)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.05)
        service.wait.set()
        await service.until(lambda: service.done)

    # --- ends ---

    async def test_a_server_that_closes_leaves_all_unknown(
        self, endpoint: Endpoint, service: Service, server: Server
    ) -> None:
        service.wait = asyncio.Event()
        stream = endpoint.produce()
        await stream.send(HELLO)
        assert await stream.receive() == credit(HELLO)
        call = asyncio.ensure_future(
            endpoint.call(requests.AddPchannels(count=1), timeout_ms=LONG_MS)
        )
        await service.until(lambda: service.asked)
        await server.close()
        assert (await refused(stream.receive())).refusal.kind is Class.UNKNOWN
        assert (await refused(call)).refusal.kind is Class.UNKNOWN

    async def test_a_server_that_comes_back_is_found_by_the_same_dialer(
        self, place: Place, endpoint: Endpoint, service: Service, server: Server
    ) -> None:
        assert await endpoint.call(requests.AddPchannels(count=1)) == requests.Done()
        await server.close()
        call = endpoint.call(requests.AddPchannels(count=1), timeout_ms=2000)
        assert (await refused(call)).refusal.kind in {Class.UNAVAILABLE, Class.UNKNOWN}
        again = await place.serve(service.all, endpoint.address)
        for _ in range(100):
            try:
                await endpoint.call(requests.AddPchannels(count=2))
                break
            except Refused:
                await asyncio.sleep(0.1)
        assert service.asked[-1] == requests.AddPchannels(count=2)
        stream = endpoint.produce()
        await stream.send(HELLO)
        assert await stream.receive() == credit(HELLO)
        await again.close()

    async def test_a_closed_dialer_cuts_its_streams(
        self, place: Place, server: Server, service: Service
    ) -> None:
        dialer = place.dialer()
        stream = dialer.endpoint(server.address).produce()
        await stream.send(HELLO)
        assert await stream.receive() == credit(HELLO)
        await dialer.close()
        assert (await refused(stream.receive())).refusal.kind is Class.UNKNOWN
        end = await service.ends.get()
        assert isinstance(end, Refused)
        assert end.refusal.kind is Class.UNKNOWN

    async def test_a_closed_dialer_ends_its_calls(
        self, place: Place, server: Server, service: Service
    ) -> None:
        dialer = place.dialer()
        endpoint = dialer.endpoint(server.address)
        service.wait = asyncio.Event()
        call = asyncio.ensure_future(
            endpoint.call(requests.AddPchannels(count=1), timeout_ms=LONG_MS)
        )
        await service.until(lambda: service.asked)
        await dialer.close()
        assert (await refused(call)).refusal.kind is Class.UNKNOWN
        late = endpoint.call(requests.AddPchannels(count=1))
        assert (await refused(late)).refusal.kind is Class.UNAVAILABLE

    async def _send_until_it_fails(self, stream: AnyStream) -> None:
        """The end of the other side may be noticed late."""
        for _ in range(2000):
            await stream.send(HELLO)
            await asyncio.sleep(0.002)
