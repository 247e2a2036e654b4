"""Real etcd, one member or three, for tests and demonstrations.

Loopback only, free ports, own directory. The calls block for at most some seconds; in a running
event loop call them with ``asyncio.to_thread``.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from woodpecker.programs import HOW_TO_GET_ETCD, find_etcd
from woodpecker.testing.servers.certificates import Certificates
from woodpecker.testing.servers.process import LOOPBACK, Host, free_port, wait_until_stopped

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10


@dataclass(slots=True, kw_only=True)
class EtcdMember:
    """One etcd process. It can be killed, paused and started again on its data."""

    name: str
    endpoint: str  # host:port for clients
    health_url: str
    argv: Sequence[str]
    log_file: Path
    host: Host = LOOPBACK
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def start(self) -> None:
        """Start the process; does not wait until it serves."""
        assert self.process is None, f"{self.name} is running already"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.host.command(self.argv), stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, pass_fds=self.host.pass_fds,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until it answers linearizable reads."""
        until = time.monotonic() + START_TIMEOUT_S
        while not self._is_healthy():
            assert self.process is not None and self.process.poll() is None, self._failed("ended")
            assert time.monotonic() < until, self._failed("does not answer")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as in a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, an orderly end."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until_stopped(self.pid)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
        self.process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.health_url, timeout=2) as reply:
                return bool(json.load(reply).get("health") == "true")
        except (OSError, ValueError):
            return False

    def _failed(self, what: str) -> str:
        return f"etcd {self.name} {what}:\n{self.log_file.read_text(errors='replace')[-2000:]}"


class EtcdCluster:
    """One or more members, running and ready.

    Args:
        directory: data and logs go here.
        members: 1, 3 or 5.
        binary: the etcd program; default ``find_etcd()``.
        certificates: serve clients by TLS and ask for their certificates.
        host: where all members run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        members: int = 1,
        binary: Path | None = None,
        certificates: Certificates | None = None,
        host: Host = LOOPBACK,
    ) -> None:
        program = binary or find_etcd()
        assert program is not None, HOW_TO_GET_ETCD
        directory.mkdir(parents=True, exist_ok=True)
        ports = [free_port() for _ in range(3 * members)]
        peers = {f"n{i}": f"http://{host.address}:{ports[3 * i]}" for i in range(members)}
        self.certificates = certificates
        self.members = [
            _member(
                program,
                directory,
                name,
                peers,
                client_port=ports[3 * i + 1],
                health_port=ports[3 * i + 2],
                certificates=certificates,
                host=host,
            )
            for i, name in enumerate(peers)
        ]
        try:
            for member in self.members:
                member.start()
            for member in self.members:
                member.wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def endpoints(self) -> list[str]:
        """``host:port`` of every member."""
        return [member.endpoint for member in self.members]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all members."""
        for member in self.members:
            member.kill()

    def enable_login(self, user: str, password: str, *, prefix: str) -> None:
        """Switch authentication on; ``user`` may read and write under ``prefix`` only."""
        first = prefix.encode()
        after = first[:-1] + bytes([first[-1] + 1])
        rights = {"permType": "READWRITE", "key": _b64(first), "range_end": _b64(after)}
        self._post("auth/user/add", {"name": "root", "password": f"root {password}"})
        self._post("auth/user/grant", {"user": "root", "role": "root"})
        self._post("auth/role/add", {"name": user})
        self._post("auth/role/grant", {"name": user, "perm": rights})
        self._post("auth/user/add", {"name": user, "password": password})
        self._post("auth/user/grant", {"user": user, "role": user})
        self._post("auth/enable", {})

    def compact(self, revision: int) -> None:
        """Forget history before ``revision``."""
        self._post("kv/compaction", {"revision": str(revision), "physical": True})

    def _post(self, path: str, body: object) -> None:
        scheme, context = "http", None
        if self.certificates is not None:
            scheme = "https"
            context = ssl.create_default_context(cafile=self.certificates.ca_file)
            context.load_cert_chain(
                self.certificates.client_certificate_file, self.certificates.client_key_file
            )
        request = urllib.request.Request(
            f"{scheme}://{self.endpoints[0]}/v3/{path}", json.dumps(body).encode()
        )
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as reply:
                reply.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"etcd {path}: {error.read().decode()}") from error


def _member(
    program: Path,
    directory: Path,
    name: str,
    peers: dict[str, str],
    *,
    client_port: int,
    health_port: int,
    certificates: Certificates | None,
    host: Host,
) -> EtcdMember:
    scheme = "https" if certificates else "http"
    client_url = f"{scheme}://{host.address}:{client_port}"
    health_url = f"http://{host.address}:{health_port}"
    options = {
        "name": name,
        "data-dir": str(directory / name),
        "listen-client-urls": client_url,
        "advertise-client-urls": client_url,
        "listen-metrics-urls": health_url,
        "listen-peer-urls": peers[name],
        "initial-advertise-peer-urls": peers[name],
        "initial-cluster": ",".join(f"{peer}={url}" for peer, url in peers.items()),
        "heartbeat-interval": "50",  # fail over fast
        "election-timeout": "500",
        "logger": "zap",
        "log-level": "warn",
    }
    if certificates:
        options |= {
            "cert-file": str(certificates.server_certificate_file),
            "key-file": str(certificates.server_key_file),
            "trusted-ca-file": str(certificates.ca_file),
            "client-cert-auth": "true",
        }
    return EtcdMember(
        name=name,
        endpoint=f"{host.address}:{client_port}",
        health_url=f"{health_url}/health",
        argv=[str(program), *(f"--{option}={value}" for option, value in options.items())],
        log_file=directory / f"{name}.log",
        host=host,
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
