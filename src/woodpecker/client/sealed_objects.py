"""Reading a sealed object as a whole: every byte of it is looked at, and compared with the manifest.

Used where a sealed object is about to become the only copy (read-back, adoption) and by ``verify``.
Readers use ``segments/sealed.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from woodpecker.client.chain import ChainScan
from woodpecker.codec.block import Block, Buffer
from woodpecker.codec.checksum import Checksum
from woodpecker.codec.sealed import (
    FOOTER_BYTES,
    Footer,
    SealedIndex,
    parse_footer,
    parse_index,
    parse_register,
)
from woodpecker.core.manifest import Sealed, Segment
from woodpecker.core.register import Register
from woodpecker.errors import Corrupt, NotFound
from woodpecker.runtime.pace import Pace
from woodpecker.storage.base import ObjectStore

TAIL_GUESS_BYTES = 64 << 10
RANGE_BYTES = 8 << 20

OnBlock = Callable[[Block], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTail:
    """The end of a sealed object, decoded, and its size in bytes."""

    footer: Footer
    index: SealedIndex
    register: Register
    data: memoryview
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCheck:
    """A sealed object that was read completely and found sound."""

    sealed: Sealed
    register: Register
    scan: ChainScan


async def read_tail(objects: ObjectStore, key: str) -> SealedTail:
    """Footer, index and register. Raises: NotFound, Corrupt, Unavailable; InvalidRequest: newer format."""
    where = f"{objects.url}/{key}"
    data, info = await objects.get(key, start=-TAIL_GUESS_BYTES)
    footer = parse_footer(data, object_bytes=info.size, where=where)
    if footer.tail_bytes > len(data):
        data, _ = await objects.get(key, start=-footer.tail_bytes)
    tail = memoryview(data)[-footer.tail_bytes :]
    index = parse_index(tail[: footer.index_bytes], footer, where=f"{where} index")
    register = parse_register(
        tail[footer.index_bytes : -FOOTER_BYTES], footer, where=f"{where} register"
    )
    return SealedTail(footer=footer, index=index, register=register, data=tail, size=info.size)


async def read_register(objects: ObjectStore, segment: Segment) -> Register:
    """The register at the end of a SEALED segment. Raises: as ``read_tail``."""
    assert segment.sealed is not None and segment.end is not None
    tail = await read_tail(objects, segment.sealed.key)
    if tail.footer.digest.hex() != segment.end.digest:
        where = f"{objects.url}/{segment.sealed.key}"
        raise Corrupt(f"{where}: its footer is of another end than the manifest's", where=where)
    return tail.register


async def check_sealed(
    objects: ObjectStore,
    key: str,
    log_id: str,
    segment: Segment,
    *,
    on_block: OnBlock | None = None,
    pace: Pace | None = None,
) -> SealedCheck:
    """Read the object at ``key`` completely; see that it is exactly the closed ``segment``.

    Blocks, chain, index, register, footer, padding. ``on_block`` sees each block, in order; ``pace``: of the work.
    Raises:
        NotFound: no such object. Corrupt(where=object and byte). Unavailable, InvalidRequest.
    """
    where = f"{objects.url}/{key}"
    tail = await read_tail(objects, key)
    checksum = Checksum()
    scan = ChainScan(log_id, segment, f"segment {segment.id}")
    async for first, offset, data in _ranges(objects, key, tail):
        checksum.update(data)
        blocks = _check_range(tail, first, offset, memoryview(data), where)
        for block in blocks:
            scan.add(block)
            if on_block is not None:
                on_block(block)
            if pace is not None:
                await pace.did(block.header.size_bytes)
    scan.finish()
    _check_footer(tail.footer, scan, where)
    checksum.update(tail.data)
    if checksum.size_bytes != tail.size:
        raise Corrupt(f"{where}: {checksum.size_bytes} bytes read of {tail.size}", where=where)
    sealed = Sealed(key=key, size=tail.size, checksum=checksum.hex)
    return SealedCheck(sealed=sealed, register=tail.register, scan=scan)


async def _ranges(
    objects: ObjectStore, key: str, tail: SealedTail
) -> AsyncIterator[tuple[int, int, Buffer]]:
    """(first block, offset, bytes) of consecutive ranges from 0 to the index, cut between blocks."""
    index, first, offset = tail.index, 0, 0
    while offset < tail.footer.index_offset:
        end = index.run(first, RANGE_BYTES) if first < len(index) else first
        until = index.offsets[end] if end < len(index) else tail.footer.index_offset
        data, info = await objects.get(key, start=offset, length=until - offset)
        if info.size != tail.size or len(data) != until - offset:
            where = f"{objects.url}/{key}"
            raise Corrupt(f"{where}: its size changed while it was read", where=where)
        yield first, offset, data
        first, offset = end, until


def _check_range(
    tail: SealedTail, first: int, offset: int, view: memoryview, where: str
) -> Iterator[Block]:
    """Blocks of one range, verified, each after the padding before it. Raises: Corrupt."""
    index, at, position = tail.index, offset, first
    while position < len(index) and index.offsets[position] < offset + len(view):
        start, size = index.offsets[position], index.sizes[position]
        check_zero(view[at - offset : start - offset], at, where)
        data = view[start - offset : start - offset + size]
        block = Block.parse(data, where=f"{where} byte {start} (block {position})")
        if block.count != index.counts[position]:
            raise Corrupt(f"{where}: block {position} does not fit the index", where=where)
        yield block
        at, position = start + size, position + 1
    check_zero(view[at - offset :], at, where)


def check_zero(view: memoryview, offset: int, where: str) -> None:
    """Padding must be zero. Raises: Corrupt, with the byte's place."""
    data = bytes(view)
    if data.strip(b"\0"):
        at = offset + len(data) - len(data.lstrip(b"\0"))
        raise Corrupt(
            f"{where} byte {at}: padding between blocks is not zero", where=f"{where} byte {at}"
        )


def _check_footer(footer: Footer, scan: ChainScan, where: str) -> None:
    first, last = scan.headers[0], scan.headers[-1]
    found = (
        footer.log_id, footer.segment_id, footer.epoch, footer.base_seq, footer.end_seq,
        footer.block_count, footer.block_bytes, footer.raw_body_bytes, footer.prev_digest,
        footer.digest,
    )  # fmt: skip
    wanted = (
        first.log_id, first.segment_id, first.epoch, first.base_seq, last.end_seq,
        len(scan.headers), scan.bytes, sum(header.raw_body_bytes for header in scan.headers),
        first.prev_digest, last.digest,
    )  # fmt: skip
    if found != wanted:
        raise Corrupt(f"{where}: the footer does not fit the blocks", where=f"{where} footer")


async def is_sound(objects: ObjectStore, key: str, log_id: str, segment: Segment) -> bool:
    """Whether a sound sealed object of exactly this segment lies at ``key``. Raises: Unavailable."""
    try:
        await check_sealed(objects, key, log_id, segment)
    except (NotFound, Corrupt):
        return False
    return True
