from __future__ import annotations

import asyncio
import errno
import os

import pytest

from woodpecker.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage import local_files, local_records
from woodpecker.storage.local import LocalObjectStore
from woodpecker.testing.conformance.object_store import listing, read, stream

RUNTIME = SystemRuntime()
RECORD = "meta/log/orders"


@pytest.fixture
async def store(tmp_path):
    store = LocalObjectStore(tmp_path / "root", RUNTIME)
    yield store
    await store.close()


@pytest.fixture
def calls(monkeypatch):
    """Order of the system calls that make files durable, with the last parts of their paths."""
    seen = []
    targets = {}

    def spy(name):
        real = getattr(os, name)

        def wrapped(*args, **kwargs):
            result = real(*args, **kwargs)
            if name == "open":
                targets[result] = os.path.basename(args[0])
            elif name in ("fsync", "fdatasync", "write"):
                seen.append((name, targets.get(args[0], "?")))
            elif name == "link":
                seen.append((name, os.path.basename(args[1])))
            else:
                seen.append((name, os.path.basename(args[0])))
            return result

        monkeypatch.setattr(os, name, wrapped)

    for name in ("open", "fsync", "fdatasync", "write", "link", "unlink", "rename", "mkdir"):
        spy(name)
    return seen


def kinds(calls):
    return [(name, "temp" if what.startswith(".wp-tmp-") else what) for name, what in calls]


async def test_objects_are_plain_files_at_their_keys(store, tmp_path):
    await store.create("logs/a/0/1", b"block")
    assert (tmp_path / "root/logs/a/0/1").read_bytes() == b"block"
    assert os.stat(tmp_path / "root/logs/a/0/1").st_nlink == 1
    assert os.listdir(tmp_path / "root/logs/a/0") == ["1"]
    assert store.local_path("logs/a/0/1") == tmp_path / "root/logs/a/0/1"
    assert store.local_path(RECORD) is None


async def test_create_syncs_data_then_links_then_syncs_the_directory(store, calls):
    await store.create("a/0", b"x")
    calls.clear()
    await store.create("a/1", b"x")
    assert kinds(calls) == [
        ("write", "temp"), ("fdatasync", "temp"), ("link", "1"), ("fsync", "a"), ("unlink", "temp"),
    ]  # fmt: skip


async def test_new_directories_are_synced_from_the_root_down_before_use(store, calls):
    await store.create("a/b/0", b"x")
    named = [call for call in kinds(calls) if call[0] in ("mkdir", "fsync", "link")]
    parent = named[1][1]  # of the root
    assert named == [
        ("mkdir", "root"), ("fsync", parent), ("mkdir", "a"), ("fsync", "root"), ("mkdir", "b"),
        ("fsync", "a"), ("link", "0"), ("fsync", "b"),
    ]  # fmt: skip


async def test_directories_made_by_others_are_synced_before_first_use(store, tmp_path, calls):
    os.makedirs(tmp_path / "root/a")
    calls.clear()
    await store.create("a/0", b"x")
    named = [call for call in kinds(calls) if call[0] in ("fsync", "link")]
    assert named.index(("fsync", "root")) < named.index(("link", "0"))


async def test_stream_syncs_data_then_renames_then_syncs_the_directory(store, calls):
    await store.create("a/0", b"x")
    calls.clear()
    await store.write_stream("a/1", stream([b"x", b"y"]))
    assert [call for call in kinds(calls) if call[0] != "write"] == [
        ("fdatasync", "temp"), ("link", "temp"),
        ("rename", "temp"), ("fsync", "a"), ("unlink", "temp"),
    ]  # fmt: skip


async def test_readers_settle_a_name_whose_writer_stopped_before_the_sync(store, tmp_path, calls):
    await store.create("a/0", b"x")
    directory = tmp_path / "root/a"
    (directory / ".wp-tmp-dead").write_bytes(b"block")
    os.link(directory / ".wp-tmp-dead", directory / "1")  # killed here
    for reading in (
        lambda: read(store, "a/1"),
        lambda: store.head("a/1"),
        lambda: listing(store, "a/"),
    ):
        calls.clear()
        await reading()
        assert ("fsync", "a") in calls
    calls.clear()
    await read(store, "a/0")
    assert ("fsync", "a") not in calls


async def test_deletion_syncs_each_directory_once(store, calls):
    for key in ("a/0", "a/1", "b/0"):
        await store.create(key, b"x")
    calls.clear()
    await store.delete(["a/0", "a/1", "b/0", "c/none"])
    assert calls == [
        ("unlink", "0"), ("unlink", "1"), ("unlink", "0"), ("fsync", "a"), ("fsync", "b"),
    ]  # fmt: skip


async def test_a_link_that_failed_but_took_effect_is_success(store, monkeypatch):
    await store.create("a/0", b"x")
    link = os.link

    def repeated(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")  # what NFS says to a repeated request

    monkeypatch.setattr(os, "link", repeated)
    assert await store.create("a/1", b"mine")
    etag = await store.create(RECORD, b"1")
    assert await store.replace(RECORD, b"2", etag=etag)


async def test_a_link_without_definite_answer_is_unknown(store, monkeypatch):
    await store.create("a/0", b"x")

    def lost(source, target):
        raise TimeoutError(errno.ETIMEDOUT, "timed out")

    monkeypatch.setattr(os, "link", lost)
    with pytest.raises(OutcomeUnknown):
        await store.create("a/1", b"x")
    with pytest.raises(OutcomeUnknown):
        await store.create(RECORD, b"x")


async def test_a_directory_that_cannot_be_synced_makes_the_outcome_unknown(store, monkeypatch):
    await store.create("a/0", b"x")

    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OutcomeUnknown, match="may be lost"):
        await store.create("a/1", b"x")
    with pytest.raises(OutcomeUnknown):
        await store.write_stream("a/2", stream([b"x"]))


@pytest.mark.parametrize(
    ("call", "code", "error"),
    [
        ("write", errno.ENOSPC, Unavailable), ("fdatasync", errno.EIO, Unavailable),
        ("fdatasync", errno.ENOSPC, Unavailable), ("link", errno.ENOSPC, Unavailable),
        ("link", errno.EPERM, InvalidRequest), ("link", errno.EROFS, InvalidRequest),
        ("write", errno.EDQUOT, Unavailable),
    ],
)  # fmt: skip
async def test_definite_failures_leave_nothing(store, monkeypatch, tmp_path, call, code, error):
    await store.create("a/0", b"x")
    etag = await store.create(RECORD, b"1")

    def fails(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        for writing in (
            lambda: store.create("a/1", b"x"),
            lambda: store.write_stream("a/1", stream([b"x"])),
            lambda: store.replace(RECORD, b"2", etag=etag),
        ):
            with pytest.raises(error):
                await writing()
    assert os.listdir(tmp_path / "root/a") == ["0"]
    assert await read(store, RECORD) == b"1"
    await store.create("a/1", b"x")


async def test_read_only_store_writes_nothing(store, tmp_path):
    await store.create("a/0", b"x")
    etag = await store.create(RECORD, b"x")
    reader = LocalObjectStore(tmp_path / "root", RUNTIME, read_only=True)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for call in (
        reader.create("a/1", b""), reader.replace(RECORD, b"", etag=etag), reader.delete(["a/0"]),
        reader.write_stream("a/1", stream([])),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match="read-only"):
            await call
    assert await reader.clock_ms() is None
    assert "read-only" in str(await reader.probe("create_if_absent"))
    assert await read(reader, "a/0") == b"x"
    assert len(await listing(reader, "")) == 2
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    absent = LocalObjectStore(tmp_path / "none", RUNTIME, read_only=True)
    assert await listing(absent, "") == []
    with pytest.raises(NotFound):
        await absent.get("a")
    await reader.close()
    await absent.close()
    assert not (tmp_path / "none").exists()


async def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    store = LocalObjectStore(tmp_path / "file", RUNTIME)
    with pytest.raises(InvalidRequest):
        await store.create("a", b"x")
    with pytest.raises(InvalidRequest):
        await store.create("a/b", b"x")
    assert await listing(store, "") == []
    await store.close()


async def test_a_key_below_an_object_is_refused(store):
    await store.create("a", b"x")
    with pytest.raises(InvalidRequest):
        await store.create("a/b", b"x")
    await store.create("b/c", b"x")
    with pytest.raises(AlreadyExists):
        await store.create("b", b"x")
    with pytest.raises(NotFound):
        await store.get("b")
    assert await store.head("b") is None


async def test_reserved_names_are_refused_and_replace_is_for_records(store):
    for key in (".wp-tmp-x", "a/.wp-tmp-1/b", "a.versions/b", "meta/a.versions"):
        with pytest.raises(InvalidRequest):
            await store.create(key, b"")
    with pytest.raises(InvalidRequest, match="only keys under meta/"):
        await store.replace("logs/a", b"", etag="x")
    with pytest.raises(InvalidRequest, match="is a record"):
        await store.write_stream(RECORD, stream([]))


async def test_a_removed_directory_is_made_again(store, tmp_path):
    await store.create("a/b/0", b"x")
    os.remove(tmp_path / "root/a/b/0")
    os.rmdir(tmp_path / "root/a/b")
    os.rmdir(tmp_path / "root/a")
    await store.create("a/b/0", b"y")
    assert await read(store, "a/b/0") == b"y"


async def test_only_old_temporary_files_are_swept(store, tmp_path):
    await store.create("a/0", b"x")
    old, young = (tmp_path / "root/a" / name for name in (".wp-tmp-old", ".wp-tmp-young"))
    for path in (old, young):
        path.write_bytes(b"left behind")
    two_days_ago = RUNTIME.now_us() / 1e6 - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert [info.key for info in await listing(store, "a/")] == ["a/0"]
    assert not old.exists()
    assert young.exists()


# ------------------------------------------------------------------------------------- records


async def test_records_keep_their_last_versions(store, tmp_path):
    etag = await store.create(RECORD, b"0")
    for number in range(1, 30):
        etag = await store.replace(RECORD, b"%d" % number, etag=etag)
    names = sorted(os.listdir(tmp_path / "root/meta/log/orders.versions"))
    assert names == [f"{number:016}" for number in range(23, 31)]
    assert (tmp_path / "root/meta/log/orders.versions" / names[-1]).read_bytes() == b"29\n"


async def test_a_version_is_on_disk_before_its_writer_returns(store, calls):
    etag = await store.create(RECORD, b"0")
    calls.clear()
    await store.replace(RECORD, b"1", etag=etag)
    assert kinds(calls) == [
        ("write", "temp"), ("fdatasync", "temp"), ("link", f"{2:016}"),
        ("fsync", "orders.versions"), ("unlink", "temp"),
    ]  # fmt: skip


async def test_readers_settle_a_version_whose_writer_stopped_before_the_sync(
    store, tmp_path, calls
):
    await store.create(RECORD, b"0")
    directory = tmp_path / "root/meta/log/orders.versions"
    (directory / ".wp-tmp-dead").write_bytes(b"1\n")
    os.link(directory / ".wp-tmp-dead", directory / f"{2:016}")  # killed here
    calls.clear()
    assert await read(store, RECORD) == b"1"
    assert ("fsync", "orders.versions") in calls


async def test_versions_never_start_again(store):
    first = await store.create(RECORD, b"1")
    await store.delete([RECORD])
    second = await store.create(RECORD, b"1")
    assert first.startswith("1-")
    assert second.startswith("3-")


@pytest.mark.parametrize("writing", ["replace", "create"])
async def test_a_sleeper_cannot_win_a_number_that_cleaning_set_free(tmp_path, monkeypatch, writing):
    """The writer looks, sleeps over more changes than are kept, and then links its version."""
    root = tmp_path / "root"
    sleeper, others = LocalObjectStore(root, RUNTIME), LocalObjectStore(root, RUNTIME)
    etag = await others.create(RECORD, b"0") if writing == "replace" else ""
    looked, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    ensure = local_files.Directories.ensure

    def ensure_slowly(self, path):
        if self is sleeper._directories:
            loop.call_soon_threadsafe(looked.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        ensure(self, path)

    monkeypatch.setattr(local_files.Directories, "ensure", ensure_slowly)
    late = asyncio.ensure_future(
        sleeper.replace(RECORD, b"late", etag=etag)
        if writing == "replace"
        else sleeper.create(RECORD, b"late")
    )
    await looked.wait()
    current = etag or await others.create(RECORD, b"0")
    for number in range(1, 3 * local_records.KEPT_VERSIONS):
        current = await others.replace(RECORD, b"%d" % number, etag=current)
    go_on.set()
    with pytest.raises((OutcomeUnknown, Conflict)):
        await late
    assert await read(others, RECORD) == b"%d" % (3 * local_records.KEPT_VERSIONS - 1)
    await others.replace(RECORD, b"end", etag=current)
    assert await read(sleeper, RECORD) == b"end"
    await sleeper.close()
    await others.close()


async def test_a_writer_overtaken_right_after_its_link_still_knows_it_won(tmp_path, monkeypatch):
    root = tmp_path / "root"
    first, other = LocalObjectStore(root, RUNTIME), LocalObjectStore(root, RUNTIME)
    etag = await first.create(RECORD, b"0")
    linked, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    check = local_records.Records._check_successor

    def check_slowly(self, *args):
        if self is first._records:
            loop.call_soon_threadsafe(linked.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        check(self, *args)

    monkeypatch.setattr(local_records.Records, "_check_successor", check_slowly)
    writing = asyncio.ensure_future(first.replace(RECORD, b"1", etag=etag))
    await linked.wait()
    (listed,) = await listing(other, RECORD)
    await other.replace(RECORD, b"2", etag=listed.etag)
    go_on.set()
    assert await writing == listed.etag
    assert await read(first, RECORD) == b"2"
    await first.close()
    await other.close()


async def test_cancelling_a_create_does_not_break_the_store(store):
    writing = asyncio.ensure_future(store.create("a/0", b"x" * 1_000_000))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.create("a/1", b"x")
    assert await read(store, "a/1") == b"x"
