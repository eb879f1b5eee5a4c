"""Which address is dialled, by mode, datacenter and what the catalog holds.

See docs/consul-api.md#wan-addresses.
"""

from __future__ import annotations

import pytest

from tests.recorded import body
from upstreams.answers import parse_health
from upstreams.endpoints import Endpoint, ExpectedIdentity, HostPort, Status
from upstreams.reach import (
    AddressWarning,
    DialAddress,
    ReachReason,
    Unreachable,
    UnreachableReason,
    doubt,
    reach,
)
from upstreams.spec import WanMode

AUTO, PREFER, REQUIRE, NEVER = WanMode.AUTO, WanMode.PREFER, WanMode.REQUIRE, WanMode.NEVER
R = ReachReason
WAN = {"wan": ("203.0.113.9", 31000)}
WAN_NO_PORT = {"wan": ("203.0.113.9", 0)}
WAN_NO_ADDRESS = {"wan": ("", 31000)}
LAN = {"lan": ("10.0.0.9", 21000)}
AUTO_V4 = {"lan_ipv4": ("10.0.0.9", 21000), "wan_ipv4": ("10.0.0.9", 21000)}
V6 = {"wan_ipv6": ("2001:db8::9", 41000)}


def endpoint(
    datacenter: str,
    address: str,
    tagged: dict[str, tuple[str, int]],
    *,
    port: int = 21000,
    node: str = "10.0.0.1",
    node_tagged: dict[str, str] | None = None,
) -> Endpoint:
    return Endpoint(
        node="n1",
        service_id="db",
        datacenter=datacenter,
        expected=ExpectedIdentity(datacenter=datacenter, service="db"),
        service_address=address,
        port=port,
        node_address=node,
        tagged={tag: HostPort(*pair) for tag, pair in tagged.items()},
        node_tagged=node_tagged or {},
        weight=1,
        status=Status.PASSING,
    )


NODE_WAN = {"lan": "10.0.0.1", "wan": "198.51.100.1"}

# mode, endpoint's datacenter, service address, service tags, node tags; host, port and reason of the choice
Row = tuple[WanMode, str, str, dict[str, tuple[str, int]], dict[str, str], str, int, ReachReason]
TABLE: list[Row] = [
    # Our own datacenter: the address as answered, tags or not.
    (AUTO, "dc1", "10.0.0.9", {}, {}, "10.0.0.9", 21000, R.LOCAL_SERVICE),
    (AUTO, "dc1", "10.0.0.9", WAN, NODE_WAN, "10.0.0.9", 21000, R.LOCAL_SERVICE),
    (AUTO, "dc1", "", WAN, NODE_WAN, "10.0.0.1", 21000, R.LOCAL_NODE),
    (AUTO, "dc1", "", {}, {}, "10.0.0.1", 21000, R.LOCAL_NODE),
    (AUTO, "dc1", "db.internal", {}, {}, "db.internal", 21000, R.LOCAL_SERVICE),
    # Another datacenter: the wan pair, else the service's, else the node's.
    (AUTO, "dc2", "10.0.0.9", WAN, NODE_WAN, "203.0.113.9", 31000, R.WAN_TAG),
    (AUTO, "dc2", "", WAN, NODE_WAN, "203.0.113.9", 31000, R.WAN_TAG),
    (AUTO, "dc2", "10.0.0.9", WAN_NO_PORT, {}, "203.0.113.9", 21000, R.WAN_TAG_WITHOUT_PORT),
    (AUTO, "dc2", "10.0.0.9", WAN_NO_ADDRESS, {}, "10.0.0.9", 21000, R.REMOTE_SERVICE),
    (AUTO, "dc2", "10.0.0.9", {}, NODE_WAN, "10.0.0.9", 21000, R.REMOTE_SERVICE),
    (AUTO, "dc2", "10.0.0.9", AUTO_V4, NODE_WAN, "10.0.0.9", 21000, R.REMOTE_SERVICE),
    (AUTO, "dc2", "10.0.0.9", AUTO_V4 | WAN, NODE_WAN, "203.0.113.9", 31000, R.WAN_TAG),
    (AUTO, "dc2", "10.0.0.9", V6, {}, "10.0.0.9", 21000, R.REMOTE_SERVICE),
    (AUTO, "dc2", "10.0.0.9", V6 | WAN, {}, "203.0.113.9", 31000, R.WAN_TAG),
    (AUTO, "dc2", "10.0.0.9", LAN, {}, "10.0.0.9", 21000, R.REMOTE_SERVICE),
    (AUTO, "dc2", "", {}, NODE_WAN, "198.51.100.1", 21000, R.NODE_WAN_TAG),
    (AUTO, "dc2", "", AUTO_V4, NODE_WAN, "198.51.100.1", 21000, R.NODE_WAN_TAG),
    (AUTO, "dc2", "", {}, {"lan": "10.0.0.1"}, "10.0.0.1", 21000, R.REMOTE_NODE),
    (AUTO, "dc2", "", {}, {"wan": ""}, "10.0.0.1", 21000, R.REMOTE_NODE),
    (AUTO, "DC1", "10.0.0.9", WAN, {}, "203.0.113.9", 31000, R.WAN_TAG),
    # prefer: the wan pair at home too.
    (PREFER, "dc1", "10.0.0.9", WAN, {}, "203.0.113.9", 31000, R.WAN_TAG),
    (PREFER, "dc1", "10.0.0.9", {}, NODE_WAN, "10.0.0.9", 21000, R.LOCAL_SERVICE),
    (PREFER, "dc1", "", {}, NODE_WAN, "198.51.100.1", 21000, R.NODE_WAN_TAG),
    (PREFER, "dc1", "", {}, {}, "10.0.0.1", 21000, R.LOCAL_NODE),
    (PREFER, "dc2", "10.0.0.9", WAN, {}, "203.0.113.9", 31000, R.WAN_TAG),
    # require: as auto where there is one.
    (REQUIRE, "dc1", "10.0.0.9", {}, {}, "10.0.0.9", 21000, R.LOCAL_SERVICE),
    (REQUIRE, "dc1", "10.0.0.9", WAN, {}, "10.0.0.9", 21000, R.LOCAL_SERVICE),
    (REQUIRE, "dc2", "10.0.0.9", WAN, {}, "203.0.113.9", 31000, R.WAN_TAG),
    (REQUIRE, "dc2", "", {}, NODE_WAN, "198.51.100.1", 21000, R.NODE_WAN_TAG),
    # never: the LAN address, undoing a translation where the tags allow it.
    (NEVER, "dc1", "10.0.0.9", WAN, {}, "10.0.0.9", 21000, R.LOCAL_SERVICE),
    (NEVER, "dc2", "10.0.0.9", WAN, {}, "10.0.0.9", 21000, R.REMOTE_SERVICE),
    (NEVER, "dc2", "203.0.113.9", WAN | LAN, {}, "10.0.0.9", 21000, R.LAN_TAG),
    (NEVER, "dc2", "203.0.113.9", WAN | AUTO_V4, {}, "10.0.0.9", 21000, R.LAN_TAG),
    (NEVER, "dc2", "203.0.113.9", WAN | {"lan": ("10.0.0.9", 9)}, {}, "10.0.0.9", 9, R.LAN_TAG),
    (NEVER, "dc2", "203.0.113.9", WAN | {"lan": ("10.0.0.9", 0)}, {}, "10.0.0.9", 21000, R.LAN_TAG),
    (NEVER, "dc2", "", WAN, NODE_WAN, "10.0.0.1", 21000, R.LAN_TAG),
    (NEVER, "dc2", "", WAN, {}, "10.0.0.1", 21000, R.REMOTE_NODE),
    (NEVER, "dc1", "", {}, {}, "10.0.0.1", 21000, R.LOCAL_NODE),
]


@pytest.mark.parametrize("row", TABLE)
def test_table(row: Row) -> None:
    mode, datacenter, address, tagged, node_tagged, host, port, reason = row
    target = endpoint(datacenter, address, tagged, node_tagged=node_tagged)
    assert reach(target, own_datacenter="dc1", wan=mode) == DialAddress(host=host, port=port, reason=reason)


def test_table_covers_every_reason() -> None:
    assert {row[-1] for row in TABLE} == set(ReachReason)


# What each of the five registrations of the recorded matrix must be dialled at from dc1
# (docs/consul-api.md#wan-addresses).
FROM_DC1 = {
    "dbA-sidecar-proxy": "127.0.0.122:31010 (wan_tag)",
    "dbB-sidecar-proxy": "127.0.0.122:31011 (wan_tag)",
    "dbC-sidecar-proxy": "127.0.0.22:21012 (node_wan_tag)",
    "dbD-sidecar-proxy": "db.public:31013 (wan_tag)",
    "dbE-sidecar-proxy": "127.0.0.122:31014 (wan_tag)",
}


@pytest.mark.parametrize("name", ["wanmatrix-on-health-connect", "wanmatrix-local-health-connect"])
def test_recorded_matrix_is_dialled_alike_whether_translated_or_not(name: str) -> None:
    endpoints = parse_health(body(name)).endpoints
    assert {e.service_id: str(reach(e, own_datacenter="dc1")) for e in endpoints} == FROM_DC1


def test_recorded_matrix_at_home() -> None:
    endpoints = parse_health(body("wanmatrix-local-health-connect")).endpoints
    assert [str(reach(e, own_datacenter="dc2")) for e in endpoints] == [
        "127.0.0.22:21010 (local_service_address)",
        "127.0.0.22:21011 (local_node_address)",
        "127.0.0.22:21012 (local_node_address)",
        "db.internal:21013 (local_service_address)",
        "127.0.0.22:21014 (local_service_address)",
    ]


def test_recorded_answer_of_an_agent_that_does_not_translate() -> None:
    (db,) = parse_health(body("wan-off-health-connect")).endpoints
    assert str(reach(db, own_datacenter="dc1")) == "127.0.0.112:31520 (wan_tag)"


def test_recorded_node_with_a_wan_address() -> None:
    (db,) = parse_health(body("wan-node-only-translated")).endpoints
    assert str(reach(db, own_datacenter="dc1")) == "192.0.2.5:20000 (node_wan_tag)"
    assert str(reach(db, own_datacenter="dc1", wan=NEVER)) == "10.0.0.5:20000 (lan_tag)"


@pytest.mark.parametrize(
    ("target", "mode", "reason"),
    [
        (endpoint("dc2", "10.0.0.9", {}), REQUIRE, UnreachableReason.NO_WAN_ADDRESS),
        (
            endpoint("dc2", "10.0.0.9", AUTO_V4, node_tagged=NODE_WAN),
            REQUIRE,
            UnreachableReason.NO_WAN_ADDRESS,
        ),
        (endpoint("dc2", "", {}), REQUIRE, UnreachableReason.NO_WAN_ADDRESS),
        (endpoint("dc1", "", {}, node=""), AUTO, UnreachableReason.NO_ADDRESS),
        (endpoint("dc2", "", {}, node=""), NEVER, UnreachableReason.NO_ADDRESS),
        (endpoint("dc1", "10.0.0.9", {}, port=0), AUTO, UnreachableReason.NO_PORT),
        (endpoint("dc2", "10.0.0.9", WAN_NO_PORT, port=0), AUTO, UnreachableReason.NO_PORT),
        (endpoint("dc1", "10.0.0.9", {}, port=65536), AUTO, UnreachableReason.BAD_PORT),
        (endpoint("dc1", "10.0.0.9", {}, port=-1), AUTO, UnreachableReason.BAD_PORT),
    ],
)
def test_what_cannot_be_dialled_is_named(target: Endpoint, mode: WanMode, reason: UnreachableReason) -> None:
    with pytest.raises(Unreachable, match="db on n1") as caught:
        reach(target, own_datacenter="dc1", wan=mode)
    assert caught.value.reason is reason


def test_ipv6_is_printed_in_brackets() -> None:
    assert str(reach(endpoint("dc1", "2001:db8::1", {}), own_datacenter="dc1")).startswith(
        "[2001:db8::1]:21000"
    )


LAN_AND_WAN = {"lan_ipv4": ("10.0.0.9", 21000), "wan": ("203.0.113.9", 31000)}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (endpoint("dc2", "10.0.0.9", LAN_AND_WAN, port=31000), AddressWarning.MIXED_PAIR),
        (endpoint("dc2", "10.0.0.9", LAN_AND_WAN), None),  # not translated at all
        (endpoint("dc2", "203.0.113.9", LAN_AND_WAN, port=31000), None),  # translated whole
        (endpoint("dc2", "10.0.0.9", AUTO_V4 | WAN_NO_PORT), None),
        (endpoint("dc2", "10.0.0.9", AUTO_V4 | {"wan": ("203.0.113.9", 21000)}), None),  # one port for both
        (endpoint("dc2", "10.0.0.9", {}), AddressWarning.PRIVATE_ADDRESS),
        (endpoint("dc2", "", {}, node="192.168.1.1"), AddressWarning.PRIVATE_ADDRESS),
        (endpoint("dc2", "203.1.113.9", {}), None),
        (endpoint("dc2", "db.internal", {}), None),
        (endpoint("dc2", "10.0.0.9", {"wan": ("10.9.9.9", 31000)}), None),  # somebody said so
        (endpoint("dc1", "10.0.0.9", {}), None),
    ],
)
def test_what_an_operator_should_look_at(target: Endpoint, expected: AddressWarning | None) -> None:
    assert doubt(target, reach(target, own_datacenter="dc1")) is expected


def test_recorded_matrix_has_a_mixed_pair() -> None:
    endpoints = parse_health(body("wanmatrix-on-health-connect")).endpoints
    doubts = {e.service_id: doubt(e, reach(e, own_datacenter="dc1")) for e in endpoints}
    assert [name for name, found in doubts.items() if found is AddressWarning.MIXED_PAIR] == [
        "dbA-sidecar-proxy"
    ]


@pytest.mark.parametrize("port", [1, 65535])
def test_every_port_can_be_dialled(port: int) -> None:
    assert reach(endpoint("dc1", "10.0.0.9", {}, port=port), own_datacenter="dc1").port == port
