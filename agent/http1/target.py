"""Reads a request's target: the one form that the app gets, and every reading that an app may make of it.

`//admin`, `/./admin`, `/x/../admin`, `/%61dmin` and `http://host/admin` all ask for `/admin`. They are
written in one normal form (RFC 3986 §6.2.2, with repeated slashes merged). Permissions judge that form and
the app gets it, so both mean the same path. A target that apps may read differently (an encoded slash, an
escape within an escape, a path that climbs above the root) is refused.

One ambiguity is common enough to be served: `;parameters`. Some apps remove them from each segment and some
do not, and some of the former then resolve the remaining dots. Permissions get all readings (`permissions.py`
says how they use them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

MAX_PATH = 4 * 1024  # bytes, without the query: every escape and segment takes time

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT = _UNRESERVED | frozenset(b"!$&'()*+,;=:@/")  # characters that a path may hold unescaped
_PLAIN = re.compile(rb"(?:/[\w!$&'()*+,=:@~-][\w!$&'()*+,=:@~.-]*)*/?", re.ASCII)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_PARAMETERS = re.compile(";[^/]*")
_EMPTY_OR_DOTS = re.compile(r"/\.{0,2}(?=/|\Z)")
_WRITTEN = {byte: (b"%c" % byte if byte in _KEPT else b"%%%02X" % byte) for byte in range(256)}
_ESCAPES_KEPT = {**_WRITTEN, ord("%"): b"%"}
_TO_ESCAPE = re.compile(b"[^%b]" % re.escape(bytes(_KEPT)))
_HEX = b"0123456789ABCDEFabcdef"
_DIGITS = {bytes((high, low)): int(bytes((high, low)), 16) for high in _HEX for low in _HEX}
_NORMAL = {
    digits: b"%c" % byte if byte in _UNRESERVED else b"%%%02X" % byte for digits, byte in _DIGITS.items()
}
_MEANING = {
    digits: b"%c" % byte for digits, byte in _DIGITS.items() if 0x20 <= byte != 0x7F and byte not in b"/\\"
}


class TargetReason(StrEnum):
    """Why a target is refused."""

    FORM = "target_form"  # neither a path, nor an absolute URL, nor `OPTIONS *`
    HOST_MISMATCH = "host_mismatch"  # the absolute form names another host than the Host header
    FRAGMENT = "fragment_in_target"
    BACKSLASH = "backslash_in_path"
    ENCODED_SLASH = "encoded_slash"
    CONTROL = "encoded_control"  # %00 to %1F, %7F
    BAD_ESCAPE = "bad_escape"  # a percent sign without two hex digits
    NOT_UTF8 = "path_not_utf8"  # overlong forms too
    DOUBLE_ENCODING = "double_encoding"
    ABOVE_ROOT = "path_above_root"
    TOO_LONG = "path_too_long"


class TargetRefused(ValueError):
    """The target is ambiguous or malformed: `reason` for machines, `detail` for a person."""

    def __init__(self, reason: TargetReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    @property
    def status(self) -> int:
        """The status of the answer."""
        return 414 if self.reason is TargetReason.TOO_LONG else 400


class Target(NamedTuple):
    """`sent` goes to the app, with the query; `readings`, one or several paths without it, to permissions."""

    sent: bytes
    readings: tuple[str, ...]


def parse_target(target: bytes, method: str, host: bytes) -> Target:
    """Read a target (visible ASCII) beside its Host header. Raises TargetRefused."""
    if target == b"*":
        if method != "OPTIONS":
            raise TargetRefused(TargetReason.FORM, f"{method} * has no meaning")
        return Target(sent=target, readings=("*",))
    if not target.startswith(b"/"):
        target = _origin_form(target, host)
    if b"#" in target:
        raise TargetRefused(TargetReason.FRAGMENT, "a fragment is not for servers")
    path, mark, query = target.partition(b"?")
    if len(path) > MAX_PATH:
        raise TargetRefused(TargetReason.TOO_LONG, f"the path is over {MAX_PATH} bytes")
    if _PLAIN.fullmatch(path):
        return Target(sent=target, readings=(path.decode(),))
    sent, shown = _normal(path)
    return Target(sent=sent + mark + query, readings=_readings(shown))


def rule_path(text: str) -> str:
    """Return a permission's path in normal form. Raises TargetRefused if no request could have that path."""
    raw = text.encode()
    if b"?" in raw or b"#" in raw:
        raise TargetRefused(TargetReason.FORM, "a rule's path has neither query nor fragment")
    decoded = _decode(raw)
    written = _write(decoded)
    segments = written.split("/")[1:]
    if "" in segments[:-1] or "." in segments or ".." in segments:
        raise TargetRefused(TargetReason.FORM, "a rule's path has no empty or dot segments")
    return written


def unescaped(path: str) -> str:
    """Return a path in normal form with all its escapes decoded."""
    return _replaced(path.encode(), _MEANING).decode() if "%" in path else path


def _origin_form(target: bytes, host: bytes) -> bytes:
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        if b"#" in target:
            raise TargetRefused(TargetReason.FRAGMENT, "a fragment is not for servers")
        raise TargetRefused(TargetReason.FORM, "neither a path nor an absolute http URL")
    authority, path, query = match.groups()
    if authority.lower() != host.lower():
        raise TargetRefused(TargetReason.HOST_MISMATCH, "the target's host is not that of the Host header")
    return (path or b"/") + (query or b"")


def _normal(path: bytes) -> tuple[bytes, str]:
    """Return the path to send, in which escaped reserved characters stay escaped, and the path to judge."""
    decoded = _decode(path)
    sent = _resolve(_replaced(path, _NORMAL).decode("latin-1"))
    return _keep_escapes(sent), _resolve(_write(decoded))


def _replaced(path: bytes, table: Mapping[bytes, bytes]) -> bytes:
    """Return the path with each escape replaced by the table. Raises KeyError where the table has none."""
    first, *others = path.split(b"%")
    return first + b"".join([table[other[:2]] + other[2:] for other in others])


def _keep_escapes(path: str) -> bytes:
    """Escape the characters that a path may not hold; leave existing escapes alone."""
    return b"".join(map(_ESCAPES_KEPT.__getitem__, path.encode("latin-1")))


def _decode(path: bytes) -> bytes:
    """Return the path with its escapes decoded. Raises TargetRefused where readers may decode differently."""
    if b"\\" in path:
        raise TargetRefused(TargetReason.BACKSLASH, "some apps take a backslash for a slash")
    try:
        decoded = _replaced(path, _MEANING)
    except KeyError:
        raise _meaningless(path) from None
    if re.search(rb"%[0-9A-Fa-f]{2}", decoded):
        raise TargetRefused(TargetReason.DOUBLE_ENCODING, "an escape within an escape")
    try:
        decoded.decode()
    except UnicodeDecodeError as error:
        raise TargetRefused(TargetReason.NOT_UTF8, str(error)) from error
    return decoded


def _meaningless(path: bytes) -> TargetRefused:
    """Return the refusal of the first escape that has no meaning here."""
    escapes = (match[1] for match in _ESCAPE.finditer(path))
    digits = next(digits for digits in escapes if digits is None or digits not in _MEANING)
    if digits is None:
        return TargetRefused(TargetReason.BAD_ESCAPE, "a percent sign without two hex digits")
    if _DIGITS[digits] in b"/\\":
        detail = f"%{digits.decode()} may or may not be a separator"
        return TargetRefused(TargetReason.ENCODED_SLASH, detail)
    return TargetRefused(TargetReason.CONTROL, f"%{digits.decode()} is a control character")


def _write(decoded: bytes) -> str:
    """Return decoded bytes as a path, in which only the necessary characters are escaped."""
    if _TO_ESCAPE.search(decoded) is None:
        return decoded.decode()
    return b"".join(map(_WRITTEN.__getitem__, decoded)).decode()


def _resolve(path: str) -> str:
    """Return the path without empty and dot segments (RFC 3986 §5.2.4, slashes merged first)."""
    if _EMPTY_OR_DOTS.search(path) is None:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept:
                raise TargetRefused(TargetReason.ABOVE_ROOT, "the path climbs above the root")
            kept.pop()
        elif segment not in {"", "."}:
            kept.append(segment)
    closing = "/" if kept and segments[-1] in {"", ".", ".."} else ""
    return "/" + "/".join(kept) + closing


def _readings(path: str) -> tuple[str, ...]:
    if ";" not in path:
        return (path,)
    bare = _PARAMETERS.sub("", path)
    resolved = _resolve(bare)
    return (path, resolved) if bare == resolved else (path, bare, resolved)
