"""``woodpecker segment list|show|fence|seal``: the parts a log consists of, of all kinds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.logs import Name
from woodpecker.cli.output import bytes_text, print_facts, print_json, print_table, time_text
from woodpecker.cli.session import Session
from woodpecker.errors import NotFound

if TYPE_CHECKING:
    from woodpecker.client.client import Client
    from woodpecker.client.log import Log
    from woodpecker.core.manifest import Manifest, Segment

SegmentId = Annotated[int, typer.Argument(metavar="SEGMENT", min=0, help="its number in the log")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="The parts a log consists of.")
    group.command("list")(list_segments)
    group.command("show")(show)
    group.command("fence")(fence)
    group.command("seal")(seal)
    app.add_typer(group, name="segment")


def list_segments(ctx: typer.Context, name: Name) -> None:
    """List the segments of a log, oldest first: state, range, where each one lies."""
    from woodpecker.client.kept import on_kept

    session: Session = ctx.obj

    async def work(client: Client) -> list[dict[str, Any]]:
        env = client.environment

        async def facts(manifest: Manifest) -> list[dict[str, Any]]:
            return [_facts(manifest, segment) async for segment in env.segments(manifest)]

        return await on_kept(env, await env.catalog.read(name), facts)

    found = session.with_client(work, reads=True)
    if session.is_json:
        print_json(found)
        return
    print_table(
        ("segment", "kind", "state", "epoch", "first seq", "end seq", "size", "opened", "where"),
        [
            (s["id"], s["kind"], s["state"], s["epoch"], s["base_seq"], s["end_seq"],
             None if s["bytes"] is None else bytes_text(s["bytes"]), time_text(s["opened_at_ms"]),
             s["sealed"] or s["where"])
            for s in found
        ],
    )  # fmt: skip


def show(ctx: typer.Context, name: Name, segment_id: SegmentId) -> None:
    """Show one segment; of kind quorum: each replica, how far it is behind, who fenced it and why."""
    from woodpecker.app import cluster_of
    from woodpecker.cli.replicas import look_at_replicas

    session: Session = ctx.obj

    async def work(client: Client) -> dict[str, Any]:
        manifest, segment = await _find(client, name, segment_id)
        facts = _facts(manifest, segment)
        if segment.ensemble is not None and segment.sealed is None:
            facts["replicas"] = await look_at_replicas(cluster_of(client), manifest, segment)
        return facts

    found = session.with_client(work, reads=True)
    if session.is_json:
        print_json(found)
        return
    replicas = found.pop("replicas", [])
    found["opened_at"] = time_text(found.pop("opened_at_ms"))
    found["closed_at"] = time_text(found.pop("closed_at_ms"))
    found["members"] = "\n".join(f"{m['node']}  ({m['incarnation']})" for m in found["members"])
    print_facts(found)
    if replicas:
        print()
        print_table(
            ("node", "address", "zone", "last block", "synced", "LAC", "lag", "size", "fence", "note"),
            [
                (r["node"], r["address"], r["zone"], r["last"], r["synced"], r["lac"],
                 r["lag_blocks"], None if r["bytes"] is None else bytes_text(r["bytes"]),
                 r["fence"] and f"epoch {r['fence']['epoch']}: {r['fence']['reason']}", r["note"])
                for r in replicas
            ],
        )  # fmt: skip


def fence(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask on a terminal")] = False,
) -> None:
    """End the writer of a log and close its open segment, as a take-over does. Nothing is lost."""
    session: Session = ctx.obj
    if not yes and sys.stdin.isatty():
        typer.confirm(f"End the writer of log {name}, if it has one?", abort=True)

    async def work(log: Log) -> int:
        return (await log.recover()).next_seq

    next_seq = session.with_log(name, work)
    if session.is_json:
        print_json({"name": name, "next_seq": next_seq})
    else:
        print(f"log {name} has no writer and no open segment; its next seq is {next_seq}")


def seal(ctx: typer.Context, name: Name) -> None:
    """Seal all closed segments of a log now, instead of waiting for a node or a client to do it."""
    from woodpecker.client.sealing import seal_log

    session: Session = ctx.obj

    async def work(client: Client) -> int:
        return await seal_log(client.environment, name)

    count = session.with_client(work)
    if session.is_json:
        print_json({"name": name, "sealed": count})
    else:
        print(
            f"log {name}: {count} segments sealed now; none is left that is closed and not sealed"
        )


async def _find(client: Client, name: str, segment_id: int) -> tuple[Manifest, Segment]:
    from woodpecker.client.kept import on_kept

    env = client.environment

    async def look(manifest: Manifest) -> tuple[Manifest, Segment] | None:
        async for segment in env.segments(manifest):
            if segment.id == segment_id:
                return manifest, segment
        return None

    found = await on_kept(env, await env.catalog.read(name), look)
    if found is not None:
        return found
    raise NotFound(
        f"log {name!r} has no segment {segment_id} (any more): see `segment list {name}`"
    )


def _facts(manifest: Manifest, segment: Segment) -> dict[str, Any]:
    members = segment.ensemble.members if segment.ensemble else ()
    return {
        "id": segment.id,
        "kind": segment.kind,
        "state": segment.state,
        "epoch": segment.epoch,
        "base_seq": segment.base_seq,
        "end_seq": segment.end.seq if segment.end else None,
        "end_block": segment.end.block if segment.end else None,
        "digest": segment.end.digest if segment.end else None,
        "bytes": segment.bytes if segment.end else None,
        "opened_at_ms": segment.opened_at_ms,
        "closed_at_ms": segment.closed_at_ms,
        "storage": manifest.storages[segment.storage],
        "sealed": segment.sealed.key if segment.sealed else None,
        "where": _where(segment),
        "members": [{"node": m.node, "incarnation": m.incarnation} for m in members],
        "acks": segment.ensemble.acks if segment.ensemble else None,
    }


def _where(segment: Segment) -> str:
    """Where its blocks are, or were until it was sealed."""
    if segment.place is not None:
        return f"host {segment.place.host}"
    if segment.ensemble is not None:
        names = " ".join(member.node for member in segment.ensemble.members)
        return f"{names} ({segment.ensemble.acks} of {len(segment.ensemble.members)})"
    return "bucket"
