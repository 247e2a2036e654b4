"""Any layout of segments, any range: a reader gives exactly the slice, whatever form the parts have."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.client.reading_kit import Follower, LogKit

# a log is a list of steps; blocks are small so that borders are everywhere
step = st.one_of(
    st.integers(0, 4).map(lambda n: ("block", n)),  # 0: a block without entries
    st.just(("roll", 0)),
    st.just(("take over", 0)),
    st.just(("seal", 0)),
    st.just(("spill", 0)),
)


async def carry_out(kit: LogKit, steps: list[tuple[str, int]]) -> None:
    for what, count in steps:
        manifest = await kit.manifest()
        segments = manifest.segments
        if what == "block":
            if manifest.open_segment is None:
                await kit.open()
            first = len(kit.entries)
            await kit.show([b"%d" % n for n in range(first, first + count)])
        elif what in ("roll", "take over") and manifest.open_segment is not None:
            if what == "take over":
                await kit.take_over()
            await kit.close(roll=what == "roll" and bool(kit.parts[segments[-1].id].blocks))
        elif what == "seal" and any(s.end and not s.sealed for s in segments):
            await kit.seal()
        elif what == "spill" and segments and segments[0].sealed:
            await kit.spill(sum(s.sealed is not None for s in segments))


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(step, max_size=25), ends=st.tuples(st.integers(0, 70), st.integers(0, 70)))
def test_any_range_of_any_layout_is_the_slice(
    steps: list[tuple[str, int]], ends: tuple[int, int]
) -> None:
    async def run() -> None:
        kit = await LogKit.create()
        await carry_out(kit, steps)
        start, end = ends[0] % (len(kit.entries) + 1), ends[1]
        assert await kit.payloads(start, end) == kit.entries[start:end]
        assert await kit.payloads(start) == kit.entries[start:]
        assert (
            await kit.payloads(-ends[1] if ends[1] else "latest")
            == kit.entries[max(0, len(kit.entries) - ends[1]) :]
        )

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(
    before=st.lists(step, max_size=8),
    after=st.lists(st.tuples(step, st.booleans()), max_size=20),
)
def test_a_follower_sees_every_entry_once_whatever_happens_around_it(
    before: list[tuple[str, int]], after: list[tuple[tuple[str, int], bool]]
) -> None:
    """``after``: steps, and whether the follower gets time to look between them."""

    async def run() -> None:
        kit = await LogKit.create()
        await carry_out(kit, before)
        follower = Follower(kit)
        try:
            for one, pause in after:
                await carry_out(kit, [one])
                if pause:
                    await asyncio.sleep(0.001)
            await follower.has(len(kit.entries))
            assert follower.seen == kit.entries
            assert follower.seqs == list(range(len(kit.entries)))
        finally:
            await follower.cancel()
        assert kit.runtime.running() == []

    asyncio.run(run())
