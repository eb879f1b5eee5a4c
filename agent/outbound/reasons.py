"""Why an app's connection to an upstream was not served."""

from __future__ import annotations

from enum import StrEnum

from agent.net.shortage import OUT_OF_RESOURCES
from agent.policy.authorize import VerdictReason
from agent.relay.splice import Ending, Transfer
from agent.tunnel.ends import FORBIDDEN


class OutboundReason(StrEnum):
    """Why an app's connection to an upstream was not served."""

    NO_CREDENTIALS_YET = "no_credentials_yet"
    CREDENTIALS_EXPIRED = "credentials_expired"  # ours: every peer would refuse us
    CREDENTIALS_UNTRUSTED = "credentials_untrusted"  # ours: no root in Consul's list vouches for our leaf
    NO_ENDPOINTS_YET = "no_endpoints_yet"  # the first answer has not come
    NO_ENDPOINTS = "no_endpoints"
    NO_GATEWAYS = "no_gateways"
    WRONG_IDENTITY = "wrong_identity"
    REFUSED_BY_PEER = "refused_by_peer"  # after the handshake; no intention that we see is the cause
    DENIED_BY_PEER = "denied_by_peer"  # the same, and an intention or the default policy denies us
    ALL_FAILED = "all_failed"
    ROOTS_REPLACED = "roots_replaced"  # during the handshake, which failed by the former ones: tried again
    DENY_LISTED = "deny_listed"
    INTENTION_DENY = "intention_deny"  # by the intentions that name our service as a source
    NARROWED = "narrowed_by_datacenter"  # by the same intentions
    DEADLINE = "upstream_deadline"
    OVERFLOW = "upstream_overflow"  # max_connections
    PENDING_OVERFLOW = "upstream_pending_overflow"  # max_pending_requests


DENIALS = {
    VerdictReason.INTENTION_DENY: OutboundReason.INTENTION_DENY,
    VerdictReason.NARROWED: OutboundReason.NARROWED,
}


REFUSALS = (OutboundReason.REFUSED_BY_PEER, OutboundReason.DENIED_BY_PEER)
# of the instance: we lack memory, or intentions deny us (another instance may know a newer list)
NO_FAULT = (OUT_OF_RESOURCES, OutboundReason.DENIED_BY_PEER)


class NotServed(Exception):
    """The candidate, or the whole connection, cannot be served."""

    def __init__(self, reason: OutboundReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


def name_refusal(transfer: Transfer) -> tuple[OutboundReason, str, bool]:
    """Return the reason of a refused stream, its text, and whether it counts against the endpoint."""
    if transfer.ending is not Ending.REFUSED:
        return OutboundReason.REFUSED_BY_PEER, f"{transfer.ending.value}: {transfer.detail}", True
    denied = transfer.detail.startswith(f"{FORBIDDEN} ")
    reason = OutboundReason.DENIED_BY_PEER if denied else OutboundReason.REFUSED_BY_PEER
    return reason, f"answered {transfer.detail}", not denied
