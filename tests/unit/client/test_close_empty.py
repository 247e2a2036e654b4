"""A writer that is closed leaves no segment open, not even one that it opened for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import woodpecker as wp


@pytest.mark.parametrize("place", ["memory", "file"])
async def test_an_empty_segment_is_dropped_by_close(place: str, tmp_path: Path) -> None:
    url = "memory://" if place == "memory" else (tmp_path / "store").as_uri()
    async with wp.connect(url, background=False) as client:
        log = await client.create_log("a", segment_max_blocks=1)
        async with await log.open_writer() as writer:
            await writer.append(b"one")  # fills the segment: it is rolled
            await writer.flush()
            for _ in range(200):
                if (await log.describe()).segment_count == 2:
                    break
                await client.environment.runtime.sleep_ms(10)
        described = await log.describe()
        assert [segment.state for segment in described.segments] == ["closed"]
        assert described.tail == 1
        async with await log.open_writer() as writer:
            assert await writer.append(b"two") == 1
        await log.verify()
