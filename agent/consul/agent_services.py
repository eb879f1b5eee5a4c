"""The agent's own services, in the few fields that are needed to find the sidecar of a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class ListedProxy(msgspec.Struct, frozen=True, rename="pascal"):
    """The `Proxy` of a listed service."""

    destination_service_id: str = msgspec.field(name="DestinationServiceID", default="")


class ListedService(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of /v1/agent/services."""

    id: str = msgspec.field(name="ID")
    kind: str = ""
    proxy: ListedProxy | None = None


def quoted(text: str) -> str:
    """Return a text as a filter takes it; empty if no filter can hold it."""
    if not set(text) & {'"', "\\"}:
        return f'"{text}"'
    return "" if "`" in text else f"`{text}`"


def find_sidecar(services: Mapping[str, ListedService], service_id: str) -> Sequence[str]:
    """Return the ids of the service's proxies; ids are compared in lower case, as in Consul."""
    wanted = service_id.lower()
    return sorted(
        service.id
        for service in services.values()
        if service.kind == "connect-proxy"
        and service.proxy is not None
        and service.proxy.destination_service_id.lower() == wanted
    )
