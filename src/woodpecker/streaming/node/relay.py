"""The AssignmentService of a node: it passes everything on to the coordinator of the day."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming import frames
from woodpecker.streaming.codec.records import COORDINATOR
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.ports import Dialer, Endpoint, Stream
from woodpecker.streaming.requests import Request

Reply = TypeVar("Reply")
Frame = TypeVar("Frame")

HOPS = 4  # coordinators that may send us on before we give up
CALL_TIMEOUT_MS = 60_000  # broadcasts and creations take their time; the caller has its own bound


class Relay:
    """``AssignmentServer`` of a node."""

    def __init__(self, records: StreamRecords, dialer: Dialer, runtime: Runtime) -> None:
        self._records = records
        self._dialer = dialer
        self._runtime = runtime
        self._address = ""  # the coordinator, as last heard

    async def assign(self, request: Request[Reply]) -> Reply:
        """Pass a request on. Raises: Refused: by the coordinator; UNAVAILABLE: there is none now."""
        refused: Refused | None = None
        for _ in range(HOPS):
            endpoint = await self._coordinator()
            try:
                return await endpoint.call(request, timeout_ms=CALL_TIMEOUT_MS)
            except Refused as error:
                if error.refusal.kind not in (Class.NOT_LEADER, Class.UNAVAILABLE):
                    raise
                refused = error
                self._address = ""  # it is not, or not there: what does the record say now?
                if error.refusal.kind is Class.NOT_LEADER:
                    self._address = error.refusal.address
        assert refused is not None
        text = f"no coordinator can be reached: {refused}; try again in some seconds"
        raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text))

    async def discover(self, stream: Stream[frames.DiscoverDown, frames.DiscoverUp]) -> None:
        """Pass a stream on, both ways, until either side ends. Raises: as ``assign``."""
        coordinator = (await self._coordinator()).discover()
        tasks = [
            self._runtime.spawn(_pass_on(stream, coordinator, cuts=True), "relay up"),
            self._runtime.spawn(_pass_on(coordinator, stream), "relay down"),
        ]
        try:
            await tasks[1]
        except Refused as error:
            if error.refusal.kind is Class.NOT_LEADER:
                self._address = error.refusal.address
            elif error.refusal.kind is Class.UNKNOWN:
                self._address = ""
            raise
        finally:
            for task in tasks:
                task.cancel()
            coordinator.cut()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _coordinator(self) -> Endpoint:
        if not self._address:
            try:
                record = (await self._records.load(COORDINATOR)).record
            except WoodpeckerError as error:
                text = f"this node cannot ask who is coordinator: {error}"
                raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text)) from error
            if record is None:
                text = "no coordinator has ever run here: start one"
                raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text))
            self._address = record.address
        return self._dialer.endpoint(self._address)


async def _pass_on(
    source: Stream[Any, Frame], target: Stream[Frame, Any], *, cuts: bool = False
) -> None:
    """Frames from one stream to the other, until the first ends.

    Args:
        cuts: when either is cut the target is, so that nobody waits for what it may never say.
    """
    try:
        while (frame := await source.receive()) is not None:
            await target.send(frame)
    except Refused:
        if cuts:
            target.cut()
        raise
    await target.close()
