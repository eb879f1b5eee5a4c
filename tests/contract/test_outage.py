"""The primary dies and comes back: the secondary goes on signing and judging, and nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.chains import certificates, roots_of, trusted
from tests.contract.conftest import KINDS
from tests.contract.federation import Federation, free_port, running, wait_until_ready
from tests.contract.services import proxy, sidecar, ttl
from tests.contract.versions import lasting

ROOTS, LEAF = "/v1/agent/connect/ca/roots", "/v1/agent/connect/ca/leaf"
EXACT = "/v1/connect/intentions/exact"
MATCH = "/v1/connect/intentions/match?by=destination&name=kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A federation whose primary has been killed, and what there was before."""

    federation: Federation
    roots: Any
    leaf: Any
    registration: Any
    query_id: str


def doubted() -> dict[str, Any]:
    """A service whose checks pass by their registration: one is probed, where nothing is; two have a TTL."""
    closed = {"TCP": f"127.0.0.1:{free_port()}", "Interval": "1h"}
    checks = [("probed", closed), ("never-told", {"TTL": "1h"}), ("told", {"TTL": "1h"})]
    listed = [{"CheckID": name, "Status": "passing", **check} for name, check in checks]
    return {"Name": "doubted", "Checks": listed}


@pytest.fixture(scope="module", params=KINDS)
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    """Fill a federation of its own, then kill dc1."""
    with running(request.param, tmp_path_factory.mktemp(f"cut-{request.param}")) as federation:
        dc1, dc2 = federation
        for api in federation:
            api.put("/v1/agent/service/register", proxy("kept", Check=ttl("kept-ttl")))
            api.until("/v1/health/connect/kept?passing", len)
        dc1.put("/v1/agent/service/register", sidecar("remembered"))
        assert dc1.put("/v1/agent/service/register", doubted()).status == 200
        assert dc1.put("/v1/agent/check/pass/told").status == 200
        dc1.put(f"{EXACT}?source=web&destination=kept", {"Action": "deny"})
        dc2.until(MATCH, lambda found: found["kept"])
        query = {"Name": "kept", "Service": {"Service": "kept", "Connect": True}}
        before = Cut(
            federation=federation,
            roots=dc2.get(ROOTS).json,
            leaf=dc2.get(f"{LEAF}/kept").json,
            registration=dc1.get("/v1/agent/service/remembered-sidecar-proxy").json,
            query_id=dc1.post("/v1/query", query).json["ID"],
        )
        federation.processes[0].kill()
        yield before


def test_the_secondary_serves_its_trust_and_signs_new_leaves(cut: Cut, tmp_path: Any) -> None:
    dc2 = cut.federation.dc2
    assert dc2.get(ROOTS).json == cut.roots
    assert dc2.get(f"{LEAF}/kept").json == cut.leaf
    fresh = dc2.get(f"{LEAF}/never-seen").json
    assert fresh["ServiceURI"].endswith("/dc/dc2/svc/never-seen")
    assert len(certificates(fresh["CertPEM"])) == 2
    assert trusted(fresh["CertPEM"], roots_of(cut.roots), tmp_path)


def test_the_secondary_judges_by_its_replica(cut: Cut) -> None:
    dc2 = cut.federation.dc2
    assert dc2.get(MATCH).json["kept"][0]["Action"] == "deny"
    check = "/v1/connect/intentions/check?source=web&destination=kept"
    assert dc2.get(check).json == {"Allowed": False}
    assert dc2.get(f"{MATCH}&index=1000000&wait=1s").seconds >= 0.9  # and can still be watched


def test_the_secondary_keeps_its_own_catalog(cut: Cut) -> None:
    dc2 = cut.federation.dc2
    assert len(dc2.get("/v1/health/connect/kept?passing").json) == 1
    assert sorted(dc2.get("/v1/catalog/datacenters").json) == ["dc1", "dc2"]
    assert dc2.put("/v1/agent/service/register", proxy("late")).status == 200
    dc2.until("/v1/health/connect/late", len)


@pytest.mark.parametrize("path", ["/v1/health/connect/kept?dc=dc1", "/v1/catalog/services?dc=dc1"])
def test_what_only_the_primary_knows_is_an_error_at_once(cut: Cut, path: str) -> None:
    answer = cut.federation.dc2.get(path)
    assert answer.status == 500
    assert answer.text
    assert answer.seconds < 15


def test_an_intention_cannot_be_written(cut: Cut) -> None:
    answer = cut.federation.dc2.put(f"{EXACT}?source=web&destination=kept", {"Action": "allow"})
    assert answer.status == 500
    assert answer.text
    assert cut.federation.dc2.get(MATCH).json["kept"][0]["Action"] == "deny"


@pytest.mark.last_act
def test_the_primary_comes_back_with_everything_it_had(cut: Cut) -> None:
    dc1, dc2 = cut.federation
    cut.federation.processes[0].restart()
    wait_until_ready(cut.federation)
    assert dc1.get(ROOTS).json["ActiveRootID"] == cut.roots["ActiveRootID"]
    checks = dc1.get("/v1/agent/checks").json
    status = {name: checks[name]["Status"] for name in ("probed", "never-told", "told")}
    assert status == {"probed": "critical", "never-told": "critical", "told": "passing"}
    dc1.until("/v1/health/connect/kept", len)
    registration = dc1.get("/v1/agent/service/remembered-sidecar-proxy").json
    assert lasting(dc1, registration) == lasting(dc1, cut.registration)
    assert dc1.get(MATCH).json["kept"][0]["Action"] == "deny"
    assert dc1.get(f"/v1/query/{cut.query_id}").json[0]["Name"] == "kept"
    assert dc2.put(f"{EXACT}?source=web&destination=kept", {"Action": "allow"}).text == "true"
    dc2.until(MATCH, lambda found: found["kept"][0]["Action"] == "allow")
