"""Metadata in a real etcd that is killed, stopped, secured and compacted."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from woodpecker.errors import (
    Conflict,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.metadata.etcd import EtcdLogin, EtcdMetadata, EtcdTls
from woodpecker.programs import HOW_TO_GET_ETCD, find_etcd
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.testing.servers.certificates import make_certificates
from woodpecker.testing.servers.etcd import EtcdCluster

T = TypeVar("T")
RUNTIME = SystemRuntime()
KEY = "meta/log/orders"
PATIENCE_S = 30

if find_etcd() is None:
    pytest.skip(HOW_TO_GET_ETCD, allow_module_level=True)


@pytest.fixture
def cluster(tmp_path):
    with EtcdCluster(tmp_path / "etcd") as running:
        yield running


@pytest.fixture
async def store(cluster):
    metadata = EtcdMetadata(cluster.endpoints, "woodpecker", RUNTIME, timeout_ms=700)
    yield metadata
    await metadata.close()


async def test_killed_and_started_again(cluster, store):
    version = await store.put(KEY, b"one", expect=None)
    cluster.members[0].kill()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable, match=cluster.endpoints[0]):
            await store.get(KEY)
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await store.put(KEY, b"two", expect=version)
        with pytest.raises(Unavailable):
            await store.list("meta/")
        with pytest.raises(Unavailable):
            await store.acquire_lease("meta/lease", "me", 1000)
        await store.wait_change(KEY, version, 100)
    cluster.members[0].start()
    await asyncio.to_thread(cluster.members[0].wait_ready)
    found = await store.get(KEY)
    assert found is not None
    assert found.value == b"one"
    await store.put(KEY, b"two", expect=version)


async def test_a_store_that_was_never_reached_says_why(cluster, store):
    cluster.members[0].kill()
    with pytest.raises(Unavailable, match=r"nothing was sent.*refused"):
        await store.put(KEY, b"one", expect=None)


async def test_a_write_without_answer_is_unknown_and_found_out_by_effect(cluster, store):
    version = await store.put(KEY, b"one", expect=None)
    cluster.members[0].pause()
    try:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Unavailable):
                await store.get(KEY)
            with pytest.raises(OutcomeUnknown):
                await store.put(KEY, b"two", expect=version)
    finally:
        cluster.members[0].resume()
    with contextlib.suppress(Conflict):  # then the first one has taken effect
        await _until_available(store, lambda: store.put(KEY, b"two", expect=version))
    found = await store.get(KEY)
    assert found is not None
    assert found.value == b"two"


async def test_a_wait_survives_a_lost_stream(cluster, store):
    version = await store.put(KEY, b"one", expect=None)
    other = EtcdMetadata(cluster.endpoints, "woodpecker", RUNTIME)

    async def wait() -> None:
        while True:
            try:
                found = await store.get(KEY)
            except Unavailable:
                continue
            if found is not None and found.version != version:
                return
            await store.wait_change(KEY, version, 3_600_000)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        await asyncio.sleep(0.2)
        cluster.members[0].kill()
        await asyncio.sleep(0.2)
        cluster.members[0].start()
        await asyncio.to_thread(cluster.members[0].wait_ready)
        await asyncio.sleep(0.5)
        await other.put(KEY, b"two", expect=version)
    await other.close()


async def test_a_wait_from_before_a_compaction_neither_ends_nor_misses(cluster, store):
    version = await store.put(KEY, b"one", expect=None)
    last = ""
    for number in range(20):
        last = await store.put(f"{KEY}/{number}", b"x", expect=None)
    await asyncio.to_thread(cluster.compact, int(last))
    waiting = asyncio.create_task(store.wait_change(KEY, version, 3_600_000))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await store.put(KEY, b"two", expect=version)
    async with asyncio.timeout(PATIENCE_S):
        await waiting


async def test_a_lease_is_lost_while_etcd_is_away(cluster, store):
    lease = await store.acquire_lease("meta/lease", "me", 1000)
    assert lease is not None
    cluster.members[0].pause()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not lease.lost:
                await asyncio.sleep(0.05)
    finally:
        cluster.members[0].resume()
    await lease.release()


async def test_a_lease_revoked_by_others_is_lost(cluster, store):
    lease = await store.acquire_lease("meta/lease", "me", 1000)
    assert lease is not None
    await store._leases.revoke(lease._lease_id)
    async with asyncio.timeout(PATIENCE_S):
        while not lease.lost:
            await asyncio.sleep(0.05)
    assert await store.get("meta/lease") is None


async def test_three_members_of_which_any_one_dies(tmp_path):
    with EtcdCluster(tmp_path / "etcd", members=3) as cluster:
        store = EtcdMetadata(cluster.endpoints, "woodpecker", RUNTIME, timeout_ms=4000)
        version = await store.put(KEY, b"0", expect=None)
        for number, member in enumerate(cluster.members, start=1):
            member.kill()
            version = await _put_by_effect(store, b"%d" % number, version)
            found = await store.get(KEY)
            assert found is not None
            assert (found.value, found.version) == (b"%d" % number, version)
            member.start()
            await asyncio.to_thread(member.wait_ready)
        await store.close()


async def test_a_member_that_hangs_is_read_around(tmp_path):
    with EtcdCluster(tmp_path / "etcd", members=3) as cluster:
        store = EtcdMetadata(cluster.endpoints, "woodpecker", RUNTIME, timeout_ms=4000)
        await store.put(KEY, b"one", expect=None)
        for member in cluster.members:
            member.pause()
            found = await store.get(KEY)
            assert found is not None
            member.resume()
            await asyncio.to_thread(member.wait_ready)
        await store.close()


async def test_tls_with_client_certificates(tmp_path):
    certificates = make_certificates(tmp_path / "tls")
    strangers = make_certificates(tmp_path / "strangers")
    with EtcdCluster(tmp_path / "etcd", certificates=certificates) as cluster:
        good = EtcdTls(
            ca_file=certificates.ca_file,
            certificate_file=certificates.client_certificate_file,
            key_file=certificates.client_key_file,
        )
        store = EtcdMetadata(cluster.endpoints, "woodpecker", RUNTIME, tls=good)
        await store.put(KEY, b"one", expect=None)
        await store.wait_change(KEY, None, 1000)
        await store.close()
        wrong = [None, EtcdTls(ca_file=strangers.ca_file), EtcdTls(ca_file=certificates.ca_file)]
        for tls in wrong:
            store = EtcdMetadata(cluster.endpoints, "", RUNTIME, tls=tls, timeout_ms=500)
            with pytest.raises(Unavailable):
                await store.get(KEY)
            await store.close()
    with pytest.raises(InvalidRequest, match="no-such-file"):
        EtcdMetadata(["h:1"], "", RUNTIME, tls=EtcdTls(ca_file=tmp_path / "no-such-file"))


async def test_user_and_password(cluster):
    await asyncio.to_thread(cluster.enable_login, "pecker", "s3cret", prefix="woodpecker/")

    def open_as(login: EtcdLogin | None, prefix: str = "woodpecker") -> EtcdMetadata:
        return EtcdMetadata(cluster.endpoints, prefix, RUNTIME, login=login)

    good = EtcdLogin(user="pecker", password="s3cret")
    assert "s3cret" not in repr(good)
    store = open_as(good)
    assert "s3cret" not in store.url
    version = await store.put(KEY, b"one", expect=None)
    cluster.members[0].kill()  # forgets the tokens it gave
    cluster.members[0].start()
    await asyncio.to_thread(cluster.members[0].wait_ready)
    version = await store.put(KEY, b"two", expect=version)
    await _wakes(store, version)
    await store.close()
    for refused in (
        open_as(EtcdLogin(user="pecker", password="wrong")),
        open_as(None),
        open_as(good, prefix="elsewhere"),
    ):
        for call in (refused.get(KEY), refused.put(KEY, b"x", expect=None)):
            with pytest.raises(InvalidRequest) as caught:
                await call
            assert "s3cret" not in str(caught.value)
        await refused.wait_change(KEY, None, 100)
        await refused.close()


async def test_login_against_a_cluster_without_authentication(cluster):
    login = EtcdLogin(user="pecker", password="s3cret")
    store = EtcdMetadata(cluster.endpoints, "", RUNTIME, login=login)
    with pytest.raises(InvalidRequest, match="not enabled"):
        await store.get(KEY)
    await store.close()


async def test_closing_under_calls_ends_them_with_our_errors(cluster, store):
    version = await store.put(KEY, b"one", expect=None)
    cluster.members[0].pause()
    try:
        calls = [
            asyncio.create_task(store.get(KEY)),
            asyncio.create_task(store.put(KEY, b"two", expect=version)),
        ]
        await asyncio.sleep(0.1)
        await store.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        cluster.members[0].resume()
    assert all(isinstance(result, WoodpeckerError) for result in results), results
    assert isinstance(results[1], OutcomeUnknown)


def test_endpoints_are_checked():
    for endpoints in ([], ["http://h:1"], ["h:port"], [":1"]):
        with pytest.raises(InvalidRequest):
            EtcdMetadata(endpoints, "", RUNTIME)
    assert EtcdMetadata(["h", "[::1]:7"], "/a/b/", RUNTIME).url == "etcd://h:2379,[::1]:7/a/b"


def test_without_the_extra_the_text_says_how_to_get_it():
    script = """
        import sys
        sys.modules["grpc"] = None
        from woodpecker.errors import InvalidRequest
        try:
            import woodpecker.metadata.etcd
        except InvalidRequest as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'woodpecker-wal[etcd]'" in done.stdout


async def _until_available(store: EtcdMetadata, call: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(0.05)


async def _put_by_effect(store: EtcdMetadata, value: bytes, expect: str) -> str:
    """As drivers do: the same bytes under the same condition, then decide by effect."""
    try:
        return await _until_available(store, lambda: store.put(KEY, value, expect=expect))
    except Conflict:
        found = await _until_available(store, lambda: store.get(KEY))
        assert found is not None
        assert found.value == value
        return found.version


async def _wakes(store: EtcdMetadata, version: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        waiting = asyncio.create_task(store.wait_change(KEY, version, 3_600_000))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await store.put(KEY, b"three", expect=version)
        await waiting
