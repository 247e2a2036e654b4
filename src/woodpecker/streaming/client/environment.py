"""What all parts of one streaming client share."""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.client.routing import Routing
from woodpecker.streaming.ports import Dialer
from woodpecker.streaming.settings import StreamSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One per client. ``timeout_ms``: how long calls and messages are tried; ``name``: shown to nodes."""

    runtime: Runtime
    dialer: Dialer
    routing: Routing
    settings: StreamSettings
    timeout_ms: int
    name: str
