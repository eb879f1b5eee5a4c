"""The present faults that `faults/` injects on purpose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import trio


class Corruption(StrEnum):
    """How answers about the leaf are corrupted, or about the roots where it says so."""

    WRONG_KEY = "wrong_key"
    FOREIGN_CHAIN = "foreign_chain"
    MISSING_INTERMEDIATE = "missing_intermediate"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_SERVICE = "wrong_service"
    WRONG_DATACENTER = "wrong_datacenter"
    WRONG_TRUST_DOMAIN = "wrong_trust_domain"
    GARBAGE_PEM = "garbage_pem"
    TRUNCATED_JSON = "truncated_json"
    OVERSIZED_CHAIN = "oversized_chain"
    EMPTY_ROOTS = "empty_roots"


class Faults:
    """The switches, all off at first. `set` wakes every task that waits for a change."""

    def __init__(self) -> None:
        self._changed = trio.Event()
        self.wan_cut = False
        self.hung: tuple[str, ...] = ()  # path prefixes
        self.skew = timedelta(0)
        self.corrupt: Corruption | None = None
        self.intermediate_ttl: timedelta | None = None
        self.revoked: frozenset[str] = frozenset()
        self.frozen = False  # what the primary writes is not copied

    def __repr__(self) -> str:
        return "<Faults>"  # some values are secrets

    def set(
        self,
        *,
        wan_cut: bool = False,
        hung: tuple[str, ...] = (),
        skew: timedelta = timedelta(0),
        corrupt: Corruption | None = None,
        intermediate_ttl: timedelta | None = None,
        revoked: frozenset[str] = frozenset(),
        frozen: bool = False,
    ) -> None:
        """Replace all switches."""
        self.wan_cut, self.hung, self.skew, self.corrupt = wan_cut, hung, skew, corrupt
        self.intermediate_ttl, self.revoked, self.frozen = intermediate_ttl, revoked, frozen
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changed(self) -> None:
        """Wait for the next `set`."""
        await self._changed.wait()

    def clock(self, true: Callable[[], datetime]) -> Callable[[], datetime]:
        """Return that clock with the present skew."""
        return lambda: true() + self.skew

    def hangs(self, path: str) -> bool:
        """Return whether blocking reads of that path never answer."""
        return any(path.startswith(prefix) for prefix in self.hung)
