"""Real clusters for tests: `woodpecker dev cluster` as a process, and what can be done to its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import woodpecker as wp
from woodpecker.client.writer import LogWriter

SRC = Path(__file__).resolve().parents[2] / "src"
COMMAND = [sys.executable, "-m", "woodpecker"]
START_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 30.0


def clean_env(**more: str) -> dict[str, str]:
    """No settings of whoever runs the tests."""
    strange = ("WOODPECKER_", "XDG_", "AWS_")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(strange)}
    return {**keep, "PYTHONPATH": str(SRC), **more}


def command(
    *args: str, stdin: bytes = b"", code: int = 0, env: dict[str, str] | None = None
) -> bytes:
    """Run the command line to its end; its output, or the one line of its error."""
    done = subprocess.run(
        [*COMMAND, *args],
        env=env or clean_env(),
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, (args, done.returncode, done.stderr.decode())
    return done.stdout if code == 0 else done.stderr


class Process:
    """One process of a cluster: the one that the cluster started, or one started again by a test."""

    def __init__(self, facts: dict[str, Any], cwd: Path) -> None:
        self.name: str = facts["name"]
        self.role: str = facts["role"]
        self.address: str = facts["address"]
        self.argv: list[str] = facts["argv"]
        self.log = Path(facts["log"])
        self.pid: int = facts["pid"]
        self._cwd = cwd
        self._own: subprocess.Popen[bytes] | None = None

    def flag(self, name: str) -> str:
        return self.argv[self.argv.index(f"--{name}") + 1]

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait_ended()

    async def stop(self) -> int | None:
        """SIGTERM; the exit code, where it is a child of the test."""
        self.signal(signal.SIGTERM)
        return await self.wait_ended()

    async def wait_ended(self) -> int | None:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while self.is_running:
                await asyncio.sleep(0.02)
        return None if self._own is None else self._own.returncode

    @property
    def is_running(self) -> bool:
        if self._own is not None:
            return self._own.poll() is None
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    async def start(self, *, ready: bool = True, env: dict[str, str] | None = None) -> None:
        """Start it again with its own command line."""
        assert not self.is_running
        with self.log.open("ab") as log:
            self._own = subprocess.Popen(
                self.argv, cwd=self._cwd, env=env or clean_env(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        self.pid = self._own.pid
        if ready:
            await self.wait_ready()

    async def wait_ready(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while await self.http("/readyz") is None:
                    assert self.is_running, self.tail()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.name} does not get ready: {self.tail()}") from None

    async def http(self, path: str) -> bytes | None:
        """The page, or None: not there, or not 200."""
        url = f"http://{self.flag('http')}{path}"

        def get() -> bytes | None:
            try:
                with urllib.request.urlopen(url, timeout=5) as reply:
                    page: bytes = reply.read()
                    return page
            except (urllib.error.URLError, OSError):
                return None

        return await asyncio.to_thread(get)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """Whatever happened: it does not outlive the test."""
        if self._own is not None and self._own.poll() is None:
            self._own.kill()
            self._own.wait()


class DevCluster:
    """`woodpecker dev cluster` on a directory."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.streaming: list[str] = []  # addresses
        self.processes: dict[str, Process] = {}

    @property
    def nodes(self) -> list[Process]:
        return self.of_role("logstore")

    def of_role(self, role: str) -> list[Process]:
        return [p for p in self.processes.values() if p.role == role]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __getitem__(self, name: str) -> Process:
        return self.processes[name]

    async def start(self) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        errors = self.directory.parent / "dev-cluster.err"
        with errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*COMMAND, "dev", "cluster", "--json", "--dir", str(self.directory), *self._flags],
                env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        assert line, errors.read_text()
        ready = json.loads(line)
        assert set(ready) == {"url", "streaming", "processes"}
        self.url, self.streaming = ready["url"], ready["streaming"]
        self.processes = {
            facts["name"]: Process(facts, self.directory) for facts in ready["processes"]
        }

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            for one in self.processes.values():
                one.end()
        return process.returncode


@contextlib.asynccontextmanager
async def dev_cluster(
    directory: Path, *flags: str, keep: bool = False
) -> AsyncIterator[DevCluster]:
    """A cluster in a directory of ``directory``; ``keep``: it goes on in another one."""
    cluster = DevCluster(directory / "cluster", *flags)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()
        for node in cluster.nodes:  # journals are large, and pytest keeps directories for a while
            if not keep:
                shutil.rmtree(node.flag("dir"), ignore_errors=True)


class Load:
    """Appends one entry after another, each numbered; remembers what was acknowledged, and what failed."""

    def __init__(self, writer: LogWriter, *, pause_s: float = 0.002) -> None:
        self._writer = writer
        self._pause_s = pause_s
        self.acknowledged: dict[int, bytes] = {}
        self.failed: list[BaseException] = []
        self.longest_s = 0.0
        self._is_stopped = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        count = 0
        while not self._is_stopped:
            payload = b"entry %d" % count
            started = time.monotonic()
            try:
                seq = await self._writer.append(payload)
            except wp.WoodpeckerError as error:
                self.failed.append(error)
                return
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            self.acknowledged[seq] = payload
            count += 1
            await asyncio.sleep(self._pause_s)

    async def more(self, count: int = 20) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.acknowledged) < wanted:
                assert not self.failed, self.failed
                assert not self._task.done() or self._task.exception() is None
                await asyncio.sleep(0.01)

    async def stop(self) -> dict[int, bytes]:
        self._is_stopped = True
        await self._task
        assert not self.failed, self.failed
        return self.acknowledged


async def read_all(log: wp.Log) -> dict[int, bytes]:
    return {entry.seq: bytes(entry.payload) async for entry in log.read()}
