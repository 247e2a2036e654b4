"""Records and sealed objects: any value comes back, any forged value is read or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.golden.samples import MANIFEST, REGISTER
from tests.unit.codec.forging import record

from woodpecker.codec import keys, records, sealed
from woodpecker.codec.block import PackedBlock, pack
from woodpecker.core.batcher import Draft
from woodpecker.core.manifest import FORMAT, Manifest, PageRef, Segment
from woodpecker.core.membership import NodeRecord
from woodpecker.core.register import Register
from woodpecker.errors import Corrupt, InvalidRequest

anything: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def every_field(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type; of a dataclass, with every field drawn, those with defaults too."""
    args = get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(
            hint, **{field.name: every_field(hints[field.name]) for field in fields(hint)}
        )
    if get_origin(hint) is tuple and args[-1] is Ellipsis:
        return st.lists(every_field(args[0]), max_size=2).map(tuple)
    if get_origin(hint) is tuple:
        return st.tuples(*map(every_field, args))
    if get_origin(hint) is UnionType:
        return st.one_of(*map(every_field, args))
    return st.from_type(hint)


manifests = every_field(Manifest).map(lambda manifest: replace(manifest, format=FORMAT))
pages = st.one_of(
    st.lists(every_field(Segment), min_size=1, max_size=3),
    st.lists(every_field(PageRef), min_size=1, max_size=3),
)


@given(manifests)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_manifests_come_back(manifest: Manifest) -> None:
    assert records.decode_manifest(records.encode_manifest(manifest)) == manifest


@given(every_field(Register))
@settings(max_examples=100, deadline=None)
def test_registers_come_back(register: Register) -> None:
    assert records.decode_register(records.encode_register(register)) == register


@given(every_field(records.Cursor))
@settings(max_examples=100, deadline=None)
def test_cursors_come_back(cursor: records.Cursor) -> None:
    assert records.decode_cursor(records.encode_cursor(cursor)) == cursor


@given(every_field(NodeRecord))
@settings(max_examples=100, deadline=None)
def test_nodes_come_back(node: NodeRecord) -> None:
    assert records.decode_node(records.encode_node(node)) == node


@given(pages)
@settings(max_examples=100, deadline=None)
def test_pages_come_back(items: list[records.PageItem]) -> None:
    assert records.decode_page(records.encode_page(items)) == tuple(items)


def _replaced(value: object, at: list[int], new: object) -> object:
    """``value`` with the part that the path ``at`` leads to replaced."""
    if not at or not isinstance(value, list | dict) or not value:
        return new
    index = at[0] % len(value)
    if isinstance(value, list):
        return [*value[:index], _replaced(value[index], at[1:], new), *value[index + 1 :]]
    key = sorted(value)[index]
    return value | {key: _replaced(value[key], at[1:], new)}


@pytest.mark.parametrize(
    ("kind", "data", "decode"),
    [
        ("manifest", records.encode_manifest(MANIFEST), records.decode_manifest),
        ("register", records.encode_register(REGISTER), records.decode_register),
        ("page", records.encode_page(MANIFEST.segments), records.decode_page),
    ],
    ids=["manifest", "register", "page"],
)
@given(at=st.lists(st.integers(0, 100), max_size=5), new=anything)
@settings(max_examples=200, deadline=None)
def test_forged_values_are_read_or_refused(
    kind: str, data: bytes, decode: Callable[[bytes], object], at: list[int], new: object
) -> None:
    forged = _replaced(json.loads(data)["value"], at, new)
    with suppress(Corrupt):
        assert decode(record(kind, json.dumps(forged).encode())) is not None


def _chain(counts: list[int]) -> list[PackedBlock]:
    blocks: list[PackedBlock] = []
    seq, prev = 50, bytes(16)
    for number, count in enumerate(counts):
        draft = Draft(seq)
        draft.payloads = [b""] * count
        block = pack(
            draft,
            log_id="ab" * 16,
            segment_id=1,
            epoch=1,
            number=number,
            prev_digest=prev,
            base_timestamp_us=number,
            lac=-1,
        )
        blocks.append(block)
        seq, prev = seq + count, block.header.digest
    return blocks


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 70), st.integers(0, 2000)
)
@settings(max_examples=200, deadline=None)
def test_the_index_finds_what_a_scan_finds(counts: list[int], padding: int, max_bytes: int) -> None:
    blocks = _chain(counts)
    builder, offset = sealed.IndexBuilder(), 0
    for block in blocks:
        builder.add(block.header, offset)
        offset += len(block.buffer) + padding
    tail = sealed.encode_tail(builder, REGISTER, last_timestamp_us=99, offset=offset)
    footer = sealed.parse_footer(tail, object_bytes=offset + len(tail))
    index = sealed.parse_index(tail[: footer.index_bytes], footer)
    for seq in range(50, footer.end_seq):
        holding = [i for i, b in enumerate(blocks) if b.header.base_seq <= seq < b.header.end_seq]
        assert [index.find_seq(seq)] == holding
    assert index.find_seq(footer.end_seq) == len(blocks)
    first = 0
    while first < len(blocks):
        end = index.run(first, max_bytes)
        assert first < end
        assert end == first + 1 or index.span(first, end)[1] <= max_bytes
        assert end == len(blocks) or index.span(first, end + 1)[1] > max_bytes
        first = end


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+=~-]{0,50}", fullmatch=True)
hexes = st.binary(min_size=16, max_size=16).map(bytes.hex)
small = st.integers(0, 10**12 - 1)


@given(hexes, small, small, st.integers(0, 99), st.integers(0, (1 << 63) - 1), names, st.booleans())
def test_keys_are_read_back(
    log_id: str, segment: int, number: int, level: int, seq: int, name: str, anchor: bool
) -> None:
    assert keys.parse_block(keys.block(log_id, segment, number)) == (log_id, segment, number)
    for key, parsed in [
        (keys.sealed(log_id, segment, seq, log_id), keys.SealedKey(log_id, segment, seq, log_id)),
        (
            keys.page(log_id, level, segment, number, log_id),
            keys.PageKey(log_id, level, segment, number, log_id),
        ),
        (
            keys.register(log_id, segment, log_id, is_anchor=anchor),
            keys.RegisterKey(log_id, anchor, segment, log_id),
        ),
        (keys.caller_object(log_id, name), keys.CallerKey(log_id, name)),
    ]:
        assert keys.parse_object(key) == parsed
    assert keys.parse_manifest(keys.manifest(name)) == name
    assert keys.parse_cursor(keys.cursor(log_id, name)) == (log_id, name)


@given(st.text(max_size=120))
def test_any_text_is_a_key_or_none(text: str) -> None:
    assert keys.parse_object(text) is None
    with pytest.raises(InvalidRequest):
        keys.parse_block(text)
