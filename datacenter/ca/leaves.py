"""The leaf certificates of an agent: a cache by token and service, and when a leaf is replaced.

See docs/consul-api.md#leaf. A leaf is replaced after a random point between 60 and 90 % of its life, and when
the signing key of the datacenter has changed. In the latter case a caller that blocks gets the new leaf after
a random part of `leaf_rotation_jitter`, so that a rotation does not bring the whole fleet at one moment, and
a caller that does not block gets it at once. Without a caller no leaf is replaced.

Consul renews leaves that live less than ten minutes at every fetch. Here they follow the same shares of their
life, since a blocking read that never blocks would be a busy loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import trio

from datacenter.ca.authority import ROOTS, CertificateAuthority, IssuedLeaf
from datacenter.http.context import Datacenter
from datacenter.state.errors import ApiError

EARLIEST_RENEWAL, LATEST_RENEWAL = 0.6, 0.9
RETRY_SECONDS = 30.0  # before the next attempt for a leaf that could not be replaced
FORGOTTEN_AFTER = timedelta(hours=72)

_LONGEST_PAUSE = 30.0  # so that a wall clock set forward is noticed


@dataclass(slots=True, kw_only=True)
class _Cached:
    leaf: IssuedLeaf
    issued_at: datetime
    renew_at: datetime
    used_at: datetime
    replace_at: float | None = None  # by trio's clock, once the signing key has changed
    hold_until: float = 0.0  # by trio's clock: until then no signature is available for another leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A leaf, whether it came from the cache, and its age there in seconds."""

    leaf: IssuedLeaf
    hit: bool
    age: int


class Leaves:
    """The cache of one datacenter's agent.

    In memory: after a restart every leaf is issued again on request.
    """

    def __init__(self, dc: Datacenter) -> None:
        self._dc = dc
        self._ca = CertificateAuthority(dc)
        self._cache: dict[tuple[str, str], _Cached] = {}  # the one used longest ago first

    async def fetch(
        self, service: str, *, token: str, index: int, wait: float, reissue: bool = False
    ) -> Fetched:
        """Return a service's leaf for a token; with `index`, once it is newer or after `wait` seconds.

        With `reissue` another one than the cached one. Raises ApiError if there is no authority, if the name
        is impossible, or if a new leaf is needed and too many are being issued.
        """
        deadline = trio.current_time() + wait
        key = (token, service)
        before = self._cache.get(key)
        if reissue:
            await self._issue_in_turn(key)
        cached = await self._current(key, index)
        while cached.leaf.index <= index and (remaining := deadline - trio.current_time()) > 0:
            pause = min(remaining, self._time_to_replacement(cached))
            with self._dc.store.waiting((ROOTS, _topic(key))) as woken, trio.move_on_after(pause):
                await woken.wait()
            cached = await self._current(key, index)
        age = self._dc.clock() - cached.issued_at
        hit = cached is before and index == 0  # an agent calls every answer it waited for a MISS
        return Fetched(leaf=cached.leaf, hit=hit, age=int(age.total_seconds()))

    async def _current(self, key: tuple[str, str], index: int) -> _Cached:
        """Return the cached leaf, replaced if it is due and a signature is available."""
        now = self._dc.clock()
        cached = self._cache.get(key)
        if cached is None or now > cached.leaf.certificate.not_valid_after_utc:
            cached = await self._issue_in_turn(key)
        elif self._is_due(cached, now, patient=cached.leaf.index <= index):
            if self._dc.csr_limit.take(self._ca.config.csr_per_second):
                cached = self._issue(key, now)
            else:
                cached.hold_until = trio.current_time() + self._dc.rng.random() * RETRY_SECONDS
        self._use(key, cached, now)
        return cached

    async def _issue_in_turn(self, key: tuple[str, str]) -> _Cached:
        """Issue a leaf that is needed. Raises ApiError 429 if no signature is available soon."""
        before, refusal = self._cache.get(key), None
        try:
            await self._dc.csr_limit.wait(self._ca.config.csr_per_second)
        except ApiError as error:
            refusal = error
        meanwhile = self._cache.get(key)
        if meanwhile is not None and meanwhile is not before:
            return meanwhile  # another caller's wait was over first
        if refusal is not None:
            raise refusal
        return self._issue(key, self._dc.clock())

    def _is_due(self, cached: _Cached, now: datetime, *, patient: bool) -> bool:
        if trio.current_time() < cached.hold_until:
            return False
        if now >= cached.renew_at:
            return True
        if cached.leaf.signing_key_id == self._ca.require_trust().active.signing_key_id:
            cached.replace_at = None
            return False
        if cached.replace_at is None:
            jitter = self._dc.rng.random() * self._dc.settings.leaf_rotation_jitter
            cached.replace_at = trio.current_time() + jitter
        return not patient or trio.current_time() >= cached.replace_at

    def _time_to_replacement(self, cached: _Cached) -> float:
        seconds = (cached.renew_at - self._dc.clock()).total_seconds()
        if cached.replace_at is not None:
            seconds = min(seconds, cached.replace_at - trio.current_time())
        seconds = max(seconds, cached.hold_until - trio.current_time())
        return min(max(seconds, 0.0), _LONGEST_PAUSE)

    def _issue(self, key: tuple[str, str], now: datetime) -> _Cached:
        leaf = self._ca.issue_leaf(key[1])
        begin, end = leaf.certificate.not_valid_before_utc, leaf.certificate.not_valid_after_utc
        share = EARLIEST_RENEWAL + self._dc.rng.random() * (LATEST_RENEWAL - EARLIEST_RENEWAL)
        cached = _Cached(leaf=leaf, issued_at=now, renew_at=begin + share * (end - begin), used_at=now)
        self._use(key, cached, now)
        self._dc.store.wake(_topic(key))
        self._forget(now)
        return cached

    def _use(self, key: tuple[str, str], cached: _Cached, now: datetime) -> None:
        cached.used_at = now
        self._cache.pop(key, None)
        self._cache[key] = cached

    def _forget(self, now: datetime) -> None:
        while now - self._cache[oldest := next(iter(self._cache))].used_at > FORGOTTEN_AFTER:
            del self._cache[oldest]


def _topic(key: tuple[str, str]) -> str:
    """Return the topic of one leaf, in memory alone: the signature of another wakes no read of it."""
    return "\0".join(("leaf", *key))
