"""Settings of one node. Sizes in bytes, times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.core.ids import check_name
from woodpecker.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node is told at its start. The defaults are meant to be right.

    Attributes:
        node: its name, for ever. store_id, storage_url, metadata_url, zone: handed to clients (``Welcome``).
        file_bytes: of one journal file; the largest block that is taken is half a MiB smaller.
        journal_max_bytes: how much of the disk the journal may use; None: all but ``keep_free_bytes``.
        keep_free_bytes: of the file system, never used; one journal file at least, for the next start.
        soft_full, hard_full: share of that room in use above which nodes ask to be spared, and above which
            they take no blocks from writers any more.
        queue_max_bytes: blocks that wait for the disk; above, they are refused.
        cache_bytes: newest blocks kept in memory for readers.
        read_max_bytes: most bytes of one answer to a reader, but for one larger block.
        wait_max_ms: longest time a reader may ask to wait.
        reads_at_once: reads of the disk under way at any time.
    """

    node: str
    store_id: str = ""
    storage_url: str = ""
    metadata_url: str = ""
    zone: str = ""
    file_bytes: int = 256 << 20
    journal_max_bytes: int | None = None
    keep_free_bytes: int = 64 << 20
    soft_full: float = 0.7
    hard_full: float = 0.85
    queue_max_bytes: int = 64 << 20
    cache_bytes: int = 64 << 20
    read_max_bytes: int = 8 << 20
    wait_max_ms: int = 60_000
    reads_at_once: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot work. Raises: InvalidRequest."""
        check_name(self.node, "node")
        least = 4 * self.file_bytes
        if self.file_bytes < MIN_FILE_BYTES or self.file_bytes % MIN_FILE_BYTES:
            raise InvalidRequest(
                f"file_bytes={self.file_bytes}: a journal file has whole MiB, at least one"
            )
        if self.journal_max_bytes is not None and self.journal_max_bytes < least:
            raise InvalidRequest(
                f"journal_max_bytes={self.journal_max_bytes}: at least four journal files of "
                f"{self.file_bytes} bytes are needed"
            )
        if not 0 < self.soft_full < self.hard_full < 1:
            raise InvalidRequest(
                f"soft_full={self.soft_full}, hard_full={self.hard_full}: "
                "0 < soft_full < hard_full < 1 must hold"
            )

    @property
    def spared_bytes(self) -> int:
        """What a running node leaves free: a start on a full disk needs room for a file."""
        return max(self.keep_free_bytes, self.file_bytes)

    @property
    def max_block_bytes(self) -> int:
        """Largest block the node takes."""
        return self.file_bytes - MIN_FILE_BYTES // 2


MIN_FILE_BYTES = 1 << 20
