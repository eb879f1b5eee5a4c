"""Whole requests to the embedded datacenter, one after the other, parted by a NUL byte.

Each is a line, as in `PUT /v1/agent/service/register`, and a body behind it. Whatever is asked, there is an
answer, and the datacenter can still list what it has. No time passes but what a request waits for.
"""

from __future__ import annotations

from random import Random

import trio
from trio.testing import MockClock

from datacenter.http.frame import RawReply, RawRequest
from datacenter.services.agent_self import register_own_node
from tests.datacenter.sites import Site, Wan
from tests.fuzz.answered import words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Plain, Target

MOST = 4  # requests
_LISTS = (
    *("/v1/agent/services", "/v1/agent/checks", "/v1/catalog/services", "/v1/health/connect/web"),
    *("/v1/connect/intentions", "/v1/connect/intentions/match?by=destination&name=db", "/v1/query"),
    *("/v1/config/service-intentions", "/v1/config/service-defaults", "/v1/config/proxy-defaults"),
    *("/v1/internal/ui/nodes", "/v1/health/state/any", "/v1/connect/ca/configuration"),
    *("/v1/agent/service/web", "/v1/agent/service/web-sidecar-proxy"),
)


def fuzz_one(data: bytes) -> None:
    """Ask a new datacenter."""
    trio.run(_asked, data.split(b"\0")[:MOST], clock=MockClock(autojump_threshold=0))


async def _asked(requests: list[bytes]) -> None:
    site = Wan().site("dc1")
    register_own_node(site.dc)
    for request in requests:
        line, _, body = request.partition(b"\n")
        method, _, target = line.decode("latin-1").partition(" ")
        path, _, query = target.partition("?")
        reply = await _ask(site, RawRequest(method=method, path=path, query=query, body=body))
        assert 200 <= reply.status < 600
    for target in _LISTS:
        path, _, query = target.partition("?")
        assert (await _ask(site, RawRequest(method="GET", path=path, query=query))).status < 500


async def _ask(site: Site, request: RawRequest) -> RawReply:
    with trio.fail_after(1000):  # virtual seconds: no question waits longer
        return await site.frame.handle(request)


_SERVICE = b'{"Name": "web", "Port": 80, "Tags": ["a"], "Meta": {"k": "v"}, "Check": {"TTL": "10s"}'
_PROXY = (
    b'"Connect": {"SidecarService": {"Proxy": {"Config": {"a": [1]}, '
    b'"Upstreams": [{"DestinationName": "db"}]}}}'
)
_PUT_SERVICE = b"PUT /v1/agent/service/register\n" + _SERVICE + b", " + _PROXY + b"}"
_QUERY = (
    b'POST /v1/query\n{"Name": "q", "Service": {"Service": "web", "Failover": {"NearestN": 1}}, '
    b'"DNS": {"TTL": "1s"}}'
)
_INTENTION = (
    b'PUT /v1/connect/intentions/exact?source=web&destination=db\n{"Action": "allow", "Meta": {"a": "b"}}'
)
_ENTRY = (
    b'PUT /v1/config\n{"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", '
    b'"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/", "Header": '
    b'[{"Name": "x", "Present": true}]}}]}]}'
)
_AUTHORIZE = b'POST /v1/agent/connect/authorize\n{"Target": "db", "ClientCertURI": "spiffe://x.consul/ns/default/dc/dc1/svc/web"}'
_CHECK = b'PUT /v1/agent/check/register\n{"Name": "c", "TTL": "10s", "ServiceID": "web"}'
_NODE = (
    b'PUT /v1/catalog/register\n{"Node": "n", "Address": "10.0.0.1", "Service": {"Service": "s", "Port": 1}}'
)
_DEFAULTS = b'PUT /v1/config\n{"Kind": "service-defaults", "Name": "web", "Protocol": "http"}'
_UPSTREAMS = (
    b'PUT /v1/config\n{"Kind": "service-defaults", "Name": "web", "UpstreamConfig": {"Defaults": '
    b'{"Limits": {"MaxConnections": 1}, "PassiveHealthCheck": {"Interval": "1s", "MaxFailures": 2}}, '
    b'"Overrides": [{"Name": "db", "ConnectTimeoutMs": 5, "MeshGateway": {"Mode": "local"}}]}}'
)
_SHARED = (
    b'PUT /v1/config\n{"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}, '
    b'"Expose": {"Paths": [{"Path": "/a", "ListenerPort": 1}]}, "TransparentProxy": {"DialedDirectly": true}}'
)
_CATALOG_CHECK = (
    b'PUT /v1/catalog/register\n{"Node": "n", "Address": "10.0.0.1", "Check": {"Name": "c", '
    b'"Definition": {"Interval": "1s", "HTTP": "http://a", "Header": {"a": ["b"]}}}}'
)
_AUTHORITY = (
    b'PUT /v1/connect/ca/configuration\n{"Provider": "consul", "Config": {"LeafCertTTL": "1h", '
    b'"IntermediateCertTTL": "3h", "PrivateKeyBits": 256, "CSRMaxPerSecond": 5, "SkipValidate": true}}'
)
_BODIES = [
    one.partition(b"\n")[2]
    for one in (
        *(_PUT_SERVICE, _QUERY, _INTENTION, _ENTRY, _AUTHORIZE, _CHECK, _NODE),
        *(_UPSTREAMS, _SHARED, _CATALOG_CHECK, _AUTHORITY),
    )
]
_CHANGE = json_with(words_of(*_BODIES))


def _mutate(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
    """Mostly one body changes, sometimes anything."""
    requests = data.split(b"\0")
    place = rng.randrange(len(requests))
    line, mark, body = requests[place].partition(b"\n")
    if not mark or rng.random() < 0.3:
        return plain(data, most)
    requests[place] = line + b"\n" + _CHANGE(body, most, rng, plain)
    return b"\0".join(requests)[:most]


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        _PUT_SERVICE + b"\0" + _CHECK,
        _QUERY + b"\0GET /v1/query/q/execute?connect&near=_agent&limit=2",
        _INTENTION + b"\0GET /v1/connect/intentions/check?source=web&destination=db\0" + _AUTHORIZE,
        _ENTRY + b"\0" + _DEFAULTS + b"\0" + _AUTHORIZE,
        _NODE + b"\0GET /v1/health/service/s?filter=Service.Port+==+1&passing&cached",
        _PUT_SERVICE.replace(b"[1]", b"[" * 980 + b"]" * 980),
        _PUT_SERVICE.replace(b'"v"', b'"\\ud800"') + b"\0GET /v1/agent/service/web",
        b"GET /v1/catalog/services?index=7&wait=1s",
        b"GET /v1/agent/service/web?hash=x&pretty",
        _UPSTREAMS + b"\0" + _PUT_SERVICE + b"\0" + _SHARED + b"\0GET /v1/agent/service/web-sidecar-proxy",
        _CATALOG_CHECK + b"\0GET /v1/health/node/n",
        _AUTHORITY,
        b"GET /v1/agent/connect/ca/leaf/web",
        b"GET /v1/catalog/services?index=" + b"9" * 4301,
    ),
    words=(
        *(b"GET ", b"PUT ", b"POST ", b"DELETE ", b"/v1/", b"?dc=dc1", b"?index=", b"&wait=", b"&filter="),
        *(b"/v1/agent/service/deregister/", b"/v1/agent/service/maintenance/web?enable=true", b"?hash="),
        *(b"/v1/agent/check/pass/", b"/v1/agent/check/update/", b"/v1/agent/health/service/name/", b"\0"),
        *(b"/v1/connect/intentions/", b"/v1/query/", b"/v1/config/service-intentions/", b"?cas=", b"%00"),
        *(b"/v1/catalog/deregister", b"/v1/coordinate/nodes", b"/v1/connect/ca/roots", b"?near=_agent"),
    ),
    mutate=_mutate,
    longest=8192,
)
