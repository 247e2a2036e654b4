"""SQLite metadata beyond the suite: processes, locks, rights, damage, reading without writing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from woodpecker.errors import (
    Conflict,
    Corrupt,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from woodpecker.metadata.sqlite import SqliteMetadata
from woodpecker.metadata.sqlite_errors import map_error
from woodpecker.metadata.sqlite_file import APPLICATION_ID
from woodpecker.runtime.runtime import SystemRuntime

RUNTIME = SystemRuntime()
KEY = "meta/log/orders"
SOURCES = str(Path(__file__).parents[3] / "src")
PATIENCE_S = 60

ADDER = """
    import asyncio, json, sys
    from woodpecker.errors import Conflict
    from woodpecker.metadata.sqlite import SqliteMetadata
    from woodpecker.runtime.runtime import SystemRuntime

    async def main(path, count):
        store = SqliteMetadata(path, SystemRuntime(), busy_ms=30_000)
        versions = []
        while len(versions) < count:
            found = await store.get("meta/count")
            value = b"%d" % (int(found.value) + 1 if found else 1)
            try:
                versions.append(
                    await store.put("meta/count", value, expect=found.version if found else None)
                )
            except Conflict:
                continue
        await store.close()
        print(json.dumps(versions))

    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
HOLDER = """
    import sqlite3, sys
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.read()
"""


def _start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env={"PYTHONPATH": SOURCES},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metadata.db"


@pytest.fixture
async def store(path):
    metadata = SqliteMetadata(path, RUNTIME, busy_ms=300)
    yield metadata
    await metadata.close()


async def _fill(path: Path, value: bytes = b"one") -> str:
    store = SqliteMetadata(path, RUNTIME)
    version = await store.put(KEY, value, expect=None)
    await store.close()
    return version


async def test_no_increment_is_lost_among_processes(path, store):
    # The database is created by all at once, too.
    processes = [_start(ADDER, str(path), "40") for _ in range(5)]
    outputs = [
        (await asyncio.to_thread(process.communicate, timeout=PATIENCE_S))[0]
        for process in processes
    ]
    assert [process.returncode for process in processes] == [0] * 5
    versions = [version for output in outputs for version in json.loads(output)]
    assert len(set(versions)) == len(versions) == 200
    found = await store.get("meta/count")
    assert found is not None
    assert found.value == b"200"


async def test_a_lock_held_by_a_stopped_process_names_it(path, store):
    version = await store.put(KEY, b"one", expect=None)
    holder = _start(HOLDER, str(path))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_S):
            results = await asyncio.gather(
                *(store.put(KEY, b"two", expect=version) for _ in range(20)),
                return_exceptions=True,
            )
        assert all(isinstance(result, Unavailable) for result in results), results
        assert f"process {holder.pid} (" in str(results[0])
        assert "stopped" in str(results[0])
        found = await store.get(KEY)  # reading goes on
        assert found is not None
        assert found.value == b"one"
    finally:
        holder.kill()
        holder.communicate()
    await store.put(KEY, b"two", expect=version)


async def test_what_was_committed_survives_a_kill(path):
    script = ADDER.replace("await store.close()", "import os; os.kill(os.getpid(), 9)")
    process = _start(script, str(path), "25")
    await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL
    assert path.with_name("metadata.db-wal").stat().st_size > 0
    for read_only in (True, False):
        store = SqliteMetadata(path, RUNTIME, read_only=read_only)
        found = await store.get("meta/count")
        assert found is not None
        assert found.value == b"25"
        await store.close()


async def test_every_commit_is_synced(path, store):
    await store.put(KEY, b"one", expect=None)
    settings = await store._call(
        lambda db: [
            db._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "application_id")
        ]
    )
    assert settings == ["wal", 2, APPLICATION_ID]


async def test_ten_thousand_records_are_listed_whole(path, store):
    await store.put(KEY, b"x", expect=None)
    rows = [(f"meta/many/{number:05}", b"v" * 100) for number in range(10_000)]
    with sqlite3.connect(path) as db:
        db.executemany("INSERT INTO record (key, value) VALUES (?, ?)", rows)
    db.close()
    listed = await store.list("meta/many/", limit=20_000)
    assert [(record.key, record.value) for record in listed] == rows


# -------------------------------------------------------------------------------- read only


async def test_read_only_never_writes(path):
    version = await _fill(path)
    before = _snapshot(path.parent)
    store = SqliteMetadata(path, RUNTIME, read_only=True)
    found = await store.get(KEY)
    assert found is not None
    assert (found.value, found.version) == (b"one", version)
    assert [record.key for record in await store.list("meta/")] == [KEY]
    await store.wait_change(KEY, version, 50)
    refused = [
        store.put(KEY, b"two", expect=version),
        store.remove(KEY, expect=version),
        store.acquire_lease("meta/lease", "me", 1000),
    ]
    for call in refused:
        with pytest.raises(InvalidRequest, match="read_only"):
            await call
    await store.close()
    assert _snapshot(path.parent) == before


async def test_read_only_sees_what_others_write(path, store):
    version = await store.put(KEY, b"one", expect=None)
    reader = SqliteMetadata(path, RUNTIME, read_only=True)
    async with asyncio.timeout(PATIENCE_S):
        waiting = asyncio.create_task(reader.wait_change(KEY, version, 3_600_000))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await store.put(KEY, b"two", expect=version)
        await waiting
    found = await reader.get(KEY)
    assert found is not None
    assert found.value == b"two"
    await store.close()  # the journal goes
    found = await reader.get(KEY)
    assert found is not None
    assert found.value == b"two"
    await reader.close()


async def test_read_only_without_a_database(path):
    store = SqliteMetadata(path, RUNTIME, read_only=True)
    with pytest.raises(NotFound, match=r"metadata\.db"):
        await store.get(KEY)
    path.touch()
    with pytest.raises(NotFound):
        await store.get(KEY)
    path.unlink()
    await _fill(path)
    assert await store.get(KEY) is not None  # it looks again each time
    await store.close()


# -------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_file_that_is_no_database(path, read_only):
    path.write_bytes(b"this is a text, and a long one at that\n" * 100)
    before = _snapshot(path.parent)
    store = SqliteMetadata(path, RUNTIME, read_only=read_only)
    with pytest.raises(InvalidRequest, match="not a SQLite database"):
        await store.get(KEY)
    await store.close()
    assert _snapshot(path.parent) == before


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_database_of_another_program(path, read_only):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE record (version INTEGER, key TEXT, value BLOB)")
    db.close()
    before = _snapshot(path.parent)
    store = SqliteMetadata(path, RUNTIME, read_only=read_only)
    with pytest.raises(InvalidRequest, match="another program"):
        await store.get(KEY)
    await store.close()
    assert _snapshot(path.parent) == before


async def test_a_damaged_database(path):
    store = SqliteMetadata(path, RUNTIME)
    for number in range(200):
        await store.put(f"{KEY}/{number}", b"v" * 500, expect=None)
    await store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xaa" * (len(data) - 4096)
    path.write_bytes(data)
    store = SqliteMetadata(path, RUNTIME)
    with pytest.raises(Corrupt) as caught:
        await store.list("meta/")
    assert caught.value.where == str(path)
    await store.close()


async def test_a_directory_in_place_of_the_file(tmp_path):
    store = SqliteMetadata(tmp_path, RUNTIME, busy_ms=100)
    with pytest.raises(InvalidRequest, match=str(tmp_path)):
        await store.get(KEY)
    await store.close()


async def test_a_directory_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    store = SqliteMetadata(tmp_path / "file" / "metadata.db", RUNTIME)
    with pytest.raises(InvalidRequest, match="must be writable"):
        await store.get(KEY)
    await store.close()


async def test_rights_are_missing():
    script = """
        import asyncio, os, sys
        from woodpecker.errors import InvalidRequest
        from woodpecker.metadata.sqlite import SqliteMetadata
        from woodpecker.runtime.runtime import SystemRuntime

        async def main(path):
            if os.geteuid() == 0:  # may do everything, so become somebody who may not
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            store = SqliteMetadata(path, SystemRuntime())
            try:
                await store.put("meta/new", b"x", expect=None)
            except InvalidRequest as error:
                print(error)
            await store.close()
            store = SqliteMetadata(path, SystemRuntime(), read_only=True)
            print((await store.get(sys.argv[2])).version)
            await store.close()

        asyncio.run(main(sys.argv[1]))
    """
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, which others may not enter
        path = Path(name) / "metadata.db"
        version = await _fill(path)
        before = _snapshot(path.parent)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        process = _start(script, str(path), KEY)
        output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
        path.parent.chmod(0o755)
        assert process.returncode == 0
        text, read = output.splitlines()
        assert "must be writable" in text
        assert "read_only=True" in text
        assert read == version
        assert _snapshot(path.parent) == before


async def test_a_file_that_cannot_grow(path):
    # RLIMIT_FSIZE stands in for a full disk: the system refuses to extend the journal.
    script = """
        import asyncio, resource, signal, sys
        from woodpecker.errors import OutcomeUnknown, Unavailable
        from woodpecker.metadata.sqlite import SqliteMetadata
        from woodpecker.runtime.runtime import SystemRuntime

        async def main(path):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            store = SqliteMetadata(path, SystemRuntime())
            await store.put("meta/a", b"x", expect=None)
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
            try:
                await store.put("meta/b", bytes(500_000), expect=None)
            except (OutcomeUnknown, Unavailable) as error:
                print(type(error).__name__)
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.RLIM_INFINITY))
            await store.put("meta/b", b"fits", expect=None)
            await store.close()

        asyncio.run(main(sys.argv[1]))
    """
    process = _start(script, str(path))
    output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    assert process.returncode == 0
    assert output.split() in (["OutcomeUnknown"], ["Unavailable"])
    store = SqliteMetadata(path, RUNTIME)
    assert [record.key for record in await store.list("meta/")] == ["meta/a", "meta/b"]
    await store.close()


@pytest.mark.parametrize(
    ("code", "writes", "expected"),
    [
        (sqlite3.SQLITE_BUSY, True, Unavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True, Unavailable),
        (sqlite3.SQLITE_FULL, True, Unavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, True, OutcomeUnknown),
        (sqlite3.SQLITE_IOERR_READ, False, Unavailable),
        (sqlite3.SQLITE_READONLY_DIRECTORY, True, InvalidRequest),
        (sqlite3.SQLITE_NOTADB, False, InvalidRequest),
        (sqlite3.SQLITE_CORRUPT_VTAB, False, Corrupt),
    ],
)
def test_error_codes(path, code, writes, expected):
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    mapped = map_error(error, path, writes=writes)
    assert type(mapped) is expected
    assert str(path) in str(mapped)


async def test_a_failed_open_is_tried_again(path):
    path.write_bytes(b"not a database, not a database, not a database, not a database, no." * 9)
    store = SqliteMetadata(path, RUNTIME)
    with pytest.raises(InvalidRequest):
        await store.get(KEY)
    path.unlink()
    await store.put(KEY, b"one", expect=None)
    await store.close()


async def test_a_cancelled_call_does_not_hurt_the_next(store):
    version = await store.put(KEY, b"one", expect=None)
    call = asyncio.create_task(store.put(KEY, b"two", expect=version))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(Conflict):  # it was under way already
        await store.put(KEY, b"three", expect=version)


def _snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in directory.iterdir()}
