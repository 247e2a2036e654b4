"""Entries that can be told apart: each carries a name of its own and can be checked byte by byte."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from woodpecker.client.entry import Entry
from woodpecker.codec.columns import Headers
from woodpecker.testing.history import Item

BIG_BYTES = 5 << 20
_FILLER = random.Random(0).randbytes(BIG_BYTES + 4096)
_SIZES = ((0.02, 0), (0.70, 200), (0.90, 4_000), (0.997, 60_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An entry to append, and how a history names it."""

    payload: bytes
    headers: Headers
    item: Item

    @property
    def entry(self) -> Entry:
        """As ``append_many`` takes it."""
        return Entry(self.payload, headers=self.headers)


def make(uid: str, rng: random.Random, *, with_headers: bool, big_share: float) -> Made:
    """An entry named ``uid``: most are small, some have no payload at all, ``big_share`` have 5 MiB."""
    size = _size(rng, big_share)
    begin = rng.randrange(4096)
    payload = b"" if size == 0 else uid.encode() + b" " + _FILLER[begin : begin + size]
    headers: Headers = ()
    if with_headers or not payload:
        headers = ((b"uid", uid.encode()), (b"uid", b"again"), (b"", b""))
    return Made(payload=payload, headers=headers, item=Item(uid=uid, sum=_sum(payload, headers)))


def item_of(entry: Entry) -> Item:
    """How a history names an entry that was read; nothing that is read here is trusted."""
    if entry.payload:
        name = entry.payload[:64].partition(b" ")[0]
    else:
        name = entry.headers[0][1] if entry.headers else b"?"
    return Item(uid=name.decode("latin-1"), sum=_sum(entry.payload, entry.headers))


def _size(rng: random.Random, big_share: float) -> int:
    if rng.random() < big_share:
        return BIG_BYTES
    draw = rng.random()
    if draw < _SIZES[0][0]:
        return 0
    for bound, size in _SIZES[1:]:
        if draw < bound:
            return rng.randint(1, size)
    return rng.randint(60_000, 200_000)


def _sum(payload: bytes, headers: Headers) -> int:
    total = zlib.crc32(payload)
    for name, value in headers:
        total = zlib.crc32(b"%d %b %d %b" % (len(name), name, len(value), value), total)
    return total
