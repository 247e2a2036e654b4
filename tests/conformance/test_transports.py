"""The suite of transports, on all of ours."""

from __future__ import annotations

import socket

import pytest

from woodpecker.access import Access
from woodpecker.rpc.memory import Conditions, MemoryNetwork
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp import TcpTransport, serve
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.testing.conformance.transport import MIB, TransportSuite
from woodpecker.testing.servers.certificates import make_certificates


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


class MemoryPlace:
    max_unanswered_bytes = 4 * MIB

    def __init__(self, conditions: Conditions | None = None) -> None:
        self._network = MemoryNetwork(SystemRuntime(), conditions)
        self._network.max_unanswered_bytes = self.max_unanswered_bytes
        self._served = 0

    async def serve(self, handler, address=None):
        self._served += 1
        return self._network.serve(address or f"node:{self._served}", handler)

    def transport(self):
        return self._network.transport()

    async def nowhere(self):
        return "nowhere:1"


class TcpPlace:
    max_unanswered_bytes = 4 * MIB

    def __init__(self, access: Access | None = None) -> None:
        self._access = access
        self._settings = WireSettings(max_unanswered_bytes=self.max_unanswered_bytes)

    async def serve(self, handler, address=None):
        port = 0 if address is None else int(address.rpartition(":")[2])
        return await serve(
            handler, "127.0.0.1", port, SystemRuntime(), self._access, self._settings
        )

    def transport(self):
        return TcpTransport(SystemRuntime(), self._access, self._settings)

    async def nowhere(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{probe.getsockname()[1]}"


class TestMemory(TransportSuite):
    @pytest.fixture
    def place(self):
        return MemoryPlace()


class TestSlowMemory(TransportSuite):
    @pytest.fixture
    def place(self):
        return MemoryPlace(Conditions(delay_ms=(0.0, 0.5)))


class TestTcp(TransportSuite):
    @pytest.fixture
    def place(self):
        return TcpPlace()


class TestTcpWithSecret(TransportSuite):
    @pytest.fixture
    def place(self):
        return TcpPlace(Access(secret=b"only we know"))


def tls_place(files):
    access = Access(
        secret=b"only we know",
        tls_ca=files.ca_file,
        tls_cert=files.server_certificate_file,
        tls_key=files.server_key_file,
    )
    return TcpPlace(access)


class TestTls(TransportSuite):
    @pytest.fixture
    def place(self, files):
        return tls_place(files)
