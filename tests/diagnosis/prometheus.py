"""A real Prometheus over the sidecars of a mesh, with the settings of `docs/monitoring.md` and its rules.

Both are taken as they are, but for time: it scrapes and judges each second, waits for no `for:`, and looks
back ten seconds where they look back minutes, so that a fault is over soon after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.contract.federation import free_port
from tests.contract.processes import Process, process
from tests.diagnosis.mesh import until

DOCS = Path(__file__).parents[2] / "docs"
RULES = (DOCS / "monitoring" / "alerts.yml").read_text()
DASHBOARD: Mapping[str, Any] = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())
WINDOW = "10s"
_TARGET = '"127.0.0.1:19000"'  # of the page
_VARIABLES = {"$instance": ".*", "$__rate_interval": WINDOW}  # as Grafana puts them in


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """It runs; `warnings` are the lines of its log, which has no others."""

    url: str
    process: Process

    def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer; an expression that does not parse is an error of HTTP."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        assert not told.get("warnings"), told
        return told["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression, now."""
        return list(self.get("query", query=expression)["result"])

    def firing(self) -> dict[str, set[str]]:
        """Return the alerts that fire, each with the instances that it names."""
        alerts: dict[str, set[str]] = {}
        for alert in self.get("alerts")["alerts"]:
            if alert["state"] == "firing":
                alerts.setdefault(alert["labels"]["alertname"], set()).add(alert["labels"]["instance"])
        return alerts

    def scraped(self) -> list[str]:
        """Return a line for each target that is not well."""
        targets = self.get("targets")["activeTargets"]
        return [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets if one["health"] != "up"]

    @property
    def warnings(self) -> str:
        """What its log has, from warnings on."""
        return self.process.log.read_text()


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel of the dashboard and an expression of it, as Grafana asks for it."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            yield panel["title"], expression


def variables() -> Iterator[tuple[str, str]]:
    """Yield metric and label of each variable of the dashboard that asks Prometheus for its values."""
    for one in DASHBOARD["templating"]["list"]:
        if one["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["query"])
            assert found, one["query"]
            yield found[1], found[2]


@contextmanager
def running(directory: Path, admins: Mapping[str, int]) -> Iterator[Prometheus]:
    """Prometheus, once each sidecar was scraped; `admins`: the port of each sidecar's admin endpoint."""
    (directory / "alerts.yml").write_text(_hurried(RULES))
    file = directory / "prometheus.yml"
    file.write_text("global: {scrape_interval: 1s, evaluation_interval: 1s}\n" + _page(admins.values()))
    port = free_port()
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={directory / 'series'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with process(command, directory / "prometheus.log") as started:
        prometheus = Prometheus(url=f"http://127.0.0.1:{port}", process=started)
        until(lambda: _counts(prometheus) == len(admins), started.last_words)
        yield prometheus


def _page(ports: Iterable[int]) -> str:
    """Return the settings of the page, with these targets for the one that it names."""
    page = (DOCS / "monitoring.md").read_text()
    (block,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", page, re.DOTALL)
    assert block.count(_TARGET) == 1
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    return str(block.replace(_TARGET, targets))


def _hurried(rules: str) -> str:
    return re.sub(r"\[\d+m\]", f"[{WINDOW}]", re.sub(r"(?m)^( +for:) \w+$", r"\1 0s", rules))


def _counts(prometheus: Prometheus) -> int:
    """How many sidecars were scraped; none while it does not listen."""
    try:
        return len(prometheus.query("sidecar_build_info"))
    except OSError:
        return 0
