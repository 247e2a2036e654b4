"""A bucket read through nodes: whole objects and ranges in parts, and no way to change anything."""

from __future__ import annotations

import pytest

from woodpecker.codec.messages import Object
from woodpecker.errors import InvalidRequest, NotFound
from woodpecker.rpc.base import Answer
from woodpecker.storage import through_nodes
from woodpecker.storage.memory import MemoryObjectStore
from woodpecker.storage.through_nodes import ThroughNodes

DATA = bytes(range(100))


class Nodes:
    """What a node does with GetObject."""

    def __init__(self, objects: MemoryObjectStore) -> None:
        self._objects = objects
        self.lengths: list[int | None] = []

    async def ask(self, request) -> Answer:
        self.lengths.append(request.length)
        assert request.storage == "s3://other"
        try:
            data, info = await self._objects.get(
                request.key, start=request.start, length=request.length
            )
        except NotFound:
            return Answer(Object(size=None))
        return Answer(Object(size=info.size), data)


@pytest.fixture
async def objects() -> MemoryObjectStore:
    objects = MemoryObjectStore()
    await objects.create("a/b", DATA)
    await objects.create("empty", b"")
    return objects


@pytest.fixture
def nodes(objects: MemoryObjectStore, monkeypatch) -> Nodes:
    monkeypatch.setattr(through_nodes, "PART_BYTES", 32)
    return Nodes(objects)


@pytest.fixture
def store(nodes: Nodes) -> ThroughNodes:
    return ThroughNodes("s3://other", "s3://other", nodes)


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, None), (0, 10), (10, 70), (90, 50), (-10, None), (-50, 40), (-50, None), (99, 1), (0, 32)],
)
async def test_ranges_are_those_of_any_store(store, objects, start, length) -> None:
    expected, _ = await objects.get("a/b", start=start, length=length)
    data, info = await store.get("a/b", start=start, length=length)
    assert (bytes(data), info.size, info.key) == (bytes(expected), 100, "a/b")


async def test_large_objects_come_in_parts(store: ThroughNodes, nodes: Nodes) -> None:
    await store.get("a/b", length=70)
    assert nodes.lengths == [32, 32, 6]


async def test_empty_and_absent_objects(store: ThroughNodes) -> None:
    data, info = await store.get("empty")
    assert (bytes(data), info.size) == (b"", 0)
    found = await store.head("a/b")
    assert found is not None and found.size == 100
    assert await store.head("none") is None
    with pytest.raises(NotFound, match="s3://other: no object none"):
        await store.get("none")


async def test_nothing_can_be_changed(store: ThroughNodes) -> None:
    with pytest.raises(InvalidRequest, match="no rights on the store"):
        await store.create("x", b"")
    with pytest.raises(InvalidRequest, match="nothing can be written"):
        await store.replace("x", b"", etag="1")
    with pytest.raises(InvalidRequest, match="nothing can be deleted"):
        await store.delete(["x"])
    with pytest.raises(InvalidRequest, match="nothing can be listed"):
        async for _ in store.list(""):
            pass
    with pytest.raises(InvalidRequest):
        await store.probe("create_if_absent")
