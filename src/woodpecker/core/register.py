"""The register: a small deterministic fold over blocks (log protocol, section 9).

It knows whether the log has ended and what each producer session wrote last. The manifest keeps its
value at the end of the last closed segment (the checkpoint); a take-over folds the blocks after it
up to E. Property: the fold of any prefix of blocks equals the checkpoint taken at that cut, however
the blocks were grouped into segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

KEPT_RESULTS = 16  # newest batches per producer whose results are kept for repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """Result of one producer batch: its sequence, the seq of its first entry, its entry count."""

    sequence: int
    seq: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerState:
    """One producer session: granted epoch, newest results (oldest first), time of the last batch."""

    epoch: int
    last_sequence: int = -1
    results: tuple[BatchResult, ...] = ()
    timestamp_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Value of the fold at one position of the log."""

    ended: bool = False
    producers: tuple[tuple[str, ProducerState], ...] = ()  # sorted by producer id

    def producer(self, producer_id: str) -> ProducerState | None:
        """State of one producer, or None if it was never granted or has been dropped."""
        return dict(self.producers).get(producer_id)


EMPTY_REGISTER = Register()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLog:
    """Control: nothing follows this block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantProducer:
    """Control: producer ``id`` may write under ``epoch``; older epochs are refused from here on."""

    id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DropProducer:
    """Control: producer ``id`` is forgotten (expired, or evicted by the caller's rule)."""

    id: str


Control = EndLog | GrantProducer | DropProducer


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerBatch:
    """One producer batch inside a block, as the fold sees it."""

    id: str
    epoch: int
    sequence: int
    seq: int
    count: int
    timestamp_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts:
    """What one block contributes: its controls first, then its producer batches, in order."""

    controls: tuple[Control, ...] = ()
    batches: tuple[ProducerBatch, ...] = ()


def fold(register: Register, blocks: Iterable[BlockFacts]) -> Register:
    """Return the register after ``blocks``, in log order."""
    ended = register.ended
    producers = dict(register.producers)
    for facts in blocks:
        for control in facts.controls:
            ended = _apply_control(producers, control) or ended
        for batch in facts.batches:
            _apply_batch(producers, batch)
    return Register(ended=ended, producers=tuple(sorted(producers.items())))


def _apply_control(producers: dict[str, ProducerState], control: Control) -> bool:
    """Apply one control; return True if it ends the log."""
    match control:
        case EndLog():
            return True
        case GrantProducer(id=producer_id, epoch=epoch):
            known = producers.get(producer_id, ProducerState(epoch=epoch))
            # the sequence goes on: a batch sent under the old epoch and sent again is still a repeat
            producers[producer_id] = replace(known, epoch=max(epoch, known.epoch))
        case DropProducer(id=producer_id):
            producers.pop(producer_id, None)
    return False


def _apply_batch(producers: dict[str, ProducerState], batch: ProducerBatch) -> None:
    known = producers.get(batch.id)
    if known is None:
        known = ProducerState(epoch=batch.epoch)
    result = BatchResult(sequence=batch.sequence, seq=batch.seq, count=batch.count)
    producers[batch.id] = replace(
        known,
        epoch=max(known.epoch, batch.epoch),
        last_sequence=batch.sequence,
        results=(*known.results, result)[-KEPT_RESULTS:],
        timestamp_us=batch.timestamp_us,
    )
