"""Connecting: every way to name a store, and what it says where there is none or cannot be one."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

import woodpecker as wp
from woodpecker.app import as_url
from woodpecker.codec import envelope
from woodpecker.metadata.memory import MemoryMetadata
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.memory import MemoryObjectStore
from woodpecker.store_marker import METADATA_KEY, check_store

RUNTIME = SystemRuntime()


@pytest.fixture(params=["local disk", "network file system"])
def file_system(request, monkeypatch):
    """Both layouts of a directory, whatever the tests' own directory lies on."""
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: request.param == "local disk")
    return request.param


async def one_log(url: object, **options: object) -> None:
    async with wp.connect(url, **options) as client:  # type: ignore[arg-type]
        log = await client.create_log("orders", exist_ok=True)
        async with await log.open_writer() as writer:
            await writer.append(b"paid")


async def read_all(url: object, **options: object) -> list[bytes]:
    async with wp.connect(url, **options) as client:  # type: ignore[arg-type]
        log = await client.open_log("orders")
        return [entry.payload async for entry in log.read()]


def picture(directory: Path) -> dict[str, tuple[int, int, str]]:
    """All that is in a directory: names, inodes, times of change, contents."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory",
        )
        for path in sorted(directory.rglob("*"))
    }


async def test_one_directory_under_all_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    await one_log("a store/x")
    for name in (
        tmp_path / "a store" / "x",
        "~/a store/x",
        f"file://{tmp_path}/a%20store/x",
        f"file://localhost{tmp_path}/a%20store/x/",
    ):
        assert await read_all(name) == [b"paid"]
    assert as_url("/a b") == "file:///a%20b"


async def test_memory_is_private_without_a_name_and_shared_with_one():
    await one_log("memory://")
    async with wp.connect("memory://") as client:
        assert await client.list_logs() == []
    await one_log("memory://shared-by-name")
    assert await read_all("memory://shared-by-name") == [b"paid"]


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("ftp://host/x", {}, "unknown storage URL 'ftp://': .*Valid: .*file.*s3"),
        ("s3:///prefix", {}, "names no bucket"),
        ("s3://bucket?regoin=x", {}, "did you mean 'region'"),
        ("s3://bucket", {"regoin": "x"}, "did you mean 'region'"),
        ("memory://", {"region": "x"}, "unknown option 'region' of memory:// URLs"),
        ("wp://host", {}, "is no node"),
        ("wp://key@host:1", {}, "holds no secret"),
        ("memory://", {"metadata": "redis://host"}, "use etcd://"),
        ("memory://", {"buffer": "s3://bucket"}, "local directory"),
    ],
)
async def test_what_cannot_be_meant(url, options, text):
    with pytest.raises(wp.InvalidRequest, match=text):
        await wp.connect(url, **options).open()


async def test_etcd_options_are_checked(tmp_path):
    with pytest.raises(wp.InvalidRequest, match="unknown option 'timout_ms'"):
        await wp.connect(tmp_path / "s", metadata="etcd://h:1/p?timout_ms=3").open()
    with pytest.raises(wp.InvalidRequest, match="timeout_ms='soon'"):
        await wp.connect(tmp_path / "s", metadata="etcd://h:1/p?timeout_ms=soon").open()
    with pytest.raises(wp.InvalidRequest, match="names no host"):
        await wp.connect(tmp_path / "s", metadata="etcd:///p").open()
    with pytest.raises(wp.InvalidRequest, match="tls='yes' must be true or false"):
        await wp.connect(tmp_path / "s", metadata="etcd://u:geheim@h/p?tls=yes").open()
    with pytest.raises(wp.InvalidRequest) as caught:
        await wp.connect(tmp_path / "s", metadata="mysql://u:geheim@h/p").open()
    assert "geheim" not in str(caught.value)


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("made_of", ["notes.txt", "objects/ab/cdef0123", "buffer"])
async def test_a_directory_with_something_else_is_left_as_it_is(tmp_path, made_of):
    """Also one that has a folder named like one of ours, as every git repository does."""
    place = tmp_path / "place"
    (place / made_of).parent.mkdir(parents=True)
    (place / made_of).write_bytes(b"precious")
    (place / "HEAD").write_bytes(b"precious")
    before = picture(place)
    with pytest.raises(wp.InvalidRequest, match="not a Woodpecker store and is not empty"):
        await wp.connect(place).open()
    assert picture(place) == before


@pytest.mark.usefixtures("file_system")
async def test_a_fresh_file_system_and_an_empty_directory_will_do(tmp_path):
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    await one_log(tmp_path / "disk")
    assert await read_all(tmp_path / "disk") == [b"paid"]


async def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(wp.InvalidRequest, match="is not a directory"):
        await wp.connect(tmp_path / "file").open()


async def test_a_directory_without_rights(tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    monkeypatch.setattr("woodpecker.app.os.access", lambda *_: False)  # root may do everything
    with pytest.raises(wp.InvalidRequest, match=r"cannot be written: .*read_only=True"):
        await wp.connect(tmp_path / "place").open()


@pytest.mark.usefixtures("file_system")
async def test_read_only_makes_no_store(tmp_path):
    with pytest.raises(wp.NotFound, match="no Woodpecker store"):
        await wp.connect(tmp_path / "none", read_only=True).open()
    (tmp_path / "empty").mkdir()
    with pytest.raises(wp.NotFound, match="no "):
        await wp.connect(tmp_path / "empty", read_only=True).open()
    assert picture(tmp_path)["empty"][2] == "directory"
    assert list(picture(tmp_path)) == ["empty"]


async def use_read_only(url: object) -> None:
    """All that only looks works; all that changes is refused."""
    async with wp.connect(url, read_only=True) as client:  # type: ignore[arg-type]
        log = await client.open_log("orders")
        assert [entry.payload async for entry in log.read()] == [b"paid", b"packed"]
        assert await client.list_logs() == ["orders"]
        assert (await log.verify()).entries == 2
        assert (await log.trim(1, dry_run=True)) is not None
        await log.describe()
        held = await log.cursor("billing")
        assert [cursor.name for cursor in await log.cursors()] == ["billing"]
        for change in (
            client.create_log("other"),
            client.delete_log("orders"),
            client.run_background(),
            log.open_writer(),
            log.end(),
            log.trim(1),
            log.alter(linger_ms=3),
            log.recover(),
            log.verify(repair=True),
            log.cursor("new"),
            held.commit(1),
            held.delete(),
        ):
            with pytest.raises(wp.InvalidRequest, match="read_only"):
                raise AssertionError(f"{change} gave {await change}")


@pytest.mark.usefixtures("file_system")
async def test_read_only_writes_nothing(tmp_path):
    """With a closed store, and with one whose writer lives: not a byte, name or time differs."""
    store = tmp_path / "store"
    async with wp.connect(store, background=False) as client:
        log = await client.create_log("orders")
        writer = await log.open_writer()
        await writer.append_many([b"paid", b"packed"])
        await log.cursor("billing")
        before = picture(store)
        await use_read_only(store)
        after = picture(store)
        for seen in (before, after):  # the map of readers and writers, kept by SQLite itself
            seen.pop("metadata.sqlite-shm", None)
        assert after == before
        await writer.close()
        await client.run_background()
    before = picture(store)
    await use_read_only(store)
    assert picture(store) == before


@pytest.mark.usefixtures("file_system")
async def test_a_store_of_a_newer_version(tmp_path):
    store = tmp_path / "store"
    await one_log(store)
    marker = store / "objects" / "woodpecker.json"
    newer = envelope.encode("store", {"what": "nobody knows"}, 1 << 20, format_number=2)
    marker.write_bytes(newer)
    before = picture(store)
    with pytest.raises(wp.InvalidRequest, match=r"woodpecker\.json.*newer version"):
        await wp.connect(store).open()
    assert {k: v[2] for k, v in picture(store).items()} == {k: v[2] for k, v in before.items()}


async def test_a_database_of_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    with sqlite3.connect(tmp_path / "metadata.sqlite") as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(wp.InvalidRequest, match=r"metadata\.sqlite"):
        await wp.connect(tmp_path).open()


class TestTwoPlaces:
    """Objects and metadata belong together."""

    async def test_both_empty_then_known(self):
        objects, metadata = MemoryObjectStore(name="bucket"), MemoryMetadata(RUNTIME)
        with pytest.raises(wp.NotFound):
            await check_store(objects, metadata, new_id="a" * 32, may_create=False)
        made = await check_store(objects, metadata, new_id="a" * 32, may_create=True)
        assert await check_store(objects, metadata, new_id="b" * 32, may_create=False) == made

    async def test_two_stores_with_one_root(self):
        objects, metadata = MemoryObjectStore(name="bucket"), MemoryMetadata(RUNTIME)
        await check_store(objects, metadata, new_id="a" * 32, may_create=True)
        other = MemoryMetadata(RUNTIME)
        with pytest.raises(wp.InvalidRequest, match="whose metadata is not at"):
            await check_store(objects, other, new_id="b" * 32, may_create=True)
        assert await other.get(METADATA_KEY) is None
        await check_store(MemoryObjectStore(), other, new_id="b" * 32, may_create=True)
        with pytest.raises(wp.InvalidRequest, match="two stores with one root"):
            await check_store(objects, other, new_id="c" * 32, may_create=True)

    async def test_one_metadata_for_two_roots(self):
        """The objects went elsewhere, or somebody named another bucket: never a second set of logs."""
        objects, metadata = MemoryObjectStore(name="bucket"), MemoryMetadata(RUNTIME)
        await check_store(objects, metadata, new_id="a" * 32, may_create=True)
        await metadata.put("meta/logs/orders", b"{}", expect=None)
        with pytest.raises(wp.InvalidRequest, match="memory://other"):
            await check_store(
                MemoryObjectStore(name="other"), metadata, new_id="b" * 32, may_create=True
            )

    async def test_a_prefix_that_holds_something_else(self):
        objects, metadata = MemoryObjectStore(name="bucket"), MemoryMetadata(RUNTIME)
        await objects.create("holiday.jpg", b"...")
        with pytest.raises(wp.InvalidRequest, match=r"not empty \(it holds 'holiday.jpg'\)"):
            await check_store(objects, metadata, new_id="a" * 32, may_create=True)
