"""Several clients that make a store at once: in whatever order their steps fall, it is one store."""

from __future__ import annotations

import asyncio

import pytest

from woodpecker.errors import WoodpeckerError
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.store_marker import check_store
from woodpecker.testing.faulty import Faults, FaultyMetadata, FaultyObjectStore
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


@pytest.mark.parametrize("seed", range(60))
@on_virtual_time
async def test_clients_that_make_a_store_at_once(seed: int):
    bucket, records = MemoryBucket(), MemoryRecords()

    async def client(number: int) -> str:
        runtime = VirtualRuntime(seed * 10 + number)
        faults = Faults(runtime, seed=seed * 10 + number, max_delay_ms=100)
        objects = FaultyObjectStore(MemoryObjectStore(bucket), faults)
        metadata = FaultyMetadata(MemoryMetadata(runtime, records), faults)
        made = await check_store(objects, metadata, new_id=runtime.token(), may_create=True)
        # and at once it is used
        await objects.create(f"logs/{number}", b"block")
        await metadata.put(f"meta/logs/{number}", b"{}", expect=None)
        return made

    made = await asyncio.gather(*(client(number) for number in range(4)))
    assert len(set(made)) == 1


@pytest.mark.parametrize("seed", range(40))
@on_virtual_time
async def test_a_store_half_made_is_finished_by_the_next(seed: int):
    bucket, records = MemoryBucket(), MemoryRecords()
    runtime = VirtualRuntime(seed)
    faults = Faults(runtime, seed=seed, rate=0.5)
    objects = FaultyObjectStore(MemoryObjectStore(bucket), faults)
    metadata = FaultyMetadata(MemoryMetadata(runtime, records), faults)
    made = None
    for _ in range(50):
        try:
            made = await check_store(objects, metadata, new_id=runtime.token(), may_create=True)
            break
        except WoodpeckerError:
            await runtime.sleep_ms(5_000)
    faults.calm()
    await runtime.sleep_ms(5_000)
    assert made == await check_store(objects, metadata, new_id="f" * 32, may_create=False)
