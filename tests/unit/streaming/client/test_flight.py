"""Drafts on their way: what goes with each batch."""

from __future__ import annotations

from woodpecker.streaming.client.flight import Draft


def test_every_batch_of_an_anonymous_producer_tells_when_it_was_granted() -> None:
    """Without it, a batch behind one that has to wait is taken for one of a producer long forgotten."""
    for sequence in (0, 1):
        draft = Draft(messages=[], size_bytes=0, deadline_ms=0)
        draft.sequence = sequence
        assert draft.frame(1, 2, 77).grant_tick == 77
