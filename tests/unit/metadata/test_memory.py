"""Records in memory beyond the suite: sharing between event loops."""

from __future__ import annotations

import asyncio
import threading

from woodpecker.errors import Conflict
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.runtime.runtime import SystemRuntime

KEY = "meta/log/orders"


def test_stores_on_several_event_loops_share_records():
    records = MemoryRecords()
    counts: list[int] = []

    async def add() -> None:
        store = MemoryMetadata(SystemRuntime(), records, name="shared")
        done = 0
        while done < 200:
            found = await store.get(KEY)
            value = b"%d" % (int(found.value) + 1 if found else 1)
            try:
                await store.put(KEY, value, expect=found.version if found else None)
                done += 1
            except Conflict:
                continue
        counts.append(done)
        await store.close()

    threads = [threading.Thread(target=lambda: asyncio.run(add())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [200] * 4
    assert records.by_key[KEY].value == b"800"


def test_a_change_on_one_event_loop_ends_a_wait_on_another():
    records = MemoryRecords()
    waiting = threading.Event()

    async def wait() -> str:
        store = MemoryMetadata(SystemRuntime(), records)
        asyncio.get_running_loop().call_later(0.05, waiting.set)
        async with asyncio.timeout(20):
            await store.wait_change(KEY, None, 3_600_000)
        found = await store.get(KEY)
        await store.close()
        assert found is not None
        return found.value.decode()

    async def write() -> None:
        store = MemoryMetadata(SystemRuntime(), records)
        await store.put(KEY, b"new", expect=None)
        await store.close()

    def write_when_it_waits() -> None:
        waiting.wait(20)
        asyncio.run(write())

    writer = threading.Thread(target=write_when_it_waits)
    writer.start()
    assert asyncio.run(wait()) == "new"
    writer.join()


async def test_waits_leave_nothing_behind():
    records = MemoryRecords()
    store = MemoryMetadata(SystemRuntime(), records)
    for number in range(10):
        await store.wait_change(f"{KEY}/{number}", None, 1)
    assert not any(records.waiters.values())
    assert not store._waiting
    await store.close()
