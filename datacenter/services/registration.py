"""Expands a registration into the services and checks it stands for.

See docs/consul-api.md#registration and #sidecar-service.

No effects: a decoded definition goes in, `NodeService` documents and check definitions come out, or the text
with which Consul refuses it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from datacenter.state.store import Document
from datacenter.state.validation import (
    PROXY_KIND,
    check_mistake,
    meta_mistake,
    multierror,
    service_mistakes,
    sidecar_mistakes,
    status_mistake,
    weights_mistake,
)

SIDECAR_PORTS = range(21000, 21256)


class Invalid(Exception):
    """The registration is refused with this text, and a 400; 500 where Consul expands a sidecar."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One service for the catalog, with the definitions of its checks."""

    service: Document  # NodeService, as stored
    checks: tuple[Document, ...]  # CheckType, as sent; `CheckID` and `Name` filled in


def expand(definition: Document, used_ports: Mapping[str, int]) -> list[Registered]:
    """Return the service, and its sidecar if it has one.

    `used_ports`: ports of registered services by their IDs.

    Raises Invalid.
    """
    if not definition.get("Name"):
        raise Invalid("Missing service name")
    if definition.get("Address") in {"0.0.0.0", "::", "[::]"}:  # noqa: S104  refused, not bound
        raise Invalid("Invalid service address")
    if mistake := weights_mistake(definition.get("Weights")):
        raise Invalid(f"Invalid Weights: {mistake}")
    service = _node_service(definition)
    inner = definition.get("Connect", {}).get("SidecarService")
    if mistake := meta_mistake(service["Meta"]):
        raise Invalid(f"Invalid Service Meta: {mistake}")
    mistakes = [*service_mistakes(service), *sidecar_mistakes(inner)]
    if mistakes:
        raise Invalid(multierror(mistakes))
    registered = [Registered(service=service, checks=_checks(definition, service))]
    if inner is not None:
        # Consul checks no more of a sidecar: even an upstream that cannot be served is accepted.
        sidecar = _sidecar(inner, service, used_ports)
        if mistake := meta_mistake(sidecar["Meta"]):
            raise Invalid(f"Bad request: Invalid SidecarService: {mistake}", 500)
        registered.append(Registered(service=sidecar, checks=_sidecar_checks(inner, sidecar, service)))
    return registered


def normal_service(given: Document) -> Document:
    """Return a NodeService in the stored form: every key present, defaults filled in, addresses tagged."""
    proxy = {**given.get("Proxy", {})}
    blank = {"DestinationType": "service", "DestinationName": ""}
    proxy["Upstreams"] = [blank | each for each in proxy.get("Upstreams", [])]
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
        "Weights": {"Passing": 0, "Warning": 0, **given.get("Weights", {"Passing": 1, "Warning": 1})},
        "EnableTagOverride": given.get("EnableTagOverride", False),
        "Proxy": proxy,
        "Native": given.get("Connect", {}).get("Native", False),
        "Sidecar": False,  # registered by its service, and deregistered with it
    }


def _node_service(definition: Document) -> Document:
    named = {**definition, "Service": definition.get("Name", "")}
    return _tag_addresses(normal_service(named))


def _tag_addresses(service: Document) -> Document:
    """Tag a literal address by its family, lan and wan alike, unless tags were given."""
    try:
        version = ipaddress.ip_address(service["Address"]).version
    except ValueError:
        return service
    own = {"Address": service["Address"], "Port": service["Port"]}
    tags = {f"lan_ipv{version}": own, f"wan_ipv{version}": own}
    return {**service, "TaggedAddresses": {**tags, **service["TaggedAddresses"]}}


def _sidecar(inner: Document, parent: Document, used_ports: Mapping[str, int]) -> Document:
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
        "Port": inner["Port"] if inner.get("Port", 0) > 0 else _free_port(identifier, used_ports),
        "Tags": inner.get("Tags") or parent["Tags"],
        "Meta": inner.get("Meta") or parent["Meta"],
        "EnableTagOverride": inner.get("EnableTagOverride", parent["EnableTagOverride"]),
        "Proxy": proxy,
    }
    return {**_node_service(definition), "Sidecar": True}


def _sidecar_checks(inner: Document, sidecar: Document, parent: Document) -> tuple[Document, ...]:
    """Return a sidecar's own checks, else the two defaults: that it listens, and its service's health."""
    if not inner.get("Check") and not inner.get("Checks"):
        listening = {
            "Name": "Connect Sidecar Listening",
            # The local address, not the service's: a sidecar must listen there to be healthy.
            "TCP": f"{sidecar['Proxy']['LocalServiceAddress']}:{sidecar['Port']}",
            "Interval": 10.0,
        }
        alias = {"Name": f"Connect Sidecar Aliasing {parent['ID']}", "AliasService": parent["ID"]}
        inner = {"Checks": [listening, alias]}
    try:
        return _checks(inner, sidecar)
    except Invalid as error:
        where = "Invalid check in sidecar_service"
        raise Invalid(f"Bad request: {str(error).replace('Invalid check', where, 1)}", 500) from error


def _free_port(identifier: str, used_ports: Mapping[str, int]) -> int:
    """Return the port this sidecar already has, else the first free one of the range."""
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
    """Return the checks with IDs `service:<id>`, numbered from 1 if there are several."""
    given = [*definition.get("Checks", []), *([definition["Check"]] if definition.get("Check") else [])]
    checks = []
    for number, check in enumerate(given, start=1):
        mistake = check_mistake(check)
        if mistake:
            raise Invalid(f"Invalid check: {mistake}")
        if mistake := status_mistake(check.get("Status", "")):
            raise Invalid(mistake)
        suffix = f":{number}" if len(given) > 1 else ""
        named = {
            "CheckID": check.get("CheckID") or f"service:{service['ID']}{suffix}",
            "Name": check.get("Name") or f"Service '{service['Service']}' check",
        }
        checks.append({**check, **named})
    return tuple(checks)
