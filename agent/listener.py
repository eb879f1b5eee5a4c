"""The accept loop: every caller is admitted or turned away at once, and nobody waits unseen.

When the limit is reached, callers are still accepted, and closed. To stop accepting would leave them in the
kernel's backlog, where no number shows them, until their own time is up; this way a caller knows at once, and
can try another instance. It is no reset: one overtakes the connect of a health check, and would turn an
instance that is merely full into a dead one.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

BATCH = 64  # connections accepted before other tasks get their turn
PAUSE = 0.1  # seconds without accepting when the system has no more to give

# Nothing left for another connection; to accept again at once would spin.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2): errors of the connection that was waiting, not of the listener; the next one may be fine.
_CALLER_GONE = frozenset(
    {
        errno.ECONNABORTED,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,  # a firewall rule
    }
)

Handler = Callable[[socket.socket], Awaitable[None]]


class AdmissionEvents(Protocol):
    """Who is told when callers cannot be admitted; must not block."""

    def overflowed(self, admission: Admission, /) -> None:
        """The limit is reached: told once, until a caller is admitted again."""

    def exhausted(self, error: OSError, /) -> None:
        """Accepting pauses for want of descriptors or memory: told once, until it succeeds again."""


class Admission:
    """How many connections may live at once, and how it went. `limit` None: as many as there are files."""

    __slots__ = ("admitted", "limit", "live", "most", "overflow")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.live = 0
        self.most = 0
        self.admitted = 0
        self.overflow = 0

    def __repr__(self) -> str:
        return f"<Admission live={self.live} limit={self.limit} overflow={self.overflow}>"

    @property
    def full(self) -> bool:
        """Whether the next caller is turned away."""
        return self.limit is not None and self.live >= self.limit

    def enter(self) -> None:
        """One more is in."""
        self.live += 1
        self.admitted += 1
        self.most = max(self.most, self.live)

    def leave(self) -> None:
        """One has left."""
        self.live -= 1


async def accept_all(
    listeners: Sequence[socket.socket],
    handler: Handler,
    *,
    connections: trio.Nursery,
    admission: Admission,
    events: AdmissionEvents,
) -> None:
    """Accept on every listening, non-blocking socket until cancelled; each caller is a task in `connections`.

    The handler owns its socket and closes it. The connections outlive this call: cancel it first, and give
    `connections` its own time. Errors other than the expected ones of accept(2) are raised.
    """
    async with trio.open_nursery() as loops:
        for sock in listeners:
            loops.start_soon(_Door(sock, handler, connections, admission, events).serve)


class _Door:
    """One listening socket."""

    __slots__ = ("_admission", "_connections", "_events", "_handler", "_short", "_sock", "_turning_away")

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        connections: trio.Nursery,
        admission: Admission,
        events: AdmissionEvents,
    ) -> None:
        self._sock = sock
        self._handler = handler
        self._connections = connections
        self._admission = admission
        self._events = events
        self._short = False
        self._turning_away = False

    async def serve(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            for _ in range(BATCH):
                try:
                    sock, _ = self._sock.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _CALLER_GONE:
                        continue
                    if error.errno not in _EXHAUSTED:
                        raise
                    await self._pause(error)
                    break
                self._short = False
                self._receive(sock)

    def _receive(self, sock: socket.socket) -> None:
        if self._admission.full:
            sock.close()
            self._admission.overflow += 1
            if not self._turning_away:
                self._turning_away = True
                self._events.overflowed(self._admission)
            return
        self._turning_away = False
        sock.setblocking(False)
        self._admission.enter()
        self._connections.start_soon(self._handle, sock)

    async def _handle(self, sock: socket.socket) -> None:
        try:
            await self._handler(sock)
        finally:
            self._admission.leave()

    async def _pause(self, error: OSError) -> None:
        if not self._short:
            self._short = True
            self._events.exhausted(error)
        await trio.sleep(PAUSE)
