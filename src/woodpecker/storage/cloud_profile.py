"""Static AWS credentials from the shared files, which obstore does not read by itself."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from woodpecker.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsProfile:
    """What a profile says; empty where it says nothing."""

    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    region: str = ""
    endpoint: str = ""


def read_profile(profile: str, env: Mapping[str, str]) -> AwsProfile:
    """Read ``~/.aws/credentials`` and ``~/.aws/config`` (or the files ``AWS_*_FILE`` name).

    ``profile`` is the one asked for by option; else ``AWS_PROFILE``; else ``default``, whose absence
    is no error.
    Raises:
        InvalidRequest: the profile that was asked for is missing, or has no static keys.
    """
    home = Path(env.get("HOME", "~")).expanduser() / ".aws"
    credentials_file = Path(env.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials")
    config_file = Path(env.get("AWS_CONFIG_FILE") or home / "config")
    wanted = profile or env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or ""
    name = wanted or "default"
    section = "default" if name == "default" else f"profile {name}"
    config = _section(config_file, section)
    values = {**config, **_section(credentials_file, name)}
    if wanted and not values:
        raise InvalidRequest(
            f"AWS profile {name!r} is neither in {credentials_file} nor in {config_file}"
        )
    if wanted and not values.get("aws_access_key_id"):
        raise InvalidRequest(
            f"AWS profile {name!r} has no aws_access_key_id; sign-on, role and process profiles "
            f"are not read: export their keys (aws configure export-credentials --format env)"
        )
    return AwsProfile(
        access_key_id=values.get("aws_access_key_id", ""),
        secret_access_key=values.get("aws_secret_access_key", ""),
        session_token=values.get("aws_session_token", ""),
        region=values.get("region", ""),
        endpoint=values.get("endpoint_url", ""),
    )


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0none")
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise InvalidRequest(f"{path} cannot be read as AWS settings: {error}") from error
    return dict(parser[name]) if parser.has_section(name) else {}
