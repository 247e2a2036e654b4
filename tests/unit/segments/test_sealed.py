"""SealedSource: ranges of whole blocks, bounded; and every way an object can be wrong."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from tests.unit.client.reading_kit import LOG_ID, LogKit
from tests.unit.codec.forging import resign_block

from woodpecker.codec.block import HEADER_BYTES
from woodpecker.core.manifest import Segment
from woodpecker.errors import Corrupt, NotFound
from woodpecker.segments import sealed
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.sealed import SealedSource
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore


class Watched(MemoryObjectStore):
    """Notes each GET; ``change`` may damage what it returns."""

    def __init__(self, bucket: MemoryBucket) -> None:
        super().__init__(bucket)
        self.gets: list[tuple[int, int | None]] = []
        self.change: Callable[[bytearray, int], bytearray] | None = None

    async def get(self, key, *, start=0, length=None):
        self.gets.append((start, length))
        data, info = await super().get(key, start=start, length=length)
        if self.change is not None:
            data = self.change(bytearray(data), start)
        return data, info


class Case:
    """One sealed segment: 3 control blocks, entries, controls between and behind."""

    def __init__(self, kit: LogKit, segment: Segment, store: Watched) -> None:
        self.kit, self.segment, self.store = kit, segment, store

    def source(self, segment: Segment | None = None) -> SealedSource:
        ref = SegmentRef(log_id=LOG_ID, segment=segment or self.segment)
        return SealedSource(self.store, self.kit.runtime, ref)

    async def numbers(self, seq: int) -> list[int]:
        return [block.header.number async for block in self.source().blocks(seq)]


async def sealed_case(blocks: list[list[bytes]]) -> Case:
    kit = await LogKit.create()
    await kit.open()
    await kit.show([b"before"])
    await kit.close(roll=True)
    for payloads in blocks:
        await kit.show(payloads)
    await kit.close()
    await kit.seal()
    await kit.seal()
    manifest = await kit.manifest()
    segment = manifest.segments[1]
    return Case(kit, segment, Watched(kit.objects(manifest, segment)._bucket))


SMALL: list[list[bytes]] = [[], [b"a", b"b"], [], [], [b"c"], [b"d", b"e", b"f"], []]


async def test_begins_at_the_first_block_not_wholly_below_the_seq() -> None:
    case = await sealed_case(SMALL)
    want = {0: 0, 1: 0, 2: 1, 3: 2, 4: 5, 5: 5, 6: 5, 7: 6}
    for seq, number in want.items():
        assert await case.numbers(seq) == list(range(number, 7)), seq
    assert await case.numbers(8) == []
    assert await case.source().visible_end() == 7


async def test_index_is_read_once_and_small_reads_stay_small() -> None:
    case = await sealed_case([[b"x" * 200_000] for _ in range(60)])
    async for _ in case.source().blocks(30):
        break
    gc.collect()
    assert len(case.store.gets) <= 3
    assert sum(length or 0 for _, length in case.store.gets) < 2 << 20
    before = len(case.store.gets)
    assert await case.numbers(60) == [59]
    assert len(case.store.gets) == before + 1


async def test_an_index_larger_than_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "TAIL_BYTES", 300)
    case = await sealed_case([[b"%d" % n] for n in range(50)])
    assert await case.numbers(1) == list(range(50))
    assert await case.source().seq_at(0) == 1


async def test_cached_indexes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "CACHED_INDEX_BYTES", 1)
    case = await sealed_case(SMALL)
    first, second = (await case.kit.manifest()).segments
    for segment in (first, second, second, first):
        assert await case.source(segment).seq_at(0) == segment.base_seq
    tails = [start for start, length in case.store.gets if start == 0 and length and length > 256]
    assert len(tails) >= 3, "each is forgotten for the other"


@pytest.mark.parametrize("position", range(0, 2_000, 37))
async def test_any_flipped_byte_is_corrupt_or_harmless_never_shown(position: int) -> None:
    case = await sealed_case(SMALL)
    wanted = [b.payloads async for b in case.source().blocks(0)]
    size = case.segment.sealed.size  # type: ignore[union-attr]
    at = position * size // 2_000

    def flip(data: bytearray, start: int) -> bytearray:
        if start <= at < start + len(data):
            data[at - start] ^= 0x40
        return data

    case.store = Watched(case.store._bucket)  # with nothing in its cache
    case.store.change = flip
    found, where = None, ""
    try:
        found = [b.payloads async for b in case.source().blocks(0)]
    except Corrupt as error:
        where = error.where
    assert case.segment.sealed is not None
    assert found == wanted or case.segment.sealed.key in where


async def test_a_sound_object_of_another_segment_is_corrupt() -> None:
    case = await sealed_case([[b"behind"]])  # as large as the one before
    first, second = (await case.kit.manifest()).segments
    objects = case.store._bucket.objects
    assert first.sealed is not None and second.sealed is not None
    objects[second.sealed.key] = objects[first.sealed.key]
    with pytest.raises(Corrupt, match="the manifest names"):
        await case.numbers(1)


async def test_a_sound_block_that_breaks_the_chain_is_corrupt() -> None:
    """Right place, right checksum, but it links to another block than the one before it."""
    case = await sealed_case([[b"a"], [b"b"], [b"c"]])
    size = HEADER_BYTES + 5

    def relink(data: bytearray, start: int) -> bytearray:
        if start == 0 and len(data) == 3 * size:
            data[size + 24 : size + 40] = bytes(16)
            data[size : 2 * size] = resign_block(data[size : 2 * size])
        return data

    assert await case.numbers(1) == [0, 1, 2]
    case.store.change = relink
    with pytest.raises(Corrupt, match="chain"):
        await case.numbers(1)


async def test_a_block_of_another_place_is_corrupt() -> None:
    """Each block is sound, but two of equal size have changed places."""
    case = await sealed_case([[b"a"], [b"b"], [b"c"]])
    size = HEADER_BYTES + 5

    def swap(data: bytearray, start: int) -> bytearray:
        if start == 0 and len(data) == 3 * size:
            return data[size : 2 * size] + data[:size] + data[2 * size :]
        return data

    assert await case.numbers(1) == [0, 1, 2]
    case.store.change = swap
    with pytest.raises(Corrupt, match="another place"):
        await case.numbers(1)


async def test_a_gone_object_is_not_found_a_cut_one_corrupt() -> None:
    case = await sealed_case(SMALL)
    case.store.change = lambda data, _: data[:-1]
    with pytest.raises(Corrupt, match=r"\d+ bytes of \d+"):
        await case.numbers(1)
    case.store.change = None
    assert case.segment.sealed is not None
    await case.store.delete([case.segment.sealed.key])
    with pytest.raises(NotFound):
        await case.numbers(1)
