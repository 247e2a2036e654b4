"""The way in: create, open, list and delete the logs of one store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from woodpecker.client import deletion, import_file
from woodpecker.client.background import BackgroundWorker, WorkReport
from woodpecker.client.environment import Environment
from woodpecker.client.export import ExportReport
from woodpecker.client.log import Log
from woodpecker.core.commands import CreateLog
from woodpecker.core.ids import check_name
from woodpecker.core.manifest import Options
from woodpecker.core.options import make_options
from woodpecker.errors import AlreadyExists, Closed, InvalidRequest, NotFound

Opener = Callable[[], Awaitable[Environment]]


class Client:
    """A connection to one store. Use it as ``async with``, or ``open`` and ``close`` it.

    While it is open, background work (sealing, retention, garbage collection) runs in it, unless it
    was opened ``read_only`` or with ``background=False``.
    Concurrency: any number of tasks of one event loop; not thread-safe (see ``woodpecker.blocking``).
    """

    def __init__(
        self, opener: Opener, closer: Callable[[], Awaitable[None]], *, background: bool
    ) -> None:
        self._opener = opener
        self._closer = closer
        self._has_background = background
        self._environment: Environment | None = None
        self._worker: BackgroundWorker | None = None
        self._is_closed = False

    async def open(self) -> Client:
        """Reach the store and check that it is one; called by ``async with``. Idempotent.

        Raises: NotFound, InvalidRequest, Unavailable: see ``woodpecker.connect``.
        """
        if self._is_closed:
            raise Closed("this client is closed; connect again")
        if self._environment is None:
            self._environment = await self._opener()
            if self._has_background and not self._environment.read_only:
                self._worker = BackgroundWorker(self._environment)
                self._worker.start()
        return self

    async def create_log(
        self,
        name: str,
        *,
        exist_ok: bool = False,
        attributes: dict[str, str] | None = None,
        **options: object,
    ) -> Log:
        """Create a log.

        Args:
            exist_ok: open it instead if it is there; its options stay as they are.
            attributes: free-form text kept with the log.
            options: mode, segment_max_bytes, segment_max_age_s, segment_max_blocks, queue_max_bytes,
                linger_ms, compression, retention_age_s, retention_bytes, timestamps,
                append_timeout_ms, max_producers; for mode object: max_cost_per_month; for mode
                quorum: replicas, placement, affinity, placement_zones, placement_groups.
        Raises:
            AlreadyExists; InvalidRequest: bad name or option; Unavailable, OutcomeUnknown.
        """
        env = self._env
        check_name(name)
        wanted = make_options(Options(mode=env.places.default_kind), options)
        env.places.check_kind(wanted.mode, "")
        command = CreateLog(
            name=name,
            log_id=env.runtime.token(),
            now_ms=env.runtime.now_us() // 1000,
            options=wanted,
            attributes=attributes or {},
        )
        try:
            manifest = await env.catalog.change(name, command)
        except AlreadyExists:
            if not exist_ok:
                raise
            return await self.open_log(name)
        return Log(env, name, manifest.log_id)

    async def open_log(self, name: str) -> Log:
        """Open an existing log. Raises: NotFound, Unavailable."""
        check_name(name)
        manifest = await self._env.catalog.read(name)
        return Log(self._env, name, manifest.log_id)

    async def log_exists(self, name: str) -> bool:
        """Whether the log is there. Raises: Unavailable: nothing is known."""
        try:
            await self.open_log(name)
        except NotFound:
            return False
        return True

    async def list_logs(self, prefix: str = "") -> list[str]:
        """Names of the logs beginning with ``prefix``, sorted."""
        return await self._env.catalog.names(prefix)

    async def delete_log(self, name: str, *, force: bool = False) -> None:
        """Delete a log: its writer is fenced, its data goes; end marks stay for 30 days.

        Args:
            force: do not fence the last writer first, for one on a host that is gone. Whoever still
                writes there may see a few more appends acknowledged that nobody will ever read.
        Raises: NotFound, Unavailable, Fenced (somebody opened it meanwhile; try again).
        """
        check_name(name)
        await deletion.delete_log(self._env, name, force=force)

    async def run_background(self, name: str | None = None) -> WorkReport:
        """Do all background work that is due now, for one log or all; returns when done.

        Returns: what was done, and the errors of logs that could not be worked on, by name.
        Raises: NotFound: no log of that name. InvalidRequest: this client is ``read_only``.
        """
        if self._env.read_only:
            raise InvalidRequest("this client was opened read_only=True: nothing can be changed")
        if not self._env.has_rights:
            raise InvalidRequest(
                f"this client has no rights on {self._env.url}: nothing can be sealed or collected"
            )
        worker = self._worker or BackgroundWorker(self._env)
        return await worker.run_once(name)

    async def import_log(self, name: str, path: str) -> ExportReport:
        """Make a new log from a file that ``log.export`` wrote: same seqs, same bytes, verified.

        Raises: AlreadyExists; Corrupt(where=): the file is damaged; NotFound: no such file.
        Cancellation: the log does not appear; what was written is removed within a day.
        """
        return await import_file.import_log(self._env, name, path)

    async def close(self) -> None:
        """Stop background work and release connections. Idempotent. Close writers before."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._worker is not None:
            await self._worker.stop()
        if self._environment is not None:
            self._environment.is_closed = True
            await self._closer()

    @property
    def environment(self) -> Environment:
        """What the drivers share; for the command line, tools and tests."""
        return self._env

    @property
    def _env(self) -> Environment:
        if self._environment is None or self._is_closed:
            raise Closed("this client is not open: use 'async with woodpecker.connect(...)'")
        return self._environment

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
