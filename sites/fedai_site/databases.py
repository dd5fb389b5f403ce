"""What the site's SQLite files have in common."""

from __future__ import annotations

import sqlite3


def compact(database: sqlite3.Connection) -> None:
    """Write a file in WAL mode anew: what was deleted is then in no free page of it and in no log."""
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
