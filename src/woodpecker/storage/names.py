"""Rules for object keys, the same in every store, so that a log can move from one to another."""

from __future__ import annotations

from woodpecker.errors import InvalidRequest

KEY_MAX_BYTES = 900  # S3, GCS and Azure allow 1,024 including the root prefix

RECORD_PREFIX = "meta/"
"""Where ``replace`` works in every store; directory stores keep numbered versions there."""


def check_key(key: str) -> str:
    """Return ``key`` if it is a legal object key.

    Raises:
        InvalidRequest: empty, too long, not printable ASCII, with a backslash (some services
            take it for a slash), or with an empty, ``.`` or ``..`` part.
    """
    if not key or len(key) > KEY_MAX_BYTES:
        raise InvalidRequest(
            f"object key of {len(key)} characters: 1 to {KEY_MAX_BYTES} are allowed"
        )
    if not (key.isascii() and key.isprintable()) or "\\" in key:
        raise InvalidRequest(
            f"object key {key!r}: only printable ASCII without backslash is allowed"
        )
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidRequest(
            f"object key {key!r}: parts between '/' must not be empty, '.' or '..'"
        )
    return key


def is_record(key: str) -> bool:
    """True if ``key`` names a replaceable record rather than an object written once."""
    return key.startswith(RECORD_PREFIX)


def byte_range(size: int, start: int, length: int | None) -> tuple[int, int]:
    """The range [first, end) that ``get(start=, length=)`` means for an object of ``size`` bytes.

    Raises:
        InvalidRequest: negative length.
    """
    if length is not None and length < 0:
        raise InvalidRequest(f"length must not be negative, got {length}")
    first = max(0, size + start) if start < 0 else min(start, size)
    end = size if length is None else min(size, first + length)
    return first, end
