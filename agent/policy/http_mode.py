"""What a service's protocol asks of its public listener: whether requests are read, and which."""

from __future__ import annotations

from enum import StrEnum


class HttpMode(StrEnum):
    """How much of a caller's HTTP is looked at."""

    NEVER = "never"  # it is not HTTP
    IF_NEEDED = "if_needed"  # while any intention has permissions
    ALWAYS = "always"
    UNSUPPORTED = "unsupported"  # HTTP/2, gRPC: permissions for it deny
