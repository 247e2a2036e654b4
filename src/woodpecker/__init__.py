"""Woodpecker: a cloud-native write-ahead log on object storage. See README.md and docs/."""

from woodpecker.app import connect
from woodpecker.client.batch import Batch
from woodpecker.client.client import Client
from woodpecker.client.cursor import Cursor
from woodpecker.client.entry import Entry
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.errors import (
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
    Unavailable,
    WoodpeckerError,
)

__version__ = "0.1.0.dev0"

__all__ = [
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
    "NotFound",
    "NotWritten",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "Unavailable",
    "WoodpeckerError",
    "connect",
]
