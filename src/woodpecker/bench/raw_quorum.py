"""The limit of kind quorum: raw blocks over TCP to three sinks (``sink.py``), durable on two.

One thread feeds all sinks, as a client does. The best of block size and method of writing counts: for
throughput into blocks of the disk that are new, as those of a journal that grows are; one at a time into
blocks that were written before, as a journal writes zeros ahead of small writes.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from woodpecker.bench.figures import Slice
from woodpecker.bench.machine import cpu_seconds, now
from woodpecker.bench.processes import child
from woodpecker.bench.sink import SETUP, SOCKET_BYTES

BLOCK_SIZES = (256 << 10, 1 << 20, 4 << 20)
WINDOW_BYTES = 16 << 20
SMALL_BYTES = 1024
TRY_SECONDS = 0.25
TURN_S = 5.0  # a sink that says nothing for so long is broken


@dataclass(frozen=True, slots=True)
class _Way:
    size: int
    method: int
    is_overlapped: bool
    is_fresh: bool


def _large(size: int, method: int, *, is_fresh: bool = True) -> _Way:
    return _Way(size, method, is_overlapped=True, is_fresh=is_fresh)


def _small(method: int) -> _Way:
    return _Way(SMALL_BYTES, method, is_overlapped=False, is_fresh=False)


class _Sink:
    """One connection to one sink."""

    def __init__(self, port: int, way: _Way, block: memoryview) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        self.socket.sendall(SETUP.pack(way.size, way.method, way.is_overlapped, way.is_fresh))
        self.socket.settimeout(0)
        self.acked = 0
        self.wants_to_send = False
        self._block = block
        self._sent = 0  # bytes

    def send(self, until_block: int) -> None:
        """Send what the socket takes, up to a number of blocks in all."""
        size, end = len(self._block), until_block * len(self._block)
        while self._sent < end:
            try:
                self._sent += self.socket.send(self._block[self._sent % size :])
            except BlockingIOError:
                break
        self.wants_to_send = self._sent < end

    def receive(self) -> None:
        """Take acknowledgements."""
        with suppress(BlockingIOError):
            answers = self.socket.recv(1 << 16)
            if not answers:
                raise ConnectionError("a sink of the bench has ended")
            self.acked += len(answers)


class RawQuorum:
    """Client of the sinks. Everything blocks."""

    def __init__(self, ports: Sequence[int], methods: Sequence[str], acks: int = 2) -> None:
        self._ports = ports
        self._methods = methods
        self._acks = acks
        self._body = memoryview(os.urandom(max(BLOCK_SIZES)))
        self._large = _large(BLOCK_SIZES[0], 0)
        self._small = _small(0)

    def choose(self) -> str:
        """Find the best ways; returns what was found, for people."""
        methods = range(len(self._methods))
        found = {
            is_fresh: self._best(
                [_large(size, m, is_fresh=is_fresh) for size in BLOCK_SIZES for m in methods]
            )
            for is_fresh in (True, False)
        }
        self._large, self._small = found[True][0], self._best([_small(m) for m in methods])[0]
        return (
            f"limit: raw TCP to {len(self._ports)} sinks, durable on {self._acks}: blocks of "
            f"{self._large.size >> 10} KiB, {self._methods[self._large.method]}, into new blocks of the "
            f"disk (into old ones: {found[False][1].mb_s:.0f} MB/s); one at a time: "
            f"{self._methods[self._small.method]}, into old ones"
        )

    def _best(self, ways: Sequence[_Way]) -> tuple[_Way, Slice]:
        slices = [(way, self._measure(way, TRY_SECONDS)) for way in ways]
        return max(slices, key=lambda found: found[1].mb_s)

    def throughput(self, seconds: float) -> Slice:
        """Large blocks, as many as the window holds."""
        return self._measure(self._large, seconds)

    def latency(self, seconds: float) -> Slice:
        """Blocks of 1 KiB, one at a time."""
        return self._measure(self._small, seconds)

    def _measure(self, way: _Way, seconds: float) -> Slice:
        block = self._body[: way.size]
        sinks = [_Sink(port, way, block) for port in self._ports]
        window = max(2, WINDOW_BYTES // way.size) if way.is_overlapped else 1
        try:
            return self._run(sinks, window, way.size, seconds)
        finally:
            for sink in sinks:
                sink.socket.close()

    def _run(self, sinks: list[_Sink], window: int, size: int, seconds: float) -> Slice:
        poll = select.epoll()
        by_fd = {sink.socket.fileno(): sink for sink in sinks}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        done, cpu, begin = Slice(), cpu_seconds(), now()
        last, submitted = begin, window
        while True:
            for fd, sink in by_fd.items():
                had_more = sink.wants_to_send
                sink.send(submitted)
                if sink.wants_to_send != had_more:
                    more = select.EPOLLOUT if sink.wants_to_send else 0
                    poll.modify(fd, select.EPOLLIN | more)
            events = poll.poll(TURN_S)
            if not events:
                raise TimeoutError("a sink of the bench does not answer")
            for fd, mask in events:
                if mask & ~select.EPOLLOUT:
                    by_fd[fd].receive()
            confirmed = sorted(sink.acked for sink in sinks)[-self._acks]
            end = now()
            if confirmed > done.entries and window == 1:
                done.latencies.append(end - last)
            if confirmed > done.entries:
                last, done.entries = end, confirmed
            if end - begin < seconds:
                submitted = confirmed + window
            elif confirmed == submitted:
                break
        poll.close()
        done.bytes, done.seconds = done.entries * size, end - begin
        done.cpu_seconds = cpu_seconds() - cpu
        return done


@asynccontextmanager
async def raw_quorum(directory: Path, count: int = 3) -> AsyncIterator[RawQuorum]:
    """Start sinks with files in ``directory``; ended at the end."""
    ports: list[int] = []
    methods: list[str] = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            arguments = ("sink", str(directory / f"sink-{number}"))
            process = await stack.enter_async_context(child(*arguments))
            assert process.stdout is not None
            port, *methods = (await process.stdout.readline()).decode().split()
            ports.append(int(port))
        yield RawQuorum(ports, methods)
