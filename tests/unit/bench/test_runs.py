"""Tiny runs of every bench: rows are there, figures fit each other, nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from typer.testing import CliRunner

from woodpecker.bench import append, loads, many_logs, mixed, read, reopen, tail
from woodpecker.bench.figures import Slice
from woodpecker.bench.machine import now
from woodpecker.bench.pairs import Plan
from woodpecker.bench.payloads import Payloads, make_pool
from woodpecker.bench.raw_file import RawFile, read_files
from woodpecker.bench.raw_object import repeated
from woodpecker.bench.target import make_target, open_target
from woodpecker.cli.main import app
from woodpecker.errors import InvalidRequest

SHORT = Plan(pairs=2, seconds=0.02)


def quiet(_what: str) -> None:
    """Progress nobody looks at."""


@pytest.fixture
async def target(tmp_path):
    async with open_target(str(tmp_path)) as target:
        yield target
    assert list(tmp_path.iterdir()) == []


def test_payloads_differ_and_are_incompressible_in_size():
    pool = make_pool(100, pool_bytes=10_000)
    assert len(set(pool)) == 100
    assert {len(payload) for payload in pool} == {100}
    endless = Payloads(1 << 20, pool_bytes=1)
    assert len(endless.take(5)) == 5
    assert endless.next() != endless.next()


async def test_what_lanes_do_at_once_is_all_counted():
    async def one(lane: int) -> int:
        await asyncio.sleep(0.001 * lane)
        return 10

    done = await repeated(one, 8, 0.05)
    assert done.entries > 8
    assert done.bytes == 10 * done.entries == 10 * len(done.latencies)


def test_the_raw_disk_finds_a_method_and_leaves_nothing(tmp_path):
    path = tmp_path / "raw"
    disk = RawFile(path, size_bytes=8 << 20)
    assert "MiB" in disk.choose()
    large, new, small = disk.throughput(0.01), disk.growing(0.01), disk.latency(0.01)
    for blocks in (large, new):
        assert blocks.entries
        assert blocks.bytes >= blocks.entries * (1 << 20)
    assert small.bytes == small.entries * 4096 == len(small.latencies) * 4096
    assert read_files([path], direct=False).bytes == 8 << 20
    disk.close()
    assert not list(tmp_path.iterdir())


async def test_append_measures_each_size_mode_and_number_in_flight(target):
    wanted = append.AppendPlan(
        plan=SHORT, sizes=(100,), in_flight=(1, 8), rates=(500.0,), background=True
    )
    rows = await append.run(target, wanted, quiet)
    assert [row.name for row in rows[1:]] == [
        "append many 100 B", "append submit 100 B",
        "append await x1 1 KiB", "append await x8 1 KiB", "append 1 KiB at 500/s",
    ]  # fmt: skip
    assert all(row.figures["entries_s"] > 0 for row in rows[1:])
    assert all(row.ratio is not None and row.ratio > 0 for row in rows[1:4])
    assert "p999_ms" in rows[4].figures


async def test_an_open_loop_sends_what_was_due_whatever_the_answers_take(target):
    async with target.connect() as client:
        log = await client.create_log("x")
        async with await log.open_writer() as writer:
            for number, send in enumerate([loads.submitting(writer), loads.appending(writer)]):
                done = await loads.at_rate(send, Payloads(10, pool_bytes=100), 0.2, rate=200.0)
                assert done.entries == len(done.latencies) == 40
                assert writer.visible == 40 * (number + 1)


async def test_an_open_loop_counts_from_the_moment_an_entry_was_due():
    """A pause of the system is felt by all that would have come meanwhile."""

    payloads = Payloads(10, pool_bytes=100)
    begin = now()

    class Stopped:
        async def append(self, _payload):
            await asyncio.sleep(max(0.0, begin + 0.1 - now()))

        async def append_many(self, _payloads):
            """Not asked for."""

    done = await loads.at_rate(loads.appending(Stopped()), payloads, 0.1, rate=1000.0)
    assert len(done.latencies) == 100
    middle = sorted(done.latencies)[50]
    assert 0.03 < middle < 0.5


async def test_an_open_loop_whose_system_fails_says_so():
    class Broken:
        async def append(self, _payload):
            raise OSError("broken")

        async def append_many(self, _payloads):
            """Not asked for."""

    with pytest.raises(OSError, match="broken"):
        await loads.at_rate(loads.appending(Broken()), Payloads(10), 5, rate=100.0)


@pytest.mark.parametrize("load", [loads.many, loads.submit])
async def test_what_a_load_counts_is_in_the_log(target, load):
    async with target.connect() as client:
        log = await client.create_log("x")
        async with await log.open_writer() as writer:
            done: Slice = await load(writer, Payloads(2_000), 0.05)
            assert done.entries == writer.visible
            assert done.bytes == 2_000 * done.entries


async def test_read_measures_sealed_segments_in_each_way(target):
    wanted = read.ReadPlan(pairs=1, volume_bytes=3 << 20, sizes=(1024,))
    rows = await read.run(target, wanted, quiet)
    assert [row.name for row in rows] == [f"read {way} 1 KiB" for way in read.WAYS]
    assert all(row.figures["mb_s"] > 0 and row.limit["mb_s"] > 0 for row in rows)


async def test_tail_measures_readers_here_and_in_another_process(target):
    rows = await tail.run(target, tail.TailPlan(count=20), quiet)
    assert [row.figures["entries"] for row in rows] == [20, 20]


async def test_open_takes_over_from_a_killed_writer(target):
    wanted = reopen.OpenPlan(repeats=1, volume_bytes=1 << 20, in_flight=16)
    (row,) = await reopen.run(target, wanted, quiet)
    assert 0 < row.figures["open_s"] < row.figures["first_append_s"]


async def test_many_logs_counts_descriptors(target):
    wanted = many_logs.ManyPlan(count=5, idle_s=0.05, busy_s=0.1)
    rows = await many_logs.run(target, wanted, quiet)
    assert [row.name.partition(": ")[2] for row in rows] == [
        "create", "open and append", "5 idle writers", "append again", "one entry a second each",
    ]  # fmt: skip
    assert rows[4].figures["entries_s"] > 0
    assert rows[2].figures["open_fds"] > len(os.listdir("/proc/self/fd"))  # now all are closed


@pytest.mark.parametrize("url", ["memory://x", "wp://host:1"])
def test_only_directories_and_buckets_are_measured(url):
    with pytest.raises(InvalidRequest, match="directories and buckets"):
        make_target(url)


async def test_mixed_runs_writers_followers_and_catching_up_at_once(target):
    wanted = mixed.MixedPlan(
        plan=SHORT, writers=2, tails=2, catch_ups=1, rate=500, size=1024, volume_bytes=1 << 20
    )
    _, appended, tailed, caught = await mixed.run(target, wanted, quiet)
    assert appended.figures["entries_s"] > 0 and appended.ratio is not None
    assert tailed.figures["entries"] > 0
    assert caught.figures["mb_s"] > 0


async def test_a_ladder_of_rates_is_made_from_what_goes_in(target):
    wanted = append.AppendPlan(
        plan=SHORT, sizes=(), in_flight=(), is_ladder=True, in_flight_bytes=100
    )
    rows = (await append.run(target, wanted, quiet))[1:]
    asked = [row.figures["asked_s"] for row in rows]
    assert asked == sorted(asked)
    assert len(asked) == len(append.LADDER)


def test_the_command_writes_json_compares_and_draws(tmp_path):
    old, plot = tmp_path / "old.json", tmp_path / "plot.svg"
    arguments = ["bench", "append", "--store", str(tmp_path), "--pairs", "1", "--seconds", "0.05"]
    arguments += ["--rate", "100", "--rate", "1000"]
    first = CliRunner().invoke(app, [*arguments, "--json", str(old), "--plot", str(plot)])
    assert first.exit_code == 0, first.output
    assert "append 1 KiB at 1,000/s" in first.stdout
    assert json.loads(old.read_text())["command"] == "append"
    assert plot.read_text().count("<circle") == 6
    second = CliRunner().invoke(app, [*arguments, "--compare", str(old), "--json", "-"])
    assert second.exit_code == 0, second.output
    assert json.loads(second.stdout)["rows"]
    assert "p50_ms" in second.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["append", "--mode", "slow"],
        ["append", "--server", "none"],
        ["tail", "--compare", "none.json"],
        ["read", "--nodes", "3"],
        ["tail", "--count", "1", "--plot", "/x.svg"],
        ["tail", "--count", "1", "--json", "/none/x.json"],
    ],
)
def test_mistakes_are_refused(tmp_path, arguments):
    command = ["bench", arguments[0], "--store", str(tmp_path), *arguments[1:]]
    assert CliRunner().invoke(app, command).exit_code == 3
