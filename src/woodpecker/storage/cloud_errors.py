"""What obstore's exceptions mean: the one place that reads them.

The SDK folds most failures into one class and tells them apart in the text alone, so the HTTP status
and the kind of a transport error are read from there. Whatever is not recognised as definite leaves
a write's outcome unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from woodpecker.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.storage.url import StoreSettings

SDK_ERRORS = (BaseError, FileNotFoundError, ValueError, OSError)

_STATUS = re.compile(r"status(?: code)?: (\d{3})\b")
_CODE = re.compile(r"<Code>([^<]{1,80})</Code>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")
_ENDPOINT = re.compile(r"https?://[^/\s?]+")
_METADATA_SERVICES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
_BUCKET_MISSING = (
    "NoSuchBucket", "ContainerNotFound", "specified bucket does not exist",
    "specified container does not exist",
)  # fmt: skip
_BAD_CREDENTIALS = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "AuthorizationHeaderMalformed", "AuthenticationFailed", "MissingCredentials",
)  # fmt: skip
_TRY_LATER = ("RequestTimeout", "SlowDown", "ServerBusy")

_CREDENTIALS_HELP = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (or AWS_PROFILE)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS or the option service_account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or a SAS token)",
}
_CREATE_BUCKET = {
    "s3": "aws s3 mb s3://{}",
    "gs": "gcloud storage buckets create gs://{}",
    "az": "az storage container create --name {}",
}


class BucketNotFound(NotFound):
    """Not an object but the whole bucket is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One exception of the SDK, taken apart."""

    status: int  # HTTP status, 0 if there was no answer
    code: str  # the service's own error code, or ""
    kind: str  # transport error: Connect, Timeout, Request, ... or ""
    text: str

    @property
    def reason(self) -> str:
        """One line for messages."""
        if self.status:
            return f"HTTP {self.status} {self.code}".rstrip()
        line = self.text.split("\n", 1)[0]
        where = _ENDPOINT.search(line)
        # only the last part: the text before it repeats the URL, and what was asked is known
        return f"{where[0] if where else 'the store'}: {line.rpartition(' - ')[2]}"[:300]

    @property
    def may_pass(self) -> bool:
        """True if the same request may succeed later."""
        if self.status:
            return self.status >= 500 or self.status in (408, 429) or self.code in _TRY_LATER
        return True


def take_apart(error: BaseException) -> Failure:
    text = str(error)
    status = _STATUS.search(text)
    code = _CODE.search(text)
    kind = _KIND.search(text)
    return Failure(
        status=int(status[1]) if status else 0,
        code=code[1] if code else "",
        kind=kind[1] if kind else "",
        text=text,
    )


def begins_beyond_end(error: BaseException) -> bool:
    """True if a range was asked for that begins at or behind the object's end."""
    text = str(error)
    return take_apart(error).status == 416 or "StartTooLarge" in text


def map_refusal(
    error: BaseException, failure: Failure, settings: StoreSettings
) -> WoodpeckerError | None:
    """The error of a call that can never succeed as made (credentials, bucket); else None."""
    where = settings.url
    if any(host in failure.text for host in _METADATA_SERVICES):
        return InvalidRequest(
            f"{where}: no credentials found; {_CREDENTIALS_HELP[settings.scheme]}"
        )
    if any(mark in failure.text for mark in _BUCKET_MISSING):
        create = _CREATE_BUCKET[settings.scheme].format(settings.bucket)
        return BucketNotFound(
            f"{where}: the bucket {settings.bucket} does not exist; create it: {create}"
        )
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if denied or failure.status in (401, 403) or failure.code in _BAD_CREDENTIALS:
        return InvalidRequest(
            f"{where}: the credentials are refused ({failure.reason}); "
            f"{_CREDENTIALS_HELP[settings.scheme]}, and check the rights on the bucket"
        )
    if isinstance(error, NotSupportedError) or failure.status == 501:
        return InvalidRequest(f"{where}: this store does not do what is needed: {failure.reason}")
    if 300 <= failure.status < 400 and failure.status != 304:
        return InvalidRequest(
            f"{where}: the bucket lives elsewhere ({failure.reason}); set region or endpoint"
        )
    if failure.status in (400, 405, 411, 413) and not failure.may_pass:
        return InvalidRequest(f"{where}: the request is refused: {failure.reason}")
    return None


def map_read(error: BaseException, what: str, settings: StoreSettings) -> WoodpeckerError:
    """The error of a read, listing or deletion."""
    failure = take_apart(error)
    refusal = map_refusal(error, failure, settings)
    if refusal is not None:
        return refusal
    if isinstance(error, FileNotFoundError) or failure.status == 404:
        return NotFound(f"{settings.url}: no object {what}")
    return Unavailable(f"{settings.url}: {what}: {failure.reason}; try again later")


def map_write(
    error: BaseException, key: str, settings: StoreSettings, *, etag: str = ""
) -> WoodpeckerError:
    """The error of a ``create`` (no etag), ``replace`` (etag) or stream write of ``key``."""
    failure = take_apart(error)
    where = f"{settings.url}: {key}"
    if failure.status == 409 and settings.scheme != "az":
        # a rival write is under way, and it may fail: the key may be taken or free (Azure says so
        # when the key is taken)
        return OutcomeUnknown(f"{where}: {failure.reason}; read the object before writing again")
    if isinstance(error, AlreadyExistsError):
        return AlreadyExists(f"{where}: the object is there already")
    refusal = map_refusal(error, failure, settings)
    if refusal is not None:
        return refusal
    absent = isinstance(error, FileNotFoundError) or failure.status == 404
    if isinstance(error, PreconditionError) or failure.status == 412 or (etag and absent):
        return Conflict(f"{where}: the object is not at version {etag}")
    if failure.status == 0 and failure.kind == "Connect":
        return Unavailable(f"{where}: {failure.reason}; nothing was sent: try again later")
    return OutcomeUnknown(f"{where}: {failure.reason}; it may or may not be written")
