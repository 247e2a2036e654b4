"""A progress bar, on a terminal only."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TextIO


class Progress:
    """Bytes done of ``total_bytes`` (None: unknown). Silent where ``stream`` is no terminal."""

    def __init__(self, total_bytes: int | None, stream: TextIO) -> None:
        self._bar: Any = None
        if stream.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )
            from rich.progress import (
                Progress as Bar,
            )

            self._bar = Bar(
                BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                console=Console(file=stream), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total_bytes)

    def advance(self, count_bytes: int) -> None:
        """So many bytes more."""
        if self._bar is not None:
            self._bar.advance(self._task, count_bytes)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
