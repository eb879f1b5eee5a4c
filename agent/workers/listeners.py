"""Listeners of an agent with workers: the control process binds, every worker lets callers in.

Each worker has a listening socket of its own at every TCP address (SO_REUSEPORT), and the kernel shares the
callers out. The control process made it and keeps it: who waits in its queue when the worker dies is served
by the next one. A unix socket, or one that systemd has made, is one for all: whoever is first takes the
caller.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from agent.base.latest import Latest
from agent.net.accept import AdmissionEvents
from agent.net.admission import Admission, Overflow
from agent.net.bind import Bound, another
from agent.net.listeners import ListenerEvents, ListenerKey, Listeners, Opening, release
from agent.workers.messages import HandedSockets, Withdrawn
from agent.workers.publisher import Publisher, SendOrder


class SharedListeners(Listeners):
    """The control process's: bound here, put on the board, accepted from elsewhere."""

    shareable = True

    def __init__(self, events: ListenerEvents, board: Publisher) -> None:
        super().__init__(events)
        self._board = board
        self._of: dict[tuple[ListenerKey, int], list[Bound]] = {}  # by listener and worker

    def sockets(self, key: ListenerKey, slot: int) -> list[socket.socket]:
        """The sockets of one worker for one listener, the same for its successor. Raises BindFailed."""
        opening = self._openings.get(key)
        if opening is None or not opening.listening:
            return []
        own = self._of.get((key, slot))
        if own is None:
            own = self._of[key, slot] = [another(bound) for bound in opening.bound if bound.shareable]
        common = [bound.sock for bound in opening.bound if not bound.shareable]
        return [*(bound.sock for bound in own), *common]

    def give_up(self, slot: int) -> None:
        """No worker will come there soon: the kernel is to send no caller there."""
        for key in [key for key in self._of if key[1] == slot]:
            _close(self._of.pop(key))

    async def close(self, key: ListenerKey) -> None:
        """Let nobody in there any more; the workers hear of it."""
        opening = self._openings.pop(key, None)
        if opening is not None:
            self._board.withdraw((HandedSockets, key))
            for own in [own for own in self._of if own[0] == key]:
                _close(self._of.pop(own))
            if opening.listening:
                for bound in opening.bound:
                    self.events.listening_ended(bound.purpose, bound.address)
            release(opening)
        await trio.lowlevel.checkpoint()

    def _start(self, key: ListenerKey, opening: Opening) -> None:
        for bound in opening.bound:
            if not bound.shareable:
                bound.listen()
            self.events.listening(bound.purpose, bound.address)
        opening.listening = True
        self._board.post(
            (HandedSockets, key),
            SendOrder.SOCKETS,
            Latest(HandedSockets(key=key, purpose=opening.purpose)),
            lambda order: order,
            withdrawal=Withdrawn(key=key),
        )


class HandedListeners(Listeners):
    """A worker's: a listener lets callers in while it is wanted and its sockets have been handed over."""

    def __init__(self, events: AdmissionEvents) -> None:
        super().__init__(_OfAdmission(events))
        self._handed: dict[ListenerKey, Sequence[socket.socket]] = {}

    async def bind(self, key: ListenerKey, opening: Opening) -> None:
        """It is wanted."""
        await self.add(key, opening)

    async def add(self, key: ListenerKey, opening: Opening) -> None:
        """It is wanted."""
        self._openings[key] = opening
        self._join(key)
        await trio.lowlevel.checkpoint()

    async def hand(self, key: ListenerKey, sockets: Sequence[socket.socket]) -> None:
        """Listening sockets for it; any former ones are over."""
        await self.withdraw(key)
        for sock in sockets:
            sock.setblocking(False)  # Python does not know that they are, and a copy would be as it thinks
        self._handed[key] = sockets
        self._join(key)

    async def withdraw(self, key: ListenerKey) -> None:
        """Its sockets are over; it may still be wanted, and get others."""
        for sock in self._handed.pop(key, ()):
            sock.close()
        opening = self._openings.get(key)
        if opening is not None and opening.ended is not None:
            opening.scope.cancel()
            await opening.ended.wait()
            opening.scope, opening.ended = trio.CancelScope(), None

    def close_handed(self) -> None:
        """Give every socket back."""
        for sockets in self._handed.values():
            for sock in sockets:
                sock.close()
        self._handed.clear()

    def _join(self, key: ListenerKey) -> None:
        opening, sockets = self._openings.get(key), self._handed.get(key)
        if opening is not None and sockets:
            # Copies, for a listener that is closed closes its sockets, and may be wanted again.
            opening.bound = [Bound(purpose=opening.purpose, address="", sock=sock.dup()) for sock in sockets]
            self.own.add(opening.bound, meshed=opening.meshed)
            self._start(key, opening)


class _OfAdmission:
    """agent.net.listeners.ListenerEvents of a worker: where it listens, its control process has said."""

    def __init__(self, events: AdmissionEvents) -> None:
        self._events = events
        self.internal_errors = events.internal_errors
        self.internal_error = events.internal_error

    def listening(self, purpose: str, address: str) -> None:
        """Said already."""

    def listening_ended(self, purpose: str, address: str) -> None:
        """Said already."""

    def listening_failed(self, purpose: str, detail: str) -> None:
        """Nothing is bound here."""

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        """Callers are turned away."""
        self._events.overflowed(admission, reason)

    def exhausted(self, error: OSError, /) -> None:
        """Accepting pauses."""
        self._events.exhausted(error)


def _close(sockets: Sequence[Bound]) -> None:
    for bound in sockets:
        bound.close()
