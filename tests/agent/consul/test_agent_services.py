"""The services of the local agent, and which of them is our sidecar."""

from __future__ import annotations

import trio

from agent.consul.agent_services import ListedProxy, ListedService, find_sidecar
from tests.recorded import body
from tests.support.fake_consul import FakeConsul


def listed(proxy: str, kind: str = "connect-proxy", of: str | None = "web") -> ListedService:
    return ListedService(
        id=proxy, kind=kind, proxy=None if of is None else ListedProxy(destination_service_id=of)
    )


def test_the_sidecars_of_a_service() -> None:
    services = {
        s.id: s
        for s in (
            listed("b-proxy"),
            listed("a-proxy", of="WEB"),
            listed("web", kind="", of=None),
            listed("gateway", kind="mesh-gateway"),
            listed("other-proxy", of="web2"),
        )
    }
    assert find_sidecar(services, "Web") == ["a-proxy", "b-proxy"]
    assert find_sidecar(services, "nobody") == []


async def test_the_recorded_list_of_services(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer("/v1/agent/services", body("agent-services"))
    services = await scripted.client(nursery).services()
    assert find_sidecar(services, "web1") == ["web1-sidecar-proxy"]
