"""The hello: which version is spoken, and that both sides know the secret (docs/wire.md). Pure.

Challenge (node) -> Hello (client) -> Welcome (node), or ``Refused``. Each side proves that it knows the
secret over the nonces of both, under a word of its own, so that no proof can be sent back or again.
"""

from __future__ import annotations

import hmac
from typing import Final

from woodpecker.codec.messages import WIRE_VERSION, Challenge, Hello, Welcome
from woodpecker.errors import InvalidRequest

LOWEST_VERSION: Final = 1
VERSIONS: Final = (LOWEST_VERSION, WIRE_VERSION)
NONCE_BYTES: Final = 32
MAX_HELLO_BYTES: Final = 16 << 10  # of a message, as long as the peer is a stranger


def challenge(secret: bytes, nonce: bytes) -> Challenge:
    """What a node sends first."""
    return Challenge(versions=VERSIONS, auth="secret" if secret else "none", nonce=nonce)


def answer(asked: Challenge, secret: bytes, nonce: bytes, client: str) -> Hello:
    """What a client says to it. Raises: InvalidRequest: no common version, or one secret missing."""
    lowest, highest = asked.versions
    version = min(highest, WIRE_VERSION)
    if version < max(lowest, LOWEST_VERSION):
        raise InvalidRequest(
            f"the node speaks wire versions {lowest} to {highest}, this client {LOWEST_VERSION} to "
            f"{WIRE_VERSION}: upgrade the older of the two"
        )
    if asked.auth not in ("none", "secret"):
        raise InvalidRequest(f"the node asks for credentials of an unknown kind ({asked.auth!r})")
    if asked.auth == "secret" and not secret:
        raise InvalidRequest(
            "the node asks for the shared secret of its cluster: give secret_file= or "
            "WOODPECKER_SECRET"
        )
    if asked.auth == "none" and secret:
        raise InvalidRequest(
            "the node asks for no secret although one is given here: it is another cluster's, or its "
            "own secret was not configured"
        )
    if len(asked.nonce) != NONCE_BYTES:
        raise InvalidRequest(f"the node sent a nonce of {len(asked.nonce)} bytes")
    proof = _proof(secret, b"client", asked.nonce, nonce) if secret else b""
    return Hello(version=version, client=client, nonce=nonce, proof=proof)


def check_hello(said: Hello, asked: Challenge, secret: bytes) -> None:
    """A node looks at what a client says. Raises: InvalidRequest."""
    if not LOWEST_VERSION <= said.version <= WIRE_VERSION:
        raise InvalidRequest(
            f"wire version {said.version} is not spoken here: {LOWEST_VERSION} to {WIRE_VERSION}"
        )
    if len(said.nonce) != NONCE_BYTES:
        raise InvalidRequest(f"a nonce of {len(said.nonce)} bytes instead of {NONCE_BYTES}")
    if secret and not hmac.compare_digest(
        said.proof, _proof(secret, b"client", asked.nonce, said.nonce)
    ):
        raise InvalidRequest("the shared secret is not the one of this cluster")


def welcome(
    who: Welcome, said: Hello, asked: Challenge, secret: bytes, max_payload_bytes: int
) -> Welcome:
    """What the node answers: who it is, with its own proof and its limit."""
    return Welcome(
        node=who.node,
        incarnation=who.incarnation,
        store_id=who.store_id,
        storage_url=who.storage_url,
        metadata_url=who.metadata_url,
        zone=who.zone,
        proof=_proof(secret, b"node", said.nonce, asked.nonce) if secret else b"",
        max_payload_bytes=max_payload_bytes,
    )


def check_welcome(told: Welcome, said: Hello, asked: Challenge, secret: bytes) -> None:
    """A client looks at the node's proof. Raises: InvalidRequest: whoever it is has no secret."""
    if secret and not hmac.compare_digest(
        told.proof, _proof(secret, b"node", said.nonce, asked.nonce)
    ):
        raise InvalidRequest(
            "the node could not prove that it knows the shared secret: it is not of this cluster"
        )


def _proof(secret: bytes, side: bytes, others: bytes, own: bytes) -> bytes:
    return hmac.digest(secret, side + others + own, "sha256")
