"""The judge of the streaming service on hand-made histories: a good one, and a bad one for every rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from woodpecker.streaming.core.values import Position
from woodpecker.testing.stream_sim import rules
from woodpecker.testing.stream_sim.books import (
    Announced,
    Book,
    History,
    Passing,
    Sent,
    Shown,
    Signal,
    Subscribed,
    Trims,
    View,
    Written,
)


def at(seq: int, index: int = 0, low: int = -1) -> Position:
    return Position(seq, index, low=low)


def one(name: str, seq: int, index: int = 0, *, type: str | None = None, low: int = -1) -> Shown:
    return Shown(at(seq, index, low), name.encode(), 100 + seq, type)


A, B, C, D = one("a", 1), one("b", 2, type="a"), one("c", 5, low=3), one("d", 5, 1, low=3)
WHOLE = History(all=[A, B, C, D])


def broken(faults: rules.Faults) -> list[str]:
    return [rule for rule, _ in faults]


# ------------------------------------------------------------------------------- what readers saw


@pytest.mark.parametrize(
    ("events", "rule"),
    [
        ([A, Signal(101), Passing(b"e", 102), B, C, D], None),
        ([B, A], "S1"),
        ([A, A], "S1"),
        ([A, B._replace(tick=100)], "S3"),
        ([A, Signal(102), B], "S4"),
        ([A, Signal(102), Signal(101), B], "S4"),
        ([Signal(102), Passing(b"e", 102)], "S4"),
        ([Passing(b"e", 103), B], "S3"),
        ([B, Passing(b"e", 101)], "S3"),
        ([Passing(b"e", 101), Passing(b"e", 102)], "S1"),
    ],
)
def test_the_course_of_a_consumer(events: list[Shown | Passing | Signal], rule: str | None) -> None:
    found = broken(rules.course(View("r", events=events)))
    assert rule in found if rule else not found


@pytest.mark.parametrize(
    ("view", "is_good"),
    [
        (View("r", events=[A, B, C, D]), True),
        (View("r", events=[A, B]), True),
        (View("r", type="a", events=[B]), True),
        (View("r", is_first=False, events=[B, C]), True),
        (View("r"), True),
        (View("r", events=[A, C, D]), False),
        (View("r", events=[B, C]), False),
        (View("r", events=[A, B, one("x", 4), C]), False),
        (View("r", events=[A, B._replace(type=None)]), False),
        (View("r", events=[A, B._replace(tick=7)]), False),
        (View("r", events=[A, B._replace(key=b"k")]), False),
        (View("r", type="a", events=[A, B]), False),
    ],
)
def test_what_a_consumer_saw_is_what_there_is(view: View, is_good: bool) -> None:
    assert broken(rules.agreement(view, WHOLE)) == ([] if is_good else ["S7"])


def test_what_is_trimmed_is_known_from_those_who_saw_it() -> None:
    early = View("early", events=[A, B])
    late = View("late", is_first=False, events=[B, C, D])
    history = rules.merged([C, D], 3, [early, late])
    assert history.all == [A, B, C, D]
    assert history.is_whole
    assert not broken(rules.agreement(late, history))
    other = View("other", is_first=False, events=[A, C])
    history = rules.merged([C, D], 3, [early, late, other])
    assert broken(rules.agreement(other, history)) == ["S7"]
    alone = rules.merged([C, D], 3, [late])
    assert not alone.knows(A.position)
    assert not alone.is_whole
    filtered = View("filtered", type="a", events=[B])
    assert not broken(rules.agreement(filtered, rules.merged([C, D], 3, [filtered])))


def test_a_transaction_that_lost_its_beginning_is_not_asked_for() -> None:
    history = rules.merged([D], 4, [])
    assert not history.knows(C.position), "it began at 3"
    assert history.knows(at(4))


def test_a_consumer_must_get_everything() -> None:
    assert rules.lagging(View("r", events=[A, B]), WHOLE) == [C, D]
    assert rules.lagging(View("r", type="a"), WHOLE) == [B]
    assert rules.lagging(View("r", events=[A, B, C, D]), WHOLE) == []


# ------------------------------------------------------------------------- what producers were told


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (Sent("p", [b"a"], outcome="ack", position=at(1)), None),
        (Sent("p", [b"c", b"d"], is_txn=True, outcome="ack", position=at(5)), None),
        (Sent("p", [b"a"], outcome="unknown"), None),
        (Sent("p", [b"a"]), None),
        (Sent("p", [b"x"], outcome="not written"), None),
        (Sent("p", [b"x"], outcome="unknown"), None),
        (Sent("p", [b"x"], outcome="ack", position=at(3)), "S1"),
        (Sent("p", [b"a"], outcome="ack", position=at(2)), "S1"),
        (Sent("p", [b"a"], outcome="not written"), "S15"),
        (Sent("p", [b"a", b"x"], is_txn=True, outcome="unknown"), "S5"),
        (Sent("p", [b"a", b"b"], is_txn=True, outcome="unknown"), "S5"),
        (Sent("p", [b"c", b"d"], is_txn=True, outcome="not written"), "S15"),
    ],
)
def test_what_a_producer_was_told(sent: Sent, rule: str | None) -> None:
    book = Book("ch", sent=[sent])
    assert broken(rules.told(book, WHOLE)) == ([rule] if rule else [])


def test_nothing_is_there_twice_and_nothing_ephemeral_is_kept() -> None:
    twice = History(all=[A, one("a", 2)])
    assert broken(rules.told(Book("ch"), twice)) == ["S1"]
    assert broken(rules.told(Book("ch", passing={b"a"}), WHOLE)) == ["S1"]


def test_what_is_trimmed_is_not_missed() -> None:
    book = Book("ch", sent=[Sent("p", [b"x"], outcome="ack", position=at(2))])
    assert not broken(rules.told(book, History(all=[C, D], kept_from=3)))
    assert broken(rules.told(book, History(all=[A, C, D], kept_from=3, spans=[(0, 5)]))) == ["S1"]


def test_a_producers_messages_keep_their_order() -> None:
    first, second = Sent("p", [b"a"]), Sent("p", [b"b"])
    assert not broken(rules.order(Book("ch", sent=[first, second]), WHOLE))
    assert broken(rules.order(Book("ch", sent=[second, first]), WHOLE)) == ["S2"]
    other = Sent("q", [b"a"])
    assert not broken(rules.order(Book("ch", sent=[second, other]), WHOLE))


# -------------------------------------------------------------------------------------- broadcasts

TOLD = Announced("k", b"a", ("x", "y"), ("r",), {"x": at(1), "y": at(1)})
BOTH = {"x": WHOLE, "y": WHOLE}


@pytest.mark.parametrize(
    ("announced", "histories", "is_good"),
    [
        (TOLD, BOTH, True),
        (replace(TOLD, positions=None), BOTH, True),
        (replace(TOLD, positions=None, payload=b"z"), BOTH, True),
        (TOLD, {**BOTH, "y": History(all=[C, D], kept_from=3)}, True),
        (replace(TOLD, payload=b"z"), BOTH, False),
        (TOLD, {**BOTH, "y": History(all=[B])}, False),
        (replace(TOLD, positions=None), {**BOTH, "y": History(all=[B])}, False),
        (TOLD, {**BOTH, "y": History(all=[A, one("a", 2)])}, False),
        (replace(TOLD, positions={"x": at(2), "y": at(1)}), BOTH, False),
    ],
)
def test_a_broadcast_is_once_on_each_target(
    announced: Announced, histories: dict[str, History], is_good: bool
) -> None:
    assert set(broken(rules.broadcast(announced, histories))) == (set() if is_good else {"S12"})


def test_broadcasts_that_share_a_resource_have_one_order() -> None:
    other = Announced("l", b"b", ("x", "y"), ("r", "s"))
    turned = {"x": WHOLE, "y": History(all=[one("b", 1), one("a", 2)])}
    assert not broken(rules.broadcast_order([TOLD, other], BOTH))
    assert broken(rules.broadcast_order([TOLD, other], turned)) == ["S12"]
    assert not broken(rules.broadcast_order([TOLD, replace(other, resources=("s",))], turned))


# --------------------------------------------------------------------------------- logs, and trims


def batch(
    seq: int, kind: str = "Data", *payloads: bytes, vcid: int = 1, number: int = 0
) -> Written:
    return Written(seq, 100 + seq, 1, vcid, kind, payloads, number)


LOG = [
    batch(0, "Create"),
    batch(1, "Data", b"a"),
    batch(2, "Broadcast", b"n", number=7),
    batch(3, "Delete"),
    batch(4, "Data", b"b", vcid=2),
    batch(5, "Broadcast", b"n", vcid=2, number=7),
]


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ([], None),
        ([batch(6, "Data", b"c")], "S16"),
        ([batch(6, "Broadcast", b"m", number=8)], "S16"),
        ([batch(6, "Broadcast", b"n", vcid=2, number=7)], "S12"),
        ([batch(6, vcid=2)._replace(tick=100)], "S3"),
        ([batch(6, vcid=2)._replace(term=0)], "S3"),
        ([batch(5, vcid=2)._replace(tick=200)], "S3"),
    ],
)
def test_the_log_of_a_pchannel(more: list[Written], rule: str | None) -> None:
    assert broken(rules.log("p0", [*LOG, *more])) == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("sent", "earliest", "rule"),
    [
        (Sent("p", [b"a"], outcome="ack", position=at(1)), 0, None),
        (Sent("p", [b"x"], outcome="ack", position=at(1)), 2, None),
        (Sent("p", [b"a"], is_txn=True, outcome="not written"), 0, None),
        (Sent("p", [b"x"], outcome="ack", position=at(1)), 0, "S1"),
        (Sent("p", [b"a"], outcome="not written"), 0, "S15"),
        (Sent("p", [b"b"], outcome="unknown"), 0, "S16"),
        (Sent("p", [b"n"], outcome="unknown"), 0, "S2"),
    ],
)
def test_what_the_log_says_of_a_deleted_channel(
    sent: Sent, earliest: int, rule: str | None
) -> None:
    found = broken(rules.told_by_log(Book("ch", 1, is_deleted=True, sent=[sent]), LOG, earliest))
    assert rule in found if rule else not found


@pytest.mark.parametrize(
    ("holds", "is_good"),
    [
        (Trims(0, (), {"c": 0}), True),
        (Trims(5, (9, 5), {"c": 5}), True),
        (Trims(5, (9, 4), {"c": 5}), False),
        (Trims(5, (9,), {}), False),
        (Trims(5, (9, 5), {"c": 4}), False),
    ],
)
def test_trims_take_nothing_that_is_needed(holds: Trims, is_good: bool) -> None:
    assert broken(rules.trims("p0", holds)) == ([] if is_good else ["S9"])


# ---------------------------------------------------------------------------------------- cursors


def test_holders_of_a_cursor_are_handed_everything_and_again_what_they_did_not_acknowledge() -> (
    None
):
    record = Subscribed(handed={b"a", b"b"}, acked={b"a"})
    book = Book("ch", cursors={"mailer": record})
    assert rules.handed(book, "mailer", WHOLE) == [b"c", b"d"]
    assert rules.handed(book, "mailer", History(all=[A, B, C, D], kept_from=4)) == []
    assert rules.unacknowledged(book, "mailer") == {b"b"}
    book.cursors["mailer"] = replace(record, type="a")
    assert rules.handed(book, "mailer", WHOLE) == []
