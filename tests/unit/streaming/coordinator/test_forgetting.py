"""Nodes that are gone for long vanish: from the store, and from what is shown."""

from __future__ import annotations

import pytest
from tests.unit.streaming.coordinator.kit import World
from tests.unit.streaming.coordinator.test_assigning import running

from woodpecker.metadata.memory import MemoryMetadata
from woodpecker.streaming.codec.records import NODES
from woodpecker.streaming.coordinator import membership
from woodpecker.streaming.requests import Drain, Freeze
from woodpecker.testing.virtual import on_virtual_time


async def known(world: World) -> set[str]:
    return {info.node for info in (await world.state()).nodes}


@on_virtual_time
async def test_a_node_that_is_gone_for_long_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "FORGET_MS", 120_000.0)
    world = await running("n1", "n2", "n3", "n4", "n5")
    await world.ask(Freeze(node="n2"))
    await world.nodes.pop("n1").kill()
    await world.nodes.pop("n2").kill()
    await world.nodes["n3"].stop()
    await world.sleep(100)
    assert await known(world) == {"n1", "n2", "n3", "n4", "n5"}
    await world.nodes["n3"].start()
    await world.sleep(60)
    assert await known(world) == {"n2", "n3", "n4", "n5"}, "what a person has frozen is kept"
    assert set(await world.records.all(NODES)) == {"n2", "n3", "n4", "n5"}
    await world.node("n1")
    await world.sleep(5)
    assert "n1" in await known(world)
    await world.stop()


@on_virtual_time
async def test_where_nothing_is_removed_it_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "FORGET_MS", 60_000.0)

    async def remove(self: object, key: str, *, expect: str) -> bool:
        return False

    monkeypatch.setattr(MemoryMetadata, "remove", remove)
    world = await running("n1", "n2", "n3")
    await world.nodes.pop("n1").kill()
    await world.sleep(90)
    assert await known(world) == {"n2", "n3"}
    await world.ask(Drain(node="n1"))
    assert await known(world) == {"n1", "n2", "n3"}
    await world.stop()
