"""One fault: how it is made, what names it, and how its remedy is applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.diagnosis.mesh import Mesh

Act = Callable[[Mesh], None]
Cure = Callable[[Mesh, str], None]  # gets the remedy that doctor names


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row.

    `doctor`: the head of doctor, `at` the sidecar that is asked. `ping`: the upstream and the station.
    `page`: what the headline or the complaints name, empty where no agent runs. `alert`: its name.
    `shown_at`: the sidecar whose page and alert tell, if that is another. `calls`: the upstreams that web's
    app calls meanwhile.
    """

    name: str
    make: Act
    doctor: str
    remedy: str
    cure: Cure
    page: str
    alert: str
    ping: tuple[str, str] | None = None
    at: str = "web"
    shown_at: str = ""
    calls: tuple[str, ...] = ()


def by(act: Act) -> Cure:
    """A cure that an operator makes by hand."""
    return lambda mesh, _remedy: act(mesh)
