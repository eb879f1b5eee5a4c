"""What every worker has to know: the newest values, in the order in which they must be known.

Whoever reads it, one reader for each worker, is told every value once and, after that, each newer one; values
between that nobody had time for are skipped, as with `Latest`. A value of a lower rank is always told first:
a worker has the deny list and the credentials before it has a socket to let anybody in by.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import trio

from agent.base.latest import Latest
from agent.workers.messages import Order, encode

T = TypeVar("T")


class SendOrder(IntEnum):
    """The order of telling."""

    POLICY = 0
    REGISTRATION = 1
    CREDENTIALS = 2
    INTENTIONS = 3
    CONFIRMED = 4  # after what is confirmed: older intentions must not become good by a newer confirmation
    ENDPOINTS = 5
    SOCKETS = 6


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One value. `withdrawal` is what is said when it is on the board no more."""

    rank: SendOrder
    cell: Latest[Any]
    order: Callable[[Any], Order]
    withdrawal: Order | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _frame: bytes = field(default=b"", repr=False)  # may hold a key
    _version: int = 0

    @property
    def version(self) -> int:
        """Of the newest value."""
        return self.cell.version

    def frame(self) -> bytes:
        """The newest value, written once for all readers."""
        if self._version != self.cell.version:
            self._frame = encode(self.order(self.cell.value))
            self._version = self.cell.version
        return self._frame


class Publisher:
    """The values, by name."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery  # given by `start`
        self._items: dict[Hashable, Item] = {}
        self.readers: set[Subscriber] = set()

    def start(self, nursery: trio.Nursery) -> Publisher:
        """Watch the cells in that nursery; return the board."""
        self._nursery = nursery
        return self

    def post(
        self,
        name: Hashable,
        rank: SendOrder,
        cell: Latest[T],
        order: Callable[[T], Order],
        *,
        withdrawal: Order | None = None,
    ) -> None:
        """From now on the newest value of that cell is on the board."""
        self.withdraw(name)
        item = self._items[name] = Item(rank=rank, cell=cell, order=order, withdrawal=withdrawal)
        self._nursery.start_soon(self._watch, item)
        self._wake()

    def withdraw(self, name: Hashable) -> None:
        """It holds no more."""
        item = self._items.pop(name, None)
        if item is not None:
            item.scope.cancel()
            self._wake()

    def items(self) -> list[tuple[Hashable, Item]]:
        """Those that have a value, in the order of telling."""
        known = [(name, item) for name, item in self._items.items() if item.version]
        return sorted(known, key=lambda named: named[1].rank)

    async def _watch(self, item: Item) -> None:
        with item.scope:
            version = 0
            while True:
                _, version = await item.cell.newer(version)
                self._wake()

    def _wake(self) -> None:
        for reader in self.readers:
            reader.news()


class Subscriber:
    """What one worker has been told. `news` is called when there may be something to tell."""

    def __init__(self, board: Publisher) -> None:
        self._board = board
        self._told: dict[Hashable, tuple[Item, int]] = {}
        self.news: Callable[[], None] = lambda: None
        board.readers.add(self)

    def close(self) -> None:
        """It is told nothing more."""
        self._board.readers.discard(self)

    def next(self) -> tuple[Hashable, bytes] | None:
        """The name and the frame to tell next; None when all is told. It counts as told from then on."""
        items = self._board.items()
        now = dict(items)
        for name, (item, _) in list(self._told.items()):
            if now.get(name) is not item:
                del self._told[name]
                if item.withdrawal is not None:
                    return name, encode(item.withdrawal)
        for name, item in items:
            if self._told.get(name) != (item, item.version):
                self._told[name] = item, item.version
                return name, item.frame()
        return None
