"""The stamp of one entry, policy by policy."""

from __future__ import annotations

import pytest

from woodpecker.core.timestamps import AHEAD_LIMIT_US, POLICIES, raised, stamp
from woodpecker.errors import InvalidRequest

CLOCK = 10 * AHEAD_LIMIT_US


@pytest.mark.parametrize(
    ("policy", "previous", "supplied", "stored"),
    [
        ("prefer", 0, None, CLOCK),
        ("prefer", 0, 7, 7),
        ("prefer", 9, 7, 9),
        ("prefer", CLOCK + 5, None, CLOCK + 5),
        ("prefer", 0, CLOCK + 2 * AHEAD_LIMIT_US, CLOCK + AHEAD_LIMIT_US),
        ("arrival", 0, 7, CLOCK),
        ("arrival", CLOCK + 5, 7, CLOCK + 5),
        ("require", 0, 7, 7),
        ("require", 9, 7, 9),
        ("require", 0, CLOCK + AHEAD_LIMIT_US, CLOCK + AHEAD_LIMIT_US),
        ("exact", 7, 7, 7),
        ("exact", 0, (1 << 63) - 1, (1 << 63) - 1),
        ("exact", 0, 0, 0),
    ],
)
def test_what_is_stored(policy: str, previous: int, supplied: int | None, stored: int):
    assert stamp(policy, previous_us=previous, supplied_us=supplied, clock_us=CLOCK) == stored


@pytest.mark.parametrize(
    ("policy", "supplied"),
    [
        ("require", None),
        ("exact", None),
        ("require", CLOCK + AHEAD_LIMIT_US + 1),
        ("exact", 99),
        *((policy, wrong) for policy in POLICIES for wrong in (-1, 1 << 63, "7", 7.0)),
    ],
)
def test_what_is_refused(policy: str, supplied):
    with pytest.raises(InvalidRequest):
        stamp(policy, previous_us=100, supplied_us=supplied, clock_us=CLOCK)


def test_raised_never_falls_and_never_changes_its_input():
    given = [3, 1, 5, 4]
    assert raised(given, 2) == [3, 3, 5, 5]
    assert given == [3, 1, 5, 4]
    assert raised([], 9) == []
    assert raised([4, 4, 9], 5) == [5, 5, 9]
    assert raised([4, 4, 9], 4) == [4, 4, 9]
