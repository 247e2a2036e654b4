"""What is served at one address: some of the services, found by stream or by request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.ports import (
    ASSIGNMENT_REQUESTS,
    HANDLER_REQUESTS,
    MANAGER_REQUESTS,
    AssignmentServer,
    HandlerServer,
    ManagerServer,
    Stream,
)
from woodpecker.streaming.requests import Request

Reply = TypeVar("Reply")
Serve = Callable[[Stream[Any, Any]], Awaitable[None]]

_log = logging.getLogger("woodpecker.streaming")


class StreamKind(StrEnum):
    """The streams of the services."""

    PRODUCE = "Produce"
    CONSUME = "Consume"
    STATUS = "Status"
    DISCOVER = "Discover"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Those that one process offers; None: not here."""

    handler: HandlerServer | None = None
    manager: ManagerServer | None = None
    assignment: AssignmentServer | None = None

    def stream(self, kind: StreamKind) -> Serve:
        """What serves streams of this kind. Raises: Refused(INVALID): nobody here."""
        if self.handler is not None and kind is StreamKind.PRODUCE:
            return self.handler.produce
        if self.handler is not None and kind is StreamKind.CONSUME:
            return self.handler.consume
        if self.manager is not None and kind is StreamKind.STATUS:
            return self.manager.status
        if self.assignment is not None and kind is StreamKind.DISCOVER:
            return self.assignment.discover
        raise not_served(kind)

    async def answer(self, request: Request[Reply]) -> Reply:
        """The reply to a unary request.

        Raises: Refused: by its service; INVALID: it is not served here; UNKNOWN: its service failed.
        """
        kind = type(request)
        try:
            if self.handler is not None and kind in HANDLER_REQUESTS:
                return await self.handler.handle(request)
            if self.manager is not None and kind in MANAGER_REQUESTS:
                return await self.manager.manage(request)
            if self.assignment is not None and kind in ASSIGNMENT_REQUESTS:
                return await self.assignment.assign(request)
        except Refused:
            raise
        except Exception as error:
            raise failed(kind.__name__, error) from error
        raise not_served(kind.__name__)


def not_served(what: str) -> Refused:
    """The caller asked the wrong address."""
    return Refused(
        Refusal(
            kind=Class.INVALID, message=f"{what} is not served at this address: ask another one"
        )
    )


def failed(what: str, error: Exception) -> Refused:
    """A service raised what it should not: the caller learns that nothing is known; the log says why."""
    _log.error("%s failed", what, exc_info=error)
    text = f"{what} failed at the server: {error}; whether it was done is not known"
    return Refused(Refusal(kind=Class.UNKNOWN, message=text))


def ended(what: str) -> Refused:
    """A stream is cut."""
    text = f"{what} has ended; nothing is known of what was not answered"
    return Refused(Refusal(kind=Class.UNKNOWN, message=text))
