"""Metrics, health and status of a member of the service, for the HTTP server that nodes have too.

Series with the name of a pchannel are bounded by their number, which people choose; nothing is shown per channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from woodpecker import __version__
from woodpecker.logstore.http import Look, Page
from woodpecker.observability.prometheus import PrometheusObserver
from woodpecker.streaming.frames import PchannelStatus
from woodpecker.streaming.member import Member

PREFIX = "woodpecker_stream_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name, meaning; of the whole member
MEMBER = {
    "ready": "1 while it takes part",
    "leader": "1 while this coordinator leads",
    "epoch": "of this coordinator, while it leads",
}
# field of PchannelStatus, meaning
PCHANNEL = {
    "term": "under which this node has it",
    "bytes_s": "bytes a second taken from producers",
    "lag_ms": "age of the oldest batch that is not durable yet",
    "memory_bytes": "held in memory for it",
    "vchannels": "channels on it",
    "done_bytes": "of an opening: read so far",
    "total_bytes": "of an opening: to be read",
}
ASSIGNMENTS = "pchannels that this node has been given, by what it does with them"


class StreamingPages:
    """What ``HttpServer`` serves; from the start of the process, with ``member`` once it takes part.

    Attributes:
        observer: counts what the log layer below does.
        member: None: it is starting.
        is_leaving: it takes part no longer.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.observer = PrometheusObserver(self._registry)
        self.member: Member | None = None
        self.is_leaving = False

    def pages(self) -> dict[str, Look]:
        """By path."""
        return {
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/status": self._status_page,
            "/metrics": self._metrics_page,
        }

    def status(self) -> dict[str, Any]:
        """What ``/status`` shows."""
        member = self.member
        coordinator = None if member is None else member.coordinator
        node = None if member is None else member.node
        office = None if coordinator is None else coordinator.office
        found: dict[str, Any] = {"ready": not self._waits_for, "version": __version__}
        if coordinator is not None:
            found["leader"] = coordinator.is_leader
            found["epoch"] = None if office is None else office.epoch
        if node is not None:
            found |= {"node": node.node, "incarnation": node.incarnation, "address": node.address}
            found["pchannels"] = [asdict(status) for status in self._pchannels()]
        return found

    def _pchannels(self) -> list[PchannelStatus]:
        node = None if self.member is None else self.member.node
        return [] if node is None else [owner.status for owner in node.owners.values()]

    @property
    def _waits_for(self) -> str:
        """What it is not ready for; "": it is. Who restarts nodes one by one waits for this before the next."""
        if self.is_leaving:
            return "leaving"
        if self.member is None:
            return "starting"
        node = self.member.node
        return (
            "no coordinator knows this node yet" if node is not None and not node.is_known else ""
        )

    def _health(self) -> Callable[[], Page]:
        return lambda: Page(body=b"ok\n")

    def _readiness(self) -> Callable[[], Page]:
        why_not = self._waits_for
        if not why_not:
            return lambda: Page(body=b"ready\n")
        return lambda: Page(status=503, body=f"{why_not}\n".encode())

    def _status_page(self) -> Callable[[], Page]:
        status = self.status()

        def make() -> Page:
            text = msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n"
            return Page(body=text, content_type="application/json")

        return make

    def _metrics_page(self) -> Callable[[], Page]:
        own = CollectorRegistry()
        own.register(_Collector(self.status(), self._pchannels()))
        return lambda: Page(
            body=generate_latest(self._registry) + generate_latest(own), content_type=CONTENT_TYPE
        )


class _Collector(Collector):
    """Knows one status, and is asked once."""

    def __init__(self, status: dict[str, Any], pchannels: list[PchannelStatus]) -> None:
        self._status = status
        self._pchannels = pchannels

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All metrics that have a value."""
        for name, meaning in MEMBER.items():
            value = self._status.get(name)
            if value is not None:
                yield GaugeMetricFamily(PREFIX + name, meaning, value=float(value))
        if "node" not in self._status:
            return
        states = GaugeMetricFamily(PREFIX + "assignments", ASSIGNMENTS, labels=("state",))
        for state, count in sorted(Counter(status.state for status in self._pchannels).items()):
            states.add_metric([state], count)
        yield states
        for name, meaning in PCHANNEL.items():
            family = GaugeMetricFamily(PREFIX + name, meaning, labels=("pchannel",))
            for status in self._pchannels:
                family.add_metric([status.pchannel], float(getattr(status, name)))
            yield family
