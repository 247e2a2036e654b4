"""Every key and path Woodpecker writes, in one table.

Metadata store (keys may lie in the same bucket as the objects):

==================================================  ===============================================
``meta/logs/<name>``                                manifest of a log
``meta/cursors/<log id>/<name>``                    cursor; of one incarnation of the log
``meta/leases/<name>``                              lease of a background worker
``meta/nodes/<node>``                               a LogStore node
==================================================  ===============================================

Object store, relative to its root prefix:

==================================================  ===============================================
``woodpecker.json``                                 store marker
``<log id>/<segment>/<number>``                     block or end mark of a segment of kind object
``<log id>/sealed/<segment>-<end seq>-<digest>``    sealed segment
``<log id>/pages/<level>-<first>-<last>-<digest>``  page of older segments
``<log id>/registers/end-<segment>-<digest>``       register at the end of that segment, too large
                                                    for the manifest
``<log id>/registers/anchor-<segment>-<digest>``    register before that segment, the first one kept
``<log id>/objects/<name>``                         object of a layer above (checkpoint and the like)
==================================================  ===============================================

Segments and block numbers have 12 digits, seqs 20, page levels 2, all padded with zeros, so that
listings sort by number. Log ids and digests are 32 lower-case hex digits.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from woodpecker.core.ids import check_name
from woodpecker.errors import InvalidRequest

STORE_MARKER = "woodpecker.json"
LOGS = "meta/logs/"  # prefixes, for listings
CURSORS = "meta/cursors/"
LEASES = "meta/leases/"
NODES = "meta/nodes/"

_HEX = re.compile(r"[0-9a-f]{32}\Z")
_OBJECT = re.compile(
    r"([0-9a-f]{32})/(?:"
    r"(?P<block>([0-9]{12})/([0-9]{12}))|"
    r"(?P<sealed>sealed/([0-9]{12})-([0-9]{20})-([0-9a-f]{32}))|"
    r"(?P<page>pages/([0-9]{2})-([0-9]{12})-([0-9]{12})-([0-9a-f]{32}))|"
    r"(?P<register>registers/(end|anchor)-([0-9]{12})-([0-9a-f]{32}))|"
    r"(?P<object>objects/(.+))"
    r")\Z"
)


class BlockKey(NamedTuple):
    """A block or an end mark."""

    log_id: str
    segment_id: int
    number: int


class SealedKey(NamedTuple):
    """A sealed segment; ``digest`` is the chain digest at its end."""

    log_id: str
    segment_id: int
    end_seq: int
    digest: str


class PageKey(NamedTuple):
    """A page; ``digest`` is of its bytes."""

    log_id: str
    level: int
    first_segment: int
    last_segment: int
    digest: str


class RegisterKey(NamedTuple):
    """A register at the end of a segment, or (anchor) before it; ``digest`` is of its bytes.

    The segment tells which change of the manifest may refer to it: garbage collection needs to know.
    """

    log_id: str
    is_anchor: bool
    segment_id: int
    digest: str


class CallerKey(NamedTuple):
    """An object that belongs to a layer above."""

    log_id: str
    name: str


ObjectKey = BlockKey | SealedKey | PageKey | RegisterKey | CallerKey


def manifest(name: str) -> str:
    """Manifest of the log ``name``. Raises: InvalidRequest."""
    return LOGS + check_name(name)


def cursors(log_id: str) -> str:
    """Prefix of all cursors of one incarnation of a log."""
    return f"{CURSORS}{_hex(log_id)}/"


def cursor(log_id: str, name: str) -> str:
    """One cursor. Raises: InvalidRequest."""
    return cursors(log_id) + check_name(name, "cursor")


def lease(name: str) -> str:
    """One lease. Raises: InvalidRequest."""
    return LEASES + check_name(name, "lease")


def node(name: str) -> str:
    """Record of a LogStore node. Raises: InvalidRequest."""
    return NODES + check_name(name, "node")


def log_prefix(log_id: str) -> str:
    """Prefix of all objects of one incarnation of a log."""
    return f"{_hex(log_id)}/"


def segment_prefix(log_id: str, segment_id: int) -> str:
    """Prefix of the blocks and end marks of one segment."""
    return f"{_hex(log_id)}/{_digits(segment_id, 12)}/"


def block(log_id: str, segment_id: int, number: int) -> str:
    """Block ``number`` of a segment, or the end mark there."""
    return segment_prefix(log_id, segment_id) + _digits(number, 12)


def sealed_prefix(log_id: str) -> str:
    """Prefix of all sealed segments of a log."""
    return f"{_hex(log_id)}/sealed/"


def sealed(log_id: str, segment_id: int, end_seq: int, digest: str) -> str:
    """The sealed object of a segment that ends at E = (end_seq, digest)."""
    return f"{sealed_prefix(log_id)}{_digits(segment_id, 12)}-{_digits(end_seq, 20)}-{_hex(digest)}"


def pages_prefix(log_id: str) -> str:
    """Prefix of all pages of a log."""
    return f"{_hex(log_id)}/pages/"


def page(log_id: str, level: int, first_segment: int, last_segment: int, digest: str) -> str:
    """A page; ``digest`` is of its bytes, so equal pages have equal keys."""
    numbers = f"{_digits(level, 2)}-{_digits(first_segment, 12)}-{_digits(last_segment, 12)}"
    return f"{pages_prefix(log_id)}{numbers}-{_hex(digest)}"


def registers_prefix(log_id: str) -> str:
    """Prefix of all register objects of a log."""
    return f"{_hex(log_id)}/registers/"


def register(log_id: str, segment_id: int, digest: str, *, is_anchor: bool = False) -> str:
    """A register at the end of a segment, or (anchor) before it; ``digest`` is of its bytes."""
    role = "anchor" if is_anchor else "end"
    return f"{registers_prefix(log_id)}{role}-{_digits(segment_id, 12)}-{_hex(digest)}"


def objects_prefix(log_id: str) -> str:
    """Prefix of all objects of layers above that belong to a log."""
    return f"{_hex(log_id)}/objects/"


def caller_object(log_id: str, name: str) -> str:
    """An object of a layer above; ``name`` is one name or several joined by ``/``.

    Raises: InvalidRequest.
    """
    for part in name.split("/"):
        check_name(part, "object")
    return objects_prefix(log_id) + name


def parse_object(key: str) -> ObjectKey | None:
    """What the object under ``key`` is; None for a key this table does not have (leave it alone)."""
    found = _OBJECT.match(key)
    if found is None:
        return None
    (log_id, _, segment, number, _, sealed_segment, end_seq, sealed_digest, _, level, first, last,
     page_digest, _, role, register_segment, register_digest, _, name) = found.groups()  # fmt: skip
    if found["block"]:
        return BlockKey(log_id, int(segment), int(number))
    if found["sealed"]:
        return SealedKey(log_id, int(sealed_segment), int(end_seq), sealed_digest)
    if found["page"]:
        return PageKey(log_id, int(level), int(first), int(last), page_digest)
    if found["register"]:
        return RegisterKey(log_id, role == "anchor", int(register_segment), register_digest)
    return CallerKey(log_id, name)


def parse_block(key: str) -> BlockKey:
    """What ``block`` made the key from. Raises: InvalidRequest."""
    found = parse_object(key)
    if not isinstance(found, BlockKey):
        raise InvalidRequest(f"{key!r} is not the key of a block or an end mark")
    return found


def parse_manifest(key: str) -> str:
    """Name of the log whose manifest lies under ``key``. Raises: InvalidRequest."""
    if not key.startswith(LOGS):
        raise InvalidRequest(f"{key!r} is not the key of a manifest")
    return check_name(key.removeprefix(LOGS))


def parse_cursor(key: str) -> tuple[str, str]:
    """Log id and name of the cursor under ``key``. Raises: InvalidRequest."""
    log_id, slash, name = key.removeprefix(CURSORS).partition("/")
    if not key.startswith(CURSORS) or not slash:
        raise InvalidRequest(f"{key!r} is not the key of a cursor")
    return _hex(log_id), check_name(name, "cursor")


def _digits(value: int, width: int) -> str:
    text = str(value)
    if value < 0 or len(text) > width:
        raise InvalidRequest(f"{value} does not fit the {width} digits it has in a key")
    return text.zfill(width)


def _hex(value: str) -> str:
    if not _HEX.match(value):
        raise InvalidRequest(f"{value!r} is not an id or digest of 32 lower-case hex digits")
    return value
