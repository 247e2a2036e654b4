"""Calls and streams to somebody who accepts connections and says nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.transport import grpc_client
from woodpecker.streaming.transport.grpc_client import GrpcDialer

ADD = requests.AddPchannels(count=1)


@pytest.fixture
def silent():
    """An address: the system accepts, nobody answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
async def dialer():
    found = GrpcDialer(SystemRuntime())
    yield found
    await found.close()


async def kind_of(work) -> Class:
    with pytest.raises(Refused) as caught:
        async with asyncio.timeout(10):
            await work
    return caught.value.refusal.kind


async def test_a_call_was_surely_not_sent(silent, dialer) -> None:
    call = dialer.endpoint(silent).call(ADD, timeout_ms=200)
    assert await kind_of(call) is Class.UNAVAILABLE


async def test_a_dialer_that_is_closed_ends_who_waits_for_a_connection(silent, dialer) -> None:
    call = asyncio.ensure_future(dialer.endpoint(silent).call(ADD, timeout_ms=60_000))
    stream = dialer.endpoint(silent).discover()
    waiting = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0.1)
    await dialer.close()
    assert await kind_of(call) is Class.UNAVAILABLE
    assert await kind_of(waiting) is Class.UNKNOWN


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 8])
async def test_a_stream_that_is_cut_while_it_connects_leaves_nothing(silent, turns) -> None:
    """gRPC never ended its write, so closing the dialer, and whole commands, hung."""
    dialer = GrpcDialer(SystemRuntime())
    stream = dialer.endpoint(silent).discover()
    await stream.send(frames.DiscoverHello(client="x"))
    for _ in range(turns):
        await asyncio.sleep(0)
    stream.cut()
    async with asyncio.timeout(5):
        await dialer.close()


async def test_who_gives_up_is_cancelled_and_nobody_else(silent, dialer) -> None:
    call = asyncio.ensure_future(dialer.endpoint(silent).call(ADD, timeout_ms=60_000))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_frame_that_cannot_be_sent_ends_its_stream_with_the_reason(silent, dialer) -> None:
    stream = dialer.endpoint(silent).discover()
    await stream.send(frames.DiscoverHello(client="\udcff"))
    assert await kind_of(stream.receive()) is Class.INVALID


async def test_an_address_that_grpc_cannot_use_is_told_at_once(dialer) -> None:
    with pytest.raises(Refused, match=r"not valid.*nothing was sent") as caught:
        async with asyncio.timeout(5):
            await dialer.endpoint("ipv4:1.2:3").call(ADD)
    assert caught.value.refusal.kind is Class.UNAVAILABLE


async def test_who_is_answered_without_a_connection_looks_again_after_a_pause(
    dialer, monkeypatch
) -> None:
    probes: list[object] = []

    async def answered(channel: object) -> str:
        probes.append(channel)
        await asyncio.sleep(0)
        return ""

    monkeypatch.setattr(grpc_client, "_why_not", answered)
    assert await kind_of(dialer.endpoint("127.0.0.1:1").call(ADD, timeout_ms=500)) is (
        Class.UNAVAILABLE
    )
    assert 1 <= len(probes) <= 20
