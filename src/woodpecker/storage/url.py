"""Storage URLs: ``s3://``, ``gs://``, ``az://``, ``file://`` and ``memory://`` to typed settings.

Options come from the URL's query or from keyword arguments (which win); their names are the fields of
``StoreSettings``. Unknown names are refused with the nearest valid one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from woodpecker.errors import InvalidRequest
from woodpecker.storage.names import check_key

Scheme = Literal["file", "memory", "s3", "gs", "az"]
SCHEMES: tuple[Scheme, ...] = ("file", "memory", "s3", "gs", "az")

OptionValue = str | int | bool

_CLOUD = (
    "endpoint", "allow_http", "ca_file", "anonymous", "storage_class", "timeout_ms",
    "sorted_listing", "connect_timeout_ms",
)  # fmt: skip
OPTIONS: Mapping[Scheme, tuple[str, ...]] = {
    "file": (),
    "memory": (),
    "s3": (
        *_CLOUD, "region", "virtual_host", "express", "kms_key_id", "quoted_etags", "profile",
        "access_key_id", "secret_access_key", "session_token",
    ),
    "gs": (*_CLOUD, "service_account"),
    "az": (*_CLOUD, "account", "account_key", "sas_token"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """One store: where it is and how to reach it. Empty strings mean "from the environment"."""

    scheme: Scheme
    bucket: str = ""  # bucket or container; memory: the name of the shared bucket
    path: str = ""  # file: absolute directory; clouds: root prefix without outer slashes
    endpoint: str = ""  # base URL of a compatible service; plain http only to loopback
    allow_http: bool = False  # plain http to other hosts as well
    ca_file: str = ""  # PEM file of further root certificates
    anonymous: bool = False  # do not sign requests
    storage_class: str = ""  # for objects written as streams (sealed segments) only
    timeout_ms: int = 60_000  # one whole request
    connect_timeout_ms: int = 5_000
    region: str = ""
    virtual_host: bool = False  # bucket in the host name instead of the path
    express: bool = False  # S3 Express One Zone; implied by a bucket name ending in --x-s3
    kms_key_id: str = ""  # encrypt with this KMS key (SSE-KMS)
    sorted_listing: bool = False  # trust a compatible service to list by bytes (no effect on AWS)
    quoted_etags: bool = True  # False for Ceph, which compares If-Match without quotes
    profile: str = ""  # section of the AWS credentials and config files
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    service_account: str = ""  # path of a Google service account key
    account: str = ""  # Azure storage account
    account_key: str = field(default="", repr=False)
    sas_token: str = field(default="", repr=False)

    @property
    def public_url(self) -> str:
        """The URL with every option that is no secret: enough to find the place again."""
        public = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name in OPTIONS[self.scheme]
            if (value := getattr(self, name)) != self.__dataclass_fields__[name].default
            and self.__dataclass_fields__[name].repr
        }
        return self.url + (f"?{urlencode(public)}" if public else "")

    @property
    def url(self) -> str:
        """The URL without options and secrets, for messages and as identity of the place."""
        if self.scheme == "file":
            return f"file://{self.path}"
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")


def parse_store_url(url: str, **options: OptionValue) -> StoreSettings:
    """Read a storage URL with its query and keyword options.

    Raises:
        InvalidRequest: unknown scheme or option, missing bucket, value of the wrong kind.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidRequest(f"{url!r} is not a URL: {error}") from None
    scheme = _scheme(url, parts.scheme)
    if parts.fragment or parts.username or parts.password:
        raise InvalidRequest(
            f"{scheme}://{parts.hostname or ''}: give credentials as options, not before '@'"
        )
    try:
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise InvalidRequest(f"query of the {scheme}:// URL: {error}; use name=value&...") from None
    names = [name for name, _ in query]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"query of the {scheme}:// URL names an option twice")
    merged: dict[str, OptionValue] = {**dict(query), **options}
    values = {name: _convert(scheme, name, value) for name, value in merged.items()}
    place = _place(scheme, parts.netloc, unquote(parts.path))
    # the table of names above and the conversion below make every keyword a valid field
    return StoreSettings(scheme=scheme, **place, **values)  # type: ignore[arg-type]


def nearest(name: str, valid: Iterable[str]) -> str:
    """Text that lists valid names, the nearest one first."""
    candidates = sorted(valid)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid: {', '.join(candidates) or 'none'}"


def _scheme(url: str, scheme: str) -> Scheme:
    if scheme not in SCHEMES:
        shown = f"{scheme}://" if "://" in url else url
        raise InvalidRequest(f"unknown storage URL {shown!r}: {nearest(scheme, SCHEMES)}")
    return scheme


def _place(scheme: Scheme, host: str, path: str) -> dict[str, str]:
    if scheme == "file":
        if host not in ("", "localhost") or not path.startswith("/"):
            raise InvalidRequest(f"file://{host}{path}: use file:///absolute/directory")
        return {"path": path.rstrip("/") or "/"}
    if scheme == "memory":
        if path.strip("/"):
            raise InvalidRequest(f"memory://{host}{path}: use memory:// or memory://name")
        return {"bucket": host}
    if not host:
        raise InvalidRequest(f"{scheme}:// names no bucket: use {scheme}://bucket/prefix")
    prefix = path.strip("/")
    return {"bucket": host, "path": check_key(prefix) if prefix else ""}


def _convert(scheme: Scheme, name: str, value: OptionValue) -> OptionValue:
    if name not in OPTIONS[scheme]:
        raise InvalidRequest(
            f"unknown option {name!r} of {scheme}:// URLs: {nearest(name, OPTIONS[scheme])}"
        )
    kind = StoreSettings.__dataclass_fields__[name].type
    if kind == "bool":
        return _bool(name, value)
    if kind == "int":
        return _positive(name, value)
    if not isinstance(value, str):
        raise InvalidRequest(f"option {name}: text is needed, got {value!r}")
    return value


def _bool(name: str, value: OptionValue) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    text = str(value).lower()
    if text not in known:
        raise InvalidRequest(f"option {name}: true or false is needed, got {value!r}")
    return known[text]


def _positive(name: str, value: OptionValue) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number <= 0:
        raise InvalidRequest(f"option {name}: a positive whole number is needed, got {value!r}")
    return number
