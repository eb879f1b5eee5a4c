"""Expanding registrations: defaults, ports, tagged addresses, checks."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.services.registration import Invalid, Registered, expand


def sidecar(
    definition: dict[str, Any] | None = None, ports: dict[str, int] | None = None, **parent: Any
) -> Registered:
    """The sidecar of `web`, with this inner definition."""
    given = {"Name": "web", "Port": 8080, **parent, "Connect": {"SidecarService": definition or {}}}
    return expand(given, ports or {})[1]


def test_a_service_by_itself() -> None:
    registered = expand({"Name": "web", "Port": 1}, {})
    assert len(registered) == 1
    service = registered[0].service
    assert (service["ID"], service["Service"], service["Kind"], service["Weights"]) == (
        "web",
        "web",
        "",
        {"Passing": 1, "Warning": 1},
    )


def test_a_sidecar_takes_after_its_parent() -> None:
    made = sidecar(
        ID="w1", Address="db.internal", Tags=["a"], Meta={"k": "v"}, EnableTagOverride=True
    ).service
    assert (made["ID"], made["Service"], made["Kind"]) == (
        "w1-sidecar-proxy",
        "web-sidecar-proxy",
        "connect-proxy",
    )
    assert (made["Address"], made["Tags"], made["Meta"], made["EnableTagOverride"]) == (
        "db.internal",
        ["a"],
        {"k": "v"},
        True,
    )
    assert made["Sidecar"]
    assert made["Proxy"]["DestinationServiceName"] == "web"
    assert made["Proxy"]["DestinationServiceID"] == "w1"
    assert (made["Proxy"]["LocalServiceAddress"], made["Proxy"]["LocalServicePort"]) == ("127.0.0.1", 8080)


def test_what_a_sidecar_says_itself_wins() -> None:
    made = sidecar(
        {
            "Name": "mine",
            "Port": 5,
            "Address": "10.0.0.9",
            "Tags": ["b"],
            "Proxy": {
                "LocalServiceAddress": "10.1.1.1",
                "LocalServicePort": 6,
                "DestinationServiceName": "x",
            },
        },
        Tags=["a"],
    ).service
    assert (made["Service"], made["Port"], made["Address"], made["Tags"]) == ("mine", 5, "10.0.0.9", ["b"])
    assert made["Proxy"]["LocalServiceAddress"] == "10.1.1.1"
    assert (made["Proxy"]["LocalServicePort"], made["Proxy"]["DestinationServiceName"]) == (6, "x")


def test_default_checks_of_a_sidecar() -> None:
    made = sidecar({"Port": 5, "Proxy": {"LocalServiceAddress": "127.0.0.9"}})
    assert [(check["CheckID"], check["Name"]) for check in made.checks] == [
        ("service:web-sidecar-proxy:1", "Connect Sidecar Listening"),
        ("service:web-sidecar-proxy:2", "Connect Sidecar Aliasing web"),
    ]
    assert (made.checks[0]["TCP"], made.checks[0]["Interval"]) == ("127.0.0.9:5", 10.0)
    assert made.checks[1]["AliasService"] == "web"


def test_ports_are_the_first_free_ones() -> None:
    assert sidecar().service["Port"] == 21000
    assert sidecar(ports={"a": 21000, "b": 21002}).service["Port"] == 21001


def test_a_port_is_kept() -> None:
    used = {"a": 21000, "web-sidecar-proxy": 21007}
    assert sidecar(ports=used).service["Port"] == 21007


def test_a_port_of_another_range_is_not() -> None:
    assert sidecar(ports={"web-sidecar-proxy": 8080}).service["Port"] == 21000


def test_ports_can_run_out() -> None:
    with pytest.raises(Invalid, match=r"none left in the configured range \[21000, 21255\]"):
        sidecar(ports={str(port): port for port in range(21000, 21256)})


@pytest.mark.parametrize(("address", "family"), [("10.0.0.1", "ipv4"), ("fd00::1", "ipv6")])
def test_a_literal_address_is_tagged(address: str, family: str) -> None:
    service = expand({"Name": "web", "Port": 1, "Address": address}, {})[0].service
    own = {"Address": address, "Port": 1}
    assert service["TaggedAddresses"] == {f"lan_{family}": own, f"wan_{family}": own}


def test_given_tags_stay() -> None:
    given = {"wan": {"Address": "w", "Port": 2}, "wan_ipv4": {"Address": "v", "Port": 3}}
    service = expand({"Name": "web", "Port": 1, "Address": "10.0.0.1", "TaggedAddresses": given}, {})[
        0
    ].service
    assert service["TaggedAddresses"] == {"lan_ipv4": {"Address": "10.0.0.1", "Port": 1}, **given}


@pytest.mark.parametrize("address", ["", "db.internal"])
def test_other_addresses_are_not_tagged(address: str) -> None:
    assert expand({"Name": "web", "Address": address}, {})[0].service["TaggedAddresses"] == {}


def test_checks_are_named_and_numbered() -> None:
    one = expand({"Name": "web", "ID": "w", "Check": {"TTL": 1.0}}, {})[0].checks
    assert [(check["CheckID"], check["Name"]) for check in one] == [("service:w", "Service 'web' check")]
    two = expand({"Name": "web", "Checks": [{"TTL": 1.0}, {"TTL": 1.0, "CheckID": "c", "Name": "n"}]}, {})[
        0
    ].checks
    assert [(check["CheckID"], check["Name"]) for check in two] == [
        ("service:web:1", "Service 'web' check"),
        ("c", "n"),
    ]


def test_upstreams_are_of_services_unless_they_say_so() -> None:
    upstreams = [
        {"DestinationName": "a", "LocalBindPort": 1},
        {"DestinationName": "b", "DestinationType": "", "LocalBindPort": 2},
        {"DestinationName": "c", "DestinationType": "prepared_query", "LocalBindPort": 3},
    ]
    made = sidecar({"Proxy": {"Upstreams": upstreams}}).service["Proxy"]["Upstreams"]
    assert [upstream["DestinationType"] for upstream in made] == ["service", "service", "prepared_query"]


def test_weights_that_are_given_are_all_there_is() -> None:
    service = expand({"Name": "web", "Weights": {"Passing": 5}}, {})[0].service
    assert service["Weights"] == {"Passing": 5, "Warning": 0}


def test_the_upstreams_of_a_sidecar_are_taken_as_they_are() -> None:
    """Consul validates those of a stand-alone proxy only: what comes of them is the sidecar's business."""
    hopeless: list[dict[str, Any]] = [
        {"LocalBindPort": 1},
        {"DestinationName": "a"},
        {"DestinationName": "*", "LocalBindPort": 1},
    ]
    kept = sidecar({"Proxy": {"Upstreams": hopeless}, "Connect": {"Native": True}}).service
    assert kept["Proxy"]["Upstreams"] == [
        {"DestinationType": "service", "DestinationName": "", **item} for item in hopeless
    ]


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (
            {"Check": {"Name": "x"}},
            "Bad request: Invalid check in sidecar_service: TTL must be > 0 for TTL checks",
        ),
        (
            {"Check": {"TTL": 1, "Status": "well"}},
            "Bad request: Status for checks must 'passing', 'warning', 'critical'",
        ),
        (
            {"Meta": {"": "c"}},
            "Bad request: Invalid SidecarService: Couldn't load metadata pair ('', 'c'): Key cannot be blank",
        ),
    ],
)
def test_mistakes_in_a_sidecar_are_a_servers_error(inner: dict[str, Any], text: str) -> None:
    with pytest.raises(Invalid) as caught:
        sidecar(inner)
    assert (caught.value.status, str(caught.value)) == (500, text)
