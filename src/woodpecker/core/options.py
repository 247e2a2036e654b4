"""Options of a log: bounds and checks. Each has its unit in its name, and a sane default."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from woodpecker.core.costs import LONGEST_WAIT_MS
from woodpecker.core.ids import Kind, check_name
from woodpecker.core.manifest import Options
from woodpecker.core.placement import SOFT_HARD, STRATEGIES, contradiction
from woodpecker.core.timestamps import POLICIES
from woodpecker.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one option means and may be; ``nullable`` options may be None (no limit).

    With ``choices`` it is one of these words; with ``is_list`` a list of names, kept as text joined by
    commas; else a whole number from ``low`` to ``high`` in steps of ``step``.
    """

    text: str
    low: int = 0
    high: int = 0
    step: int = 1
    choices: tuple[str, ...] = ()
    is_list: bool = False
    nullable: bool = False


BOUNDS: dict[str, Bound] = {
    "mode": Bound(text="kind of segments", choices=tuple(Kind)),
    "segment_max_bytes": Bound(text="roll after this many bytes", low=64 << 10, high=16 << 30),
    "segment_max_age_s": Bound(text="roll after this many seconds", low=1, high=30 * 86_400),
    "segment_max_blocks": Bound(text="roll after this many blocks", low=1, high=1_000_000),
    "queue_max_bytes": Bound(
        text="bytes a writer holds before append waits", low=64 << 10, high=4 << 30
    ),
    "linger_ms": Bound(text="wait this long for a fuller block", low=0, high=LONGEST_WAIT_MS),
    "max_cost_per_month": Bound(
        text="mode object: dollars for PUTs of blocks, $5 a million; waits for fuller blocks once spent",
        low=1,
        high=1_000_000,
        nullable=True,
    ),
    "compression": Bound(text="compression of blocks", choices=("none", "zstd", "lz4")),
    "retention_age_s": Bound(
        text="trim entries older than this", low=1, high=100 * 366 * 86_400, nullable=True
    ),
    "retention_bytes": Bound(text="trim when larger than this", low=1, high=1 << 62, nullable=True),
    "timestamps": Bound(text="policy for timestamps", choices=POLICIES),
    "append_timeout_ms": Bound(
        text="an append without an answer fails after this", low=100, high=3_600_000
    ),
    "max_producers": Bound(text="producer sessions remembered", low=1, high=65_536),
    "replicas": Bound(text="mode quorum: nodes that get each block", low=3, high=5, step=2),
    "placement": Bound(text="mode quorum: how these nodes are chosen", choices=STRATEGIES),
    "affinity": Bound(
        text="mode quorum: soft takes other nodes rather than none", choices=SOFT_HARD
    ),
    "placement_zones": Bound(
        text="mode quorum: zones to choose from, joined by commas", is_list=True, nullable=True
    ),
    "placement_groups": Bound(
        text="mode quorum: resource groups to choose from", is_list=True, nullable=True
    ),
}


def make_options(base: Options, changes: Mapping[str, object]) -> Options:
    """``base`` with ``changes`` by option name.

    Raises:
        InvalidRequest: unknown name (with the nearest valid one), wrong type, out of bounds, or options
        that contradict each other.
    """
    values = {name: _checked(name, value) for name, value in changes.items()}
    options = replace(base, **values)  # type: ignore[arg-type]  # each was checked by its bound
    fault = contradiction(options)
    if fault is not None:
        raise InvalidRequest(fault)
    return options


def _checked(name: str, value: object) -> object:
    bound = BOUNDS.get(name)
    if bound is None:
        near = difflib.get_close_matches(name, BOUNDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; options are {', '.join(BOUNDS)}"
        raise InvalidRequest(f"unknown log option {name!r}{hint}")
    if value is None and bound.nullable:
        return None
    if bound.is_list:
        return _names(name, value)
    if bound.choices:
        if value not in bound.choices:
            raise InvalidRequest(
                f"option {name}={value!r}: must be one of {', '.join(bound.choices)}"
            )
        return Kind(value) if name == "mode" else str(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"option {name}={value!r}: must be an integer ({bound.text})")
    if not bound.low <= value <= bound.high or (value - bound.low) % bound.step:
        numbers = f"{bound.low} .. {bound.high}"
        steps = f" in steps of {bound.step}" if bound.step > 1 else ""
        raise InvalidRequest(f"option {name}={value}: must be within {numbers}{steps}")
    return value


def _names(name: str, value: object) -> str:
    """Names of zones or groups: text joined by commas, or a sequence; sorted, each once."""
    given = value.split(",") if isinstance(value, str) else value
    if isinstance(given, int) and not isinstance(given, bool):
        given = (str(given),)  # a shell does not tell a zone named 1 from a number
    if not isinstance(given, list | tuple) or not given:
        raise InvalidRequest(f"option {name}={value!r}: must be names joined by commas, or a list")
    return ",".join(sorted({check_name(item, name) for item in given}))


assert set(BOUNDS) == {f.name for f in fields(Options)}, "every option has its bounds"
