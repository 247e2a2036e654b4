"""Tiny bench runs of kind quorum: real nodes, real sinks, nothing left behind."""

from __future__ import annotations

import os

import pytest

from woodpecker.bench import append, many_logs, reopen, tail
from woodpecker.bench.pairs import Plan
from woodpecker.bench.raw_quorum import raw_quorum
from woodpecker.bench.target import open_target
from woodpecker.errors import InvalidRequest


def quiet(_what: str) -> None:
    """Progress nobody looks at."""


def children() -> set[str]:
    """Processes that this one has started and that still run."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


async def test_each_command_measures_nodes_and_ends_them(tmp_path):
    before = children()
    async with open_target(str(tmp_path), nodes=3) as target:
        plan = Plan(pairs=1, seconds=0.02)
        wanted = append.AppendPlan(plan=plan, sizes=(100,), modes=("many",), in_flight=(1,))
        rows = await append.run(target, wanted, quiet)
        assert [row.name for row in rows[1:]] == ["append many 100 B", "append await x1 1 KiB"]
        assert "3 sinks, durable on 2" in rows[0].name
        for row in rows[1:]:
            assert row.ratio is not None and row.ratio > 0
            assert row.figures["node_syncs"] > 0
            assert row.figures["node_peak_rss_mb"] > 0
        rows = await tail.run(target, tail.TailPlan(count=5), quiet)
        assert [row.figures["entries"] for row in rows] == [5, 5]
        few = many_logs.ManyPlan(count=3, idle_s=0.01, busy_s=0.05)
        rows = await many_logs.run(target, few, quiet)
        assert rows[-1].figures["node_fds"] > 0
        wanted_open = reopen.OpenPlan(repeats=1, volume_bytes=1 << 20)
        (row,) = await reopen.run(target, wanted_open, quiet)
        assert row.figures["open_s"] > 0
    assert list(tmp_path.iterdir()) == []
    assert children() == before


async def test_the_raw_limit_counts_what_is_durable_on_two(tmp_path):
    before = children()
    async with raw_quorum(tmp_path) as sinks:
        assert "3 sinks, durable on 2" in sinks.choose()
        large, small = sinks.throughput(0.05), sinks.latency(0.05)
        assert large.bytes >= large.entries * (256 << 10)
        assert small.entries == len(small.latencies) == small.bytes / 1024
    assert children() == before


async def test_nodes_need_a_directory():
    with pytest.raises(InvalidRequest, match="needs a directory"):
        async with open_target("s3://bucket/prefix", nodes=3):
            pass
