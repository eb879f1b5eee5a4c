"""What the long run makes of what it has seen: lost patience is no failure, and nothing is held by it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.bench.rotation import FAILED, HELD, UNDECIDED, Found, report
from tests.rotation.load import Load
from tests.rotation.rotations import Rotated


def seen(**counted: list[str]) -> Load:
    return Load(made=200, answered=198, seconds=1.0, latencies=[0.01] * 200, **counted)  # type: ignore[arg-type]


def whole(load: Load, **more: object) -> Found:
    return Found(load=load, **{"wanted": 200.0, "retired": 4.0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (whole(seen()), HELD),
        (whole(seen(), endings=Counter({("web", "attempts", "stalled"): 3})), HELD),
        (whole(seen(late=["1: no answer"])), UNDECIDED),
        (whole(seen(), wanted=300.0), UNDECIDED),
        (whole(seen(), lasting=1), UNDECIDED),
        (whole(seen(), rotations=1), UNDECIDED),
        (whole(seen(), retired=None), UNDECIDED),
        (whole(seen(failed=["1: closed without an answer"])), FAILED),
        (whole(seen(broken=["1: it ended"], late=["1: no answer"])), FAILED),
        (whole(seen(), endings=Counter({("web", "inbound", "untrusted_chain"): 1})), FAILED),
        (whole(seen(), endings=Counter({("db", "attempts", "refused_by_peer"): 1})), FAILED),
        (whole(seen(), broke_off="the old roots are retired: not within 5 s"), FAILED),
    ],
)
def test_the_verdict(found: Found, verdict: str) -> None:
    assert found.verdict == verdict
    lines = report(found).splitlines()
    assert lines[-1] == verdict
    assert any(line.startswith("in doubt: ") for line in lines) == (
        verdict == UNDECIDED or bool(found.doubts)
    )


def test_the_table_shows_everything() -> None:
    one = Rotated(to="ec 256", call=0.1, secondary=0.2, sidecars={"db": 1.0, "web": 2.0}, root_id="a")
    found = Found(
        load=seen(late=["1: no answer"]),
        wanted=400,
        done=[one],
        endings=Counter({("web", "attempts", "stalled"): 3, ("web", "inbound", "clean"): 90}),
        retired=4.0,
    )
    lines = report(found).splitlines()
    assert "asked for 400/s: the machine is busy" in lines[0]
    assert lines[1].split() == ["answered", "198,", "failed", "0,", "client", "time-outs", "1"]
    assert "  web attempts stalled: 3" in lines
    assert not any("clean" in line for line in lines)
    assert "in doubt: 1 clients lost patience" in lines
    assert "1 rotations; the slowest sidecar took 2.00 s" in lines
    assert "old roots retired everywhere 4 s after the last rotation" in lines
