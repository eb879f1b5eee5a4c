"""The services of the local agent, as far as finding a sidecar among them needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class ListedProxy(msgspec.Struct, frozen=True, rename="pascal"):
    """The `Proxy` of a listed service, as far as finding a sidecar needs it."""

    destination_service_id: str = msgspec.field(name="DestinationServiceID", default="")


class ListedService(msgspec.Struct, frozen=True, rename="pascal"):
    """One service of `/v1/agent/services`."""

    id: str = msgspec.field(name="ID")
    kind: str = ""
    proxy: ListedProxy | None = None


def find_sidecar(services: Mapping[str, ListedService], service_id: str) -> Sequence[str]:
    """Ids of the proxies that stand beside the service; compared lower-cased, as Consul does."""
    wanted = service_id.lower()
    return sorted(
        service.id
        for service in services.values()
        if service.kind == "connect-proxy"
        and service.proxy is not None
        and service.proxy.destination_service_id.lower() == wanted
    )
