"""One mutual-TLS connection with many streams, driven by the relay's loop.

Theory of operation. The relay's epoll names what is ready, the TLS connection or the socket of a stream. What
the TLS connection brings goes through the machine (agent.h2) into the legs, each of which writes once when
all is read; what the sockets bring is queued, and goes out in one write at the end of the turn. That is why
many busy streams cost less each than one.

* While the TLS connection takes no bytes, or MOST_QUEUED wait, the tunnel is congested, and a leg that could
  read waits in line. The line is served in its order, each leg QUANTUM at a time, so bulk shares the tunnel.
* A leg whose app does not read holds its stream's window and no more; no other leg notices.
* A fault of the peer ends the tunnel with GOAWAY, which names it, and all streams; so does the end of TCP.
  `ended` is then set, and `failure` has an unforeseen exception. The socket belongs to the caller throughout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from socket import socket
from typing import Protocol

import trio
from OpenSSL import SSL

from agent.h2.connection import MOST_STREAMS, H2Connection
from agent.h2.faults import ConnectionFault, ErrorCode
from agent.h2.requests import Request
from agent.h2.stream import Stream
from agent.relay.pump import RECORD, explain
from agent.relay.relay import Relay
from agent.relay.splice import READ, WRITE, Ending, Progress
from agent.tunnel import records
from agent.tunnel.byte_stream import TunnelStream
from agent.tunnel.carrier import Fed, Sender
from agent.tunnel.ends import TunnelReason
from agent.tunnel.leg import Leg

MOST_QUEUED = 256 * 1024  # bytes of output before no more are read from the sockets
LOOK_SECONDS = 15.0  # between two looks at whether a peer lives
RECORDS = 32  # read in one turn, so that the sockets of other connections have theirs


class TunnelEvents(Protocol):
    """What happens to a tunnel; must not block."""

    def on_request(self, tunnel: Tunnel, stream: Stream, request: Request, /) -> None:
        """The peer opens a stream, which is to get an owner or a refusal."""

    def on_change(self, tunnel: Tunnel, /) -> None:
        """The peer has greeted us or takes no more streams, a stream of ours or the tunnel has ended."""


class Tunnel:
    """One tunnel, after its handshake (agent.tunnel.carrier.Carrier). Use `start`, and at the end `close`."""

    def __init__(
        self,
        tls: SSL.Connection,
        sock: socket,
        relay: Relay,
        events: TunnelEvents,
        *,
        client: bool,
        most_streams: int = MOST_STREAMS,
    ) -> None:
        self._tls = tls
        self._sock = sock
        self._events = events
        self.relay = relay
        self.h2 = H2Connection(self, trio.current_time, client=client, most_streams=most_streams)
        self.waiting: deque[Sender] = deque()
        self.fed: list[Fed] = []
        self.ended = trio.Event()
        self.reason: StrEnum | None = None
        self.detail = ""
        self.failure: Exception | None = None
        self.heard = False  # bytes have come since the last look
        self.opened = 0  # streams so far
        self._rest: memoryview | None = None  # what the TLS connection did not take; retried as it is
        self._read_wants, self._write_wants = READ, WRITE
        self._due = False
        self._pinged = False

    def __repr__(self) -> str:
        return f"<Tunnel streams={self.streams}>"

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self.h2.streams)

    @property
    def takes_streams(self) -> bool:
        """Whether a client may open another stream; not while the window of all streams is used up."""
        return self.reason is None and self.h2.takes_streams and not self.h2.leaving

    @property
    def congested(self) -> bool:
        """See Carrier. Before a tunnel is called so, it sends what it can."""
        if self._rest is None and self.h2.queued > MOST_QUEUED:
            self._flush()
        return self._rest is not None or self.reason is not None

    # --- calls ---

    def start(self) -> None:
        """Begin: send our greeting, and take what OpenSSL has decrypted already."""
        self._watch = self.relay.attach(self._sock.fileno(), self.on_tls, self.fail)
        self.wake()
        self._read()
        self._watch_for()

    def open(self, sock: socket, block: bytes, progress: Progress, on_over: Callable[[Leg], None]) -> Leg:
        """Begin to carry a plain socket's bytes in a new stream; it may be over already, and called so."""
        leg = Leg(self, sock, progress, on_over)
        self.opened += 1
        leg.start(self.h2.open(block, leg))
        self.wake()
        return leg

    def serve(self, stream: Stream, leg: Leg) -> None:
        """Answer 200 and carry a stream of the peer to the socket of the leg."""
        stream.owner = leg
        self.h2.accept(stream)
        leg.start(stream, expects=False)  # the app has just been dialled
        self.wake()

    @property
    def context(self) -> SSL.Context:
        """The context of the handshake, which tells the generation of the credentials."""
        return self._tls.get_context()

    def retire(self) -> None:
        """Let no more streams begin; those that are open go on."""
        self.h2.retire()
        self.wake()

    def look(self) -> bool:
        """Return whether the peer lives; called at intervals. A peer that was silent is asked for a sign."""
        if self.heard:
            self.heard = self._pinged = False
            return True
        if self._pinged:
            self.end(TunnelReason.NO_PONG, "no answer to PING")
            return False
        self._pinged = True
        self.h2.ping()
        self.wake()
        return True

    def end(self, reason: StrEnum, detail: str = "", code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """End the tunnel and every stream in it; the first reason is kept."""
        if self.reason is not None:
            return
        self.reason, self.detail = reason, detail
        self.h2.close(code, "" if code is ErrorCode.NO_ERROR else reason.value)
        self._send_rest()
        self._over(Ending.TLS_TRUNCATED, f"the tunnel ended: {reason.value}: {detail}")

    # --- the TLS connection ---

    def on_tls(self, events: int) -> None:
        """Handle `events` of the TLS connection."""
        if self._rest is not None and events & ~READ | (self._write_wants & READ):
            self._flush()
        if self.reason is None and events & ~WRITE | (self._read_wants & WRITE):
            self._read()
        if self.reason is None:
            self._watch_for()

    def _read(self) -> None:
        recv, receive = self._tls.recv, self.h2.receive
        self._read_wants = READ
        try:
            for _ in range(RECORDS):
                data = recv(RECORD)
                self.heard = True
                receive(data)
                if len(data) < RECORD:
                    break
        except SSL.WantReadError:
            pass
        except SSL.WantWriteError:
            self._read_wants = WRITE
        except SSL.ZeroReturnError:
            self._left()
        except SSL.Error as error:
            self._lost(*explain(error))
        except ConnectionFault as fault:
            self._deliver()
            self.end(fault.reason, fault.detail, fault.code)
        self._deliver()
        if self.h2.queued and not self._due:
            self.wake()

    def _deliver(self) -> None:
        while self.fed:
            fed, self.fed = self.fed, []
            for leg in fed:
                leg.deliver()

    def _left(self) -> None:
        """Handle close_notify, which is an end in order if no stream is cut by it."""
        self._deliver()
        if self.streams:
            self._lost(Ending.TLS_TRUNCATED, "closed amid streams")
        else:
            self.reason = TunnelReason.LEFT
            self._over(Ending.CLEAN, "")

    def _lost(self, ending: Ending, detail: str) -> None:
        if self.reason is None:
            self._deliver()
            self.reason, self.detail = ending, detail
            self._over(ending, f"the tunnel ended: {detail}")

    def stream_over(self) -> None:
        """See Carrier."""
        self._events.on_change(self)

    def wake(self) -> None:
        """See Carrier."""
        if not self._due and self.reason is None:
            self._due = True
            self.relay.after_turn(self._flush_due)

    def _flush_due(self) -> None:
        self._due = False
        if self.reason is None:
            try:
                self._flush()
            except Exception as error:  # noqa: BLE001 - a bug; raised where the tunnel is waited for
                self.fail(error)
            else:
                self._watch_for()

    def _flush(self) -> None:
        """Send what waits, until the TLS connection takes no more; then let the line read again."""
        while self._rest is not None or self.h2.queued:
            if not self._send(self._rest if self._rest is not None else memoryview(self.h2.take())):
                return
        if self.waiting:
            self._resume()

    def _send(self, rest: memoryview, *, lent: bool = False) -> bool:
        """Send that; return whether all is sent. What is not stays in `_rest`, a copy of it if it is lent."""
        send, sent, size = self._tls.send, 0, len(rest)
        try:
            while sent < size:
                sent += send(rest[sent:])
        except SSL.WantWriteError:
            self._write_wants = WRITE
        except SSL.WantReadError:
            self._write_wants = READ
        except SSL.Error as error:
            self._rest = None
            self._lost(*explain(error))
            return False
        if sent == size:
            self._rest = None
            return True
        self._rest = memoryview(bytes(rest[sent:])) if lent else rest[sent:]
        return False

    def send_records(self, stream: Stream, size: int) -> None:
        """See Carrier. What waits goes before it."""
        self.h2.sending(stream, size)
        frames = records.frames(stream.id, size)
        self._flush()
        if self._rest is None:
            self._send(frames, lent=True)
        else:
            self.h2.queue(bytes(frames))

    def _resume(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        for leg in waiting:
            leg.resume()

    def _watch_for(self) -> None:
        if self.reason is None:
            self._watch.want(self._read_wants | (self._write_wants if self._rest is not None else 0))

    def _send_rest(self) -> None:
        """Send the last words, as far as they go at once."""
        try:
            for data in (self._rest, memoryview(self.h2.take())):
                while data:
                    data = data[self._tls.send(data) :]  # noqa: PLW2901 - what is left of it
            self._tls.shutdown()
        except SSL.Error as error:
            explain(error)  # empties OpenSSL's queue, or another connection is taken to have failed

    # --- what the machine says (agent.h2.core.ConnectionHandler) ---

    def on_request(self, stream: Stream, request: Request) -> None:
        """See ConnectionHandler."""
        self.opened += 1
        self._events.on_request(self, stream, request)

    def on_settled(self) -> None:
        """See ConnectionHandler."""
        self._events.on_change(self)

    def on_goaway(self, _code: int, _detail: str) -> None:
        """See ConnectionHandler."""
        self._events.on_change(self)

    def on_pong(self) -> None:
        """See ConnectionHandler. `heard` is set by the bytes themselves."""

    def on_room(self) -> None:
        """See ConnectionHandler."""
        self._resume()

    # --- the end ---

    def fail(self, error: Exception) -> None:
        """See Carrier. Of a tunnel that is over already, what waits for it raises the error."""
        self.failure = self.failure or error
        if self.reason is None:
            self.reason, self.detail = Ending.TLS_FAILED, f"unforeseen: {error!r}"
            self._over(Ending.TLS_FAILED, "the tunnel ended: internal error")

    def _over(self, ending: Ending, detail: str) -> None:
        """Let go of the connection, and end what streams there are."""
        self.relay.detach(self._sock.fileno(), self._watch)
        for stream in tuple(self.h2.streams.values()):
            self.h2.drop(stream)
            if isinstance(stream.owner, Leg | TunnelStream):
                stream.owner.lose(ending, detail)
        self.ended.set()
        self._events.on_change(self)
