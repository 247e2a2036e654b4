"""A control record ordered from an owner that was replaced is to be ordered again, at the new one."""

from __future__ import annotations

import pytest
from tests.unit.streaming.node.kit import P, one_node, produce

from woodpecker.streaming import requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_a_replaced_owner_says_what_to_do_not_what_befell_its_writer() -> None:
    async with one_node() as (cluster, old):
        await produce(cluster, old)
        new = await cluster.node("n2")
        await cluster.assign(new)
        order = requests.AppendControl(
            pchannel=P, term=cluster.term - 1, kind="vc-create", vcid=8, name="c8"
        )
        with pytest.raises(Refused) as told:
            await old.endpoint.call(order)
        assert told.value.refusal.kind in {Class.MOVED, Class.UNKNOWN}
