"""The dashboard and the alerts before a real Prometheus, which scrapes a mesh under load.

Every expression gives what it should while all is well and no alert fires; a fault made by hand lets its
alerts fire, at the sidecars that have a part in it and nowhere else, and they end with the fault.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.contract.apps import Traffic
from tests.diagnosis import prometheus
from tests.diagnosis.acts import app_of_db_down, register_db_again, start_web, stop_consul, stop_web
from tests.diagnosis.fault import Act
from tests.diagnosis.mesh import Mesh, running, until
from tests.diagnosis.prometheus import Prometheus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Alerts = dict[str, set[str]]

# Panels that are empty while all is well: they show what is not. A mesh without tunnels has none to show.
OF_FAULTS = {
    "Endings that are not in order, by reason",
    "Instances ejected, upstreams unserved",
    "Leaf and roots that were not taken, and unforeseen exceptions",
    "Tunnels",
    "Turned away by a limit",
    "Watches that fail, failures in a row",
}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A mesh whose app calls, and the Prometheus that scrapes it."""

    mesh: Mesh
    prometheus: Prometheus

    def firing(self) -> Alerts:
        """Return the alerts that fire, with the names of the sidecars."""
        names = {f"127.0.0.1:{one.admin}": name for name, one in self.mesh.sidecars.items()}
        return {
            alert: {names[instance] for instance in instances}
            for alert, instances in self.prometheus.firing().items()
        }

    def fires(self, expected: Alerts) -> None:
        """Wait until exactly these fire, and stay."""
        until(lambda: self.firing() == expected, lambda: f"{self.firing()}, not {expected}")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus (Debian's) is not here")
    with ExitStack() as stack:
        mesh = stack.enter_context(running(tmp_path_factory.mktemp("mesh")))
        for port in mesh.ports.values():
            stack.enter_context(Traffic(port))
        admins = {name: sidecar.admin for name, sidecar in mesh.sidecars.items()}
        started = stack.enter_context(prometheus.running(tmp_path_factory.mktemp("prometheus"), admins))
        yield Watched(mesh=mesh, prometheus=started)


def empty(watched: Watched) -> set[str]:
    """The panels of which an expression has no series."""
    return {title for title, expression in prometheus.panels() if not watched.prometheus.query(expression)}


def test_while_all_is_well_every_panel_has_its_series_and_no_alert_fires(watched: Watched) -> None:
    watched.fires({})
    until(lambda: empty(watched) == OF_FAULTS, lambda: empty(watched))
    assert watched.firing() == {}
    assert watched.prometheus.scraped() == []
    assert watched.prometheus.warnings == ""


def test_the_dashboard_finds_the_sidecars(watched: Watched) -> None:
    for metric, label in prometheus.variables():
        found = watched.prometheus.get(f"label/{label}/values", **{"match[]": metric})
        assert set(found) == {f"127.0.0.1:{one.admin}" for one in watched.mesh.sidecars.values()}


def test_prometheus_takes_every_rule(watched: Watched) -> None:
    (group,) = watched.prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert len(group["rules"]) == prometheus.RULES.count("- alert: ")


def deny(mesh: Mesh) -> None:
    mesh.allow("deny")


def allow(mesh: Mesh) -> None:
    mesh.allow()


def start_consul(mesh: Mesh) -> None:
    mesh.start_consul()


@pytest.mark.parametrize(
    ("make", "cure", "expected"),
    [
        pytest.param(deny, allow, {"SidecarCallsDenied": {"web", "db", "dc2"}}, id="a-deny"),
        pytest.param(
            app_of_db_down,
            register_db_again,
            {"SidecarAppDown": {"db"}, "SidecarCallsFail": {"web"}, "SidecarInstanceEjected": {"web"}},
            id="an-app-that-is-down",
        ),
        pytest.param(
            stop_consul, start_consul, {"SidecarConsulSilent": {"web", "db"}}, id="a-consul-that-is-away"
        ),
        pytest.param(stop_web, start_web, {"SidecarDown": {"web"}}, id="a-sidecar-that-is-away"),
    ],
)
def test_a_fault_lets_its_alerts_fire_and_no_others(
    watched: Watched, make: Act, cure: Act, expected: Alerts
) -> None:
    watched.fires({})
    try:
        make(watched.mesh)
        watched.fires(expected)
    finally:
        cure(watched.mesh)
    watched.fires({})
