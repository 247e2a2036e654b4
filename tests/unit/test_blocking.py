"""The blocking facade: the same behaviour, from many threads, and nothing left running."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

import woodpecker as wp
from woodpecker import blocking
from woodpecker.client.client import Client
from woodpecker.client.cursor import Cursor
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter


@pytest.fixture
def client(tmp_path: Path):
    with wp.blocking.connect(str(tmp_path / "store")) as client:
        yield client


def _loops() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "woodpecker-loop"]


@pytest.mark.parametrize("cls", [Client, Log, LogWriter, Cursor], ids=lambda cls: cls.__name__)
def test_everything_is_mirrored_with_the_same_arguments(cls: type) -> None:
    twin = getattr(blocking, cls.__name__)
    inner_only = {
            "environment", "open_session", "on_fork", "reserve", "is_done", "submit_many",
        }  # fmt: skip
    for name, method in vars(cls).items():
        if name.startswith("_") or name in inner_only:
            continue
        mirrored = inspect.getattr_static(twin, name, None)
        assert mirrored is not None, f"{cls.__name__}.{name} is missing"
        if inspect.isfunction(method):
            assert not inspect.iscoroutinefunction(mirrored), name
            assert list(inspect.signature(mirrored).parameters) == list(
                inspect.signature(method).parameters
            ), name
            assert mirrored.__doc__, name


def test_write_read_and_care(client: blocking.Client, tmp_path: Path) -> None:
    log = client.create_log("x", exist_ok=True, attributes={"a": "b"})
    assert (log.name, client.log_exists("x"), client.list_logs()) == ("x", True, ["x"])
    with log.open_writer(producer="p") as writer:
        assert writer.append(b"0", headers={"k": "v"}) == 0
        assert writer.append_many([b"1", wp.Entry(b"2")], sequence=0) == range(1, 3)
        assert (writer.next_sequence, writer.next_seq, writer.visible) == (1, 3, 3)
        assert writer.still_owner()
        writer.flush()
        writer.ready()
        assert writer.resolve() == {}
    assert [entry.payload for entry in log.read()] == [b"0", b"1", b"2"]
    assert next(log.read()).headers == ((b"k", b"v"),)
    assert sum(len(batch) for batch in log.read_batches(1)) == 2
    cursor = log.cursor("c")
    cursor.commit(2, data=b"d")
    assert (cursor.name, cursor.position, cursor.data) == ("c", 2, b"d")
    assert [entry.seq for entry in log.read(cursor)] == [2]
    assert [found.name for found in log.cursors()] == ["c"]
    log.alter(linger_ms=1)
    assert log.describe().options.linger_ms == 1
    assert log.trim(1).trim_point == 1
    client.run_background("x")
    assert log.verify().next_seq == 3
    log.export(str(tmp_path / "x.wal"))
    cursor.delete()
    assert log.recover().next_seq == 3
    assert log.end() == 3
    assert [entry.seq for entry in log.read(follow=True)] == [1, 2]
    client.delete_log("x")
    assert client.list_logs() == []


def test_errors_come_through_as_they_are(client: blocking.Client) -> None:
    with pytest.raises(wp.NotFound, match="'x' does not exist"):
        client.open_log("x")
    log = client.create_log("x")
    writer = log.open_writer()
    with pytest.raises(wp.InvalidRequest, match="bytes-like"):
        writer.append("text")  # type: ignore[arg-type]
    with pytest.raises(wp.Conflict) as caught:
        writer.append(b"x", expect_seq=5)
    assert caught.value.actual == 0
    with log.open_writer():
        pass
    with pytest.raises(wp.Fenced):
        writer.append(b"x")
    writer.close()
    with pytest.raises(wp.OutOfRange):
        next(log.read(5))


def test_eight_threads_share_one_writer(client: blocking.Client) -> None:
    log = client.create_log("x")
    seqs: dict[int, list[int]] = {}

    def work(number: int) -> None:
        kept = [writer.append(b"%d a %d" % (number, i)) for i in range(20)]
        futures = [writer.submit(b"%d s %d" % (number, i)) for i in range(20)]
        kept += [future.result(30) for future in futures]
        kept += writer.append_many([b"%d m %d" % (number, i) for i in range(20)])
        seqs[number] = kept

    with log.open_writer() as writer:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(seq for kept in seqs.values() for seq in kept) == list(range(480))
    payloads = [entry.payload for entry in log.read()]
    for number, kept in seqs.items():
        assert kept == sorted(kept), "one thread's entries keep their order"
        expected = [
            b"%d %s %d" % (number, kind, i) for kind in (b"a", b"s", b"m") for i in range(20)
        ]
        assert [payloads[seq] for seq in kept] == expected


def test_submit_gives_futures_in_order_and_refusals_too(client: blocking.Client) -> None:
    log = client.create_log("x", queue_max_bytes=1 << 20, linger_ms=60_000)
    with log.open_writer() as writer:
        futures = [writer.submit(bytes(1000)) for _ in range(2000)]
        assert all(isinstance(future, Future) for future in futures)
        assert not futures[0].cancel(), "what is in the queue cannot be taken back"
        bad = writer.submit(b"x", expect_seq=10**9)
        with pytest.raises(wp.Conflict):
            bad.result(30)
        writer.flush()
        results = [future.exception(30) or future.result() for future in futures]
        taken = [result for result in results if isinstance(result, int)]
        refused = [result for result in results if not isinstance(result, int)]
        assert taken == list(range(len(taken)))
        assert refused
        assert {type(result) for result in refused} == {wp.Overloaded}
    assert log.tail() == len(taken)


def test_a_follower_sees_what_another_thread_appends(client: blocking.Client) -> None:
    log = client.create_log("x")
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.extend(e.payload for e in log.read(follow=True)))
    reader.start()
    with log.open_writer() as writer:
        for number in range(50):
            writer.append(b"%d" % number)
    log.end()
    reader.join(60)
    assert seen == [b"%d" % number for number in range(50)]


def test_a_dropped_or_closed_iterator_releases_its_reader(client: blocking.Client) -> None:
    log = client.create_log("x")
    with log.open_writer() as writer:
        writer.append(b"0")
    closed: list[str] = []

    class Spy:
        def __init__(self, name: str) -> None:
            self.name = name

        def __aiter__(self):
            return self

        async def __anext__(self):
            raise StopAsyncIteration

        async def aclose(self) -> None:
            closed.append(self.name)

    dropped = blocking.Batches(Spy("dropped"), client._portal)
    assert list(dropped) == []
    del dropped
    gc.collect()
    with blocking.Batches(Spy("left"), client._portal) as left:
        pass
    left.close()
    client.list_logs()  # the loop has gone round since
    assert closed == ["dropped", "left"]
    entries = log.read(follow=True)
    assert next(entries).payload == b"0"
    entries.close()
    with pytest.raises(wp.Closed):
        next(entries)


def test_closing_ends_the_thread_and_whoever_waits(tmp_path: Path) -> None:
    before = len(_loops())
    client = wp.blocking.connect(tmp_path / "store").open()
    log = client.create_log("x")
    failures: list[BaseException] = []
    is_waiting = threading.Event()

    def wait() -> None:
        entries = log.read(follow=True)
        is_waiting.set()
        try:
            next(entries)
        except wp.WoodpeckerError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    is_waiting.wait(30)
    client.close()
    client.close()
    thread.join(30)
    assert not thread.is_alive()
    assert [type(error) for error in failures] == [wp.Closed]
    assert len(_loops()) == before
    for call in (client.list_logs, log.tail, lambda: next(log.read())):
        with pytest.raises(wp.Closed):
            call()


def test_a_client_that_is_dropped_takes_its_thread_with_it(tmp_path: Path) -> None:
    before = len(_loops())
    client = wp.blocking.connect(tmp_path / "store").open()
    log = client.create_log("x")
    assert len(_loops()) == before + 1
    del client
    assert log.tail() == 0, "a handle keeps what it needs"
    del log
    gc.collect()
    assert len(_loops()) == before


def test_a_client_that_cannot_open_leaves_no_thread(tmp_path: Path) -> None:
    before = len(_loops())
    with pytest.raises(wp.NotFound), wp.blocking.connect(tmp_path / "none", read_only=True):
        pass
    assert len(_loops()) == before
    with pytest.raises(wp.Closed, match="not open"):
        wp.blocking.connect(tmp_path / "none").list_logs()


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals reach the main thread",
)
def test_ctrl_c_while_following_is_no_end_of_the_log(client: blocking.Client) -> None:
    log = client.create_log("x")
    with log.open_writer() as writer:
        writer.append(b"0")
        entries = log.read(follow=True)
        assert next(entries).seq == 0
        killer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        killer.start()
        with pytest.raises(KeyboardInterrupt):
            next(entries)
        killer.join()
        with pytest.raises(wp.Closed):
            next(entries)
        assert writer.append(b"1") == 1, "the client goes on"
    assert [entry.seq for entry in log.read(1)] == [1]


def test_calls_inside_the_clients_own_thread_are_refused(client: blocking.Client) -> None:
    log = client.create_log("x")
    caught: list[BaseException] = []
    is_done = threading.Event()

    def callback(_: object) -> None:
        try:
            log.tail()
        except wp.WoodpeckerError as error:
            caught.append(error)
        is_done.set()

    with log.open_writer() as writer:
        writer.submit(b"x").add_done_callback(callback)
        assert is_done.wait(30)
    assert isinstance(caught[0], wp.InvalidRequest)


async def test_it_works_where_a_loop_is_running(tmp_path: Path) -> None:
    """As in a notebook."""
    assert asyncio.get_running_loop().is_running()
    with wp.blocking.connect(tmp_path / "store") as client:
        log = client.create_log("x")
        with log.open_writer() as writer:
            assert writer.append(b"x") == 0
        assert [entry.payload for entry in log.read()] == [b"x"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads: that is the point
def test_a_forked_child_is_refused_and_does_not_hang(client: blocking.Client) -> None:
    log = client.create_log("x")
    pid = os.fork()
    if pid == 0:
        try:
            log.tail()
        except wp.Closed:
            os._exit(0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if done == (0, 0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert done == (pid, 0)
    assert log.tail() == 0
