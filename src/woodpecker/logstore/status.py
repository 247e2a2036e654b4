"""A node as others see it: what it holds and how it fares, as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from woodpecker.logstore.copies import Copy, HeldLog

if TYPE_CHECKING:
    from woodpecker.logstore.node import Node

MAX_LOGS = 1000  # told of one by one
MAX_SEGMENTS = 10_000  # of one listing

Facts = dict[str, Any]


def status_of(node: Node) -> Facts:
    """Everything about a node, but for its segments. docs/observability.md says what each part means."""
    journal, upkeep, cache, reading, writing = (
        node.journal, node.upkeep, node.cache, node.reading, node.writing,
    )  # fmt: skip
    return {
        "node": node.identity.node,
        "incarnation": node.identity.incarnation,
        "past": sorted(node.identity.past),
        "boot": node.boot,
        "lost": node.lost,
        "failure": "" if node.failure is None else str(node.failure),
        "pressure": upkeep.pressure,
        "disk": {"used_bytes": upkeep.used_bytes, "room_bytes": upkeep.room_bytes},
        "unsealed": {
            "segments": node.copies.unsealed_segments,
            "bytes": node.copies.unsealed_bytes,
        },
        "copies": node.copies.count,
        "queue": {"records": journal.queued_records, "bytes": journal.queued_bytes},
        "sync": {"count": journal.syncs, **_percentiles(journal.latencies_ms)},
        "journal": {
            "files": len(journal.files),
            "bytes": sum(file.size_bytes for file in journal.files.values()),
            "live_bytes": sum(use.live_bytes for use in node.copies.uses.values()),
            "current": journal.current,
        },
        "cache": {
            "blocks": len(cache),
            "bytes": cache.size_bytes,
            "buffer_bytes": node.buffers.size_bytes,
        },
        "readers": {
            "waiting": reading.waiting,
            "blocks_from_memory": reading.from_memory,
            "blocks_from_disk": reading.from_disk,
        },
        "counts": {
            "appended": writing.appended,
            "repaired": writing.repaired,
            "fenced": writing.fenced,
            "refused": writing.refused,
        },
        "logs": len(node.copies.logs),
        "largest_logs": [_log_facts(log) for log in _largest(list(node.copies.logs.values()))],
    }


def segments_of(node: Node, log_id: str, segment_id: int, limit: int) -> list[Facts]:
    """Copies from that one on, by log id and segment."""
    logs = sorted(name for name in node.copies.logs if name >= log_id)
    copies = (
        copy
        for name in logs
        for number, copy in sorted(node.copies.logs[name].copies.items())
        if name > log_id or number >= segment_id
    )
    now_ms = node.now_ms()
    return [_copy_facts(copy, now_ms) for copy in islice(copies, min(limit, MAX_SEGMENTS))]


def _largest(logs: Sequence[HeldLog]) -> Sequence[HeldLog]:
    held = [log for log in logs if log.copies]
    if len(held) <= MAX_LOGS:
        return held
    return sorted(held, key=_size, reverse=True)[:MAX_LOGS]


def _size(log: HeldLog) -> int:
    return sum(copy.size_bytes for copy in log.copies.values())


def _log_facts(log: HeldLog) -> Facts:
    newest = log.copies[max(log.copies)]
    replica = newest.replica
    return {
        "log": log.name,
        "log_id": log.log_id,
        "floor": log.floor,
        "segments": len(log.copies),
        "fenced": sum(copy.replica.fence is not None for copy in log.copies.values()),
        "unsealed_bytes": _size(log),
        "newest": {
            "segment_id": newest.segment_id,
            "last": replica.last,
            "synced": replica.synced,
            "lac": replica.lac,
        },
    }


def _copy_facts(copy: Copy, now_ms: float) -> Facts:
    replica, fence = copy.replica, copy.replica.fence
    return {
        "log": copy.log.name,
        "log_id": copy.log.log_id,
        "segment_id": copy.segment_id,
        "epoch": replica.epoch,
        "incarnation": replica.incarnation,
        "last": replica.last,
        "synced": replica.synced,
        "lac": replica.lac,
        "end": replica.end,
        "end_seq": None if replica.queued is None else replica.queued.end_seq,
        "size_bytes": copy.size_bytes,
        "fence": None
        if fence is None
        else {"epoch": fence.epoch, "token": fence.token, "reason": fence.reason},
        "is_unsure": replica.is_unsure,
        "idle_ms": round(now_ms - copy.heard_ms),
    }


def _percentiles(values: Sequence[float]) -> Facts:
    """Of the newest syncs, in milliseconds; None if there was none."""
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(("p50_ms", "p99_ms", "max_ms"))

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 3)

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}
