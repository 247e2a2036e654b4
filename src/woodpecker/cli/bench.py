"""``woodpecker bench``: every figure of the documents, measured again, beside the back end's limit."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeAlias

import typer

from woodpecker.cli.bench_run import Run, measure, measuring, read_file, say, write_file
from woodpecker.errors import InvalidRequest

app = typer.Typer(
    no_args_is_help=True,
    help="Measure a store: ours beside the limit of the back end, in turn, in one run.",
)

Quick: TypeAlias = Annotated[bool, typer.Option("--quick", help="below a minute, less exact")]


@app.command("append")
@measuring
def append(
    run: Run,
    size: Annotated[list[int] | None, typer.Option(metavar="BYTES", help="of an entry")] = None,
    mode: Annotated[list[str] | None, typer.Option(metavar="many|submit", help="how")] = None,
    in_flight: Annotated[list[int] | None, typer.Option(metavar="N", help="waiting tasks")] = None,
    rate: Annotated[
        list[float] | None, typer.Option(metavar="N", help="entries/s, open loop")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="slices of ours and of the limit")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="of one slice")] = None,
    background: Annotated[
        bool, typer.Option("--background", help="seal full segments meanwhile")
    ] = False,
    quick: Quick = False,
) -> None:
    """Throughput and latency of one writer; with --plot also a ladder of loads, unless --rate names them."""
    from woodpecker.bench import append as bench
    from woodpecker.bench.pairs import Plan

    for name in mode or ():
        if name not in bench.MODES:
            raise InvalidRequest(f"--mode {name!r}: one of {', '.join(bench.MODES)}")
    only = bool(size or mode or in_flight or rate or run.plot)  # what was asked for, nothing else
    sizes = bench.SIZES if run.nodes is None else bench.QUORUM_SIZES
    plan = Plan(pairs=pairs or (3 if quick else 10), seconds=seconds or (0.3 if quick else 0.7))
    wanted = bench.AppendPlan(
        plan=plan,
        sizes=size or (sizes if mode or not only else ()),
        modes=mode or tuple(bench.MODES),
        in_flight=in_flight or (() if only else bench.IN_FLIGHT),
        rates=rate or (() if only else (5_000.0,)),
        is_ladder=run.plot is not None and not rate,
        background=background,
    )
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("read")
@measuring
def read(
    run: Run,
    size: Annotated[list[int] | None, typer.Option(metavar="BYTES", help="of an entry")] = None,
    volume: Annotated[int | None, typer.Option(metavar="BYTES", help="written, then read")] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="readings of ours and of the limit")
    ] = None,
    quick: Quick = False,
) -> None:
    """Catching up on sealed segments: as batches, payloads and entries."""
    from woodpecker.bench import read as bench

    if run.nodes is not None:
        raise InvalidRequest("sealed segments of kind quorum lie in the store: leave --nodes out")
    wanted = bench.ReadPlan(
        pairs=pairs or (2 if quick else 7),
        volume_bytes=volume or (64 << 20 if quick else 512 << 20),
        sizes=size or bench.SIZES,
    )
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("tail")
@measuring
def tail(
    run: Run,
    count: Annotated[int | None, typer.Option(min=1, help="entries")] = None,
    quick: Quick = False,
) -> None:
    """From the acknowledgement of an entry until a following reader has it."""
    from woodpecker.bench import tail as bench

    wanted = bench.TailPlan(count=count or (500 if quick else 3000))
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("mixed")
@measuring
def mixed(
    run: Run,
    writers: Annotated[int, typer.Option(min=1, help="each with a log of its own")] = 4,
    tails: Annotated[int, typer.Option(min=0, help="readers that follow each log")] = 1,
    catch_ups: Annotated[int, typer.Option(min=0, help="readers of what is old")] = 1,
    rate: Annotated[float, typer.Option(min=1, help="entries/s together, open loop")] = 2000,
    size: Annotated[int, typer.Option(metavar="BYTES", help="of an entry")] = 1024,
    volume: Annotated[int | None, typer.Option(metavar="BYTES", help="to catch up on")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="slices")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="of one slice")] = None,
    quick: Quick = False,
) -> None:
    """Writers, readers that follow and readers that catch up, all at once."""
    from woodpecker.bench import mixed as bench
    from woodpecker.bench.pairs import Plan

    wanted = bench.MixedPlan(
        plan=Plan(pairs=pairs or (3 if quick else 10), seconds=seconds or (0.3 if quick else 1.0)),
        writers=writers,
        tails=tails,
        catch_ups=catch_ups,
        rate=rate,
        size=size,
        volume_bytes=volume or (64 << 20 if quick else 256 << 20),
    )
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("open")
@measuring
def open_(
    run: Run,
    volume: Annotated[int | None, typer.Option(metavar="BYTES", help="left un-sealed")] = None,
    size: Annotated[int, typer.Option(metavar="BYTES", help="of an entry")] = 16_384,
    flush_every: Annotated[int, typer.Option(help="entries to a block; 0: large blocks")] = 0,
    repeats: Annotated[int | None, typer.Option(min=1, help="writers to kill")] = None,
    quick: Quick = False,
) -> None:
    """Taking over from a writer that was killed."""
    from woodpecker.bench import reopen as bench

    wanted = bench.OpenPlan(
        repeats=repeats or (1 if quick else 3),
        volume_bytes=volume or (64 << 20 if quick else 1 << 30),
        size=size,
        in_flight=flush_every,
    )
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("many-logs")
@measuring
def many_logs(
    run: Run,
    count: Annotated[int | None, typer.Option(min=1, help="logs")] = None,
    idle: Annotated[float | None, typer.Option(min=0.01, help="seconds to watch them idle")] = None,
    quick: Quick = False,
) -> None:
    """Thousands of logs in one store, each with a writer: idle, and with one entry a second."""
    from woodpecker.bench import many_logs as bench

    count = count or (200 if quick else 10_000)
    wanted = bench.ManyPlan(count=count, idle_s=idle or bench.IDLE_S)
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("peers")
@measuring
def peers(
    run: Run,
    peer: Annotated[
        list[str] | None, typer.Option(metavar="nats|redis|...", help="default: all there are")
    ] = None,
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="a broker; default: start one")
    ] = None,
    pulsar: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="a broker")] = None,
    size: Annotated[int, typer.Option(metavar="BYTES", help="of an entry")] = 1024,
    in_flight: Annotated[list[int] | None, typer.Option(metavar="N", help="waiting tasks")] = None,
    rate: Annotated[
        list[float] | None, typer.Option(metavar="N", help="entries/s, open loop")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="slices of each")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="of one slice")] = None,
    quick: Quick = False,
) -> None:
    """Ours and other logs in turn: same payloads, same disk; what an acknowledgement means is printed."""
    from woodpecker.bench.pairs import Plan
    from woodpecker.bench.peers import run as bench

    for name in peer or ():
        if name not in bench.PEERS:
            raise InvalidRequest(f"--peer {name!r}: one of {', '.join(bench.PEERS)}")
    wanted = bench.PeersPlan(
        plan=Plan(pairs=pairs or (3 if quick else 7), seconds=seconds or (0.3 if quick else 0.7)),
        peers=peer or tuple(bench.PEERS),
        size=size,
        in_flight=in_flight or (1, 64),
        rates=rate or (),
        warm_up_s=0.3 if quick else 2.0,
        kafka=kafka,
        pulsar=pulsar,
    )
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("stream")
@measuring
def stream(
    run: Run,
    rate: Annotated[
        list[float] | None, typer.Option(metavar="N", help="messages/s, open loop")
    ] = None,
    size: Annotated[int, typer.Option(metavar="BYTES", help="of a message")] = 1024,
    nats: Annotated[bool, typer.Option(help="NATS JetStream beside it, if it is here")] = True,
    channels: Annotated[
        int, typer.Option(min=0, help="in the end make this many, on 16 pchannels")
    ] = 0,
    pairs: Annotated[int | None, typer.Option(min=1, help="slices of each")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="of one slice")] = None,
    quick: Quick = False,
) -> None:
    """Channels: from producer to consumer, beside the log beneath and NATS; slow consumers; signals."""
    from woodpecker.bench import stream as bench
    from woodpecker.bench.pairs import Plan

    wanted = bench.StreamPlan(
        plan=Plan(pairs=pairs or (2 if quick else 5), seconds=seconds or (0.5 if quick else 2.0)),
        rates=rate or bench.RATES,
        size=size,
        nats=nats,
        signals_s=2.0 if quick else 10.0,
        channels=channels,
    )
    measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("guard")
def guard(
    baseline: Annotated[
        Path, typer.Option(metavar="FILE", help="ratios of an earlier run, made with --update")
    ],
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="where; default: a scratch directory")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="make the baseline anew")] = False,
) -> None:
    """Has something become much slower? Ratios beside a baseline; exit code 1: one has fallen below half."""
    from woodpecker.bench import guard as bench
    from woodpecker.bench.machine import load_average
    from woodpecker.bench.report import Report, from_json, to_json

    load = load_average()
    with ExitStack() as stack:
        base = store or stack.enter_context(TemporaryDirectory(prefix="woodpecker-guard-"))
        if update:
            rows = asyncio.run(bench.baseline(base, say))
            report = Report(command="guard", store="scratch", rows=rows, load_average=load)
            write_file(baseline, to_json(report) + "\n")
            return
        was = bench.ratios(from_json(read_file(baseline), where=str(baseline)).rows)
        scores = asyncio.run(bench.run(base, was, say))
    missing = was.keys() - scores.keys()
    if missing:
        raise InvalidRequest(f"no longer measured: {', '.join(sorted(missing))}; --update")
    verdicts = bench.judged(was, scores)
    print("\n".join(map(str, verdicts)))
    if any(verdict.is_collapse for verdict in verdicts):
        raise typer.Exit(1)
