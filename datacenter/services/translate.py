"""WAN translation of addresses in another datacenter's answers, with its pitfall.

See docs/consul-api.md#wan-addresses.

The agent that was asked translates, if its `translate_wan_addrs` is on and the data is of another datacenter.
Addresses and ports are rewritten in place, by independent rules: a service registered under a literal address
is tagged `wan_ipv4` with it, so that with only `wan` set the answer is the LAN address with the WAN port.
Tagged addresses stay unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping

from datacenter.state.store import Document


def health_entries(answer: object) -> object:
    """Translate the list of /v1/health/service and /connect, or of a prepared query."""
    if not isinstance(answer, list):
        return answer
    return [
        {**entry, "Node": _node(entry["Node"]), "Service": _service(entry["Service"])} for entry in answer
    ]


def query_answer(own: str, answer: object) -> object:
    """Translate a query's answer, unless its nodes are of our own datacenter."""
    if not isinstance(answer, dict) or answer.get("Datacenter") == own:
        return answer
    return {**answer, "Nodes": health_entries(answer["Nodes"])}


def catalog_services(answer: object) -> object:
    """Translate the list of /v1/catalog/service and /connect."""
    if not isinstance(answer, list):
        return answer
    return [_flat_service(entry) for entry in answer]


def catalog_nodes(answer: object) -> object:
    """Translate the list of /v1/catalog/nodes, and of /v1/internal/ui/nodes."""
    if not isinstance(answer, list):
        return answer
    return [_node(entry) for entry in answer]


def catalog_node(answer: object) -> object:
    """Translate the object of /v1/catalog/node/:name."""
    if not isinstance(answer, dict):
        return answer
    services = {key: _service(service) for key, service in (answer["Services"] or {}).items()}
    return {**answer, "Node": _node(answer["Node"]), "Services": services}


def translated_address(tags: Mapping[str, str], address: str) -> str:
    """Return the first that is set: v6 (wan before lan), v4 (wan before lan), `wan`, the address itself."""
    order = ("wan_ipv6", "lan_ipv6", "wan_ipv4", "lan_ipv4", "wan")
    return next((tags[tag] for tag in order if tags.get(tag)), address)


def _node(node: Document) -> Document:
    return {**node, "Address": translated_address(node["TaggedAddresses"] or {}, node["Address"])}


def _service(service: Document) -> Document:
    tags = service.get("TaggedAddresses") or {}
    return {**service, **_pair(tags, "Address", service["Address"], "Port", service["Port"])}


def _flat_service(entry: Document) -> Document:
    tags = entry.get("ServiceTaggedAddresses") or {}
    pair = _pair(tags, "ServiceAddress", entry["ServiceAddress"], "ServicePort", entry["ServicePort"])
    return {**_node(entry), **pair}


def _pair(tags: Mapping[str, Document], address_key: str, address: str, port_key: str, port: int) -> Document:
    addresses = {tag: str(value.get("Address", "")) for tag, value in tags.items()}
    wan_port = tags.get("wan", {}).get("Port", 0)
    return {address_key: translated_address(addresses, address), port_key: wan_port or port}
