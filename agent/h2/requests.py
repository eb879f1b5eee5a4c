"""What a peer's header list asks for or answers, by the grammar of RFC 9113 §8.2, §8.3 and §8.5."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.h2.header_blocks import OK_FIELDS, Fields

CONNECT = b"CONNECT"

# RFC 9113 §8.2.1: a token in lower case; a value without controls and without space around it.
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_AUTHORITY = re.compile(rb"[!-~]{1,255}")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OF_A_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_ORDINARY = {b":method", b":scheme", b":path"}


class Malformed(Exception):
    """The header list is no request or no response: a stream error (RFC 9113 §8.1.1)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for; `authority` is empty if it may be and is."""

    method: bytes
    authority: bytes


def read_request(fields: Fields) -> Request:
    """Return the request. Raises Malformed."""
    pseudo = _pseudo(fields)
    method, authority = pseudo.get(b":method", b""), pseudo.get(b":authority", b"")
    if not _METHOD.fullmatch(method):
        raise Malformed("there is no method")
    if method == CONNECT:
        # With `:protocol` it would be RFC 8441, which our settings do not offer.
        if pseudo.keys() != {b":method", b":authority"} or not _AUTHORITY.fullmatch(authority):
            raise Malformed("CONNECT takes :method and :authority, and no other")
    elif pseudo.keys() - {b":authority"} != _ORDINARY or not pseudo[b":path"]:
        raise Malformed("a request takes :method, :scheme and :path")
    return Request(method, authority)


def read_status(fields: Fields) -> int:
    """Return the status of a response. Raises Malformed."""
    if fields == OK_FIELDS:
        return 200
    pseudo = _pseudo(fields)
    status = pseudo.get(b":status", b"")
    if pseudo.keys() != {b":status"} or len(status) != 3 or not status.isdigit():
        raise Malformed("a response takes :status, and no other")
    return int(status)


def _pseudo(fields: Fields) -> dict[bytes, bytes]:
    """Return the pseudo-fields, once every field was found to be in order. Raises Malformed."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Malformed("a field breaks the grammar")
        if name.startswith(b":"):
            if regular or name in pseudo:
                raise Malformed("a pseudo-field stands twice, or after another field")
            pseudo[name] = value
        else:
            regular = True
            if name in _OF_A_CONNECTION or (name == b"te" and value != b"trailers"):
                raise Malformed("a field that belongs to a connection")
    return pseudo
