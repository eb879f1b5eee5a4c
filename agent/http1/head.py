"""The head of an HTTP/1.1 request as raw bytes: where it ends, and whether everybody would read it alike.

A parser may forgive what the RFC lets it forgive (h11 does): bare line feeds, folded lines, a length given
twice, a length beside a transfer coding. A proxy may not: the app behind it may forgive differently, and then
one sees a request where the other sees a body (request smuggling). So the bytes are held to the grammar here,
to the letter, and nothing is repaired. What is left has so little freedom that to take it apart is no more
work: h11 reads every such head the same way, which the tests hold it to, and takes four times as long.

Names of fields are held to less than RFC 9110 §5.1 allows: letters, digits and hyphens. A gateway behind us
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
MAX_FIELDS = 100  # each is some microseconds of work

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_LINE = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/1\.[01]")
_USUAL_LINE = re.compile(rb"(" + _TOKEN + rb") (/[\x21-\x7e]*) HTTP/1\.1")
_OTHER_VERSION = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*")
_SPACED = re.compile(_TOKEN + rb"[ \t]++:")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*+")
_ITEM = re.compile(rb"([^:\r]+):([^\r]*)\r\n")  # of fields that have passed
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_END = b"\r\n\r\n"
_SHOWN = 64  # bytes of a name in an answer
_BEGINS = frozenset(b"!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


Fields = list[tuple[bytes, bytes]]  # names and values


class FieldNames(Enum):
    """The names that fields of a request may have."""

    PLAIN = rb"[0-9A-Za-z-]{1,256}+"
    UNDERSCORES = rb"[0-9A-Za-z_-]{1,256}+"

    def refused(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """The first name that is none of them."""
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
    """Why a request is refused by its head alone."""

    TOO_LARGE = "head_too_large"
    TOO_MANY = "too_many_fields"
    BARE_LINE_END = "bare_cr_or_lf"
    REQUEST_LINE = "malformed_request_line"
    VERSION = "http_version"
    FOLDED = "folded_header"
    SPACE_BEFORE_COLON = "space_before_colon"
    HEADER = "malformed_header"
    FIELD_NAME = "field_name"  # a name that a gateway might take for another's
    LENGTH_AND_CODING = "length_and_transfer_encoding"
    LENGTH_TWICE = "repeated_content_length"
    LENGTH = "bad_content_length"
    CODING = "bad_transfer_encoding"
    HOST = "bad_host"
    CONNECT = "connect_method"
    EXPECTATION = "unknown_expectation"
    NOMINATED = "nominated_header"  # Connection would take away a header that is not its to take
    DISGUISED = "disguised_header"  # content_length, host, SCRIPT_NAME, where underscores are let through
    UNREADABLE = "malformed_request"


_STATUS = {
    HeadReason.TOO_LARGE: 431,
    HeadReason.TOO_MANY: 431,
    HeadReason.VERSION: 505,
    HeadReason.CONNECT: 405,
    HeadReason.EXPECTATION: 417,
}


class HeadRefused(ValueError):
    """The request is not passed on as it stands: `reason` for machines, `detail` for a person."""

    def __init__(self, reason: HeadReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    @property
    def status(self) -> int:
        """The answer's status."""
        return _STATUS.get(self.reason, 400)


def find_end(received: bytes | bytearray, seen: int = 0) -> int | None:
    """The length of the head these bytes begin with; None if it has not all come. Raises HeadRefused.

    What cannot become a head is refused before it is complete: nobody has to wait for the rest. The first
    `seen` bytes were looked at in a call before, which found nothing; they are not looked at again.
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
    """Whether these lines, which may go on, hold a CR or an LF without the other.

    The first `seen` bytes hold none, and are not looked at again, but for a CR at their end.
    """
    begin = seen - (received[seen - 1 : seen] == b"\r")
    pairs = received.count(b"\r\n", begin)
    may_go_on = received.endswith(b"\r", begin)
    return not received.count(b"\n", begin) == pairs == received.count(b"\r", begin) - may_go_on


class RequestHead(NamedTuple):
    """Of an HTTP/1.`minor` request. `fields`: names as they came, values without outer white space."""

    method: bytes
    target: bytes
    minor: bytes
    host: bytes  # empty where HTTP/1.0 does not say
    fields: Fields


def read_head(head: bytes, names: FieldNames = FieldNames.PLAIN) -> RequestHead:
    """Hold a whole head, empty line included, to the grammar and its framing to one reading."""
    if head.count(b"\n") > MAX_FIELDS + 2:  # the request line's, and the empty line's
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
    """The lines of `name: value` that these bytes are, by the grammar; None if they are anything else."""
    return None if _FIELDS.fullmatch(block) is None else _items(block)


def _items(block: bytes) -> Fields:
    return [(name, value.strip(b" \t")) for name, value in _ITEM.findall(block)]


def are_fields(block: bytes, count: int) -> bool:
    """Whether these bytes are so many lines of `name: value`, by the grammar."""
    return _FIELDS.fullmatch(block) is not None and block.count(b"\n") == count


def read_usual_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Method and target of a request line of HTTP/1.1 that asks for a path, as nearly all do."""
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
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise HeadRefused(HeadReason.HOST, "Host is not a name or address with an optional port")


def _diagnosis(head: bytes, names: FieldNames) -> HeadRefused:
    """Which rule a head breaks, the plainest first."""
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
    """Which rule a line of `name: value` breaks."""
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
    """Why a field of that name is not let through."""
    shown = name[:_SHOWN].decode("latin-1")
    return HeadRefused(HeadReason.FIELD_NAME, f"{shown}: names are up to 256 letters, digits and hyphens")
