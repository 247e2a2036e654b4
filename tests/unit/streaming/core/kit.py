"""A pchannel in memory over the real functions: what an owner would write, and what readers would see."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from woodpecker.streaming.core.admission import (
    Admit,
    Asked,
    Pressure,
    Refuse,
    Repeat,
    data_facts,
    facts_of,
    judge,
)
from woodpecker.streaming.core.facts import Body, Close, Create, Facts, TableLimits, Term
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.ticks import next_limit, start_of_term
from woodpecker.streaming.settings import DEFAULTS, StreamSettings

STEP_US = 5_000_000


@dataclass
class Pchannel:
    """The log so far, folded, with payloads by batch."""

    clock_us: int = 1_000_000
    settings: StreamSettings = DEFAULTS
    limits: TableLimits = field(default_factory=TableLimits)
    fold: Fold = field(default_factory=Fold)
    log: list[Facts] = field(default_factory=list)
    payloads: list[list[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.take_over()

    @property
    def tick(self) -> int:
        return max(self.fold.last_tick + 1, self.clock_us)

    def put(self, facts: Facts, payloads: list[bytes] | None = None) -> Facts:
        self.fold.apply(facts)
        self.log.append(facts)
        self.payloads.append([b""] * facts.count if payloads is None else payloads)
        return facts

    def limit(self, last_tick: int) -> int:
        return next_limit(
            limit=self.fold.limit, last_tick=last_tick, clock_us=self.clock_us, step_us=STEP_US
        )

    def control(
        self, body: Body, *, vcid: int = 0, tick: int | None = None, term: int = 0
    ) -> Facts:
        tick = self.tick if tick is None else tick
        limit = tick + 1 if isinstance(body, Close) else self.limit(tick)
        return self.put(facts_of(self.fold, body, tick=tick, limit=limit, vcid=vcid, term=term))

    def take_over(self) -> Facts:
        tick = start_of_term(
            limit=self.fold.limit, last_tick=self.fold.last_tick, clock_us=self.clock_us
        )
        term = self.fold.term + 1
        body = Term(incarnation=f"node-{term}", limits=self.limits)
        return self.control(body, tick=tick, term=term)

    def create(self, vcid: int) -> Facts:
        return self.control(Create(name=f"ch{vcid}"), vcid=vcid)

    def judge(self, asked: Asked, pressure: Pressure | None = None) -> Admit | Repeat | Refuse:
        pressure = Pressure() if pressure is None else pressure
        return judge(self.fold, asked, tick=self.tick, pressure=pressure, settings=self.settings)

    def send(self, asked: Asked, pressure: Pressure | None = None) -> Facts | Repeat | Refuse:
        verdict = self.judge(asked, pressure)
        if not isinstance(verdict, Admit):
            return verdict
        tick = self.tick
        facts = data_facts(
            self.fold, verdict, tick=tick, limit=self.limit(tick + verdict.count - 1)
        )
        return self.put(facts, [b"%d" % (facts.seq + index) for index in range(facts.count)])

    def asked(self, producer: str = "p", *, vcid: int = 1, count: int = 1, **more: object) -> Asked:
        """The producer's next batch, as an anonymous one unless it has an epoch."""
        session = self.fold.sessions.get(producer)
        asked = Asked(
            producer=producer,
            epoch=0 if session is None else session.epoch,
            sequence=0 if session is None else session.last_sequence + 1,
            vcid=vcid,
            count=count,
            size_bytes=10 * count,
            largest_bytes=10,
            grant_tick=self.tick,
        )
        return replace(asked, **more)  # type: ignore[arg-type]
