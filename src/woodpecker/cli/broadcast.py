"""``woodpecker broadcast send|list|show|resume``; ``broadcast KEY --to a,b`` sends as well."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from woodpecker.cli.output import print_json, print_table
from woodpecker.cli.session import Session
from woodpecker.cli.stream_session import with_desk

if TYPE_CHECKING:
    from woodpecker.cli.stream_session import Desk
    from woodpecker.streaming.requests import BroadcastInfo, Request

Key = Annotated[str, typer.Argument(metavar="KEY", help="names the broadcast: it is done once")]
SEND = "send"


class _Commands(TyperGroup):
    """A first word that is no command of the group is the key of a broadcast to send."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  click's context
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [SEND, *args]
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        help="One message to several channels, once each: KEY --to a,b",
    )
    group.command(SEND)(send)
    group.command("list")(list_broadcasts)
    group.command("show")(show)
    group.command("resume")(resume)
    app.add_typer(group, name="broadcast")


def send(
    ctx: typer.Context,
    key: Key,
    to: Annotated[str, typer.Option("--to", metavar="A,B", help="names of channels")],
    payload: Annotated[str, typer.Option(metavar="TEXT", help="what they are told")] = "",
    type_: Annotated[str, typer.Option("--type", metavar="T", help="type of the message")] = "",
    resource: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="broadcasts that share one keep their order; repeatable"),
    ] = None,
) -> None:
    """Send one message to all of these channels, or to none; ends when all have it."""
    from woodpecker.streaming.requests import Broadcast

    request = Broadcast(
        key=key,
        targets=tuple(name for name in to.split(",") if name),
        payload=payload.encode(),
        type=type_,
        resources=tuple(resource or ()),
    )
    _ask(ctx, request, f"broadcast {key!r}")


def list_broadcasts(ctx: typer.Context) -> None:
    """List the broadcasts that are not done: pending, or parked until a person decides."""
    session: Session = ctx.obj

    async def work(desk: Desk) -> list[BroadcastInfo]:
        from woodpecker.streaming.requests import ListBroadcasts

        return list((await desk.ask(ListBroadcasts(), "list broadcasts")).broadcasts)

    found = with_desk(session, work)
    if session.is_json:
        print_json([asdict(each) for each in found])
    else:
        head = ("id", "key", "state", "written", "skipped", "why")
        print_table(
            head,
            [(b.id, b.key, b.state, len(b.positions), len(b.skipped), b.reason) for b in found],
        )


def show(ctx: typer.Context, key: Key) -> None:
    """Show one broadcast, with its place in each channel."""
    from woodpecker.streaming.requests import GetBroadcast

    _ask(ctx, GetBroadcast(key=key), f"find broadcast {key!r}", changes=False)


def resume(
    ctx: typer.Context,
    key: Key,
    skip: Annotated[bool, typer.Option("--skip", help="leave out what cannot be written")] = False,
) -> None:
    """Try a parked broadcast again."""
    from woodpecker.streaming.requests import ResumeBroadcast

    _ask(ctx, ResumeBroadcast(key=key, skip=skip), f"resume broadcast {key!r}")


def _ask(
    ctx: typer.Context, request: Request[BroadcastInfo], what: str, *, changes: bool = True
) -> None:
    session: Session = ctx.obj

    async def work(desk: Desk) -> BroadcastInfo:
        return await desk.ask(request, what, changes=changes)

    found = with_desk(session, work)
    if session.is_json:
        print_json(asdict(found))
        return
    print(f"broadcast {found.key} is {found.state}{': ' * bool(found.reason)}{found.reason}")
    rows: list[tuple[object, ...]] = [
        (name, p.seq, p.tick, "") for name, p in found.positions.items()
    ]
    rows += [(name, "", "", f"skipped: {why}") for name, why in found.skipped.items()]
    print_table(("channel", "seq", "tick", ""), rows)
