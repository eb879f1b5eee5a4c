"""Reads the answer of /v1/agent/service/:id, what Consul knows of this sidecar, into one value.

See docs/consul-api.md#registration and #config-keys.

An answer that cannot be read as a proxy is rejected. Any smaller fault, such as an upstream that cannot be
served or a setting of the wrong type, is a named problem beside the rest: never a crash, never silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from agent.base.address import ANY_ADDRESS, Address, TcpAddress, UnixAddress, literal
from agent.config.exposed_paths import ExposeAnswer, ExposedPath, read_exposed, unknown_of_expose
from agent.config.opaque_config import ConfigReader, Problem, ProblemReason, unknown, unknown_keys
from agent.config.registered_upstreams import (
    MeshGatewayAnswer,
    UpstreamAnswer,
    differences,
    gateway_mode,
    read_upstreams,
)
from agent.policy.http_mode import HttpMode
from upstreams.answers import TUNNEL_KEY
from upstreams.spec import LOOPBACK, MeshGatewayMode, Upstream, without_brackets

LOOPBACK_6 = "::1"
LOCAL_CONNECT_TIMEOUT = 1.0
HANDSHAKE_TIMEOUT = 10.0

_KEYS = frozenset(
    {"bind_address", "bind_port", "protocol", "identity_header", "underscores_in_headers"}
    | {"local_connect_timeout_ms", "handshake_timeout_ms", "max_inbound_connections", "local_service_address"}
    | {TUNNEL_KEY}  # read by callers
)


# Keys that Consul answers beside those read here, and that ask nothing of a proxy. `TransparentProxy`
# has an effect with `Mode` alone, which is named.
_OF_SERVICE = frozenset(
    {"Service", "Tags", "Meta", "TaggedAddresses", "Weights", "EnableTagOverride", "Namespace", "Partition"}
    | {"Locality", "PeerName", "CreateIndex", "ModifyIndex", "Connect"}
)
_OF_PROXY = frozenset({"TransparentProxy"})


class RegistrationReason(StrEnum):
    """Why an answer is not the registration of a proxy."""

    MALFORMED = "malformed"
    NOT_A_PROXY = "not_a_proxy"
    NO_DESTINATION = "no_destination"


class RegistrationRejected(Exception):
    """The answer is unusable; the last good registration stays in force."""

    def __init__(self, reason: RegistrationReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One sidecar: its service, its public listener, its app, and its upstreams. Times are in seconds.

    `identity_header`: the app gets the caller's identity with each HTTP request, and can rely on it;
    `underscores_in_headers`: header names may have underscores. `public_bind` is None when there is no public
    listener; `local_app` when the definition names no app; `datacenter` with Consul before 1.9.
    """

    proxy_id: str
    service: str
    service_id: str
    datacenter: str | None = None
    public_bind: TcpAddress | None = None
    local_app: Address | None = None
    upstreams: tuple[Upstream, ...] = ()
    exposed: tuple[ExposedPath, ...] = ()
    protocol: str = "tcp"
    identity_header: bool = False
    underscores_in_headers: bool = False
    local_connect_timeout: float = LOCAL_CONNECT_TIMEOUT
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    max_inbound_connections: int | None = None
    mesh_gateway: MeshGatewayMode = MeshGatewayMode.UNSET
    problems: tuple[Problem, ...] = ()
    content_hash: str = ""
    public_unserved: bool = False  # the public bind collides with the app or another listener: see `problems`
    checked: bool = True  # Consul's check of the public port can be served on loopback

    @property
    def accepts_callers(self) -> bool:
        """Whether mesh callers can be served: a public bind without collision, and an app behind it."""
        return self.public_bind is not None and self.local_app is not None and not self.public_unserved

    @property
    def http(self) -> HttpMode:
        """Whether the public listener reads HTTP, by the service's protocol."""
        if self.protocol in {"http2", "grpc"}:
            return HttpMode.UNSUPPORTED
        if self.protocol != "http":
            return HttpMode.NEVER
        return HttpMode.ALWAYS if self.identity_header else HttpMode.IF_NEEDED


class _ProxyAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    destination_service_name: str = ""
    destination_service_id: str = msgspec.field(name="DestinationServiceID", default="")
    local_service_address: str = ""
    local_service_port: int = 0
    local_service_socket_path: str = ""
    mode: str = ""
    config: dict[str, object] | None = None
    upstreams: list[UpstreamAnswer] | None = None
    mesh_gateway: MeshGatewayAnswer | None = None
    expose: ExposeAnswer | None = None


class _ServiceAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    kind: str = ""
    id: str = msgspec.field(name="ID")
    address: str = ""
    port: int = 0
    ports: list[object] | None = None  # of Consul 2
    proxy: _ProxyAnswer | None = None
    datacenter: str = ""
    content_hash: str = ""


_SERVICE_FIELDS = _OF_SERVICE | frozenset(_ServiceAnswer.__struct_encode_fields__)
PROXY_READ = _OF_PROXY | frozenset(_ProxyAnswer.__struct_encode_fields__)


def parse_registration(answer: Mapping[str, object]) -> Registration:
    """Read a decoded answer of /v1/agent/service/:id. Raises RegistrationRejected."""
    try:
        service = msgspec.convert(answer, _ServiceAnswer)
    except msgspec.ValidationError as error:
        raise RegistrationRejected(RegistrationReason.MALFORMED, str(error)) from error
    proxy = service.proxy
    if service.kind != "connect-proxy" or proxy is None:
        detail = f"service {service.id!r} is of kind {service.kind!r}, not connect-proxy"
        raise RegistrationRejected(RegistrationReason.NOT_A_PROXY, detail)
    if not proxy.destination_service_name:
        detail = f"proxy {service.id!r} has no DestinationServiceName"
        raise RegistrationRejected(RegistrationReason.NO_DESTINATION, detail)
    registration = _registration(service, proxy)
    return replace(registration, problems=(*registration.problems, *_unknown(answer)))


def _registration(service: _ServiceAnswer, proxy: _ProxyAnswer) -> Registration:
    config = ConfigReader(where="Proxy.Config", config=proxy.config or {})
    host = without_brackets(config.text("bind_address", service.address or ANY_ADDRESS))
    public_bind = _public_bind(host, service, config)
    local_app = _local_app(proxy, config)
    mesh_gateway = gateway_mode(proxy.mesh_gateway)
    upstreams, upstream_problems = read_upstreams(
        proxy.upstreams or (), mesh_gateway, _loopback(service.address)
    )
    exposed = tuple(read_exposed(proxy.expose, host, _app_at(proxy, 0), config.problems))
    # Envoy takes 0 for "not set", and so do many templates.
    max_inbound = (
        config.count("max_inbound_connections") if config.config.get("max_inbound_connections") else None
    )
    return Registration(
        proxy_id=service.id,
        service=proxy.destination_service_name,
        service_id=proxy.destination_service_id,
        datacenter=service.datacenter or None,
        public_bind=public_bind,
        local_app=local_app,
        upstreams=upstreams,
        exposed=exposed,
        protocol=config.text("protocol", "tcp").lower(),
        identity_header=config.flag("identity_header"),
        underscores_in_headers=config.flag("underscores_in_headers"),
        local_connect_timeout=config.seconds("local_connect_timeout_ms", LOCAL_CONNECT_TIMEOUT),
        handshake_timeout=config.seconds("handshake_timeout_ms", HANDSHAKE_TIMEOUT),
        max_inbound_connections=max_inbound,
        mesh_gateway=mesh_gateway,
        problems=(
            *_shortcomings(proxy, public_bind, local_app),
            *_differences(service, config.config, local_app),
            *config.problems,
            *upstream_problems,
        ),
        content_hash=service.content_hash,
    )


def _public_bind(host: str, service: _ServiceAnswer, config: ConfigReader) -> TcpAddress | None:
    """Return the bind: `bind_address` and `bind_port` win, as in Envoy.

    The built-in proxy overwrites both.
    """
    port = config.port("bind_port") or _port("Port", service.port, config)
    return TcpAddress(host, port) if port else None


def _loopback(address: str) -> str:
    """Return the loopback address of the family in which this proxy is registered.

    From Consul 1.22 on, proxies of an IPv6 agent bind at ::1 (docs/upstreams.md#where-an-upstream-leads).
    """
    return LOOPBACK_6 if ":" in (literal(without_brackets(address)) or "") else LOOPBACK


def _local_app(proxy: _ProxyAnswer, config: ConfigReader) -> Address | None:
    port = _port("Proxy.LocalServicePort", proxy.local_service_port, config)
    if port or proxy.local_service_socket_path:
        return _app_at(proxy, port)
    return _host_port(config.text("local_service_address", ""))


def _app_at(proxy: _ProxyAnswer, port: int) -> Address:
    if proxy.local_service_socket_path:
        return UnixAddress(proxy.local_service_socket_path)
    return TcpAddress(without_brackets(proxy.local_service_address) or LOOPBACK, port)


def _port(where: str, value: int, config: ConfigReader) -> int:
    """Return a port; 0 for none, and with a problem for a number that is no port."""
    if 0 <= value <= 65535:
        return value
    detail = f"{value} is not a port; ignored"
    config.problems.append(Problem(where=where, reason=ProblemReason.WRONG_VALUE, detail=detail))
    return 0


def _host_port(text: str) -> TcpAddress | None:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        return None
    return TcpAddress(host.strip("[]") or LOOPBACK, int(port))


def _unknown(answer: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the keys that are not honoured, those of a place together; the answer has been read already."""
    proxy = answer["Proxy"]
    config = proxy.get("Config") or {}
    strict = {"MutualTLSMode"} if proxy.get("MutualTLSMode") == "strict" else set[str]()
    places = {
        "Service": unknown_keys(answer, _SERVICE_FIELDS),
        "Proxy": unknown_keys(proxy, PROXY_READ | strict),
        "Proxy.Config": unknown_keys(config, _KEYS),
        "Proxy.MeshGateway": unknown_keys(
            proxy.get("MeshGateway") or {}, MeshGatewayAnswer.__struct_encode_fields__
        ),
        **unknown_of_expose(proxy.get("Expose") or {}),
    }
    for where, keys in places.items():
        yield from unknown(where, keys)
    yield from differences(proxy.get("Upstreams") or ())


def _differences(
    service: _ServiceAnswer, config: Mapping[str, object], local_app: Address | None
) -> Iterator[Problem]:
    """Yield what a registration says beside what is honoured here, each by its name."""
    address = config.get("local_service_address")
    if address and local_app is not None and str(local_app) != address:
        detail = f"{local_app} is called, as LocalServiceAddress and LocalServicePort say"
        where = "Proxy.Config.local_service_address"
        yield Problem(where=where, reason=ProblemReason.OVERRULED, detail=detail)
    if service.ports:
        detail = f"named ports are not served; callers reach port {service.port} alone"
        yield Problem(where="Ports", reason=ProblemReason.MULTI_PORT, detail=detail)


def _shortcomings(
    proxy: _ProxyAnswer, public_bind: TcpAddress | None, local_app: Address | None
) -> list[Problem]:
    problems = []
    if public_bind is not None and local_app is None:
        detail = "callers cannot be passed on: set LocalServicePort or LocalServiceSocketPath"
        problems.append(Problem(where="Proxy", reason=ProblemReason.NO_LOCAL_APP, detail=detail))
    if proxy.mode == "transparent":
        detail = "traffic is not redirected here; only the upstreams with a bind are served"
        problems.append(Problem(where="Proxy.Mode", reason=ProblemReason.TRANSPARENT_PROXY, detail=detail))
    return problems
