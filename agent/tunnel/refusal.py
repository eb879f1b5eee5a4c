"""How a refused stream says why: a status, and the reason in Proxy-Status (RFC 9209).

Only the name of the reason travels. What the caller may not know, which rule and of whom, does not.
"""

from __future__ import annotations

import re
from enum import StrEnum

from agent.h2.header_blocks import Fields
from agent.tunnel.ends import FORBIDDEN, NOT_ALLOWED, UNAVAILABLE

_NAME = b"proxy-status"
_REASON = re.compile(rb'sidecar; error=[a-z_]+; details="([a-z0-9_]{1,64})"')
_ERRORS = {
    FORBIDDEN: b"http_request_denied",
    NOT_ALLOWED: b"http_request_error",
    UNAVAILABLE: b"destination_unavailable",
}


def refusal_fields(status: int, reason: StrEnum | str) -> Fields:
    """Return the fields of a refusal."""
    text = b'sidecar; error=%b; details="%b"' % (_ERRORS[status], str(reason).encode("ascii"))
    fields = [(_NAME, text)]
    return [*fields, (b"allow", b"CONNECT")] if status == NOT_ALLOWED else fields


def reason_of(status: int, fields: Fields) -> str:
    """Return what a refused caller is to log: the status, and the reason if a sidecar has named one."""
    for name, value in fields:
        if name == _NAME and (found := _REASON.fullmatch(value)):
            return f"{status} {found[1].decode()}"
    return str(status)
