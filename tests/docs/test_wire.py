"""docs/wire.md names every message, field, type and default as codec/messages.py has it."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path

import msgspec
import pytest

from woodpecker.codec import frames, messages
from woodpecker.core.manifest import End
from woodpecker.core.replica import Target, Tip, Verdict
from woodpecker.rpc import hello
from woodpecker.rpc.settings import WireSettings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in TEXT.replace("| | |", "|  |  |").splitlines()
        if line.startswith("| `")
    )
}
KINDS = {kind.__struct_config__.tag: kind for kind in typing.get_args(messages.AnyMessage)}
PLAIN = {int: "int", str: "str", bytes: "bytes", bool: "bool", types.NoneType: "nil"}


def type_text(kind) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return " or ".join(map(type_text, args))
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"[{type_text(args[0])}...]"
        return f"[{', '.join(map(type_text, args))}]"
    return "str" if kind is Verdict else PLAIN.get(kind, getattr(kind, "__name__", "?"))


def default_text(value) -> str:
    if value is msgspec.NODEFAULT:
        return ""
    texts = {None: "nil", b"": "empty", "": '""', True: "true", False: "false"}
    plain = str(value) if isinstance(value, int) and not isinstance(value, bool) else None
    return f" = {plain or texts[value]}"


def fields_text(kind) -> str:
    fields = msgspec.structs.fields(kind)
    texts = [f"`{f.name}`: {type_text(f.type)}{default_text(f.default)}" for f in fields]
    return ", ".join(texts) or "none"


@pytest.mark.parametrize("tag", KINDS)
def test_each_message_has_a_row_with_its_fields(tag):
    assert ROWS[tag][0] == fields_text(KINDS[tag])


def test_every_row_is_a_message_or_a_verdict():
    assert set(ROWS) == {*KINDS, *Verdict, "store`, `wait"} - {"store", "wait"}


@pytest.mark.parametrize("kind", [Target, Tip, End])
def test_structures(kind):
    hints = typing.get_type_hints(kind)
    shown = ", ".join(
        f"`{field.name}`: {type_text(hints[field.name])}" for field in dataclasses.fields(kind)
    )
    assert f"| {kind.__name__} | {shown} |" in TEXT


def test_numbers_are_those_of_the_code():
    wire = WireSettings()
    for text in (
        f"| a message | {frames.MAX_META_BYTES >> 20} MiB |",
        f"{frames.MAX_PAYLOAD_BYTES >> 20} MiB + {frames.MAX_PAYLOAD_BYTES % (1 << 20)} bytes",
        f"| connections of a node | {wire.max_connections:,};",
        f"| connections in the hello at once | {wire.max_half_open};",
        f"no message above {hello.MAX_HELLO_BYTES >> 10} KiB",
        f"closes the connection after {wire.hello_timeout_ms // 1000} s",
        f"sent nothing for {wire.keepalive_ms // 1000} s",
        f"heard nothing for {wire.dead_after_ms // 1000} s",
        f"has {wire.max_unanswered_bytes >> 20} MiB of requests unanswered",
        f"leaves {wire.max_unsent_bytes >> 20} MiB of replies",
        f"while {wire.max_unanswered_total_bytes >> 20} MiB of all together",
        f"speaks {hello.LOWEST_VERSION} to {messages.WIRE_VERSION}.",
        f"version of the frame layout, {frames.VERSION}",
    ):
        assert re.sub(r"\s+", " ", text) in re.sub(r"\s+", " ", TEXT), text


def test_proofs_are_as_written():
    """By hand, from the text."""
    import hashlib
    import hmac

    secret, of_node, of_client = b"secret", b"a" * 32, b"b" * 32
    asked = messages.Challenge(versions=(1, 1), auth="secret", nonce=of_node)
    said = hello.answer(asked, secret, of_client, "me")
    by_hand = hmac.new(secret, b"client" + of_node + of_client, hashlib.sha256).digest()
    assert said.proof == by_hand
    who = messages.Welcome(node="n", incarnation="", store_id="", storage_url="", metadata_url="")
    told = hello.welcome(who, said, asked, secret, 0)
    by_hand = hmac.new(secret, b"node" + of_client + of_node, hashlib.sha256).digest()
    assert told.proof == by_hand
