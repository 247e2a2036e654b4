"""The command ``woodpecker``: global options and the tree of commands."""

from __future__ import annotations

import gc
import logging
import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from woodpecker.cli import (
    append,
    bench,
    broadcast,
    care,
    channels,
    cluster,
    config,
    consume,
    cursors,
    dev,
    doctor,
    logs,
    logstore,
    nodes,
    plan,
    portable,
    produce,
    read,
    segments,
    sim,
    stream_serve,
)
from woodpecker.cli.exits import Debug, guarded
from woodpecker.cli.session import Session


class Commands(TyperGroup):
    """The one place where errors of any command become a line and an exit code."""

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401  click's or typer's own context
        with guarded():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Woodpecker: durable, ordered, fenced logs in a directory or a bucket, and channels on them.",
    epilog="Exit codes, formats and settings: docs/cli.md",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from woodpecker import __version__

        typer.echo(f"woodpecker {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    ctx: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="file:///dir, s3://bucket/prefix, gs://, az://, wp://host:port or a directory "
            "(WOODPECKER_STORE; default: a directory under your data folder)",
        ),
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(metavar="URL", help="another metadata store: etcd://host:port/prefix"),
    ] = None,
    buffer: Annotated[
        str | None,
        typer.Option(metavar="URL", help="local directory for open segments of a bucket"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="table|json", help="how results are printed"),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show the trace of an error")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="say the version"),
    ] = False,
) -> None:
    Debug.on = debug
    assert logging.lastResort is not None
    logging.getLogger("woodpecker").addHandler(logging.lastResort)  # warnings go to stderr
    ctx.obj = Session({"store": store, "metadata": metadata, "buffer": buffer, "output": output})


log_app = typer.Typer(no_args_is_help=True, help="Create, look at and take care of logs.")
logs.add_to(log_app)
care.add_to(log_app)
app.add_typer(log_app, name="log")
append.add_to(app)
read.add_to(app)
cursors.add_to(app)
segments.add_to(app)
stream_serve.add_to(app, nodes.add_to(app))
channels.add_to(app)
produce.add_to(app)
consume.add_to(app)
cluster.add_to(app)
broadcast.add_to(app)
logstore.add_to(app)
dev.add_to(app)
portable.add_to(app)
doctor.add_to(app)
plan.add_to(app)
config.add_to(app)
app.add_typer(bench.app, name="bench")
app.add_typer(sim.app, name="sim")


def main() -> None:
    """Entry point of the installed command."""
    if os.environ.get("_WOODPECKER_COMPLETE") is None:
        gc.freeze()  # what is loaded now stays: collections need not look at it again
        gc.set_threshold(50_000)
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # its own log of broken connections is ours to tell
    app(prog_name="woodpecker")
