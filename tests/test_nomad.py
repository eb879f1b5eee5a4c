"""`docs/nomad.md`: its arguments start a sidecar beside a registration such as Nomad makes; no Nomad runs."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from time import monotonic, sleep
from typing import Any

import pytest

from agent.config.load import read_settings
from agent.config.settings import IdentityKind, Settings
from agent.control.self_registration import LEAVE_SECONDS
from tests.contract.alone import alone
from tests.contract.apps import App, ask, serving
from tests.contract.client import Api
from tests.contract.federation import free_port
from tests.contract.processes import Process, process

PAGE = Path(__file__).parents[1] / "docs" / "nomad.md"
ALLOCATION = "7d3f0a52-9e1c-4c33-8a51-3c2f5f0f4f10"
SECONDS = 40
MOST_OF_A_CLIENT = 30.0  # seconds: max_kill_timeout of a Nomad client, unless it is set

JOBS = range(2)


def arguments(number: int, values: Mapping[str, str], **instead: str) -> list[str]:
    """The words of one job with Nomad's values; `instead`: fixed values that a test cannot have."""
    block = re.findall(r"args = \[(.*?)\]", PAGE.read_text(), re.DOTALL)[number]
    words = json.loads(f"[{block.rstrip().rstrip(',')}]")
    found = [Template(word).substitute(values) for word in words]
    for flag, value in instead.items():
        found[found.index(f"-{flag.replace('_', '-')}") + 1] = value
    return found


def nomad(directory: Path, **ports: int) -> dict[str, str]:
    """The variables that Nomad has for a task."""
    fixed = {"NOMAD_ALLOC_ID": ALLOCATION, "NOMAD_GROUP_NAME": "api", "NOMAD_TASK_DIR": str(directory)}
    fixed["NOMAD_SECRETS_DIR"] = str(directory)
    addresses = {f"NOMAD_ADDR_{label}": f"127.0.0.1:{port}" for label, port in ports.items()}
    return {**fixed, **addresses, **{f"NOMAD_PORT_{label}": str(port) for label, port in ports.items()}}


def called(upstream: int, sidecar: Process) -> str:
    """The answer, once the sidecar serves."""
    deadline = monotonic() + SECONDS
    while not (answer := ask(upstream)):
        sidecar.must_live()
        assert monotonic() < deadline, sidecar.last_words()
        sleep(0.1)
    return answer


def register(api: Api, service: dict[str, Any]) -> None:
    assert api.put("/v1/agent/service/register", service).status == 200


def settings(number: int, directory: Path) -> Settings:
    """What the sidecar makes of a job's arguments; there are no mistakes."""
    (directory / "si_token").write_text("secret")
    command, *words = arguments(number, nomad(directory, mesh=23456, api=23457))
    assert command == "run"
    resolution = read_settings(words, {})
    assert resolution is not None
    assert resolution.settings is not None, resolution.mistakes
    return resolution.settings


@pytest.mark.parametrize("number", JOBS)
def test_the_arguments_of_each_job_are_settings_of_the_sidecar(number: int, tmp_path: Path) -> None:
    found = settings(number, tmp_path)
    assert found.identity in (IdentityKind.PROXY_ID, IdentityKind.SERVICE)
    assert str(found.admin_bind[0]) == f"unix:{tmp_path}/admin.sock"


@pytest.mark.parametrize("number", JOBS)
def test_each_job_waits_longer_for_the_end_than_the_sidecar_drains(number: int, tmp_path: Path) -> None:
    waits = [float(text) for text in re.findall(r'kill_timeout = "(\d+)s"', PAGE.read_text())]
    assert len(waits) == len(JOBS)
    found = settings(number, tmp_path)
    assert found.drain_seconds is not None
    assert found.leave_seconds is None
    assert LEAVE_SECONDS + found.drain_seconds < waits[number] <= MOST_OF_A_CLIENT


@pytest.mark.slow
def test_the_task_that_stands_in_for_envoy(tmp_path: Path) -> None:
    """The service calls itself through the mesh: one sidecar is both ends."""
    mesh, upstream = free_port(), free_port()
    with alone("embedded", "allow", tmp_path) as api, serving(App("count-api")) as app:
        name = f"_nomad-task-{ALLOCATION}-group-api-count-api-api"
        register(api, {"ID": name, "Name": "count-api", "Address": "127.0.0.1", "Port": app.port})
        proxy = {
            "DestinationServiceName": "count-api",
            "DestinationServiceID": name,
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": app.port,
            "Config": {"bind_address": "0.0.0.0", "bind_port": mesh},
            "Upstreams": [{"DestinationName": "count-api", "LocalBindPort": upstream}],
        }
        at = {"Kind": "connect-proxy", "Address": "127.0.0.1", "Port": mesh, "Proxy": proxy}
        register(api, {"ID": f"{name}-sidecar-proxy", "Name": "count-api-sidecar-proxy", **at})
        words = arguments(0, nomad(tmp_path), http_addr=api.url)
        words = words[: words.index("-token-file")]  # the last pair, left out without ACLs as the page says
        with process([sys.executable, "-m", "agent", *words], tmp_path / "sidecar.log") as started:
            assert called(upstream, started) == "count-api hello"
            started.send(signal.SIGINT)  # as Nomad ends a task
            assert started.ends() == 0


@pytest.mark.slow
def test_the_prestart_task(tmp_path: Path) -> None:
    mesh, upstream = free_port(), free_port()
    with alone("embedded", "allow", tmp_path) as api, serving(App("count-api")) as app:
        register(api, {"Name": "count-api", "Address": "127.0.0.1", "Port": app.port})
        values = nomad(tmp_path, mesh=mesh, api=app.port)
        words = arguments(1, values, http_addr=api.url, upstream=f"count-api:{upstream}")
        with process([sys.executable, "-m", "agent", *words], tmp_path / "sidecar.log") as started:
            assert called(upstream, started) == "count-api hello"
            started.send(signal.SIGINT)  # as Nomad ends a task
            assert started.ends() == 0
