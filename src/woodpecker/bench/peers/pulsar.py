"""Apache Pulsar, at an address that is given: what its acknowledgement is worth is the broker's matter."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from woodpecker.bench.peers.base import NotHere, Peer, PeerPlace, client_library

TIMEOUT_S = 10


class _Topic:
    """Callbacks come in the client's own threads."""

    def __init__(self, producer: Any, ok: object) -> None:  # noqa: ANN401  of a library without types
        self._producer = producer
        self._ok = ok

    async def append(self, payload: bytes) -> object:
        return await self.append_many([payload])

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in payloads]
        for payload, answer in zip(payloads, answers, strict=True):
            self._producer.send_async(payload, self._answered(loop, answer))
        return await asyncio.gather(*answers)

    def _answered(
        self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[object]
    ) -> Callable[[object, object], None]:
        def called(result: object, message_id: object) -> None:
            if result == self._ok:
                loop.call_soon_threadsafe(answer.set_result, message_id)
            else:
                loop.call_soon_threadsafe(answer.set_exception, OSError(f"Pulsar: {result}"))

        return called


@asynccontextmanager
async def started(place: PeerPlace) -> AsyncIterator[Sequence[Peer]]:
    """See ``Starter``."""
    if place.pulsar is None:
        raise NotHere("no broker: give --pulsar HOST:PORT")
    pulsar = client_library("pulsar", "pulsar-client")
    client = pulsar.Client(
        f"pulsar://{place.pulsar}",
        operation_timeout_seconds=TIMEOUT_S,
        logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, str(place.directory / "pulsar.log")),
    )
    try:
        try:
            producer = await asyncio.to_thread(
                client.create_producer, f"bench-{secrets.token_hex(4)}",
                batching_enabled=True, batching_max_publish_delay_ms=1, block_if_queue_full=True,
            )  # fmt: skip
        except pulsar.PulsarException as error:
            raise NotHere(f"the broker at {place.pulsar} does not answer: {error}") from error
        yield [
            Peer(
                name="Pulsar",
                settings=f"broker at {place.pulsar}: durable as it is set up; client batches for 1 ms",
                log=_Topic(producer, pulsar.Result.Ok),
            )
        ]
    finally:
        await asyncio.to_thread(client.close)
