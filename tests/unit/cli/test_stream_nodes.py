"""`node forget` of streaming nodes: those that live stay, whether they can be reached from here or not."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.cli.kit import Cli

import woodpecker as wp
from woodpecker.cli import stream_nodes
from woodpecker.cli.cluster import node_state
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming.codec.records import NODES
from woodpecker.streaming.core.records import NodeRecord
from woodpecker.streaming.metadata.store import StreamRecords

NOWHERE = "127.0.0.1:1"


def _register(store: str, node: str, *, is_up: bool) -> None:
    async def main() -> None:
        async with wp.connect(store) as client:
            records = StreamRecords(client.environment.catalog.store, SystemRuntime())
            record = NodeRecord(node=node, incarnation="a", address=NOWHERE, is_up=is_up)
            await records.change(NODES.key(node), lambda _: record)

    asyncio.run(main())


@pytest.fixture
def cli(tmp_path) -> Cli:
    return Cli(f"file://{tmp_path / 'store'}")


def test_one_that_has_left_is_forgotten(cli: Cli) -> None:
    _register(cli.store, "s1", is_up=False)
    assert [(node["node"], node["state"]) for node in cli.json("node", "list")] == [("s1", "gone")]
    assert cli.json("node", "forget", "s1") == {"node": "s1", "state": "forgotten"}
    assert cli.json("node", "list") == []
    assert "no node 's1'" in cli.fails(4, "node", "forget", "s1")


def test_one_that_was_killed_goes_by_the_word_of_cluster_status(cli: Cli) -> None:
    _register(cli.store, "s1", is_up=True)
    assert [node["state"] for node in cli.json("node", "list")] == [node_state(False, False, False)]
    assert node_state(True, False, False) == "active"


def test_what_was_given_up_is_not_held() -> None:
    """A drained node was shown with all that it had had."""
    states = ("serving", "opening", "closing", "closed", "failed", "idle")
    assert stream_nodes.held([{"state": state} for state in states]) == 3


def test_one_that_only_cannot_be_reached_is_not(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _register(cli.store, "s1", is_up=True)

    async def beat(self: SystemRuntime, pause_ms: float) -> None:
        async with wp.connect(cli.store) as client:
            records = StreamRecords(client.environment.catalog.store, SystemRuntime())
            again = NodeRecord(node="s1", incarnation="a", address=NOWHERE, beat=1)
            await records.change(NODES.key("s1"), lambda _: again)

    with monkeypatch.context() as patch:
        patch.setattr(SystemRuntime, "sleep_ms", beat)
        assert f"lives at {NOWHERE}" in cli.fails(3, "node", "forget", "s1")
    monkeypatch.setattr(stream_nodes, "SILENCE_MS", 10.0)
    cli.ok("node", "forget", "s1")
