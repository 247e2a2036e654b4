"""Writers of quorum logs, take-overs and failing nodes by seeded chance: what was told is what the log holds.

As ``test_writer_chaos.py``, with its story and its checks, on small scriptable nodes (``quorum_kit.py``) that
are killed, hang, fill up, are cut off, and once a run are emptied. The real node, its disk and journal are
for ``woodpecker sim run --kind quorum``.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.property.test_writer_chaos import Story
from tests.unit.client.writing_kit import Site, World
from tests.unit.segments.quorum_kit import FakeCluster, FakeNode

from woodpecker.core.ids import Kind
from woodpecker.rpc.memory import Conditions
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.testing.faulty import FaultySegments
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time

SEEDS = range(60)


class QuorumSite(Site):
    """One client of the nodes."""

    def __init__(self, world: QuorumWorld, number: int) -> None:
        super().__init__(world, number)
        transport = world.cluster.network.transport(f"client {number}")
        nodes = world.cluster.directory()
        self.quorum = QuorumSegments(nodes, transport, self.runtime)
        self._segments = FaultySegments(self.quorum, self.disk)

    @property
    def default_kind(self) -> Kind:
        return Kind.QUORUM


class QuorumWorld(World):
    """With nodes that all sites share."""

    def __init__(self, seed: int, nodes: int, **options: object) -> None:
        super().__init__(seed, mode="quorum", **options)
        self.rng = random.Random(f"nodes {seed}")
        self.cluster = FakeCluster(nodes, runtime=VirtualRuntime(seed))
        self.cluster.replicas = self.rng.choice([3, 3, 5])
        self.struck: Counter[str] = Counter()
        self.may_empty = True

    def site(self, number: int = 0) -> Site:
        if number not in self._sites:
            self._sites[number] = QuorumSite(self, number)
        return self._sites[number]

    async def storm(self) -> None:
        """Strike a node now and then; each recovers by itself."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1.5))
            node = self.rng.choice(list(self.cluster.nodes.values()))
            strike = self.rng.choice(
                [self.kill, self.kill, self.hang, self.fill, self.slow, self.cut, self.snap]
            )
            strike(node)

    def later(self, seconds: float, work: object, *args: object) -> None:
        delay = self.rng.expovariate(1 / seconds)
        asyncio.get_running_loop().call_later(delay, work, *args)  # type: ignore[arg-type]

    def kill(self, node: FakeNode) -> None:
        if not node.is_up:
            return
        self.struck["killed"] += 1
        node.crash()
        if self.may_empty and self.rng.random() < 0.3:
            self.may_empty = False
            self.struck["emptied"] += 1
            node.wipe()
        self.later(2, self.start, node)

    def start(self, node: FakeNode) -> None:
        if not node.is_up:
            node.start()

    def hang(self, node: FakeNode) -> None:
        self.struck["hung"] += 1
        node.is_mute = True
        self.later(3, setattr, node, "is_mute", False)

    def fill(self, node: FakeNode) -> None:
        self.struck["full"] += 1
        node.pressure = self.rng.choice([1, 2, 2])
        self.later(3, setattr, node, "pressure", 0)

    def slow(self, node: FakeNode) -> None:
        self.struck["slow"] += 1
        node.sync_ms = self.rng.choice([20.0, 500.0, 4_000.0])
        self.later(3, setattr, node, "sync_ms", 0.1)

    def cut(self, node: FakeNode) -> None:
        self.struck["cut"] += 1
        client = f"client {self.rng.randrange(4)}"
        ways = [(client, node.name), (node.name, client)]
        for way in self.rng.choice([ways, ways[:1], ways[1:]]):
            self.cluster.network.cut(*way)
            self.later(3, self.cluster.network.heal, *way)

    def snap(self, node: FakeNode) -> None:
        self.struck["snapped"] += 1
        self.cluster.network.snap(f"client {self.rng.randrange(4)}", node.name)

    def calm(self) -> None:
        super().calm()
        self.cluster.network.conditions = Conditions(delay_ms=(0.1, 0.1))
        for number in range(4):
            for node in self.cluster.nodes.values():
                for way in ((f"client {number}", node.name), (node.name, f"client {number}")):
                    self.cluster.network.heal(*way)
        for node in self.cluster.nodes.values():
            node.is_mute, node.pressure, node.sync_ms = False, 0, 0.1
            self.start(node)


@asynccontextmanager
async def a_world(seed: int, nodes: int, **options: object) -> AsyncIterator[QuorumWorld]:
    """A world with its log; at the end no task may be left, nor anything be held for a writer."""
    world = QuorumWorld(seed, nodes, **options)
    for node in world.cluster.nodes.values():
        node.start()
    await world.create()
    yield world
    for site in world._sites.values():
        assert isinstance(site, QuorumSite)
        assert not site.quorum._watch.writers
        assert not site.quorum._watch._busy
        assert site.quorum._watch._behind_bytes == 0
        assert not [peer for peer in site.quorum._links.peers if list(peer.users)]
        await site.quorum.close()
    for _ in range(3):
        await asyncio.sleep(0)
    left = [name for name in world.running() if not name.startswith("late ")]
    assert left == [], f"tasks left: {left}"


async def play(world: QuorumWorld, rng: random.Random) -> Story:
    """The story of one seed."""
    story = Story(world, rng)
    rate = rng.choice([0.0, 0.0, 0.1, 0.3])
    delay_ms = rng.choice([(0.1, 0.1), (0.1, 5.0), (1.0, 50.0)])
    world.cluster.network.conditions = Conditions(delay_ms=delay_ms)
    world.cluster.network.dead_after_ms = 3_000
    for number in range(4):
        site = world.site(number)
        site.disk.cut_bytes = rng.choice([2_000, 20_000])
        site.on_metadata.rate = rate * rng.random()
        site.on_metadata.max_delay_ms = rng.choice([0, 10, 200])
    storm = asyncio.ensure_future(world.storm())
    await story.play()
    storm.cancel()
    await asyncio.gather(storm, return_exceptions=True)
    return story


@pytest.mark.parametrize("seed", SEEDS)
@on_virtual_time
async def test_what_was_told_is_what_the_log_holds(seed: int):
    rng = random.Random(seed)
    options = {
        "segment_max_blocks": rng.choice([1, 2, 5, 1000]),
        "append_timeout_ms": rng.choice([1_000, 20_000]),
        "queue_max_bytes": rng.choice([1 << 16, 64 << 20]),
        "linger_ms": rng.choice([0, 0, 30]),
    }
    async with a_world(seed, rng.choice([3, 3, 4, 5]), **options) as world:
        story = await play(world, rng)
        await story.check()


def test_the_seeds_reach_every_outcome():
    """Together the runs tell every sort of answer and meet every trouble; else they check less than they say."""
    told: Counter[str] = Counter()
    struck: Counter[str] = Counter()

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        async with a_world(seed, 3, append_timeout_ms=1_000, segment_max_blocks=3) as world:
            story = await play(world, rng)
            await story.check()
            told.update(story.told)
            struck.update(world.struck)

    for seed in range(500, 530):
        on_virtual_time(one)(seed)
    kinds = {"written", "not written", "unknown", "fenced unknown", "fenced not_written"}
    assert kinds <= set(told), told
    assert len(struck) == 7 and min(struck.values()) > 3, struck
