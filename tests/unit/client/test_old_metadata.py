"""Old metadata put beside newer data: the sweep proves it, says so, and deletes nothing."""

from __future__ import annotations

import pytest

import woodpecker as wp
from woodpecker.client.collect import collect_log
from woodpecker.codec import keys


async def test_a_sweep_with_old_metadata_deletes_nothing() -> None:
    async with wp.connect("memory://", background=False) as client:
        env = client.environment
        log = await client.create_log("a")
        async with await log.open_writer() as writer:
            await writer.append(b"one")
        old = await env.catalog.store.get(keys.manifest("a"))
        assert old is not None
        async with await log.open_writer() as writer:
            await writer.append(b"two")
        await client.run_background("a")
        now = await env.catalog.store.get(keys.manifest("a"))
        assert now is not None
        await env.catalog.store.put(now.key, old.value, expect=now.version)
        objects = env.places.objects("")
        before = [info.key async for page in objects.list(log.log_id) for info in page]
        with pytest.raises(wp.Corrupt, match="old copy of the metadata"):
            await collect_log(env, "a")
        assert [info.key async for page in objects.list(log.log_id) for info in page] == before
