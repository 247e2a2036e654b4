"""Loads on one channel that know what must be there afterwards, and who judges it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from woodpecker.app_streaming import connect
from woodpecker.errors import Aborted, Fenced, WoodpeckerError
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.producer import Producer
from woodpecker.testing.faults.arena import Report

PARTS = 3  # messages of a transaction
ABORT_SHARE = 0.2
DRAINED_S = 90.0
LIVES = 300  # messages of one life of the subscription


class ChannelLoad:
    """A sender, a sender of transactions, a consumer for life and a subscription on one channel.

    Attributes:
        acked, unknown: payloads of the sender. longest_s: without any acknowledgement since ``mark``.
        committed, doubtful, aborted: transactions, by the front of their payloads.
        seen, subscribed: what the consumer and the lives of the subscription were given.
    """

    def __init__(self, addresses: Sequence[str], name: str, rng: random.Random) -> None:
        self.name = name
        self.acked: list[bytes] = []
        self.unknown: set[bytes] = set()
        self.committed: list[str] = []
        self.doubtful: set[str] = set()
        self.aborted: set[str] = set()
        self.seen: list[bytes] = []
        self.subscribed: list[bytes] = []
        self.longest_s = 0.0
        self._addresses = addresses
        self._rng = rng
        self._last_s = time.monotonic()
        self._is_ending = False
        self._senders = [asyncio.ensure_future(w) for w in (self._send(), self._transact())]
        self._readers = [asyncio.ensure_future(w) for w in (self._consume(), self._subscribe())]

    def mark(self) -> None:
        """Measure the longest pause from here."""
        self.longest_s, self._last_s = 0.0, time.monotonic()

    async def more(self, count: int, limit_s: float) -> None:
        """Wait for so many more acknowledgements. Raises: TimeoutError; what ended a load."""
        wanted = len(self.acked) + count
        async with asyncio.timeout(limit_s):
            while len(self.acked) < wanted:
                for task in (*self._senders, *self._readers):
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """The senders end; readers go on."""
        self._is_ending = True
        await asyncio.gather(*self._senders)

    async def judge(self, report: Report) -> None:
        """Compare with what the channel holds; then all ends."""
        kept: list[bytes] = []
        async with connect(self._addresses) as client:
            channel = await client.open_channel(self.name)
            async for batch in channel.consume_batches(end="tail"):
                kept += [message.payload for message in batch]
        report.counts["messages kept"] += len(kept)
        self._judge_sender(report, kept)
        self._judge_transactions(report, kept)
        try:
            async with asyncio.timeout(DRAINED_S):
                while len(self.seen) < len(kept) or set(kept) - set(self.subscribed):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        except TimeoutError:
            report.fail("delivery", f"{self.name}: readers have not got everything")
        if self.seen != kept:
            report.fail("delivery", f"{self.name}: the consumer's life shows another sequence")
        if set(self.subscribed) - set(kept):
            report.fail("delivery", f"{self.name}: the subscription was given what is not there")
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _judge_sender(self, report: Report, kept: list[bytes]) -> None:
        mine = [payload for payload in kept if payload.startswith(b"m-")]
        if len(set(mine)) != len(mine):
            report.fail("once", f"{self.name}: a message is there twice")
        if [payload for payload in mine if payload not in self.unknown] != self.acked:
            report.fail("loss", f"{self.name}: what is kept is not what was acknowledged, in order")
        report.counts["messages acknowledged"] += len(self.acked)
        report.counts["messages without outcome"] += len(self.unknown)

    def _judge_transactions(self, report: Report, kept: list[bytes]) -> None:
        found: dict[str, list[str]] = {}
        for payload in kept:
            if payload.startswith(b"t-"):
                front, _, part = payload.decode().rpartition("-")
                found.setdefault(front, []).append(part)
        whole = [str(part) for part in range(PARTS)]
        for front, parts in found.items():
            if parts != whole:
                report.fail("all or nothing", f"{self.name}: {front} shows {parts}")
        if set(self.committed) - set(found):
            report.fail("loss", f"{self.name}: a committed transaction is not there")
        if self.aborted & set(found):
            report.fail("all or nothing", f"{self.name}: an aborted transaction is there")
        report.counts["transactions committed"] += len(self.committed)
        report.counts["transactions aborted"] += len(self.aborted)
        report.counts["transactions without outcome"] += len(self.doubtful)

    # --- senders ---

    async def _send(self) -> None:
        number = 0
        async with connect(self._addresses) as client:
            channel = await client.open_channel(self.name)
            while not self._is_ending:
                async with channel.producer("sender") as producer:
                    while not self._is_ending:
                        payload = b"m-%d" % number
                        number += 1
                        try:
                            await producer.send(payload)
                        except WoodpeckerError:
                            self.unknown.add(payload)
                            break
                        self.acked.append(payload)
                        now_s = time.monotonic()
                        self.longest_s = max(self.longest_s, now_s - self._last_s)
                        self._last_s = now_s

    async def _transact(self) -> None:
        number = 0
        async with connect(self._addresses) as client:
            channel = await client.open_channel(self.name)
            while not self._is_ending:
                async with channel.producer("transactions") as producer:
                    while not self._is_ending:
                        number += 1
                        if not await self._one(producer, f"t-{number}"):
                            break

    async def _one(self, producer: Producer, front: str) -> bool:
        """One transaction; whether the producer can go on."""
        gives_up = self._rng.random() < ABORT_SHARE
        try:
            async with producer.transaction() as transaction:
                for part in range(PARTS):
                    await transaction.send(f"{front}-{part}".encode())
                if gives_up:
                    raise _GivenUpError
        except (_GivenUpError, Aborted):
            self.aborted.add(front)
        except WoodpeckerError:
            self.doubtful.add(front)
            return False
        else:
            self.committed.append(front)
        return True

    # --- readers ---

    async def _consume(self) -> None:
        async with connect(self._addresses) as client:
            channel = await client.open_channel(self.name)
            async for batch in channel.consume_batches():
                self.seen += [message.payload for message in batch]

    async def _subscribe(self) -> None:
        async with connect(self._addresses) as client:
            channel = await client.open_channel(self.name)
            while True:
                await self._one_life(channel)

    async def _one_life(self, channel: Channel) -> None:
        count = 0
        try:
            async with channel.subscribe("mailer") as subscription:
                async for message in subscription:
                    self.subscribed.append(message.payload)
                    await subscription.ack(message)
                    count += 1
                    if count == LIVES:
                        return
        except Fenced:  # nobody else takes the cursor, but a repeat of one's own may
            return


class _GivenUpError(Exception):
    """The user's own failure in a transaction."""
