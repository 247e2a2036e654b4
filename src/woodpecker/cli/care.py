"""``woodpecker log trim|verify|gc|recover``: what keeps a log in order."""

from __future__ import annotations

from typing import Annotated

import typer

from woodpecker.cli.logs import Name
from woodpecker.cli.output import bytes_text, print_facts, print_json
from woodpecker.cli.session import Session
from woodpecker.client.background import BackgroundWorker, WorkReport
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
        return await BackgroundWorker(client.environment).run_once(name)

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
