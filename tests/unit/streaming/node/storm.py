"""Small clients that never give up: producers send again what is unanswered, consumers resume where they were."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from tests.unit.streaming.node.kit import VCID, Cluster, Got, Member, P

from woodpecker.streaming import frames
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import Position, Start, StartForm

AGAIN = {Class.MOVED, Class.UNKNOWN, Class.LATER, Class.GAP, Class.UNAVAILABLE}


class Storm:
    """A cluster whose pchannel wanders; ``owner`` is where clients look."""

    def __init__(self, cluster: Cluster, seed: int = 0) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.owner: tuple[Member, int] | None = None
        self.is_over = False

    def look(self) -> tuple[Member, int] | None:
        return self.owner


@dataclass
class StubbornProducer:
    """Sends batches 0, 1, 2, ... of one named producer; some in transactions that commit or abort."""

    storm: Storm
    name: str
    count: int
    with_txns: bool = False
    pause_ms: float = 0.0  # on average, after each answer
    epoch: int = -1
    next_answer: int = 0
    answered: list[frames.Ack] = field(default_factory=list)
    aborted: set[int] = field(default_factory=set)  # numbers of transactions given up by the owner

    def batch(self, sequence: int) -> frames.Batch:
        payload = f"{self.name}:{sequence}".encode()
        fields: dict[str, Any] = {}
        messages = frames.Messages(payloads=[payload])
        if self.with_txns:
            number, step = divmod(sequence, 3)
            fields["txn_number"] = number
            fields["keep_alive_ms"] = 60_000
            if step == 0:
                fields["begin"] = True
            if step == 2:
                if number % 3 == 2:
                    fields["abort"] = True
                    messages = frames.Messages(payloads=[])
                else:
                    fields["commit"] = True
        return frames.Batch(session=1, sequence=sequence, vcid=VCID, messages=messages, **fields)

    async def run(self) -> None:
        while self.next_answer < self.count:
            found = self.storm.look()
            if found is not None:
                try:
                    await self._one_stream(*found)
                except Refused as error:
                    check(error)
            await asyncio.sleep(0.05)

    async def _one_stream(self, member: Member, term: int) -> None:
        stream = member.endpoint.produce()
        try:
            await stream.send(
                frames.ProduceHello(pchannel=P, term=term, incarnation=member.node.incarnation)
            )
            ready = await stream.receive()
            if not isinstance(ready, frames.ProduceReady):
                return
            await stream.send(frames.Attach(session=1, producer=self.name, epoch=self.epoch))
            attached = await self._answer(stream)
            if not isinstance(attached, frames.Attached):
                return
            self.epoch = attached.epoch
            assert attached.next_sequence >= self.next_answer, (attached, self.next_answer)
            sent = self.next_answer
            while self.next_answer < self.count:
                while sent < min(self.count, self.next_answer + 8):
                    await stream.send(self.batch(sent))
                    sent += 1
                if self.pause_ms:
                    await asyncio.sleep(self.storm.rng.random() * self.pause_ms / 500)
                answer = await self._answer(stream)
                if not isinstance(answer, frames.Ack):
                    if isinstance(answer, frames.BatchRefused):
                        assert answer.refusal.kind in AGAIN, answer
                    return
                assert answer.sequence == self.next_answer
                self.answered.append(answer)
                self.next_answer += 1
        finally:
            stream.cut()

    async def _answer(self, stream: Any) -> Any:
        while isinstance(frame := await stream.receive(), frames.Rate):
            pass
        return frame


@dataclass
class StubbornConsumer:
    """Follows the channel through all owners; what it got must have neither gap nor repeat."""

    storm: Storm
    got: list[Got] = field(default_factory=list)
    next: Position | None = None
    wants: int = 1 << 60
    credit: int = 2000

    async def run(self) -> None:
        while len(self.got) < self.wants:
            found = self.storm.look()
            if found is not None:
                try:
                    await self._one_stream(*found)
                except Refused as error:
                    check(error)
            await asyncio.sleep(0.05)

    async def _one_stream(self, member: Member, term: int) -> None:
        stream = member.endpoint.consume()
        try:
            await stream.send(
                frames.ConsumeHello(pchannel=P, term=term, incarnation=member.node.incarnation)
            )
            start = Start(form=StartForm.EARLIEST)
            if self.next is not None:
                start = Start(
                    form=StartForm.POSITION, value=self.next.seq, index=self.next.index,
                    low=self.next.low, term=self.next.term,
                )  # fmt: skip
            await stream.send(
                frames.Subscribe(consumer=1, vcid=VCID, start=start, credit_bytes=self.credit)
            )
            while self.storm.look() == (member, term) and len(self.got) < self.wants:
                frame = await self._frame(stream)
                if frame is None or isinstance(frame, frames.Moved):
                    return
                if isinstance(frame, frames.ConsumerRefused):
                    assert frame.refusal.kind in AGAIN, frame
                    return
                if isinstance(frame, frames.Data):
                    self._take(frame)
                    await stream.send(frames.Credit(consumer=1, size_bytes=frame.cost_bytes))
                elif isinstance(frame, frames.Progress):
                    self._progress(frame)
        finally:
            stream.cut()

    async def _frame(self, stream: Any) -> Any:
        async with asyncio.timeout(10):
            return await stream.receive()

    def _take(self, data: frames.Data) -> None:
        for i, payload in enumerate(data.messages.payloads):
            position = Position(
                data.seqs[i], data.indexes[i] if data.indexes else 0, data.ticks[i], data.low,
                data.term,
            )  # fmt: skip
            assert self.next is None or position >= self.next, (position, self.next)
            if self.got:
                assert position > self.got[-1].position
                assert position.tick >= self.got[-1].position.tick
            self.got.append(Got(payload, position))
            self.next = position.after()

    def _progress(self, progress: frames.Progress) -> None:
        if self.next is None or progress.position > self.next:
            self.next = progress.position
        if self.got:
            assert progress.tick >= self.got[-1].position.tick


def check(error: Refused) -> None:
    """Only what heals by itself."""
    assert error.refusal.kind in AGAIN, error.refusal


def wanted_of(producer: StubbornProducer) -> list[bytes]:
    """Payloads of all its messages that must be delivered, in order."""
    if not producer.with_txns:
        return [f"{producer.name}:{n}".encode() for n in range(producer.count)]
    return [f"{producer.name}:{n}".encode() for n in range(producer.count) if (n // 3) % 3 != 2]
