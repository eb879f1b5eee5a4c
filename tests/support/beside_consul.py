"""What a scripted Consul says of web and its sidecar, for an agent in another process."""

from __future__ import annotations

import socket

from tests.certs.authority import Issuer, roots_answer
from tests.support.fake_consul import FakeConsul

QUIET = ("-admin-bind", "127.0.0.1:0")
PROXY = "web-sidecar-proxy"


def proxy(port: object = 0, **extra: object) -> dict[str, object]:
    """The registration of web's sidecar."""
    return {
        "Kind": "connect-proxy",
        "ID": PROXY,
        "Service": PROXY,
        "Address": "127.0.0.1",
        "Port": port,
        "Datacenter": "dc1",
        "ContentHash": "h1",
        "Proxy": {
            "DestinationServiceName": "web",
            "DestinationServiceID": "web",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 8080,
        },
        **extra,
    }


def listed(*proxies: str) -> dict[str, object]:
    return {
        name: {"ID": name, "Kind": "connect-proxy", "Proxy": {"DestinationServiceID": "web"}}
        for name in proxies
    }


def everything(consul: FakeConsul, **extra: object) -> Issuer:
    """All that a sidecar of web needs; the root its leaf is of."""
    root = Issuer.root()
    consul.answer("/v1/agent/services", listed(PROXY))
    consul.answer(f"/v1/agent/service/{PROXY}", proxy(**extra), content_hash="h1")
    consul.answer("/v1/agent/connect/ca/roots", roots_answer(root), index=5)
    consul.answer("/v1/agent/connect/ca/leaf/web", root.leaf().answer(), index=6)
    consul.answer("/v1/connect/intentions/match", {"web": None}, index=7)
    consul.answer("/v1/agent/connect/authorize", {"Authorized": True, "Reason": "by default"})
    return root


def unused() -> str:
    """A loopback address without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"
