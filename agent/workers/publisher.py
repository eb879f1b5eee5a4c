"""Sends the newest values to every worker, in the order in which the worker needs them.

Each worker has one subscriber, which gets every value once and then each newer one; values that are replaced
before they are sent are skipped, as with `Latest`. A value of a lower rank is always sent first: a worker has
the deny list and the credentials before it has a socket to accept callers on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import trio

from agent.base.latest import Latest
from agent.workers.messages import Message, encode

T = TypeVar("T")


class SendOrder(IntEnum):
    """The order in which values are sent."""

    POLICY = 0
    REGISTRATION = 1
    CREDENTIALS = 2
    INTENTIONS = 3
    CONFIRMED = 4  # after what is confirmed: older intentions must not become good by a newer confirmation
    ENDPOINTS = 5
    SOCKETS = 6


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One value. `withdrawal`: the message sent once the value is withdrawn."""

    rank: SendOrder
    cell: Latest[Any]
    message: Callable[[Any], Message]
    withdrawal: Message | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _frame: bytes = field(default=b"", repr=False)  # may hold a key
    _version: int = 0

    @property
    def version(self) -> int:
        """The version of the newest value."""
        return self.cell.version

    def frame(self) -> bytes:
        """Return the newest value as a frame, encoded once for all subscribers."""
        if self._version != self.cell.version:
            self._frame = encode(self.message(self.cell.value))
            self._version = self.cell.version
        return self._frame


class Publisher:
    """The values, by name."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery  # set by `start`
        self._items: dict[Hashable, Item] = {}
        self.readers: set[Subscriber] = set()

    def start(self, nursery: trio.Nursery) -> Publisher:
        """Watch the cells in `nursery`; return the publisher."""
        self._nursery = nursery
        return self

    def post(
        self,
        name: Hashable,
        rank: SendOrder,
        cell: Latest[T],
        message: Callable[[T], Message],
        *,
        withdrawal: Message | None = None,
    ) -> None:
        """Publish the newest values of `cell` under `name` from now on."""
        self.withdraw(name)
        item = self._items[name] = Item(rank=rank, cell=cell, message=message, withdrawal=withdrawal)
        self._nursery.start_soon(self._watch, item)
        self._wake()

    def withdraw(self, name: Hashable) -> None:
        """Publish that value no more, and send its withdrawal."""
        item = self._items.pop(name, None)
        if item is not None:
            item.scope.cancel()
            self._wake()

    def items(self) -> list[tuple[Hashable, Item]]:
        """Return the items that have a value, in the order of sending."""
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
    """What one worker was sent. `news` is called when there may be something to send."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._sent: dict[Hashable, tuple[Item, int]] = {}
        self.news: Callable[[], None] = lambda: None
        publisher.readers.add(self)

    def close(self) -> None:
        """Send nothing more to this worker."""
        self._publisher.readers.discard(self)

    def next(self) -> tuple[Hashable, bytes] | None:
        """Return name and frame to send next, and count it as sent; None when there is nothing to send."""
        items = self._publisher.items()
        now = dict(items)
        for name, (item, _) in list(self._sent.items()):
            if now.get(name) is not item:
                del self._sent[name]
                if item.withdrawal is not None:
                    return name, encode(item.withdrawal)
        for name, item in items:
            if self._sent.get(name) != (item, item.version):
                self._sent[name] = item, item.version
                return name, item.frame()
        return None
