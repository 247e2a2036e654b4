"""Settings of the wire: time-outs and limits, the same names for both sides."""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.codec.frames import MAX_PAYLOAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class WireSettings:
    """Defaults suit a data centre; docs/wire.md has what both sides must agree on.

    Attributes:
        hello_timeout_ms: until a new connection must have proved who it is.
        keepalive_ms: a side that has sent nothing for so long sends a Ping.
        dead_after_ms: a side that has heard nothing for so long breaks the connection. Not below
            three times the other side's ``keepalive_ms``.
        max_connections: of one server; further ones are refused.
        max_half_open: connections in the hello at once; further ones wait in the system's queue.
        max_payload_bytes: of one request to a server.
        max_unanswered_bytes: a server reads no further from a connection that has this much unanswered.
        max_unanswered_total_bytes: nor from any that sends blocks, when all together have this much.
        max_unsent_bytes: nor from one that does not take its replies.
    """

    hello_timeout_ms: int = 5_000
    keepalive_ms: int = 3_000
    dead_after_ms: int = 12_000
    max_connections: int = 4_096
    max_half_open: int = 128
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    max_unanswered_bytes: int = 32 << 20
    max_unanswered_total_bytes: int = 256 << 20
    max_unsent_bytes: int = 16 << 20
