"""Two processes that set up the same database at once: neither takes it for a stranger's."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from woodpecker.metadata.sqlite_file import APPLICATION_ID, check_application


class Racing:
    """A connection between whose statements somebody else sets the database up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(path)
        self._statements = 0

    def execute(self, sql: str) -> sqlite3.Cursor:
        self._statements += 1
        if self._statements == 2:
            with sqlite3.connect(self._path) as other:
                other.execute("BEGIN")
                other.execute("CREATE TABLE record (x)")
                other.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                other.execute("COMMIT")
            other.close()
        return self._db.execute(sql)

    def close(self) -> None:
        self._db.close()


def test_a_database_set_up_meanwhile_is_ours(tmp_path: Path) -> None:
    db: Any = Racing(tmp_path / "metadata.sqlite")
    assert check_application(db, tmp_path)
    db.close()
