"""The sqlite file of one datacenter: opened for this process alone, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (bucket TEXT, key TEXT, value TEXT, created INTEGER, modified INTEGER,
  PRIMARY KEY (bucket, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, modified INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS private (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


class StoreUnavailable(Exception):
    """The data directory cannot be used: not writable, damaged, another's, or held by another process."""


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open or create the database; None keeps it in memory. Raises StoreUnavailable.

    One thread uses it; but the thread that collects a forgotten store closes it.
    """
    if path is None:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.executescript(_SCHEMA)
        return connection
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # sqlite gives its log the mode of the database, which must therefore exist with the right one.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        with contextlib.ExitStack() as failed:
            failed.callback(connection.close)
            _prepare(connection)
            failed.pop_all()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StoreUnavailable(f"{path} is in use by another datacenter process") from error
        raise StoreUnavailable(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error}") from error
    return connection


def damaged(path: Path | None, error: Exception) -> StoreUnavailable:
    """Return what is said of a database that cannot be read, with the remedy, in one line."""
    remedy = "put back a copy of it, or move it away: this datacenter then starts anew, with a new authority"
    why = " ".join(str(error).split())
    return StoreUnavailable(f"{path} is damaged ({why}): {remedy}")


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL survives the death of the process at any moment; only a power cut can lose commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(_SCHEMA)
