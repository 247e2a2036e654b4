"""The judge on hand-made histories: one good one, and one bad one for every rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from woodpecker.testing.checkers import Final, check, check_after
from woodpecker.testing.history import (
    Began,
    Call,
    Ended,
    Event,
    Item,
    Return,
    Seen,
    collect,
    decode_file,
    encode,
)


def item(name: str) -> Item:
    return Item(uid=name, sum=sum(name.encode()))


def items(names: str) -> tuple[Item, ...]:
    return tuple(item(name) for name in names)


@dataclass(frozen=True)
class Case:
    """Events and the final log; ``without``, ``with_`` and ``final`` make a bad one of a good one."""

    events: dict[str, Event]
    log: str = "abcdef"
    first: int = 0

    def put(self, **events: Event) -> Case:
        return replace(self, events={**self.events, **events})

    def drop(self, *names: str) -> Case:
        return replace(self, events={n: e for n, e in self.events.items() if n not in names})

    def change(self, name: str, /, **fields: object) -> Case:
        return self.put(**{name: replace(self.events[name], **fields)})  # type: ignore[arg-type]

    def final(self, log: str, first: int = 0) -> Case:
        return replace(self, log=log, first=first)

    def rules(self) -> set[str]:
        history = collect(self.events.values())
        final = Final(first=self.first, items=items(self.log))
        return {v.rule for v in check(history, final, is_complete=True)}


def call(process: str, number: int, at: int, kind: str, names: str = "", **more: object) -> Call:
    return Call(
        process=process, number=number, at_ns=at, kind=kind, items=items(names), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def ret(process: str, number: int, at: int, outcome: str, **more: object) -> Return:
    return Return(process=process, number=number, at_ns=at, outcome=outcome, **more)  # type: ignore[arg-type]


def seen(at: int, first: int, names: str, process: str = "r") -> Seen:
    return Seen(process=process, reader="f", at_ns=at, first=first, items=items(names))


# w1 opens, appends a, then bc as a batch, is refused x, never hears of d; w2 takes over, appends e and,
# expecting 5, f; a reader sees all of it, somebody trims to 2, somebody else reads from there.
GOOD = Case(
    {
        "open1": call("w1", 0, 1, "open"),
        "opened1": ret("w1", 0, 2, "ok", value=0, epoch=1),
        "a": call("w1", 1, 3, "append", "a", epoch=1),
        "a!": ret("w1", 1, 4, "ok", value=0),
        "bc": call("w1", 2, 5, "append", "bc", epoch=1),
        "bc!": ret("w1", 2, 6, "ok", value=1),
        "x": call("w1", 3, 7, "append", "x", epoch=1, expect=7),
        "x!": ret("w1", 3, 8, "refused", error="conflict", value=3),
        "d": call("w1", 4, 9, "append", "d", epoch=1),
        "n": call("w1", 5, 10, "append", "n", epoch=1),
        "n!": ret("w1", 5, 16, "not_written", error="fenced"),
        "open2": call("w2", 0, 11, "open"),
        "opened2": ret("w2", 0, 12, "ok", value=4, epoch=2),
        "e": call("w2", 1, 13, "append", "e", epoch=2),
        "e!": ret("w2", 1, 15, "ok", value=4),
        "f": call("w2", 2, 17, "append", "f", epoch=2, expect=5),
        "f!": ret("w2", 2, 18, "ok", value=5),
        "end2": Ended(process="w2", at_ns=19),
        "began": Began(process="r", reader="f", at_ns=1, start=0),
        "seen1": seen(6, 0, "abc"),
        "seen2": seen(20, 3, "def"),
        "tail": call("t", 0, 21, "tail"),
        "tail!": ret("t", 0, 22, "ok", value=6),
        "trim": call("t", 1, 23, "trim", before=2),
        "trim!": ret("t", 1, 24, "ok", value=2),
        "began2": Began(process="t", reader="f", at_ns=25, start=None),
        "seen3": seen(26, 2, "cd", process="t"),
        "resolve": call("w1", 6, 27, "resolve", "d"),
        "resolve!": ret("w1", 6, 28, "ok", value=3),
        "owner": call("w2", 4, 14, "owner", epoch=2),
        "owner!": ret("w2", 4, 15, "ok", value=1),
        "look": call("t", 2, 25, "read", before=1),
        "look!": ret("t", 2, 26, "refused", error="out_of_range", value=2),
    },
    log="cdef",
    first=2,
)

BAD: dict[str, tuple[str, Callable[[], Case]]] = {
    "an acknowledged entry is gone": (
        "I1",
        lambda: GOOD.final("cdefx", 2).change("f!", value=7).change("f", expect=None),
    ),
    "an acknowledged entry at the end is gone": (
        "I1",
        lambda: GOOD.final("cde", 2).change("seen2", items=items("de")).change("tail!", value=5),
    ),
    "an entry is there twice": ("I1", lambda: GOOD.final("cdefd", 2)),
    "an entry has other bytes": (
        "I1",
        lambda: GOOD.change("e", items=(Item(uid="e", sum=1),)),
    ),
    "an entry that nobody appended": ("I1", lambda: GOOD.drop("d", "resolve", "resolve!")),
    "half a batch": ("I1", lambda: GOOD.change("d", items=items("dq"))),
    "a batch in another order": (
        "I1",
        lambda: GOOD.change("bc", items=items("cb")),
    ),
    "two answers name one seq": ("I1", lambda: GOOD.change("bc!", value=0)),
    "resolve names another seq": ("I1", lambda: GOOD.change("resolve!", value=2)),
    "an entry that no reader was shown": (
        "I2",
        lambda: GOOD.drop("seen1", "seen2").change("began", start=3),
    ),
    "a reader misses an entry": ("I2", lambda: GOOD.change("seen2", first=4, items=items("ef"))),
    "a reader begins elsewhere": ("I2", lambda: GOOD.change("began", start=1)),
    "two readers see different trimmed entries": (
        "I3",
        lambda: GOOD.put(
            other=Began(process="q", reader="f", at_ns=1, start=0), sight=seen(20, 0, "ba", "q")
        ),
    ),
    "two epochs acknowledge one seq": ("I4", lambda: GOOD.change("f!", value=2)),
    "two writers have one epoch": ("I4", lambda: GOOD.change("opened2", epoch=1)),
    "an entry of the old epoch above the take-over": (
        "I4",
        lambda: GOOD.change("opened2", value=3),
    ),
    "a take-over begins above what it writes": ("I4", lambda: GOOD.change("opened2", value=5)),
    "an entry called after the take-over": ("I4", lambda: GOOD.change("d", at_ns=14)),
    "a later opener has the smaller epoch": (
        "I4",
        lambda: GOOD.put(
            open3=call("w3", 0, 30, "open"), opened3=ret("w3", 0, 31, "ok", value=6, epoch=0)
        ),
    ),
    "a later epoch begins lower": (
        "I4",
        lambda: GOOD.put(
            open3=call("w3", 0, 30, "open"), opened3=ret("w3", 0, 31, "ok", value=3, epoch=3)
        ),
    ),
    "a reader saw what is not in the final log": ("I5", lambda: GOOD.final("cde", 2)),
    "a reader saw another entry than the final log": (
        "I5",
        lambda: GOOD.change("seen3", items=items("ce")),
    ),
    "a tail beyond the end": ("I5", lambda: GOOD.change("tail!", value=7)),
    "a call without answer in a process that ended": ("I7", lambda: GOOD.drop("f!")),
    "a writer holds something at its end": ("I8", lambda: GOOD.change("end2", held=1)),
    "a refused entry is in the log": ("I10", lambda: GOOD.change("x", items=items("d")).drop("d")),
    "a NotWritten entry is in the log": (
        "I10",
        lambda: GOOD.put(**{"d!": ret("w1", 4, 14, "not_written", error="not_written")}),
    ),
    "resolve calls a written entry not written": (
        "I10",
        lambda: GOOD.change("resolve!", outcome="not_written", value=None),
    ),
    "an earlier append has the higher seq": ("order", lambda: GOOD.change("a", at_ns=7)),
    "an entry is not at its expect_seq": ("order", lambda: GOOD.change("f", expect=4)),
    "an append of unknown outcome is not at its expect_seq": (
        "order",
        lambda: GOOD.change("d", expect=9),
    ),
    "refused although the expected seq was right": ("order", lambda: GOOD.change("x!", value=7)),
    "shown before it was appended": ("order", lambda: GOOD.change("seen1", at_ns=4)),
    "a tail before its entry was appended": ("order", lambda: GOOD.change("tail!", at_ns=16)),
    "a tail below a finished take-over": ("order", lambda: GOOD.change("tail!", value=3)),
    "a tail that goes back": (
        "order",
        lambda: GOOD.put(
            tail2=call("t", 7, 30, "tail"), **{"tail2!": ret("t", 7, 31, "ok", value=5)}
        ),
    ),
    "the trim point went back": (
        "order",
        lambda: GOOD.put(
            trim2=call("t", 7, 30, "trim", before=2), **{"trim2!": ret("t", 7, 31, "ok", value=1)}
        ),
    ),
    "the log begins below an acknowledged trim": (
        "order",
        lambda: GOOD.final("bcdef", 1),
    ),
    "trimmed further than asked": ("order", lambda: GOOD.final("def", 3)),
    "trimmed what came later": ("order", lambda: GOOD.change("trim!", at_ns=4)),
    "a reader begins below a finished trim": (
        "order",
        lambda: GOOD.change("seen3", first=1, items=items("bc")),
    ),
}


# of a log that has ended: w2 ends it behind f, and is refused afterwards
ENDED = GOOD.put(
    end=call("w2", 5, 30, "end"),
    **{"end!": ret("w2", 5, 31, "ok", value=6)},
    late=call("w3", 0, 32, "open"),
    **{"late!": ret("w3", 0, 33, "refused", error="log_ended")},
).drop("end2")

# a cursor holds the log at 2, and moves to 4; trims respect it
HELD = GOOD.change("trim", hold=True).put(
    cursor=call("c", 0, 8, "cursor", name="k", before=2),
    **{"cursor!": ret("c", 0, 9, "ok", value=2)},
    move=call("c", 1, 40, "cursor", name="k", before=4),
    **{"move!": ret("c", 1, 41, "ok", value=4)},
)

# producer p sends d through w1, hears nothing, and sends it again through w2, who knows it
REPEATED = GOOD.change("d", name="p", sequence=0).put(
    again=call("w2", 6, 20, "append", "d", epoch=2, name="p", sequence=0),
    **{"again!": ret("w2", 6, 21, "ok", value=3)},
)

# w1, asleep since he wrote batch 0 of p, is sent batch 2 and does not know that w2 wrote 1
STALE = REPEATED.put(
    g=call("w2", 10, 22, "append", "g", epoch=2, name="p", sequence=1),
    **{"g!": ret("w2", 10, 23, "ok", value=6)},
    h=call("w1", 11, 24, "append", "h", epoch=1, name="p", sequence=2),
    **{"h!": ret("w1", 11, 25, "refused", error="conflict", value=1)},
).final("cdefg", 2)

BAD |= {
    "a batch refused although it was due": ("order", lambda: STALE.change("h!", value=2)),
    "a batch refused for want of one that its writer had": (
        "order",
        lambda: STALE.change("h", epoch=2),
    ),
    "the log goes on behind its end": ("order", lambda: ENDED.change("end!", value=5)),
    "opened after the end": (
        "order",
        lambda: ENDED.put(**{"late!": ret("w3", 0, 33, "ok", value=6, epoch=3)}),
    ),
    "acknowledged after the end": (
        "order",
        lambda: ENDED.put(
            g=call("w2", 7, 34, "append", "f", epoch=2), **{"g!": ret("w2", 7, 35, "ok", value=5)}
        ),
    ),
    "told of an end that nobody asked for": ("order", lambda: ENDED.drop("end", "end!")),
    "owner after another had taken over": (
        "I4",
        lambda: GOOD.change("owner", epoch=1),
    ),
    "fenced though nobody had taken over": (
        "I4",
        lambda: GOOD.put(
            z=call("w2", 8, 17, "append", "z", epoch=2),
            **{"z!": ret("w2", 8, 18, "unknown", error="fenced")},
        ),
    ),
    "an opener fenced though nobody else opened": (
        "I4",
        lambda: GOOD.put(
            open4=call("w4", 0, 40, "open"), **{"open4!": ret("w4", 0, 41, "unknown", error="fenced")}
        ),
    ),
    "refused as trimmed where it is not": ("order", lambda: GOOD.change("look", before=2)),
    "told of a trim that never was": ("order", lambda: GOOD.change("look!", value=3)),
    "trimmed above a cursor": ("I9", lambda: HELD.change("cursor!", value=1).change("cursor", before=1)),
    "a read refused that a cursor holds": (
        "I9",
        lambda: HELD.change("cursor!", value=1).change("cursor", before=1).drop("trim", "trim!"),
    ),
    "the log begins above its cursor in the end": (
        "I9",
        lambda: HELD.drop("move", "move!").change("cursor!", value=1).change("cursor", before=1),
    ),
    "a repeated batch is told two places": ("I1", lambda: REPEATED.put(
        third=call("w2", 9, 22, "append", "d", epoch=2, name="p", sequence=0),
        **{"third!": ret("w2", 9, 23, "ok", value=4)},
    )),
    "a repeated batch is there twice": ("I1", lambda: REPEATED.final("cdefd", 2)),
    "a repeated batch that was acknowledged is gone": (
        "I1",
        lambda: REPEATED.change("again!", value=9),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [ENDED, HELD, REPEATED, STALE], ids=["ended", "held", "repeated", "stale"]
)
def test_other_good_histories_are_found_good(case: Case) -> None:
    assert case.rules() == set()


def test_a_trim_that_passes_cursors_may_pass_them() -> None:
    case = HELD.change("cursor!", value=1).change("cursor", before=1).change("trim", hold=False)
    assert "I9" not in case.rules()


def test_an_attempt_that_was_not_written_may_be_repeated() -> None:
    case = REPEATED.put(**{"d!": ret("w1", 4, 10, "not_written", error="not_written")})
    assert "I10" not in case.rules()


def test_retention_may_trim_what_nobody_asked_for() -> None:
    case = GOOD.drop("trim", "trim!")
    history = collect(case.events.values())
    final = Final(first=2, items=items("cdef"))
    assert "order" in {v.rule for v in check(history, final)}
    assert check(history, final, has_retention=True) == []


def test_a_good_history_is_found_good() -> None:
    assert GOOD.rules() == set()


@pytest.mark.parametrize(("rule", "make"), BAD.values(), ids=BAD)
def test_a_bad_history_is_found_bad(rule: str, make: Callable[[], Case]) -> None:
    assert rule in make().rules()


def test_an_unknown_append_may_take_effect_long_after() -> None:
    assert GOOD.change("d", at_ns=3).rules() == set()


def test_an_unknown_append_may_be_missing() -> None:
    case = GOOD.put(u=call("w2", 8, 17, "append", "u", epoch=2)).drop("end2")
    assert case.rules() == set()


def test_a_trimmed_entry_nobody_saw_is_no_fault_when_readers_are_not_whole() -> None:
    case = GOOD.drop("seen1", "seen2")
    history = collect(case.events.values())
    assert check(history, Final(first=2, items=items("cdef")), is_whole=False) == []


def test_a_batch_cut_by_a_trim_ends_where_it_ends() -> None:
    case = GOOD.drop("seen1", "seen2", "d", "resolve", "resolve!").change("opened2", value=3)
    case = case.change("e!", value=3).change("f!", value=4).change("f", expect=4)
    case = case.change("seen3", items=items("ce")).change("tail!", value=5)
    history = collect(case.events.values())
    assert check(history, Final(first=2, items=items("cef")), is_whole=False) == []


def test_an_append_called_after_a_deletion_is_not_acknowledged() -> None:
    history = collect(GOOD.events.values())
    assert check_after(history, 17, "the deletion") == []
    assert [v.rule for v in check_after(history, 16, "the deletion")] == ["I4"]


def test_lines_survive_and_a_torn_last_one_is_left_out() -> None:
    events = list(GOOD.events.values())
    data = b"".join(map(encode, events))
    assert decode_file(data) == events
    assert decode_file(data[:-2]) == events[:-1]
