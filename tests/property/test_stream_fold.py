"""Folds of whatever an owner may write: checkpoints, order, sessions, verdicts; and what readers make of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.streaming.core.kit import Pchannel
from tests.unit.streaming.core.stories import Act, Message, acts, dumb_read, played

from woodpecker.streaming.codec.checkpoint import decode_checkpoint, encode_checkpoint
from woodpecker.streaming.codec.column import decode_column, encode_column
from woodpecker.streaming.core.assembly import Assembly, read_from
from woodpecker.streaming.core.facts import Data, Facts
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.values import Position

MANY = settings(max_examples=300, deadline=None)


@MANY
@given(story=acts, cut=st.integers(0, 100))
def test_a_checkpoint_and_the_rest_fold_to_the_same_as_all(story: list[Act], cut: int) -> None:
    channel = played(story)
    at = cut % (len(channel.log) + 1)
    fold = Fold()
    for facts in channel.log[:at]:
        fold.apply(facts)
    data = encode_checkpoint(fold)
    restored = decode_checkpoint(memoryview(data))
    assert restored == fold
    assert encode_checkpoint(restored) == data
    copy = fold.copy()
    for facts in channel.log[at:]:
        restored.apply(facts)
        copy.apply(facts)
    assert restored == channel.fold == copy
    assert encode_checkpoint(fold) == data  # a copy shares nothing that changes
    assert fold.ignored == 0


@MANY
@given(story=acts)
def test_what_a_log_looks_like(story: list[Act]) -> None:
    channel = played(story)
    tick, term, low, limit = -1, 0, 0, 0
    newest: dict[tuple[str, int], int] = {}
    for facts in channel.log:
        assert facts.tick > tick
        assert facts.column.term >= term
        assert low <= facts.column.low <= facts.seq
        tick, term, low = facts.last_tick, facts.column.term, facts.column.low
        limit = facts.column.limit
        assert limit > tick
        assert decode_column(encode_column(facts.column)) == facts.column
        body = facts.column.body
        if isinstance(body, Data):
            if body.epoch == 0 and body.sequence == 0:
                newest.pop((body.producer, 0), None)  # ids are used twice in these stories
            before = newest.get((body.producer, body.epoch))
            assert before is None or body.sequence == before + 1
            newest[body.producer, body.epoch] = body.sequence


def read(
    channel: Pchannel, vcid: int, start: Position, *, held: int = 1 << 30
) -> tuple[list[Message], Assembly[list[bytes]]]:
    """As a node reads: from the start's low on."""
    begin = read_from(start, earliest=0)
    assembly = Assembly[list[bytes]](vcid, start=start, read_from=begin, assembly_bytes=held)
    found: list[Message] = []
    by_seq = {
        facts.seq: payloads for facts, payloads in zip(channel.log, channel.payloads, strict=True)
    }
    for facts in channel.log:
        if facts.end <= begin:
            continue
        delivery = assembly.feed(facts, by_seq[facts.seq])
        if delivery is None:
            continue
        payloads = [
            payload
            for piece in delivery.pieces
            for payload in (by_seq[piece.facts.seq] if piece.content is None else piece.content)
        ]
        if delivery.is_joined:
            payloads = [b"".join(payloads)]
        assert len(payloads) == delivery.count
        for index in range(delivery.skip, delivery.count):
            position = delivery.position(index)
            found.append((position, position.tick, payloads[index]))
        assert delivery.end > found[-1][0]
    return found, assembly


def shown(messages: list[Message]) -> list[Message]:
    return [
        (Position(position.seq, position.index), tick, data) for position, tick, data in messages
    ]


@MANY
@given(story=acts, held=st.integers(0, 50))
def test_assembly_delivers_what_the_dumb_reader_sees(story: list[Act], held: int) -> None:
    channel = played([act for act in story if act[0] != "trim"])
    for vcid in (1, 2):
        found, assembly = read(channel, vcid, Position(0), held=held)
        assert shown(found) == shown(dumb_read(channel, vcid))
        positions = [message[0] for message in found]
        assert positions == sorted(set(positions))
        assert assembly.cut == 0
        assert assembly.next.seq == channel.fold.next_seq


@MANY
@given(story=acts, pick=st.integers(0, 1000), after=st.booleans())
def test_resuming_anywhere_gives_exactly_the_rest(story: list[Act], pick: int, after: bool) -> None:
    channel = played([act for act in story if act[0] != "trim"])
    whole, _ = read(channel, 1, Position(0))
    if not whole:
        return
    chosen = whole[pick % len(whole)][0]
    start = Position(chosen.seq, chosen.index + after, low=chosen.low)
    rest, assembly = read(channel, 1, start)
    assert rest == [message for message in whole if message[0] >= start]
    assert assembly.cut == 0


@MANY
@given(story=acts, cut=st.integers(0, 100))
def test_resuming_where_a_reader_stands_gives_exactly_the_rest(story: list[Act], cut: int) -> None:
    channel = played([act for act in story if act[0] != "trim"])
    at = cut % (len(channel.log) + 1)
    before = Pchannel(log=list(channel.log[:at]), payloads=channel.payloads[:at])
    before.log, before.payloads = channel.log[:at], channel.payloads[:at]
    first, assembly = read(before, 1, Position(0))
    rest, _ = read(channel, 1, assembly.next)
    assert first + rest == read(channel, 1, Position(0))[0]


@MANY
@given(story=acts, cut=st.integers(0, 100))
def test_a_log_cut_at_a_low_loses_nothing_that_is_delivered_later(
    story: list[Act], cut: int
) -> None:
    channel = played([act for act in story if act[0] != "trim"])
    facts: Facts = channel.log[cut % len(channel.log)]
    low = facts.column.low
    whole, _ = read(channel, 1, Position(0))
    start = Position(facts.seq, low=low)
    assembly = Assembly[list[bytes]](1, start=start, read_from=low, assembly_bytes=1 << 30)
    rest, assembly = read(channel, 1, start)
    assert assembly.cut == 0
    assert rest == [message for message in whole if message[0] >= start]


@MANY
@given(story=acts)
def test_trims_hide_what_was_delivered_before(story: list[Act]) -> None:
    channel = played(story)
    vchannel = channel.fold.vchannels.get(1)
    if vchannel is None:
        return
    start = Position(vchannel.trim_before, low=0)
    rest, _ = read(channel, 1, start)
    assert shown(rest) == [
        message for message in shown(dumb_read(channel, 1)) if message[0] >= start
    ]
