"""Back-pressure of a writer: what waits, what is refused, and that whoever was refused gets in."""

from __future__ import annotations

import asyncio

import pytest

import woodpecker as wp

QUEUE_BYTES = 1 << 20


@pytest.fixture
async def writer():
    async with wp.connect("memory://", background=False) as client:
        log = await client.create_log("orders", queue_max_bytes=QUEUE_BYTES)
        async with await log.open_writer() as writer:
            yield writer


async def submit_patiently(writer, payload):
    while True:
        try:
            return writer.submit(payload)
        except wp.Overloaded:
            async with asyncio.timeout(30):
                await writer.ready()


@pytest.mark.parametrize("size", [0, 1000, 300_000, 2_000_000])
async def test_ready_waits_until_what_was_refused_is_taken(writer, size):
    futures = [
        await submit_patiently(writer, bytes(size)) for _ in range(4 + 3_000_000 // (size + 64))
    ]
    assert [await future for future in futures] == list(range(len(futures)))


async def test_ready_serves_entries_with_headers(writer):
    futures = []
    for _ in range(20):
        try:
            futures.append(writer.submit(b"", headers=[("h", bytes(200_000))]))
        except wp.Overloaded:
            await writer.ready()
            futures.append(writer.submit(b"", headers=[("h", bytes(200_000))]))
    assert await asyncio.gather(*futures) == list(range(20))


async def test_append_waits_whatever_an_entry_costs_besides_its_payload(writer):
    batches = (writer.append_many([bytes(100)] * 3_900) for _ in range(8))
    ranges = await asyncio.gather(*batches)
    assert [len(one) for one in ranges] == [3_900] * 8
    headed = (writer.append(bytes(10), headers=[("h", bytes(100_000))]) for _ in range(30))
    assert len(await asyncio.gather(*headed)) == 30
    small = (writer.append(b"") for _ in range(40_000))
    assert len(await asyncio.gather(*small)) == 40_000


async def test_a_reserved_entry_is_taken(writer):
    seq = writer.reserve(100_000)
    assert await writer.submit(bytes(100_000)) == seq


async def test_what_reserve_refuses_ready_waits_for(writer):
    first = writer.submit(bytes(600_000))
    with pytest.raises(wp.Overloaded):
        writer.reserve(600_000)
    await writer.ready()
    assert writer.reserve(600_000) == 1
    assert await first == 0
