"""The accept loop: every caller is admitted or turned away at once, and nobody waits unseen.

When the limit is reached, callers are still accepted, and closed. To stop accepting would leave them in the
kernel's backlog, where no number shows them, until their own time is up; this way a caller knows at once, and
can try another instance. It is no reset: one overtakes the connect of a health check, and would turn an
instance that is merely full into a dead one.

Under more callers than can be served, those who came first are served first. A caller waits in a queue of
ours until its handshake is begun, a few in each turn of the scheduler, so that the handshakes under way get
theirs; when too many are unsettled, waiting or in their handshake, it is the newest who is turned away. A
handshake is thus either finished soon or not begun, and memory has a bound.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Protocol

import trio

BATCH = 256  # connections accepted before other tasks get their turn
PACE = 16  # handshakes begun before other tasks get theirs: some 10 ms of work
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


class Overflow(StrEnum):
    """Why a caller is turned away unheard: the setting whose limit is reached."""

    CONNECTIONS = "max_connections"
    HANDSHAKES = "max_handshakes"


class AdmissionEvents(Protocol):
    """Who is told when callers cannot be admitted; must not block."""

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        """A limit is reached: told once, until a caller is admitted again."""

    def exhausted(self, error: OSError, /) -> None:
        """Accepting pauses for want of descriptors or memory: told once, until it succeeds again."""


class Admission:
    """How many connections may live at once, how many of them may be unsettled, and how it went.

    A connection is unsettled until its handshake is over. `limit` None: as many as there are files;
    `unsettled_limit` None: no limit either.
    """

    __slots__ = (
        "admitted",
        "limit",
        "live",
        "most",
        "most_unsettled",
        "refused",
        "unsettled",
        "unsettled_limit",
    )

    def __init__(self, limit: int | None = None, unsettled_limit: int | None = None) -> None:
        self.limit = limit
        self.unsettled_limit = unsettled_limit
        self.live = 0
        self.most = 0
        self.unsettled = 0
        self.most_unsettled = 0
        self.admitted = 0
        self.refused: Counter[Overflow] = Counter()

    def __repr__(self) -> str:
        return f"<Admission live={self.live} limit={self.limit} overflow={self.overflow}>"

    @property
    def overflow(self) -> int:
        """How many were turned away."""
        return self.refused.total()

    @property
    def full(self) -> Overflow | None:
        """Why the next caller is turned away; None if it is not."""
        if self.limit is not None and self.live >= self.limit:
            return Overflow.CONNECTIONS
        if self.unsettled_limit is not None and self.unsettled >= self.unsettled_limit:
            return Overflow.HANDSHAKES
        return None

    def enter(self) -> Place:
        """One more is in, unsettled."""
        self.live += 1
        self.admitted += 1
        self.most = max(self.most, self.live)
        self.unsettled += 1
        self.most_unsettled = max(self.most_unsettled, self.unsettled)
        return Place(self)


class Place:
    """The place of one admitted connection."""

    __slots__ = ("_admission", "_settled")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._settled = False

    def settle(self) -> None:
        """Its handshake is over, well or not; to be said once or more."""
        if not self._settled:
            self._settled = True
            self._admission.unsettled -= 1

    def leave(self) -> None:
        """It has ended."""
        self.settle()
        self._admission.live -= 1


Handler = Callable[[socket.socket, Place], Awaitable[None]]


async def accept_all(
    listeners: Sequence[socket.socket],
    handler: Handler,
    *,
    connections: trio.Nursery,
    admission: Admission,
    events: AdmissionEvents,
) -> None:
    """Accept on every listening, non-blocking socket until cancelled; each caller is a task in `connections`.

    The handler owns its socket and closes it; it settles its place when the handshake is over. The
    connections outlive this call: cancel it first, and give `connections` its own time. Errors other than the
    expected ones of accept(2) are raised.
    """
    async with trio.open_nursery() as loops:
        for sock in listeners:
            loops.start_soon(_Door(sock, handler, connections, admission, events).serve)


class _Door:
    """One listening socket, and who was admitted at it and waits for a beginning."""

    __slots__ = (
        "_admission",
        "_connections",
        "_events",
        "_handler",
        "_short",
        "_sock",
        "_turning_away",
        "_waiting",
    )

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
        self._turning_away: Overflow | None = None
        self._waiting: deque[tuple[socket.socket, Place]] = deque()

    async def serve(self) -> None:
        try:
            while True:
                if self._waiting:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._sock)
                shortage = self._accept()
                self._begin(PACE)
                if shortage is not None:
                    await self._pause(shortage)
        finally:
            self._begin(len(self._waiting))  # admitted is admitted

    def _accept(self) -> OSError | None:
        """Take whoever is at the door; what it is that the system has no more of, if so."""
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
                return error
            self._short = False
            self._receive(sock)
        return None

    def _receive(self, sock: socket.socket) -> None:
        reason = self._admission.full
        if reason is not None:
            sock.close()
            self._admission.refused[reason] += 1
            if self._turning_away is not reason:
                self._turning_away = reason
                self._events.overflowed(self._admission, reason)
            return
        self._turning_away = None
        sock.setblocking(False)
        self._waiting.append((sock, self._admission.enter()))

    def _begin(self, most: int) -> None:
        for _ in range(min(most, len(self._waiting))):
            self._connections.start_soon(self._handle, *self._waiting.popleft())

    async def _handle(self, sock: socket.socket, place: Place) -> None:
        try:
            await self._handler(sock, place)
        finally:
            place.leave()

    async def _pause(self, error: OSError) -> None:
        if not self._short:
            self._short = True
            self._events.exhausted(error)
        await trio.sleep(PAUSE)
