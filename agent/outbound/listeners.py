"""The listeners for our app: each is opened, closed or retargeted as the registration changes."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from agent.base.containment import Where, contained
from agent.base.latest import Latest
from agent.connections.ledger import Ledger
from agent.connections.records import CloseReason, Direction
from agent.net.admission import Admission, Slot
from agent.net.inherited import InheritedSockets, address
from agent.net.line import SHARES
from agent.net.listeners import Listeners, Opening
from agent.outbound.upstream_state import UpstreamContext, UpstreamState
from agent.snapshot import EndpointSources
from upstreams.plan import plan
from upstreams.spec import Bind, LocalBind, Upstream

# Handshakes that one upstream has at a time, as a part of max_handshakes: those of two processes, as in an
# upgrade, are what a callee with the same setting allows to one source before it takes slow ones for stalled.
APP_SHARES = 2 * SHARES

_Held = Mapping[Bind, tuple[socket.socket, ...]]
Serve = Callable[[socket.socket, Slot, UpstreamState], Awaitable[None]]
ServeAtOnce = Callable[[socket.socket, Slot, Callable[[], None], UpstreamState], bool]


def never(_sock: socket.socket, _slot: Slot, _again: Callable[[], None], _targets: UpstreamState) -> bool:
    """Leave every connection to `serve`."""
    return False


@dataclass(slots=True, kw_only=True)
class UpstreamListeners:
    """The upstreams in force. `serve` serves one connection of our app until its end.

    `serve_at_once` may take it over without a task (agent.net.accept.AtOnce).
    """

    listeners: Listeners
    sources: EndpointSources
    ledger: Ledger
    serve: Serve
    context: UpstreamContext
    limit: int | None  # of each listener; an upstream's own limits refuse by a reason of their own
    unsettled_limit: int | None  # of a listener for callers of the mesh; of each of these a share
    current: dict[Bind, UpstreamState]
    serve_at_once: ServeAtOnce = never
    inherited: InheritedSockets = field(default_factory=InheritedSockets)
    in_force: Latest[tuple[UpstreamState, ...]] = field(
        default_factory=Latest
    )  # those of `current`, after a change

    @property
    def names(self) -> set[str]:
        """The destinations in force, as the records of connections name them."""
        return {str(one.upstream.destination) for one in self.current.values()}

    async def bind(self, upstreams: Sequence[Upstream]) -> None:
        """Bind every address at the start. Raises BindFailed."""
        self.sources.want(upstreams)
        held = self.inherited.of_upstreams(upstreams)
        for upstream in upstreams:
            self.current[upstream.bind] = UpstreamState(upstream, self.context)
            await self.listeners.bind(upstream.bind, self._opening(upstream, held))
        self.in_force.publish(tuple(self.current.values()))

    async def follow(self, upstreams: Sequence[Upstream], grace: float, connections: trio.Nursery) -> None:
        """Apply these upstreams. Connections of a removed upstream have `grace` seconds to end."""
        steps = plan([targets.upstream for targets in self.current.values()], upstreams)
        for upstream in steps.close:
            await self.listeners.close(upstream.bind)
            del self.current[upstream.bind]
        self.sources.want(upstreams)
        held = self.inherited.of_upstreams(upstreams)
        for upstream in steps.retarget:
            self.current[upstream.bind].become(upstream)
            opening = self.listeners.get(upstream.bind)
            if opening is not None:
                opening.purpose = _purpose(upstream)
                opening.admission.patience = upstream.deadline
        for upstream in steps.open:
            self.current[upstream.bind] = UpstreamState(upstream, self.context)
            await self.listeners.add(upstream.bind, self._opening(upstream, held))
        await self._change_hands(upstreams, held)
        self.in_force.publish(tuple(self.current.values()))
        served = {str(upstream.destination) for upstream in upstreams}
        for upstream in steps.close:
            if str(upstream.destination) not in served:
                name = str(upstream.destination)
                connections.start_soon(
                    contained, self.listeners.events, Where.TASK, f"retire {name}", self._retire, name, grace
                )

    async def _change_hands(self, upstreams: Sequence[Upstream], held: _Held) -> None:
        """Open the listeners anew whose sockets of systemd are others now, as their names say."""
        for upstream in upstreams:
            opening = self.listeners.get(upstream.bind)
            if opening is not None and opening.inherited != held.get(upstream.bind, ()):
                await self.listeners.close(upstream.bind)
                await self.listeners.add(upstream.bind, self._opening(upstream, held))

    async def _retire(self, destination: str, grace: float) -> None:
        last = [c for c in self.ledger.live(Direction.OUTBOUND) if c.upstream == destination]
        if last:
            await trio.sleep(grace)
        for connection in last:
            connection.close(CloseReason.UPSTREAM_REMOVED)

    def _opening(self, upstream: Upstream, held: _Held) -> Opening:
        return Opening(
            purpose=_purpose(upstream),
            address=address(upstream.bind),
            inherited=held.get(upstream.bind, ()),
            mode=None if isinstance(upstream.bind, LocalBind) else upstream.bind.mode,
            handler=partial(self._serve, upstream.bind),
            at_once=partial(self._serve_at_once, upstream.bind),
            admission=Admission(self.limit, self._at_a_time(), patience=upstream.deadline),
        )

    def _at_a_time(self) -> int | None:
        return None if self.unsettled_limit is None else max(1, self.unsettled_limit // APP_SHARES)

    async def _serve(self, bind: Bind, sock: socket.socket, place: Slot) -> None:
        """Serve a connection by the upstream that has the bind at this moment."""
        targets = self.current.get(bind)
        if targets is None:  # accepted as the listener was closing
            sock.close()
            return
        await self.serve(sock, place, targets)

    def _serve_at_once(self, bind: Bind, sock: socket.socket, place: Slot, again: Callable[[], None]) -> bool:
        targets = self.current.get(bind)
        return targets is not None and self.serve_at_once(sock, place, again, targets)


def _purpose(upstream: Upstream) -> str:
    return f"upstream {upstream.destination}"
