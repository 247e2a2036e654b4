"""Records: manifests, pages, registers, cursors, nodes, disks, store markers as readable, checked JSON.

Every record is one line ``{"woodpecker": kind, "format": n, "digest": d, "value": {...}}`` and a line
feed. The digest (XXH3-128) covers kind, format and the exact bytes of the value, so a flipped bit
anywhere is found, and a newer format is recognised although its value is not understood.

Rule for later versions: a record that uses a field this version does not know is written under a
higher format. Fields added with a default do not hinder reading what was written before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from xxhash import xxh3_128_hexdigest

from woodpecker.codec.compression import Buffer
from woodpecker.codec.envelope import convert, decode, encode, nonsense
from woodpecker.core import manifest
from woodpecker.core.manifest import Manifest, PageRef, Segment
from woodpecker.core.membership import NodeRecord
from woodpecker.core.node_disk import DiskState
from woodpecker.core.register import ProducerState, Register
from woodpecker.errors import Corrupt, InvalidRequest

MAX_RECORD_BYTES = 1 << 20  # what a metadata store takes as one value
MAX_PAGE_BYTES = 16 << 20
MAX_REGISTER_BYTES = 64 << 20
MAX_CURSOR_DATA_BYTES = 64 << 10

_FORMATS = {  # the newest that this version reads
    "manifest": 2, "page": 1, "register": 1, "cursor": 1, "node": 1, "store": 1,
    "disk": 1,
}  # fmt: skip

T = TypeVar("T")

PageItem = Segment | PageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Older segments (level 0), or references to older pages (above)."""

    segments: tuple[Segment, ...] = ()
    pages: tuple[PageRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A named place in a log. ``position`` is the first seq not yet done with.

    ``generation`` is the caller's fencing number, ``nonce`` is new for every write, ``data`` is opaque.
    ``deleted``: the cursor is gone; the record stays where the store cannot remove it conditionally.
    """

    position: int
    generation: int = 0
    nonce: str = ""
    data: bytes = b""
    updated_at_ms: int = 0
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMarker:
    """Says that a bucket or directory belongs to Woodpecker, and which store it is."""

    store_id: str
    format: int = 1


def digest_of(data: Buffer) -> str:
    """XXH3-128 of stored bytes, as kept in records and keys: 32 hex digits."""
    return xxh3_128_hexdigest(data)


def encode_manifest(value: Manifest) -> bytes:
    """Raises: InvalidRequest above MAX_RECORD_BYTES, or for a format this version cannot write."""
    if value.format != manifest.FORMAT:
        raise InvalidRequest(
            f"manifest format {value.format} cannot be written: this version writes {manifest.FORMAT}"
        )
    plain = msgspec.to_builtins(value)
    plain["register"] = _pack_register(value.register)
    plain["anchor"]["register"] = _pack_register(value.anchor.register)
    # what format 1 would pass over, and lose with its next change of the log
    is_newer = value.options.max_cost_per_month is not None
    return encode("manifest", plain, MAX_RECORD_BYTES, format_number=2 if is_newer else 1)


def decode_manifest(data: Buffer, *, where: str = "manifest") -> Manifest:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    plain = _decode("manifest", data, dict[str, Any], MAX_RECORD_BYTES, where)
    try:
        plain["register"] = _unpack_register(plain["register"])
        plain["anchor"]["register"] = _unpack_register(plain["anchor"]["register"])
    except (KeyError, TypeError, ValueError) as error:
        raise nonsense(where, error) from error
    return convert(plain, Manifest, where)


def encode_page(items: Sequence[PageItem]) -> bytes:
    """Same items, same bytes: segments (level 0) or references to pages (above), not both.

    Raises: InvalidRequest above MAX_PAGE_BYTES.
    """
    page = _Page(
        segments=tuple(item for item in items if isinstance(item, Segment)),
        pages=tuple(item for item in items if isinstance(item, PageRef)),
    )
    if bool(page.segments) == bool(page.pages):
        raise InvalidRequest("a page holds either segments or references to pages, at least one")
    return encode("page", msgspec.to_builtins(page), MAX_PAGE_BYTES)


def decode_page(data: Buffer, *, where: str = "page") -> tuple[PageItem, ...]:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    page = _decode("page", data, _Page, MAX_PAGE_BYTES, where)
    if bool(page.segments) == bool(page.pages):
        raise Corrupt(f"{where}: a page of nothing, or of segments and pages", where=where)
    return (*page.segments, *page.pages)


def encode_register(value: Register) -> bytes:
    """Same register, same bytes. Raises: InvalidRequest above MAX_REGISTER_BYTES."""
    return encode("register", _pack_register(value), MAX_REGISTER_BYTES)


def decode_register(data: Buffer, *, where: str = "register") -> Register:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    plain = _decode("register", data, list[Any], MAX_REGISTER_BYTES, where)
    try:
        expanded = _unpack_register(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise nonsense(where, error) from error
    return convert(expanded, Register, where)


def encode_cursor(value: Cursor) -> bytes:
    """Raises: InvalidRequest if ``data`` is above MAX_CURSOR_DATA_BYTES."""
    if len(value.data) > MAX_CURSOR_DATA_BYTES:
        raise InvalidRequest(
            f"cursor data of {len(value.data)} bytes: at most {MAX_CURSOR_DATA_BYTES} are allowed"
        )
    return encode("cursor", msgspec.to_builtins(value), MAX_RECORD_BYTES)


def decode_cursor(data: Buffer, *, where: str = "cursor") -> Cursor:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    return _decode("cursor", data, Cursor, MAX_RECORD_BYTES, where)


def encode_node(value: NodeRecord) -> bytes:
    """Raises: InvalidRequest above MAX_RECORD_BYTES."""
    return encode("node", msgspec.to_builtins(value), MAX_RECORD_BYTES)


def decode_node(data: Buffer, *, where: str = "node") -> NodeRecord:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    return _decode("node", data, NodeRecord, MAX_RECORD_BYTES, where)


def encode_disk(value: DiskState) -> bytes:
    """Raises: nothing: a node starts less often than its disk could hold."""
    return encode("disk", msgspec.to_builtins(value), MAX_RECORD_BYTES)


def decode_disk(data: Buffer, *, where: str = "disk") -> DiskState:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    state = _decode("disk", data, DiskState, MAX_RECORD_BYTES, where)
    if not state.incarnations:
        raise Corrupt(f"{where}: a disk without an incarnation", where=where)
    return state


def encode_store_marker(value: StoreMarker) -> bytes:
    """Raises: nothing."""
    return encode("store", msgspec.to_builtins(value), MAX_RECORD_BYTES)


def decode_store_marker(data: Buffer, *, where: str = "store marker") -> StoreMarker:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    return _decode("store", data, StoreMarker, MAX_RECORD_BYTES, where)


def _decode(kind: str, data: Buffer, type_: type[T], limit_bytes: int, where: str) -> T:
    return decode(kind, data, type_, limit_bytes, where, newest=_FORMATS[kind])


def _pack_register(register: Register) -> list[Any]:
    """Compact form: a register may know very many producers, each with its last results."""
    return [
        register.ended,
        [[name, *_pack_producer(state)] for name, state in register.producers],
    ]


def _pack_producer(state: ProducerState) -> tuple[int, int, int, list[int]]:
    results = [n for r in state.results for n in (r.sequence, r.seq, r.count)]
    return state.epoch, state.last_sequence, state.timestamp_us, results


def _unpack_register(packed: Sequence[Any]) -> dict[str, Any]:
    ended, producers = packed
    return {
        "ended": ended,
        "producers": [
            (name, _unpack_producer(epoch, last, timestamp_us, results))
            for name, epoch, last, timestamp_us, results in producers
        ],
    }


def _unpack_producer(epoch: int, last: int, timestamp_us: int, flat: list[int]) -> dict[str, Any]:
    rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return {
        "epoch": epoch,
        "last_sequence": last,
        "timestamp_us": timestamp_us,
        "results": [{"sequence": a, "seq": b, "count": c} for a, b, c in rows],
    }
