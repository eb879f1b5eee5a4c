"""What the log says of warm connections: whatever ended one before it was of use."""

from __future__ import annotations

from agent.config.options import LogLevel
from agent.connections.records import FailedAttempt
from agent.observe.log import Log
from agent.observe.rate_limit import Flood
from agent.outbound.warm_connection import ORDINARY
from upstreams.route import Approach
from upstreams.spec import Upstream


class WarmLog:
    """agent.outbound.warm_pool.WarmEvents, written down. A flood of one reason is told in part."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._flood = Flood()

    def warm_discarded(self, upstream: Upstream, approach: Approach, reason: str, detail: str, /) -> None:
        """One was given up unused; for debugging only, if that is the way of things."""
        level = LogLevel.DEBUG if reason in ORDINARY else LogLevel.INFO
        self._write(level, "upstream.warm_discarded", upstream, str(approach), reason=reason, detail=detail)

    def warm_failed(self, upstream: Upstream, attempt: FailedAttempt, /) -> None:
        """One could not be made."""
        reason, address = attempt.reason.value, attempt.address
        self._write(
            LogLevel.INFO,
            "upstream.warm_failed",
            upstream,
            attempt.endpoint,
            address=address,
            reason=reason,
            detail=attempt.detail,
        )

    def _write(
        self, level: LogLevel, event: str, upstream: Upstream, endpoint: str, *, reason: str, **more: str
    ) -> None:
        hidden = self._flood.hidden(f"{event} {reason}") if self._log.wants(level) else None
        if hidden is not None:
            told = {"upstream": str(upstream.destination), "endpoint": endpoint, "reason": reason, **more}
            self._log.write(level, event, **told, hidden=hidden or None)
