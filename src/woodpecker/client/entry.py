"""One entry, as the user gives it to append and as a reader gives it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from woodpecker.codec.columns import Headers
from woodpecker.core.ids import NO_ENTRY
from woodpecker.errors import InvalidRequest

Text = bytes | str
HeaderInput = Mapping[str, Text] | Mapping[bytes, Text] | Iterable[tuple[Text, Text]]

NO_TIME = -1


class _Fields(NamedTuple):
    payload: bytes
    headers: Headers
    timestamp_us: int
    seq: int


class Entry(_Fields):
    """One entry of a log.

    Make one to append it: ``Entry(b"paid", headers={"id": b"7"})``. An entry that was read has a seq.
    It is a tuple (payload, headers, timestamp_us, seq): the quickest immutable thing to make.

    Attributes:
        payload: 0 to 64 MiB.
        headers: ordered pairs of bytes; names may repeat and be empty.
        timestamp_us: microseconds since 1970, never falling along the log; -1: none was given.
        seq: its position in the log; -1: it comes from no log.
    """

    __slots__ = ()

    def __new__(
        cls,
        payload: bytes | bytearray | memoryview,
        *,
        headers: HeaderInput | None = None,
        timestamp_us: int | None = None,
    ) -> Self:
        """Make an entry to append.

        Args:
            payload: any bytes-like; what is not bytes is copied.
            headers: a mapping, or pairs in their order; str is UTF-8.
            timestamp_us: microseconds since 1970; None: none.
        Raises:
            InvalidRequest: a payload that is not bytes-like, headers that are not pairs of bytes or
                str, a timestamp below 0.
        """
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise InvalidRequest(f"a payload must be bytes-like, not {type(payload).__name__}")
        if timestamp_us is not None and timestamp_us < 0:
            raise InvalidRequest(f"timestamp_us {timestamp_us} is below 0")
        time_us = NO_TIME if timestamp_us is None else timestamp_us
        return super().__new__(cls, bytes(payload), as_headers(headers), time_us, NO_ENTRY)


def as_headers(headers: HeaderInput | None) -> Headers:
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


def _as_bytes(text: object) -> bytes:
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    raise TypeError(f"{text!r} is neither bytes nor str")
