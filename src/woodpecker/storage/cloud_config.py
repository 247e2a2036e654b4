"""From ``StoreSettings`` and the environment to an obstore store."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from woodpecker.errors import InvalidRequest
from woodpecker.storage.cloud_profile import AwsProfile, read_profile
from woodpecker.storage.url import StoreSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SdkStore = S3Store | GCSStore | AzureStore

_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

STREAM_RETRIES = 5
STREAM_RETRY_TIMEOUT_S = 60


def open_store(settings: StoreSettings, env: Mapping[str, str], *, retries: int) -> SdkStore:
    """Build the SDK's store; nothing is sent yet.

    Raises:
        InvalidRequest: settings that cannot work.
    """
    retry_config = cast(
        "RetryConfig",
        {"max_retries": retries, "retry_timeout": timedelta(seconds=STREAM_RETRY_TIMEOUT_S)},
    )
    try:
        if settings.scheme == "s3":
            return _s3(settings, env, retry_config)
        if settings.scheme == "gs":
            return _gcs(settings, env, retry_config)
        return _azure(settings, env, retry_config)
    except (BaseError, ValueError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InvalidRequest(f"{settings.url}: the settings are refused: {reason}") from error


def is_express(settings: StoreSettings) -> bool:
    """True for S3 directory buckets (Express One Zone), whose listings are not sorted."""
    return settings.express or (settings.scheme == "s3" and settings.bucket.endswith("--x-s3"))


def sorts_listings(settings: StoreSettings, env: Mapping[str, str]) -> bool:
    """True if listings come sorted by the bytes of the keys.

    The services promise it; compatible ones often sort directories first, unless the user knows better.
    """
    compatible = settings.endpoint or any(
        settings.scheme == "s3" and env.get(name) for name in _S3_ENDPOINTS
    )
    return not is_express(settings) and (settings.sorted_listing or not compatible)


def is_loopback(endpoint: str) -> bool:
    """True if the URL's host is this machine."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _s3(settings: StoreSettings, env: Mapping[str, str], retry_config: RetryConfig) -> S3Store:
    profile = _keys(settings, env)
    endpoint = _first(
        settings.endpoint, *(env.get(name) for name in _S3_ENDPOINTS), profile.endpoint
    )
    region = _first(
        settings.region, env.get("AWS_REGION"), env.get("AWS_DEFAULT_REGION"), profile.region
    )
    private = not endpoint.startswith("http://") or is_loopback(endpoint)
    config: dict[str, Any] = {
        "region": region or "us-east-1",
        "unsigned_payload": private,
        "virtual_hosted_style_request": settings.virtual_host,
        "conditional_put": "etag",
        "s3_express": is_express(settings),
    }
    if endpoint:
        inside = settings.virtual_host and not urlsplit(endpoint).netloc.startswith(
            f"{settings.bucket}."
        )
        config["endpoint"] = (
            endpoint.replace("://", f"://{settings.bucket}.", 1) if inside else endpoint
        )
    if settings.kms_key_id:
        config |= {"server_side_encryption": "aws:kms", "sse_kms_key_id": settings.kms_key_id}
    return S3Store(
        settings.bucket,
        config=cast("Any", config | _s3_credentials(settings, profile)),
        client_options=_client_options(settings, env, endpoint),
        retry_config=retry_config,
    )


def _keys(settings: StoreSettings, env: Mapping[str, str]) -> AwsProfile:
    # the order of the AWS command line: option, environment, files, then roles (obstore's part)
    if settings.anonymous or settings.access_key_id:
        return AwsProfile()
    if not settings.profile and env.get("AWS_ACCESS_KEY_ID"):
        return AwsProfile(
            access_key_id=env["AWS_ACCESS_KEY_ID"],
            secret_access_key=env.get("AWS_SECRET_ACCESS_KEY", ""),
            session_token=env.get("AWS_SESSION_TOKEN", ""),
        )
    return read_profile(settings.profile, env)


def _s3_credentials(settings: StoreSettings, profile: AwsProfile) -> dict[str, Any]:
    if settings.anonymous:
        return {"skip_signature": True}
    key_id = settings.access_key_id or profile.access_key_id
    secret = settings.secret_access_key or profile.secret_access_key
    if not key_id:
        return {}
    if not secret:
        raise InvalidRequest(
            f"{settings.url}: access key id {key_id} without its secret access key"
        )
    credentials = {"access_key_id": key_id, "secret_access_key": secret}
    token = settings.session_token or profile.session_token
    return credentials | ({"session_token": token} if token else {})


def _gcs(settings: StoreSettings, env: Mapping[str, str], retry_config: RetryConfig) -> GCSStore:
    config: dict[str, Any] = {}
    if settings.endpoint and settings.anonymous:
        # an emulator: skip_signature covers reads alone, this key makes the SDK ask for no token
        config["service_account_key"] = json.dumps({
            "gcs_base_url": settings.endpoint, "disable_oauth": True,
            "client_email": "", "private_key": "", "private_key_id": "",
        })  # fmt: skip
    elif settings.endpoint:
        config["base_url"] = settings.endpoint
    elif settings.anonymous:
        config["skip_signature"] = True
    if settings.service_account:
        config["service_account"] = settings.service_account
    return GCSStore(
        settings.bucket,
        config=cast("Any", config),
        client_options=_client_options(settings, env, settings.endpoint),
        retry_config=retry_config,
    )


def _azure(
    settings: StoreSettings, env: Mapping[str, str], retry_config: RetryConfig
) -> AzureStore:
    config: dict[str, Any] = {
        name: value
        for name, value in (
            ("endpoint", settings.endpoint),
            ("account_name", settings.account),
            ("account_key", settings.account_key),
            ("sas_key", settings.sas_token),
        )
        if value
    }
    if settings.anonymous:
        config["skip_signature"] = True
    return AzureStore(
        settings.bucket,
        config=cast("Any", config),
        client_options=_client_options(settings, env, settings.endpoint),
        retry_config=retry_config,
    )


def _client_options(settings: StoreSettings, env: Mapping[str, str], endpoint: str) -> ClientConfig:
    allowed = settings.allow_http or env.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1")
    plain = endpoint.startswith("http://")
    if plain and not (allowed or is_loopback(endpoint)):
        raise InvalidRequest(
            f"{settings.url}: {endpoint} is not encrypted; use https, or set allow_http=true"
        )
    options: ClientConfig = {
        "allow_http": plain,
        "timeout": timedelta(milliseconds=settings.timeout_ms),
        "connect_timeout": timedelta(milliseconds=settings.connect_timeout_ms),
    }
    if settings.ca_file:
        options["root_certificate"] = Path(settings.ca_file).read_bytes()
    return options


def _first(*values: str | None) -> str:
    return next((value for value in values if value), "")
