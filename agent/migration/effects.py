"""What each key of a registration does here, beside what Consul's own proxy and Envoy do with it. No effects.

See docs/consul-api.md#config-keys and docs/migrating.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agent.cli.findings import Finding, fail, warn
from agent.config.collisions import CHECK
from agent.config.opaque_config import ENVOYS, Problem, ProblemReason, says_something
from agent.config.registration import PROXY_READ, Registration
from agent.config.upstream_config import KEYS, not_honoured
from agent.policy.http_mode import HttpMode
from upstreams.answers import TUNNEL_KEY
from upstreams.spec import MeshGatewayMode, Upstream


class Effect(NamedTuple):
    """What a key does here, and beside which proxy that is another thing; `beside` is empty for both."""

    beside: str
    says: str


BUILT_IN, ENVOY, BOTH = "Consul's own proxy", "Envoy", ""
AS_ENVOY = Effect(BUILT_IN, "used here, as by Envoy; it ignores it")
ENVOYS_OWN = Effect(ENVOY, "no effect here: it configures Envoy itself")
UNKNOWN = Effect(BOTH, "no effect here")
_EXPOSED = Effect(BOTH, "GET and HEAD from `expose_from`; Envoy passes any method on, the other one none")
_REQUESTS = Effect(ENVOY, "no effect here, where connections are limited and not requests")

# Keys that do not mean the same everywhere. One that is in no table has no effect here.
PROXY_FIELDS: Mapping[str, Effect] = {
    "AccessLogs": Effect(ENVOY, "no effect here: our log has a line for each connection"),
    "EnvoyExtensions": ENVOYS_OWN,
    "MutualTLSMode": Effect(ENVOY, "no effect here: every caller must show a certificate"),
}
PROXY_CONFIG: Mapping[str, Effect] = {
    "bind_address": Effect(BUILT_IN, "used here, as by Envoy; it listens at the registration's Address"),
    "bind_port": Effect(BUILT_IN, "used here, as by Envoy; it listens at the registration's Port"),
    "handshake_timeout_ms": Effect(BUILT_IN, "here a silent caller is cut at that time; it waits for ever"),
    "max_inbound_connections": Effect(
        BUILT_IN, "here more callers are refused, as by Envoy; it has no limit"
    ),
    "local_request_timeout_ms": Effect(ENVOY, "no effect here: a request may last as long as its connection"),
    "local_idle_timeout_ms": Effect(ENVOY, "no effect here: an idle connection stays open"),
    "balance_inbound_connections": Effect(ENVOY, "no effect here: see `workers` of the settings"),
    "xds_fetch_timeout_ms": Effect(ENVOY, "no effect here: there is no xDS"),
}
UPSTREAM_CONFIG: Mapping[str, Effect] = {
    "connect_timeout_ms": Effect(BUILT_IN, "used here, as by Envoy; it waits 10 s, whatever is written"),
    "limits.max_connections": AS_ENVOY,
    "limits.max_pending_requests": AS_ENVOY,
    "limits.MaxConnections": AS_ENVOY,
    "limits.MaxPendingRequests": AS_ENVOY,
    "limits.max_concurrent_requests": _REQUESTS,
    "limits.MaxConcurrentRequests": _REQUESTS,
    "passive_health_check": AS_ENVOY,
    "protocol": Effect(ENVOY, "here the app's bytes are passed on unread; it balances each HTTP request"),
    "balance_outbound_connections": Effect(ENVOY, "no effect here: see `workers` of the settings"),
}
# The same everywhere, or told by another line.
_PLAIN = {"protocol", "local_connect_timeout_ms", "local_service_address"}
# Ours alone: the other proxies do not know them.
_OURS = {"identity_header", "underscores_in_headers", TUNNEL_KEY}
_OURS_UPSTREAM = KEYS - UPSTREAM_CONFIG.keys() - {"limits"}
_REMEDIES: Mapping[ProblemReason, str] = {
    ProblemReason.TRANSPARENT_PROXY: "nothing redirects the app's traffic: give each upstream a bind",
    ProblemReason.EXPOSED_PATHS: "Envoy serves them: expose plain http paths, or have the app listen itself",
}
_SERVED = (ProblemReason.WRONG_VALUE, ProblemReason.OVERRULED, ProblemReason.MULTI_PORT)
_GATEWAYS = (MeshGatewayMode.LOCAL, MeshGatewayMode.REMOTE)


def always(admin: str) -> Iterator[Finding]:
    """Yield what differs whatever the registration says. `admin` is where our admin endpoint is to be."""
    text = (
        f"at {admin} are /ready, /status and /metrics; Envoy has its own pages there, the other one nothing"
    )
    yield _differs("admin endpoint", Effect(BOTH, text))
    text = "a denial holds for them too; those two admit a caller that they have admitted before"
    yield _differs("resumed TLS sessions", Effect(BOTH, text))
    text = "a removed upstream or a changed bind is followed at once; it needs a restart"
    yield _differs("changes while running", Effect(BUILT_IN, text))
    text = "service-router, -splitter and -resolver entries have no effect here: see `failover` and `filter`"
    yield _differs("discovery chains", Effect(ENVOY, text))


def of_registration(answer: Mapping[str, Any], registration: Registration) -> Iterator[Finding]:
    """Yield what differs by a registration: `answer` as Consul gives it, and as it is read here."""
    proxy = answer["Proxy"]
    yield from _keys("Proxy", _fields(proxy), PROXY_FIELDS)
    config = {key: value for key, value in (proxy.get("Config") or {}).items() if key not in _PLAIN | _OURS}
    yield from _keys("Proxy.Config", config, PROXY_CONFIG)
    yield from _protocol(registration)
    for number, upstream in enumerate(proxy.get("Upstreams") or ()):
        place = f"Upstreams[{number}] ({upstream.get('DestinationName')}).Config"
        yield from _keys(place, _settings(upstream.get("Config") or {}), UPSTREAM_CONFIG)
    for served in registration.upstreams:
        yield from _of_gateways(served)
    for path in registration.exposed:
        yield _differs(f"exposed path {path}", _EXPOSED)
    for problem in registration.problems:
        yield from _of_problem(problem)


def _fields(proxy: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a proxy that are not read here."""
    strict = {"MutualTLSMode"} if proxy.get("MutualTLSMode") == "strict" else set[str]()
    return {key: value for key, value in proxy.items() if key not in PROXY_READ | strict}


def _settings(config: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of an upstream that are not ours alone, those of inner maps by their own names."""
    limits = config.get("limits")
    inner = {f"limits.{key}": value for key, value in limits.items()} if isinstance(limits, Mapping) else {}
    outer = {key: value for key, value in config.items() if key not in _OURS_UPSTREAM | {"limits"}}
    if outer.get("protocol") == "tcp":
        del outer["protocol"]
    without = {key: True for key in not_honoured(config) if "." in key and not key.startswith("limits.")}
    return {**outer, **inner, **without}


def _keys(where: str, config: Mapping[str, object], effects: Mapping[str, Effect]) -> Iterator[Finding]:
    for key, value in sorted(config.items()):
        if says_something(value):
            yield _differs(f"{where}.{key}", effects.get(key, _unlisted(key)))


def _unlisted(key: str) -> Effect:
    if key.startswith("passive_health_check."):
        return Effect(ENVOY, "no effect here, where the rest of it is used")
    return ENVOYS_OWN if key.startswith(ENVOYS) else UNKNOWN


def _protocol(registration: Registration) -> Iterator[Finding]:
    name = registration.protocol
    match registration.http:
        case HttpMode.NEVER:
            return
        case HttpMode.UNSUPPORTED:
            text = f"{name}: bytes are passed on, requests are not read"
            yield _differs("protocol", Effect(ENVOY, text))
        case HttpMode.IF_NEEDED | HttpMode.ALWAYS:
            text = (
                f"{name}: requests are judged where intentions have permissions; it passes bytes on, always"
            )
            yield _differs("protocol", Effect(BUILT_IN, text))


def _of_gateways(upstream: Upstream) -> Iterator[Finding]:
    if upstream.mesh_gateway in _GATEWAYS:
        text = f"mesh gateways are used ({upstream.mesh_gateway.value}), as by Envoy; it cannot"
        yield _differs(f"upstream {upstream}", Effect(BUILT_IN, text))


def _of_problem(problem: Problem) -> Iterator[Finding]:
    """Yield what is not served, and what is served otherwise than it is written; keys are told one by one."""
    found = f"{problem.reason.value}: {problem.detail}"
    remedy = _REMEDIES.get(problem.reason, "")
    if problem.reason is ProblemReason.UNKNOWN_KEYS:
        if not problem.where.endswith("Config") and problem.where != "Proxy":
            yield warn(problem.where, found, "")
    elif problem.reason in _SERVED or problem.where.startswith(CHECK):
        yield warn(problem.where, found, remedy)
    else:
        yield fail(problem.where, found, remedy)


def _differs(where: str, effect: Effect) -> Finding:
    return warn(f"{where}, beside {effect.beside}" if effect.beside else where, effect.says, "")
