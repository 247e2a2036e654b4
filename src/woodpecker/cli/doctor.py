"""``woodpecker doctor``: try the store, and say what to expect of it."""

from __future__ import annotations

import typer

from woodpecker.cli.exits import UNUSABLE
from woodpecker.cli.output import print_json
from woodpecker.cli.session import Session, run

MARKS = {True: "ok  ", False: "FAIL", None: "    "}


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("doctor")(doctor)


def doctor(ctx: typer.Context) -> None:
    """Probe the store: conditions, latency, throughput, clock, space; say what fits. Makes no store."""
    from woodpecker.cli.examine import advise, examine, url_of

    session: Session = ctx.obj
    found = run(examine(session))
    advice = advise(session, found)
    if session.is_json:
        print_json(
            {
                "store": url_of(session),
                "usable": found.is_usable,
                "checks": found.checks,
                "figures": found.figures,
                "advice": advice,
            }
        )
    else:
        print(url_of(session))
        for check in found.checks:
            print(f"  {MARKS[check.ok]}  {check.name:<18}  {check.detail}")
        print(advice)
    if not found.is_usable:
        raise typer.Exit(UNUSABLE)
