"""``woodpecker bench``: every figure of the documents, measured again, beside the back end's limit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from woodpecker.cli.session import Session
from woodpecker.errors import InvalidRequest

if TYPE_CHECKING:
    from woodpecker.bench.report import Report, Row
    from woodpecker.bench.target import Target

app = typer.Typer(
    no_args_is_help=True,
    help="Measure a store: ours beside the limit of the back end, in turn, in one run.",
)

StoreUrl: TypeAlias = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="where; default: the store in use")
]
Server: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="seaweed|localbucket", help="start this object store for the run instead"),
]
NodeCount: TypeAlias = Annotated[
    int | None,
    typer.Option("--nodes", min=2, metavar="N", help="start N LogStore nodes; logs of kind quorum"),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="print one JSON document")]
Old: TypeAlias = Annotated[
    Path | None,
    typer.Option("--compare", metavar="OLD.json", help="an earlier run, to compare with"),
]
Quick: TypeAlias = Annotated[bool, typer.Option("--quick", help="below a minute, less exact")]
Uvloop: TypeAlias = Annotated[bool, typer.Option("--uvloop", help="run on uvloop (extra: fast)")]
Work: TypeAlias = "Callable[[Target, Callable[[str], None]], Awaitable[Sequence[Row]]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Where to measure and what to do with the result."""

    ctx: typer.Context
    store: str | None
    server: str | None
    as_json: bool
    old: Path | None
    uvloop: bool = False
    nodes: int | None = None


@app.command("append")
def append(
    ctx: typer.Context,
    store: StoreUrl = None,
    server: Server = None,
    nodes: NodeCount = None,
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
    uvloop: Uvloop = False,
    as_json: Json = False,
    compare: Old = None,
    quick: Quick = False,
) -> None:
    """Throughput and latency of one writer."""
    from woodpecker.bench import append as bench
    from woodpecker.bench.pairs import Plan

    for name in mode or ():
        if name not in bench.MODES:
            raise InvalidRequest(f"--mode {name!r}: one of {', '.join(bench.MODES)}")
    only = bool(size or mode or in_flight or rate)  # what was asked for, and nothing else
    sizes = bench.SIZES if nodes is None else bench.QUORUM_SIZES
    plan = Plan(pairs=pairs or (3 if quick else 10), seconds=seconds or (0.3 if quick else 0.7))
    wanted = bench.AppendPlan(
        plan=plan,
        sizes=size or (sizes if mode or not only else ()),
        modes=mode or tuple(bench.MODES),
        in_flight=in_flight or (() if only else bench.IN_FLIGHT),
        rates=rate or (() if only else (5_000.0,)),
        background=background,
    )
    run = _Run(
        ctx=ctx,
        store=store,
        server=server,
        as_json=as_json,
        old=compare,
        uvloop=uvloop,
        nodes=nodes,
    )
    _measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("read")
def read(
    ctx: typer.Context,
    store: StoreUrl = None,
    server: Server = None,
    size: Annotated[list[int] | None, typer.Option(metavar="BYTES", help="of an entry")] = None,
    volume: Annotated[int | None, typer.Option(metavar="BYTES", help="written, then read")] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="readings of ours and of the limit")
    ] = None,
    uvloop: Uvloop = False,
    as_json: Json = False,
    compare: Old = None,
    quick: Quick = False,
) -> None:
    """Catching up on sealed segments: as batches, payloads and entries."""
    from woodpecker.bench import read as bench

    wanted = bench.ReadPlan(
        pairs=pairs or (2 if quick else 7),
        volume_bytes=volume or (64 << 20 if quick else 512 << 20),
        sizes=size or bench.SIZES,
    )
    run = _Run(ctx=ctx, store=store, server=server, as_json=as_json, old=compare, uvloop=uvloop)
    _measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("tail")
def tail(
    ctx: typer.Context,
    store: StoreUrl = None,
    server: Server = None,
    nodes: NodeCount = None,
    count: Annotated[int | None, typer.Option(min=1, help="entries")] = None,
    uvloop: Uvloop = False,
    as_json: Json = False,
    compare: Old = None,
    quick: Quick = False,
) -> None:
    """From the acknowledgement of an entry until a following reader has it."""
    from woodpecker.bench import tail as bench

    wanted = bench.TailPlan(count=count or (500 if quick else 3000))
    run = _Run(
        ctx=ctx,
        store=store,
        server=server,
        as_json=as_json,
        old=compare,
        uvloop=uvloop,
        nodes=nodes,
    )
    _measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("open")
def open_(
    ctx: typer.Context,
    store: StoreUrl = None,
    server: Server = None,
    nodes: NodeCount = None,
    volume: Annotated[int | None, typer.Option(metavar="BYTES", help="left un-sealed")] = None,
    size: Annotated[int, typer.Option(metavar="BYTES", help="of an entry")] = 16_384,
    flush_every: Annotated[int, typer.Option(help="entries to a block; 0: large blocks")] = 0,
    repeats: Annotated[int | None, typer.Option(min=1, help="writers to kill")] = None,
    as_json: Json = False,
    compare: Old = None,
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
    run = _Run(ctx=ctx, store=store, server=server, as_json=as_json, old=compare, nodes=nodes)
    _measure(run, lambda target, say: bench.run(target, wanted, say))


@app.command("many-logs")
def many_logs(
    ctx: typer.Context,
    store: StoreUrl = None,
    server: Server = None,
    nodes: NodeCount = None,
    count: Annotated[int | None, typer.Option(min=1, help="logs")] = None,
    as_json: Json = False,
    compare: Old = None,
    quick: Quick = False,
) -> None:
    """Thousands of logs in one store, each with a writer: idle, and with one entry a second."""
    from woodpecker.bench import many_logs as bench

    wanted = bench.ManyPlan(count=count or (200 if quick else 10_000))
    run = _Run(ctx=ctx, store=store, server=server, as_json=as_json, old=compare, nodes=nodes)
    _measure(run, lambda target, say: bench.run(target, wanted, say))


def _measure(run: _Run, work: Work) -> None:
    """Run, print, compare."""
    from woodpecker.bench.report import compare, from_json, lines, to_json

    old = None if run.old is None else from_json(_read(run.old), where=str(run.old))
    with asyncio.Runner(loop_factory=_loop_factory(run)) as runner:
        report = runner.run(_report(run, work))
    print(to_json(report) if run.as_json else "\n".join(lines(report)))
    if old is not None:
        print("\n".join(compare(old, report)), file=sys.stderr if run.as_json else sys.stdout)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"--compare {path}: {error.strerror}") from error


def _loop_factory(run: _Run) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not run.uvloop:
        return None
    try:
        import uvloop
    except ImportError as error:
        raise InvalidRequest(
            "--uvloop needs an extra: pip install 'woodpecker-wal[fast]'"
        ) from error
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _report(run: _Run, work: Work) -> Report:
    from woodpecker.bench.machine import load_average
    from woodpecker.bench.report import Report
    from woodpecker.bench.servers import Place, started
    from woodpecker.bench.target import open_target

    session: Session = run.ctx.obj
    session.writable()
    load = load_average()
    async with AsyncExitStack() as stack:
        if run.server is not None:
            place = await stack.enter_async_context(started(run.server))
        else:
            place = Place(run.store or session.store)
        scratch = open_target(place.store, place.storage, nodes=run.nodes or 0)
        target = await stack.enter_async_context(scratch)
        rows = await work(target, _say)
    store = run.server or target.settings.public_url
    if run.nodes is not None:
        store = f"{run.nodes} nodes in {store}"
    command = str(run.ctx.info_name)
    return Report(command=command, store=store, rows=rows, load_average=load)


def _say(what: str) -> None:
    """Progress, where a person looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)
