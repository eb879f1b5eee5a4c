"""What Consul says we are: any body of `/v1/agent/service/:id`.

Refused by name, as a failure of that watch, or read into values that can be served and shown.
"""

from __future__ import annotations

import json
import math

from agent.base.address import TcpAddress
from agent.config.opaque_config import LONGEST
from agent.config.registration import Registration
from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_registration
from agent.proxy import upstream_limits
from tests.fuzz.answered import asked, recorded, words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Target
from upstreams.spec import LocalBind, TunnelMode, Upstream, WanMode


def fuzz_one(data: bytes) -> None:
    """Read it as the watch does."""
    try:
        registration = read_registration(asked(lambda consul: consul.service("web-proxy"), data))
    except (ConsulError, AnswerRejected):
        return
    _can_be_served(registration)
    for upstream in registration.upstreams:
        _can_be_dialled(upstream)
    json.dumps([str(problem) for problem in registration.problems])


def _can_be_served(registration: Registration) -> None:
    for address in (registration.public_bind, registration.local_app):
        if isinstance(address, TcpAddress):
            assert 1 <= address.port <= 65535
        str(address)
    assert 0 < registration.handshake_timeout <= LONGEST
    assert 0 < registration.local_connect_timeout <= LONGEST
    assert registration.max_inbound_connections is None or registration.max_inbound_connections >= 1
    assert registration.service
    assert registration.http


def _can_be_dialled(upstream: Upstream) -> None:
    if isinstance(upstream.bind, LocalBind):
        assert 1 <= upstream.bind.port <= 65535
    for seconds in (upstream.connect_timeout, upstream.deadline, upstream.hold, upstream.warm_idle):
        assert 0 < seconds <= LONGEST
        assert math.isfinite(seconds)
    assert all(limit is None or limit >= 1 for limit in (upstream.max_connections, upstream.max_pending))
    assert all(target.name for target in upstream.targets)
    json.dumps([upstream_limits.row(upstream), str(upstream)], allow_nan=False)
    upstream_limits.written(upstream, WanMode.AUTO, TunnelMode.NEVER)


_ALL = json.dumps(
    {
        "Kind": "connect-proxy",
        "ID": "web-proxy",
        "Port": 21000,
        "Datacenter": "dc1",
        "Proxy": {
            "DestinationServiceName": "web",
            "DestinationServiceID": "web-1",
            "LocalServicePort": 80,
            "MeshGateway": {"Mode": "local"},
            "Config": {
                "protocol": "http",
                "bind_address": "::",
                "bind_port": 5.0,
                "identity_header": True,
                "handshake_timeout_ms": "5s",
                "local_connect_timeout_ms": 1.5,
                "max_inbound_connections": "9",
            },
            "Upstreams": [
                {
                    "DestinationType": "prepared_query",
                    "DestinationName": "db",
                    "Datacenter": "dc2",
                    "LocalBindSocketPath": "/run/db.sock",
                    "LocalBindSocketMode": "0600",
                    "Config": {
                        "connect_timeout_ms": 100,
                        "deadline_ms": "1h",
                        "limits": {"max_connections": 3},
                        "passive_health_check": {"interval": 10_000_000_000, "max_failures": 2},
                        "failover": [{"datacenter": "dc3"}, {"query": "q"}, {"service": "s", "filter": "f"}],
                        "failover_hold": "5s",
                        "warm": 2,
                        "warm_idle": "1m",
                        "wan": "prefer",
                        "mesh_gateway": "remote",
                        "near": "_agent",
                        "poll_interval": "30s",
                    },
                },
                {
                    "DestinationName": "c",
                    "LocalBindPort": 9191,
                    "LocalBindAddress": "::1",
                    "DestinationPeer": "",
                },
            ],
        },
    }
).encode()
_RECORDED = recorded("agent-service-*")

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        _ALL,
        *_RECORDED,
        b"[" * 1200,
        b'{"ID": "\xff"}',
        _ALL.replace(b'"5s"', b'{"a":' * 1200 + b"1" + b"}" * 1200),
    ),
    mutate=json_with(words_of(_ALL, *_RECORDED)),
    longest=16384,
)
