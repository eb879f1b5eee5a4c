"""WAN translation: the order of tags, and the trap of docs/consul-api.md#wan-addresses."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.services import translate

V4 = {"lan_ipv4": {"Address": "10.0.0.1", "Port": 1}, "wan_ipv4": {"Address": "10.0.0.1", "Port": 1}}

SERVICES: dict[str, tuple[str, int, dict[str, Any], str, int]] = {
    "wan alone, no address": ("", 1, {"wan": {"Address": "w", "Port": 2}}, "w", 2),
    "literal address: the lan address with the wan port": (
        "10.0.0.1",
        1,
        {**V4, "wan": {"Address": "w", "Port": 2}},
        "10.0.0.1",
        2,
    ),
    "host name": ("db.internal", 1, {"wan": {"Address": "db.public", "Port": 2}}, "db.public", 2),
    "wan_ipv4 set too: its port is ignored": (
        "10.0.0.1",
        1,
        {**V4, "wan_ipv4": {"Address": "v", "Port": 3}, "wan": {"Address": "w", "Port": 2}},
        "v",
        2,
    ),
    "wan without a port": ("a", 1, {"wan": {"Address": "w", "Port": 0}}, "w", 1),
    "v6 before v4": ("a", 1, {**V4, "lan_ipv6": {"Address": "::1", "Port": 3}}, "::1", 1),
    "lan does not count": ("a", 1, {"lan": {"Address": "l", "Port": 3}}, "a", 1),
    "nothing": ("", 1, {}, "", 1),
}


@pytest.mark.parametrize(
    ("address", "port", "tags", "wanted", "wanted_port"), SERVICES.values(), ids=SERVICES
)
def test_service(address: str, port: int, tags: dict[str, Any], wanted: str, wanted_port: int) -> None:
    node = {"Address": "n", "TaggedAddresses": None}
    service = {"Address": address, "Port": port, "TaggedAddresses": tags}
    entries: Any = translate.health_entries([{"Node": node, "Service": service, "Checks": []}])
    translated = entries[0]["Service"]
    assert (translated["Address"], translated["Port"]) == (wanted, wanted_port)
    assert translated["TaggedAddresses"] == tags
    assert service["Address"] == address, "the answer that was given stays as it was"

    flat = {**node, "ServiceAddress": address, "ServicePort": port, "ServiceTaggedAddresses": tags}
    rows: Any = translate.catalog_services([flat])
    assert (rows[0]["ServiceAddress"], rows[0]["ServicePort"]) == (wanted, wanted_port)


def test_node() -> None:
    nodes: Any = translate.catalog_nodes(
        [
            {"Address": "10.0.0.5", "TaggedAddresses": {"lan": "10.0.0.5", "wan": "192.0.2.5"}},
            {"Address": "10.0.0.6", "TaggedAddresses": None},
        ]
    )
    assert [node["Address"] for node in nodes] == ["192.0.2.5", "10.0.0.6"]


def test_one_node_with_its_services() -> None:
    node = {"Address": "a", "TaggedAddresses": {"wan": "w"}}
    service = {"Address": "a", "Port": 1, "TaggedAddresses": {"wan": {"Address": "w", "Port": 2}}}
    answer: Any = translate.catalog_node({"Node": node, "Services": {"s": service}})
    assert (answer["Node"]["Address"], answer["Services"]["s"]["Port"]) == ("w", 2)


def test_a_query_s_answer_is_of_the_datacenter_it_names() -> None:
    node = {"Address": "a", "TaggedAddresses": {"wan": "w"}}
    entry = {"Node": node, "Service": {"Address": "", "Port": 1}, "Checks": []}
    answer = {"Datacenter": "dc2", "Nodes": [entry]}
    elsewhere: Any = translate.query_answer("dc1", answer)
    assert elsewhere["Nodes"][0]["Node"]["Address"] == "w"
    assert translate.query_answer("dc2", answer) == answer


@pytest.mark.parametrize("answer", [None, b"text", "text"])
def test_what_is_no_answer_passes(answer: object) -> None:
    for function in (
        translate.health_entries,
        translate.catalog_services,
        translate.catalog_nodes,
        translate.catalog_node,
    ):
        assert function(answer) == answer
    assert translate.query_answer("dc1", answer) == answer
