"""Passive health checking: failing endpoints are ejected for a while. Pure state.

A failure is a failed dial, handshake or identity. `max_failures` in a row, none further than `interval` from
the one before, eject an endpoint: it is then tried only when no other is left. An ejection ends by time; each
further one lasts twice as long. A returned endpoint is drawn less often at first (slow start), and during
that time a single failure ejects it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from upstreams.endpoints import Endpoint, EndpointKey

_LEAST_SHARE = 0.1  # of its weight, for an endpoint that has just returned


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionPolicy:
    """When to eject, and for how long. Times in seconds.

    By default one failure is enough: the connection goes to another candidate and loses nothing, while an
    endpoint that drops packets costs every connection a whole connect timeout.
    """

    interval: float = 10.0
    max_failures: int = 1
    ejection_time: float = 10.0
    longest: float = 300.0
    slow_start: float = 10.0


EAGER = EjectionPolicy()


class _Record:
    """The recent failures of one endpoint."""

    __slots__ = ("ejections", "failures", "last", "until")

    def __init__(self, at: float) -> None:
        self.failures = 0  # in a row, since the last ejection
        self.last = at
        self.ejections = 0  # in a row, without a completed slow start between them
        self.until: float | None = None  # end of the last ejection


class FailureMemory:
    """The ejected endpoints by their key, across answers.

    `clock` returns seconds and never goes back.
    """

    __slots__ = ("_clock", "_policy", "_records")

    def __init__(self, clock: Callable[[], float], policy: EjectionPolicy = EAGER) -> None:
        self._clock = clock
        self._policy = policy
        self._records: dict[EndpointKey, _Record] = {}

    def failed(self, endpoint: Endpoint) -> bool:
        """Note a failed dial, handshake or identity; return whether it ejects the endpoint."""
        now = self._clock()
        record = self._records.get(endpoint.key)
        if record is None:
            self._forget_the_old(now)
            record = self._records[endpoint.key] = _Record(now)
        if record.until is not None and now < record.until:
            return False  # it is ejected already: tried as a last resort, or begun before the ejection
        if now - record.last > self._policy.interval:
            record.failures = 0
        record.failures += 1
        record.last = now
        if record.failures < self._policy.max_failures and not self._returning(record, now):
            return False
        self._eject(record, now)
        return True

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that the endpoint serves: its failures no longer count, and an ejection ends."""
        record = self._records.get(endpoint.key)
        if record is None:
            return
        now = self._clock()
        record.failures = 0
        if record.until is not None and now < record.until:
            record.until = now
        elif not self._returning(record, now):
            del self._records[endpoint.key]

    def share(self, endpoint: Endpoint) -> float:
        """Return the share of its weight an endpoint has now: 0 if ejected, 1 if it has no failures."""
        if not self._records:
            return 1.0
        record = self._records.get(endpoint.key)
        if record is None or record.until is None:
            return 1.0
        back = self._clock() - record.until
        if back < 0:
            return 0.0
        return 1.0 if back >= self._policy.slow_start else max(_LEAST_SHARE, back / self._policy.slow_start)

    def ejected(self) -> Mapping[EndpointKey, float]:
        """Return the ejected endpoints, with the seconds left."""
        now = self._clock()
        return {
            key: record.until - now
            for key, record in self._records.items()
            if record.until is not None and now < record.until
        }

    def _eject(self, record: _Record, now: float) -> None:
        policy = self._policy
        seconds = min(policy.longest, policy.ejection_time * 2.0 ** min(record.ejections, 32))
        record.ejections += 1
        record.failures = 0
        record.until = now + seconds

    def _returning(self, record: _Record, now: float) -> bool:
        return record.until is not None and record.until <= now < record.until + self._policy.slow_start

    def _forget_the_old(self, now: float) -> None:
        """Drop records older than the longest ejection, since endpoints come and go."""
        oldest = now - (self._policy.longest + self._policy.interval)
        for key in [
            key
            for key, record in self._records.items()
            if max(record.last, record.last if record.until is None else record.until) < oldest
        ]:
            del self._records[key]
