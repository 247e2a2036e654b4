"""One log batch as consumers take it: facts and messages, out of the tail or out of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from woodpecker import Batch
from woodpecker.streaming.codec.column import decode_column, split_headers
from woodpecker.streaming.core.facts import Broadcast, Data, Facts
from woodpecker.streaming.core.values import Properties
from woodpecker.streaming.frames import Messages

ENTRY_OVERHEAD_BYTES = 64  # what an entry costs besides its bytes, about
PAIR_OVERHEAD_BYTES = 16  # and a property


class Piece:
    """A batch; of one that was read, messages are taken apart when first asked for, once for all readers.

    Attributes:
        facts: what it says of itself.
        size_bytes: what it costs to hold, and takes of a consumer's credit.
    """

    __slots__ = ("_batch", "_messages", "facts", "size_bytes")

    def __init__(
        self, facts: Facts, size_bytes: int, messages: Messages | None, batch: Batch | None = None
    ) -> None:
        self.facts = facts
        self.size_bytes = size_bytes
        self._messages = messages
        self._batch = batch

    @property
    def messages(self) -> Messages:
        """Its messages, one per entry. Raises: Corrupt."""
        if self._messages is None:
            assert self._batch is not None
            self._messages = _messages_of(self._batch, self.facts)
            self._batch = None
        return self._messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Ephemeral:
    """Messages that are never written: shown to those who are there."""

    vcid: int
    tick: int
    seq: int  # of the next entry when they came: they stand before it
    messages: Messages
    size_bytes: int


def pieces_of(batch: Batch, name: str) -> Iterator[Piece]:
    """The log batches that reach into ``batch``; the first one may have begun before it.

    Raises: Corrupt; InvalidRequest: written by a newer version, and not to be passed over.
    """
    ticks = batch.timestamps_us
    for column in batch.columns:
        at = max(column.first_seq - batch.first_seq, 0)
        missed = batch.first_seq + at - column.first_seq
        facts = Facts(
            seq=column.first_seq,
            count=column.count,
            tick=ticks[at] - missed,
            column=decode_column(column.data, where=f"log {name!r} seq {column.first_seq}"),
        )
        yield Piece(facts, size_of_facts(facts), None, batch)


def size_of_facts(facts: Facts) -> int:
    """About what a batch takes, without a look at its payloads."""
    body = facts.column.body
    return facts.count * ENTRY_OVERHEAD_BYTES + (body.size_bytes if isinstance(body, Data) else 0)


def size_of(messages: Messages) -> int:
    """Bytes of payloads, keys and properties, and what properties cost besides."""
    size = sum(map(len, messages.payloads))
    if messages.keys:
        size += sum(map(len, messages.keys))
    for pairs in messages.properties:
        size += sum(len(name) + len(value) + PAIR_OVERHEAD_BYTES for name, value in pairs)
    return size


def _messages_of(batch: Batch, facts: Facts) -> Messages:
    at = facts.seq - batch.first_seq
    payloads = batch.payloads[at : at + facts.count]
    type_ = type_of(facts)
    types: Sequence[str] = [type_] * facts.count if type_ else ()
    if not batch.has_headers:
        return Messages(payloads=payloads, types=types)
    split = [split_headers(pairs) for pairs in batch.headers[at : at + facts.count]]
    keys = [key for _, key, _ in split]
    properties: list[Properties] = [pairs for pairs, _, _ in split]
    if any(own is not None for _, _, own in split):
        types = [type_ if own is None else own for _, _, own in split]
    return Messages(
        payloads=payloads,
        keys=keys if any(keys) else (),
        properties=properties if any(properties) else (),
        types=types,
    )


def type_of(facts: Facts) -> str:
    """The type of all messages of the batch that do not name their own."""
    body = facts.column.body
    return body.type if isinstance(body, Data | Broadcast) else ""
