"""A node on a real disk is killed at any moment, again and again; and one whose disk is really full.

The victim is a process that works on a directory and prints a line for everything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.logstore.node_kit import NAME, Writer, ask, verdict

from woodpecker.codec.messages import Appended, Fence, Refused, Voted
from woodpecker.core.replica import Verdict
from woodpecker.errors import Unavailable
from woodpecker.logstore.disk_files import DirectoryDisk
from woodpecker.logstore.node import Node
from woodpecker.logstore.settings import NodeSettings
from woodpecker.runtime.runtime import SystemRuntime

ROOT = Path(__file__).resolve().parents[2]
LIVES = 12
SIZES = (10, 3000, 70_000, 200_000)
FILE_BYTES = 4 << 20


SETTINGS = NodeSettings(node="n1", file_bytes=FILE_BYTES, keep_free_bytes=0)


async def opened(path):
    return await Node.open(DirectoryDisk(path), SystemRuntime(), settings=SETTINGS)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def remade(incarnation: str, segment: int, seed: int) -> Writer:
    """The writer of a segment as the victim had it: its blocks can be made again from the seed."""
    return Writer(incarnation, segment_id=segment, name=NAME, seq=seed)


def size_of(segment: int, number: int) -> int:
    return random.Random(segment * 1000 + number).choice(SIZES)


async def victim(path: Path, first: int) -> None:
    """Write until killed. Every third segment is fenced, every fifth forgotten."""
    node = await opened(path)
    say("incarnation", node.identity.incarnation)
    for segment in range(first, first + 10_000):
        writer = remade(node.identity.incarnation, segment, segment)
        blocks = [writer.pack(size_of(segment, number)) for number in range(6)]
        for number, future in enumerate([writer.append(node, block) for block in blocks]):
            answer, _ = await future
            assert answer == Appended(number=number), answer
            say("block", segment, number)
        if segment % 3 == 0:
            await writer.fence(node)
            say("fence", segment)
        if segment % 5 == 0:
            say("floor?", segment - 8)
            await node.set_floor(writer.log_id, segment - 8)
            say("floor", segment - 8)


class Told:
    """What the victims said."""

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        self.incarnations: dict[int, str] = {}
        self.fences: set[int] = set()
        self.floor = self.asked_floor = 0

    @property
    def next_segment(self) -> int:
        return max(self.blocks, default=-1) + 2

    def take(self, output: str) -> None:
        incarnation = ""
        for line in output.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # cut off in the middle
            what, *values = line.split()
            if what == "incarnation":
                incarnation = values[0]
            elif what == "block":
                segment, number = map(int, values)
                self.blocks[segment] = number
                self.incarnations[segment] = incarnation
            elif what == "fence":
                self.fences.add(int(values[0]))
            elif what == "floor?":
                self.asked_floor = max(self.asked_floor, int(values[0]))
            elif what == "floor":
                self.floor = max(self.floor, int(values[0]))


async def check(path: Path, told: Told) -> None:
    node = await opened(path)
    for segment, number in told.blocks.items():
        writer = remade(told.incarnations[segment], segment, segment)
        blocks = [writer.pack(size_of(segment, n)) for n in range(6)]
        if segment < told.floor:
            answer = await ask(node, Fence(target=writer.target, name=NAME, epoch=9, token="t"))
            assert verdict(answer) is Verdict.GONE
        if segment < told.asked_floor:
            continue
        if segment in told.fences:
            answer, _ = await writer.append(node, writer.pack())
            assert verdict(answer) is Verdict.FENCED
        answer = await ask(node, Fence(target=writer.target, name=NAME, epoch=9, token="t"))
        assert isinstance(answer, Voted)
        assert answer.tip is not None
        assert answer.tip.number >= number, (segment, number)
        assert await writer.read_all(node) == blocks[: answer.tip.number + 1]
    await node.close()


def run_victim(path: Path, first: int, after_s: float) -> str:
    code = (
        "import asyncio, sys; from pathlib import Path; "
        "from tests.integration.test_node_kill import victim; "
        "asyncio.run(victim(Path(sys.argv[1]), int(sys.argv[2])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(first)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"src:{ROOT}"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first_lines = process.stdout.readline() + process.stdout.readline()
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait() == -9, "it was alive until it was killed"
    return first_lines + rest


def test_what_a_killed_node_had_acknowledged_is_there(tmp_path):
    rng, told = random.Random(5), Told()
    for _ in range(LIVES):
        told.take(run_victim(tmp_path / "node", told.next_segment, rng.uniform(0.01, 0.4)))
        asyncio.run(check(tmp_path / "node", told))
    assert len(told.blocks) > LIVES
    assert told.fences
    assert len(list((tmp_path / "node").glob("*.journal"))) < 40


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MiB, really full when it is full."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs: run the tests as root")
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(path)],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: run the tests where it can ({done.stderr!r})")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_a_disk_that_is_really_full(small_disk):
    """Writers are refused, what is there can be read and fenced; it goes on when there is room again."""
    node = await opened(small_disk / "node")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(18 << 20))
    writers: list[Writer] = []
    refused = None
    while refused is None:
        writer = Writer(node.identity.incarnation, segment_id=len(writers))
        writers.append(writer)
        for _ in range(4):
            answer, _ = await writer.append(node, writer.pack(200_000))
            if isinstance(answer, Refused):
                refused = answer
                break
        assert len(writers) < 200
    assert refused.code == "overloaded"
    writers[-1].blocks.pop()
    await writers[-1].fence(node)
    await writers[0].fence(node)
    for writer in writers:
        assert await writer.read_all(node) == writer.blocks
    await node.close()
    node = await opened(small_disk / "node")
    assert node.lost == ""
    assert await writers[0].read_all(node) == writers[0].blocks
    await node.set_floor(writers[0].log_id, len(writers))
    ballast.unlink()
    writer = Writer(node.identity.incarnation, segment_id=len(writers))
    block = writer.pack(200_000)
    for _ in range(100):
        if isinstance((await writer.append(node, block))[0], Appended):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("there is room again, and blocks are still refused")
    await node.close()


async def test_no_room_for_a_journal_file_is_told_at_the_start(small_disk):
    (small_disk / "ballast").write_bytes(bytes(39 << 20))
    disk = DirectoryDisk(small_disk / "node")
    with pytest.raises(Unavailable, match="No space left"):
        await Node.open(disk, SystemRuntime(), settings=SETTINGS)
    await disk.close()
    (small_disk / "ballast").unlink()
    node = await opened(small_disk / "node")
    await Writer(node.identity.incarnation).write(node, 3)
    await node.close()


async def test_a_sync_that_fails_is_the_last_one(tmp_path, monkeypatch):
    """An error of the disk, by a shim below the port: nothing after it is acknowledged or written."""
    node = await opened(tmp_path / "node")
    writer = Writer(node.identity.incarnation)
    await writer.write(node, 2)
    real = os.fdatasync
    failing = True

    def fdatasync(fd: int) -> None:
        if failing:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    answers = [writer.append(node, writer.pack(size)) for size in (10, 70_000)]
    for future in answers:
        answer, _ = await future
        assert isinstance(answer, Refused)
        assert answer.code == "unavailable"
    failing = False
    assert (await writer.append(node, writer.pack()))[0].code == "unavailable"
    await node.wait_stopped()
    await node.close()
    node = await opened(tmp_path / "node")
    assert (await writer.read_all(node))[:2] == writer.blocks[:2]
    await node.close()
