"""The body of a request on its way to the app: where it ends, and what is written of it. No IO.

The head has been held to one reading before (`request_head.py`), so its framing is one of three: nothing, so
many bytes, or chunks. Counted bytes go on as they are. Chunks are parsed by h11 and written anew: no length,
extension or trailer of the caller's reaches the app as the bytes it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from enum import StrEnum
from typing import Protocol

import h11

from agent.request_headers import Fields, trailer_fields


class BodyReason(StrEnum):
    """Why a request's body was not passed on to its end."""

    MALFORMED = "malformed_body"
    CUT_OFF = "request_cut_off"


class BodyBroken(ValueError):
    """What came is not the body that was announced."""

    def __init__(self, reason: BodyReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class RequestBody(Protocol):
    """What comes after a request's head on the caller's connection."""

    ended: bool
    rest: bytes  # what came after its end: the next request

    def start(self) -> bytes:
        """What goes on to the app of that which came with the head; raise BodyBroken."""

    def take(self, data: bytes) -> bytes:
        """What goes on to the app of these bytes, or of the end, which is none; raise BodyBroken."""


class _Arriving(ABC):
    """A body of which `_came` was received with the head."""

    __slots__ = ("_came",)
    _came: bytes

    def start(self) -> bytes:
        """As far as it has come."""
        came, self._came = self._came, b""
        return self.take(came) if came else b""

    @abstractmethod
    def take(self, data: bytes) -> bytes: ...


class CountedBody(_Arriving):
    """So many bytes, or none at all. `came`: what was received with the head."""

    __slots__ = ("_left", "ended", "rest")

    def __init__(self, length: int, came: bytes) -> None:
        self._left = length
        self._came = came if length else b""
        self.ended = not length
        self.rest = b"" if length else came

    def take(self, data: bytes) -> bytes:
        """All of them, up to the end."""
        if self.ended:
            self.rest += data
            return b""
        if not data:
            raise BodyBroken(BodyReason.CUT_OFF, f"{self._left} bytes are missing")
        part = data[: self._left]
        self._left -= len(part)
        if not self._left:
            self.ended = True
            self.rest = data[len(part) :]
        return part


class ChunkedBody(_Arriving):
    """Chunks, parsed by the h11 connection that parsed the head."""

    __slots__ = ("_http", "_judged", "ended", "rest")

    def __init__(self, http: h11.Connection, came: bytes, judged: Collection[str]) -> None:
        """`judged`: folded names of headers that rules look at; they are not let through as trailers."""
        self._http = http
        self._came = came
        self._judged = judged
        self.ended = False
        self.rest = b""

    def take(self, data: bytes) -> bytes:
        """The chunks in them, written anew."""
        if self.ended:
            self.rest += data
            return b""
        try:
            self._http.receive_data(data)
            return b"".join(self._chunks())
        except h11.RemoteProtocolError as error:
            reason = BodyReason.MALFORMED if data else BodyReason.CUT_OFF
            raise BodyBroken(reason, str(error)) from error.with_traceback(None)  # as in `odd_answer.py`

    def _chunks(self) -> list[bytes]:
        written: list[bytes] = []
        while isinstance(event := self._http.next_event(), h11.Data):
            written.append(b"%x\r\n%b\r\n" % (len(event.data), event.data))
        if isinstance(event, h11.EndOfMessage):
            self.ended = True
            self.rest = self._http.trailing_data[0]
            written.append(last_chunk(trailer_fields(event, self._judged)))
        return written


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body."""
    return b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in trailers)
