"""What requests to an object store cost, and how long to wait so that a log costs no more than it may.

Prices are dollars, by default the list prices of Amazon S3 (standard class, us-east-1, without tax). A
writer's budget is a sum for each month, spent evenly: one block in so many milliseconds. What an idle log
leaves of it is saved for up to an hour, so a burst after a pause goes out at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Options

MONTH_S = 30 * 86_400
SAVED_MS = 3_600_000.0  # of budget that was not used; more of it is lost
LONGEST_WAIT_MS = (
    60_000  # of an entry, whatever the budget; also the most that ``linger_ms`` may be
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPrices:
    """Dollars for a million requests. Deletions are free in every large store."""

    puts: float = 5.0
    gets: float = 0.4
    lists: float = 5.0


def budget(options: Options) -> int | None:
    """Dollars a month for the PUTs of blocks; None: no limit, or blocks of this log are no objects."""
    return options.max_cost_per_month if options.mode is Kind.OBJECT else None


def block_every_ms(max_cost_per_month: float) -> float:
    """How long a month's budget in dollars, at the default price of a PUT, makes one block last."""
    return MONTH_S * 1000 * RequestPrices().puts / 1e6 / max_cost_per_month


def paid_until(before_ms: float, now_ms: float, max_cost_per_month: float) -> float:
    """Until when the budget is spent, one more block sent now; ``before_ms`` is what this said last."""
    return max(before_ms, now_ms - SAVED_MS) + block_every_ms(max_cost_per_month)


def due_ms(options: Options, first_ms: float, paid_until_ms: float) -> float:
    """When a block that is not full is to be cut at the latest, its first entry being of ``first_ms``.

    Without a budget ``linger_ms`` is what it waits. With one it waits only for as long as the budget is
    spent, and never longer than ``linger_ms`` (or, where that is 0, than ``LONGEST_WAIT_MS``): an entry is
    never later than was asked for, even if that costs more.
    """
    if budget(options) is None:
        return first_ms + options.linger_ms
    latest_ms = first_ms + (options.linger_ms or LONGEST_WAIT_MS)
    return min(latest_ms, max(first_ms, paid_until_ms))
