"""Reads a chunked body strictly and writes it anew as it comes (RFC 9112 §7.1). No IO.

No announced size is passed on. Each written chunk holds only bytes that have come, so its size counts bytes
in the same write: no reader's number overflows, and no reader reserves room for bytes that may never come.
Extensions are dropped (§7.1.1). Only an incomplete line or trailer section is held back, of at most MAX_LINE
or MAX_TRAILERS bytes.

A chunk may hold one byte, and its six bytes are as much work as any other chunk. So one call reads MOST
chunks; `more` says that the next call needs no new bytes, and the caller lets other tasks run before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from agent.http1.head import MAX_FIELDS, Fields, has_bare_line_end, read_fields

MAX_SIZE = 2**31 - 1  # bytes that a chunk may announce
MAX_LINE = 1024  # bytes of a chunk's line; sizes are short, and extensions are hardly used
MAX_TRAILERS = 16 * 1024
MOST = 256  # chunks in one call: a third of a millisecond

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16}+)[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_LINE_END = b"\r\n"
_END = 2 * _LINE_END


class ChunksBroken(ValueError):
    """The bytes are not a chunked body."""


class Chunks:
    """One body from its first chunk on. `ended`: the last chunk has come; `rest`: the bytes after it."""

    __slots__ = ("_held", "_last", "_left", "_owed", "_seen", "_tail", "_trailers", "ended", "more", "rest")

    def __init__(self, trailers: Callable[[Fields], Fields]) -> None:
        """`trailers` selects the trailers that are passed on."""
        self._trailers = trailers
        self._held = b""
        self._seen = 0  # bytes of `_held` that were searched for an end in vain
        self._left = 0  # bytes of the present chunk that have not come
        self._owed = False  # the line end of the present chunk has not come
        self._last = False  # the size was 0: only trailers are to come
        self._tail = b""  # the last chunk, as it is to be written
        self.ended = False
        self.more = False
        self.rest = b""

    def take(self, data: bytes) -> bytes:
        """Return what to pass on of the bytes held and of `data`. Raises ChunksBroken."""
        if self.ended:
            self.rest += data
            return b""
        data, self._held = self._held + data, b""
        content: list[bytes] = []
        place = 0
        for _ in range(MOST):
            length = self._part(data, place, content)
            place += length
            if not length or self._tail:
                self.more = False
                break
        else:
            self.more = place < len(data)
        if self._tail:
            self.ended, self.rest = True, data[place:]
        else:
            self._held = data[place:]
        return _chunk(content) + self._tail

    def _part(self, data: bytes, place: int, content: list[bytes]) -> int:
        """Read the element at `place` into `content`; return its length, 0 if it is incomplete."""
        if self._owed:
            return self._rest_of_chunk(data, place, content)
        if self._last:
            return self._trailer_section(data, place)
        return self._next_chunk(data, place, content)

    def _next_chunk(self, data: bytes, place: int, content: list[bytes]) -> int:
        """Read a complete chunk, or only its line."""
        if data.find(b"\n", place + self._seen, place + MAX_LINE) < 0:
            return self._wait(len(data) - place, MAX_LINE)
        match = _SIZE.match(data, place)
        size = MAX_SIZE + 1 if match is None else int(match[1], 16)
        if match is None or size > MAX_SIZE:
            raise ChunksBroken("not a chunk's size")
        self._seen = 0
        begin = match.end()
        if not size:
            self._last = True
        elif data.startswith(_LINE_END, begin + size):
            content.append(data[begin : begin + size])
            return begin + size + len(_LINE_END) - place
        else:
            self._left, self._owed = size, True
        return begin - place

    def _rest_of_chunk(self, data: bytes, place: int, content: list[bytes]) -> int:
        """Read the present part of a chunk, or its line end."""
        if self._left:
            part = data[place : place + self._left]
            self._left -= len(part)
            content.append(part)
            return len(part)
        part = data[place : place + len(_LINE_END)]
        if not _LINE_END.startswith(part):
            raise ChunksBroken("a chunk is longer than its size")
        if part != _LINE_END:
            return 0
        self._owed = False
        return len(_LINE_END)

    def _trailer_section(self, data: bytes, place: int) -> int:
        if data.startswith(_LINE_END, place):
            return self._finish([], len(_LINE_END))
        end = data.find(_END, place + max(self._seen - len(_END) + 1, 0), place + MAX_TRAILERS)
        if end < 0:
            if has_bare_line_end(data, place + self._seen):
                raise ChunksBroken("lines of trailers end with CR LF")
            return self._wait(len(data) - place, MAX_TRAILERS)
        block = data[place : end + len(_LINE_END)]
        fields = None if block.count(b"\n") > MAX_FIELDS else read_fields(block)
        if fields is None:
            raise ChunksBroken(f"trailers are not `name: value`, or over {MAX_FIELDS}")
        return self._finish(fields, end + len(_END) - place)

    def _wait(self, seen: int, most: int) -> int:
        """Wait for the rest of a line or of the trailers; raise ChunksBroken if it is over `most` bytes."""
        if seen >= most:
            raise ChunksBroken(f"a chunk's line, or trailers, are over {most} bytes")
        self._seen = seen
        return 0

    def _finish(self, trailers: Fields, length: int) -> int:
        going = b"".join([b"%b: %b\r\n" % field for field in self._trailers(trailers)])
        self._tail = b"0\r\n%b\r\n" % going
        return length


def _chunk(content: list[bytes]) -> bytes:
    """Return one chunk that holds `content`, or nothing for no bytes."""
    size = sum(map(len, content))
    return b"".join([b"%x\r\n" % size, *content, _LINE_END]) if size else b""
