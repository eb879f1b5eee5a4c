"""One wait for a readiness of a socket that several tasks share."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio


class SharedWait:
    """One task's wait for a readiness of a socket, which other tasks may join: trio allows one waiter.

    A TLS write may need the readiness that a read is waiting for already.
    """

    __slots__ = ("_ended", "_sock", "_wait", "_waiting")

    def __init__(self, wait: Callable[[socket.socket], Awaitable[None]], sock: socket.socket) -> None:
        self._wait = wait
        self._sock = sock
        self._waiting = False
        self._ended: trio.Event | None = None  # made when a second task waits too

    async def wait(self) -> None:
        """Wait for the readiness."""
        if self._waiting:
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()
            return
        self._waiting = True
        try:
            await self._wait(self._sock)
        finally:
            self._waiting = False
            if self._ended is not None:
                self._ended.set()
                self._ended = None
