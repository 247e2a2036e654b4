"""`woodpecker up`: a service in one process, used from other shells, killed and started again."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

import pytest
from tests.integration.cluster_kit import clean_env, command
from tests.integration.streaming_kit import Sender, Serving, judge, payloads, run, up

from woodpecker.app_streaming import connect
from woodpecker.testing.servers.certificates import make_certificates


@pytest.fixture
def service(tmp_path):
    found = up(tmp_path)
    yield found
    found.cleanup()


async def test_from_other_shells_and_to_an_orderly_end(service, tmp_path):
    ready = await service.start()
    assert ready["address"] == service.address
    assert set(ready) == {"role", "node", "address", "http", "store", "pid"}
    store = tmp_path / "store"

    def shell(*args, stdin=b""):
        return asyncio.to_thread(run, store, *args, stdin=stdin)

    await shell("channel", "create", "orders")
    many = await shell("channel", "create", "many-1", "many-2")
    assert [line.split()[1] for line in many.splitlines()] == ["many-1", "many-2"]
    args = ("--output", "json", "channel", "create", "--exist-ok", "-")
    there = json.loads(await shell(*args, stdin=b"many-2\n\nmany-3\n"))
    assert [channel["name"] for channel in there] == ["many-2", "many-3"]
    assert "sent 3 messages" in await shell("produce", "orders", stdin=b"a\nb\nc\n")
    lines = b'{"id": "k1"}\n{"id": "k2", "v": "\xc3\xbc"}\n'
    sent = await shell(
        "--output", "json", "produce", "orders", "--key-from", "id", "--type", "event",
        "--transaction", "--producer", "billing", stdin=lines,
    )  # fmt: skip
    told = json.loads(sent)
    assert (told["count"], told["producer"]) == (2, "billing")
    txn = ("billing", str(told["epoch"]), str(told["transaction"]))
    assert "is committed at" in await shell("txn", "describe", "orders", *txn)
    assert (await shell("consume", "orders")).encode() == b"a\nb\nc\n" + lines
    assert await shell("consume", "orders", "--key", "k1") == '{"id": "k1"}\n'
    found = await shell("consume", "orders", "--type", "event", "--format", "jsonl")
    first, second = map(json.loads, found.splitlines())
    assert (first["key"], second["key"]) == ("k1", "k2")
    assert first["seq"] == second["seq"]  # of one transaction: delivered together
    assert (first["index"], second["index"]) == (0, 1)
    place = f"{first['seq']}.1"
    assert (
        await shell("consume", "orders", "--from", place) == lines.splitlines()[1].decode() + "\n"
    )
    assert await shell("subscribe", "orders", "mail", "--max", "2") == "a\nb\n"
    assert await shell("subscribe", "orders", "mail", "--max", "1") == "c\n"
    described = json.loads(await shell("--output", "json", "channel", "describe", "orders"))
    assert [cursor["cursor"] for cursor in described["cursors"]] == ["mail"]
    nodes = json.loads(await shell("--output", "json", "node", "list"))
    assert [(n["role"], n["answers"]) for n in nodes] == [("streaming", True)]
    assert "done" in await shell("broadcast", "b1", "--to", "orders", "--payload", "hi")
    assert (await shell("consume", "orders")).endswith("hi\n")
    assert await service.page("/readyz") == "ready\n"
    assert 'woodpecker_stream_assignments{state="serving"} 4.0' in await service.page("/metrics")
    await shell("channel", "delete", "orders", "--yes")
    listed = json.loads(await shell("--output", "json", "channel", "list"))
    assert [channel["name"] for channel in listed] == ["many-1", "many-2", "many-3"]
    assert await service.end(signal.SIGTERM) == 0
    assert "Traceback" not in service.log


async def test_ctrl_c_ends_it_and_the_port_is_free(service):
    await service.start()
    assert await service.end(signal.SIGINT) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(service.address.rpartition(":")[2])))


async def test_a_second_one_takes_over_and_the_first_says_so(service, tmp_path):
    await service.start()
    second = Serving(
        tmp_path, "second", "--store", str(tmp_path / "store"), "up", "--port", "0"
    )  # fmt: skip
    try:
        await second.start()
        assert await service.end(0) == 6
        assert "another `woodpecker up` took this store over" in service.log
        await asyncio.to_thread(run, tmp_path / "store", "channel", "create", "orders")
    finally:
        second.cleanup()


async def test_kill_and_restart_lose_nothing(service, tmp_path):
    """kill -9 in the middle of a load, twice: acknowledged messages are there, once, and a cursor goes on."""
    await service.start()
    addresses = [service.address]
    async with connect(addresses) as client:
        await client.create_channel("orders")
    sender = Sender(addresses, "orders", "billing")
    taken: list[bytes] = []
    done: list[bytes] = []

    async def subscribe() -> None:
        async with connect(addresses) as client:
            channel = await client.open_channel("orders")
            async with channel.subscribe("mailer") as subscription:
                async for message in subscription:
                    taken.append(message.payload)
                    await subscription.ack(message)
                    done.append(message.payload)

    subscriber = asyncio.ensure_future(subscribe())
    try:
        for _ in range(2):
            await sender.more(200)
            await service.kill()
            await service.start()
        await sender.more(100)
        await sender.stop()
        async with connect(addresses) as client:
            channel = await client.open_channel("orders")
            delivered = await payloads(channel)
            judge(delivered, sender)
            async with asyncio.timeout(30):
                while len(set(done)) < len(delivered):
                    assert not subscriber.done(), subscriber
                    await asyncio.sleep(0.05)
        assert taken == delivered  # one life of a subscription: no gap, no repeat
    finally:
        subscriber.cancel()
        await asyncio.gather(subscriber, return_exceptions=True)
    async with connect(addresses) as client:
        channel = await client.open_channel("orders")
        async with channel.producer() as producer:
            await producer.send(b"last")
        async with asyncio.timeout(30), channel.subscribe("mailer") as subscription:
            message = await anext(subscription)
    assert message.payload == b"last"  # all else was stored as acknowledged when it closed


async def test_with_a_secret_and_tls(tmp_path):
    files = make_certificates(tmp_path)
    secret, store = tmp_path / "secret", tmp_path / "store"
    secret.write_text("only we know")
    service = up(tmp_path)
    service.argv += ["--secret-file", str(secret), "--tls-ca", str(files.ca_file)]
    service.argv += ["--tls-cert", str(files.server_certificate_file)]
    service.argv += ["--tls-key", str(files.server_key_file)]
    env = clean_env(
        WOODPECKER_SECRET_FILE=str(secret),
        WOODPECKER_TLS_CA=str(files.ca_file),
        WOODPECKER_TLS_CERT=str(files.server_certificate_file),
        WOODPECKER_TLS_KEY=str(files.server_key_file),
    )
    stranger = {name: value for name, value in env.items() if "SECRET" not in name}

    def shell(*args, stdin=b"", **how):
        return asyncio.to_thread(command, "--store", str(store), *args, stdin=stdin, **how)

    try:
        await service.start()
        await shell("channel", "create", "orders", env=env)
        await shell("produce", "orders", stdin=b"a\n", env=env)
        assert await shell("consume", "orders", env=env) == b"a\n"
        told = await shell("consume", "orders", env=stranger, code=3)
        assert b"secret" in told
        assert await service.end(signal.SIGTERM) == 0
    finally:
        service.cleanup()
