"""``woodpecker read``: entries of a log to stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.formats import Shape
from woodpecker.cli.logs import Name
from woodpecker.cli.session import Session

if TYPE_CHECKING:
    from woodpecker.client.client import Client


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("read")(read)


def read(
    ctx: typer.Context,
    name: Name,
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar="X", help="seq, earliest, latest, -n, time with zone, cursor:NAME"
        ),
    ] = "earliest",
    end: Annotated[
        str | None, typer.Option("--to", metavar="Y", help="exclusive: seq, time with zone, tail")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as entries come")] = False,
    shape: Annotated[
        Shape,
        typer.Option(
            "--format", help="lines, raw: payloads as they are; jsonl: with seq, headers, time"
        ),
    ] = Shape.LINES,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="at most N entries")] = None,
) -> None:
    """Print entries of a log."""
    from woodpecker.cli.reading import Request, copy_out

    session: Session = ctx.obj
    request = Request(name=name, start=start, end=end, follow=follow, shape=shape, limit=limit)

    async def work(client: Client) -> None:
        await copy_out(client, request, sys.stdout.buffer)

    session.with_client(work, reads=True)
