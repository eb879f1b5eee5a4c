"""Reads a request's body on its way to the app: where it ends, and what is written of it. No IO.

`head.py` has allowed the head one reading, so the framing is one of three: no body, a number of bytes, or
chunks. Counted bytes are passed on unchanged; chunks are written anew (`chunked.py`).
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
    """Why a request's body was not passed on completely."""

    MALFORMED = "malformed_body"
    FIELD_NAME = "field_name"  # a trailer's name
    CUT_OFF = "request_cut_off"


class BodyBroken(ValueError):
    """The bytes are not the body that was announced."""

    def __init__(self, reason: BodyReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class RequestBody(Protocol):
    """The bytes that follow a request's head on the caller's connection."""

    @property
    def ended(self) -> bool:
        """Whether the body has come completely."""

    @property
    def more(self) -> bool:
        """Whether bytes that have come are still to be read, so that the next `take` needs no new ones."""

    @property
    def rest(self) -> bytes:
        """The bytes after the body's end: the next request."""

    def start(self) -> bytes:
        """Return what to send to the app of the bytes that came with the head. Raises BodyBroken."""

    def take(self, data: bytes) -> bytes:
        """Return what to send to the app of `data`, which is empty at the end or if `more`.

        Raises BodyBroken.
        """


class _Arriving(ABC):
    """A body whose first bytes, `_came`, were received with the head."""

    __slots__ = ("_came",)
    _came: bytes

    def start(self) -> bytes:
        """Return what to send to the app of the bytes that came with the head."""
        came, self._came = self._came, b""
        return self.take(came) if came else b""

    @abstractmethod
    def take(self, data: bytes) -> bytes: ...


class CountedBody(_Arriving):
    """A body of `length` bytes, or none. `came`: the bytes received with the head."""

    __slots__ = ("_left", "ended", "rest")
    more = False

    def __init__(self, length: int, came: bytes) -> None:
        self._left = length
        self._came = came if length else b""
        self.ended = not length
        self.rest = b"" if length else came

    def take(self, data: bytes) -> bytes:
        """Return `data` up to the body's end."""
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
    """A chunked body, written anew."""

    __slots__ = ("_chunks",)

    def __init__(self, came: bytes, judged: Collection[str], names: FieldNames = FieldNames.PLAIN) -> None:
        """`judged`: folded names of the headers that permissions look at.

        Trailers of these names are dropped.
        """
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
        """Return the chunks in `data`, written anew."""
        if not data and not self.more and not self.ended:
            raise BodyBroken(BodyReason.CUT_OFF, "the last chunk is missing")
        try:
            return self._chunks.take(data)
        except ChunksBroken as error:
            raise BodyBroken(BodyReason.MALFORMED, str(error)) from error


def _trailers(trailers: Fields, judged: Collection[str], names: FieldNames) -> Fields:
    """Return the trailers to pass on. Raises BodyBroken for a name that no header may have."""
    name = names.refused(trailers)
    if name is not None:
        raise BodyBroken(BodyReason.FIELD_NAME, name_refused(name).detail)
    return trailer_fields(trailers, judged)
