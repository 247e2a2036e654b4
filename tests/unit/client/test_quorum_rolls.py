"""Writers of logs of kind quorum go on elsewhere when nodes fail, written to or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.segments.quorum_kit import FakeCluster, FakeNodes, a_cluster

from woodpecker.client.environment import Environment
from woodpecker.client.log import Log
from woodpecker.client.salvage import recover_log
from woodpecker.client.writer import LogWriter
from woodpecker.core.commands import CreateLog
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Manifest, Options, Segment
from woodpecker.core.options import make_options
from woodpecker.core.transitions import check
from woodpecker.errors import NotWritten, Unavailable
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import SILENT
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.faulty import Faults, FaultyMetadata
from woodpecker.testing.virtual import on_virtual_time

NAME = "orders"
LOG = "a" * 32


class Site:
    """A client; its metadata store can be made slow or away."""

    def __init__(self, cluster: FakeCluster) -> None:
        runtime = cluster.runtime
        self.cluster = cluster
        self.on_metadata = Faults(runtime)
        self.store: QuorumSegments = cluster.store("writer")
        self.nodes: FakeNodes = self.store._nodes  # type: ignore[assignment]
        self._objects = MemoryObjectStore(MemoryBucket(), runtime)
        metadata = FaultyMetadata(MemoryMetadata(runtime, MemoryRecords()), self.on_metadata)
        self.env = Environment(
            url="memory://test",
            runtime=runtime,
            observer=SILENT,
            catalog=Catalog(metadata, runtime),
            places=self,
        )

    async def writer(self, **options: object) -> LogWriter:
        """Of a new log."""
        made = make_options(Options(), {"mode": "quorum", **options})
        command = CreateLog(name=NAME, log_id=LOG, now_ms=0, options=made, attributes={})
        await self.env.catalog.change(NAME, command)
        return await Log(self.env, NAME, LOG).open_writer()

    async def manifest(self) -> Manifest:
        manifest = await self.env.catalog.read(NAME)
        assert check(manifest) is None
        return manifest

    async def open_segment(self) -> Segment:
        segment = (await self.manifest()).open_segment
        assert segment is not None
        return segment

    async def members(self) -> list[str]:
        """Nodes of the open segment."""
        ensemble = (await self.open_segment()).ensemble
        assert ensemble is not None
        return [member.node for member in ensemble.members]

    async def entries(self) -> list[bytes]:
        return [entry.payload async for entry in Log(self.env, NAME, LOG).read()]

    # --- Places ---

    default_kind = Kind.QUORUM

    def objects(self, storage: str) -> MemoryObjectStore:
        return self._objects

    def segments(self, kind: Kind, storage: str) -> QuorumSegments:
        return self.store

    def check_kind(self, kind: Kind, storage: str) -> None:
        """Everything goes."""

    async def admit(self, storage: str) -> str:
        return storage


@asynccontextmanager
async def a_site(nodes: int = 3, **kwargs: object) -> AsyncIterator[Site]:
    async with a_cluster(nodes, **kwargs) as cluster:
        yield Site(cluster)


@on_virtual_time
async def test_an_idle_log_leaves_a_dead_node_in_seconds():
    async with a_site(4) as site:
        writer = await site.writer()
        await writer.append(b"a")
        assert await site.members() == ["n1", "n2", "n3"]
        site.cluster.node(2).crash()
        await asyncio.sleep(6)
        manifest = await site.manifest()
        assert [segment.state for segment in manifest.segments] == [State.CLOSED, State.OPEN]
        assert await site.members() == ["n1", "n3", "n4"]
        assert min(site.cluster.told) == ("n1", NAME)  # so that it is sealed at once
        await writer.append(b"b")
        assert await site.entries() == [b"a", b"b"]
        await writer.close()


@on_virtual_time
async def test_with_two_nodes_left_it_goes_on_with_two_and_with_three_when_one_is_back():
    async with a_site(3) as site:
        writer = await site.writer()
        await writer.append(b"a")
        site.cluster.node(2).crash()
        await asyncio.sleep(6)
        assert await site.members() == ["n1", "n3"]
        await writer.append(b"b")
        site.cluster.node(2).start()
        await asyncio.sleep(3)  # it is found again though nobody needs it
        site.nodes.better = True
        await asyncio.sleep(2)
        assert await site.members() == ["n1", "n2", "n3"]
        site.nodes.better = False
        await writer.append(b"c")
        assert await site.entries() == [b"a", b"b", b"c"]
        await writer.close()


@on_virtual_time
async def test_an_empty_segment_goes_on_elsewhere_as_well():
    async with a_site(5) as site:
        writer = await site.writer()
        await writer.append(b"a")
        site.cluster.node(2).crash()
        await asyncio.sleep(6)
        assert (await site.open_segment()).id == 1
        site.cluster.node(4).crash()  # of the new segment, in which nothing was written yet
        await asyncio.sleep(6)
        manifest = await site.manifest()
        assert [segment.id for segment in manifest.segments] == [0, 2]
        assert await site.members() == ["n1", "n3", "n5"]
        assert await writer.append(b"b") == 1
        assert await site.entries() == [b"a", b"b"]
        await writer.close()


@pytest.mark.parametrize("how", ["crash", "mute"])
@on_virtual_time
async def test_a_node_that_dies_under_load_costs_no_append_and_no_pause(how: str):
    async with a_site(4) as site:
        site.on_metadata.max_delay_ms = 10
        writer = await site.writer()
        loop = asyncio.get_running_loop()
        slowest = 0.0
        until = loop.time() + 10
        written = []

        async def user(number: int) -> None:
            nonlocal slowest
            while loop.time() < until:
                began = loop.time()
                payload = b"%d.%f" % (number, began)
                seq = await writer.append(payload)
                written.append((seq, payload))
                slowest = max(slowest, loop.time() - began)
                await asyncio.sleep(0.02)

        users = [asyncio.ensure_future(user(number)) for number in range(5)]
        await asyncio.sleep(2)
        if how == "crash":
            site.cluster.node(2).crash()
        else:
            site.cluster.node(2).is_mute = True
        await asyncio.gather(*users)
        assert "n2" not in await site.members()
        assert slowest < 0.1
        await writer.close()
        entries = await site.entries()
        assert [entries[seq] for seq, _ in written] == [payload for _, payload in written]
        assert len(entries) == len(written)


@on_virtual_time
async def test_an_idle_segment_that_lost_its_quorum_for_good_costs_no_append():
    async with a_site(5) as site:
        writer = await site.writer()
        await writer.append(b"a")
        for number in (1, 2):
            node = site.cluster.node(number)
            node.crash()
            node.wipe()
            node.start()
        await asyncio.sleep(0.3)
        assert await writer.append(b"b") == 1
        assert (await site.open_segment()).id == 1
        await writer.close()


@on_virtual_time
async def test_where_nobody_can_take_it_an_append_is_refused_in_time_and_the_writer_lives():
    async with a_site(3) as site:
        writer = await site.writer(append_timeout_ms=2_000)
        await writer.append(b"a")
        for number in (1, 2):
            site.cluster.node(number).crash()
            site.cluster.node(number).wipe()
        await asyncio.sleep(5)  # both are known to be gone for good, a third one alone is too few
        with pytest.raises(NotWritten, match="cannot be opened"):
            async with asyncio.timeout(10):
                await writer.append(b"b")
        site.cluster.node(1).start()
        async with asyncio.timeout(10):
            assert await writer.append(b"c") == 1
        assert await site.entries() == [b"a", b"c"]
        await writer.close()


@on_virtual_time
async def test_what_was_made_ready_with_a_node_that_died_since_is_made_anew():
    async with a_site(4) as site:
        writer = await site.writer(segment_max_blocks=10)
        for _ in range(9):
            await writer.append(b"x")
        await asyncio.sleep(0.1)
        assert writer._pump.chain._ahead is not None
        site.cluster.node(1).crash()
        await asyncio.sleep(0.02)
        for _ in range(3):
            await writer.append(b"y")
        assert await site.members() == ["n2", "n3", "n4"]
        await writer.close()


@on_virtual_time
async def test_a_wish_to_roll_is_not_forgotten_while_the_metadata_store_is_away():
    async with a_site(4) as site:
        writer = await site.writer()
        await writer.append(b"a")
        site.on_metadata.is_away = True
        site.cluster.node(2).crash()
        await asyncio.sleep(10)
        assert await writer.append(b"b") == 1  # the old segment goes on meanwhile
        site.on_metadata.is_away = False
        await asyncio.sleep(2)
        assert await site.members() == ["n1", "n3", "n4"]
        await writer.close()


@on_virtual_time
async def test_a_person_gives_up_what_lost_disks_held():
    async with a_site(5) as site:
        writer = await site.writer(append_timeout_ms=1_000)
        await writer.append(b"kept")
        site.cluster.network.cut("writer", "n3")  # it never gets the second entry
        await writer.append(b"lost")
        site.cluster.network.heal("writer", "n3")
        for number in (1, 2):
            site.cluster.node(number).crash()
            site.cluster.node(number).wipe()
            site.cluster.node(number).start()
        await writer._pump.chain.current.abandon()  # type: ignore[union-attr]
        log = Log(site.env, NAME, LOG)
        with pytest.raises(Unavailable, match=r"came back|is gone.*accept-loss"):
            await log.open_writer()
        report = await recover_log(site.env, NAME, LOG, accept_loss=True)
        assert report.loss is not None
        assert report.loss.from_seq == report.next_seq
        assert await site.entries() == [b"kept", b"lost"][: report.next_seq]
        async with await log.open_writer() as another:
            assert await another.append(b"more") == report.next_seq
        await writer.close()


@on_virtual_time
async def test_a_closed_writer_rolls_no_more():
    async with a_site(4) as site:
        writer = await site.writer()
        await writer.append(b"a")
        site.cluster.node(2).crash()
        await writer.close()
        await asyncio.sleep(10)
        manifest = await site.manifest()
        assert [segment.state for segment in manifest.segments] == [State.CLOSED]
        assert site.store._watch.writers == {}
