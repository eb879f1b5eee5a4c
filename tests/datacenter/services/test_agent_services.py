"""Services of the agent beyond the recordings: re-registration, rights, removal, health."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest

from datacenter.http.filter import service_document
from datacenter.state.store import Document
from tests.datacenter.registrations import SERVICE, web_registration
from tests.datacenter.world import DB, MANAGEMENT, WEB, WEB_ONLY, Site, World, settings, world_a

REGISTER = f"{SERVICE}/register"
CHECKS = "/v1/agent/checks"


def site(**changes: Any) -> Site:
    return World().add(settings("dc1", **changes))


async def test_a_registration_twice_is_one() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, web_registration())
    hash_before = (await dc1.ok("GET", f"{SERVICE}/web1-sidecar-proxy"))["ContentHash"]
    index = dc1.dc.store.index
    await dc1.ok("PUT", REGISTER, web_registration())
    assert (await dc1.ok("GET", f"{SERVICE}/web1-sidecar-proxy"))["ContentHash"] == hash_before
    assert dc1.dc.store.index == index


async def test_a_sidecar_s_question_for_its_registration_tests_no_other_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dc1, tested = site(), Counter[str]()
    for number in range(20):
        await dc1.ok("PUT", REGISTER, {"Name": f"web{number}", "Connect": {"SidecarService": {}}})

    def counted(service: Document) -> Document:
        tested[service["ID"]] += 1
        return service_document(service)

    monkeypatch.setattr("datacenter.services.agent_services.service_document", counted)
    for asked, found in (("web7", ["web7-sidecar-proxy"]), ("WEB7", []), ("gone", []), ("", [])):
        text = f'Kind == "connect-proxy" and Proxy.DestinationServiceID == "{asked}"'
        assert list(await dc1.ok("GET", f"/v1/agent/services?filter={quote(text)}")) == found
    assert tested.pop("web7-sidecar-proxy") == 2  # and with "", which may stand for no ID at all
    assert set(tested.values()) == {1}
    await dc1.ok("PUT", f"{SERVICE}/deregister/web7")
    text = 'Kind == "connect-proxy" and Proxy.DestinationServiceID == "web7"'
    assert await dc1.ok("GET", f"/v1/agent/services?filter={quote(text)}") == {}


async def test_a_sidecar_keeps_its_port() -> None:
    dc1 = site()
    for name in ("a", "b"):
        await dc1.ok("PUT", REGISTER, {"Name": name, "Connect": {"SidecarService": {}}})
    await dc1.ok("PUT", f"{SERVICE}/deregister/a")
    await dc1.ok("PUT", REGISTER, {"Name": "b", "Tags": ["x"], "Connect": {"SidecarService": {}}})
    services = await dc1.ok("GET", "/v1/agent/services")
    assert (services["b-sidecar-proxy"]["Port"], services["b-sidecar-proxy"]["Tags"]) == (21001, ["x"])


@pytest.mark.parametrize("config", ["x", [1], 7, True])
@pytest.mark.parametrize("place", ["proxy", "upstream", "sidecar of a sidecar"])
async def test_a_config_that_is_no_object_is_refused_and_the_lists_are_answered(
    config: object, place: str
) -> None:
    dc1 = site()
    upstream = {"DestinationName": "db", "LocalBindPort": 1, "Config": config}
    sidecar = {
        "proxy": {"Proxy": {"Config": config}},
        "upstream": {"Proxy": {"Upstreams": [upstream]}},
        "sidecar of a sidecar": {"Connect": {"SidecarService": config}},
    }[place]
    refused = await dc1.call("PUT", REGISTER, {"Name": "web", "Connect": {"SidecarService": sidecar}})
    assert refused.status == 400
    assert b"cannot unmarshal" in refused.body
    assert await dc1.ok("GET", "/v1/agent/services") == {}


@pytest.mark.parametrize("port", [0, -1])
async def test_a_sidecar_s_port_below_1_is_assigned(port: int) -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web", "Connect": {"SidecarService": {"Port": port}}})
    assert (await dc1.ok("GET", f"{SERVICE}/web-sidecar-proxy"))["Port"] == 21000


async def test_a_sidecar_goes_with_its_parent() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web", "Connect": {"SidecarService": {}}})
    await dc1.ok("PUT", f"{SERVICE}/deregister/web")
    assert await dc1.ok("GET", "/v1/agent/services") == {}
    assert await dc1.ok("GET", CHECKS) == {}


async def test_a_sidecar_goes_when_its_parent_no_longer_asks_for_it() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web", "Connect": {"SidecarService": {}}})
    await dc1.ok("PUT", REGISTER, {"Name": "web"})
    assert list(await dc1.ok("GET", "/v1/agent/services")) == ["web"]


async def test_a_proxy_of_its_own_stays() -> None:
    """Only what a parent registered goes with it, whatever its name."""
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web"})
    proxy = {
        "Kind": "connect-proxy",
        "Name": "web-sidecar-proxy",
        "Port": 1,
        "Proxy": {"DestinationServiceName": "web"},
    }
    await dc1.ok("PUT", REGISTER, proxy)
    await dc1.ok("PUT", f"{SERVICE}/deregister/web")
    assert list(await dc1.ok("GET", "/v1/agent/services")) == ["web-sidecar-proxy"]


async def test_a_native_service() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web", "Connect": {"Native": True}})
    assert (await dc1.ok("GET", f"{SERVICE}/web"))["Connect"] == {"Native": True}
    entries = await dc1.ok("GET", "/v1/health/connect/web")
    assert [entry["Service"]["Connect"] for entry in entries] == [{"Native": True}]


async def test_checks_of_a_registration_replace_or_join() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "one", "TTL": "1s"}})
    await dc1.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "two", "TTL": "1s"}})
    assert list(await dc1.ok("GET", CHECKS)) == ["one", "two"]
    again = {"Name": "web", "Check": {"CheckID": "three", "TTL": "1s"}}
    await dc1.ok("PUT", f"{REGISTER}?replace-existing-checks", again)
    assert list(await dc1.ok("GET", CHECKS)) == ["three"]


async def test_a_check_registered_again_keeps_its_state() -> None:
    dc1 = site()
    registration = {"Name": "web", "Check": {"CheckID": "c", "TTL": "1h"}}
    await dc1.ok("PUT", REGISTER, registration)
    assert (await dc1.ok("GET", CHECKS))["c"]["Status"] == "critical"
    await dc1.ok("PUT", "/v1/agent/check/pass/c?note=n")
    await dc1.ok("PUT", REGISTER, registration)
    check = (await dc1.ok("GET", CHECKS))["c"]
    assert (check["Status"], check["Output"]) == ("passing", "n")


async def test_a_failed_registration_leaves_nothing() -> None:
    dc1 = site()
    mistaken = {"Name": "web", "Connect": {"SidecarService": {"Check": {"Name": "x"}}}}
    assert (await dc1.call("PUT", REGISTER, mistaken)).status == 500
    assert await dc1.ok("GET", "/v1/agent/services") == {}


async def test_an_unknown_key_inside_a_sidecar() -> None:
    reply = await site().call("PUT", REGISTER, {"Name": "w", "Connect": {"SidecarService": {"Bogus": 1}}})
    assert (reply.status, reply.body) == (400, b'Request decode failed: json: unknown field "Bogus"')


async def test_rights_to_register() -> None:
    dc1 = world_a().dc1
    as_web = {"x-consul-token": WEB_ONLY}
    sidecar = await dc1.call("PUT", REGISTER, web_registration(), as_web)
    assert (sidecar.status, sidecar.body) == (
        403,
        b"Permission denied: Missing service:write on web-sidecar-proxy",
    )
    await dc1.ok("PUT", REGISTER, {"ID": "x", "Name": "db"}, token=DB)
    taken = await dc1.call("PUT", REGISTER, {"ID": "x", "Name": "web"}, as_web)
    assert (taken.status, taken.body) == (403, b"Permission denied: Missing service:write on db")


async def test_rights_to_deregister_and_maintain() -> None:
    dc1 = world_a().dc1
    await dc1.ok("PUT", REGISTER, {"Name": "db"}, token=DB)
    for target in (f"{SERVICE}/deregister/db", f"{SERVICE}/maintenance/db?enable=true"):
        assert (await dc1.call("PUT", target, None, {"x-consul-token": WEB})).status == 403
    await dc1.ok("PUT", f"{SERVICE}/deregister/db", token=DB)


async def test_the_server_is_not_the_agent_s() -> None:
    dc1 = site()
    assert (await dc1.call("GET", f"{SERVICE}/consul")).status == 404
    assert (await dc1.call("PUT", f"{SERVICE}/deregister/consul")).status == 200  # as of one it never had
    assert "consul" in await dc1.ok("GET", "/v1/catalog/services")


async def test_deregistering_what_is_not_there() -> None:
    """With ACLs Consul looks the service up to judge who may; without them it never notices."""
    path = f"{SERVICE}/deregister/nope"
    assert (await site().call("PUT", path)).body == b""
    refused = await world_a().dc1.call("PUT", path, None, {"x-consul-token": MANAGEMENT})
    assert (refused.status, refused.body) == (500, b'Unknown service "nope"')
    unnamed = await site().call("PUT", f"{SERVICE}/deregister/")
    assert (unnamed.status, unnamed.body) == (500, b"ServiceID missing")


@pytest.mark.parametrize(("word", "status"), [("nope", 400), ("1", 200), ("F", 200)])
async def test_maintenance_takes_a_boolean(word: str, status: int) -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web"})
    assert (await dc1.call("PUT", f"{SERVICE}/maintenance/web?enable={word}")).status == status


async def test_maintenance_has_a_reason() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "web"})
    await dc1.ok("PUT", f"{SERVICE}/maintenance/web?enable=true")
    check = (await dc1.ok("GET", CHECKS))["_service_maintenance:web"]
    assert (check["Status"], check["Type"]) == ("critical", "maintenance")
    assert "no reason was provided" in check["Notes"]
    await dc1.ok("PUT", f"{SERVICE}/maintenance/web?enable=false")
    for reason in ("drain", "another"):
        await dc1.ok("PUT", f"{SERVICE}/maintenance/web?enable=true&reason={reason}")
    assert (await dc1.ok("GET", CHECKS))["_service_maintenance:web"]["Notes"] == "drain"


HEALTH = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}


@pytest.mark.parametrize(("state", "status"), HEALTH.items())
async def test_health_of_a_service(state: str, status: int) -> None:
    dc1 = site()
    await dc1.ok(
        "PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "c", "TTL": "1h", "Status": "passing"}}
    )
    if state == "maintenance":
        await dc1.ok("PUT", f"{SERVICE}/maintenance/web?enable=true")
    else:
        await dc1.ok("PUT", "/v1/agent/check/update/c", {"Status": state})
    for target in ("id/web", "name/web"):
        reply = await dc1.call("GET", f"/v1/agent/health/service/{target}")
        assert (reply.status, reply.headers["X-Consul-Reason"]) == (status, state)


async def test_health_by_a_name_nobody_has() -> None:
    reply = await site().call("GET", "/v1/agent/health/service/name/web")
    assert (reply.status, reply.body) == (404, b"[]")


async def test_health_needs_to_be_readable() -> None:
    dc1 = world_a().dc1
    await dc1.ok("PUT", REGISTER, {"Name": "db"}, token=MANAGEMENT)
    for target in ("id/db", "name/db"):
        assert (await dc1.call("GET", f"/v1/agent/health/service/{target}")).status == 403
