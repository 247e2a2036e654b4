"""The rules by which a streaming service is judged, over what was written down. Pure: lists of what is broken.

Names like S5 are the invariants of the protocol (docs/streaming-protocol.md, section 15). ``tests/unit/testing``
has a bad history for each rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise

from woodpecker.streaming.core.values import Position
from woodpecker.testing.stream_sim.books import (
    Announced,
    Book,
    History,
    Passing,
    Sent,
    Shown,
    Signal,
    Trims,
    View,
    Written,
)

Fault = tuple[str, str]  # rule, what is wrong
Faults = Iterator[Fault]


# ------------------------------------------------------------------------------- what readers saw


def course(view: View) -> Faults:
    """S1, S3, S4 and the order of ephemerals, within one consumer's life."""
    signal = newest = -1
    last: Shown | None = None
    passed: set[bytes] = set()
    for event in view.events:
        if isinstance(event, Signal):
            signal = max(signal, event.tick)
            continue
        if event.tick <= signal:
            yield "S4", f"{view.who}: {event} after the signal {signal}"
        if isinstance(event, Passing):
            if event.payload in passed:
                yield "S1", f"{view.who}: ephemeral {event.payload!r} came twice"
            passed.add(event.payload)
        elif last is not None and event.position <= last.position:
            yield "S1", f"{view.who}: {event} after {last}"
        if event.tick < newest:
            yield "S3", f"{view.who}: {event} after the tick {newest}"
        newest = max(newest, event.tick)
        last = event if isinstance(event, Shown) else last


def merged(kept: Sequence[Shown], kept_from: int, views: Sequence[View]) -> History:
    """One history of what is there and what was there; views that differ are found by ``agreement``."""
    places = {one.position: one for one in kept}
    spans = []
    for view in views:
        got = view.got
        if view.type is not None or not got:
            continue
        for one in got:
            if one.low < kept_from:
                places.setdefault(one.position, one)
        spans.append((0 if view.is_first else got[0].position.seq, got[-1].position.seq))
    return History(
        all=[places[place] for place in sorted(places)], kept_from=kept_from, spans=spans
    )


def agreement(view: View, history: History) -> Faults:
    """S1, S7: what anybody saw, through buffers or logs, is just what its filter lets pass of the history."""
    got = view.got
    if not got:
        return
    begin = Position(0) if view.is_first else got[0].position
    got = [one for one in got if history.knows(one.position)]
    wanted = [
        one
        for one in history.all
        if view.wants(one)
        and begin <= one.position <= view.got[-1].position
        and history.knows(one.position)
    ]
    if got != wanted:
        at = next(i for i in range(len(got) + 1) if got[i : i + 1] != wanted[i : i + 1])
        yield "S7", f"{view.who}: number {at} is {got[at : at + 1]}, not {wanted[at : at + 1]}"


def lagging(view: View, history: History) -> list[Shown]:
    """What a consumer has still to be shown. Nobody knows where a late one began that was shown nothing yet."""
    got = view.got
    if not got and not view.is_first:
        return []
    at = got[-1].position.after() if got else Position(0)
    return [
        one
        for one in history.all
        if one.position >= at and view.wants(one) and history.knows(one.position)
    ]


# ------------------------------------------------------------------------- what producers were told


def told(book: Book, history: History) -> Faults:
    """S1, S5, S15: what is written is what was acknowledged, once; what was refused is not."""
    places: dict[bytes, list[Position]] = {}
    for one in history.all:
        places.setdefault(one.payload, []).append(one.position)
    for payload, found in places.items():
        if len(found) > 1:
            yield "S1", f"{payload!r} is in {book.name} {len(found)} times: {found}"
        if payload in book.passing:
            yield "S1", f"{payload!r} was ephemeral, and is kept at {found}"
    for sent in book.sent:
        found = [place for payload in sent.payloads for place in places.get(payload, ())]
        for rule, text in _told_wrong(sent, found, history):
            yield rule, f"{book.name}: {sent.payloads} of {sent.line}: {text}"


def _told_wrong(sent: Sent, found: list[Position], history: History) -> Faults:
    if found and len(found) != len(sent.payloads):
        yield "S5", f"{len(found)} of {len(sent.payloads)} messages are there"
    elif sent.is_txn and len({position.seq for position in found}) > 1:
        yield "S5", f"in several places: {found}"
    elif sent.outcome == "ack":
        assert sent.position is not None
        seqs = {position.seq for position in found}
        if sent.position.seq not in seqs and (found or history.knows(sent.position)):
            yield "S1", f"acknowledged at {sent.position}, is at {found}"
    elif sent.outcome == "not written" and found:
        yield "S15", f"told not to be written, is at {found}"


def order(book: Book, history: History) -> Faults:
    """S2: what one producer sent comes in the order in which it was sent."""
    places = {one.payload: one.position for one in history.all}
    newest: dict[str, Position] = {}
    for sent in book.sent:
        first = places.get(sent.payloads[0])
        if first is None:
            continue
        if sent.line in newest and first < newest[sent.line]:
            yield "S2", f"{sent.payloads[0]!r} stands before what was sent before it"
        newest[sent.line] = first


# -------------------------------------------------------------------------------------- broadcasts


def broadcast(one: Announced, histories: Mapping[str, History]) -> Faults:
    """S12: once on each target, where it was told to be; on all of them, or on none and nobody was told."""
    present, missing = [], []
    for target in one.targets:
        history = histories[target]
        found = [message.position for message in history.all if message.payload == one.payload]
        if len(found) > 1:
            yield "S12", f"broadcast {one.key} is on {target} {len(found)} times: {found}"
        place = None if one.positions is None else one.positions.get(target)
        if found:
            present.append(target)
        elif history.is_whole if place is None else history.knows(place):
            missing.append(target)
        if place is not None and found and place not in found:
            yield "S12", f"broadcast {one.key} was told to be at {place} of {target}, is at {found}"
    if missing and (present or one.positions is not None):
        yield "S12", f"broadcast {one.key} is on {present}, and not on {missing}"


def broadcast_order(all_: Sequence[Announced], histories: Mapping[str, History]) -> Faults:
    """S12: two that share a resource have one order on all channels that got both."""
    places = {
        name: {message.payload: message.position for message in history.all}
        for name, history in histories.items()
    }
    for one, other in combinations(all_, 2):
        if not set(one.resources) & set(other.resources):
            continue
        both = [
            name
            for name in one.targets
            if one.payload in places[name] and other.payload in places[name]
        ]
        if len({places[name][one.payload] < places[name][other.payload] for name in both}) > 1:
            yield "S12", f"broadcasts {one.key} and {other.key} differ in their order on {both}"


# ------------------------------------------------------------------------------------- the logs


def log(pchannel: str, batches: Iterable[Written]) -> Faults:
    """S3, S12, S16: of the log of one pchannel, as it stands."""
    ended: set[int] = set()
    announced: set[tuple[int, int]] = set()
    batches = list(batches)
    for before, after in pairwise(batches):
        if after.tick <= before.tick or after.seq <= before.seq or after.term < before.term:
            yield "S3", f"{pchannel}: {after} stands behind {before}"
    for batch in batches:
        if batch.kind == "Delete":
            ended.add(batch.vcid)
        elif batch.kind in {"Data", "Broadcast"} and batch.vcid in ended:
            yield "S16", f"{pchannel}: {batch} is in a channel that was deleted before"
        if batch.kind == "Broadcast":
            if (batch.vcid, batch.number) in announced:
                yield "S12", f"{pchannel}: {batch} is there for the second time"
            announced.add((batch.vcid, batch.number))


def told_by_log(book: Book, batches: Iterable[Written], earliest: int) -> Faults:
    """S1, S2, S15, S16: of messages without transaction, also of a channel that nobody can read any more.

    ``batches``: of all pchannels' logs. ``earliest``: the highest seq from which on any of them is kept.
    """
    places: dict[bytes, list[Written]] = {}
    for batch in batches:
        for payload in batch.payloads:
            places.setdefault(payload, []).append(batch)
    for sent in book.sent:
        for payload in sent.payloads:
            found = places.get(payload, [])
            strange = [batch for batch in found if batch.vcid != book.vcid]
            if strange:
                yield "S16", f"{payload!r} for {book.name} ({book.vcid}) is in {strange}"
            if len(found) > 1:
                yield "S2", f"{payload!r} is in the log {len(found)} times: {found}"
            if sent.is_txn:
                continue
            if sent.outcome == "not written" and found:
                yield "S15", f"{payload!r} was told not to be written, is in {found}"
            at = sent.position
            if sent.outcome == "ack" and at is not None and at.seq >= earliest and not found:
                yield "S1", f"{payload!r} was acknowledged at {at}, and is not in the log"


def trims(pchannel: str, holds: Trims) -> Faults:
    """S9: nothing is trimmed that a checkpoint or a cursor needs."""
    if not holds.earliest:
        return
    if len(holds.checkpoints) < 2 or min(holds.checkpoints) < holds.earliest:
        yield (
            "S9",
            f"{pchannel} is trimmed to {holds.earliest}, its checkpoints are of {holds.checkpoints}",
        )
    for name, low in holds.cursors.items():
        if low < holds.earliest:
            yield (
                "S9",
                f"{pchannel} is trimmed to {holds.earliest}, cursor {name} needs it from {low}",
            )


# ------------------------------------------------------------------------------------- cursors


def handed(book: Book, cursor: str, history: History) -> list[bytes]:
    """What is kept, passes the cursor's filter, and was never handed to a holder of it."""
    record = book.cursors[cursor]
    return [
        one.payload
        for one in history.all
        if one.low >= history.kept_from
        and record.type in {None, one.type}
        and one.payload not in record.handed
    ]


def unacknowledged(book: Book, cursor: str) -> set[bytes]:
    """S11: what the next holder of a cursor must be handed again."""
    record = book.cursors[cursor]
    return record.handed - record.acked
