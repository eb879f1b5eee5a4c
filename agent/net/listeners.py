"""The listeners of one sidecar: an address that cannot be had now is tried again, and the rest is served.

At start an address that no retry helps to (a port that takes a permission) ends the agent with a clear word.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Self, TypeAlias

import trio

from agent.base.address import Address, TcpAddress
from agent.base.containment import Where, kept_up
from agent.net.accept import AdmissionEvents, AtOnce, Handler, accept_all
from agent.net.admission import Admission, Overflow
from agent.net.bind import BindFailed, Bound, adopt, bind
from agent.net.inherited import SocketComplaint
from agent.net.kept import KeptSockets
from agent.net.own_listeners import OwnListeners
from agent.net.shortage import files_run_out, first_kept
from upstreams.spec import LOOPBACK, Bind

RETRY_SECONDS = 5.0
CHECK = "Consul's check of the public port"

ListenerKey: TypeAlias = Bind | str  # an upstream's bind, or the name of the only listener of its kind


class ListenerEvents(AdmissionEvents, Protocol):
    """The events of listeners."""

    def listening(self, purpose: str, address: str) -> None: ...
    def listening_ended(self, purpose: str, address: str) -> None: ...
    def listening_failed(self, purpose: str, detail: str) -> None: ...
    def socket_complaint(self, complaint: SocketComplaint, /) -> None: ...


@dataclass(slots=True, kw_only=True)
class Opening:
    """One listener: its purpose, address and handler; then its sockets and its accept loop.

    `inherited`: sockets from systemd that replace the address. `checked`: Consul checks 127.0.0.1 at this
    port (docs/consul-api.md#sidecar-service), so a listener on one outside address is bound there too.
    """

    purpose: str
    address: Address
    handler: Handler
    at_once: AtOnce | None = None
    admission: Admission = field(default_factory=Admission)
    mode: int | None = None
    inherited: Sequence[socket.socket] = ()
    checked: bool = False
    meshed: bool = False  # it serves callers of the mesh, so that an upstream may dial it
    bound: Sequence[Bound] = ()
    listening: bool = False
    problem: str = ""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event | None = None

    @property
    def addresses(self) -> list[str]:
        """The addresses it is bound to."""
        return [bound.address for bound in self.bound]


def limits_reached(listeners: Listeners) -> list[str]:
    """Return the limits that callers meet now, a text each: open files, and full listeners."""
    every = listeners.all().values()
    files = files_run_out(sum(one.admission.live for one in every))
    full = [one for one in every if one.admission.full is Overflow.CONNECTIONS]
    told = [
        f"{one.purpose} is full: {one.admission.live} of {one.admission.limit} connections" for one in full
    ]
    told += [f"{one.purpose}: {one.admission.pressure}" for one in every if one.admission.pressure]
    return [*([files] if files else []), *told]


class Listeners:
    """Every listener by its key. Accept loops run in one nursery, connections in another."""

    shareable = False  # whether other processes may have sockets at the same addresses

    def __init__(self, events: ListenerEvents, kept: KeptSockets | None = None) -> None:
        self.events = events
        self.kept = kept or KeptSockets()
        self._loops: trio.Nursery  # set by `serve_in`
        self._connections: trio.Nursery
        self._openings: dict[ListenerKey, Opening] = {}
        self._open = False
        self.successor = False  # whether another process of the service takes the kept sockets over
        self.own = OwnListeners()

    def serve_in(self, loops: trio.Nursery, connections: trio.Nursery) -> Self:
        """Run the accept loops in one nursery and the connections in another; return the listeners."""
        self._loops = loops
        self._connections = connections
        return self

    def get(self, key: ListenerKey) -> Opening | None:
        """Return the listener of that key; None without one."""
        return self._openings.get(key)

    def all(self) -> Mapping[ListenerKey, Opening]:
        """Return every listener by key."""
        return dict(self._openings)

    @property
    def problems(self) -> list[str]:
        """What cannot be bound, and why."""
        return [opening.problem for opening in self._openings.values() if opening.problem]

    @property
    def warnings(self) -> list[str]:
        """What is served by a part of the workers only, and why."""
        return []

    async def bind(self, key: ListenerKey, opening: Opening) -> None:
        """Bind the addresses and accept no caller yet; an address that fails for now is retried.

        Raises BindFailed where no retry helps.
        """
        self._openings[key] = opening
        try:
            await self._take(opening)
        except BindFailed as error:
            if not error.passing:
                raise
            self._failed(opening, error)

    def open(self) -> None:
        """Let callers in wherever an address was had."""
        self._open = True
        for key, opening in self._openings.items():
            if opening.problem:
                continue
            try:
                self._start(key, opening)
            except BindFailed as error:  # of two sockets bound to one port, the second may not listen
                self._failed(opening, error)

    async def add(self, key: ListenerKey, opening: Opening) -> None:
        """Bind and open another listener; a failure is reported, and retried later."""
        self._openings[key] = opening
        try:
            await self._take(opening)
            if self._openings.get(key) is not opening:  # closed meanwhile
                release(opening)
                return
            if self._open:
                self._start(key, opening)
            opening.problem = ""
        except BindFailed as error:
            self._failed(opening, error)

    def _failed(self, opening: Opening, error: BindFailed) -> None:
        release(opening)
        if opening.problem != str(error):
            opening.problem = str(error)
            self.events.listening_failed(opening.purpose, opening.problem)

    async def retry_failed(self) -> None:
        """Retry failed listeners until cancelled."""
        while True:
            await trio.sleep(RETRY_SECONDS)
            await self._retry()

    async def _retry(self) -> None:
        for key, opening in list(self._openings.items()):
            if opening.problem:
                await self.add(key, opening)

    async def close(self, key: ListenerKey) -> None:
        """Close a listener; its connections continue. When this returns its address is free.

        With a `successor` the address is not free: who connects waits for that process.
        """
        opening = self._openings.pop(key, None)
        if opening is not None:
            if not self.successor:
                self.kept.forget(opening.bound)
            await _stop(opening)

    def release(self) -> None:
        """Close what was bound and never opened, after a failed start."""
        for opening in self._openings.values():
            if opening.ended is None:
                release(opening)

    async def close_all(self) -> None:
        """Close every listener."""
        for key in list(self._openings):
            await self.close(key)

    def _start(self, _key: ListenerKey, opening: Opening) -> None:
        for bound in opening.bound:
            bound.listen()
            self.kept.keep(bound)
        opening.listening = True
        opening.ended = trio.Event()
        self._loops.start_soon(self._accept, opening, opening.ended)
        for bound in opening.bound:
            self.events.listening(bound.purpose, bound.address)

    async def _accept(self, opening: Opening, ended: trio.Event) -> None:
        accept = partial(
            accept_all,
            [bound.sock for bound in opening.bound],
            opening.handler,
            purpose=opening.purpose,
            connections=self._connections,
            admission=opening.admission,
            events=self.events,
            first_kept=first_kept,
            at_once=opening.at_once,
            replaced=lambda: self.successor,
        )
        try:
            with opening.scope:
                await kept_up(self.events, Where.LISTENER, opening.purpose, accept)
        finally:
            for bound in opening.bound:
                self.events.listening_ended(bound.purpose, bound.address)
            release(opening)
            ended.set()

    async def _take(self, opening: Opening) -> None:
        opening.bound = await self._bound(opening)
        if opening.checked:
            await self._take_check(opening)
        self.own.add(opening.bound, meshed=opening.meshed)

    async def _take_check(self, opening: Opening) -> None:
        # If this address is taken only the check fails, so the failure is reported and nothing else.
        places = [_place_of_check(bound.sock) for bound in opening.bound]
        place = places[0]
        if place is not None and None not in places:
            try:
                opening.bound = [*opening.bound, *await self._had(place, CHECK)]
            except BindFailed as error:
                self.events.listening_failed(CHECK, str(error))

    async def _bound(self, opening: Opening) -> list[Bound]:
        if opening.inherited:
            return [adopt(sock, opening.purpose) for sock in opening.inherited]
        return await self._had(opening.address, opening.purpose, opening.mode)

    async def _had(self, address: Address, purpose: str, mode: int | None = None) -> list[Bound]:
        """Return the sockets that are kept at an address, or else a new one."""
        kept = await self.kept.take(address, purpose)
        return kept or [await bind(address, purpose, mode, shareable=self.shareable)]


async def _stop(opening: Opening) -> None:
    opening.scope.cancel()
    if opening.ended is None:
        release(opening)
    else:
        await opening.ended.wait()


def release(opening: Opening) -> None:
    """Close a listener's sockets."""
    opening.listening = False
    for bound in opening.bound:
        bound.close()
    opening.bound = ()


def _place_of_check(sock: socket.socket) -> TcpAddress | None:
    """Return 127.0.0.1 and the listener's port; None if the listener answers there anyway."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port = sock.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    return None if address.is_loopback or address.is_unspecified else TcpAddress(LOOPBACK, port)
