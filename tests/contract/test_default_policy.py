"""What is let in where no intention matches: as the agent says it, with the token that a sidecar has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.intentions.default_policy import unnamed_caller
from tests.contract.alone import IDENTITY, IDENTITY_TOKEN, Default, alone
from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.contract.federation import free_port
from tests.contract.mesh import Sidecar, wait_until_ready
from tests.contract.processes import process

AUTHORIZE = "/v1/agent/connect/authorize"
EXACT = "/v1/connect/intentions/exact"


@pytest.fixture(scope="module", params=["allow", "deny"])
def default(request: pytest.FixtureRequest) -> Default:
    """What ACLs say."""
    found: Default = request.param
    return found


@pytest.fixture(scope="module", params=KINDS)
def agent(
    request: pytest.FixtureRequest, default: Default, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """A datacenter to ask."""
    with alone(request.param, default, tmp_path_factory.mktemp("default")) as api:
        yield api


def about(api: Api, caller: str) -> Any:
    """What the agent says of a caller of the service."""
    return api.post(AUTHORIZE, {"Target": IDENTITY, "ClientCertURI": caller, "ClientCertSerial": ""}).json


@pytest.mark.parametrize("action", ["allow", "deny"])
def test_no_intention_names_the_unnamed_caller_not_even_that_of_any_source(
    agent: Api, default: Default, action: str
) -> None:
    pairs = [(source, destination) for source in ("*", "web") for destination in ("*", IDENTITY)]
    for source, destination in pairs:
        agent.put(f"{EXACT}?source={source}&destination={destination}", {"Action": action})
    for caller in (unnamed_caller("x.consul", "dc1"), unnamed_caller("", "")):
        assert about(agent, caller) == {
            "Authorized": default == "allow",
            "Reason": "Default behavior configured by ACLs",
        }
    for source, destination in pairs:
        agent.delete(f"{EXACT}?source={source}&destination={destination}")


@contextmanager
def running(api: Api, directory: Path, *flags: str) -> Iterator[Sidecar]:
    """A sidecar of the service with the token of its identity, and no app behind it."""
    admin = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "agent", "run", "-service", IDENTITY, "-service-addr", "127.0.0.1:9"]
    command += ["-listen", f"127.0.0.1:{free_port()}", "-http-addr", api.url, "-token", IDENTITY_TOKEN]
    command += ["-admin-bind", f"{admin[0]}:{admin[1]}", *flags]
    with process(command, directory / "sidecar.log") as started:
        sidecar = Sidecar(admin=admin, public=("", 0), process=started)
        wait_until_ready(sidecar)
        yield sidecar


def intentions(sidecar: Sidecar) -> Any:
    return json.loads(sidecar.ask("/status")[1])["intentions"]


def test_a_sidecar_learns_it_with_its_service_identity(agent: Api, default: Default, tmp_path: Path) -> None:
    with running(agent, tmp_path) as sidecar:
        found = intentions(sidecar)
        assert (found["default"], found["default_unknown"]) == (default, "")
        said = "authorize allows: Default behavior configured by ACLs" if default == "allow" else ""
        assert found["default_origin"] == said


@pytest.mark.parametrize(("acl", "setting", "holds"), [("allow", "deny", "deny"), ("deny", "allow", "deny")])
def test_the_stricter_of_acl_default_and_intention_default_holds(
    tmp_path: Path, acl: Default, setting: str, holds: str
) -> None:
    """A real Consul before 1.18.0 has no such setting, so the embedded one has to do."""
    with alone("embedded", acl, tmp_path, intentions=setting) as api, running(api, tmp_path) as sidecar:
        assert about(api, unnamed_caller("", ""))["Authorized"] is (setting == "allow")
        assert intentions(sidecar)["default"] == holds
