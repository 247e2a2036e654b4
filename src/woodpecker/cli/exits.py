"""Exit codes, one per class of error (docs/cli.md), and the one place that turns errors into them."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

import typer

from woodpecker.errors import WoodpeckerError

OK, INTERNAL, USAGE, UNUSABLE = 0, 1, 2, 16
INTERRUPTED, TERMINATED = 130, 143
CODES = {
    "invalid_request": 3,
    "not_found": 4,
    "already_exists": 5,
    "conflict": 6,
    "fenced": 7,
    "log_ended": 8,
    "not_written": 9,
    "overloaded": 10,
    "outcome_unknown": 11,
    "out_of_range": 12,
    "unavailable": 13,
    "corrupt": 14,
    "closed": 15,
    "aborted": 17,
    "producer_expired": 18,
}
# Errors name what a Python program would write; a shell has other words for it.
WORDS = {
    "create_channel()": "`woodpecker channel create`",
    "exist_ok=True": "--exist-ok",
    "follow=True": "--follow",
    "read_only=True": "WOODPECKER_READ_ONLY=true",
}


class Terminated(BaseException):
    """SIGTERM ended the command, after it had closed what it had open."""


class Debug:
    """Whether ``--debug`` was given; set once, before anything can fail."""

    on = False


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Errors become one line on stderr and an exit code; a closed pipe is no error."""
    try:
        yield
        sys.stdout.flush()  # a closed pipe may show only now
    except WoodpeckerError as error:
        _say(f"{error.code}: {_one_line(error)}")
        raise typer.Exit(CODES.get(error.code, INTERNAL)) from None
    except BrokenPipeError:
        _drop_stdout()
        raise typer.Exit(OK) from None
    except (KeyboardInterrupt, Terminated) as error:
        if Debug.on:
            traceback.print_exc()
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        raise typer.Exit(code) from None
    except OSError as error:
        _say(f"error: {_one_line(error)}")
        raise typer.Exit(INTERNAL) from None


def _one_line(error: BaseException) -> str:
    line = " ".join(str(error).split())
    for python, shell in WORDS.items():
        line = line.replace(python, shell)
    return line


def _say(line: str) -> None:
    if Debug.on:
        traceback.print_exc()
    print(f"woodpecker: {line}", file=sys.stderr)


def _drop_stdout() -> None:
    """What is still buffered has no reader: the flush at exit must not complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
