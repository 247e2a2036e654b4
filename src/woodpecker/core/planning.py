"""What a log will take and cost in each mode, before it exists: arithmetic from a few constants.

The constants are what was measured or is published (docs/performance.md); each can be replaced. All is for
one busy log whose entries come evenly; sealing is counted, reading is not. Money is dollars for 30 days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from woodpecker.core.costs import LONGEST_WAIT_MS, MONTH_S, RequestPrices, block_every_ms
from woodpecker.core.manifest import Options

MIB, GIB = 1 << 20, 1 << 30
CUT_BYTES, SLOTS = 4 * MIB, 8  # of a block object; PUTs under way
PART_BYTES = 8 * MIB  # of a sealed object on its way
SEGMENT_PUTS = (
    3  # changes of the manifest in the life of a segment: opened and closed, sealed, dropped
)
ZONES_CROSSED = 2  # by each byte of mode quorum: two of three copies lie in other zones
OURS_MS = 0.3  # what an append costs between our own processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars: requests for a million, storage for a GiB and month, a node for a month, a GiB moved."""

    requests: RequestPrices = field(default_factory=RequestPrices)
    storage: float = 0.023  # S3 standard
    disk: float = 0.08  # EBS gp3
    node: float = 60.0  # a machine of 2 cores and 8 GiB, a disk of 50 GiB with it
    transfer: float = 0.02  # between zones, both directions billed


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Milliseconds in the middle, and of one in a hundred."""

    put_ms: float = 30.0  # a small PUT to S3 standard in its own region
    put_p99_ms: float = 120.0
    put_mb_s: float = 80.0  # of one large PUT
    sync_ms: float = 0.3  # a synced write of 4 KiB
    sync_p99_ms: float = 2.0
    rtt_ms: float = 0.8  # between zones


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Bytes a second, bytes of an entry, days that entries are kept."""

    bytes_s: float
    entry_bytes: float
    days: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One mode: what to expect. ``note`` says what it cannot do."""

    mode: str
    block_bytes: float
    puts_s: float
    p50_ms: float
    p99_ms: float
    requests_usd: float
    storage_usd: float
    machines_usd: float
    note: str = ""

    @property
    def total_usd(self) -> float:
        """For a month."""
        return self.requests_usd + self.storage_usd + self.machines_usd


def forecast(
    load: Load, lingers_ms: Sequence[int], budgets: Sequence[int], prices: Prices, speeds: Speeds
) -> list[Forecast]:
    """File, object for each linger and each budget (dollars a month), quorum."""
    budget_waits = {f"object, ${usd} a month": _budget_wait_ms(usd) for usd in budgets}
    waits = {f"object, linger {ms} ms": float(ms) for ms in lingers_ms} | budget_waits
    return [
        _file(load, prices, speeds),
        *(_object(mode, wait, load, prices, speeds) for mode, wait in waits.items()),
        _quorum(load, prices, speeds),
    ]


def _budget_wait_ms(usd: int) -> float:
    return min(LONGEST_WAIT_MS, block_every_ms(usd))


def _kept_gib(load: Load) -> float:
    return load.bytes_s * load.days * 86_400 / GIB


def _sealing_usd(load: Load, blocks_s: float, prices: Prices) -> float:
    """A month of segments: each block object is read once, the sealed object is sent in parts."""
    options = Options()
    segments = MONTH_S * max(
        load.bytes_s / options.segment_max_bytes,
        blocks_s / options.segment_max_blocks,
        1 / options.segment_max_age_s,
    )
    parts = MONTH_S * load.bytes_s / PART_BYTES
    puts = parts + segments * (SEGMENT_PUTS + 2)  # an upload in parts is begun and completed
    return (puts * prices.requests.puts + MONTH_S * blocks_s * prices.requests.gets) / 1e6


def _file(load: Load, prices: Prices, speeds: Speeds) -> Forecast:
    return Forecast(
        mode="file",
        block_bytes=max(load.entry_bytes, min(CUT_BYTES, load.bytes_s * speeds.sync_ms / 1000)),
        puts_s=0,
        p50_ms=speeds.sync_ms,
        p99_ms=2 * speeds.sync_p99_ms,  # one that waits for another
        requests_usd=0,
        storage_usd=_kept_gib(load) * prices.disk,
        machines_usd=0,
        note="one machine, one disk: as durable as these",
    )


def _object(mode: str, wait_ms: float, load: Load, prices: Prices, speeds: Speeds) -> Forecast:
    """A partial block goes when nothing is under way and its wait is over, a full one at once."""
    full_put_ms = speeds.put_ms + CUT_BYTES / speeds.put_mb_s / 1000
    gather_ms = max(wait_ms, speeds.put_ms)
    gathered = load.bytes_s * gather_ms / 1000
    if gathered >= CUT_BYTES:
        block, put_ms = float(CUT_BYTES), full_put_ms
        held_ms = block / load.bytes_s * 1000
    elif gathered <= load.entry_bytes:  # each entry alone
        block, put_ms, held_ms = load.entry_bytes, speeds.put_ms, 2 * wait_ms
    else:
        put_ms = speeds.put_ms + gathered / speeds.put_mb_s / 1000
        block, held_ms = gathered, gather_ms
    blocks_s = load.bytes_s / block
    most = SLOTS * CUT_BYTES / full_put_ms * 1000
    requests = MONTH_S * blocks_s * prices.requests.puts / 1e6
    return Forecast(
        mode=mode,
        block_bytes=block,
        puts_s=blocks_s,
        p50_ms=held_ms / 2 + put_ms,
        p99_ms=held_ms + put_ms + speeds.put_p99_ms - speeds.put_ms,
        requests_usd=requests + _sealing_usd(load, blocks_s, prices),
        storage_usd=_kept_gib(load) * prices.storage,
        machines_usd=0,
        note=f"too fast for one log: about {most / 1e6:.0f} MB/s" if load.bytes_s > most else "",
    )


def _quorum(load: Load, prices: Prices, speeds: Speeds) -> Forecast:
    moved = ZONES_CROSSED * load.bytes_s * MONTH_S / GIB * prices.transfer
    replicas = Options().replicas
    return Forecast(
        mode=f"quorum, {replicas} nodes",
        block_bytes=max(load.entry_bytes, load.bytes_s * speeds.sync_ms / 1000),
        puts_s=0,
        p50_ms=speeds.rtt_ms + speeds.sync_ms + OURS_MS,
        p99_ms=speeds.rtt_ms + 2 * speeds.sync_p99_ms + OURS_MS,
        requests_usd=_sealing_usd(load, 0, prices),
        storage_usd=_kept_gib(load) * prices.storage,
        machines_usd=replicas * prices.node + moved,
        note=f"of this ${moved:,.0f} for traffic between zones; nodes serve other logs too",
    )
