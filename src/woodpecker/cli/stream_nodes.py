"""Streaming nodes among the nodes of a cluster: `node list`, `show`, `drain`, `cancel-drain`, `forget`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from woodpecker.cli.cluster import node_state
from woodpecker.errors import Conflict, InvalidRequest, NotFound, Unavailable

if TYPE_CHECKING:
    from woodpecker.cli.session import Session
    from woodpecker.cli.stream_session import Desk
    from woodpecker.client.client import Client
    from woodpecker.streaming.core.records import NodeRecord
    from woodpecker.streaming.frames import NodeStatus
    from woodpecker.streaming.ports import Dialer
    from woodpecker.streaming.requests import NodeInfo

ROLE = "streaming"
ANSWER_TIMEOUT_S = 2.0
LOOK_MS = 500.0
SILENCE_MS = 10_000.0  # who has not beaten for so long does not live


async def records(client: Client) -> list[NodeRecord]:
    """Those on record. Raises: Unavailable."""
    from woodpecker.streaming.codec.records import NODES
    from woodpecker.streaming.metadata.store import StreamRecords

    env = client.environment
    found = await StreamRecords(env.catalog.store, env.runtime).all(NODES)
    return [stored.record for stored in found.values()]


async def facts(session: Session, found: list[NodeRecord]) -> list[dict[str, Any]]:
    """What is known of each, and whether it answers now."""
    dialer = _dialer(session) if found else None
    try:
        return list(await asyncio.gather(*(_facts(record, dialer) for record in found)))
    finally:
        if dialer is not None:
            await dialer.close()


def _dialer(session: Session) -> Dialer | None:
    """None: the extra is not installed, so nobody can be asked."""
    from woodpecker.app_streaming import make_dialer
    from woodpecker.runtime.runtime import SystemRuntime

    with suppress(InvalidRequest):
        return make_dialer(SystemRuntime(), session.access)
    return None


async def _facts(record: NodeRecord, dialer: Dialer | None) -> dict[str, Any]:
    status = None if dialer is None or not record.is_up else await _status(record, dialer)
    answers = status is not None and status.incarnation == record.incarnation
    is_gone = not answers and not (
        record.is_up and dialer is None
    )  # without a dialer nobody was asked
    return {
        "node": record.node,
        "role": ROLE,
        "state": node_state(not is_gone, record.draining, record.frozen),
        "up": record.is_up,
        "answers": answers,
        "address": record.address,
        "zone": record.zone,
        "incarnation": record.incarnation,
        "version": record.version,
        "pchannels": None if status is None else [asdict(each) for each in status.pchannels],
        "memory_bytes": None if status is None else status.memory_bytes,
    }


def held(pchannels: list[dict[str, Any]]) -> int:
    """How many it has: it also tells of pchannels that it has given up."""
    from woodpecker.streaming.core.assignment import HOLDING

    return sum(each["state"] in HOLDING for each in pchannels)


async def _status(record: NodeRecord, dialer: Dialer) -> NodeStatus | None:
    from woodpecker.streaming.core.refusals import Refused
    from woodpecker.streaming.frames import WatchStatus

    stream = dialer.endpoint(record.address).status()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await stream.send(WatchStatus(epoch=0))
            return await stream.receive()
    except (TimeoutError, Refused):
        return None
    finally:
        stream.cut()


async def drain(session: Session, client: Client, node: str, *, on: bool, wait: bool) -> NodeInfo:
    """Drain a node, or take it back. Raises: NotFound, Unavailable."""
    from woodpecker.app_streaming import addresses_of
    from woodpecker.cli.stream_session import work_with_desk
    from woodpecker.streaming.requests import Drain

    async def work(desk: Desk) -> NodeInfo:
        request = Drain(node=node, draining=on)
        info = await desk.ask(request, f"drain node {node}", changes=True)
        return await _watch(desk, node) if wait and on else info

    return await work_with_desk(session, await addresses_of(client), work)


async def forget(session: Session, client: Client, node: str) -> None:
    """Remove the record of a node that is gone for good.

    Raises: NotFound; InvalidRequest: it lives, or the store removes nothing; Unavailable, OutcomeUnknown.
    """
    from woodpecker.streaming.codec.records import NODES
    from woodpecker.streaming.metadata.store import StreamRecords

    env = client.environment
    streams, key = StreamRecords(env.catalog.store, env.runtime), NODES.key(node)
    seen = await streams.load(key)
    if seen.record is None or seen.version is None:
        raise NotFound(f"no streaming node {node!r} has ever registered")
    lives = f"node {node} lives at {seen.record.address}: drain it, then stop it, then forget it"
    if (await facts(session, [seen.record]))[0]["answers"]:
        raise InvalidRequest(lives)
    if seen.record.is_up:  # it may be out of reach from here only
        await env.runtime.sleep_ms(SILENCE_MS)
    try:
        is_removed = await streams.remove(key, expect=seen.version)
    except Conflict:
        raise InvalidRequest(lives) from None
    if not is_removed:
        raise InvalidRequest(
            "in a bucket no record is removed: in a day the node is not shown any more"
        )


async def _watch(desk: Desk, node: str) -> NodeInfo:
    """Until it has nothing left, with a line on stderr for each change."""
    from woodpecker.cli.cluster import cluster_state
    from woodpecker.runtime.runtime import SystemRuntime

    runtime, shown = SystemRuntime(), ""
    while True:
        found = [info for info in (await cluster_state(desk)).nodes if info.node == node]
        if not found:
            raise NotFound(f"no streaming node {node!r} is known to the coordinator")
        info = found[0]
        if info.safe_to_terminate:
            return info
        if not info.draining:
            raise Unavailable(f"node {node} is not draining: the drain was cancelled")
        line = f"{len(info.pchannels)} pchannels to move"
        line += f"; waits for {info.waits_for}" if info.waits_for else ""
        if line != shown:
            print(f"node {node} is draining: {line}", file=sys.stderr)
            shown = line
        await runtime.sleep_ms(LOOK_MS)
