"""Timestamps of entries: order, not time, rules (log protocol, section 3)."""

from __future__ import annotations

from woodpecker.errors import InvalidRequest

AHEAD_LIMIT_US = 3_600_000_000  # a supplied timestamp may be at most 1 h ahead of our clock

POLICIES = ("prefer", "arrival", "require", "exact")


def stamp(policy: str, *, previous_us: int, supplied_us: int | None, clock_us: int) -> int:
    """The timestamp to store for an entry, never below ``previous_us``.

    prefer: the supplied one, else the clock. arrival: the clock. require: a supplied one, at most 1 h
    ahead. exact: the supplied one as it is, never below the one before.
    Raises:
        InvalidRequest: the policy wants a timestamp and there is none, or it is out of bounds.
    """
    if supplied_us is not None and not (
        isinstance(supplied_us, int) and 0 <= supplied_us < 1 << 63
    ):
        raise InvalidRequest(
            f"timestamp_us={supplied_us!r}: microseconds since 1970, an int within 0 .. 2^63 - 1"
        )
    if policy in ("require", "exact") and supplied_us is None:
        raise InvalidRequest(f"this log's timestamp policy is {policy!r}: pass timestamp_us=")
    if policy == "exact":
        assert supplied_us is not None
        if supplied_us < previous_us:
            raise InvalidRequest(
                f"timestamp_us {supplied_us} is below the one before, {previous_us} (policy 'exact')"
            )
        return supplied_us
    cap = clock_us + AHEAD_LIMIT_US
    if policy == "require" and supplied_us is not None and supplied_us > cap:
        raise InvalidRequest(
            f"timestamp_us {supplied_us} is more than 1 h ahead of the clock ({clock_us})"
        )
    wanted = clock_us if policy == "arrival" or supplied_us is None else min(supplied_us, cap)
    return max(previous_us, wanted)


def raised(stamps: list[int], floor_us: int) -> list[int]:
    """``stamps`` (never falling themselves, or made so) with none below ``floor_us``."""
    if not stamps or (stamps[0] >= floor_us and stamps == sorted(stamps)):
        return stamps
    result = []
    for value in stamps:
        floor_us = max(floor_us, value)
        result.append(floor_us)
    return result
