"""``woodpecker cursor list|show|commit|delete``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from woodpecker.cli.logs import Name
from woodpecker.cli.output import print_facts, print_json, print_table
from woodpecker.cli.session import Session

if TYPE_CHECKING:
    from woodpecker.client.client import Client
    from woodpecker.client.cursor import Cursor
    from woodpecker.client.log import Log

CursorName = Annotated[str, typer.Argument(metavar="CURSOR", help="name of the cursor")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Durable places of consumers in a log.")
    group.command("list")(list_cursors)
    group.command("show")(show)
    group.command("commit")(commit)
    group.command("delete")(delete)
    app.add_typer(group, name="cursor")


def list_cursors(ctx: typer.Context, name: Name) -> None:
    """List the cursors of a log, with their lag behind the tail."""
    session: Session = ctx.obj

    async def work(log: Log) -> None:
        found = [_facts(cursor, await log.tail()) for cursor in await log.cursors()]
        if session.is_json:
            print_json(found)
        else:
            print_table(("cursor", "position", "lag"), [list(row.values()) for row in found])

    session.with_log(name, work, reads=True)


def show(ctx: typer.Context, name: Name, cursor: CursorName) -> None:
    """Show one cursor."""
    session: Session = ctx.obj

    async def work(client: Client) -> None:
        log = await client.open_log(name)
        _print(session, await _find(client, log, cursor), await log.tail())

    session.with_client(work, reads=True)


def commit(
    ctx: typer.Context,
    name: Name,
    cursor: CursorName,
    position: Annotated[
        str, typer.Argument(metavar="POSITION", help="seq, earliest, latest, -n, time with zone")
    ],
) -> None:
    """Set a cursor durably: all entries below POSITION are done. It is made if it is not there."""
    session: Session = ctx.obj

    async def work(client: Client) -> None:
        log = await client.open_log(name)
        position_seq = await _resolve(client, log, position)
        opened = await log.cursor(cursor, start=position_seq)
        if opened.position != position_seq:
            await opened.commit(position_seq)
        _print(session, opened, await log.tail())

    session.with_client(work)


async def _resolve(client: Client, log: Log, text: str) -> int:
    from woodpecker.cli.positions import start_of
    from woodpecker.client.reader_start import resolve_start
    from woodpecker.core.reading import parse_start

    env = client.environment
    start = await start_of(env, log, text)
    return await resolve_start(env, log.name, log.log_id, parse_start(start))


def delete(ctx: typer.Context, name: Name, cursor: CursorName) -> None:
    """Delete a cursor; it holds back no trimming any more."""
    session: Session = ctx.obj

    async def work(client: Client) -> None:
        await (await _find(client, await client.open_log(name), cursor)).delete()
        if session.is_json:
            print_json({"cursor": cursor, "deleted": True})
        else:
            print(f"cursor {cursor} of log {name} is deleted")

    session.with_client(work)


async def _find(client: Client, log: Log, name: str) -> Cursor:
    from woodpecker.client.cursor import find_cursor

    return await find_cursor(client.environment, log.name, log.log_id, name)


def _facts(cursor: Cursor, tail: int) -> dict[str, object]:
    return {
        "name": cursor.name,
        "position": cursor.position,
        "lag": max(0, tail - cursor.position),
    }


def _print(session: Session, cursor: Cursor, tail: int) -> None:
    facts = _facts(cursor, tail)
    if session.is_json:
        print_json(facts)
    else:
        print_facts(facts)
