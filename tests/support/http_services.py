"""What judges requests, without a relay, a ledger or an app: for tests that move no byte."""

from __future__ import annotations

from agent.base.address import TcpAddress
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.inbound.http_service import HttpService
from agent.policy.authorize import Policy
from certs.spiffe import ServiceId, TrustDomain
from tests.support.policies import NEVER_TOO_OLD

WEB = ServiceId(
    trust_domain=TrustDomain("11111111-2222-3333-4444-555555555555.consul"), datacenter="dc1", service="web"
)


def http_service(policy: Latest[Policy], freshness: Freshness = NEVER_TOO_OLD) -> HttpService:
    return HttpService(
        policy=policy,
        freshness=freshness,
        app=TcpAddress("127.0.0.1", 80),
        connect_timeout=1,
        relay=None,  # type: ignore[arg-type]  # no byte is moved
        ledger=None,  # type: ignore[arg-type]  # no connection is counted
    )
