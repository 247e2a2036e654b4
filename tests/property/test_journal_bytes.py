"""The journal's bytes: a second reader written from docs/formats.md, and files that were cut and flipped."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from zlib import crc32

import pytest
from tests.unit.logstore.node_kit import Writer
from xxhash import xxh3_128_digest

from woodpecker.codec.journal import (
    RECORD_BYTES,
    UNIT_BYTES,
    FileHeader,
    Kind,
    aligned,
    begin_group,
    encode_fence,
    encode_file_header,
    item_digest,
    padded,
    parse_file_header,
    put_record,
    seed_of,
)
from woodpecker.codec.journal_walk import Ask, Ending, Found, walk
from woodpecker.core.replica import FenceMark
from woodpecker.errors import Corrupt, InvalidRequest

HOME = "0f" * 16
NUMBER = 12
FIRST = 1000
FILE_BYTES = 64 * UNIT_BYTES
SEED = seed_of(HOME, NUMBER)


@dataclass
class Built:
    """A journal file, and where each of its records lies."""

    data: bytearray
    records: list[tuple[int, Kind, int, bytes]]  # number, kind, offset, payload
    groups: list[tuple[int, int]]  # from, to


def build(rng: random.Random) -> Built:
    header = FileHeader(
        node="n1", home=HOME, incarnation="ab" * 16, era=2, number=NUMBER,
        size_bytes=FILE_BYTES, first_record=FIRST,
    )  # fmt: skip
    data = bytearray(FILE_BYTES)
    data[:UNIT_BYTES] = encode_file_header(header)
    built, at, number = Built(data, [], []), UNIT_BYTES, FIRST
    writer = Writer("ab" * 16)
    for _ in range(rng.randint(1, 5)):
        begin = at
        for _ in range(rng.randint(1, 6)):
            at = _put(built, rng, writer, at, number)
            number += 1
            if rng.random() < 0.3:
                at = padded(at)
        at = padded(at)
        begin_group(memoryview(data), begin, SEED, (at - begin) // UNIT_BYTES)
        built.groups.append((begin, at))
    return built


def _put(built: Built, rng: random.Random, writer: Writer, at: int, number: int) -> int:
    view = memoryview(built.data)
    kind = rng.choice([Kind.BLOCK, Kind.FENCE, Kind.FLOOR, Kind.NAME])
    fields: dict[str, int] = {"segment_id": 0, "epoch": writer.epoch, "era": 2}
    payload = b""
    match kind:
        case Kind.BLOCK:
            payload = writer.pack(rng.choice([0, 10, 700, 6000]))
            fields["block"] = len(writer.blocks) - 1
        case Kind.FENCE:
            payload = encode_fence(
                FenceMark(epoch=4, token="f" * 32, reason="r" * rng.randint(0, 9))
            )
        case Kind.FLOOR:
            fields["segment_id"] = rng.randint(0, 9)
        case _:
            payload = b"orders"
    digest = bytes(16) if kind is Kind.BLOCK else item_digest(payload)
    put_record(
        view, at, SEED, kind, number, len(payload), log_id=bytes.fromhex(writer.log_id),
        digest=digest, **fields,
    )  # fmt: skip
    view[at + RECORD_BYTES : at + RECORD_BYTES + len(payload)] = payload
    built.records.append((number, kind, at, payload))
    return at + aligned(RECORD_BYTES + len(payload))


def read(data: bytes | bytearray, **fields: object) -> tuple[list[Found], Ending]:
    values = {"limit": None, "is_last": True} | fields
    steps = walk(len(data), SEED, FIRST, **values)  # type: ignore[arg-type]
    found, answer = [], memoryview(b"")
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                assert step.size_bytes > 0
                assert step.offset % UNIT_BYTES == step.size_bytes % UNIT_BYTES == 0
                answer = memoryview(data)[step.offset : step.offset + step.size_bytes]
            else:
                found.append(step)
            step = steps.send(answer)
    except StopIteration as stop:
        return found, stop.value


def by_the_page(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Number, kind, offset and payload of all records, read as docs/formats.md says."""
    magic, version, name_bytes, era = struct.unpack_from("<8sHHI", data)
    assert (magic, version, name_bytes, era) == (b"WPJOURN\n", 1, 2, 2)
    assert crc32(data[:272]) == struct.unpack_from("<I", data, 272)[0]
    assert data[72:74] == b"n1"
    home, (number, first, size) = data[16:32], struct.unpack_from("<QQQ", data, 48)
    assert (home.hex(), number, first, size) == (HOME, NUMBER, FIRST, len(data))
    records, at, end = [], UNIT_BYTES, UNIT_BYTES
    while data[at : at + 4] == b"WPR1" or at % UNIT_BYTES:
        if data[at : at + 4] == bytes(4):
            at += UNIT_BYTES - at % UNIT_BYTES
            continue
        kind, flags, zero, record, units, payload_bytes = struct.unpack_from(
            "<BBHQII", data, at + 4
        )
        covered = home + struct.pack("<Q", number) + data[at : at + 84]
        assert crc32(covered) == struct.unpack_from("<I", data, at + 84)[0]
        assert flags == zero == 0
        if at == end:
            end = at + units * UNIT_BYTES
        else:
            assert not units
        payload = data[at + 88 : at + 88 + payload_bytes]
        if kind > 3:
            assert data[at + 68 : at + 84] == (xxh3_128_digest(payload) if payload else bytes(16))
        records.append((record, kind, at, payload))
        at += -(-(88 + payload_bytes) // 8) * 8
    return records


SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_written_is_read_by_both_readers(seed):
    built = build(random.Random(seed))
    found, ending = read(built.data)
    assert [(f.header.number, f.header.kind, f.offset, bytes(f.payload)) for f in found] == (
        built.records
    )
    assert all(f.is_sound and f.header.era == 2 for f in found)
    assert ending == Ending(
        offset=built.groups[-1][1], next_record=FIRST + len(built.records), scars=()
    )
    assert by_the_page(bytes(built.data)) == built.records
    assert parse_file_header(built.data, where="file").first_record == FIRST


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_flipped_bit_is_told_or_leaves_a_scar(seed, is_last):
    rng = random.Random(seed)
    built = build(rng)
    for _ in range(40):
        data = bytearray(built.data)
        at = rng.randrange(UNIT_BYTES, built.groups[-1][1])
        data[at] ^= 1 << rng.randrange(8)
        limit = None if is_last else FIRST + len(built.records)
        found, ending = read(data, is_last=is_last, limit=limit)
        sound = [
            (f.header.number, f.header.kind, f.offset, bytes(f.payload))
            for f in found
            if f.is_sound
        ]
        assert set(sound) <= set(built.records), "nothing is read that was not written"
        hit = _record_at(built, at)
        if hit is None:
            continue  # between records: seen only where the next header is looked for
        assert hit not in [record for record, *_ in sound]
        told = [f.header.number for f in found if not f.is_sound]
        assert told == [hit] or ending.scars
        if not is_last:
            lost = {record for record, *_ in built.records} - {record for record, *_ in sound}
            assert lost == {hit}, "elsewhere only the damaged record is lost"


def _record_at(built: Built, at: int) -> int | None:
    for number, _, offset, payload in built.records:
        if offset <= at < offset + RECORD_BYTES + len(payload):
            return number
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_torn_last_group_is_cut_and_groups_before_it_are_whole(seed):
    rng = random.Random(seed)
    built = build(rng)
    first, last = built.groups[-1]
    whole = [record for record in built.records if record[2] < first]
    for _ in range(40):
        data = bytearray(built.data)
        lost = [at for at in range(first, last, 512) if rng.random() < 0.5]
        for at in lost:
            data[at : at + 512] = bytes(512)
        found, ending = read(data)
        got = [(f.header.number, f.header.kind, f.offset, bytes(f.payload)) for f in found]
        assert got[: len(whole)] == whole
        assert got == built.records[: len(got)]
        assert all(f.is_sound for f in found)
        is_gone = not any(data[first:last])
        is_whole = got == built.records
        assert bool(ending.scars) == (not is_gone and not is_whole)
        assert ending.next_record == FIRST + len(got)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_lies_beyond_the_limit_is_not_read(seed):
    rng = random.Random(seed)
    built = build(rng)
    limit = rng.randint(FIRST, FIRST + len(built.records))
    found, ending = read(built.data, limit=limit, is_last=False)
    assert [f.header.number for f in found] == list(range(FIRST, limit))
    assert not ending.scars
    found, ending = read(built.data, limit=FIRST + len(built.records) + 1, is_last=False)
    assert len(found) == len(built.records)
    assert ending.scars == (built.groups[-1][1],), "a record is missing at the end"


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_survived(seed):
    """Any bytes, also with sound headers strewn in, end in scars: no crash, no loop, no large request."""
    rng = random.Random(seed)
    built = build(rng)
    data = bytearray(rng.randbytes(FILE_BYTES))
    for _ in range(12):
        _, _, offset, payload = rng.choice(built.records)
        size = RECORD_BYTES + len(payload)
        at = rng.choice([8, UNIT_BYTES]) * rng.randrange(1, 60)
        data[at : at + size] = built.data[offset : offset + size]
    data[FILE_BYTES:] = b""
    for is_last in (True, False):
        _, ending = read(data, is_last=is_last)
        assert ending.scars


def test_hostile_headers():
    built = build(random.Random(1))
    with pytest.raises(Corrupt, match="no journal file"):
        parse_file_header(bytes(UNIT_BYTES), where="f")
    with pytest.raises(Corrupt, match="no journal file"):
        parse_file_header(b"", where="f")
    newer = bytearray(built.data[:UNIT_BYTES])
    newer[8] = 9
    with pytest.raises(Corrupt, match="checksum"):
        parse_file_header(newer, where="f")
    newer[272:276] = struct.pack("<I", crc32(newer[:272]))
    with pytest.raises(InvalidRequest, match="newer version"):
        parse_file_header(newer, where="f")


@pytest.mark.parametrize(
    "values",
    [
        {"kind": 77},
        {"kind": Kind.BLOCK, "payload_bytes": (256 << 20) + 129, "block": 0},
        {"kind": Kind.BLOCK, "payload_bytes": 10, "block": 0},
        {"kind": Kind.BLOCK, "payload_bytes": 128, "block": -1},
        {"kind": Kind.NAME, "payload_bytes": (64 << 10) + 1},
        {"kind": Kind.FLOOR, "payload_bytes": 1},
        {"kind": Kind.FLOOR, "segment_id": 1 << 63},
    ],
)
def test_a_header_with_a_right_checksum_and_wrong_numbers_is_none(values):
    data = bytearray(FILE_BYTES)
    kind, size = values.pop("kind"), values.pop("payload_bytes", 0)
    put_record(memoryview(data), UNIT_BYTES, SEED, kind, FIRST, size, **values)
    begin_group(memoryview(data), UNIT_BYTES, SEED, 1)
    found, ending = read(data)
    assert not found
    assert ending.scars == (UNIT_BYTES,)
