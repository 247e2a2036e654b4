"""Attachments, control records and what is said of transactions."""

from __future__ import annotations

from typing import Any

from tests.unit.streaming.core.kit import Pchannel

from woodpecker.streaming.core import orders
from woodpecker.streaming.core.admission import Refuse
from woodpecker.streaming.core.facts import (
    Broadcast,
    Create,
    Delete,
    Facts,
    Grant,
    TableLimits,
    Trim,
)
from woodpecker.streaming.core.orders import AttachedAs, Write, Written
from woodpecker.streaming.core.refusals import Class
from woodpecker.streaming.core.tables import KEPT_VERDICTS, Verdict
from woodpecker.streaming.settings import DEFAULTS, StreamSettings


def kind_of(verdict: object) -> Class:
    assert isinstance(verdict, Refuse)
    return verdict.refusal.kind


def test_attaching() -> None:
    channel = Pchannel()
    channel.create(1)
    fresh = orders.attach(channel.fold, "anon", 0)
    assert isinstance(fresh, AttachedAs)
    assert fresh.next_sequence == 0
    assert kind_of(orders.attach(channel.fold, "n", 5)) is Class.EXPIRED
    grant = channel.control(Grant(producer="n"))
    assert orders.granted(channel.fold, "n") == AttachedAs(
        producer="n", epoch=grant.seq, next_sequence=0, rests_on=grant.end
    )
    channel.send(channel.asked("n"))
    again = orders.attach(channel.fold, "n", grant.seq)
    assert isinstance(again, AttachedAs)
    assert again.next_sequence == 1
    assert kind_of(orders.attach(channel.fold, "n", 0)) is Class.STALE_PRODUCER
    assert kind_of(orders.attach(channel.fold, "n", 99)) is Class.MOVED


def test_a_grant_needs_room_for_the_session() -> None:
    channel = Pchannel(limits=TableLimits(sessions=1))
    channel.control(Grant(producer="n"))
    assert isinstance(orders.grant(channel.fold, "n", tick=channel.tick), Grant)
    assert kind_of(orders.grant(channel.fold, "m", tick=channel.tick)) is Class.LATER


def test_creating_and_deleting_channels() -> None:
    channel = Pchannel()
    create = Create(name="a")
    assert orders.judge_create(channel.fold, 7, create, settings=DEFAULTS) == Write(
        body=create, vcid=7
    )
    made = channel.create(7)
    again = orders.judge_create(channel.fold, 7, create, settings=DEFAULTS)
    assert isinstance(again, Written)
    assert again.place.seq == made.seq
    small = StreamSettings(vchannels_per_pchannel=1)
    assert kind_of(orders.judge_create(channel.fold, 8, create, settings=small)) is Class.LATER
    assert orders.judge_delete(channel.fold, 7) == Write(body=Delete(), vcid=7)
    channel.control(Delete(), vcid=7)
    assert isinstance(orders.judge_delete(channel.fold, 7), Written)


def test_a_create_that_comes_after_the_delete_creates_nothing() -> None:
    channel = Pchannel()
    assert isinstance(orders.judge_delete(channel.fold, 7), Write)
    channel.control(Delete(), vcid=7)
    late = orders.judge_create(channel.fold, 7, Create(name="a"), settings=DEFAULTS)
    assert kind_of(late) is Class.GONE
    channel.create(7)
    assert 7 not in channel.fold.vchannels


def test_trimming_a_channel() -> None:
    channel = Pchannel()
    assert kind_of(orders.judge_trim(channel.fold, 1, 0)) is Class.GONE
    channel.create(1)
    assert kind_of(orders.judge_trim(channel.fold, 1, 99)) is Class.INVALID
    channel.control(Trim(before=2), vcid=1)
    assert channel.fold.vchannels[1].trim_before == 2
    assert isinstance(orders.judge_trim(channel.fold, 1, 1), Written)
    channel.control(Trim(before=1), vcid=1)
    assert channel.fold.vchannels[1].trim_before == 2


def test_a_broadcast_is_written_once_for_each_channel() -> None:
    channel = Pchannel()
    channel.create(1)
    channel.create(2)
    broadcast = Broadcast(id=5, floor=4)
    assert isinstance(orders.judge_broadcast(channel.fold, 1, broadcast), Write)
    first = channel.control(broadcast, vcid=1)
    again = orders.judge_broadcast(channel.fold, 1, broadcast)
    assert isinstance(again, Written)
    assert again.place.seq == first.seq
    assert isinstance(orders.judge_broadcast(channel.fold, 2, broadcast), Write)
    assert kind_of(orders.judge_broadcast(channel.fold, 3, broadcast)) is Class.GONE
    channel.control(Broadcast(id=8, floor=8), vcid=2)
    assert kind_of(orders.judge_broadcast(channel.fold, 2, broadcast)) is Class.INVALID
    assert set(channel.fold.broadcasts) == {(8, 2)}


def begin(channel: Pchannel, number: int, **more: Any) -> Facts:
    facts = channel.send(channel.asked("n", number=number, begin=True, **more))
    assert isinstance(facts, Facts)
    return facts


def test_what_became_of_transactions() -> None:
    channel = Pchannel()
    channel.create(1)
    assert orders.describe(channel.fold, "n", 1, 0) == orders.FORGOTTEN
    old = channel.control(Grant(producer="n")).seq
    begin(channel, 0)
    assert orders.describe(channel.fold, "n", old, 0) == orders.OPEN
    done = begin(channel, 1, commit=True, count=2)
    verdict = orders.describe(channel.fold, "n", old, 1)
    assert isinstance(verdict, Verdict)
    assert verdict.position is not None
    assert (verdict.position.seq, verdict.count) == (done.end - 1, 2)
    assert orders.describe(channel.fold, "n", old, 2) == orders.FORGOTTEN  # it may still begin
    channel.control(Grant(producer="n"))
    replaced, never = (orders.describe(channel.fold, "n", old, number) for number in (0, 2))
    assert isinstance(replaced, Verdict)
    assert replaced.position is None
    assert isinstance(never, Verdict)
    assert never.reason == orders.NEVER_BEGUN
    assert orders.judge_abort(channel.fold, done.seq, "late") is None


def test_the_oldest_verdicts_are_forgotten_not_guessed() -> None:
    channel = Pchannel()
    channel.create(1)
    epoch = channel.control(Grant(producer="n")).seq
    for number in range(KEPT_VERDICTS + 1):
        begin(channel, number, commit=True)
    channel.control(Grant(producer="n"))
    assert orders.describe(channel.fold, "n", epoch, 0) == orders.FORGOTTEN
    assert isinstance(orders.describe(channel.fold, "n", epoch, 1), Verdict)


def test_a_session_that_was_forgotten_knows_nothing_of_older_epochs() -> None:
    limits = TableLimits(sessions=1, session_young_us=1, session_forget_us=10)
    channel = Pchannel(limits=limits)
    channel.create(1)
    epoch = channel.control(Grant(producer="n")).seq
    begin(channel, 0, commit=True)
    channel.clock_us = channel.tick + 100
    channel.control(Grant(producer="m"))
    channel.clock_us = channel.tick + 100
    channel.control(Grant(producer="n"))
    assert orders.describe(channel.fold, "n", epoch, 0) == orders.FORGOTTEN
