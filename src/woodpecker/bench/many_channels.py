"""Many channels: making them, and what they cost the process that serves them and the map that it pushes."""

from __future__ import annotations

import asyncio
import os

from woodpecker.access import make_access
from woodpecker.app_streaming import make_dialer
from woodpecker.bench.machine import cpu_seconds_of, now, rss_mb
from woodpecker.bench.report import Row
from woodpecker.bench.stream_systems import Service
from woodpecker.errors import Unavailable
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming.frames import DiscoverHello, MapChange
from woodpecker.streaming.ports import Endpoint
from woodpecker.streaming.requests import AddPchannels
from woodpecker.streaming.transport.services import StreamKind

PCHANNELS = 16
SERVED_TIMEOUT_S, LOOK_S = 60.0, 0.1


async def many_channels(running: Service, count: int) -> Row:
    """Bring the service to ``PCHANNELS``, make ``count`` channels, and look at what there is then.

    Figures: ``map_bytes``: of the whole map on the wire; ``bytes_a_channel``: by which the service grew.
    Raises: Unavailable: not all pchannels are served within a minute.
    """
    dialer = make_dialer(SystemRuntime(), make_access(os.environ))
    try:
        endpoint = dialer.endpoint(running.address)
        await _bring_to(endpoint, PCHANNELS)
        before_mb, cpu, begin = rss_mb(running.pid), cpu_seconds_of(running.pid), now()
        await running.client.create_channels(f"many-{number:06}" for number in range(count))
        seconds = now() - begin
        pushed = await _whole_map(endpoint)
    finally:
        await dialer.close()
    grown_mb = rss_mb(running.pid) - before_mb
    figures = {
        "pchannels": float(len(pushed.entries)),
        "map_bytes": float(_wire_bytes(pushed)),
        "channels_s": count / seconds,
        "service_cpu_s": cpu_seconds_of(running.pid) - cpu,
        "service_rss_mb": rss_mb(running.pid),
        "bytes_a_channel": grown_mb * 1e6 / count,
    }
    return Row(name=f"{count:,} channels on {PCHANNELS} pchannels", figures=figures)


async def _bring_to(endpoint: Endpoint, count: int) -> None:
    """Until so many pchannels are there, and served."""
    missing = count - len((await _whole_map(endpoint)).entries)
    if missing > 0:
        await endpoint.call(AddPchannels(count=missing))
    try:
        async with asyncio.timeout(SERVED_TIMEOUT_S):
            while True:
                entries = (await _whole_map(endpoint)).entries
                if len(entries) >= count and all(entry.serving for entry in entries):
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise Unavailable(
            f"{count} pchannels are not served within {SERVED_TIMEOUT_S:g} s"
        ) from None


async def _whole_map(endpoint: Endpoint) -> MapChange:
    """What a client is pushed that comes new."""
    stream = endpoint.discover()
    try:
        await stream.send(DiscoverHello(client="bench"))
        frame = await stream.receive()
    finally:
        stream.cut()
    assert isinstance(frame, MapChange), f"the first frame of the map is {frame}"
    return frame


def _wire_bytes(frame: MapChange) -> int:
    """Of the frame as protobuf."""
    from woodpecker.streaming.transport.grpc_frames import STREAMS  # noqa: PLC0415  gRPC is an extra

    return STREAMS[StreamKind.DISCOVER].down.encode(frame).ByteSize()
