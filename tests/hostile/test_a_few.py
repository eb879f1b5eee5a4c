"""A small part of the hostile set, at backends that are always there; `make hostile` has all of it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent.http1.head import FieldNames
from tests.hostile.attempt import Attempt, forbidden, kinds
from tests.hostile.backends import BACKENDS, Backend, serving
from tests.hostile.run import decided, directly, through
from tests.hostile.spellings import attempts

FEW = 20  # of each kind
ALWAYS = [backend for backend in BACKENDS if backend.name in {"http.server", "wsgiref"}]
LOCKED = Backend(
    name="gunicorn",
    programs=(),
    command=lambda _, port: [
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"),
        "tests.hostile.apps.wsgi:application",
    ],
    version=(),
)
SPELLINGS = attempts()

pytestmark = pytest.mark.skipif(find_spec("gunicorn") is None, reason="gunicorn is not installed")


def few(names: FieldNames) -> list[Attempt]:
    """Some of each kind that the sidecar passes on."""
    chosen: list[Attempt] = []
    for kind in kinds(SPELLINGS):
        of_kind = [one for one in SPELLINGS if one.kind == kind]
        thinned = of_kind[:: max(1, len(of_kind) // 800)]
        passing = [one for one in thinned if decided(one, names) == "passed"]
        chosen += passing[:: max(1, len(passing) // FEW)]
    return chosen


@pytest.mark.parametrize(
    ("backend", "underscores"),
    [*((backend, False) for backend in (*ALWAYS, LOCKED)), (LOCKED, True)],
    ids=str,
)
async def test_no_app_is_told_of_what_the_rules_forbid(
    backend: Backend, underscores: bool, tmp_path: Path
) -> None:
    chosen = few(FieldNames.UNDERSCORES if underscores else FieldNames.PLAIN)
    with serving(backend, tmp_path) as running:
        result = await through(running, chosen, underscores=underscores)
    assert result.breaches == []
    assert result.alive
    assert result.reached > len(chosen) / 2


@pytest.mark.parametrize("backend", [*ALWAYS, LOCKED], ids=lambda backend: backend.name)
def test_without_the_sidecar_each_is(backend: Backend, tmp_path: Path) -> None:
    with serving(backend, tmp_path) as running:
        result = directly(running, SPELLINGS[:: len(SPELLINGS) // 100])
    assert any(forbidden(seen) for _, seen in result.breaches)


def test_gunicorn_believes_a_callers_script_name_unless_the_sidecar_refuses_it(tmp_path: Path) -> None:
    (attempt,) = [
        one for one in SPELLINGS if one.raw.startswith(b"GET /public") and b"\nSCRIPT_NAME:" in one.raw
    ]
    with serving(LOCKED, tmp_path) as running:
        assert [seen.path for _, seen in directly(running, [attempt]).breaches] == ["/admin/x"]
    assert decided(attempt) == "field_name"
    assert decided(attempt, FieldNames.UNDERSCORES) == "disguised_header"
