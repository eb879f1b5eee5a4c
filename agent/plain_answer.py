"""The head of an answer as nearly all answers are: HTTP/1.1, final, of a known length. No IO.

Such a head is held to the grammar and its few hop-by-hop headers are cut out; what is left goes to the caller
as it is, and of the body only the bytes are counted. Whatever is not so plain (an interim answer, chunks, an
upgrade, a length said twice, a folded line, HTTP/1.0, half a head) is `None` here, and left to h11
(`odd_answer.py`).
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
_LENGTH = re.compile(rb"[0-9]{1,18}")
_BODILESS = frozenset({b"204", b"304"})
_CLOSE = b"Connection: close\r\n"


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """`begins`: where its body does; `length`: of the body, in bytes; `keeps`: the app goes on after it."""

    head: bytes  # without the empty line
    begins: int
    length: int
    keeps: bool

    def written(self, *, close: bool) -> bytes:
        """The head for the caller. `close`: its connection ends with this answer."""
        return b"%b%b\r\n" % (self.head, _CLOSE if close else b"")


def read_plain(received: bytes, method: bytes) -> PlainAnswer | None:
    """Read the answer to a request of that method, which these bytes begin with."""
    match = _HEAD.match(received)
    if match is None:
        return None
    line, status, fields = match.groups()
    length, keeps = None, True
    for name, value in ((name.lower(), value.strip(b" \t")) for name, value in _TELLING.findall(fields)):
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif name == b"connection":
            if value.lower() not in {b"keep-alive", b"close"}:
                return None
            keeps = keeps and value.lower() != b"close"
        elif name in {b"upgrade", b"transfer-encoding"}:
            return None
    if status in _BODILESS:
        if length is not None:
            return None
        length = 0
    if length is None:
        return None
    head = line + _ENDS_HERE.sub(b"", fields)
    return PlainAnswer(head, match.end(), 0 if method == b"HEAD" else length, keeps)
