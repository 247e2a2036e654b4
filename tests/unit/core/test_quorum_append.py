"""A quorum writer's pipeline: what counts, and what a lost member leaves behind."""

from __future__ import annotations

from woodpecker.core.ids import NO_BLOCK, State
from woodpecker.core.quorum_append import (
    Acked,
    Acknowledge,
    Event,
    Fail,
    Judge,
    Judged,
    Lost,
    Pipeline,
    Send,
    Stopped,
    Submit,
    TimedOut,
    can_confirm,
    start,
    step,
)


def after(*events: Event, members: int = 3, acks: int = 2) -> tuple[Pipeline, list[object]]:
    """The pipeline after some events, and the effects of the last one."""
    pipeline, effects = start(members, acks), ()
    for event in events:
        pipeline, effects = step(pipeline, event)  # type: ignore[assignment]
    return pipeline, list(effects)


def test_a_block_is_confirmed_by_the_second_of_three():
    pipeline, effects = after(Submit(number=0), Acked(member=2, number=0))
    assert (pipeline.lac, effects) == (NO_BLOCK, [])
    pipeline, effects = after(
        Submit(number=0), Acked(member=2, number=0), Acked(member=0, number=0)
    )
    assert (pipeline.lac, effects) == (0, [Acknowledge(number=0)])


def test_what_a_lost_member_has_still_counts():
    pipeline, effects = after(
        Submit(number=0), Acked(member=0, number=0), Lost(member=0), Acked(member=1, number=0)
    )
    assert (pipeline.lac, effects) == (0, [Acknowledge(number=0)])


def test_what_a_member_has_forgotten_does_not_count():
    pipeline, effects = after(
        Submit(number=0),
        Acked(member=0, number=0),
        Lost(member=0, has_forgotten=True),
        Acked(member=1, number=0),
    )
    assert (pipeline.lac, effects) == (NO_BLOCK, [])
    _, effects = step(pipeline, Acked(member=2, number=0))  # type: ignore[assignment]
    assert list(effects) == [Acknowledge(number=0)]


def test_what_was_confirmed_stays_so_whoever_forgets():
    pipeline, effects = after(
        Submit(number=0),
        Acked(member=0, number=0),
        Acked(member=1, number=0),
        Lost(member=0, has_forgotten=True),
    )
    assert (pipeline.lac, pipeline.has_ended, effects) == (0, False, [])


def test_after_a_second_loss_what_is_under_way_waits_for_other_means_or_its_time_out():
    pipeline, effects = after(
        Submit(number=0), Lost(member=0, has_forgotten=True), Lost(member=2, has_forgotten=True)
    )
    assert (pipeline.has_ended, effects) == (False, [])
    assert not can_confirm(pipeline, 0)
    pipeline, ended = step(pipeline, TimedOut())
    assert ended == (Fail(first=0, fenced=False),)


def test_an_idle_pipeline_outlives_its_quorum_and_can_be_closed():
    pipeline, effects = after(
        Submit(number=0),
        Acked(member=0, number=0),
        Acked(member=1, number=0),
        Lost(member=0),
        Lost(member=1),
    )
    assert (pipeline.has_ended, effects) == (False, [])
    assert not can_confirm(pipeline, pipeline.sent + 1)


def test_nothing_is_sent_while_the_manifest_is_read():
    pipeline, effects = after(Submit(number=0), Stopped(member=1))
    assert effects == [Judge(member=1)]
    pipeline, sent = step(pipeline, Submit(number=1))
    assert sent == ()
    judged = Judged(member=1, state=State.OPEN, mine=True)
    pipeline, sent = step(pipeline, judged)
    assert (sent, pipeline.lost) == ((Send(),), frozenset({1}))
