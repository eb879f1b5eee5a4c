"""The same `sidecar run -sidecar-for` beside either kind of federation: what it is for, end to end.

Requests go from web's loopback through its sidecar and over mutual TLS to the sidecar of db. The federation
is one of its own, so that its only root rotation is the one seen here. `--log-cli-level=INFO` shows figures.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.contract.apps import Conversation, Traffic, ask
from tests.contract.chains import new_key, signer_id
from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.contract.federation import free_port, running
from tests.contract.mesh import Mesh, Sidecar, calling_only, running_mesh

figures = logging.getLogger("contract.figures")

DENIED = "intention_deny"
EXACT = "/v1/connect/intentions/exact"
CONFIGURATION = "/v1/connect/ca/configuration"


@pytest.fixture(scope="module", params=KINDS)
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A federation and a mesh of its own."""
    directory = tmp_path_factory.mktemp(f"mesh-{request.param}")
    with running(request.param, directory) as federation, running_mesh(federation, directory) as started:
        yield started


def eventually(true: Callable[[], bool], seconds: float) -> float:
    """Poll, for what another process does on its own, until it is true; how long that took."""
    started = monotonic()
    while not true():
        assert monotonic() < started + seconds, f"not within {seconds} s"
        sleep(0.1)
    return monotonic() - started


def answers(port: int, name: str) -> bool:
    """Whether it is this app that answers now."""
    return ask(port) == f"{name} hello"


def callers_ended(mesh: Mesh, sidecar: str, reason: str) -> int:
    """How many inbound connections of a sidecar have ended for that reason, by its own metrics."""
    return ended(mesh.sidecars[sidecar], "inbound", reason)


def ended(sidecar: Sidecar, direction: str, reason: str) -> int:
    """The same of either direction."""
    status, text = sidecar.ask("/metrics")
    assert status == 200
    sample = rf'^sidecar_connections_total\{{direction="{direction}",reason="{reason}"\}} ([0-9.]+)$'
    return sum(int(float(value)) for value in re.findall(sample, text, re.MULTILINE))


def test_an_upstream_reaches_the_other_datacenter_at_its_wan_address(mesh: Mesh) -> None:
    host, port = mesh.sidecars["db-dc2"].public
    with Conversation(mesh.upstreams["dc2"]) as conversation:
        assert conversation.ask("hello") == "dc2 hello"
        (live,) = json.loads(mesh.sidecars["web"].ask("/status")[1])["connections"]
    assert (live["address"], live["why"]) == (f"{host}:{port}", "wan_tag")
    assert live["peer"].endswith("/ns/default/dc/dc2/svc/db")


def test_an_upstream_reaches_its_own_datacenter(mesh: Mesh) -> None:
    assert ask(mesh.upstreams["dc1"]) == "dc1 hello"


def test_a_prepared_query_fails_over_and_comes_back(mesh: Mesh) -> None:
    dc1, port = mesh.federation.dc1, mesh.upstreams["query"]
    eventually(partial(answers, port, "dc1"), 30)  # a query is polled: it may have been asked too early
    with Conversation(port) as kept:
        assert kept.ask("before") == "dc1 before"
        for turn, datacenter in (("fail", "dc2"), ("pass", "dc1")):
            dc1.put(f"/v1/agent/check/{turn}/db-pulse")
            took = eventually(partial(answers, port, datacenter), 30)
            figures.info("query answered by %s after %.2f s", datacenter, took)
        assert kept.ask("after") == "dc1 after"  # health chooses for new connections; it ends none


def test_an_intention_denies_and_allows_again(mesh: Mesh) -> None:
    dc1, port = mesh.federation.dc1, mesh.upstreams["dc2"]
    app, count = mesh.apps["dc2"], partial(callers_ended, mesh, "db-dc2")
    cut, refused = count("intention_withdrawn"), count(DENIED)
    path = f"{EXACT}?source=web&destination=db"
    with Conversation(port) as live:
        assert live.ask("while allowed") == "dc2 while allowed"
        started = monotonic()
        assert dc1.put(path, {"Action": "deny"}).text == "true"
        assert live.ended()
        figures.info("live connection cut after %.2f s", monotonic() - started)
    eventually(lambda: count("intention_withdrawn") == cut + 1, 10)
    accepted = app.accepted
    for _ in range(3):
        assert ask(port) == ""
    assert app.accepted == accepted
    assert count("intention_withdrawn") == cut + 1
    eventually(lambda: count(DENIED) == refused + 3, 10)
    assert dc1.delete(path).text == "true"
    took = eventually(partial(answers, port, "dc2"), 10)
    figures.info("allowed again after %.2f s", took)


def test_our_own_list_keeps_us_from_calling_where_that_is_asked_for(mesh: Mesh, tmp_path: Path) -> None:
    dc1, port, path = mesh.federation.dc1, free_port(), f"{EXACT}?source=web&destination=db"
    with calling_only(dc1, "calling", port, tmp_path, "-judge-outbound") as web, Conversation(port) as live:
        assert live.ask("while allowed") == "dc2 while allowed"
        cut, refused = callers_ended(mesh, "db-dc2", "intention_withdrawn"), ended(web, "outbound", DENIED)
        dc1.put(path, {"Action": "deny"})
        assert live.ended()  # by whoever hears of it first
        eventually(lambda: "web => db (deny" in web.ask("/status")[1], 10)
        cut_here = partial(ended, web, "outbound", "intention_withdrawn")
        eventually(lambda: cut_here() + callers_ended(mesh, "db-dc2", "intention_withdrawn") > cut, 10)
        seen = callers_ended(mesh, "db-dc2", DENIED)
        for _ in range(3):
            assert ask(port) == ""
        eventually(lambda: ended(web, "outbound", DENIED) == refused + 3, 10)
        assert callers_ended(mesh, "db-dc2", DENIED) == seen  # nobody came
        dc1.delete(path)
        eventually(partial(answers, port, "dc2"), 10)


def test_an_exact_allow_wins_over_a_general_deny(mesh: Mesh) -> None:
    dc1, port = mesh.federation.dc1, mesh.upstreams["dc2"]
    exact, general = (f"{EXACT}?source={source}&destination=db" for source in ("web", "*"))
    dc1.put(exact, {"Action": "allow"})
    dc1.put(general, {"Action": "deny"})
    mesh.federation.dc2.until(
        "/v1/connect/intentions/match?by=destination&name=db", lambda found: len(found["db"] or []) == 2
    )
    assert ask(port) == "dc2 hello"
    dc1.delete(exact)
    eventually(lambda: ask(port) == "", 10)
    dc1.delete(general)
    for datacenter in ("dc1", "dc2"):
        eventually(partial(answers, mesh.upstreams[datacenter], datacenter), 10)


def test_a_narrowing_written_in_the_primary_holds_in_both_datacenters(mesh: Mesh) -> None:
    dc1 = mesh.federation.dc1
    near, far = mesh.upstreams["dc1"], mesh.upstreams["dc2"]

    def only(datacenters: str) -> None:
        sources = [{"Name": "web", "Action": "allow"}]
        meta = {"source-datacenters": datacenters}
        entry = {"Kind": "service-intentions", "Name": "db", "Sources": sources, "Meta": meta}
        assert dc1.put("/v1/config", entry).text == "true"

    with Conversation(near) as one, Conversation(far) as other:
        assert (one.ask("hello"), other.ask("hello")) == ("dc1 hello", "dc2 hello")
        only("dc2 dc3")
        assert one.ended()
        assert other.ended()
    assert (ask(near), ask(far)) == ("", "")
    narrowed = partial(callers_ended, mesh, reason="narrowed_by_datacenter")
    eventually(lambda: (narrowed("db-dc1"), narrowed("db-dc2")) == (2, 2), 10)  # one cut, one refused
    only("dc1")
    for port, datacenter in ((near, "dc1"), (far, "dc2")):
        eventually(partial(answers, port, datacenter), 10)
    dc1.delete("/v1/config/service-intentions/db")


def rotate(dc1: Api) -> None:
    """Give the primary a new root key."""
    configuration = dc1.get(CONFIGURATION).json
    configuration["Config"] |= {"PrivateKey": new_key(), "RootCert": ""}
    answer = dc1.put(CONFIGURATION, configuration)
    assert (answer.status, answer.text) == (200, "")


def test_a_rotation_of_the_root_fails_no_request(mesh: Mesh) -> None:
    old = {name: sidecar.leaf() for name, sidecar in mesh.sidecars.items()}
    waiting = set(old)
    with (
        Conversation(mesh.upstreams["dc2"]) as kept,
        Traffic(mesh.upstreams["dc2"]) as far,
        Traffic(mesh.upstreams["dc1"]) as near,
    ):
        assert kept.ask("before") == "dc2 before"
        rotate(mesh.federation.dc1)

        def all_have_a_new_leaf() -> bool:
            for name in list(waiting):
                if mesh.sidecars[name].leaf() != old[name]:
                    waiting.discard(name)
            return not waiting

        took = eventually(all_have_a_new_leaf, mesh.federation.jitter + 15)
        assert kept.ask("after") == "dc2 after"
        assert ask(mesh.upstreams["query"]) == "dc1 hello"
    for name, sidecar in mesh.sidecars.items():
        new = sidecar.leaf()
        figures.info("serial of %s: %x -> %x", name, old[name].serial_number, new.serial_number)
        assert signer_id(new) != signer_id(old[name])  # by key: the issuer may have no name
    figures.info("every leaf new after %.2f s", took)
    figures.info("answers meanwhile: %s, %s", dict(far.answers), dict(near.answers))
    assert set(far.answers) == {"dc2 hello"}
    assert set(near.answers) == {"dc1 hello"}


def test_nothing_went_wrong_on_the_way(mesh: Mesh) -> None:
    for sidecar in mesh.sidecars.values():
        sidecar.process.must_live()
        log = sidecar.process.log.read_text()
        assert "Traceback" not in log
        assert "PRIVATE KEY" not in log
