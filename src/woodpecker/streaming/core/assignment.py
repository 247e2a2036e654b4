"""The machine that brings one pchannel to an owner, and to the next one (section 3; pure).

``step`` looks at the durable record, at what the nodes say, and at a little memory that every coordinator
begins empty, and says the one thing to do next. It is asked again after that was done, and whenever
something has changed; so a crash anywhere is repaired by whoever asks it next.

    UNASSIGNED -> ASSIGNING(term + 1) -> ASSIGNED(same term)      from both, on loss -> ASSIGNING(term + 1)

* The record is written **before** any node is told: ``Ask`` and ``Release`` only speak of what it shows.
* A planned move lets the new owner load first, then releases the old one, then asks the new one to serve. An
  unplanned one asks at once: the fence of the log needs nobody's leave.
* No deadline ends an opening that moves; one that stands still for ``open_stall_ms`` goes elsewhere.
* Three failed openings in a row: pauses, ever longer, to a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from woodpecker.streaming.core.fleet import Standing
from woodpecker.streaming.core.records import Assignment, Owner, PchannelRecord
from woodpecker.streaming.frames import MapEntry, PchannelStatus

FORMER_COUNT = 4
ASK_AGAIN_MS = 1_000.0
RELEASE_AGAIN_MS = 1_000.0
STEADY_MS = 60_000.0  # served for so long: the failures before are forgotten
FREE_FAILURES = 2  # in a row, before a pause
PAUSE_FIRST_MS = 2_000.0
PAUSE_LIMIT_MS = 60_000.0

SERVING = "serving"
HOLDING = ("opening", "replaying", "serving", "closing")
ENDED = ("closing", "closed", "failed")
A_FIT_NODE = "a node that may serve it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Of the machine; milliseconds."""

    session_ttl_ms: float
    release_timeout_ms: float
    open_stall_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLife:
    """One life of a node, and where it is."""

    node: str
    incarnation: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is known of one owner, present or former, concerning this pchannel.

    ``status``: the newest word of that life about it; None: it has none, or was never heard.
    """

    standing: Standing
    is_heard: bool
    status: PchannelStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What bears on one pchannel now.

    Attributes:
        choose: a fit node that is none of these, where it burdens least; None: there is none.
        others: nodes that are heard and hold it, with the terms they tell; the owner may be among them.
        leave: the owner is to be left (it drains).
        move_to: somebody wants it there.
        is_reported: a client could not use the owner at the record's term.
    """

    now_ms: float
    epoch: int
    owner: Sight | None
    formers: tuple[Sight, ...]
    choose: Callable[[Collection[str]], NodeLife | None]
    others: tuple[Owner, ...] = ()
    leave: bool = False
    move_to: NodeLife | None = None
    is_reported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one coordinator remembers of one pchannel between steps; times None: not yet in this term."""

    term: int = -1
    moved_ms: float = 0.0  # the opening last moved, or the term was first seen
    progress: tuple[str, int, int, str] | None = None
    served_ms: float | None = None  # it was first seen serving
    asked_ms: float | None = None
    released_ms: float | None = None  # the former owners were first released
    released_again_ms: float = 0.0
    has_failed: bool = False  # this term was counted as a failure
    failures: int = 0  # openings in a row; outlives the term
    retry_ms: float = 0.0  # no new term for an opening that failed before
    reason: str = ""  # of the newest failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Write this record by compare-and-swap."""

    record: PchannelRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Ask the record's owner to serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Ask these to give it up; nobody waits for their answers."""

    owners: tuple[Owner, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """Somebody knows of a newer record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing is to be done before something changes, or until ``until_ms``. ``whom``: for people."""

    whom: str = ""
    until_ms: float | None = None


Act = Write | Ask | Release | Reread | Wait


def step(record: PchannelRecord, memory: Memory, view: View, timing: Timing) -> tuple[Memory, Act]:
    """What to do next, and what to remember once it is being done."""
    memory = _observed(record, memory, view)
    owner = view.owner
    if record.owner is None or owner is None:
        return memory, _assign_anew(record, view, avoid=(), whom=A_FIT_NODE)
    lost = _if_lost(record, owner, view)
    if lost is not None:
        return memory, lost
    status = owner.status
    if status is not None and status.term == record.term:
        if status.state == SERVING:
            return _served(record, memory, view)
        if status.state in ENDED:
            return memory, _after_end(record, memory, status, view)
        target = view.choose((record.owner.node,)) if view.leave else None
        if target is not None:
            return memory, Write(record=assigned_to(record, target, view))
    if _stands_still(memory, owner, view, timing):
        memory = _failed(memory, view, "the opening stands still")
        return memory, _elsewhere(record, memory, view)
    return _opening(record, memory, view, timing)


def _if_lost(record: PchannelRecord, owner: Sight, view: View) -> Act | None:
    """What follows when the owner does not live, or nobody knows; None: it lives."""
    assert record.owner is not None
    if owner.standing is Standing.GONE:
        return _assign_anew(record, view, avoid=(), whom=A_FIT_NODE)
    if view.is_reported and not owner.is_heard:
        return _assign_anew(record, view, avoid=(record.owner.node,), whom="another node")
    if owner.standing is Standing.UNSURE:
        return Wait(whom=f"word of node {record.owner.node}")
    if owner.status is not None and owner.status.term > record.term:
        return Reread()
    return None


def assigned_to(record: PchannelRecord, target: NodeLife, view: View) -> PchannelRecord:
    """The record with its next term; whoever may still hold it is remembered."""
    term = record.term + 1
    return replace(
        record,
        term=term,
        state=Assignment.ASSIGNING,
        owner=Owner(
            node=target.node, incarnation=target.incarnation, address=target.address, term=term
        ),
        epoch=view.epoch,
        former=_former(record, view),
    )


def shown(record: PchannelRecord, memory: Memory, view: View) -> MapEntry:
    """What clients are told: the old owner of a planned move until it is released, or the new one serves."""
    owner = record.owner
    if owner is None:
        return MapEntry(pchannel=record.name, term=record.term)
    serving = record.state is Assignment.ASSIGNED
    status = None if view.owner is None else view.owner.status
    if status is not None and status.term == record.term:
        serving = status.state == SERVING
    if record.state is Assignment.ASSIGNING and memory.released_ms is None and not serving:
        for former, sight in zip(record.former, view.formers, strict=True):
            if _serves(former, sight):
                return _entry(record.name, former, serving=True)
    return _entry(record.name, owner, serving=serving)


def _entry(name: str, owner: Owner, *, serving: bool) -> MapEntry:
    return MapEntry(
        pchannel=name,
        term=owner.term,
        node=owner.node,
        incarnation=owner.incarnation,
        address=owner.address,
        serving=serving,
    )


# --- what a term has come to ---


def _observed(record: PchannelRecord, memory: Memory, view: View) -> Memory:
    """The memory after a look: of a new term it begins anew, but for its failures."""
    now_ms = view.now_ms
    if memory.term != record.term:
        memory = Memory(
            term=record.term,
            moved_ms=now_ms,
            failures=memory.failures,
            retry_ms=memory.retry_ms,
            reason=memory.reason,
        )
    status = None if view.owner is None else view.owner.status
    if status is None or status.term != record.term:
        return memory
    progress = (status.state, status.done_bytes, status.total_bytes, status.reason)
    if progress != memory.progress:
        memory = replace(memory, progress=progress, moved_ms=now_ms)
    if status.state == "failed":
        return _failed(memory, view, status.reason)
    if status.state == "closed" and record.state is Assignment.ASSIGNED and not view.leave:
        return _failed(memory, view, status.reason or "its writer ended")
    if status.state != SERVING:
        return replace(memory, served_ms=None)
    if memory.served_ms is None:
        return replace(memory, served_ms=now_ms)
    if memory.failures and now_ms - memory.served_ms >= STEADY_MS:
        return replace(memory, failures=0, retry_ms=0.0, reason="")
    return memory


def _failed(memory: Memory, view: View, reason: str) -> Memory:
    """One more failure, counted once in a term."""
    if memory.has_failed:
        return memory
    failures = memory.failures + 1
    pause_ms = 0.0
    if failures > FREE_FAILURES:
        doubled = 2.0 ** min(failures - FREE_FAILURES - 1, 10)
        pause_ms = min(PAUSE_LIMIT_MS, PAUSE_FIRST_MS * doubled)
    return replace(
        memory,
        has_failed=True,
        failures=failures,
        retry_ms=view.now_ms + pause_ms,
        reason=reason,
    )


def _stands_still(memory: Memory, owner: Sight, view: View, timing: Timing) -> bool:
    """Whether an opening has not moved for too long; one that cannot be heard has less patience."""
    if memory.served_ms is not None or (memory.asked_ms is None and memory.progress is None):
        return False
    limit_ms = timing.open_stall_ms if owner.is_heard else timing.session_ttl_ms
    return view.now_ms - memory.moved_ms >= limit_ms


# --- what follows ---


def _assign_anew(
    record: PchannelRecord, view: View, *, avoid: Collection[str], whom: str
) -> Write | Wait:
    """The next term on a fit node; with none, a record that says so."""
    target = view.choose(avoid)
    if target is not None:
        return Write(record=assigned_to(record, target, view))
    is_gone = view.owner is not None and view.owner.standing is Standing.GONE
    if record.owner is not None and is_gone:
        unassigned = replace(
            record,
            state=Assignment.UNASSIGNED,
            owner=None,
            epoch=view.epoch,
            former=_former(record, view),
        )
        return Write(record=unassigned)
    return Wait(whom=whom)


def _elsewhere(record: PchannelRecord, memory: Memory, view: View) -> Act:
    """After a failure: the next term, rather on another node, and not before the pause is over."""
    assert record.owner is not None
    if view.now_ms < memory.retry_ms:
        return Wait(whom=f"a pause after {memory.failures} failures", until_ms=memory.retry_ms)
    target = view.choose((record.owner.node,)) or view.choose(())
    if target is None:
        return Wait(whom=A_FIT_NODE)
    return Write(record=assigned_to(record, target, view))


def _after_end(record: PchannelRecord, memory: Memory, status: PchannelStatus, view: View) -> Act:
    """The owner has ended this term, or is about to."""
    assert record.owner is not None
    if status.state != "closing":
        return _elsewhere(record, memory, view)
    return _assign_anew(record, view, avoid=(record.owner.node,), whom="another node")


def _served(record: PchannelRecord, memory: Memory, view: View) -> tuple[Memory, Act]:
    """The owner serves: write that down, see the former ones off, then do what is wanted of it."""
    assert record.owner is not None
    former = _former(record, view, owner_too=False)
    if record.state is Assignment.ASSIGNING or former != record.former:
        assigned = replace(
            record, state=Assignment.ASSIGNED, former=former, epoch=max(record.epoch, view.epoch)
        )
        return memory, Write(record=assigned)
    target = view.choose((record.owner.node,)) if view.leave else view.move_to
    if target is not None:
        return memory, Write(record=assigned_to(record, target, view))
    holders = (*_holders(record, view), *_strays(record, view))
    again_ms = memory.released_again_ms + RELEASE_AGAIN_MS
    if holders and view.now_ms >= again_ms:
        return replace(memory, released_again_ms=view.now_ms), Release(owners=holders)
    if view.leave:
        return memory, Wait(whom="another node")
    return memory, Wait(until_ms=again_ms if holders else None)


def _opening(
    record: PchannelRecord, memory: Memory, view: View, timing: Timing
) -> tuple[Memory, Act]:
    """Not yet serving: former owners first, as far as they can be asked, then the new one."""
    assert record.owner is not None and view.owner is not None
    now_ms, whom = view.now_ms, f"node {record.owner.node} to serve"
    if record.state is Assignment.ASSIGNED and not view.owner.is_heard:
        return memory, Wait(whom=f"word of node {record.owner.node}")
    if memory.asked_ms is None:
        memory, first = _formers_first(record, memory, view, timing)
        if first is not None:
            return memory, first
    status = view.owner.status
    is_known = status is not None and status.term == record.term and status.state in HOLDING
    if is_known and view.owner.is_heard:
        return memory, Wait(whom=whom, until_ms=memory.moved_ms + timing.open_stall_ms)
    if memory.asked_ms is not None and now_ms < memory.asked_ms + ASK_AGAIN_MS:
        return memory, Wait(whom=whom, until_ms=memory.asked_ms + ASK_AGAIN_MS)
    moved_ms = now_ms if memory.asked_ms is None else memory.moved_ms
    return replace(memory, asked_ms=now_ms, moved_ms=moved_ms), Ask()


def _formers_first(
    record: PchannelRecord, memory: Memory, view: View, timing: Timing
) -> tuple[Memory, Act | None]:
    """What is to be done with the former owners before the new one is asked; None: nothing any more."""
    holders, now_ms = _holders(record, view), view.now_ms
    if not holders:
        return memory, None
    since_ms = now_ms if memory.released_ms is None else memory.released_ms
    until_ms = since_ms + timing.release_timeout_ms
    if now_ms >= until_ms and memory.released_ms is not None:
        return memory, None
    again_ms = memory.released_again_ms + RELEASE_AGAIN_MS
    if memory.released_ms is None or now_ms >= again_ms:
        memory = replace(memory, released_ms=since_ms, released_again_ms=now_ms)
        return memory, Release(owners=holders)
    whom = f"node {', '.join(owner.node for owner in holders)} to give it up"
    return memory, Wait(whom=whom, until_ms=min(until_ms, again_ms))


# --- former owners ---


def _holds(owner: Owner, sight: Sight) -> bool:
    """Whether a former owner says that it still has the pchannel."""
    status = sight.status
    if sight.standing is Standing.GONE or not sight.is_heard or status is None:
        return False
    return status.term <= owner.term and status.state in HOLDING


def _serves(owner: Owner, sight: Sight) -> bool:
    status = sight.status
    return _holds(owner, sight) and status is not None and status.state == SERVING


def _holders(record: PchannelRecord, view: View) -> tuple[Owner, ...]:
    pairs = zip(record.former, view.formers, strict=True)
    return tuple(owner for owner, sight in pairs if _holds(owner, sight))


def _strays(record: PchannelRecord, view: View) -> tuple[Owner, ...]:
    """Owners of older terms that the record knows no more.

    One that was taken for gone, and is not: with nothing to write it never meets the fence, and would hold the
    pchannel for ever.
    """
    known = {(owner.node, owner.incarnation) for owner in record.former}
    return tuple(
        other
        for other in view.others
        if other.term < record.term and (other.node, other.incarnation) not in known
    )


def _former(record: PchannelRecord, view: View, *, owner_too: bool = True) -> tuple[Owner, ...]:
    """Former owners, newest first, that are not known to be gone or to have given it up."""
    pairs = list(zip(record.former, view.formers, strict=True))
    if owner_too and record.owner is not None and view.owner is not None:
        pairs.insert(0, (record.owner, view.owner))
    kept = [
        owner
        for owner, sight in pairs
        if sight.standing is not Standing.GONE and not (sight.is_heard and not _holds(owner, sight))
    ]
    return tuple(kept[:FORMER_COUNT])
