"""What one seed draws: how large the world is, who lives in it, and what goes wrong how often.

Swarm testing: each seed leaves out about half of the faults and features, so that those left meet each
other in ways that an average of everything never would.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from typing import Any

from woodpecker.testing.sim.weather import (
    DESTROYING,
    OBJECT_FAULTS,
    RECORD_FAULTS,
    TEARING,
    Fault,
    Weather,
)

STRIKES = (
    Fault.KILLED,
    Fault.KILLED_AT_REQUEST,
    Fault.STOPPED,
    Fault.STOPPED_AT_REQUEST,
    Fault.STOPPED_LONG,
    Fault.REFUSING,
    Fault.SILENT,
    Fault.MUTE,
    Fault.CUT_OFF,
    Fault.CLOCK_JUMP,
)
NODE_STRIKES = tuple(
    fault for fault in Fault if fault.name.startswith(("NODE", "DISK", "NET_", "DRAINED"))
)
KINDS = ("object", "quorum")
STREAM = "stream"  # a streaming service: testing/stream_sim


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything a seed decides beforehand; printed at the head of a trace.

    Attributes:
        theme: what the seed is about, beside chance. logs, writers, followers, carers: how many; writers and carers are spread over the logs.
        calls: how many calls each life of a writer makes; tasks: by how many tasks.
        active_s: how long faults strike. strikes: those that do, every ``strike_s`` on average.
        options: of the logs. interleave: processes take turns by chance. tiny: limits that only long
        logs reach (pages) are small. page_objects: of a listing.
        pace_ms, care_ms: pauses between calls of a writer's task and between the acts of a carer.
        nodes, node_strikes, disk_bytes, net_ms, sync_ms: of kind quorum.
        long_stop_s: how long a process is stopped that others take for dead.
        trims: "no", "hold" (cursors hold them), "free". With ``ends``, ``deletes``, ``alters`` logs
        are ended, deleted and made anew, altered. late_sleepers: some who were stopped wake only when
            all has been settled; late_trim: and trimmed away.
    """

    kind: str = "object"
    theme: str = ""
    logs: int = 1
    writers: int = 2
    followers: int = 1
    carers: int = 1
    lives: int = 10
    calls: int = 20
    tasks: int = 2
    pace_ms: float = 10.0
    care_ms: float = 300.0
    active_s: float = 10.0
    strike_s: float = 2.0
    strikes: tuple[Fault, ...] = ()
    clocks_wrong: bool = False
    interleave: bool = True
    tiny: bool = False
    page_objects: int = 1000
    background: bool = True
    producers: bool = False
    gives_up: float = 0.0
    trims: str = "no"
    ends: bool = False
    deletes: bool = False
    alters: bool = False
    late_sleepers: bool = False
    late_trim: bool = False
    nodes: int = 0
    node_strikes: tuple[Fault, ...] = ()
    disk_bytes: int = 256 << 20
    net_ms: tuple[float, float] = (0.05, 1.0)
    sync_ms: tuple[float, float] = (0.05, 0.5)
    long_stop_s: tuple[float, float] = (60.0, 900.0)
    options: dict[str, Any] = field(default_factory=dict)
    on_objects: Weather = field(default_factory=Weather)
    on_records: Weather = field(default_factory=Weather)

    def __str__(self) -> str:
        return " ".join(
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)
            if not f.name.startswith("on_")
        )

    def weathers(self) -> tuple[Weather, Weather]:
        """Of a new process: of its own, so that it can change for one alone."""
        return self.on_objects.copy(), self.on_records.copy()


def draw(seed: int, kind: str = "any") -> Plan:
    """The plan of a seed; the same for ever, as long as this file stays the same."""
    rng = random.Random(f"plan {seed}")
    plan = _any(rng, kind)
    plan.theme = rng.choice((*THEMES, *[""] * (2 * len(THEMES))))
    if plan.theme:
        THEMES[plan.theme](plan, rng)
    if plan.kind == "quorum":
        _on_nodes(plan, rng)
    return plan


def _on_nodes(plan: Plan, rng: random.Random) -> None:
    """Nodes, and what befalls them; buckets then hold only what is sealed."""
    plan.nodes = rng.choice((2, 3, 3, 3, 4, 5))
    plan.options["mode"] = "quorum"
    plan.options["replicas"] = 5 if plan.nodes == 5 and rng.random() < 0.5 else 3
    if rng.random() < 0.85:
        left_out = TEARING if rng.random() < 0.5 else DESTROYING  # never both: see the nemesis
        possible = [fault for fault in NODE_STRIKES if fault not in left_out]
        plan.node_strikes = tuple(fault for fault in possible if rng.random() < 0.4)
    plan.disk_bytes = rng.choice((24 << 20, 256 << 20, 256 << 20))
    plan.net_ms = rng.choice(((0.05, 1.0), (0.5, 10.0), (5.0, 60.0)))
    plan.sync_ms = rng.choice(((0.05, 0.5), (1.0, 10.0)))
    plan.long_stop_s = (15.0, 60.0)
    plan.strikes = tuple(fault for fault in plan.strikes if rng.random() < 0.6)
    theme = rng.choice((*NODE_THEMES, *[""] * len(NODE_THEMES)))
    if theme:
        plan.theme = f"{plan.theme} {theme}".strip()
        NODE_THEMES[theme](plan, rng)


def _any(rng: random.Random, kind: str) -> Plan:
    intensity = rng.choice((0.0, 0.3, 1.0, 1.0, 2.0))
    logs = rng.choice((1, 1, 1, 2))
    return Plan(
        kind=rng.choice(KINDS) if kind == "any" else kind,
        logs=logs,
        writers=rng.choice((1, 2, 2, 3)) + (logs - 1),
        followers=rng.choice((0, 1, 1, 2)),
        carers=rng.choice((0, 1, 2, 4)),
        care_ms=rng.choice((30.0, 300.0, 1_500.0)),
        calls=rng.choice((2, 10, 20, 60)),
        tasks=rng.choice((1, 2, 4)),
        pace_ms=rng.choice((0.0, 5.0, 50.0, 300.0)),
        active_s=rng.choice((2.0, 8.0, 8.0, 20.0)),
        strike_s=rng.choice((0.5, 1.5, 4.0)),
        strikes=_some(rng, STRIKES) if rng.random() < 0.85 else (),
        clocks_wrong=rng.random() < 0.3,
        interleave=rng.random() < 0.7,
        tiny=rng.random() < 0.2,
        page_objects=rng.choice((3, 20, 1000)),
        background=rng.random() < 0.8,
        producers=rng.random() < 0.3,
        gives_up=rng.choice((0.0, 0.0, 0.05, 0.2)),
        trims=rng.choice(("no", "hold", "hold", "free")),
        ends=rng.random() < 0.1,
        deletes=rng.random() < 0.1,
        alters=rng.random() < 0.2,
        late_sleepers=rng.random() < 0.5,
        late_trim=rng.random() < 0.5,
        options=_options(rng),
        on_objects=_weather(rng, OBJECT_FAULTS, intensity, slow=4.0),
        on_records=_weather(rng, RECORD_FAULTS, intensity, slow=1.0),
    )


def _some(rng: random.Random, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if rng.random() < 0.5)


def _weather(
    rng: random.Random, faults: tuple[Fault, ...], intensity: float, *, slow: float
) -> Weather:
    rates = {
        fault: intensity * 10 ** rng.uniform(-2.7, -1.2)
        for fault in dict.fromkeys(faults)
        if rng.random() < 0.5
    }
    return Weather(
        rates={fault: rate for fault, rate in rates.items() if rate > 0},
        latency_ms=slow * rng.choice((0.1, 1.0, 5.0, 40.0)),
        late_ms=rng.choice((500.0, 5_000.0, 30_000.0)),
        timeout_ms=rng.choice((300.0, 2_000.0, 8_000.0)),
    )


def _options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {
        "segment_max_blocks": rng.choice((1, 2, 3, 8, 30)),
        "segment_max_bytes": rng.choice((64 << 10, 256 << 20)),
        "segment_max_age_s": rng.choice((1, 5, 3600)),
        "append_timeout_ms": rng.choice((500, 3_000, 20_000)),
        "queue_max_bytes": rng.choice((64 << 10, 64 << 20)),
        "linger_ms": rng.choice((0, 0, 20)),
        "compression": rng.choice(("none", "lz4", "zstd")),
    }
    if rng.random() < 0.15:
        options["retention_age_s"] = rng.choice((1, 5, 60))
    if rng.random() < 0.15:
        options["retention_bytes"] = rng.choice((1, 20_000))
    return options


# --- themes: what must come together, and seldom would by chance -----------------------------------------


def _stale(plan: Plan, rng: random.Random) -> None:
    """Who sleeps for long, in the middle of anything, and wakes in a world that went on without him."""
    plan.late_sleepers, plan.writers = True, max(2, plan.writers)
    plan.strikes = (Fault.STOPPED, Fault.STOPPED_AT_REQUEST, Fault.STOPPED_LONG, Fault.MUTE)
    plan.strike_s = 0.5
    plan.trims, plan.late_trim = rng.choice((("free", True), (plan.trims, False)))


def _rebirth(plan: Plan, rng: random.Random) -> None:
    """Logs are deleted and made anew while their writers sleep."""
    plan.deletes, plan.carers, plan.care_ms = True, 2, 100.0
    plan.strikes = (*plan.strikes, Fault.STOPPED, Fault.STOPPED_LONG)
    plan.strike_s, plan.calls = 0.5, rng.choice((2, 10))
    plan.pace_ms = rng.choice((50.0, 300.0))


def _cursors(plan: Plan, rng: random.Random) -> None:
    """Cursors come and go beside trims that respect them, and that are stopped before the last step."""
    plan.trims, plan.carers, plan.care_ms = "hold", 4, 20.0
    plan.on_records.latency_ms = rng.choice((5.0, 40.0))
    plan.calls, plan.pace_ms = 20, 50.0
    plan.strikes, plan.strike_s = (*plan.strikes, Fault.STOPPED_AT_REQUEST), 0.3


def _gaps(plan: Plan, rng: random.Random) -> None:
    """Many blocks under way, some of them lost, their writer killed, and eyes on the tail."""
    plan.tasks, plan.pace_ms, plan.calls = 4, 0.0, 60
    plan.options |= {"segment_max_blocks": 30, "linger_ms": 0, "append_timeout_ms": 500}
    plan.on_objects.latency_ms = rng.choice((5.0, 20.0, 100.0))
    plan.on_objects.timeout_ms = 2_000.0  # longer than a writer waits, who leaves a gap behind
    plan.on_objects.rates = {Fault.REQUEST_LOST: 0.1, Fault.SLOW: 0.05, Fault.LATE: 0.05}
    plan.on_records.rates, plan.on_records.latency_ms = {}, 1.0
    plan.strikes = (Fault.KILLED, Fault.KILLED_AT_REQUEST, Fault.STOPPED_LONG)
    plan.strike_s, plan.carers, plan.care_ms = 1.5, 2, 10.0


def _forgetful(plan: Plan, rng: random.Random) -> None:
    """One node loses what it had, while writers die in the middle of a segment and another is away."""
    plan.nodes = 3
    plan.options |= {"replicas": 3, "segment_max_blocks": 30, "segment_max_age_s": 3600}
    plan.node_strikes = (
        rng.choice((Fault.NODE_LOST, Fault.NODE_FLIPPED, Fault.NODE_SET_BACK)),
        rng.choice((Fault.NODE_LOST, Fault.NODE_FLIPPED, Fault.NODE_SET_BACK)),
        Fault.NET_CUT,
        Fault.NODE_STOPPED,
    )
    plan.strikes, plan.strike_s = (Fault.KILLED, Fault.STOPPED_LONG), 0.4
    plan.sync_ms = rng.choice(((0.05, 0.5), (5.0, 40.0)))
    plan.calls, plan.pace_ms = 20, rng.choice((5.0, 50.0))
    plan.on_objects.rates, plan.on_records.rates = {}, {}


def _beaten(plan: Plan, rng: random.Random) -> None:
    """Writers lose touch with nodes, are overtaken, and come back with blocks under way."""
    plan.writers, plan.tasks = max(2, plan.writers), 4
    plan.node_strikes = (Fault.NET_CUT, Fault.NET_ONE_WAY, Fault.NET_SLOW, Fault.NET_RESET)
    plan.strikes = (Fault.STOPPED, Fault.STOPPED_LONG, Fault.STOPPED_AT_REQUEST)
    plan.strike_s, plan.calls, plan.pace_ms = 0.4, 20, rng.choice((0.0, 5.0))
    plan.options["segment_max_blocks"] = rng.choice((2, 30))
    plan.options["append_timeout_ms"] = 20_000
    plan.sync_ms = rng.choice(((0.05, 0.5), (5.0, 40.0)))


NODE_THEMES = {"forgetful": _forgetful, "beaten": _beaten}
THEMES = {"stale": _stale, "rebirth": _rebirth, "cursors": _cursors, "gaps": _gaps}
