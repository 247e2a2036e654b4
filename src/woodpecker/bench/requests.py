"""What a run asks of an object store, and what that costs: buckets are billed by the request."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import replace

from woodpecker.bench.report import Row
from woodpecker.core.costs import MONTH_S, RequestPrices
from woodpecker.observability.base import Silent
from woodpecker.observability.names import Counter
from woodpecker.storage.cloud_stream import PART_BYTES

GIB = 1 << 30
_PUTS = ("create", "replace", "write_stream")
_GETS = ("get", "head")
_PER = ("gib", "log_month")


class Requests(Silent):
    """An observer that counts requests to object stores."""

    def __init__(self) -> None:
        self._by_op: Tally[str] = Tally()
        self._last_op = ""

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Only requests to stores are of interest."""
        if name is Counter.STORE_REQUESTS:
            self._last_op = labels["op"]
            self._by_op[self._last_op] += n
        elif (
            self._last_op == "write_stream" and name is Counter.STORE_SENT_BYTES and n > PART_BYTES
        ):
            # told right behind its request: begun (counted above), sent in parts, completed
            self._by_op["write_stream"] += -(-n // PART_BYTES) + 1

    def clear(self) -> None:
        """Count from zero."""
        self._by_op.clear()

    def per_gib(self, volume_bytes: int) -> dict[str, float]:
        """Requests for each GiB of payload."""
        return self._per("gib", volume_bytes / GIB)

    def per_log_month(self, logs: int, seconds: float) -> dict[str, float]:
        """What one log would ask for in a month, if it goes on as in these ``seconds``."""
        return self._per("log_month", logs * seconds / MONTH_S)

    def _per(self, what: str, amount: float) -> dict[str, float]:
        if not amount:
            return {}
        return {
            f"puts_per_{what}": sum(self._by_op[op] for op in _PUTS) / amount,
            f"gets_per_{what}": sum(self._by_op[op] for op in _GETS) / amount,
            f"lists_per_{what}": self._by_op["list"] / amount,
        }


def priced(rows: Sequence[Row], prices: RequestPrices) -> list[Row]:
    """The rows; those that count requests say what these cost, too."""
    return [replace(row, figures={**row.figures, **_dollars(row.figures, prices)}) for row in rows]


def _dollars(figures: Mapping[str, float], prices: RequestPrices) -> dict[str, float]:
    return {
        f"usd_per_{what}": (
            figures[f"puts_per_{what}"] * prices.puts
            + figures[f"gets_per_{what}"] * prices.gets
            + figures[f"lists_per_{what}"] * prices.lists
        )
        / 1e6
        for what in _PER
        if f"puts_per_{what}" in figures
    }
