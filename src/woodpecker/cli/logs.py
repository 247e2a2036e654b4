"""``woodpecker log create|list|describe|alter|end|delete``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.log_options import with_log_options
from woodpecker.cli.output import bytes_text, print_facts, print_json, print_table, time_text
from woodpecker.cli.session import Session
from woodpecker.errors import InvalidRequest

if TYPE_CHECKING:
    from woodpecker.client.client import Client
    from woodpecker.client.describe import Description
    from woodpecker.client.log import Log
    from woodpecker.core.manifest import Segment

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the log")]
Attributes = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute", metavar="KEY=TEXT", help="free-form text kept with the log; repeatable"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("create")(with_log_options(create))
    app.command("list")(list_logs)
    app.command("describe")(describe)
    app.command("alter")(with_log_options(alter))
    app.command("end")(end)
    app.command("delete")(delete)


def create(
    ctx: typer.Context,
    name: Name,
    options: dict[str, Any],
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="no error if it is there")] = False,
    attribute: Attributes = None,
) -> None:
    """Create a log."""
    session: Session = ctx.obj
    wanted = {**session.config.log_options(), **options}

    async def work(client: Client) -> None:
        log = await client.create_log(
            name, exist_ok=exist_ok, attributes=_attributes(attribute), **wanted
        )
        if session.is_json:
            print_json({"name": log.name, "log_id": log.log_id})
        else:
            print(f"log {log.name} is there, in {client.environment.url}")

    session.with_client(work)


def list_logs(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="only names that begin so")] = "",
) -> None:
    """List the logs of the store, by name."""
    session: Session = ctx.obj

    async def work(client: Client) -> None:
        names = await client.list_logs(prefix)
        if session.is_json:
            print_json([{"name": name} for name in names])
        else:
            sys.stdout.writelines(f"{name}\n" for name in names)

    session.with_client(work, reads=True)


def describe(ctx: typer.Context, name: Name) -> None:
    """Show state, segments, cursors and options of a log."""
    session: Session = ctx.obj

    async def work(log: Log) -> Description:
        return await log.describe()

    found = session.with_log(name, work, reads=True)
    if session.is_json:
        print_json(found)
    else:
        _print_description(found)


def _print_description(found: Description) -> None:
    options = found.options
    print_facts(
        {
            "log": f"{found.name}  (id {found.log_id})",
            "created": time_text(found.created_at_ms),
            "state": "ended" if found.ended else "open",
            "entries": f"{found.trim_point} .. {found.tail} (exclusive)",
            "writer epoch": found.epoch,
            "stored": f"{bytes_text(found.bytes)} in {found.segment_count} segments, "
            f"{found.unsealed_count} of them not sealed yet",
            "storages": "\n".join(found.storages),
            "attributes": "\n".join(f"{k}={v}" for k, v in found.attributes.items()),
            "options": "\n".join(
                f"{name} = {value}"
                for name in options.__dataclass_fields__
                if (value := getattr(options, name)) is not None
            ),
            "losses": "\n".join(
                f"from seq {loss.from_seq}: {loss.reason}" for loss in found.losses
            ),
        }
    )
    if found.cursors:
        print()
        print_table(
            ("cursor", "position", "lag"), [(c.name, c.position, c.lag) for c in found.cursors]
        )
    if found.segments:
        print()
        print_table(
            ("segment", "kind", "state", "first seq", "end seq", "size", "opened"),
            [
                (s.id, _kind_text(s), s.state, s.base_seq, s.end.seq if s.end else None,
                 bytes_text(s.bytes) if s.end else None, time_text(s.opened_at_ms))
                for s in found.segments
            ],
        )  # fmt: skip


def _kind_text(segment: Segment) -> str:
    """The kind; where nodes hold the blocks, how many acknowledge, and which they are."""
    ensemble = segment.ensemble
    if ensemble is None or segment.sealed is not None:
        return segment.kind
    nodes = " ".join(member.node for member in ensemble.members)
    return f"{segment.kind} {ensemble.acks}/{len(ensemble.members)}: {nodes}"


def alter(
    ctx: typer.Context,
    name: Name,
    options: dict[str, Any],
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="where segments go from the next one on")
    ] = None,
    attribute: Attributes = None,
) -> None:
    """Change options; they count from the next segment on. Attributes are replaced as a whole."""
    session: Session = ctx.obj
    if not options and storage is None and attribute is None:
        raise InvalidRequest("nothing to change: give an option, --storage or --attribute")

    async def work(log: Log) -> None:
        await log.alter(
            storage=storage,
            attributes=None if attribute is None else _attributes(attribute),
            **options,
        )
        if session.is_json:
            print_json((await log.describe()).options)
        else:
            print(f"log {name} is altered, from its next segment on")

    session.with_log(name, work)


def end(ctx: typer.Context, name: Name) -> None:
    """End a log for ever: writers are refused, followers finish."""
    session: Session = ctx.obj

    async def work(log: Log) -> int:
        return await log.end()

    next_seq = session.with_log(name, work)
    if session.is_json:
        print_json({"name": name, "next_seq": next_seq})
    else:
        print(f"log {name} has ended with {next_seq} as its next seq")


def delete(
    ctx: typer.Context,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="do not fence the last writer: its host is gone")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask on a terminal")] = False,
) -> None:
    """Delete a log and its data."""
    session: Session = ctx.obj
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete log {name} and all its data in {session.store}?", abort=True)

    async def work(client: Client) -> None:
        await client.delete_log(name, force=force)

    session.with_client(work)
    if session.is_json:
        print_json({"name": name, "deleted": True})
    else:
        print(f"log {name} is deleted")


def _attributes(pairs: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"--attribute {pair!r}: use KEY=TEXT")
        found[key] = text
    return found
