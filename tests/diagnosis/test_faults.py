"""Each fault of the table, in a mesh of processes: what names it, and that the remedy cures it.

Doctor's first cause, the red station of ping, the head of the page and the alert each name the fault. Then
the remedy is applied, doctor has no complaint at any sidecar, and no alert fires.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.diagnosis import seen
from tests.diagnosis.fault import Fault
from tests.diagnosis.mesh import Mesh, Sidecar, running, until
from tests.diagnosis.table import FAULTS, PAGE, page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Keeper:
    """One mesh for all faults, and a new one after a fault that was not cured."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._stack = ExitStack()
        self._mesh: Mesh | None = None

    def take(self) -> Mesh:
        """A healthy mesh; it is not used again until it is given back."""
        mesh, self._mesh = self._mesh, None
        if mesh is None:
            self._stack.close()
            mesh = self._stack.enter_context(running(self._factory.mktemp("mesh")))
        return mesh

    def give_back(self, mesh: Mesh) -> None:
        """Keep a mesh that was seen healthy."""
        self._mesh = mesh

    def close(self) -> None:
        """End it."""
        self._stack.close()


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    kept = Keeper(tmp_path_factory)
    yield kept
    kept.close()


def test_there_are_faults_enough_and_the_page_is_their_table() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25
    assert PAGE.read_text() == page(), "make reference"


def test_a_healthy_mesh_has_neither_warning_nor_failure_nor_alert(keeper: Keeper, tmp_path: Path) -> None:
    mesh = keeper.take()
    for sidecar in mesh.sidecars.values():
        assert seen.first_not_ok(sidecar) == ("", "")
        assert seen.problems(sidecar).startswith("serving · leaf 2 d 23 h")
        assert not firing_now(sidecar, tmp_path)
    for upstream in ("db", "db@dc2", "prepared_query:db-near"):
        assert seen.first_red(mesh.web, upstream) == ("", "")
    keeper.give_back(mesh)


def firing_now(sidecar: Sidecar, directory: Path) -> str:
    """The alerts that fire if all stays as it is; a sum of what happened once is over by then."""
    return firing(sidecar.get("/metrics")[1], sidecar, "", directory)


def firing(before: str, sidecar: Sidecar, alert: str, directory: Path) -> str:
    """Why an alert does not fire; without promtool no alert is looked at."""
    if shutil.which("promtool") is None:
        return ""
    return seen.firing(before, sidecar.get("/metrics")[1], alert, directory)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name).replace(" ", "-"))
def test_fault(fault: Fault, keeper: Keeper, tmp_path: Path) -> None:
    mesh = keeper.take()
    for sidecar in mesh.sidecars.values():
        sidecar.before = sidecar.get("/metrics")[1]
    fault.make(mesh)
    asked, shown = mesh.sidecars[fault.at], mesh.sidecars[fault.shown_at or fault.at]
    eventually(mesh, fault, lambda: named_by_doctor(fault, asked))
    if fault.ping is not None:
        upstream, station = fault.ping
        eventually(mesh, fault, lambda: differs(seen.first_red(mesh.web, upstream)[0], station))
    eventually(mesh, fault, lambda: lacks(seen.problems(shown), fault.page))
    eventually(mesh, fault, lambda: firing(shown.before, shown, fault.alert, tmp_path))
    fault.cure(mesh, seen.first_not_ok(asked)[1])
    for sidecar in mesh.sidecars.values():
        eventually(mesh, fault, partial(called, mesh, sidecar))
        eventually(mesh, fault, partial(firing_now, sidecar, tmp_path))
    keeper.give_back(mesh)


def eventually(mesh: Mesh, fault: Fault, difference: Callable[[], str]) -> None:
    """Call as the app does and look, until there is no difference."""
    last = ""

    def none() -> bool:
        nonlocal last
        for name in fault.calls:
            mesh.call(name)
        last = difference()
        return not last

    until(none, lambda: last)


def named_by_doctor(fault: Fault, sidecar: Sidecar) -> str:
    text, remedy = seen.first_not_ok(sidecar)
    sound = text.startswith(fault.doctor) and fault.remedy in remedy and remedy
    return "" if sound else f"{text}; {remedy}"


def called(mesh: Mesh, sidecar: Sidecar) -> str:
    """Doctor's head, after each upstream was called: a call that fails is told of until one is served."""
    for name in mesh.ports:
        mesh.call(name)
    return " ".join(seen.first_not_ok(sidecar)).strip()


def differs(found: str, expected: str) -> str:
    return "" if found.strip() == expected else found or f"nothing, not {expected}"


def lacks(text: str, part: str) -> str:
    """An empty part: no agent runs, and there is no page."""
    there = part in text if part else not text
    return "" if there else text or "no page"
