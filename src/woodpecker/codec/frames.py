"""How a message travels: a frame of 24 bytes of header, the message as MessagePack, its payload as it is.

``Parser`` takes bytes as they come, from wherever, and gives whole frames. It holds back nothing but the
beginning of one message: the bytes of a payload go to the place ``allocate`` named, and can be received
straight into it. Lengths are checked before anything is made that has them. docs/wire.md has the layout.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

import msgspec

from woodpecker.codec.compression import Buffer
from woodpecker.codec.header import MAX_BLOCK_BYTES
from woodpecker.codec.messages import AnyMessage
from woodpecker.errors import Corrupt, InvalidRequest

MAGIC = b"WP"
VERSION = 1
HEADER_BYTES = 24
MAX_META_BYTES = 4 << 20
MAX_PAYLOAD_BYTES = MAX_BLOCK_BYTES
LARGE_BYTES = 64 << 10  # from here on a payload is worth a system call of its own
SCRATCH_BYTES = 128 << 10
PEEK_BYTES = 512  # holds the header and message of a block

_COVERED = struct.Struct("<2sBBIIQ")
_HEADER = struct.Struct("<2sBBIIQI")
_COVERED_BYTES = _COVERED.size
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode
_NOTHING = memoryview(b"")

Allocate = Callable[[AnyMessage, int], memoryview]


class Frame(NamedTuple):
    """A message, the request that it is or answers (0: none), the bytes that came with it."""

    message: AnyMessage
    request_id: int
    payload: memoryview


def encode(message: AnyMessage, request_id: int = 0, payload_bytes: int = 0) -> bytes:
    """Header and message; the payload, ``payload_bytes`` long, follows them on the wire.

    Raises: InvalidRequest: the message or its payload is larger than any receiver takes.
    """
    meta = _encode(message)
    if len(meta) > MAX_META_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise InvalidRequest(
            f"a message of {len(meta)} bytes with a payload of {payload_bytes}: at most "
            f"{MAX_META_BYTES} and {MAX_PAYLOAD_BYTES} can be sent"
        )
    covered = _COVERED.pack(MAGIC, VERSION, 0, len(meta), payload_bytes, request_id)
    return covered + crc32(meta, crc32(covered)).to_bytes(4, "little") + meta


def own_bytes(_message: AnyMessage, size_bytes: int) -> memoryview:
    """The plainest ``allocate``: memory of its own for each payload."""
    return memoryview(bytearray(size_bytes))


class Parser:
    """Frames of one direction of one connection.

    Receive into ``buffer()``, then tell ``received`` how much came.

    Args:
        allocate: gives the place for a payload, of exactly the size asked for; may raise Corrupt for
            a message that has no business to carry one. Called once the message is whole and sound.
        scratch: where to receive what is no payload. Parsers of one event loop can share it, as
            nothing stays in it between ``received`` and the next ``buffer``.
    Attributes:
        max_meta_bytes, max_payload_bytes: limits, to be narrowed as long as the peer is a stranger.
    """

    def __init__(self, allocate: Allocate = own_bytes, scratch: memoryview | None = None) -> None:
        self.max_meta_bytes = MAX_META_BYTES
        self.max_payload_bytes = MAX_PAYLOAD_BYTES
        self._allocate = allocate
        self._scratch = memoryview(bytearray(SCRATCH_BYTES)) if scratch is None else scratch
        self._window = self._scratch
        self._rest = bytearray()  # the beginning of a header and message
        self._needed = HEADER_BYTES  # bytes of them that must be there to go on
        self._head: tuple[AnyMessage, int] | None = None  # of the payload under way
        self._payload = _NOTHING
        self._filled = 0

    def buffer(self) -> memoryview:
        """Where the next bytes are to go; never empty."""
        return self._window if self._head is None else self._payload[self._filled :]

    def received(self, count: int) -> Iterator[Frame]:
        """``count`` bytes were put into ``buffer()``: the frames that are whole now.

        To be exhausted before the next ``buffer()``.

        Raises: Corrupt: this is no frame; nothing after it can be understood. InvalidRequest: sound,
            but of a newer version.
        """
        if self._head is not None:
            self._filled += count
            yield from self._finish_payload()
        elif not self._rest:
            yield from self._parse(self._scratch[:count])
        else:
            self._rest += self._scratch[:count]
            if len(self._rest) >= self._needed:
                held, self._rest = self._rest, bytearray()
                yield from self._parse(memoryview(held))

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """Take bytes that are somewhere else already. Raises: as ``received``."""
        view = memoryview(data)
        while view:
            place = self.buffer()
            count = min(len(place), len(view))
            place[:count] = view[:count]
            view = view[count:]
            yield from self.received(count)

    def _parse(self, data: memoryview) -> Iterator[Frame]:
        """All frames in ``data``; what is left of it is copied."""
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            meta_bytes, payload_bytes, request_id, crc = self._header(data, at)
            body = at + HEADER_BYTES + meta_bytes
            if end < body:
                self._needed = HEADER_BYTES + meta_bytes
                break
            if crc32(data[at + HEADER_BYTES : body], crc32(data[at : at + _COVERED_BYTES])) != crc:
                raise Corrupt("a frame fails its checksum", where="wire")
            message = _message(data[at + HEADER_BYTES : body])
            at = body + payload_bytes
            if not payload_bytes:
                self._window = self._scratch
                yield Frame(message, request_id, _NOTHING)
                continue
            self._begin_payload(message, request_id, payload_bytes, data[body:at])
            yield from self._finish_payload()
        else:
            self._needed = HEADER_BYTES
        self._rest += data[at:]

    def _header(self, data: memoryview, at: int) -> tuple[int, int, int, int]:
        magic, version, flags, meta_bytes, payload_bytes, request_id, crc = _HEADER.unpack_from(
            data, at
        )
        if magic != MAGIC:
            raise Corrupt("no frame begins here (wrong magic)", where="wire")
        if version != VERSION or flags:
            raise InvalidRequest(
                f"a frame of version {version} with flags {flags:#x} was sent by a newer version of "
                "Woodpecker; upgrade this one"
            )
        if meta_bytes > self.max_meta_bytes or payload_bytes > self.max_payload_bytes:
            raise Corrupt(
                f"a frame claims a message of {meta_bytes} and a payload of {payload_bytes} bytes: at "
                f"most {self.max_meta_bytes} and {self.max_payload_bytes} are taken here",
                where="wire",
            )
        return meta_bytes, payload_bytes, request_id, crc

    def _begin_payload(
        self, message: AnyMessage, request_id: int, size_bytes: int, first: memoryview
    ) -> None:
        self._payload = self._allocate(message, size_bytes)
        self._payload[: len(first)] = first
        self._filled = len(first)
        self._head = (message, request_id)

    def _finish_payload(self) -> Iterator[Frame]:
        if self._head is None or self._filled < len(self._payload):
            return
        message, request_id = self._head
        payload, self._payload, self._head = self._payload, _NOTHING, None
        is_large = len(payload) >= LARGE_BYTES
        # behind a large payload probably comes another: take little more than its header, so that
        # nearly all of it is received where it belongs
        self._window = self._scratch[:PEEK_BYTES] if is_large else self._scratch
        yield Frame(message, request_id, payload)


def _message(meta: memoryview) -> AnyMessage:
    try:
        message: AnyMessage = _decode(meta)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"a frame holds no message of this version: {error}", where="wire") from error
    return message
