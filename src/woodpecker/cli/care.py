"""``woodpecker log trim|verify|gc|recover``: what keeps a log in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.logs import Name
from woodpecker.cli.output import bytes_text, print_facts, print_json
from woodpecker.cli.session import Session

if TYPE_CHECKING:
    from woodpecker.client.background import WorkReport
    from woodpecker.client.client import Client
    from woodpecker.client.log import Log


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("trim")(trim)
    app.command("verify")(verify)
    app.command("gc")(collect)
    app.command("recover")(recover)


def trim(
    ctx: typer.Context,
    name: Name,
    before: Annotated[int, typer.Option(min=0, metavar="SEQ", help="drop all entries below it")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only tell what would go")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="not above the lowest cursor")] = False,
) -> None:
    """Drop old entries; their bytes go later, by `log gc` or any client that runs."""
    session: Session = ctx.obj

    async def work(log: Log) -> None:
        report = await log.trim(before, dry_run=dry_run, hold=hold)
        if session.is_json:
            print_json(report)
            return
        verb = "would begin" if dry_run else "begins"
        print(f"log {name} {verb} at seq {report.trim_point}")
        print(
            f"{report.entries} entries; whole segments: {report.segments}, {bytes_text(report.bytes)}"
        )
        if report.held_by:
            print(f"held by cursor {report.held_by}")

    session.with_log(name, work, reads=dry_run)


def collect(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="default: all logs")] = None,
) -> None:
    """Do the background work that is due now: seal, apply retention, remove what nobody needs."""
    session: Session = ctx.obj

    async def work(client: Client) -> WorkReport:
        if name is not None:
            await client.open_log(name)
        return await client.run_background(name)

    report = session.with_client(work)
    figures = {
        "logs": report.logs,
        "sealed": report.sealed,
        "dropped": report.dropped,
        "paged": report.paged,
        "deleted": report.deleted,
    }
    if session.is_json:
        print_json({**figures, "errors": {log: str(e) for log, e in report.errors.items()}})
    else:
        print_facts(figures)
    for error in report.errors.values():
        raise error


def verify(
    ctx: typer.Context,
    name: Name,
    repair: Annotated[
        bool, typer.Option("--repair", help="mend what can be mended without losing anything")
    ] = False,
    start: Annotated[int | None, typer.Option("--from", min=0, metavar="SEQ")] = None,
    end: Annotated[int | None, typer.Option("--to", min=0, metavar="SEQ")] = None,
) -> None:
    """Walk the whole chain of a log and check every byte."""
    session: Session = ctx.obj

    async def work(log: Log) -> None:
        report = await log.verify(start, end, repair=repair)
        if session.is_json:
            print_json(report)
            return
        print(
            f"log {name} is sound: seq {report.first_seq} .. {report.next_seq} (exclusive), "
            f"{report.blocks} blocks in {report.segments} segments, {bytes_text(report.bytes)}"
        )
        print(f"digest {report.digest}")
        for key in report.repaired:
            print(f"repaired {key}")

    session.with_log(name, work, reads=not repair)


def recover(
    ctx: typer.Context,
    name: Name,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="close a segment whose end cannot be found any more; it is recorded",
        ),
    ] = False,
) -> None:
    """Take a log over from a writer that is gone and close its open segment."""
    session: Session = ctx.obj

    async def work(log: Log) -> None:
        report = await log.recover(accept_loss=accept_loss)
        if session.is_json:
            print_json(report)
            return
        how = "in good order" if report.loss is None else "with a loss"
        print(f"log {name} is closed {how}; its next seq is {report.next_seq}")
        if report.loss is not None:
            print(f"lost, as accepted: seq {report.loss.from_seq} and later: {report.loss.reason}")

    session.with_log(name, work)
