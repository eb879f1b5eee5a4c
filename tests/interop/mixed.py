"""A mesh of three kinds of proxy beside a real Consul: ours, Consul's own, and Envoy as Consul configures it.

`web-KIND` runs in dc1 with an upstream to `db-KIND` of either datacenter, for each kind. Each sidecar is the
process that a user would start, by the command that a user would type.
"""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.contract.apps import App, ask, serving
from tests.contract.client import Api
from tests.contract.federation import Federation, consul_binary, consul_version, free_port, running
from tests.contract.mesh import put
from tests.contract.processes import process
from tests.interop.envoy import BINARY as ENVOY

SECONDS = 60.0


class Kind(StrEnum):
    """Whose proxy it is."""

    OURS = "ours"
    BUILT_IN = "builtin"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A caller's kind in dc1, the callee's kind, and the datacenter of the callee."""

    caller: Kind
    callee: Kind
    datacenter: str

    def __str__(self) -> str:
        return f"{self.caller}-to-{self.callee}-in-{self.datacenter}"


PAIRS = [
    Pair(caller=caller, callee=callee, datacenter=datacenter)
    for caller, callee, datacenter in itertools.product(Kind, Kind, ("dc1", "dc2"))
]


class HttpApp(http.server.ThreadingHTTPServer):
    """An app that answers each GET with 200 and its own name."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Names)
        self.name = name
        self.port = int(self.server_address[1])


class _Names(http.server.BaseHTTPRequestHandler):
    server: HttpApp

    def do_GET(self) -> None:
        body = self.server.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedMesh:
    """The mesh, running. `ports`: where the app of a pair's caller dials on loopback."""

    federation: Federation
    ports: Mapping[Pair, int]

    def ask(self, pair: Pair) -> str:
        """Return what the callee's app answers to one line; empty if the call was refused."""
        return ask(self.ports[pair])

    def refuses(self, pair: Pair) -> bool:
        """Tell whether a call is refused now."""
        return not self.ask(pair)

    def answers(self, pair: Pair, path: str, *statuses: int) -> bool:
        """Tell whether a request is answered with one of these statuses now."""
        return self.get(pair, path) in statuses

    def get(self, pair: Pair, path: str) -> int:
        """Return the status that the callee, or a proxy before it, answers; 0 if there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[pair], timeout=SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def intend(self, source: str, destination: str, **what: object) -> None:
        """Write an intention in the primary."""
        path = f"/v1/connect/intentions/exact?source={source}&destination={destination}"
        assert self.federation.dc1.put(path, what).status == 200


def until(true: Callable[[], object], what: str) -> None:
    """Ask again and again until it is true. Raises AssertionError, which names `what`, after a minute."""
    deadline = monotonic() + SECONDS
    while not true():
        assert monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        sleep(0.1)  # a poll of other processes; there is nothing to wait on


@contextmanager
def mixed_mesh(directory: Path, protocol: str) -> Iterator[MixedMesh]:
    """Bring up everything, and end it. `protocol`: of every `db-KIND`, `tcp` or `http`."""
    grpc = [free_port(), free_port()]
    ports = {pair: free_port() for pair in PAIRS}
    app = App if protocol == "tcp" else HttpApp
    with ExitStack() as stack:
        federation = stack.enter_context(running("consul", directory, grpc=grpc))
        _set_protocol(federation, protocol)
        commands: dict[str, list[str]] = {}
        for api, xds in zip(federation, grpc, strict=True):
            for kind in Kind:
                served = stack.enter_context(serving(app(f"{kind}-{api.name}")))
                put(api, _service(f"db-{kind}", served.port, ()))
                commands[f"db-{kind}-{api.name}"] = command_of(kind, f"db-{kind}", api, xds, directory)
        for kind in Kind:
            upstreams = [_upstream(pair, port) for pair, port in ports.items() if pair.caller is kind]
            put(federation.dc1, _service(f"web-{kind}", 9, upstreams))
            commands[f"web-{kind}"] = command_of(kind, f"web-{kind}", federation.dc1, grpc[0], directory)
        for name, command in commands.items():
            stack.enter_context(process(command, directory / f"{name}.log"))
        yield MixedMesh(federation=federation, ports=ports)


def _set_protocol(federation: Federation, protocol: str) -> None:
    """Write the protocol of each service in the primary, and wait until the secondary has it."""
    for kind in Kind:
        entry = {"Kind": "service-defaults", "Name": f"db-{kind}", "Protocol": protocol}
        assert federation.dc1.put("/v1/config", entry).status == 200
        until(
            partial(_known, federation.dc2, f"/v1/config/service-defaults/db-{kind}"), "the protocol in dc2"
        )


def _known(api: Api, path: str) -> bool:
    return api.get(path).status == 200


def _service(name: str, port: int, upstreams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    proxy = {"Upstreams": list(upstreams)}
    sidecar = {"Address": "127.0.0.1", "Port": free_port(), "Proxy": proxy, "Checks": []}
    return {"Name": name, "Address": "127.0.0.1", "Port": port, "Connect": {"SidecarService": sidecar}}


def _upstream(pair: Pair, port: int) -> dict[str, Any]:
    return {"DestinationName": f"db-{pair.callee}", "Datacenter": pair.datacenter, "LocalBindPort": port}


def command_of(kind: Kind, service: str, api: Api, xds: int, directory: Path) -> list[str]:
    """Return the command that starts a sidecar of this kind beside a service that is registered."""
    consul = consul_binary()
    assert consul
    beside = ["-sidecar-for", service, "-http-addr", api.url]
    match kind:
        case Kind.OURS:
            admin = f"127.0.0.1:{free_port()}"
            own = ["-admin-bind", admin, "-drain-seconds", "1", "-leave-seconds", "0"]
            return [sys.executable, "-m", "agent", "run", *beside, *own]
        case Kind.BUILT_IN:
            return [consul, "connect", "proxy", *beside]
        case Kind.ENVOY:
            told = [consul, "connect", "envoy", *beside, "-bootstrap", "-grpc-addr", f"127.0.0.1:{xds}"]
            told += ["-admin-bind", f"127.0.0.1:{free_port()}"]
            if consul_version(consul) >= (1, 18):
                told += ["-ignore-envoy-compatibility"]
            bootstrap = json.loads(subprocess.run(told, capture_output=True, check=True, timeout=30).stdout)
            file = directory / f"{service}-{api.name}-envoy.json"
            file.write_text(json.dumps(bootstrap))
            return [str(ENVOY), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
