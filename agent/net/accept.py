"""The accept loop: takes callers out of the kernel's backlog, lines them up, and starts them in turn.

`agent.net.admission` decides who is admitted, who waits and who gives way; this module has the sockets. A few
callers start in each turn, so that a handshake is either finished soon or not begun, and memory is bounded.

A caller is turned away by closing its connection without a reset. A reset would overtake the connect of a TCP
health check, and make an instance that is merely full look dead.
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
from agent.net.admission import Admission, Overflow, Slot
from agent.net.dial import address_text
from agent.net.line import LINE, Line, Source, source_of

BATCH = 256  # connections accepted before other tasks run
PACE = 16  # handshakes started before other tasks run: some 10 ms of work
PAUSE = 0.1  # seconds without accepting when the system lacks descriptors or memory
LOOK = 0.05  # seconds until a line that does not move is checked again
_ESTABLISHED, _CLOSED = b"\1", b"\7"  # TCP_ESTABLISHED and TCP_CLOSE, the first byte of tcp_info

# The system lacks what another connection needs; accepting again at once would spin.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2): errors of the waiting connection, not of the listener; the next connection may be good.
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
    """The events of a listener that cannot admit callers; must not block."""

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        """A limit is reached; called once, until a caller is admitted again."""

    def exhausted(self, error: OSError, /) -> None:
        """Accepting pauses for lack of descriptors or memory; called once, until it succeeds again."""


Handler = Callable[[socket.socket, Slot], Awaitable[None]]
# Takes a caller over without a task, with socket and slot; False if it cannot. The third argument hands the
# caller to the handler later.
AtOnce = Callable[[socket.socket, Slot, Callable[[], None]], bool]


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
    at_once: AtOnce | None = None,
    replaced: Callable[[], bool] = lambda: False,
) -> None:
    """Accept on every listening, non-blocking socket until cancelled; each caller is a task in `connections`.

    The handler owns its socket and closes it; it settles its slot when the handshake is over. Connections
    outlive this call: cancel it first, and give `connections` its own time. Errors of accept(2) that concern
    the listener are raised; an unforeseen exception in a connection ends that connection. `replaced`: whether
    the next process accepts from the same queue, so that those who cannot begin yet are left in it.
    """

    async def handle(caller: socket.socket, slot: Slot) -> None:
        try:
            if not await contained(events, where, purpose, handler, caller, slot):
                caller.close()
        finally:
            slot.leave()

    def taken(caller: socket.socket, slot: Slot) -> bool:
        if at_once is None:
            return False
        try:
            return at_once(caller, slot, partial(connections.start_soon, handle, caller, slot))
        except Exception as error:  # noqa: BLE001 - it ends this connection alone, logged and counted
            events.internal_error(where, purpose, error)
            caller.close()
            slot.leave()
            return True

    gate = _Gate(handle, connections, admission, events, first_kept, replaced=replaced, taken=taken)
    try:
        async with trio.open_nursery() as loops:
            for sock in listeners:
                loops.start_soon(gate.accept_from, sock)
            loops.start_soon(gate.serve_line)
    finally:
        gate.start_all()


class _Gate:
    """The sockets of one listener: accepted callers join the line, and are started in their turn."""

    def __init__(
        self,
        handle: Handler,
        connections: trio.Nursery,
        admission: Admission,
        events: AdmissionEvents,
        first_kept: Callable[[], float],
        *,
        replaced: Callable[[], bool],
        taken: Callable[[socket.socket, Slot], bool],
    ) -> None:
        self._taken = taken
        self._first_kept = first_kept
        self._replaced = replaced
        self._handle = handle
        self._connections = connections
        self._admission = admission
        self._events = events
        self._line: Line[_Caller] = Line(_line_limit(), fair=admission.fair)
        self._lookers = trio.lowlevel.ParkingLot()
        self._arrived = trio.Event()
        self._short = False
        self._turning_away: Overflow | None = None
        admission.on_room = self._look_again

    async def accept_from(self, sock: socket.socket) -> None:
        """Accept callers from one socket until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(sock)
            while self._leaves_in_queue():
                await self._until_change(math.inf)
            line_was_empty = not self._line
            shortage = self._accept(sock)
            if line_was_empty:
                self._begin(PACE)
            if self._line:
                self._arrived.set()
            if shortage is not None:
                await self._pause(shortage)

    async def serve_line(self) -> None:
        """Start the callers in line, a few in each turn of the scheduler, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._line:
                if self._begin(PACE):
                    await trio.lowlevel.checkpoint()
                else:
                    await self._until_change(self._next_look())

    def start_all(self) -> None:
        """Start all callers in line; called when no more are accepted."""
        for source, caller in self._line.rest():
            self._start(source, caller)
        self._count_line()

    def _accept(self, sock: socket.socket) -> OSError | None:
        """Accept the callers in the backlog; return the error if the system lacks a resource."""
        kept = self._first_kept()
        if self._short and _next_descriptor(sock) >= kept:
            return _no_descriptors()
        now = trio.current_time()
        for _ in range(BATCH):
            if self._leaves_in_queue():
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
            if not self._line.join(source, _Caller(caller, now, address)):
                self._turn_away(caller, source, Overflow.HANDSHAKES)
            elif caller.fileno() >= kept - 1:
                return _no_descriptors()
        return None

    def _leaves_in_queue(self) -> bool:
        """Return whether no caller is to be accepted now."""
        if self._replaced():
            return bool(self._line) or self._admission.full is not None
        return self._line.full

    def _begin(self, most: int) -> int:
        """Start at most `most` callers in line, while slots are free; return how many."""
        begun = 0
        while begun < most and self._begin_next():
            begun += 1
        if begun:
            self._look_again()
        self._count_line()
        return begun

    def _begin_next(self) -> bool:
        """Start the next caller that may have a slot; return whether there was one."""
        admission = self._admission
        for source in self._line.sources():
            obstacle = admission.obstacle(source, pressed=self._line.full)
            if obstacle is None:
                self._start(source, self._line.call(source))
                return True
            if obstacle is Overflow.CONNECTIONS:
                self._turn_all_away(obstacle)
                return False
            if not admission.crowded(source):  # the listener has no slot for any source
                self._turn_late_away(obstacle)
                return False
        return False

    def _start(self, source: Source, caller: _Caller) -> None:
        """Start a caller, unless it has left while it waited in line."""
        sock, admission = caller.sock, self._admission
        now = trio.current_time()
        if now - caller.since > LOOK and _has_left(sock, shaking=admission.fair):
            admission.left += 1
            sock.close()
            return
        self._turning_away = None
        slot = admission.enter(source, partial(_owes, sock))
        slot.waited = now - caller.since
        slot.caller = address_text(caller.address)
        if admission.fair and not _owes(sock):
            slot.begin()
        if not self._taken(sock, slot):
            self._connections.start_soon(self._handle, sock, slot)

    def _turn_all_away(self, reason: Overflow) -> None:
        for source, caller in self._line.rest():
            self._turn_away(caller.sock, source, reason)

    def _turn_late_away(self, reason: Overflow) -> None:
        """Turn those away who have waited for a slot as long as they may."""
        late = trio.current_time() - self._admission.patience
        for source in list(self._line.sources()):
            while (caller := self._line.first(source)) is not None and caller.since <= late:
                self._turn_away(self._line.call(source).sock, source, reason)

    def _turn_away(self, sock: socket.socket, source: Source, reason: Overflow) -> None:
        sock.close()
        self._admission.turn_away(reason, source)
        if self._turning_away is not reason:
            self._turning_away = reason
            self._events.overflowed(self._admission, reason)

    async def _pause(self, error: OSError) -> None:
        if not self._short:
            self._short = True
            self._events.exhausted(error)
        self._admission.give_way()  # a silent caller holds a descriptor too
        await trio.sleep(PAUSE)

    async def _until_change(self, deadline: float) -> None:
        """Wait for a free slot or room in the line, at most until `deadline` by trio's clock."""
        with trio.move_on_at(deadline):
            await self._lookers.park()

    def _next_look(self) -> float:
        """Return when a caller may have to give way; soon, if its time is up and it does not."""
        now, due = trio.current_time(), self._admission.next_to_yield()
        return due if now < due < math.inf else now + LOOK

    def _look_again(self) -> None:
        if self._lookers:  # seldom: each connection comes by here, twice
            self._lookers.unpark_all()

    def _count_line(self) -> None:
        self._admission.waiting = len(self._line)


class _Caller(NamedTuple):
    """A caller in line, and since when, by trio's clock."""

    sock: socket.socket
    since: float
    address: object  # as accept(2) has returned it


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
    """Return whether a caller has sent no unread byte.

    False for one that has gone, so that this is noticed.
    """
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _has_left(sock: socket.socket, *, shaking: bool) -> bool:
    """Return whether a caller has gone while it waited, even if it sent bytes before.

    One that is to shake hands has gone once it has ended its side; an app that has said all it will say
    may wait for its answer.
    """
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:  # not of TCP
        return False
    return state != _ESTABLISHED if shaking else state == _CLOSED


def _line_limit() -> int:
    """Return the length of the line: at most a quarter of the descriptors."""
    return min(LINE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
