"""Records: readable, checked to the last bit, clear about newer formats, bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.golden.samples import (
    CURSOR,
    JSON,
    LOG_ID,
    MANIFEST,
    PAGE_REF,
    REGISTER,
    SEGMENT,
    STORE_MARKER,
    Golden,
)
from tests.unit.codec.forging import record

from woodpecker.codec import records
from woodpecker.core.manifest import Manifest
from woodpecker.core.register import BatchResult, ProducerState, Register
from woodpecker.errors import Corrupt, InvalidRequest

DECODERS: dict[str, Callable[..., Any]] = {
    "manifest": records.decode_manifest,
    "page": records.decode_page,
    "register": records.decode_register,
    "cursor": records.decode_cursor,
    "store": records.decode_store_marker,
    "node": records.decode_node,
    "disk": records.decode_disk,
}
BARE = Manifest(name="x", log_id=LOG_ID, created_at_ms=1)


def kind_of(data: bytes | bytearray) -> str:
    return str(json.loads(data)["woodpecker"])


def name_of(golden: Golden) -> str:
    return golden.file


@pytest.mark.parametrize("golden", JSON, ids=name_of)
def test_a_record_comes_back_and_is_one_line_of_json(golden: Golden) -> None:
    data = golden.make()
    assert DECODERS[kind_of(data)](data) == golden.value
    assert DECODERS[kind_of(data)](memoryview(bytearray(data))) == golden.value
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    assert set(json.loads(data)) == {"woodpecker", "format", "digest", "value"}


@pytest.mark.parametrize("golden", JSON, ids=name_of)
def test_cut_at_every_byte(golden: Golden) -> None:
    data = golden.make()
    decode = DECODERS[kind_of(data)]
    for size in range(len(data)):
        with pytest.raises(Corrupt, match="here: "):
            decode(data[:size], where="here")


@pytest.mark.parametrize("golden", JSON, ids=name_of)
def test_every_flipped_bit(golden: Golden) -> None:
    data = bytearray(golden.make())
    decode = DECODERS[kind_of(data)]
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("kind", DECODERS)
def test_a_newer_format_is_named_as_such_although_nothing_else_is_known(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="written by a newer version of Woodpecker"):
        DECODERS[kind](record(kind, b'{"all":"new"}', fmt=9))


@pytest.mark.parametrize("kind", DECODERS)
def test_one_kind_is_not_taken_for_another(kind: str) -> None:
    other = "cursor" if kind != "cursor" else "store"
    with pytest.raises(Corrupt, match=f"a {other} record where a {kind} belongs"):
        DECODERS[kind](record(other, b"{}"))


NONSENSE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b"[1]",
    b"[false,[[1,2]]]",
    b'[false,[["a",1,1,1,[1,2]]]]',
    b'[false,[["a",1,1,1,7]]]',
    b'[false,[["a",1,1,1,"abc"]]]',
    b'[false,[[["a"],1,1,1,[]]]]',
    b'[2,[["a",1,1,1,[]]]]',
    b'{"register":[false,[]],"anchor":7}',
    b'{"register":[false,[]],"anchor":{"register":[false,[]]}}',
    b'{"register":7,"anchor":{"register":[false,[]]}}',
    b'{"position":"x"}',
    b'{"position":1,"data":"not base64"}',
    b'{"segments":[{}]}',
    b"[" * 100_000,
    b'{"format":"\xff"}',
]


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: value[:40].decode("ascii", "replace"))
def test_forged_values(kind: str, value: bytes) -> None:
    with pytest.raises(Corrupt):
        DECODERS[kind](record(kind, value))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_record_above_its_limit_is_not_even_looked_at(kind: str) -> None:
    limits = {"page": records.MAX_PAGE_BYTES, "register": records.MAX_REGISTER_BYTES}
    data = bytes(limits.get(kind, records.MAX_RECORD_BYTES) + 1)
    with pytest.raises(Corrupt, match="too many"):
        DECODERS[kind](data)


def test_large_registers_have_a_compact_form() -> None:
    results = tuple(BatchResult(sequence=i, seq=10**12 + i, count=100) for i in range(16))
    state = ProducerState(epoch=3, last_sequence=15, results=results, timestamp_us=10**15)
    register = Register(producers=tuple((f"producer-{i:05}", state) for i in range(1000)))
    data = records.encode_register(register)
    assert records.decode_register(data) == register
    assert len(data) < 450 * 1000


def test_equal_registers_have_equal_bytes() -> None:
    twin = Register(
        ended=True,
        producers=tuple((name, replace(state)) for name, state in REGISTER.producers),
    )
    assert records.encode_register(twin) == records.encode_register(REGISTER)


def test_both_registers_of_a_manifest_come_back() -> None:
    manifest = replace(MANIFEST, anchor=replace(MANIFEST.anchor, register=REGISTER))
    assert records.decode_manifest(records.encode_manifest(manifest)) == manifest


def test_a_field_added_later_with_a_default_does_not_hinder_reading() -> None:
    value = json.loads(records.encode_manifest(BARE))["value"]
    del value["nonce"]
    assert records.decode_manifest(record("manifest", json.dumps(value).encode())) == BARE


@pytest.mark.parametrize(
    "make",
    [
        lambda: records.encode_manifest(
            replace(BARE, attributes={"a": "x" * records.MAX_RECORD_BYTES})
        ),
        lambda: records.encode_manifest(replace(BARE, attributes={"a": "\ud800"})),
        lambda: records.encode_manifest(replace(BARE, format=2)),
        lambda: records.encode_cursor(replace(CURSOR, data=bytes((64 << 10) + 1))),
        lambda: records.encode_page((SEGMENT, PAGE_REF)),
        lambda: records.encode_page(()),
    ],
)
def test_what_cannot_be_a_record_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_largest_cursor_data() -> None:
    cursor = replace(CURSOR, data=bytes(64 << 10))
    assert records.decode_cursor(records.encode_cursor(cursor)) == cursor


def test_a_store_marker_says_which_store_it_is() -> None:
    data = records.encode_store_marker(STORE_MARKER)
    assert records.decode_store_marker(data).store_id == LOG_ID


def test_digests_of_stored_bytes() -> None:
    assert records.digest_of(b"") == "99aa06d3014798d86001c324468d497f"  # XXH3-128, seed 0
    assert (
        records.digest_of(memoryview(b"abc"))
        == records.digest_of(b"abc")
        != records.digest_of(b"abd")
    )
