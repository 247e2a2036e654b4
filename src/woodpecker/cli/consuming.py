"""Copying messages of a channel to a stream of bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from woodpecker.cli.formats import Shape
from woodpecker.cli.stream_records import line_of
from woodpecker.errors import InvalidRequest
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.client.messages import Message, Tick
from woodpecker.streaming.core.values import ANYTHING, Position, Where

_PLACE = re.compile(r"(\d+)(?:\.(\d+))?\Z", re.ASCII)
_TICK = re.compile(r"tick:(\d+)\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be printed, and how."""

    name: str
    start: str
    end: str | None
    type: str | None
    key: str | None
    properties: list[str]
    shape: Shape
    limit: int | None

    @property
    def where(self) -> Where | None:
        """The filter; None: none was given. Raises: InvalidRequest."""
        if self.type is None and self.key is None and not self.properties:
            return None
        pairs = [text.partition("=") for text in self.properties]
        for name, equals, _ in pairs:
            if not name or not equals:
                raise InvalidRequest("--property: use NAME=VALUE")
        return Where(
            type=self.type,
            key=None if self.key is None else self.key.encode(),
            properties=tuple((name.encode(), value.encode()) for name, _, value in pairs),
        )


async def copy_out(client: StreamingClient, request: Request, out: BinaryIO) -> None:
    """Write what ``request`` names to ``out``. Raises: as ``Channel.consume``; BrokenPipeError."""
    channel = await client.open_channel(request.name)
    start, stop = start_of(request.start), end_of(request.end)
    write, left = SHAPES[request.shape], request.limit
    if left == 0:
        return
    async with channel.consume_batches(start, end=stop, where=request.where or ANYTHING) as batches:
        async for found in batches:
            batch = found if left is None else found[:left]
            out.writelines(map(write, batch))
            if stop is None:
                out.flush()
            if left is not None:
                left -= len(batch)
                if left == 0:
                    break
    out.flush()


async def copy_subscribed(
    client: StreamingClient, request: Request, cursor: str, out: BinaryIO, *, acknowledge: bool
) -> None:
    """Write messages to ``out`` under a cursor; each is acknowledged when it is written."""
    channel = await client.open_channel(request.name)
    start, write = start_of(request.start), SHAPES[request.shape]
    subscription = channel.subscribe(cursor, start=start, where=request.where)
    count = 0
    async with subscription as messages:
        async for message in messages:
            out.write(write(message))
            out.flush()
            if acknowledge:
                await messages.ack(message)
            count += 1
            if count == request.limit:
                return


Place = int | datetime | Tick | Position


def start_of(text: str) -> str | Place:
    """Of ``--from``: earliest, latest, or a place. Raises: InvalidRequest."""
    return text if text in {"earliest", "latest"} else _place_of(text, "--from", "earliest, latest")


def end_of(text: str | None) -> str | Place | None:
    """Of ``--to``, if given: tail, or a place. Raises: InvalidRequest."""
    return text if text is None or text == "tail" else _place_of(text, "--to", "tail")


def _place_of(text: str, flag: str, words: str) -> Place:
    """A seq, seq.index, an ISO time with zone, tick:T."""
    place = _PLACE.match(text)
    if place is not None:
        seq, index = place.groups()
        return int(seq) if index is None else Position(int(seq), int(index))
    tick = _TICK.match(text)
    if tick is not None:
        return Tick(tick[1])
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{flag} {text!r}: use {words}, a seq, seq.index, tick:T, or a time with zone as "
            "2026-01-31T12:00:00Z"
        ) from None


SHAPES: dict[Shape, Callable[[Message], bytes]] = {
    Shape.LINES: lambda message: message.payload + b"\n",
    Shape.RAW: lambda message: message.payload,
    Shape.JSONL: line_of,
    Shape.HEX: lambda message: message.payload.hex().encode() + b"\n",
}
