"""The headline names problems first, and one cause once."""

from __future__ import annotations

import pytest

from agent.base.phase import Phase
from agent.overview.headline import Facts, Health, headline, health, rough

SERVING = Phase.SERVING


@pytest.mark.parametrize(
    ("facts", "line", "state"),
    [
        (Facts(phase=Phase.STARTING, missing=("a", "b")), "starting · a · b", Health.FAILING),
        (Facts(phase=Phase.STARTING), "starting · almost ready", Health.FAILING),
        (
            Facts(phase=Phase.STARTING, missing=("a",), start_timeout=7.5),
            "starting · a · gives up after 7.5 s",
            Health.FAILING,
        ),
        (Facts(phase=Phase.DRAINING, missing=("draining",)), "draining", Health.FAILING),
        (Facts(phase=SERVING), "serving", Health.OK),
        (Facts(phase=SERVING, leaf_left=255700), "serving · leaf 2 d 23 h", Health.OK),
        (
            Facts(phase=SERVING, upstreams=3, empty=("db@dc2",), silent=28.4, leaf_left=255700),
            "serving · 1 of 3 upstreams has no instance (db@dc2) · Consul silent 28 s · leaf 2 d 23 h",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, upstreams=4, empty=("a", "b", "c", "d")),
            "serving · 4 of 4 upstreams have no instance (a, b, c and 1 more)",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, upstreams=2, unknown=("a",)),
            "serving · 1 of 2 upstreams has no answer yet (a)",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, upstreams=2, unknown=("a",), silent=90),
            "serving · Consul silent 1 min",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, refused=("leaf", "roots")),
            "serving · Consul refuses leaf, roots",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, upstreams=2, failing=("calls to a fail: denied_by_peer",), leaf_left=90),
            "serving · calls to a fail: denied_by_peer · leaf 1 min",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, upstreams=1, empty=("a",), failing=("calls to a fail: no_endpoints: none",)),
            "serving · 1 of 1 upstreams has no instance (a)",
            Health.DEGRADED,
        ),
        (
            Facts(phase=SERVING, missing=("credentials: expired",), silent=13),
            "not ready · Consul silent 13 s · credentials: expired",
            Health.FAILING,
        ),
        (
            Facts(phase=SERVING, missing=("credentials: expired",), failing=("calls to a fail: x",)),
            "not ready · credentials: expired",
            Health.FAILING,
        ),
        (
            Facts(phase=SERVING, missing=("credentials: expired",), complaints=("AUDIT MODE",), leaf_left=-5),
            "not ready · credentials: expired · AUDIT MODE",
            Health.FAILING,
        ),
    ],
)
def test_the_line_and_the_health(facts: Facts, line: str, state: Health) -> None:
    assert headline(facts) == line
    assert health(facts) is state


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (259199, "2 d 23 h"),
    ],
)
def test_a_duration_is_rounded_down_to_two_units(seconds: float, said: str) -> None:
    assert rough(seconds) == said
