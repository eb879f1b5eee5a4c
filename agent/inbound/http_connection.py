"""HTTP/1.1 at the public listener: one caller's requests, one after the other, each judged by itself.

Theory of operation
-------------------
A request's head is read whole (at most MAX_HEAD) and held to the grammar before anything else. Then its
target is brought to normal form, its headers are cleaned, and the rules judge exactly what the app would get.
What is let through goes over a connection of our own to the app, kept as long as the caller's; `Exchange`
does the passing on. What is not gets an answer in words, and the connection goes on if the end of the request
is certain, else it is closed: after a head that cannot be trusted nobody knows where the next one begins.

* Pipelined requests wait in the buffer; each is judged when its turn comes. An allowed first request earns
  the second nothing.
* A WebSocket is let through like any request; once the app agrees (101), the bytes are nobody's requests any
  more and both sockets go to the relay. Other upgrades are not passed on: h2c would carry requests unjudged.
* While an exchange or an upgraded connection lives, the ledger holds its request, and a change of intentions
  judges it again (`connections/reauthorize.py`).
* Headers that come again byte for byte are not parsed again (`request_reader.py`); every request is judged
  anew.
* A request with a body is the last one on its connection to the app (`app_connection.py`).
* An app may answer before it has read the whole request. Its answer then says that it is the connection's
  last, and what the caller still writes is dropped for a while, so that no reset takes the answer away.
* The caller's identity is told to the app in X-Forwarded-Client-Cert, and nobody else's word for it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import trio

from agent.base.address import Address, TcpAddress
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.connections.connection import Connection
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, RefusedRequest
from agent.http1.head import FieldNames, HeadRefused, find_end
from agent.http1.request_body import BodyReason
from agent.http1.request_reader import ParsedRequest, RequestReader
from agent.http1.response_h11 import AnswerReason
from agent.http1.target import TargetRefused
from agent.inbound.app_connection import AppConnection
from agent.inbound.exchange import Exchange, ExchangeFailed, Outcome
from agent.inbound.local_reply import answer, drained, linger, worth_draining
from agent.net.dial import DialFailed, Shun, dial, nothing
from agent.policy.authorize import Policy, Verdict, authorize_request
from agent.relay.close import close_both
from agent.relay.relay import Relay
from agent.relay.splice import Ending
from agent.relay.streams import StreamBroken, TlsStream
from certs.peer import Peer

IDLE_SECONDS = 3600.0  # without a request
HEAD_SECONDS = 30.0  # from a request's first byte to the end of its head
LINGER_SECONDS = 1.0  # of silence, for a caller to read the last answer
LINGER_LONGEST = 30.0  # for one that goes on writing a request that was answered before its end
SHOWN = 256  # characters of a target in a log line

_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})  # RFC 9110 §9.2.2


class FrontReason(StrEnum):
    """Why the sidecar ended an HTTP connection that no request had harmed."""

    IDLE = "idle_timeout"
    HEAD_TIMEOUT = "head_timeout"
    HEAD_CUT_OFF = "head_cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """What every HTTP connection to our app shares. `connect_timeout` in seconds."""

    policy: Latest[Policy]
    freshness: Freshness
    app: Address
    connect_timeout: float
    relay: Relay
    ledger: Ledger
    greeting: bytes = b""  # what a connection to the app begins with
    shun: Shun = nothing
    names: FieldNames = FieldNames.PLAIN


class HttpConnection:
    """One connection of a caller whose identity is proven."""

    def __init__(
        self, tls: TlsStream, site: HttpService, *, peer: Peer, identity: bytes, connection: Connection
    ) -> None:
        """`identity`: what the app is told of this caller (`fields.identity_value`)."""
        self._tls = tls
        self._site = site
        self._peer = peer
        self._connection = connection
        self._reader = RequestReader(
            host=_authority(site.app), identity=identity, judged=partial(_judged, site), names=site.names
        )
        self._received: bytes | bytearray = b""
        self._head = b""  # of the request in hand, as it came
        self._app: AppConnection | None = None

    async def serve(self) -> Ending:
        """Serve requests to the connection's end, named in the ledger; say how the TLS leg is to part."""
        try:
            while await self._turn():
                pass
            await linger(self._tls, LINGER_SECONDS, LINGER_LONGEST)
        except StreamBroken as broken:
            self._connection.end(broken.ending, broken.detail)
            return broken.ending
        except _Ended as ended:
            return ended.ending
        finally:
            self._drop_app()
        self._connection.end(Ending.CLEAN)
        return Ending.CLEAN

    async def _turn(self) -> bool:
        """One request; whether there may be another."""
        try:
            length = await self._next_head()
            call = None if length is None else self._read(length)
        except (HeadRefused, TargetRefused) as refusal:
            await self._refuse_unread(refusal.status, refusal.reason, refusal.detail)
            return False
        return call is not None and await self._judge(call)

    # Reading.

    async def _next_head(self) -> int | None:
        """The length of the next head, which is then in the buffer; None at the end of the connection."""
        self._head = b""
        if self._received:
            await trio.lowlevel.checkpoint()  # one piece of work for each of many requests that came together
        elif not await self._next_byte():
            return None
        if self._received.startswith(b"\r\n"):  # some clients end a body with a line too many (RFC 9112 §2.2)
            self._received = self._received[2:]
        end = find_end(self._received)
        if end is not None:
            return end
        with trio.move_on_after(HEAD_SECONDS):
            return await self._rest_of_head()
        await self._refuse_unread(408, FrontReason.HEAD_TIMEOUT, f"no whole head within {HEAD_SECONDS:g} s")
        return None

    async def _rest_of_head(self) -> int | None:
        self._received = received = bytearray(self._received)
        end = None
        while end is None:
            seen = len(received)
            data = await self._tls.receive()
            if not data:
                self._connection.end(FrontReason.HEAD_CUT_OFF, f"after {seen} bytes of a head")
                return None
            received += data
            end = find_end(received, seen)
        return end

    async def _next_byte(self) -> bool:
        with trio.move_on_after(IDLE_SECONDS):
            self._received = await self._tls.receive()
            return bool(self._received)
        self._connection.end(FrontReason.IDLE, f"no request for {IDLE_SECONDS:g} s")
        return False

    def _read(self, length: int) -> ParsedRequest:
        """Raise HeadRefused or TargetRefused."""
        received, self._received = bytes(self._received), b""
        self._head, came = received[:length], received[length:]
        return self._reader.read(self._head, came)

    # Judging.

    async def _judge(self, call: ParsedRequest) -> bool:
        too_old_since = self._site.freshness.too_old_since()
        verdict = authorize_request(_newest(self._site), self._peer.id, call.request, too_old_since)
        if not verdict.allowed:
            text = f"{self._peer.id.service} may not make this request"
            return await self._refuse(call, 403, verdict.reason, text, verdict.rule)
        if verdict.audited:
            self._audit(call, verdict)
        else:
            self._site.ledger.request_passed(verdict.reason)
        try:
            return await self._pass_on(call)
        except DialFailed as failure:
            text = "the service behind this sidecar cannot be reached"
            return await self._refuse(call, 503, failure.reason, text, failure.detail)
        except ExchangeFailed as failure:
            if failure.answering or isinstance(failure.reason, Ending):
                self._connection.end(failure.reason, failure.detail)
                raise _Ended(Ending.PLAIN_RESET) from failure
            faulty = isinstance(failure.reason, BodyReason)
            text = "the request's body is not whole" if faulty else "the service gave no answer"
            await self._refuse(call, 400 if faulty else 502, failure.reason, text, failure.detail, close=True)
            return False

    async def _pass_on(self, call: ParsedRequest) -> bool:
        """Raise DialFailed or ExchangeFailed."""
        self._connection.request = call.request  # from now on it is judged again whenever the rules change
        outcome = await self._exchange(call)
        self._connection.request = None
        self._received = call.body.rest
        return outcome is Outcome.ANSWERED and call.body.ended

    async def _exchange(self, call: ParsedRequest) -> Outcome:
        """Raise DialFailed, ExchangeFailed, or _Ended after an upgrade."""
        while True:
            exchange = Exchange(self._tls, await self._app_connection(), call)
            outcome = await exchange.run()
            if outcome is Outcome.SWITCHED:
                raise _Ended(await self._relay(call.body.rest, exchange.first_word))
            if outcome is not Outcome.STALE:
                return outcome
            self._drop_app()
            if not call.bodiless or call.method not in _REPEATABLE:
                detail = "the app closed a kept connection as the request was sent"
                raise ExchangeFailed(AnswerReason.CLOSED, detail, answering=False)

    async def _app_connection(self) -> AppConnection:
        """The kept one, or a new one."""
        if self._app is not None and self._app.idle:
            self._app.next_exchange()
            return self._app
        self._drop_app()
        site = self._site
        sock = await dial(site.app, site.connect_timeout, site.greeting, site.shun)
        self._app = AppConnection(sock, self._connection.progress)
        self._connection.dialled = str(self._site.app)
        return self._app

    def _drop_app(self) -> None:
        if self._app is not None:
            self._app.close()
            self._app = None

    async def _relay(self, from_caller: bytes, from_app: bytes) -> Ending:
        """Copy what follows an upgrade, both ways, to its end; this much of it has come already."""
        assert self._app is not None  # it has just agreed
        app, self._app = self._app, None
        ending: Ending | None = None
        try:
            await app.stream.send(from_caller)
            await self._tls.send(from_app)
            transfer = await self._site.relay.run(
                app.stream.sock, self._tls.connection, self._connection.progress
            )
            self._connection.end(transfer.ending, transfer.detail)
            ending = transfer.ending
        finally:
            close_both(app.stream.sock, None, ending)
        return ending

    # Answering.

    async def _refuse(
        self,
        call: ParsedRequest,
        status: int,
        reason: StrEnum,
        text: str,
        detail: str,
        *,
        close: bool = False,
    ) -> bool:
        """Answer a request that is not passed on, or not further; whether the connection can go on."""
        self._connection.request = None
        self._tell(call.method.decode(), call.raw_target.decode(), status, reason, detail)
        close = close or call.framing.closes or not worth_draining(call.framing)
        await self._tls.send(answer(status, reason, text, close=close, bodiless=call.method == b"HEAD"))
        going_on = not close and await drained(call.body, self._tls)
        self._received = call.body.rest
        return going_on

    async def _refuse_unread(self, status: int, reason: StrEnum, detail: str) -> None:
        """Answer what is not a request; nothing more is read of it."""
        line = (self._head or self._received)[:SHOWN].partition(b"\r\n")[0].decode("latin-1").split(" ")
        method, target = line[0], " ".join(line[1:2])
        self._tell(method, target, status, reason, detail)
        self._connection.end(reason, detail)
        await self._tls.send(answer(status, reason, detail, close=True))

    def _audit(self, call: ParsedRequest, verdict: Verdict) -> None:
        asked = f"{call.method.decode()} {call.raw_target.decode()}"[:SHOWN]
        audited = Audited(reason=verdict.reason, rule=verdict.rule, request=asked)
        self._site.ledger.audit(self._connection, audited)

    def _tell(self, method: str, target: str, status: int, reason: StrEnum, detail: str) -> None:
        refused = RefusedRequest(
            method=method[:SHOWN], target=target[:SHOWN], status=status, reason=reason, detail=detail
        )
        self._site.ledger.request_refused(self._connection, refused)


class _Ended(Exception):
    """The connection is over, and its ending has been named."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


def _newest(site: HttpService) -> Policy:
    newest = site.policy.value
    assert newest is not None  # looked at when the caller was let in; never taken back
    return newest


def _judged(site: HttpService) -> frozenset[str]:
    return _newest(site).intentions.header_names


def _authority(app: Address) -> bytes:
    """What the app is called by whoever does not say (HTTP/1.0)."""
    return str(app).encode() if isinstance(app, TcpAddress) else b"localhost"
