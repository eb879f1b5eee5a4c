"""Two embedded datacenters, and our sidecar between a workload and whatever peer a test brings.

Everything runs as a user would run it: processes, each with its own log; the peers' identities come from the
datacenters over HTTP.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.client import Api
from tests.contract.federation import Federation, free_port
from tests.interop.holder import Holder, holder
from tests.interop.origin import Origin

READY_SECONDS = 30.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One upstream of a sidecar of ours, and the local port it is bound to."""

    destination: str
    datacenter: str
    port: int = field(default_factory=free_port)

    def definition(self) -> dict[str, object]:
        """As the registration spells it."""
        return {
            "DestinationName": self.destination,
            "Datacenter": self.datacenter,
            "LocalBindPort": self.port,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A running sidecar of ours."""

    port: int  # the public listener
    admin: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one answer of its admin endpoint."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self) -> Any:
        """`/status`, decoded."""
        return json.loads(self.get("/status")[1])

    def addresses(self) -> set[str]:
        """Every address it would dial just now."""
        return set(_values_of("address", self.status()["upstreams"]))

    def endings(self, direction: str) -> Mapping[str, int]:
        """How many connections have ended for which reason."""
        counters: Mapping[str, int] = self.status()["counters"]["endings"][direction]
        return counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The datacenters, the workload behind our sidecars, and a place for files."""

    federation: Federation
    origin: Origin
    directory: Path

    def api(self, datacenter: str) -> Api:
        """The datacenter's API."""
        return {"dc1": self.federation.dc1, "dc2": self.federation.dc2}[datacenter]

    def holder(self, service: str, datacenter: str) -> Holder:
        """The identity a foreign peer takes."""
        return holder(self.api(datacenter), service)

    def place(self, name: str) -> Path:
        """A new directory."""
        return self.directory / f"{name}-{next(_numbers)}"

    def register_peer(
        self, service: str, datacenter: str, port: int, seen_by: Sidecar, *, tunnel: bool = False
    ) -> None:
        """Register a service whose listener is a foreign peer at this port; return when a sidecar knows.

        `tunnel`: it offers tunnels.
        """
        proxy = {
            "Kind": "connect-proxy",
            "Name": f"{service}-proxy",
            "Address": "127.0.0.1",
            "Port": port,
            "Proxy": {
                "DestinationServiceName": service,
                "Config": {"connect_sidecar_tunnel": tunnel},
            },
        }
        answer = self.api(datacenter).put("/v1/agent/service/register", proxy)
        assert answer.status == 200, answer.text
        until(lambda: f"127.0.0.1:{port}" in seen_by.addresses(), "the peer among the endpoints")

    @contextmanager
    def sidecar(
        self, service: str, datacenter: str, upstreams: Sequence[Upstream] = (), *flags: str
    ) -> Iterator[Sidecar]:
        """Register a service with the workload behind it, and run our sidecar until it is ready."""
        port, admin, api = free_port(), free_port(), self.api(datacenter)
        proxy = {"Upstreams": [upstream.definition() for upstream in upstreams]}
        definition = {
            "Name": service,
            "Address": "127.0.0.1",
            "Port": self.origin.port,
            "Connect": {
                "SidecarService": {"Port": port, "Address": "127.0.0.1", "Checks": [], "Proxy": proxy}
            },
        }
        answer = api.put("/v1/agent/service/register", definition)
        assert answer.status == 200, answer.text
        log = self.directory / f"{service}.log"
        command = [sys.executable, "-m", "agent", "run", "-sidecar-for", service, "-http-addr", api.url]
        command += ["-admin-bind", f"127.0.0.1:{admin}", "-drain-seconds", "2", "-leave-seconds", "0", *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            yield _ready(process, Sidecar(port=port, admin=admin, log=log))
        finally:
            process.terminate()
            process.wait(timeout=20)
            api.put(f"/v1/agent/service/deregister/{service}")


def _values_of(key: str, within: Any) -> Iterator[Any]:
    """The values of a key, however deep."""
    if isinstance(within, dict):
        yield from ([within[key]] if key in within else [])
        within = list(within.values())
    if isinstance(within, list):
        for each in within:
            yield from _values_of(key, each)


def until(true: Callable[[], bool], what: str) -> None:
    """Ask again and again, for there is no event of another process. Raises AssertionError, naming `what`."""
    deadline = time.monotonic() + READY_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


def _ready(process: subprocess.Popen[bytes], sidecar: Sidecar) -> Sidecar:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        assert process.poll() is None, f"ended with {process.returncode}: {sidecar.log.read_text()}"
        try:
            status, missing = sidecar.get("/ready")
        except OSError as error:
            status, missing = 0, str(error)
        if status == 200:
            return sidecar
        assert time.monotonic() < deadline, f"not ready: {missing}\n{sidecar.log.read_text()}"
        time.sleep(0.05)
