"""What a careless or hostile client sends must hurt nobody else."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.streaming.node.kit import (
    VCID,
    Consuming,
    P,
    consume,
    is_class,
    one_node,
    produce,
)

from woodpecker.streaming import requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import Start, StartForm
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_a_number_that_no_reader_would_take_is_not_written() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        await producing.send(b"a", txn_number=-5)
        assert is_class(await producing.answer(), Class.INVALID)
        producing.sequence = 0
        await producing.put(b"b")
        again = await cluster.node("n2")
        await cluster.assign(again)
        consuming = await consume(cluster, again)
        assert await consuming.until(1) == [b"b"]
        await consuming.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "vc-create", "vcid": -1, "name": "x"},
        {"kind": "vc-create", "vcid": 8, "name": "x", "retention_age_s": -1},
        {"kind": "vc-create", "vcid": 8, "name": "x", "retention_bytes": -1},
        {"kind": "vc-delete", "vcid": -3},
        {"kind": "broadcast", "vcid": VCID, "broadcast_id": 1, "broadcast_floor": -1},
    ],
)
@on_virtual_time
async def test_a_control_record_that_no_reader_would_take_is_not_written(
    fields: dict[str, object],
) -> None:
    async with one_node() as (cluster, member):
        with pytest.raises(Refused) as caught:
            await member.endpoint.call(
                requests.AppendControl(pchannel=P, term=cluster.term, **fields)  # type: ignore[arg-type]
            )
        assert caught.value.refusal.kind is Class.INVALID
        producing = await produce(cluster, member)
        await producing.put(b"b")
        await cluster.assign(await cluster.node("n2"))


@on_virtual_time
async def test_what_is_written_while_a_start_by_time_is_looked_up_is_not_passed_over() -> None:
    async with one_node() as (cluster, member):
        producing = await produce(cluster, member)
        member.site.on_objects.max_delay_ms = 20
        member.site.on_metadata.max_delay_ms = 20
        for round_ in range(20):
            await producing.send(b"before")
            await producing.send(b"now", ephemeral=True)
            await producing.ack()
            shown = await producing.ack()  # its tick is in no batch
            consuming = await Consuming(cluster, member).open()
            start = Start(form=StartForm.TICK, value=shown.tick)
            asked = asyncio.ensure_future(consuming.subscribe(start=start))
            await asyncio.sleep(round_ / 1000)
            first = await producing.put(b"after")
            assert (await asked).position.seq <= first.seq
            await consuming.close()
