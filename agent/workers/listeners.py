"""Listeners of an agent with workers: the control process binds, every worker accepts.

Each worker has a listening socket of its own at every TCP address (SO_REUSEPORT), and the kernel distributes
callers among them. The control process makes and keeps these sockets, so that callers in the queue of a dead
worker are served by its successor; where the service manager keeps them (agent.net.kept), also after a
restart. All workers share a unix socket, or a socket from systemd: the first to accept has the caller.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import trio

from agent.base.address import Address
from agent.base.latest import Latest
from agent.net.accept import AdmissionEvents
from agent.net.admission import Admission, Overflow
from agent.net.bind import BindFailed, Bound, another, beside, bind
from agent.net.inherited import SocketComplaint
from agent.net.kept import KeptSockets, slot_of
from agent.net.listeners import ListenerEvents, ListenerKey, Listeners, Opening, release
from agent.workers.messages import HandedSockets, Withdrawn
from agent.workers.publisher import Publisher, SendOrder


class SharedListeners(Listeners):
    """The listeners of the control process: bound here, published to the workers, which accept."""

    shareable = True

    def __init__(
        self,
        events: ListenerEvents,
        publisher: Publisher,
        *,
        workers: int = 1,
        kept: KeptSockets | None = None,
    ) -> None:
        super().__init__(events, kept)
        self._publisher = publisher
        self._workers = workers
        self._of: dict[tuple[ListenerKey, int], list[Bound]] = {}  # by listener and worker
        self._lacking: dict[tuple[ListenerKey, int], str] = {}  # whose sockets could not be made, and why
        self._handed: dict[ListenerKey, Latest[HandedSockets]] = {}

    @property
    def problems(self) -> list[str]:
        """What cannot be bound, and what no worker has a socket of its own for."""
        served = {key for key, _ in self._of}
        unserved = {key: text for (key, _), text in self._lacking.items() if key not in served}
        return [*super().problems, *unserved.values()]

    @property
    def warnings(self) -> list[str]:
        """Which workers lack sockets of a listener that others serve, and why."""
        served = {key for key, _ in self._of}
        return [text for (key, _), text in self._lacking.items() if key in served]

    def sockets(self, key: ListenerKey, slot: int) -> list[socket.socket]:
        """Return a worker's sockets for a listener; its successor gets the same ones.

        Without descriptors for its own it has none for now: that is reported, and they are made later.
        """
        opening = self._openings.get(key)
        if opening is None or not opening.listening or not self._has_own(key, opening, slot):
            return []
        common = [bound.sock for bound in opening.bound if not bound.shareable]
        return [*(bound.sock for bound in self._of[key, slot]), *common]

    def _has_own(self, key: ListenerKey, opening: Opening, slot: int) -> bool:
        """Make a worker's own sockets unless they are there; return whether that succeeded."""
        if (key, slot) not in self._of:
            worker, why = f"worker {slot}", self._lacking.pop((key, slot), "")
            try:
                self._of[key, slot] = self._own(opening, slot)
            except BindFailed as error:  # the address is ours, so only a lack of descriptors can be the cause
                self._lacking[key, slot] = f"{worker}: {error}"
                if not why:
                    self.events.listening_failed(worker, str(error))
                return False
        return True

    async def _retry(self) -> None:
        await super()._retry()
        lacking = list(self._lacking)
        had = {key for key, slot in lacking if self._has_own(key, self._openings[key], slot)}
        for key in had:
            self._handed[key].publish(HandedSockets(key=key, purpose=self._openings[key].purpose))

    def give_up(self, slot: int) -> None:
        """Close a slot's sockets, so that the kernel sends no callers to a worker that is down."""
        self._forget_lacks(lambda _, of: of == slot)
        for key in [key for key in self._of if key[1] == slot]:
            self._close(self._of.pop(key))
            opening = self._openings[key[0]]
            opening.bound = [bound for bound in opening.bound if bound.sock.fileno() != -1]

    async def close(self, key: ListenerKey) -> None:
        """Close a listener, here and in the workers."""
        opening = self._openings.pop(key, None)
        if opening is not None:
            self._publisher.withdraw((HandedSockets, key))
            self._handed.pop(key, None)
            self._forget_lacks(lambda of, _: of == key)
            for own in [own for own in self._of if own[0] == key]:
                self._close(self._of.pop(own))
            if not self.successor:
                self.kept.forget(opening.bound)
            for bound in _said(opening) if opening.listening else ():
                self.events.listening_ended(bound.purpose, bound.address)
            release(opening)
        await trio.lowlevel.checkpoint()

    def _forget_lacks(self, meant: Callable[[ListenerKey, int], bool]) -> None:
        self._lacking = {of: text for of, text in self._lacking.items() if not meant(*of)}

    def _own(self, opening: Opening, slot: int) -> list[Bound]:
        """Return a worker's own sockets: those kept from its predecessor, or new ones. Raises BindFailed."""
        kept = [bound for bound in opening.bound if _is_own(bound) and self._slot(bound) == slot]
        there = {bound.address for bound in kept}
        base = [bound for bound in _said(opening) if bound.shareable and bound.address not in there]
        with ExitStack() as undo:
            new = []
            for bound in base:
                new.append(another(bound))
                undo.callback(new[-1].close)
            undo.pop_all()
        for bound in new:
            self.kept.keep(bound, slot)
        return [*kept, *new]

    def _slot(self, bound: Bound) -> int:
        return slot_of(bound.kept) % self._workers

    def _close(self, sockets: Sequence[Bound]) -> None:
        if not self.successor:
            self.kept.forget(sockets)
        for bound in sockets:
            bound.close()

    async def _had(self, address: Address, purpose: str, mode: int | None = None) -> list[Bound]:
        """Return the sockets that are kept at an address, or else a new one. Raises BindFailed."""
        kept = await self.kept.take(address, purpose)
        if not kept:
            return [await bind(address, purpose, mode, shareable=True)]
        if not all(map(_is_shareable, kept)):
            return kept  # one socket for all workers
        for bound in kept:
            bound.shareable = True
        return [beside(kept[0]), *kept]

    def _start(self, key: ListenerKey, opening: Opening) -> None:
        for bound in opening.bound:
            if not bound.shareable:
                bound.listen()
                self.kept.keep(bound)
        for bound in _said(opening):
            self.events.listening(bound.purpose, bound.address)
        opening.listening = True
        handed = self._handed[key] = Latest(HandedSockets(key=key, purpose=opening.purpose))
        self._publisher.post(
            (HandedSockets, key),
            SendOrder.SOCKETS,
            handed,
            lambda message: message,
            withdrawal=Withdrawn(key=key),
        )


class HandedListeners(Listeners):
    """The listeners of a worker: each accepts while the registration wants it and its sockets are here."""

    def __init__(self, events: AdmissionEvents) -> None:
        super().__init__(_OfAdmission(events))
        self._handed: dict[ListenerKey, Sequence[socket.socket]] = {}

    async def bind(self, key: ListenerKey, opening: Opening) -> None:
        """Accept on this listener once its sockets are here."""
        await self.add(key, opening)

    async def add(self, key: ListenerKey, opening: Opening) -> None:
        """Accept on this listener once its sockets are here."""
        self._openings[key] = opening
        self._join(key)
        await trio.lowlevel.checkpoint()

    async def hand(self, key: ListenerKey, sockets: Sequence[socket.socket]) -> None:
        """Take the sockets of a listener, in place of earlier ones."""
        await self.withdraw(key)
        for sock in sockets:
            sock.setblocking(False)  # sets Python's own flag, which a duplicate takes over
        self._handed[key] = sockets
        self._join(key)

    async def withdraw(self, key: ListenerKey) -> None:
        """Close the sockets of a listener, which may get others later."""
        for sock in self._handed.pop(key, ()):
            sock.close()
        opening = self._openings.get(key)
        if opening is not None and opening.ended is not None:
            opening.scope.cancel()
            await opening.ended.wait()
            opening.scope, opening.ended = trio.CancelScope(), None

    def close_handed(self) -> None:
        """Close every socket."""
        for sockets in self._handed.values():
            for sock in sockets:
                sock.close()
        self._handed.clear()

    def _join(self, key: ListenerKey) -> None:
        opening, sockets = self._openings.get(key), self._handed.get(key)
        if opening is not None and sockets:
            # Duplicates, since closing the listener closes its sockets, and it may be wanted again.
            opening.bound = [Bound(purpose=opening.purpose, address="", sock=sock.dup()) for sock in sockets]
            self.own.add(opening.bound, meshed=opening.meshed)
            self._start(key, opening)


class _OfAdmission:
    """agent.net.listeners.ListenerEvents of a worker; the control process logs where the agent listens."""

    def __init__(self, events: AdmissionEvents) -> None:
        self._events = events
        self.internal_errors = events.internal_errors
        self.internal_error = events.internal_error

    def listening(self, purpose: str, address: str) -> None:
        """Logged by the control process."""

    def listening_ended(self, purpose: str, address: str) -> None:
        """Logged by the control process."""

    def listening_failed(self, purpose: str, detail: str) -> None:
        """A worker binds nothing."""

    def socket_complaint(self, complaint: SocketComplaint, /) -> None:
        """Logged by the control process."""

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        """The listener is full."""
        self._events.overflowed(admission, reason)

    def exhausted(self, error: OSError, /) -> None:
        """Accepting pauses."""
        self._events.exhausted(error)


def _is_own(bound: Bound) -> bool:
    """Return whether a socket is one worker's, kept from an earlier process."""
    return bound.shareable and bool(bound.kept)


def _said(opening: Opening) -> list[Bound]:
    """Return the sockets that stand for the listener's addresses, without those of single workers."""
    return [bound for bound in opening.bound if not _is_own(bound)]


def _is_shareable(bound: Bound) -> bool:
    if bound.sock.family == socket.AF_UNIX:
        return False
    return bool(bound.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
