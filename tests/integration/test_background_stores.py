"""Background work on real files and a real bucket, with real processes killed in the middle of it."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import woodpecker as wp
from woodpecker.client.background import BackgroundWorker
from woodpecker.client.collect import collect_log
from woodpecker.client.import_file import import_log
from woodpecker.client.sealing import first_to_seal, seal_log
from woodpecker.client.verify import verify_log
from woodpecker.core.retention import has_unsealed
from woodpecker.errors import Corrupt
from woodpecker.testing.servers.seaweed import SeaweedServer

SMALL = 64 << 10
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def local_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("woodpecker.app.is_local", lambda _path: True)


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


def bucket_url(server: SeaweedServer) -> str:
    keys = f"access_key_id={server.ACCESS_KEY}&secret_access_key={server.SECRET_KEY}"
    return f"{server.url(prefix='background')}&{keys}"


def payload(seq: int) -> bytes:
    return f"{seq:08d}".encode() * (256 + seq % 700)


async def write(client: wp.Client, count: int, name: str = "orders") -> wp.Log:
    log = await client.create_log(name, exist_ok=True, mode="file", segment_max_bytes=SMALL)
    async with await log.open_writer() as writer:
        for _ in range(count):
            seq = await log.tail()
            assert await writer.append(payload(seq)) == seq
    return log


async def test_damage_is_found_before_an_object_is_there(tmp_path: Path) -> None:
    async with wp.connect(tmp_path, background=False) as client:
        log = await client.create_log("orders", mode="file")
        async with await log.open_writer() as writer:
            await writer.append(payload(0))
        (path,) = tmp_path.rglob("*.seg")
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)
        with pytest.raises(Corrupt, match=path.name):
            await seal_log(client.environment, "orders")
        assert not list(tmp_path.rglob("sealed/*"))
        assert path.stat().st_nlink == 1


async def test_sealed_in_place_or_by_copy_the_object_has_the_same_bytes(tmp_path: Path) -> None:
    """A slow copier may replace an object that another process has sealed in place."""
    async with wp.connect(tmp_path / "a", background=False) as client:
        await write(client, 60)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = []
    for place in ("a", "b"):
        async with wp.connect(tmp_path / place, background=False) as client:
            env = client.environment
            manifest = await env.catalog.read("orders")
            segment = first_to_seal(manifest)
            assert segment is not None
            if place == "b":
                store = env.store_of(manifest, segment)

                async def never(*args: object) -> None:
                    """As if a stopped writer held every file."""

                store.seal_in_place = never  # type: ignore[method-assign,assignment]
            assert await seal_log(env, "orders") >= 2
            objects = env.places.objects("")
            keys = [info.key async for page in objects.list(manifest.log_id) for info in page]
            found.append({key: bytes((await objects.get(key))[0]) for key in keys})
            sealed = (await env.catalog.read("orders")).segments[0].sealed
            assert sealed is not None
            assert sealed.size == len(found[-1][sealed.key])
            await verify_log(env, "orders", manifest.log_id)
    assert found[0] == found[1]
    assert len(found[0]) >= 2


async def test_files_left_by_the_dead_are_swept(tmp_path: Path) -> None:
    async with wp.connect(tmp_path, background=False) as client:
        log = await write(client, 40)
        env = client.environment
        folder = next((tmp_path / "buffer").glob(f"{log.log_id}*"))
        kept = {path.name for path in folder.iterdir()}
        # both of segment 0: on a slow machine the writer may not have rolled to a second one
        for name in (f"{0:012d}-{'e' * 32}.seg", f"{0:012d}-{'d' * 32}.side"):
            (folder / name).write_bytes(b"of an opener that another one overtook")
        assert await collect_log(env, "orders") == 2
        assert {path.name for path in folder.iterdir()} == kept
        await BackgroundWorker(env).run_once()
        manifest = await env.catalog.read("orders")
        opened = [s for s in manifest.segments if s.end is None]
        assert len({path.stem for path in folder.iterdir()}) == len(opened)
        assert [e.payload async for e in log.read()] == [payload(seq) for seq in range(40)]


async def test_a_log_of_files_moves_into_a_bucket_and_is_repaired_there(
    tmp_path: Path, seaweed: SeaweedServer
) -> None:
    path = tmp_path / "orders.wpx"
    async with wp.connect(tmp_path / "store") as client:
        log = await write(client, 50)
        await log.trim(7)
        told = await log.export(str(path))
    async with wp.connect(bucket_url(seaweed), background=False) as client:
        env = client.environment
        done = await import_log(env, "orders", path)
        assert (done.entries, done.next_seq) == (told.entries, 50)
        log = await client.open_log("orders")
        assert (await env.catalog.read("orders")).options.mode == "object"
        assert [e.payload async for e in log.read()] == [payload(seq) for seq in range(7, 50)]
        manifest = await env.catalog.read("orders")
        sealed = manifest.segments[0].sealed
        assert sealed is not None
        objects = env.places.objects("")
        data = bytearray((await objects.get(sealed.key))[0])
        data[-300] ^= 1

        async def parts():
            yield bytes(data)

        await objects.write_stream(sealed.key, parts())
        with pytest.raises(wp.Corrupt, match=sealed.key):
            await log.verify()
        report = await log.verify(repair=True)
        assert report.repaired == (sealed.key,)
        await log.verify()
        await client.delete_log("orders")
        left = [info.key async for page in objects.list(log.log_id) for info in page]
        assert left == []


WORKER = """
import asyncio, sys
import woodpecker.app, woodpecker as wp
woodpecker.app.is_local = lambda _path: True
from woodpecker.client.background import BackgroundWorker
async def main():
    async with wp.connect(sys.argv[1], background=False) as client:
        print("ready", flush=True)
        while True:
            report = await BackgroundWorker(client.environment).run_once()
            assert not report.errors, report.errors
asyncio.run(main())
"""


async def test_workers_killed_again_and_again_lose_nothing(tmp_path: Path) -> None:
    """Two of them at a time, beside a writer that never notices."""
    store = tmp_path / "store"
    chance = random.Random(11)
    async with wp.connect(store, background=False) as client:
        log = await client.create_log("orders", mode="file", segment_max_bytes=SMALL)
        writer = await log.open_writer()
        seq = 0
        for _ in range(3):
            workers = await asyncio.gather(_start(store), _start(store))
            until = asyncio.get_running_loop().time() + 0.05 + chance.random() / 6
            while asyncio.get_running_loop().time() < until:
                assert await writer.append(payload(seq)) == seq
                seq += 1
            await log.trim(max(0, seq - 400))
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
                out, err = await worker.communicate()
                assert worker.returncode == -signal.SIGKILL, (out, err.decode())
        await writer.close()
        env = client.environment
        report = await BackgroundWorker(env).run_once()
        assert not report.errors
        manifest = await env.catalog.read("orders")
        assert manifest.epoch == 1
        assert not has_unsealed(manifest)
        found = [e.payload async for e in log.read()]
        assert found == [payload(n) for n in range(manifest.trim_point, seq)]
        await log.verify()
        await BackgroundWorker(env).run_once()
        objects = env.places.objects("")
        left = {info.key async for page in objects.list(log.log_id) for info in page}
        assert left == {s.sealed.key async for s in env.segments(manifest) if s.sealed is not None}


async def _start(store: Path) -> asyncio.subprocess.Process:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(store),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert worker.stdout is not None
    assert (await worker.stdout.readline()).strip() == b"ready"
    return worker
