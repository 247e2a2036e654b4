"""A writer that has ended says so, and nobody's retry loop spins on it."""

from __future__ import annotations

import pytest

import woodpecker as wp


async def test_an_ended_writer_tells_what_ended_it() -> None:
    async with wp.connect("memory://", background=False) as client:
        log = await client.create_log("a")
        async with await log.open_writer() as old:
            await old.append(b"one")
            assert old.ended_by is None
            async with await log.open_writer() as new:
                with pytest.raises(wp.Fenced):
                    await old.append(b"two")
                assert isinstance(old.ended_by, wp.Fenced)
                assert await new.append(b"three") == 1


async def test_a_refusal_of_an_ended_writer_is_not_to_be_retried() -> None:
    async with wp.connect("memory://", background=False) as client:
        log = await client.create_log("a")
        async with await log.open_writer() as writer:
            await writer.append(b"one")
            writer._pump.end(wp.OutcomeUnknown("the disk failed"))
            with pytest.raises(wp.NotWritten, match="open a new writer") as caught:
                await writer.append(b"two")
            assert not caught.value.retryable
            assert wp.NotWritten.retryable  # in general it is
