"""Timers of transactions, filters, rates, retention, cursor records."""

from __future__ import annotations

from woodpecker.streaming.core.cursors import CursorRecord, attached, committed
from woodpecker.streaming.core.filters import matches
from woodpecker.streaming.core.rates import Load, Mode, RateState, step
from woodpecker.streaming.core.records import CheckpointRef, CheckpointsRecord
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.retention import trim_point
from woodpecker.streaming.core.transactions import KEEP_ALIVE_OVER, TOO_OLD, Expiry
from woodpecker.streaming.core.values import ANYTHING, Position, Where

SECOND = 1_000_000


# ------------------------------------------------------------------------------------ timers


def test_keep_alives_run_out() -> None:
    timers = Expiry(max_age_ms=60_000, monotonic_us=0)
    assert timers.next_due_us() is None
    timers.begin(7, 10_000)
    for second in range(1, 10):
        timers.advance(second * SECOND, None)
    assert timers.next_due_us() == SECOND
    timers.touch(7)
    timers.touch(8)
    for second in range(10, 19):
        timers.advance(second * SECOND, None)
    assert timers.due() == []
    timers.advance(19 * SECOND, 100)
    assert timers.due() == [(7, KEEP_ALIVE_OVER)]
    timers.keep_only(())
    assert timers.due() == []


def test_a_process_that_stood_still_heard_nobody() -> None:
    """Signs of life may lie unread before it when it wakes up."""
    timers = Expiry(max_age_ms=60_000, monotonic_us=0)
    timers.begin(7, 10_000)
    timers.advance(SECOND, None)
    timers.advance(300 * SECOND, None)
    assert timers.due() == []
    for second in range(301, 309):
        timers.advance(second * SECOND, None)
    assert timers.due() == [(7, KEEP_ALIVE_OVER)]


def test_a_transaction_may_not_be_open_for_ever() -> None:
    timers = Expiry(max_age_ms=15_000, monotonic_us=0)
    timers.begin(7, 10_000)
    for second in range(16):
        timers.advance(second * SECOND, None)
        timers.touch(7)
    assert timers.due() == [(7, TOO_OLD)]


def test_slow_appends_stop_the_timers() -> None:
    timers = Expiry(max_age_ms=60_000, monotonic_us=0)
    timers.begin(7, 2_000)
    for second in range(1, 30):  # the log answers nothing
        timers.advance(second * SECOND, second * SECOND)
    assert timers.due() == []
    timers.advance(30 * SECOND, 0)
    assert timers.due() == [(7, KEEP_ALIVE_OVER)]


# ----------------------------------------------------------------------------------- filters


def test_all_that_is_given_must_hold() -> None:
    message = {"type_": "t", "key": b"k", "properties": ((b"a", b"1"), (b"b", b"2"))}

    def passes(where: Where) -> bool:
        return matches(where, type_="t", key=b"k", properties=((b"a", b"1"), (b"b", b"2")))

    assert message
    assert passes(ANYTHING)
    assert passes(Where(type="t", key=b"k", properties=((b"b", b"2"),)))
    assert not passes(Where(type="u"))
    assert not passes(Where(key=b""))
    assert not passes(Where(properties=((b"a", b"1"), (b"b", b"3"))))


# ------------------------------------------------------------------------------------- rates


def load(value: float) -> list[Load]:
    return [
        Load(name="queue", value=value, soft=100, hard=200),
        Load(name="memory", value=1, soft=2, hard=3),
    ]


def test_a_rate_goes_down_by_parts_and_up_by_steps() -> None:
    state = step(RateState(), load(99), measured_bytes_s=100 << 20)
    assert (state.mode, state.frame_value) == (Mode.NORMAL, 0)
    state = step(state, load(100), measured_bytes_s=100 << 20)
    assert (state.mode, state.bytes_s, state.cause) == (Mode.SLOWDOWN, 80 << 20, "queue")
    lower = step(state, load(150), measured_bytes_s=80 << 20)
    assert lower.frame_value == 64 << 20
    assert step(lower, load(90), measured_bytes_s=64 << 20) == lower  # hysteresis
    higher = step(lower, load(79), measured_bytes_s=64 << 20)
    assert higher.bytes_s == 68 << 20
    assert step(higher, load(0), measured_bytes_s=1 << 20).mode is Mode.NORMAL


def test_reject_is_left_well_below_its_bound_and_slowly() -> None:
    state = step(RateState(), load(200), measured_bytes_s=1)
    assert state.frame_value == -1
    assert step(state, load(161), measured_bytes_s=0).mode is Mode.REJECT
    after = step(state, load(150), measured_bytes_s=0)
    assert after.mode is Mode.SLOWDOWN
    assert after.bytes_s >= 1 << 20
    assert step(state, load(0), measured_bytes_s=0).mode is Mode.SLOWDOWN


def test_the_strictest_source_decides() -> None:
    loads = [Load(name="a", value=150, soft=100, hard=200), Load(name="b", value=3, soft=1, hard=9)]
    assert step(RateState(), loads, measured_bytes_s=9 << 20).cause == "b"


# --------------------------------------------------------------------------------- retention


def checkpoint(seq: int, low: int) -> CheckpointRef:
    return CheckpointRef(seq=seq, low=low, object="x", digest="", size=1, term=1)


def test_a_trim_passes_neither_the_older_checkpoint_nor_a_cursor() -> None:
    both = CheckpointsRecord(checkpoints=(checkpoint(90, 80), checkpoint(50, 45)))
    assert trim_point(both, cursor_lows=[], retention_low=1000) == 45
    assert trim_point(both, cursor_lows=[44, 60], retention_low=1000) == 44
    assert trim_point(both, cursor_lows=[60], retention_low=7) == 7
    one = CheckpointsRecord(checkpoints=(checkpoint(90, 80),))
    assert trim_point(one, cursor_lows=[60], retention_low=70) == 0


# ---------------------------------------------------------------------------- cursor records


def made(record: CursorRecord | None, nonce: str) -> CursorRecord:
    found = attached(record, start=Position(5, low=3), holder="me", nonce=nonce, where=ANYTHING)
    assert isinstance(found, CursorRecord)
    return found


def moved(record: CursorRecord, done: int, generation: int = 1, *, reset: bool = False) -> object:
    return committed(record, generation=generation, done=Position(done, low=done - 1), reset=reset)


def test_a_cursor_is_moved_by_its_newest_generation_only() -> None:
    first = made(None, "a")
    assert (first.generation, first.low) == (1, 3)
    assert made(first, "a") == first
    second = made(first, "b")
    assert (second.generation, second.done) == (2, first.done)
    refused = moved(second, 9)
    assert isinstance(refused, Refusal)
    assert refused.kind is Class.FENCED
    after = moved(second, 9, 2)
    assert isinstance(after, CursorRecord)
    assert (after.done.seq, after.low) == (9, 8)


def test_done_never_falls_but_by_reset() -> None:
    record = made(None, "a")
    assert moved(record, 4) == record
    back = moved(record, 1, reset=True)
    assert isinstance(back, CursorRecord)
    assert (back.done.seq, back.generation) == (1, 2)
    assert isinstance(moved(back, 8, 1), Refusal)
    assert CursorRecord(done=Position(5)).low == 5


def test_a_late_commit_takes_no_range_back() -> None:
    """One that was not answered is sent again; what is left of its first try may come after the next one."""

    def ranged(record: CursorRecord, *seqs: int) -> CursorRecord:
        ranges = tuple((Position(seq), Position(seq)) for seq in seqs)
        after = committed(record, generation=1, done=record.done, ranges=ranges)
        assert isinstance(after, CursorRecord)
        return after

    first = ranged(made(None, "a"), 7)
    second = ranged(first, 7, 9)
    assert [first.seq for first, _ in second.ranges] == [7, 9]
    assert ranged(second, 7) == second
    assert ranged(second) == second
    assert [first.seq for first, _ in ranged(second, 6, 7, 8).ranges] == [6, 7, 8]
