"""Cursors of subscriptions, written by the node on behalf of their holder. ``core/cursors.py`` has the rules.

A subscription is a cursor of the log, named ``<vcid>.<name>``, whose position is ``low`` of what is done: it
holds retention. All else lies in its data, and is changed by compare-and-swap on it.
"""

from __future__ import annotations

from woodpecker import Cursor, Log
from woodpecker.errors import Conflict, InvalidRequest, NotFound
from woodpecker.streaming import requests
from woodpecker.streaming.codec.cursors import decode_cursor, encode_cursor
from woodpecker.streaming.core.cursors import CursorRecord, attached, committed
from woodpecker.streaming.core.fold import Vchannel
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.node.serving import Serving
from woodpecker.streaming.node.starts import begin_of, channel_of

TRIES = 16


async def open_cursor(serving: Serving, request: requests.OpenCursor) -> requests.CursorState:
    """See ``requests.OpenCursor``. Raises: Refused, WoodpeckerError."""
    channel = await channel_of(serving, request.vcid)
    name = _name(request.vcid, request.cursor)
    if not request.attach:
        return _state(request, _record_of(await _find(serving.log, request)))
    start = None
    for _ in range(TRIES):
        try:
            cursor = await serving.log.cursor(name, create=False)
        except NotFound:
            start = start or await _start_of(serving, channel, request)
            cursor = await serving.log.cursor(name, start=start.low)
        found = _record_of(cursor) if cursor.data else None
        if found is None and start is None:  # made by somebody who then died
            start = await _start_of(serving, channel, request)
        wanted = attached(
            found,
            start=start or Position(0),  # of no meaning when it is there
            holder=request.holder,
            nonce=request.nonce,
            where=request.where,
        )
        if isinstance(wanted, Refusal):
            raise Refused(wanted)
        if wanted == found or await _write(cursor, wanted):
            return _state(request, wanted)
    raise _contended(name)


async def commit_cursor(serving: Serving, request: requests.CommitCursor) -> requests.CursorState:
    """See ``requests.CommitCursor``. Raises: Refused, WoodpeckerError."""
    await channel_of(serving, request.vcid)
    if len(request.ranges) > serving.settings.cursor_ranges:
        text = f"{len(request.ranges)} ranges; allowed are {serving.settings.cursor_ranges}"
        raise Refused(Refusal(kind=Class.INVALID, message=text))
    if request.done.seq > serving.line.acked:
        await serving.prove()  # a replaced owner knows less than was delivered
    if not 0 <= request.done.seq <= serving.line.acked or request.done.low > request.done.seq:
        text = f"{request.done} is no place in this log, which ends at {serving.line.acked}"
        raise Refused(Refusal(kind=Class.INVALID, message=text))
    for _ in range(TRIES):
        cursor = await _find(serving.log, request)
        found = _record_of(cursor)
        wanted = committed(
            found,
            generation=request.generation,
            done=request.done,
            ranges=tuple(request.ranges),
            reset=request.reset,
        )
        if isinstance(wanted, Refusal):
            raise Refused(wanted)
        if wanted == found or await _write(cursor, wanted):
            return _state(request, wanted)
    raise _contended(request.cursor)


async def list_cursors(serving: Serving, request: requests.ListCursors) -> requests.CursorList:
    """See ``requests.ListCursors``. Raises: WoodpeckerError."""
    found = []
    for cursor in await serving.log.cursors():
        vcid = vcid_of(cursor)
        if vcid is not None and request.vcid in (0, vcid):
            name = cursor.name.partition(".")[2]
            found.append(_state_of(vcid, name, _record_of(cursor)))
    return requests.CursorList(cursors=sorted(found, key=lambda one: (one.vcid, one.cursor)))


async def delete_cursor(serving: Serving, request: requests.DeleteCursor) -> requests.Done:
    """See ``requests.DeleteCursor``. Raises: WoodpeckerError."""
    try:
        await (await _find(serving.log, request)).delete()
    except Refused as error:
        if error.refusal.kind is not Class.NOT_FOUND:
            raise
    return requests.Done()


async def _start_of(serving: Serving, channel: Vchannel, request: requests.OpenCursor) -> Position:
    return (await begin_of(serving, channel, request.start)).position


_Named = requests.OpenCursor | requests.CommitCursor | requests.DeleteCursor


async def _find(log: Log, request: _Named) -> Cursor:
    try:
        return await log.cursor(_name(request.vcid, request.cursor), create=False)
    except NotFound as error:
        text = f"channel {request.vcid} has no subscription {request.cursor!r}"
        raise Refused(Refusal(kind=Class.NOT_FOUND, message=text)) from error


async def _write(cursor: Cursor, wanted: CursorRecord) -> bool:
    """Write the record; False: it was changed meanwhile."""
    data = encode_cursor(wanted)
    try:
        await cursor.commit(wanted.low, data=data, expect=cursor.data)
    except Conflict:
        return False
    return True


def _record_of(cursor: Cursor) -> CursorRecord:
    return decode_cursor(cursor.data, position=cursor.position, where=f"cursor {cursor.name!r}")


def _name(vcid: int, name: str) -> str:
    if not name:
        raise InvalidRequest("a subscription needs a name")
    return f"{vcid}.{name}"


def vcid_of(cursor: Cursor) -> int | None:
    """The channel of a subscription; None: it is not one."""
    vcid, _, name = cursor.name.partition(".")
    return int(vcid) if name and vcid.isdecimal() else None


def _contended(name: str) -> Refused:
    text = f"subscription {name!r} is being changed by others all the time; try again"
    return Refused(Refusal(kind=Class.LATER, message=text, after_ms=100))


def _state(request: _Named, record: CursorRecord) -> requests.CursorState:
    return _state_of(request.vcid, request.cursor, record)


def _state_of(vcid: int, name: str, record: CursorRecord) -> requests.CursorState:
    return requests.CursorState(
        cursor=name,
        vcid=vcid,
        generation=record.generation,
        holder=record.holder,
        done=record.done,
        ranges=record.ranges,
        where=record.where,
    )
