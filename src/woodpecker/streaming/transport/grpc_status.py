"""Refusals as gRPC statuses, and statuses as refusals: the one place where they meet.

A refusal travels whole in the trailer ``wp-refusal-bin``; the status beside it is for clients that look no
further. A status without that trailer was made by gRPC itself, on either side or on the way.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc import StatusCode
from grpc.aio import AioRpcError

from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.transport.grpc_frames import decode_refusal, encode_refusal

TRAILER = "wp-refusal-bin"
LONGEST_DETAILS = 1000  # headers are short

STATUS: Mapping[Class, StatusCode] = {
    Class.MOVED: StatusCode.FAILED_PRECONDITION,
    Class.LATER: StatusCode.RESOURCE_EXHAUSTED,
    Class.UNKNOWN: StatusCode.UNKNOWN,
    Class.GAP: StatusCode.FAILED_PRECONDITION,
    Class.STALE_PRODUCER: StatusCode.ABORTED,
    Class.EXPIRED: StatusCode.ABORTED,
    Class.ABORTED: StatusCode.ABORTED,
    Class.CONDITION: StatusCode.FAILED_PRECONDITION,
    Class.GONE: StatusCode.NOT_FOUND,
    Class.INVALID: StatusCode.INVALID_ARGUMENT,
    Class.DENIED: StatusCode.PERMISSION_DENIED,
    Class.OUT_OF_RANGE: StatusCode.OUT_OF_RANGE,
    Class.FENCED: StatusCode.ABORTED,
    Class.CORRUPT: StatusCode.DATA_LOSS,
    Class.NOT_FOUND: StatusCode.NOT_FOUND,
    Class.EXISTS: StatusCode.ALREADY_EXISTS,
    Class.NOT_LEADER: StatusCode.FAILED_PRECONDITION,
    Class.UNAVAILABLE: StatusCode.UNAVAILABLE,
}

# Said by gRPC itself before anything was handed to a service.
_BEFORE = {
    StatusCode.UNAUTHENTICATED: Class.DENIED,
    StatusCode.PERMISSION_DENIED: Class.DENIED,
    StatusCode.UNIMPLEMENTED: Class.INVALID,
}


def status_of(refusal: Refusal) -> tuple[StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, details and trailers that tell of a refusal."""
    details = refusal.message[:LONGEST_DETAILS]
    return STATUS[refusal.kind], details, ((TRAILER, encode_refusal(refusal)),)


def cause_of(error: AioRpcError) -> str:
    """Why there is no connection, without what gRPC says around it."""
    details = error.details() or error.code().name
    return details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")


def refusal_of(error: AioRpcError, what: str) -> Refusal:
    """What a failed call or stream means; ``what``: it, for people. UNKNOWN unless it is said otherwise."""
    for name, value in error.trailing_metadata() or ():
        if name == TRAILER and isinstance(value, bytes):
            try:
                return decode_refusal(value)
            except DecodeError:
                break
    code, details = error.code(), error.details() or ""
    kind = _BEFORE.get(code, Class.UNKNOWN)
    if kind is Class.UNKNOWN and "larger than max" in details:
        kind = Class.INVALID
    advice = "whether it was done is not known" if kind is Class.UNKNOWN else "nothing was done"
    return Refusal(kind=kind, message=f"{what}: {code.name}: {details}; {advice}")
