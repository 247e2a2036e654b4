"""The hold of one process on the record of its LogStore node: registered once, then a beat every second or two.

Order of a start: ``look`` -> the node decides whether its disk is the newest one, and writes its boot number
durably -> ``register`` -> ``start``. All writes are compare-and-swaps, decided by what the record then shows:
the token in it is that of this process, or the record belongs to somebody else.

An outage of the metadata store ends nothing: the node goes on, and the beat with it. Only a record that
is another process's ends the session, and with it, through ``on_lost``, the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from woodpecker.core.backoff import delay_ms
from woodpecker.core.membership import Load, NodeRecord, NodeState, beaten
from woodpecker.errors import Conflict, OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.metadata.base import MetadataStore
from woodpecker.metadata.beats import beat_until_lost
from woodpecker.metadata.node_records import NodeRecords, StoredNode
from woodpecker.runtime.runtime import Runtime

BEAT_MS = 1_500.0
RETRY_FIRST_MS, RETRY_LIMIT_MS = 200.0, 2_000.0
REGISTER_TIMEOUT_MS = 30_000
WATCH_MS = 3 * BEAT_MS  # a living namesake shows itself within this
GOODBYE_S = 3.0

_log = logging.getLogger("woodpecker.logstore")


class NodeSession:
    """See the module. One event loop.

    Args:
        report: what the node holds, asked for with every beat; must be cheap.
        on_state: an administrator (or, for DRAINED, the node itself) has changed what is to be done.
        on_lost: the record is another process's: stop at once. Called once, with the reason.
        beat_ms: between beats, on average.
    """

    def __init__(
        self,
        store: MetadataStore,
        runtime: Runtime,
        node: str,
        *,
        report: Callable[[], Load],
        on_state: Callable[[NodeState], None],
        on_lost: Callable[[str], None],
        beat_ms: float = BEAT_MS,
    ) -> None:
        self._records = NodeRecords(store, runtime)
        self._url = store.url
        self._runtime = runtime
        self._node = node
        self._report = report
        self._on_state = on_state
        self._on_lost = on_lost
        self._beat_ms = beat_ms
        self._token = runtime.token()
        self._record: NodeRecord | None = None
        self._version = ""
        self._is_unsure = False  # what was written last may have taken effect, or the version moved
        self._beaten_ms = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def record(self) -> NodeRecord:
        """The record as last written or read."""
        assert self._record is not None, "not registered"
        return self._record

    @property
    def beat_age_ms(self) -> float:
        """Time since the last beat that was surely written; grows while the metadata store is away."""
        return self._runtime.monotonic_ms() - self._beaten_ms

    async def look(self, boot: int) -> int:
        """The boot number in the node's record, 0 if it never registered.

        Where it is above ``boot``, the last one on this node's disk (0 for an empty disk), this is not the
        disk that the node was last seen with.
        Raises: Conflict: another process lives as this node. Unavailable, Corrupt, InvalidRequest.
        """
        seen = await self._records.load(self._node)
        if seen is None:
            return 0
        if seen.record.boot != boot and seen.record.is_up:
            await self._watch_for_namesake(seen)
        return seen.record.boot

    async def register(
        self,
        *,
        boot: int,
        incarnation: str,
        past: Sequence[str] = (),
        address: str,
        http: str = "",
        zone: str = "",
        group: str = "",
        version: str = "",
    ) -> NodeState:
        """Make the record this process's, under a boot number above all before; what is to be done.

        Raises: Conflict: another process of this node was started meanwhile. Unavailable,
        OutcomeUnknown: not within 30 s.
        """
        mine = NodeRecord(
            node=self._node,
            boot=boot,
            token=self._token,
            incarnation=incarnation,
            past=tuple(past),
            address=address,
            http=http,
            zone=zone,
            group=group,
            version=version,
            started_at_ms=self._runtime.now_us() // 1000,
        )
        until_ms = self._runtime.monotonic_ms() + REGISTER_TIMEOUT_MS
        attempt = 0
        while True:
            try:
                if await self._try_register(mine):
                    break
            except (Unavailable, OutcomeUnknown):
                if self._runtime.monotonic_ms() >= until_ms:
                    raise
            attempt += 1
            await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))
        self._on_state(self.record.state)
        return self.record.state

    def start(self) -> None:
        """Begin to beat."""
        self._task = self._runtime.spawn(self._run(), f"session of node {self._node}")

    async def stop(self) -> None:
        """Say goodbye, if the metadata store answers soon: placement then skips the node at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._record is None:
            return
        with contextlib.suppress(WoodpeckerError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._say_goodbye()

    # --- registering ---

    async def _watch_for_namesake(self, seen: StoredNode) -> None:
        until_ms = self._runtime.monotonic_ms() + WATCH_MS
        while self._runtime.monotonic_ms() < until_ms:
            await self._runtime.sleep_ms(self._beat_ms / 4)
            now = await self._records.load(self._node)
            if now is None or not now.record.is_up:
                return
            if now.version != seen.version:
                raise Conflict(
                    f"node name {self._node!r} is in use: its record in {self._url} shows a process "
                    f"that lives at {now.record.address}; give each node a name of its own"
                )

    async def _try_register(self, mine: NodeRecord) -> bool:
        """Read, then write over what was read; False: somebody else wrote meanwhile."""
        seen = await self._records.load(self._node)
        if seen is not None and seen.record.token == self._token:
            self._adopt(seen)  # an earlier try came through
            return True
        if seen is not None and seen.record.boot >= mine.boot:
            raise Conflict(
                f"node {self._node!r} was started a second time meanwhile (boot {seen.record.boot}, at "
                f"{seen.record.address}): this process, boot {mine.boot}, does not go on"
            )
        if seen is not None:
            mine = replace(mine, state=seen.record.state, beat=seen.record.beat)
        full = beaten(mine, self._report(), now_ms=self._runtime.now_us() // 1000)
        try:
            version = await self._records.put(full, expect=None if seen is None else seen.version)
        except Conflict:
            return False
        self._adopt(StoredNode(record=full, version=version))
        return True

    def _adopt(self, seen: StoredNode) -> None:
        self._record, self._version = seen.record, seen.version
        self._is_unsure = False
        self._beaten_ms = self._runtime.monotonic_ms()

    # --- beating ---

    async def _run(self) -> None:
        lost = await beat_until_lost(
            self._runtime,
            self._beat,
            what=f"node {self._node}",
            beat_ms=self._beat_ms,
            retry_first_ms=RETRY_FIRST_MS,
            retry_limit_ms=RETRY_LIMIT_MS,
            log=_log,
        )
        self._on_lost(lost)

    async def _beat(self) -> str | None:
        """Write the next beat; returns why the record is lost, or None. Raises: try again."""
        while True:
            lost = await self._look_again() if self._is_unsure else None
            if lost is not None:
                return lost
            full = beaten(self.record, self._report(), now_ms=self._runtime.now_us() // 1000)
            self._is_unsure = True
            try:
                version = await self._records.put(full, expect=self._version)
            except Conflict:
                continue  # an administrator wrote, or another process of this node
            self._take_over_state(full)
            self._adopt(StoredNode(record=full, version=version))
            return None

    async def _look_again(self) -> str | None:
        """Read the record and go on from it, if it still is ours."""
        seen = await self._records.load(self._node)
        if seen is None:
            return (
                f"its record vanished from {self._url}: the metadata store was emptied or replaced"
            )
        if seen.record.token != self._token:
            return (
                f"another process runs as this node: boot {seen.record.boot} at "
                f"{seen.record.address}, this one is boot {self.record.boot}"
            )
        self._take_over_state(seen.record)
        self._record, self._version, self._is_unsure = seen.record, seen.version, False
        return None

    def _take_over_state(self, now: NodeRecord) -> None:
        if now.state is not self.record.state:
            _log.info("node %s is %s", self._node, now.state)
            self._record = replace(self.record, state=now.state)
            self._on_state(now.state)

    async def _say_goodbye(self) -> None:
        while True:
            gone = replace(self.record, is_up=False, beat=self.record.beat + 1)
            try:
                await self._records.put(gone, expect=self._version)
            except Conflict:
                if await self._look_again() is not None or not self.record.is_up:
                    return
            else:
                return
