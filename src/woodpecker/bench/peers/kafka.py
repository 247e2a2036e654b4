"""Apache Kafka: a broker that is given, or one of our own; synced for every batch, and as it comes."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from woodpecker.bench.peers.base import NotHere, Peer, PeerPlace, client_library
from woodpecker.bench.peers.kafka_server import VERSION, kafka_server

POLL_S = 0.1
TIMEOUT_S = 30
BULK_MS = 5  # what the client lingers by itself
SYNCED = {"flush.messages": "1"}
SETTINGS = {
    "Kafka, synced": (SYNCED, "topic flush.messages=1: synced before each acknowledgement"),
    "Kafka, page cache": ({}, "flush.messages as it comes: acknowledged from the page cache"),
}


class _Topic:
    """The client calls back in ``poll``, in threads of ours; a batch is told of once, when it is whole."""

    def __init__(self, single: Any, bulk: Any, topic: str) -> None:  # noqa: ANN401  without types
        self._single = single
        self._bulk = bulk
        self._topic = topic

    async def append(self, payload: bytes) -> None:
        await self._produce(self._single, [payload])

    async def append_many(self, payloads: Sequence[bytes]) -> None:
        await self._produce(self._bulk, payloads)

    async def _produce(self, producer: Any, payloads: Sequence[bytes]) -> None:  # noqa: ANN401  same
        loop = asyncio.get_running_loop()
        whole: asyncio.Future[None] = loop.create_future()
        answered = _counting(loop, whole, len(payloads))
        for payload in payloads:
            while True:
                try:
                    producer.produce(self._topic, payload, on_delivery=answered)
                    break
                except BufferError:  # its queue is full
                    await asyncio.sleep(0.001)
        await whole


def _counting(
    loop: asyncio.AbstractEventLoop, whole: asyncio.Future[None], count: int
) -> Callable[[object, object], None]:
    left, errors = count, list[object]()

    def answered(error: object, _message: object) -> None:
        nonlocal left
        left -= 1
        if error is not None:
            errors.append(error)
        if left == 0:
            loop.call_soon_threadsafe(finish)

    def finish() -> None:
        if errors:
            whole.set_exception(OSError(f"Kafka: {errors[0]}"))
        else:
            whole.set_result(None)

    return answered


@asynccontextmanager
async def started(place: PeerPlace) -> AsyncIterator[Sequence[Peer]]:
    """See ``Starter``."""
    library = client_library("confluent_kafka", "confluent-kafka")
    async with AsyncExitStack() as stack:
        if place.kafka is not None:
            address, pids, what = place.kafka, list[int](), f"broker at {place.kafka}"
        else:
            server = kafka_server(place.directory, place.cache)
            address, pid = await stack.enter_async_context(server)
            pids, what = [pid], f"Kafka {VERSION}, 1 node (KRaft)"
        single, bulk = (stack.enter_context(_Polled(library, address, ms)) for ms in (0, BULK_MS))
        peers = []
        for name, (config, text) in SETTINGS.items():
            topic = await asyncio.to_thread(make_topic, address, config)
            settings = f"{what}, 1 partition, acks=all, linger.ms 0 (batches: {BULK_MS}); {text}"
            peers.append(
                Peer(name=name, settings=settings, log=_Topic(single, bulk, topic), pids=pids)
            )
        yield peers


def make_topic(address: str, config: dict[str, str]) -> str:
    """A new topic of one partition. Raises: NotHere: the broker does not answer."""
    library = client_library("confluent_kafka.admin", "confluent-kafka")
    admin = library.AdminClient({"bootstrap.servers": address, "log_level": 0})
    topic = f"bench-{secrets.token_hex(4)}"
    wanted = library.NewTopic(topic, num_partitions=1, replication_factor=1, config=config)
    try:
        admin.create_topics([wanted], request_timeout=TIMEOUT_S)[topic].result(2 * TIMEOUT_S)
    except Exception as error:  # the client has one class for everything
        raise NotHere(f"the broker at {address} does not make a topic: {error}") from error
    return topic


class _Polled:
    """A producer, and the thread in which it calls back."""

    def __init__(self, library: Any, address: str, linger_ms: int) -> None:  # noqa: ANN401  same
        self._producer = library.Producer(
            {"bootstrap.servers": address, "acks": "all", "linger.ms": linger_ms, "log_level": 0}
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Any:  # noqa: ANN401  of a library without types
        self._thread.start()
        return self._producer

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._producer.flush(TIMEOUT_S)

    def _poll(self) -> None:
        while not self._is_over.is_set():
            self._producer.poll(POLL_S)
