"""Worlds of kind ``file`` in which the rules hold, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.core import file_rules
from woodpecker.core.file_rules import Act, Step
from woodpecker.testing.model import cases
from woodpecker.testing.model.file.model import RULES, FileModel, Setup


def _world(setup: Setup) -> cases.World:
    return cases.World(name=str(setup), make=partial(FileModel, setup))


def _mutant(name: str, setup: Setup, review: str = "-", /, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(FileModel, setup, changed), review=review)


def _order(*steps: Step) -> dict[str, object]:
    """Rules by which a block is written in another order."""
    following = dict(zip(steps, [*steps[1:], Step.ACKNOWLEDGED], strict=True))

    def after(step: Step, *, ok: bool) -> Step:
        return following[step] if ok else file_rules.after(step, ok=False)

    return {"first_step": steps[0], "after": after}


def scans_before_it_fences(**facts: bool) -> tuple[Act, ...] | None:
    """A taker-over scans, and sets the fence word then."""
    plan = file_rules.takeover_plan(**facts)
    if plan is None or Act.FENCE not in plan:
        return plan
    return (Act.SCAN, Act.FENCE, Act.BARRIER, Act.SYNC)


def trusts_the_lock(**facts: bool) -> tuple[Act, ...] | None:
    """Who has the lock needs no fence: but a parked writer comes back."""
    if facts["is_locked"]:
        return (Act.SCAN, Act.SYNC)
    return file_rules.takeover_plan(**facts)


def needs_no_side_file(**facts: bool) -> tuple[Act, ...] | None:
    """A missing side file is no reason to stop."""
    return file_rules.takeover_plan(**facts) or (Act.SCAN, Act.SYNC)


def does_not_sync(**facts: bool) -> tuple[Act, ...] | None:
    """What was read is taken for being on the disk."""
    plan = file_rules.takeover_plan(**facts)
    return plan and tuple(act for act in plan if act is not Act.SYNC)


WORLDS = (
    _world(Setup(blocks=3, takers=2)),
    _world(Setup(blocks=2, takers=2, parks=True, side_file_lost=True)),
    _world(Setup(blocks=2, takers=2, parks=True, failures=1, power_cuts=1)),
    _world(Setup(blocks=2, takers=2, parks=True, damages=1)),
    _world(Setup(blocks=3, takers=2, parks=True, failures=2, power_cuts=1, side_file_lost=True)),
)

ONE = Setup(blocks=1, takers=1)
PARK = Setup(blocks=2, takers=1, parks=True)

MUTANTS = (
    _mutant(
        "the fence is looked at before the write",
        ONE,
        "37 states",
        **_order(Step.LOOK, Step.WRITE, Step.SYNC, Step.PUBLISH),
    ),
    _mutant("the fence is not looked at", ONE, **_order(Step.WRITE, Step.SYNC, Step.PUBLISH)),
    _mutant(
        "published before it is synced",
        replace(ONE, power_cuts=1),
        **_order(Step.WRITE, Step.LOOK, Step.PUBLISH, Step.SYNC),
    ),
    _mutant("a taker scans before it fences", ONE, takeover_plan=scans_before_it_fences),
    _mutant("who has the lock does not fence", PARK, takeover_plan=trusts_the_lock),
    _mutant(
        "a missing side file does not stop a taker",
        replace(ONE, side_file_lost=True),
        takeover_plan=needs_no_side_file,
    ),
    _mutant("a taker does not sync", ONE, takeover_plan=does_not_sync),
    _mutant("a scan trusts the page cache", replace(ONE, failures=1), scans_page_cache=True),
    _mutant("a failed sync is tried again", replace(ONE, failures=1), retries_sync=True),
    _mutant(
        "sealed in place under a stopped writer",
        Setup(blocks=2, takers=1),
        "23 states",
        seals_in_place_without_lock=True,
    ),
    _mutant(
        "what was published may be cut",
        replace(ONE, damages=1),
        cuts_published=lambda *_: False,
    ),
    _mutant(
        "a parked writer does not look at the fence when it returns",
        PARK,
        looks_when_it_returns=("file", "lock", "side file"),
    ),
    _mutant(
        "a parked writer returns without the lock",
        PARK,
        looks_when_it_returns=("file", "side file", "fence"),
    ),
)

FILE = cases.Part(name="file", worlds=WORLDS, mutants=MUTANTS)
