"""Stream columns as bytes, and the entry headers that carry keys and types (docs/formats.md).

A column is one byte of format, one of kind (0x80: who does not know it must not go on), and a msgpack
array of its fields.
"""

from __future__ import annotations

from woodpecker.streaming.core.facts import StreamColumn
from woodpecker.streaming.core.values import Properties

KEY_HEADER = b"\x00k"
TYPE_HEADER = b"\x00t"


def encode_column(column: StreamColumn) -> bytes:
    """The column as bytes. Raises: InvalidRequest: a number below 0 or above 64 bits."""
    raise NotImplementedError


def decode_column(data: bytes, *, where: str = "column") -> StreamColumn:
    """Bytes as a column.

    Raises: Corrupt: no column. InvalidRequest: a format or a required kind of a newer version.
    """
    raise NotImplementedError


def entry_headers(properties: Properties, key: bytes = b"", type_: str = "") -> Properties:
    """Headers of the log entry of one message. ``type_``: only where it is not the batch's.

    Raises: InvalidRequest: a property's name begins with a zero byte.
    """
    raise NotImplementedError


def split_headers(headers: Properties) -> tuple[Properties, bytes, str | None]:
    """(properties, key, type) of an entry; b"": no key; None: the type of the batch. Raises: Corrupt."""
    raise NotImplementedError
