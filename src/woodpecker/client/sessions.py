"""Producer sessions of one writer: what is admitted, pending and settled (log protocol, section 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from woodpecker.core.batcher import BatchMark
from woodpecker.core.producers import Fresh, Rejected, Repeat, admit, evictable
from woodpecker.core.register import (
    KEPT_RESULTS,
    BatchResult,
    BlockFacts,
    Control,
    DropProducer,
    GrantProducer,
    ProducerState,
    Register,
    fold,
)
from woodpecker.errors import Conflict, InvalidRequest

MAX_PRODUCER_ID_BYTES = 200


class Sessions:
    """Judges batches against all that was admitted; folds what was acknowledged."""

    def __init__(self, register: Register, limit: int) -> None:
        self._limit = limit
        self._settled = register
        self._admitted = dict(register.producers)
        self._pending: dict[tuple[str, int], asyncio.Future[Any]] = {}

    def admit(
        self, mark: BatchMark, seq: int, future: asyncio.Future[Any]
    ) -> asyncio.Future[Any] | None:
        """None: write the batch at ``seq``, ``future`` is its result. Else the first one's result.

        Raises: Conflict: a gap, an older epoch, an unknown producer, or a repeat too old to know.
        """
        known = self._admitted.get(mark.producer)
        verdict = admit(
            known,
            producer=mark.producer,
            epoch=mark.producer_epoch,
            sequence=mark.sequence,
        )
        match verdict:
            case Rejected(reason=reason):
                raise Conflict(reason, actual=None if known is None else known.last_sequence + 1)
            case Repeat(result=result):
                first = self._pending.get((mark.producer, mark.sequence))
                if first is not None:
                    return asyncio.shield(first)
                future.set_result(range(result.seq, result.seq + result.count))
                return future
            case Fresh():
                assert known is not None
                result = BatchResult(sequence=mark.sequence, seq=seq, count=mark.count)
                self._admitted[mark.producer] = replace(
                    known,
                    last_sequence=mark.sequence,
                    results=(*known.results, result)[-KEPT_RESULTS:],
                )
                self._pending[mark.producer, mark.sequence] = future
                return None

    def withdraw(self, mark: BatchMark) -> None:
        """The batch just admitted was refused before it got its seq."""
        known = self._admitted[mark.producer]
        self._admitted[mark.producer] = replace(
            known, last_sequence=mark.sequence - 1, results=known.results[:-1]
        )
        self._pending.pop((mark.producer, mark.sequence), None)

    def acknowledged(self, marks: Iterable[BatchMark], facts: BlockFacts | None) -> None:
        """A block is durable: its batches are final."""
        for mark in marks:
            self._pending.pop((mark.producer, mark.sequence), None)
        if facts is not None:
            self._settled = fold(self._settled, [facts])

    def settled(self) -> Register:
        """The register at the end of all that is acknowledged."""
        return self._settled

    def grant(self, producer: str) -> list[Control]:
        """Controls to write, each durable before the next: perhaps a drop, then the grant."""
        if not producer or len(producer.encode()) > MAX_PRODUCER_ID_BYTES:
            raise InvalidRequest(
                f"producer id {producer!r}: 1 to {MAX_PRODUCER_ID_BYTES} bytes of UTF-8"
            )
        controls: list[Control] = []
        known = self._admitted.get(producer)
        if known is None:
            oldest = evictable(self._admitted, limit=self._limit)
            if oldest is not None:
                controls.append(self.drop(oldest))
            known = ProducerState(epoch=-1)
        self._admitted[producer] = replace(known, epoch=known.epoch + 1)
        controls.append(GrantProducer(id=producer, epoch=known.epoch + 1))
        return controls

    def drop(self, producer: str) -> Control:
        """Control that forgets a producer; its batches are refused from here on."""
        self._admitted.pop(producer, None)
        return DropProducer(id=producer)

    def epoch_of(self, producer: str) -> int:
        """The epoch granted last."""
        return self._admitted[producer].epoch

    def next_sequence_of(self, producer: str) -> int:
        """The sequence after the newest batch admitted."""
        return self._admitted[producer].last_sequence + 1
