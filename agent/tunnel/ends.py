"""Why a tunnel ended, as the log and the metrics name it, and by which status a stream is refused."""

from __future__ import annotations

from enum import StrEnum

FORBIDDEN, NOT_ALLOWED, UNAVAILABLE = 403, 405, 503


class TunnelReason(StrEnum):
    """Why a tunnel ended, beside the reasons of `FaultReason` and `Ending`."""

    RETIRED = "retired"  # newer credentials are in force, or it was idle; its last stream has ended
    NO_PONG = "ping_timeout"
    LEFT = "closed_by_peer"  # in order, and without a stream
