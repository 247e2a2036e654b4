"""Leases on records, in virtual time, with a store that loses answers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random

import pytest

from woodpecker.errors import InvalidRequest, OutcomeUnknown, Unavailable
from woodpecker.metadata.base import Record
from woodpecker.metadata.lease import RecordLease, RecordLeases
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords

KEY = "meta/lease"
TTL_MS = 3000


class VirtualRuntime:
    """Time moves when the test says so."""

    def __init__(self) -> None:
        self._now_ms = 0.0
        self._tokens = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        return int(self._now_ms * 1000)

    def monotonic_ms(self) -> float:
        return self._now_ms

    def token(self) -> str:
        return f"{next(self._tokens):032x}"

    def random(self) -> float:
        return 0.5

    async def sleep_ms(self, delay_ms: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ms + delay_ms, next(self._tokens), future))
        await future

    def spawn(self, work, name):
        return asyncio.get_running_loop().create_task(work, name=name)

    async def advance(self, delay_ms: float) -> None:
        until_ms = self._now_ms + delay_ms
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until_ms:
            self._now_ms, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await self._settle()
        self._now_ms = until_ms

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


class Faulty:
    """A store in front of another that can fail; ``fail`` is asked before each call."""

    def __init__(
        self, store: MemoryMetadata, runtime: VirtualRuntime, *, removes: bool = True
    ) -> None:
        self._store = store
        self._runtime = runtime
        self.answer_ms = 0.0
        self._removes = removes
        self.fail = lambda: ""  # "", "away", "lost request", "lost answer"
        self.puts: list[tuple[bytes, str | None]] = []

    async def get(self, key: str) -> Record | None:
        if self.fail() == "away":
            raise Unavailable("away")
        return await self._store.get(key)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        how = self.fail()
        self.puts.append((value, expect))
        if how == "away":
            raise Unavailable("away")
        if how == "lost request":
            raise OutcomeUnknown("who knows")
        version = await self._store.put(key, value, expect=expect)
        if self.answer_ms:
            await self._runtime.sleep_ms(self.answer_ms)
        if how == "lost answer":
            raise OutcomeUnknown("who knows")
        return version

    async def remove(self, key: str, *, expect: str) -> bool:
        if self.fail():
            raise Unavailable("away")
        return await self._store.remove(key, expect=expect) if self._removes else False


class Two:
    """Two processes' leases on one set of records."""

    def __init__(self, *, removes: bool = True) -> None:
        self.runtime = VirtualRuntime()
        records = MemoryRecords()
        self.plain = MemoryMetadata(self.runtime, records)
        self.one_store = Faulty(
            MemoryMetadata(self.runtime, records), self.runtime, removes=removes
        )
        self.other_store = Faulty(
            MemoryMetadata(self.runtime, records), self.runtime, removes=removes
        )
        self.one = RecordLeases(self.one_store, self.runtime)
        self.other = RecordLeases(self.other_store, self.runtime)


@pytest.fixture
async def two():
    pair = Two()
    yield pair
    await pair.one.close()
    await pair.other.close()


async def test_a_follower_waits_for_the_ttl_of_an_unchanged_version(two):
    assert await two.one.acquire(KEY, "one", TTL_MS) is not None
    await two.one.close()
    assert await two.other.acquire(KEY, "other", 10) is None  # first sight; the holder's ttl counts
    await two.runtime.advance(TTL_MS - 1)
    assert await two.other.acquire(KEY, "other", 10) is None
    await two.runtime.advance(1)
    assert await two.other.acquire(KEY, "other", 10) is not None


async def test_a_renewal_starts_the_wait_anew(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    for _ in range(20):
        assert await two.other.acquire(KEY, "other", TTL_MS) is None
        await two.runtime.advance(TTL_MS / 2)
    assert not lease.lost


async def test_a_lost_answer_to_a_renewal_is_found_out(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    answers = iter(["lost answer"])
    two.one_store.fail = lambda: next(answers, "")
    await two.runtime.advance(TTL_MS * 3)
    assert not lease.lost
    first, again = two.one_store.puts[1:3]
    assert first == again  # identical bytes under the same condition


async def test_a_lost_renewal_is_sent_again(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    answers = iter(["lost request", "away", "lost request"])
    two.one_store.fail = lambda: next(answers, "")
    await two.runtime.advance(TTL_MS * 3)
    assert not lease.lost
    assert len(set(two.one_store.puts[1:5])) == 1


async def test_a_lease_without_renewals_is_lost_after_its_ttl(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    two.one_store.fail = lambda: "away"
    await two.runtime.advance(TTL_MS - 1)
    assert not lease.lost
    await two.runtime.advance(1)
    assert lease.lost
    two.one_store.fail = lambda: ""
    await two.runtime.advance(TTL_MS * 2)
    assert lease.lost  # for good


async def test_a_renewal_counts_from_before_it_was_sent(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    two.one_store.answer_ms = TTL_MS / 2
    await two.runtime.advance(TTL_MS / 3 + TTL_MS / 2)
    two.one_store.fail = lambda: "away"
    await two.runtime.advance(TTL_MS / 2 - 1)
    assert not lease.lost
    await two.runtime.advance(1)
    assert lease.lost


async def test_a_lease_taken_by_others_is_lost(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    found = await two.plain.get(KEY)
    assert found is not None
    await two.plain.put(KEY, found.value.replace(b"one", b"two"), expect=found.version)
    found = await two.plain.get(KEY)
    assert found is not None
    fields = json.loads(found.value) | {"nonce": "of somebody else"}
    version = await two.plain.put(KEY, json.dumps(fields).encode(), expect=found.version)
    await two.runtime.advance(TTL_MS / 2)
    assert lease.lost
    await lease.release()
    found = await two.plain.get(KEY)
    assert found is not None
    assert found.version == version


@pytest.mark.parametrize("how", ["lost answer", "lost request"])
async def test_taking_with_an_unclear_answer_goes_by_effect(two, how):
    answers = iter(["", how])
    two.one_store.fail = lambda: next(answers, "")
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert (lease is not None) == (how == "lost answer")
    if lease is not None:
        await two.runtime.advance(TTL_MS * 3)
        assert not lease.lost


async def test_without_removal_a_released_lease_is_marked_free():
    two = Two(removes=False)
    for _ in range(3):
        lease = await two.one.acquire(KEY, "one", TTL_MS)
        assert lease is not None
        await lease.release()
        lease = await two.other.acquire(KEY, "other", TTL_MS)
        assert lease is not None
        assert await two.one.acquire(KEY, "one", TTL_MS) is None
        await lease.release()


async def test_release_after_an_unclear_renewal_still_frees(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    answers = iter(["lost answer"])
    two.one_store.fail = lambda: next(answers, "")
    await two.runtime.advance(TTL_MS / 3)
    await lease.release()
    assert await two.other.acquire(KEY, "other", TTL_MS) is not None


async def test_release_of_a_store_that_is_away_is_silent(two):
    lease = await two.one.acquire(KEY, "one", TTL_MS)
    assert lease is not None
    two.one_store.fail = lambda: "away"
    await lease.release()
    assert lease.lost


async def test_a_record_that_is_no_lease_is_refused(two):
    for value in (b"", b"\xff", b"[]", b'{"holder": "x"}', b'{"holder":1,"nonce":2,"ttl_ms":"x"}'):
        found = await two.plain.get(KEY)
        await two.plain.put(KEY, value, expect=found.version if found else None)
        with pytest.raises(InvalidRequest, match=KEY):
            await two.one.acquire(KEY, "one", TTL_MS)
    for holder, ttl_ms in (("", TTL_MS), ("one", 0), ("one", -1)):
        with pytest.raises(InvalidRequest):
            await two.one.acquire("meta/other", holder, ttl_ms)


@pytest.mark.parametrize("seed", range(50))
async def test_holders_never_overlap_and_somebody_follows(seed):
    rng = random.Random(seed)
    two = Two(removes=rng.random() < 0.5)
    flaky = ["", "", "", "away", "lost request", "lost answer"]
    moods = {"one": flaky, "other": flaky}
    two.one_store.fail = lambda: rng.choice(moods["one"])
    two.other_store.fail = lambda: rng.choice(moods["other"])
    held: dict[str, list[RecordLease]] = {"one": [], "other": []}
    taken = 0
    for _ in range(300):
        if rng.random() < 0.1:  # for a while
            moods[rng.choice(["one", "other"])] = rng.choice([flaky, [""], ["away"]])
        await two.runtime.advance(rng.choice([1, 50, 400, TTL_MS / 3, TTL_MS]))
        for name, leases in (("one", two.one), ("other", two.other)):
            mine = held[name]
            if mine and rng.random() < 0.05:
                await mine.pop().release()
            try:
                lease = await leases.acquire(KEY, name, TTL_MS)
            except Unavailable:
                lease = None
            if lease is not None:
                mine.append(lease)
                taken += 1
        living = [lease for mine in held.values() for lease in mine if not lease.lost]
        assert len(living) <= 1
    assert taken > 1
    two.other_store.fail = lambda: ""
    await two.one.close()
    waited_ms = 0.0  # the one left gets it, if it has not got it
    while not any(not lease.lost for lease in held["other"]):
        held["other"] += [lease] if (lease := await two.other.acquire(KEY, "o", TTL_MS)) else []
        await two.runtime.advance(TTL_MS / 10)
        waited_ms += TTL_MS / 10
    assert waited_ms <= 2 * TTL_MS
    await two.other.close()
