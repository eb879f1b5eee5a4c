"""Registrations the cases put on an agent."""

from __future__ import annotations

from typing import Any

Service = dict[str, Any]


def sidecar(name: str, proxy: Service | None = None, **parent: Any) -> Service:
    """A service with a sidecar of `connect.sidecar_service`, every check left to its default."""
    return {
        "Name": name,
        "Port": 8080,
        "Connect": {"SidecarService": {"Port": 21990, "Proxy": proxy or {}}},
        **parent,
    }


def proxy(name: str, **more: Any) -> Service:
    """A stand-alone proxy of service `name`, without any check."""
    return {
        "Kind": "connect-proxy",
        "Name": f"{name}-proxy",
        "Port": 21991,
        "Proxy": {"DestinationServiceName": name},
        **more,
    }


def ttl(check_id: str, status: str = "passing") -> Service:
    """A TTL check that outlives the test."""
    return {"CheckID": check_id, "Name": f"the pulse of {check_id}", "TTL": "300s", "Status": status}


def tcp(check_id: str, host: str, port: int) -> Service:
    """A TCP check, as often as one may be had."""
    return {"CheckID": check_id, "Name": f"the door of {check_id}", "TCP": f"{host}:{port}", "Interval": "1s"}


def wan(address: str, port: int) -> Service:
    """A WAN tagged address."""
    return {"wan": {"Address": address, "Port": port}}
