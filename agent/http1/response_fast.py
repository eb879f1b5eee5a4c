"""The head of an answer as nearly all answers are: HTTP/1.1, final, of a known length or in chunks. No IO.

Such a head is held to the grammar and its few hop-by-hop headers are cut out; what is left goes to the caller
as it is. Of a body of known length only the bytes are counted; chunks are written anew (`chunked.py`).
Whatever is not so plain (an interim answer, an upgrade, a length said twice or spelled oddly, a folded line,
HTTP/1.0, half a head) is `None` here, and left to h11 (`response_h11.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n"
_HEAD = re.compile(
    rb"(HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*\r\n)((?:" + _FIELD + rb")*+)\r\n"
)  # fmt: skip
_HOP_BY_HOP = rb"connection|keep-alive|proxy-connection|proxy-authenticate|proxy-authorization|te"
_TELLING = re.compile(
    rb"^(" + _HOP_BY_HOP + rb"|upgrade|transfer-encoding|content-length):([^\r]*)",
    re.IGNORECASE | re.MULTILINE,
)
_ENDS_HERE = re.compile(rb"^(?:" + _HOP_BY_HOP + rb"):[^\r]*\r\n", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb" (?:0|[1-9][0-9]{0,17})")  # as it would be written anew
_BODILESS = frozenset({b"204", b"304"})
_CLOSE = b"Connection: close\r\n"


@dataclass(frozen=True, slots=True)
class FastResponse:
    """`begins`: where its body does; `length`: of the body, in bytes; `keeps`: the app goes on after it."""

    head: bytes  # without the empty line
    begins: int
    length: int
    chunked: bool  # instead of a length
    keeps: bool

    def written(self, *, close: bool) -> bytes:
        """The head for the caller. `close`: its connection ends with this answer."""
        return b"%b%b\r\n" % (self.head, _CLOSE if close else b"")


def read_fast(received: bytes, method: bytes) -> FastResponse | None:
    """Read the answer to a request of that method, which these bytes begin with."""
    match = _HEAD.match(received)
    if match is None:
        return None
    line, status, fields = match.groups()
    told = _told(fields)
    if told is None:
        return None
    length, chunked, keeps = told
    if status in _BODILESS:
        if length is not None or chunked:
            return None
        length = 0
    if (length is None) is not chunked or (chunked and method == b"HEAD"):
        return None
    head = line + _ENDS_HERE.sub(b"", fields)
    return FastResponse(
        head, match.end(), 0 if length is None or method == b"HEAD" else length, chunked, keeps
    )


def _told(fields: bytes) -> tuple[int | None, bool, bool] | None:
    """Length, whether there are chunks, and whether the app goes on, if each is said once and plainly."""
    length, chunked, keeps = None, False, True
    for raw, value in _TELLING.findall(fields):
        name = raw.lower()
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or value != b" chunked":
                return None
            chunked = True
        elif name == b"connection":
            option = value.strip(b" \t").lower()
            if option not in {b"keep-alive", b"close"}:
                return None
            keeps = keeps and option != b"close"
        elif name == b"upgrade":
            return None
    return length, chunked, keeps
