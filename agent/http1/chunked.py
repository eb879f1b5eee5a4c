"""A chunked body, read strictly and written anew as it comes (RFC 9112 §7.1). No IO.

Of each chunk's line only the size goes on: extensions end here (§7.1.1), and so does every way of writing a
size that somebody might read differently. The bytes go on as they come, whole chunks or not. What is held
back is a line or a trailer section that has not all come, and no more than MAX_LINE or MAX_TRAILERS of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from agent.http1.head import Fields, has_bare_line_end, read_fields

MAX_LINE = 1024  # bytes of a chunk's line; sizes are short, and nobody uses extensions
MAX_TRAILERS = 16 * 1024

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*|[ \t]*)\r\n")
_LINE_END = b"\r\n"


class ChunksBroken(ValueError):
    """These bytes are no chunks."""


class Chunks:
    """One body from its first chunk on. `ended`: the last has come, and `rest` is what came after it."""

    __slots__ = ("_held", "_last", "_left", "_trailers", "ended", "rest")

    def __init__(self, trailers: Callable[[Fields], Fields]) -> None:
        """`trailers`: which of them go on."""
        self._trailers = trailers
        self._held = b""
        self._left = 0  # bytes of the chunk that is coming, its line end included
        self._last = False  # the size was nought: only trailers are to come
        self.ended = False
        self.rest = b""

    def take(self, data: bytes) -> bytes:
        """What goes on of these bytes; raise ChunksBroken."""
        data, self._held = self._held + data, b""
        written: list[bytes] = []
        place = 0
        while place < len(data) and not self.ended:
            length = self._part(data, place, written)
            if not length:
                self._held = data[place:]
                break
            place += length
        if self.ended:
            self.rest += data[place:]
        return b"".join(written)

    def _part(self, data: bytes, place: int, written: list[bytes]) -> int:
        """Read what comes at that place, and write it; its length, or 0 if it has not all come."""
        if self._left > len(_LINE_END):
            part = data[place : place + self._left - len(_LINE_END)]
            self._left -= len(part)
            written.append(part)
            return len(part)
        if self._left:
            return self._line_end(data[place : place + len(_LINE_END)], written)
        return self._trailer_section(data, place, written) if self._last else self._size(data, place, written)

    def _line_end(self, part: bytes, written: list[bytes]) -> int:
        if not _LINE_END.startswith(part):
            raise ChunksBroken("a chunk is longer than its size")
        if part != _LINE_END:
            return 0
        self._left = 0
        written.append(_LINE_END)
        return len(_LINE_END)

    def _size(self, data: bytes, place: int, written: list[bytes]) -> int:
        match = _SIZE.match(data, place)
        if match is None:
            if len(data) - place > MAX_LINE or data.find(b"\n", place) >= 0:
                raise ChunksBroken("not a chunk's size")
            return 0
        if match.end() - place > MAX_LINE:
            raise ChunksBroken(f"a chunk's line is over {MAX_LINE} bytes")
        size = int(match[1], 16)
        if size:
            self._left = size + len(_LINE_END)
            written.append(b"%x\r\n" % size)
        else:
            self._last = True
        return match.end() - place

    def _trailer_section(self, data: bytes, place: int, written: list[bytes]) -> int:
        if data.startswith(_LINE_END, place):
            return self._end([], len(_LINE_END), written)
        end = data.find(2 * _LINE_END, place)
        if end < 0:
            if has_bare_line_end(data[place:]):
                raise ChunksBroken("lines of trailers end with CR LF")
            if len(data) - place > MAX_TRAILERS:
                raise ChunksBroken(f"trailers are over {MAX_TRAILERS} bytes")
            return 0
        fields = read_fields(data[place : end + len(_LINE_END)])
        if fields is None:
            raise ChunksBroken("trailers are not `name: value`")
        return self._end(fields, end + 2 * len(_LINE_END) - place, written)

    def _end(self, trailers: Fields, length: int, written: list[bytes]) -> int:
        self.ended = True
        going = b"".join([b"%b: %b\r\n" % field for field in self._trailers(trailers)])
        written.append(b"0\r\n%b\r\n" % going)
        return length
