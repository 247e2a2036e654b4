"""The largest and the smallest of everything, on files and on blocks as objects."""

from __future__ import annotations

import pytest

import woodpecker as wp

MIB = 1 << 20


@pytest.fixture(params=["file", "object"])
async def log(request, tmp_path, monkeypatch):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    async with wp.connect(tmp_path / "store") as client:
        yield await client.create_log("orders", mode=request.param)


async def test_an_entry_of_64_mib_and_a_batch_of_128(log):
    largest = bytes(range(256)) * (64 * MIB // 256)
    async with await log.open_writer() as writer:
        assert await writer.append(largest) == 0
        assert await writer.append_many([largest, memoryview(largest)]) == range(1, 3)
        with pytest.raises(wp.InvalidRequest, match=r"64 MiB|67108864"):
            await writer.append(largest + b"x")
        with pytest.raises(wp.InvalidRequest, match="split it"):
            await writer.append_many([largest, largest, b"x"])
        assert await writer.append(b"still here") == 3
    sizes = []
    async for batch in log.read_batches():
        for payload in batch.payloads:
            sizes.append(len(payload))
            assert payload in (largest, b"still here")
    assert sizes == [64 * MIB] * 3 + [10]


async def test_nothing_at_all(log):
    async with await log.open_writer() as writer:
        assert await writer.append(b"") == 0
        assert await writer.append_many([b""] * 3) == range(1, 4)
        assert await writer.append_many([]) == range(4, 4)
        assert await writer.append(bytearray(b""), headers=[("", ""), ("", b"x")]) == 4
    found = [entry async for entry in log.read()]
    assert [entry.payload for entry in found] == [b""] * 5
    assert found[4].headers == ((b"", b""), (b"", b"x"))


async def test_a_million_entries(log):
    """Each at its seq, in order, through batches, single seqs and a start far inside."""
    count, at_once = 1_000_000, 20_000
    async with await log.open_writer() as writer:
        for first in range(0, count, at_once):
            await writer.append_many([b"%d" % seq for seq in range(first, first + at_once)])
    seq = 0
    async for batch in log.read_batches():
        assert batch.first_seq == seq
        assert batch.payloads == [b"%d" % n for n in range(seq, seq + len(batch))]
        seq += len(batch)
    assert seq == await log.tail() == count
    assert [entry.seq async for entry in log.read(777_777, 777_780)] == [777_777, 777_778, 777_779]
    assert [entry.payload async for entry in log.read(-1)] == [b"999999"]


@pytest.mark.parametrize("payload", ["text", 7, None, [b"a"], object()])
async def test_what_is_no_payload(log, payload):
    async with await log.open_writer() as writer:
        for attempt in (
            lambda: writer.append(payload),
            lambda: writer.append_many([b"fine", payload]),
        ):
            with pytest.raises(wp.InvalidRequest, match="bytes"):
                await attempt()
        with pytest.raises(wp.InvalidRequest, match="bytes"):
            writer.submit(payload)
        assert await writer.append(b"fine") == 0


@pytest.mark.parametrize("name", ["", "a/b", "x" * 300, ".", "..", "a b", "ü", "a\nb", "-", "a\0b"])
async def test_names_that_cannot_be(name):
    async with wp.connect("memory://") as client:
        for attempt in (
            lambda: client.create_log(name),
            lambda: client.open_log(name),
            lambda: client.delete_log(name),
        ):
            with pytest.raises(wp.InvalidRequest, match="log name"):
                await attempt()


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 200])
async def test_names_that_can_be(name, tmp_path):
    async with wp.connect(tmp_path / "store") as client:
        log = await client.create_log(name)
        async with await log.open_writer() as writer:
            await writer.append(b"x")
        await client.run_background()
        assert await client.list_logs(name[:1]) == [name]
