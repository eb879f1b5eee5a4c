"""Serves a tunnel of a caller: each stream is judged when it opens, and only then is our app dialled.

A stream is a connection in everything but its bytes: in the ledger, the limits, the log, the metrics, and
before the reauthorizer, which cuts streams one by one. A refused stream is answered with a status and the
name of the reason. The common case takes no task and no wait: the verdict is a look-up, and a dial on the
same machine is done at once. A dial that waits, and requests that are judged one by one, have a task each.

Newer credentials retire the tunnel: its client opens the next streams in another one, and the streams in this
one go on. So does the end of our accepting.
"""

from __future__ import annotations

import socket
from enum import StrEnum

import trio
from OpenSSL import SSL

from agent.base.containment import Where, contained
from agent.connections.connection import Connection, Handling, nothing_to_cut
from agent.connections.ledger import named_ending
from agent.connections.records import CloseReason, Direction
from agent.h2.faults import ConnectionFault, ErrorCode
from agent.h2.requests import CONNECT, Request
from agent.h2.stream import Stream
from agent.inbound.by_request import serve_requests
from agent.inbound.verdict import Admitted, Denied, Inbound, InboundReason, StreamJudge
from agent.net.admission import Overflow
from agent.net.dial import Begun, DialFailed, DialReason, begin, finish, took_at_once
from agent.policy.authorize import VerdictReason
from agent.relay.close import close_both, close_without_notify
from agent.relay.splice import Ending
from agent.tunnel.byte_stream import TunnelStream
from agent.tunnel.ends import FORBIDDEN, NOT_ALLOWED, UNAVAILABLE, TunnelReason
from agent.tunnel.leg import Leg
from agent.tunnel.refusal import refusal_fields
from agent.tunnel.tunnel import LOOK_SECONDS, Tunnel

_NAME = "a stream of a tunnel"
_OURS = frozenset[StrEnum](  # reasons that say nothing about the caller's rights
    {
        *(InboundReason.NO_CREDENTIALS_YET, InboundReason.NO_INTENTIONS_YET),
        *(InboundReason.CREDENTIALS_EXPIRED, InboundReason.CREDENTIALS_UNTRUSTED),
        *(VerdictReason.INTENTIONS_TOO_OLD, InboundReason.NO_APP),
        Overflow.CONNECTIONS,
    }
)
_STATUS = {**dict.fromkeys(_OURS, UNAVAILABLE), InboundReason.NOT_CONNECT: NOT_ALLOWED}  # else 403


async def serve_tunnel(
    sock: socket.socket,
    tls: SSL.Connection,
    inbound: Inbound,
    *,
    caller: Admitted | None,
    connection: Connection,
    preamble: bytes,
) -> None:
    """Serve the streams of a proven caller until the tunnel ends; `connection` is the tunnel's own record."""
    async with trio.open_nursery() as nursery:
        service = _Service(caller, connection, preamble, inbound, nursery)
        tunnel = Tunnel(tls, sock, inbound.relay, service, client=False)
        inbound.ledger.become_tunnel(connection, tunnel, _generation(tunnel, inbound))
        tunnel.start()
        try:
            nursery.start_soon(_retire_in_time, tunnel, inbound)
            nursery.start_soon(_look_after, tunnel)
            await tunnel.ended.wait()
        finally:
            tunnel.end(connection.closing or CloseReason.SHUTDOWN)
            close_without_notify(sock)
            nursery.cancel_scope.cancel()
    if tunnel.failure is not None:
        raise tunnel.failure
    assert tunnel.reason is not None  # it has ended
    connection.end(tunnel.reason, tunnel.detail)


def _generation(tunnel: Tunnel, inbound: Inbound) -> int:
    """Return the generation of our credentials in the handshake: the present one, or the one before."""
    current = inbound.credentials.value
    assert current is not None  # the handshake used them; a cell is never emptied
    return current.generation - (current.server is not tunnel.context)


async def _retire_in_time(tunnel: Tunnel, inbound: Inbound) -> None:
    """Retire the tunnel when newer credentials come, or when no more callers are accepted."""
    async with trio.open_nursery() as nursery:

        async def newer() -> None:
            while (current := inbound.credentials.value) is None or current.server is tunnel.context:
                await inbound.credentials.newer(inbound.credentials.version)
            nursery.cancel_scope.cancel()

        nursery.start_soon(newer)
        await inbound.leaving.wait()
        nursery.cancel_scope.cancel()
    tunnel.retire()


async def _look_after(tunnel: Tunnel) -> None:
    """Ask a silent peer for a sign of life, and end a retired tunnel that has no streams."""
    while True:
        await trio.sleep(LOOK_SECONDS)
        if not tunnel.streams and tunnel.h2.refuses_after is not None:
            tunnel.end(TunnelReason.RETIRED)
        elif not tunnel.look():
            return


class _Service:
    """What the streams of one tunnel share (agent.tunnel.tunnel.TunnelEvents)."""

    def __init__(
        self,
        caller: Admitted | None,
        connection: Connection,
        preamble: bytes,
        inbound: Inbound,
        nursery: trio.Nursery,
    ) -> None:
        self.caller = caller
        self.connection = connection
        self.preamble = preamble
        self.inbound = inbound
        self.nursery = nursery
        self.app = str(inbound.app)  # text, made once
        self.has_app = True
        self.count = 0  # streams that are served
        self.judge = StreamJudge()
        self._joined = 0  # places of all of them but one

    def on_request(self, tunnel: Tunnel, stream: Stream, request: Request) -> None:
        """See TunnelEvents."""
        self._renew()
        _Call(self, tunnel, stream).begin(request)

    def _renew(self) -> None:
        """Take on the newest registration: its app and limits may have changed since the tunnel began."""
        if self.inbound.renewed is None:
            return
        newest = self.inbound.renewed()
        self.has_app = newest is not None
        if newest is not None and newest is not self.inbound:
            self.inbound, self.app = newest, str(newest.app)

    def on_change(self, _tunnel: Tunnel) -> None:
        """See TunnelEvents."""

    def enter(self) -> None:
        """Take a slot for a stream; the tunnel's own is that of one of them. Raises Denied."""
        if self.count and self.caller is not None:
            if not self.caller.join():
                raise Denied(Overflow.CONNECTIONS, "the listener's limit is reached")
            self._joined += 1
        self.count += 1

    def leave(self) -> None:
        """Free what `enter` took."""
        self.count -= 1
        if self._joined and self.caller is not None:
            self._joined -= 1
            self.caller.part()


class _Call:
    """One stream, from its request to its end."""

    __slots__ = (
        "_connection",
        "_done",
        "_entered",
        "_inbound",
        "_leg",
        "_scope",
        "_service",
        "_stream",
        "_tunnel",
    )

    def __init__(self, service: _Service, tunnel: Tunnel, stream: Stream) -> None:
        self._service = service
        self._tunnel = tunnel
        self._stream = stream
        self._done = False
        self._entered = False  # it holds a slot
        self._leg: Leg | None = None
        self._scope: trio.CancelScope | None = None  # of the task, if there is one
        self._inbound = service.inbound  # as it is now
        of = service.connection
        connection = service.inbound.ledger.begin(Direction.INBOUND, of.caller, self.cut)
        connection.ours, connection.peer, connection.cipher = of.ours, of.peer, of.cipher
        self._connection = connection

    def begin(self, request: Request) -> None:
        """Judge the stream, and serve it or refuse it. Raises ConnectionFault."""
        inbound = self._inbound
        try:
            self._judge(request)
            if self._connection.handling is Handling.BY_REQUEST:
                self._start(None)
                return
            begun = begin(inbound.app, inbound.shun)
            if begun is None or not begun.connected:
                self._start(begun)
            else:
                self._serve(begun.sock)
        except (Denied, DialFailed) as refusal:
            self._refuse(refusal)

    def cut(self) -> None:
        """End the stream for the reason that `Connection.close` has noted."""
        if self._scope is not None:
            self._scope.cancel()
        elif self._leg is not None:
            self._leg.cut(ErrorCode.CANCEL)
            close_both(self._leg.sock, None, None)
            self._finish()

    def _judge(self, request: Request) -> None:
        """Decide as for a new connection of this caller, and take a slot. Raises Denied."""
        service, connection = self._service, self._connection
        peer = connection.peer
        assert peer is not None  # proven before the tunnel began
        if request.method != CONNECT:
            raise Denied(InboundReason.NOT_CONNECT, "a tunnel takes CONNECT, and no other method")
        if not service.has_app:
            raise Denied(InboundReason.NO_APP, "the registration has lost its app")
        connection.handling = service.judge.judge(connection, peer, self._inbound)
        service.enter()
        self._entered = True

    def _serve(self, sock: socket.socket) -> None:
        """Relay between the stream and a connection to our app, without a task. Raises DialFailed."""
        connection, service = self._connection, self._service
        if service.preamble and not took_at_once(sock, service.preamble):
            sock.close()
            raise DialFailed(DialReason.FAILED, f"{service.app}: it took no PROXY header")
        connection.dialled = service.app
        connection.relaying()
        self._leg = leg = Leg(self._tunnel, sock, connection.progress, self._over)
        self._tunnel.serve(self._stream, leg)

    def _over(self, leg: Leg) -> None:
        assert leg.ending is not None  # it is over
        close_both(leg.sock, None, leg.ending)
        if leg.failure is not None:
            self._inbound.faults.internal_error(Where.CONNECTION, _NAME, leg.failure)
            self._connection.end(CloseReason.INTERNAL_ERROR)
        self._connection.end(leg.ending, leg.detail)
        self._finish()

    def _refuse(self, refusal: Denied | DialFailed) -> None:
        self._connection.end(refusal.reason, refusal.detail)
        self._finish()
        app = isinstance(refusal, DialFailed)
        status = UNAVAILABLE if app else _STATUS.get(refusal.reason, FORBIDDEN)
        name = f"app_{refusal.reason.value}" if app else refusal.reason.value
        self._tunnel.h2.refuse(self._stream, status, refusal_fields(status, name))

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        self._leg = None  # no cycle is left to the collector
        self._connection.cut = nothing_to_cut
        if self._entered:
            self._service.leave()
        self._inbound.ledger.finish(self._connection)

    # --- what has to wait ---

    def _start(self, begun: Begun | None) -> None:
        """Serve the stream in a task; what comes meanwhile is kept, at most its window."""
        stream = TunnelStream(self._tunnel, self._stream, self._connection.progress)
        self._stream.owner = stream
        self._scope = trio.CancelScope()
        faults = self._inbound.faults
        self._service.nursery.start_soon(contained, faults, Where.CONNECTION, _NAME, self._run, stream, begun)

    async def _run(self, stream: TunnelStream, begun: Begun | None) -> None:
        ending: Ending | None = None
        assert self._scope is not None  # made by `_start`
        try:
            with named_ending(self._connection), self._scope:
                ending = await self._serve_in_task(stream, begun)
        finally:
            stream.close(ErrorCode.NO_ERROR if ending is Ending.CLEAN else ErrorCode.CONNECT_ERROR)
            self._finish()

    async def _serve_in_task(self, stream: TunnelStream, begun: Begun | None) -> Ending | None:
        """Return how the stream ended; None if it was refused."""
        inbound, connection = self._inbound, self._connection
        if connection.handling is Handling.BY_REQUEST:
            self._accept()
            return await serve_requests(stream, connection, self._service.preamble, inbound)
        sock: socket.socket | None = None
        ending: Ending | None = None
        try:
            preamble = self._service.preamble
            sock = await finish(begun, inbound.app, inbound.connect_timeout, preamble, inbound.shun)
            self._accept()
            connection.dialled = self._service.app
            connection.relaying()
            transfer = await stream.relay(inbound.relay, sock, connection.progress)
            ending = transfer.ending
            connection.end(ending, transfer.detail)
        except DialFailed as failure:
            self._refuse_late(failure)
        finally:
            close_both(sock, None, ending)
        return ending

    def _accept(self) -> None:
        if self._stream.id in self._tunnel.h2.streams:  # the peer may have reset it
            self._tunnel.h2.accept(self._stream)
            self._tunnel.wake()

    def _refuse_late(self, failure: DialFailed) -> None:
        try:
            self._refuse(failure)
        except ConnectionFault as fault:
            self._tunnel.end(fault.reason, fault.detail, fault.code)
        self._tunnel.wake()
