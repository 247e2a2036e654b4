"""What ``doctor`` looks at, in order, and what it concludes."""

from __future__ import annotations

import shutil
from pathlib import Path

from woodpecker.access import SCHEME, nodes_of
from woodpecker.app import as_url, open_objects
from woodpecker.cli.probes import (
    Findings,
    probe_clock,
    probe_conditions,
    probe_directory,
    probe_speed,
    probe_syncs,
)
from woodpecker.cli.session import Session
from woodpecker.errors import NotFound, WoodpeckerError
from woodpecker.filesystems import is_local
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.url import parse_store_url

NODE_TIMEOUT_MS = 3_000


def url_of(session: Session) -> str:
    """The store's URL without secrets. Raises: InvalidRequest."""
    if session.store.startswith(SCHEME):
        return SCHEME + ",".join(nodes_of(session.store))
    return parse_store_url(as_url(session.store)).url


async def examine(session: Session) -> Findings:
    """Try everything. Raises: InvalidRequest: no store can have that URL."""
    found = Findings()
    if session.store.startswith(SCHEME):
        await _examine_nodes(session, found)
        await _examine_store(session, found)
        return found
    settings = parse_store_url(as_url(session.store))
    if settings.scheme != "file":
        await _examine_objects(session, as_url(session.store), found, is_network_store=True)
    else:
        path = Path(settings.path)
        scratch = probe_directory(path, found)
        if scratch is None:
            return found
        try:
            probe_syncs(scratch, found)
            is_far = not is_local(path)
            await _examine_objects(session, scratch.as_uri(), found, is_network_store=is_far)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    await _examine_store(session, found)
    return found


async def _examine_objects(
    session: Session, url: str, found: Findings, *, is_network_store: bool
) -> None:
    objects = open_objects(url)
    try:
        holds_metadata = is_network_store and session.config["metadata"] is None
        await probe_conditions(objects, found, holds_metadata=holds_metadata)
        if found.is_usable:
            await probe_speed(objects, found)
            await probe_clock(objects, found)
    finally:
        await objects.close()


async def _examine_nodes(session: Session, found: Findings) -> None:
    """Does each of the nodes that were named answer? One that does is enough to go on."""
    from woodpecker.rpc.tcp import TcpTransport

    runtime = SystemRuntime()
    transport = TcpTransport(runtime, session.access)
    answers = 0
    for address in nodes_of(session.store):
        before_ms = runtime.monotonic_ms()
        try:
            link = await transport.connect(address, timeout_ms=NODE_TIMEOUT_MS)
        except WoodpeckerError as error:
            found.add(address, ok=None, detail=f"{error.code}: {error}")
            continue
        took_ms = runtime.monotonic_ms() - before_ms
        node = link.welcome
        zone = f", zone {node.zone}" if node.zone else ""
        found.add(address, ok=True, detail=f"node {node.node}{zone}, hello in {took_ms:.1f} ms")
        answers += 1
    await transport.close()
    found.add("nodes", ok=answers > 0, detail=f"{answers} of those that were named answer")


async def _examine_store(session: Session, found: Findings) -> None:
    """Is a Woodpecker store there, and can its metadata be read?"""
    if not found.is_usable:
        return
    try:
        async with session.connect(reads=True) as client:
            count = len(await client.list_logs())
        found.add("store", ok=True, detail=f"a Woodpecker store with {count} logs")
    except NotFound:
        found.add("store", ok=None, detail="none yet: the first `log create` makes one")
    except WoodpeckerError as error:
        found.add("store", ok=False, detail=f"{error.code}: {error}")


def advise(session: Session, found: Findings) -> str:
    """What to expect, in a sentence or two."""
    if not found.is_usable:
        bad = [check.name for check in found.checks if check.ok is False]
        return f"Not usable: {', '.join(bad)}."
    figures = found.figures
    if session.store.startswith(SCHEME):
        return (
            "Mode quorum fits: an append waits until two of three nodes have synced it. `doctor` on the "
            "store that the nodes use says more about that."
        )
    if "sync_p50_ms" in figures and is_local(Path(parse_store_url(url_of(session)).path)):
        return (
            "Mode file fits: an append waits for one synced write, "
            f"{figures['sync_p50_ms']:.2f} ms in the middle, {figures['sync_p99_ms']:.2f} ms at p99. "
            "It survives the process and the machine, not the disk."
        )
    waits = f"{figures.get('put_p50_ms', 0):.1f} ms in the middle"
    return (
        f"Mode object fits: an append waits for one conditional write, {waits}; many appends share "
        "one. For lower latency give --buffer a directory on a local disk."
    )
