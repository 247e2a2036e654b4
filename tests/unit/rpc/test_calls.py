"""Requests under way: one timer for all, numbers never twice."""

from __future__ import annotations

import asyncio

import pytest

from woodpecker.codec.messages import Done, Ping, Tell
from woodpecker.errors import Unavailable
from woodpecker.rpc.base import Answer
from woodpecker.rpc.calls import COARSE_MS, Calls, waiting
from woodpecker.testing.virtual import on_virtual_time


def begin(calls, request, timeout_ms):
    future, told = waiting()
    return calls.begin(request, timeout_ms, told), future


@on_virtual_time
async def test_each_ends_at_its_time_and_never_before():
    calls, loop = Calls("node n1"), asyncio.get_running_loop()
    ended: dict[int, float] = {}

    def note(timeout_ms):
        return lambda _: ended.setdefault(timeout_ms, loop.time() * 1000)

    timeouts = (5_000, 1, 250, 7_000, 999, 30, 100_000)
    futures = [begin(calls, Tell(name="x"), ms)[1] for ms in timeouts]
    for ms, future in zip(timeouts, futures, strict=True):
        future.add_done_callback(note(ms))
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    assert "n1 did not answer within 5000 ms (tell)" in str(results[0])
    assert all(ms <= ended[ms] <= ms + 2 * COARSE_MS for ms in timeouts)
    assert ended[1] <= 11
    assert len(calls) == 0


@on_virtual_time
async def test_thousands_share_few_timers(monkeypatch):
    loop = asyncio.get_running_loop()
    timers = []
    call_at = loop.call_at

    def counted(*args, **kwargs):
        timers.append(args)
        return call_at(*args, **kwargs)

    monkeypatch.setattr(loop, "call_at", counted)
    calls = Calls("node")
    begun = [begin(calls, Ping(), 10_000 + number % 50) for number in range(10_000)]
    assert len({number for number, _ in begun}) == 10_000
    assert len(timers) <= 2
    for number, future in begun:
        calls.answered(number, Answer(Done()))
        assert future.done()
    await asyncio.sleep(60)
    assert len(timers) <= 4


@on_virtual_time
async def test_late_unknown_and_cancelled_answers_are_passed_over():
    calls = Calls("node")
    number, future = begin(calls, Ping(), 10)
    cancelled_number, cancelled = begin(calls, Ping(), 60_000)
    cancelled.cancel()
    with pytest.raises(Unavailable):
        await future
    for late in (number, cancelled_number, 99, 0):
        calls.answered(late, Answer(Done()))
    assert len(calls) == 0


@on_virtual_time
async def test_a_broken_link_fails_all_and_leaves_no_timer():
    calls = Calls("node")
    futures = [begin(calls, Ping(), ms)[1] for ms in (10, 60_000)]
    calls.fail("node: gone")
    for future in futures:
        with pytest.raises(Unavailable, match="node: gone"):
            await future
    again = begin(calls, Ping(), 10)[1]
    with pytest.raises(Unavailable, match="did not answer"):
        await again


@on_virtual_time
async def test_who_is_told_hears_at_once_and_a_bug_there_is_its_own():
    loop, calls = asyncio.get_running_loop(), Calls("node")
    bugs: list[object] = []
    heard: list[object] = []
    loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))

    def raises(_outcome):
        raise ZeroDivisionError

    first, second = calls.begin(Ping(), 10, raises), calls.begin(Ping(), 10, heard.append)
    calls.answered(first, Answer(Done()))
    calls.answered(second, Answer(Done()))
    assert heard == [Answer(Done())]
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
    calls.refuse(heard.append, Unavailable("never sent"))
    assert len(heard) == 1, "not before the call that could not send has returned"
    await asyncio.sleep(0)
    assert isinstance(heard[1], Unavailable)
