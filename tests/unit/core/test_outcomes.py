"""What a manifest proves about an entry without answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.manifest import End, Segment
from woodpecker.core.outcomes import Known, judge

MINE = "a" * 32
OPEN = Segment(
    id=3,
    kind=Kind.OBJECT,
    state=State.OPEN,
    epoch=1,
    token=MINE,
    base_seq=10,
    prev_digest=ZERO_DIGEST,
)
CLOSED = replace(OPEN, state=State.CLOSED, end=End(block=4, seq=20, digest="b" * 32))


@pytest.mark.parametrize(
    ("segment", "seq", "known"),
    [
        (None, 15, Known.UNKNOWN),
        (OPEN, 15, Known.UNKNOWN),
        (CLOSED, 19, Known.WRITTEN),
        (CLOSED, 20, Known.NOT_WRITTEN),
        (replace(CLOSED, token="c" * 32), 19, Known.UNKNOWN),
    ],
)
def test_only_the_end_of_my_own_segment_proves_anything(segment, seq: int, known: Known):
    assert judge(segment, token=MINE, seq=seq) is known
