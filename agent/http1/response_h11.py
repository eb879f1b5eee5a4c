"""Parses an unusual answer with h11 and writes it anew: interim answers, upgrades, HTTP/1.0. No IO.

Whatever the app's framing is, the caller gets framing by h11. Callers of HTTP/1.0 get no chunks, no trailers
and no interim answers.
"""

from __future__ import annotations

from enum import StrEnum

import h11

from agent.base.unquoted import unquoted
from agent.http1.fields import SWITCH, response_fields, trailer_fields

MAX_HEAD = 128 * 1024  # bytes; more than for callers, since our own app is trusted and may set many cookies
MOST_DIGITS = 18  # of a length: no reader's number overflows


class AnswerReason(StrEnum):
    """Why the app's answer was not passed back completely."""

    CLOSED = "app_closed"
    MALFORMED = "app_malformed_answer"


class AnswerBroken(ValueError):
    """The bytes are no answer, or an incomplete one."""

    def __init__(self, reason: AnswerReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class H11Response:
    """The answer to one request, read as it comes."""

    def __init__(self, method: bytes, *, http10: bool, upgrades: bool) -> None:
        """`http10`: the request is one of HTTP/1.0; `upgrades`: it asks for a WebSocket."""
        self._http10 = http10
        fields = [(b"Host", b"app"), *(SWITCH if upgrades else [])]
        self._app = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        head = self._app.send(h11.Request(method=method, target="/", headers=fields))
        self._app.send(h11.EndOfMessage())  # how an answer is read does not depend on the request's body
        self._caller = h11.Connection(h11.SERVER)
        self._caller.receive_data((head or b"").replace(b"HTTP/1.1", b"HTTP/1.0") if http10 else head or b"")
        self._caller.next_event()
        self.begun = False  # the final answer's head has been written
        self.status = 0  # of that head
        self.ended = False
        self.switched = (
            False  # both sides go on in another protocol; `rest` holds the app's first bytes of it
        )

    @property
    def rest(self) -> bytes:
        """The bytes after the answer's end."""
        return self._app.trailing_data[0]

    @property
    def keep_alive(self) -> bool:
        """Whether the app's connection can carry another request."""
        return self._app.their_state is h11.DONE and self._app.trailing_data == (b"", False)

    def take(self, data: bytes, *, close: bool) -> bytes:
        """Return what to send to the caller for `data`, which is empty at the app's end. Raises AnswerBroken.

        `close`: the answer tells the caller that its connection ends with it.
        """
        written: list[bytes] = []
        try:
            self._app.receive_data(data)
            while not (self.ended or self.switched):
                event = self._app.next_event()
                if event is h11.NEED_DATA:
                    break
                written.append(self._written(event, close=close))
        except h11.ProtocolError as error:
            reason = AnswerReason.MALFORMED if data else AnswerReason.CLOSED
            raise AnswerBroken(reason, unquoted(error)) from error.with_traceback(
                None
            )  # it is its own, a cycle
        return b"".join(written)

    def _written(self, event: object, *, close: bool) -> bytes:
        if isinstance(event, h11.InformationalResponse):
            return self._switch(event) if event.status_code == 101 else self._interim(event)
        if isinstance(event, h11.Response):
            return self._head(event, close=close)
        if isinstance(event, h11.Data):
            return self._send(event)
        if isinstance(event, h11.EndOfMessage):
            return self._end(event)
        raise h11.RemoteProtocolError("no answer")

    def _interim(self, event: h11.InformationalResponse) -> bytes:
        if self._http10:
            return b""
        fields = response_fields(event)
        return self._send(
            h11.InformationalResponse(status_code=event.status_code, headers=fields, reason=event.reason)
        )

    def _head(self, event: h11.Response, *, close: bool) -> bytes:
        self.begun, self.status = True, event.status_code
        if len(dict(event.headers).get(b"content-length", b"")) > MOST_DIGITS:
            raise h11.RemoteProtocolError("no answer is as long as that")
        fields = [*response_fields(event), *([(b"Connection", b"close")] if close else [])]
        return self._send(h11.Response(status_code=event.status_code, headers=fields, reason=event.reason))

    def _end(self, event: h11.EndOfMessage) -> bytes:
        self.ended = True
        trailers = [] if self._http10 else trailer_fields(list(event.headers.raw_items()))
        return self._send(h11.EndOfMessage(headers=trailers))

    def _switch(self, event: h11.InformationalResponse) -> bytes:
        asked = [value.lower() for name, value in event.headers if name == b"upgrade"]
        if asked != [b"websocket"]:
            raise h11.RemoteProtocolError("the app switches to what was not asked for")
        self.begun = self.switched = True
        self.status = event.status_code
        fields = [*response_fields(event), *SWITCH]
        return self._send(h11.InformationalResponse(status_code=101, headers=fields, reason=event.reason))

    def _send(self, event: h11.Event) -> bytes:
        return self._caller.send(event) or b""
