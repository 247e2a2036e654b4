"""Judges of a history: which invariants of the log protocol (section 10) does it break?

Pure functions, no I/O. The final content of the log gives every entry that was written its seq, so
linearizability of append, conditional append and trim needs no search: a history is linearizable if
and only if taking the entries in the order of their seqs agrees with all answers and with real time
(an operation that returned before another was called comes before it). Everything here is one sort or
one pass. Rules that are checked, by the name a ``Violation`` carries:

======  ================================================================================================
I1      acknowledged: in the log once, at its seq, with its bytes; a batch as a whole; nothing else is
I2      seqs dense; a reader misses none
I3      views agree with each other
I4      at most one epoch acknowledges a seq; epochs do not mix; nothing after a take-over
I5      what a reader was shown is in the final log
I7      a process that ended by itself has no call without an answer
I8      its writers hold nothing then
I10     no refused and no NotWritten entry is in the log
order   real time, ``expect_seq``, trims and tails agree with the seqs
======  ================================================================================================

I6 (chain) and I9 (orphans) are for ``verify`` and for a look at the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from woodpecker.testing.check_handles import check_handles
from woodpecker.testing.check_repeats import merged
from woodpecker.testing.history import History, Item, Operation, View
from woodpecker.testing.violation import SHOWN, Violation, broken, shortened

__all__ = ["Final", "Violation", "check", "check_after"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The log after the run, read from its first kept entry ``first`` to its tail."""

    first: int
    items: tuple[Item, ...]

    @property
    def end(self) -> int:
        """The log's final next seq."""
        return self.first + len(self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """An operation that is in the log."""

    operation: Operation
    first: int  # its lowest seq
    seqs: tuple[int | None, ...]  # of each of its items


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """The log as all witnesses together know it."""

    content: dict[int, Item]
    seq_of: dict[str, int]
    end: int
    appends: list[Operation]
    written: list[_Written]  # by seq
    newest_ns: list[int]  # by seq: the latest call among all entries up to it


def check(
    history: History,
    final: Final,
    *,
    is_whole: bool = True,
    has_retention: bool = False,
    is_complete: bool = False,
) -> list[Violation]:
    """All violations, at most ``SHOWN`` of one rule; empty: the history is right.

    Args:
        is_whole: every entry, trimmed ones too, was seen by some reader or is in ``final``.
        has_retention: the log's options trim it as well.
        is_complete: the history has every take-over and deletion of the log.
    """
    found: list[Violation] = []
    content = _content(history, final, found)
    if is_whole:
        missing = [seq for seq in range(final.end) if seq not in content]
        found += [broken("I2", f"seq {seq} was shown to nobody") for seq in missing[:SHOWN]]
    log = _index(history, content, final.end, found)
    for part in (
        _check_answers(log, final, is_whole=is_whole),
        _check_batches(log, hidden_below=0 if is_whole else final.first),
        _check_real_time(log),
        _check_epochs(log, history.of("open")),
        _check_views(log, history.views),
        _check_tails(log, history),
        _check_trims(log, history, final, has_retention=has_retention),
        check_handles(history, final.first, final.end, is_complete=is_complete),
        _check_resolved(log, history, hidden_below=0 if is_whole else final.first),
        _check_ends(history),
    ):
        found += part
    return shortened(found)


def check_after(history: History, after_ns: int, why: str) -> list[Violation]:
    """No append that was called after ``after_ns`` may have been acknowledged."""
    return shortened(
        broken("I4", f"{operation} was called after {why}, and acknowledged")
        for operation in merged(history.of("append"), {}, {})[0]
        if operation.is_ok and operation.call.at_ns > after_ns
    )


# --- what the log is -----------------------------------------------------------------------------------


def _content(history: History, final: Final, found: list[Violation]) -> dict[int, Item]:
    """Seq to entry, by the final read and, where that was trimmed, by what readers saw."""
    content = dict(enumerate(final.items, final.first))
    for view in history.views:
        for seen in view.seen:
            for seq, item in enumerate(seen.items, seen.first):
                known = content.get(seq)
                who = f"reader {view.process}/{view.reader}"
                if seq >= final.end:
                    text = f"{who} was shown {item.uid} at {seq}, the log ends at {final.end}"
                    found.append(broken("I5", text))
                elif known is None:
                    content[seq] = item
                elif known != item:
                    text = f"{who} was shown {item} at {seq}, others {known}"
                    found.append(broken("I5" if seq >= final.first else "I3", text))
    return content


def _index(history: History, content: dict[int, Item], end: int, found: list[Violation]) -> _Log:
    places = {item.uid: seq for seq, item in sorted(content.items(), reverse=True)}
    opened = {_epoch(op): op.value for op in history.of("open") if op.is_ok}
    appends, wrong = merged(history.of("append"), opened, places)
    found += wrong
    called = {item.uid: (op, item) for op in appends for item in op.call.items}
    seq_of: dict[str, int] = {}
    for seq in sorted(content):
        item = content[seq]
        if item.uid in seq_of:
            found.append(broken("I1", f"{item.uid} is at {seq_of[item.uid]} and at {seq}"))
        seq_of.setdefault(item.uid, seq)
        if item.uid not in called:
            found.append(broken("I1", f"nobody appended what is at seq {seq}: {item}"))
        elif called[item.uid][1] != item:
            found.append(broken("I1", f"other bytes at {seq}: {item}, not {called[item.uid][1]}"))
    written = []
    for op in appends:
        seqs = tuple(seq_of.get(item.uid) for item in op.call.items)
        known = [seq for seq in seqs if seq is not None]
        if known:
            written.append(_Written(operation=op, first=min(known), seqs=seqs))
    return _Log(
        content=content,
        seq_of=seq_of,
        end=end,
        appends=appends,
        written=sorted(written, key=lambda one: one.first),
        newest_ns=_newest(content, end, {uid: op.call.at_ns for uid, (op, _) in called.items()}),
    )


def _newest(content: dict[int, Item], end: int, called_ns: dict[str, int]) -> list[int]:
    newest, times = 0, []
    for seq in range(end):
        item = content.get(seq)
        newest = max(newest, 0 if item is None else called_ns.get(item.uid, 0))
        times.append(newest)
    return times


# --- appends -------------------------------------------------------------------------------------------


def _check_answers(log: _Log, final: Final, *, is_whole: bool) -> Iterator[Violation]:
    """Every answer agrees with what is in the log."""
    acknowledged: dict[int, Operation] = {}
    for op in log.appends:
        if op.is_ok:
            for seq, item in enumerate(op.call.items, op.value):
                other = acknowledged.setdefault(seq, op)
                if other is not op:
                    rule = "I4" if other.call.epoch != op.call.epoch else "I1"
                    yield broken(rule, f"{other} and {op} were both told seq {seq}")
                if seq not in log.content and seq < final.first and not is_whole:
                    continue
                if log.content.get(seq, item) != item or log.seq_of.get(item.uid) != seq:
                    there = log.content.get(seq)
                    yield broken("I1", f"{op}: at {seq} is {there}, it is at "
                                  f"{log.seq_of.get(item.uid)}")  # fmt: skip
        elif op.outcome in ("refused", "not_written"):
            there_at = [log.seq_of[i.uid] for i in op.call.items if i.uid in log.seq_of]
            if there_at:
                yield broken("I10", f"{op} is in the log, at {there_at}")
        yield from _check_expected(log, op)


def _check_expected(log: _Log, op: Operation) -> Iterator[Violation]:
    expect, result = op.call.expect, op.result
    is_conflict = result is not None and result.error == "conflict" and op.call.sequence is None
    if result is not None and is_conflict and expect in (None, result.value):
        yield broken("order", f"{op} was refused although it expected {expect}")
    if expect is None or not op.call.items:
        return
    seq = log.seq_of.get(op.call.items[0].uid)
    if seq not in (None, expect) or (op.is_ok and op.value != expect):
        yield broken("order", f"{op} expected {expect} and is at {seq}")


def _check_batches(log: _Log, *, hidden_below: int) -> Iterator[Violation]:
    """Contiguous, in order, all or nothing; what nobody can see any more is taken for right."""
    for one in log.written:
        base = one.first - one.seqs.index(one.first)
        for at, seq in enumerate(one.seqs, base):
            if seq != at and not (seq is None and 0 <= at < hidden_below):
                yield broken("I1", f"{one.operation}: its entries are at {one.seqs[:10]}")
                break


def _check_real_time(log: _Log) -> Iterator[Violation]:
    """What had returned before another was called has the smaller seq."""
    newest: Operation | None = None
    for one in log.written:
        op = one.operation
        if newest is not None and op.ok_ns < newest.call.at_ns:
            yield broken("order", f"{op} had returned when {newest} was called, its seq is higher")
        if newest is None or op.call.at_ns > newest.call.at_ns:
            newest = op


# --- epochs --------------------------------------------------------------------------------------------


def _check_epochs(log: _Log, opens: list[Operation]) -> Iterator[Violation]:
    """Each epoch has its own stretch of seqs, which begins where its writer was told."""
    highest: _Written | None = None
    for one in log.written:
        if highest is not None and one.operation.call.epoch < highest.operation.call.epoch:
            text = f"{one.operation} at {one.first} lies above {highest.operation} of a later epoch"
            yield broken("I4", text)
        else:
            highest = one
    opened = sorted((op for op in opens if op.is_ok), key=_epoch)
    for before, after in pairwise(opened):
        if _epoch(before) == _epoch(after):
            yield broken("I4", f"{before} and {after} were both given epoch {_epoch(after)}")
        if after.value < before.value:
            yield broken("I4", f"{after} begins below {before}, of an earlier epoch")
    yield from _check_order_of_epochs(opened)
    yield from _check_borders(log, opened)


def _epoch(op: Operation) -> int:
    assert op.result is not None
    return op.result.epoch


def _check_order_of_epochs(opened: list[Operation]) -> Iterator[Violation]:
    latest: Operation | None = None  # called last among the lower epochs
    for op in opened:
        if latest is not None and op.ok_ns < latest.call.at_ns:
            yield broken("I4", f"{op} had returned when {latest} was called, its epoch is higher")
        if latest is None or op.call.at_ns > latest.call.at_ns:
            latest = op


def _check_borders(log: _Log, opened: list[Operation]) -> Iterator[Violation]:
    """Entries of an epoch lie above its beginning, those of earlier ones below, and were called before."""
    begin = {_epoch(op): op for op in opened}
    next_open: dict[int, Operation] = {}  # per epoch: the take-over that had returned first
    border: Operation | None = None
    below: Operation | None = None  # the lowest beginning among the later epochs
    epochs = sorted({op.call.epoch for op in log.appends} | begin.keys(), reverse=True)
    beginnings: dict[int, Operation] = {}
    for epoch in epochs:
        if border is not None:
            next_open[epoch] = border
        if below is not None:
            beginnings[epoch] = below
        mine = begin.get(epoch)
        if mine is not None:
            border = mine if border is None or mine.ok_ns < border.ok_ns else border
            below = mine if below is None or mine.value < below.value else below
    for one in log.written:
        op, epoch = one.operation, one.operation.call.epoch
        first, after, late = begin.get(epoch), beginnings.get(epoch), next_open.get(epoch)
        last = max(seq for seq in one.seqs if seq is not None)
        if first is None or one.first < first.value:
            yield broken(
                "I4", f"{op} at {one.first} lies below the beginning of its epoch: {first}"
            )
        if after is not None and last >= after.value:
            yield broken("I4", f"{op} up to {last} lies above {after}, which took over")
        if late is not None and op.call.at_ns > late.ok_ns:
            yield broken("I4", f"{op} was called after {late} had returned, and is in the log")


# --- readers -------------------------------------------------------------------------------------------


def _check_views(log: _Log, views: list[View]) -> Iterator[Violation]:
    for view in views:
        who = f"reader {view.process}/{view.reader}"
        position = view.start
        for seen in view.seen:
            if position is not None and seen.first != position:
                yield broken("I2", f"{who} was at {position} and was shown {seen.first}")
            position = seen.first + len(seen.items)
            if position <= log.end and position and seen.at_ns < log.newest_ns[position - 1]:
                yield broken("order", f"{who} was shown up to {position} before it was appended")


def _check_tails(log: _Log, history: History) -> Iterator[Violation]:
    """A tail has been reached, never goes back in one process, and is above every finished take-over."""
    highest: dict[str, Operation] = {}
    opened = sorted((op for op in history.of("open") if op.is_ok), key=lambda op: op.ok_ns)
    done, floor = 0, 0
    for op in sorted(history.of("tail"), key=lambda op: op.call.at_ns):
        while done < len(opened) and opened[done].ok_ns < op.call.at_ns:
            floor = max(floor, opened[done].value)
            done += 1
        if not op.is_ok:
            continue
        before = highest.get(op.call.process)
        if before is not None and op.value < before.value:
            yield broken("order", f"{op} came after {before}")
        highest[op.call.process] = op
        if op.value > log.end:
            yield broken("I5", f"{op}, but the log ends at {log.end}")
        elif op.value and op.ok_ns < log.newest_ns[op.value - 1]:
            yield broken("order", f"{op} before its last entry was appended")
        if op.value < floor:
            yield broken("order", f"{op} although a take-over had found {floor}")


def _check_resolved(log: _Log, history: History, *, hidden_below: int) -> Iterator[Violation]:
    """What ``writer.resolve`` said afterwards of appends of unknown outcome."""
    for op in history.of("resolve"):
        seqs = [log.seq_of.get(item.uid) for item in op.call.items]
        if op.is_ok and op.value < hidden_below and seqs == [None] * len(seqs):
            continue  # trimmed, and nobody saw it
        if op.is_ok and seqs != list(range(op.value, op.value + len(seqs))):
            yield broken("I1", f"{op}, but it is at {seqs[:10]}")
        if op.outcome == "not_written" and any(seq is not None for seq in seqs):
            yield broken("I10", f"{op}, but it is in the log at {seqs[:10]}")


# --- trims ---------------------------------------------------------------------------------------------


def _check_trims(
    log: _Log, history: History, final: Final, *, has_retention: bool
) -> Iterator[Violation]:
    """The trim point only grows, in real time too, and no further than was asked for."""
    trims = history.of("trim")
    asked = max((op.call.before or 0 for op in trims), default=0)
    if final.first > asked and not has_retention:
        yield broken("order", f"the log begins at {final.first}; at most {asked} was asked for")
    done = sorted((op for op in trims if op.is_ok), key=lambda op: op.ok_ns)
    for op in done:
        if op.value > final.first:
            yield broken("order", f"{op}, but the log begins at {final.first}")
        if op.value > log.end:
            yield broken("I5", f"{op}, but the log ends at {log.end}")
        elif op.value and op.ok_ns < log.newest_ns[op.value - 1]:
            yield broken("order", f"{op} trimmed what was appended later")
    floors = _floors(done, [(op.call.at_ns, op.value, str(op)) for op in done])
    begun = [
        (view.began_ns, view.seen[0].first, f"reader {view.process}/{view.reader}")
        for view in history.views
        if view.start is None and view.seen
    ]
    for floor, value, who in [*floors, *_floors(done, begun)]:
        if value < floor:
            yield broken("order", f"{who} is at {value}, below a trim to {floor} that had returned")


def _floors(
    done: list[Operation], probes: list[tuple[int, int, str]]
) -> Iterator[tuple[int, int, str]]:
    """For each (time, value, who): the highest trim point returned before that time."""
    at, floor = 0, 0
    for time_ns, value, who in sorted(probes):
        while at < len(done) and done[at].ok_ns < time_ns:
            floor = max(floor, done[at].value)
            at += 1
        yield floor, value, who


# --- processes -----------------------------------------------------------------------------------------


def _check_ends(history: History) -> Iterator[Violation]:
    for op in history.operations:
        if op.result is None and op.call.process in history.ended:
            yield broken("I7", f"{op} never returned, its process ended by itself")
    for ended in history.ended.values():
        if ended.held:
            yield broken("I8", f"the writer of {ended.process} still holds {ended.held} at its end")
