"""Checks by themselves, beyond the recordings."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.services.check_definitions import set_check
from tests.datacenter.world import DB, MANAGEMENT, READ_ONLY, WEB, Site, World, settings, world_a

REGISTER = "/v1/agent/check/register"


def site() -> Site:
    return World().add(settings("dc1"))


async def test_a_check_of_the_node() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "disk", "TTL": "1h", "Notes": "n", "Status": "warning"})
    check = (await dc1.ok("GET", "/v1/agent/checks"))["disk"]
    assert (check["CheckID"], check["ServiceID"], check["Status"], check["Notes"]) == (
        "disk",
        "",
        "warning",
        "n",
    )
    node = await dc1.ok("GET", "/v1/health/node/dc1-node")
    assert [each["CheckID"] for each in node] == ["disk", "serfHealth"]


async def test_times_are_shown_where_they_were_given() -> None:
    dc1 = site()
    probe = {"Name": "tcp", "TCP": "127.0.0.1:1", "Interval": "10s", "Timeout": "1500ms"}
    await dc1.ok("PUT", REGISTER, probe)
    check = (await dc1.ok("GET", "/v1/agent/checks"))["tcp"]
    assert (check["Type"], check["Interval"], check["Timeout"]) == ("tcp", "10s", "1.5s")


REFUSED: dict[str, dict[str, Any]] = {
    "Missing check name": {"TTL": "1s"},
    "Bad check status": {"Name": "c", "TTL": "1s", "Status": "odd"},
    "Invalid check: TTL must be > 0 for TTL checks": {"Name": "c"},
}


@pytest.mark.parametrize(("text", "body"), REFUSED.items())
async def test_refused(text: str, body: dict[str, Any]) -> None:
    reply = await site().call("PUT", REGISTER, body)
    assert (reply.status, reply.body.decode()) == (400, text)


async def test_only_a_ttl_check_can_be_told() -> None:
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "tcp", "TCP": "127.0.0.1:1", "Interval": "10s"})
    reply = await dc1.call("PUT", "/v1/agent/check/pass/tcp")
    assert (reply.status, reply.body) == (500, b'CheckID "tcp" does not have associated TTL')


async def test_rights() -> None:
    dc1 = world_a().dc1
    await dc1.ok("PUT", "/v1/agent/service/register", {"Name": "db"}, token=DB)
    of_db = {"Name": "c", "ServiceID": "db", "TTL": "1h"}
    reply = await dc1.call("PUT", REGISTER, of_db, {"x-consul-token": WEB})
    assert (reply.status, reply.body) == (403, b"Permission denied: Missing service:write on db")
    of_node = {"Name": "n", "TTL": "1h"}
    assert (await dc1.call("PUT", REGISTER, of_node, {"x-consul-token": DB})).status == 403
    await dc1.ok("PUT", REGISTER, of_db, token=DB)
    await dc1.ok("PUT", REGISTER, of_node, token=MANAGEMENT)
    for target in ("pass/c", "pass/n", "deregister/c", "deregister/n"):
        assert (
            await dc1.call("PUT", f"/v1/agent/check/{target}", None, {"x-consul-token": WEB})
        ).status == 403
    await dc1.ok("PUT", "/v1/agent/check/pass/c", token=DB)
    await dc1.ok("PUT", "/v1/agent/check/pass/n", token=MANAGEMENT)


async def test_unreadable_checks_are_left_out() -> None:
    dc1 = world_a().dc1
    await dc1.ok("PUT", REGISTER, {"Name": "n", "TTL": "1h"}, token=MANAGEMENT)
    assert await dc1.ok("GET", "/v1/agent/checks") == {}
    assert list(await dc1.ok("GET", "/v1/agent/checks", token=READ_ONLY)) == ["n"]
    assert await dc1.ok("GET", "/v1/health/state/any") == []


async def test_a_bad_filter() -> None:
    reply = await site().call("GET", "/v1/agent/checks?filter=Nope==1")
    assert (reply.status, b"Selector" in reply.body) == (500, True)


async def test_a_check_of_a_service_that_went_away(autojump_clock: object) -> None:
    """A probe that is under way when its service is deregistered finds nobody to tell."""
    dc1 = site()
    await dc1.ok("PUT", REGISTER, {"Name": "tcp", "TCP": "127.0.0.1:1", "Interval": "10s"})
    await dc1.ok("PUT", "/v1/agent/check/deregister/tcp")
    set_check(dc1.dc, "tcp", "passing", "late")
    assert await dc1.ok("GET", "/v1/agent/checks") == {}


MAINTENANCE = "/v1/agent/maintenance"


async def test_a_node_in_maintenance_takes_all_its_services_with_it() -> None:
    dc1 = site()
    await dc1.ok("PUT", "/v1/agent/service/register", {"Name": "web"})
    await dc1.ok("PUT", f"{MAINTENANCE}?enable=true&reason=disk")
    await dc1.ok("PUT", f"{MAINTENANCE}?enable=true&reason=another")
    check = (await dc1.ok("GET", "/v1/agent/checks"))["_node_maintenance"]
    told = {key: check[key] for key in ("Name", "Status", "Notes", "ServiceID", "Type")}
    assert told == {
        "Name": "Node Maintenance Mode",
        "Status": "critical",
        "Notes": "disk",
        "ServiceID": "",
        "Type": "maintenance",
    }
    assert await dc1.ok("GET", "/v1/health/service/web?passing") == []
    health = await dc1.call("GET", "/v1/agent/health/service/name/web")
    assert (health.status, health.headers["X-Consul-Reason"]) == (503, "maintenance")
    await dc1.ok("PUT", f"{MAINTENANCE}?enable=false")
    assert len(await dc1.ok("GET", "/v1/health/service/web?passing")) == 1


async def test_a_node_s_maintenance_without_a_reason_has_one() -> None:
    dc1 = site()
    await dc1.ok("PUT", f"{MAINTENANCE}?enable=1")
    notes = (await dc1.ok("GET", "/v1/agent/checks"))["_node_maintenance"]["Notes"]
    assert notes.startswith("Maintenance mode is enabled for this node, but no reason was provided.")


async def test_a_node_s_maintenance_needs_the_node() -> None:
    dc1 = world_a().dc1
    for token, status in ((WEB, 403), (MANAGEMENT, 200)):
        assert (
            await dc1.call("PUT", f"{MAINTENANCE}?enable=true", None, {"x-consul-token": token})
        ).status == status


@pytest.mark.parametrize("query", ["", "?enable=zip"])
async def test_a_node_s_maintenance_takes_a_boolean(query: str) -> None:
    assert (await site().call("PUT", f"{MAINTENANCE}{query}")).status == 400
