"""One request passed on to the app and its answer passed back, both as they come, nothing held whole.

Two tasks: one takes the request's body to the app and then listens for the caller leaving, the other takes
the answer to the caller. The answer decides when the exchange is over: an app may answer before it has read
the whole request, and then what is left of it is not waited for. A short request with a prompt answer, which
is most of them, needs no second task: if the caller leaves, the answer's sending shows it.

The framing of both sides is written anew by h11: no length, chunk or trailer of one side reaches the other as
the bytes it was. Memory per exchange: what one read brings, and a burst of the caller's next requests.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, StrEnum, auto

import h11
import trio

from agent.app_connection import AppConnection
from agent.http_streams import CHUNK, StreamBroken, TlsStream
from agent.request_headers import Fields, response_fields, trailer_fields
from agent.splice import Ending

PROMPT_SECONDS = 0.5  # an answer that begins within this time needs no second task

_SWITCH: Fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


class ExchangeReason(StrEnum):
    """Why an exchange that was begun was not finished."""

    APP_CLOSED = "app_closed"
    APP_MALFORMED = "app_malformed_answer"
    BODY = "malformed_body"
    CUT_OFF = "request_cut_off"


class Outcome(Enum):
    """How an exchange ended, if it did not fail."""

    ANSWERED = auto()
    SWITCHED = auto()  # both sides agreed to another protocol
    STALE = auto()  # the app had closed the kept connection; nobody has seen the request


class ExchangeFailed(Exception):
    """`answering`: part of an answer has been sent, so that no other can be."""

    def __init__(self, reason: ExchangeReason | Ending, detail: str, *, answering: bool) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.answering = answering


class Exchange:
    """One request whose head was read from `http` and let through; `request` is what the app gets of it."""

    def __init__(
        self,
        caller: TlsStream,
        http: h11.Connection,
        app: AppConnection,
        request: h11.Request,
        judged: Collection[str],
    ) -> None:
        """`judged`: folded names of headers that rules look at; they are not let through as trailers."""
        self._caller = caller
        self._http = http
        self._app = app
        self._request = request
        self._judged = judged
        self._outcome = Outcome.ANSWERED
        self._failure: ExchangeFailed | None = None
        self._scope = trio.CancelScope()
        self._answering = False
        self._burst = 0

    async def run(self) -> Outcome:
        """Raise ExchangeFailed. Afterwards the states of both HTTP connections tell what can be reused."""
        if not await self._send_head():
            return Outcome.STALE
        sent_whole = self._http.their_state is not h11.SEND_BODY
        if sent_whole and await self._app.stream.readable_within(PROMPT_SECONDS):
            await self._download()
        else:
            await self._both_ways()
        if self._failure is not None:
            raise self._failure
        return self._outcome

    async def _both_ways(self) -> None:
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._upload)
            await self._download()
            nursery.cancel_scope.cancel()

    async def _send_head(self) -> bool:
        """The head, and with it what has come of the body; False when a kept connection is stale."""
        try:
            part = self._next_part()
            await self._app.send(self._request, *([] if part is None else [part]))
        except StreamBroken as broken:
            if self._app.used:
                return False
            raise ExchangeFailed(ExchangeReason.APP_CLOSED, broken.detail, answering=False) from broken
        except h11.ProtocolError as error:
            raise ExchangeFailed(ExchangeReason.BODY, str(error), answering=False) from error
        return True

    # The request.

    async def _upload(self) -> None:
        try:
            while self._http.their_state is h11.SEND_BODY:
                part = self._next_part()
                if part is None:
                    self._http.receive_data(await self._caller.receive())
                else:
                    await self._app.send(part)
            await self._listen()
        except h11.ProtocolError as error:
            ended = self._http.trailing_data[1]
            self._fail(ExchangeReason.CUT_OFF if ended else ExchangeReason.BODY, str(error))
        except StreamBroken as broken:
            if broken.ending is not Ending.PLAIN_RESET:
                self._fail(broken.ending, broken.detail)
            # else the app takes no more; what it says to that, the other task hears

    def _next_part(self) -> h11.Event | None:
        """What goes on next of the request's body; None: more has to be received for it."""
        if self._http.their_state is not h11.SEND_BODY:
            return h11.EndOfMessage()  # read before, for a connection that was stale
        event = self._http.next_event()
        if isinstance(event, h11.EndOfMessage):
            return h11.EndOfMessage(headers=trailer_fields(event, self._judged))
        return event if isinstance(event, h11.Data) else None

    async def _listen(self) -> None:
        """Take the caller's next requests, up to a burst, so that its breaking off is noticed."""
        while self._burst < CHUNK:
            data = await self._caller.receive()
            self._http.receive_data(data)
            self._burst += len(data)
            if not data:
                return

    # The answer.

    async def _download(self) -> None:
        try:
            await self._answer()
        except h11.ProtocolError as error:
            closed = self._app.http.trailing_data[1]
            self._fail(ExchangeReason.APP_CLOSED if closed else ExchangeReason.APP_MALFORMED, str(error))
        except StreamBroken as broken:
            reason = ExchangeReason.APP_CLOSED if broken.ending is Ending.PLAIN_RESET else broken.ending
            self._fail(reason, broken.detail)

    async def _answer(self) -> None:
        ready: list[bytes] = []
        while True:
            event = self._app.http.next_event()
            if event is h11.NEED_DATA:
                await self._flush(ready)
                if not await self._hear_app():
                    return
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    ready.append(self._switch(event))
                    await self._flush(ready)
                    return
                if self._http.their_http_version != b"1.0":
                    ready.append(self._interim(event))
            elif isinstance(event, h11.Response):
                ready.append(self._head(event))
            elif isinstance(event, h11.Data):
                ready.append(self._pass(event))
            elif isinstance(event, h11.EndOfMessage):
                ready.append(self._end(event))
                await self._flush(ready)
                return
            else:
                raise h11.RemoteProtocolError("no answer")

    async def _hear_app(self) -> bool:
        """False: there is nothing to hear, for the connection was stale."""
        untouched = self._app.used and self._app.http.their_state is h11.SEND_RESPONSE and not self._answering
        try:
            data = await self._app.receive()
        except StreamBroken:
            if not untouched:
                raise
            data = b""
        if not data and untouched and not self._app.http.trailing_data[0]:
            self._outcome = Outcome.STALE
            return False
        return True

    async def _flush(self, ready: list[bytes]) -> None:
        if ready:
            await self._caller.send(b"".join(ready))
            ready.clear()

    def _pass(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    def _interim(self, event: h11.InformationalResponse) -> bytes:
        fields = response_fields(event)
        return self._pass(
            h11.InformationalResponse(status_code=event.status_code, headers=fields, reason=event.reason)
        )

    def _head(self, event: h11.Response) -> bytes:
        self._answering = True
        fields = response_fields(event)
        return self._pass(h11.Response(status_code=event.status_code, headers=fields, reason=event.reason))

    def _end(self, event: h11.EndOfMessage) -> bytes:
        """HTTP/1.0 has no trailers."""
        chunked = self._http.their_http_version != b"1.0"
        return self._pass(h11.EndOfMessage(headers=trailer_fields(event) if chunked else []))

    def _switch(self, event: h11.InformationalResponse) -> bytes:
        asked = [value.lower() for name, value in event.headers if name == b"upgrade"]
        if asked != [b"websocket"]:
            raise h11.RemoteProtocolError("the app switches to what was not asked for")
        self._answering = True
        self._outcome = Outcome.SWITCHED
        fields = [*response_fields(event), *_SWITCH]
        return self._pass(h11.InformationalResponse(status_code=101, headers=fields, reason=event.reason))

    def _fail(self, reason: ExchangeReason | Ending, detail: str) -> None:
        if self._failure is None:
            self._failure = ExchangeFailed(reason, detail, answering=self._answering)
        self._scope.cancel()
