"""``woodpecker dev cluster``: a whole cluster on this machine, of real processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.session import Session

if TYPE_CHECKING:
    from woodpecker.cli.dev_layout import Layout
    from woodpecker.cli.dev_processes import Child


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="For developers: a cluster on this machine.")
    group.callback()(_group)
    group.command("cluster")(cluster)
    app.add_typer(group, name="dev")


def _group() -> None:
    return


def cluster(
    ctx: typer.Context,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="data and logs; the same one goes on")
    ],
    nodes: Annotated[
        int | None, typer.Option(min=2, max=16, metavar="N", help="LogStore nodes (default: 3)")
    ] = None,
    streaming: Annotated[
        int | None,
        typer.Option(
            min=1, max=16, metavar="N", help="streaming nodes, and two coordinators (default: none)"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1024,
            max=60_000,
            metavar="P",
            help="nodes listen on P, P+1, ..., streaming nodes on P+20, ..., coordinators on P+40, ..., "
            "their HTTP 100 above (default: any that are free)",
        ),
    ] = None,
    etcd: Annotated[
        bool, typer.Option("--etcd", help="metadata in an etcd, not in a file of DIR")
    ] = False,
    s3: Annotated[
        bool, typer.Option("--s3", help="sealed segments in a SeaweedFS, not in a directory of DIR")
    ] = False,
    zones: Annotated[bool, typer.Option("--zones", help="spread the nodes over 3 zones")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON document when all are ready")
    ] = False,
) -> None:
    """Run nodes and what they need until Ctrl-C or SIGTERM. A killed process stays down."""
    import asyncio

    from woodpecker.cli import dev_layout

    session: Session = ctx.obj
    directory = directory.expanduser().absolute()
    with dev_layout.held(directory):
        wanted = dev_layout.Wanted(
            nodes=nodes, streaming=streaming, port=port, etcd=etcd, s3=s3, zones=zones
        )
        layout = dev_layout.lay_out(directory, wanted)
        asyncio.run(_run(directory, layout, as_json=as_json or session.is_json))


async def _run(directory: Path, layout: Layout, *, as_json: bool) -> None:
    import signal

    from woodpecker.cli import dev_layout
    from woodpecker.cli.dev_processes import Child, stop_all
    from woodpecker.cli.serving import done_before, stop_signals

    started: list[Child] = []

    async def start() -> None:
        for make in (dev_layout.stores, dev_layout.nodes, dev_layout.streaming):
            for program in make(directory, layout):
                started.append(await Child.start(program, directory))  # noqa: PERF401  one by one
            for child in started:
                await child.wait_ready()

    def ended(child: Child, code: int) -> None:
        if not stop.is_set():
            _say_ended(child, code)

    def kill_all() -> None:
        for child in started:
            child.signal(signal.SIGKILL)

    with stop_signals(at_second=kill_all) as stop:
        try:
            if await done_before(stop, start()):
                _say_ready(directory, layout, started, as_json=as_json)
                for child in started:
                    child.on_end(ended)
                await stop.wait()
        finally:
            for role in ("coordinator", "streaming", "logstore"):  # nobody moves what ends
                await stop_all([child for child in started if child.program.role == role])
            await stop_all(started)


def _say_ready(directory: Path, layout: Layout, started: list[Child], *, as_json: bool) -> None:
    from woodpecker.cli.output import print_json, print_table

    if as_json:
        programs = [(child.program, child.pid) for child in started]
        processes = [
            {
                "name": program.name,
                "role": program.role,
                "pid": pid,
                "address": program.address,
                "argv": program.argv,
                "log": str(program.log),
            }
            for program, pid in programs
        ]
        print_json(
            {
                "url": layout.url,
                "streaming": layout.streaming_addresses,
                "processes": processes,
            }
        )
    else:
        head = ("name", "role", "pid", "address", "zone")
        zones = {node.name: node.zone for node in layout.members}
        print_table(
            head,
            [
                (child.program.name, child.program.role, child.pid, child.program.address,
                 zones.get(child.program.name))
                for child in started
            ],
        )  # fmt: skip
        print(f"\nready: {layout.url}   logs: {directory / 'logs'}   Ctrl-C ends all of it")
    sys.stdout.flush()


def _say_ended(child: Child, code: int) -> None:
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    print(f"woodpecker: {child.program.name} has ended ({how}) and stays down", file=sys.stderr)
