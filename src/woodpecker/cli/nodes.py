"""``woodpecker node list|show|drain|cancel-drain|forget``, of LogStore nodes and streaming nodes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from woodpecker.cli import stream_nodes
from woodpecker.cli.output import bytes_text, print_facts, print_json, print_table, time_text
from woodpecker.cli.session import Session
from woodpecker.core.membership import DEAD_AFTER_MS, NodeState
from woodpecker.errors import InvalidRequest, NotFound, Unavailable, WoodpeckerError

if TYPE_CHECKING:
    from woodpecker.app_cluster import Cluster
    from woodpecker.client.client import Client
    from woodpecker.core.membership import NodeRecord
    from woodpecker.metadata.node_records import NodeRecords

T = TypeVar("T")

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="name of the node")]
ANSWER_TIMEOUT_MS = 2_000
LOOK_MS = 500.0


class Role(StrEnum):
    """What a node does."""

    LOGSTORE = "logstore"
    STREAMING = "streaming"


RoleOf = Annotated[
    Role | None,
    typer.Option("--role", help="which one is meant, where two nodes have one name"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Their records, and the way to them."""

    session: Session
    client: Client
    records: NodeRecords
    cluster: Cluster

    async def role_of(self, node: str, role: Role | None) -> Role:
        """What the node of this name does. Raises: NotFound; InvalidRequest: there are two."""
        if role is not None:
            return role
        has_logs = await self.records.load(node) is not None
        streams = any(each.node == node for each in await stream_nodes.records(self.client))
        if not (has_logs or streams):
            raise NotFound(f"no node {node!r} has ever registered: see `woodpecker node list`")
        if has_logs and streams:
            raise InvalidRequest(f"there are two nodes {node!r}: give --role logstore or streaming")
        return Role.STREAMING if streams else Role.LOGSTORE


def add_to(app: typer.Typer) -> typer.Typer:
    """Register the commands of this file. Returns: the group that has them."""
    group = typer.Typer(no_args_is_help=True, help="The nodes of a cluster.")
    group.command("list")(list_nodes)
    group.command("show")(show)
    group.command("drain")(drain)
    group.command("cancel-drain")(cancel_drain)
    group.command("forget")(forget)
    app.add_typer(group, name="node")
    return group


def list_nodes(
    ctx: typer.Context,
    forgotten: Annotated[bool, typer.Option("--all", help="those forgotten as well")] = False,
) -> None:
    """List the nodes: state, place, load, and whether they answer now."""
    session: Session = ctx.obj

    async def work(nodes: Nodes) -> list[dict[str, Any]]:
        found = [stored.record for stored in await nodes.records.all()]
        shown = [r for r in found if forgotten or r.state is not NodeState.FORGOTTEN]
        streaming = await stream_nodes.records(nodes.client)
        logstore = asyncio.gather(*(_facts(record, nodes.cluster) for record in shown))
        return [*await logstore, *await stream_nodes.facts(session, streaming)]

    found = _with_nodes(session, work, reads=True)
    if session.is_json:
        print_json(found)
        return
    head = ("node", "role", "state", "answers", "address", "zone", "group", "holds", "pressure")
    print_table(head, [_row(facts) for facts in found])


def _row(facts: dict[str, Any]) -> tuple[object, ...]:
    if facts["role"] == Role.LOGSTORE:
        holds = f"{facts['unsealed_segments']} unsealed ({bytes_text(facts['unsealed_bytes'])})"
    else:
        holds = (
            ""
            if facts["pchannels"] is None
            else f"{stream_nodes.held(facts['pchannels'])} pchannels"
        )
    return (
        facts["node"], facts["role"],
        facts["state"] if facts["up"] else f"{facts['state']}, stopped",
        "yes" if facts["answers"] else "no", facts["address"], facts["zone"],
        facts.get("group"), holds, facts.get("pressure"),
    )  # fmt: skip


def show(ctx: typer.Context, node: NodeName, role: RoleOf = None) -> None:
    """Show one node, with what it says of itself if it answers."""
    session: Session = ctx.obj

    async def work(nodes: Nodes) -> dict[str, Any]:
        if await nodes.role_of(node, role) is Role.STREAMING:
            known = [r for r in await stream_nodes.records(nodes.client) if r.node == node]
            if not known:
                raise NotFound(f"no streaming node {node!r} has ever registered")
            return (await stream_nodes.facts(session, known))[0]
        record = await _known(nodes.records, node)
        status = await _status(record, nodes.cluster)
        return {**await _facts(record, nodes.cluster), "status": status}

    found = _with_nodes(session, work, reads=True)
    if session.is_json:
        print_json(found)
        return
    if found["role"] == Role.STREAMING:
        if found["pchannels"] is not None:
            found["pchannels"] = (
                f"holds {stream_nodes.held(found['pchannels'])} (see --output json)"
            )
        print_facts({name: _text(value) for name, value in found.items()})
        return
    status = found.pop("status") or {}
    for name in ("started_at_ms", "beat_at_ms"):
        found[name.removesuffix("_ms")] = time_text(found.pop(name))
    found["unsealed_bytes"] = bytes_text(found["unsealed_bytes"])
    print_facts(found | {n: _text(value) for n, value in status.items() if n not in found})


def _text(value: object) -> object:
    """A fact on one line; what has many parts is for JSON."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return f"{len(value)} (see --output json)" if value else None
    return value


def drain(
    ctx: typer.Context,
    node: NodeName,
    wait: Annotated[
        bool, typer.Option("--wait", help="until it is safe to terminate; shows how far it is")
    ] = False,
    role: RoleOf = None,
) -> None:
    """Let a node hand over what it holds: segments are sealed, pchannels move, it gets nothing new."""
    session: Session = ctx.obj

    async def work(nodes: Nodes) -> str:
        if await nodes.role_of(node, role) is Role.STREAMING:
            info = await stream_nodes.drain(session, nodes.client, node, on=True, wait=wait)
            return NodeState.DRAINED if info.safe_to_terminate else NodeState.DRAINING
        record = await nodes.records.drain(node)
        return (await _watch_drain(nodes.records, node) if wait else record).state

    state = _with_nodes(session, work)
    if session.is_json:
        print_json({"node": node, "state": state})
    elif state == NodeState.DRAINED:
        print(f"node {node} is drained: safe to terminate")
    else:
        print(f"node {node} is {state}; `woodpecker node drain {node} --wait` watches it")


def cancel_drain(ctx: typer.Context, node: NodeName, role: RoleOf = None) -> None:
    """Let a node that is draining or drained take part again."""
    session: Session = ctx.obj

    async def work(nodes: Nodes) -> str:
        if await nodes.role_of(node, role) is Role.STREAMING:
            await stream_nodes.drain(session, nodes.client, node, on=False, wait=False)
            return NodeState.ACTIVE
        return (await nodes.records.cancel_drain(node)).state

    state = _with_nodes(session, work)
    if session.is_json:
        print_json({"node": node, "state": state})
    else:
        print(f"node {node} is {state}")


def forget(ctx: typer.Context, node: NodeName, role: RoleOf = None) -> None:
    """Take a node off the list that is gone for good. One that lives is refused."""
    session: Session = ctx.obj

    async def work(nodes: Nodes) -> None:
        if await nodes.role_of(node, role) is Role.STREAMING:
            await stream_nodes.forget(session, nodes.client, node)
        else:
            await nodes.records.forget(node)

    _with_nodes(session, work)
    if session.is_json:
        print_json({"node": node, "state": NodeState.FORGOTTEN})
    else:
        print(f"node {node} is forgotten")


def _with_nodes(
    session: Session,
    work: Callable[[Nodes], Awaitable[T]],
    *,
    reads: bool = False,
) -> T:
    async def main(client: Client) -> T:
        from woodpecker.app import cluster_of
        from woodpecker.metadata.node_records import NodeRecords

        env = client.environment
        records = NodeRecords(env.catalog.store, env.runtime)
        found = Nodes(session=session, client=client, records=records, cluster=cluster_of(client))
        return await work(found)

    return session.with_client(main, reads=reads)


async def _known(records: NodeRecords, node: str) -> NodeRecord:
    seen = await records.load(node)
    if seen is None:
        raise NotFound(f"no node {node!r} has ever registered: see `woodpecker node list`")
    return seen.record


async def _facts(record: NodeRecord, cluster: Cluster) -> dict[str, Any]:
    return {
        "node": record.node,
        "role": Role.LOGSTORE,
        "state": record.state,
        "up": record.is_up,
        "answers": await _answers(record, cluster),
        "address": record.address,
        "http": record.http,
        "zone": record.zone,
        "group": record.group,
        "incarnation": record.incarnation,
        "boot": record.boot,
        "version": record.version,
        "pressure": record.load.pressure,
        "unsealed_segments": record.load.unsealed_segments,
        "unsealed_bytes": record.load.unsealed_bytes,
        "safe_to_terminate": record.state is NodeState.DRAINED,
        "started_at_ms": record.started_at_ms,
        "beat_at_ms": record.beat_at_ms,
    }


async def _answers(record: NodeRecord, cluster: Cluster) -> bool:
    """Whether the node can be reached from here, as the one it says it is."""
    if not record.is_up:
        return False
    try:
        link = await cluster.transport.connect(record.address, timeout_ms=ANSWER_TIMEOUT_MS)
    except WoodpeckerError:
        return False
    try:
        return link.welcome.node == record.node
    finally:
        await link.close()


async def _status(record: NodeRecord, cluster: Cluster) -> dict[str, Any] | None:
    """What the node says of itself; None: it does not answer."""
    import msgspec

    from woodpecker.codec.messages import GetStatus, Status

    try:
        link = await cluster.transport.connect(record.address, timeout_ms=ANSWER_TIMEOUT_MS)
    except WoodpeckerError:
        return None
    try:
        message = (await link.send(GetStatus(), timeout_ms=ANSWER_TIMEOUT_MS)).message
    except Unavailable:
        return None
    finally:
        await link.close()
    if not isinstance(message, Status):
        return None
    found: dict[str, Any] = msgspec.json.decode(message.text)
    return found


async def _watch_drain(records: NodeRecords, node: str) -> NodeRecord:
    """Until the node is drained, with a line on stderr for each change.

    Raises: Unavailable: the node does not live, so that nothing will change.
    """
    from woodpecker.runtime.runtime import SystemRuntime

    runtime = SystemRuntime()
    shown, version, changed_ms = "", "", runtime.monotonic_ms()
    while True:
        seen = await records.load(node)
        assert seen is not None, "records are never removed"
        record = seen.record
        if record.state is NodeState.DRAINED:
            return record
        if record.state is not NodeState.DRAINING:
            raise Unavailable(f"node {node} is {record.state}: the drain was cancelled")
        if seen.version != version:
            version, changed_ms = seen.version, runtime.monotonic_ms()
        if not record.is_up or runtime.monotonic_ms() - changed_ms > 2 * DEAD_AFTER_MS:
            raise Unavailable(f"node {node} does not run, so it hands nothing over: start it again")
        load = record.load
        line = f"{load.unsealed_segments} segments, {bytes_text(load.unsealed_bytes)} to hand over"
        if line != shown:
            print(f"node {node} is draining: {line}", file=sys.stderr)
            shown = line
        await runtime.sleep_ms(LOOK_MS)
