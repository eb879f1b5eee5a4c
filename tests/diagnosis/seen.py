"""What doctor, ping, `/status` and the alerts say of a mesh: each as its users have it."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli import doctor, ping
from agent.cli.console import Console
from tests.diagnosis.mesh import Sidecar
from tests.support.agent_in_process import wall

RULES = Path(__file__).parents[2] / "docs" / "monitoring" / "alerts.yml"
MINUTES = 90  # a fault lasts this long in the series, above the `for:` of every rule
_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")

Row = dict[str, Any]


def _said(main: Any, name: str, *words: str) -> Row:
    console = Console(words=words, environ={}, out=io.StringIO(), err=io.StringIO())
    code = main(name, console)
    assert isinstance(console.out, io.StringIO)
    assert isinstance(console.err, io.StringIO)
    text = console.out.getvalue()
    return dict(json.loads(text)) if text else {"exit": code, "complaint": console.err.getvalue()}


def first_not_ok(sidecar: Sidecar) -> tuple[str, str]:
    """The head of `sidecar doctor`: the text and the remedy of the first cause; empty when all is well."""
    row = _said(doctor.main, "doctor", "-config", str(sidecar.file), "-json")["cause"]
    return ("", "") if row is None else (f"{row['subject']}: {row['found']}", row["remedy"])


def first_red(sidecar: Sidecar, upstream: str) -> tuple[str, str]:
    """The station of `sidecar ping` that is red first, or amber if none is, and its text."""
    told = _said(ping.main, "ping", "-config", str(sidecar.file), "-json", upstream)
    for state in ("fail", "warn"):
        for station in told.get("stations", []):
            if station["state"] == state:
                return station["name"], station["text"]
    return "", told.get("complaint", "")


def problems(sidecar: Sidecar) -> str:
    """What the page shows in red: the headline, the complaints, and the instances that are ejected."""
    status = sidecar.status()
    if not status:
        return ""
    targets = [target for upstream in status["upstreams"] for target in upstream["targets"]]
    instances = [instance for target in targets for instance in target["endpoints"]]
    out = [f"{one['instance']} ejected" for one in instances if one["ejected_until"] is not None]
    return "\n".join((status["headline"], *status["complaints"], *out))


def firing(before: str, after: str, alert: str, directory: Path) -> str:
    """Ask promtool whether an alert fires when the change between two scrapes goes on; its complaint if not.

    Without a name it is asked whether none fires.
    """
    wanted = f'ALERTS{{alertstate="firing",alertname="{alert}"}}' if alert else 'ALERTS{alertstate="firing"}'
    case = {
        "expr": f"group by (alertname) ({wanted})",
        "eval_time": f"{MINUTES - 5}m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
    }
    series = list(_series(before, after))
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [case]}
    file = directory / "scraped.json"  # JSON is YAML too
    file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}))
    words = ["promtool", "test", "rules", str(file)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


def _series(before: str, after: str) -> Iterator[dict[str, str]]:
    """Yield the series of a fault: what has grown goes on growing, what has changed stays so."""
    if not after:  # Prometheus notes that no agent answers
        yield {"series": _full("up", ""), "values": f"0x{MINUTES}"}
        return
    old, shift = dict(_samples(before)), wall().timestamp() - 60 * (MINUTES - 5)
    kinds = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", after))
    for key, value in _samples(after):
        name, labels = key
        start = old.get(key, value)
        if kinds.get(name) == "counter":
            # A counter of a process that has begun anew has grown from zero.
            grown = value - start if value >= start else value
            values = f"{start:g}+{grown:g}x{MINUTES}"
        else:
            # Prometheus' clock begins at 0 in a test of rules.
            now = value - shift if name.endswith("_timestamp_seconds") else value
            values = f"{now:g}x{MINUTES}"
        yield {"series": _full(name, labels), "values": values}


def _samples(text: str) -> Iterator[tuple[tuple[str, str], float]]:
    for line in text.splitlines():
        found = _SAMPLE.fullmatch(line)
        if found and not line.startswith("#"):
            yield (found["name"], found["labels"] or ""), float(found["value"])


def _full(name: str, labels: str) -> str:
    """A series as Prometheus has it after a scrape."""
    return f'{name}{{{labels}{"," if labels else ""}instance="web",job="sidecar"}}'
