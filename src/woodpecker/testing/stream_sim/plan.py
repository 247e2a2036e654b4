"""What one seed draws: how large the service is, who uses it how, and what goes wrong how often."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace

from woodpecker.streaming.settings import DEFAULTS, StreamSettings
from woodpecker.testing.sim.weather import OBJECT_FAULTS, RECORD_FAULTS, Fault, Weather

STRIKES = (
    Fault.KILLED,
    Fault.KILLED_AT_REQUEST,
    Fault.KILLED_AT_REQUEST,  # an owner whose batch is written, and nobody was told, is the likeliest to mislead
    Fault.STOPPED,
    Fault.STOPPED_AT_REQUEST,
    Fault.STOPPED_LONG,
    Fault.REFUSING,
    Fault.SILENT,
    Fault.MUTE,
    Fault.CUT_OFF,
    Fault.CLOCK_JUMP,
    Fault.NET_CUT,
    Fault.NET_ONE_WAY,
    Fault.NET_RESET,
    Fault.NET_SLOW,
)


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything a seed decides beforehand.

    Attributes:
        members: nodes; each stands for coordinator too if ``combined``, else ``coordinators`` do.
        calls: of each life of a producer. pace_ms: between them. burst: how many are under way at once.
        active_s: how long faults strike, one every ``strike_s`` on average.
        named: producers go by a name, so that a new life fences the one before.
        rivals: they all go by the same name, and subscribers by the same cursor.
        transactions: share of the calls. moves: an operator moves pchannels and drains nodes.
        deleters, broadcasters: how many there are. filters: some readers want one type only.
        ephemerals: producers also send to listeners only.
        timeout_s: of whoever writes. retention_age_s: of all channels.
    """

    members: int = 3
    coordinators: int = 1
    combined: bool = False
    channels: int = 2
    producers: int = 2
    consumers: int = 2
    subscribers: int = 1
    calls: int = 40
    pace_ms: float = 50.0
    burst: int = 1
    active_s: float = 30.0
    strike_s: float = 3.0
    strikes: tuple[Fault, ...] = ()
    interleave: bool = True
    clocks_wrong: bool = False
    named: bool = True
    transactions: float = 0.3
    moves: bool = True
    rivals: bool = False
    deleters: int = 1
    broadcasters: int = 1
    filters: bool = True
    ephemerals: bool = True
    timeout_s: float = 60.0
    retention_age_s: int | None = None
    net_ms: tuple[float, float] = (0.1, 2.0)
    settings: StreamSettings = DEFAULTS
    on_objects: Weather = field(default_factory=Weather)
    on_records: Weather = field(default_factory=Weather)

    def __str__(self) -> str:
        return " ".join(
            f"{one.name}={getattr(self, one.name)}"
            for one in fields(self)
            if not one.name.startswith("on_")
        )

    def weathers(self) -> tuple[Weather, Weather]:
        """Of a new process."""
        return self.on_objects.copy(), self.on_records.copy()


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"stream plan {seed}")
    intensity = rng.choice((0.0, 0.2, 0.6, 1.0))
    calm = rng.random() < 0.1
    return Plan(
        members=rng.choice((2, 3, 3)),
        coordinators=rng.choice((1, 2)),
        combined=rng.random() < 0.4,
        channels=rng.choice((1, 2, 3)),
        producers=rng.choice((1, 2, 3)),
        consumers=rng.choice((1, 2)),
        subscribers=rng.choice((0, 1, 2)),
        calls=rng.choice((20, 60, 120)),
        pace_ms=rng.choice((5.0, 50.0, 300.0)),
        burst=rng.choice((1, 4, 12)),
        active_s=rng.choice((15.0, 40.0)),
        strike_s=rng.choice((1.0, 2.5, 6.0)),
        strikes=() if calm else tuple(fault for fault in STRIKES if rng.random() < 0.4),
        interleave=rng.random() < 0.7,
        clocks_wrong=rng.random() < 0.3,
        named=rng.random() < 0.6,
        transactions=rng.choice((0.0, 0.3, 0.7)),
        moves=rng.random() < 0.5,
        rivals=rng.random() < 0.3,
        deleters=rng.choice((0, 1)),
        broadcasters=rng.choice((0, 1, 2)),
        filters=rng.random() < 0.7,
        ephemerals=rng.random() < 0.7,
        timeout_s=rng.choice((2.0, 5.0, 60.0)),
        retention_age_s=rng.choice((None, None, 5, 20)),
        net_ms=rng.choice(((0.1, 2.0), (1.0, 20.0), (5.0, 80.0))),
        settings=_settings(rng),
        on_objects=_weather(rng, OBJECT_FAULTS, intensity),
        on_records=_weather(rng, RECORD_FAULTS, intensity),
    )


def _settings(rng: random.Random) -> StreamSettings:
    return replace(
        DEFAULTS,
        pchannels=rng.choice((1, 2, 2)),
        expected_nodes=1,
        tail_bytes=rng.choice((1_000, 10_000, 1 << 20)),
        checkpoint_age_ms=rng.choice((500, 3_000, 60_000)),
        checkpoint_bytes=rng.choice((2_000, 1 << 20)),
        assembly_bytes=rng.choice((100, 1 << 20)),
        session_ttl_ms=rng.choice((3_000, 10_000)),
        beat_ms=1_000,
        append_timeout_ms=rng.choice((5_000, 20_000)),
        credit_bytes=rng.choice((500, 1 << 20)),
    )


def _weather(rng: random.Random, faults: tuple[Fault, ...], intensity: float) -> Weather:
    rates = {
        fault: intensity * 10 ** rng.uniform(-3.0, -1.6)
        for fault in dict.fromkeys(faults)
        if rng.random() < 0.4
    }
    return Weather(
        rates={fault: rate for fault, rate in rates.items() if rate > 0},
        latency_ms=rng.choice((0.5, 3.0, 20.0)),
        late_ms=rng.choice((500.0, 5_000.0)),
        timeout_ms=rng.choice((500.0, 2_000.0)),
    )
