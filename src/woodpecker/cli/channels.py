"""``woodpecker channel create|list|describe|delete``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.output import print_facts, print_json, print_table
from woodpecker.cli.session import Session
from woodpecker.cli.stream_session import ASK_TIMEOUT_S, with_desk, with_streaming
from woodpecker.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from woodpecker.cli.stream_session import Desk
    from woodpecker.streaming.client.client import StreamingClient
    from woodpecker.streaming.requests import Channel, CursorState

ChannelName = Annotated[str, typer.Argument(metavar="NAME", help="name of the channel")]
PAGE = 1000


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Channels of the streaming service.")
    group.command("create")(create)
    group.command("list")(list_channels)
    group.command("describe")(describe)
    group.command("delete")(delete)
    app.add_typer(group, name="channel")


def create(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="of the channels; -: lines of stdin")
    ],
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="no error if it is there")] = False,
    retention_age_s: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="messages older than this may go")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=TEXT", help="free-form text kept with it; repeatable"),
    ] = None,
) -> None:
    """Create channels: one, or many at a time."""
    session: Session = ctx.obj
    attributes = _attributes(attribute)
    is_one = len(names) == 1 and names != ["-"]
    if names == ["-"]:
        names = [line.strip() for line in sys.stdin if line.strip()]

    async def work(client: StreamingClient) -> None:
        channels = await client.create_channels(
            names, exist_ok=exist_ok, retention_age_s=retention_age_s, attributes=attributes
        )
        if session.is_json:
            facts = [{"name": c.name, "vcid": c.vcid, "pchannel": c.pchannel} for c in channels]
            print_json(facts[0] if is_one else facts)
            return
        for channel in channels:
            print(f"channel {channel.name} is there, number {channel.vcid} on {channel.pchannel}")

    with_streaming(session, work, timeout_s=ASK_TIMEOUT_S)


def _attributes(given: list[str] | None) -> dict[str, str]:
    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"--attribute {text!r}: use KEY=TEXT")
        found[key] = value
    return found


def list_channels(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="only names that begin so")] = "",
) -> None:
    """List the channels."""
    session: Session = ctx.obj

    async def work(desk: Desk) -> list[Channel]:
        from woodpecker.streaming.requests import ListChannels

        found: list[Channel] = []
        while True:
            after = found[-1].name if found else ""
            page = await desk.ask(
                ListChannels(prefix=prefix, start_after=after, limit=PAGE), "list channels"
            )
            found += page.channels
            if not page.more:
                return found

    found = with_desk(session, work)
    if session.is_json:
        print_json([_facts(info) for info in found])
    else:
        head = ("name", "number", "pchannel", "state")
        print_table(head, [(c.name, c.vcid, c.pchannel, c.state) for c in found])


def describe(ctx: typer.Context, name: ChannelName) -> None:
    """Show a channel: where it lives, how far it is, its cursors."""
    session: Session = ctx.obj

    async def work(desk: Desk) -> dict[str, Any]:
        from woodpecker.streaming.requests import GetReadPoint, ListCursors

        info = await desk.channel(name)
        what = f"describe channel {name!r}"
        point = GetReadPoint(pchannel=info.pchannel, vcid=info.vcid)
        read = await desk.ask_owner(info.pchannel, point, what)
        cursors = ListCursors(pchannel=info.pchannel, vcid=info.vcid)
        listed = await desk.ask_owner(info.pchannel, cursors, what)
        place = {"seq": read.position.seq, "tick": read.position.tick, "term": read.position.term}
        return {**_facts(info), "read_point": place, "cursors": list(map(_cursor, listed.cursors))}

    found = with_desk(session, work)
    if session.is_json:
        print_json(found)
        return
    attributes, cursors, point = found.pop("attributes"), found.pop("cursors"), found["read_point"]
    found["read_point"] = f"seq {point['seq']}, tick {point['tick']}"
    found["attributes"] = "\n".join(f"{key}={text}" for key, text in attributes.items())
    found["cursors"] = "\n".join(
        f"{c['cursor']}: all below seq {c['seq']}.{c['index']} is done" for c in cursors
    )
    print_facts(found)


def _facts(info: Channel) -> dict[str, Any]:
    return {**asdict(info), "attributes": dict(info.attributes)}


def _cursor(state: CursorState) -> dict[str, Any]:
    return {
        "cursor": state.cursor,
        "seq": state.done.seq,
        "index": state.done.index,
        "generation": state.generation,
        "holder": state.holder,
    }


def delete(
    ctx: typer.Context,
    name: ChannelName,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="no error if it never was there")
    ] = False,
) -> None:
    """Delete a channel with all its messages and cursors."""
    session: Session = ctx.obj
    if not yes and sys.stdin.isatty():
        typer.confirm(f"delete channel {name} and all of its messages?", abort=True)

    async def work(client: StreamingClient) -> None:
        try:
            await client.delete_channel(name)
        except NotFound:
            if not missing_ok:
                raise
        if session.is_json:
            print_json({"name": name, "deleted": True})
        else:
            print(f"channel {name} is deleted")

    with_streaming(session, work, timeout_s=ASK_TIMEOUT_S)
