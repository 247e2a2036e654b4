"""Broadcasts: one record of several channels, once on each of them (section 10; pure).

Order of a broadcast, each step decided by effect and safe to repeat: locks -> an id, listed as unfinished in
the counters -> the caller's key -> the record, PENDING: from here on it will finish -> one control batch for
each target -> the results, DONE -> the id is no longer listed -> locks freed.

* An id is listed before anything bears it, so none below the lowest one listed (the **floor**) can still
  begin; logs refuse what is below the floor that they were told of, and repeats above it.
* A coordinator writes its epoch into the counters before it looks for what is unfinished: an older one can
  take no id afterwards. So what the new one finds is all there is, and locks made from it are all there are.
* A listed id without a record gets a tombstone: whoever wanted to begin under it finds that out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from woodpecker.streaming.core.records import (
    BroadcastRecord,
    BroadcastResult,
    BroadcastState,
    Counters,
)

NEVER_BEGUN = "never begun"


class Deposed(Exception):
    """A newer coordinator has written the counters."""


def fenced(counters: Counters, epoch: int) -> Counters:
    """The counters once this coordinator is the only one that takes ids. Raises: Deposed."""
    if counters.epoch > epoch:
        raise Deposed
    return replace(counters, epoch=epoch)


def listed(counters: Counters, epoch: int) -> Counters:
    """The counters with one more id, ``counters.next_broadcast``, unfinished. Raises: Deposed."""
    if counters.epoch != epoch:
        raise Deposed
    number = counters.next_broadcast
    return replace(counters, next_broadcast=number + 1, unfinished=(*counters.unfinished, number))


def ended(counters: Counters, number: int) -> Counters:
    """The counters once a broadcast has ended, whoever says so."""
    left = tuple(other for other in counters.unfinished if other != number)
    return replace(counters, unfinished=left)


def floor(counters: Counters) -> int:
    """The lowest id that may still be appended."""
    return min(counters.unfinished, default=counters.next_broadcast)


def tombstone(number: int) -> BroadcastRecord:
    """In the place of a record that was never written."""
    return BroadcastRecord(
        id=number,
        key="",
        targets=(),
        payload=b"",
        state=BroadcastState.DONE,
        reason=NEVER_BEGUN,
    )


def is_tombstone(record: BroadcastRecord) -> bool:
    """Whether nothing was ever appended under its id, nor will be."""
    return record.reason == NEVER_BEGUN


def missing(record: BroadcastRecord) -> Sequence[tuple[str, int]]:
    """Targets (channel, vcid) without a result."""
    known = {result.channel for result in record.results}
    return [target for target in record.targets if target[0] not in known]


def settled(
    before: BroadcastRecord, results: Iterable[BroadcastResult], faults: Mapping[str, str]
) -> BroadcastRecord:
    """The record after all targets were tried: DONE, or PARKED with what does not heal by itself.

    ``faults``: why, by channel. A record that is DONE stays as it is.
    """
    if before.state is BroadcastState.DONE:
        return before
    known = {result.channel: result for result in before.results}
    known |= {result.channel: result for result in results}
    ordered = tuple(known[name] for name, _ in before.targets if name in known)
    if faults:
        reason = "; ".join(f"{name}: {why}" for name, why in sorted(faults.items()))
        return replace(before, results=ordered, state=BroadcastState.PARKED, reason=reason)
    return replace(
        before, results=ordered, state=BroadcastState.DONE, reason="", payload=b"", resources=()
    )


def resumed(before: BroadcastRecord, *, skip: bool) -> BroadcastRecord:
    """A parked record once a person has decided: tried again, or done without what is missing."""
    if before.state is not BroadcastState.PARKED:
        return before
    if not skip:
        return replace(before, state=BroadcastState.PENDING, reason="")
    why = f"skipped by a person: {before.reason}"
    skipped = [BroadcastResult(channel=name, skipped=why) for name, _ in missing(before)]
    return settled(before, skipped, {})


class Locks:
    """Who may go on with which resources. A broadcast waits until it is first in the line of each of its own.

    It joins all its lines in one step, so nobody ever waits in a circle, and those that share a resource go in
    one order.
    """

    def __init__(self) -> None:
        self._lines: dict[str, list[int]] = {}
        self._wanted: dict[int, tuple[str, ...]] = {}

    def join(self, ticket: int, resources: Iterable[str]) -> None:
        """Stand in line for these."""
        assert ticket not in self._wanted
        self._wanted[ticket] = tuple(sorted(set(resources)))
        for name in self._wanted[ticket]:
            self._lines.setdefault(name, []).append(ticket)

    def may_go(self, ticket: int) -> bool:
        """Whether it is first everywhere."""
        return all(self._lines[name][0] == ticket for name in self._wanted[ticket])

    def leave(self, ticket: int) -> None:
        """Give all places up."""
        for name in self._wanted.pop(ticket, ()):
            line = self._lines[name]
            line.remove(ticket)
            if not line:
                del self._lines[name]

    def __len__(self) -> int:
        return len(self._wanted)
