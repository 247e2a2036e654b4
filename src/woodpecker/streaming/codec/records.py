"""Records of the service in the metadata store: their keys, and their bytes.

A key knows the class of its record, so what is read through it is typed. The bytes are in the envelope of
all records (woodpecker/codec/envelope.py), under kinds of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from woodpecker.codec import envelope
from woodpecker.core.ids import check_name
from woodpecker.errors import InvalidRequest
from woodpecker.streaming.core.records import (
    BroadcastKey,
    BroadcastRecord,
    CheckpointsRecord,
    CoordinatorRecord,
    Counters,
    Features,
    NodeRecord,
    PchannelRecord,
    Policy,
    VchannelRecord,
)

MAX_RECORD_BYTES = 1 << 20  # what a metadata store takes as one value
ROOT = "stream/"

_KINDS: dict[type[object], str] = {
    CoordinatorRecord: "scoordinator",
    NodeRecord: "snode",
    PchannelRecord: "pchannel",
    VchannelRecord: "vchannel",
    Counters: "scounters",
    Features: "sfeatures",
    Policy: "spolicy",
    CheckpointsRecord: "checkpoints",
    BroadcastRecord: "broadcast",
    BroadcastKey: "broadcastkey",
}

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[R]):
    """Where one record lies, and what it is."""

    path: str
    type: type[R]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Generic[R]):
    """Where the records of one class lie. ``what``: of a name in it, for errors."""

    prefix: str
    type: type[R]
    what: str

    def key(self, name: str) -> Key[R]:
        """Of the record ``name``. Raises: InvalidRequest: no such name is possible."""
        return Key(path=self.prefix + check_name(name, self.what), type=self.type)


COORDINATOR = Key(path=f"{ROOT}coordinator", type=CoordinatorRecord)
COUNTERS = Key(path=f"{ROOT}counters", type=Counters)
FEATURES = Key(path=f"{ROOT}features", type=Features)
POLICY = Key(path=f"{ROOT}policy", type=Policy)

NODES = Table(prefix=f"{ROOT}node/", type=NodeRecord, what="node")
PCHANNELS = Table(prefix=f"{ROOT}p/", type=PchannelRecord, what="pchannel")
VCHANNELS = Table(prefix=f"{ROOT}vc/", type=VchannelRecord, what="channel")
CHECKPOINTS = Table(prefix=f"{ROOT}ckpt/", type=CheckpointsRecord, what="log id")
BROADCASTS = Table(prefix=f"{ROOT}b/", type=BroadcastRecord, what="broadcast")
BROADCAST_KEYS = Table(prefix=f"{ROOT}bkey/", type=BroadcastKey, what="broadcast key")


def broadcast(number: int) -> Key[BroadcastRecord]:
    """Of one broadcast; ids have 20 digits, so that listings sort by them."""
    return BROADCASTS.key(f"{number:020}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body(Generic[R]):
    nonce: str
    record: R


def encode(record: object, *, nonce: str) -> bytes:
    """The bytes of one write. ``nonce``: new for each, for in buckets equal bytes are one version. **P**

    Raises: InvalidRequest above 1 MiB.
    """
    body = _Body(nonce=nonce, record=record)
    return envelope.encode(_KINDS[type(record)], body, MAX_RECORD_BYTES)


def decode(data: bytes, type_: type[R], *, where: str) -> R:
    """Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it."""
    body = envelope.decode(_KINDS[type_], data, _Body[type_], MAX_RECORD_BYTES, where)  # type: ignore[valid-type]
    return body.record


def name_of(key: str, table: Table[R]) -> str:
    """The name that ``table.key`` made the path from. Raises: InvalidRequest."""
    if not key.startswith(table.prefix):
        raise InvalidRequest(f"{key!r} is not the key of a {table.what}")
    return key.removeprefix(table.prefix)
