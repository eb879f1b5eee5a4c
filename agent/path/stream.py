"""Asks a far sidecar for one stream of a tunnel, and sends nothing in it: the answer says why it is refused.

It drives the machine of agent.h2 by itself: no relay, no app, no byte. The stream is reset once it is
answered, which is to the far app a connection that ends at once.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import trio
from OpenSSL import SSL

from agent.h2.connection import H2Connection
from agent.h2.faults import ConnectionFault, ErrorCode
from agent.h2.requests import Request
from agent.h2.stream import Stream
from agent.relay.pump import RECORD, explain
from agent.tunnel.refusal import reason_of

OK = 200


@dataclass(slots=True)
class Answer:
    """What the far side has said (ConnectionHandler, StreamOwner). `greeted`: it speaks HTTP/2."""

    greeted: bool = False
    status: int = 0  # of the stream; 0: none
    reason: str = ""  # the status and the reason of a refusal, or how the tunnel broke off

    @property
    def served(self) -> bool:
        """Whether its sidecar has connected its app."""
        return self.status == OK

    def on_response(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """See StreamOwner."""
        self.status = status
        self.reason = "" if status == OK else reason_of(status, fields)

    def on_settled(self) -> None:
        """See ConnectionHandler."""
        self.greeted = True

    def on_data(self, _data: bytes | memoryview) -> None:
        """See StreamOwner. What the far app says first is thrown away."""

    def on_end(self) -> None:
        """See StreamOwner."""

    def on_reset(self, code: int, detail: str) -> None:
        """See StreamOwner."""
        self.reason = self.reason or f"the stream was reset ({code}) {detail}".rstrip()

    def on_room(self) -> None:
        """See StreamOwner and ConnectionHandler."""

    def on_request(self, _stream: Stream, _request: Request) -> None:
        """See ConnectionHandler: a server opens none."""

    def on_goaway(self, _code: int, detail: str) -> None:
        """See ConnectionHandler."""
        self.reason = self.reason or f"it takes no more streams {detail}".rstrip()

    def on_pong(self) -> None:
        """See ConnectionHandler."""


@dataclass(slots=True)
class _Probe:
    tls: SSL.Connection
    sock: socket.socket
    answer: Answer = field(default_factory=Answer)
    h2: H2Connection = field(init=False)

    def __post_init__(self) -> None:
        self.h2 = H2Connection(self.answer, trio.current_time, client=True)


async def ask_for_stream(tls: SSL.Connection, sock: socket.socket, block: bytes, seconds: float) -> Answer:
    """Open a stream by a request's header block, and return the answer; without one after `seconds`."""
    probe = _Probe(tls, sock)
    answer, h2 = probe.answer, probe.h2
    with trio.move_on_after(seconds):
        try:
            await _until(probe, greeted=True)
            stream = h2.open(block, answer)
            await _until(probe, greeted=False)
            h2.reset(stream, ErrorCode.CANCEL)
            h2.close(ErrorCode.NO_ERROR)
            await _send(probe)
        except SSL.ZeroReturnError:
            answer.reason = answer.reason or "closed"
        except SSL.Error as error:
            answer.reason = answer.reason or explain(error)[1]
        except ConnectionFault as fault:
            answer.reason = answer.reason or f"{fault.reason.value} {fault.detail}".rstrip()
    return answer


async def _until(probe: _Probe, *, greeted: bool) -> None:
    """Send and receive until the far side has greeted us, or has answered."""
    answer = probe.answer
    while not (answer.greeted if greeted else answer.status or answer.reason):
        await _send(probe)
        try:
            probe.h2.receive(probe.tls.recv(RECORD))
        except SSL.WantReadError:
            await trio.lowlevel.wait_readable(probe.sock)


async def _send(probe: _Probe) -> None:
    """Send what the machine has queued."""
    data = memoryview(probe.h2.take())
    while data:
        try:
            data = data[probe.tls.send(data) :]
        except SSL.WantWriteError:
            await trio.lowlevel.wait_writable(probe.sock)
        except SSL.WantReadError:
            await trio.lowlevel.wait_readable(probe.sock)
