"""What several processes did to one log and what they were told, as lines of JSON.

A process writes a ``Call`` before it acts and a ``Return`` as soon as it knows; a ``Call`` without
``Return`` is an operation whose outcome stays open for ever. Readers write what they were shown before
they act on it. Times are of one monotonic clock that all processes of the run share. ``checkers.py``
judges; nothing here does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Outcome = str  # "ok" | "refused" | "not_written" | "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry: a name that is unique in the run, and a checksum of payload and headers."""

    uid: str
    sum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A process is about to do something.

    Attributes:
        process: one life of one process. number: of the call, unique in that process.
        kind: "open" | "append" | "resolve" | "trim" | "tail" | "end" | "cursor" | "read"
            | "owner" | "delete".
        at_ns: before acting.
        epoch: of the writer an append goes through. expect: its ``expect_seq``.
        name: the producer an append belongs to, with its ``sequence``: the same name and sequence
            again is the same batch again, with the same items. Of "cursor": which one is created,
            committed or (``before`` is None) deleted.
        before: of a trim; the position of a cursor; where a "read" begins. hold: a trim that
            respects cursors.
    """

    tag: ClassVar[str] = "call"
    process: str
    number: int
    kind: str
    at_ns: int
    items: tuple[Item, ...] = ()
    epoch: int = 0
    expect: int | None = None
    before: int | None = None
    name: str = ""
    sequence: int | None = None
    hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """What a call answered.

    Attributes:
        outcome: "ok"; "refused": it had no effect and said why; "not_written": no effect, never will
            have; "unknown". error: code of the error, empty for "ok".
        value: of "ok": first seq (append), trim point (trim), tail (tail), next seq (open, end),
            position (cursor); of a refused append: the next seq it named; of a read or cursor
            refused as out of range: the earliest seq it named.
        epoch: of "ok" for open.
    """

    tag: ClassVar[str] = "return"
    process: str
    number: int
    at_ns: int
    outcome: Outcome
    error: str = ""
    value: int | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A reader was shown ``items`` from seq ``first`` on; one reader's lines continue each other."""

    tag: ClassVar[str] = "seen"
    process: str
    reader: str
    at_ns: int
    first: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """A reader began at ``start``, or from the earliest entry there is (None)."""

    tag: ClassVar[str] = "began"
    process: str
    reader: str
    at_ns: int
    start: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Anything worth counting: a seal, a roll, an error that was met; ``what`` is the name."""

    tag: ClassVar[str] = "note"
    process: str
    at_ns: int
    what: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The process ended by itself: all its calls must have returned.

    ``held`` is what its writers still counted as waiting or in flight then.
    """

    tag: ClassVar[str] = "ended"
    process: str
    at_ns: int
    held: int = 0


Event = Call | Return | Seen | Began | Note | Ended
_KINDS: dict[str, type[Any]] = {kind.tag: kind for kind in (Call, Return, Seen, Began, Note, Ended)}
_LEFT_OUT: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call with its return, if there was one."""

    call: Call
    result: Return | None

    @property
    def outcome(self) -> Outcome:
        """As returned; "unknown" while nothing was."""
        return "unknown" if self.result is None else self.result.outcome

    @property
    def is_ok(self) -> bool:
        """Whether it was acknowledged."""
        return self.result is not None and self.result.outcome == "ok"

    @property
    def ok_ns(self) -> float:
        """When it was acknowledged; infinity: never, so it may take effect at any later time."""
        return self.result.at_ns if self.result is not None and self.is_ok else float("inf")

    @property
    def value(self) -> int:
        """The value of an acknowledged operation."""
        assert self.result is not None and self.result.value is not None
        return self.result.value

    def __str__(self) -> str:
        call = self.call
        names = ",".join(item.uid for item in call.items[:3])
        more = f"+{len(call.items) - 3}" if len(call.items) > 3 else ""
        told = self.outcome if self.result is None or not self.result.error else self.result.error
        where = "" if self.result is None or self.result.value is None else f" {self.result.value}"
        return f"{call.process}#{call.number} {call.kind}({names}{more}) -> {told}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one reader saw, in its order."""

    process: str
    reader: str
    start: int | None
    began_ns: int
    seen: tuple[Seen, ...]


@dataclass(slots=True)
class History:
    """All that happened in one run, ordered by process; for ``checkers``."""

    operations: list[Operation] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    ended: dict[str, Ended] = field(default_factory=dict)

    def of(self, kind: str) -> list[Operation]:
        """The operations of one kind, as called."""
        return [operation for operation in self.operations if operation.call.kind == kind]


def encode(event: Event) -> bytes:
    """One line, with its newline."""
    fields: dict[str, Any] = {"tag": event.tag}
    for name in event.__slots__:
        value = getattr(event, name)
        if name == "items":
            value = [(item.uid, item.sum) for item in value]
        if value not in _LEFT_OUT:
            fields[name] = value
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Event:
    """Read one line back. Raises: ValueError, KeyError, TypeError: not a line of a history."""
    fields = json.loads(line)
    kind = _KINDS[fields.pop("tag")]
    if "items" in fields:
        fields["items"] = tuple(Item(uid=uid, sum=sum_) for uid, sum_ in fields["items"])
    if kind is Began:
        fields.setdefault("start", None)
    event: Event = kind(**fields)
    return event


def decode_file(data: bytes) -> list[Event]:
    """All whole lines; a process may have been killed in the middle of its last one."""
    return [decode(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def collect(events: Iterable[Event]) -> History:
    """Bring calls and returns, and the lines of each reader, together."""
    calls: dict[tuple[str, int], Call] = {}
    returns: dict[tuple[str, int], Return] = {}
    begun: dict[tuple[str, str], Began] = {}
    seen: dict[tuple[str, str], list[Seen]] = {}
    history = History()
    for event in events:
        match event:
            case Call():
                _put_once(calls, (event.process, event.number), event)
            case Return():
                _put_once(returns, (event.process, event.number), event)
            case Began():
                _put_once(begun, (event.process, event.reader), event)
            case Seen():
                seen.setdefault((event.process, event.reader), []).append(event)
            case Note():
                history.notes.append(event)
            case Ended():
                history.ended[event.process] = event
    assert returns.keys() <= calls.keys() and seen.keys() <= begun.keys(), "a line is missing"
    history.operations = [
        Operation(call=call, result=returns.get(key)) for key, call in calls.items()
    ]
    history.views = [_view(began, seen.get(key, ())) for key, began in begun.items()]
    return history


def _put_once(found: dict[Any, Any], key: Any, event: Event) -> None:
    assert key not in found, f"two lines for {key}"
    found[key] = event


def _view(began: Began, seen: Sequence[Seen]) -> View:
    return View(
        process=began.process,
        reader=began.reader,
        start=began.start,
        began_ns=began.at_ns,
        seen=tuple(seen),
    )
