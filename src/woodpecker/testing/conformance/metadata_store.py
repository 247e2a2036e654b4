"""What every ``MetadataStore`` must do. Subclass the suite and give it a fixture ``open_store``.

    class TestMyStore(MetadataStoreSuite):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "records")

``open_store()`` returns a new store object; all of one test work on the same data, empty at first.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import pytest
import pytest_asyncio

from woodpecker.errors import (
    Closed,
    Conflict,
    InvalidRequest,
    OutcomeUnknown,
    WoodpeckerError,
)
from woodpecker.metadata.base import Lease, MetadataStore

OpenStore = Callable[[], MetadataStore]

KEY = "meta/log/orders"
CONTENDERS = 12
PATIENCE_S = 20


class MetadataStoreSuite:
    """The contract, test by test.

    Attributes:
        removes: False if ``remove`` answers False.
        lease_ttl_ms: the shortest the store can keep.
        has_folders: True if a key cannot also be the folder of others. Ours never are.
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]
    removes: ClassVar[bool] = True
    lease_ttl_ms: ClassVar[int] = 300
    has_folders: ClassVar[bool] = False

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Overridden by the subclass."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def opened(self, open_store: OpenStore) -> AsyncIterator[OpenStore]:
        """As ``open_store``; all are closed at the end."""
        stores: list[MetadataStore] = []

        def open_one() -> MetadataStore:
            stores.append(open_store())
            return stores[-1]

        yield open_one
        for store in stores:
            await store.close()

    @pytest_asyncio.fixture
    async def store(self, opened: OpenStore) -> MetadataStore:
        """One open store."""
        return opened()

    # ---------------------------------------------------------------------------- records

    async def test_absent_key_reads_as_none(self, store: MetadataStore) -> None:
        assert await store.get(KEY) is None
        assert await store.list("meta/") == []

    async def test_what_is_put_is_read_with_its_version(self, store: MetadataStore) -> None:
        first = await store.put(KEY, b"one", expect=None)
        found = await store.get(KEY)
        assert found is not None
        assert (found.key, found.value, found.version) == (KEY, b"one", first)
        second = await store.put(KEY, b"two", expect=first)
        found = await store.get(KEY)
        assert found is not None
        assert (found.value, found.version) == (b"two", second)
        assert first != second

    async def test_put_refuses_any_other_version(self, store: MetadataStore) -> None:
        with pytest.raises(Conflict):
            await store.put(KEY, b"x", expect="12345")
        first = await store.put(KEY, b"one", expect=None)
        with pytest.raises(Conflict):
            await store.put(KEY, b"again", expect=None)
        second = await store.put(KEY, b"two", expect=first)
        for wrong in (first, None, "no version of this store", "0", ""):
            with pytest.raises(Conflict):
                await store.put(KEY, b"late", expect=wrong)
        found = await store.get(KEY)
        assert found is not None
        assert (found.value, found.version) == (b"two", second)

    async def test_values_are_any_bytes(self, store: MetadataStore) -> None:
        values = [b"", bytes(range(256)), b"\xff\x00" * 8, random.Random(7).randbytes(256 << 10)]
        for number, value in enumerate(values):
            await store.put(f"{KEY}/{number}", value, expect=None)
        for number, value in enumerate(values):
            found = await store.get(f"{KEY}/{number}")
            assert found is not None
            assert found.value == value
            assert isinstance(found.value, bytes)
        listed = await store.list(f"{KEY}/")
        assert [record.value for record in listed] == values

    async def test_versions_never_come_back(self, store: MetadataStore) -> None:
        seen: list[str] = []
        for number in range(3):
            version = await store.put(KEY, b"created %d" % number, expect=None)
            seen.append(version)
            version = await store.put(KEY, b"changed %d" % number, expect=version)
            seen.append(version)
            if not await store.remove(KEY, expect=version):
                break
            assert await store.get(KEY) is None
        assert len(seen) == (6 if self.removes else 2)
        assert len(set(seen)) == len(seen)

    async def test_remove_refuses_any_other_version(self, store: MetadataStore) -> None:
        first = await store.put(KEY, b"one", expect=None)
        second = await store.put(KEY, b"two", expect=first)
        if not self.removes:
            assert await store.remove(KEY, expect=second) is False
            assert await store.get(KEY) is not None
            return
        for wrong in (first, "no version of this store", "0"):
            with pytest.raises(Conflict):
                await store.remove(KEY, expect=wrong)
        assert await store.remove(KEY, expect=second) is True
        assert await store.get(KEY) is None
        with pytest.raises(Conflict):
            await store.remove(KEY, expect=second)

    async def test_keys_and_values_out_of_bounds_are_refused(self, store: MetadataStore) -> None:
        for key in ("", "meta/ü", "meta/\n", "meta/", "/meta", "meta//x", "meta/" + "k" * 2000):
            with pytest.raises(InvalidRequest):
                await store.put(key, b"x", expect=None)
        with pytest.raises(InvalidRequest):
            await store.put(KEY, bytes((1 << 20) + 1), expect=None)
        assert await store.list("") == []

    # ---------------------------------------------------------------------------- listing

    async def test_list_is_sorted_and_bounded_by_prefix(self, store: MetadataStore) -> None:
        inside = ["meta/a/1", "meta/a/10", "meta/a/2", "meta/a/b/c", "meta/a/~"]
        outside = ["meta/A/1", "meta/a.", "meta/a0", "meta/b/1"]
        if not self.has_folders:
            outside.append("meta/a")
        shuffled = inside + outside
        random.Random(3).shuffle(shuffled)
        for key in shuffled:
            await store.put(key, key.encode(), expect=None)
        listed = await store.list("meta/a/")
        assert [record.key for record in listed] == sorted(inside)
        assert all(record.value == record.key.encode() for record in listed)
        for record in listed:
            assert await store.get(record.key) == record
        assert [record.key for record in await store.list("")] == sorted(shuffled)

    async def test_list_in_pages(self, store: MetadataStore) -> None:
        keys = [f"meta/p/{number:04}" for number in range(40)]
        await asyncio.gather(*(store.put(key, key.encode(), expect=None) for key in keys))
        await store.put("meta/q", b"outside", expect=None)
        found: list[str] = []
        while page := await store.list("meta/p/", start_after=found[-1] if found else "", limit=7):
            assert len(page) <= 7
            found += [record.key for record in page]
        assert found == keys
        assert len(await store.list("meta/p/", limit=40)) == 40
        after = await store.list("meta/p/", start_after="meta/p/0037x")
        assert [record.key for record in after] == keys[38:]
        assert await store.list("meta/p/", start_after="meta/p/0039") == []
        assert len(await store.list("meta/p/", start_after="meta/a")) == 40
        assert await store.list("meta/p/", start_after="meta/z") == []

    # ---------------------------------------------------------------------------- races

    async def test_one_of_many_creators_wins(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(4)]
        for attempt in range(5):
            key = f"{KEY}/{attempt}"
            results = await asyncio.gather(
                *(
                    stores[number % 4].put(key, b"by %d" % number, expect=None)
                    for number in range(CONTENDERS)
                ),
                return_exceptions=True,
            )
            won = [number for number, result in enumerate(results) if isinstance(result, str)]
            lost = [result for result in results if isinstance(result, Conflict)]
            assert (len(won), len(lost)) == (1, CONTENDERS - 1), results
            found = await stores[1].get(key)
            assert found is not None
            assert (found.value, found.version) == (b"by %d" % won[0], results[won[0]])

    async def test_no_increment_is_lost(self, opened: OpenStore) -> None:
        stores = [opened(), opened()]
        await stores[0].put(KEY, b"0 -", expect=None)
        unknown = 0  # a store may say so under load; each of them counts for one or for nothing

        async def add(store: MetadataStore, name: int) -> list[str]:
            nonlocal unknown
            versions: list[str] = []
            while len(versions) < 10:
                found = await store.get(KEY)
                assert found is not None
                count = int(found.value.split()[0]) + 1
                try:
                    body = b"%d %d" % (count, name)
                    versions.append(await store.put(KEY, body, expect=found.version))
                except Conflict:
                    continue
                except OutcomeUnknown:
                    unknown += 1
            return versions

        results = await asyncio.gather(*(add(stores[name % 2], name) for name in range(4)))
        found = await stores[1].get(KEY)
        assert found is not None
        assert 40 <= int(found.value.split()[0]) <= 40 + unknown
        everything = [version for versions in results for version in versions]
        assert len(set(everything)) == 40

    async def test_another_store_sees_a_write_at_once(self, opened: OpenStore) -> None:
        one, other = opened(), opened()
        version = await one.put(KEY, b"0", expect=None)
        for number in range(20):
            found = await other.get(KEY)
            assert found is not None
            assert (found.value, found.version) == (b"%d" % number, version)
            one, other = other, one
            version = await one.put(KEY, b"%d" % (number + 1), expect=version)

    # ---------------------------------------------------------------------------- waiting

    @pytest.mark.parametrize("change", ["create", "replace", "remove"])
    @pytest.mark.parametrize("same_store", [True, False])
    async def test_wait_ends_with_the_change(
        self, opened: OpenStore, *, change: str, same_store: bool
    ) -> None:
        one = opened()
        other = one if same_store else opened()
        version = None if change == "create" else await one.put(KEY, b"old", expect=None)
        await one.wait_change(KEY, version, 50)  # some stores watch from now on

        async def wait() -> None:
            while True:
                found = await other.get(KEY)
                if (found.version if found else None) != version:
                    return
                await other.wait_change(KEY, version, 3_600_000)

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(wait()) for _ in range(5)]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in waiting)
            if change == "remove" and version is not None and self.removes:
                await one.remove(KEY, expect=version)
            else:
                await one.put(KEY, b"new", expect=version)

    async def test_wait_ends_at_once_if_the_change_was_before(self, store: MetadataStore) -> None:
        first = await store.put(KEY, b"one", expect=None)
        await store.put(KEY, b"two", expect=first)
        async with asyncio.timeout(PATIENCE_S):
            await store.wait_change(KEY, first, 3_600_000)
            await store.wait_change(KEY, None, 3_600_000)

    async def test_wait_ends_by_time(self, store: MetadataStore) -> None:
        version = await store.put(KEY, b"one", expect=None)
        async with asyncio.timeout(PATIENCE_S):
            await store.wait_change(KEY, version, 100)
            await store.wait_change(KEY + "/absent", None, 100)
            await store.wait_change(KEY, version, 0)

    async def test_a_cancelled_wait_leaves_the_store_usable(self, store: MetadataStore) -> None:
        version = await store.put(KEY, b"one", expect=None)
        for _ in range(3):
            waiting = asyncio.create_task(store.wait_change(KEY, version, 3_600_000))
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        version = await store.put(KEY, b"two", expect=version)
        async with asyncio.timeout(PATIENCE_S):
            await store.wait_change(KEY, version, 50)

    # ---------------------------------------------------------------------------- leases

    async def test_a_lease_has_one_holder_while_it_is_renewed(self, opened: OpenStore) -> None:
        one, other = opened(), opened()
        lease = await one.acquire_lease(KEY, "one", self.lease_ttl_ms)
        assert lease is not None
        for _ in range(10):  # for three times its ttl
            assert await other.acquire_lease(KEY, "other", self.lease_ttl_ms) is None
            assert await one.acquire_lease(KEY, "one", self.lease_ttl_ms) is None
            await asyncio.sleep(0.3 * self.lease_ttl_ms / 1000)
        assert not lease.lost
        await lease.release()

    async def test_one_of_many_gets_the_lease(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(4)]
        leases = await asyncio.gather(
            *(
                stores[number % 4].acquire_lease(KEY, f"holder {number}", 60_000)
                for number in range(CONTENDERS)
            )
        )
        held = [lease for lease in leases if lease is not None]
        assert len(held) == 1
        await held[0].release()

    async def test_a_released_lease_is_free_at_once(self, opened: OpenStore) -> None:
        one, other = opened(), opened()
        for _ in range(3):
            lease = await one.acquire_lease(KEY, "one", 60_000)
            assert lease is not None
            assert await other.acquire_lease(KEY, "other", 60_000) is None
            await lease.release()
            assert lease.lost
            await lease.release()  # no error the second time
            one, other = other, one

    async def test_a_dead_holder_is_followed(self, opened: OpenStore) -> None:
        one, other = opened(), opened()
        lease = await one.acquire_lease(KEY, "one", self.lease_ttl_ms)
        assert lease is not None
        await one.close()  # renewal ends, nothing is released
        follower = await _acquire_in_time(other, self.lease_ttl_ms)
        assert lease.lost
        assert not follower.lost
        await lease.release()  # does not disturb who has it now
        assert await other.acquire_lease(KEY, "third", self.lease_ttl_ms) is None
        assert not follower.lost
        await follower.release()

    # ---------------------------------------------------------------------------- closing

    async def test_a_closed_store_says_so(self, store: MetadataStore) -> None:
        version = await store.put(KEY, b"one", expect=None)
        await store.close()
        await store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.get(KEY),
            lambda: store.put(KEY, b"two", expect=version),
            lambda: store.remove(KEY, expect=version),
            lambda: store.list("meta/"),
            lambda: store.wait_change(KEY, version, 1000),
            lambda: store.acquire_lease(KEY, "me", 1000),
        ]
        for call in calls:
            with pytest.raises(Closed):
                await call()  # type: ignore[misc]

    async def test_closing_ends_waits(self, store: MetadataStore) -> None:
        version = await store.put(KEY, b"one", expect=None)
        waiting = asyncio.create_task(store.wait_change(KEY, version, 3_600_000))
        await asyncio.sleep(0.05)
        await store.close()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(waiting, return_exceptions=True)
        error = waiting.exception()
        assert error is None or isinstance(error, WoodpeckerError)

    async def test_the_url_is_for_messages(self, store: MetadataStore) -> None:
        assert "://" in store.url


async def _acquire_in_time(store: MetadataStore, ttl_ms: int) -> Lease:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            lease = await store.acquire_lease(KEY, "follower", ttl_ms)
            if lease is not None:
                return lease
            await asyncio.sleep(ttl_ms / 10_000)
