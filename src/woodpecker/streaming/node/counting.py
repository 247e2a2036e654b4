"""What one life of an owner shows to the observer: counted in plain numbers, told once a second."""

from __future__ import annotations

from collections import Counter as Tally

from woodpecker.observability.base import SILENT, Observer
from woodpecker.observability.names import Counter, Gauge, Histogram
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.rates import Mode, RateState
from woodpecker.streaming.core.refusals import Refusal
from woodpecker.streaming.core.ticks import Ticks

_MODES = {Mode.NORMAL: 0, Mode.SLOWDOWN: 1, Mode.REJECT: 2}


class Counts:
    """Counters of one life. The hot path adds to numbers; ``tell`` hands over what was added."""

    def __init__(self, observer: Observer, pchannel: str) -> None:
        self.is_silent = observer is SILENT
        self._observer = observer
        self._pchannel = pchannel
        self._batches = self._bytes = self._repeats = self._delivered = 0
        self._others: Tally[tuple[Counter, tuple[tuple[str, str], ...]]] = Tally()

    def ack(self, size_bytes: int, took_ms: float) -> None:
        """A batch was acknowledged to its producer."""
        self._batches += 1
        self._bytes += size_bytes
        if not self.is_silent:
            self._observer.observe(Histogram.STREAM_ACK, took_ms)

    def repeat(self) -> None:
        """A batch was here before."""
        self._repeats += 1

    def delivered(self, messages: int) -> None:
        """So many messages were sent to a consumer."""
        self._delivered += messages

    def refused(self, refusal: Refusal) -> None:
        """A batch was refused."""
        self.add(Counter.STREAM_PRODUCE_REFUSED, kind=refusal.kind)

    def add(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Anything that is rare."""
        self._others[name, tuple(labels.items())] += n

    def tell(self) -> None:
        """Hand over what was counted since the last time."""
        count = self._observer.count
        for name, n in (
            (Counter.STREAM_PRODUCE_BATCHES, self._batches),
            (Counter.STREAM_PRODUCE_BYTES, self._bytes),
            (Counter.STREAM_PRODUCE_REPEATS, self._repeats),
            (Counter.STREAM_DELIVERED, self._delivered),
        ):
            if n:
                count(name, n)
        for (name, labels), n in self._others.items():
            count(name, n, **dict(labels))
        self._batches = self._bytes = self._repeats = self._delivered = 0
        self._others.clear()

    def show(
        self, fold: Fold, ticks: Ticks, rate: RateState, *, now_us: int, unsaved_bytes: int,
        cursor_lag: int, tail: int, catchup: int,
    ) -> None:  # fmt: skip
        """The gauges of this pchannel."""
        for name, value in (
            (Gauge.STREAM_RATE_STATE, _MODES[rate.mode]),
            (Gauge.STREAM_TXN_OPEN, len(fold.open)),
            (Gauge.STREAM_TXN_IGNORED, fold.ignored),
            (Gauge.STREAM_LOW_LAG, fold.next_seq - fold.low),
            (Gauge.STREAM_TICK_AHEAD, max(0, ticks.last - now_us) / 1000),
            (Gauge.STREAM_UNCHECKPOINTED, unsaved_bytes),
            (Gauge.STREAM_CURSOR_LAG, cursor_lag),
        ):
            self._observer.gauge(name, value, pchannel=self._pchannel)
        for mode, readers in (("tail", tail), ("catchup", catchup)):
            self._observer.gauge(Gauge.STREAM_READERS, readers, pchannel=self._pchannel, mode=mode)

    def hide(self) -> None:
        """This life has ended: tell what is left; its gauges are zero."""
        self.tell()
        empty = Fold()
        self.show(
            empty, Ticks(last=0, limit=0, acked=0), RateState(), now_us=0, unsaved_bytes=0,
            cursor_lag=0, tail=0, catchup=0,
        )  # fmt: skip
