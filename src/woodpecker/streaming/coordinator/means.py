"""What all parts of one term of office share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from woodpecker.observability.base import Observer
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.ports import Dialer
from woodpecker.streaming.settings import StreamSettings

MakeLog = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """See the module.

    Attributes:
        make_log: makes the log of that name, or finds it made; its id. Raises WoodpeckerError.
        address: where this coordinator serves.
        epoch: of this term of office.
        may_decide: whether this coordinator still may decide anything.
        on_deposed: somebody else leads; told with the reason.
    """

    records: StreamRecords
    runtime: Runtime
    dialer: Dialer
    make_log: MakeLog
    settings: StreamSettings
    observer: Observer
    address: str
    epoch: int
    may_decide: Callable[[], bool]
    on_deposed: Callable[[str], None]
