"""Listing records of a bucket costs a request only for those that changed since the last listing."""

from __future__ import annotations

from woodpecker.metadata.objects import ObjectMetadata
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.base import Buffer, ObjectInfo
from woodpecker.storage.memory import MemoryObjectStore


class Counting(MemoryObjectStore):
    gets = 0

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        self.gets += 1
        return await super().get(key, start=start, length=length)


async def test_an_unchanged_record_is_not_read_again() -> None:
    store = Counting()
    metadata = ObjectMetadata(store, SystemRuntime())
    versions = {
        name: await metadata.put(f"meta/logs/{name}", name.encode(), expect=None) for name in "abc"
    }
    first = await metadata.list("meta/logs/")
    assert store.gets == 3
    assert await metadata.list("meta/logs/") == first
    assert store.gets == 3
    await metadata.put("meta/logs/b", b"new", expect=versions["b"])
    changed = await metadata.list("meta/logs/")
    assert [record.value for record in changed] == [b"a", b"new", b"c"]
    assert store.gets == 4
    await metadata.close()
