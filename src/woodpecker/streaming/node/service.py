"""A streaming node: owners of pchannels, found by name and term, behind the services of ``ports.py``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from woodpecker import Client, __version__
from woodpecker.errors import WoodpeckerError
from woodpecker.metadata.base import MetadataStore
from woodpecker.observability.base import SILENT, Observer
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.owner import State
from woodpecker.streaming.core.records import NodeRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.metadata.node_session import NodeSession
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.node.answers import append_control, describe_transaction, read_point
from woodpecker.streaming.node.consuming import Consumption
from woodpecker.streaming.node.cursors import (
    commit_cursor,
    delete_cursor,
    list_cursors,
    open_cursor,
)
from woodpecker.streaming.node.life import FEATURES, Life, Tools
from woodpecker.streaming.node.line import moved
from woodpecker.streaming.node.owner import PchannelOwner
from woodpecker.streaming.node.producing import Production
from woodpecker.streaming.node.refusing import refusal_from
from woodpecker.streaming.node.relay import Relay
from woodpecker.streaming.node.statuses import Statuses
from woodpecker.streaming.node.tail import TailBudget
from woodpecker.streaming.node.told_clock import ToldClock
from woodpecker.streaming.ports import Dialer, Stream
from woodpecker.streaming.requests import Request
from woodpecker.streaming.settings import DEFAULTS, StreamSettings

Reply = TypeVar("Reply")

_log = logging.getLogger("woodpecker.streaming")

_ANSWERS: dict[type[Request[Any]], Callable[[Life, Any], Awaitable[object]]] = {
    requests.GetReadPoint: read_point,
    requests.DescribeTransaction: describe_transaction,
    requests.OpenCursor: open_cursor,
    requests.CommitCursor: commit_cursor,
    requests.ListCursors: list_cursors,
    requests.DeleteCursor: delete_cursor,
}


class StreamingNode:
    """``HandlerServer`` and ``ManagerServer``; ``relay`` is an ``AssignmentServer``. One event loop.

    Serve it at ``address`` before ``register``.

    Args:
        client: of the store that holds the logs; open, and closed by the caller.
        store: where the records of the service lie.
        node: its id, for ever; one process at a time goes by it.
        dialer: reaches coordinators; None: nothing is relayed.
    """

    def __init__(
        self,
        client: Client,
        store: MetadataStore,
        runtime: Runtime,
        *,
        node: str,
        address: str,
        zone: str = "",
        dialer: Dialer | None = None,
        settings: StreamSettings = DEFAULTS,
        observer: Observer = SILENT,
    ) -> None:
        records = StreamRecords(store, runtime)
        self.node = node
        self.address = address
        self.zone = zone
        self.relay = None if dialer is None else Relay(records, dialer, runtime)
        self.lost = asyncio.Event()  # another process goes by this node's id
        self._client = client
        self._session = NodeSession(
            records,
            runtime,
            node,
            settings=settings,
            on_change=self._record_changed,
            on_lost=self._session_lost,
        )
        self._tools = Tools(
            runtime=runtime,
            records=records,
            observer=observer,
            settings=settings,
            budget=TailBudget(
                settings.tail_bytes,
                int(settings.tail_bytes * settings.ephemeral_share),
                observer,
            ),
            clock=ToldClock(runtime),
            node=node,
            incarnation=self._session.incarnation,
        )
        self._owners: dict[str, PchannelOwner] = {}
        self._statuses = Statuses(self._tools, self._owners)
        self._is_stopping = False

    # --- life of the process ---

    @property
    def incarnation(self) -> str:
        """Of this process."""
        return self._session.incarnation

    @property
    def is_known(self) -> bool:
        """A coordinator has asked what it does: it may be given pchannels."""
        return self._statuses.is_known

    @property
    def owners(self) -> dict[str, PchannelOwner]:
        """By pchannel; for tests and tools."""
        return self._owners

    async def register(self) -> NodeRecord:
        """Tell coordinators that this node is there. Raises: as ``NodeSession.register``."""
        return await self._session.register(
            address=self.address,
            zone=self.zone,
            version=__version__,
            features_min=1,
            features_max=FEATURES,
        )

    async def stop(self) -> None:
        """Give everything up in good order, then say goodbye. Nothing is served afterwards."""
        self._is_stopping = True
        for owner in list(self._owners.values()):
            owner.release(max(owner.machine.wanted, owner.machine.term))
        for owner in list(self._owners.values()):
            await owner.rested()
        await self._close_owners()
        await self._session.stop()

    async def abandon(self) -> None:
        """End at once, as a crash would: nothing is said to anybody."""
        self._is_stopping = True
        await self._session.abandon()
        await self._close_owners()

    async def _close_owners(self) -> None:
        for owner in list(self._owners.values()):
            await owner.close()
        self._owners.clear()

    def _record_changed(self, record: NodeRecord) -> None:
        _log.info("node %s: draining=%s frozen=%s", self.node, record.draining, record.frozen)

    def _session_lost(self, reason: str) -> None:
        _log.error(
            "node %s serves on until it is fenced, and registers no more: %s", self.node, reason
        )
        self.lost.set()

    # --- HandlerService ---

    async def produce(self, stream: Stream[frames.ProduceDown, frames.ProduceUp]) -> None:
        """Serve one Produce stream until it ends. Raises: Refused: MOVED."""
        hello = await stream.receive()
        if hello is None:
            return
        if not isinstance(hello, frames.ProduceHello):
            raise _no_hello(hello)
        await Production(self._life_for(hello), stream).run()

    async def consume(self, stream: Stream[frames.ConsumeDown, frames.ConsumeUp]) -> None:
        """Serve one Consume stream until it ends. Raises: Refused: MOVED."""
        hello = await stream.receive()
        if hello is None:
            return
        if not isinstance(hello, frames.ConsumeHello):
            raise _no_hello(hello)
        await Consumption(self._life_for(hello), stream).run()

    async def handle(self, request: Request[Reply]) -> Reply:
        """Unary requests of the HandlerService."""
        return await self._answer(request)

    # --- ManagerService ---

    async def status(self, stream: Stream[frames.NodeStatus, frames.WatchStatus]) -> None:
        """Serve one Status stream until it ends."""
        await self._statuses.serve(stream)

    async def manage(self, request: Request[Reply]) -> Reply:
        """Assign, Release, AppendControl."""
        return await self._answer(request)

    # --- inside ---

    async def _answer(self, request: Request[Reply]) -> Reply:
        try:
            return await self._reply_to(request)  # type: ignore[return-value]  # of the request's type
        except WoodpeckerError as error:
            raise Refused(refusal_from(error)) from error

    async def _reply_to(self, request: Request[object]) -> object:
        match request:
            case requests.Assign():
                return self._assign(request)
            case requests.Release():
                return self._release(request)
            case requests.AppendControl(pchannel=name, term=term):
                return await append_control(self._life(name, term), request)
        if type(request) not in _ANSWERS:
            text = f"{type(request).__name__} is not known here"
            raise Refused(Refusal(kind=Class.INVALID, message=text))
        name = request.pchannel  # type: ignore[attr-defined]  # all of these have one
        return await _ANSWERS[type(request)](self._life(name), request)

    def _assign(self, request: requests.Assign) -> frames.PchannelStatus:
        """Record the wish; the present state at once."""
        self._check_incarnation(request.incarnation)
        owner = self._owners.get(request.pchannel)
        if owner is None:
            self._forget_unknown()
            owner = PchannelOwner(
                self._tools, self._client, request.pchannel, request.log, self._statuses.wake
            )
            self._owners[request.pchannel] = owner
        owner.assign(request.term)
        return owner.status

    def _forget_unknown(self) -> None:
        """What was asked for by mistake leaves nothing behind."""
        for name, owner in list(self._owners.items()):
            if owner.is_unknown:
                del self._owners[name]
                self._tools.runtime.spawn(owner.close(), f"forget {name}")

    def _release(self, request: requests.Release) -> frames.PchannelStatus:
        self._check_incarnation(request.incarnation)
        owner = self._owners.get(request.pchannel)
        if owner is None:
            return frames.PchannelStatus(
                pchannel=request.pchannel, term=request.term, state=State.CLOSED
            )
        owner.release(request.term)
        return owner.status

    def _check_incarnation(self, incarnation: str) -> None:
        if self._is_stopping or incarnation != self.incarnation:
            raise Refused(moved(f"node {self.node} lives as {self.incarnation}, not {incarnation}"))

    def _life_for(self, hello: frames.ProduceHello | frames.ConsumeHello) -> Life:
        if hello.incarnation != self.incarnation:
            raise Refused(moved(f"node {self.node} was started anew: ask for a newer map"))
        return self._life(hello.pchannel, hello.term)

    def _life(self, pchannel: str, term: int | None = None) -> Life:
        """The life that serves it. Raises: Refused: MOVED."""
        owner = self._owners.get(pchannel)
        life = None if owner is None else owner.serving
        if owner is None or life is None or life.refusal is not None:
            known = 0 if owner is None else owner.machine.wanted
            raise Refused(moved(f"{pchannel} is not served by node {self.node} now", term=known))
        if term is not None and term != life.term:
            text = f"{pchannel} is served by node {self.node} under term {life.term}, not {term}"
            raise Refused(moved(text, term=life.term))
        return life


def _no_hello(frame: object) -> Refused:
    text = f"a stream begins with its Hello, not with {type(frame).__name__}"
    return Refused(Refusal(kind=Class.INVALID, message=text))
