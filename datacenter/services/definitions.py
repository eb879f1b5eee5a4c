"""The shapes of what clients register with the agent, as Consul 1.10 knows them; a newer key is a 400."""

from __future__ import annotations

from datacenter.http.decode import ANYTHING, DURATION, Fields, Mapped, Shape

_CHECK_KINDS: dict[str, Shape] = {
    "ScriptArgs": [str],
    "HTTP": str,
    "Header": Mapped([str]),
    "Method": str,
    "Body": str,
    "TCP": str,
    "Interval": DURATION,
    "AliasNode": str,
    "AliasService": str,
    "DockerContainerID": str,
    "Shell": str,
    "GRPC": str,
    "GRPCUseTLS": bool,
    "H2PING": str,
    "TLSServerName": str,
    "TLSSkipVerify": bool,
    "Timeout": DURATION,
    "TTL": DURATION,
    "SuccessBeforePassing": int,
    "FailuresBeforeCritical": int,
    "DeregisterCriticalServiceAfter": DURATION,
    "OutputMaxSize": int,
}
_CHECK_ALSO = {"args": "ScriptArgs"}

# Go's error texts do not name what is decoded into an alias type: SERVICE and CHECK.
# Inside a service the field is CheckID, in a registration of its own ID: docs/consul-api.md#agent-services.
SERVICE_CHECK = Fields(
    "CheckType",
    {
        "CheckID": str,
        "Name": str,
        "Status": str,
        "Notes": str,
        "ProxyHTTP": str,
        "ProxyGRPC": str,
        **_CHECK_KINDS,
    },
    _CHECK_ALSO | {"id": "CheckID"},
)
CHECK = Fields(
    "",
    {"ID": str, "Name": str, "Notes": str, "ServiceID": str, "Token": str, "Status": str, **_CHECK_KINDS},
    _CHECK_ALSO,
)

MESH_GATEWAY = Fields("MeshGatewayConfig", {"Mode": str})
EXPOSE = Fields(
    "ExposeConfig",
    {
        "Checks": bool,
        "Paths": [
            Fields(
                "ExposePath",
                {
                    "ListenerPort": int,
                    "Path": str,
                    "LocalPathPort": int,
                    "Protocol": str,
                    "ParsedFromCheck": bool,
                },
            )
        ],
    },
)
TRANSPARENT_PROXY = Fields("TransparentProxyConfig", {"OutboundListenerPort": int, "DialedDirectly": bool})

UPSTREAM = Fields(
    "Upstream",
    {
        "DestinationType": str,
        "DestinationNamespace": str,
        "DestinationName": str,
        "Datacenter": str,
        "LocalBindAddress": str,
        "LocalBindPort": int,
        "LocalBindSocketPath": str,
        "LocalBindSocketMode": str,
        "Config": Mapped(ANYTHING),
        "MeshGateway": MESH_GATEWAY,
        "CentrallyConfigured": bool,
    },
)
PROXY = Fields(
    "ConnectProxyConfig",
    {
        "DestinationServiceName": str,
        "DestinationServiceID": str,
        "LocalServiceAddress": str,
        "LocalServicePort": int,
        "LocalServiceSocketPath": str,
        "Mode": str,
        "Config": Mapped(ANYTHING),
        "Upstreams": [UPSTREAM],
        "MeshGateway": MESH_GATEWAY,
        "Expose": EXPOSE,
        "TransparentProxy": TRANSPARENT_PROXY,
    },
)

SERVICE_ADDRESS = Fields("ServiceAddress", {"Address": str, "Port": int})
WEIGHTS = Fields("Weights", {"Passing": int, "Warning": int})

_SERVICE: dict[str, Shape] = {
    "Kind": str,
    "ID": str,
    "Name": str,
    "Tags": [str],
    "Address": str,
    "TaggedAddresses": Mapped(SERVICE_ADDRESS),
    "Meta": Mapped(str),
    "Port": int,
    "SocketPath": str,
    "Check": SERVICE_CHECK,
    "Checks": [SERVICE_CHECK],
    "Weights": WEIGHTS,
    "Token": str,
    "EnableTagOverride": bool,
    "Proxy": PROXY,
}
# A sidecar of a sidecar is refused, but first it is decoded as one.
_INNERMOST = Fields("ServiceConnect", {"Native": bool, "SidecarService": Mapped(ANYTHING)})
_NESTED = Fields("", {**_SERVICE, "Connect": _INNERMOST})
_SIDECAR = Fields(
    "", {**_SERVICE, "Connect": Fields("ServiceConnect", {"Native": bool, "SidecarService": _NESTED})}
)
SERVICE = Fields(
    "", {**_SERVICE, "Connect": Fields("ServiceConnect", {"Native": bool, "SidecarService": _SIDECAR})}
)

# What /v1/catalog/register takes: a node, a service of it, checks. A check's definition is shown as it was
# given, except for keys that Consul does not know.
_CHECK_DEFINITION = Fields(
    "HealthCheckDefinition",
    {key: shape for key, shape in _CHECK_KINDS.items() if not key.startswith(("Success", "Failures"))},
    drops_unknown=True,
)
_CATALOG_CHECK = Fields(
    "HealthCheck",
    {
        "Node": str,
        "CheckID": str,
        "Name": str,
        "Status": str,
        "Notes": str,
        "Output": str,
        "ServiceID": str,
        "ServiceName": str,
        "ServiceTags": [str],
        "Type": str,
        "Interval": str,
        "Timeout": str,
        "Definition": _CHECK_DEFINITION,
    },
)
_CATALOG_SERVICE = Fields(
    "NodeService",
    {
        "Kind": str,
        "ID": str,
        "Service": str,
        "Tags": [str],
        "Address": str,
        "TaggedAddresses": Mapped(SERVICE_ADDRESS),
        "Meta": Mapped(str),
        "Port": int,
        "SocketPath": str,
        "Weights": WEIGHTS,
        "EnableTagOverride": bool,
        "Proxy": PROXY,
        "Connect": Fields("ServiceConnect", {"Native": bool}),
    },
)
CATALOG_REGISTER = Fields(
    "RegisterRequest",
    {
        "Datacenter": str,
        "ID": str,
        "Node": str,
        "Address": str,
        "TaggedAddresses": Mapped(str),
        "NodeMeta": Mapped(str),
        "Service": _CATALOG_SERVICE,
        "Check": _CATALOG_CHECK,
        "Checks": [_CATALOG_CHECK],
        "SkipNodeUpdate": bool,
    },
)
CATALOG_DEREGISTER = Fields(
    "DeregisterRequest", {"Datacenter": str, "Node": str, "ServiceID": str, "CheckID": str}
)
