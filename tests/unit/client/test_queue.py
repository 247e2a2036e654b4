"""The queue's quick way against a plain model: whatever is put in, seqs, sizes and results agree."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.client.queue import ENTRY_OVERHEAD_BYTES, Queue
from woodpecker.errors import NotWritten, Overloaded

MAX_BYTES, CUT_BYTES = 4_000, 1_000

PUTS = st.one_of(
    st.tuples(st.just("plain"), st.integers(0, 1_200)),
    st.tuples(st.just("many"), st.lists(st.integers(0, 300), min_size=1, max_size=4)),
    st.tuples(st.just("headed"), st.integers(0, 300)),
    st.tuples(st.just("stamped"), st.integers(0, 300)),
    st.tuples(st.sampled_from(["pop", "release", "attach", "look", "refuse", "shut"]), st.none()),
)


class Model:
    """Puts into a queue and remembers what must come out."""

    def __init__(self, loop) -> None:
        self.queue = Queue(
            next_seq=7,
            last_timestamp_us=0,
            max_bytes=MAX_BYTES,
            cut_bytes=CUT_BYTES,
            policy="prefer",
            now_us=lambda: 10,
            now_ms=lambda: 0.0,
        )
        self.loop = loop
        self.next_seq = 7
        self.costs: list[tuple[int, int]] = []  # seq and cost of each item that holds room
        self.waiting: list[tuple[asyncio.Future[Any], object]] = []
        self.popped: list[Any] = []

    def put(self, what, sizes) -> None:
        payloads = [bytes(size) for size in sizes]
        total, count, future = sum(sizes), len(sizes), self.loop.create_future()
        headers = [((b"n", b"v"),)] * count if what == "headed" else None
        cost = total + ENTRY_OVERHEAD_BYTES * count + (10 * count if headers else 0)
        result = range(self.next_seq, self.next_seq + count) if what == "many" else self.next_seq
        if what == "plain" and self.queue.put_plain(payloads[0], future):
            self.took(cost, count, future, result)
            return
        try:
            self.queue.put(
                payloads,
                future,
                payload_bytes=total,
                result=result,
                headers=headers,
                timestamps=[20] * count if what == "stamped" else None,
            )
        except Overloaded:
            assert self.held() > 0 and self.held() + cost > MAX_BYTES
        else:
            self.took(cost, count, future, result)

    def took(self, cost, count, future, result) -> None:
        assert self.held() == 0 or self.held() + cost <= MAX_BYTES
        self.costs.append((self.next_seq, cost))
        self.waiting.append((future, result))
        self.next_seq += count

    def held(self) -> int:
        return sum(cost for _, cost in self.costs)

    def do(self, what) -> None:
        queue = self.queue
        if what == "pop" and queue.drafts:
            self.popped.append(queue.pop())
        elif what == "release" and self.popped:
            draft = self.popped.pop(0)
            self.costs = [(s, c) for s, c in self.costs if s >= draft.base_seq + draft.count]
            queue.release(draft)
            draft.resolve()
        elif what == "attach" and queue.drafts:
            future = self.loop.create_future()
            queue.attach(future)
            self.waiting.append((future, 0))
        elif what == "look":
            assert (queue.next_seq, queue.taken_bytes) == (self.next_seq, self.held())
        elif what == "refuse" and queue.drafts:
            first = queue.drafts[0].base_seq
            queue.refuse_all(NotWritten("no"))
            self.costs = [(seq, cost) for seq, cost in self.costs if seq < first]
            self.next_seq = first
            self.waiting = [pair for pair in self.waiting if not pair[0].done()]
        elif what == "shut":
            queue.close_quick_way()
            assert not queue.put_plain(b"", self.loop.create_future())


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(PUTS, max_size=40))
def test_the_quick_way_changes_no_result(steps):
    loop = asyncio.new_event_loop()
    try:
        model = Model(loop)
        for what, size in steps:
            if what in ("plain", "headed", "stamped"):
                model.put(what, [size])
            elif what == "many":
                model.put(what, size)
            else:
                model.do(what)
        model.do("look")
        while model.queue.drafts:
            model.do("pop")
        for draft in model.popped:
            assert draft.payload_bytes == sum(map(len, draft.payloads))
            assert draft.payload_bytes <= CUT_BYTES or draft.count == len(draft.payloads)
        while model.popped:
            model.do("release")
        model.do("look")
        assert model.held() == 0
        assert all(future.result() == result for future, result in model.waiting)
    finally:
        loop.close()


def test_nobody_takes_the_quick_way_past_a_line():
    loop = asyncio.new_event_loop()
    model = Model(loop)
    model.put("plain", [10])
    model.queue.close_quick_way()
    model.queue.has_line = True
    model.put("many", [10])
    assert not model.queue.put_plain(b"", loop.create_future())
    model.queue.has_line = False
    model.put("many", [10])
    assert model.queue.put_plain(b"", loop.create_future())
    loop.close()
