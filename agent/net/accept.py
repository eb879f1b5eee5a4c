"""The accept loop: callers are taken out of the kernel's backlog, stand in line, and are begun in turn.

Who is let in, who waits and who gives way is decided in `agent.net.admission`; here are the sockets. A few
callers are begun in each turn of the scheduler, so that the handshakes under way get theirs: a handshake is
thus either finished soon or not begun, and memory has a bound.

To turn a caller away is to close its connection, without a reset: one overtakes the connect of a health
check, and would turn an instance that is merely full into a dead one.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import trio

from agent.base.containment import FaultEvents, Where, contained
from agent.net.admission import LINE, Admission, Line, Overflow, Slot, Source, source_of

BATCH = 256  # connections accepted before other tasks get their turn
PACE = 16  # handshakes begun before other tasks get theirs: some 10 ms of work
PAUSE = 0.1  # seconds without accepting when the system has no more to give
LOOK = 0.05  # seconds until a line that does not move is looked at again, though nothing has happened
_ESTABLISHED = b"\1"  # TCP_ESTABLISHED, the first byte of tcp_info

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


class AdmissionEvents(FaultEvents, Protocol):
    """Who is told when callers cannot be admitted; must not block."""

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        """A limit is reached: told once, until a caller is admitted again."""

    def exhausted(self, error: OSError, /) -> None:
        """Accepting pauses for want of descriptors or memory: told once, until it succeeds again."""


Handler = Callable[[socket.socket, Slot], Awaitable[None]]


async def accept_all(
    listeners: Sequence[socket.socket],
    handler: Handler,
    *,
    purpose: str,
    connections: trio.Nursery,
    admission: Admission,
    events: AdmissionEvents,
    where: Where = Where.CONNECTION,
    first_kept: Callable[[], float] = lambda: math.inf,
) -> None:
    """Accept on every listening, non-blocking socket until cancelled; each caller is a task in `connections`.

    The handler owns its socket and closes it; it settles its place when the handshake is over. The
    connections outlive this call: cancel it first, and give `connections` its own time. Errors other than the
    expected ones of accept(2) are raised; an exception that nobody foresaw in one connection ends that one.
    """

    async def handle(caller: socket.socket, place: Slot) -> None:
        try:
            if not await contained(events, where, purpose, handler, caller, place):
                caller.close()
        finally:
            place.leave()

    gate = _Gate(handle, connections, admission, events, first_kept)
    try:
        async with trio.open_nursery() as loops:
            for sock in listeners:
                loops.start_soon(gate.accept_from, sock)
            loops.start_soon(gate.serve_line)
    finally:
        gate.let_all_in()


class _Gate:
    """The way in from all sockets of one listener: who is accepted joins the line, and begins when called."""

    def __init__(
        self,
        handle: Handler,
        connections: trio.Nursery,
        admission: Admission,
        events: AdmissionEvents,
        first_kept: Callable[[], float],
    ) -> None:
        self._first_kept = first_kept
        self._handle = handle
        self._connections = connections
        self._admission = admission
        self._events = events
        self._line: Line[_Caller] = Line(_line_limit(), fair=admission.fair)
        self._lookers = trio.lowlevel.ParkingLot()
        self._somebody = trio.Event()
        self._short = False
        self._turning_away: Overflow | None = None
        admission.on_room = self._look_again

    async def accept_from(self, sock: socket.socket) -> None:
        """Take callers in from one socket, for ever."""
        while True:
            await trio.lowlevel.wait_readable(sock)
            while self._line.full:
                await self._until_change(math.inf)
            nobody_waits = not self._line
            shortage = self._accept(sock)
            if nobody_waits:
                self._begin(PACE)
            if self._line:
                self._somebody.set()
            if shortage is not None:
                await self._pause(shortage)

    async def serve_line(self) -> None:
        """Begin whoever stands in line, a few in each turn of the scheduler, for ever."""
        while True:
            await self._somebody.wait()
            self._somebody = trio.Event()
            while self._line:
                if self._begin(PACE):
                    await trio.lowlevel.checkpoint()
                else:
                    await self._until_change(self._next_look())

    def let_all_in(self) -> None:
        """Nobody is accepted any more; accepted is accepted."""
        for source, caller in self._line.rest():
            self._start(source, caller)
        self._count_line()

    def _accept(self, sock: socket.socket) -> OSError | None:
        """Take whoever is at the door; what it is that the system has no more of, if so."""
        kept = self._first_kept()
        if self._short and _next_descriptor(sock) >= kept:
            return _no_descriptors()
        for _ in range(BATCH):
            if self._line.full:
                break
            try:
                caller, address = sock.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _CALLER_GONE:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                return error
            self._short = False
            caller.setblocking(False)
            source = source_of(address)
            if not self._line.join(source, _Caller(caller, trio.current_time())):
                self._turn_away(caller, Overflow.HANDSHAKES)
            elif caller.fileno() >= kept - 1:
                return _no_descriptors()
        return None

    def _begin(self, most: int) -> int:
        """Begin so many of those in line, as places can be had; how many that were."""
        begun = 0
        while begun < most and self._begin_next():
            begun += 1
        if begun:
            self._look_again()
        self._count_line()
        return begun

    def _begin_next(self) -> bool:
        """Begin whoever is next of those who can have a place; whether there is one."""
        admission = self._admission
        for source in self._line.sources():
            obstacle = admission.obstacle(source, pressed=self._line.full)
            if obstacle is None:
                self._start(source, self._line.call(source))
                return True
            if obstacle is Overflow.CONNECTIONS or not admission.fair:
                self._turn_all_away(obstacle)
                return False
            if not admission.crowded(source):  # there is no place for anybody
                return False
        return False

    def _start(self, source: Source, caller: _Caller) -> None:
        """Begin one, unless it has left while it stood in line."""
        sock, admission = caller.sock, self._admission
        if trio.current_time() - caller.since > LOOK and _has_left(sock):
            admission.left += 1
            sock.close()
            return
        self._turning_away = None
        place = admission.enter(source, partial(_owes, sock))
        if admission.fair and not _owes(sock):
            place.begin()
        self._connections.start_soon(self._handle, sock, place)

    def _turn_all_away(self, reason: Overflow) -> None:
        for _, caller in self._line.rest():
            self._turn_away(caller.sock, reason)

    def _turn_away(self, sock: socket.socket, reason: Overflow) -> None:
        sock.close()
        self._admission.refused[reason] += 1
        if self._turning_away is not reason:
            self._turning_away = reason
            self._events.overflowed(self._admission, reason)

    async def _pause(self, error: OSError) -> None:
        if not self._short:
            self._short = True
            self._events.exhausted(error)
        self._admission.give_way()  # who says nothing holds a descriptor, too
        await trio.sleep(PAUSE)

    async def _until_change(self, deadline: float) -> None:
        """Until there is room in places or line, or by trio's clock somebody may have to give way."""
        with trio.move_on_at(deadline):
            await self._lookers.park()

    def _next_look(self) -> float:
        """When somebody may have to give way; soon, if the longest begun does not though its time is up."""
        now, due = trio.current_time(), self._admission.next_to_yield()
        return due if now < due < math.inf else now + LOOK

    def _look_again(self) -> None:
        self._lookers.unpark_all()

    def _count_line(self) -> None:
        self._admission.waiting = len(self._line)


class _Caller(NamedTuple):
    """One who stands in line, and since when, by trio's clock."""

    sock: socket.socket
    since: float


def _next_descriptor(sock: socket.socket) -> int:
    """Return the number that the next caller's socket would have, which says how many are in use."""
    try:
        copy = os.dup(sock.fileno())
    except OSError:
        return sys.maxsize
    os.close(copy)
    return copy


def _no_descriptors() -> OSError:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _owes(sock: socket.socket) -> bool:
    """Whether a caller has sent nothing that is unread. One that has gone owes nothing: that must be seen."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _has_left(sock: socket.socket) -> bool:
    """Whether a caller has ended its side, whatever it said before: it has not waited for its turn."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != _ESTABLISHED
    except OSError:  # not of TCP
        return False


def _line_limit() -> int:
    """A quarter of the descriptors at most."""
    return min(LINE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
