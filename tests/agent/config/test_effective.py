"""The service definition with the settings laid over it."""

from __future__ import annotations

from agent.base.address import TcpAddress, UnixAddress
from agent.config.effective import check_id, from_settings, origins, overridden, own_definition
from tests.support.agent_parts import PROXY, registration, settings
from upstreams.spec import parse_upstream_flag

DB = parse_upstream_flag("db:9191")
CACHE = parse_upstream_flag("cache:9192")


def test_settings_win_one_by_one() -> None:
    defined = registration(upstreams=(DB,))
    assert overridden(defined, settings()) == defined
    over = overridden(defined, settings(listen="10.0.0.1:1", service_addr="unix:/run/app"))
    assert (over.public_bind, over.local_app) == (TcpAddress("10.0.0.1", 1), UnixAddress("/run/app"))
    assert over.upstreams == (DB,)
    assert overridden(defined, settings(upstream=["cache:9192"])).upstreams == (CACHE,)


def test_everything_from_settings() -> None:
    effective = from_settings(
        settings(service="web", listen="10.0.0.1:1", service_addr="127.0.0.1:2", upstream=["cache:9192"])
    )
    assert (effective.proxy_id, effective.service, effective.service_id) == ("web-proxy", "web", "web")
    assert effective.datacenter is None
    assert effective.upstreams == (CACHE,)
    assert effective.public_bind == TcpAddress("10.0.0.1", 1)


def test_where_each_comes_from() -> None:
    told = settings(listen="10.0.0.1:1")
    rows = origins(overridden(registration(upstreams=(DB, CACHE)), told), told)
    assert {name: (value, str(origin)) for name, (value, origin) in rows.items()} == {
        "listen": ("10.0.0.1:1", "flag -listen"),
        "service_addr": ("127.0.0.1:8080", f"definition {PROXY}"),
        "upstream": ("db on 127.0.0.1:9191, cache on 127.0.0.1:9192", f"definition {PROXY}"),
    }
    assert origins(registration(public_bind=None), settings())["listen"][0] == ""


def test_our_own_definition() -> None:
    effective = registration(public_bind=TcpAddress("10.0.0.1", 21000))
    assert own_definition(effective) == {
        "Kind": "connect-proxy",
        "ID": PROXY,
        "Name": "web-proxy",
        "Address": "10.0.0.1",
        "Port": 21000,
        "Proxy": {
            "DestinationServiceName": "web",
            "DestinationServiceID": "web",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 8080,
        },
        "Check": {"CheckID": check_id(effective), "Name": "sidecar", "TTL": "30s"},
    }


def test_our_own_definition_offers_tunnels_where_we_take_them() -> None:
    effective = registration(public_bind=TcpAddress("10.0.0.1", 21000))
    definition = own_definition(effective, tunnels=True)
    assert isinstance(definition["Proxy"], dict)
    assert definition["Proxy"]["Config"] == {"connect_sidecar_tunnel": True}


def test_an_app_on_a_socket_and_a_listener_on_every_address() -> None:
    effective = registration(public_bind=TcpAddress("0.0.0.0", 1), local_app=UnixAddress("/run/app"))
    definition = own_definition(effective)
    assert definition["Address"] == "", "the node's own address is answered"
    assert isinstance(definition["Proxy"], dict)
    assert definition["Proxy"]["LocalServiceSocketPath"] == "/run/app"
