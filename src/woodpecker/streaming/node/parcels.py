"""From what an assembly delivers to Data frames: filtered, cut at the end bound, as far as credit goes.

Plain batches without filter are passed on as they are; only where something must be chosen is each message
looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from woodpecker.streaming.core.assembly import Delivery, join
from woodpecker.streaming.core.filters import matches
from woodpecker.streaming.core.values import ANYTHING, EndForm, Properties, Stop, Where
from woodpecker.streaming.frames import Data, Messages
from woodpecker.streaming.node.pieces import ENTRY_OVERHEAD_BYTES, Piece, size_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Messages on their way to one consumer, in columns."""

    seqs: Sequence[int]
    indexes: Sequence[int]  # empty: all 0
    ticks: Sequence[int]
    messages: Messages
    cost_bytes: int
    low: int
    term: int
    ephemeral: bool = False

    def frame(self, consumer: int) -> Data:
        """As a frame."""
        return Data(
            consumer=consumer,
            seqs=self.seqs,
            ticks=self.ticks,
            messages=self.messages,
            indexes=self.indexes,
            low=self.low,
            term=self.term,
            ephemeral=self.ephemeral,
            cost_bytes=self.cost_bytes,
        )

    def split(self, credit_bytes: int) -> tuple[Parcel | None, Parcel | None]:
        """What fits in ``credit_bytes``, and the rest."""
        if self.cost_bytes <= credit_bytes:
            return self, None
        fitting, cost = 0, 0
        while fitting < len(self.seqs):
            more = size_of(_cut(self.messages, fitting, fitting + 1)) + ENTRY_OVERHEAD_BYTES
            if cost + more > credit_bytes:
                break
            fitting, cost = fitting + 1, cost + more
        return self.divide(fitting, cost)

    def first(self) -> tuple[Parcel, Parcel | None]:
        """Its first message, whatever it costs, and the rest."""
        cost = size_of(_cut(self.messages, 0, 1)) + ENTRY_OVERHEAD_BYTES
        head, rest = self.divide(1, cost)
        assert head is not None
        return head, rest

    def divide(self, count: int, cost_bytes: int) -> tuple[Parcel | None, Parcel | None]:
        """The first ``count`` messages, which cost ``cost_bytes``, and the rest."""
        if count == 0:
            return None, self
        if count == len(self.seqs):
            return self, None
        parts = [
            replace(
                self,
                seqs=self.seqs[a:b],
                indexes=self.indexes[a:b],
                ticks=self.ticks[a:b],
                messages=_cut(self.messages, a, b),
                cost_bytes=cost,
            )
            for a, b, cost in (
                (0, count, cost_bytes),
                (count, len(self.seqs), self.cost_bytes - cost_bytes),
            )
        ]
        return parts[0], parts[1]


def parcel_of(delivery: Delivery[Piece], where: Where, stop: Stop) -> Parcel | None:
    """What of a delivery goes out; all of its pieces have content. None: nothing. Raises: Corrupt."""
    whole = _whole(delivery)
    count = len(whole.seqs)
    begin, end = min(delivery.skip, count), _end(whole, stop)
    if begin >= end:
        return None
    if where == ANYTHING and begin == 0 and end == count:
        return whole
    messages = whole.messages
    chosen = [index for index in range(begin, end) if _passes(where, messages, index)]
    if len(chosen) == count:
        return whole
    if not chosen:
        return None
    picked = _pick(messages, chosen)
    return replace(
        whole,
        seqs=[whole.seqs[index] for index in chosen],
        indexes=[whole.indexes[index] for index in chosen] if whole.indexes else (),
        ticks=[whole.ticks[index] for index in chosen],
        messages=picked,
        cost_bytes=cost_of(picked),
    )


def cost_of(messages: Messages) -> int:
    """What messages take of a consumer's credit."""
    return size_of(messages) + ENTRY_OVERHEAD_BYTES * len(messages)


def _whole(delivery: Delivery[Piece]) -> Parcel:
    contents = [piece.content for piece in delivery.pieces if piece.content is not None]
    if len(contents) == 1 and not delivery.is_joined:
        messages, cost_bytes = contents[0].messages, contents[0].size_bytes
    else:
        messages = _joined_columns([content.messages for content in contents])
        if delivery.is_joined:
            messages = replace(_cut(messages, 0, 1), payloads=[join(messages.payloads)])
        cost_bytes = cost_of(messages)
    count, is_txn = len(messages), delivery.is_txn
    seq, tick = delivery.seq, delivery.tick
    return Parcel(
        seqs=[seq] * count if is_txn else range(seq, seq + count),
        indexes=range(count) if is_txn and count > 1 else (),
        ticks=[tick] * count if is_txn else range(tick, tick + count),
        messages=messages,
        cost_bytes=cost_bytes,
        low=delivery.low,
        term=delivery.term,
    )


def _end(parcel: Parcel, stop: Stop) -> int:
    """How many of the messages lie before the end bound."""
    count = len(parcel.seqs)
    match stop.form:
        case EndForm.POSITION if parcel.seqs[-1] >= stop.value:
            indexes = parcel.indexes or [0] * count
            places = zip(parcel.seqs, indexes, strict=True)
            return sum(place < (stop.value, stop.index) for place in places)
        case EndForm.TICK if parcel.ticks[-1] >= stop.value:
            return sum(tick < stop.value for tick in parcel.ticks)
    return count


def _passes(where: Where, messages: Messages, index: int) -> bool:
    return matches(
        where,
        type_=messages.types[index] if messages.types else "",
        key=messages.keys[index] if messages.keys else b"",
        properties=messages.properties[index] if messages.properties else (),
    )


def _cut(messages: Messages, begin: int, end: int) -> Messages:
    return Messages(
        payloads=messages.payloads[begin:end],
        keys=messages.keys[begin:end],
        properties=messages.properties[begin:end],
        types=messages.types[begin:end],
    )


def _pick(messages: Messages, chosen: Sequence[int]) -> Messages:
    return Messages(
        payloads=[messages.payloads[index] for index in chosen],
        keys=[messages.keys[index] for index in chosen] if messages.keys else (),
        properties=[messages.properties[index] for index in chosen] if messages.properties else (),
        types=[messages.types[index] for index in chosen] if messages.types else (),
    )


def _joined_columns(parts: Sequence[Messages]) -> Messages:
    keys: list[bytes] = []
    properties: list[Properties] = []
    types: list[str] = []
    for part in parts:
        count = len(part)
        keys.extend(part.keys or [b""] * count)
        properties.extend(part.properties or [()] * count)
        types.extend(part.types or [""] * count)
    return Messages(
        payloads=[payload for part in parts for payload in part.payloads],
        keys=keys if any(keys) else (),
        properties=properties if any(properties) else (),
        types=types if any(types) else (),
    )
