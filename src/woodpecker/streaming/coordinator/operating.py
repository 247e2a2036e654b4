"""What people ask of a coordinator: how things are, and drain, freeze, move, policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from woodpecker.streaming.codec.records import NODES, POLICY
from woodpecker.streaming.coordinator.assigning import Assigner
from woodpecker.streaming.coordinator.balancing import Balancer
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.coordinator.membership import Membership
from woodpecker.streaming.core.assignment import HOLDING
from woodpecker.streaming.core.fleet import Node, Standing
from woodpecker.streaming.core.records import NodeRecord, Owner, PchannelRecord, Policy
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.frames import PchannelStatus
from woodpecker.streaming.requests import (
    ClusterState,
    DescribeCluster,
    Done,
    Drain,
    Freeze,
    Move,
    NodeInfo,
    PchannelInfo,
    SetPolicy,
)


class Operations:
    """See the module. One event loop."""

    def __init__(
        self, means: Means, membership: Membership, assigner: Assigner, balancer: Balancer
    ) -> None:
        self._records = means.records
        self._runtime = means.runtime
        self._address = means.address
        self._epoch = means.epoch
        self._membership = membership
        self._assigner = assigner
        self._balancer = balancer

    async def describe(self, request: DescribeCluster) -> ClusterState:
        """The service at a glance."""
        nodes = sorted(self._membership.fleet.nodes.items())
        return ClusterState(
            coordinator=self._address,
            epoch=self._epoch,
            features=self._balancer.level,
            nodes=[self._node_info(name, node) for name, node in nodes],
            pchannels=[
                self._pchannel_info(record)
                for _, record in sorted(self._assigner.records().items())
            ],
        )

    async def move(self, request: Move) -> Done:
        """A planned move. Raises: Refused: NOT_FOUND; INVALID: that node may get nothing."""
        record = self._assigner.record(request.pchannel)
        if record is None:
            raise _refused(Class.NOT_FOUND, f"there is no pchannel {request.pchannel!r}")
        owner = "" if record.owner is None else record.owner.node
        if request.node:
            life = self._balancer.life(request.node)
        else:
            life = self._balancer.choose((owner,))
        if life is None:
            what = f"node {request.node} is none that" if request.node else "no other node"
            raise _refused(
                Class.INVALID,
                f"{what} may be given pchannel {request.pchannel}: `woodpecker cluster status` shows the "
                "nodes' states",
            )
        self._assigner.wish(request.pchannel, life.node)
        return Done()

    async def freeze(self, request: Freeze) -> Done:
        """Give the node nothing new, or let it take part again. Raises: Refused(NOT_FOUND)."""
        await self._change(request.node, lambda record: replace(record, frozen=request.frozen))
        return Done()

    async def drain(self, request: Drain) -> NodeInfo:
        """Ask for the node's pchannels to be moved; how far that is. Raises: Refused(NOT_FOUND)."""
        await self._change(request.node, lambda record: replace(record, draining=request.draining))
        return self._node_info(request.node, self._membership.fleet.nodes[request.node])

    async def set_policy(self, request: SetPolicy) -> Done:
        """What a person wants of balancing. Raises: Unavailable, OutcomeUnknown: ask again."""
        wanted = Policy(balance=request.balance, expected_nodes=request.expected_nodes)
        self._balancer.policy = (await self._records.change(POLICY, lambda _: wanted)).record
        return Done()

    async def _change(self, node: str, make: Callable[[NodeRecord], NodeRecord]) -> None:
        def decide(before: NodeRecord | None) -> NodeRecord:
            if before is None:
                raise _refused(Class.NOT_FOUND, f"no node {node!r} has ever registered")
            return make(before)

        await self._records.change(NODES.key(node), decide)
        await self._membership.look()

    # --- what is shown ---

    def _node_info(self, name: str, node: Node) -> NodeInfo:
        """``safe_to_terminate``: no record names it, and it says itself that it holds nothing."""
        record, now_ms = node.record, self._runtime.monotonic_ms()
        standing = self._membership.standing(name, record.incarnation)
        owned = [
            pchannel.name
            for pchannel in self._assigner.records().values()
            if pchannel.owner is not None and self._is_of(pchannel.owner, record)
        ]
        held = self._held(name)
        is_free = not owned and not held
        waits_for = ""
        if record.draining and not is_free:
            waits_for = ", ".join(self._why_held(pchannel) for pchannel in sorted({*owned, *held}))
        return NodeInfo(
            node=name,
            incarnation=record.incarnation,
            address=record.address,
            zone=record.zone,
            is_alive=standing is not Standing.GONE,
            draining=record.draining,
            frozen=record.frozen,
            pchannels=sorted(owned),
            version=record.version,
            safe_to_terminate=(
                not owned
                and (
                    standing is Standing.GONE
                    or (record.draining and is_free and node.is_heard(now_ms))
                )
            ),
            waits_for=waits_for,
        )

    def _held(self, node: str) -> list[str]:
        statuses = self._membership.statuses(node)
        return [name for name, status in statuses.items() if status.state in HOLDING]

    def _why_held(self, pchannel: str) -> str:
        whom = self._assigner.waits_for(pchannel)
        return f"{pchannel} (waits for {whom})" if whom else pchannel

    @staticmethod
    def _is_of(owner: Owner, record: NodeRecord) -> bool:
        return (owner.node, owner.incarnation) == (record.node, record.incarnation)

    def _pchannel_info(self, record: PchannelRecord) -> PchannelInfo:
        status: PchannelStatus | None = None
        if record.owner is not None:
            status = self._membership.sight(record.owner, record.name).status
        reason = self._assigner.reason(record.name)
        if not reason and status is not None:
            reason = status.reason
        return PchannelInfo(
            pchannel=record.name,
            log=record.log,
            term=record.term,
            state=record.state,
            node="" if record.owner is None else record.owner.node,
            reason=reason,
            waits_for=self._assigner.waits_for(record.name),
            status=status,
        )


def _refused(kind: Class, message: str) -> Refused:
    return Refused(Refusal(kind=kind, message=message))
