"""Woodpecker: a cloud-native write-ahead log on object storage. See README.md and docs/.

The public names, and nothing else. They are loaded when first used, so that importing a part of the
package (the pure core, the command line's help) does not load the whole.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from woodpecker import blocking, streaming
    from woodpecker.app import connect
    from woodpecker.client.batch import Batch
    from woodpecker.client.client import Client
    from woodpecker.client.cursor import Cursor
    from woodpecker.client.entry import Entry
    from woodpecker.client.log import Log
    from woodpecker.client.writer import LogWriter
    from woodpecker.errors import (
        Aborted,
        AlreadyExists,
        Closed,
        Conflict,
        Corrupt,
        Fenced,
        InvalidRequest,
        LogEnded,
        NotFound,
        NotWritten,
        OutcomeUnknown,
        OutOfRange,
        Overloaded,
        ProducerExpired,
        Unavailable,
        WoodpeckerError,
    )
    from woodpecker.streaming.client.messages import Message, Tick, TickSignal
    from woodpecker.streaming.core.values import Position, Where

__version__ = "0.1.0.dev0"

# silent unless the application listens: without this, Python itself prints warnings to stderr
logging.getLogger("woodpecker").addHandler(logging.NullHandler())

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Batch",
    "Client",
    "Closed",
    "Conflict",
    "Corrupt",
    "Cursor",
    "Entry",
    "Fenced",
    "InvalidRequest",
    "Log",
    "LogEnded",
    "LogWriter",
    "Message",
    "NotFound",
    "NotWritten",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "Position",
    "ProducerExpired",
    "Tick",
    "TickSignal",
    "Unavailable",
    "Where",
    "WoodpeckerError",
    "blocking",
    "connect",
    "streaming",
]

_HOMES = {
    "Batch": "woodpecker.client.batch",
    "Client": "woodpecker.client.client",
    "Cursor": "woodpecker.client.cursor",
    "Entry": "woodpecker.client.entry",
    "Log": "woodpecker.client.log",
    "LogWriter": "woodpecker.client.writer",
    "Message": "woodpecker.streaming.client.messages",
    "Position": "woodpecker.streaming.core.values",
    "Tick": "woodpecker.streaming.client.messages",
    "TickSignal": "woodpecker.streaming.client.messages",
    "Where": "woodpecker.streaming.core.values",
    "connect": "woodpecker.app",
}


def __getattr__(name: str) -> object:
    if name in ("blocking", "streaming"):
        return import_module(f"woodpecker.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'woodpecker' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "woodpecker.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
