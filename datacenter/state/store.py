"""Everything a datacenter must remember: indexed tables in memory, written through to sqlite.

Theory of operation. Readers and watchers only ever look at memory; a write changes memory and sqlite in
one transaction, so a process killed at any moment comes back with exactly the transactions it had
committed. Each transaction has one index, one higher than the last, as a raft entry has in Consul. An
index is kept per *topic*: every table is a topic, and a writer may touch finer ones (`health/db`) so that
watchers of one service sleep through the changes of another. Topics outlive the rows they are about, so an
index never goes backwards. The private documents are apart: no topic, no watcher, and no API reads them.

All of it happens on one trio thread and nothing here awaits but `changed`: neither may a transaction.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import trio

# A JSON object as it came in or will go out; its shape is the contract's, not ours.
Document = dict[str, Any]

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (bucket TEXT, key TEXT, value TEXT, created INTEGER, modified INTEGER,
  PRIMARY KEY (bucket, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, modified INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS private (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


class StoreUnavailable(Exception):
    """The data directory cannot be used: not writable, not ours, or held by another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One document. `value` is shared with the store: read it, never change it."""

    key: str
    value: Document = field(repr=False)
    create_index: int
    modify_index: int


class Table:
    """One bucket of documents, sorted by key. Writes outside a transaction are one of their own."""

    __slots__ = ("_groupings", "_name", "_rows", "_store")

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._rows: dict[str, Row] = {}
        self._groupings: list[Grouping] = []

    @property
    def name(self) -> str:
        """Also the topic that each write to this table touches."""
        return self._name

    @property
    def index(self) -> int:
        """Index of the last change, deletions included; at least 1."""
        return self._store.index_of((self._name,))

    def get(self, key: str) -> Row | None:
        """The row under this key."""
        return self._rows.get(key)

    def rows(self) -> list[Row]:
        """Every row, sorted by key."""
        return _by_key(self._rows.values())

    def grouped(self, by: Callable[[Document], Iterable[str]]) -> Grouping:
        """An index over the rows: `by` names the groups of a document. Ask for it once, at the start."""
        grouping = Grouping(by)
        for row in self._rows.values():
            grouping.move(None, row)
        self._groupings.append(grouping)
        return grouping

    def put(self, key: str, value: Document, *, quiet: bool = False) -> int:
        """Create or replace; returns the index of the change. The value is copied.

        `quiet` replaces a value without a new index and without waking anybody.
        """
        return self._store.write(self, key, value, quiet=quiet)

    def delete(self, key: str) -> bool:
        """Remove; False, and no new index, when there is nothing under this key."""
        if key not in self._rows:
            return False
        self._store.write(self, key, None)
        return True

    def set(self, key: str, row: Row | None) -> None:
        """The store's own: what is in memory under this key, and in the groupings. Others `put`."""
        before = self._rows.pop(key, None)
        if row is not None:
            self._rows[key] = row
        for grouping in self._groupings:
            grouping.move(before, row)


class Grouping:
    """The rows of a table by something in them, kept up to date with every write."""

    __slots__ = ("_by", "_groups")

    def __init__(self, by: Callable[[Document], Iterable[str]]) -> None:
        self._by = by
        self._groups: dict[str, dict[str, Row]] = {}

    def rows(self, group: str) -> list[Row]:
        """The rows of this group, sorted by key."""
        return _by_key(self._groups.get(group, {}).values())

    def move(self, before: Row | None, after: Row | None) -> None:
        """The store's own: a row has become another, begun or ended."""
        if before is not None:
            for group in self._by(before.value):
                rows = self._groups[group]
                rows.pop(before.key, None)
                if not rows:
                    del self._groups[group]
        if after is not None:
            for group in self._by(after.value):
                self._groups.setdefault(group, {})[after.key] = after


def _by_key(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=attrgetter("key"))


class Store:
    """The tables of one datacenter. `path` None keeps everything in memory (tests)."""

    def __init__(self, path: Path | None = None) -> None:
        self._tables: dict[str, Table] = {}
        self._topics: dict[str, int] = {}
        self._index = 1
        self._changed = trio.Event()
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self._private: dict[str, Document] = {}
        self._forget = False  # a private document was replaced
        self._connection = _open(path)
        weakref.finalize(self, self._connection.close)  # from Python 3.13 on sqlite3 warns of one left open
        self._load()

    def close(self) -> None:
        """Release the database; the store must not be used afterwards."""
        self._connection.close()

    @property
    def index(self) -> int:
        """Index of the newest transaction."""
        return self._index

    def table(self, name: str) -> Table:
        """The table of this name, made on first use."""
        return self._tables.setdefault(name, Table(self, name))

    def index_of(self, topics: Collection[str]) -> int:
        """Index of the newest change in any of the topics; at least 1."""
        return max((self._topics.get(topic, 1) for topic in topics), default=1)

    def known(self, topic: str) -> bool:
        """Whether the topic was ever touched."""
        return topic in self._topics

    @contextlib.contextmanager
    def transaction(self) -> Iterator[int]:
        """Several writes with one index and one commit; an exception undoes all of them. Nests.

        Yields the index of the writes. Never await inside: another task would see half of it.
        """
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
            self._index += 1
        self._depth += 1
        try:
            yield self._index
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._roll_back()
            raise
        self._depth -= 1
        if self._depth == 0:
            self._commit()

    def touch(self, *topics: str) -> None:
        """Mark finer topics as changed by the current transaction."""
        with self.transaction() as index:
            for topic in topics:
                self._undo.append(_restore(self._topics, topic))
                self._topics[topic] = index
                self._connection.execute("INSERT OR REPLACE INTO topics VALUES (?, ?)", (topic, index))

    async def changed(self, topics: Collection[str], since: int, timeout: float) -> None:  # noqa: ASYNC109  a blocking read is a wait with an end, not a failure
        """Wait until one of the topics has an index above `since`, or `timeout` seconds have passed."""
        with trio.move_on_after(timeout):
            while self.index_of(topics) <= since:
                await self._changed.wait()

    def private(self, key: str) -> Document | None:
        """A private document (a key). It leaves by no API and wakes nobody."""
        return self._private.get(key)

    def put_private(self, key: str, value: Document | None) -> None:
        """Write or, with None, remove a private document; joins a running transaction."""
        with self.transaction():
            self._forget = True
            self._undo.append(_restore(self._private, key))
            if value is None:
                self._private.pop(key, None)
                self._connection.execute("DELETE FROM private WHERE key = ?", (key,))
            else:
                text = json.dumps(value)
                self._private[key] = json.loads(text)
                self._connection.execute("INSERT OR REPLACE INTO private VALUES (?, ?)", (key, text))

    def write(self, table: Table, key: str, value: Document | None, *, quiet: bool = False) -> int:
        """What `Table.put` and `Table.delete` do; use those."""
        with self.transaction() as index:
            before = table.get(key)
            self._undo.append(partial(table.set, key, before))
            if value is None:
                table.set(key, None)
                self._connection.execute(
                    "DELETE FROM documents WHERE bucket = ? AND key = ?", (table.name, key)
                )
            else:
                text = json.dumps(value)
                created = before.create_index if before else index
                modified = before.modify_index if before and quiet else index
                row = Row(key=key, value=json.loads(text), create_index=created, modify_index=modified)
                table.set(key, row)
                self._connection.execute(
                    "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)",
                    (table.name, key, text, created, modified),
                )
            if not quiet:
                self.touch(table.name)
        return index

    def _commit(self) -> None:
        if not self._undo:
            self._connection.execute("ROLLBACK")
            self._index -= 1
            return
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            raise
        self._undo.clear()
        if self._forget:
            # What a replaced key was made of is overwritten in the database, and must not stay in its log.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._forget = False
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _roll_back(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self._index -= 1
        if self._connection.in_transaction:  # a full disk makes sqlite roll back on its own
            self._connection.execute("ROLLBACK")

    def _load(self) -> None:
        for bucket, key, text, created, modified in self._connection.execute("SELECT * FROM documents"):
            row = Row(key=key, value=json.loads(text), create_index=created, modify_index=modified)
            self.table(bucket).set(key, row)
        self._topics = dict(self._connection.execute("SELECT name, modified FROM topics"))
        self._private = {
            key: json.loads(text) for key, text in self._connection.execute("SELECT * FROM private")
        }
        # Every write touches its table's topic, so the newest topic is the newest transaction.
        self._index = max(self._topics.values(), default=1)


def _restore(mapping: dict[str, T], key: str) -> Callable[[], None]:
    """An action that puts `mapping[key]` back as it is now."""
    before = mapping.get(key)

    def restore() -> None:
        if before is None:
            mapping.pop(key, None)
        else:
            mapping[key] = before

    return restore


def _open(path: Path | None) -> sqlite3.Connection:
    """Open or create the database for this process alone, readable by its owner alone.

    Used by one thread; but a store that is forgotten is closed by whichever thread collects it.
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
    except (OSError, sqlite3.DatabaseError) as error:
        raise StoreUnavailable(f"{path}: {error}") from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL survives the death of the process at any moment; only a power cut can lose commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(_SCHEMA)
