"""Messages too large for one batch: a transaction of pieces, joined again where it is delivered."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from woodpecker.errors import Aborted, WoodpeckerError
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.flight import NO_TXN
from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.client.session import Session
from woodpecker.streaming.core.values import Position


async def send_large(env: Environment, session: Session, message: Message) -> Position:
    """Send it, again whole if it is aborted. Raises, cancellation: as ``Producer.send``."""
    give_up_ms = env.runtime.monotonic_ms() + env.timeout_ms
    while True:
        try:
            return await _send_pieces(session, message, env.settings.chunk_bytes)
        except Aborted:
            if env.runtime.monotonic_ms() >= give_up_ms:
                raise


async def _send_pieces(session: Session, message: Message, step_bytes: int) -> Position:
    await session.begin_transaction()
    number = NO_TXN
    starts = range(0, len(message.payload), step_bytes)
    sent: list[asyncio.Future[Any]] = []
    try:
        for start in starts:
            piece = message.piece(start, start + step_bytes)
            await session.room.enter(piece.size_bytes)
            draft = session.draft([piece], piece.size_bytes)
            if not sent:
                number, draft.begin = session.number_transaction(), True
            draft.txn = number
            draft.commit = draft.join = start == starts[-1]
            sent.append(session.put(draft))
        position = await sent[-1]
    except WoodpeckerError as error:
        _abort(session, number, sent)
        raise _first_failure(sent) or error from None
    except asyncio.CancelledError:
        _abort(session, number, sent)
        raise
    finally:
        session.end_transaction(number)
    assert isinstance(position, Position)
    return position


def _abort(session: Session, number: int, sent: list[asyncio.Future[Any]]) -> None:
    """Say so and do not wait."""
    if sent:
        with suppress(WoodpeckerError):
            draft = session.draft([], 0)
            draft.txn, draft.abort = number, True
            session.put(draft)


def _first_failure(sent: list[asyncio.Future[Any]]) -> BaseException | None:
    """What went wrong with a piece, rather than what followed from it."""
    for future in sent:
        if future.done() and not future.cancelled() and future.exception() is not None:
            return future.exception()
    return None
