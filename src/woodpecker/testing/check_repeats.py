"""Batches of producers that were sent more than once: all attempts together are one operation.

A producer sends a batch again under the same sequence until it hears of it, through whichever writer
there is then. Exactly one of the attempts may write it; every answer names its one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from woodpecker.testing.history import Operation
from woodpecker.testing.violation import Violation, broken


def merged(
    appends: Sequence[Operation], opened: Mapping[int, int], seq_of: Mapping[str, int]
) -> tuple[list[Operation], list[Violation]]:
    """One operation per batch, and what is wrong between its attempts.

    Args:
        opened: by epoch, the seq at which its writer began. seq_of: where entries are in the log.
    """
    single: list[Operation] = []
    repeated: dict[tuple[str, int], list[Operation]] = {}
    for op in appends:
        if op.call.sequence is None:
            single.append(op)
        else:
            repeated.setdefault((op.call.name, op.call.sequence), []).append(op)
    found: list[Violation] = []
    for attempts in repeated.values():
        found += _check(attempts)
        found += _check_refusals(attempts, repeated)
        single.append(_one(attempts, opened, seq_of))
    return single, found


def _check(attempts: Sequence[Operation]) -> Iterator[Violation]:
    first = attempts[0]
    for op in attempts[1:]:
        if op.call.items != first.call.items:
            yield broken(
                "I1", f"{op} is the batch of {first} with other entries: a fault of the test"
            )
    told = {op.value for op in attempts if op.is_ok}
    if len(told) > 1:
        yield broken("I1", f"{first} was sent again and answered with several seqs: {sorted(told)}")


def _check_refusals(
    attempts: Sequence[Operation], batches: Mapping[tuple[str, int], Sequence[Operation]]
) -> Iterator[Violation]:
    """A refusal names the sequence that would have been right, as far as that writer can know.

    One that was replaced while he slept knows less than the log holds, and may call a gap what is none.
    """
    for op in attempts:
        result, sequence = op.result, op.call.sequence
        if result is None or result.error != "conflict" or result.value is None:
            continue
        if result.value == sequence:
            yield broken("order", f"{op} was refused although it was due")
        for other in batches.get((op.call.name, result.value), ()):
            if other.call.epoch <= op.call.epoch and other.ok_ns < op.call.at_ns:
                yield broken("order", f"{op} was told that {result.value} is due: {other} was it")


def _one(
    attempts: Sequence[Operation], opened: Mapping[int, int], seq_of: Mapping[str, int]
) -> Operation:
    seq = seq_of.get(attempts[0].call.items[0].uid)
    epoch = max(op.call.epoch for op in attempts)
    if seq is not None:  # the writer that could have put it there
        able = [op.call.epoch for op in attempts if opened.get(op.call.epoch, seq + 1) <= seq]
        epoch = max(able, default=epoch)
    call = min((op.call for op in attempts if op.call.epoch == epoch), key=lambda c: c.at_ns)
    told = [op.result for op in attempts if op.result is not None and op.is_ok]
    if told:
        result = min(told, key=lambda r: r.at_ns)
        return Operation(
            call=call, result=replace(result, process=call.process, number=call.number)
        )
    if any(op.outcome == "unknown" for op in attempts):
        return Operation(call=call, result=None)
    return Operation(call=call, result=attempts[-1].result)
