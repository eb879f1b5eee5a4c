"""Everything a datacenter must remember: indexed tables in memory, written through to sqlite.

Theory of operation. Readers and watchers read memory only; a write changes memory and sqlite in one
transaction, so a process that is killed at any moment comes back with exactly its committed transactions.
Each transaction has one index, one higher than the last, as a raft entry has in Consul. An index is kept per
*topic*: every table is a topic, and a writer may touch finer ones (`health/db`), so that the changes of one
service do not wake the watchers of another. Topics outlive their rows, and of those that are dropped the
newest index is kept, so an index never goes backwards.
Private documents are separate: they have no topic and no watcher, and no API reads them.

All of this runs on one trio thread, and only `changed` awaits; a transaction must not.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import trio

from datacenter.state.database import damaged, open_database
from datacenter.state.waiters import Waiters

# A JSON object as received or to be sent; Consul's API defines its shape.
Document = dict[str, Any]

T = TypeVar("T")

_ENDED = ""  # topic: the newest index of all topics that were dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One document. The store shares `value`: read it, never change it."""

    key: str
    value: Document = field(repr=False)
    create_index: int
    modify_index: int


class Table:
    """One bucket of documents, sorted by key. A write outside a transaction is its own transaction."""

    __slots__ = ("_groupings", "_name", "_rows", "_store")

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._rows: dict[str, Row] = {}
        self._groupings: list[Grouping] = []

    @property
    def name(self) -> str:
        """The name, which is also the topic that each write touches."""
        return self._name

    @property
    def index(self) -> int:
        """The index of the last change, deletions included; at least 1."""
        return self._store.index_of((self._name,))

    def get(self, key: str) -> Row | None:
        """Return the row under this key; None if there is none."""
        return self._rows.get(key)

    def rows(self) -> list[Row]:
        """Return every row, sorted by key."""
        return _by_key(self._rows.values())

    def grouped(self, by: Callable[[Document], Iterable[str]]) -> Grouping:
        """Return an index over the rows: `by` names the groups of a document. Make it once, at the start."""
        grouping = Grouping(by)
        for row in self._rows.values():
            grouping.move(None, row)
        self._groupings.append(grouping)
        return grouping

    def put(self, key: str, value: Document, *, quiet: bool = False) -> int:
        """Create or replace a row; return the index of the change. The value is copied.

        `quiet` replaces the value without a new index and wakes no watcher.
        """
        return self._store.write(self, key, value, quiet=quiet)

    def delete(self, key: str) -> bool:
        """Remove a row; return False, without a new index, if there is none."""
        if key not in self._rows:
            return False
        self._store.write(self, key, None)
        return True

    def set(self, key: str, row: Row | None) -> None:
        """Set the row in memory and in the groupings; only the store calls this."""
        before = self._rows.pop(key, None)
        if row is not None:
            self._rows[key] = row
        for grouping in self._groupings:
            grouping.move(before, row)


class Grouping:
    """The rows of a table by a part of their value, kept up to date with every write."""

    __slots__ = ("_by", "_groups")

    def __init__(self, by: Callable[[Document], Iterable[str]]) -> None:
        self._by = by
        self._groups: dict[str, dict[str, Row]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def rows(self, group: str) -> list[Row]:
        """Return the rows of this group, sorted by key."""
        return _by_key(self._groups.get(group, {}).values())

    def move(self, before: Row | None, after: Row | None) -> None:
        """Note that a row was changed, created or removed; only the store calls this."""
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
    """The tables of one datacenter. `path` None keeps everything in memory (for tests)."""

    def __init__(self, path: Path | None = None) -> None:
        self._tables: dict[str, Table] = {}
        self._topics: dict[str, int] = {}
        self._index = 1
        self._path = path
        self._waiters = Waiters()
        self._touched: set[str] = set()  # by the present transaction
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self._private: dict[str, Document] = {}
        self._forget = False  # a private document was replaced
        self._connection = open_database(path)
        weakref.finalize(
            self, self._connection.close
        )  # from Python 3.13 on sqlite3 warns of open connections
        self._load()

    def close(self) -> None:
        """Close the database; the store must not be used afterwards."""
        self._connection.close()

    @property
    def index(self) -> int:
        """The index of the newest transaction."""
        return self._index

    def table(self, name: str) -> Table:
        """Return the table of this name, made at its first use."""
        return self._tables.setdefault(name, Table(self, name))

    def index_of(self, topics: Collection[str]) -> int:
        """Return the index of the newest change in any of the topics; at least 1."""
        ended = self._topics.get(_ENDED, 1)
        return max((self._topics.get(topic, ended) for topic in topics), default=1)

    def known(self, topic: str) -> bool:
        """Return whether the topic was touched, and not dropped since."""
        return topic in self._topics

    @property
    def topic_count(self) -> int:
        """How many topics have an index of their own."""
        return len(self._topics)

    def topics(self) -> list[str]:
        """Return every topic, the one that changed longest ago first."""
        return sorted(self._topics.keys() - {_ENDED}, key=self._topics.__getitem__)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[int]:
        """Combine several writes under one index and one commit; an exception undoes all of them. Nests.

        Yields the index of the writes. Never await inside, since another task would see a part of them.
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
        """Note finer topics as changed by the present transaction."""
        with self.transaction() as index:
            for topic in topics:
                self._undo.append(_restore(self._topics, topic))
                self._set_topic(topic, index)
            self._touched.update(topics)

    def drop_topics(self, *topics: str) -> None:
        """Forget finer topics of which no row is left. Those who wait for one are not woken by that."""
        newest = max((self._topics.get(topic, 1) for topic in (*topics, _ENDED)), default=1)
        with self.transaction():
            for topic in topics:
                self._undo.append(_restore(self._topics, topic))
                self._topics.pop(topic, None)
                self._connection.execute("DELETE FROM topics WHERE name = ?", (topic,))
            self._undo.append(_restore(self._topics, _ENDED))
            self._set_topic(_ENDED, newest)

    def _set_topic(self, topic: str, index: int) -> None:
        self._topics[topic] = index
        self._connection.execute("INSERT OR REPLACE INTO topics VALUES (?, ?)", (topic, index))

    async def changed(self, topics: Collection[str], since: int, timeout: float) -> None:  # noqa: ASYNC109  a blocking read is a wait with an end, not a failure
        """Wait until one of the topics has an index above `since`, or until `timeout` seconds have passed."""
        with trio.move_on_after(timeout):
            while self.index_of(topics) <= since:
                with self.waiting(topics) as woken:
                    await woken.wait()

    def waiting(self, topics: Iterable[str]) -> contextlib.AbstractContextManager[trio.Event]:
        """Return a block with an event that is set after a change of a topic, or by `wake`."""
        return self._waiters.registered(topics)

    def wake(self, topic: str) -> None:
        """Wake those who wait for this topic, without a new index: for what is kept in memory alone."""
        self._waiters.wake((topic,))

    def private(self, key: str) -> Document | None:
        """Return a private document (a key), which no API shows and no watcher sees."""
        return self._private.get(key)

    def put_private(self, key: str, value: Document | None) -> None:
        """Write or, with None, remove a private document, in the running transaction if any."""
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
        """Do the work of `Table.put` and `Table.delete`; use those."""
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
            # sqlite overwrites a replaced key in the database; its journal must not keep it either.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._forget = False
        touched, self._touched = self._touched, set()
        self._waiters.wake(touched)

    def _roll_back(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self._touched.clear()
        self._index -= 1
        if self._connection.in_transaction:  # a full disk makes sqlite roll back on its own
            self._connection.execute("ROLLBACK")

    def _load(self) -> None:
        try:
            self._read()
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            self._connection.close()
            raise damaged(self._path, error) from error

    def _read(self) -> None:
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
    """Return a function that restores the present `mapping[key]`."""
    before = mapping.get(key)

    def restore() -> None:
        if before is None:
            mapping.pop(key, None)
        else:
            mapping[key] = before

    return restore
