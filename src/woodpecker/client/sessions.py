"""Producer sessions of one writer: what is admitted, pending and settled (log protocol, section 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from woodpecker.core.batcher import BatchMark
from woodpecker.core.producers import Fresh, Rejected, Repeat, admit, evictable
from woodpecker.core.register import (
    KEPT_RESULTS,
    BatchResult,
    BlockFacts,
    Control,
    DropProducer,
    EndLog,
    GrantProducer,
    ProducerState,
    Register,
    fold,
)
from woodpecker.errors import Conflict, InvalidRequest

MAX_PRODUCER_ID_BYTES = 200

Result = int | range


class Sessions:
    """Judges batches against all that was admitted; folds what was acknowledged."""

    def __init__(self, register: Register, limit: int) -> None:
        self.limit = limit
        self._settled = register
        # admitted, durable or not; whoever was idle longest comes first
        self._admitted = dict(sorted(register.producers, key=lambda item: item[1].timestamp_us))
        self._pending: dict[tuple[str, int], asyncio.Future[Result]] = {}

    def repeat_of(self, mark: BatchMark) -> asyncio.Future[Result] | range | None:
        """The first one's result, perhaps yet to come, if the batch is a repeat; None: write it.

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
                return first or range(result.seq, result.seq + result.count)
            case Fresh():
                return None

    def accept(self, mark: BatchMark, seq: int, future: asyncio.Future[Result]) -> None:
        """The batch got its seqs, from ``seq`` on; ``future`` is its result, which nobody may cancel."""
        known = self._admitted.pop(mark.producer)  # to be put back as the last one used
        result = BatchResult(sequence=mark.sequence, seq=seq, count=mark.count)
        self._admitted[mark.producer] = replace(
            known,
            last_sequence=mark.sequence,
            results=(*known.results, result)[-KEPT_RESULTS:],
        )
        self._pending[mark.producer, mark.sequence] = future

    def acknowledged(self, marks: Iterable[BatchMark], facts: BlockFacts) -> None:
        """A block is durable and its futures are resolved: its batches are final."""
        for mark in marks:
            key = (mark.producer, mark.sequence)
            first = self._pending.get(key)
            if first is not None and first.done():  # else a batch of a later session of that name
                del self._pending[key]
        self._settled = fold(self._settled, [facts])

    def rewind(self, in_flight: Iterable[BlockFacts]) -> None:
        """What waited was refused: only what is settled or in flight was admitted."""
        admitted = dict(fold(self._settled, in_flight).producers)
        order = [*(known for known in self._admitted if known in admitted), *admitted]
        self._admitted = {producer: admitted[producer] for producer in order}
        self._pending = {key: first for key, first in self._pending.items() if not first.done()}

    def settled(self) -> Register:
        """The register at the end of all that is acknowledged."""
        return self._settled

    # --- granting ---

    def grant(self, producer: str) -> tuple[list[Control], int]:
        """Controls to write, perhaps drops and then the grant, and the epoch that it grants."""
        if (
            not isinstance(producer, str)
            or not 1 <= len(producer.encode()) <= MAX_PRODUCER_ID_BYTES
        ):
            raise InvalidRequest(
                f"producer id {producer!r}: 1 to {MAX_PRODUCER_ID_BYTES} bytes of UTF-8"
            )
        controls: list[Control] = []
        known = self._admitted.get(producer)
        if known is None:
            drops = evictable(list(self._admitted), limit=self.limit)
            controls.extend(DropProducer(id=idle) for idle in drops)
            known = ProducerState(epoch=-1)
        controls.append(GrantProducer(id=producer, epoch=known.epoch + 1))
        return controls, known.epoch + 1

    def sent(self, control: Control) -> None:
        """A control has its place in the log's order: what comes after it is judged by it."""
        match control:
            case GrantProducer(id=producer, epoch=epoch):
                known = self._admitted.pop(producer, ProducerState(epoch=epoch))
                self._admitted[producer] = replace(known, epoch=epoch)
            case DropProducer(id=producer):
                self._admitted.pop(producer, None)
            case EndLog():
                pass

    def next_sequence_of(self, producer: str) -> int:
        """The sequence after the newest batch admitted. Raises: Conflict: forgotten."""
        known = self._admitted.get(producer)
        if known is None:
            raise Conflict(f"producer {producer!r} was forgotten: open it anew")
        return known.last_sequence + 1
