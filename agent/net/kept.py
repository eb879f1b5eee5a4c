"""The listening sockets that the service manager keeps, so that a restart or a crash refuses no connect.

sd_notify(3), `FDSTORE=1`: the manager has a duplicate of each socket while the service restarts, callers wait
in the socket's queue, and the next process of the service is given the socket back. A listener takes the
sockets that are kept at its address instead of binding. What is not wanted any more is given up, here and
there, since a socket that stays in the store goes on taking callers.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from agent.base.address import Address, UnixAddress
from agent.net.bind import Bound, address_of, adopt, place_of

PREFIX = "kept-"  # of the names of these sockets
MOST_NAME = 255  # characters that systemd takes


class DescriptorStore(Protocol):
    """The service manager's store of descriptors."""

    def store(self, name: str, descriptor: int, /) -> None:
        """Keep a duplicate of the descriptor."""

    def unstore(self, name: str, /) -> None:
        """Close the duplicates of that name."""


class KeptSockets:
    """The kept sockets by name. Listeners get duplicates, so that a name holds while its listener changes."""

    def __init__(
        self, named: Iterable[tuple[str, socket.socket]] = (), store: DescriptorStore | None = None
    ) -> None:
        self._kept = dict(named)
        self._taken: set[str] = set()
        self._store = store

    @property
    def active(self) -> bool:
        """Whether callers wait in a queue of a listener that is not served at the moment."""
        return self._store is not None

    def all(self) -> dict[str, socket.socket]:
        """Return every kept socket by name."""
        return dict(self._kept)

    async def take(self, address: Address, purpose: str) -> list[Bound]:
        """Return the listening sockets that are kept at an address. Raises BindFailed."""
        if not self._kept:
            return []
        is_there = await _at_place(address)
        found = [
            name for name, sock in sorted(self._kept.items()) if is_there(sock) and _reachable(name, sock)
        ]
        self._taken.update(found)
        return [self._bound(name, purpose) for name in found]

    def keep(self, bound: Bound, slot: int = 0) -> None:
        """Have a listening socket kept from now on. `slot`: of the worker that accepts from it."""
        if self._store is None or bound.kept or bound.handed:
            return
        bound.kept = name_of(bound, slot)
        self._kept[bound.kept] = bound.sock.dup()
        self._taken.add(bound.kept)
        self._store.store(bound.kept, bound.sock.fileno())

    def store_again(self) -> None:
        """Have every kept socket kept, which changes nothing where it is."""
        if self._store is not None:
            for name, sock in self._kept.items():
                self._store.store(name, sock.fileno())

    def forget(self, bounds: Iterable[Bound]) -> None:
        """Have these sockets kept no more: their listener is not wanted."""
        for bound in bounds:
            name, bound.kept = bound.kept, ""
            self._drop(name)

    def forget_rest(self) -> None:
        """Have no socket kept that no listener has taken."""
        for name in set(self._kept) - self._taken:
            self._drop(name)

    def forget_all(self) -> None:
        """Have no socket kept, so that callers are refused instead of waiting in vain."""
        for name in list(self._kept):
            self._drop(name)

    def close(self) -> None:
        """Close our duplicates at the end of the process; the manager keeps its own."""
        for sock in self._kept.values():
            sock.close()

    def _drop(self, name: str) -> None:
        sock = self._kept.pop(name, None)
        if sock is not None:
            sock.close()
            self._taken.discard(name)
            if self._store is not None:
                self._store.unstore(name)

    def _bound(self, name: str, purpose: str) -> Bound:
        bound = adopt(self._kept[name], purpose)
        bound.kept, bound.handed = name, False
        place = address_of(bound.sock)
        if isinstance(place, UnixAddress):
            bound.own_path(Path(place.path))
        return bound


def name_of(bound: Bound, slot: int = 0) -> str:
    """Return the name of a kept socket: its worker, its address, and for a unix socket the file's inode."""
    name = f"{PREFIX}{slot}-{quote(bound.address)}-{bound.inode}"
    if len(name) <= MOST_NAME:
        return name
    return f"{PREFIX}{slot}-{zlib.crc32(bound.address.encode()):08x}-{bound.inode}"


def slot_of(name: str) -> int:
    """Return the worker that a kept socket was accepted from."""
    slot = name.removeprefix(PREFIX).partition("-")[0]
    return int(slot) if slot.isdigit() else 0


async def _at_place(address: Address) -> Callable[[socket.socket], bool]:
    """Return a predicate: whether a socket is at the address, whose name is looked up."""
    if isinstance(address, UnixAddress):
        return lambda sock: sock.family == socket.AF_UNIX and sock.getsockname() == address.path
    try:
        family, place = await place_of(address.host, address.port)
    except (OSError, ValueError):  # binding it will say what is wrong
        return lambda _sock: False
    return lambda sock: sock.family == family and sock.getsockname() == place


def _reachable(name: str, sock: socket.socket) -> bool:
    """Return whether callers reach it: the file of a unix socket may have been replaced."""
    if sock.family != socket.AF_UNIX:
        return True
    try:
        return str(Path(sock.getsockname()).lstat().st_ino) == name.rpartition("-")[2]
    except OSError:
        return False
