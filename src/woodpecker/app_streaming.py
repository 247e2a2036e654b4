"""Composition root of the streaming service over gRPC: clients of it, and processes that are members of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from woodpecker.access import Access, PathLike, make_access
from woodpecker.app import connect as connect_store
from woodpecker.client.client import Client
from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import check_name
from woodpecker.errors import Conflict, InvalidRequest, OutcomeUnknown, Unavailable
from woodpecker.logstore.http import HttpServer, parse_address
from woodpecker.observability.logging import LoggingObserver
from woodpecker.observability.several import Several
from woodpecker.runtime.runtime import Runtime, SystemRuntime
from woodpecker.streaming.client.client import TIMEOUT_S, StreamingClient
from woodpecker.streaming.codec.records import COORDINATOR, NODES
from woodpecker.streaming.member import Member, Roles
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.pages import StreamingPages
from woodpecker.streaming.settings import DEFAULTS, StreamSettings
from woodpecker.streaming.standalone import settings_for
from woodpecker.streaming.transport.memory import MemoryNetwork
from woodpecker.streaming.transport.nearby import NearbyDialer

if TYPE_CHECKING:
    from woodpecker.streaming.transport.grpc_client import GrpcDialer
    from woodpecker.streaming.transport.grpc_server import GrpcServer

HOW_TO_GET_GRPC = (
    "the streaming service is reached over gRPC, an extra: pip install 'woodpecker-wal[grpc]', "
    "in a clone pip install '.[grpc]'"
)
SCHEME = "grpc://"
ANY_HOST = ("0.0.0.0", "::")  # noqa: S104  compared with, not listened on
CLOSE_TIMEOUT_S = 20.0

T = TypeVar("T")

_log = logging.getLogger("woodpecker.streaming")


def connect(
    addresses: str | Sequence[str],
    *,
    timeout_s: float = TIMEOUT_S,
    name: str = "",
    runtime: Runtime | None = None,
    secret: str | bytes | None = None,
    secret_file: PathLike | None = None,
    tls_ca: PathLike | None = None,
    tls_cert: PathLike | None = None,
    tls_key: PathLike | None = None,
) -> StreamingClient:
    """Connect to a streaming service; ``async with`` the result.

    Args:
        addresses: ``host:port`` of any coordinators or nodes, a list or joined by commas; ``grpc://`` may
            stand before each.
        timeout_s: for how long a call or a message is tried before it fails.
        name: shown to those it talks to.
        secret, secret_file, tls_ca, tls_cert, tls_key: as for ``woodpecker.connect``.
    Raises: InvalidRequest: an address, a file, or the extra ``grpc`` is not installed.
    """
    access = make_access(
        os.environ,
        secret=secret,
        secret_file=secret_file,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    given = service_addresses(addresses)
    runtime = runtime or SystemRuntime()
    return StreamingClient(
        make_dialer(runtime, access), given, timeout_s=timeout_s, name=name, runtime=runtime
    )


def service_addresses(given: str | Sequence[str]) -> list[str]:
    """``host:port`` of each, from a list or a text joined by commas; ``grpc://`` may stand before any.

    Raises: InvalidRequest: one is no address.
    """
    texts = given.split(",") if isinstance(given, str) else given
    addresses = [text.strip().removeprefix(SCHEME) for text in texts]
    for address in addresses:
        parse_address(address, "address of the streaming service")
    return addresses


async def addresses_of(store: Client) -> list[str]:
    """Where the service of an open store can be reached, by its records: the coordinator first.

    Raises: Unavailable: nobody is on record.
    """
    env = store.environment
    records = StreamRecords(env.catalog.store, env.runtime)
    leader = (await records.load(COORDINATOR)).record
    nodes = [stored.record for stored in (await records.all(NODES)).values()]
    found = [leader.address] if leader is not None and leader.holder else []
    found += [node.address for node in nodes if node.is_up]
    if not found:
        raise Unavailable(
            f"no streaming service runs on {env.url}: start one with `woodpecker up`, or a coordinator "
            "and nodes"
        )
    return list(dict.fromkeys(found))


def make_dialer(runtime: Runtime, access: Access) -> GrpcDialer:
    """Raises: InvalidRequest: the extra is not installed, or a TLS file holds something else."""
    try:
        from woodpecker.streaming.transport.grpc_client import GrpcDialer
    except ImportError as error:
        raise InvalidRequest(HOW_TO_GET_GRPC) from error
    return GrpcDialer(runtime, access)


def _make_server(address: str, runtime: Runtime, access: Access) -> GrpcServer:
    try:
        from woodpecker.streaming.transport.grpc_server import GrpcServer
    except ImportError as error:
        raise InvalidRequest(HOW_TO_GET_GRPC) from error
    return GrpcServer(address, runtime, access)


# ------------------------------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What a process of the service is told, checked. ``stream`` None: as suits a service of one process.
    ``when_lost`` is told when another process has taken the node's name: what happened, what to do.
    """

    roles: Roles
    listen: str
    advertise: str | None
    http: tuple[str, int] | None
    store: str
    metadata: str | None
    buffer: str | None
    stream: StreamSettings | None
    access: Access
    when_lost: str = "another process goes by its name; give each node one of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The ready line. ``node`` "": it is a coordinator alone."""

    role: str
    node: str
    address: str
    http: str
    store: str
    pid: int


def make_settings(
    values: Mapping[str, Any], environ: Mapping[str, str], *, coordinator: bool, node: bool
) -> ProcessSettings:
    """From settings by name, without their table. Raises: InvalidRequest: missing, wrong, contradictory."""
    if node and not values["node"]:
        raise InvalidRequest("--node is missing: the name of this node, for ever")
    host, _ = parse_address(str(values["listen"]), "--listen")
    if values["advertise"] is not None:
        parse_address(str(values["advertise"]), "--advertise")
    elif host in ANY_HOST:
        raise InvalidRequest(
            f"--listen {values['listen']} is every address of this machine: give --advertise HOST:PORT, "
            "where clients, nodes and coordinators reach this one"
        )
    stream = replace(
        DEFAULTS,
        **{name: values[name] for name in ("pchannels", "session_ttl_ms", "beat_ms", "tail_bytes")},
    )
    if 3 * stream.beat_ms > stream.session_ttl_ms:
        raise InvalidRequest(
            f"beat_ms {stream.beat_ms} is above a third of session_ttl_ms {stream.session_ttl_ms}: one lost "
            "beat would end a session"
        )
    access_names = ("secret_file", "tls_ca", "tls_cert", "tls_key", "zone")
    return ProcessSettings(
        roles=Roles(
            coordinator=coordinator,
            node=check_name(str(values["node"]), "node") if node else "",
            zone=values["zone"] or "",
            mode=values["mode"],
        ),
        listen=str(values["listen"]),
        advertise=values["advertise"],
        http=None if values["http"] is None else parse_address(str(values["http"]), "--http"),
        store=str(values["store"]),
        metadata=values["metadata"],
        buffer=values["buffer"],
        stream=stream,
        access=make_access(environ, **{name: values[name] for name in access_names}),
    )


class Process:
    """A coordinator, a node, or both. ``start``, then ``run``, and ``close`` whatever came of them."""

    def __init__(self, settings: ProcessSettings) -> None:
        self._settings = settings
        self._runtime = SystemRuntime()
        self._pages = StreamingPages()
        self._observer = Several(LoggingObserver("streaming"), self._pages.observer)
        self._parts = AsyncExitStack()
        self._network = MemoryNetwork(self._runtime)
        self.member: Member | None = None

    @property
    def _name(self) -> str:
        node = self._settings.roles.node
        return f"node {node}" if node else "coordinator"

    async def start(self) -> Ready:
        """Everything up to the point where it takes part. While the store is away it waits.

        Raises: InvalidRequest: a setting, an address in use, or a store that cannot be. Unavailable: the address
        for HTTP is in use.
        """
        settings, parts = self._settings, self._parts
        http = ""
        if settings.http is not None:
            server = HttpServer(settings.http, self._pages.pages())
            parts.push_async_callback(server.close)
            http = server.address
        listening = _make_server(settings.listen, self._runtime, settings.access)
        parts.push_async_callback(listening.close)
        store = await self._patiently(lambda: self._store().open())
        parts.push_async_callback(store.close)
        address = settings.advertise or listening.address
        far = make_dialer(self._runtime, settings.access)
        dialer = NearbyDialer(self._network.dialer(address), far, (address,))
        parts.push_async_callback(dialer.close)
        member = self.member = Member(
            store,
            dialer,
            settings.roles,
            address=address,
            settings=settings.stream or settings_for(store),
            observer=self._observer,
        )
        parts.push_async_callback(self._network.serve(address, member.services).close)
        await listening.start(member.services)
        parts.push_async_callback(member.stop)
        await self._patiently(member.start)
        self._pages.member = member
        _log.info("%s serves %s at %s", self._name, store.environment.url, address)
        return Ready(
            role=_role(settings.roles),
            node=settings.roles.node,
            address=address,
            http=http,
            store=store.environment.url,
            pid=os.getpid(),
        )

    def connect(self, address: str) -> StreamingClient:
        """A client of this process, in it; not open yet."""
        return StreamingClient(
            self._network.dialer("client"), [address], runtime=self._runtime, name="here"
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises: Conflict: another process goes by this node's name."""
        assert self.member is not None, "start it first"
        node = self.member.node
        waits = [self._runtime.spawn(stop.wait(), "wait for a signal")]
        if node is not None:
            waits.append(self._runtime.spawn(node.lost.wait(), "wait for the loss of the name"))
        ended = asyncio.Event()
        for wait in waits:
            wait.add_done_callback(lambda _: ended.set())
        try:
            await ended.wait()
        finally:
            for wait in waits:
                wait.cancel()
        if node is not None and node.lost.is_set() and not stop.is_set():
            raise Conflict(f"{self._name} stops: {self._settings.when_lost}")

    async def close(self) -> None:
        """End all parts in order. Bounded: what does not end in time is left, with a line in the log."""
        self._pages.is_leaving = True
        if self._pages.member is not None:  # else it never took part
            _log.info("%s leaves", self._name)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._parts.aclose()
        except TimeoutError:
            _log.error("%s did not end in %.0f s", self._name, CLOSE_TIMEOUT_S)

    def _store(self) -> Client:
        settings, access = self._settings, self._settings.access
        return connect_store(
            settings.store,
            metadata=settings.metadata,
            buffer=settings.buffer,
            observer=self._observer,
            runtime=self._runtime,
            secret=access.secret or None,
            tls_ca=access.tls_ca,
            tls_cert=access.tls_cert,
            tls_key=access.tls_key,
            zone=access.zone,
            background=bool(settings.roles.node),
        )

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """A step of the start, repeated while the store is away: this process may come back before it does."""
        attempt, said = 0, ""
        while True:
            try:
                return await step()
            except (Unavailable, OutcomeUnknown) as error:
                attempt += 1
                if str(error) != said:
                    said = str(error)
                    _log.warning("%s waits for its store, and tries again: %s", self._name, said)
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))


def _role(roles: Roles) -> str:
    if roles.coordinator and roles.node:
        return "standalone"
    return "coordinator" if roles.coordinator else "streaming"
