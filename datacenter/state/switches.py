"""The switches of `faults.py` as they stand: what is broken on purpose at this moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import trio


class Corruption(StrEnum):
    """How leaf answers are corrupt, or the roots answers where it says so."""

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
    """Everything off at first. Whoever waits for a change is woken by `set`."""

    def __init__(self) -> None:
        self._changed = trio.Event()
        self.wan_cut = False
        self.hung: tuple[str, ...] = ()  # path prefixes
        self.skew = timedelta(0)
        self.corrupt: Corruption | None = None
        self.intermediate_ttl: timedelta | None = None
        self.revoked: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "<Faults>"  # secrets are among them

    def set(
        self,
        *,
        wan_cut: bool = False,
        hung: tuple[str, ...] = (),
        skew: timedelta = timedelta(0),
        corrupt: Corruption | None = None,
        intermediate_ttl: timedelta | None = None,
        revoked: frozenset[str] = frozenset(),
    ) -> None:
        """Exactly these from now on."""
        self.wan_cut, self.hung, self.skew, self.corrupt = wan_cut, hung, skew, corrupt
        self.intermediate_ttl, self.revoked = intermediate_ttl, revoked
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changed(self) -> None:
        """Until the next `set`."""
        await self._changed.wait()

    def clock(self, true: Callable[[], datetime]) -> Callable[[], datetime]:
        """That clock, with the skew of the moment."""
        return lambda: true() + self.skew

    def hangs(self, path: str) -> bool:
        """Whether blocking reads of that path never answer."""
        return any(path.startswith(prefix) for prefix in self.hung)
