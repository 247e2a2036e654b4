"""How LogStore nodes are reached: the shared secret, TLS files, this machine's zone, ``wp://`` URLs.

Secrets come from a file, which ``WOODPECKER_SECRET_FILE`` may name, or from ``WOODPECKER_SECRET``; never
from a URL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from woodpecker.errors import InvalidRequest

PathLike = str | os.PathLike[str]

SECRET, SECRET_FILE, ZONE = "WOODPECKER_SECRET", "WOODPECKER_SECRET_FILE", "WOODPECKER_ZONE"
SCHEME = "wp://"
LONGEST_SECRET_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Checked, but for the contents of the TLS files. ``secret`` empty: the nodes ask for none."""

    secret: bytes = field(default=b"", repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    zone: str = ""

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.tls_ca is not None or self.tls_cert is not None


def make_access(
    environ: Mapping[str, str],
    *,
    secret: str | bytes | None = None,
    secret_file: PathLike | None = None,
    tls_ca: PathLike | None = None,
    tls_cert: PathLike | None = None,
    tls_key: PathLike | None = None,
    zone: str | None = None,
) -> Access:
    """Put together what was given and what the environment says.

    Raises: InvalidRequest: a file is missing, a secret empty, two secrets given, half a key pair.
    """
    if secret is not None and secret_file is not None:
        raise InvalidRequest("give secret= or secret_file=, not both")
    if (tls_cert is None) != (tls_key is None):
        raise InvalidRequest("tls_cert and tls_key belong together: give both, or none")
    files = {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
    paths = {name: _file(name, path) for name, path in files.items() if path is not None}
    return Access(
        secret=_secret(environ, secret, secret_file),
        tls_ca=paths.get("tls_ca"),
        tls_cert=paths.get("tls_cert"),
        tls_key=paths.get("tls_key"),
        zone=environ.get(ZONE, "") if zone is None else zone,
    )


def _secret(environ: Mapping[str, str], given: str | bytes | None, file: PathLike | None) -> bytes:
    if file is not None:
        path = _file("secret_file", file)
        return _usable(path.read_bytes().strip(), f"secret_file={path}")
    if given is not None:
        return _usable(given.encode() if isinstance(given, str) else given, "secret=")
    named = environ.get(SECRET_FILE)
    if named:
        return _secret(environ, None, named)
    return environ.get(SECRET, "").strip().encode()


def _usable(secret: bytes, source: str) -> bytes:
    if not secret:
        raise InvalidRequest(f"{source}: the secret is empty")
    if len(secret) > LONGEST_SECRET_BYTES:
        raise InvalidRequest(f"{source}: the secret is longer than {LONGEST_SECRET_BYTES} bytes")
    return secret


def _file(name: str, given: PathLike) -> Path:
    path = Path(given).expanduser()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise InvalidRequest(f"{name}={path}: {error.strerror}") from None


def nodes_of(url: str) -> list[str]:
    """``host:port`` of each node that a ``wp://host:port,host:port`` URL names.

    Raises: InvalidRequest.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidRequest(f"{url!r} is not a URL: {error}") from None
    if parts.query or parts.fragment or parts.path.strip("/"):
        raise InvalidRequest(
            f"{SCHEME}{parts.netloc}: only nodes can be named here, {SCHEME}host:port,host:port; give "
            "options by keyword or by WOODPECKER_*"
        )
    if "@" in parts.netloc:
        raise InvalidRequest(
            f"{SCHEME}: a URL holds no secret: use secret_file= or {SECRET}, not a text before '@'"
        )
    addresses = [address for address in parts.netloc.split(",") if address]
    for address in addresses or [""]:
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
            raise InvalidRequest(
                f"{SCHEME}{parts.netloc}: {address!r} is no node: use {SCHEME}host:port,host:port"
            )
    return addresses
