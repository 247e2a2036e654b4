"""Optional columns of a block body: timestamps, headers, batches, controls (docs/formats.md).

Each variable column begins with its own length, so one can be read without the others. Decoders check
every length against the bytes at hand before they allocate anything.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from woodpecker.codec.compression import Buffer
from woodpecker.core.batcher import BatchMark, HeaderList
from woodpecker.core.register import Control, DropProducer, EndLog, GrantProducer
from woodpecker.errors import Corrupt, InvalidRequest

Headers = tuple[tuple[bytes, bytes], ...]

MAX_PRODUCER_BYTES = 200
MAX_CALLER_COLUMN_BYTES = 64 << 10

_U32 = struct.Struct("<I")
_BATCH = struct.Struct(
    "<IIQQII"
)  # first, count, producer epoch, sequence, id length, column length
_CONTROL = struct.Struct("<IIQ")  # kind, id length, epoch
_END_LOG, _GRANT, _DROP = 1, 2, 3


class Input:
    """Bytes being decoded: every read is bounds-checked, and fails as Corrupt."""

    __slots__ = ("pos", "view", "where")

    def __init__(self, view: Buffer, where: str) -> None:
        self.view = memoryview(view)
        self.pos = 0
        self.where = where

    def take(self, size_bytes: int) -> memoryview:
        """The next ``size_bytes`` bytes, not copied."""
        start = self.pos
        end = start + size_bytes
        if end > len(self.view):
            raise self.corrupt(f"{size_bytes} bytes needed, {len(self.view) - start} left")
        self.pos = end
        return self.view[start:end]

    def u32(self) -> int:
        """The next number."""
        return int(_U32.unpack(self.take(4))[0])

    def u32s(self, count: int) -> array[int]:
        """The next ``count`` numbers."""
        return numbers("I", self.take(4 * count))

    def done(self) -> None:
        """Check that nothing is left over."""
        if self.pos != len(self.view):
            raise self.corrupt(f"{len(self.view) - self.pos} bytes too many")

    def corrupt(self, what: str) -> Corrupt:
        """The error to raise."""
        return Corrupt(f"{self.where}: {what}", where=self.where)


def numbers(typecode: str, data: Buffer) -> array[int]:
    """Bytes as an array of numbers ("I": u32, "Q": u64)."""
    result: array[int] = array(typecode)
    result.frombytes(data)
    return result


def encode_timestamps(timestamps: Sequence[int], count: int) -> bytes:
    """Times of all entries, in us. Raises: InvalidRequest."""
    if len(timestamps) != count:
        raise InvalidRequest(f"{len(timestamps)} timestamps for {count} entries")
    try:
        return array("Q", timestamps).tobytes()
    except (OverflowError, TypeError) as error:
        raise InvalidRequest(f"a timestamp is not a number of us below 2**64: {error}") from error


def encode_headers(headers: Sequence[HeaderList], count: int) -> bytes:
    """Headers of all entries as one column; costs nothing for entries without any.

    Raises: InvalidRequest.
    """
    if len(headers) != count:
        raise InvalidRequest(f"headers of {len(headers)} entries for {count} entries")
    owners = [index for index, pairs in enumerate(headers) if pairs]
    pairs = [pair for index in owners for pair in headers[index]]
    flat = [part for pair in pairs for part in pair]
    return _column(
        struct.pack("<II", len(owners), len(pairs)),
        array("I", owners),
        array("I", [len(headers[index]) for index in owners]),
        array("I", map(len, flat)),
        *flat,
    )


def decode_headers(column: Input, count: int) -> list[Headers]:
    """Headers of each of ``count`` entries."""
    owner_count, pair_count = column.u32(), column.u32()
    owners, counts = column.u32s(owner_count), column.u32s(owner_count)
    lengths = column.u32s(2 * pair_count)
    if sum(counts) != pair_count or 0 in counts:
        raise column.corrupt("header counts do not add up")
    if owner_count and (owners[-1] >= count or not all(a < b for a, b in pairwise(owners))):
        raise column.corrupt("headers of entries that are not there, or out of order")
    flat = _split(column, lengths)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    result: list[Headers] = [()] * count
    ends = accumulate(counts)
    for owner, own, end in zip(owners, counts, ends, strict=True):
        result[owner] = tuple(pairs[end - own : end])
    return result


def encode_batches(batches: Sequence[BatchMark], count: int) -> bytes:
    """Batch marks of a block of ``count`` entries as one column. Raises: InvalidRequest."""
    fixed: list[bytes] = [_U32.pack(len(batches))]
    variable: list[bytes] = []
    free = 0
    for batch in batches:
        if batch.first < free or batch.count < 1 or batch.first + batch.count > count:
            raise InvalidRequest(f"a batch of {batch.count} entries at {batch.first} does not fit")
        free = batch.first + batch.count
        fixed.append(_batch_row(batch))
        variable += (_producer(batch.producer), batch.column)
    return _column(*fixed, *variable)


def _batch_row(batch: BatchMark) -> bytes:
    id_bytes, column_bytes = len(_producer(batch.producer)), len(batch.column)
    if column_bytes > MAX_CALLER_COLUMN_BYTES:
        raise InvalidRequest(
            f"caller column of {column_bytes} bytes: at most {MAX_CALLER_COLUMN_BYTES} are allowed"
        )
    row = (batch.first, batch.count, batch.producer_epoch, batch.sequence)
    try:
        return _BATCH.pack(*row, id_bytes, column_bytes)
    except struct.error as error:
        raise InvalidRequest(f"batch of producer {batch.producer!r}: {error}") from error


def _producer(producer: str) -> bytes:
    try:
        encoded = producer.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"producer id {producer!r}: {error}") from error
    if len(encoded) > MAX_PRODUCER_BYTES:
        raise InvalidRequest(
            f"producer id of {len(encoded)} bytes: at most {MAX_PRODUCER_BYTES} are allowed"
        )
    return encoded


def decode_batches(column: Input, count: int) -> tuple[BatchMark, ...]:
    """Batch marks of a block of ``count`` entries; they lie one after another."""
    rows = list(_BATCH.iter_unpack(column.take(_BATCH.size * column.u32())))
    result = []
    free = 0  # first entry that a batch may begin at
    for first, size, epoch, sequence, id_bytes, column_bytes in rows:
        if id_bytes > MAX_PRODUCER_BYTES or column_bytes > MAX_CALLER_COLUMN_BYTES:
            raise column.corrupt("a producer id or caller column above its limit")
        if first < free or size == 0 or first + size > count:
            raise column.corrupt(f"a batch of {size} entries at {first} does not fit")
        free = first + size
        mark = BatchMark(
            first=first,
            count=size,
            producer=_text(column, id_bytes),
            producer_epoch=epoch,
            sequence=sequence,
            column=bytes(column.take(column_bytes)),
        )
        result.append(mark)
    column.done()
    return tuple(result)


def encode_controls(controls: Sequence[Control]) -> bytes:
    """Controls as one column. Raises: InvalidRequest."""
    parts = [_U32.pack(len(controls))]
    for control in controls:
        kind, producer_id, epoch = _control_row(control)
        producer = _producer(producer_id)
        try:
            parts += [_CONTROL.pack(kind, len(producer), epoch), producer]
        except struct.error as error:
            raise InvalidRequest(f"control for producer {producer_id!r}: {error}") from error
    return _column(*parts)


def decode_controls(column: Input) -> tuple[Control, ...]:
    """Controls of a block, in order."""
    result: list[Control] = []
    for _ in range(column.u32()):
        kind, id_bytes, epoch = _CONTROL.unpack(column.take(_CONTROL.size))
        if id_bytes > MAX_PRODUCER_BYTES:
            raise column.corrupt("a producer id above its limit")
        result.append(_control(column, kind, _text(column, id_bytes), epoch))
    column.done()
    return tuple(result)


def _control_row(control: Control) -> tuple[int, str, int]:
    match control:
        case EndLog():
            return _END_LOG, "", 0
        case GrantProducer(id=producer, epoch=epoch):
            return _GRANT, producer, epoch
        case DropProducer(id=producer):
            return _DROP, producer, 0


def _control(column: Input, kind: int, producer: str, epoch: int) -> Control:
    if kind == _END_LOG:
        return EndLog()
    if kind == _GRANT:
        return GrantProducer(id=producer, epoch=epoch)
    if kind == _DROP:
        return DropProducer(id=producer)
    raise column.corrupt(f"unknown control {kind}")


def _text(column: Input, size_bytes: int) -> str:
    try:
        return str(column.take(size_bytes), "utf-8")
    except UnicodeDecodeError as error:
        raise column.corrupt("a producer id is not UTF-8") from error


def _column(*parts: Buffer | array[int]) -> bytes:
    content = b"".join(parts)
    return _U32.pack(len(content)) + content


def _split(column: Input, lengths: Iterable[int]) -> list[bytes]:
    data = bytes(column.take(len(column.view) - column.pos))
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] != len(data):
        raise column.corrupt("header lengths do not add up")
    return [data[start:end] for start, end in pairwise(ends)]
