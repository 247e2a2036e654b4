"""Format 1 stays readable for ever: bytes checked in once are decoded to the values they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.golden.journal_sample import read_journal
from tests.golden.samples import (
    BINARY,
    DIGEST,
    JSON,
    LOG_ID,
    REGISTER,
    Golden,
    full_draft,
    plain_blocks,
)
from tests.golden.stream_samples import decode_columns

from woodpecker.codec import endmark, records, sealed
from woodpecker.codec.block import Block, parse_header
from woodpecker.streaming.codec.checkpoint import decode_checkpoint

HERE = Path(__file__).parent
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "manifest.v1.json": records.decode_manifest,
    "manifest-quorum.v1.json": records.decode_manifest,
    "manifest-cost.v2.json": records.decode_manifest,
    "node.v1.json": records.decode_node,
    "disk.v1.json": records.decode_disk,
    "journal.v1": read_journal,
    "page.v1.json": records.decode_page,
    "upper-page.v1.json": records.decode_page,
    "register.v1.json": records.decode_register,
    "cursor.v1.json": records.decode_cursor,
    "store.v1.json": records.decode_store_marker,
    "endmark.v1": endmark.parse,
    "stream-columns.v1": decode_columns,
    "stream-checkpoint.v1": decode_checkpoint,
}


def ids(golden: Golden) -> str:
    return golden.file


@pytest.mark.parametrize("golden", [*BINARY, *JSON], ids=ids)
def test_files_exist_and_every_file_belongs_to_a_sample(golden: Golden) -> None:
    assert (HERE / golden.file).is_file(), "run tests/golden/make_new.py"
    known = {item.file for item in [*BINARY, *JSON]}
    assert {path.name for path in HERE.glob("*.v*")} == known


@pytest.mark.parametrize(
    "golden", [item for item in [*BINARY, *JSON] if item.file in DECODERS], ids=ids
)
def test_old_bytes_mean_what_they_meant(golden: Golden) -> None:
    assert DECODERS[golden.file]((HERE / golden.file).read_bytes()) == golden.value


# what compressors write may change with their versions; what they wrote must stay readable
@pytest.mark.parametrize(
    "golden", [item for item in BINARY if not item.file.endswith(("zstd.v1", "lz4.v1"))], ids=ids
)
def test_binary_formats_are_written_as_ever(golden: Golden) -> None:
    assert golden.make() == (HERE / golden.file).read_bytes()


def test_a_register_is_written_as_ever_because_sealed_objects_hold_one() -> None:
    assert records.encode_register(REGISTER) == (HERE / "register.v1.json").read_bytes()


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_old_blocks_mean_what_they_meant(compression: str) -> None:
    block = Block.parse((HERE / f"block-{compression}.v1").read_bytes())
    draft = full_draft()
    header = block.header
    assert (header.log_id, header.segment_id, header.epoch, header.number) == (LOG_ID, 7, 3, 5)
    assert (header.base_seq, header.count, header.lac) == (1000, 4, 999)
    assert header.prev_digest == b"p" * 16
    assert block.payloads == draft.payloads
    assert block.headers == draft.headers
    assert block.timestamps is not None
    assert block.timestamps.tolist() == draft.timestamps
    assert list(block.batches) == draft.batches
    assert list(block.controls) == draft.controls


@pytest.mark.parametrize(("file", "padding"), [("sealed.v1", 0), ("sealed-in-place.v1", 100)])
def test_old_sealed_objects_mean_what_they_meant(file: str, padding: int) -> None:
    data = (HERE / file).read_bytes()
    footer = sealed.parse_footer(data, object_bytes=len(data))
    index = sealed.parse_index(data[footer.index_offset : footer.register_offset], footer)
    register = sealed.parse_register(data[footer.register_offset : -sealed.FOOTER_BYTES], footer)
    blocks = plain_blocks()
    assert register == REGISTER
    assert (footer.base_seq, footer.end_seq, footer.block_count) == (0, 3, 3)
    assert footer.digest == blocks[-1].header.digest
    offset = 0
    for i, block in enumerate(blocks):
        assert (index.offsets[i], index.sizes[i]) == (offset, len(block.buffer))
        assert parse_header(data[offset:]) == block.header
        offset += len(block.buffer) + padding


def test_samples_use_every_field_of_a_closed_segment() -> None:
    page = (HERE / "page.v1.json").read_bytes()
    assert DIGEST.encode() in page
    assert b"null" not in page
