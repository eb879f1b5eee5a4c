"""What there is to say about a connection while it lives: values that the ledger passes on to the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certs.peer import Peer
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


class Direction(StrEnum):
    """Who called: a peer our app, or our app a peer."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CloseReason(StrEnum):
    """Why the sidecar itself ended a connection."""

    INTENTION_WITHDRAWN = "intention_withdrawn"
    INTENTIONS_TOO_OLD = "intentions_too_old"
    NARROWED = "narrowed_by_datacenter"
    DENY_LISTED = "deny_listed"
    ROOT_REMOVED = "root_removed"
    PEER_EXPIRED = "peer_expired"
    BY_REQUEST_NOW = "by_request_now"  # its requests must be looked at from now on
    UPSTREAM_REMOVED = "upstream_removed"
    DRAIN_DEADLINE = "drain_deadline"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A connection that has ended. Bytes are those written to each leg; `opened`: it was relayed."""

    id: int
    direction: Direction
    reason: StrEnum
    detail: str
    opened: bool
    caller: str
    upstream: str
    peer: str
    dialled: str
    since: datetime
    until: datetime
    seconds: float  # in between, whatever was done to the wall clock
    to_plain: int
    to_tls: int
    ours: Party | None = None
    theirs: Peer | None = None
    rule: str = ""  # the intention, or the default, that let it in or kept it out
