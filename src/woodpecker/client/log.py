"""Handle of one log: everything a user does with it."""

from __future__ import annotations

from datetime import datetime

from woodpecker.client import export as export_module
from woodpecker.client import reader, retention, salvage, takeover, verify
from woodpecker.client.cursor import Cursor, find_cursor, list_cursors, open_cursor
from woodpecker.client.describe import Description, describe
from woodpecker.client.environment import Environment
from woodpecker.client.objects import LogObjects
from woodpecker.client.writer import LogWriter
from woodpecker.core.commands import AlterLog, Command
from woodpecker.core.manifest import Claim, Manifest
from woodpecker.core.options import make_options
from woodpecker.errors import Closed, InvalidRequest, LogEnded, NotFound

Start = int | str | datetime | Cursor
End = int | str | datetime | None


class Log:
    """A log of a store. Light: holds no connection of its own; any number may be open.

    Concurrency: any number of tasks of one event loop; not thread-safe.
    """

    def __init__(self, env: Environment, name: str, log_id: str) -> None:
        self.name = name
        self.log_id = log_id
        self._env = env

    def __repr__(self) -> str:
        return f"<Log {self.name!r} of {self._env.url}>"

    # --- writing ---

    async def open_writer(
        self, *, producer: str | None = None, claim: tuple[int, str] | None = None
    ) -> LogWriter:
        """Take the log over and return its one writer; any other writer is fenced.

        Args:
            producer: open a producer session of this id too, for exactly-once batches.
            claim: (number, holder) of a layer above: refused if a larger number, or the same of
                another holder, has claimed the log.
        Raises:
            NotFound, LogEnded: no such log; it has ended. Conflict: the claim is too small.
            Fenced: another opener was faster. Unavailable: a store is away, or the last writer's
            file can only be fenced on its own host. Corrupt: damaged; see ``verify``.
        Cancellation: the old writer may be fenced already; nothing acknowledged is lost.
        """
        self._check_writable()
        wanted = None if claim is None else Claim(number=claim[0], holder=claim[1])
        taken = await takeover.take_over(self._env, self.name, claim=wanted, log_id=self.log_id)
        writer = LogWriter(self._env, self.name, taken, producer=producer)
        try:
            await writer.open_session()
        except BaseException:
            await writer.close()
            raise
        return writer

    async def end(self) -> int:
        """End the log durably: writers are refused with LogEnded, followers finish.

        A take-over. Ending an ended log succeeds. Returns the final next seq.
        Raises: as ``open_writer``.
        """
        try:
            writer = await self.open_writer()
        except LogEnded:
            return (await self._manifest()).next_seq
        return await writer.end_log()  # closes it, whatever comes

    # --- reading ---

    def read(
        self, start: Start = "earliest", end: End = None, *, follow: bool = False
    ) -> reader.EntryReader:
        """Entries from ``start`` up to ``end``, one by one; see ``read_batches``, which is faster."""
        return reader.read(self._env, self.name, self.log_id, start=start, end=end, follow=follow)

    def read_batches(
        self, start: Start = "earliest", end: End = None, *, follow: bool = False
    ) -> reader.BatchReader:
        """Batches of entries, as they were written together, cut at ``start`` and ``end``.

        Args:
            start: seq | "earliest" | "latest" | -n (n before the tail) | datetime with time zone
                (first entry not older) | Cursor.
            end: exclusive: seq | datetime | "tail" (as it is when reading begins; the default
                without ``follow``).
            follow: go on as entries are written, until the log ends.
        Raises (while iterating):
            OutOfRange(earliest=): trimmed. OutOfRange(tail=): begins beyond the tail without follow.
            InvalidRequest: not a position. NotFound: the log was deleted. Corrupt, Unavailable.
        Cancellation: safe at any time; go on with the seq after the last one seen.
        """
        return reader.read_batches(
            self._env, self.name, self.log_id, start=start, end=end, follow=follow
        )

    async def earliest(self) -> int:
        """The first seq that can be read; all below it was trimmed."""
        return (await self._manifest()).trim_point

    async def tail(self) -> int:
        """The next seq to be written, as far as is visible from here; all below it can be read."""
        return await reader.tail(self._env, self.name, self.log_id)

    async def cursor(
        self, name: str, *, start: int | str = "earliest", create: bool = True
    ) -> Cursor:
        """Open the durable cursor ``name``; it is created at ``start`` if it is not there.

        ``create`` False: NotFound is raised instead.
        Cancellation: the cursor may be there, and until somebody commits it, it may stand at a place that
        was trimmed meanwhile: reads from there raise OutOfRange(earliest=).
        """
        if not create:
            return await find_cursor(self._env, self.name, self.log_id, name)
        return await open_cursor(self._env, self.name, self.log_id, name, start=start)

    async def cursors(self) -> list[Cursor]:
        """All cursors of the log, by name."""
        return await list_cursors(self._env, self.name, self.log_id)

    @property
    def objects(self) -> LogObjects:
        """Objects of a layer above (checkpoints and the like) that live and are deleted with the log."""
        return LogObjects(self._env, self.name, self.log_id)

    # --- care ---

    async def trim(
        self, before: int, *, dry_run: bool = False, hold: bool = False
    ) -> retention.TrimReport:
        """Drop all entries below ``before``; their bytes go later, in the background.

        Args:
            dry_run: only tell what would go.
            hold: respect cursors: never trim above the lowest one. Otherwise cursors below get
                OutOfRange.
        """
        if not dry_run:
            self._check_writable()
        return await retention.trim(
            self._env, self.name, self.log_id, before=before, dry_run=dry_run, hold=hold
        )

    async def alter(
        self,
        *,
        storage: str | None = None,
        attributes: dict[str, str] | None = None,
        **options: object,
    ) -> None:
        """Change options; they count from the next segment on. Positions go on.

        Args:
            storage: URL where segments go from the next one on; metadata stays where it is.
            attributes: replace the log's free-form attributes.
            options: by name, see ``create_log``.
        Raises: InvalidRequest: unknown option, bad value, or a storage that cannot be used.
        """
        self._check_writable()
        if storage is not None:
            storage = await self._env.places.admit(storage)
        manifest = await self._manifest()
        new_options = make_options(manifest.options, options)
        self._env.places.check_kind(
            new_options.mode,
            manifest.storages[manifest.storage] if storage is None else storage,
        )

        def command(current: Manifest | None) -> Command:
            if current is None or current.log_id != self.log_id:
                raise NotFound(f"log {self.name!r} is gone")
            return AlterLog(
                log_id=self.log_id,
                options=make_options(current.options, options),
                attributes=current.attributes if attributes is None else attributes,
                storage=storage,
            )

        await self._env.catalog.change(self.name, command)
        self._env.hub.work(self.name)

    async def describe(self) -> Description:
        """Segments, bytes, epoch, trim point, tail, cursors with their lag, options."""
        return await describe(self._env, self.name, self.log_id)

    async def verify(
        self, start: int | None = None, end: int | None = None, *, repair: bool = False
    ) -> verify.VerifyReport:
        """Walk the chain of the log, or of a range of seqs; every byte is checked.

        Raises: Corrupt(where=): the first damage found.
        """
        return await verify.verify_log(
            self._env, self.name, self.log_id, start=start, end=end, repair=repair
        )

    async def recover(self, *, accept_loss: bool = False) -> salvage.RecoverReport:
        """Close the segment that a dead writer left open, without opening a writer. A take-over.

        Args:
            accept_loss: a person's decision: if the segment cannot be recovered (its host or file is
                gone, or it is damaged), keep what can be read and record the rest as lost.
        Raises: Corrupt, Unavailable: it cannot be recovered; Fenced; NotFound.
        """
        self._check_writable()
        return await salvage.recover_log(self._env, self.name, self.log_id, accept_loss=accept_loss)

    async def export(self, path: str) -> export_module.ExportReport:
        """Write the whole log into one portable file, verified."""
        return await export_module.export_log(self._env, self.name, self.log_id, path)

    async def _manifest(self) -> Manifest:
        return await self._env.catalog.read(self.name, log_id=self.log_id)

    def _check_writable(self) -> None:
        if self._env.read_only:
            raise InvalidRequest("this client was opened read_only=True: nothing can be changed")
        if self._env.is_closed:
            raise Closed("this client is closed; connect again")
