"""Serves HTTP/1.1 at the public listener: one caller's requests, one after another, each judged by itself.

A request's head is read completely (at most MAX_HEAD) and must match the grammar before anything else
happens. Then its target is normalized, its headers are cleaned, and permissions judge exactly what the app
would get. An allowed request goes over our own connection to the app, which is kept as long as the caller's;
`Exchange` passes it on. A denied request gets a text as its answer. The connection continues if the end of
that request is certain, else it is closed: after a malformed head the start of the next one is unknown.

* Pipelined requests wait in the buffer; each is judged in its turn. An allowed request does not allow the
  next.
* A WebSocket request is judged like any other; once the app agrees (101), no further bytes are requests, and
  the relay takes both sockets over. Other upgrades are dropped: requests in h2c would go unjudged.
* While an exchange or an upgraded connection lives, the ledger holds its request, and a change of intentions
  judges it again (`connections/reauthorize.py`).
* Headers that repeat byte for byte are not parsed again (`request_reader.py`); every request is judged.
* Usual requests after the first are served in the relay's loop (`usual_requests.py`), by the same reader and
  the same verdict; the task of the connection goes on where something else comes.
* A request with a body is the last one on its connection to the app (`app_connection.py`).
* An app may answer before it has read the whole request. Its answer then says that it is the connection's
  last one, and what the caller still writes is dropped for a while, so that no reset overtakes the answer.
* X-Forwarded-Client-Cert tells the app the caller's identity; a header of that name from the caller is
  removed.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import trio

from agent.connections.connection import Connection
from agent.connections.records import Audited, RefusedRequest
from agent.connections.tracing import RequestSpan
from agent.http1.head import HeadRefused, find_end
from agent.http1.request_body import BodyReason
from agent.http1.request_reader import ParsedRequest, RequestReader
from agent.http1.response_h11 import AnswerReason
from agent.http1.target import TargetRefused
from agent.inbound.app_connection import AppConnections
from agent.inbound.exchange import Exchange, ExchangeFailed, Outcome
from agent.inbound.front import Front
from agent.inbound.http_service import HttpService
from agent.inbound.local_reply import answer, drained, linger, worth_draining
from agent.inbound.request_judge import RequestJudge
from agent.inbound.usual_requests import Unusual, UsualRequests
from agent.net.dial import DialFailed
from agent.policy.authorize import Verdict
from agent.relay.close import close_both
from agent.relay.splice import Ending
from agent.relay.streams import StreamBroken, WatchedStream
from certs.peer import Peer

IDLE_SECONDS = 3600.0  # between two requests
HEAD_SECONDS = 30.0  # from a request's first byte to the end of its head
LINGER_SECONDS = 1.0  # of silence, for a caller to read the last answer
LINGER_LONGEST = 30.0  # for a caller that goes on writing a request after its answer
SHOWN = 256  # characters of a target in a log line

_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})  # RFC 9110 §9.2.2


class FrontReason(StrEnum):
    """Why the sidecar ended an HTTP connection between requests."""

    IDLE = "idle_timeout"
    HEAD_TIMEOUT = "head_timeout"
    HEAD_CUT_OFF = "head_cut_off"


class HttpConnection:
    """One connection of a caller whose identity is proven."""

    def __init__(
        self, tls: WatchedStream, service: HttpService, *, peer: Peer, identity: bytes, connection: Connection
    ) -> None:
        """`identity`: the value of X-Forwarded-Client-Cert for this caller (`fields.identity_value`)."""
        self._tls = tls
        self._service = service
        self._peer = peer
        self._connection = connection
        self._reader = RequestReader(
            host=service.authority,
            identity=identity,
            judged=service.judged_headers,
            names=service.names,
        )
        self._judge = RequestJudge(service, peer.id)
        self._apps = AppConnections(service, connection)
        self._usual = UsualRequests(
            tls,
            Front(self._reader, self._judge),
            self._apps,
            connection=connection,
            ledger=service.ledger,
            relay=service.relay,
        )
        self._received: bytes | bytearray = b""
        self._head = b""  # the head of the present request, as received
        self._span: RequestSpan | None = None  # of the last request

    async def serve(self) -> Ending:
        """Serve requests until the connection ends; name its end in the ledger, and return it."""
        try:
            while await self._serve_one():
                pass
            await linger(self._tls, LINGER_SECONDS, LINGER_LONGEST)
        except StreamBroken as broken:
            self._connection.end(broken.ending, broken.detail)
            return broken.ending
        except _Ended as ended:
            return ended.ending
        finally:
            self._apps.drop()
        self._connection.end(Ending.CLEAN)
        return Ending.CLEAN

    async def _serve_one(self) -> bool:
        """Serve usual requests, and then one with all care; return whether there may be another."""
        self._span = None
        left = await self._serve_usual()
        if left is None:
            return False
        if left.under_way is not None:
            return await self._pass_on(left.under_way, left)
        try:
            length = await self._next_head()
            parsed = None if length is None else self._read(length)
        except (HeadRefused, TargetRefused) as refusal:
            await self._refuse_unread(refusal.status, refusal.reason, refusal.detail)
            return False
        tracing = self._service.ledger.tracing
        if parsed is None or tracing is None:
            return parsed is not None and await self._decide(parsed)
        with tracing.request(parsed, self._connection) as self._span:
            return await self._decide(parsed)

    async def _serve_usual(self) -> Unusual | None:
        """Let the relay's loop serve requests for as long as they are usual; return what is under way then.

        None if the caller has been silent for too long. Raises StreamBroken. No request is usual that gets a
        span, and with it a head of its own; nor is one before the app has been dialled, since a caller that
        is only denied would be judged twice.
        """
        self._apps.drop_begun()
        if self._received or self._apps.current is None or self._tls.has_come():
            return Unusual()
        if self._service.ledger.tracing is not None:
            return Unusual()
        left = await self._usual.serve(IDLE_SECONDS)
        if left is None:
            self._connection.end(FrontReason.IDLE, f"no request for {IDLE_SECONDS:g} s")
            return None
        self._received = left.received
        if left.owed:
            await self._tls.send(left.owed)
            self._connection.request = None
        return left

    # Reading.

    async def _next_head(self) -> int | None:
        """Wait for the next head; return its length in the buffer, None at the end of the connection."""
        self._head = b""
        if self._received:
            await trio.lowlevel.checkpoint()  # other tasks run between pipelined requests
        elif not await self._next_byte():
            return None
        if self._received.startswith(b"\r\n"):  # an extra line end after a body (RFC 9112 §2.2)
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
        """Take the request off the buffer. Raises HeadRefused, TargetRefused."""
        received, self._received = bytes(self._received), b""
        self._head, came = received[:length], received[length:]
        return self._reader.read(self._head, came)

    # Judging.

    async def _decide(self, parsed: ParsedRequest) -> bool:
        verdict = self._judge.verdict(parsed.request)
        if not verdict.allowed:
            text = f"{self._peer.id.service} may not make this request"
            return await self._refuse(parsed, _denied(parsed, verdict), text)
        if verdict.audited:
            self._audit(parsed, verdict)
        else:
            self._service.ledger.request_passed(verdict.reason)
        if self._span is not None:
            self._span.passed(verdict.reason, verdict.rule)
        return await self._pass_on(parsed)

    async def _pass_on(self, parsed: ParsedRequest, left: Unusual | None = None) -> bool:
        """Pass a request on, or what is `left` of it; return whether there may be another."""
        try:
            self._connection.request = parsed.request  # from now on a change of intentions judges it again
            outcome = await self._exchange(parsed, left)
        except DialFailed as failure:
            text = "the service behind this sidecar cannot be reached"
            return await self._refuse(parsed, _refused(parsed, 503, failure.reason, failure.detail), text)
        except ExchangeFailed as failure:
            if failure.answering or isinstance(failure.reason, Ending):
                self._connection.end(failure.reason, failure.detail)
                if self._span is not None:
                    self._span.broken_off(failure.reason)
                raise _Ended(Ending.PLAIN_RESET) from failure
            faulty = isinstance(failure.reason, BodyReason)
            text = "the request's body is not whole" if faulty else "the service gave no answer"
            refused = _refused(parsed, 400 if faulty else 502, failure.reason, failure.detail)
            await self._refuse(parsed, refused, text, close=True)
            return False
        self._connection.request = None
        self._received = parsed.body.rest
        return outcome is Outcome.ANSWERED and parsed.body.ended

    async def _exchange(self, parsed: ParsedRequest, left: Unusual | None) -> Outcome:
        """Run the exchange, or resume it; run it again if the kept connection is stale.

        Raises DialFailed, ExchangeFailed, _Ended.
        """
        while True:
            if left is None:
                app = await self._apps.take(last=not parsed.bodiless)
                exchange = Exchange(self._tls, app, parsed)
                outcome = await exchange.run()
            else:
                assert self._apps.current is not None  # it is serving the request
                exchange = Exchange(self._tls, self._apps.current, parsed)
                outcome = await exchange.resume(left.unsent, left.answer)
                left = None
            if self._span is not None and exchange.status:
                self._span.answered(exchange.status)
            if outcome is Outcome.SWITCHED:
                raise _Ended(await self._relay(parsed.body.rest, exchange.first_bytes))
            if outcome is not Outcome.STALE:
                return outcome
            self._apps.drop()
            if not parsed.bodiless or parsed.method not in _REPEATABLE:
                detail = "the app closed a kept connection as the request was sent"
                raise ExchangeFailed(AnswerReason.CLOSED, detail, answering=False)

    async def _relay(self, from_caller: bytes, from_app: bytes) -> Ending:
        """Relay after an upgrade until the end; the arguments are bytes that have come already."""
        app, self._apps.current = self._apps.current, None
        assert app is not None  # it has just agreed to the upgrade
        ending: Ending | None = None
        try:
            await app.stream.send(from_caller)
            await self._tls.send(from_app)
            transfer = await self._tls.relay(self._service.relay, app.stream.sock, self._connection.progress)
            self._connection.end(transfer.ending, transfer.detail)
            ending = transfer.ending
        finally:
            close_both(app.stream.sock, None, ending)
        return ending

    # Answering.

    async def _refuse(
        self, parsed: ParsedRequest, refused: RefusedRequest, text: str, *, close: bool = False
    ) -> bool:
        """Answer a request that is not passed on; return whether the connection can continue."""
        self._connection.request = None
        self._tell(refused)
        close = close or parsed.framing.closes or not worth_draining(parsed.framing)
        bodiless = parsed.method == b"HEAD"
        await self._tls.send(answer(refused.status, refused.reason, text, close=close, bodiless=bodiless))
        going_on = not close and await drained(parsed.body, self._tls)
        self._received = parsed.body.rest
        return going_on

    async def _refuse_unread(self, status: int, reason: StrEnum, detail: str) -> None:
        """Answer bytes that are no valid request; nothing after them is read."""
        line = (self._head or self._received)[:SHOWN].partition(b"\r\n")[0].decode("latin-1").split(" ")
        target = " ".join(line[1:2])
        self._tell(RefusedRequest(method=line[0], target=target, status=status, reason=reason, detail=detail))
        self._connection.end(reason, detail)
        await self._tls.send(answer(status, reason, detail, close=True))

    def _audit(self, parsed: ParsedRequest, verdict: Verdict) -> None:
        shown = f"{parsed.method.decode()} {parsed.raw_target.decode()}"[:SHOWN]
        audited = Audited(
            reason=verdict.reason, rule=verdict.rule, intention=verdict.intention, request=shown
        )
        self._service.ledger.audit(self._connection, audited)

    def _tell(self, refused: RefusedRequest) -> None:
        self._service.ledger.request_refused(self._connection, refused)
        if self._span is not None:
            self._span.refused(refused.reason, refused.status)


def _refused(parsed: ParsedRequest, status: int, reason: StrEnum, detail: str) -> RefusedRequest:
    method, target = parsed.method.decode()[:SHOWN], parsed.raw_target.decode()[:SHOWN]
    return RefusedRequest(method=method, target=target, status=status, reason=reason, detail=detail)


def _denied(parsed: ParsedRequest, verdict: Verdict) -> RefusedRequest:
    refused = _refused(parsed, 403, verdict.reason, "")
    return replace(refused, rule=verdict.rule, intention=verdict.intention)


class _Ended(Exception):
    """The connection is over, and its ending is named in the ledger."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending
