"""A schedule against a dictionary that is searched."""

from __future__ import annotations

import random

import pytest

from woodpecker.logstore.schedule import Schedule


@pytest.mark.parametrize("seed", range(20))
def test_the_earliest_time_of_each_name_counts(seed: int) -> None:
    rng = random.Random(seed)
    schedule, due_ms, now_ms = Schedule(), dict[str, float](), 0.0
    for _ in range(500):
        if rng.random() < 0.5:
            name, at_ms = f"log-{rng.randrange(20)}", now_ms + rng.randrange(50)
            schedule.put(name, at_ms)
            due_ms[name] = min(at_ms, due_ms.get(name, at_ms))
        else:
            now_ms += rng.randrange(10)
            taken = schedule.pop(now_ms)
            first_ms = min(due_ms.values(), default=None)
            if taken is None:
                assert first_ms is None or first_ms > now_ms
            else:
                assert due_ms.pop(taken) == first_ms
        assert len(schedule) == len(due_ms)
        assert schedule.next_ms() == min(due_ms.values(), default=None)
        assert all(name in schedule for name in due_ms)


def test_what_is_moved_often_takes_no_more_room() -> None:
    schedule = Schedule()
    for step in range(10_000):
        schedule.put("log", 10_000.0 - step)
        schedule.put("log", 20_000.0)
        schedule.pop(20_000.0)
    assert len(schedule) == len(schedule._heap) == 0
    assert schedule.next_ms() is None
