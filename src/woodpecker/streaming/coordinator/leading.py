"""One term of office of a coordinator: everything it does while it leads, put together.

It begins with nothing but what is in the metadata store, and leaves nothing behind that its successor
would need to be told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from woodpecker.core.backoff import delay_ms
from woodpecker.errors import WoodpeckerError
from woodpecker.observability.names import Gauge
from woodpecker.streaming import requests
from woodpecker.streaming.codec.records import FEATURES, POLICY
from woodpecker.streaming.coordinator.assigning import Assigner
from woodpecker.streaming.coordinator.balancing import Balancer
from woodpecker.streaming.coordinator.broadcasting import BroadcastDesk
from woodpecker.streaming.coordinator.channels import ChannelDesk
from woodpecker.streaming.coordinator.discovering import Publisher
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.coordinator.membership import Membership
from woodpecker.streaming.coordinator.operating import Operations
from woodpecker.streaming.coordinator.owners import Owners
from woodpecker.streaming.coordinator.pchannels import Pchannels
from woodpecker.streaming.core.fleet import Standing
from woodpecker.streaming.core.records import Assignment, Features, Policy
from woodpecker.streaming.frames import Report
from woodpecker.streaming.requests import Request

GAUGES_MS = 5_000.0
BROADCAST_STATES = ("waiting", "pending", "parked")

Handler = Callable[[Any], Awaitable[Any]]

_log = logging.getLogger("woodpecker.streaming")


class Office:
    """See the module. One event loop; to be stopped once ``means.on_deposed`` was told."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._runtime = means.runtime
        self.epoch = means.epoch
        self.may_decide = means.may_decide
        self.publisher = Publisher(means.runtime, means.epoch, self._report)
        self.membership = Membership(means, self._look_at)
        self.balancer = Balancer(means, self.membership)
        self.assigner = Assigner(means, self.membership, self.balancer, self.publisher)
        self.pchannels = Pchannels(means, self.assigner.adopt)
        owners = Owners(means, self.assigner.record)
        self.channels = ChannelDesk(means, owners, self.assigner.records)
        self.broadcasts = BroadcastDesk(means, owners)
        operations = Operations(means, self.membership, self.assigner, self.balancer)
        self.handlers: Mapping[type[Request[Any]], Handler] = {
            requests.Locate: self.channels.locate,
            requests.ListChannels: self.channels.list,
            requests.CreateChannel: self.channels.create,
            requests.DeleteChannel: self.channels.delete,
            requests.DescribeCluster: operations.describe,
            requests.Move: operations.move,
            requests.Freeze: operations.freeze,
            requests.Drain: operations.drain,
            requests.SetPolicy: operations.set_policy,
            requests.AddPchannels: self._add_pchannels,
            requests.Broadcast: self.broadcasts.broadcast,
            requests.GetBroadcast: self.broadcasts.get,
            requests.ListBroadcasts: self.broadcasts.list,
            requests.ResumeBroadcast: self.broadcasts.resume,
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Take up all work."""
        work = {
            "settings": self._read_settings(),
            "pchannels": self.pchannels.run(),
            "nodes": self.membership.run(),
            "map": self.publisher.run(),
            "assignment": self.assigner.run(),
            "channels": self.channels.run(),
            "broadcasts": self.broadcasts.run(),
            "gauges": self._show_gauges(),
        }
        self._tasks = [
            self._runtime.spawn(self._watched(name, task), f"coordinator {self.epoch}: {name}")
            for name, task in work.items()
        ]

    async def stop(self) -> None:
        """Lay all work down; streams of clients end."""
        self.publisher.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watched(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            _log.exception("coordinator %d: %s failed", self.epoch, name)
            raise

    async def _show_gauges(self) -> None:
        try:
            while True:
                self._gauges()
                await self._runtime.sleep_ms(GAUGES_MS)
        finally:
            self._gauges(is_over=True)

    def _gauges(self, *, is_over: bool = False) -> None:
        """How things are; what nobody leads any more is 0."""
        gauge = self._means.observer.gauge
        gauge(Gauge.STREAM_LEADER, not is_over and self.may_decide())
        gauge(Gauge.STREAM_FOLLOWERS, self.publisher.streams)
        counts = (
            (Gauge.STREAM_ASSIGNMENTS, "state", Assignment, self.assigner.states()),
            (Gauge.STREAM_NODES, "standing", Standing, self.membership.standings()),
            (Gauge.STREAM_BROADCASTS, "state", BROADCAST_STATES, self.broadcasts.states()),
        )
        for name, label, values, count in counts:
            for value in values:
                gauge(name, 0 if is_over else count[value], **{label: value})

    async def _read_settings(self) -> None:
        """What people have decided before; until it is read the defaults hold."""
        attempt = 0
        while True:
            try:
                policy = (await self._means.records.load(POLICY)).record
                features = (await self._means.records.load(FEATURES)).record
            except WoodpeckerError as error:
                attempt += 1
                _log.debug("policy cannot be read: %s", error)
                chance = self._runtime.random()
                await self._runtime.sleep_ms(delay_ms(attempt, chance))
                continue
            self.balancer.policy = policy or Policy()
            self.balancer.level = (features or Features()).level
            return

    def _report(self, report: Report) -> None:
        self.assigner.report(report)

    def _look_at(self, pchannel: str | None) -> None:
        self.assigner.look_at(pchannel)

    async def _add_pchannels(self, request: requests.AddPchannels) -> requests.Done:
        await self.pchannels.add(request.count)
        return requests.Done()
