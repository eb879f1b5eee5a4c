"""Serves a connection of our app without a task or a wait, where a tunnel to its first choice is ready.

Most connections are of this kind once there is a tunnel. What would wait, fail or try another candidate is
left to `outbound.serve`: `AtOnce.serve` returns False, or calls `again` if the far side has refused the
stream before a byte of our app was taken.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.base.containment import FaultEvents, Where
from agent.connections.connection import nothing_to_cut
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
from upstreams.reach import DialAddress, Unreachable
from upstreams.route import Candidate, dialled


@dataclass(frozen=True, slots=True)
class AtOnce:
    """What all such connections share. `outbound` returns what connections of our app share now."""

    outbound: Callable[[], Outbound]
    tunnels: Tunnels
    ledger: Ledger
    faults: FaultEvents

    def serve(
        self, sock: socket.socket, slot: Slot, again: Callable[[], None], targets: UpstreamState
    ) -> bool:
        """Take the connection over if it can be served at once; then the slot is freed at its end."""
        if not self.tunnels.any:
            return False
        outbound = self.outbound()
        way = _way(targets, outbound, self.tunnels)
        if way is None:
            return False
        slot.settle()
        _Call(sock, slot, again, targets, self).begin(*way)
        return True


def _way(
    targets: UpstreamState, outbound: Outbound, tunnels: Tunnels
) -> tuple[Candidate, DialAddress, ClientTunnel] | None:
    """Return the first choice and the tunnel to it; None if there is none that is ready and allowed."""
    contexts = outbound.credentials.value
    if targets.warm is not None or contexts is None:
        return None
    if contexts.credentials.fault(outbound.clock()) is not None or overflow(targets) is not None:
        return None
    candidate = next(targets.candidates(), None)
    if candidate is None or not targets.may_tunnel(candidate).in_tunnel:
        return None
    try:
        dialling = targets.address(candidate)
    except Unreachable:
        return None
    expected = candidate.endpoint.expected
    tunnel = tunnels.ready(expected, dialling)
    if tunnel is None or _is_denied(outbound, expected):
        return None
    return candidate, dialling, tunnel


def _is_denied(outbound: Outbound, callee: Callee) -> bool:
    """Return whether intentions deny our service the call, be it only audited."""
    known, contexts = outbound.source_intentions.value, outbound.credentials.value
    if known is None or contexts is None:
        return False
    return known.denial(contexts.credentials.leaf.id, callee) is not None


class _Call:
    """One connection, until its stream is over."""

    __slots__ = ("_again", "_candidate", "_connection", "_leg", "_shared", "_slot", "_sock", "_targets")

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
        self._candidate: Candidate
        self._leg: Leg | None = None
        destination = str(targets.upstream.destination)
        self._connection = shared.ledger.begin(Direction.OUTBOUND, remote(sock), self._cut, destination)

    def begin(self, candidate: Candidate, dialling: DialAddress, tunnel: ClientTunnel) -> None:
        """Open the stream."""
        self._candidate = candidate
        connection, key = self._connection, candidate.hop.key
        self._targets.connections.add(connection)
        self._targets.loads[key] += 1
        connection.ours, connection.peer, connection.cipher = tunnel.ours, tunnel.peer, tunnel.cipher
        connection.queue_seconds = self._slot.waited
        connection.dialled = dialled(candidate, dialling, "tunnel")
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
            self._targets.succeeded(self._candidate)
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
            self._targets.failed(self._candidate)
        self._connection.end(reason, detail)

    def _leave(self) -> None:
        connection, loads, key = self._connection, self._targets.loads, self._candidate.hop.key
        self._leg = None
        connection.cut = nothing_to_cut
        self._targets.connections.discard(connection)
        loads[key] -= 1
        if not loads[key]:
            del loads[key]
