"""Stands in for the service manager's store of descriptors: what is kept in it outlives a `KeptSockets`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from agent.net.kept import KeptSockets


class Store:
    """Duplicates by name (agent.net.kept.DescriptorStore)."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def store(self, name: str, descriptor: int, /) -> None:
        """Keep a duplicate."""
        assert name not in self.kept
        self.kept[name] = os.dup(descriptor)

    def unstore(self, name: str, /) -> None:
        """Close a duplicate."""
        os.close(self.kept.pop(name))

    @contextmanager
    def process(self) -> Iterator[KeptSockets]:
        """Give what the next process of the service starts with, until it ends."""
        found = {name: socket.socket(fileno=os.dup(one)) for name, one in self.kept.items()}
        for sock in found.values():
            sock.setblocking(False)
        sockets = KeptSockets(found.items(), self)
        yield sockets
        sockets.close()

    def close(self) -> None:
        """Close every duplicate."""
        for name in list(self.kept):
            self.unstore(name)
