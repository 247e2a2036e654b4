"""Rules for keys and values, the same in every metadata store."""

from __future__ import annotations

from woodpecker.errors import InvalidRequest

KEY_MAX_CHARS = 900
VALUE_MAX_BYTES = 1 << 20  # etcd refuses requests above 1.5 MiB by default


def check_key(key: str) -> str:
    """Return ``key`` if every metadata store can hold it. Raises: InvalidRequest."""
    if not 1 <= len(key) <= KEY_MAX_CHARS:
        raise InvalidRequest(
            f"metadata key of {len(key)} characters: 1 to {KEY_MAX_CHARS} are allowed"
        )
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest(f"metadata key {key!r}: only printable ASCII is allowed")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidRequest(f"metadata key {key!r}: a part between '/' is empty, '.' or '..'")
    return key


def check_value(key: str, value: bytes) -> bytes:
    """Return ``value`` if it is not too long. Raises: InvalidRequest."""
    if len(value) > VALUE_MAX_BYTES:
        raise InvalidRequest(
            f"metadata value of {len(value)} bytes for {key}: at most {VALUE_MAX_BYTES} are allowed"
        )
    return value
