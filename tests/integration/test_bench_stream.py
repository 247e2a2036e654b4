"""``bench stream``: every row is there, in a run too short to say anything about speed."""

from __future__ import annotations

from woodpecker.bench import stream
from woodpecker.bench.pairs import Plan
from woodpecker.bench.target import open_target


async def test_each_row_is_measured_and_everything_is_ended(tmp_path):
    wanted = stream.StreamPlan(
        plan=Plan(pairs=1, seconds=0.2), rates=(200.0,), nats=False, signals_s=0.5, channels=20
    )
    async with open_target(str(tmp_path)) as target:
        rows = {row.name: row.figures for row in await stream.run(target, wanted, lambda _: None)}
    at_rate = rows["channel 1 KiB at 200/s"]
    assert at_rate["entries_s"] > 0
    assert at_rate["p99_ms"] > 0
    assert rows["log 1 KiB batches of 1024 x4"]["mb_s"] > 0
    assert rows["consumer beside a slow one"]["mb_s"] > 0
    signals = rows["signals, 20/s on 16 channels"]
    assert signals["received"] == signals["sent"] == 160
    many = rows["20 channels on 16 pchannels"]
    assert many["channels_s"] > 0
    assert many["pchannels"] == 16
    assert 16 * 50 < many["map_bytes"] < 16 * 200, "an entry for each pchannel, none for a channel"
    assert list(tmp_path.iterdir()) == []
