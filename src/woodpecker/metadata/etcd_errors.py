"""What a failed call to etcd means: refused for good, refused for now, or unknown."""

from __future__ import annotations

from grpc import StatusCode
from grpc.aio import AioRpcError

from woodpecker.errors import (
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)

NEVER_AS_MADE = (
    StatusCode.INVALID_ARGUMENT,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.UNIMPLEMENTED,
)

# Said before a request is proposed to the cluster (etcd's v3rpc interceptor and raft queue). Every
# other error may come after that; "database space exceeded" even comes with an applied write.
NOT_PROPOSED = (
    (StatusCode.UNAVAILABLE, "no leader"),
    (StatusCode.RESOURCE_EXHAUSTED, "too many requests"),
)


def is_stale_token(error: AioRpcError) -> bool:
    """True if logging in again may help; the request was not applied."""
    return error.code() is StatusCode.UNAUTHENTICATED or (
        error.code() is StatusCode.INVALID_ARGUMENT and "auth store is old" in _details(error)
    )


def map_error(error: AioRpcError, endpoint: str, *, repeatable: bool) -> WoodpeckerError:
    """The error to raise instead of ``error``; for a ``repeatable`` request nothing is unknown."""
    code, details = error.code(), _details(error)
    what = f"etcd at {endpoint}: {code.name}: {details}"
    if code in NEVER_AS_MADE:
        return InvalidRequest(f"{what}; check user, password, rights, prefix and address")
    if code is StatusCode.NOT_FOUND:  # only leases are ever not found
        return NotFound(f"{what}; acquire the lease again")
    refused = any(code is known and text in details for known, text in NOT_PROPOSED)
    if refused or repeatable:
        return Unavailable(f"{what}; try again{_advice(details)}")
    return OutcomeUnknown(
        f"{what}; the write may or may not take effect: read the key and decide{_advice(details)}"
    )


def _advice(details: str) -> str:
    if "database space exceeded" in details:
        return " (etcd is full: compact and defragment it, then disarm its NOSPACE alarm)"
    return ""


def _details(error: AioRpcError) -> str:
    return error.details() or ""
