"""A streaming service of real processes: nodes and coordinators over LogStore nodes and etcd, and what befalls them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster_kit import DevCluster, Process, command, dev_cluster
from tests.integration.streaming_kit import Sender, judge, payloads

from woodpecker.app_streaming import connect
from woodpecker.testing.servers.process import free_port

CHANNELS = ("orders", "events", "mails")
PATIENCE_S = 120.0


@pytest.fixture
async def cluster(tmp_path: Path):
    async with dev_cluster(tmp_path, "--streaming", "3", "--etcd") as cluster:
        yield cluster


async def shell(cluster: DevCluster, *args: str) -> str:
    """A command on the cluster."""
    done = await asyncio.to_thread(command, "--store", cluster.url, "--output", "json", *args)
    return done.decode()


async def state(cluster: DevCluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await shell(cluster, "cluster", "status"))
    return found


async def leader(cluster: DevCluster) -> Process:
    """The coordinator that leads."""
    address = (await state(cluster))["coordinator"]
    (found,) = (p for p in cluster.of_role("coordinator") if p.address == address)
    return found


def another_node(cluster: DevCluster, name: str) -> Process:
    """One that the cluster did not start."""
    one = cluster.of_role("streaming")[0]
    address, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    argv = list(one.argv)
    for flag, value in (
        ("node", name),
        ("listen", address),
        ("advertise", address),
        ("http", http),
    ):
        argv[argv.index(f"--{flag}") + 1] = value
    facts = {
        "name": name,
        "role": "streaming",
        "address": address,
        "argv": argv,
        "log": str(one.log.with_name(f"{name}.log")),
        "pid": 0,
    }
    found = Process(facts, cluster.directory)
    cluster.processes[name] = found
    return found


async def owners(cluster: DevCluster) -> dict[str, str]:
    """Nodes by pchannel."""
    return {each["pchannel"]: each["node"] for each in (await state(cluster))["pchannels"]}


async def all_more(senders: list[Sender], count: int = 30) -> None:
    await asyncio.gather(*(sender.more(count, PATIENCE_S) for sender in senders))


async def test_whatever_befalls_it_nothing_is_lost(cluster: DevCluster) -> None:
    """A node and the leading coordinator are killed, one node comes, one is drained: all under load."""
    assert len(cluster.of_role("streaming")) == 3
    assert len(cluster.of_role("coordinator")) == 2
    async with connect(cluster.streaming) as client:
        channels = [await client.create_channel(name) for name in CHANNELS]
        senders = [Sender(cluster.streaming, name, f"{name}-1") for name in CHANNELS]
        await all_more(senders)

        victim = cluster["stream-1"]
        assert set((await owners(cluster)).values()) == {"stream-1", "stream-2", "stream-3"}
        await victim.kill()
        await all_more(senders)

        kept = {p: n for p, n in (await owners(cluster)).items() if n != "stream-1"}
        await (await leader(cluster)).kill()
        await all_more(senders)
        await client.create_channel("late")  # the stand-by decides now
        now = await owners(cluster)
        assert "stream-1" not in now.values()
        assert kept.items() <= now.items(), "a coordinator's death moves nothing"

        await another_node(cluster, "stream-4").start()
        pchannel = channels[0].pchannel
        await shell(
            cluster, "assignment", "move", pchannel, "stream-4"
        )  # ready: it may be given something
        async with asyncio.timeout(PATIENCE_S):
            while (await owners(cluster))[pchannel] != "stream-4":
                await asyncio.sleep(0.2)
        await all_more(senders)

        await shell(cluster, "node", "drain", "stream-2", "--wait")
        assert "stream-2" not in (await owners(cluster)).values()
        await cluster["stream-2"].stop()
        await all_more(senders)

        for sender, channel in zip(senders, channels, strict=True):
            await sender.stop()
            judge(await payloads(channel), sender)
    nodes = {n["node"]: n for n in json.loads(await shell(cluster, "node", "list"))}
    assert (nodes["stream-4"]["role"], nodes["stream-4"]["answers"]) == ("streaming", True)
    assert nodes["stream-1"]["answers"] is False
    assert nodes["node-1"]["role"] == "logstore"
