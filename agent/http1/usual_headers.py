"""Reads the headers of a usual request line by line; a line that its caller repeats is not read again. No IO.

Most headers of a caller's requests are the same from one to the next, and one or two differ: an id, a trace.
So each line is read by itself, and what was made of the last request's lines is used again where the same
bytes come again. Nothing is kept longer than that, since a line may hold a password.

Only lines that mean nothing beside themselves are read here: a Host, headers that are passed on, and headers
that end here whatever they say. Any other line (a body's framing, an upgrade, an expectation, an option of
the connection, or a line that breaks the grammar) leaves the whole head to `read_head` and `request_fields`,
which refuse or read it. A property test holds both to the same result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from agent.http1.fields import IDENTITY, HeaderName, header_name, text
from agent.http1.head import MAX_FIELDS, Fields, is_host
from agent.http1.request import Values

_LINE = re.compile(rb"([0-9A-Za-z-]{1,256}+):([\t\x20-\x7e\x80-\xff]*)")
_END = b"\r\n\r\n"
_NOT_HERE = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


class Line(NamedTuple):
    """What a header line means. `gone`: it never reaches the app."""

    gone: bool
    host: bool
    folded: str
    field: tuple[bytes, bytes]
    values: Values
    written: bytes


_GONE = Line(gone=True, host=False, folded="", field=(b"", b""), values=(), written=b"")


class UsualHeaders(NamedTuple):
    """The headers for the app, as a list, as bytes without the empty line, and as permissions judge them."""

    fields: Fields
    written: bytes
    values: dict[str, Values]
    lines: Mapping[bytes, Line]  # for the next request


def read_usual_headers(block: bytes, before: Mapping[bytes, Line]) -> UsualHeaders | None:
    """Read the headers of an HTTP/1.1 request, empty line included; None where there is more to them.

    `before`: the lines of the request before.
    """
    raw_lines = block[: -len(_END)].split(b"\r\n")
    if len(raw_lines) > MAX_FIELDS or not block.endswith(_END):
        return None
    fields, written, hosts = [], [], 0
    values: dict[str, Values] = {}
    lines: dict[bytes, Line] = {}
    for raw in raw_lines:
        line = before.get(raw) or read_line(raw)
        if line is None:
            return None
        lines[raw] = line
        if line.gone:
            continue
        hosts += line.host
        fields.append(line.field)
        written.append(line.written)
        folded = line.folded
        values[folded] = (*values[folded], *line.values) if folded in values else line.values
    return UsualHeaders(fields, b"".join(written), values, lines) if hosts == 1 else None


def read_line(raw: bytes) -> Line | None:
    """Read one line without its end; None where it means more than itself, or breaks the grammar."""
    match = _LINE.fullmatch(raw)
    if match is None:
        return None
    name, value = match[1], match[2].strip(b" \t")
    meaning = header_name(name)
    lower = meaning.lower
    if lower in _NOT_HERE or (lower == b"host" and not is_host(value)):
        return None
    if lower == b"connection":
        return _GONE if value.lower() == b"keep-alive" else None
    if meaning.gone:
        return _GONE
    return _passed_on(meaning, name, value)


def _passed_on(meaning: HeaderName, name: bytes, value: bytes) -> Line:
    return Line(
        gone=False,
        host=meaning.lower == b"host",
        folded=meaning.folded,
        field=(name, value),
        values=(text(value),),
        written=b"%b: %b\r\n" % (name, value),
    )


def identity_line(identity: bytes) -> Line | None:
    """Return the line by which the app learns who calls; None if the value breaks the grammar."""
    name = IDENTITY.encode()
    if _LINE.fullmatch(b"%b: %b" % (name, identity)) is None:
        return None
    return _passed_on(header_name(name), name, identity)
