"""The cloud store against an S3 server that fails, refuses, or ignores conditions."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

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
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.url import parse_store_url
from woodpecker.testing.conformance.object_store import listing, read, stream
from woodpecker.testing.servers.fault_proxy import Fault, FaultProxy, FaultRule
from woodpecker.testing.servers.rclone import RcloneServer
from woodpecker.testing.servers.seaweed import SeaweedServer

RUNTIME = SystemRuntime()
KEY = "logs/a/0/0"
KEYS = {"access_key_id": "admin", "secret_access_key": "secretsecret"}
MIB = 1024 * 1024

prefixes = itertools.count()


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def make(seaweed):
    """Makes a store on the server or on another endpoint; all in one prefix of the test."""
    prefix = f"faults/{next(prefixes)}"
    stores = []

    def make_store(endpoint=seaweed.endpoint, bucket="bucket", **options):
        url = f"s3://{bucket}/{prefix}"
        settings = parse_store_url(url, **{"endpoint": endpoint, **KEYS, **options})
        stores.append(CloudObjectStore(settings, RUNTIME))
        return stores[-1]

    yield make_store
    for store in stores:
        await store.close()


@pytest.fixture
async def proxy(seaweed):
    proxy = FaultProxy(seaweed.endpoint)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def test_the_proxy_forwards_signed_requests_untouched(make, proxy):
    store = make(proxy.endpoint)
    etag = await store.create("meta/odd key+%41", b"one")
    await store.replace("meta/odd key+%41", b"two", etag=etag)
    assert await read(make(), "meta/odd key+%41") == b"two"
    assert await store.write_stream("s", stream([b"x" * MIB] * 20)) == 20 * MIB
    assert [info.key for info in await listing(store, "")] == ["meta/odd key+%41", "s"]
    assert proxy.requests >= 5
    assert not proxy.injected


@pytest.mark.parametrize(
    ("fault", "written"),
    [
        (Fault.COMMIT_500, True), (Fault.COMMIT_CUT, True), (Fault.CUT_COMMIT, True),
        (Fault.REFUSE_503, False), (Fault.REFUSE_409, False), (Fault.DROP, False),
    ],
)  # fmt: skip
async def test_create_without_answer_is_unknown_and_sent_once(make, proxy, fault, written):
    proxy.add(FaultRule(fault=fault, methods=("PUT",)))
    with pytest.raises(OutcomeUnknown):
        await make(proxy.endpoint).create(KEY, b"mine")
    await proxy.settle()
    assert proxy.injected == {fault: 1}
    assert (await make().head(KEY) is not None) is written
    proxy.clear()
    if written:
        with pytest.raises(AlreadyExists):
            await make(proxy.endpoint).create(KEY, b"mine")
    assert proxy.requests == 1 + written


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.COMMIT_500, b"two"), (Fault.COMMIT_CUT, b"two"), (Fault.CUT_COMMIT, b"two"),
        (Fault.REFUSE_409, b"one"), (Fault.REFUSE_503, b"one"),
    ],
)  # fmt: skip
async def test_replace_without_answer_is_unknown_and_sent_once(make, proxy, fault, expected):
    etag = await make().create(KEY, b"one")
    proxy.add(FaultRule(fault=fault, methods=("PUT",)))
    with pytest.raises(OutcomeUnknown):
        await make(proxy.endpoint).replace(KEY, b"two", etag=etag)
    await proxy.settle()
    assert proxy.injected == {fault: 1}
    assert await read(make(), KEY) == expected


async def test_a_write_that_takes_too_long_is_unknown(make, proxy):
    proxy.add(FaultRule(fault=Fault.DELAY, methods=("PUT",), delay_ms=600))
    with pytest.raises(OutcomeUnknown):
        await make(proxy.endpoint, timeout_ms=100).create(KEY, b"late")


async def test_nothing_listening_is_unavailable_and_nothing_was_sent(make):
    store = make("http://127.0.0.1:1")
    for call in (store.create(KEY, b""), store.replace(KEY, b"", etag="e")):
        with pytest.raises(Unavailable, match="nothing was sent"):
            await call
    with pytest.raises(Unavailable):
        await store.get(KEY)


@pytest.mark.parametrize(
    "fault", [Fault.COMMIT_500, Fault.COMMIT_CUT, Fault.REFUSE_503, Fault.TRUNCATE]
)
async def test_reads_listings_and_deletions_are_tried_again(make, proxy, fault):
    body = bytes(range(256)) * 4000
    await make().create(KEY, body)
    store = make(proxy.endpoint)
    proxy.add(FaultRule(fault=fault, methods=("GET",), times=2))
    assert await read(store, KEY) == body
    assert proxy.injected[fault] == 2
    proxy.clear()
    proxy.add(FaultRule(fault=fault, methods=("GET",), times=2))
    assert [info.key for info in await listing(store, "logs/")] == [KEY]
    assert proxy.injected[fault] == 4
    proxy.clear()
    proxy.add(FaultRule(fault=fault, methods=("HEAD", "POST"), times=2))
    head = await store.head(KEY)
    assert head is not None
    assert head.size == len(body)
    await store.delete([KEY])
    assert await make().head(KEY) is None


async def test_reads_give_up_after_a_bounded_number_of_tries(make, proxy):
    proxy.add(FaultRule(fault=Fault.REFUSE_503))
    with pytest.raises(Unavailable, match="503 SlowDown"):
        await make(proxy.endpoint).get(KEY)
    assert proxy.injected == {Fault.REFUSE_503: 5}


async def test_parts_of_a_stream_are_sent_again(make, proxy):
    proxy.add(FaultRule(fault=Fault.COMMIT_500, methods=("PUT",), times=2))
    parts = [bytes([number]) * MIB for number in range(20)]
    assert await make(proxy.endpoint).write_stream("s", stream(parts)) == 20 * MIB
    assert proxy.injected[Fault.COMMIT_500] == 2
    assert await read(make(), "s") == b"".join(parts)


async def test_wrong_credentials_say_what_to_set(make):
    store = make(secret_access_key="wrong")
    for call in (
        store.create(KEY, b""), store.replace(KEY, b"", etag="e"), store.get(KEY),
        listing(store, ""), store.delete([KEY]), store.write_stream(KEY, stream([b"x"])),
        store.probe("create_if_absent"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match="AWS_ACCESS_KEY_ID"):
            await call


async def test_missing_bucket_says_how_to_make_it(make, tmp_path):
    with pytest.raises(NotFound, match="aws s3 mb s3://nowhere"):
        await make(bucket="nowhere").get(KEY)
    # SeaweedFS makes buckets by itself when an administrator writes; rclone does not
    rclone = RcloneServer(tmp_path / "rclone")
    await rclone.start()
    try:
        store = make(rclone.endpoint, bucket="nowhere")
        for call in (store.create(KEY, b"x"), store.write_stream(KEY, stream([b"x"]))):
            with pytest.raises(NotFound, match="aws s3 mb s3://nowhere"):
                await call
    finally:
        await rclone.stop()


async def test_a_store_that_ignores_conditions_is_refused_by_the_probe(make, tmp_path):
    rclone = RcloneServer(tmp_path / "rclone")
    await rclone.start()
    try:
        store = make(rclone.endpoint)
        assert "has no create-if-absent" in str(await store.probe("create_if_absent"))
        assert "has no compare-and-swap" in str(await store.probe("compare_and_swap"))
        assert await listing(store, "") == []
    finally:
        await rclone.stop()


async def test_etags_can_be_sent_without_quotes(make, proxy):
    store = make(proxy.endpoint, quoted_etags=False)  # SeaweedFS takes both forms
    assert await store.probe("compare_and_swap") is None


async def test_the_server_keeps_acknowledged_objects_over_a_kill(tmp_path):
    server = SeaweedServer(tmp_path / "own")
    await server.start()
    settings = parse_store_url(server.url(), **KEYS)
    store = CloudObjectStore(settings, RUNTIME)
    try:
        for number in range(20):
            await store.create(f"k/{number:02}", b"x" * 1000)
        await server.kill()
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await store.create("k/20", b"x")
        await server.restart()
        assert len(await listing(store, "k/")) == 20
        for number in range(20):
            with pytest.raises(AlreadyExists):
                await store.create(f"k/{number:02}", b"y")
    finally:
        await store.close()
        await server.stop()


EXIT_RIGHT_AFTER_A_REQUEST = """
import asyncio, sys
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.url import parse_store_url

async def main():
    store = CloudObjectStore(parse_store_url(sys.argv[1]), SystemRuntime())
    await store.create(sys.argv[2], b"x")

asyncio.run(main())
"""


async def test_a_process_may_end_right_after_a_request(seaweed):
    async def run(number):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", EXIT_RIGHT_AFTER_A_REQUEST, seaweed.url(), f"exit/{number}",
            env={**os.environ, **seaweed.credentials, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        return process.returncode, errors

    for first in range(0, 24, 4):
        done = await asyncio.gather(*(run(number) for number in range(first, first + 4)))
        assert done == [(0, b"")] * 4


async def test_stale_replace_through_the_proxy_is_a_conflict(make, proxy):
    store = make(proxy.endpoint)
    stale = await store.create(KEY, b"one")
    await store.replace(KEY, b"two", etag=stale)
    with pytest.raises(Conflict):
        await store.replace(KEY, b"three", etag=stale)
