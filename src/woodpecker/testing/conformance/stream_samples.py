"""One of each frame and request with its reply, with something in every field: what a transport must carry."""

from __future__ import annotations

from typing import Any

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.values import (
    EndForm,
    Position,
    Properties,
    Start,
    StartForm,
    Stop,
    Where,
)
from woodpecker.streaming.requests import Request

PLACE = Position(7, 2, tick=1_700_000_000_000_000, low=5, term=3)
BARE = Position(9)
START = Start(form=StartForm.AFTER, value=7, index=2, term=3, low=5, ranges=((9, 11), (13, 13)))
WHERE = Where(type="event", key=b"\x00k", properties=((b"a", b"1"), (b"b", b"")))
PROPERTIES: tuple[Properties, ...] = (((b"p", b"v"), (b"q", b"\xff")), ())
FULL = frames.Messages(
    payloads=[b"one", b""], keys=[b"k", b""], properties=PROPERTIES, types=["event", ""]
)
PLAIN = frames.Messages(payloads=[b"a", b"b", b"c"])
NOTHING = frames.Messages(payloads=[])
REFUSAL = Refusal(
    kind=Class.LATER,
    message="busy: wait",
    term=4,
    address="node:1",
    after_ms=250,
    expected=3,
    actual=8,
    earliest=100,
    reason="keep-alive",
)
STATUS = frames.PchannelStatus(
    pchannel="p0",
    term=3,
    state="serving",
    done_bytes=5,
    total_bytes=10,
    reason="why",
    bytes_s=1.5,
    lag_ms=20,
    memory_bytes=4096,
    vchannels=7,
    vchannels_limit=100,
)
ENTRY = frames.MapEntry(
    pchannel="p0", term=3, node="n1", incarnation="f" * 32, address="h:1", serving=True
)
NOBODY = frames.MapEntry(pchannel="p1", term=0)
VERSION = frames.MapVersion(epoch=2, counter=9)

PRODUCE_UP: tuple[frames.ProduceUp, ...] = (
    frames.ProduceHello(pchannel="p0", term=3, incarnation="f" * 32, client="c"),
    frames.Attach(session=1, producer="billing", epoch=4),
    frames.Attach(session=2),
    frames.Batch(session=1, sequence=0, vcid=5, messages=FULL, grant_tick=17),
    frames.Batch(
        session=1, sequence=1, vcid=5, messages=PLAIN, txn_number=2, begin=True, keep_alive_ms=9000
    ),
    frames.Batch(
        session=1, sequence=2, vcid=5, messages=NOTHING, txn_number=2, commit=True, join=True
    ),
    frames.Batch(session=1, sequence=3, vcid=5, messages=NOTHING, txn_number=3, abort=True),
    frames.Batch(session=1, sequence=-1, vcid=5, messages=PLAIN, ephemeral=True),
    frames.KeepAlive(session=1, txn_number=2),
    frames.Close(),
)
PRODUCE_DOWN: tuple[frames.ProduceDown, ...] = (
    frames.ProduceReady(
        credit_bytes=1 << 24, rate_bytes_s=5, batch_max_bytes=1 << 24, message_max_bytes=1 << 26
    ),
    frames.Attached(session=1, producer="billing", epoch=4, next_sequence=6, grant_tick=12),
    frames.Attached(session=2, producer="x", epoch=0, next_sequence=0),
    frames.Ack(session=1, sequence=3, seq=70, tick=1_700_000_000_000_001, count=2, low=69),
    frames.Ack(session=1, sequence=-1, seq=-1, tick=-1, count=1),
    frames.BatchRefused(session=1, sequence=4, refusal=REFUSAL),
    frames.Credit(size_bytes=1 << 20),
    frames.Rate(rate_bytes_s=-1),
    frames.Moved(pchannel="p0", term=4, address="h:2"),
    frames.Close(),
    frames.Closed(),
)
CONSUME_UP: tuple[frames.ConsumeUp, ...] = (
    frames.ConsumeHello(pchannel="p0", term=3, incarnation="f" * 32, client="c"),
    frames.Subscribe(consumer=1, vcid=5, start=Start(form=StartForm.EARLIEST)),
    frames.Subscribe(
        consumer=2,
        vcid=5,
        start=START,
        stop=Stop(form=EndForm.POSITION, value=9, index=1),
        where=WHERE,
        credit_bytes=1 << 16,
        ticks=True,
    ),
    frames.Subscribe(
        consumer=3,
        vcid=5,
        start=Start(form=StartForm.TIME, value=1_700_000_000_000_000),
        stop=Stop(form=EndForm.TAIL),
        where=Where(key=b"", type=""),
    ),
    frames.Credit(size_bytes=7, consumer=2),
    frames.Unsubscribe(consumer=2),
    frames.AskProgress(),
    frames.Close(),
)
CONSUME_DOWN: tuple[frames.ConsumeDown, ...] = (
    frames.ConsumeReady(term=3),
    frames.Started(consumer=1, position=PLACE, tail=BARE),
    frames.Data(
        consumer=1,
        seqs=[7, 7],
        ticks=[11, 12],
        messages=FULL,
        indexes=[0, 1],
        low=5,
        term=3,
        cost_bytes=99,
    ),
    frames.Data(consumer=1, seqs=[-1, -1, -1], ticks=[13, 14, 15], messages=PLAIN, ephemeral=True),
    frames.Progress(position=PLACE, tick=15, proof_age_ms=20, consumers=[1, 2]),
    frames.Progress(position=BARE, tick=-1, proof_age_ms=0),
    frames.ConsumerEnded(consumer=1, position=PLACE),
    frames.ConsumerRefused(consumer=1, refusal=REFUSAL),
    frames.Moved(pchannel="p0"),
    frames.Close(),
    frames.Closed(),
)
STATUS_UP: tuple[frames.WatchStatus, ...] = (frames.WatchStatus(epoch=2),)
STATUS_DOWN: tuple[frames.NodeStatus, ...] = (
    frames.NodeStatus(
        node="n1",
        incarnation="f" * 32,
        is_full=True,
        pchannels=[STATUS],
        clock_us=17,
        memory_bytes=3,
    ),
    frames.NodeStatus(node="n1", incarnation="f" * 32, is_full=False, pchannels=[], clock_us=18),
)
DISCOVER_UP: tuple[frames.DiscoverUp, ...] = (
    frames.DiscoverHello(client="c", features=2),
    frames.Report(pchannel="p0", term=3, kind="moved"),
    frames.Report(resend_map=True),
    frames.Close(),
)
DISCOVER_DOWN: tuple[frames.DiscoverDown, ...] = (
    frames.MapChange(version=VERSION, entries=[ENTRY, NOBODY], digest="d"),
    frames.MapChange(
        version=VERSION,
        entries=[],
        digest="e",
        since=frames.MapVersion(epoch=0, counter=0),
        removed=["p9"],
    ),
    frames.Close(),
)

_CURSOR = requests.CursorState(
    cursor="mailer",
    vcid=5,
    generation=3,
    holder="c",
    done=PLACE,
    ranges=((BARE, Position(11, tick=4)),),
    where=WHERE,
)
_CHANNEL = requests.Channel(
    name="orders",
    vcid=5,
    pchannel="p0",
    state="deleting",
    retention_age_s=0,
    retention_bytes=1 << 40,
    attributes=(("team", "a"), ("", "")),
)
_NODE = requests.NodeInfo(
    node="n1",
    incarnation="f" * 32,
    address="h:1",
    zone="z",
    is_alive=True,
    draining=True,
    frozen=True,
    pchannels=["p0", "p1"],
    version="1",
    safe_to_terminate=True,
    waits_for="p0",
)
_PCHANNEL = requests.PchannelInfo(
    pchannel="p0",
    log="stream.p0",
    term=3,
    state="assigned",
    node="n1",
    reason="r",
    waits_for="n2",
    status=STATUS,
)
_CLUSTER = requests.ClusterState(
    coordinator="h:9",
    epoch=2,
    features=1,
    nodes=[_NODE],
    pchannels=[
        _PCHANNEL,
        requests.PchannelInfo(pchannel="p1", log="stream.p1", term=0, state="unassigned", node=""),
    ],
)
_BROADCAST = requests.BroadcastInfo(
    id=4,
    key="change-2",
    state="parked",
    positions={"a": PLACE, "b": BARE},
    skipped={"c": "deleted"},
    reason="r",
)
_DONE = requests.Done()

EXCHANGES: tuple[tuple[Request[Any], Any], ...] = (
    (requests.GetReadPoint(pchannel="p0", vcid=5), requests.ReadPoint(position=PLACE)),
    (
        requests.DescribeTransaction(pchannel="p0", producer="b", epoch=1, txn_number=2),
        requests.TransactionState(state="committed", position=PLACE, reason="r"),
    ),
    (
        requests.DescribeTransaction(pchannel="p0", producer="b", epoch=1, txn_number=3),
        requests.TransactionState(state="open"),
    ),
    (
        requests.OpenCursor(
            pchannel="p0",
            vcid=5,
            cursor="mailer",
            start=START,
            attach=False,
            holder="c",
            nonce="n",
            where=WHERE,
        ),
        _CURSOR,
    ),
    (
        requests.OpenCursor(
            pchannel="p0", vcid=5, cursor="mailer", start=Start(form=StartForm.LATEST)
        ),
        requests.CursorState(cursor="mailer", vcid=5, generation=1, holder="", done=BARE),
    ),
    (
        requests.CommitCursor(
            pchannel="p0",
            vcid=5,
            cursor="mailer",
            generation=3,
            done=PLACE,
            ranges=((BARE, BARE),),
            reset=True,
        ),
        _CURSOR,
    ),
    (
        requests.ListCursors(pchannel="p0", vcid=5),
        requests.CursorList(cursors=[_CURSOR, _CURSOR]),
    ),
    (requests.DeleteCursor(pchannel="p0", vcid=5, cursor="mailer"), _DONE),
    (
        requests.AppendControl(
            pchannel="p0",
            term=3,
            kind="broadcast",
            vcid=5,
            name="orders",
            trim_before=8,
            retention_age_s=0,
            retention_bytes=9,
            broadcast_id=4,
            broadcast_floor=2,
            payload=b"\x00p",
            type="t",
        ),
        requests.ControlWritten(position=PLACE),
    ),
    (
        requests.AppendControl(pchannel="p0", term=3, kind="vc-delete", vcid=5),
        requests.ControlWritten(position=Position(-1)),
    ),
    (
        requests.Assign(
            pchannel="p0",
            log="stream.p0",
            log_id="1" * 32,
            term=3,
            incarnation="f" * 32,
            epoch=2,
        ),
        STATUS,
    ),
    (requests.Release(pchannel="p0", term=3, incarnation="f" * 32, epoch=2), STATUS),
    (requests.Locate(names=["orders", "x"]), requests.Channels(channels=[_CHANNEL], more=True)),
    (
        requests.CreateChannel(
            name="orders",
            request="r1",
            exist_ok=True,
            pchannel="p0",
            retention_age_s=0,
            retention_bytes=5,
            attributes=(("team", "a"),),
        ),
        _CHANNEL,
    ),
    (
        requests.CreateChannel(name="orders", request="r1"),
        requests.Channel(name="orders", vcid=5, pchannel="p0"),
    ),
    (requests.DeleteChannel(name="orders", request="r2"), _DONE),
    (
        requests.ListChannels(prefix="o", start_after="oa", limit=5),
        requests.Channels(channels=[_CHANNEL]),
    ),
    (requests.DescribeCluster(), _CLUSTER),
    (requests.Move(pchannel="p0", node="n2"), _DONE),
    (requests.Freeze(node="n1", frozen=False), _DONE),
    (requests.Drain(node="n1", draining=False), _NODE),
    (requests.SetPolicy(balance=False, expected_nodes=3), _DONE),
    (requests.AddPchannels(count=4), _DONE),
    (
        requests.Broadcast(
            key="change-2", targets=["a", "b"], payload=b"p", type="t", resources=["schema"]
        ),
        _BROADCAST,
    ),
    (requests.GetBroadcast(key="change-2"), _BROADCAST),
    (requests.ListBroadcasts(), requests.BroadcastList(broadcasts=[_BROADCAST])),
    (requests.ResumeBroadcast(key="change-2", skip=True), _BROADCAST),
)


def as_sent(frame: object) -> object:
    """The same with lists as tuples: a transport may hand over either."""
    if isinstance(frame, list | tuple | range):
        return tuple(as_sent(each) for each in frame)
    if isinstance(frame, dict):
        return {name: as_sent(each) for name, each in frame.items()}
    if hasattr(frame, "__dataclass_fields__"):
        names = frame.__dataclass_fields__
        return type(frame), tuple(as_sent(getattr(frame, name)) for name in names)
    return frame
