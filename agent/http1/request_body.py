"""The body of a request on its way to the app: where it ends, and what is written of it. No IO.

The head has been held to one reading before (`head.py`), so its framing is one of three: nothing, so
many bytes, or chunks. Counted bytes go on as they are; chunks are written anew (`chunked.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from enum import StrEnum
from functools import partial
from typing import Protocol

from agent.http1.chunked import Chunks, ChunksBroken
from agent.http1.fields import trailer_fields
from agent.http1.head import FieldNames, Fields, name_refused


class BodyReason(StrEnum):
    """Why a request's body was not passed on to its end."""

    MALFORMED = "malformed_body"
    FIELD_NAME = "field_name"  # of a trailer
    CUT_OFF = "request_cut_off"


class BodyBroken(ValueError):
    """What came is not the body that was announced."""

    def __init__(self, reason: BodyReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class RequestBody(Protocol):
    """What comes after a request's head on the caller's connection."""

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""

    @property
    def more(self) -> bool:
        """Whether bytes that have come are still to be read: the next `take` needs none."""

    @property
    def rest(self) -> bytes:
        """What came after its end: the next request."""

    def start(self) -> bytes:
        """What goes on to the app of that which came with the head; raise BodyBroken."""

    def take(self, data: bytes) -> bytes:
        """What goes on to the app of these bytes; raise BodyBroken. None are the end, unless `more`."""


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
    more = False

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
    """Chunks, written anew."""

    __slots__ = ("_chunks",)

    def __init__(self, came: bytes, judged: Collection[str], names: FieldNames = FieldNames.PLAIN) -> None:
        """`judged`: folded names of headers that rules look at; they are not let through as trailers."""
        self._chunks = Chunks(partial(_trailers, judged=judged, names=names))
        self._came = came

    @property
    def ended(self) -> bool:
        return self._chunks.ended

    @property
    def more(self) -> bool:
        return self._chunks.more

    @property
    def rest(self) -> bytes:
        return self._chunks.rest

    def take(self, data: bytes) -> bytes:
        """The chunks in them."""
        if not data and not self.more and not self.ended:
            raise BodyBroken(BodyReason.CUT_OFF, "the last chunk is missing")
        try:
            return self._chunks.take(data)
        except ChunksBroken as error:
            raise BodyBroken(BodyReason.MALFORMED, str(error)) from error


def _trailers(trailers: Fields, judged: Collection[str], names: FieldNames) -> Fields:
    """Those that go on; raise BodyBroken where one has a name that no header may have."""
    name = names.refused(trailers)
    if name is not None:
        raise BodyBroken(BodyReason.FIELD_NAME, name_refused(name).detail)
    return trailer_fields(trailers, judged)
