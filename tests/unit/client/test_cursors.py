"""Cursors as a user meets them: creation, commits, fencing by generation, retention, deletion."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.client.background_kit import NAME, World, create, fill

from woodpecker.client.background import BackgroundWorker
from woodpecker.client.cursor import cursors_of, find_cursor
from woodpecker.client.deletion import delete_log
from woodpecker.client.log import Log
from woodpecker.client.retention import trim
from woodpecker.codec import keys
from woodpecker.core.commands import SetTrimPending
from woodpecker.errors import Conflict, Fenced, InvalidRequest, NotFound, OutcomeUnknown, OutOfRange
from woodpecker.metadata.memory import MemoryMetadata


async def made(segments: int = 3, **options: Any) -> tuple[World, Log]:
    world = World()
    log = await create(world.env(), **options)
    await fill(log, segments)
    return world, log


async def test_a_cursor_is_created_once_and_keeps_its_place() -> None:
    world, log = await made()
    first = await log.cursor("billing", start="earliest")
    assert first.position == 0
    await first.commit(7, data=b"state")
    again = await Log(world.env(), NAME, log.log_id).cursor("billing", start="latest")
    assert (again.position, again.data, again.generation) == (7, b"state", 0)
    assert (await log.cursor("other", start="latest")).position == 12
    assert (await log.cursor("third", start=5)).position == 5
    assert [cursor.name for cursor in await log.cursors()] == ["billing", "other", "third"]
    await again.commit(8)
    await first.refresh()
    assert (first.position, first.data) == (8, b"state")


async def test_a_commit_may_want_the_data_as_it_was_seen() -> None:
    _, log = await made()
    await (await log.cursor("billing")).commit(3, data=b"three")
    one, two = await log.cursor("billing"), await log.cursor("billing")
    await one.commit(5, data=b"five", expect=b"three")
    with pytest.raises(Conflict):
        await two.commit(4, data=b"four", expect=b"three")
    await two.refresh()
    assert (two.position, two.data) == (5, b"five")


async def test_a_cursor_may_be_opened_without_making_it() -> None:
    _, log = await made()
    with pytest.raises(NotFound):
        await log.cursor("billing", create=False)
    await log.cursor("billing", start=3)
    assert (await log.cursor("billing", create=False)).position == 3


async def test_only_what_was_written_can_be_done() -> None:
    _, log = await made()
    cursor = await log.cursor("billing")
    await cursor.commit(12)
    with pytest.raises(InvalidRequest, match="beyond the tail"):
        await cursor.commit(13)
    for wrong in (-1, True, 1.5):
        with pytest.raises(InvalidRequest):
            await cursor.commit(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="cursor data"):
        await cursor.commit(12, data=bytes((64 << 10) + 1))
    with pytest.raises(OutOfRange):
        await log.cursor("late", start=13)
    with pytest.raises(InvalidRequest):
        await log.cursor("odd", start="middle")
    assert [c.name for c in await log.cursors()] == ["billing"]


async def test_who_attaches_fences_handles_opened_before() -> None:
    world, log = await made()
    old = await log.cursor("billing")
    new = await Log(world.env(), NAME, log.log_id).cursor("billing")
    await new.attach(data=b"mine")
    assert new.generation == 1
    with pytest.raises(Fenced) as caught:
        await old.commit(4)
    assert caught.value.outcome == "not_written"
    with pytest.raises(Fenced):
        await old.refresh()
    await new.commit(5)
    assert (await find_cursor(log._env, NAME, log.log_id, "billing")).position == 5


async def test_a_cursor_moved_back_below_what_is_kept_stays_where_it_was() -> None:
    _, log = await made()
    cursor = await log.cursor("billing")
    await cursor.commit(10)
    await cursor.commit(6)  # back is allowed
    await trim(log._env, NAME, log.log_id, before=5)
    with pytest.raises(OutOfRange) as caught:
        await cursor.commit(4)
    assert caught.value.earliest == 5
    assert cursor.position == 6
    await cursor.refresh()
    assert cursor.position == 6


async def test_creation_below_a_pending_trim_is_refused_and_leaves_nothing() -> None:
    world, log = await made()
    command = SetTrimPending(log_id=log.log_id, before=8, token="t")
    await log._env.catalog.change(NAME, command)
    with pytest.raises(OutOfRange) as caught:
        await log.cursor("billing", start=3)
    assert caught.value.earliest == 8
    assert not [key for key in world.records.by_key if key.startswith(keys.CURSORS)]
    assert (await log.cursor("billing", start="earliest")).position == 8
    await BackgroundWorker(world.env()).run_once(NAME)  # nobody follows the intention: withdrawn
    assert (await log.cursor("back", start=3)).position == 3


async def test_a_cursor_that_an_explicit_trim_has_passed_is_not_deleted_by_opening_it() -> None:
    _, log = await made()
    await log.cursor("billing", start=2)
    await trim(log._env, NAME, log.log_id, before=5)
    assert (await log.cursor("billing")).position == 2


async def test_a_trim_that_holds_stops_at_the_lowest_cursor() -> None:
    _, log = await made()
    await log.cursor("slow", start=3)
    await log.cursor("fast", start=9)
    plan = await trim(log._env, NAME, log.log_id, before=8, hold=True, dry_run=True)
    assert (plan.trim_point, plan.held_by, plan.dry_run) == (3, "slow", True)
    assert (await log._manifest()).trim_point == 0
    done = await trim(log._env, NAME, log.log_id, before=8, hold=True)
    assert (done.trim_point, done.held_by) == (3, "slow")
    manifest = await log._manifest()
    assert (manifest.trim_point, manifest.trim_pending, manifest.trim_token) == (3, None, "")


async def test_trims_that_cannot_be_are_refused() -> None:
    _, log = await made()
    for before in (13, 1 << 40):
        with pytest.raises(OutOfRange) as caught:
            await trim(log._env, NAME, log.log_id, before=before)
        assert caught.value.tail == 12
    for wrong in (-1, True, "3"):
        with pytest.raises(InvalidRequest):
            await trim(log._env, NAME, log.log_id, before=wrong)  # type: ignore[arg-type]
    assert (await trim(log._env, NAME, log.log_id, before=12)).entries == 12
    assert (await trim(log._env, NAME, log.log_id, before=4)).entries == 0  # never back


async def test_deleting_a_cursor_lets_retention_go_on() -> None:
    _, log = await made()
    cursor = await log.cursor("slow", start=3)
    await cursor.delete()
    await cursor.delete()  # no error
    with pytest.raises(NotFound):
        await cursor.commit(4)
    with pytest.raises(NotFound):
        await find_cursor(log._env, NAME, log.log_id, "slow")
    assert (await trim(log._env, NAME, log.log_id, before=8, hold=True)).trim_point == 8
    assert (await log.cursor("slow")).position == 8


class NoRemoval(MemoryMetadata):
    """A store that cannot remove under a condition, like most buckets."""

    async def remove(self, key: str, *, expect: str) -> bool:
        return False


async def test_where_nothing_can_be_removed_a_deleted_cursor_is_marked_so() -> None:
    world, log = await made()
    store = NoRemoval(world.runtime, world.records)
    log._env.catalog.store = store
    cursor = await log.cursor("slow", start=3)
    await cursor.delete()
    assert await log.cursors() == []
    assert await cursors_of(log._env).lowest(log.log_id) is None
    with pytest.raises(NotFound):
        await cursor.commit(4)
    assert (await log.cursor("slow", start=5)).position == 5  # made anew over the mark


class LosesAnswers(MemoryMetadata):
    """Every write takes effect; of cursor records the first answers get lost."""

    lost = 2

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        version = await super().put(key, value, expect=expect)
        if key.startswith(keys.CURSORS) and self.lost:
            self.lost -= 1
            raise OutcomeUnknown("the answer was lost")
        return version


async def test_a_lost_answer_is_decided_by_the_nonce_read_back() -> None:
    world, log = await made()
    log._env.catalog.store = LosesAnswers(world.runtime, world.records)
    cursor = await log.cursor("billing", start=3)
    await cursor.commit(6)
    assert (await log.cursor("billing")).position == 6
    writes = [k for k in world.records.by_key if k.startswith(keys.CURSORS)]
    assert len(writes) == 1


async def test_a_cursor_of_a_deleted_log_leaves_nothing() -> None:
    world, log = await made()
    other = Log(world.env(), NAME, log.log_id)
    await delete_log(world.env(), NAME)
    with pytest.raises(NotFound):
        await other.cursor("billing")
    again = await create(world.env())
    assert again.log_id != log.log_id
    assert await again.cursors() == []
    assert not [key for key in world.records.by_key if key.startswith(keys.CURSORS)]


async def test_who_slept_and_goes_back_below_what_is_kept_writes_nothing() -> None:
    world, log = await made()
    awake, asleep = await log.cursor("billing"), await log.cursor("billing")
    await awake.commit(12)
    await trim(log._env, NAME, log.log_id, before=12, hold=True)
    writes = world.records.writes
    with pytest.raises(OutOfRange):
        await asleep.commit(4)
    assert world.records.writes == writes
    await asleep.refresh()
    assert asleep.position == 12


class Gated(MemoryMetadata):
    """Each write of a cursor waits until it is let through."""

    def __init__(self, world: World) -> None:
        super().__init__(world.runtime, world.records)
        self.allowed = asyncio.Semaphore(0)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        if key.startswith(keys.CURSORS):
            await self.allowed.acquire()
        return await super().put(key, value, expect=expect)


async def test_two_that_go_back_beside_a_trim_leave_the_cursor_where_it_was() -> None:
    """One takes back what the other has built upon."""
    world, log = await made()
    await (await log.cursor("billing")).commit(12)
    stores, commits = [Gated(world), Gated(world)], []
    for store, position in zip(stores, (6, 5), strict=True):
        env = world.env()
        env.catalog.store = store
        cursor = await Log(env, NAME, log.log_id).cursor("billing")
        commits.append(asyncio.ensure_future(cursor.commit(position)))
    await asyncio.sleep(0.01)  # both may go back, so far
    await trim(log._env, NAME, log.log_id, before=12)
    stores[0].allowed.release()
    await asyncio.sleep(0.01)  # 6 is written, and wants to be taken back
    for _ in range(3):
        stores[1].allowed.release()  # 5 is written over it, and taken back
    with pytest.raises(OutOfRange):
        await commits[1]
    for _ in range(3):
        stores[0].allowed.release()
    with pytest.raises(OutOfRange):
        await commits[0]
    assert (await log.cursor("billing")).position == 12
