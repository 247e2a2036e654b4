"""`woodpecker logstore serve` as a process: its ready line, signals, exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.cluster_kit import COMMAND, clean_env

import woodpecker as wp
from woodpecker.errors import Conflict
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.runtime.runtime import SystemRuntime

TIMEOUT_S = 60


class Serve:
    """One node; its output goes to files."""

    def __init__(self, tmp_path: Path, *flags: str) -> None:
        self.stdout, self.stderr = tmp_path / "out", tmp_path / "err"
        argv = [
            *COMMAND, "logstore", "serve", "--node", "n1", "--dir", str(tmp_path / "n1"),
            "--listen", "127.0.0.1:0", "--store", str(tmp_path / "store"),
            "--journal-file-bytes", "1048576", *flags,
        ]  # fmt: skip
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                argv, env=clean_env(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    async def line(self, of: str = "stdout", text: str = "\n") -> str:
        """Output, as soon as it has ``text`` in it."""
        file: Path = getattr(self, of)
        async with asyncio.timeout(TIMEOUT_S):
            while text not in file.read_text():
                assert self.process.poll() is None, self.stderr.read_text()
                await asyncio.sleep(0.02)
        return file.read_text()

    async def ended(self, timeout_s: float = TIMEOUT_S) -> int:
        return await asyncio.to_thread(self.process.wait, timeout_s)


@pytest.fixture
def serve(tmp_path: Path):
    started: list[Serve] = []

    def start(*flags: str) -> Serve:
        started.append(Serve(tmp_path, *flags))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


async def test_one_line_when_ready_and_an_orderly_end(serve) -> None:
    node = serve("--json")
    ready = json.loads(await node.line())
    assert set(ready) == {"node", "incarnation", "boot", "address", "http", "store", "pid"}
    assert (ready["node"], ready["boot"], ready["pid"]) == ("n1", 1, node.process.pid)
    node.process.send_signal(signal.SIGTERM)
    assert await node.ended() == 0
    assert node.stdout.read_text().count("\n") == 1
    node = serve()
    assert (await node.line()).startswith("ready: node n1 on 127.0.0.1:")
    node.process.send_signal(signal.SIGINT)
    assert await node.ended() == 0
    assert "Traceback" not in node.stderr.read_text()


async def test_a_signal_ends_it_while_it_waits_for_its_store(serve) -> None:
    node = serve("--metadata", "etcd://127.0.0.1:1/p")
    await node.line("stderr", "waits for its store")
    node.process.send_signal(signal.SIGTERM)
    assert await node.ended() == 0
    assert node.stdout.read_text() == ""


async def test_a_second_signal_ends_it_at_once(serve, tmp_path: Path) -> None:
    node = serve()
    await node.line()
    lock = sqlite3.connect(tmp_path / "store" / "metadata.sqlite", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")  # it cannot say goodbye now
        node.process.send_signal(signal.SIGTERM)
        await node.line("stderr", "node n1 ends")
        node.process.send_signal(signal.SIGTERM)
        assert await node.ended() == 143
    finally:
        lock.close()
    node = serve()  # nothing was lost by that
    await node.line()


async def test_another_process_of_the_same_name_ends_it_with_a_code(serve, tmp_path) -> None:
    node = serve()
    await node.line()
    async with wp.connect(tmp_path / "store", background=False) as client:
        records = NodeRecords(client.environment.catalog.store, SystemRuntime())
        while True:
            seen = await records.load("n1")
            assert seen is not None
            try:
                stolen = replace(seen.record, token="f" * 32, boot=9)
                await records.put(stolen, expect=seen.version)
            except Conflict:
                continue
            break
    assert await node.ended() == 6
    text = node.stderr.read_text()
    assert "CRITICAL" in text
    assert text.splitlines()[-1].startswith("woodpecker: conflict: node n1 stops")


async def test_what_is_wrong_with_the_disk_is_told_with_a_code(serve, tmp_path: Path) -> None:
    node = serve()
    await node.line()
    second = serve()
    assert await second.ended() == 13
    assert "in use by another node" in second.stderr.read_text()
    node.process.send_signal(signal.SIGTERM)
    await node.ended()
    (tmp_path / "n1" / "identity").unlink()
    third = serve()
    assert await third.ended() == 14
    assert "identity is gone" in third.stderr.read_text()
