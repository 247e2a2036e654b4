"""``woodpecker cluster status``, ``assignment list|move|freeze|policy|add``, ``txn describe``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.channels import ChannelName
from woodpecker.cli.output import bytes_text, print_facts, print_json, print_table
from woodpecker.cli.session import Session
from woodpecker.cli.stream_session import with_desk

if TYPE_CHECKING:
    from woodpecker.cli.stream_session import Desk
    from woodpecker.streaming.requests import ClusterState, PchannelInfo, Request, TransactionState

Pchannel = Annotated[str, typer.Argument(metavar="PCHANNEL", help="see `assignment list`")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="name of a streaming node")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="The streaming service as a whole.")
    group.callback()(_group)
    group.command("status")(status)
    app.add_typer(group, name="cluster")
    group = typer.Typer(no_args_is_help=True, help="Which streaming node has which pchannel.")
    group.command("list")(list_assignments)
    group.command("move")(move)
    group.command("freeze")(freeze)
    group.command("policy")(policy)
    group.command("add")(add)
    app.add_typer(group, name="assignment")
    group = typer.Typer(no_args_is_help=True, help="Transactions of producers.")
    group.callback()(_group)
    group.command("describe")(describe_transaction)
    app.add_typer(group, name="txn")


def _group() -> None:
    return


async def cluster_state(desk: Desk) -> ClusterState:
    """What the coordinator knows of the service."""
    from woodpecker.streaming.requests import DescribeCluster

    return await desk.ask(DescribeCluster(), "describe the cluster")


def status(ctx: typer.Context) -> None:
    """Show coordinator, nodes, and what waits for whom."""
    session: Session = ctx.obj
    state = with_desk(session, cluster_state)
    if session.is_json:
        print_json(asdict(state))
        return
    serving = sum(each.state == "assigned" for each in state.pchannels)
    print_facts(
        {
            "coordinator": f"{state.coordinator}, epoch {state.epoch}",
            "features": state.features,
            "pchannels": f"{len(state.pchannels)}, {serving} assigned",
        }
    )
    print()
    print_table(
        ("node", "state", "pchannels", "address", "zone", "version", "waits for"),
        [
            (n.node, node_state(n.is_alive, n.draining, n.frozen), len(n.pchannels), n.address,
             n.zone, n.version, n.waits_for)
            for n in state.nodes
        ],
    )  # fmt: skip
    waiting = [each for each in state.pchannels if each.waits_for or each.reason]
    if waiting:
        print()
        _print_assignments(waiting)


def node_state(is_alive: bool, draining: bool, frozen: bool) -> str:
    """In words."""
    words = ["gone" * (not is_alive), "draining" * draining, "frozen" * frozen]
    return ", ".join(word for word in words if word) or "active"


def list_assignments(ctx: typer.Context) -> None:
    """List the pchannels: term, owner, state and load of each."""
    session: Session = ctx.obj
    state = with_desk(session, cluster_state)
    if session.is_json:
        print_json([asdict(each) for each in state.pchannels])
    else:
        _print_assignments(state.pchannels)


def _print_assignments(pchannels: Any) -> None:  # noqa: ANN401  a list of PchannelInfo
    print_table(
        ("pchannel", "log", "term", "state", "node", "serves", "channels", "rate", "lag ms", "why"),
        [_row(each) for each in pchannels],
    )


def _row(info: PchannelInfo) -> tuple[object, ...]:
    why = "; ".join(text for text in (info.reason, info.waits_for) if text)
    seen = info.status
    if seen is None:
        return info.pchannel, info.log, info.term, info.state, info.node, "", "", "", "", why
    state = seen.state
    if seen.total_bytes and state in {"opening", "replaying"}:
        state += f" {100 * seen.done_bytes // seen.total_bytes} %"
    return (
        info.pchannel, info.log, info.term, info.state, info.node, state, seen.vchannels,
        f"{bytes_text(seen.bytes_s)}/s", seen.lag_ms, why or seen.reason,
    )  # fmt: skip


def move(
    ctx: typer.Context,
    pchannel: Pchannel,
    node: Annotated[
        str, typer.Argument(metavar="[NODE]", help="default: wherever it fits best")
    ] = "",
) -> None:
    """Move a pchannel to another node; its clients follow without a gap."""
    from woodpecker.streaming.requests import Move

    _do(
        ctx,
        Move(pchannel=pchannel, node=node),
        f"move pchannel {pchannel}",
        f"pchannel {pchannel} moves to {node or 'another node'}",
    )


def freeze(
    ctx: typer.Context,
    node: NodeName,
    off: Annotated[bool, typer.Option("--off", help="it takes part again")] = False,
) -> None:
    """Give a node nothing new; what it has it keeps."""
    from woodpecker.streaming.requests import Freeze

    said = f"node {node} takes part again" if off else f"node {node} gets nothing new"
    what = f"let node {node} take part again" if off else f"freeze node {node}"
    _do(ctx, Freeze(node=node, frozen=not off), what, said)


def policy(
    ctx: typer.Context,
    balance: Annotated[
        bool, typer.Option("--balance/--no-balance", help="move pchannels from full nodes")
    ] = True,
    expected_nodes: Annotated[
        int, typer.Option(min=0, metavar="N", help="a first start waits for so many, 15 s at most")
    ] = 0,
) -> None:
    """Say how pchannels are spread over the nodes. It sets both: what is not given becomes its default."""
    from woodpecker.streaming.requests import SetPolicy

    moves = "move from full nodes" if balance else "are not moved from full nodes"
    waits = f"a first start waits for {expected_nodes} nodes" if expected_nodes else ""
    said = "; ".join(text for text in (f"pchannels {moves}", waits) if text)
    request = SetPolicy(balance=balance, expected_nodes=expected_nodes)
    _do(ctx, request, "set the policy", said)


def add(
    ctx: typer.Context,
    count: Annotated[int, typer.Argument(min=1, metavar="N", help="so many more")],
) -> None:
    """Make more pchannels. They can never be removed."""
    from woodpecker.streaming.requests import AddPchannels

    _do(ctx, AddPchannels(count=count), f"add {count} pchannels", f"{count} pchannels were added")


def _do(ctx: typer.Context, request: Request[Any], what: str, said: str) -> None:
    session: Session = ctx.obj

    async def work(desk: Desk) -> None:
        await desk.ask(request, what, changes=True)

    with_desk(session, work)
    if session.is_json:
        print_json({"done": asdict(request)})  # type: ignore[call-overload]  # all are dataclasses
    else:
        print(said)


def describe_transaction(
    ctx: typer.Context,
    name: ChannelName,
    producer: Annotated[str, typer.Argument(metavar="PRODUCER", help="its name or id")],
    epoch: Annotated[int, typer.Argument(min=0, metavar="EPOCH")],
    number: Annotated[int, typer.Argument(min=0, metavar="NUMBER", help="of the transaction")],
) -> None:
    """Say what became of a transaction: open, committed, aborted, or not known."""
    session: Session = ctx.obj

    async def work(desk: Desk) -> TransactionState:
        from woodpecker.streaming.requests import DescribeTransaction

        info = await desk.channel(name)
        request = DescribeTransaction(
            pchannel=info.pchannel, producer=producer, epoch=epoch, txn_number=number
        )
        return await desk.ask_owner(info.pchannel, request, f"describe transaction {number}")

    found = with_desk(session, work)
    if session.is_json:
        print_json(asdict(found))
    else:
        place = "" if found.position is None else f" at seq {found.position.seq}"
        reason = f": {found.reason}" if found.reason else ""
        print(
            f"transaction {number} of {producer} is {transaction_state(found.state)}{place}{reason}"
        )


def transaction_state(state: str) -> str:
    """Of a transaction; the log cannot tell what it has forgotten from what never was."""
    return "not known: it never was, or was forgotten" if state == "forgotten" else state
