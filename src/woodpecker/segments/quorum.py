"""Kind ``quorum`` (quorum-buffer mode): every block on several LogStore nodes (protocol, section 7).

The rules are in ``core``: ``quorum_append`` (a writer's pipeline), ``quorum_recovery`` (ending somebody
else's segment), ``replica`` (what a node does). Here they are carried out from the client's side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from woodpecker.codec.messages import Tell
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Ensemble, Manifest, Place, Segment
from woodpecker.errors import Closed, InvalidRequest, Unavailable, WoodpeckerError
from woodpecker.rpc.base import Transport
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import ReadManifest, Recovered, SegmentRef
from woodpecker.segments.quorum_base import Nodes
from woodpecker.segments.quorum_copies import Copies
from woodpecker.segments.quorum_links import CONNECT_MS, TELL_MS, Links, Peer
from woodpecker.segments.quorum_reader import Confirmed, QuorumSource
from woodpecker.segments.quorum_recovery import Recovery
from woodpecker.segments.quorum_watch import Watch
from woodpecker.segments.quorum_writer import QuorumSegmentWriter
from woodpecker.storage.base import ObjectStore

CHOICES = 3  # ensembles tried, one after the other, for one all of whose members can be reached
GRACE_MS = 500.0  # for the slowest members, once enough can be reached


class QuorumSegments:
    """Segments of kind ``quorum`` on the nodes of one cluster.

    Args:
        nodes, transport: stay their opener's, who closes them after this.
        zone: where this client is; its readers ask nodes there first.
    """

    kind = Kind.QUORUM

    def __init__(
        self, nodes: Nodes, transport: Transport, runtime: Runtime, *, zone: str = ""
    ) -> None:
        self._nodes = nodes
        self._runtime = runtime
        self._zone = zone
        self._links = Links(nodes, transport, runtime)
        self._watch = Watch(self._links, runtime)
        self._confirmed = Confirmed()

    # --- writing ---

    async def prepare(
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[Place | None, QuorumSegmentWriter]:
        """Choose the members and connect to them; no node is asked to keep anything yet.

        Raises: Unavailable: too few nodes can be reached now, and why. InvalidRequest: they refuse us.
        """
        manifest = await read_manifest()
        ensemble = await self._choose(manifest)
        writer = QuorumSegmentWriter(
            self._watch,
            tuple(self._links.peer(member) for member in ensemble.members),
            manifest=manifest,
            segment=segment,
            ensemble=ensemble,
            read_manifest=read_manifest,
            timeout_ms=timeout_ms,
        )
        return ensemble, writer

    async def _choose(self, manifest: Manifest) -> Ensemble:
        """An ensemble of which enough members can be reached, and all if that can be had."""
        avoid = set(self._watch.bad_nodes(manifest))
        choices = CHOICES
        while True:
            ensemble = await self._nodes.choose(manifest, avoid=avoid)
            peers = [self._links.peer(member) for member in ensemble.members]
            missing = await self._connect(peers, ensemble.acks)
            nodes = {peer.member.node for peer in missing}
            choices -= 1
            if nodes <= avoid or not choices:
                break
            avoid |= nodes
        count = len(peers)
        if count - len(missing) < ensemble.acks:
            why = "; ".join(peer.why for peer in missing)
            refused = any(peer.is_refused for peer in missing)
            raise (InvalidRequest if refused else Unavailable)(
                f"log {manifest.name!r}: {count - len(missing)} of {count} nodes can be reached, "
                f"{ensemble.acks} must: {why}"
            )
        return ensemble

    async def _connect(self, peers: Sequence[Peer], enough: int) -> list[Peer]:
        """Connect to all, or to ``enough`` if the others take long; returns those not reached."""
        tasks = [
            self._runtime.spawn(_reach(peer), f"reach {peer}")
            for peer in peers
            if not peer.is_usable
        ]
        try:
            for patience_ms in (GRACE_MS, CONNECT_MS - GRACE_MS):
                reached = sum(peer.is_usable for peer in peers)
                if patience_ms != GRACE_MS and reached >= enough:
                    break
                try:
                    async with asyncio.timeout(patience_ms / 1000):
                        await asyncio.gather(*(asyncio.shield(task) for task in tasks))
                    break
                except TimeoutError:
                    continue
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [peer for peer in peers if not peer.is_usable]

    # --- taking over ---

    async def recover(self, ref: SegmentRef, *, token: str) -> Recovered:
        """Fence the members, find the end, copy until enough have it (see the port)."""
        copies = Copies(self._links, ref)
        found = await Recovery(copies, self._runtime, token=token).recover()
        self._watch.announce(ref.name, copies.peers)
        return found

    async def salvage(self, ref: SegmentRef, *, token: str) -> Recovered:
        """What the members that answer have, up to the first block that none of them can show."""
        copies = Copies(self._links, ref)
        found = await Recovery(copies, self._runtime, token=token).salvage()
        self._watch.announce(ref.name, copies.peers)
        return found

    # --- reading ---

    def source(self, ref: SegmentRef) -> QuorumSource:
        """Reader of an OPEN or CLOSED segment."""
        return QuorumSource(
            self._links, self._watch, self._confirmed, self._runtime, ref, zone=self._zone
        )

    # --- afterwards: nodes seal and reclaim by themselves, clients only tell them ---

    async def seal_in_place(
        self, ref: SegmentRef, tail: bytes, at: int, objects: ObjectStore, key: str
    ) -> bool:
        """Never possible: the blocks are on nodes, the object in a bucket."""
        return False

    async def hand_over(self, ref: SegmentRef) -> bool:
        """Tell the members that there is something to seal; True if one of them heard it."""
        return await self._tell(ref) > 0

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        """Tell the members that the manifest has moved; each reads it and forgets what it may.

        One that does not hear it finds out by itself later.
        """
        await self._tell(ref)

    async def _tell(self, ref: SegmentRef) -> int:
        copies = Copies(self._links, ref)
        answers = await asyncio.gather(
            *(
                copies.ask(index, Tell(name=ref.name), timeout_ms=TELL_MS)
                for index in range(len(copies.peers))
            ),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, WoodpeckerError):
                raise answer
        return sum(not isinstance(answer, BaseException) for answer in answers)

    async def held(self, log_id: str) -> Sequence[tuple[int, str]]:
        """None: preparing leaves nothing behind, and nodes look after what they hold."""
        return ()

    async def close(self) -> None:
        """Close the links. Writers and readers that are still there meet Closed."""
        await self._watch.close()
        await self._links.close()


async def _reach(peer: Peer) -> None:
    try:
        await peer.reach()
    except Closed:
        raise
    except WoodpeckerError:
        return  # ``peer.why`` tells
