"""From a registration as it was sent to the services and checks it stands for: contract §2.1, §2.2.

Pure: a decoded definition goes in, `NodeService` documents and check definitions come out; what is wrong
with it comes out as the text Consul answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from datacenter.store import Document

SIDECAR_PORTS = range(21000, 21256)
PROXY_KIND = "connect-proxy"


class Invalid(Exception):
    """The registration is refused with a 400 and this text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One service to put into the catalog, with the definitions of its checks."""

    service: Document  # NodeService, as stored
    checks: tuple[Document, ...]  # CheckType, as sent; `CheckID` and `Name` filled in


def expand(definition: Document, used_ports: Mapping[str, int]) -> list[Registered]:
    """The service, and its sidecar if it has one. `used_ports`: port by service ID, of those registered.

    Raises Invalid.
    """
    if not definition.get("Name"):
        raise Invalid("Missing service name")
    if definition.get("Address") in {"0.0.0.0", "::", "[::]"}:  # noqa: S104  refused, not bound
        raise Invalid("Invalid service address")
    service = _node_service(definition)
    inner = definition.get("Connect", {}).get("SidecarService")
    mistakes = [*service_mistakes(service), *_sidecar_mistakes(inner)]
    if mistakes:
        raise Invalid(multierror(mistakes))
    registered = [Registered(service=service, checks=_checks(definition, service))]
    if inner is not None:
        sidecar, checks = _sidecar(inner, service, used_ports)
        mistakes = service_mistakes(sidecar)
        if mistakes:
            raise Invalid(f"Invalid SidecarService: {multierror(mistakes)}")
        registered.append(Registered(service=sidecar, checks=checks))
    return registered


def multierror(mistakes: Collection[str]) -> str:
    """Several mistakes in one text, as go-multierror prints them."""
    count = "1 error" if len(mistakes) == 1 else f"{len(mistakes)} errors"
    lines = "\n".join(f"\t* {mistake}" for mistake in mistakes)
    return f"{count} occurred:\n{lines}\n\n"


def normal_service(given: Document) -> Document:
    """A NodeService in the stored form: every key there, defaults filled in, addresses tagged."""
    proxy = {**given.get("Proxy", {})}
    proxy["Upstreams"] = [{"DestinationType": "service", **each} for each in proxy.get("Upstreams", [])]
    for upstream in proxy["Upstreams"]:
        upstream["DestinationType"] = upstream["DestinationType"] or "service"
    return {
        "Kind": given.get("Kind", ""),
        "ID": given.get("ID") or given.get("Service", ""),
        "Service": given.get("Service", ""),
        "Tags": given.get("Tags", []),
        "Address": given.get("Address", ""),
        "TaggedAddresses": given.get("TaggedAddresses", {}),
        "Meta": given.get("Meta", {}),
        "Port": given.get("Port", 0),
        "SocketPath": given.get("SocketPath", ""),
        "Weights": {"Passing": 1, "Warning": 1, **given.get("Weights", {})},
        "EnableTagOverride": given.get("EnableTagOverride", False),
        "Proxy": proxy,
        "Native": given.get("Connect", {}).get("Native", False),
        "Sidecar": False,  # registered by its parent, and deregistered with it
    }


def service_mistakes(service: Document) -> list[str]:
    """What Consul's NodeService.Validate finds."""
    if service["Kind"] != PROXY_KIND:
        return []
    proxy, mistakes = service["Proxy"], []
    name = proxy.get("DestinationServiceName", "").strip()
    if not name:
        mistakes.append("Proxy.DestinationServiceName must be non-empty for Connect proxy services")
    if name == "*":
        mistakes.append("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services")
    if not service["Port"] and not service["SocketPath"]:
        mistakes.append("Port or SocketPath must be set for a Connect proxy")
    if service["Native"]:
        mistakes.append("A Proxy cannot also be Connect Native, only typical services")
    return [*mistakes, *_upstream_mistakes(proxy["Upstreams"])]


def _upstream_mistakes(upstreams: list[Document]) -> Iterator[str]:
    binds: set[str] = set()
    for upstream in upstreams:
        mistake = _upstream_mistake(upstream)
        if mistake:
            yield mistake
            continue
        address = upstream.get("LocalBindAddress") or "127.0.0.1"
        bind = upstream.get("LocalBindSocketPath") or f"{address}:{upstream.get('LocalBindPort')}"
        if bind in binds:
            yield (
                "upstreams cannot contain duplicates by local bind address and port; "
                f'"{bind}" is specified twice'
            )
        binds.add(bind)


def _upstream_mistake(upstream: Document) -> str:
    if upstream["DestinationType"] not in {"service", "prepared_query"}:
        return f'unknown upstream destination type: "{upstream["DestinationType"]}"'
    if not upstream.get("DestinationName"):
        return "upstream destination name cannot be empty"
    if upstream["DestinationName"] == "*" and not upstream.get("CentrallyConfigured"):
        return "upstream destination name cannot be a wildcard"
    port, path = upstream.get("LocalBindPort", 0), upstream.get("LocalBindSocketPath", "")
    if not port and not path and not upstream.get("CentrallyConfigured"):
        return "upstream local bind port or local socket path must be defined and nonzero"
    if port and path:
        return "only one of upstream local bind port or local socket path can be defined and nonzero"
    return ""


def _sidecar_mistakes(inner: Document | None) -> list[str]:
    if inner is None:
        return []
    mistakes = []
    if inner.get("ID"):
        mistakes.append("A SidecarService cannot specify an ID as this is managed by the agent")
    if inner.get("Connect", {}).get("SidecarService") is not None:
        mistakes.append("A SidecarService cannot have a nested SidecarService")
    return mistakes


def _node_service(definition: Document) -> Document:
    named = {**definition, "Service": definition.get("Name", "")}
    return _tag_addresses(normal_service(named))


def _tag_addresses(service: Document) -> Document:
    """A literal address is tagged by its family, lan and wan alike, unless the tags were given."""
    try:
        version = ipaddress.ip_address(service["Address"]).version
    except ValueError:
        return service
    own = {"Address": service["Address"], "Port": service["Port"]}
    tags = {f"lan_ipv{version}": own, f"wan_ipv{version}": own}
    return {**service, "TaggedAddresses": {**tags, **service["TaggedAddresses"]}}


def _sidecar(
    inner: Document, parent: Document, used_ports: Mapping[str, int]
) -> tuple[Document, tuple[Document, ...]]:
    identifier = f"{parent['ID']}-sidecar-proxy"
    proxy = {**inner.get("Proxy", {})}
    proxy["DestinationServiceName"] = proxy.get("DestinationServiceName") or parent["Service"]
    proxy["DestinationServiceID"] = proxy.get("DestinationServiceID") or parent["ID"]
    proxy["LocalServiceAddress"] = proxy.get("LocalServiceAddress") or "127.0.0.1"
    proxy["LocalServicePort"] = proxy.get("LocalServicePort") or parent["Port"]
    definition = {
        **inner,
        "Kind": inner.get("Kind") or PROXY_KIND,
        "ID": identifier,
        "Name": inner.get("Name") or f"{parent['Service']}-sidecar-proxy",
        "Address": inner.get("Address") or parent["Address"],
        "Port": inner.get("Port") or _free_port(identifier, used_ports),
        "Tags": inner.get("Tags") or parent["Tags"],
        "Meta": inner.get("Meta") or parent["Meta"],
        "EnableTagOverride": inner.get("EnableTagOverride", parent["EnableTagOverride"]),
        "Proxy": proxy,
    }
    if not definition.get("Check") and not definition.get("Checks"):
        definition["Checks"] = [
            {
                "Name": "Connect Sidecar Listening",
                # The local address, not the service's: a sidecar must answer there to be healthy.
                "TCP": f"{proxy['LocalServiceAddress']}:{definition['Port']}",
                "Interval": 10.0,
            },
            {"Name": f"Connect Sidecar Aliasing {parent['ID']}", "AliasService": parent["ID"]},
        ]
    service = {**_node_service(definition), "Sidecar": True}
    return service, _checks(definition, service)


def _free_port(identifier: str, used_ports: Mapping[str, int]) -> int:
    """The port this sidecar already has, else the first free one of the range."""
    if used_ports.get(identifier, 0) in SIDECAR_PORTS:
        return used_ports[identifier]
    taken = set(used_ports.values())
    for port in SIDECAR_PORTS:
        if port not in taken:
            return port
    span = f"[{SIDECAR_PORTS.start}, {SIDECAR_PORTS.stop - 1}]"
    raise Invalid(
        "Invalid SidecarService: no port provided for sidecar_service and none left in the "
        f"configured range {span}"
    )


def _checks(definition: Document, service: Document) -> tuple[Document, ...]:
    """Its checks with IDs `service:<id>`, numbered from 1 when there are several."""
    given = [*definition.get("Checks", []), *([definition["Check"]] if definition.get("Check") else [])]
    checks = []
    for number, check in enumerate(given, start=1):
        mistake = check_mistake(check)
        if mistake:
            raise Invalid(f"Invalid check: {mistake}")
        suffix = f":{number}" if len(given) > 1 else ""
        named = {
            "CheckID": check.get("CheckID") or f"service:{service['ID']}{suffix}",
            "Name": check.get("Name") or f"Service '{service['Service']}' check",
        }
        checks.append({**check, **named})
    return tuple(checks)


def check_kind(check: Document) -> str:
    """`ttl`, `tcp`, `http`, `alias`; "" for the kinds only a real Consul agent runs."""
    if check.get("AliasService") or check.get("AliasNode"):
        return "alias"
    kinds = {"TCP": "tcp", "HTTP": "http"}
    for key, kind in kinds.items():
        if check.get(key):
            return kind
    return "" if any(check.get(key) for key in ("ScriptArgs", "GRPC", "H2PING")) else "ttl"


def check_mistake(check: Document) -> str:
    """What Consul's CheckType.Validate finds first."""
    kind, interval, ttl = check_kind(check), check.get("Interval", 0), check.get("TTL", 0)
    if not kind:
        return "the embedded datacenter runs TTL, TCP, HTTP and alias checks only"
    if interval > 0 and ttl > 0:
        return "Interval and TTL cannot both be specified"
    if kind in {"tcp", "http"} and interval <= 0:
        return "Interval must be > 0 for Script, HTTP, H2PING, or TCP checks"
    if kind == "alias" and interval > 0:
        return "Interval cannot be set for Alias checks"
    if kind == "alias" and ttl > 0:
        return "TTL must be not be set for Alias checks"
    if kind == "ttl" and ttl <= 0:
        return "TTL must be > 0 for TTL checks"
    return ""
