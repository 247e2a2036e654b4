"""Places in a log as text: ``--from`` and ``--to``."""

from __future__ import annotations

import re
from datetime import datetime

from woodpecker.client.cursor import find_cursor
from woodpecker.client.environment import Environment
from woodpecker.client.log import Log
from woodpecker.errors import InvalidRequest

_NUMBER = re.compile(r"-?\d+\Z", re.ASCII)


async def start_of(env: Environment, log: Log, text: str) -> int | str | datetime:
    """What ``--from`` means: a seq, earliest, latest, -n, an ISO time with zone, cursor:NAME.

    Raises: InvalidRequest; NotFound: no such cursor.
    """
    if text.startswith("cursor:"):
        name = text.removeprefix("cursor:")
        return (await find_cursor(env, log.name, log.log_id, name)).position
    if text in ("earliest", "latest"):
        return text
    return _seq_or_time(text, "--from", "a seq, earliest, latest, -n, cursor:NAME")


def end_of(text: str | None) -> int | str | datetime | None:
    """What ``--to`` means: a seq, an ISO time with zone, tail. Raises: InvalidRequest."""
    if text is None or text == "tail":
        return text
    return _seq_or_time(text, "--to", "a seq, tail")


def _seq_or_time(text: str, flag: str, others: str) -> int | datetime:
    if _NUMBER.match(text):
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{flag} {text!r}: use {others}, or a time with zone as 2026-01-31T12:00:00Z"
        ) from None
