"""``woodpecker consume`` and ``subscribe``: messages of a channel to stdout."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.channels import ChannelName
from woodpecker.cli.formats import Shape
from woodpecker.cli.session import Session
from woodpecker.cli.stream_session import with_streaming
from woodpecker.errors import InvalidRequest

if TYPE_CHECKING:
    from woodpecker.streaming.client.client import StreamingClient

Start = Annotated[
    str,
    typer.Option(
        "--from", metavar="X", help="earliest, latest, seq, seq.index, time with zone, tick:T"
    ),
]
Type = Annotated[str | None, typer.Option("--type", metavar="T", help="only of this type")]
Key = Annotated[str | None, typer.Option("--key", metavar="K", help="only with this key")]
Property = Annotated[
    list[str] | None,
    typer.Option("--property", metavar="N=V", help="only with this property; repeatable"),
]
Form = Annotated[
    Shape,
    typer.Option("--format", help="lines, raw: payloads as they are; jsonl: with place, key, ..."),
]


class Ack(StrEnum):
    """What ``subscribe`` acknowledges."""

    AUTO = "auto"
    NONE = "none"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("consume")(consume)
    app.command("subscribe")(subscribe)


def consume(
    ctx: typer.Context,
    name: ChannelName,
    start: Start = "earliest",
    end: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="Y", help="exclusive: seq, seq.index, time with zone, tick:T, tail"
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as messages come")] = False,
    type_: Type = None,
    key: Key = None,
    properties: Property = None,
    shape: Form = Shape.LINES,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="at most N messages")
    ] = None,
) -> None:
    """Print messages of a channel: those that are there, or with --follow for ever."""
    from woodpecker.cli.consuming import Request, copy_out

    session: Session = ctx.obj
    if follow and end is not None:
        raise InvalidRequest("--follow never ends, so it goes without --to")
    request = Request(
        name=name,
        start=start,
        end=None if follow else end or "tail",
        type=type_,
        key=key,
        properties=properties or [],
        shape=shape,
        limit=limit,
    )

    async def work(client: StreamingClient) -> None:
        await copy_out(client, request, sys.stdout.buffer)

    with_streaming(session, work)


def subscribe(
    ctx: typer.Context,
    name: ChannelName,
    cursor: Annotated[str, typer.Argument(metavar="CURSOR", help="name of the durable cursor")],
    start: Start = "earliest",
    ack: Annotated[
        Ack, typer.Option(help="auto: each message once it is printed; none: it comes again")
    ] = Ack.AUTO,
    limit: Annotated[
        int | None, typer.Option("--max", min=1, metavar="N", help="end after N messages")
    ] = None,
    type_: Type = None,
    key: Key = None,
    properties: Property = None,
    shape: Form = Shape.LINES,
) -> None:
    """Print messages under a durable cursor: who comes next goes on behind what was acknowledged.

    --from is where a new cursor begins; the filter is kept with it.
    """
    from woodpecker.cli.consuming import Request, copy_subscribed

    session: Session = ctx.obj
    request = Request(
        name=name,
        start=start,
        end=None,
        type=type_,
        key=key,
        properties=properties or [],
        shape=shape,
        limit=limit,
    )

    async def work(client: StreamingClient) -> None:
        acknowledge = ack is Ack.AUTO
        await copy_subscribed(client, request, cursor, sys.stdout.buffer, acknowledge=acknowledge)

    with_streaming(session, work)
