"""LogStore nodes for the time of a bench run, and what they use of the machine."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from woodpecker.bench.machine import (
    cpu_seconds_of,
    forget_peak,
    open_descriptors,
    peak_rss_mb,
    rss_mb,
)
from woodpecker.bench.processes import (
    HOST,
    TAIL_BYTES,
    child_environment,
    end,
    end_with_parent,
    free_port,
)
from woodpecker.errors import Unavailable

START_TIMEOUT_S, ASK_TIMEOUT_S = 60.0, 5.0


class NodeProcess:
    """One running node."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, http: str) -> None:
        self.process = process
        self.pid = process.pid
        self.address = address
        self.http = http

    async def status(self) -> dict[str, Any]:
        """What it says of itself. Raises: Unavailable."""
        return await asyncio.to_thread(_ask, f"http://{self.http}/status")


class Nodes:
    """All nodes of the run."""

    def __init__(self, processes: Sequence[NodeProcess]) -> None:
        self.processes = processes

    @property
    def url(self) -> str:
        """What clients connect to."""
        return "wp://" + ",".join(process.address for process in self.processes)

    def cpu_seconds(self) -> float:
        """Processor time of all together so far."""
        return sum(cpu_seconds_of(process.pid) for process in self.processes)

    def forget_peaks(self) -> None:
        """Let ``peak_rss_mb`` count from now on."""
        for process in self.processes:
            forget_peak(process.pid)

    def peak_rss_mb(self) -> float:
        """Of the largest node."""
        return max(peak_rss_mb(process.pid) for process in self.processes)

    def rss_mb(self) -> float:
        """Of the largest node, now."""
        return max(rss_mb(process.pid) for process in self.processes)

    def open_descriptors(self) -> int:
        """Of the node that has most."""
        return max(open_descriptors(process.pid) for process in self.processes)

    async def syncs(self) -> int:
        """How often the busiest node has synced its disk so far."""
        found = await asyncio.gather(*(process.status() for process in self.processes))
        return max(int(status["sync"]["count"]) for status in found)


class NodesMeter:
    """What the nodes use from ``start`` on."""

    def __init__(self, nodes: Nodes, syncs: int) -> None:
        self._nodes = nodes
        self._syncs = syncs
        self._cpu = nodes.cpu_seconds()
        nodes.forget_peaks()

    @classmethod
    async def start(cls, nodes: Nodes) -> NodesMeter:
        """Begin."""
        return cls(nodes, await nodes.syncs())

    async def figures(self, volume_bytes: int) -> dict[str, float]:
        """Processor time of all nodes for each GB of payload, peak memory and syncs of one."""
        nodes = self._nodes
        gigabytes = volume_bytes / 1e9
        cpu = nodes.cpu_seconds() - self._cpu
        return {
            "nodes_cpu_s_per_gb": cpu / gigabytes if gigabytes else 0.0,
            "node_peak_rss_mb": nodes.peak_rss_mb(),
            "node_syncs": await nodes.syncs() - self._syncs,
        }


@asynccontextmanager
async def started_nodes(directory: Path, count: int = 3) -> AsyncIterator[Nodes]:
    """``count`` nodes on one store in ``directory``. Raises: Unavailable: one does not start."""
    processes: list[NodeProcess] = []
    try:
        while len(processes) < count:
            processes.append(await _start(directory, f"node-{len(processes) + 1}"))
        yield Nodes(processes)
    finally:
        await asyncio.gather(*(end(process.process) for process in processes))


async def _start(directory: Path, name: str) -> NodeProcess:
    address, http = (f"{HOST}:{free_port()}" for _ in range(2))
    flags = {
        "node": name,
        "dir": str(directory / name),
        "listen": address,
        "advertise": address,
        "http": http,
        "store": (directory / "store").as_uri(),
    }
    argv = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "woodpecker", "logstore", "serve", *argv,
            stdout=asyncio.subprocess.PIPE, stderr=output, stdin=asyncio.subprocess.DEVNULL,
            env=child_environment(), preexec_fn=end_with_parent, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    ready = b""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                ready = await process.stdout.readline()
    finally:
        if not ready:
            await end(process)
    if not ready:
        raise Unavailable(f"{name} does not start: {log.read_text()[-TAIL_BYTES:]}")
    return NodeProcess(process, address, http)


def _ask(url: str) -> dict[str, Any]:
    try:
        with urlopen(url, timeout=ASK_TIMEOUT_S) as answer:  # noqa: S310  our own node
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError) as error:
        raise Unavailable(f"{url} does not answer: {error}") from error
