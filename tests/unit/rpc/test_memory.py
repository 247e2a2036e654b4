"""What can be done to a network in memory, and that one seed gives one run."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from woodpecker.codec.messages import Append, Appended, Done, Ping, Tell
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.rpc.memory import Conditions, MemoryNetwork
from woodpecker.testing.conformance.transport import TARGET, Node, agree, append
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time

LONG_MS = 3_600_000
HERE, THERE = "client", "n1:7070"


async def world(conditions=None, seed=0):
    """A network, its node, a link to it."""
    network = MemoryNetwork(VirtualRuntime(seed), conditions)
    node = Node()
    network.serve(THERE, node)
    link = await network.transport(HERE).connect(THERE, timeout_ms=LONG_MS)
    return network, node, link


def now_ms() -> float:
    return asyncio.get_running_loop().time() * 1000


@on_virtual_time
async def test_messages_take_their_time_each_way():
    network, node, link = await world(Conditions(delay_ms=(3.0, 3.0)))
    assert now_ms() == 6.0
    network.ways[THERE, HERE] = Conditions(delay_ms=(40.0, 40.0))
    node.on_request = agree
    await link.send(append(1), timeout_ms=LONG_MS)
    assert now_ms() == pytest.approx(6.0 + 3.0 + 40.0)


@on_virtual_time
async def test_links_overtake_each_other_and_messages_of_one_do_not():
    network, node, first = await world(Conditions(delay_ms=(0.0, 100.0)))
    second = await network.transport(HERE).connect(THERE, timeout_ms=LONG_MS)
    came = []

    def note(request, _payload, responder):
        came.append(request.lac)
        responder.reply(Done())

    node.on_request = note
    futures = [
        link.send(append(number * 2 + side), timeout_ms=LONG_MS)
        for number in range(50)
        for side, link in enumerate((first, second))
    ]
    await asyncio.gather(*futures)
    assert [n for n in came if n % 2 == 0] == list(range(0, 100, 2))
    assert [n for n in came if n % 2] == list(range(1, 100, 2))
    assert came != sorted(came)


def test_one_seed_is_one_run():
    def trace(seed):
        found = []

        async def live():
            _, node, link = await world(Conditions(delay_ms=(0.0, 9.0), loss=0.05), seed)

            def note(request, _payload, responder):
                found.append((now_ms(), request.lac))
                responder.reply(Appended(number=request.lac))

            node.on_request = note
            futures = [link.send(append(n), timeout_ms=LONG_MS) for n in range(40)]
            results = await asyncio.gather(*futures, return_exceptions=True)
            found.append((now_ms(), [type(result).__name__ for result in results]))

        on_virtual_time(live)()
        return found

    assert trace(1) == trace(1) != trace(2)


@on_virtual_time
async def test_a_lost_message_is_a_broken_link():
    network, node, link = await world()
    first = link.send(append(1), timeout_ms=LONG_MS)
    await node.wait_for(1)
    network.ways[HERE, THERE] = Conditions(loss=1.0)
    second = link.send(append(2), timeout_ms=LONG_MS)
    network.ways[HERE, THERE] = Conditions()
    third = link.send(append(3), timeout_ms=LONG_MS)
    for future in (first, second, third):
        with pytest.raises(Unavailable, match="connection reset"):
            await future
    assert not link.is_open
    assert len(node.waiting) == 1  # nothing behind the lost one arrives
    node.waiting[0][2].reply(Done())


@on_virtual_time
async def test_a_cut_way_holds_up_what_it_held_once_it_is_healed():
    network, node, link = await world()
    node.on_request = agree
    network.cut(HERE, THERE)
    future = link.send(append(1), b"block", timeout_ms=LONG_MS)
    await asyncio.sleep(9)
    assert not future.done()
    assert link.is_open
    assert link.unsent_bytes > len(b"block")
    network.heal(HERE, THERE)
    assert (await future).message == Done()
    assert link.unsent_bytes == 0
    await asyncio.sleep(9)  # beyond the end of the first cut
    assert link.is_open


@on_virtual_time
async def test_a_way_back_that_is_cut_lets_requests_through():
    network, node, link = await world()
    node.on_request = agree
    network.cut(THERE, HERE)
    with pytest.raises(Unavailable, match="did not answer within 500 ms"):
        await link.send(append(1), b"block", timeout_ms=500)
    assert node.received_bytes == len(b"block")


@on_virtual_time
async def test_links_over_a_way_that_stays_cut_break():
    network, _, link = await world()
    network.cut(THERE, HERE)
    await link.wait_closed()
    assert now_ms() == network.dead_after_ms
    with pytest.raises(Unavailable, match="no connection within 700 ms"):
        await network.transport(HERE).connect(THERE, timeout_ms=700)
    assert now_ms() == network.dead_after_ms + 700
    assert await network.transport("other").connect(THERE, timeout_ms=700)


@on_virtual_time
async def test_a_crash_breaks_links_from_and_to_it():
    network, node, link = await world()
    network.serve("n2:7070", Node())
    outgoing = await network.transport(THERE).connect("n2:7070", timeout_ms=LONG_MS)
    other = await network.transport(HERE).connect("n2:7070", timeout_ms=LONG_MS)
    network.crash(THERE)
    await link.wait_closed()
    await outgoing.wait_closed()
    assert other.is_open
    with pytest.raises(Unavailable, match="refused"):
        await network.transport(HERE).connect(THERE, timeout_ms=LONG_MS)
    network.serve(THERE, node)  # it is back
    assert await network.transport(HERE).connect(THERE, timeout_ms=LONG_MS)


@on_virtual_time
async def test_one_link_can_be_snapped():
    network, _, link = await world()
    network.snap(THERE, HERE)
    await link.wait_closed()
    again = await network.transport(HERE).connect(THERE, timeout_ms=LONG_MS)
    assert (await again.send(Ping(), timeout_ms=LONG_MS)).message == Done()


@on_virtual_time
async def test_a_taken_address_is_refused():
    network, node, _ = await world()
    with pytest.raises(InvalidRequest, match="in use"):
        network.serve(THERE, node)


@on_virtual_time
async def test_each_side_runs_in_its_own_context():
    who = contextvars.ContextVar("who", default="world")
    seen = []

    def note(_request, _payload, responder):
        seen.append(("node", who.get()))
        responder.reply(Done())

    def as_somebody(name, work):
        context = contextvars.copy_context()
        context.run(who.set, name)
        return context.run(work)

    network = MemoryNetwork(VirtualRuntime())
    node = Node()
    node.on_request = note
    as_somebody("node", lambda: network.serve(THERE, node))

    async def ask():
        link = await network.transport(HERE).connect(THERE, timeout_ms=LONG_MS)
        future = link.send(Tell(name="x"), timeout_ms=LONG_MS)
        future.add_done_callback(lambda _: seen.append(("client", who.get())))
        await future
        late = link.send(Append(target=TARGET, name="x"), b"", timeout_ms=LONG_MS)
        await late
        return link

    await as_somebody("client", lambda: asyncio.ensure_future(ask()))
    assert seen == [("node", "node"), ("client", "client"), ("node", "node")]
