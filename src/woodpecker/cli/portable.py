"""``woodpecker export|import``: a log as one portable file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.logs import Name
from woodpecker.cli.output import bytes_text, print_json
from woodpecker.cli.session import Session

if TYPE_CHECKING:
    from woodpecker.client.client import Client
    from woodpecker.client.export import ExportReport
    from woodpecker.client.log import Log

File = Annotated[Path, typer.Argument(metavar="FILE")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("export")(export)
    app.command("import")(import_)


def export(ctx: typer.Context, name: Name, file: File) -> None:
    """Write a whole log, verified, with its cursors, into one file."""
    _check(file)
    session: Session = ctx.obj

    async def work(log: Log) -> ExportReport:
        return await log.export(str(file))

    _print(session, session.with_log(name, work, reads=True), f"log {name} is in {file}")


def import_(ctx: typer.Context, name: Name, file: File) -> None:
    """Make a log of an exported file, verified: same seqs, entries and cursors."""
    _check(file)
    session: Session = ctx.obj

    async def work(client: Client) -> ExportReport:
        return await client.import_log(name, str(file))

    _print(session, session.with_client(work), f"{file} is log {name}")


def _check(file: Path) -> None:
    """An export is checked as a whole before it counts: a pipe cannot be taken back."""
    from woodpecker.errors import InvalidRequest

    if str(file) == "-":
        raise InvalidRequest("an export is a file: stdin and stdout will not do; name one")


def _print(session: Session, report: ExportReport, done: str) -> None:
    if session.is_json:
        print_json(report)
        return
    print(
        f"{done}: seq {report.first_seq} .. {report.next_seq} (exclusive), {report.entries} entries, "
        f"{bytes_text(report.bytes)}, digest {report.digest}"
    )
