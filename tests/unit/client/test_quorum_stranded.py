"""A writer whose segment can confirm nothing any more closes it as a stranger would, and goes on."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.client.test_quorum_rolls import LOG, NAME, Site, a_site

from woodpecker.client.log import Log
from woodpecker.core.ids import State
from woodpecker.errors import Fenced, NotFound, OutcomeUnknown, WoodpeckerError
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.testing.virtual import on_virtual_time


def a_log(site: Site) -> Log:
    return Log(site.env, NAME, LOG)


async def on_two(site: Site) -> None:
    """n2 dies and the log goes on with n1 and n3."""
    site.cluster.node(2).crash()
    await asyncio.sleep(6)
    assert await site.members() == ["n1", "n3"]


@on_virtual_time
async def test_two_of_two_lose_one_and_the_third_is_back():
    async with a_site(3) as site:
        writer = await site.writer()
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        waiting = [writer.submit(b"%d" % number) for number in range(5)]
        site.cluster.node(2).start()
        async with asyncio.timeout(40):
            assert await asyncio.gather(*waiting) == [1, 2, 3, 4, 5]
            assert await writer.append(b"z") == 6
        assert await site.members() == ["n1", "n2"]
        assert await site.entries() == [b"a", b"0", b"1", b"2", b"3", b"4", b"z"]
        await writer.close()
        assert (await site.manifest()).open_segment is None


@on_virtual_time
async def test_one_of_two_comes_back_with_an_empty_disk():
    async with a_site(3) as site:
        writer = await site.writer()
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        waiting = [writer.submit(b"%d" % number) for number in range(5)]
        site.cluster.node(2).start()
        site.cluster.node(3).wipe()
        site.cluster.node(3).start()
        async with asyncio.timeout(40):
            assert await asyncio.gather(*waiting) == [1, 2, 3, 4, 5]
            await writer.append(b"z")
        await writer.close()
        assert await site.entries() == [b"a", b"0", b"1", b"2", b"3", b"4", b"z"]


@on_virtual_time
async def test_what_no_member_has_is_packed_anew_with_its_seqs():
    async with a_site(4) as site:
        writer = await site.writer()
        await writer.append(b"a", timestamp_us=5)
        site.cluster.node(2).crash()
        site.cluster.node(4).crash()
        await asyncio.sleep(6)
        assert await site.members() == ["n1", "n3"]
        await writer.append(b"b")
        site.cluster.network.cut("writer", "n1")  # nothing sent from here on arrives anywhere
        site.cluster.node(3).crash()
        waiting = [writer.submit(b"%d" % number) for number in range(3)]
        waiting += [writer.submit(b"%d" % number, timestamp_us=7) for number in range(3, 6)]
        await asyncio.sleep(0.1)
        batch = asyncio.ensure_future(writer.append_many([b"x" * 300_000, b"y" * 300_000]))
        site.cluster.node(2).start()
        site.cluster.node(4).start()
        await asyncio.sleep(14)  # it has given the segment up, and looks for its end
        site.cluster.network.heal("writer", "n1")
        async with asyncio.timeout(40):
            assert await asyncio.gather(*waiting) == list(range(2, 8))
            assert await batch == range(8, 10)
        first, second = (await site.manifest()).segments[-2:]
        assert first.end is not None
        assert (first.end.seq, second.base_seq) == (2, 2)
        numbers = [b"%d" % number for number in range(6)]
        assert await site.entries() == [b"a", b"b", *numbers, b"x" * 300_000, b"y" * 300_000]
        await writer.append(b"after")
        await writer.close()
        assert len(await site.entries()) == 11


@on_virtual_time
async def test_flush_and_close_wait_for_what_is_packed_anew():
    async with a_site(3) as site:
        writer = await site.writer()
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        pending = writer.submit(b"b")
        site.cluster.node(2).start()
        await asyncio.sleep(7)  # in the middle of it, or behind it
        async with asyncio.timeout(40):
            await writer.flush()
            assert pending.done() and pending.result() == 1
            await writer.close()
        assert await site.entries() == [b"a", b"b"]


@on_virtual_time
async def test_sessions_go_on_over_it():
    async with a_site(3) as site:
        writer = await site.writer()
        await writer.close()
        log = a_log(site)
        writer = await log.open_writer(producer="p")
        await writer.append_many([b"a"], sequence=0)
        await on_two(site)
        site.cluster.node(3).crash()
        second = asyncio.ensure_future(writer.append_many([b"b", b"c"], sequence=1))
        await asyncio.sleep(0.1)
        site.cluster.node(2).start()
        async with asyncio.timeout(40):
            assert await second == range(1, 3)
            assert await writer.append_many([b"b", b"c"], sequence=1) == range(1, 3)
            assert await writer.append_many([b"d"], sequence=2) == range(3, 4)
        await writer.close()
        assert await site.entries() == [b"a", b"b", b"c", b"d"]


@on_virtual_time
async def test_an_end_that_was_sent_is_kept():
    async with a_site(3) as site:
        writer = await site.writer()
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        ending = asyncio.ensure_future(writer.end_log())
        await asyncio.sleep(0.1)
        site.cluster.node(2).start()
        async with asyncio.timeout(40):
            assert await ending == 1
        manifest = await site.manifest()
        assert manifest.ended and manifest.open_segment is None
        assert await site.entries() == [b"a"]


@on_virtual_time
async def test_a_writer_that_was_overtaken_meanwhile_says_what_is_known():
    async with a_site(3) as site:
        writer = await site.writer(append_timeout_ms=20_000)
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        pending = writer.submit(b"b")
        await asyncio.sleep(1)
        other = await a_log(site).open_writer()
        site.cluster.node(2).start()
        await asyncio.sleep(3)
        await other.append(b"c")
        with pytest.raises(WoodpeckerError) as caught:
            async with asyncio.timeout(60):
                await pending
        assert caught.value.code in {"fenced", "outcome_unknown"}
        await other.close()
        entries = await site.entries()
        assert entries in ([b"a", b"b", b"c"], [b"a", b"c"])
        await writer.close()


@on_virtual_time
async def test_who_is_overtaken_while_it_recovers_and_finds_its_segment_sealed_is_fenced(
    monkeypatch,
):
    """The members have forgotten it: an error of theirs is no news of the log."""
    async with a_site(3) as site:
        writer = await site.writer(append_timeout_ms=20_000)
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        pending = writer.submit(b"b")
        own, recover = writer._pump.chain.owner.token, QuorumSegments.recover
        others = []

        async def gone(self, ref, *, token):
            if token != own:
                return await recover(self, ref, token=token)
            others.append(await a_log(site).open_writer())
            raise NotFound("sealed or deleted: the manifest says what became of it")

        monkeypatch.setattr(QuorumSegments, "recover", gone)
        site.cluster.node(2).start()
        with pytest.raises(Fenced) as caught:
            async with asyncio.timeout(60):
                await pending
        assert caught.value.outcome == "unknown"
        assert len(others) == 1
        await others[0].close()
        await writer.close()


@on_virtual_time
async def test_where_nobody_else_is_it_waits_as_long_as_an_append_may():
    async with a_site(3) as site:
        writer = await site.writer(append_timeout_ms=20_000)
        await writer.append(b"a")
        await on_two(site)
        site.cluster.node(3).crash()
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(60):
                await writer.append(b"b")
        await writer.close()
        assert [s.state for s in (await site.manifest()).segments][-1] is State.OPEN
