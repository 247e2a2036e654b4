"""Objects of layers above: never changed, never swept, exported and deleted with their log."""

from __future__ import annotations

import pytest
from tests.unit.client.background_kit import World, create, fill

import woodpecker as wp
from woodpecker.client.collect import collect_log
from woodpecker.client.deletion import delete_log
from woodpecker.errors import OutcomeUnknown
from woodpecker.storage.base import Buffer
from woodpecker.storage.memory import MemoryObjectStore


async def test_put_get_list_delete():
    async with wp.connect("memory://") as client:
        log = await client.create_log("orders")
        objects = log.objects
        await objects.put("checkpoints/2", b"two")
        await objects.put("checkpoints/1", b"")
        await objects.put("other", memoryview(b"more"))
        assert bytes(await objects.get("checkpoints/2")) == b"two"
        found = [(one.name, one.size) for one in await objects.list()]
        assert found == [("checkpoints/1", 0), ("checkpoints/2", 3), ("other", 4)]
        assert [one.name for one in await objects.list("checkpoints/")] == [
            "checkpoints/1",
            "checkpoints/2",
        ]
        await objects.delete("checkpoints/1", "never-there")
        with pytest.raises(wp.NotFound, match="has no object 'checkpoints/1'"):
            await objects.get("checkpoints/1")
        for bad in ("", "a//b", "../x", "a/" + "x" * 300):
            with pytest.raises(wp.InvalidRequest):
                await objects.put(bad, b"")


async def test_an_object_never_changes():
    async with wp.connect("memory://") as client:
        objects = (await client.create_log("orders")).objects
        await objects.put("checkpoint", b"mine")
        await objects.put("checkpoint", bytearray(b"mine"))  # again, after a lost answer
        with pytest.raises(wp.AlreadyExists, match="other bytes"):
            await objects.put("checkpoint", b"of a paused holder")
        assert bytes(await objects.get("checkpoint")) == b"mine"


async def test_the_log_of_that_name_is_another_one():
    async with wp.connect("memory://") as client:
        log = await client.create_log("orders")
        await log.objects.put("checkpoint", b"mine")
        await client.delete_log("orders")
        again = await client.create_log("orders")
        assert await again.objects.list() == []
        for late in (
            log.objects.put("checkpoint", b"late"),
            log.objects.get("checkpoint"),
            log.objects.list(),
            log.objects.delete("checkpoint"),
        ):
            with pytest.raises(wp.NotFound):
                await late


async def test_sweeps_leave_objects_alone_and_deletion_takes_them():
    world = World()
    log = await create(env := world.env())
    await fill(log, 2)
    await log.objects.put("checkpoints/1", b"state")
    await collect_log(env, log.name)
    assert bytes(await log.objects.get("checkpoints/1")) == b"state"
    await delete_log(env, log.name)
    assert not [key for key in world.bucket.objects if "/objects/" in key]


async def test_a_put_that_loses_against_a_deletion_leaves_nothing(monkeypatch):
    world = World()
    log = await create(world.env())
    plain = MemoryObjectStore.create

    async def delete_then_create(self: MemoryObjectStore, key: str, data: Buffer) -> str:
        monkeypatch.undo()
        await delete_log(world.env(), log.name)
        return await plain(self, key, data)

    monkeypatch.setattr(MemoryObjectStore, "create", delete_then_create)
    with pytest.raises(wp.NotFound):
        await log.objects.put("checkpoint", b"late")
    assert not [key for key in world.bucket.objects if "/objects/" in key]


@pytest.mark.parametrize("is_carried_out", [True, False])
async def test_a_lost_answer_is_asked_again(monkeypatch, is_carried_out):
    world = World()
    log = await create(world.env())
    plain = MemoryObjectStore.create

    async def lose(self: MemoryObjectStore, key: str, data: Buffer) -> str:
        monkeypatch.undo()
        if is_carried_out:
            await plain(self, key, data)
        raise OutcomeUnknown("cut")

    monkeypatch.setattr(MemoryObjectStore, "create", lose)
    await log.objects.put("checkpoint", b"state")
    assert bytes(await log.objects.get("checkpoint")) == b"state"
