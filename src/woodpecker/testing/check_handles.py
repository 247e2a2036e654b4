"""Rules of a history that are not about where entries lie: ends, owners, cursors, refused reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from woodpecker.testing.history import History, Operation
from woodpecker.testing.violation import Violation, broken


def check_handles(
    history: History, first: int, end: int, *, is_complete: bool
) -> Iterator[Violation]:
    """All of them, for a log that begins at ``first`` and ends at ``end`` after the run.

    Args:
        is_complete: every take-over and deletion is in the history.
    """
    if is_complete:
        yield from _check_fenced(history)
    yield from _check_ends(history, end)
    yield from _check_owners(history)
    yield from _check_reads(history, first)
    yield from _check_cursors(history, first)


# --- the end of the log --------------------------------------------------------------------------------


def _check_ends(history: History, end: int) -> Iterator[Violation]:
    """Nothing follows the end, and nobody is told of an end that nobody asked for."""
    ends = history.of("end")
    for op in ends:
        if not op.is_ok:
            continue
        if op.value != end:
            yield broken("order", f"{op}, but the log ends at {end}")
        for late in history.operations:
            is_late = late.is_ok and late.call.at_ns > op.ok_ns
            if is_late and late.call.kind in ("append", "open") and late.call.sequence is None:
                yield broken("order", f"{late} was called after {op} had returned")
    asked_ns = min((op.call.at_ns for op in ends), default=float("inf"))
    for op in history.operations:
        result = op.result
        if result is not None and result.error == "log_ended" and result.at_ns < asked_ns:
            yield broken("order", f"{op}, but nobody had ended the log")


def _check_owners(history: History) -> Iterator[Violation]:
    """Who is told to be the owner was so at some time after the question."""
    opened = [op for op in history.of("open") if op.is_ok]
    for op in history.of("owner"):
        if not op.is_ok or not op.value:
            continue
        for later in opened:
            epoch = 0 if later.result is None else later.result.epoch
            if epoch > op.call.epoch and later.ok_ns < op.call.at_ns:
                yield broken("I4", f"{op} of epoch {op.call.epoch}, but {later} had returned")


def _check_fenced(history: History) -> Iterator[Violation]:
    """Nobody is fenced unless somebody else tried to take the log over."""
    takers = [*history.of("open"), *history.of("delete")]
    opened = {op.result.epoch: op for op in history.of("open") if op.is_ok and op.result}
    for op in history.operations:
        result = op.result
        if result is None or result.error != "fenced":
            continue
        mine = op if op.call.kind == "open" else opened.get(op.call.epoch)
        if mine is None:
            continue
        epoch = op.call.epoch or None
        if not any(_may_fence(taker, mine, result.at_ns, epoch) for taker in takers):
            yield broken("I4", f"{op}, but nobody else had taken the log over")


def _may_fence(taker: Operation, mine: Operation, by_ns: int, epoch: int | None) -> bool:
    """Whether ``taker`` may have raised the epoch after ``mine`` did and before ``by_ns``."""
    if taker is mine or taker.call.at_ns >= by_ns:
        return False
    if taker.result is not None and taker.result.at_ns < mine.call.at_ns:
        return False
    if taker.call.kind == "open" and taker.is_ok and epoch is not None:
        return taker.result is not None and taker.result.epoch > epoch
    return True


# --- what is kept --------------------------------------------------------------------------------------


def _check_reads(history: History, first: int) -> Iterator[Violation]:
    """A read is refused as trimmed only where the log is trimmed."""
    for op in history.of("read"):
        result, start = op.result, op.call.before
        if result is None or result.error != "out_of_range" or result.value is None:
            continue
        if start is not None and start >= result.value:
            yield broken("order", f"{op} began at {start}, and was told that it is trimmed")
        if result.value > first:
            yield broken("order", f"{op}: in the end the log begins at {first}")


def _check_cursors(history: History, first: int) -> Iterator[Violation]:
    """What a cursor holds stays, if every trim respects cursors."""
    trims = history.of("trim")
    if not all(op.call.hold for op in trims):
        return
    by_name: dict[str, list[Operation]] = {}
    for op in history.of("cursor"):
        by_name.setdefault(op.call.name, []).append(op)
    for moves in by_name.values():
        moves.sort(key=lambda op: op.call.at_ns)
        for held, until_ns in _held(moves):
            yield from _check_held(history, trims, first, held, until_ns)


def _held(moves: Sequence[Operation]) -> Iterator[tuple[Operation, float]]:
    """Moves after which the cursor is known to stand where it was told, and until when."""
    for at, op in enumerate(moves):
        if not op.is_ok or op.call.before is None:
            continue
        others = [*moves[:at], *moves[at + 1 :]]
        if any(_may_act(other, op.call.at_ns, op.ok_ns) for other in others):
            continue
        after = [other.call.at_ns for other in others if other.call.at_ns > op.ok_ns]
        yield op, min(after, default=float("inf"))


def _may_act(op: Operation, from_ns: float, to_ns: float) -> bool:
    """Whether it may have moved the cursor in that time, or still may after it."""
    if op.outcome in ("refused", "not_written") and op.result is not None:
        return op.call.at_ns < to_ns and op.result.at_ns > from_ns
    return op.call.at_ns < to_ns and op.ok_ns > from_ns


def _check_held(
    history: History, trims: Sequence[Operation], first: int, held: Operation, until_ns: float
) -> Iterator[Violation]:
    if until_ns == float("inf") and first > held.value:
        yield broken("I9", f"{held} held the log, which begins at {first} in the end")
    for trim in trims:
        is_beside = trim.is_ok and held.ok_ns < trim.call.at_ns and trim.ok_ns < until_ns
        if is_beside and trim.value > held.value:
            yield broken("I9", f"{trim} went above {held}, which held the log")
    for read in history.of("read"):
        result, start = read.result, read.call.before
        if result is None or result.error != "out_of_range" or start is None:
            continue
        if start >= held.value and held.ok_ns < read.call.at_ns and result.at_ns < until_ns:
            yield broken("I9", f"{read} from {start} was refused, although {held} held the log")
