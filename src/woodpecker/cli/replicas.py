"""Looking at the replicas of one segment of kind quorum, each asked of its own node."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from woodpecker.app_cluster import Cluster
from woodpecker.codec.messages import ListSegments, Refused, Status
from woodpecker.core.manifest import Manifest, Member, Segment
from woodpecker.errors import Unavailable, WoodpeckerError

TIMEOUT_MS = 3_000


async def look_at_replicas(
    cluster: Cluster, manifest: Manifest, segment: Segment
) -> list[dict[str, Any]]:
    """One row per member: what it has, how far it is behind the one that has most, who fenced it.

    A member that cannot be asked has nothing but a ``note`` that says why.
    """
    assert segment.ensemble is not None
    found = await asyncio.gather(
        *(_look(cluster, manifest, segment, member) for member in segment.ensemble.members)
    )
    most = max((row["last"] for row in found if row["last"] is not None), default=None)
    for row in found:
        row["lag_blocks"] = None if row["last"] is None or most is None else most - row["last"]
    return found


async def _look(
    cluster: Cluster, manifest: Manifest, segment: Segment, member: Member
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "node": member.node, "address": None, "zone": None, "last": None, "synced": None,
        "lac": None, "lag_blocks": None, "bytes": None, "fence": None, "note": None,
    }  # fmt: skip
    try:
        row["address"] = await cluster.directory.address(member)
        row["zone"] = cluster.directory.zone_of(member.node)
        row |= await _ask(cluster, row["address"], manifest, segment)
    except WoodpeckerError as error:
        row["note"] = str(error)
    return row


async def _ask(
    cluster: Cluster, address: str, manifest: Manifest, segment: Segment
) -> dict[str, Any]:
    link = await cluster.transport.connect(address, timeout_ms=TIMEOUT_MS)
    try:
        request = ListSegments(log_id=manifest.log_id, segment_id=segment.id, limit=1)
        message = (await link.send(request, timeout_ms=TIMEOUT_MS)).message
    finally:
        await link.close()
    if isinstance(message, Refused):
        raise Unavailable(message.text)
    assert isinstance(message, Status)
    for copy in msgspec.json.decode(message.text):
        if (copy["log_id"], copy["segment_id"]) == (manifest.log_id, segment.id):
            return _shown(copy)
    return {"note": "has nothing of it"}


def _shown(copy: dict[str, Any]) -> dict[str, Any]:
    return {
        "last": copy["last"],
        "synced": copy["synced"],
        "lac": copy["lac"],
        "bytes": copy["size_bytes"],
        "fence": copy["fence"],
        "note": "its blocks are a lower bound" if copy["is_unsure"] else None,
    }
