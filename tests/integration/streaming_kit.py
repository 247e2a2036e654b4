"""Processes of the streaming service for tests, and loads that know what must be there afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import urllib.request
from pathlib import Path

from tests.integration.cluster_kit import COMMAND, clean_env, command

from woodpecker.app_streaming import connect
from woodpecker.errors import WoodpeckerError
from woodpecker.streaming.client.channel import Channel
from woodpecker.testing.servers.process import free_port

START_TIMEOUT_S = 60.0


class Serving:
    """One process that prints a ready line as JSON: ``up``, ``coordinator serve`` or ``node serve``."""

    def __init__(self, directory: Path, name: str, *argv: str) -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.argv = [*COMMAND, *argv, "--http", self.http, "--json"]
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._err.read_text()

    async def start(self) -> dict[str, object]:
        """Start it; the ready line."""
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(
                self.argv, env=clean_env(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        async with asyncio.timeout(START_TIMEOUT_S):
            while "\n" not in self._out.read_text():
                assert self._process.poll() is None, self.log
                await asyncio.sleep(0.02)
        found: dict[str, object] = json.loads(self._out.read_text())
        return found

    async def end(self, number: int) -> int:
        """Send a signal and wait; the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait, 60)

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    async def page(self, path: str) -> str:
        def get() -> str:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as reply:
                return bytes(reply.read()).decode()

        return await asyncio.to_thread(get)

    def cleanup(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def up(directory: Path) -> Serving:
    """``woodpecker up`` on a store in a directory."""
    found = Serving(directory, "up", "--store", str(directory / "store"), "up")
    found.argv += ["--port", found.address.rpartition(":")[2]]
    return found


def run(store: Path, *args: str, stdin: bytes = b"") -> str:
    """A command on that store; its output."""
    return command("--store", str(store), *args, stdin=stdin).decode()


async def payloads(channel: Channel) -> list[bytes]:
    """All that a channel holds now."""
    found = []
    async for batch in channel.consume_batches(end="tail"):
        found += [message.payload for message in batch]
    return found


class Sender:
    """Sends numbered messages to a channel for as long as it runs, and keeps those that are acknowledged."""

    def __init__(self, addresses: list[str], channel: str, name: str) -> None:
        self.acked: list[bytes] = []
        self.unknown: list[bytes] = []
        self._addresses = addresses
        self._channel = channel
        self._name = name
        self._stopping = False
        self._task = asyncio.ensure_future(self._run())

    async def until(self, count: int, timeout_s: float = 60.0) -> None:
        """Until so many were acknowledged in all."""
        async with asyncio.timeout(timeout_s):
            while len(self.acked) < count:
                if self._task.done():
                    self._task.result()
                    raise AssertionError("the sender has ended")
                await asyncio.sleep(0.02)

    async def more(self, count: int, timeout_s: float = 60.0) -> None:
        await self.until(len(self.acked) + count, timeout_s)

    async def stop(self) -> None:
        self._stopping = True
        await self._task

    async def _run(self) -> None:
        number = 0
        async with connect(self._addresses, timeout_s=60) as client:
            channel = await client.open_channel(self._channel)
            while not self._stopping:
                async with channel.producer(self._name) as producer:
                    while not self._stopping:
                        payload = f"{self._name}-{number}".encode()
                        number += 1
                        try:
                            await producer.send(payload)
                        except WoodpeckerError:
                            self.unknown.append(payload)
                            break
                        self.acked.append(payload)


def judge(delivered: list[bytes], *senders: Sender) -> None:
    """All that was acknowledged was delivered, once, in order; nothing that was not sent."""
    assert len(set(delivered)) == len(delivered), "delivered twice"
    for sender in senders:
        mine = [p for p in delivered if p.startswith(sender._name.encode() + b"-")]
        assert [p for p in mine if p not in set(sender.unknown)] == sender.acked
    known = {p for sender in senders for p in (*sender.acked, *sender.unknown)}
    assert set(delivered) <= known
