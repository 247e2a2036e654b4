"""A checkpoint that cannot be read is no checkpoint: it is not the older one that a trim relies on."""

from __future__ import annotations

import asyncio

from tests.unit.streaming.node.kit import Cluster, one_node, produce

from woodpecker.streaming.codec.records import CHECKPOINTS
from woodpecker.streaming.core.records import CheckpointRef
from woodpecker.testing.virtual import on_virtual_time


async def checkpoints(cluster: Cluster) -> tuple[CheckpointRef, ...]:
    record = (await cluster.admin.load(CHECKPOINTS.key(cluster.log.log_id))).record
    assert record is not None
    return record.checkpoints


@on_virtual_time
async def test_the_next_owner_keeps_the_readable_one() -> None:
    async with one_node(checkpoint_age_ms=1000) as (cluster, member):
        producing = await produce(cluster, member)
        for n in range(3):
            await producing.put(b"%d" % n)
            await asyncio.sleep(3)
        newest, older = await checkpoints(cluster)
        await cluster.log.objects.delete(newest.object)
        new = await cluster.node("n2")
        await cluster.assign(new)
        await asyncio.sleep(10)
        newer, kept = await checkpoints(cluster)
        assert newer.seq > newest.seq
        assert kept == older
        found = {one.name for one in await cluster.log.objects.list()}
        assert found == {newer.object, older.object}
