"""Serves a connection of our app without a task or a wait, where a tunnel to its first choice is ready.

Most connections are of this kind once there is a tunnel. What would wait, fail or try another candidate is
left to `outbound.serve`: `AtOnce.serve` returns False, or calls `again` if the far side has refused the
stream before a byte of our app was taken.

The endpoint is chosen anew for each connection, by load, weight and failures. The way to it, which is its
address, its tunnel, and that no intention is against it, is found once, and taken again while all that it
was found by is the same.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from agent.base.containment import FaultEvents, Where
from agent.connections.connection import Connection, nothing_to_cut
from agent.connections.ledger import Ledger
from agent.connections.records import CloseReason, Direction
from agent.h2.faults import ErrorCode
from agent.net.admission import Slot
from agent.net.dial import remote
from agent.outbound.outbound import Outbound
from agent.outbound.reasons import name_refusal
from agent.outbound.tunnels import ClientTunnel, Tunnels
from agent.outbound.upstream_state import UpstreamState, overflow
from agent.policy.source_intentions import Callee
from agent.relay.close import close_both
from agent.relay.splice import Transfer
from agent.tunnel.leg import Leg
from upstreams.reach import Unreachable
from upstreams.route import Candidate, dialled
from upstreams.spec import Upstream

MOST_WAYS = 256  # remembered of one upstream


@dataclass(frozen=True, slots=True)
class AtOnce:
    """What all such connections share. Of `outbound` only the cells and the clock are used."""

    outbound: Outbound
    tunnels: Tunnels
    ledger: Ledger
    faults: FaultEvents

    def serve(
        self, sock: socket.socket, slot: Slot, again: Callable[[], None], targets: UpstreamState
    ) -> bool:
        """Take the connection over if it can be served at once; then the slot is freed at its end."""
        if not self.tunnels.any:
            return False
        found = _way(targets, self.outbound, self.tunnels)
        if found is None:
            return False
        slot.settle()
        way, tunnel = found
        _Call(sock, slot, again, targets, self).begin(way, tunnel)
        return True


@dataclass(frozen=True, slots=True)
class _Way:
    """How a candidate is reached, and all that this was found by; each cell by how often it was published."""

    candidate: Candidate
    tunnel: weakref.ref[ClientTunnel]
    dialled: str
    destination: str
    upstream: Upstream
    own_datacenter: str
    credentials: int
    source_intentions: int

    def holds(self, candidate: Candidate, targets: UpstreamState, outbound: Outbound) -> bool:
        """Return whether the same would be found now; not whether the tunnel takes a stream."""
        known = self.candidate
        return (
            known.endpoint is candidate.endpoint
            and known.hop is candidate.hop
            and self.upstream is targets.upstream
            and self.own_datacenter == targets.own_datacenter
            and self.credentials == outbound.credentials.version
            and self.source_intentions == outbound.source_intentions.version
        )


def _way(targets: UpstreamState, outbound: Outbound, tunnels: Tunnels) -> tuple[_Way, ClientTunnel] | None:
    """Return the first choice and the tunnel to it; None if there is none that is ready and allowed."""
    contexts = outbound.credentials.value
    if targets.warm is not None or contexts is None:
        return None
    if contexts.credentials.fault(outbound.clock()) is not None or overflow(targets) is not None:
        return None
    candidate = next(targets.candidates(), None)
    if candidate is None:
        return None
    key = candidate.hop.key
    known = targets.ways.get(key)
    if isinstance(known, _Way) and known.holds(candidate, targets, outbound):
        tunnel = known.tunnel()
        if tunnel is not None and tunnel.takes_streams:
            return known, tunnel
    found = _found(candidate, targets, outbound, tunnels)
    if found is not None:
        if len(targets.ways) >= MOST_WAYS:
            targets.ways.clear()
        targets.ways[key] = found[0]
    return found


def _found(
    candidate: Candidate, targets: UpstreamState, outbound: Outbound, tunnels: Tunnels
) -> tuple[_Way, ClientTunnel] | None:
    if not targets.may_tunnel(candidate).in_tunnel:
        return None
    try:
        dialling = targets.address(candidate)
    except Unreachable:
        return None
    expected = candidate.endpoint.expected
    tunnel = tunnels.ready(expected, dialling)
    if tunnel is None or _is_denied(outbound, expected):
        return None
    way = _Way(
        candidate=candidate,
        tunnel=weakref.ref(tunnel),
        dialled=dialled(candidate, dialling, "tunnel"),
        destination=str(targets.upstream.destination),
        upstream=targets.upstream,
        own_datacenter=targets.own_datacenter,
        credentials=outbound.credentials.version,
        source_intentions=outbound.source_intentions.version,
    )
    return way, tunnel


def _is_denied(outbound: Outbound, callee: Callee) -> bool:
    """Return whether intentions deny our service the call, be it only audited."""
    known, contexts = outbound.source_intentions.value, outbound.credentials.value
    if known is None or contexts is None:
        return False
    return known.denial(contexts.credentials.leaf.id, callee) is not None


class _Call:
    """One connection, until its stream is over."""

    __slots__ = ("_again", "_connection", "_leg", "_shared", "_slot", "_sock", "_targets", "_way")

    def __init__(
        self,
        sock: socket.socket,
        slot: Slot,
        again: Callable[[], None],
        targets: UpstreamState,
        shared: AtOnce,
    ) -> None:
        self._sock = sock
        self._slot = slot
        self._again = again
        self._targets = targets
        self._shared = shared
        self._way: _Way
        self._leg: Leg | None = None
        self._connection: Connection

    def begin(self, way: _Way, tunnel: ClientTunnel) -> None:
        """Open the stream."""
        caller, key = self._slot.caller or remote(self._sock), way.candidate.hop.key
        connection = self._shared.ledger.begin(Direction.OUTBOUND, caller, self._cut, way.destination)
        self._way, self._connection = way, connection
        self._targets.connections.add(connection)
        self._targets.loads[key] += 1
        connection.ours, connection.peer, connection.cipher = tunnel.ours, tunnel.peer, tunnel.cipher
        connection.queue_seconds = self._slot.waited
        connection.dialled = way.dialled
        connection.relaying()
        leg = tunnel.open(self._sock, connection.progress, self._over)
        if not leg.over:
            self._leg = leg

    def _cut(self) -> None:
        """End the connection for the reason that `Connection.close` has noted."""
        leg = self._leg
        if leg is not None:
            leg.cut(ErrorCode.CANCEL)
            self._leave()
            close_both(self._sock, None, None)
            self._shared.ledger.finish(self._connection)
            self._slot.leave()

    def _over(self, leg: Leg) -> None:
        transfer = leg.transfer()
        self._leave()
        if leg.failure is not None:
            self._shared.faults.internal_error(Where.CONNECTION, "a stream of a tunnel", leg.failure)
            self._connection.end(CloseReason.INTERNAL_ERROR)
        if transfer.answered:
            self._targets.succeeded(self._way.candidate)
        if transfer.refused and transfer.untouched and leg.failure is None:
            self._shared.ledger.forget(self._connection)
            self._again()
            return
        self._name(transfer)
        close_both(self._sock, None, transfer.ending)
        self._shared.ledger.finish(self._connection)
        self._slot.leave()

    def _name(self, transfer: Transfer) -> None:
        """Name the ending; a refusal after the first byte is final."""
        if not transfer.refused:
            self._connection.end(transfer.ending, transfer.detail)
            return
        reason, detail, blamed = name_refusal(transfer)
        if blamed:
            self._targets.failed(self._way.candidate)
        self._connection.end(reason, detail)

    def _leave(self) -> None:
        connection, loads, key = self._connection, self._targets.loads, self._way.candidate.hop.key
        self._leg = None
        connection.cut = nothing_to_cut
        self._targets.connections.discard(connection)
        loads[key] -= 1
        if not loads[key]:
            del loads[key]
