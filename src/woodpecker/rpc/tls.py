"""TLS of the wire, from files: certificates of nodes, and of clients where nodes ask for them."""

from __future__ import annotations

import ssl

from woodpecker.access import Access
from woodpecker.errors import InvalidRequest


def client_context(access: Access) -> ssl.SSLContext | None:
    """For connections to nodes; None: not encrypted.

    Nodes must have a certificate for the host they are addressed by, signed by ``tls_ca`` (without it:
    by what this machine trusts). ``tls_cert`` is shown to those that ask.

    Raises: InvalidRequest: a file holds something else.
    """
    if not access.has_tls:
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if access.tls_ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _filled(context, access)


def server_context(access: Access) -> ssl.SSLContext | None:
    """For a node; with ``tls_ca`` it takes only clients with a certificate signed by that.

    Raises: InvalidRequest: no certificate, or a file holds something else.
    """
    if not access.has_tls:
        return None
    if access.tls_cert is None:
        raise InvalidRequest("a node with TLS needs tls_cert and tls_key, not tls_ca alone")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if access.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, access)


def _filled(context: ssl.SSLContext, access: Access) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    what = access.tls_ca
    try:
        if access.tls_ca is not None:
            context.load_verify_locations(access.tls_ca)
        what = access.tls_cert
        if access.tls_cert is not None:
            context.load_cert_chain(access.tls_cert, access.tls_key)
    except (ssl.SSLError, OSError) as error:
        raise InvalidRequest(f"{what}: no usable certificate or key: {error}") from error
    return context
