"""What a request's target means: the one form the app gets, and every reading by which it may understand it.

`//admin`, `/./admin`, `/x/../admin`, `/%61dmin` and `http://host/admin` all ask for `/admin`. They are
written in one normal form (RFC 3986 §6.2.2, and repeated slashes merged); the rules judge it, and the app
gets it, so both speak of the same thing. Where it is uncertain what an app would make of a target (an encoded
slash, an escape within an escape, a path that climbs above the root) nothing is guessed: it is refused.

One uncertainty is common enough to be served: `;parameters`, which some apps take off each segment and some
do not. Both readings go to the rules (`permissions.py` says how they use them).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT = _UNRESERVED | frozenset(b"!$&'()*+,;=:@/")  # what a path may hold without an escape
_PLAIN = re.compile(rb"(?:/[\w!$&'()*+,=:@~-][\w!$&'()*+,=:@~.-]*)*/?", re.ASCII)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_WRITTEN = {byte: (b"%c" % byte if byte in _KEPT else b"%%%02X" % byte) for byte in range(256)}


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


class TargetRefused(ValueError):
    """The target is ambiguous, or none: `reason` for machines, `detail` for a person."""

    def __init__(self, reason: TargetReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`sent` goes to the app, query included; `readings` to the rules: paths without it, one or several."""

    sent: bytes
    readings: tuple[str, ...]


def parse_target(target: bytes, method: str, host: bytes) -> Target:
    """Read a request line's target (visible ASCII) beside its Host header; raise TargetRefused."""
    if target == b"*":
        if method != "OPTIONS":
            raise TargetRefused(TargetReason.FORM, f"{method} * has no meaning")
        return Target(sent=target, readings=("*",))
    if not target.startswith(b"/"):
        target = _origin_form(target, host)
    if b"#" in target:
        raise TargetRefused(TargetReason.FRAGMENT, "a fragment is not for servers")
    path, mark, query = target.partition(b"?")
    if _PLAIN.fullmatch(path):
        return Target(sent=target, readings=(path.decode(),))
    sent, shown = _normal(path)
    return Target(sent=sent + mark + query, readings=_readings(shown))


def rule_path(text: str) -> str:
    """The normal form of a rule's path; raise TargetRefused if no request could ever have it."""
    raw = text.encode()
    if b"?" in raw or b"#" in raw:
        raise TargetRefused(TargetReason.FORM, "a rule's path has neither query nor fragment")
    decoded = _decode(raw)
    written = _write(decoded)
    segments = written.split("/")[1:]
    if "" in segments[:-1] or "." in segments or ".." in segments:
        raise TargetRefused(TargetReason.FORM, "a rule's path has no empty or dot segments")
    return written


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
    """The path as it is sent, where reserved characters stay escaped if they were, and as it is judged."""
    decoded = _decode(path)
    sent = _resolve(_ESCAPE.sub(_normal_escape, path).decode("latin-1"))
    return _keep_escapes(sent), _resolve(_write(decoded))


def _normal_escape(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    return b"%c" % byte if byte in _UNRESERVED else match[0].upper()


def _keep_escapes(path: str) -> bytes:
    """Escape what a path may not hold as it is, without touching the escapes there are."""
    return b"".join(b"%" if byte == 0x25 else _WRITTEN[byte] for byte in path.encode("latin-1"))


def _decode(path: bytes) -> bytes:
    """The path with no escape left; raise TargetRefused where that would be a guess."""
    if b"\\" in path:
        raise TargetRefused(TargetReason.BACKSLASH, "some apps take a backslash for a slash")
    decoded = _ESCAPE.sub(_decode_one, path)
    if re.search(rb"%[0-9A-Fa-f]{2}", decoded):
        raise TargetRefused(TargetReason.DOUBLE_ENCODING, "an escape within an escape")
    try:
        decoded.decode()
    except UnicodeDecodeError as error:
        raise TargetRefused(TargetReason.NOT_UTF8, str(error)) from error
    return decoded


def _decode_one(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise TargetRefused(TargetReason.BAD_ESCAPE, "a percent sign without two hex digits")
    byte = int(match[1], 16)
    if byte in b"/\\":
        raise TargetRefused(TargetReason.ENCODED_SLASH, f"{match[0].decode()} may or may not be a separator")
    if byte < 0x20 or byte == 0x7F:
        raise TargetRefused(TargetReason.CONTROL, f"{match[0].decode()} is a control character")
    return b"%c" % byte


def _write(decoded: bytes) -> str:
    """Decoded bytes as a path: everything escaped that must be, and nothing else."""
    return b"".join(map(_WRITTEN.__getitem__, decoded)).decode()


def _resolve(path: str) -> str:
    """Without empty and dot segments (RFC 3986 §5.2.4, slashes merged first)."""
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
    without = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    return (path, _resolve(without))
