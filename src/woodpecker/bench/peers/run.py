"""``bench peers``: ours and other logs in one run, slice by slice in turn, with the same payloads."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from woodpecker.bench import loads
from woodpecker.bench.append import Limits, Say, limits_of, size_text
from woodpecker.bench.figures import Slice, rate_figures
from woodpecker.bench.machine import cpu_seconds_of
from woodpecker.bench.pairs import Measure, Pairs, Plan, in_turn
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.peers import kafka, nats, pulsar, redis, sqlite
from woodpecker.bench.peers.base import NotHere, Peer, PeerPlace, Starter
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target, open_target
from woodpecker.errors import InvalidRequest

PEERS: Mapping[str, Starter] = {
    "nats": nats.started,
    "redis": redis.started,
    "kafka": kafka.started,
    "pulsar": pulsar.started,
    "sqlite": sqlite.started,
}
BATCH_ENTRIES, BATCHES_AT_ONCE = 1024, 4
LIMIT = "limit"

Take = Callable[[loads.Appender, Payloads, float], Awaitable[Slice]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """One load on every system; ``limit``: what the bare disk does of the same sort."""

    what: str
    take: Take
    limit: Measure | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersPlan:
    """Which peers, and what is asked of each: waiting tasks, batches, rates of an open loop."""

    plan: Plan
    peers: Sequence[str]
    size: int
    in_flight: Sequence[int]
    rates: Sequence[float]
    warm_up_s: float
    kafka: str | None = None
    pulsar: str | None = None


async def run(target: Target, wanted: PeersPlan, say: Say) -> list[Row]:
    """A row for each system and load, ours first. A peer that is not here is one row that says so.

    Raises: InvalidRequest: not a directory, where peers could keep their data beside ours.
    """
    if target.directory is None or target.storage is not None:
        raise InvalidRequest("peers keep their data beside ours: give --store DIR")
    place = PeerPlace(
        directory=target.directory / "peers",
        cache=_cache(),
        kafka=wanted.kafka,
        pulsar=wanted.pulsar,
    )
    place.directory.mkdir()
    async with (
        open_target(str(target.directory)) as files,
        limits_of(files) as limits,
        AsyncExitStack() as stack,
    ):
        systems = [await stack.enter_async_context(_ours(files, "Woodpecker, file"))]
        if target.nodes is not None:
            systems.append(await stack.enter_async_context(_ours(target, "Woodpecker, quorum")))
        rows = [Row(name=limits.note, figures={})]
        for name in wanted.peers:
            say(f"starting {name}")
            try:
                systems += await stack.enter_async_context(PEERS[name](place))
            except NotHere as error:
                rows.append(Row(name=f"{name}: not measured: {error}", figures={}))
        rows += [Row(name=f"{one.name}: {one.settings}", figures={}) for one in systems]
        for load in _loads(wanted, limits):
            say(load.what)
            rows += await _rows(systems, load, wanted)
        return rows


class _Failed(Exception):
    """A peer has failed under a load."""

    def __init__(self, peer: Peer, error: Exception) -> None:
        super().__init__(f"{peer.name}: left out from here on: {error!r}")
        self.peer = peer


def _loads(wanted: PeersPlan, limits: Limits) -> Iterator[_Load]:
    for tasks in wanted.in_flight:
        yield _Load(
            what=f"await x{tasks}",
            take=partial(loads.awaiting, tasks=tasks),
            limit=limits.latency if tasks == 1 else None,
        )
    yield _Load(
        what=f"batches of {BATCH_ENTRIES} x{BATCHES_AT_ONCE}",
        take=partial(loads.many, count=BATCH_ENTRIES, at_once=BATCHES_AT_ONCE),
        limit=limits.throughput,
    )
    for rate in wanted.rates:
        take = partial(_at_rate, rate=rate)
        yield _Load(what=f"at {rate:,.0f}/s", take=take, figures={"asked_s": rate})


async def _at_rate(
    log: loads.Appender, payloads: Payloads, seconds: float, *, rate: float
) -> Slice:
    return await loads.at_rate(loads.appending(log), payloads, seconds, rate=rate)


def _cache() -> Path:
    """What is fetched once stays there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "woodpecker"


@asynccontextmanager
async def _ours(target: Target, name: str) -> AsyncIterator[Peer]:
    pids = [] if target.nodes is None else [node.pid for node in target.nodes.processes]
    where = f"{len(pids)} nodes, synced on 2 of 3" if pids else "in this process, synced"
    async with target.connect(background=False) as client:
        log = await target.create_log(client, "bench-peers", may_roll=False)
        async with await log.open_writer() as writer:
            yield Peer(
                name=name, settings=f"{where} before each acknowledgement", log=writer, pids=pids
            )


async def _rows(systems: list[Peer], load: _Load, wanted: PeersPlan) -> list[Row]:
    """One load on all systems; one that fails is taken out of ``systems``, and the others begin again."""
    try:
        return await _compared(systems, load, wanted)
    except _Failed as failed:
        systems.remove(failed.peer)
        return [Row(name=str(failed), figures={}), *await _rows(systems, load, wanted)]


async def _compared(systems: Sequence[Peer], load: _Load, wanted: PeersPlan) -> list[Row]:
    """Slice by slice in turn, the bare disk among them."""
    payloads = Payloads(wanted.size)
    measures = {one.name: _measured(one, load.take, payloads) for one in systems}
    warm_up = tuple(measures)  # virtual machines compile meanwhile
    if load.limit is not None:
        measures = {LIMIT: load.limit, **measures}
    found = await in_turn(measures, wanted.plan, warm_up=warm_up, warm_up_s=wanted.warm_up_s)
    limits, size, rows = found.pop(LIMIT, []), size_text(wanted.size), list[Row]()
    for name, slices in found.items():
        pairs, ratio = Pairs(slices, limits), None
        if limits:
            ratio = pairs.latency_ratio if pairs.ours[0].latencies else pairs.throughput_ratio
        figures = {**load.figures, **pairs.figures()}
        rows.append(Row(name=f"{name} {size} {load.what}", figures=figures, ratio=ratio))
    if limits:
        rows.append(Row(name=f"limit, {load.what}", figures=rate_figures(limits)))
    return rows


def _measured(peer: Peer, take: Take, payloads: Payloads) -> Measure:
    async def measure(seconds: float) -> Slice:
        before = sum(map(cpu_seconds_of, peer.pids))
        try:
            done = await take(peer.log, payloads, seconds)
        except Exception as error:
            raise _Failed(peer, error) from error
        done.servers_cpu_seconds = sum(map(cpu_seconds_of, peer.pids)) - before
        return done

    return measure
