"""The records of connections, which the ledger passes to the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from certs.peer import Peer
from certs.spiffe import ServiceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Our end of a connection: the certificate that we have shown."""

    id: ServiceId
    serial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """One candidate of an outbound connection that has failed."""

    endpoint: str
    address: str
    reason: StrEnum
    detail: str

    def __str__(self) -> str:
        return f"{self.endpoint} at {self.address}: {self.reason.value}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequest:
    """An HTTP request that the sidecar has answered instead of the app.

    `rule`, `intention`: the rule that denied it, and that rule's ID where Consul answers one; else empty.
    """

    method: str
    target: str
    status: int
    reason: StrEnum
    detail: str
    rule: str = ""
    intention: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A call that intentions deny and audit mode has allowed."""

    reason: StrEnum
    rule: str
    intention: str = ""  # the rule's ID, where Consul answers one
    request: str = ""  # method and target; empty for the connection itself


class Direction(StrEnum):
    """Whether a peer calls our app, or our app a peer."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CloseReason(StrEnum):
    """Why the sidecar itself closed a connection."""

    INTENTION_WITHDRAWN = "intention_withdrawn"
    INTENTIONS_TOO_OLD = "intentions_too_old"
    NARROWED = "narrowed_by_datacenter"
    DENY_LISTED = "deny_listed"
    ROOT_REMOVED = "root_removed"
    PEER_EXPIRED = "peer_expired"
    BY_REQUEST_NOW = "by_request_now"  # its requests must be judged from now on
    UPSTREAM_REMOVED = "upstream_removed"
    DRAIN_DEADLINE = "drain_deadline"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """An ended connection. Bytes are those written to each leg; `opened`: application bytes flowed.

    A struct, since one is made for each connection: a frozen dataclass takes three times as long.
    """

    id: int
    direction: Direction
    reason: StrEnum
    detail: str
    opened: bool
    caller: str
    upstream: str
    dialled: str
    since: datetime
    until: datetime
    seconds: float  # its duration by trio's clock, which is never set
    to_plain: int
    to_tls: int
    ours: Party | None = None
    theirs: Peer | None = None
    rule: str = ""  # the intention, or the default, of the last verdict
    admitted_by: str = ""  # that of the first one
    intention: str = ""  # the ID of the rule, where Consul answers one
    cipher: str = ""  # TLS version and cipher
    queue_seconds: float | None = None
    handshake_seconds: float | None = None
    connect_seconds: float | None = None
    first_byte_seconds: float | None = None  # from accept(2) to the first byte of the answer

    @property
    def peer(self) -> str:
        """The identity that the other end has proven; empty if none."""
        return "" if self.theirs is None else str(self.theirs.id)


def address_and_why(dialled: str) -> tuple[str, str]:
    """Split `host:port (reason)`, the text of a DialAddress; a local app has no reason."""
    address, _, why = dialled.partition(" (")
    return address, why.removesuffix(")")
