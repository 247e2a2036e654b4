"""A control record ordered from an owner that was replaced is to be ordered again, at the new one."""

from __future__ import annotations

import pytest
from tests.unit.streaming.node.kit import LOG, P, one_node, produce, until

from woodpecker.streaming import requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_a_forged_order_of_a_huge_term_keeps_no_node_from_real_ones() -> None:
    async with one_node() as (cluster, member):
        await produce(cluster, member)

        def order(term: int) -> requests.Assign:
            return requests.Assign(
                pchannel=P,
                term=term,
                log=LOG,
                log_id=cluster.log.log_id,
                incarnation=member.node.incarnation,
                epoch=1,
            )

        await member.endpoint.call(order(1 << 60))
        await until(lambda: member.state == "closed")
        await member.endpoint.call(order(cluster.term))
        await until(lambda: member.state == "serving")
        assert member.life.term == cluster.term


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
