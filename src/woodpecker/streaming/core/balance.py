"""Which node gets a pchannel, and which pchannels are worth moving (section 3; pure, deterministic).

A node's score is 0.5 of its bytes/s, 0.3 of its memory and 0.2 of its number of pchannels, each relative to
the mean of all nodes; a mean that is next to nothing counts as ``SMALL``, so that idle pchannels are spread by
their number. Placements are sticky: a move must make the two nodes concerned more equal by more
than ``GAIN_LEAST``. Ties go to the smaller id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

GAIN_LEAST = 0.05
WEIGHTS = (0.5, 0.3, 0.2)  # bytes/s, memory, count


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Of a pchannel, or the sum of several."""

    bytes_s: float = 0.0
    memory_bytes: int = 0
    count: int = 1

    def __add__(self, other: Load) -> Load:
        return Load(
            bytes_s=self.bytes_s + other.bytes_s,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            count=self.count + other.count,
        )


NOTHING = Load(count=0)
SMALL = Load(bytes_s=64 * 1024, memory_bytes=16 << 20)  # of a node


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One pchannel, from one node to another."""

    pchannel: str
    source: str
    target: str


def total(loads: Mapping[str, Load]) -> Load:
    """The sum."""
    return sum(loads.values(), NOTHING)


def lightest(nodes: Mapping[str, Load], fit: Collection[str]) -> str | None:
    """The fit node with the lowest score; None: none is fit. ``nodes``: the total of each."""
    scores = _Scores(nodes)
    found = sorted(fit, key=lambda node: (scores.of(nodes.get(node, NOTHING)), node))
    return found[0] if found else None


def moves(
    nodes: Mapping[str, Mapping[str, Load]],
    movable: Collection[str],
    fit: Collection[str],
    limit: int,
) -> list[Move]:
    """The best moves, one after another, each judged with those before it done.

    Args:
        nodes: what each living node holds, by pchannel. movable: pchannels that may be moved.
        fit: nodes that may be given something.
    """
    held = {node: dict(pchannels) for node, pchannels in nodes.items()}
    totals = {node: total(pchannels) for node, pchannels in held.items()}
    scores = _Scores(totals)
    found: list[Move] = []
    free = set(movable)
    while len(found) < limit:
        best = _best_move(held, totals, scores, free, fit)
        if best is None:
            break
        load = held[best.source].pop(best.pchannel)
        held[best.target][best.pchannel] = load
        totals[best.source] = total(held[best.source])
        totals[best.target] = totals[best.target] + load
        free.discard(best.pchannel)
        found.append(best)
    return found


def _best_move(
    held: Mapping[str, Mapping[str, Load]],
    totals: Mapping[str, Load],
    scores: _Scores,
    free: Collection[str],
    fit: Collection[str],
) -> Move | None:
    """From the heaviest nodes to the lightest one; None: nothing gains enough."""
    targets = sorted(node for node in fit if node in held)
    if not targets:
        return None
    target = min(targets, key=lambda node: (scores.of(totals[node]), node))
    low = scores.of(totals[target])
    best: tuple[float, str, str] | None = None
    for source in sorted(held):
        high = scores.of(totals[source])
        if source == target or high <= low:
            continue
        for name, load in held[source].items():
            if name not in free:
                continue
            weight = scores.of(load)
            before, after = high**2 + low**2, (high - weight) ** 2 + (low + weight) ** 2
            gain = before - after
            if gain > GAIN_LEAST * before:
                best = min(best or (0.0, "", ""), (-gain, source, name))
    return None if best is None else Move(source=best[1], pchannel=best[2], target=target)


class _Scores:
    """Scores relative to the mean of these nodes."""

    def __init__(self, nodes: Mapping[str, Load]) -> None:
        whole, count = total(nodes), max(1, len(nodes))
        means = (
            max(whole.bytes_s / count, SMALL.bytes_s),
            max(whole.memory_bytes / count, SMALL.memory_bytes),
            max(whole.count / count, SMALL.count),
        )
        self._factors = tuple(weight / mean for weight, mean in zip(WEIGHTS, means, strict=True))

    def of(self, load: Load) -> float:
        bytes_s, memory, count = self._factors
        return load.bytes_s * bytes_s + load.memory_bytes * memory + load.count * count
