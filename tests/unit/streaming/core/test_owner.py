"""The life of a pchannel on a node, step by step; and whatever the order of events, some things hold."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.streaming.core.owner import (
    AssignAsked,
    Broke,
    ClaimRefused,
    Effect,
    Event,
    OpenWriter,
    Owner,
    ReadRecord,
    RecordRead,
    ReleaseAsked,
    Replay,
    Serve,
    State,
    Stop,
    Stopped,
    TermRecorded,
    WriterEnded,
    WriterOpened,
    step,
)


def run(owner: Owner, *events: Event) -> tuple[Owner, list[Effect | None]]:
    effects = []
    for event in events:
        owner, effect = step(owner, event)
        effects.append(effect)
    return owner, effects


SERVED = (AssignAsked(term=3), RecordRead(is_mine=True, term=3), WriterOpened(), TermRecorded())


def test_a_whole_life() -> None:
    owner, effects = run(Owner(), *SERVED)
    assert effects == [ReadRecord(term=3), OpenWriter(term=3), Replay(term=3), Serve(term=3)]
    assert owner.state is State.SERVING
    owner, effects = run(owner, AssignAsked(term=3), ReleaseAsked(term=2))
    assert effects == [None, None]
    owner, effects = run(owner, ReleaseAsked(term=3), AssignAsked(term=3), Stopped())
    assert effects == [Stop(graceful=True), None, None]
    assert owner.state is State.CLOSED


def test_a_record_of_somebody_else_ends_it_before_the_fence() -> None:
    owner, effects = run(Owner(), AssignAsked(term=3), RecordRead(is_mine=False, term=3), Stopped())
    assert effects[1:] == [Stop(graceful=False), None]
    assert owner.state is State.CLOSED
    owner, _ = run(owner, AssignAsked(term=3))
    assert owner.state is State.CLOSED
    owner, effects = run(owner, AssignAsked(term=4))
    assert effects == [ReadRecord(term=4)]


def test_a_term_that_no_record_has_is_not_believed() -> None:
    owner, _ = run(Owner(), *SERVED, AssignAsked(term=10**12), Stopped())
    owner, effects = run(owner, AssignAsked(term=4), RecordRead(is_mine=False, term=3), Stopped())
    assert effects == [None, Stop(graceful=False), None]
    assert owner.state is State.CLOSED
    owner, effects = run(owner, AssignAsked(term=2), AssignAsked(term=3))
    assert effects == [None, ReadRecord(term=3)], "the real one is"


def test_a_refused_claim_ends_it() -> None:
    owner, _ = run(Owner(), *SERVED[:2], ClaimRefused(), Stopped())
    assert owner.state is State.CLOSED


def test_a_failed_opening_says_why() -> None:
    owner, effects = run(Owner(), *SERVED[:3], Broke(reason="no checkpoint"), Stopped())
    assert effects[-2] == Stop(graceful=False)
    assert (owner.state, owner.reason) == (State.FAILED, "no checkpoint")
    owner, effects = run(owner, AssignAsked(term=4))
    assert (owner.state, owner.reason, effects) == (State.OPENING, "", [ReadRecord(term=4)])


def test_a_newer_term_waits_for_the_older_life_to_be_gone() -> None:
    owner, effects = run(Owner(), *SERVED, AssignAsked(term=5), AssignAsked(term=6), Stopped())
    assert effects[-3:] == [Stop(graceful=True), None, ReadRecord(term=6)]
    owner, effects = run(owner, AssignAsked(term=7), RecordRead(is_mine=True, term=6), Stopped())
    assert effects == [Stop(graceful=False), None, ReadRecord(term=7)]


def test_an_ended_writer_opens_again_three_times_a_minute() -> None:
    owner, _ = run(Owner(), *SERVED)
    ended = WriterEnded(is_mine=True, monotonic_ms=1000)
    for _ in range(3):
        owner, effects = run(owner, ended, Stopped())
        assert effects == [Stop(graceful=False), ReadRecord(term=3)]
        owner, _ = run(owner, *SERVED[1:])
    calm, _ = run(owner, WriterEnded(is_mine=True, monotonic_ms=61_001), Stopped())
    assert calm.state is State.OPENING
    owner, _ = run(owner, ended, Stopped())
    assert owner.state is State.CLOSED


def test_a_writer_that_lost_its_claim_does_not_open_again() -> None:
    owner, _ = run(Owner(), *SERVED, WriterEnded(is_mine=False, monotonic_ms=0), Stopped())
    assert owner.state is State.CLOSED


def test_a_release_while_it_is_to_open_again_closes_it() -> None:
    ended = WriterEnded(is_mine=True, monotonic_ms=0)
    owner, _ = run(Owner(), *SERVED, ended, ReleaseAsked(term=3), Stopped())
    assert owner.state is State.CLOSED


terms = st.integers(1, 4)
events = st.one_of(
    st.builds(AssignAsked, term=terms),
    st.builds(ReleaseAsked, term=terms),
    st.builds(RecordRead, is_mine=st.booleans(), term=terms),
    st.just(WriterOpened()),
    st.just(ClaimRefused()),
    st.just(TermRecorded()),
    st.just(Broke(reason="x")),
    st.builds(WriterEnded, is_mine=st.booleans(), monotonic_ms=st.integers(0, 200_000)),
    st.just(Stopped()),
)


@settings(deadline=None)
@given(story=st.lists(events, max_size=30))
def test_whatever_happens(story: list[Event]) -> None:
    owner, opened = Owner(), 0
    for event in story:
        before = owner
        owner, effect = step(owner, event)
        if isinstance(event, RecordRead) and event.term < before.term:
            opened = 0  # of a term that nobody gave
            assert owner.wanted in {before.wanted, event.term - 1}
        else:
            assert owner.term >= before.term
            assert owner.wanted >= before.wanted
        if isinstance(effect, ReadRecord):  # a life begins only where the old one is gone
            assert before.state in {State.IDLE, State.CLOSED, State.FAILED, State.CLOSING}
            assert before.state is not State.CLOSING or event == Stopped()
            assert effect.term == owner.wanted
            assert owner.is_wanted
            opened = effect.term
        if owner.state is State.SERVING:
            assert owner.term == opened
        if before.state is not State.CLOSING and owner.state is State.CLOSING:
            assert isinstance(effect, Stop)
