"""Every form of docs/consul-api.md#identity, and every rule a SPIFFE ID can break."""

from __future__ import annotations

import pytest

from certs.spiffe import (
    AgentId,
    GatewayId,
    InvalidSpiffeId,
    OtherId,
    ServerId,
    ServiceId,
    SigningId,
    SpiffeId,
    TrustDomain,
    WorkloadId,
    parse,
)
from tests.recorded import body

UUID = "e66dada9-21f6-30ae-92df-bd86e9e7af6b"
TD = TrustDomain(f"{UUID}.consul")
WEB = ServiceId(trust_domain=TD, datacenter="dc1", service="web")

FORMS: list[tuple[str, SpiffeId]] = [
    ("/ns/default/dc/dc1/svc/web", WEB),
    ("/ns/foo/dc/dc1/svc/web", ServiceId(trust_domain=TD, datacenter="dc1", service="web", namespace="foo")),
    (
        "/ap/sales/ns/foo/dc/dc1/svc/web",
        ServiceId(trust_domain=TD, datacenter="dc1", service="web", namespace="foo", partition="sales"),
    ),
    (
        "/agent/client/dc/dc1/id/50c93e5a",
        AgentId(trust_domain=TD, datacenter="dc1", node="50c93e5a"),
    ),
    (
        "/ap/sales/agent/client/dc/dc1/id/n1",
        AgentId(trust_domain=TD, datacenter="dc1", node="n1", partition="sales"),
    ),
    ("/agent/server/dc/dc1", ServerId(trust_domain=TD, datacenter="dc1")),
    ("/gateway/mesh/dc/dc1", GatewayId(trust_domain=TD, datacenter="dc1")),
    ("/ap/sales/gateway/mesh/dc/dc1", GatewayId(trust_domain=TD, datacenter="dc1", partition="sales")),
    ("/ap/p/ns/n/identity/x", WorkloadId(trust_domain=TD, identity="x", namespace="n", partition="p")),
    ("", SigningId(trust_domain=TD)),
    ("/some/thing/else", OtherId(trust_domain=TD, uri=f"spiffe://{TD}/some/thing/else")),
    ("/ns/default/dc/dc1", OtherId(trust_domain=TD, uri=f"spiffe://{TD}/ns/default/dc/dc1")),
    ("/ns/n/identity/x", OtherId(trust_domain=TD, uri=f"spiffe://{TD}/ns/n/identity/x")),
    ("/ap/x", OtherId(trust_domain=TD, uri=f"spiffe://{TD}/ap/x")),
    (
        "/ap/sales/agent/server/dc/dc1",
        OtherId(trust_domain=TD, uri=f"spiffe://{TD}/ap/sales/agent/server/dc/dc1"),
    ),
]


@pytest.mark.parametrize(("path", "expected"), FORMS)
def test_each_form_is_read_and_printed(path: str, expected: SpiffeId) -> None:
    uri = f"spiffe://{TD}{path}"
    assert parse(uri) == expected
    assert str(parse(uri)) == uri


@pytest.mark.parametrize("name", ["rotation-leaf1-1", "rotation-leaf2-1", "leaf-weird-name", "leaf-other-dc"])
def test_recorded_uris_are_services(name: str) -> None:
    answer = body(name)
    identity = parse(answer["ServiceURI"])
    assert isinstance(identity, ServiceId)
    assert identity.service == answer["Service"]
    assert str(identity) == answer["ServiceURI"]


def test_default_partition_is_read_and_not_printed() -> None:
    assert parse(f"spiffe://{TD}/ap/default/ns/default/dc/dc1/svc/web") == WEB
    assert "/ap/" not in str(WEB)


def test_trust_domain_is_compared_in_lower_case() -> None:
    assert parse(f"SPIFFE://{UUID.upper()}.Consul/ns/default/dc/dc1/svc/web") == WEB


def test_service_name_is_compared_exactly() -> None:
    assert parse(f"spiffe://{TD}/ns/default/dc/dc1/svc/WEB") != WEB


def test_percent_encoding_is_decoded_and_printed_as_go_does() -> None:
    identity = parse(f"spiffe://{TD}/ns/default/dc/dc1/svc/a%20b%25%c3%bc+c:d")
    assert isinstance(identity, ServiceId)
    assert identity.service == "a b%ü+c:d"
    assert str(identity).endswith("/svc/a%20b%25%C3%BC+c:d")


REFUSED = [
    ("", "scheme"),
    ("web", "scheme"),
    (f"https://{TD}/ns/default/dc/dc1/svc/web", "scheme"),
    (f"spiffe:/{TD}/ns/default/dc/dc1/svc/web", "scheme"),
    ("spiffe://", "trust_domain"),
    ("spiffe:///ns/default/dc/dc1/svc/web", "trust_domain"),
    (f"spiffe://{TD}:8443/ns/default/dc/dc1/svc/web", "trust_domain"),
    (f"spiffe://user@{TD}/ns/default/dc/dc1/svc/web", "trust_domain"),
    (f"spiffe://{TD}?x=1", "trust_domain"),
    (f"spiffe://{'a' * 256}/ns/default/dc/dc1/svc/web", "trust_domain"),
    (f"spiffe://{TD}/", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/", "segment"),
    (f"spiffe://{TD}/ns//dc/dc1/svc/web", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/web/", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/web?x=1", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/web#x", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/we b", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/we%zz", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/we%2", "segment"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/%ff", "utf8"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/a%2Fb", "name"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/%2e%2e", "name"),
    (f"spiffe://{TD}/ns/../dc/dc1/svc/web", "name"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/web%00", "name"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/web%0a", "name"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/wëb", "ascii"),
    (f"spiffe://{TD}/ns/default/dc/dc1/svc/{'w' * 2048}", "length"),
]


@pytest.mark.parametrize(("uri", "rule"), REFUSED)
def test_each_broken_rule_is_named(uri: str, rule: str) -> None:
    with pytest.raises(InvalidSpiffeId) as caught:
        parse(uri)
    assert caught.value.rule == rule
    assert caught.value.rule in str(caught.value)


def test_longest_uri_is_accepted() -> None:
    prefix = f"spiffe://{TD}/ns/default/dc/dc1/svc/"
    assert isinstance(parse(prefix + "w" * (2048 - len(prefix))), ServiceId)


@pytest.mark.parametrize("service", ["", "a/b", "..", "a\nb"])
def test_ids_are_valid_by_construction(service: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        ServiceId(trust_domain=TD, datacenter="dc1", service=service)


@pytest.mark.parametrize("name", ["", "UPPER.consul", "a b", "a/b", "bücher.consul"])
def test_trust_domain_is_valid_by_construction(name: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        TrustDomain(name)


def test_trust_domain_parse_refuses_what_lower_casing_would_hide() -> None:
    with pytest.raises(InvalidSpiffeId):
        TrustDomain.parse("\u212aonsul")  # the Kelvin sign lower-cases to an ASCII k
    assert TrustDomain.parse("A.Consul") == TrustDomain("a.consul")


def test_service_ids_sort_and_hash() -> None:
    db = ServiceId(trust_domain=TD, datacenter="dc1", service="db")
    assert sorted({WEB, db}) == [db, WEB]
