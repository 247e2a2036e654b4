"""One entry as the user gives it to append, and as a reader gets it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from woodpecker.errors import InvalidRequest

HeaderTuple = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry. For ``append_many`` only the payload is needed; readers fill in everything.

    headers: for append a mapping or pairs, str is UTF-8; from readers an ordered tuple of
    (bytes, bytes), duplicates kept.
    """

    payload: bytes | bytearray | memoryview
    headers: Any = ()
    timestamp_us: int | None = None
    seq: int | None = None


def as_headers(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None) -> HeaderTuple:
    """Headers as an ordered tuple of (bytes, bytes).

    Raises:
        InvalidRequest: not a mapping or pairs, or a name or value that is neither bytes nor str.
    """
    if not headers:
        return ()
    try:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        return tuple((_as_bytes(name), _as_bytes(value)) for name, value in pairs)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"headers must be a mapping or pairs of bytes or str: {error}"
        ) from None


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{value!r} is neither bytes nor str")
