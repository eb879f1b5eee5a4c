"""Reads the heads of an app's usual answers line by line; a line that it repeats is not read again. No IO.

Most lines are the same from one answer to the next. What was made of the last answer's lines is kept for the
next one, and no longer. The result is that of `read_fast`, to which a property test holds it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.http1.response_fast import BODILESS, HOP_BY_HOP, FastResponse, is_length, read_fast

MAX_HEAD = 4 * 1024  # bytes; longer heads are read by `read_fast`
_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_KEPT, _GONE, _CLOSE, _LENGTH, _CHUNKED, _STATUS, _ODD = range(7)


class Line(NamedTuple):
    """What a line means: its kind, and as its number a body's length, or of a status whether one may come."""

    kind: int
    number: int = 0


class UsualAnswers:
    """Reads the answers of one connection to an app."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[bytes, Line] = {}

    def read(self, received: bytes, method: bytes) -> FastResponse | None:
        """Read the answer to a request of that method at the start of `received`, as `read_fast` does."""
        end = received.find(_END, 0, MAX_HEAD)
        if end < 0:
            return read_fast(received, method)
        before, self._lines = self._lines, {}
        length, chunked, keep_alive = -1, False, True
        first, *raw_lines = received[:end].split(b"\r\n")
        status = self._lines[first] = before.get(first) or _read_status(first)
        if status.kind != _STATUS:
            return None
        kept = [first]
        for raw in raw_lines:
            line = self._lines[raw] = before.get(raw) or _read_field(raw)
            kind = line.kind
            if kind == _KEPT:
                kept.append(raw)
            elif kind == _LENGTH and length < 0:
                length = line.number
                kept.append(raw)
            elif kind == _CHUNKED and not chunked:
                chunked = True
                kept.append(raw)
            elif kind == _CLOSE:
                keep_alive = False
            elif kind != _GONE:
                return None
        if not status.number:
            if length >= 0 or chunked:
                return None
            length = 0
        if (length < 0) is not chunked or (chunked and method == b"HEAD"):
            return None
        kept.append(b"")
        return FastResponse(
            head=b"\r\n".join(kept),
            body_start=end + len(_END),
            length=0 if chunked or method == b"HEAD" else length,
            chunked=chunked,
            keep_alive=keep_alive,
        )


def _read_status(raw: bytes) -> Line:
    match = _STATUS_LINE.fullmatch(raw)
    return _ODD_LINE if match is None else Line(_STATUS, match[1] not in BODILESS)


def _read_field(raw: bytes) -> Line:
    match = _FIELD.fullmatch(raw)
    if match is None:
        return _ODD_LINE
    name, value = match[1].lower(), match[2]
    if name == b"content-length":
        return Line(_LENGTH, int(value)) if is_length(value) else _ODD_LINE
    if name == b"transfer-encoding":
        return Line(_CHUNKED) if value == b" chunked" else _ODD_LINE
    if name == b"connection":
        return _OPTIONS.get(value.strip(b" \t").lower(), _ODD_LINE)
    if name == b"upgrade":
        return _ODD_LINE
    return _GONE_LINE if name in HOP_BY_HOP else _KEPT_LINE


# Shared, since each connection keeps the lines of its last answer.
_KEPT_LINE, _GONE_LINE, _ODD_LINE = Line(_KEPT), Line(_GONE), Line(_ODD)
_OPTIONS = {b"keep-alive": _GONE_LINE, b"close": Line(_CLOSE)}
