"""Answers requests for one exposed path: in the clear, one request a connection, and nothing else.

A health check or a scraper has no certificate, so no intention can judge it. What it may reach is bounded
instead: a caller whose address is named, a GET or HEAD without a body, and a target whose path is the exposed
one byte by byte, whatever its query. It is compared as it came and as it would be sent, so an escape, a dot
segment or an absolute URL is another path. The app gets a head that the same reader has taken apart and
written anew as that of a judged request, without a client certificate's header, and no byte beside it:
what a caller sends behind its request is never read as another one.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import trio

from agent.base.address import Address, literal
from agent.connections.ledger import Ledger
from agent.connections.records import RefusedRequest
from agent.http1.fields import header_name
from agent.http1.head import HeadRefused, find_end
from agent.http1.request import OVERRIDING
from agent.http1.request_reader import ParsedRequest, RequestReader
from agent.http1.target import TargetRefused
from agent.inbound.app_connection import AppConnection
from agent.inbound.exchange import Exchange, ExchangeFailed
from agent.inbound.local_reply import answer, linger
from agent.net.admission import Slot
from agent.net.dial import DialFailed, Shun, dial, remote
from agent.relay.close import reset
from agent.relay.relay import Relay
from agent.relay.splice import Ending, Progress, Transfer
from agent.relay.streams import PlainStream, StreamBroken

MOST = 32  # callers of one listener whose requests have not come whole, and as many more that are answered
HEAD_SECONDS = 5.0  # for the whole head
SECONDS = 30.0  # for the whole connection
LINGER_SECONDS = 1.0  # for a caller to read its answer
_METHODS = "GET, HEAD"
_SHOWN = 256  # characters of a target in a log line


class ExposedReason(StrEnum):
    """How a connection to an exposed path ended, where no reason of HTTP or of dialling says it."""

    PASSED = "exposed_answered"
    SOURCE = "exposed_source"  # the caller's address is not named
    PATH = "exposed_path"  # the target is not exactly the exposed path
    METHOD = "exposed_method"
    BODY = "exposed_body"
    UPGRADE = "exposed_upgrade"
    OVERRIDE = "exposed_override"  # a header by which apps take the request for another one
    HEAD_TIMEOUT = "exposed_head_timeout"
    TIMEOUT = "exposed_timeout"
    LEFT = "exposed_caller_left"


class Callers:
    """The callers that may ask, by `expose_from`."""

    def __init__(self, named: Iterable[str]) -> None:
        names = set(named)
        self._host = "host" in names
        self._networks = [ipaddress.ip_network(name) for name in names - {"host"}]

    def admit(self, caller: object, here: object) -> bool:
        """Return whether a caller may ask; both are addresses of sockets, the caller's and ours.

        A process of this machine that connects to an address of this machine connects from that address, or
        from loopback.
        """
        if not isinstance(caller, tuple) or not isinstance(here, tuple):
            return False
        text = literal(str(caller[0]))
        if text is None:
            return False
        address = ipaddress.ip_address(text)
        if self._host and (address.is_loopback or text == literal(str(here[0]))):
            return True
        return any(address in network for network in self._networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedService:
    """What the connections to one exposed path share. `connect_timeout` in seconds."""

    path: str
    app: Address
    callers: Callers
    ledger: Ledger
    connect_timeout: float
    shun: Shun


class _Refused(Exception):
    """The request is not passed on."""

    def __init__(self, status: int, reason: StrEnum, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


class _Caller(PlainStream):
    """The caller's leg, in the clear."""

    __slots__ = ("answered", "received")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, Progress())
        self.received = bytearray()
        self.answered = False  # the answer has gone out whole

    async def receive(self) -> bytes:
        try:
            return await super().receive()
        except StreamBroken as broken:
            raise StreamBroken(_LEFT, broken.detail) from broken

    async def send(self, data: bytes) -> None:
        try:
            await super().send(data)
        except StreamBroken as broken:
            raise StreamBroken(_LEFT, broken.detail) from broken

    def send_nowait(self, data: memoryview) -> int:
        """Send what goes without waiting; return how many bytes."""
        try:
            return self.sock.send(data)
        except OSError:  # `send` meets the same error, or waits
            return 0

    async def send_end(self) -> None:
        """Send the end of our bytes. Raises StreamBroken."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise StreamBroken(_LEFT, str(error)) from error
        await trio.lowlevel.checkpoint()

    async def relay(self, _relay: Relay, _app: socket.socket, _progress: Progress, /) -> Transfer:
        """Never called: no request here asks for another protocol."""
        raise AssertionError("no request here is upgraded")


# How `Exchange` tells a break of the caller's leg from one of the app's.
_LEFT = Ending.TLS_RESET


async def serve_exposed(sock: socket.socket, slot: Slot, service: ExposedService) -> None:
    """Serve one accepted, non-blocking socket until its end, and close it."""
    caller = _Caller(sock)
    reason: StrEnum = ExposedReason.TIMEOUT
    try:
        with slot.scope, trio.move_on_after(SECONDS):
            reason = await _serve(caller, slot, service)
    finally:
        if caller.answered:
            sock.close()
        else:
            reset(sock)  # what is cut must not look whole
    service.ledger.exposed(reason)


async def _serve(caller: _Caller, slot: Slot, service: ExposedService) -> StrEnum:
    """Answer one request; return how it ended."""
    try:
        reason = await _answer(caller, slot, service)
        caller.answered = True
        await linger(caller, LINGER_SECONDS, LINGER_SECONDS)
    except StreamBroken:
        return ExposedReason.LEFT
    except ExchangeFailed as failure:
        return ExposedReason.LEFT if isinstance(failure.reason, Ending) else failure.reason
    return reason


async def _answer(caller: _Caller, slot: Slot, service: ExposedService) -> StrEnum:
    """Answer one request, by the app or ourselves. Raises StreamBroken, ExchangeFailed."""
    parsed: ParsedRequest | None = None
    try:
        _check_caller(caller.sock, service.callers)
        parsed = await _request(caller)
        slot.settle()
        _check(parsed, service.path)
        await _pass_on(caller, parsed, service)
    except (_Refused, HeadRefused, TargetRefused) as refusal:
        refused = _Refused(refusal.status, refusal.reason, refusal.detail)
    except DialFailed as failure:
        refused = _Refused(503, failure.reason, "the service behind this sidecar cannot be reached")
    except ExchangeFailed as failure:
        if failure.answering or isinstance(failure.reason, Ending):
            raise
        refused = _Refused(502, failure.reason, "the service gave no answer")
    else:
        return ExposedReason.PASSED
    _tell(caller, refused, service)
    head = parsed is not None and parsed.method == b"HEAD"
    text = answer(refused.status, refused.reason, refused.detail, close=True, bodiless=head, allow=_METHODS)
    await caller.send(text)
    return refused.reason


def _check_caller(sock: socket.socket, callers: Callers) -> None:
    """Raise _Refused for a caller that is not named, and StreamBroken for one that has left."""
    try:
        there, here = sock.getpeername(), sock.getsockname()
    except OSError as error:
        raise StreamBroken(_LEFT, str(error)) from error
    if not callers.admit(there, here):
        raise _Refused(403, ExposedReason.SOURCE, "this address may not ask here")


async def _request(caller: _Caller) -> ParsedRequest:
    """Return the request, read whole. Raises HeadRefused, TargetRefused, _Refused, StreamBroken."""
    received, end = caller.received, None
    with trio.move_on_after(HEAD_SECONDS):
        while end is None:
            seen = len(received)
            data = await caller.receive()
            if not data:
                raise StreamBroken(_LEFT, f"after {seen} bytes of a head")
            received += data
            end = find_end(received, seen)
    if end is None:
        raise _Refused(408, ExposedReason.HEAD_TIMEOUT, f"no whole head within {HEAD_SECONDS:g} s")
    head, came = bytes(received[:end]), bytes(received[end:])
    return RequestReader(host=b"localhost", identity=b"", judged=frozenset).read(head, came)


def _check(parsed: ParsedRequest, exposed: str) -> None:
    """Raise _Refused unless the request is exactly one for the exposed path, and nothing beside it."""
    asked = parsed.raw_target
    if asked.partition(b"?")[0] != exposed.encode() or parsed.target.sent != asked:
        raise _Refused(404, ExposedReason.PATH, "only one path is exposed here, in one spelling")
    if parsed.method not in (b"GET", b"HEAD"):
        raise _Refused(405, ExposedReason.METHOD, "only GET and HEAD are exposed here")
    if parsed.framing.chunked or parsed.framing.length:
        raise _Refused(400, ExposedReason.BODY, "a request here has no body")
    names = {header_name(name).folded for name, _ in parsed.fields}
    if parsed.upgrades:
        raise _Refused(400, ExposedReason.UPGRADE, "no other protocol is exposed here")
    if overriding := names & OVERRIDING:
        raise _Refused(400, ExposedReason.OVERRIDE, f"{min(overriding)} may make another request of it")


async def _pass_on(caller: _Caller, parsed: ParsedRequest, service: ExposedService) -> None:
    """Pass the request on, and the answer back. Raises DialFailed, ExchangeFailed."""
    parsed.framing = parsed.framing._replace(closes=True)
    sock = await dial(service.app, service.connect_timeout, shun=service.shun)
    app = AppConnection(sock, Progress(), last=True)
    try:
        await Exchange(caller, app, parsed).run()
    finally:
        app.close()


def _tell(caller: _Caller, refused: _Refused, service: ExposedService) -> None:
    line = bytes(caller.received[:_SHOWN]).partition(b"\r\n")[0].decode("latin-1").split(" ")
    record = RefusedRequest(
        method=line[0],
        target=" ".join(line[1:2]),
        status=refused.status,
        reason=refused.reason,
        detail=refused.detail,
    )
    service.ledger.exposed_refused(remote(caller.sock), service.path, record)
