"""Two real Consul datacenters in network namespaces of their own, with a cable between them that can be cut.

Their HTTP API is at unix sockets, which a test reaches from wherever it is. Takes root.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.contract.federation import consul_binary, switched_off
from tests.contract.processes import process

ADDRESS = {"dc1": "10.67.0.11", "dc2": "10.67.0.21"}
SERF_WAN, SERF_LAN, SERVER = 8302, 8301, 8300
SECONDS = 60.0


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: object = None) -> tuple[int, str]:
    """One exchange at a unix socket: status and body; status 0 while no process listens."""
    with closing(_Connection(path)) as connection:
        try:
            connection.request(method, target, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError:
            return 0, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One datacenter: the network namespace, and its agent's socket."""

    namespace: str
    api: Path

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs `command` there."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def call(self, method: str, target: str, body: object = None) -> Any:
        """Return the decoded answer, which must be a 200."""
        status, text = ask(self.api, method, target, body)
        assert status == 200, (target, status, text)
        return json.loads(text or "true")

    def cut(self) -> None:
        """Take the cable off."""
        _ip("-n", self.namespace, "link", "set", "wan", "down")

    def mend(self) -> None:
        """Put the cable back."""
        _ip("-n", self.namespace, "link", "set", "wan", "up")


@contextmanager
def two_sites(directory: Path) -> Iterator[tuple[Place, Place]]:
    """dc1, the primary, and dc2, which have found each other and sign leaves; ended by process id."""
    places = {
        name: Place(namespace=f"weather-{os.getpid()}-{name}", api=directory / f"{name}.sock")
        for name in ADDRESS
    }
    dc1, dc2 = places.values()
    with ExitStack() as stack:
        for place in places.values():
            _ip("netns", "add", place.namespace)
            stack.callback(_ip, "netns", "del", place.namespace)
        near = ("link", "add", "wan", "netns", dc1.namespace, "type", "veth")
        _ip(*near, "peer", "name", "wan", "netns", dc2.namespace)
        for name, place in places.items():
            _ip("-n", place.namespace, "addr", "add", f"{ADDRESS[name]}/24", "dev", "wan")
            _ip("-n", place.namespace, "link", "set", "lo", "up")
            place.mend()
            command = place.inside(*_consul(name, place, directory))
            stack.enter_context(process(command, directory / f"{name}.log"))
        _wait(dc1, dc2)
        yield dc1, dc2


def _consul(name: str, place: Place, directory: Path) -> list[str]:
    binary = consul_binary()
    assert binary
    (other,) = (address for key, address in ADDRESS.items() if key != name)
    settings = {
        "datacenter": name,
        "primary_datacenter": "dc1",
        "node_name": f"node-{name}",
        "server": True,
        "bootstrap_expect": 1,
        "data_dir": str(directory / name),
        "bind_addr": ADDRESS[name],
        "addresses": {"http": f"unix://{place.api}"},
        "ports": {"http": 8500, **switched_off(binary, "https", "grpc", "dns")},
        "retry_join_wan": [f"{other}:{SERF_WAN}"],
        "retry_interval_wan": "1s",
        "connect": {"enabled": True},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
    }
    file = directory / f"{name}.json"
    file.write_text(json.dumps(settings))
    return [binary, "agent", "-config-file", str(file)]


def _wait(dc1: Place, dc2: Place) -> None:
    deadline = monotonic() + SECONDS
    while not (_ready(dc1) and _ready(dc2)):
        assert monotonic() < deadline, "the datacenters have not found each other"
        sleep(0.2)  # a poll of other processes; there is nothing to wait on


def _ready(place: Place) -> bool:
    status, text = ask(place.api, "GET", "/v1/catalog/datacenters")
    if status != 200 or len(json.loads(text)) != 2:
        return False
    return ask(place.api, "GET", "/v1/agent/connect/ca/leaf/probe")[0] == 200


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
