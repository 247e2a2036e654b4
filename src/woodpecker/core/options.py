"""Options of a log: bounds and checks. Each has its unit in its name, and a sane default."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Options
from woodpecker.core.timestamps import POLICIES
from woodpecker.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one option means and may be; ``nullable`` options may be None (no limit)."""

    text: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    nullable: bool = False


BOUNDS: dict[str, Bound] = {
    "mode": Bound(text="kind of segments", choices=tuple(Kind)),
    "segment_max_bytes": Bound(text="roll after this many bytes", low=64 << 10, high=16 << 30),
    "segment_max_age_s": Bound(text="roll after this many seconds", low=1, high=30 * 86_400),
    "segment_max_blocks": Bound(text="roll after this many blocks", low=1, high=1_000_000),
    "queue_max_bytes": Bound(
        text="bytes a writer holds before append waits", low=64 << 10, high=4 << 30
    ),
    "linger_ms": Bound(text="wait this long for a fuller block", low=0, high=60_000),
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
}


def make_options(base: Options, changes: Mapping[str, object]) -> Options:
    """``base`` with ``changes`` by option name.

    Raises:
        InvalidRequest: unknown name (with the nearest valid one), wrong type, out of bounds.
    """
    values = {name: _checked(name, value) for name, value in changes.items()}
    return replace(base, **values)  # type: ignore[arg-type]  # each was checked by its bound


def _checked(name: str, value: object) -> object:
    bound = BOUNDS.get(name)
    if bound is None:
        near = difflib.get_close_matches(name, BOUNDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; options are {', '.join(BOUNDS)}"
        raise InvalidRequest(f"unknown log option {name!r}{hint}")
    if value is None and bound.nullable:
        return None
    if bound.choices:
        if value not in bound.choices:
            raise InvalidRequest(
                f"option {name}={value!r}: must be one of {', '.join(bound.choices)}"
            )
        return Kind(value) if name == "mode" else str(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"option {name}={value!r}: must be an integer ({bound.text})")
    if not bound.low <= value <= bound.high:
        raise InvalidRequest(f"option {name}={value}: must be within {bound.low} .. {bound.high}")
    return value


assert set(BOUNDS) == {f.name for f in fields(Options)}, "every option has its bounds"
