"""Requests to an object store are counted by operation and result, their bytes too."""

from __future__ import annotations

from collections import Counter as Tally

import pytest

from woodpecker.errors import AlreadyExists, NotFound
from woodpecker.observability.base import Silent
from woodpecker.observability.names import Counter
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.instrumented import InstrumentedStore
from woodpecker.storage.memory import MemoryObjectStore


class Counting(Silent):
    def __init__(self) -> None:
        self.requests: Tally[tuple[str, str]] = Tally()
        self.bytes: Tally[Counter] = Tally()

    def count(self, name, n=1, **labels):
        if name is Counter.STORE_REQUESTS:
            self.requests[labels["op"], labels["result"]] += n
        else:
            self.bytes[name] += n


@pytest.fixture
def observer():
    return Counting()


@pytest.fixture
def store(observer):
    return InstrumentedStore(MemoryObjectStore(), observer, SystemRuntime())


async def test_each_request_is_counted_with_its_result(store, observer):
    etag = await store.create("meta/a", b"12345")
    await store.replace("meta/a", b"123", etag=etag)
    await store.get("meta/a", start=1)
    await store.head("meta/none")
    with pytest.raises(AlreadyExists):
        await store.create("meta/a", b"x")
    with pytest.raises(NotFound):
        await store.get("meta/none")
    await store.delete(["meta/a"])
    assert observer.requests == {
        ("create", "ok"): 1, ("create", "already_exists"): 1, ("replace", "ok"): 1,
        ("get", "ok"): 1, ("get", "not_found"): 1, ("head", "ok"): 1, ("delete", "ok"): 1,
    }  # fmt: skip
    assert observer.bytes[Counter.STORE_SENT_BYTES] == 8
    assert observer.bytes[Counter.STORE_RECEIVED_BYTES] == 2


async def test_a_listing_counts_its_pages_and_an_empty_one_counts_too(store, observer):
    assert [page async for page in store.list("none/")] == []
    assert observer.requests == {("list", "ok"): 1}
    for number in range(3):
        await store.create(f"a/{number}", b"")
    found = [info.key async for page in store.list("a/") for info in page]
    assert found == ["a/0", "a/1", "a/2"]
    assert observer.requests["list", "ok"] >= 2


async def test_streams_count_once(store, observer):
    async def parts():
        yield b"abc"
        yield b"de"

    assert await store.write_stream("a/b", parts()) == 5
    assert observer.requests == {("write_stream", "ok"): 1}
    assert observer.bytes[Counter.STORE_SENT_BYTES] == 5
