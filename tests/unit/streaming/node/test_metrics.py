"""What a node shows: counters that add up, gauges that go back to zero."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally

from tests.unit.streaming.node.kit import VCID, a_cluster, consume, produce

from woodpecker.observability.base import Silent
from woodpecker.observability.names import Counter, Gauge, Histogram
from woodpecker.streaming import requests
from woodpecker.streaming.core.values import Start, StartForm
from woodpecker.testing.virtual import on_virtual_time


class Collector(Silent):
    """Keeps all it is told."""

    def __init__(self) -> None:
        self.counts: Tally[tuple[str, ...]] = Tally()
        self.gauges: dict[tuple[str, ...], float] = {}
        self.observed: Tally[str] = Tally()

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        assert tuple(sorted(labels)) == tuple(sorted(name.labels)), name
        self.counts[name, *labels.values()] += n

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        assert tuple(sorted(labels)) == tuple(sorted(name.labels)), name
        self.gauges[name, *labels.values()] = value

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        self.observed[name] += 1


@on_virtual_time
async def test_everything_is_counted_and_nothing_is_left() -> None:
    async with a_cluster(checkpoint_age_ms=2000, tail_bytes=2000) as cluster:
        cluster.observer = seen = Collector()
        member = await cluster.node("n1")
        await cluster.assign(member)
        await cluster.create(member)
        producing = await produce(cluster, member, "a")
        live = await consume(cluster, member, ticks=True)
        batch = await producing.send(b"x" * 100)
        await producing.ack()
        await producing.stream.send(batch)
        await producing.ack()
        await producing.send(b"y", vcid=99)
        await producing.refusal()
        producing.sequence -= 1
        await producing.put(b"t", txn_number=0, begin=True)
        await asyncio.sleep(1.5)
        assert seen.gauges[Gauge.STREAM_TXN_OPEN, "p0"] == 1
        assert seen.gauges[Gauge.STREAM_READERS, "p0", "tail"] == 1
        await producing.put(txn_number=0, commit=True)
        await producing.put(b"u", txn_number=1, begin=True)
        await producing.put(txn_number=1, abort=True)
        for _ in range(30):
            await producing.put(b"z" * 100)
        await asyncio.sleep(4)
        late = await consume(cluster, member)
        await late.until(32)
        await late.close()
        for name, left in (("far", 0), ("near", 30)):
            start = Start(form=StartForm.SEQ, value=live.got[1][left].position.seq)
            await member.endpoint.call(
                requests.OpenCursor(pchannel="p0", vcid=VCID, cursor=name, nonce=name, start=start)
            )
        await asyncio.sleep(300)
        behind = member.life.line.acked - live.got[1][0].position.seq
        assert seen.gauges[Gauge.STREAM_CURSOR_LAG, "p0"] == behind > 30
        await cluster.release(member)
        await asyncio.sleep(1)
        await live.close()
    counts = seen.counts
    assert counts[Counter.STREAM_PRODUCE_BATCHES,] == 35 == seen.observed[Histogram.STREAM_ACK]
    assert counts[Counter.STREAM_PRODUCE_REPEATS,] == 1
    assert counts[Counter.STREAM_PRODUCE_REFUSED, "gone"] == 1
    assert counts[Counter.STREAM_TXN_COMMITTED,] == 1
    assert counts[Counter.STREAM_TXN_ABORTED, "producer"] == 1
    assert counts[Counter.STREAM_DELIVERED,] == 64
    assert counts[Counter.STREAM_ATTACH_RETRIES,] > 0
    assert counts[Counter.STREAM_TERM_CHANGES, "opened"] == 1
    assert counts[Counter.STREAM_TERM_CHANGES, "released"] == 1
    assert counts[Counter.STREAM_CHECKPOINTS,] >= 2
    assert counts[Counter.STREAM_OWNERSHIP_CHECKS, "owner"] == 1
    assert counts[Counter.STREAM_EVICTED_BYTES,] > 0
    assert counts[Counter.STREAM_SIGNALS, "no"] > 0
    assert seen.observed[Histogram.STREAM_OPEN] == 1
    assert set(seen.gauges.values()) == {0}, {k: v for k, v in seen.gauges.items() if v}
