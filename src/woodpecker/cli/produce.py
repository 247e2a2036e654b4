"""``woodpecker produce``: lines of a file or of stdin become messages of a channel."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.channels import ChannelName
from woodpecker.cli.output import print_json
from woodpecker.cli.session import Session
from woodpecker.cli.stream_session import with_streaming

if TYPE_CHECKING:
    from woodpecker.cli.producing import Produced
    from woodpecker.streaming.client.client import StreamingClient


class Form(StrEnum):
    """How input becomes messages."""

    LINES = "lines"
    JSONL = "jsonl"


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("produce")(produce)


def produce(
    ctx: typer.Context,
    name: ChannelName,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="default: stdin")] = "-",
    form: Annotated[
        Form,
        typer.Option("--format", help="lines: a message per line; jsonl: as `consume` prints it"),
    ] = Form.LINES,
    key_from: Annotated[
        str | None,
        typer.Option(
            metavar="MEMBER",
            help="each line is a JSON object, kept as it is; this member of it is the key",
        ),
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="T", help="type of all messages")
    ] = None,
    transaction: Annotated[
        bool, typer.Option("--transaction", help="all of them become visible together, or none")
    ] = False,
    producer: Annotated[
        str | None,
        typer.Option(metavar="ID", help="name: one of this name that still runs is fenced"),
    ] = None,
) -> None:
    """Send FILE or stdin to a channel. Prints the first and last place when everything is durable."""
    from woodpecker.cli.producing import Request, send_input

    session: Session = ctx.obj
    session.writable()
    request = Request(
        name=name,
        file=file,
        form=form,
        key_from=key_from,
        type=type_,
        transaction=transaction,
        producer=producer,
    )

    async def work(client: StreamingClient) -> Produced:
        return await send_input(client, request)

    done = with_streaming(session, work)
    if session.is_json:
        print_json(done)
    elif done.first is None or done.last is None:
        print("nothing was sent: the input is empty")
    elif transaction:
        txn = f"txn {name} {done.producer} {done.epoch} {done.transaction}"
        print(f"sent {done.count} messages at seq {done.first.seq}, together: {txn}")
    else:
        print(f"sent {done.count} messages, seq {done.first.seq} .. {done.last.seq}")
    sys.stdout.flush()
