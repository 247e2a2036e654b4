"""Messages as users give and get them, and how they stand in columns on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from reprlib import repr as brief
from typing import NamedTuple

from woodpecker.errors import InvalidRequest
from woodpecker.streaming.core.values import Position, Properties, Where
from woodpecker.streaming.frames import Data, Messages
from woodpecker.streaming.settings import StreamSettings

Payload = bytes | bytearray | memoryview
Text = bytes | str
PropertyInput = Mapping[str, Text] | Mapping[bytes, Text] | Iterable[tuple[Text, Text]]

MESSAGE_OVERHEAD_BYTES = 64  # what a queued message costs besides its bytes, about


class Tick(int):
    """A place in time to start or end at: microseconds since 1970, as the ticks of messages are."""

    __slots__ = ()


class TickSignal(NamedTuple):
    """Nothing at or below ``tick`` will come any more; given by ``consume(ticks=True)``."""

    tick: int


class Message:
    """One message of a channel.

    Make one to send it: ``Message(b"paid", key=b"7", type="event", properties={"k": b"v"})``. One that was
    received has a position.

    Attributes:
        payload: 0 to 64 MiB.
        key: up to 4 KiB, or None.
        type: a word of yours, or None.
        is_ephemeral: received from somebody who sent it for those who listen only; it is not kept.
    """

    __slots__ = (
        "_index", "_low", "_properties", "_seq", "_term",
        "is_ephemeral", "key", "payload", "tick", "type",
    )  # fmt: skip

    def __init__(
        self,
        payload: Payload,
        *,
        key: Text | None = None,
        properties: PropertyInput | None = None,
        type: str | None = None,
    ) -> None:
        """Make a message to send.

        Args:
            payload: any bytes-like; what is not bytes is copied.
            key: str is UTF-8. Empty is none.
            properties: a mapping, or pairs of unique names; str is UTF-8. No name may begin with a zero byte.
            type: text. Empty is none.
        Raises:
            InvalidRequest: a value of another kind.
        """
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise InvalidRequest(f"a payload must be bytes-like, not {payload.__class__.__name__}")
        self.payload = payload if isinstance(payload, bytes) else bytes(payload)
        self.key = None if not key else as_bytes(key, "a key")
        self.type = as_type(type)
        self._properties = as_properties(properties)
        self.is_ephemeral = False
        self.tick = -1
        self._seq = self._index = self._low = self._term = -1

    @property
    def properties(self) -> dict[bytes, bytes]:
        """Properties by name."""
        return dict(self._properties)

    @property
    def pairs(self) -> Properties:
        """Properties as pairs, in their order."""
        return self._properties

    @property
    def position(self) -> Position:
        """Where it was delivered; InvalidRequest is raised for one that was not received, or is not kept."""
        if self._seq < 0:
            raise InvalidRequest(f"{self!r} has no position: it was not received, or is ephemeral")
        return Position(self._seq, self._index, self.tick, self._low, self._term)

    @property
    def size_bytes(self) -> int:
        """What it takes of a batch and of queues."""
        size_bytes = MESSAGE_OVERHEAD_BYTES + len(self.payload)
        if self.key is not None:
            size_bytes += len(self.key)
        return size_bytes + self._pairs_bytes if self._properties else size_bytes

    @property
    def _pairs_bytes(self) -> int:
        return sum(len(name) + len(value) for name, value in self._properties)

    def check(self, settings: StreamSettings) -> None:
        """Raises: InvalidRequest: larger than messages may be."""
        for what, size, limit in (
            ("payload", len(self.payload), settings.message_max_bytes),
            ("key", len(self.key or b""), settings.key_max_bytes),
            ("properties", self._pairs_bytes, settings.properties_max_bytes),
        ):
            if size > limit:
                raise InvalidRequest(f"{self!r}: {what} of {size} bytes; at most {limit} are taken")

    def piece(self, first: int, end: int) -> Message:
        """Bytes ``first`` up to ``end`` of the payload; the first piece carries all else."""
        part = self.payload[first:end]
        if first:
            return Message(part)
        return Message(part, key=self.key, properties=self._properties, type=self.type)

    def __repr__(self) -> str:
        place = f", at {self._seq}.{self._index}" if self._seq >= 0 else ""
        return f"Message({len(self.payload)} bytes, key={brief(self.key)}, type={brief(self.type)}{place})"


def as_message(item: Payload | Message) -> Message:
    """A payload as a message. Raises: InvalidRequest."""
    return item if isinstance(item, Message) else Message(item)


def as_bytes(text: object, what: str) -> bytes:
    """Text as bytes. Raises: InvalidRequest: neither bytes nor str; ``what`` is named."""
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"{what} is no text: {error}") from None
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    raise InvalidRequest(f"{what} must be bytes or str, not {text!r}")


def as_type(type_: object) -> str | None:
    """A type of messages; empty is none. Raises: InvalidRequest: it is no text."""
    if type_ is None:
        return None
    if not isinstance(type_, str):
        raise InvalidRequest(f"the type of a message must be text, not {brief(type_)}")
    if not type_.isascii():
        as_bytes(type_, "a type")
    return type_ or None


def as_where(where: Where) -> Where:
    """A filter with texts and mappings as they stand in messages. Raises: InvalidRequest."""
    if not isinstance(where, Where):
        raise InvalidRequest(f"where={brief(where)}: a Where(type=, key=, properties=)")
    return Where(
        type=where.type if where.type == "" else as_type(where.type),
        key=None if where.key is None else as_bytes(where.key, "a key"),
        properties=as_properties(where.properties),
    )


def as_properties(properties: PropertyInput | None) -> Properties:
    """Properties as pairs of bytes. Raises: InvalidRequest: no pairs, a name twice, a reserved name."""
    if not properties:
        return ()
    try:
        items = properties.items() if isinstance(properties, Mapping) else properties
        pairs = tuple((as_bytes(k, "a name"), as_bytes(v, "a property")) for k, v in items)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"properties must be a mapping or pairs: {error}") from None
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise InvalidRequest("a property is there twice: give each name once")
    if any(name.startswith(b"\0") for name in names):
        raise InvalidRequest("names of properties that begin with a zero byte are reserved")
    return pairs


def to_columns(messages: Sequence[Message]) -> Messages:
    """Messages as they are sent."""
    return Messages(
        payloads=[m.payload for m in messages],
        keys=[m.key or b"" for m in messages] if any(m.key for m in messages) else (),
        properties=[m.pairs for m in messages] if any(m.pairs for m in messages) else (),
        types=[m.type or "" for m in messages] if any(m.type for m in messages) else (),
    )


def from_data(data: Data) -> Iterator[Message]:
    """The messages of a frame."""
    columns = data.messages
    for number, payload in enumerate(columns.payloads):
        message = Message.__new__(Message)  # what a node sent needs no second look
        message.payload = payload
        message.key = (columns.keys[number] or None) if columns.keys else None
        message.type = (columns.types[number] or None) if columns.types else None
        message._properties = columns.properties[number] if columns.properties else ()  # noqa: SLF001
        message.is_ephemeral = data.ephemeral
        message.tick = data.ticks[number]
        message._seq = -1 if data.ephemeral else data.seqs[number]  # noqa: SLF001
        message._index = data.indexes[number] if data.indexes else 0  # noqa: SLF001
        message._low, message._term = data.low, data.term  # noqa: SLF001
        yield message
