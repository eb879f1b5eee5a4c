"""HTTP/1.1 exchanges with one server: h11 over trio streams, with idle connections reused.

A general HTTP client is not used, because memory per agent is budgeted: it costs 4.5 MB resident, h11 0.25
MB.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeGuard

import h11
import trio

from agent.base.unquoted import unquoted

MAX_BODY = 32 << 20  # bytes; five thousand endpoints are about 10 MB
MAX_IDLE = 16  # connections; a sidecar has about half as many long polls
QUIET_SECONDS = 0.001  # how long an idle connection is read from before it is reused
_CHUNK = 65536

Dial = Callable[[], Awaitable[trio.abc.Stream]]


class RequestFailure(StrEnum):
    """Why a request failed."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    CLOSED = "closed"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"


class RequestFailed(Exception):
    """There is no answer, or an unusable one."""

    def __init__(self, failure: RequestFailure, detail: str) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `headers` may carry a token and stay out of repr."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer. Header names are in lower case; a leaf's body holds a key and stays out of repr."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Client:
    """Exchanges with the server that `dial` connects to; concurrent exchanges use separate connections."""

    def __init__(self, dial: Dial, *, host: str, max_body: int = MAX_BODY, kept: int = MAX_IDLE) -> None:
        self._dial = dial
        self._host = host
        self._max_body = max_body
        self.kept = kept  # the most connections, with those in use, that are kept after an exchange
        self._open = 0
        self._idle: list[_Connection] = []

    async def exchange(self, request: Request, seconds: float) -> Response:
        """Send the request and return the answer within `seconds`. Raises RequestFailed.

        If the server has closed an idle connection meanwhile, and no byte of an answer has come, the request
        is sent again on another connection: every request of ours may be repeated.
        """
        try:
            with trio.fail_after(seconds):
                while self._idle:
                    try:
                        return await self._run(self._idle.pop(), request)
                    except _Stale:
                        continue
                return await self._run(await self._connect(), request)
        except trio.TooSlowError:
            raise RequestFailed(RequestFailure.TIMEOUT, f"no answer within {seconds:g} s") from None

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._open -= 1
            await trio.aclose_forcefully(self._idle.pop().stream)

    async def keep(self, connections: int) -> None:
        """Keep that many connections from now on, and close idle ones beyond them."""
        self.kept = connections
        while self._idle and self._open > connections:
            self._open -= 1
            await trio.aclose_forcefully(self._idle.pop().stream)

    async def _connect(self) -> _Connection:
        try:
            stream = await self._dial()
        except OSError as error:
            if _is_tls(error):
                raise RequestFailed(RequestFailure.TLS, _tls_text(error)) from error
            raise RequestFailed(RequestFailure.UNREACHABLE, _os_text(error)) from error
        except ValueError as error:  # a name with a label too long for DNS
            raise RequestFailed(RequestFailure.UNREACHABLE, str(error)) from error
        self._open += 1
        return _Connection(stream, self._host)

    async def _run(self, connection: _Connection, request: Request) -> Response:
        keep = False
        try:
            response = await connection.exchange(request, self._max_body)
            keep = connection.reusable and self._open <= self.kept
        finally:
            if not keep:
                self._open -= 1
                with trio.CancelScope(shield=True):  # a forced close does not wait
                    await trio.aclose_forcefully(connection.stream)
        if keep:
            self._idle.append(connection)
        return response


class _Stale(Exception):
    """An idle connection was closed before it answered."""


class _Connection:
    """One connection to the server, for one exchange after another."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self.stream = stream
        self._host = host
        self._http = h11.Connection(h11.CLIENT)
        self._used = False
        self._ended = False

    @property
    def reusable(self) -> bool:
        """Whether both sides have completed the exchange and keep the connection alive."""
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    @property
    def _answer_begun(self) -> bool:
        """Whether a byte of the answer has come."""
        return self._http.their_state is not h11.SEND_RESPONSE or self._http.trailing_data[0] != b""

    async def _is_quiet(self) -> bool:
        """Return whether neither a byte nor an end has come since the last answer."""
        if self._http.trailing_data != (b"", False):
            return False
        with trio.move_on_after(QUIET_SECONDS), suppress(trio.BrokenResourceError):
            await self.stream.receive_some(1)
            return False
        return True

    async def exchange(self, request: Request, max_body: int) -> Response:
        if self._used:
            if not await self._is_quiet():
                raise _Stale
            self._http.start_next_cycle()
        headers = {"Host": self._host, "Accept": "application/json", "Connection": "keep-alive"}
        headers |= request.headers
        if request.body or request.method in ("PUT", "POST"):
            headers["Content-Length"] = str(len(request.body))
        try:
            head = h11.Request(method=request.method, target=request.target, headers=list(headers.items()))
            await self._send(head, h11.Data(data=request.body), h11.EndOfMessage())
            return await self._receive(max_body)
        except h11.RemoteProtocolError as error:
            failure = RequestFailure.CLOSED if self._ended else RequestFailure.MALFORMED
            raise RequestFailed(failure, unquoted(error)) from error
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:  # a setting that a header cannot hold
            raise RequestFailed(RequestFailure.MALFORMED, f"our request: {unquoted(error)}") from error
        except ValueError as error:  # Python, by which h11 reads a length, refuses numbers of 4,300 digits
            raise RequestFailed(RequestFailure.MALFORMED, unquoted(error)) from error
        except trio.BrokenResourceError as error:
            if self._used and not self._answer_begun:
                raise _Stale from error
            cause = error.__cause__
            if _is_tls(cause):
                raise RequestFailed(RequestFailure.TLS, _tls_text(cause)) from error
            raise RequestFailed(RequestFailure.CLOSED, "the connection broke") from error
        finally:
            self._used = True

    async def _send(self, *events: h11.Event) -> None:
        """Send; on a new connection the server may have answered before, and closed: that answer is read."""
        data = b"".join(filter(None, map(self._http.send, events)))
        if self._used:
            await self.stream.send_all(data)
            return
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(data)

    async def _receive(self, max_body: int) -> Response:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._read()
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > max_body:
                    raise RequestFailed(RequestFailure.TOO_LARGE, f"the answer is over {max_body} bytes")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
                return Response(status=head.status_code, headers=headers, body=bytes(body))

    async def _read(self) -> None:
        data = await self.stream.receive_some(_CHUNK)
        self._ended = not data
        if not data and not self._answer_begun:
            if self._used:
                raise _Stale
            raise RequestFailed(RequestFailure.CLOSED, "the server closed the connection without an answer")
        self._http.receive_data(bytes(data))


def _is_tls(error: BaseException | None) -> TypeGuard[ssl.SSLError]:
    """Return whether this is an error of `ssl`, without importing `ssl` (agent/process/openssl.py)."""
    return "_ssl" in sys.modules and isinstance(error, ssl.SSLError)


def _tls_text(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    return str(error)


def _os_text(error: OSError) -> str:
    """Return the text of the first cause: trio groups the failures of several addresses into one error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno)
        else:
            cause = cause.__cause__
    return str(error)
