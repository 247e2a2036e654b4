"""Asking whichever node answers: for the first hello of a client, and for what every node can tell."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from woodpecker.codec.messages import Refused, Request
from woodpecker.errors import ALL_ERRORS, InvalidRequest, Unavailable, WoodpeckerError
from woodpecker.rpc.base import Answer, Link, Transport
from woodpecker.runtime.runtime import Runtime

CONNECT_TIMEOUT_MS = 3_000
PATIENCE_MS = 300.0  # with one node, until the next one is tried as well
ASK_TIMEOUT_MS = 30_000
_BY_CODE = {error.code: error for error in ALL_ERRORS}

Addresses = Callable[[], Awaitable[Sequence[str]]]


class AnyNode:
    """One link to one of several nodes; another one is taken when it breaks.

    Args:
        addresses: ``host:port`` of the nodes, asked for when a link is needed.
    Concurrency: any number of tasks of one loop.
    """

    def __init__(self, transport: Transport, addresses: Addresses, runtime: Runtime) -> None:
        self._transport = transport
        self._addresses = addresses
        self._runtime = runtime
        self._link: Link | None = None
        self._connecting = asyncio.Lock()

    async def link(self) -> Link:
        """An open link. Raises: Unavailable: no node answers. InvalidRequest: they refuse us."""
        async with self._connecting:
            if self._link is None or not self._link.is_open:
                self._link = await self._connect(await self._addresses())
            return self._link

    async def ask(self, request: Request) -> Answer:
        """Send a request that every node can answer, to the next one if one cannot.

        Raises: Unavailable: none could. Others: as the node refused.
        """
        tries = len(await self._addresses()) + 1  # the link may be a broken one
        refusal: WoodpeckerError = Unavailable("no LogStore node is known")
        for _ in range(tries):
            link = await self.link()
            try:
                answer = await link.send(request, timeout_ms=ASK_TIMEOUT_MS)
            except Unavailable as error:
                refusal = error
            else:
                if not isinstance(answer.message, Refused):
                    return answer
                refusal = _BY_CODE.get(answer.message.code, Unavailable)(answer.message.text)
                if not isinstance(refusal, Unavailable):
                    raise refusal
            await self._leave(link)
        raise refusal

    async def close(self) -> None:
        """Close the link."""
        if self._link is not None:
            await self._link.close()

    async def _leave(self, link: Link) -> None:
        """The node of this link does not help; the next call takes another."""
        if self._link is link:
            self._link = None
        await link.close()

    async def _connect(self, addresses: Sequence[str]) -> Link:
        """Tries all, from any one on, so that many clients do not meet at the first.

        One that takes long does not hold up the next: the first that answers is taken.
        """
        first = int(self._runtime.random() * len(addresses))
        waiting = deque((*addresses[first:], *addresses[:first]))
        ended: asyncio.Queue[Link | WoodpeckerError] = asyncio.Queue()
        trying: list[asyncio.Task[None]] = []
        failed: list[WoodpeckerError] = []
        try:
            while waiting or len(failed) < len(trying):
                if waiting:
                    work = self._try(waiting.popleft(), ended)
                    trying.append(self._runtime.spawn(work, "any node"))
                try:
                    async with asyncio.timeout(PATIENCE_MS / 1000 if waiting else None):
                        outcome = await ended.get()
                except TimeoutError:
                    continue
                if not isinstance(outcome, WoodpeckerError):
                    return outcome
                failed.append(outcome)
        finally:
            for task in trying:
                task.cancel()
            await asyncio.gather(*trying, return_exceptions=True)
            while not ended.empty():
                outcome = ended.get_nowait()
                if not isinstance(outcome, WoodpeckerError):
                    await outcome.close()
        raise _worst(failed)

    async def _try(self, address: str, ended: asyncio.Queue[Link | WoodpeckerError]) -> None:
        try:
            link = await self._transport.connect(address, timeout_ms=CONNECT_TIMEOUT_MS)
        except (Unavailable, InvalidRequest) as error:
            ended.put_nowait(error)
        else:
            ended.put_nowait(link)


def _worst(failed: Sequence[WoodpeckerError]) -> WoodpeckerError:
    """What to tell when none of the nodes could be used: a refusal, for it does not pass."""
    for refusal in failed:
        if isinstance(refusal, InvalidRequest):
            return refusal
    reasons = "; ".join(str(error) for error in failed) or "none is known"
    return Unavailable(f"no LogStore node answers: {reasons}")
