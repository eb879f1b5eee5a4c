"""The form of a stored service, node or check in each answer; Consul has four of them.

The agent's own view leaves out empty values; the catalog's view has more keys; its flat view prefixes them; a
prepared query has null where health has an empty list. Each function names its recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datacenter.state.durations import format_duration
from datacenter.state.inventory import Instance
from datacenter.state.store import Document, Row
from datacenter.state.validation import PROXY_KIND

_DEFINITION_ZERO = {
    "Interval": "0s",
    "Timeout": "0s",
    "DeregisterCriticalServiceAfter": "0s",
    "HTTP": "",
    "Header": None,
    "Method": "",
    "Body": "",
    "TLSServerName": "",
    "TLSSkipVerify": False,
    "TCP": "",
    "GRPC": "",
    "GRPCUseTLS": False,
}
_DEFINITION_TIMES = ("Interval", "Timeout", "DeregisterCriticalServiceAfter")


def agent_service(service: Document, datacenter: str) -> Document:
    """Return `agent-services`: a service as its own agent shows it."""
    view: Document = {"Kind": service["Kind"]} if service["Kind"] else {}
    view |= {key: service[key] for key in ("ID", "Service", "Tags", "Meta", "Port", "Address")}
    view |= _present(service, ("SocketPath", "TaggedAddresses"))
    view |= {key: service[key] for key in ("Weights", "EnableTagOverride")}
    if service["Kind"] == PROXY_KIND:
        view["Proxy"] = _agent_proxy(service["Proxy"])
    if service["Native"]:
        view["Connect"] = {"Native": True}
    return {**view, "Datacenter": datacenter}


def _agent_proxy(proxy: Document) -> Document:
    view = {"DestinationServiceName": proxy.get("DestinationServiceName", "")}
    view |= _present(
        proxy,
        (
            "DestinationServiceID",
            "LocalServiceAddress",
            "LocalServicePort",
            "LocalServiceSocketPath",
            "Mode",
            "TransparentProxy",
            "Config",
        ),
    )
    if proxy.get("Upstreams"):
        view["Upstreams"] = [_agent_upstream(upstream) for upstream in proxy["Upstreams"]]
    return {**view, "MeshGateway": _mesh_gateway(proxy), "Expose": _present(proxy.get("Expose", {}))}


def _agent_upstream(upstream: Document) -> Document:
    bind = ("LocalBindAddress", "LocalBindPort", "LocalBindSocketPath", "LocalBindSocketMode", "Config")
    return {
        "DestinationType": upstream["DestinationType"],
        **_present(upstream, ("DestinationNamespace",)),
        "DestinationName": upstream["DestinationName"],
        **_present(upstream, ("Datacenter", *bind)),
        "MeshGateway": _mesh_gateway(upstream),
        **_present(upstream, ("CentrallyConfigured",)),
    }


def agent_check(check: Document) -> Document:
    """Return `agent-checks`: a check as its own agent shows it, without indexes."""
    return {**_check(check), "Definition": check["Definition"], "CreateIndex": 0, "ModifyIndex": 0}


def agent_health_check(check: Document) -> Document:
    """Return `agent-health-service-id`: the client library's form, with every zero of a definition."""
    keys = ("Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName")
    view: Document = {key: check[key] for key in keys}
    fixed = {"Definition": _DEFINITION_ZERO, "CreateIndex": 0, "ModifyIndex": 0}
    return {**view, "ServiceTags": None, "Type": "", **fixed}


def check_definition(given: Document) -> Document:
    """Return a decoded definition as the catalog shows it: what is empty left out, times as texts."""
    texts = {key: format_duration(given[key]) for key in _DEFINITION_TIMES if given.get(key)}
    ttl = {"TTL": round(given["TTL"] * 1e9)} if given.get("TTL") else {}  # in nanoseconds, unlike the others
    return {**_present(given), **texts, **ttl}


def health_check(row: Row, *, tags: bool = True) -> Document:
    """Return a check in catalog and health answers; a prepared query has no empty tags (`tags=False`)."""
    view = {**_check(row.value), "Definition": row.value["Definition"], **_indexes(row)}
    return view if tags else {**view, "ServiceTags": view["ServiceTags"] or None}


def health_entry(instance: Instance, datacenter: str, *, tags: bool = True) -> Document:
    """Return `health-service`, or with `tags=False` `query-execute-local`: one instance."""
    return {
        "Node": health_node(instance.node, datacenter),
        "Service": catalog_service(instance.service, tags=tags),
        "Checks": [health_check(row, tags=tags) for row in instance.checks],
    }


def health_node(row: Row, datacenter: str) -> Document:
    """Return a node in health and catalog answers."""
    node = row.value
    return {
        "ID": node["ID"],
        "Node": node["Node"],
        "Address": node["Address"],
        "Datacenter": datacenter,
        "TaggedAddresses": node["TaggedAddresses"] or None,
        "Meta": node["Meta"] or None,
        **_indexes(row),
    }


def catalog_service(row: Row, *, tags: bool = True) -> Document:
    """Return `wan-catalog-node-dc2`: a service as servers store it."""
    service = row.value
    return {
        **({"Kind": service["Kind"]} if service["Kind"] else {}),
        "ID": service["ID"],
        "Service": service["Service"],
        "Tags": service["Tags"] if tags else service["Tags"] or None,
        "Address": service["Address"],
        **_present(service, ("TaggedAddresses",)),
        "Meta": service["Meta"] or None,
        "Port": service["Port"],
        **_present(service, ("SocketPath",)),
        "Weights": service["Weights"],
        "EnableTagOverride": service["EnableTagOverride"],
        "Proxy": _catalog_proxy(service["Proxy"]),
        "Connect": {"Native": True} if service["Native"] else {},
        **_indexes(row),
    }


def flat_service(instance: Instance, datacenter: str) -> Document:
    """Return `catalog-connect`: a service and its node in one object, without health."""
    node, service = instance.node.value, instance.service.value
    return {
        **{key: node[key] for key in ("ID", "Node", "Address")},
        "Datacenter": datacenter,
        "TaggedAddresses": node["TaggedAddresses"] or None,
        "NodeMeta": node["Meta"] or None,
        "ServiceKind": service["Kind"],
        "ServiceID": service["ID"],
        "ServiceName": service["Service"],
        "ServiceTags": service["Tags"],
        "ServiceAddress": service["Address"],
        **({"ServiceTaggedAddresses": service["TaggedAddresses"]} if service["TaggedAddresses"] else {}),
        "ServiceWeights": service["Weights"],
        "ServiceMeta": service["Meta"],
        "ServicePort": service["Port"],
        "ServiceSocketPath": service["SocketPath"],
        "ServiceEnableTagOverride": service["EnableTagOverride"],
        "ServiceProxy": _catalog_proxy(service["Proxy"]),
        "ServiceConnect": {"Native": True} if service["Native"] else {},
        **_indexes(instance.service),
    }


def _catalog_proxy(proxy: Document) -> Document:
    destination = (
        "DestinationServiceName",
        "DestinationServiceID",
        "LocalServiceAddress",
        "LocalServicePort",
    )
    view = _present(proxy, (*destination, "LocalServiceSocketPath"))
    view["Mode"] = proxy.get("Mode", "")
    view |= _present(proxy, ("Config",))
    if proxy.get("Upstreams"):
        view["Upstreams"] = [{"Datacenter": "", **_agent_upstream(each)} for each in proxy["Upstreams"]]
    return {**view, "MeshGateway": _mesh_gateway(proxy), "Expose": _present(proxy.get("Expose", {}))}


def _check(check: Document) -> Document:
    keys = ("Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName", "ServiceTags")
    return {key: check[key] for key in (*keys, "Type", "Interval", "Timeout", "ExposedPort")}


def _mesh_gateway(holder: Document) -> Document:
    return _present(holder.get("MeshGateway", {}), ("Mode",))


def _indexes(row: Row) -> Document:
    return {"CreateIndex": row.create_index, "ModifyIndex": row.modify_index}


def _present(document: Mapping[str, object], keys: Sequence[str] | None = None) -> Document:
    """Return the keys (all of them by default) whose value is not empty."""
    wanted = document.keys() if keys is None else keys
    return {key: document[key] for key in wanted if document.get(key)}
