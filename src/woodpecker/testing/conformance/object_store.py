"""What every ``ObjectStore`` must do. Subclass the suite and give it a fixture ``open_store``.

    class TestMyStore(ObjectStoreSuite):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "objects")

``open_store()`` returns a new store object; all of one test work on the same objects, none at first.
Replaceable records are written under ``meta/``, the only place where directory stores have them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ClassVar

import pytest
import pytest_asyncio

from woodpecker.errors import AlreadyExists, Closed, Conflict, InvalidRequest, NotFound
from woodpecker.storage.base import Buffer, ObjectInfo, ObjectStore

OpenStore = Callable[[], ObjectStore]

KEY = "logs/a1/0000000000000000/0000000000000000"
RECORD = "meta/log/orders"
RIVALS = 4
ROUNDS = 3
ODD_KEYS = (
    "odd/space in name", "odd/plus+percent%41", "odd/a=b&c;d,e", "odd/(brackets)'!~*$@:", "odd/.dot",
)  # fmt: skip
MIB = 1024 * 1024


class ObjectStoreSuite:
    """The contract, test by test.

    Attributes:
        many_objects: how many the listing test writes; more than one page of the service (1,000).
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]
    many_objects: ClassVar[int] = 1_050

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Overridden by the subclass."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def opened(self, open_store: OpenStore) -> AsyncIterator[OpenStore]:
        """As ``open_store``; all are closed at the end."""
        stores: list[ObjectStore] = []

        def open_one() -> ObjectStore:
            stores.append(open_store())
            return stores[-1]

        yield open_one
        for store in stores:
            await store.close()

    @pytest.fixture
    def store(self, opened: OpenStore) -> ObjectStore:
        """One open store."""
        return opened()

    # --------------------------------------------------------------------- writing under a condition

    async def test_created_object_is_read_back_by_another_handle(self, opened: OpenStore) -> None:
        etag = await opened().create(KEY, b"block 0")
        data, info = await opened().get(KEY)
        assert bytes(data) == b"block 0"
        assert (info.key, info.size) == (KEY, 7)
        assert etag

    async def test_create_refuses_a_taken_key_and_changes_nothing(self, store: ObjectStore) -> None:
        await store.create(KEY, b"first")
        with pytest.raises(AlreadyExists):
            await store.create(KEY, b"second")
        assert await read(store, KEY) == b"first"

    async def test_racing_creates_have_one_winner_whose_body_stays(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(RIVALS)]
        for number in range(ROUNDS):
            for key in (f"logs/race/{number}", f"meta/race/{number}"):
                tried = await asyncio.gather(
                    *(s.create(key, b"by %d" % rival) for rival, s in enumerate(stores)),
                    return_exceptions=True,
                )
                winners = [rival for rival, result in enumerate(tried) if isinstance(result, str)]
                assert len(winners) == 1, tried
                assert all(isinstance(r, str | AlreadyExists) for r in tried), tried
                assert await read(stores[0], key) == b"by %d" % winners[0]

    async def test_replace_goes_from_etag_to_etag(self, store: ObjectStore) -> None:
        first = await store.create(RECORD, b"one")
        second = await store.replace(RECORD, b"two", etag=first)
        assert second != first
        third = await store.replace(RECORD, b"three", etag=second)
        assert third not in (first, second)
        assert await read(store, RECORD) == b"three"

    async def test_every_way_of_reading_gives_an_etag_that_fits(self, store: ObjectStore) -> None:
        await store.create(RECORD, b"0")
        head = await store.head(RECORD)
        assert head is not None
        await store.replace(RECORD, b"1", etag=head.etag)
        _, got = await store.get(RECORD)
        await store.replace(RECORD, b"2", etag=got.etag)
        (listed,) = await listing(store, RECORD)
        await store.replace(RECORD, b"3", etag=listed.etag)
        assert await read(store, RECORD) == b"3"

    async def test_replace_refuses_a_stale_etag(self, store: ObjectStore) -> None:
        stale = await store.create(RECORD, b"one")
        await store.replace(RECORD, b"two", etag=stale)
        with pytest.raises(Conflict):
            await store.replace(RECORD, b"three", etag=stale)
        assert await read(store, RECORD) == b"two"

    async def test_replace_refuses_an_absent_object(self, store: ObjectStore) -> None:
        etag = await store.create(RECORD, b"one")
        with pytest.raises(Conflict):
            await store.replace("meta/log/none", b"two", etag=etag)
        assert await store.head("meta/log/none") is None

    async def test_replace_refuses_a_deleted_object_and_an_etag_from_before(
        self, store: ObjectStore
    ) -> None:
        before = await store.create(RECORD, b"one")
        await store.delete([RECORD])
        assert await store.head(RECORD) is None
        with pytest.raises(Conflict):
            await store.replace(RECORD, b"two", etag=before)
        await store.create(RECORD, b"another")
        with pytest.raises(Conflict):
            await store.replace(RECORD, b"three", etag=before)
        assert await read(store, RECORD) == b"another"

    async def test_racing_replaces_have_one_winner(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(RIVALS)]
        etag = await stores[0].create(RECORD, b"start")
        for number in range(ROUNDS):
            bodies = [b"round %d by %d" % (number, rival) for rival in range(RIVALS)]
            tried = await asyncio.gather(
                *(
                    s.replace(RECORD, body, etag=etag)
                    for s, body in zip(stores, bodies, strict=True)
                ),
                return_exceptions=True,
            )
            winners = [rival for rival, result in enumerate(tried) if isinstance(result, str)]
            assert len(winners) == 1, tried
            assert all(isinstance(r, str | Conflict) for r in tried), tried
            data, info = await stores[0].get(RECORD)
            assert bytes(data) == bodies[winners[0]]
            etag = info.etag

    async def test_counting_by_replace_loses_nothing(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(RIVALS)]
        await stores[0].create(RECORD, b"0")

        async def add(store: ObjectStore, times: int) -> None:
            while times:
                data, info = await store.get(RECORD)
                try:
                    await store.replace(RECORD, b"%d" % (int(bytes(data)) + 1), etag=info.etag)
                except Conflict:
                    continue
                times -= 1

        await asyncio.gather(*(add(store, 10) for store in stores))
        assert await read(stores[0], RECORD) == b"40"

    # ------------------------------------------------------------------------------------- reading

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (0, 10, b"0123456789"),
            (8, 10, b"89"), (9, 1, b"9"), (10, None, b""), (10, 5, b""), (25, 5, b""), (25, None, b""),
            (-3, None, b"789"), (-3, 2, b"78"), (-30, None, b"0123456789"), (-30, 3, b"012"),
            (0, 0, b""), (4, 0, b""), (-2, 0, b""),
        ],
    )  # fmt: skip
    async def test_ranges(
        self, store: ObjectStore, start: int, length: int | None, expected: bytes
    ) -> None:
        for key in (KEY, RECORD):
            await store.create(key, b"0123456789")
            data, info = await store.get(key, start=start, length=length)
            assert bytes(data) == expected
            assert info.size == 10

    async def test_objects_of_zero_bytes(self, store: ObjectStore) -> None:
        for key in (KEY, RECORD):
            await store.create(key, b"")
            with pytest.raises(AlreadyExists):
                await store.create(key, b"x")
            for start in (0, 5, -5):
                data, info = await store.get(key, start=start)
                assert bytes(data) == b""
                assert info.size == 0
        assert [info.size for info in await listing(store, "")] == [0, 0]

    async def test_absent_objects(self, store: ObjectStore) -> None:
        await store.create("logs/present", b"x")
        for key in ("logs/absent", "none/at/all", "meta/absent", "logs"):
            with pytest.raises(NotFound):
                await store.get(key)
            with pytest.raises(NotFound):
                await store.get(key, start=-8, length=4)
            assert await store.head(key) is None

    async def test_large_objects_and_every_kind_of_buffer(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * (8 * MIB // 256)
        buffers: list[Buffer] = [
            data,
            bytearray(data),
            memoryview(data),
            memoryview(bytearray(data)),
        ]
        for number, buffer in enumerate(buffers):
            await store.create(f"logs/large/{number}", buffer)
        for number in range(len(buffers)):
            assert await read(store, f"logs/large/{number}") == data
        tail, info = await store.get("logs/large/0", start=-1000)
        assert bytes(tail) == data[-1000:]
        assert info.size == 8 * MIB

    async def test_facts_agree_between_head_and_list(self, store: ObjectStore) -> None:
        await store.create(KEY, b"12345")
        head = await store.head(KEY)
        (listed,) = await listing(store, "logs/")
        assert head is not None
        assert (head.key, head.size, head.modified_ms) == (KEY, 5, listed.modified_ms)
        assert listed.size == 5

    async def test_odd_keys(self, store: ObjectStore) -> None:
        for key in ODD_KEYS:
            await store.create(key, key.encode())
        assert [info.key for info in await listing(store, "odd/")] == sorted(ODD_KEYS)
        for key in ODD_KEYS:
            assert await read(store, key) == key.encode()
        await store.delete(ODD_KEYS)
        assert await listing(store, "odd/") == []

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "a/../b", "./a", "n\u00e4h", "a\nb", "a\\b", "x" * 1000]
    )
    async def test_illegal_keys_are_refused(self, store: ObjectStore, key: str) -> None:
        for call in (
            store.create(key, b""), store.get(key), store.head(key), store.delete([key]),
            store.replace(key, b"", etag="1"), store.write_stream(key, stream([b"x"])),
        ):  # fmt: skip
            with pytest.raises(InvalidRequest):
                await call

    # ------------------------------------------------------------------------------------- listing

    async def test_listing_is_sorted_and_filtered(self, store: ObjectStore) -> None:
        keys = [
            "l/a/1", "l/a/10", "l/a/2", "l/a-b", "l/a.b", "l/ab/x", "l/b", "m/a", "meta/l/a", "meta/l/b",
        ]  # fmt: skip
        for key in reversed(keys):
            await store.create(key, b"x")
        for prefix in (
            "",
            "l/",
            "l/a",
            "l/a/",
            "l/a/1",
            "l/b",
            "none",
            "l/a/1x",
            "meta/",
            "meta/l/b",
        ):
            expected = sorted(key for key in keys if key.startswith(prefix))
            assert [info.key for info in await listing(store, prefix)] == expected, prefix

    async def test_listing_starts_after_a_key(self, store: ObjectStore) -> None:
        keys = sorted([f"s/{n:02}" for n in range(10)] + ["s/04/x", "s/04.y", "t/1"])
        keys = [key for key in keys if key != "s/04"]
        for key in keys:
            await store.create(key, b"x")
        for after in ("", "a", "s/", "s/03", "s/035", "s/04", "s/04/x", "s/09", "t/0", "t/1", "z"):
            expected = [key for key in keys if key > after]
            assert [i.key for i in await listing(store, "", start_after=after)] == expected, after
            inside = [key for key in expected if key.startswith("s/")]
            assert [i.key for i in await listing(store, "s/", start_after=after)] == inside, after

    async def test_listing_goes_over_many_pages(self, store: ObjectStore) -> None:
        keys = [f"many/{number:06}" for number in range(self.many_objects)]
        for first in range(0, len(keys), 32):
            await asyncio.gather(*(store.create(key, b"x") for key in keys[first : first + 32]))
        assert [info.key for info in await listing(store, "many/")] == keys
        after = keys[len(keys) // 2]
        rest = await listing(store, "many/", start_after=after)
        assert [info.key for info in rest] == keys[len(keys) // 2 + 1 :]
        await store.delete(keys)
        assert await listing(store, "many/") == []

    async def test_listing_shows_what_was_written_before_it(self, store: ObjectStore) -> None:
        for number in range(5):
            await store.create(f"seen/{number}", b"x")
            assert len(await listing(store, "seen/")) == number + 1
        await store.delete(["seen/2"])
        assert [info.key[-1] for info in await listing(store, "seen/")] == ["0", "1", "3", "4"]

    # ------------------------------------------------------------------------------------- streams

    @pytest.mark.parametrize("sizes", [[], [0], [5, 0, 7], [3 * MIB] * 7, [20 * MIB]])
    async def test_stream_is_written_whole(self, store: ObjectStore, sizes: Sequence[int]) -> None:
        parts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        whole = b"".join(parts)
        assert await store.write_stream("sealed/0", stream(parts)) == len(whole)
        assert await read(store, "sealed/0") == whole

    async def test_stream_replaces_an_older_object(self, store: ObjectStore) -> None:
        await store.write_stream("sealed/0", stream([b"older and longer"]))
        await store.write_stream("sealed/0", stream([b"new"]))
        assert await read(store, "sealed/0") == b"new"

    @pytest.mark.parametrize("part_bytes", [10, 5 * MIB])
    async def test_broken_stream_leaves_nothing(self, store: ObjectStore, part_bytes: int) -> None:
        async def broken() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x" * part_bytes
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.write_stream("sealed/0", broken())
        assert await store.head("sealed/0") is None
        assert await listing(store, "") == []

    @pytest.mark.parametrize("part_bytes", [10, 5 * MIB])
    async def test_cancelled_stream_leaves_nothing(
        self, store: ObjectStore, part_bytes: int
    ) -> None:
        stalled = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x" * part_bytes
            stalled.set()
            await asyncio.Event().wait()

        writing = asyncio.ensure_future(store.write_stream("sealed/0", stalling()))
        await stalled.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await store.head("sealed/0") is None
        assert await listing(store, "") == []

    async def test_stream_keeps_what_parts_held_when_handed_over(self, store: ObjectStore) -> None:
        async def reusing() -> AsyncIterator[bytearray]:
            buffer = bytearray(3 * MIB)
            for number in range(5):
                buffer[:] = bytes([number]) * len(buffer)
                yield buffer
            buffer[:] = b"\xff" * len(buffer)

        await store.write_stream("sealed/0", reusing())
        expected = b"".join(bytes([number]) * (3 * MIB) for number in range(5))
        assert await read(store, "sealed/0") == expected

    # ---------------------------------------------------------------------------- deleting, closing

    async def test_delete_is_idempotent_and_exact(self, store: ObjectStore) -> None:
        for key in ("d/1", "d/2", "d/3", "meta/d"):
            await store.create(key, b"x")
        await store.delete(["d/0", "d/1", "d/absent", "d/3", "meta/d", "meta/absent", "e/none"])
        await store.delete(["d/1", "meta/d"])
        await store.delete([])
        assert [info.key for info in await listing(store, "")] == ["d/2"]
        await store.create("d/1", b"again")
        assert await read(store, "d/1") == b"again"

    async def test_many_at_once(self, store: ObjectStore) -> None:
        keys = [f"logs/at-once/{number:03}" for number in range(64)]
        await asyncio.gather(*(store.create(key, key.encode() * 100) for key in keys))
        found = await asyncio.gather(*(read(store, key) for key in keys))
        assert found == [key.encode() * 100 for key in keys]

    async def test_probe_finds_both_features_and_cleans_up(self, store: ObjectStore) -> None:
        assert await store.probe("create_if_absent") is None
        assert await store.probe("compare_and_swap") is None
        assert await listing(store, "") == []

    async def test_clock_is_shown_without_litter(self, store: ObjectStore) -> None:
        now_ms = await store.clock_ms()
        assert now_ms is None or now_ms > 1_700_000_000_000
        assert await listing(store, "") == []

    async def test_closed_store_refuses_everything(self, opened: OpenStore) -> None:
        store, other = opened(), opened()
        await store.create(KEY, b"x")
        await store.close()
        await store.close()
        for call in (
            store.create(KEY, b""), store.replace(RECORD, b"", etag="1"), store.get(KEY),
            store.head(KEY), store.delete([KEY]), store.delete([]), listing(store, ""),
            store.write_stream(KEY, stream([b"x"])), store.clock_ms(),
            store.probe("create_if_absent"),
        ):  # fmt: skip
            with pytest.raises(Closed):
                await call
        assert await read(other, KEY) == b"x"

    async def test_close_waits_for_what_is_under_way(self, opened: OpenStore) -> None:
        store, other = opened(), opened()
        writing = asyncio.ensure_future(store.create(KEY, b"x" * MIB))
        await asyncio.sleep(0)
        await store.close()
        await writing
        assert await read(other, KEY) == b"x" * MIB

    async def test_url_names_the_place(self, opened: OpenStore) -> None:
        assert "://" in opened().url
        assert opened().url == opened().url


async def read(store: ObjectStore, key: str) -> bytes:
    """The whole object."""
    data, _ = await store.get(key)
    return bytes(data)


async def listing(store: ObjectStore, prefix: str, *, start_after: str = "") -> list[ObjectInfo]:
    """All pages of a listing in one."""
    return [info async for page in store.list(prefix, start_after=start_after) for info in page]


async def stream(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    """``parts`` one by one."""
    for part in parts:
        yield part
