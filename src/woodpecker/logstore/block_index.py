"""Where the blocks of one copy lie: 32 bytes a block, in one array."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator

from woodpecker.codec.header import BlockHeader
from woodpecker.codec.journal import ALIGN_BYTES

Place = tuple[int, int]
"""Number of a journal file, and offset of a record's header in it."""

_WORDS = 4  # place, size and flags, base seq, time
_OFFSET_BITS = 32  # of offsets in units of ALIGN_BYTES: files up to 32 GiB
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
_FACTS = 1
_SIZE_SHIFT = 8


class BlockIndex:
    """Blocks 0, 1, 2 ... of one copy."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words = array("Q")

    def __len__(self) -> int:
        return len(self._words) // _WORDS

    def append(self, header: BlockHeader, place: Place) -> None:
        """The next block. Times never go back, whatever blocks without entries say."""
        words = self._words
        time = header.base_timestamp_us
        if words and words[-1] > time:
            time = words[-1]
        flags = _FACTS if header.has_facts else 0
        words.extend(
            (_word(place), header.size_bytes << _SIZE_SHIFT | flags, header.base_seq, time)
        )

    def move(self, number: int, place: Place) -> None:
        """The block lies elsewhere now."""
        self._words[number * _WORDS] = _word(place)

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` blocks."""
        del self._words[count * _WORDS :]

    def place(self, number: int) -> Place:
        """Where the record of a block lies."""
        word = self._words[number * _WORDS]
        return word >> _OFFSET_BITS, (word & _OFFSET_MASK) * ALIGN_BYTES

    def file(self, number: int) -> int:
        """Number of the journal file a block lies in."""
        return self._words[number * _WORDS] >> _OFFSET_BITS

    def size(self, number: int) -> int:
        """Bytes of a block."""
        return self._words[number * _WORDS + 1] >> _SIZE_SHIFT

    def base_seq(self, number: int) -> int:
        """Seq of the first entry of a block, or of the next one if it has none."""
        return self._words[number * _WORDS + 2]

    def facts(self, first: int, last: int) -> Iterator[int]:
        """Numbers of the blocks from ``first`` to ``last`` that change the register."""
        words = self._words
        for number in range(first, min(last + 1, len(self))):
            if words[number * _WORDS + 1] & _FACTS:
                yield number

    def at_seq(self, seq: int, end_seq: int) -> int:
        """First block that begins at ``seq`` or ends above it; the next number if there is none.

        ``end_seq``: of the last block.
        """
        count = len(self)
        number = bisect_left(range(count), seq, key=self.base_seq)
        if number < count and self.base_seq(number) == seq:
            return number
        if number == count and seq >= end_seq:
            return count
        return max(0, number - 1)

    def before_time(self, timestamp_us: int, count: int) -> int:
        """How many of the first ``count`` blocks begin before that time."""
        words = self._words
        return bisect_left(range(count), timestamp_us, key=lambda n: words[n * _WORDS + 3])

    def confirmed(self, lac_seq: int, end_seq: int) -> int:
        """The block whose last entry has the seq ``lac_seq`` or a lower one; -1 if none.

        Blocks without entries behind it do not count: they may not be confirmed.
        ``end_seq``: of the last block.
        """
        number = bisect_left(range(len(self)), lac_seq + 1, key=self.base_seq) - 1
        if number < 0:
            return -1
        end = self.base_seq(number + 1) if number + 1 < len(self) else end_seq
        return number if end <= lac_seq + 1 else number - 1


def _word(place: Place) -> int:
    file, offset = place
    return file << _OFFSET_BITS | offset // ALIGN_BYTES
