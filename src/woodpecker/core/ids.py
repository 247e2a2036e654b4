"""Names and identifiers, one meaning each (docs/glossary.md).

seq       position of an entry in its log: 0, 1, 2, ... dense, the same for ever.
segment   number of a segment in its log: grows, is never used twice.
epoch     a writer's number: raised by every take-over.
token     128 random bits, new for each attempt to open: tells two openers of one epoch apart.
digest    XXH3-128 as 32 hex digits where it is kept in records, as 16 bytes inside blocks.
"""

from __future__ import annotations

import re
from enum import StrEnum

from woodpecker.errors import InvalidRequest

NO_ENTRY = -1  # the LAC (inclusive) of a log or segment in which nothing is confirmed
NO_BLOCK = -1  # "last block" of a segment, or of a node's copy of it, that has none
ZERO_DIGEST = "0" * 32  # what the first block of a log links to

MAX_PAYLOAD_BYTES = 64 << 20
MAX_BATCH_BYTES = 128 << 20
MAX_NAME_CHARS = 200

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=~-]*\Z")


class Kind(StrEnum):
    """Where the open part of a segment lives."""

    FILE = "file"
    OBJECT = "object"
    QUORUM = "quorum"


class State(StrEnum):
    """Life of a segment; it only moves forward, and is gone once trimmed."""

    OPEN = "open"
    CLOSED = "closed"
    SEALED = "sealed"


def check_name(name: str, what: str = "log") -> str:
    """Return ``name`` if it can name a log or a cursor.

    Raises:
        InvalidRequest: not a str, empty, too long, or with characters outside ``A-Za-z0-9._:@+=~-``.
    """
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"a {what} name must be a non-empty str, not {name!r}")
    if len(name) > MAX_NAME_CHARS:
        raise InvalidRequest(
            f"{what} name of {len(name)} characters: at most {MAX_NAME_CHARS} are allowed"
        )
    if not _NAME.match(name):
        raise InvalidRequest(
            f"{what} name {name!r}: use letters, digits and . _ : @ + = ~ - , "
            "beginning with a letter or digit"
        )
    return name
