"""One node as a process: puts the parts together, starts them in order, ends them in order.

Start: HTTP (so that a long recovery can be watched) -> the directory, held by this process alone -> a client
of its own -> the journal, read under the boot number that others have seen -> the record in the metadata store,
which ends an older process of this node -> TCP -> the keeper. End, by a signal: the record says that the node leaves -> no more connections -> the keeper
stops -> what is queued is synced, the journal closed -> the rest. A failure ends the process with an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from prometheus_client import CollectorRegistry

import woodpecker
from woodpecker.access import SCHEME, Access, make_access
from woodpecker.app import cluster_of, connect, public_metadata_url, public_store_url
from woodpecker.client.client import Client
from woodpecker.client.environment import Environment
from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import check_name
from woodpecker.core.membership import Load, NodeState
from woodpecker.errors import (
    Conflict,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.logstore import metrics
from woodpecker.logstore.disk_files import DirectoryDisk
from woodpecker.logstore.http import HttpServer, Look, Page, parse_address
from woodpecker.logstore.keeper import NodeKeeper
from woodpecker.logstore.node import Node
from woodpecker.logstore.replay import disk_boot
from woodpecker.logstore.settings import NodeSettings
from woodpecker.metadata.node_session import NodeSession
from woodpecker.observability.logging import LoggingObserver
from woodpecker.observability.prometheus import PrometheusObserver
from woodpecker.observability.several import Several
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp import bind
from woodpecker.rpc.tcp_server import TcpServer
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.store_marker import store_at

CLOSE_TIMEOUT_S = 15.0
MAX_FENCES = 100  # told of one by one
ANY_HOST = ("0.0.0.0", "::")  # noqa: S104  compared with, not listened on

_NEEDED = {
    "node": "the name of this node, for ever",
    "dir": "where its journal lies, on a local disk",
    "store": "the bucket or directory that it seals into",
}

T = TypeVar("T")

_log = logging.getLogger("woodpecker.logstore")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What ``logstore serve`` is told, checked. ``node``: without what only the store knows."""

    node: NodeSettings
    directory: Path
    listen: tuple[str, int]
    advertise: str | None
    http: tuple[str, int] | None
    store: str
    metadata: str | None
    group: str
    access: Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The ready line."""

    node: str
    incarnation: str
    boot: int
    address: str
    http: str
    store: str
    pid: int


def make_settings(values: Mapping[str, Any], environ: Mapping[str, str]) -> ServiceSettings:
    """From settings by name, without their table. Raises: InvalidRequest: missing, wrong, contradictory."""
    for name, what in _NEEDED.items():
        if not values[name]:
            raise InvalidRequest(f"--{name} is missing: {what}")
    store = str(values["store"])
    if store.startswith((SCHEME, "memory://")):
        raise InvalidRequest(
            f"--store {store.partition('//')[0]}//: a node needs the store itself, a bucket or directory"
        )
    listen = parse_address(str(values["listen"]), "--listen")
    advertise = values["advertise"]
    if advertise is not None:
        parse_address(str(advertise), "--advertise")
    elif listen[0] in ANY_HOST:
        raise InvalidRequest(
            f"--listen {values['listen']} is every address of this machine: give --advertise HOST:PORT, "
            "where clients and other nodes reach this one"
        )
    return ServiceSettings(
        node=_node_settings(values),
        directory=Path(str(values["dir"])).expanduser().absolute(),
        listen=listen,
        advertise=advertise,
        http=None if values["http"] is None else parse_address(str(values["http"]), "--http"),
        store=store,
        metadata=values["metadata"],
        group=values["group"] or "",
        access=make_access(
            environ,
            **{
                name: values[name]
                for name in ("secret_file", "tls_ca", "tls_cert", "tls_key", "zone")
            },
        ),
    )


def _node_settings(values: Mapping[str, Any]) -> NodeSettings:
    return NodeSettings(
        node=check_name(str(values["node"]), "node"),
        file_bytes=values["journal_file_bytes"],
        journal_max_bytes=values["journal_max_bytes"],
        keep_free_bytes=values["keep_free_bytes"],
        soft_full=values["soft_full_percent"] / 100,
        hard_full=values["hard_full_percent"] / 100,
        queue_max_bytes=values["queue_max_bytes"],
        cache_bytes=values["cache_bytes"],
        zone=values["zone"] or "",
    )


class Service:
    """See the module. ``start``, then ``run``, and ``close`` whatever came of them. One event loop."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._runtime = SystemRuntime()
        self._registry = CollectorRegistry()
        self._observer = Several(LoggingObserver("logstore"), PrometheusObserver(self._registry))
        self._parts = AsyncExitStack()
        self._is_leaving = False
        self._ended = asyncio.Event()
        self._error: WoodpeckerError | None = None
        self._node: Node | None = None
        self._keeper: NodeKeeper | None = None
        self._session: NodeSession | None = None
        self._server: TcpServer | None = None
        self._http = ""

    async def start(self) -> Ready:
        """Everything up to the point where the node can be used.

        While the store is away it waits, for as long as it takes.
        Raises: InvalidRequest: a setting, or a store that cannot be; the disk is another node's.
        Unavailable: the directory or an address is in use. Conflict: another process
        lives as this node. Corrupt: the disk cannot be understood.
        """
        settings = self._settings
        if settings.http is not None:
            http = HttpServer(settings.http, self._pages())
            self._parts.push_async_callback(http.close)
            self._http = http.address
        disk = DirectoryDisk(settings.directory)
        self._parts.push_async_callback(disk.close)
        client = await self._patiently(lambda: self._client().open())
        self._parts.push_async_callback(client.close)
        env = client.environment
        session = self._new_session(env)
        boot = await disk_boot(disk)
        boot_seen = await self._patiently(lambda: session.look(boot))
        node = await self._open_node(disk, env, boot_seen)
        self._keeper = keeper = NodeKeeper(env, node, cluster_of(client).directory)
        node.attach(keeper)
        self._parts.push_async_callback(keeper.stop)
        self._server = server = await self._bind(node)
        self._parts.push_async_callback(server.close)
        address = settings.advertise or server.address
        self._parts.push_async_callback(session.stop)
        await self._patiently(
            lambda: session.register(
                boot=node.boot,
                incarnation=node.identity.incarnation,
                past=sorted(node.identity.past),
                address=address,
                http=self._http,
                zone=settings.access.zone,
                group=settings.group,
                version=woodpecker.__version__,
            )
        )
        server.listen()  # not before: another process may have taken the record of this node
        self._session = session
        session.start()
        keeper.start()
        _log.info(
            "node %s, boot %d, serves %s at %s", node.identity.node, node.boot, env.url, address
        )
        return Ready(
            node=node.identity.node,
            incarnation=node.identity.incarnation,
            boot=node.boot,
            address=address,
            http=self._http,
            store=env.url,
            pid=os.getpid(),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set.

        Raises: Unavailable: the journal cannot be written any more. Conflict: another process took over the
        record of this node.
        """
        stopping = self._runtime.spawn(stop.wait(), "wait for a signal")
        stopping.add_done_callback(lambda _: self._ended.set())
        try:
            await self._ended.wait()
        finally:
            stopping.cancel()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """End all parts in order. Bounded: what does not end in time is left, with a line in the log."""
        self._is_leaving = True
        _log.info("node %s ends", self._settings.node.node)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._parts.aclose()
        except TimeoutError:
            _log.error("node %s did not end in %.0f s", self._settings.node.node, CLOSE_TIMEOUT_S)

    # --- parts ---

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """A step of the start, repeated while the store is away: nodes may come back before it does."""
        attempt = 0
        while True:
            try:
                return await step()
            except (Unavailable, OutcomeUnknown) as error:
                attempt += 1
                name = self._settings.node.node
                _log.warning("node %s waits for its store: %s", name, error)
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))

    def _client(self) -> Client:
        settings, access = self._settings, self._settings.access
        return connect(
            settings.store,
            metadata=settings.metadata,
            observer=self._observer,
            runtime=self._runtime,
            secret=access.secret or None,
            tls_ca=access.tls_ca,
            tls_cert=access.tls_cert,
            tls_key=access.tls_key,
            zone=access.zone,
        )

    def _new_session(self, env: Environment) -> NodeSession:
        def report() -> Load:
            return Load() if self._keeper is None else self._keeper.report()

        def on_state(state: NodeState) -> None:
            assert self._keeper is not None, "registered after it was made"
            self._keeper.on_state(state)

        def on_lost(why: str) -> None:
            self._fail(Conflict(f"node {self._settings.node.node} stops: {why}"))

        return NodeSession(
            env.catalog.store,
            self._runtime,
            self._settings.node.node,
            report=report,
            on_state=on_state,
            on_lost=on_lost,
        )

    async def _open_node(self, disk: DirectoryDisk, env: Environment, boot_seen: int) -> Node:
        store_id = await self._patiently(lambda: store_at(env.places.objects("")))
        settings = replace(
            self._settings.node,
            store_id=store_id or "",
            storage_url=public_store_url(self._settings.store),
            metadata_url=public_metadata_url(self._settings.metadata),
        )
        node = self._node = await Node.open(
            disk, self._runtime, settings=settings, boot_seen=boot_seen, observer=self._observer
        )
        self._parts.push_async_callback(self._close_node, node)
        watching = self._runtime.spawn(self._watch(node), "watch the node")
        self._parts.callback(watching.cancel)
        return node

    async def _bind(self, node: Node) -> TcpServer:
        """Blocks that fit into no journal file are refused before they are received."""
        host, port = self._settings.listen
        most = min(WireSettings().max_payload_bytes, self._settings.node.max_block_bytes)
        wire = WireSettings(max_payload_bytes=most)
        return await bind(node, host, port, self._runtime, self._settings.access, wire)

    async def _close_node(self, node: Node) -> None:
        await node.close(clean=self._error is None)

    async def _watch(self, node: Node) -> None:
        await node.wait_stopped()
        if node.failure is not None:
            self._fail(node.failure)

    def _fail(self, error: WoodpeckerError) -> None:
        """The first reason to end is the one that is told."""
        if self._error is None and not self._is_leaving:
            _log.critical("%s", error)
            self._error = error
        self._ended.set()

    # --- HTTP ---

    def _pages(self) -> dict[str, Look]:
        return {
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/status": self._status_page,
            "/metrics": self._metrics_page,
        }

    def _health(self) -> Callable[[], Page]:
        """Whether to leave the process alone: its loop answers, and it has not failed."""
        if self._error is None:
            return lambda: Page(body=b"ok\n")
        text = f"{self._error}\n".encode()
        return lambda: Page(status=503, body=text)

    def _readiness(self) -> Callable[[], Page]:
        if self._is_ready:
            return lambda: Page(body=b"ready\n")
        text = b"leaving\n" if self._is_leaving else b"failed\n" if self._error else b"starting\n"
        return lambda: Page(status=503, body=text)

    def _status_page(self) -> Callable[[], Page]:
        status = self.status()

        def make() -> Page:
            text = msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n"
            return Page(body=text, content_type="application/json")

        return make

    def _metrics_page(self) -> Callable[[], Page]:
        status = self.status()
        return lambda: Page(
            body=metrics.page(status, self._registry), content_type=metrics.CONTENT_TYPE
        )

    @property
    def _is_ready(self) -> bool:
        return self._session is not None and self._error is None and not self._is_leaving

    def status(self) -> dict[str, Any]:
        """What ``/status`` shows: the node's own, and what only its process knows."""
        session, server = self._session, self._server
        return {
            "ready": self._is_ready,
            "node": self._settings.node.node,
            "zone": self._settings.access.zone,
            "group": self._settings.group,
            "version": woodpecker.__version__,
            "address": None if session is None else session.record.address,
            "state": None if session is None else session.record.state,
            "beat_age_ms": None if session is None else round(session.beat_age_ms),
            "connections": 0 if server is None else server.connections,
            "unanswered_bytes": 0 if server is None else server.unanswered_bytes,
            **({} if self._node is None else _with_lag(self._node)),
        }


def _with_lag(node: Node) -> dict[str, Any]:
    """The node's status; for each log how far its newest copy is behind, and which copies are fenced, why."""
    status = node.status()
    for log in status["largest_logs"]:
        log["lag_blocks"] = max(0, log["newest"]["lac"] - log["newest"]["synced"])
    fenced = ((copy, fence) for copy in node.copies.all() if (fence := copy.replica.fence))
    status["fences"] = [
        {
            "log": copy.log.name,
            "segment_id": copy.segment_id,
            "epoch": fence.epoch,
            "reason": fence.reason,
        }
        for copy, fence in islice(fenced, MAX_FENCES)
    ]
    return status
