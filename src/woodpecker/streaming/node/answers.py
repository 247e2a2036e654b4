"""Unary requests at the life that serves a pchannel: read points, transactions, control records."""

from __future__ import annotations

from woodpecker.errors import InvalidRequest, WoodpeckerError
from woodpecker.streaming import requests
from woodpecker.streaming.core.admission import Refuse
from woodpecker.streaming.core.facts import Broadcast, Create, Facts
from woodpecker.streaming.core.orders import (
    Write,
    Written,
    describe,
    judge_broadcast,
    judge_create,
    judge_delete,
    judge_trim,
)
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.tables import Verdict
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.line import refusal_of
from woodpecker.streaming.node.starts import channel_of


async def read_point(life: Life, request: requests.GetReadPoint) -> requests.ReadPoint:
    """What is acknowledged now, once it is proven that nobody else can have acknowledged more.

    Raises: Refused: MOVED, GONE, UNAVAILABLE.
    """
    await channel_of(life, request.vcid)
    position = life.position
    await life.prove()
    return requests.ReadPoint(position=position)


async def describe_transaction(
    life: Life, request: requests.DescribeTransaction
) -> requests.TransactionState:
    """Of everything sequenced so far, when that is acknowledged and the log was still ours.

    Raises: Refused: MOVED, UNAVAILABLE.
    """
    found = describe(life.line.fold, request.producer, request.epoch, request.txn_number)
    await life.settled()
    await life.prove()
    if not isinstance(found, Verdict):
        return requests.TransactionState(state=found)
    if found.position is None:
        return requests.TransactionState(state="aborted", reason=found.reason)
    return requests.TransactionState(state="committed", position=found.position)


async def append_control(life: Life, request: requests.AppendControl) -> requests.ControlWritten:
    """Write a control record, once. Raises: Refused; InvalidRequest: nothing has happened."""
    if life.refusal is not None:
        raise Refused(life.refusal)
    size, most = len(request.payload), life.settings.message_max_bytes
    if size > most:  # the log would refuse it when the fold holds it already
        raise InvalidRequest(f"a payload of {size} bytes; allowed are {most}")
    judged = _judged(life, request)
    if isinstance(judged, Refuse):
        await life.settled()
        if judged.needs_proof:  # what is not here may be at a newer owner
            await life.prove()
        raise Refused(judged.refusal)
    if isinstance(judged, Written):
        place = judged.place
        await life.settled()
    else:
        facts = await _written(life, judged, request.payload)
        return requests.ControlWritten(
            position=Position(facts.seq, 0, facts.tick, facts.column.low, life.term)
        )
    return requests.ControlWritten(
        position=Position(place.seq, 0, place.tick, place.low, life.term)
    )


async def _written(life: Life, write: Write, payload: bytes) -> Facts:
    """Raises: Refused: MOVED or UNKNOWN: what ended the writer says where to go on, not what befell it.

    InvalidRequest: no record can say so.
    """
    try:
        facts = life.line.write_control(write.body, vcid=write.vcid, payload=payload)
        life.timers.decided()
        await life.written(facts)
    except InvalidRequest:  # nothing has happened
        raise
    except WoodpeckerError as error:
        raise Refused(refusal_of(error)) from error
    return facts


def _judged(life: Life, request: requests.AppendControl) -> Write | Written | Refuse:
    fold = life.line.fold
    match request.kind:
        case "vc-create":
            create = Create(
                name=request.name,
                retention_age_s=request.retention_age_s,
                retention_bytes=request.retention_bytes,
            )
            return judge_create(fold, request.vcid, create, settings=life.settings)
        case "vc-delete":
            return judge_delete(fold, request.vcid)
        case "vc-trim":
            return judge_trim(fold, request.vcid, request.trim_before)
        case "broadcast":
            broadcast = Broadcast(
                id=request.broadcast_id, floor=request.broadcast_floor, type=request.type
            )
            return judge_broadcast(fold, request.vcid, broadcast)
    text = f"control records of kind {request.kind!r} are not known here"
    raise Refused(Refusal(kind=Class.INVALID, message=text))
