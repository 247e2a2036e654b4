"""The suite of the streaming service's transports, on all of ours."""

from __future__ import annotations

import itertools
import socket
import typing

import pytest

from woodpecker.access import Access
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming import frames, ports
from woodpecker.streaming.transport.grpc_client import GrpcDialer
from woodpecker.streaming.transport.grpc_server import GrpcServer
from woodpecker.streaming.transport.memory import MemoryNetwork
from woodpecker.testing.conformance import stream_samples as samples
from woodpecker.testing.conformance.stream_transport import StreamTransportSuite
from woodpecker.testing.servers.certificates import make_certificates


class MemoryPlace:
    def __init__(self, delay_ms=(0.0, 0.0)):
        self._network = MemoryNetwork(SystemRuntime())
        self._network.delay_ms = delay_ms
        self._numbers = itertools.count()

    async def serve(self, services, address=None):
        return self._network.serve(address or f"node:{next(self._numbers)}", services)

    def dialer(self):
        return self._network.dialer()

    async def nowhere(self):
        return "nowhere:1"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


class GrpcPlace:
    def __init__(self, access=None):
        self._access = access

    async def serve(self, services, address="127.0.0.1:0"):
        server = GrpcServer(address or "127.0.0.1:0", SystemRuntime(), self._access)
        await server.start(services)
        return server

    def dialer(self):
        return GrpcDialer(SystemRuntime(), self._access)

    async def nowhere(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{probe.getsockname()[1]}"


class TestMemory(StreamTransportSuite):
    @pytest.fixture
    def place(self):
        return MemoryPlace()


class TestSlowMemory(StreamTransportSuite):
    @pytest.fixture
    def place(self):
        return MemoryPlace(delay_ms=(0.0, 0.5))


class TestGrpc(StreamTransportSuite):
    @pytest.fixture
    def place(self):
        return GrpcPlace()


class TestGrpcWithTlsAndToken(StreamTransportSuite):
    @pytest.fixture
    def place(self, files):
        access = Access(
            secret=b"only we know",
            tls_ca=files.ca_file,
            tls_cert=files.server_certificate_file,
            tls_key=files.server_key_file,
        )
        return GrpcPlace(access)


def test_there_is_a_sample_of_every_frame_and_request():
    for union, given in (
        (frames.ProduceUp, samples.PRODUCE_UP),
        (frames.ProduceDown, samples.PRODUCE_DOWN),
        (frames.ConsumeUp, samples.CONSUME_UP),
        (frames.ConsumeDown, samples.CONSUME_DOWN),
        (frames.DiscoverUp, samples.DISCOVER_UP),
        (frames.DiscoverDown, samples.DISCOVER_DOWN),
    ):
        assert {type(frame) for frame in given} == set(typing.get_args(union))
    known = {*ports.HANDLER_REQUESTS, *ports.MANAGER_REQUESTS, *ports.ASSIGNMENT_REQUESTS}
    assert {type(request) for request, _ in samples.EXCHANGES} == known
