"""A deleted log leaves end marks and a tombstone, and thirty days later nothing, or a small record."""

from __future__ import annotations

from pathlib import Path

import pytest

import woodpecker as wp
from woodpecker.metadata.base import MetadataStore
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.base import ObjectStore

MONTH_US = 30 * 86_400_000_000
MARK_BYTES = 96


class LaterRuntime(SystemRuntime):
    """The real one, its wall clock ahead."""

    def __init__(self, ahead_us: int) -> None:
        super().__init__()
        self.ahead_us = ahead_us

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


async def one_life(client: wp.Client) -> str:
    log = await client.create_log("orders", segment_max_bytes=64 << 10)
    for _ in range(2):
        async with await log.open_writer() as writer:
            await writer.append_many([bytes(40_000)] * 3)
    await log.cursor("billing")
    await log.objects.put("checkpoint", b"state")
    await client.delete_log("orders")
    return log.log_id


async def left(objects: ObjectStore, log_id: str) -> list[int]:
    return [info.size async for page in objects.list(f"{log_id}/") for info in page]


async def records(metadata: MetadataStore) -> list[str]:
    found = [record.key for record in await metadata.list("meta/")]
    return [key for key in found if not key.startswith(("meta/store", "meta/leases"))]


@pytest.mark.parametrize("place", ["memory", "local disk", "network file system"])
async def test_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: place == "local disk")
    url = "memory://deleted-for-good" if place == "memory" else f"file://{tmp_path}/store"
    async with wp.connect(url, background=False) as client:
        log_id = await one_life(client)
        objects = client.environment.places.objects("")
        assert set(await left(objects, log_id)) == (
            set() if place == "local disk" else {MARK_BYTES}
        )
        cursor = [f"meta/cursors/{log_id}/billing"] if place == "network file system" else []
        assert await records(client.environment.catalog.store) == [*cursor, "meta/logs/orders"]
        if place == "local disk":
            assert not [path for path in tmp_path.rglob("*") if log_id in path.name]
    late = LaterRuntime(MONTH_US + 60_000_000)
    monkeypatch.setattr(  # the clock of a directory is that of its files: it moves as well
        "woodpecker.storage.local.LocalObjectStore.clock_ms", _clock_of(late)
    )
    async with wp.connect(url, background=False, runtime=late) as client:
        await client.run_background()
        await client.run_background()  # a whole pass that finds nothing, then the grave goes
        objects = client.environment.places.objects("")
        assert await left(objects, log_id) == []
        kept = [*cursor, "meta/logs/orders"] if place == "network file system" else []
        assert (
            await records(client.environment.catalog.store) == kept
        )  # no conditional removal there
        paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
        assert not [path for path in paths if log_id in path and "meta/cursors" not in path]
        again = await client.create_log("orders")
        assert await again.tail() == 0


def _clock_of(runtime: SystemRuntime):
    async def clock_ms(_: ObjectStore) -> int:
        return runtime.now_us() // 1000

    return clock_ms
