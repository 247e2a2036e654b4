"""``etcd://user:password@host:port,host:port/prefix?option=value`` to a metadata store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from woodpecker.errors import InvalidRequest
from woodpecker.metadata.etcd import TIMEOUT_MS, EtcdLogin, EtcdMetadata, EtcdTls
from woodpecker.runtime.runtime import Runtime

OPTIONS = ("tls", "ca_file", "cert_file", "key_file", "timeout_ms")
USER, PASSWORD = "WOODPECKER_ETCD_USER", "WOODPECKER_ETCD_PASSWORD"
PREFIX = "woodpecker"


def open_etcd(url: str, runtime: Runtime, environ: Mapping[str, str]) -> EtcdMetadata:
    """The metadata store of a URL; nothing is connected yet.

    Args:
        url: user and password may be percent-encoded, and stand in ``environ`` instead
            (``WOODPECKER_ETCD_USER``, ``WOODPECKER_ETCD_PASSWORD``). Options: ``tls=true`` (implied by
            the files), ``ca_file``, ``cert_file``, ``key_file``, ``timeout_ms`` of one call.
    Raises: InvalidRequest: no host, unknown option, bad value. It shows no password.
    """
    parts = urlsplit(url)
    login, _, netloc = parts.netloc.rpartition("@")
    hosts = [host for host in netloc.split(",") if host]
    if not hosts:
        raise InvalidRequest(
            "metadata=etcd:// names no host: use etcd://host:port,host:port/prefix"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InvalidRequest(
            f"metadata=etcd://: unknown option {unknown[0]!r}; valid are {', '.join(OPTIONS)}"
        )
    return EtcdMetadata(
        hosts,
        unquote(parts.path).strip("/") or PREFIX,
        runtime,
        tls=_tls(options),
        login=_login(login, environ),
        timeout_ms=_timeout_ms(options.get("timeout_ms", str(TIMEOUT_MS))),
    )


def _tls(options: Mapping[str, str]) -> EtcdTls | None:
    files = {name: options.get(name) for name in ("ca_file", "cert_file", "key_file")}
    wanted = options.get("tls", str(any(files.values()))).lower()
    if wanted not in {"true", "false"} or (wanted == "false" and any(files.values())):
        raise InvalidRequest(
            f"metadata=etcd://: tls={options.get('tls')!r} must be true or false, and is true if "
            "ca_file, cert_file or key_file is given"
        )
    if wanted == "false":
        return None
    paths = {name: Path(file) if file else None for name, file in files.items()}
    return EtcdTls(
        ca_file=paths["ca_file"],
        certificate_file=paths["cert_file"],
        key_file=paths["key_file"],
    )


def _login(given: str, environ: Mapping[str, str]) -> EtcdLogin | None:
    user, _, password = given.partition(":")
    user = unquote(user) or environ.get(USER, "")
    password = unquote(password) or environ.get(PASSWORD, "")
    return EtcdLogin(user=user, password=password) if user else None


def _timeout_ms(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise InvalidRequest(f"metadata=etcd://: timeout_ms={text!r}: a whole number from 1 on")
    return int(text)
