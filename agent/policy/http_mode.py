"""Whether the public listener reads HTTP requests, by the service's protocol."""

from __future__ import annotations

from enum import StrEnum


class HttpMode(StrEnum):
    """When callers' HTTP is parsed and judged."""

    NEVER = "never"  # the service's protocol is not HTTP
    IF_NEEDED = "if_needed"  # while an intention has permissions
    ALWAYS = "always"
    UNSUPPORTED = "unsupported"  # HTTP/2 and gRPC, for which permissions deny
