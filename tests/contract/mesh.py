"""A mesh beside a federation: `web` in dc1, `db` in both datacenters, a `sidecar run` process beside each.

Every sidecar listens on a loopback address of its own and has its own TCP check there. dc2's db is registered
under a LAN address on which nothing listens, with a WAN tagged address which is where its sidecar is: who
reaches it from dc1 has taken the WAN pair.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from cryptography import x509

from tests.contract.apps import App, ask, serving
from tests.contract.client import Api
from tests.contract.federation import Federation, free_port
from tests.contract.processes import Process, process
from tests.contract.services import tcp, ttl

SECONDS = 30.0  # for a process to be ready
LAN_OF_DC2 = "127.0.0.41"
QUERY = "db-near"

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """One running sidecar: where its admin endpoint and its public listener are."""

    admin: Address
    public: Address
    process: Process

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of an admin path; status 0 while no process listens."""
        with closing(http.client.HTTPConnection(*self.admin, timeout=SECONDS)) as connection:
            try:
                connection.request("GET", path)
                reply = connection.getresponse()
                return reply.status, reply.read().decode()
            except ConnectionError:
                return 0, ""

    def leaf(self) -> x509.Certificate:
        """The leaf it presents, from a handshake in which we present none and trust everything."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(self.public, timeout=SECONDS) as raw,
            context.wrap_socket(raw) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
        assert der
        return x509.load_der_x509_certificate(der)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """All of it. `upstreams`: the ports web dials on loopback, for `dc2`, for the `query`, for `dc1`."""

    federation: Federation
    apps: dict[str, App]
    sidecars: dict[str, Sidecar]
    upstreams: dict[str, int]


@contextmanager
def running_mesh(federation: Federation, directory: Path) -> Iterator[Mesh]:
    """Everything up, ready and passing."""
    dc1, dc2 = federation
    public = {name: (host, free_port(host)) for name, host in _HOSTS.items()}
    upstreams = {name: free_port() for name in ("dc2", "query", "dc1")}
    with ExitStack() as stack:
        apps = {api.name: stack.enter_context(serving(App(api.name))) for api in federation}
        put(dc1, _web(public["web"], upstreams))
        put(dc1, _db(apps["dc1"], public["db-dc1"], public["db-dc1"]))
        put(dc2, _db(apps["dc2"], (LAN_OF_DC2, public["db-dc2"][1]), public["db-dc2"]))
        near = {"Service": "db", "Failover": {"Datacenters": ["dc2"]}, "OnlyPassing": True, "Connect": True}
        assert dc1.post("/v1/query", {"Name": QUERY, "Service": near}).status == 200
        sidecars = {
            name: stack.enter_context(_sidecar(name, api, address, directory))
            for (name, address), api in zip(public.items(), (dc1, dc1, dc2), strict=True)
        }
        mesh = Mesh(federation=federation, apps=apps, sidecars=sidecars, upstreams=upstreams)
        for sidecar in sidecars.values():
            wait_until_ready(sidecar)
        for api, service in ((dc1, "web"), (dc1, "db"), (dc2, "db")):
            api.until(f"/v1/health/connect/{service}?passing", len)
        for port in upstreams.values():
            _wait_until_answered(port)
        yield mesh


_HOSTS = {"web": "127.0.0.31", "db-dc1": "127.0.0.32", "db-dc2": "127.0.0.42"}


def put(api: Api, service: dict[str, Any]) -> None:
    """Register."""
    answer = api.put("/v1/agent/service/register", service)
    assert (answer.status, answer.text) == (200, "")


def _web(public: Address, ports: dict[str, int]) -> dict[str, Any]:
    soon = {"poll_interval": "500ms"}
    upstreams = [
        {"DestinationName": "db", "Datacenter": "dc2", "LocalBindPort": ports["dc2"]},
        {
            "DestinationType": "prepared_query",
            "DestinationName": QUERY,
            "LocalBindPort": ports["query"],
            "Config": soon,
        },
        {"DestinationName": "db", "LocalBindPort": ports["dc1"]},
    ]
    return service_with_sidecar("web", 9, public, {"Upstreams": upstreams}, tcp("web-door", *public))


def _db(app: App, registered: Address, public: Address) -> dict[str, Any]:
    checks = [tcp("db-door", *public), {"Name": "db itself", "AliasService": "db"}]
    service = service_with_sidecar("db", app.port, registered, {}, *checks)
    if registered != public:
        wan = {"wan": {"Address": public[0], "Port": public[1]}}
        service["Connect"]["SidecarService"]["TaggedAddresses"] = wan
    return service | {"Check": ttl("db-pulse")}


def service_with_sidecar(
    name: str, port: int, at: Address, proxy: dict[str, Any], *checks: dict[str, Any]
) -> dict[str, Any]:
    sidecar = {"Address": at[0], "Port": at[1], "Proxy": proxy, "Checks": list(checks)}
    return {"Name": name, "Port": port, "Connect": {"SidecarService": sidecar}}


@contextmanager
def calling_only(api: Api, name: str, port: int, directory: Path, *flags: str) -> Iterator[Sidecar]:
    """One more sidecar of web, unregistered, ready: nobody calls it; its app dials db of dc2 at `port`."""
    admin = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "agent", "run", "-service", "web", "-upstream", f"db@dc2:{port}"]
    command += ["-http-addr", api.url, "-admin-bind", f"{admin[0]}:{admin[1]}", *flags]
    with process(command, directory / f"sidecar-{name}.log") as started:
        sidecar = Sidecar(admin=admin, public=("", 0), process=started)
        wait_until_ready(sidecar)
        _wait_until_answered(port)
        yield sidecar


@contextmanager
def _sidecar(name: str, api: Api, public: Address, directory: Path) -> Iterator[Sidecar]:
    admin = ("127.0.0.1", free_port())
    log = directory / f"sidecar-{name}.log"
    command = [sys.executable, "-m", "agent", "run", "-sidecar-for", name.partition("-")[0]]
    command += ["-http-addr", api.url, "-admin-bind", f"{admin[0]}:{admin[1]}"]
    command += ["-listen", f"{public[0]}:{public[1]}", "-drain-seconds", "1", "-leave-seconds", "0"]
    with process(command, log) as started:
        yield Sidecar(admin=admin, public=public, process=started)


def wait_until_ready(sidecar: Sidecar) -> None:
    deadline = monotonic() + SECONDS
    while (answer := sidecar.ask("/ready"))[0] != 200:
        sidecar.process.must_live()
        assert monotonic() < deadline, f"not ready, {answer}:\n{sidecar.process.last_words()}"
        sleep(0.1)  # a poll of another process; there is nothing to wait on


def _wait_until_answered(port: int) -> None:
    """Until web's sidecar has heard what Consul says already."""
    deadline = monotonic() + SECONDS
    while not ask(port):
        assert monotonic() < deadline, f"nobody answers on upstream port {port}"
        sleep(0.1)
