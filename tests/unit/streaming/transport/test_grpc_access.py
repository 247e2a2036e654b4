"""Who may come in over gRPC, and how others find out what is served."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from woodpecker.access import Access
from woodpecker.errors import InvalidRequest
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming import requests
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.transport.grpc_client import GrpcDialer
from woodpecker.streaming.transport.grpc_server import GrpcServer
from woodpecker.testing.conformance.stream_transport import Service
from woodpecker.testing.servers.certificates import make_certificates

SECRET = Access(secret=b"only we know")


@asynccontextmanager
async def served(access=None):
    server = GrpcServer("127.0.0.1:0", SystemRuntime(), access)
    await server.start(Service().all)
    try:
        yield server.address
    finally:
        await server.close()


async def outcome(address, access=None, *, work=None):
    """The class of refusal of a call; None: it was answered."""
    dialer = GrpcDialer(SystemRuntime(), access)
    try:
        async with asyncio.timeout(10):
            endpoint = dialer.endpoint(address)
            if work is not None:
                await work(endpoint)
            else:
                await endpoint.call(requests.AddPchannels(count=1), timeout_ms=3000)
        return None
    except Refused as error:
        return error.refusal.kind
    finally:
        await dialer.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


async def test_without_the_secret_nothing_is_answered():
    async with served(SECRET) as address:
        assert await outcome(address, SECRET) is None
        assert await outcome(address) is Class.DENIED
        assert await outcome(address, Access(secret=b"another")) is Class.DENIED

        async def discover(endpoint):
            await endpoint.discover().receive()

        assert await outcome(address, work=discover) is Class.DENIED


async def test_a_secret_that_nobody_asked_for_does_no_harm():
    async with served() as address:
        assert await outcome(address, SECRET) is None


async def test_tls_on_one_side_alone_is_no_connection(files):
    tls = Access(tls_cert=files.server_certificate_file, tls_key=files.server_key_file)
    with_ca = Access(tls_ca=files.ca_file)
    async with served(tls) as address:
        assert await outcome(address, with_ca) is None
        assert await outcome(address) is Class.UNAVAILABLE
    async with served() as address:
        assert await outcome(address, with_ca) is Class.UNAVAILABLE


async def test_with_a_ca_the_server_asks_for_certificates(files):
    both = Access(
        tls_ca=files.ca_file,
        tls_cert=files.server_certificate_file,
        tls_key=files.server_key_file,
    )
    async with served(both) as address:
        assert await outcome(address, both) is None
        assert await outcome(address, Access(tls_ca=files.ca_file)) is not None


async def test_an_address_in_use_is_told():
    async with served() as address:
        with pytest.raises(InvalidRequest, match="--port or --listen") as caught:
            GrpcServer(address, SystemRuntime())
    assert "GRPC_VERBOSITY" not in str(caught.value)


async def test_a_server_that_never_served_gives_its_port_back():
    server = GrpcServer("127.0.0.1:0", SystemRuntime())
    await server.close()
    again = GrpcServer(server.address, SystemRuntime())
    await again.start(Service().all)
    assert await outcome(again.address) is None
    await again.close()


async def test_a_tls_server_needs_a_certificate(files):
    with pytest.raises(InvalidRequest, match="tls_cert"):
        GrpcServer("127.0.0.1:0", SystemRuntime(), Access(tls_ca=files.ca_file))


async def test_reflection_tells_what_is_served():
    async with served() as address:

        def look():
            with grpc.insecure_channel(address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                names = set(database.get_services())
                pool = DescriptorPool(database)
                service = pool.FindServiceByName("woodpecker.streaming.v1.HandlerService")
                return names, {method.name for method in service.methods}

        names, methods = await asyncio.to_thread(look)
    assert "woodpecker.streaming.v1.BroadcastService" in names
    assert {"Produce", "Consume", "GetReadPoint"} <= methods


async def why(address, access=None) -> str:
    """What a call is told that finds no connection."""
    dialer = GrpcDialer(SystemRuntime(), access)
    try:
        with pytest.raises(Refused) as caught:
            await dialer.endpoint(address).call(requests.AddPchannels(count=1), timeout_ms=5000)
        assert caught.value.refusal.kind is Class.UNAVAILABLE
        return str(caught.value)
    finally:
        await dialer.close()


async def test_why_there_is_no_connection_is_told(files):
    assert "refused" in await why("127.0.0.1:1")
    assert "lookup failed for nosuch.invalid" in await why("nosuch.invalid:7300")
    tls = Access(tls_cert=files.server_certificate_file, tls_key=files.server_key_file)
    async with served(tls) as address:
        assert "Socket closed" in await why(address)
    async with served() as address:
        assert "handshake failed" in await why(address, Access(tls_ca=files.ca_file))


async def test_who_has_no_secret_is_told_how_to_give_it():
    async with served(SECRET) as address:
        dialer = GrpcDialer(SystemRuntime())
        with pytest.raises(Refused, match="WOODPECKER_SECRET_FILE"):
            await dialer.endpoint(address).call(requests.AddPchannels(count=1))
        await dialer.close()


async def test_a_refusal_that_nobody_waits_for_any_more_is_no_noise():
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    refusal = Refusal(kind=Class.LATER, message="a test says so")
    go_on = asyncio.Event()
    service = Service(reply=Refused(refusal), wait=go_on)
    server = GrpcServer("127.0.0.1:0", SystemRuntime())
    await server.start(service.all)
    dialer = GrpcDialer(SystemRuntime())
    with pytest.raises(Refused):
        await dialer.endpoint(server.address).call(requests.AddPchannels(count=1), timeout_ms=300)
    await asyncio.sleep(0.3)
    go_on.set()
    await service.until(lambda: service.done)
    await asyncio.sleep(0.1)
    await dialer.close()
    await server.close()
    gc.collect()
    assert not noise
