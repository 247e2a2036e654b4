"""Who is asked, and when: the map, back-off, coordinators that are none, calls that are never answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.streaming.client.kit import PCHANNEL, refusal, serving

from woodpecker.errors import (
    AlreadyExists,
    Closed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from woodpecker.streaming import StreamingClient
from woodpecker.streaming.client.routing import Route, Routing, pause_ms
from woodpecker.streaming.core.assignment_map import EMPTY_MAP
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.frames import MapChange, MapEntry, MapVersion, Report
from woodpecker.streaming.requests import (
    Broadcast,
    BroadcastInfo,
    Channel,
    Channels,
    CreateChannel,
    DeleteChannel,
    Done,
    ListChannels,
    Locate,
)
from woodpecker.streaming.transport.memory import MemoryNetwork
from woodpecker.streaming.transport.services import Services
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


def _entry(term: int, node: str = "n1", **facts: Any) -> MapEntry:
    return MapEntry(
        pchannel=PCHANNEL, term=term, node=node, incarnation=f"{node} {term}", address=node,
        **{"serving": True, **facts},
    )  # fmt: skip


class _Coordinator:
    """Says on ``Discover`` what a test gives it."""

    def __init__(self) -> None:
        self.to_say: asyncio.Queue[Any] = asyncio.Queue()
        self.heard: list[Any] = []
        self.opened = 0
        self.answer = refusal(Class.UNAVAILABLE)

    async def discover(self, stream: Any) -> None:
        self.opened += 1
        reading = asyncio.create_task(self._read(stream))
        try:
            while (frame := await self.to_say.get()) is not None:
                if isinstance(frame, Refused):
                    raise frame
                await stream.send(frame)
        finally:
            reading.cancel()

    async def _read(self, stream: Any) -> None:
        while (frame := await stream.receive()) is not None:
            self.heard.append(frame)

    async def assign(self, request: Any) -> Any:
        raise Refused(self.answer)


async def _routing(*names: str) -> tuple[Routing, dict[str, _Coordinator]]:
    runtime = VirtualRuntime()
    network = MemoryNetwork(runtime)
    there = {name: _Coordinator() for name in names}
    for name, coordinator in there.items():
        network.serve(name, Services(assignment=coordinator))
    routing = Routing(runtime, network.dialer(), names, "test")
    routing.start()
    return routing, there


@on_virtual_time
async def test_changes_are_applied_and_a_wrong_digest_asks_for_the_whole() -> None:
    routing, there = await _routing("a")
    first = EMPTY_MAP.changed(MapVersion(epoch=1, counter=1), [_entry(1)])
    second = first.changed(MapVersion(epoch=1, counter=2), [_entry(2, "n2")])
    third = second.changed(MapVersion(epoch=1, counter=3), [_entry(3, "n3")])
    said = there["a"].to_say
    said.put_nowait(first.whole())
    said.put_nowait(second.since(first))
    await asyncio.sleep(0.01)
    assert routing.owner(PCHANNEL) == _entry(2, "n2")
    broken = third.since(second)
    said.put_nowait(
        MapChange(
            version=broken.version, entries=broken.entries, digest="0" * 32, since=broken.since
        )
    )
    await asyncio.sleep(0.01)
    assert routing.owner(PCHANNEL) == _entry(2, "n2")
    assert there["a"].heard[-1] == Report(resend_map=True)
    said.put_nowait(third.whole())
    said.put_nowait(first.whole())  # older: of no account
    await asyncio.sleep(0.01)
    assert routing.owner(PCHANNEL) == _entry(3, "n3")
    await routing.close()


@on_virtual_time
async def test_another_address_is_asked_when_one_is_silent_and_the_leader_first() -> None:
    routing, there = await _routing("a", "b", "c")
    there["a"].to_say.put_nowait(Refused(refusal(Class.NOT_LEADER, address="c")))
    await asyncio.sleep(1)
    assert (there["b"].opened, there["c"].opened) == (0, 1)
    there["c"].to_say.put_nowait(
        EMPTY_MAP.changed(MapVersion(epoch=1, counter=1), [_entry(1)]).whole()
    )
    await asyncio.sleep(1)
    assert next(routing.candidates()) == "c"
    assert list(routing.candidates()) == ["c", "a", "b", "n1"]
    await routing.close()


@on_virtual_time
async def test_while_nobody_answers_the_last_map_stays_and_the_next_one_is_asked_for() -> None:
    routing, there = await _routing("a")
    there["a"].to_say.put_nowait(
        EMPTY_MAP.changed(MapVersion(epoch=1, counter=1), [_entry(1)]).whole()
    )
    there["a"].to_say.put_nowait(None)
    for _ in range(100):
        there["a"].to_say.put_nowait(None)
    await asyncio.sleep(100)
    assert 50 <= there["a"].opened <= 65
    assert routing.owner(PCHANNEL) == _entry(1)
    await routing.close()


@on_virtual_time
async def test_a_route_waits_after_a_failure_but_not_for_a_newer_owner() -> None:
    routing, there = await _routing("a")
    runtime = VirtualRuntime()
    route = Route(routing, runtime, PCHANNEL)
    first = EMPTY_MAP.changed(MapVersion(epoch=1, counter=1), [_entry(1)])
    there["a"].to_say.put_nowait(first.whole())
    entry = await route.next()
    loop = asyncio.get_running_loop()
    waits = []
    for _ in range(10):
        route.failed(entry, refusal(Class.UNKNOWN))
        begin = loop.time()
        assert await route.next() == entry
        waits.append(loop.time() - begin)
    assert 0.05 <= waits[0] <= 0.1
    assert 5 <= waits[-1] <= 10
    second = first.changed(MapVersion(epoch=1, counter=2), [_entry(2, "n2", serving=False)])
    third = second.changed(MapVersion(epoch=1, counter=3), [_entry(2, "n2")])
    route.failed(entry, refusal(Class.MOVED))
    there["a"].to_say.put_nowait(second.since(first))
    task = asyncio.create_task(route.next())
    await asyncio.sleep(100)
    assert not task.done()  # nobody serves
    there["a"].to_say.put_nowait(third.since(second))
    begin = loop.time()
    assert await task == _entry(2, "n2")
    assert loop.time() == begin
    assert route.is_stale(entry)
    assert not route.is_stale(_entry(2, "n2"))
    assert not route.is_stale(_entry(3, "n3"))  # the map is behind
    assert [frame for frame in there["a"].heard if isinstance(frame, Report)] == [
        Report(pchannel=PCHANNEL, term=1, kind="unknown")
    ]
    await routing.close()


@on_virtual_time
async def test_a_route_never_goes_back_to_an_owner_of_a_smaller_term() -> None:
    """A coordinator that is new shows the former owner until it hears of the present one."""
    routing, there = await _routing("a")
    route = Route(routing, VirtualRuntime(), PCHANNEL)
    first = EMPTY_MAP.changed(MapVersion(epoch=1, counter=1), [_entry(2, "n2")])
    there["a"].to_say.put_nowait(first.whole())
    route.failed(await route.next(), refusal(Class.UNKNOWN))
    second = first.changed(MapVersion(epoch=2, counter=1), [_entry(1)])
    there["a"].to_say.put_nowait(second.whole())
    task = asyncio.create_task(route.next())
    await asyncio.sleep(100)
    assert not task.done()
    third = second.changed(MapVersion(epoch=2, counter=2), [_entry(2, "n2")])
    there["a"].to_say.put_nowait(third.since(second))
    assert await task == _entry(2, "n2")
    await routing.close()


def test_pauses_grow_to_ten_seconds() -> None:
    assert pause_ms(1, 0.0) == 50
    assert pause_ms(1, 1.0) == 100
    assert pause_ms(100, 1.0) == 10_000


@on_virtual_time
async def test_calls_of_the_coordinator() -> None:
    async with serving(timeout_s=5) as (service, client):
        there = {"orders", "other", "b"}

        def page(request: ListChannels) -> Channels:
            names = sorted(
                n for n in there if n.startswith(request.prefix) and n > request.start_after
            )
            found = [Channel(name=name, vcid=1, pchannel=PCHANNEL) for name in names[:2]]
            return Channels(channels=found, more=len(names) > 2)

        def delete(request: DeleteChannel) -> Done:
            if request.name not in there:
                raise Refused(refusal(Class.NOT_FOUND))
            there.discard(request.name)
            return Done()

        service.answers[ListChannels] = page
        service.answers[DeleteChannel] = delete
        assert await client.list_channels() == ["b", "orders", "other"]
        assert await client.list_channels("o") == ["orders", "other"]
        await client.delete_channel("b")
        with pytest.raises(NotFound):
            await client.delete_channel("b")
        await client.delete_channel("b", missing_ok=True)
        with pytest.raises(NotFound):
            await client.open_channel("nothing")

        def create(request: CreateChannel) -> Channel:
            raise Refused(refusal(Class.EXISTS))

        service.answers[CreateChannel] = create
        with pytest.raises(AlreadyExists):
            await client.create_channel("orders")
        service.answers[Broadcast] = lambda request: BroadcastInfo(
            id=1, key=request.key, state="done"
        )
        assert await client.broadcast(["orders"], b"x", key="k") == {}


@on_virtual_time
async def test_a_call_that_nobody_answers_in_time() -> None:
    async with serving(timeout_s=3) as (service, client):

        def later(request: Any) -> Any:
            raise Refused(refusal(Class.LATER, after_ms=100))

        def nobody_knows(request: Any) -> Any:
            raise Refused(refusal(Class.UNKNOWN))

        service.answers[CreateChannel] = service.answers[Locate] = later
        with pytest.raises(Unavailable):
            await client.create_channel("x")
        service.answers[CreateChannel] = service.answers[Locate] = nobody_knows
        with pytest.raises(OutcomeUnknown):
            await client.create_channel("x")
        with pytest.raises(Unavailable):
            await client.open_channel("x")
        requests = {r.request for r in service.seen if isinstance(r, CreateChannel)}
        assert len(requests) == 2  # repeats are known by it


@on_virtual_time
async def test_a_closed_client_says_so() -> None:
    async with serving() as (service, client):
        channel = await client.open_channel("orders")
        producer = await channel.producer().open()
        reading = channel.consume()
        task = asyncio.create_task(anext(reading))
        await asyncio.sleep(1)
        await client.close()
        await client.close()
        with pytest.raises(Closed):
            await client.open_channel("orders")
        with pytest.raises(Closed):
            await producer.send(b"x")
        with pytest.raises(Closed):
            channel.consume()
        with pytest.raises(Closed):
            await task
        with pytest.raises(Closed):
            await client.open()
        dialer = service.network.dialer()
        with pytest.raises(InvalidRequest):
            StreamingClient(dialer, [])
        with pytest.raises(InvalidRequest):
            StreamingClient(dialer, ["a"], timeout_s=0)
        with pytest.raises(Closed):
            await StreamingClient(dialer, ["a"]).list_channels()


@on_virtual_time
async def test_what_the_leader_said_is_told_not_that_another_does_not_lead() -> None:
    runtime = VirtualRuntime()
    network = MemoryNetwork(runtime)
    leader, stand_by = _Coordinator(), _Coordinator()
    leader.answer = refusal(Class.LATER)
    stand_by.answer = refusal(Class.NOT_LEADER, address="a")
    network.serve("a", Services(assignment=leader))
    network.serve("b", Services(assignment=stand_by))
    dialer = network.dialer()
    async with StreamingClient(dialer, ["b", "a"], timeout_s=5, runtime=runtime) as client:
        with pytest.raises(Unavailable, match="a test says later"):
            await client.create_channel("x")
