"""Admission: repeats first, then everything that speaks against a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.streaming.core.kit import Pchannel

from woodpecker.streaming.core.admission import Admit, Asked, Pressure, Refuse, Repeat
from woodpecker.streaming.core.facts import AbortTxn, Delete, Facts, Grant, TableLimits
from woodpecker.streaming.core.refusals import Class
from woodpecker.streaming.settings import StreamSettings


@pytest.fixture
def channel() -> Pchannel:
    made = Pchannel()
    made.create(1)
    return made


def sent(channel: Pchannel, **more: Any) -> Facts:
    facts = channel.send(channel.asked(**more))
    assert isinstance(facts, Facts), facts
    return facts


def refused(channel: Pchannel, asked: Asked, pressure: Pressure | None = None) -> Class:
    verdict = channel.send(asked, pressure)
    assert isinstance(verdict, Refuse), verdict
    assert verdict.refusal.message
    return verdict.refusal.kind


def test_a_repeat_gets_the_first_result_whatever_else_has_changed(channel: Pchannel) -> None:
    asked = channel.asked(count=3)
    first = channel.send(asked)
    assert isinstance(first, Facts)
    channel.control(Delete(), vcid=1)
    again = channel.judge(asked, Pressure(is_rejecting=True, room_bytes=0))
    assert isinstance(again, Repeat)
    assert (again.result.seq, again.result.tick, again.result.count) == (first.seq, first.tick, 3)
    assert again.result.end == first.end


def test_too_large_a_repeat_is_still_a_repeat(channel: Pchannel) -> None:
    asked = channel.asked()
    channel.send(asked)
    channel.settings = StreamSettings(message_max_bytes=1)
    assert isinstance(channel.judge(asked), Repeat)
    assert refused(channel, channel.asked()) is Class.INVALID


def test_sequences_have_no_gap_and_old_results_are_forgotten(channel: Pchannel) -> None:
    old = channel.asked()
    for _ in range(17):
        sent(channel)
    verdict = channel.judge(channel.asked(sequence=18))
    assert isinstance(verdict, Refuse)
    assert (verdict.refusal.kind, verdict.refusal.expected) == (Class.GAP, 17)
    assert verdict.rests_on == channel.fold.next_seq
    assert refused(channel, old) is Class.EXPIRED
    assert isinstance(channel.judge(replace(old, sequence=1)), Repeat)


def test_a_grant_fences_the_older_epoch_and_sequences_go_on(channel: Pchannel) -> None:
    channel.control(Grant(producer="n"))
    zombie = channel.asked("n")
    sent(channel, producer="n")
    channel.control(Grant(producer="n"))
    assert refused(channel, zombie) is Class.STALE_PRODUCER
    asked = channel.asked("n")
    assert asked.sequence == 1
    assert asked.epoch > zombie.epoch
    assert isinstance(channel.judge(asked), Admit)
    assert refused(channel, replace(asked, epoch=asked.epoch + 1)) is Class.MOVED


def test_an_unknown_producer(channel: Pchannel) -> None:
    assert refused(channel, channel.asked("n", epoch=3)) is Class.EXPIRED
    assert refused(channel, channel.asked(sequence=2)) is Class.GAP
    assert refused(channel, channel.asked(grant_tick=channel.tick + 1)) is Class.INVALID
    assert refused(channel, channel.asked(grant_tick=-1)) is Class.EXPIRED


def small(sessions: int) -> Pchannel:
    made = Pchannel(
        limits=TableLimits(sessions=sessions, session_forget_us=1000, session_young_us=100)
    )
    made.create(1)
    return made


def test_a_full_table_forgets_only_the_idle_and_takes_no_late_repeat_as_new() -> None:
    channel = small(1)
    late = channel.asked("a")
    sent(channel, producer="a")
    assert refused(channel, channel.asked("b")) is Class.LATER
    channel.clock_us = channel.tick + 200
    sent(channel, producer="b")
    assert list(channel.fold.sessions) == ["b"]
    channel.clock_us = channel.tick + 2000
    assert refused(channel, late) is Class.EXPIRED
    assert refused(channel, replace(late, sequence=1)) is Class.EXPIRED
    assert isinstance(channel.judge(channel.asked("c")), Admit)


def test_a_session_with_an_open_transaction_is_not_forgotten() -> None:
    channel = small(1)
    sent(channel, producer="a", number=0, begin=True)
    channel.clock_us = channel.tick + 5000
    assert refused(channel, channel.asked("b")) is Class.LATER
    assert "a" in channel.fold.sessions


def test_channels_that_are_not_there(channel: Pchannel) -> None:
    assert refused(channel, channel.asked(vcid=2)) is Class.GONE
    channel.control(Delete(), vcid=1)
    assert refused(channel, channel.asked()) is Class.GONE


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"commit": True},
        {"begin": True},
        {"number": 0, "begin": True, "join": True},
        {"number": 0, "begin": True, "abort": True},
        {"number": 0, "abort": True, "commit": True},
        {"number": 0, "begin": True, "keep_alive_ms": 1},
        {"number": 0, "begin": True, "keep_alive_ms": 60_001},
        {"number": 0},
        {"number": 0, "commit": True, "count": 0},
        {"size_bytes": 1 << 40},
        {"largest_bytes": 1 << 40},
    ],
)
def test_nonsense_is_refused(channel: Pchannel, wrong: dict[str, Any]) -> None:
    assert refused(channel, channel.asked(**wrong)) is Class.INVALID


def test_a_transaction_from_begin_to_commit(channel: Pchannel) -> None:
    begin = sent(channel, number=0, begin=True, count=0)
    assert begin.count == 1
    assert begin.messages == 0
    sent(channel, number=0, count=2)
    asked = channel.asked(number=0, commit=True, count=1)
    commit = channel.send(asked)
    assert isinstance(commit, Facts)
    again = channel.judge(asked)
    assert isinstance(again, Repeat)
    assert (again.result.seq, again.result.tick, again.result.count) == (
        commit.seq,
        commit.last_tick,
        3,
    )
    assert again.result.low == begin.seq
    assert not channel.fold.open
    assert refused(channel, channel.asked(number=0)) is Class.INVALID
    assert refused(channel, channel.asked(number=0, begin=True)) is Class.INVALID


def test_an_aborted_transaction_refuses_what_follows(channel: Pchannel) -> None:
    begin = sent(channel, number=0, begin=True)
    channel.control(AbortTxn(txn=begin.seq, reason="late"), vcid=1)
    verdict = channel.judge(channel.asked(number=0, commit=True, count=0))
    assert isinstance(verdict, Refuse)
    assert (verdict.refusal.kind, verdict.refusal.reason) == (Class.ABORTED, "late")
    sent(channel, number=1, begin=True, count=2, commit=True)


def test_limits_of_transactions() -> None:
    channel = Pchannel(
        settings=StreamSettings(
            transactions_per_session=1,
            transactions_open=2,
            transaction_max_entries=3,
            transaction_max_bytes=35,
        )
    )
    channel.create(1)
    channel.create(2)
    sent(channel, number=0, begin=True, count=2)
    assert refused(channel, channel.asked(number=1, begin=True)) is Class.INVALID
    sent(channel, producer="q", number=0, begin=True)
    assert refused(channel, channel.asked("r", number=0, begin=True)) is Class.LATER
    assert refused(channel, channel.asked(number=0, count=2, size_bytes=0)) is Class.INVALID
    assert refused(channel, channel.asked(number=0, count=1, size_bytes=16)) is Class.INVALID
    assert refused(channel, channel.asked(number=0, vcid=2)) is Class.INVALID


def test_ends_of_transactions_pass_reject_and_a_full_queue(channel: Pchannel) -> None:
    sent(channel, number=0, begin=True)
    pressure = Pressure(is_rejecting=True, room_bytes=0)
    assert refused(channel, channel.asked(number=0), pressure) is Class.LATER
    end = channel.asked(number=0, commit=True, count=0, size_bytes=0)
    assert refused(channel, end, replace(pressure, control_room_bytes=0)) is Class.LATER
    assert isinstance(channel.send(end, pressure), Facts)
