"""Reads the head of an HTTP/1.1 request: where it ends, and whether every reader would read it alike.

RFC 9112 lets a parser forgive (as h11 does) bare line feeds, folded lines, a repeated length, a length beside
a transfer coding. A proxy may not: the app behind it may forgive differently, and then one sees a request
where the other sees a body (request smuggling). So the bytes must match the grammar exactly, and nothing is
repaired. Taking such a head apart is then no further work. h11 reads every such head the same way, which
tests hold this reader to, and takes four times as long.

Field names must match a narrower grammar than RFC 9110 §5.1: letters, digits and hyphens. A gateway behind us
may write every other character as an underscore (RFC 3875 §4.1.18), so that `X.Role`, `X!Role` and `X_Role`
are the header `X-Role` to its app, and `SCRIPT_NAME` is the path itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, StrEnum
from typing import NamedTuple

MAX_HEAD = 32 * 1024  # bytes of request line and headers
MAX_LENGTH = 2**40 - 1  # bytes of a body, a tebibyte: no reader's number overflows or loses a digit
MAX_FIELDS = 100  # each takes some microseconds

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_LINE = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/1\.[01]")
_USUAL_LINE = re.compile(rb"(" + _TOKEN + rb") (/[\x21-\x7e]*) HTTP/1\.1")
_OTHER_VERSION = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*")
_SPACED = re.compile(_TOKEN + rb"[ \t]++:")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*+")
_ITEM = re.compile(rb"([^:\r]+):([^\r]*)\r\n")  # for fields that matched _FIELDS
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_END = b"\r\n\r\n"
_SHOWN = 64  # bytes of a name that an answer quotes
_BEGINS = frozenset(b"!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


Fields = list[tuple[bytes, bytes]]  # names and values


class FieldNames(Enum):
    """The names that a request's fields may have."""

    PLAIN = rb"[0-9A-Za-z-]{1,256}+"
    UNDERSCORES = rb"[0-9A-Za-z_-]{1,256}+"

    def refused(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Return the first name that is not allowed; None if all are."""
        return next((name for name, _ in fields if not _NAME[self].fullmatch(name)), None)


_NAME = {names: re.compile(names.value) for names in FieldNames}
_HEAD = {
    names: re.compile(
        rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n"
        rb"((?:" + names.value + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*+)\r\n"
    )
    for names in FieldNames
}


class HeadReason(StrEnum):
    """Why a request is refused because of its head."""

    TOO_LARGE = "head_too_large"
    TOO_MANY = "too_many_fields"
    BARE_LINE_END = "bare_cr_or_lf"
    REQUEST_LINE = "malformed_request_line"
    VERSION = "http_version"
    FOLDED = "folded_header"
    SPACE_BEFORE_COLON = "space_before_colon"
    HEADER = "malformed_header"
    FIELD_NAME = "field_name"  # a gateway might take the name for another one
    LENGTH_AND_CODING = "length_and_transfer_encoding"
    LENGTH_TWICE = "repeated_content_length"
    LENGTH = "bad_content_length"
    CODING = "bad_transfer_encoding"
    HOST = "bad_host"
    CONNECT = "connect_method"
    EXPECTATION = "unknown_expectation"
    NOMINATED = "nominated_header"  # Connection nominates a header that belongs to the request
    DISGUISED = "disguised_header"  # content_length, host, SCRIPT_NAME, where underscores are allowed
    UNREADABLE = "malformed_request"


_STATUS = {
    HeadReason.TOO_LARGE: 431,
    HeadReason.TOO_MANY: 431,
    HeadReason.VERSION: 505,
    HeadReason.CONNECT: 405,
    HeadReason.EXPECTATION: 417,
}


class HeadRefused(ValueError):
    """The request is not passed on: `reason` for machines, `detail` for a person."""

    def __init__(self, reason: HeadReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    @property
    def status(self) -> int:
        """The status of the answer."""
        return _STATUS.get(self.reason, 400)


def find_end(received: bytes | bytearray, seen: int = 0) -> int | None:
    """Return the length of the head at the start of `received`; None while it is incomplete.

    Raises HeadRefused.

    Bytes that cannot become a head are refused before the head is complete. The first `seen` bytes were
    searched in an earlier call and are not searched again.
    """
    end = received.find(_END, max(seen - len(_END) + 1, 0), MAX_HEAD)
    if end >= 0:
        return end + len(_END)
    if received and received[0] not in _BEGINS:
        raise HeadRefused(HeadReason.REQUEST_LINE, f"a request does not begin with byte 0x{received[0]:02x}")
    if has_bare_line_end(received, seen):
        raise HeadRefused(HeadReason.BARE_LINE_END, "lines end with CR LF")
    if len(received) >= MAX_HEAD:
        raise HeadRefused(HeadReason.TOO_LARGE, f"request line and headers are over {MAX_HEAD} bytes")
    return None


def has_bare_line_end(received: bytes | bytearray, seen: int = 0) -> bool:
    """Return whether these lines, of which the last may be incomplete, hold a CR or an LF without the other.

    The first `seen` bytes hold none and are not searched again, except for a CR at their end.
    """
    begin = seen - (received[seen - 1 : seen] == b"\r")
    pairs = received.count(b"\r\n", begin)
    may_go_on = received.endswith(b"\r", begin)
    return not received.count(b"\n", begin) == pairs == received.count(b"\r", begin) - may_go_on


class RequestHead(NamedTuple):
    """The head of an HTTP/1.`minor` request.

    `fields`: names as received, values without outer white space.
    """

    method: bytes
    target: bytes
    minor: bytes
    host: bytes  # empty where HTTP/1.0 names none
    fields: Fields


def read_head(head: bytes, names: FieldNames = FieldNames.PLAIN) -> RequestHead:
    """Read a complete head, empty line included.

    Raises HeadRefused where it breaks the grammar or the framing.
    """
    if head.count(b"\n") > MAX_FIELDS + 2:  # beside the fields: the request line, and the empty line
        raise HeadRefused(HeadReason.TOO_MANY, f"there are over {MAX_FIELDS} headers")
    match = _HEAD[names].fullmatch(head)
    if match is None:
        raise _diagnosis(head, names)
    method, target, minor, block = match.groups()
    fields = _items(block)
    framing: dict[bytes, list[bytes]] = {b"content-length": [], b"transfer-encoding": [], b"host": []}
    for name, value in fields:
        if (lower := name.lower()) in framing:
            framing[lower].append(value)
    old = minor == b"0"
    _check_framing(framing[b"content-length"], framing[b"transfer-encoding"], old=old)
    _check_host(framing[b"host"], old=old)
    return RequestHead(method, target, minor, b"".join(framing[b"host"]), fields)


def read_fields(block: bytes) -> Fields | None:
    """Return the lines `name: value` of a block; None if it is not made of such lines."""
    return None if _FIELDS.fullmatch(block) is None else _items(block)


def _items(block: bytes) -> Fields:
    return [(name, value.strip(b" \t")) for name, value in _ITEM.findall(block)]


def are_fields(block: bytes, count: int) -> bool:
    """Return whether a block is exactly `count` lines of `name: value`."""
    return _FIELDS.fullmatch(block) is not None and block.count(b"\n") == count


def read_usual_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Return method and target of an HTTP/1.1 request line that asks for a path; None for any other line."""
    match = _USUAL_LINE.fullmatch(line)
    return None if match is None or match[1] == b"CONNECT" else (match[1], match[2])


def _check_framing(lengths: list[bytes], codings: list[bytes], *, old: bool) -> None:
    if lengths and codings:
        raise HeadRefused(HeadReason.LENGTH_AND_CODING, "Content-Length beside Transfer-Encoding")
    if len(lengths) > 1:
        raise HeadRefused(HeadReason.LENGTH_TWICE, "Content-Length more than once")
    if lengths and (not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > MAX_LENGTH):
        raise HeadRefused(HeadReason.LENGTH, f"Content-Length is not a plain number up to {MAX_LENGTH}")
    if codings and (old or len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise HeadRefused(HeadReason.CODING, "Transfer-Encoding is not exactly chunked, in HTTP/1.1")


def _check_host(hosts: list[bytes], *, old: bool) -> None:
    if len(hosts) > 1 or (not hosts and not old):
        raise HeadRefused(HeadReason.HOST, f"{len(hosts)} Host headers, not one")
    if hosts and not is_host(hosts[0]):
        raise HeadRefused(HeadReason.HOST, "Host is not a name or address with an optional port")


def is_host(value: bytes) -> bool:
    """Return whether that is a name or address with an optional port."""
    return _HOST.fullmatch(value) is not None


def _diagnosis(head: bytes, names: FieldNames) -> HeadRefused:
    """Return which rule a head breaks, the simplest one first."""
    if has_bare_line_end(head):
        return HeadRefused(HeadReason.BARE_LINE_END, "lines end with CR LF")
    line, *fields = head[: -len(_END)].split(b"\r\n")
    if not _LINE.fullmatch(line):
        if _OTHER_VERSION.fullmatch(line):
            return HeadRefused(HeadReason.VERSION, "HTTP/1.1 and HTTP/1.0 are spoken here")
        return HeadRefused(HeadReason.REQUEST_LINE, "not `method target version`")
    faults = (fault for field in fields if (fault := _fault(field, names)) is not None)
    return next(faults, HeadRefused(HeadReason.REQUEST_LINE, "not `method target version`"))


def _fault(field: bytes, names: FieldNames) -> HeadRefused | None:
    """Return which rule a header line breaks; None if it breaks none."""
    if field.startswith((b" ", b"\t")):
        return HeadRefused(HeadReason.FOLDED, "a header goes on in the next line")
    if _SPACED.match(field):
        return HeadRefused(HeadReason.SPACE_BEFORE_COLON, "white space between a header's name and colon")
    match = _FIELD.fullmatch(field)
    if match is None:
        return HeadRefused(HeadReason.HEADER, "not `name: value`, or a control character in it")
    if not _NAME[names].fullmatch(match[1]):
        return name_refused(match[1])
    return None


def name_refused(name: bytes) -> HeadRefused:
    """Return the refusal of a field by its name."""
    shown = name[:_SHOWN].decode("latin-1")
    return HeadRefused(HeadReason.FIELD_NAME, f"{shown}: names are up to 256 letters, digits and hyphens")
