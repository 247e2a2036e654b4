"""The way of a message: produced, acknowledged, consumed at the tail and from the log."""

from __future__ import annotations

from itertools import pairwise

from tests.unit.streaming.node.kit import consume, one_node, produce

from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_what_is_acknowledged_is_consumed_at_the_tail_and_from_the_log() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        live = await consume(cluster, member)
        acks = [await producing.put(b"%d" % n, b"x%d" % n) for n in range(5)]
        assert [ack.sequence for ack in acks] == list(range(5))
        assert all(b.seq == a.seq + 2 and b.tick > a.tick for a, b in pairwise(acks))
        wanted = [p for n in range(5) for p in (b"%d" % n, b"x%d" % n)]
        assert await live.until(10) == wanted
        await live.close()
        late = await consume(cluster, member)
        assert await late.until(10) == wanted
        assert [m.position for m in late.got[1]] == [m.position for m in live.got[1]]
        await late.close()
        life = await cluster.assign(await cluster.node("n2"))
        assert life.term == 2
        after = await consume(cluster, cluster.members["n2"])
        assert await after.until(10) == wanted
        await after.close()
