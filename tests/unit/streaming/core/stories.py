"""Logs that an owner may write, drawn by Hypothesis; and a second, dumb way to read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from tests.unit.streaming.core.kit import Pchannel

from woodpecker.streaming.core import orders
from woodpecker.streaming.core.facts import (
    AbortTxn,
    Broadcast,
    Close,
    Data,
    Delete,
    Facts,
    Grant,
    Limit,
    TableLimits,
    Trim,
)
from woodpecker.streaming.core.values import Position

PRODUCERS = ("a", "b", "c")
VCIDS = (1, 2)

Act = tuple[str, int, int]
acts = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "send", "begin", "body", "body", "commit", "abort", "join", "grant", "expire",
             "delete", "trim", "broadcast", "take over", "limit", "close", "time"]
        ),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=60,
)  # fmt: skip


def played(story: list[Act], *, sessions: int = 2) -> Pchannel:
    """The log after a story; what admission refuses is not in it."""
    limits = TableLimits(sessions=sessions, session_young_us=40, session_forget_us=300)
    channel = Pchannel(limits=limits)
    for vcid in VCIDS:
        channel.create(vcid)
    for act, who, number in story:
        if channel.fold.is_closed:
            channel.take_over()
        _ACTS[act](channel, who, number)
    return channel


def _send(channel: Pchannel, who: int, number: int, **more: Any) -> None:
    vcid = 1 + number % 2
    channel.send(channel.asked(PRODUCERS[who], vcid=vcid, count=1 + number % 3, **more))


def _newest(channel: Pchannel, who: int) -> tuple[int, int]:
    """(number, vcid) of the producer's newest open transaction; (-1, 1): none."""
    session = channel.fold.sessions.get(PRODUCERS[who])
    if session is None or not session.open:
        return -1, 1
    txn = channel.fold.open[session.open[-1]]
    return txn.number, txn.vcid


def _begin(channel: Pchannel, who: int, number: int) -> None:
    session = channel.fold.sessions.get(PRODUCERS[who])
    next_number = 0 if session is None else session.last_number + 1
    asked = channel.asked(
        PRODUCERS[who], vcid=1 + number % 2, count=number, number=next_number, begin=True
    )
    channel.send(asked)


def _goes_on(**more: Any) -> Callable[[Pchannel, int, int], None]:
    def act(channel: Pchannel, who: int, number: int) -> None:
        txn, vcid = _newest(channel, who)
        count = 0 if "abort" in more else number
        if txn >= 0:
            channel.send(channel.asked(PRODUCERS[who], vcid=vcid, count=count, number=txn, **more))

    return act


def _expire(channel: Pchannel, who: int, number: int) -> None:
    if channel.fold.open:
        txn = list(channel.fold.open)[number % len(channel.fold.open)]
        channel.control(AbortTxn(txn=txn, reason="expired"), vcid=channel.fold.open[txn].vcid)


def _grant(channel: Pchannel, who: int, number: int) -> None:
    verdict = orders.grant(channel.fold, PRODUCERS[who], tick=channel.tick)
    if isinstance(verdict, Grant):
        channel.control(verdict)


def _delete(channel: Pchannel, who: int, number: int) -> None:
    if number == 3:
        channel.control(Delete(), vcid=1 + who % 2)


def _trim(channel: Pchannel, who: int, number: int) -> None:
    channel.control(Trim(before=max(0, channel.fold.next_seq - 4 * number)), vcid=1 + who % 2)


def _broadcast(channel: Pchannel, who: int, number: int) -> None:
    body = Broadcast(id=channel.fold.next_seq, floor=max(0, channel.fold.next_seq - 5 * number))
    verdict = orders.judge_broadcast(channel.fold, 1 + who % 2, body)
    if isinstance(verdict, orders.Write):
        channel.control(verdict.body, vcid=verdict.vcid)


def _time(channel: Pchannel, who: int, number: int) -> None:
    channel.clock_us = channel.tick + 30 * number


_ACTS: dict[str, Callable[[Pchannel, int, int], Any]] = {
    "send": _send,
    "begin": _begin,
    "body": _goes_on(),
    "commit": _goes_on(commit=True),
    "abort": _goes_on(abort=True),
    "join": _goes_on(commit=True, join=True),
    "grant": _grant,
    "expire": _expire,
    "delete": _delete,
    "trim": _trim,
    "broadcast": _broadcast,
    "take over": lambda channel, *_: channel.take_over(),
    "limit": lambda channel, *_: channel.control(Limit()),
    "close": lambda channel, *_: channel.control(Close()),
    "time": _time,
}


Message = tuple[Position, int, bytes]  # position, tick, payload


def dumb_read(channel: Pchannel, vcid: int) -> list[Message]:
    """All that the channel ever delivers, told from the whole log at once; trims aside."""
    verdicts = _verdicts(channel)
    messages: list[Message] = []
    for facts, payloads in zip(channel.log, channel.payloads, strict=True):
        body = facts.column.body
        if facts.column.vcid != vcid or isinstance(body, Delete):
            continue
        if isinstance(body, Broadcast) or (isinstance(body, Data) and body.txn < 0):
            messages += [
                (Position(facts.seq + index), facts.tick + index, payload)
                for index, payload in enumerate(payloads)
            ]
        elif isinstance(body, Data) and verdicts.get(body.txn) == facts.seq:
            messages += _whole(channel, facts, body)
    return messages


def _whole(channel: Pchannel, commit: Facts, data: Data) -> list[Message]:
    payloads = [
        payload
        for facts, own in zip(channel.log, channel.payloads, strict=True)
        for payload in own
        if isinstance(facts.column.body, Data)
        and facts.column.body.txn == data.txn
        and facts.seq <= commit.seq
        and not facts.column.body.hollow
    ]
    if data.join and payloads:
        payloads = [b"".join(payloads)]
    seq, tick = commit.end - 1, commit.last_tick
    return [(Position(seq, index), tick, payload) for index, payload in enumerate(payloads)]


def _verdicts(channel: Pchannel) -> dict[int, int]:
    """By transaction: seq of the batch that decided it, if that is its commit; else -1."""
    verdicts: dict[int, int] = {}
    opened: dict[int, Facts] = {}
    for facts in channel.log:
        column, body = facts.column, facts.column.body
        if isinstance(body, Data) and body.begin:
            opened[body.txn] = facts
        for txn, begin in opened.items():
            if txn in verdicts:
                continue
            own = begin.column.body
            assert isinstance(own, Data)
            if isinstance(body, Data) and body.txn == txn and (body.commit or body.abort):
                verdicts[txn] = facts.seq if body.commit else -1
            elif (
                (isinstance(body, AbortTxn) and body.txn == txn)
                or (isinstance(body, Grant) and body.producer == own.producer)
                or (isinstance(body, Delete) and column.vcid == begin.column.vcid)
            ):
                verdicts[txn] = -1
    return verdicts
