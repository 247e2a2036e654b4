"""``woodpecker config explain``."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import typer

from woodpecker.cli.output import print_json, print_table
from woodpecker.cli.session import Session
from woodpecker.config import Value


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Settings and where they come from.")
    group.callback()(_group)  # keeps "explain" a command of its own while it is the only one
    group.command("explain")(explain)
    app.add_typer(group, name="config")


def _group() -> None:
    return


def explain(ctx: typer.Context) -> None:
    """Print each setting with its value, source, unit, default and bounds."""
    session: Session = ctx.obj
    rows = [
        {
            "name": setting.name,
            "value": _without_secrets(chosen.value),
            "source": chosen.source,
            "unit": setting.unit,
            "default": setting.default,
            "bounds": setting.bounds,
            "variable": setting.variable,
            "text": setting.text,
        }
        for setting, chosen in session.config
    ]
    if session.is_json:
        print_json(rows)
        return
    columns = ("name", "value", "source", "unit", "default", "bounds")
    print_table(columns, [[row[column] for column in columns] for row in rows])
    print(
        f"\nfile read: {session.config.file or 'none'}; docs/cli.md says which files are looked for"
    )


def _without_secrets(value: Value) -> Value:
    """A URL may carry keys in its query, and a password before '@'."""
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    host = parts.netloc.rpartition("@")[2]
    names = "&".join(f"{pair.partition('=')[0]}=..." for pair in parts.query.split("&") if pair)
    return urlunsplit((parts.scheme, host, parts.path, names, ""))
