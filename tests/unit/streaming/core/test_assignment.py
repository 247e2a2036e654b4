"""The assignment machine where time counts; every order of events is in tests/exhaustive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from woodpecker.streaming.core import assignment
from woodpecker.streaming.core.assignment import (
    Ask,
    Memory,
    NodeLife,
    Release,
    Reread,
    Sight,
    Timing,
    View,
    Wait,
    Write,
    shown,
    step,
)
from woodpecker.streaming.core.fleet import Standing
from woodpecker.streaming.core.records import Assignment, Owner, PchannelRecord
from woodpecker.streaming.frames import PchannelStatus

TIMING = Timing(session_ttl_ms=10_000, release_timeout_ms=5_000, open_stall_ms=120_000)
OTHER = NodeLife(node="n2", incarnation="b", address="h2")
OWNER = Owner(node="n1", incarnation="a", address="h1", term=4)
RECORD = PchannelRecord(
    name="p", log="stream.p", log_id="0", term=4, state=Assignment.ASSIGNED, owner=OWNER, epoch=1
)


def sight(state: str = "", term: int = 4, **fields: int | str) -> Sight:
    status = PchannelStatus(pchannel="p", term=term, state=state, **fields)  # type: ignore[arg-type]
    return Sight(standing=Standing.LIVE, is_heard=True, status=status if state else None)


def view(now_ms: float = 0.0, owner: Sight | None = None, **fields: object) -> View:
    def choose(avoid: object) -> NodeLife | None:
        return OTHER if OTHER.node not in avoid else None  # type: ignore[operator]

    made = View(now_ms=now_ms, epoch=1, owner=owner or sight("serving"), formers=(), choose=choose)
    return replace(made, **fields)  # type: ignore[arg-type]


def opening(now_ms: float, done: int) -> View:
    return view(now_ms, sight("replaying", done_bytes=done, total_bytes=1_000))


ASSIGNING = replace(RECORD, state=Assignment.ASSIGNING)


def test_what_is_served_is_left_alone() -> None:
    assert step(RECORD, Memory(), view(), TIMING)[1] == Wait()


def test_an_opening_that_moves_has_no_deadline() -> None:
    memory = Memory()
    for minute in range(60):
        memory, act = step(ASSIGNING, memory, opening(minute * 60_000.0, minute), TIMING)
        assert isinstance(act, Wait)


def test_a_deadline_on_openings_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant counts from the beginning of the term, not from the last progress."""
    observed = assignment._observed

    def from_the_beginning(record: PchannelRecord, memory: Memory, view: View) -> Memory:
        return replace(observed(record, memory, view), moved_ms=0.0)

    monkeypatch.setattr(assignment, "_observed", from_the_beginning)
    memory, acts = Memory(), []
    for minute in range(5):
        memory, act = step(ASSIGNING, memory, opening(minute * 60_000.0, minute), TIMING)
        acts.append(act)
    assert any(isinstance(act, Write) for act in acts), "what the rule prevents"


def test_an_opening_that_stands_still_goes_elsewhere_as_one_more_failure() -> None:
    memory, act = step(ASSIGNING, Memory(), opening(0.0, 1), TIMING)
    memory, act = step(ASSIGNING, memory, opening(119_000.0, 1), TIMING)
    assert isinstance(act, Wait)
    memory, act = step(ASSIGNING, memory, opening(121_000.0, 1), TIMING)
    assert isinstance(act, Write) and act.record.owner is not None
    assert (act.record.term, act.record.owner.node, act.record.former) == (5, "n2", (OWNER,))
    assert memory.failures == 1


def test_an_owner_that_cannot_be_heard_has_less_patience() -> None:
    unheard = Sight(standing=Standing.LIVE, is_heard=False)
    memory, act = step(ASSIGNING, Memory(), view(0.0, unheard), TIMING)
    assert act == Ask()
    memory, act = step(ASSIGNING, memory, view(5_000.0, unheard), TIMING)
    assert act == Ask(), "again"
    _, act = step(ASSIGNING, memory, view(11_000.0, unheard), TIMING)
    assert isinstance(act, Write)


def test_a_planned_move_releases_waits_and_asks() -> None:
    record = replace(ASSIGNING, term=5, owner=Owner(**OTHER_FIELDS, term=5), former=(OWNER,))
    old, new = sight("serving"), sight()
    assert shown(record, Memory(), view(0.0, new, formers=(old,))).node == "n1"
    serves = sight("serving", term=5)
    assert shown(record, Memory(), view(0.0, serves, formers=(old,))).node == "n2", "fenced already"
    memory, act = step(record, Memory(), view(0.0, new, formers=(old,)), TIMING)
    assert act == Release(owners=(OWNER,))
    assert shown(record, memory, view(0.0, new, formers=(old,))).node == "n2"
    closing = sight("closing")
    memory, act = step(record, memory, view(100.0, new, formers=(closing,)), TIMING)
    assert isinstance(act, Wait) and "n1" in act.whom
    memory, act = step(record, memory, view(200.0, new, formers=(sight("closed"),)), TIMING)
    assert act == Ask()


OTHER_FIELDS = {"node": "n2", "incarnation": "b", "address": "h2"}


def test_a_former_owner_is_waited_for_so_long_and_no_longer() -> None:
    record = replace(ASSIGNING, term=5, owner=Owner(**OTHER_FIELDS, term=5), former=(OWNER,))
    closing, memory = sight("closing"), Memory()
    acts = []
    for now_ms in range(0, 7_000, 500):
        memory, act = step(record, memory, view(now_ms, sight(), formers=(closing,)), TIMING)
        acts.append(type(act).__name__)
    assert acts.index("Ask") == 10 and acts.count("Release") == 5, "again each second"


def test_unplanned_is_asked_at_once() -> None:
    record = replace(ASSIGNING, term=5, owner=Owner(**OTHER_FIELDS, term=5), former=(OWNER,))
    unheard = Sight(standing=Standing.LIVE, is_heard=False)
    assert step(record, Memory(), view(0.0, sight(), formers=(unheard,)), TIMING)[1] == Ask()


@pytest.mark.parametrize(
    ("state", "act"), [("failed", Write), ("closed", Write), ("closing", Write)]
)
def test_an_owner_that_has_ended_is_followed(state: str, act: type) -> None:
    assert isinstance(step(RECORD, Memory(), view(0.0, sight(state)), TIMING)[1], act)


def test_failures_in_a_row_pause_ever_longer_and_are_forgotten_when_it_serves() -> None:
    memory, pauses, now_ms, record = Memory(), [], 0.0, ASSIGNING
    for _ in range(12):
        began_ms, act = now_ms, None
        while not isinstance(act, Write):
            failed = view(now_ms, sight("failed", record.term, reason="x"))
            memory, act = step(record, memory, failed, TIMING)
            now_ms += 500.0
        pauses.append(now_ms - began_ms - 500.0)
        record = act.record
    assert pauses[:4] == [0.0, 0.0, 2_000.0, 4_000.0] and max(pauses) == pauses[-1] == 60_000.0
    serving = view(now_ms, sight("serving", record.term))
    memory, _ = step(record, memory, serving, TIMING)
    assert memory.failures == 12 and memory.reason == "x"
    memory, _ = step(record, memory, replace(serving, now_ms=now_ms + 60_000.0), TIMING)
    assert memory.failures == 0


def test_a_report_counts_only_when_the_owner_is_silent() -> None:
    reported = view(0.0, sight("serving"), is_reported=True)
    assert isinstance(step(RECORD, Memory(), reported, TIMING)[1], Wait)
    unheard = Sight(standing=Standing.LIVE, is_heard=False)
    assert isinstance(step(RECORD, Memory(), view(0.0, unheard), TIMING)[1], Wait)
    silent = view(0.0, unheard, is_reported=True)
    assert isinstance(step(RECORD, Memory(), silent, TIMING)[1], Write)


def test_unsure_is_waited_for_and_gone_is_not() -> None:
    unsure = Sight(standing=Standing.UNSURE, is_heard=False)
    act = step(RECORD, Memory(), view(0.0, unsure), TIMING)[1]
    assert isinstance(act, Wait) and "n1" in act.whom
    gone = Sight(standing=Standing.GONE, is_heard=False)
    nobody = view(0.0, gone, choose=lambda _: None)
    act = step(RECORD, Memory(), nobody, TIMING)[1]
    assert isinstance(act, Write) and act.record.state is Assignment.UNASSIGNED
    assert act.record.term == 4 and act.record.former == ()
    assert isinstance(step(act.record, Memory(), view(0.0), TIMING)[1], Write)


def test_an_owner_that_the_record_has_forgotten_is_released_again_and_again() -> None:
    """It was taken for gone; idle, it would never meet the fence."""
    stray = Owner(node="n3", incarnation="c", address="h3", term=3)
    seen = view(10_000.0, others=(OWNER, stray))
    memory, act = step(RECORD, Memory(), seen, TIMING)
    assert act == Release(owners=(stray,))
    memory, act = step(RECORD, memory, replace(seen, now_ms=10_500.0), TIMING)
    assert act == Wait(until_ms=11_000.0)
    _, act = step(RECORD, memory, replace(seen, now_ms=11_000.0), TIMING)
    assert act == Release(owners=(stray,))
    assert step(RECORD, memory, view(11_000.0, others=(OWNER,)), TIMING)[1] == Wait()


def test_a_newer_term_in_sight_is_read_up() -> None:
    assert step(RECORD, Memory(), view(0.0, sight("serving", 5)), TIMING)[1] == Reread()


def test_a_restarted_coordinator_asks_an_owner_that_has_forgotten() -> None:
    assert step(RECORD, Memory(), view(0.0, sight()), TIMING)[1] == Ask()
    assert step(ASSIGNING, Memory(), view(0.0, sight()), TIMING)[1] == Ask()


def test_the_map_says_serving_as_soon_as_the_owner_does() -> None:
    assert shown(ASSIGNING, Memory(), view(0.0, sight("serving"))).serving
    assert not shown(ASSIGNING, Memory(), view(0.0, sight("replaying"))).serving
    assert not shown(RECORD, Memory(), view(0.0, sight("failed"))).serving
    assert shown(RECORD, Memory(), view(0.0, sight())).serving
    unassigned = replace(RECORD, owner=None, state=Assignment.UNASSIGNED)
    assert shown(unassigned, Memory(), view()).node == ""
