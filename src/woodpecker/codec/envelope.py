"""The envelope of every record: one line of readable, checked JSON round a value (codec/records.py).

``{"woodpecker": kind, "format": n, "digest": d, "value": {...}}`` and a line feed. The digest (XXH3-128)
covers kind, format and the exact bytes of the value.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from xxhash import xxh3_128_hexdigest

from woodpecker.codec.compression import Buffer
from woodpecker.errors import Corrupt, InvalidRequest

_FRONT = re.compile(
    rb'\{"woodpecker":"([a-z]{1,16})","format":([1-9][0-9]{0,8}),"digest":"([0-9a-f]{32})","value":'
)
_BACK = b"}\n"

T = TypeVar("T")


def encode(kind: str, plain: object, limit_bytes: int, *, format_number: int = 1) -> bytes:
    """The envelope round a value that JSON can hold. Raises: InvalidRequest above ``limit_bytes``."""
    try:
        value = msgspec.json.encode(plain)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"this {kind} cannot be written as JSON: {error}") from error
    head = f'{{"woodpecker":"{kind}","format":{format_number},"digest":"'.encode()
    digest = xxh3_128_hexdigest(head + value).encode()
    data = b"".join([head, digest, b'","value":', value, _BACK])
    if len(data) > limit_bytes:
        raise InvalidRequest(
            f"{kind} record of {len(data)} bytes: at most {limit_bytes} are allowed"
        )
    return data


def decode(
    kind: str, data: Buffer, type_: type[T], limit_bytes: int, where: str, *, newest: int = 1
) -> T:
    """The value as ``type_``; ``newest``: the highest format that this version reads.

    Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it.
    """
    if len(data) > limit_bytes:
        raise Corrupt(f"{where}: {len(data)} bytes are too many for a {kind} record", where=where)
    data = bytes(data)
    front = _FRONT.match(data)
    if front is None or not data.endswith(_BACK):
        raise Corrupt(f"{where}: this is no {kind} record, or only a part of one", where=where)
    value = data[front.end() : -len(_BACK)]
    if xxh3_128_hexdigest(data[: front.start(3)] + value) != front[3].decode():
        raise Corrupt(f"{where}: the {kind} record fails its checksum", where=where)
    if front[1] != kind.encode():
        raise Corrupt(f"{where}: a {front[1].decode()} record where a {kind} belongs", where=where)
    if int(front[2]) > newest:
        raise InvalidRequest(
            f"{where}: {kind} format {int(front[2])} was written by a newer version of Woodpecker; "
            "upgrade this one to read it"
        )
    try:
        return msgspec.json.decode(value, type=type_)
    except (ValueError, RecursionError) as error:  # of msgspec, and of base64 in it
        raise nonsense(where, error) from error


def convert(plain: object, type_: type[T], where: str) -> T:
    """What JSON gave as a ``type_``. Raises: Corrupt."""
    try:
        return msgspec.convert(plain, type_)
    except (ValueError, RecursionError) as error:
        raise nonsense(where, error) from error


def nonsense(where: str, error: Exception) -> Corrupt:
    """For a value whose bytes are what was written, and yet are wrong."""
    return Corrupt(f"{where}: its checksum is right, but it makes no sense: {error}", where=where)
