"""The rules that drivers must keep around the core's functions; a mutant replaces one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from woodpecker.streaming.core.admission import (
    Admit,
    Asked,
    Pressure,
    Refuse,
    Repeat,
    judge,
)
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.settings import DEFAULTS

Claim = tuple[int, int, int]
Verdict = Admit | Repeat | Refuse


def judged(fold: Fold, asked: Asked, tick: int) -> Verdict:
    """The core's own judgement."""
    return judge(fold, asked, tick=tick, pressure=Pressure(), settings=DEFAULTS)


def claim_allows(standing: Claim | None, new: Claim) -> bool:
    """As the log's manifest: a claim never falls, nor passes to another holder at the same term."""
    return standing is None or new[0] > standing[0] or new == standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All of them."""

    new_fold: Callable[[], Fold] = Fold
    judge: Callable[[Fold, Asked, int], Verdict] = judged
    claim_allows: Callable[[Claim | None, Claim], bool] = claim_allows
    reads_record: bool = True
    folds_again: bool = True  # a new life under the same term uses nothing of the old one
    answers_when_acked: bool = True
    refuses_when_acked: bool = True
    in_one_step: bool = True  # judge, sequence, fold, submit
    oldest_first: bool = True
    unknown_stays: bool = True  # whatever a later sending is refused with
    ends_after_cut: bool = True  # a sequence that was cut and then refused is not used again
    refuses_when_owner: bool = True  # what is surfaced was refused by the owner of that moment
    terms_never_fall: bool = True  # along the streams of one client
    proves_ownership: bool = True  # before a read point is told
    by_vcid: bool = True
    readers_expire: bool = False


RULES = Rules()
