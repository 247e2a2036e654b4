"""A coordinator process: stand-by until it is elected, leader until somebody else is.

Any number of them may run. Those that do not lead refuse with NOT_LEADER and the leader's address.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar, cast

from woodpecker.core.membership import Sighting, looked
from woodpecker.errors import (
    Conflict,
    Corrupt,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.metadata.base import MetadataStore
from woodpecker.observability.base import SILENT, Observer
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming import requests
from woodpecker.streaming.codec.records import COORDINATOR, FEATURES
from woodpecker.streaming.coordinator.leading import Office
from woodpecker.streaming.coordinator.means import MakeLog, Means
from woodpecker.streaming.core import election
from woodpecker.streaming.core.records import CoordinatorRecord, Features
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.frames import DiscoverDown, DiscoverUp
from woodpecker.streaming.metadata.hold import Hold
from woodpecker.streaming.metadata.store import Seen, StreamRecords
from woodpecker.streaming.ports import Dialer, Stream
from woodpecker.streaming.requests import Request
from woodpecker.streaming.settings import StreamSettings

LOOK_MS = 1_000
KNOWN_FEATURES = 1  # the highest level that this version can lead
READS = (requests.Locate, requests.ListChannels, requests.DescribeCluster)

Reply = TypeVar("Reply")

_log = logging.getLogger("woodpecker.streaming")


class Coordinator:
    """Implements ``AssignmentServer``; see the module. One event loop.

    Args:
        store: of the metadata. dialer: reaches the nodes.
        make_log: makes the log of that name for a pchannel, or finds it made; its id.
        address: where this process serves, for others to be sent to.
    """

    def __init__(
        self,
        store: MetadataStore,
        runtime: Runtime,
        dialer: Dialer,
        make_log: MakeLog,
        *,
        address: str,
        settings: StreamSettings,
        observer: Observer = SILENT,
    ) -> None:
        self._records = StreamRecords(store, runtime)
        self._runtime = runtime
        self._dialer = dialer
        self._make_log = make_log
        self._address = address
        self._settings = settings
        self._observer = observer
        self._token = runtime.token()
        self._seen: Seen[CoordinatorRecord] = Seen(record=None, version=None)
        self._sighting: Sighting | None = None
        self._is_too_old = False
        self._office: Office | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def office(self) -> Office | None:
        """What it does as leader; None: it is a stand-by."""
        return self._office

    @property
    def is_leader(self) -> bool:
        """Whether it leads, and may decide now."""
        return self._office is not None and self._office.may_decide()

    def start(self) -> None:
        """Stand, and lead when elected, until ``stop``."""
        self._task = self._runtime.spawn(self._run(), f"coordinator at {self._address}")

    async def stop(self) -> None:
        """End in good order: a leader abdicates, and a stand-by follows at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # --- what it answers ---

    async def discover(self, stream: Stream[DiscoverDown, DiscoverUp]) -> None:
        """Serve one Discover stream while it leads. Raises: Refused(NOT_LEADER), Refused(UNKNOWN)."""
        office = self._leading()
        await office.publisher.serve(stream)
        self._leading()

    async def assign(self, request: Request[Reply]) -> Reply:
        """Answer a unary request. Raises: Refused."""
        office = self._leading()
        if not office.may_decide() and not isinstance(request, READS):
            raise _refused(
                Class.UNAVAILABLE,
                "the metadata store does not answer the coordinator: nothing was changed, ask again",
            )
        handler = office.handlers.get(type(request))
        if handler is None:
            raise _refused(Class.INVALID, f"{type(request).__name__} is not served here")
        try:
            return cast("Reply", await handler(request))
        except WoodpeckerError as error:
            raise _refused(_class_of(error), str(error)) from error

    def _leading(self) -> Office:
        if self._office is None:
            record = self._seen.record
            is_other = record is not None and record.holder not in (election.NOBODY, self._token)
            address = record.address if record is not None and is_other else ""
            if address == self._address:  # of the process that was here before: nobody is there now
                address = ""
            where = f"the leader is at {address}" if address else "there is none yet"
            raise Refused(
                Refusal(
                    kind=Class.NOT_LEADER,
                    message=f"the coordinator at {self._address} does not lead: {where}",
                    address=address,
                )
            )
        return self._office

    # --- election ---

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                if self._may_stand() and await self._knows_features():
                    await self._lead()
            except _Overtaken:
                continue
            except WoodpeckerError as error:
                _log.debug("the coordinator's record cannot be read or taken: %s", error)
                self._sighting = None
                await self._runtime.sleep_ms(LOOK_MS)
                continue
            await self._records.store.wait_change(COORDINATOR.path, self._seen.version, LOOK_MS)

    async def _look(self) -> None:
        seen = await self._records.load(COORDINATOR)
        self._seen = seen
        if seen.version is None:
            self._sighting = None
        else:
            self._sighting = looked(self._sighting, seen.version, self._runtime.monotonic_ms())

    def _may_stand(self) -> bool:
        ttl_ms = self._settings.session_ttl_ms
        return election.is_free(self._seen.record, self._sighting, ttl_ms)

    async def _knows_features(self) -> bool:
        """Whether this version can lead a service at its level of features."""
        level = ((await self._records.load(FEATURES)).record or Features()).level
        if level > KNOWN_FEATURES and not self._is_too_old:
            _log.error(
                "the service is at feature level %d, the coordinator at %s knows %d: upgrade it",
                level,
                self._address,
                KNOWN_FEATURES,
            )
        self._is_too_old = level > KNOWN_FEATURES
        return not self._is_too_old

    async def _lead(self) -> None:
        """Take the record as it was seen, and lead until it is somebody else's. Raises: _Overtaken."""
        seen, deposed = self._seen, asyncio.Event()
        epoch = 1 if seen.record is None else seen.record.epoch + 1

        def decide(before: CoordinatorRecord | None) -> CoordinatorRecord:
            if before is not None and self._is_mine(before, epoch):
                return before
            if before != seen.record:
                raise _Overtaken
            return election.elected(before, self._token, self._address)

        def end(reason: str) -> None:
            if not deposed.is_set():
                _log.warning("coordinator %d at %s steps down: %s", epoch, self._address, reason)
            deposed.set()

        hold = Hold(
            self._records,
            self._runtime,
            COORDINATOR,
            what=f"coordinator {epoch} at {self._address}",
            is_mine=lambda record: self._is_mine(record, epoch),
            beaten=election.beaten,
            on_change=lambda _: None,
            on_lost=end,
            beat_ms=self._settings.beat_ms,
        )
        self._seen = Seen(record=await hold.take(decide), version=None)
        means = Means(
            records=self._records,
            runtime=self._runtime,
            dialer=self._dialer,
            make_log=self._make_log,
            settings=self._settings,
            observer=self._observer,
            address=self._address,
            epoch=epoch,
            may_decide=lambda: (
                not deposed.is_set()
                and election.may_decide(hold.proof_age_ms, self._settings.session_ttl_ms)
            ),
            on_deposed=end,
        )
        office = Office(means)
        _log.info("coordinator %d at %s leads", epoch, self._address)
        self._office = office
        office.start()
        try:
            await deposed.wait()
        finally:
            self._office, self._sighting = None, None
            try:
                await office.stop()
            finally:  # the end of the process may come while an office is laid down
                await hold.stop(None if deposed.is_set() else election.abdicated)

    def _is_mine(self, record: CoordinatorRecord, epoch: int) -> bool:
        return record.holder == self._token and record.epoch == epoch


class _Overtaken(Exception):
    """Somebody else has written the record since it was seen."""


def _class_of(error: WoodpeckerError) -> Class:
    match error:
        case Unavailable():
            return Class.UNAVAILABLE
        case InvalidRequest():
            return Class.INVALID
        case Corrupt():
            return Class.CORRUPT
        case OutcomeUnknown() | Conflict():
            return Class.UNKNOWN
    return Class.UNKNOWN


def _refused(kind: Class, message: str) -> Refused:
    return Refused(Refusal(kind=kind, message=message))
