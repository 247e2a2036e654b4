"""Running the command line in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from woodpecker.cli.main import app


class Cli:
    """The command line on one store."""

    def __init__(self, store: str) -> None:
        self.store = store
        self._runner = CliRunner()

    def __call__(self, *args: str) -> Result:
        return self._runner.invoke(app, ["--store", self.store, *args])

    def ok(self, *args: str) -> bytes:
        """Its output; it must succeed and say nothing on stderr."""
        done = self(*args)
        assert (done.exit_code, done.stderr) == (0, ""), (args, done.stderr, done.exception)
        return done.stdout_bytes

    def json(self, *args: str) -> Any:
        return json.loads(self.ok("--output", "json", *args))

    def fails(self, code: int, *args: str) -> str:
        """The one line of the error."""
        done = self(*args)
        assert done.exit_code == code, (args, done.exit_code, done.stderr, done.exception)
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("woodpecker: ")
        return done.stderr

    def append(self, name: str, data: bytes, tmp_path: Path, *args: str) -> Any:
        file = tmp_path / "input"
        file.write_bytes(data)
        return self.json("append", name, str(file), *args)
