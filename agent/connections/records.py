"""What there is to say about a connection while it lives: values that the ledger passes on to the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from certs.spiffe import ServiceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Our end of a connection, as the certificate says that we have shown."""

    id: ServiceId
    serial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """One candidate of an outbound connection that did not serve it."""

    endpoint: str
    address: str
    reason: StrEnum
    detail: str

    def __str__(self) -> str:
        return f"{self.endpoint} at {self.address}: {self.reason.value}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequest:
    """An HTTP request that was answered here instead of by our app."""

    method: str
    target: str
    status: int
    reason: StrEnum
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What would have been denied, and was let through because the agent only audits."""

    reason: StrEnum
    rule: str
    request: str = ""  # method and target; empty: the connection itself
