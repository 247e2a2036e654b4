"""What a state of the model of producing holds, and the settings of a world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from woodpecker.streaming.core.facts import TableLimits
from woodpecker.streaming.core.owner import Effect, Owner
from woodpecker.testing.stream_model.logs import EMPTY


class Node(NamedTuple):
    """One node process. ``token`` 0: it has no writer."""

    owner: Owner = Owner()
    todo: Effect | None = None
    life: int = 0  # incarnation
    token: int = 0  # of its writer
    view: int = EMPTY  # log as sequenced
    acked: int = EMPTY  # log as acknowledged
    tables: int = -1  # the log whose fold it judges by; -1: ``view``
    judged: object = None  # an admitted batch not yet sequenced (mutant only)


class Answer(NamedTuple):
    """What is owed to a client for its batch ``number``, once the seq ``due`` is acknowledged."""

    number: int
    kind: str  # "ack", a class of refusals, or "granted" (number: the next sequence)
    value: int  # seq; GAP: expected
    due: int


class Connection(NamedTuple):
    """A stream to one life of an owner. ``arrived``: number of the next batch to arrive."""

    node: int
    token: int
    arrived: int


class Late(NamedTuple):
    """What is still under way on a stream that the client gave up."""

    node: int
    token: int
    arrived: int
    until: int
    base: int  # sequence of batch 0


class Client(NamedTuple):
    """One producer."""

    done: int = 0  # batches answered
    base: int = 0  # sequence of batch 0, less what was refused
    epoch: int = 0
    grant: int = -1
    term: int = 0  # largest term of an owner it was attached to
    connection: Connection | None = None
    pending: tuple[Answer, ...] = ()
    late: Late | None = None
    unknown: int = 0  # bits: batches of which some sending ended unknown
    acked: tuple[tuple[int, int], ...] = ()  # (batch, seq)
    told: tuple[tuple[int, str, bool], ...] = ()  # (batch, class, NotWritten) that were surfaced
    is_over: bool = False


class State(NamedTuple):
    """Everything."""

    term: int  # the record
    orders: tuple[tuple[int, int], ...]  # by term: (node, life); the last one is the record's
    claim: tuple[int, int, int] | None  # (term, node, life) in the manifest
    token: int  # of the newest writer
    flight: int  # what that one has sequenced, crashed or not
    log: int  # what is durable
    nodes: tuple[Node, ...]
    clients: tuple[Client, ...]
    crashes: int
    cuts: int
    fails: int  # writers that may still end by themselves
    jumps: int  # how often much time may still pass
    clock: int
    acts: tuple[str, ...]  # what else may still happen, each once
    asked: tuple[int, int, int, bool] | None = None  # read point: (node, token, needed, proven)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One batch of a client's script."""

    vcid: int = 1
    count: int = 1
    number: int = -1
    begin: bool = False
    commit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a client wants to write. ``name``: of a named producer."""

    steps: tuple[Step, ...]
    name: str = ""
    starts_after: int = -1  # only when this other client is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A world: how many of everything."""

    scripts: tuple[Script, ...]
    nodes: int = 2
    terms: int = 2
    crashes: int = 0
    cuts: int = 1
    fails: int = 0
    jumps: int = 0
    window: int = 2
    acts: tuple[str, ...] = ()  # delete, create, expire, release, read point
    limits: TableLimits = field(default_factory=TableLimits)
    knows_channels: bool = True  # nobody writes to a channel before it is there

    def __str__(self) -> str:
        steps = "+".join(str(len(script.steps)) for script in self.scripts)
        faults = [(getattr(self, name), name) for name in ("crashes", "cuts", "fails", "jumps")]
        parts = [f"{count} {name}" for count, name in faults if count]
        return ", ".join([f"{self.terms} terms", f"{steps} batches", *parts, *self.acts])
