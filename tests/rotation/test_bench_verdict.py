"""What the long run makes of what it has seen: lost patience is shown, and is no failure."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.bench.rotation import Found, report
from tests.rotation.load import Load
from tests.rotation.rotations import Rotated


def seen(**counted: list[str]) -> Load:
    return Load(made=200, answered=198, seconds=1.0, latencies=[0.01] * 200, **counted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "held"),
    [
        (Found(load=seen()), True),
        (Found(load=seen(late=["1: no answer"])), True),
        (Found(load=seen(), endings=Counter({("web", "attempts", "stalled"): 3})), True),
        (Found(load=seen(failed=["1: closed without an answer"])), False),
        (Found(load=seen(broken=["1: it ended"])), False),
        (Found(load=seen(), endings=Counter({("web", "inbound", "untrusted_chain"): 1})), False),
        (Found(load=seen(), endings=Counter({("db", "attempts", "refused_by_peer"): 1})), False),
        (Found(load=seen(), broke_off="the old roots are retired: not within 5 s"), False),
    ],
)
def test_the_verdict(found: Found, held: bool) -> None:
    assert found.held is held
    assert report(found).splitlines()[-1] == ("held" if held else "FAILED")


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
    assert "1 rotations; the slowest sidecar took 2.00 s" in lines
    assert "old roots retired everywhere 4 s after the last rotation" in lines
