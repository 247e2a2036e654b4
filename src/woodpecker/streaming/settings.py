"""Settings of the streaming service; docs/streaming.md lists them. Fields say their units."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Limits and defaults of coordinator, nodes and clients (section 13 of the rules)."""

    pchannels: int = 16  # made by the first coordinator of a store; at most 4,096
    vchannels_per_pchannel: int = 100_000
    message_max_bytes: int = 64 * MIB
    batch_max_bytes: int = 16 * MIB
    batch_max_messages: int = 100_000
    chunk_bytes: int = MIB  # pieces of messages larger than chunk_from_bytes
    chunk_from_bytes: int = 4 * MIB
    properties_max_bytes: int = 64 << 10
    key_max_bytes: int = 4096
    sessions_per_pchannel: int = 65_536
    batches_in_flight: int = 16  # per session
    queue_bytes: int = 48 * MIB  # per pchannel
    control_bytes: int = 4 * MIB  # beside it, for control and abort batches
    tail_bytes: int = 512 * MIB  # per node
    ephemeral_share: float = 0.1
    checkpoint_bytes: int = 64 * MIB
    checkpoint_age_ms: int = 60_000
    tick_step_us: int = 5_000_000
    tick_ahead_us: int = 60_000_000
    idle_signal_ms: int = 200
    session_ttl_ms: int = 10_000
    beat_ms: int = 3_000
    release_timeout_ms: int = 5_000
    open_stall_ms: int = 120_000
    expected_nodes: int = (
        0  # the first start waits for so many, at most 15 s; 0: 3 s after the first one
    )
    balance_interval_ms: int = 300_000  # between rounds of moves
    transaction_keep_alive_ms: int = 10_000  # 1 to 60 s
    transaction_max_age_ms: int = 15 * 60_000
    transaction_max_bytes: int = 64 * MIB
    transaction_max_entries: int = 100_000
    transactions_open: int = 1024  # per pchannel
    transactions_per_session: int = 8
    consumers_per_stream: int = 10_000
    consumers_per_pchannel: int = 100_000
    assembly_bytes: int = 16 * MIB  # per consumer
    credit_bytes: int = 4 * MIB  # per consumer
    stream_credit_bytes: int = 256 * MIB  # sum per stream
    cursor_ranges: int = 1000
    cursor_hold_s: int = 7 * 86_400
    broadcast_targets: int = 1000
    broadcast_payload_bytes: int = 64 << 10
    append_timeout_ms: int = 20_000  # of the writers of pchannels


DEFAULTS = StreamSettings()
