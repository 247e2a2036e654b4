"""The linear judge against a dumb one that tries every order of a few operations."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.testing.checkers import Final, check
from woodpecker.testing.history import Call, History, Item, Operation, Return

OPENED = Operation(
    call=Call(process="w", number=0, kind="open", at_ns=0),
    result=Return(process="w", number=0, at_ns=1, outcome="ok", value=0, epoch=1),
)


@dataclass(frozen=True)
class Op:
    """One append of one process: when, what, what it was told."""

    name: str
    size: int
    begin: int
    end: int
    outcome: str
    value: int
    expect: int | None

    @property
    def uids(self) -> list[str]:
        return [f"{self.name}{n}" for n in range(self.size)]

    def operation(self, number: int) -> Operation:
        call = Call(
            process="w", number=number, kind="append", at_ns=self.begin, epoch=1,
            items=tuple(Item(uid=uid, sum=0) for uid in self.uids), expect=self.expect,
        )  # fmt: skip
        value = self.value if self.outcome == "ok" else None
        result = Return(
            process="w", number=number, at_ns=self.end, outcome=self.outcome, value=value
        )
        return Operation(call=call, result=result)


def is_linearizable(ops: list[Op], log: list[str]) -> bool:
    """Some order that agrees with real time and with all answers gives exactly this log."""
    unknown = [op.name for op in ops if op.outcome == "unknown"]
    for order in permutations(ops):
        if not _agrees_with_time(order):
            continue
        for applied in product((False, True), repeat=len(unknown)):
            if _outcome(order, dict(zip(unknown, applied, strict=True))) == log:
                return True
    return False


def _agrees_with_time(order: tuple[Op, ...]) -> bool:
    # an unknown one may take effect at any later time; one without effect has no place in the order
    told = [op for op in order if op.outcome in ("ok", "unknown")]
    return not any(
        later.outcome == "ok" and later.end < earlier.begin
        for at, earlier in enumerate(told)
        for later in told[at + 1 :]
    )


def _outcome(order: tuple[Op, ...], applied: dict[str, bool]) -> list[str] | None:
    log: list[str] = []
    for op in order:
        if op.outcome == "ok" and (op.value != len(log) or op.expect not in (None, len(log))):
            return None
        if op.outcome == "ok" or applied.get(op.name):
            if op.expect not in (None, len(log)):
                return None
            log += op.uids
    return log


def draw(seed: int) -> tuple[list[Op], list[str]]:
    """A right history of up to five appends, and then perhaps something wrong with it."""
    rng = random.Random(seed)
    log: list[str] = []
    ops = []
    for number in range(rng.randint(1, 5)):
        outcome = rng.choice(("ok", "ok", "ok", "unknown", "not_written", "refused"))
        at = 10 + 10 * number
        op = Op(
            name="abcde"[number],
            size=rng.randint(1, 2),
            begin=at - rng.randint(1, 25),
            end=at + rng.randint(1, 25),
            outcome=outcome,
            value=len(log),
            expect=len(log) if rng.random() < 0.3 else None,
        )
        ops.append(op)
        if outcome == "ok" or (outcome == "unknown" and rng.random() < 0.5):
            log += op.uids
    return _spoil(rng, ops, log)


def _spoil(rng: random.Random, ops: list[Op], log: list[str]) -> tuple[list[Op], list[str]]:
    at = rng.randrange(len(ops))
    op = ops[at]
    match rng.randrange(8):
        case 0:
            ops[at] = replace(op, value=max(0, op.value + rng.choice((-1, 1))))
        case 1:
            ops[at] = replace(op, expect=rng.randrange(4))
        case 2:
            ops[at] = replace(op, outcome=rng.choice(("ok", "unknown", "not_written")))
        case 3:
            ops[at] = replace(op, begin=op.begin + rng.randint(-40, 40))
        case 4 if len(log) > 1:
            first, second = rng.sample(range(len(log)), 2)
            log[first], log[second] = log[second], log[first]
        case 5 if log:
            del log[rng.randrange(len(log))]
    ops[at] = replace(ops[at], end=max(ops[at].end, ops[at].begin + 1))
    return ops, log


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 1 << 40))
def test_both_judges_agree(seed: int) -> None:
    ops, log = draw(seed)
    history = History(operations=[OPENED, *(op.operation(n) for n, op in enumerate(ops, 1))])
    final = Final(first=0, items=tuple(Item(uid=uid, sum=0) for uid in log))
    expected = is_linearizable(ops, log)
    assert (check(history, final) == []) is expected


def test_histories_of_both_verdicts_are_drawn() -> None:
    verdicts = [is_linearizable(*draw(seed)) for seed in range(200)]
    assert 50 < sum(verdicts) < 150
