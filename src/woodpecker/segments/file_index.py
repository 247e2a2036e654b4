"""Where in a data file its blocks are: a sparse, growing list of places, kept per segment.

Writers and readers of this process note places as they pass them; a search then walks at most a
stride of headers. Only places behind verified or own blocks are noted.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict

from woodpecker.core.file_rules import Position

STRIDE_BYTES = 256 << 10
_KEPT_SEGMENTS = 128  # a full one is some 200 KiB


class Index:
    """Places of one segment, in file order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: list[Position] = []
        self._seqs: list[int] = []
        self._times: list[int] = []

    def note(self, place: Position, timestamp_us: int) -> None:
        """A block starts at ``place``, with this base timestamp. Cheap; most calls do nothing."""
        if self._places and place.offset < self._places[-1].offset + STRIDE_BYTES:
            return
        with self._lock:
            if self._places and place.offset <= self._places[-1].offset:
                return
            self._places.append(place)
            self._seqs.append(place.seq)
            self._times.append(timestamp_us)

    def before_seq(self, seq: int) -> Position | None:
        """The last place before every block that begins at ``seq``."""
        return self._at(bisect_left(self._seqs, seq))

    def before_time(self, timestamp_us: int) -> Position | None:
        """The last place whose block begins before ``timestamp_us``."""
        return self._at(bisect_left(self._times, timestamp_us))

    def before_block(self, number: int) -> Position | None:
        """The last place not behind block ``number``."""
        return self._at(bisect_left(self._places, number + 1, key=lambda place: place.block))

    def _at(self, after: int) -> Position | None:
        return self._places[after - 1] if after else None


class Indexes:
    """Indexes of the segments used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, str], Index] = OrderedDict()

    def of(self, log_id: str, segment_id: int, token: str) -> Index:
        key = (log_id, segment_id, token)
        with self._lock:
            index = self._kept.setdefault(key, Index())
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT_SEGMENTS:
                self._kept.popitem(last=False)
        return index

    def forget(self, log_id: str, segment_id: int, token: str) -> None:
        with self._lock:
            self._kept.pop((log_id, segment_id, token), None)
