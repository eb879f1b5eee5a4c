"""Names in another case: Consul files a service and the rules for it under its lower-cased name, not callers.

The same caller's sidecar calls `Case_A` by another spelling; before the app stands ours or, where there is a
binary, Consul's own `connect proxy`. What is written for the lower-cased name holds for both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from agent.policy.authorize import authorize
from certs.spiffe import ServiceId, TrustDomain
from tests.contract.apps import App, ask, serving
from tests.contract.client import Api
from tests.contract.federation import Federation, consul_binary, free_port
from tests.contract.mesh import SECONDS, Sidecar, put, service_with_sidecar, wait_until_ready
from tests.contract.processes import process
from tests.support.policies import policy_of

AUTHORIZE = "/v1/agent/connect/authorize"
EXACT = "/v1/connect/intentions/exact"
DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
CALLER = "USTest"
BEFORE = ["ours", *([pytest.param("consul's", marks=pytest.mark.consul)] if consul_binary() else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From the caller's loopback port through two sidecars to the app of `service`."""

    api: Api
    service: str
    port: int
    caller: Sidecar

    def write(self, source: str, action: str) -> None:
        """One intention, for the lower-cased name of the service."""
        path = f"{EXACT}?source={source}&destination={self.service.lower()}"
        assert self.api.put(path, {"Action": action}).text == "true"

    def remove(self, source: str) -> None:
        """Remove it, by the other spelling."""
        path = f"{EXACT}?source={source}&destination={self.service.upper()}"
        assert self.api.delete(path).text == "true"

    def serves(self) -> bool:
        """Whether the app answers the caller."""
        return ask(self.port) == f"{self.service} hello"

    def comes_to(self, serving: bool) -> None:
        """Wait for it; both proxies hear of a change on their own."""
        deadline = monotonic() + SECONDS
        while self.serves() is not serving:
            assert monotonic() < deadline, f"serving is not {serving}: {self.caller.ask('/status')[1]}"
            sleep(0.1)  # a poll of other processes


@pytest.fixture(params=BEFORE)
def way(request: pytest.FixtureRequest, federation: Federation, tmp_path: Path, name: str) -> Iterator[Way]:
    """Open, with no intention written."""
    service, api = f"Case_{name}", federation.dc1
    public, port = ("127.0.0.51", free_port("127.0.0.51")), free_port()
    with ExitStack() as stack:
        app = stack.enter_context(serving(App(service)))
        check = {"CheckID": f"{service}-up", "Name": "up", "TTL": "24h", "Status": "passing"}
        put(api, service_with_sidecar(service, app.port, public, {}, check))
        before = _ours if request.param == "ours" else _consuls
        stack.enter_context(before(api, service, public, tmp_path))
        caller = stack.enter_context(_caller(api, service.lower(), port, tmp_path))
        found = Way(api=api, service=service, port=port, caller=caller)
        found.comes_to(serving=True)
        yield found
        for source in (CALLER, CALLER.lower(), "*"):
            found.remove(source)
    api.put(f"/v1/agent/service/deregister/{service}")


@contextmanager
def _ours(api: Api, service: str, public: tuple[str, int], directory: Path) -> Iterator[None]:
    with _sidecar(api, directory, "-sidecar-for", service.lower(), "-listen", f"{public[0]}:{public[1]}"):
        yield


@contextmanager
def _consuls(api: Api, service: str, public: tuple[str, int], directory: Path) -> Iterator[None]:
    binary = consul_binary()
    assert binary
    command = [binary, "connect", "proxy", "-sidecar-for", service.lower(), "-http-addr", api.url]
    with process(command, directory / "connect-proxy.log"):
        yield


@contextmanager
def _caller(api: Api, service: str, port: int, directory: Path) -> Iterator[Sidecar]:
    with _sidecar(api, directory, "-service", CALLER, "-upstream", f"{service}:{port}") as caller:
        yield caller


@contextmanager
def _sidecar(api: Api, directory: Path, *flags: str) -> Iterator[Sidecar]:
    admin = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "agent", "run", *flags, "-http-addr", api.url]
    command += ["-admin-bind", f"{admin[0]}:{admin[1]}", "-drain-seconds", "1", "-leave-seconds", "0"]
    with process(command, directory / f"sidecar{flags[0]}.log") as started:
        sidecar = Sidecar(admin=admin, public=("", 0), process=started)
        wait_until_ready(sidecar)
        yield sidecar


def test_a_denial_for_the_lower_cased_name_keeps_out_its_source_alone(way: Way) -> None:
    way.write(CALLER.lower(), "deny")
    way.write(CALLER, "allow")
    way.comes_to(serving=True)
    way.remove(CALLER.lower())
    way.write(CALLER, "deny")
    way.comes_to(serving=False)
    way.remove(CALLER)
    way.comes_to(serving=True)


def test_an_allowance_for_the_lower_cased_name_lets_in_its_source_alone(way: Way) -> None:
    way.write("*", "deny")
    way.comes_to(serving=False)
    way.write(CALLER.lower(), "allow")
    way.write(CALLER, "allow")
    way.comes_to(serving=True)
    way.remove(CALLER)
    way.comes_to(serving=False)


def verdicts(api: Api, service: str) -> dict[str, tuple[bool, bool]]:
    """What we make of the list, and what the agent says, of callers in three cases."""
    listed = api.get(f"/v1/connect/intentions/match?by=destination&name={service}")
    default = listed.headers["x-consul-default-acl-policy"] == "allow"
    policy = policy_of(listed.json[service], service, default_allow=default)
    found = {}
    for source in (CALLER, CALLER.lower(), CALLER.upper()):
        caller = ServiceId(trust_domain=TrustDomain(DOMAIN), datacenter="dc1", service=source)
        body = {"Target": service, "ClientCertURI": str(caller), "ClientCertSerial": "01"}
        theirs = api.post(AUTHORIZE, body).json["Authorized"]
        found[source] = (authorize(policy, caller, None).allowed, theirs)
    return found


@pytest.mark.parametrize("general", ["allow", "deny"])
def test_no_verdict_differs_whatever_the_case(dc1: Api, name: str, general: str) -> None:
    written = f"Case_{name}"
    other = {"allow": "deny", "deny": "allow"}[general]
    for source, destination, action in (
        (CALLER, written.lower(), other),
        (CALLER.lower(), written.upper(), other),
        ("*", written, general),
    ):
        dc1.put(f"{EXACT}?source={source}&destination={destination}", {"Action": action})
    differing = {CALLER: other, CALLER.lower(): other, CALLER.upper(): general}
    for spelling in (written, written.lower(), written.upper()):
        found = verdicts(dc1, spelling)
        assert found == {source: (action == "allow",) * 2 for source, action in differing.items()}
    for source in (CALLER, CALLER.lower(), "*"):
        dc1.delete(f"{EXACT}?source={source}&destination={written}")


def test_a_service_is_found_in_any_case_and_proves_its_own(dc1: Api, name: str) -> None:
    service = f"Case_{name}"
    put(dc1, service_with_sidecar(service, 80, ("127.0.0.51", 21000), {}))
    for spelling in (service, service.lower()):
        (entry,) = dc1.until(f"/v1/health/connect/{spelling}", len).json
        assert entry["Service"]["Proxy"]["DestinationServiceName"] == service
    assert dc1.get(f"/v1/agent/service/{service.lower()}").status == 404
    uri = dc1.get(f"/v1/agent/connect/ca/leaf/{service}").json["ServiceURI"]
    assert uri.endswith(f"/svc/{service}")
    dc1.put(f"/v1/agent/service/deregister/{service}")
