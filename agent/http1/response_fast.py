"""Reads the head of a usual answer: HTTP/1.1, final, with a length or in chunks. No IO.

The head must match the grammar; its hop-by-hop headers are cut out, and the rest goes to the caller
unchanged. The bytes of a body with a length are counted; chunks are written anew (`chunked.py`). Any other
head is `None` here and is left to h11 (`response_h11.py`): an interim answer, an upgrade, a repeated or oddly
spelled length, a folded line, HTTP/1.0, an incomplete head.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n"
_HEAD = re.compile(
    rb"(HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*\r\n)((?:" + _FIELD + rb")*+)\r\n"
)  # fmt: skip
_HOP_BY_HOP = rb"connection|keep-alive|proxy-connection|proxy-authenticate|proxy-authorization|te"
HOP_BY_HOP = frozenset(_HOP_BY_HOP.split(b"|"))
_TELLING = re.compile(
    rb"^(" + _HOP_BY_HOP + rb"|upgrade|transfer-encoding|content-length):([^\r]*)",
    re.IGNORECASE | re.MULTILINE,
)
_ENDS_HERE = re.compile(rb"^(?:" + _HOP_BY_HOP + rb"):[^\r]*\r\n", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb" (?:0|[1-9][0-9]{0,17})")  # the spelling in which it would be written anew
BODILESS = frozenset({b"204", b"304"})
_CLOSE = b"Connection: close\r\n"


class FastResponse(NamedTuple):
    """`body_start`: offset in the received bytes; `length`: of the body.

    `keep_alive`: the app goes on after it.
    """

    head: bytes  # without the empty line
    body_start: int
    length: int
    chunked: bool  # instead of a length
    keep_alive: bool

    @property
    def status(self) -> int:
        """Return the status of the answer."""
        return int(self.head[9:12])

    def written(self, *, close: bool) -> bytes:
        """Return the head for the caller. `close`: the caller's connection ends with this answer."""
        return b"%b%b\r\n" % (self.head, _CLOSE if close else b"")


def read_fast(received: bytes, method: bytes) -> FastResponse | None:
    """Read the answer to a request of that method at the start of `received`.

    None if it is not a usual one.
    """
    match = _HEAD.match(received)
    if match is None:
        return None
    line, status, fields = match.groups()
    framing = _framing(fields)
    if framing is None:
        return None
    length, chunked, keep_alive = framing
    if status in BODILESS:
        if length is not None or chunked:
            return None
        length = 0
    if (length is None) is not chunked or (chunked and method == b"HEAD"):
        return None
    head = line + _ENDS_HERE.sub(b"", fields)
    return FastResponse(
        head, match.end(), 0 if length is None or method == b"HEAD" else length, chunked, keep_alive
    )


def is_length(value: bytes) -> bool:
    """Return whether that is a length in the spelling in which it would be written anew."""
    return _LENGTH.fullmatch(value) is not None


def _framing(fields: bytes) -> tuple[int | None, bool, bool] | None:
    """Return length, whether there are chunks, and keep-alive; None if one is repeated or oddly spelled."""
    length, chunked, keep_alive = None, False, True
    for raw, value in _TELLING.findall(fields):
        name = raw.lower()
        if name == b"content-length":
            if length is not None or not is_length(value):
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
            keep_alive = keep_alive and option != b"close"
        elif name == b"upgrade":
            return None
    return length, chunked, keep_alive
