"""The alerts and the dashboard ask for metrics that exist, and each alert has its test and its runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.reference import metrics

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "monitoring"
RULES = (FOLDER / "alerts.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
NAME = re.compile(r"\b(?:sidecar|process)_[a-z_]+")
PARTS = re.compile(r"_(?:bucket|sum|count)$")


def unknown(text: str) -> set[str]:
    """The metrics in a text that no agent has."""
    known = {metric.name for metric in metrics()}
    return {name for name in NAME.findall(text) if name not in known and PARTS.sub("", name) not in known}


def test_alerts_ask_for_metrics_that_exist() -> None:
    assert len(ALERTS) == len(set(ALERTS)) >= 15
    assert unknown(RULES) == set()


def test_each_alert_has_a_test_and_a_runbook_and_the_next_command() -> None:
    tests = (FOLDER / "alerts_test.yml").read_text()
    headings = set(re.findall(r"^## (Sidecar\w+)$", (DOCS / "monitoring.md").read_text(), re.MULTILINE))
    for name in ALERTS:
        assert f'alertname="{name}"' in tests, name
        assert f"runbook: docs/monitoring.md#{name.lower()}\n" in RULES, name
    assert headings == set(ALERTS)
    assert RULES.count("          next: ") == RULES.count("          summary: ") == len(ALERTS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not here")
def test_alerts_fire_when_they_must_and_not_otherwise() -> None:
    words = ("promtool", "test", "rules", "alerts_test.yml")
    ended = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_dashboard_has_the_form_that_grafana_reads() -> None:
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["type"] in {"stat", "timeseries"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["source", "instance"]


def test_no_two_panels_lie_over_each_other() -> None:
    def meet(one: dict[str, int], other: dict[str, int]) -> bool:
        return all(
            one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
            for at, size in (("x", "w"), ("y", "h"))
        )

    assert not [1 for a, b in combinations(PANELS, 2) if meet(a["gridPos"], b["gridPos"])]


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    assert unknown(json.dumps(PANELS)) == set()


def test_what_alerts_ask_for_and_every_histogram_has_a_panel() -> None:
    asked = {
        PARTS.sub("", name)
        for panel in PANELS
        for one in panel["targets"]
        for name in NAME.findall(one["expr"])
    }
    histograms = {metric.name for metric in metrics() if metric.kind == "histogram"}
    assert len(histograms) == 3
    wanted = {name for name in NAME.findall(RULES) if name.startswith("sidecar_")} | histograms
    assert wanted | {"sidecar_tunnels_live", "sidecar_tunnels_total"} <= asked
