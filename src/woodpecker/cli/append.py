"""``woodpecker append``: bytes of a file or of stdin become entries."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.formats import Format
from woodpecker.cli.logs import Name
from woodpecker.cli.output import print_json
from woodpecker.cli.session import Session

if TYPE_CHECKING:
    from woodpecker.cli.appending import Appended
    from woodpecker.client.log import Log


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("append")(append)


def append(
    ctx: typer.Context,
    name: Name,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="default: stdin")] = "-",
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="lines: an entry per line; jsonl: as `read` prints it; raw: pieces"
        ),
    ] = Format.LINES,
    entry_bytes: Annotated[
        int,
        typer.Option(min=1, max=64 << 20, metavar="N", help="size of an entry with --format raw"),
    ] = 1 << 20,
    producer: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="exactly once: an id for this input; the same command again goes on where it stopped",
        ),
    ] = None,
) -> None:
    """Append FILE or stdin to a log; takes the log over. Prints the first and last seq."""
    from woodpecker.cli.appending import Request, append_input

    session: Session = ctx.obj
    request = Request(name=name, file=file, form=form, entry_bytes=entry_bytes, producer=producer)

    async def work(log: Log) -> Appended:
        return await append_input(log, request)

    done = session.with_log(name, work, background=True)
    if session.is_json:
        print_json(done)
    elif done.count:
        print(f"{done.count} entries appended to {name}: seq {done.first_seq} .. {done.last_seq}")
    else:
        print(f"nothing to append to {name}; its next seq is {done.next_seq}")
    if done.skipped_batches and not session.is_json:
        print(f"{done.skipped_batches} batches were there already", file=sys.stderr)
