"""Settings of the gRPC transport, the same names for both sides."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
Options = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSettings:
    """Defaults suit a data centre.

    Attributes:
        max_frame_bytes: largest frame, request or reply: above ``message_max_bytes`` of the service.
        keepalive_ms: a connection that has been silent for so long is asked whether it lives.
        keepalive_timeout_ms: without an answer for so long it is dead.
        reconnect_ms: longest pause between two tries to connect.
    """

    max_frame_bytes: int = 80 * MIB
    keepalive_ms: int = 10_000
    keepalive_timeout_ms: int = 5_000
    reconnect_ms: int = 1_000

    def client_options(self) -> Options:
        """Of channels."""
        return (
            *self._common(),
            ("grpc.enable_retries", 0),  # the caller knows what may be sent again
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),  # connections are this dialer's alone
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", self.reconnect_ms),
            ("grpc.max_reconnect_backoff_ms", self.reconnect_ms),
        )

    def server_options(self) -> Options:
        """Of servers."""
        return (
            *self._common(),
            ("grpc.so_reuseport", 0),  # two servers at one port would share it
            ("grpc.http2.min_ping_interval_without_data_ms", self.keepalive_ms // 2),
        )

    def _common(self) -> Options:
        return (
            ("grpc.max_receive_message_length", self.max_frame_bytes),
            ("grpc.max_send_message_length", self.max_frame_bytes),
            ("grpc.keepalive_time_ms", self.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        )


DEFAULTS = GrpcSettings()
