"""TLS and the token of the gRPC transport, from the same files and secret as the LogStore nodes'."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import grpc

from woodpecker.access import Access
from woodpecker.errors import InvalidRequest
from woodpecker.rpc.tls import client_context, server_context

HEADER = "authorization"
SCHEME = "Bearer "
PURPOSE = b"woodpecker.streaming.v1"


def token_of(secret: bytes) -> str:
    """What clients show; "" without a secret. The secret itself is never sent."""
    return hmac.new(secret, PURPOSE, hashlib.sha256).hexdigest() if secret else ""


def is_token(shown: str | bytes, secret: bytes) -> bool:
    """Whether a header has the token."""
    text = shown if isinstance(shown, bytes) else shown.encode()
    return hmac.compare_digest(text, (SCHEME + token_of(secret)).encode())


def client_credentials(access: Access) -> grpc.ChannelCredentials | None:
    """For connections; None: not encrypted. Raises: InvalidRequest: a file holds something else."""
    if not access.has_tls:
        return None
    client_context(access)  # says what is wrong with a file; gRPC only fails later
    return grpc.ssl_channel_credentials(
        _bytes(access.tls_ca), _bytes(access.tls_key), _bytes(access.tls_cert)
    )


def server_credentials(access: Access) -> grpc.ServerCredentials | None:
    """For a server; with ``tls_ca`` it takes only clients with a certificate signed by that.

    Raises: InvalidRequest: no certificate, or a file holds something else.
    """
    if not access.has_tls:
        return None
    server_context(access)
    key, certificate = _bytes(access.tls_key), _bytes(access.tls_cert)
    if key is None or certificate is None:
        raise InvalidRequest("a server with TLS needs tls_cert and tls_key")
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=_bytes(access.tls_ca),
        require_client_auth=access.tls_ca is not None,
    )


def _bytes(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
