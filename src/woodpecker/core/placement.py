"""Which nodes hold the next segment: weighted by load, spread over zones and groups, never twice the same.

Pure and deterministic: chance comes in as numbers. In order of importance, most important first:

1. **Standing.** Nodes that just failed, that are being drained or are full are taken only if fewer than
   two better ones exist (so a drain comes to its end, and two of two go on where a third is in doubt).
   Nodes that are out (silent, stopped, drained) never.
2. **Number.** As many as the log asks for, else 3, else 2.
3. **Place.** ``placement_zones`` and ``placement_groups`` first, then the strategy, zones before groups:
   ``multi``: as few members as possible share a zone (group); ``single``: as few zones (groups) as possible;
   ``random``: no matter. ``affinity`` *soft* stops at the best there is. *Hard* insists: nodes of the
   listed places only; ``single`` is one; ``multi``: no zone holds more than N - A members (one, for two of
   two), so that losing a whole zone stops nothing and loses nothing.
4. **Load.** Nodes above their soft watermark only where the place needs them. Among what is left, chance,
   weighted: who holds twice as much is chosen far less often.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from itertools import combinations

from woodpecker.core.manifest import Options
from woodpecker.core.quorum import ack_quorum

SOFT_HARD = ("soft", "hard")
LEAST_MEMBERS = 2
SEGMENT_COST_BYTES = 1 << 20  # an idle segment is work as well: it must be sealed one day
SEARCHED_PLACES = 8  # zones or groups combined where one of them is not enough: 70 ways at most
SCALE_BYTES = 256 << 20  # differences far below this do not matter


class Wish(Enum):
    """What a strategy asks for in one dimension (zones, or groups)."""

    ANY = 0
    SINGLE = -1
    MULTI = 1


_WISHES = {
    "random": (Wish.ANY, Wish.ANY),
    "single-az-single-rg": (Wish.SINGLE, Wish.SINGLE),
    "single-az-multi-rg": (Wish.SINGLE, Wish.MULTI),
    "multi-az-single-rg": (Wish.MULTI, Wish.SINGLE),
    "multi-az-multi-rg": (Wish.MULTI, Wish.MULTI),
}
STRATEGIES = tuple(_WISHES)
"""``az`` is the zone of a node, ``rg`` its resource group."""


class Standing(IntEnum):
    """How a node may be used; lower is better."""

    FINE = 0
    AVOIDED = 1  # it failed lately
    DRAINING = 2
    FULL = 3  # above its hard watermark: it refuses blocks until it has room
    OUT = 4  # silent, stopped, drained: cannot be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node as placement sees it; ``why`` says what is wrong with it, for people."""

    node: str
    incarnation: str = ""
    zone: str = ""
    group: str = ""
    standing: Standing = Standing.FINE
    pressure: int = 0  # as in Appended
    unsealed_bytes: int = 0
    unsealed_segments: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a log asks for."""

    replicas: int = 3
    strategy: str = "multi-az-multi-rg"
    is_hard: bool = False
    zones: frozenset[str] = frozenset()  # empty: any
    groups: frozenset[str] = frozenset()

    def lists(self, candidate: Candidate) -> bool:
        """Whether the candidate lies where the log wants to be."""
        return (not self.zones or candidate.zone in self.zones) and (
            not self.groups or candidate.group in self.groups
        )

    @property
    def text(self) -> str:
        """For messages."""
        places = [
            f"{what} {', '.join(sorted(names))}"
            for what, names in (("zones", self.zones), ("groups", self.groups))
            if names
        ]
        hardness = "hard" if self.is_hard else "soft"
        return " of ".join([f"placement {self.strategy}, affinity {hardness}", *places])


def rule_of(options: Options) -> Rule:
    """The rule in a log's options."""
    return Rule(
        replicas=options.replicas,
        strategy=options.placement,
        is_hard=options.affinity == "hard",
        zones=_listed(options.placement_zones),
        groups=_listed(options.placement_groups),
    )


def _listed(names: str | None) -> frozenset[str]:
    return frozenset(names.split(",")) if names else frozenset()


def contradiction(options: Options) -> str | None:
    """Why these options can never be kept together, or None."""
    rule = rule_of(options)
    if not rule.is_hard:
        return None
    if rule.strategy == "random" and not rule.zones and not rule.groups:
        return (
            "affinity='hard' with placement='random' asks for nothing: choose another placement, or "
            "list placement_zones or placement_groups"
        )
    most = _safe_share(rule.replicas)
    needed = -(-rule.replicas // most)
    for wish, names, option in zip(
        _WISHES[rule.strategy],
        (rule.zones, rule.groups),
        ("placement_zones", "placement_groups"),
        strict=True,
    ):
        if wish is Wish.MULTI and names and len(names) < needed:
            return (
                f"replicas={rule.replicas} with placement={rule.strategy!r} and affinity='hard' needs "
                f"{needed} {option} or more, not {len(names)}: list more, or use affinity='soft'"
            )
    return None


# --- choosing ----------------------------------------------------------------------------------------


def choose(
    candidates: Sequence[Candidate], rule: Rule, chances: Sequence[float]
) -> tuple[Candidate, ...] | str:
    """Members for the next segment: ``rule.replicas``, or 3, or 2; else why there is no way.

    Args:
        candidates: all nodes known, each once, in any fixed order.
        chances: a number in [0, 1) for each candidate, drawn by the caller.
    """
    ranked = _ranked(candidates, chances)
    for limit in (Standing.FINE, Standing.AVOIDED, Standing.DRAINING, Standing.FULL):
        usable = [c for c in ranked if c.standing <= limit]
        for size in _sizes(rule.replicas, len(usable)):
            chosen = _placed(usable, size, rule)
            if chosen is not None:
                return chosen
    return _refusal(candidates, rule)


def is_better_known(
    candidates: Sequence[Candidate], rule: Rule, members: Sequence[tuple[str, str]]
) -> bool:
    """Whether a segment on ``members`` (node, incarnation) had better be closed and go on elsewhere.

    True if more members can be had; if one is draining and can be done without; if one takes no blocks or
    is above its soft watermark, and as many others can be had that are fine. Never true of what
    ``choose`` has just chosen, whatever the chances were.
    """
    known = {(c.node, c.incarnation): c for c in candidates}
    now = [known.get(member, Candidate(node="", standing=Standing.OUT)) for member in members]
    if len(now) >= rule.replicas and all(
        c.standing is Standing.FINE and not c.pressure for c in now
    ):
        return False  # as it is nearly always: asked often, by every open segment
    stay = [0.0 if (c.node, c.incarnation) in members else 0.5 for c in candidates]
    best = choose(candidates, rule, stay)
    if isinstance(best, str):
        return False
    worst, best_worst = (max(c.standing for c in chosen) for chosen in (now, best))
    if any(c.standing is Standing.DRAINING for c in now) and best_worst < Standing.DRAINING:
        return True
    if len(best) != len(now):
        return len(best) > len(now) and best_worst <= worst
    if best_worst != worst:
        return best_worst < worst
    return worst is Standing.FINE and _pressed(best) < _pressed(now)


def _pressed(members: Sequence[Candidate]) -> int:
    return sum(c.pressure > 0 for c in members)


def _sizes(replicas: int, available: int) -> list[int]:
    """Numbers of members to try, best first."""
    return [size for size in (5, 3, 2) if size <= min(replicas, available)]


def _safe_share(size: int) -> int:
    """How many members of ``size`` may fail together without anything stopping or getting lost."""
    return max(1, size - ack_quorum(size))


def _ranked(candidates: Sequence[Candidate], chances: Sequence[float]) -> list[Candidate]:
    """In a random order that prefers those with little to do: a weighted draw without replacement."""
    assert len({c.node for c in candidates}) == len(candidates) == len(chances)
    costs = [c.unsealed_bytes + c.unsealed_segments * SEGMENT_COST_BYTES for c in candidates]
    scale = max(sum(costs) / max(1, len(costs)), SCALE_BYTES)
    keys: list[tuple[float, int]] = []
    for index, (cost, chance) in enumerate(zip(costs, chances, strict=True)):
        keys.append((-math.log1p(-chance) * (1 + cost / scale) ** 2, index))
    return [candidates[index] for _, index in sorted(keys)]


def _placed(ranked: Sequence[Candidate], size: int, rule: Rule) -> tuple[Candidate, ...] | None:
    """The best place for ``size`` members, or None."""
    pools = [[c for c in ranked if rule.lists(c)]]
    if not rule.is_hard and len(pools[0]) < len(ranked):
        pools.append(list(ranked))
    zone_wish, group_wish = _WISHES[rule.strategy]
    for pool in pools:
        for zone_level in _levels(zone_wish, size, is_hard=rule.is_hard):
            for group_level in _levels(group_wish, size, is_hard=rule.is_hard):
                for part in _parts(pool, size, zone_level, group_level):
                    chosen = _fill(part, size, zone_level, group_level, rule)
                    if chosen is not None:
                        return chosen
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """How well a wish is granted: at most ``most`` members alike, of ``few`` zones or groups in all."""

    wish: Wish
    most: int
    few: int = 0


def _levels(wish: Wish, size: int, *, is_hard: bool) -> list[_Level]:
    """The best first; hard stops where the promise ends."""
    if wish is Wish.MULTI:
        last = _safe_share(size) if is_hard else size
        return [_Level(wish=wish, most=most) for most in range(1, last + 1)]
    if wish is Wish.ANY:
        return [_Level(wish=wish, most=size)]
    last = 1 if is_hard else size
    return [_Level(wish=wish, most=size, few=few) for few in range(1, last + 1)]


def _parts(
    pool: Sequence[Candidate], size: int, zones: _Level, groups: _Level
) -> Iterator[Sequence[Candidate]]:
    """Parts of the pool to choose within, where a wish says ``single``."""
    for of_zones in _of_one(pool, size, zones, "zone"):
        yield from _of_one(of_zones, size, groups, "group")


def _of_one(
    pool: Sequence[Candidate], size: int, level: _Level, what: str
) -> Iterator[Sequence[Candidate]]:
    """By zone or group: one at a time in order of rank, or few together, the fullest first."""
    if level.wish is not Wish.SINGLE:
        yield pool
        return
    counts = Counter(getattr(c, what) for c in pool)  # in order of rank
    fullest = [name for name, _ in counts.most_common(SEARCHED_PLACES)]
    names = list(counts) if level.few == 1 else fullest
    for taken in combinations(names, level.few):
        part = [c for c in pool if getattr(c, what) in taken]
        if len(part) >= size:
            yield part


def _fill(
    pool: Sequence[Candidate], size: int, zones: _Level, groups: _Level, rule: Rule
) -> tuple[Candidate, ...] | None:
    """``size`` members within the levels, or None; each pick leaves a way to complete the rest."""
    chosen: list[Candidate] = []
    if not _completes(chosen, pool, size, zones.most, groups.most):
        return None
    while len(chosen) < size:
        in_zone = Counter(c.zone for c in chosen)
        in_group = Counter(c.group for c in chosen)
        left = [(index, c) for index, c in enumerate(pool) if c not in chosen]

        def order(
            item: tuple[int, Candidate],
            in_zone: Counter[str] = in_zone,
            in_group: Counter[str] = in_group,
        ) -> tuple[int, bool, bool, int, int, int]:
            index, c = item
            used = (zones.wish.value * in_zone[c.zone], groups.wish.value * in_group[c.group])
            return c.standing, not rule.lists(c), c.pressure > 0, *used, index

        for _, candidate in sorted(left, key=order):
            if _completes([*chosen, candidate], pool, size, zones.most, groups.most):
                chosen.append(candidate)
                break
        else:
            raise AssertionError("what can be completed has a next member")
    return tuple(chosen)


def _completes(
    chosen: Sequence[Candidate], pool: Sequence[Candidate], size: int, per_zone: int, per_group: int
) -> bool:
    """Whether ``chosen`` keeps within the limits and can be filled up to ``size``.

    A flow from zones to groups, a unit for each member: it is augmented until it is large enough.
    """
    zones = Counter(c.zone for c in chosen)
    groups = Counter(c.group for c in chosen)
    if max(zones.values(), default=0) > per_zone or max(groups.values(), default=0) > per_group:
        return False
    free = Counter((c.zone, c.group) for c in pool if c not in chosen)
    used: Counter[tuple[str, str]] = Counter()
    for _ in range(size - len(chosen)):
        path = _path(free, used, zones, groups, per_zone, per_group)
        if path is None:
            return False
        zones[path[0][0]] += 1
        groups[path[-1][1]] += 1
        for step, cell in enumerate(path):
            used[cell] += -1 if step % 2 else 1
    return True


def _path(
    free: Counter[tuple[str, str]],
    used: Counter[tuple[str, str]],
    zones: Counter[str],
    groups: Counter[str],
    per_zone: int,
    per_group: int,
) -> list[tuple[str, str]] | None:
    """Cells (zone, group) to add, take back, add, ... from a zone with room to a group with room."""
    waiting: list[tuple[str, list[tuple[str, str]]]] = [
        (zone, []) for zone in dict.fromkeys(zone for zone, _ in free) if zones[zone] < per_zone
    ]
    seen = {zone for zone, _ in waiting}
    for zone, path in waiting:  # grows while it is walked
        for cell in free:
            if cell[0] != zone or used[cell] >= free[cell]:
                continue
            group = cell[1]
            if groups[group] < per_group:
                return [*path, cell]
            for other in free:  # take a member of this group back, from another zone
                if other[1] == group and used[other] > 0 and other[0] not in seen:
                    seen.add(other[0])
                    waiting.append((other[0], [*path, cell, other]))
    return None


def _refusal(candidates: Sequence[Candidate], rule: Rule) -> str:
    usable = sorted(c.node for c in candidates if c.standing < Standing.OUT)
    wrong = [f"{c.node} {c.why}".rstrip() for c in candidates if c.standing is Standing.OUT]
    text = f"no {LEAST_MEMBERS} LogStore nodes can be used"
    if len(usable) >= LEAST_MEMBERS:
        places = ", ".join(
            f"{c.node} (zone {c.zone or '-'}, group {c.group or '-'})"
            for c in sorted(candidates, key=lambda c: c.node)
            if c.standing < Standing.OUT
        )
        text = f"{rule.text}: no {LEAST_MEMBERS} nodes fit, of {places}"
    elif usable:
        text += f", only {usable[0]}"
    elif not candidates:
        text += ": none has ever registered"
    return "; ".join([text, *sorted(wrong)]) if wrong else text
